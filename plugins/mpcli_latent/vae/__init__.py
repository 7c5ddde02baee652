"""Variational autoencoder: a latent-variable model fitted by amortised inference.

    p(z) = N(0, I)      p(x|z) = Bernoulli(f(z)) or N(f(z), s^2 I)      q(z|x) = N(m(x), diag s(x)^2)

    log p(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) + KL(q(z|x) || p(z|x))
            >= E_q[log p(x|z)] - KL(q(z|x) || p(z))                       the ELBO, in nats
    KL(q(z|x) || p(z)) = 1/2 sum_j (m_j^2 + s_j^2 - 1 - log s_j^2)

    log p(x) >= E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q      tighter with K, exact in the limit

The gradient flows through the sample, z = m(x) + s(x) * e with e ~ N(0, I). The Bernoulli decoder sees pixels binarised
at 0.5, so that its likelihood is one of data and comparable between models.

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

BETWEEN = 10  # images of an interpolation


@dataclass(frozen=True)
class Config:
    latent: Annotated[int, "dimension of z", Ge(1)] = 16
    hidden: Annotated[int, "width of the two hidden layers on each side", Ge(1)] = 256
    decoder: Annotated[Literal["bernoulli", "gaussian"], "likelihood p(x|z)"] = "bernoulli"
    dropout: Annotated[float, "share of hidden units dropped while training", Interval(ge=0, lt=1)] = 0.2
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

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> ELBO [B], nats
        q = self.posterior(x)
        return self.likelihood(q.rsample()).log_prob(self.data(x)) - kl_divergence(q, self.prior())

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
        run.log(elbo=-loss)
    run.save(model, cfg, shape=images.shape)
    run.result(**held_out(model.eval(), images.test, importance))


@torch.no_grad()
def held_out(model: VAE, x: Tensor | Pictures, samples: int) -> dict[str, float]:
    """ELBO and importance-weighted nll of images, both in nats an image."""
    size = max(1, 2_000_000 // (samples * math.prod(model.shape)))  # bounds the memory, not the result
    elbo = -densities.nll(model, x).mean()
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

    start, end = z[0::2, None], z[1::2, None]
    path = start + (end - start) * torch.linspace(0, 1, BETWEEN, device=z.device)[:, None]  # [pairs, BETWEEN, D]
    between = torch.cat([seen[0::2, None], model.likelihood(path).mean, seen[1::2, None]], 1)
    columns = ["data", "reconstructions along the line between their z", *[""] * (BETWEEN - 1), "data"]
    run.figure("interpolations.png", tiles(between, f"{trained.heading}\ninterpolations", columns))
