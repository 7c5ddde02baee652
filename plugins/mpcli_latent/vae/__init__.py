"""Variational autoencoder: a latent-variable model fitted by amortised inference.

    p(z) = N(0, I)      p(x|z) = Bernoulli(f(z)) or N(f(z), s^2 I)      q(z|x) = N(m(x), diag s(x)^2)

    log p(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) + KL(q(z|x) || p(z|x))
            >= E_q[log p(x|z)] - KL(q(z|x) || p(z))                       the ELBO, in nats
    KL(q(z|x) || p(z)) = 1/2 sum_j (m_j^2 + s_j^2 - 1 - log s_j^2)

    log p(x) >= E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q      tighter with K, exact in the limit

The gradient flows through the sample, z = m(x) + s(x) * e with e ~ N(0, I). The Bernoulli decoder sees pixels binarised
at 0.5, so that its likelihood is one of data and comparable between models.

With `--beta 0` reconstruction alone is learned: codes become points with gaps between them. With `--reconstruction 0`
the KL alone is, and codes say nothing of x. `render` shows codes, traversals and the noise of two gradient estimates.

Kingma and Welling, Auto-Encoding Variational Bayes, 2014. arXiv:1312.6114
Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016. arXiv:1509.00519
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, kl_divergence
from torch.nn.functional import softplus

from mpcli.kit import datasets, densities
from mpcli.kit.datasets import Images, Pictures
from mpcli.kit.pictures import tiles
from mpcli.run import Run, Trained
from mpcli_latent.vae.equations import gradcheck as gradcheck
from mpcli_latent.vae.estimators import reparameterised, score_function
from mpcli_latent.vae.pictures import noise_picture, scatter

BETWEEN = 10  # images of an interpolation
SAMPLES = (1, 2, 4, 8, 16, 32)  # K of which the gradient is estimated


@dataclass(frozen=True)
class Config:
    latent: Annotated[int, "dimension of z", Ge(1)] = 16
    hidden: Annotated[int, "width of the two hidden layers on each side", Ge(1)] = 256
    decoder: Annotated[Literal["bernoulli", "gaussian"], "likelihood p(x|z)"] = "bernoulli"
    dropout: Annotated[float, "share of hidden units dropped while training", Interval(ge=0, lt=1)] = 0.0
    beta: Annotated[float, "weight of KL(q || p) in the objective; 1: the ELBO", Ge(0)] = 1.0
    reconstruction: Annotated[float, "weight of E_q log p(x|z) in the objective; 1: the ELBO", Ge(0)] = 1.0
    steps: Annotated[int, "training steps", Ge(1)] = 4000
    batch: Annotated[int, "images a step", Ge(1)] = 128
    lr: Annotated[float, "learning rate at the start; it falls to zero as a half cosine", Gt(0)] = 2e-3


def network(cfg: Config, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, cfg.hidden):
        layers += [nn.Linear(width, cfg.hidden), nn.SiLU(), nn.Dropout(cfg.dropout)]
    return nn.Sequential(*layers, nn.Linear(cfg.hidden, outputs))


class VAE(nn.Module):
    """The model of images of one shape [C, H, W]."""

    def __init__(self, cfg: Config, shape: tuple[int, ...]):
        super().__init__()
        self.cfg, self.shape = cfg, tuple(shape)
        self.encoder = network(cfg, math.prod(shape), 2 * cfg.latent)
        self.decoder = network(cfg, cfg.latent, math.prod(shape))
        self.log_noise = nn.Parameter(torch.tensor(-1.0))  # log s of the Gaussian decoder

    def data(self, x: Tensor) -> Tensor:  # what the likelihood is a likelihood of
        return (x > 0.5).to(x) if self.cfg.decoder == "bernoulli" else x

    def prior(self) -> Distribution:
        zero = self.log_noise.new_zeros(self.cfg.latent)
        return Independent(Normal(zero, zero + 1), 1)

    def posterior(self, x: Tensor) -> Distribution:  # [B, C, H, W] -> q(z|x) over [B, D]
        mean, scale = self.encoder(self.data(x).flatten(1)).chunk(2, dim=1)
        return Independent(Normal(mean, softplus(scale) + 1e-4), 1)

    def likelihood(self, z: Tensor) -> Distribution:  # [..., D] -> p(x|z) over [..., C, H, W]
        out = self.decoder(z).unflatten(-1, self.shape)
        pixels = Bernoulli(logits=out) if self.cfg.decoder == "bernoulli" else Normal(out, self.log_noise.exp())
        return Independent(pixels, len(self.shape))

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [B, C, H, W] -> log p(x|z) with z ~ q, and KL [B], nats
        q = self.posterior(x)
        return self.likelihood(q.rsample()).log_prob(self.data(x)), kl_divergence(q, self.prior())

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> the objective [B]: the ELBO where both weights are 1
        seen, kl = self.terms(x)
        return self.cfg.reconstruction * seen - self.cfg.beta * kl

    def elbo(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> ELBO [B], nats
        seen, kl = self.terms(x)
        return seen - kl

    def log_likelihood(self, x: Tensor, samples: int) -> Tensor:  # [B, C, H, W] -> importance-weighted log p(x) [B]
        q = self.posterior(x)
        z = q.sample((samples,))  # [K, B, D]
        log_weights = self.likelihood(z).log_prob(self.data(x)) + self.prior().log_prob(z) - q.log_prob(z)
        return log_weights.logsumexp(0) - math.log(samples)


Importance = Annotated[int, "samples K of the importance-weighted log-likelihood", Ge(1)]


def train(
    cfg: Config, run: Run, data: Annotated[str, "dataset of images"] = "digits", importance: Importance = 500
) -> None:
    images = datasets.load(data, Images).to(run.device)
    run.say(images.describe())
    model = run.place(VAE(cfg, images.shape))
    adam = torch.optim.Adam(model.parameters(), cfg.lr)
    anneal = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    batches = images.batches(cfg.batch, run.seed)
    for x in run.track(batches, cfg.steps, model=model, adam=adam, anneal=anneal):
        loss = -model(x).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        anneal.step()
        run.log(loss=loss)
    run.save(model, cfg, shape=images.shape)
    run.result(**held_out(model.eval(), images.test, importance))


@torch.no_grad()
def held_out(model: VAE, x: Tensor | Pictures, samples: int) -> dict[str, float]:
    """ELBO and importance-weighted nll of images, both in nats an image."""
    size = max(1, 2_000_000 // (samples * math.prod(model.shape)))  # bounds the memory, not the result
    elbo = -densities.nll(model.elbo, x).mean()
    nll = densities.nll(lambda part: model.log_likelihood(part, samples), x, part=size).mean()
    return {"elbo": float(elbo), "nll": float(nll)}


@torch.no_grad()
def evaluate(
    trained: Trained,
    run: Run,
    data: Annotated[str | None, "dataset of images; that of the run where none is named"] = None,
    importance: Importance = 500,
) -> None:
    model = trained.load(VAE, Config)
    images = datasets.load(data or trained.options["data"], Images, shape=model.shape).to(run.device)
    run.say(images.describe())
    run.result(**held_out(model, images.test, importance))


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int, "how many samples", Ge(1)] = 64,
    pairs: Annotated[int, "rows of interpolations between two data points, and of reconstructions", Ge(1)] = 8,
) -> None:
    model = trained.load(VAE, Config)
    drawn = model.likelihood(model.prior().sample((n,))).mean
    run.figure("samples.png", tiles(drawn, f"{trained.heading}\nsamples: mean of p(x|z), z ~ N(0, I)"))

    x = datasets.load(trained.options["data"], Images, shape=model.shape).to(run.device).test[: 2 * pairs]
    z, seen = model.posterior(x).mean, model.data(x)
    rows = torch.stack([seen, model.likelihood(z).mean])  # [2, 2 pairs, C, H, W]
    heading = f"{trained.heading}\nreconstructions of test images"
    run.figure("reconstructions.png", tiles(rows, heading, rows=["data", "reconstruction"]))

    if len(x) < 2:
        return
    z, seen = z[: len(x) // 2 * 2], seen[: len(x) // 2 * 2]
    start, end = z[0::2, None], z[1::2, None]
    path = start + (end - start) * torch.linspace(0, 1, BETWEEN, device=z.device)[:, None]  # [pairs, BETWEEN, D]
    between = torch.cat([seen[0::2, None], model.likelihood(path).mean, seen[1::2, None]], 1)
    columns = ["data", "reconstructions along the line between their z", *[""] * (BETWEEN - 1), "data"]
    run.figure("interpolations.png", tiles(between, f"{trained.heading}\ninterpolations", columns))


def render(
    trained: Trained,
    run: Run,
    dimensions: Annotated[int, "latent dimensions that are traversed, those with the greatest KL", Ge(1)] = 8,
    span: Annotated[float, "a traversal goes from -span to span", Gt(0)] = 3.0,
    codes: Annotated[int, "test images whose codes are drawn", Ge(2)] = 2000,
) -> None:
    model = trained.load(VAE, Config)
    images = datasets.load(trained.options["data"], Images, shape=model.shape).to(run.device)
    x = images.test[:codes]
    with torch.no_grad():
        q = model.posterior(x)
        kl = kl_divergence(Normal(q.mean, q.stddev), Normal(0.0, 1.0)).mean(0)  # [D]
    order = kl.argsort(descending=True)
    labels = None if images.labels is None else images.labels.test[:codes]
    run.figure("codes.png", scatter(trained.heading, q.mean, q.stddev, labels, images.classes, order[:2].tolist()))

    steps = torch.linspace(-span, span, BETWEEN + 1, device=x.device)
    with torch.no_grad():
        z = q.mean[0].repeat(min(dimensions, len(kl)), len(steps), 1)  # [rows, steps, D], around the first image
        for row, j in enumerate(order[:dimensions].tolist()):
            z[row, :, j] = steps
        shown = model.likelihood(z).mean
    heading = f"{trained.heading}\none dimension of z changed, the others those of the first test image"
    rows = [f"z_{j + 1}\nKL {kl[j]:.2f}" for j in order[:dimensions].tolist()]
    run.figure(
        "traversals.png", tiles(shown, heading, [f"{round(step, 1) + 0.0:.1f}" for step in steps.tolist()], rows)
    )

    table = noise_of_gradients(model, x[:1])
    run.table("gradients.csv", ["samples", "estimator", "parameter", "standard_deviation"], table)
    run.figure("gradients.png", noise_picture(trained.heading, table))
    run.result(active=int((kl > 0.01).sum()), kl=kl.sum())


def noise_of_gradients(model: VAE, x: Tensor, repeats: int = 200) -> list[tuple[int, str, str, float]]:
    """Samples K, estimator, parameter, and the deviation of its estimate with K samples: the mean over dimensions."""
    with torch.no_grad():
        q = model.posterior(x)
    m, s = q.mean[0], q.stddev[0]

    def log_ratio(z: Tensor, m: Tensor, s: Tensor) -> Tensor:
        seen = model.likelihood(z).log_prob(model.data(x).expand(len(z), *model.shape))
        return seen + model.prior().log_prob(z) - Normal(m, s).log_prob(z).sum(-1)

    table = []
    for estimate in (reparameterised, score_function):
        drawn = estimate(log_ratio, m, s, torch.randn(repeats * SAMPLES[-1], len(m), device=x.device))  # [R K, 2 D]
        for k in SAMPLES:
            deviation = drawn.view(-1, k, 2, len(m)).mean(1).std(0).mean(-1)  # of m, of s
            name = estimate.__name__.replace("_", " ")
            table += [(k, name, of, float(d)) for of, d in zip(("m", "s"), deviation, strict=True)]
    return table
