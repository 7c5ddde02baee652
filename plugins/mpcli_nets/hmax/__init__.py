"""HMAX: simple cells that are tuned to a pattern and complex cells that take the greatest of them, in turn.

    S    y = exp(-sum_j (w_j - x_j)^2 / 2 sigma^2)      a simple cell: selective
    C    y = max_j y_j                                  a complex cell: the same wherever the pattern lies

    S1   |w . x|, w a Gabor filter at one of four angles: excited by a line, inhibited beside it, blind to even light
    C1   the greatest S1 of two sizes and a window of places
    S2   S of a part that was cut out of C1 of a training picture ("imprinted"), sum over its cells j
    C2   the greatest S2 over all places and sizes, one number a part: what a linear classifier reads

From layer to layer cells see more of the picture and mind less where in it something lies. `evaluate` tells how far
a linear classifier of the pixels, S1, C1 and C2 falls when the test pictures are moved by some pixels; it was shown
none that are moved.

Riesenhuber and Poggio, Hierarchical models of object recognition in cortex, 1999. Nature Neuroscience 2
Serre, Wolf, Bileschi, Riesenhuber and Poggio, Robust Object Recognition with Cortex-Like Mechanisms, 2007. TPAMI 29
"""

from dataclasses import dataclass
from statistics import mean
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.randomness import generator
from mpcli.run import Run, Trained
from mpcli_nets.hmax import cells, pictures
from mpcli_nets.hmax.equations import gradcheck as gradcheck
from mpcli_nets.kit.rows import Rows, Standard
from mpcli_nets.maximum_likelihood import LIKELIHOODS
from mpcli_nets.maximum_likelihood.optimum import Posterior, begun, step
from mpcli_nets.mlp import examples, held_against

SHIFTS = (0, 2, 4, 6)  # pixels by which test pictures are moved
IMPRINTED = 500  # training pictures out of which parts are cut
LAYERS = ("pixels", "s1", "c1", "c2")


@dataclass(frozen=True)
class Config:
    parts: Annotated[int, "parts of training pictures that S2 cells are tuned to", Ge(1)] = 500
    side: Annotated[int, "C1 cells along a part", Ge(1), Le(16)] = 4
    angles: Annotated[int, "angles of S1 cells", Ge(1), Le(32)] = 4
    sigma: Annotated[float, "width of the tuning of S2 cells", Gt(0)] = 0.4
    tau: Annotated[float, "scale of the Gaussian prior of the classifier's weights", Gt(0)] = 0.3
    examples: Annotated[int, "training pictures", Ge(1)] = 3000
    steps: Annotated[int, "Newton steps of the classifier, at most", Ge(1)] = 30


class HMAX(nn.Module):
    """C2 [N, parts] of pictures [N, C, H, W], and a softmax of them."""

    parts: Tensor
    w: Tensor

    def __init__(self, cfg: Config, classes: int):
        super().__init__()
        self.sigma = cfg.sigma
        for band, filters in enumerate(cells.gabors(cfg.angles)):
            for size, w in enumerate(filters):
                self.register_buffer(f"gabor_{band}_{size}", w, persistent=False)
        self.register_buffer("parts", torch.zeros(cfg.parts, cfg.angles, cfg.side, cfg.side))
        self.register_buffer("w", torch.zeros(cfg.parts + 1, classes, dtype=torch.float64))
        self.units = Standard(cfg.parts)

    def gabors(self) -> list[list[Tensor]]:
        """S1 filters [angles, 1, side, side] of each band and size."""
        return [
            [cast(Tensor, getattr(self, f"gabor_{band}_{size}")) for size in range(len(filters))]
            for band, (filters, _) in enumerate(cells.BANDS)
        ]

    def s1(self, x: Tensor) -> list[list[Tensor]]:
        """[N, angles, H, W] of each band and size, of pictures as `cells.canvas` makes them."""
        return [[cells.line(x, w) for w in filters] for filters in self.gabors()]

    def c1(self, s1: list[list[Tensor]]) -> list[Tensor]:
        """[N, angles, H', W'] of each band."""
        return [cells.pooled(sizes, window) for sizes, (_, window) in zip(s1, cells.BANDS, strict=True)]

    def imprint(self, x: Tensor, seed: int) -> None:
        """Cut the parts out of C1 of pictures, half of each band; a place is as likely as the square of its cells."""
        side, g = self.parts.shape[-1], generator(seed, 0)
        of_band = self.parts.split(-(-len(self.parts) // len(cells.BANDS)))
        for band, parts in zip(self.c1(self.s1(x)), of_band, strict=False):
            power = F.avg_pool2d(band.square().sum(1, keepdim=True), side, 1)[:, 0].cpu()
            # By image first: there may be more places than a draw of torch's takes.
            image = torch.multinomial(power.sum((1, 2)), len(parts), replacement=True, generator=g)
            for part, number in zip(parts, image.tolist(), strict=True):
                place = int(torch.multinomial(power[number].flatten(), 1, generator=g))
                row, column = divmod(place, power.shape[2])
                part.copy_(band[number, :, row : row + side, column : column + side])

    def forward(self, x: Tensor) -> Tensor:
        pieces = cells.canvas(x).split(cells.PIECE)
        return torch.cat([cells.anywhere(self.c1(self.s1(piece)), self.parts, self.sigma) for piece in pieces])

    def read(self, c2: Tensor) -> Tensor:  # [N, parts] -> [N, D + 1], what the classifier multiplies
        z = self.units(c2)
        return torch.cat([z, torch.ones_like(z[:, :1])], 1)


def as_pictures(data: str, given: Rows) -> tuple[Tensor, Tensor]:
    """Training and test pictures [N, C, H, W] of rows.

    Raises:
        InputError: the rows are no pictures.
    """
    if given.shape is None:
        raise InputError(f"{data}: has rows of numbers; right would be pictures with classes, such as digits")
    train, test = (x.unflatten(1, given.shape) for x in (given.train, given.test))
    return train, test


@torch.no_grad()
def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "pictures with classes"] = "digits",
    fold: Annotated[int | None, "which of five folds is for testing (the split of the dataset)", Ge(0), Le(4)] = None,
) -> None:
    given = examples(data, fold).to(run.device)
    x, test = as_pictures(data, given)
    run.say(given.describe())
    x, t = x[: cfg.examples], given.targets.train[: cfg.examples]
    model = HMAX(cfg, given.outputs).to(run.device)
    model.imprint(cells.canvas(x[:IMPRINTED]), run.seed)
    c2 = model(x)
    model.units.measure(c2)
    y = F.one_hot(t, given.outputs).double()
    one = y.new_ones(())
    at = Posterior(LIKELIHOODS["categorical"], LIKELIHOODS["gaussian"], cfg.tau * one, model.read(c2), y, one)
    memory = begun(at, model.w)
    for _ in run.track(lambda number: number, cfg.steps, model=model, memory=memory):
        step(at, memory)
        model.w.copy_(memory["weights"])
        run.log(loss=at.likelihood.nll(at.x @ model.w, y, one).mean())
    run.save(model, cfg, classes=given.outputs)
    eta = model.read(model(test)) @ model.w
    truth = given.targets.test
    run.result(nll=F.cross_entropy(eta, truth), accuracy=accuracy(eta, truth))


Moved = Annotated[int, "test pictures that are moved", Ge(1)]
Other = Annotated[str | None, "dataset (that of the training, with its fold)"]


def known(trained: Trained, data: str | None) -> tuple[HMAX, Rows]:
    """The trained cells and the examples that they are held against."""
    model = trained.load(HMAX, Config)
    return model, held_against(trained, data, None, model.w.shape[1])


def evaluate(trained: Trained, run: Run, data: Other = None, moved: Moved = 300) -> None:
    model, given = known(trained, data)
    run.say(given.describe())
    found = by_shift(model, given.to(run.device), trained, moved)
    run.result(accuracy=found["c2"][0])
    run.result(**{f"{name}_shift_{s}": value for name in LAYERS for s, value in zip(SHIFTS, found[name], strict=True)})


@torch.no_grad()
def by_shift(model: HMAX, given: Rows, trained: Trained, count: int) -> dict[str, list[float]]:
    """Accuracy of a linear classifier of each layer, when test pictures are moved left, right, up and down.

    Those of pixels, S1 and C1 are scikit-learn's, with the prior that the model's own has.
    """
    x, test = (cells.canvas(part) for part in as_pictures(given.name, given))
    x, test = x[: trained.options["examples"]], test[:count]
    t, truth = given.targets.train[: len(x)].cpu().numpy(), given.targets.test[:count]
    peers, seen = {}, layers(model, x)
    for name in LAYERS[:-1]:
        # One scale for all: by its own, a place where nothing ever happens would be the first to notice a shift.
        centre, scale = seen[name].mean(0), seen[name].std(0).square().mean().sqrt()
        peer = LogisticRegression(C=trained.options["tau"] ** 2, max_iter=500, tol=1e-3)
        peers[name] = centre, scale, peer.fit(((seen[name] - centre) / scale).cpu().numpy(), t)
    found: dict[str, list[float]] = {name: [] for name in LAYERS}
    for s in SHIFTS:
        right: dict[str, list[float]] = {name: [] for name in LAYERS}
        for moved in shifted(test, s):
            seen = layers(model, moved)
            for name, (centre, scale, peer) in peers.items():
                z = (seen[name] - centre) / scale
                right[name].append(float(peer.score(z.cpu().numpy(), truth.cpu().numpy())))
            right["c2"].append(accuracy(model.read(seen["c2"]) @ model.w, truth))
        for name in LAYERS:
            found[name].append(mean(right[name]))
    return found


def accuracy(eta: Tensor, truth: Tensor) -> float:
    return float((eta.argmax(1) == truth).double().mean())


def shifted(x: Tensor, by: int) -> list[Tensor]:
    """Pictures moved to each of four sides; those that are moved by nothing once."""
    ways = ((by, 0), (-by, 0), (0, by), (0, -by)) if by else ((0, 0),)
    return [torch.roll(x, way, (2, 3)) for way in ways]


def layers(model: HMAX, x: Tensor) -> dict[str, Tensor]:
    """What a classifier of each layer is given of pictures on their canvas, [N, D]; S1 at every other place."""
    found: dict[str, list[Tensor]] = {name: [] for name in LAYERS}
    for piece in x.split(cells.PIECE):
        s1 = model.s1(piece)
        c1 = model.c1(s1)
        found["pixels"].append(piece.flatten(1))
        found["s1"].append(s1[0][0][..., ::2, ::2].flatten(1))
        found["c1"].append(torch.cat([band.flatten(1) for band in c1], 1))
        found["c2"].append(cells.anywhere(c1, model.parts, model.sigma))
    return {name: torch.cat(pieces) for name, pieces in found.items()}


@torch.no_grad()
def render(trained: Trained, run: Run, moved: Moved = 300) -> None:
    model, given = known(trained, None)
    model = model.cpu()
    _, test = as_pictures(given.name, given)
    gabors = [w for filters in model.gabors() for w in filters]
    run.figure("fields.png", pictures.fields(trained.heading, gabors, model.parts))
    picture = cells.canvas(test[:1])
    s1 = model.s1(picture)
    c1 = model.c1(s1)
    s2 = cells.tuned(cells.distance(c1[0], model.parts), model.sigma)[0]
    run.figure("cells.png", pictures.responses(trained.heading, picture, s1[0][0][0], c1[0][0], s2))
    found = by_shift(model, given, trained, moved)
    run.figure("shifts.png", pictures.shifts(trained.heading, SHIFTS, found))
    rows = zip(SHIFTS, *found.values(), strict=True)
    run.table("shifts.csv", ["shift", *found], rows)
