"""Pictures with classes: their folds, how training ones are varied, and what others reach on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.datasets.split import shuffled
from mpcli.run import Run, Trained
from mpcli_nets.kit.rows import Rows, Standard
from mpcli_nets.mlp import bases
from mpcli_nets.mlp.examples import FOLDS, examples

PIECE = 500  # pictures at once where nothing is learned
TURN, SCALE, SHIFT = 15.0, 0.1, 1 / 8  # degrees, of the size, of the side: what `vary` 1 is

M = TypeVar("M", bound=nn.Module)

Fold = Annotated[int | None, "which of five folds is for testing (the split of the dataset)", Ge(0)]
Other = Annotated[str | None, "dataset (that of the training, with its fold)"]
Batch = Annotated[int, "pictures a step", Ge(2)]
Rate = Annotated[float, "highest learning rate of Adam; it rises for a fifth of the steps and falls to 0", Gt(0)]
Vary = Annotated[
    float, "how much training pictures are varied: 1 is up to 15 degrees, a tenth of their size, an eighth aside", Ge(0)
]


class Schedule(Protocol):
    """How long, in what pieces and how fast a network is trained."""

    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def lr(self) -> float: ...


class Varying(Schedule, Protocol):
    """The same, and how much its pictures are varied."""

    @property
    def vary(self) -> float: ...


@dataclass(frozen=True)
class Pictured(Rows):
    """Pictures [N, C, H, W] with classes."""

    shape: tuple[int, int, int]

    def describe(self, of: str = "pictures") -> str:
        counts = ", ".join(f"{len(part)} {name}" for name, part in self.parts().items())
        return f"{self.name}: {counts} {of} of {'x'.join(map(str, self.shape))}, of {len(self.classes)} classes"


def pictured(data: str, fold: int | None = None, shape: tuple[int, int, int] | None = None) -> Pictured:
    """The pictures of a dataset, split as it comes or with one of five folds for testing.

    Args:
        shape: channels, height and width that a trained model needs; None takes any.

    Raises:
        InputError: there is no such dataset, it has no pictures or no classes, or others than are needed.
    """
    if fold is not None and fold >= FOLDS:
        raise InputError(f"--fold {fold}: there are {FOLDS}; right would be 0 to {FOLDS - 1}")
    given = examples(data, fold)
    if given.shape is None:
        raise InputError(f"{data}: has rows of numbers; right would be pictures with classes, such as digits")
    if shape not in (None, given.shape):
        has, needs = ("x".join(map(str, sizes)) for sizes in (given.shape, shape or ()))
        raise InputError(f"{data}: its pictures are {has}, but the model was trained on {needs}")
    train, validation, test = (part.unflatten(1, given.shape) for part in given.parts().values())
    return Pictured(
        train,
        validation,
        test,
        targets=given.targets,
        classes=given.classes,
        columns=(),
        shape=given.shape,
        name=given.name,
    )


def varied(x: Tensor, vary: float) -> Tensor:
    """Pictures [N, C, H, W], each turned, scaled and shifted by as much as chance has it; outside is its border."""
    if vary == 0:
        return x
    n = len(x)

    def any_of(most: float) -> Tensor:
        return (2 * torch.rand(n, device=x.device) - 1) * most * vary

    turn, size = any_of(TURN) * torch.pi / 180, 1 + any_of(SCALE)
    return moved(x, turn, size, any_of(2 * SHIFT), any_of(2 * SHIFT))


def moved(x: Tensor, turn: Tensor, size: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Pictures [N, C, H, W], each turned by radians, `size` times as small, and shifted by halves of a side, [N] each.

    What comes in from outside is the border.
    """
    height, width = x.shape[-2:]
    # In a plane where either side of a picture is 2 long.
    rows = torch.stack(
        [
            torch.stack([size * turn.cos(), -size * turn.sin() * height / width, across], 1),
            torch.stack([size * turn.sin() * width / height, size * turn.cos(), down], 1),
        ],
        1,
    )
    places = F.affine_grid(rows, list(x.shape), align_corners=False)
    return F.grid_sample(x, places, padding_mode="border", align_corners=False)


def rising_and_falling(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A learning rate that rises in a line for a fifth of the steps and falls in a line to 0 for the rest."""
    rise = max(1, steps // 5)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise))
    )


class Descent:
    """Adam at a rate that rises and falls; `gradients` gives the loss of examples by their indices and fills `grad`."""

    def __init__(self, cfg: Schedule, model: nn.Module, gradients: Callable[[Tensor], Tensor]):
        self.gradients = gradients
        self.adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
        self.pace = rising_and_falling(self.adam, cfg.steps)

    def step(self, i: Tensor) -> Tensor:
        """One step on the training examples of these indices; the loss before it."""
        loss = self.gradients(i)
        self.adam.step()
        self.pace.step()
        return loss


def descend(
    run: Run,
    cfg: Schedule,
    model: nn.Module,
    index: Callable[[int], Tensor],
    gradients: Callable[[Tensor], Tensor],
) -> None:
    """All steps of a training, tracked and logged; the model is in evaluation afterwards."""
    descent = Descent(cfg, model, gradients)
    for i in run.track(index, cfg.steps, model=model, adam=descent.adam, pace=descent.pace):
        run.log(loss=descent.step(i))
    model.eval()


def batches(cfg: Schedule, n: int, seed: int) -> Callable[[int], Tensor]:
    """Indices of the examples of each step, each example once a batch at most."""
    return shuffled(n, min(cfg.batch, n), seed)


def on_varied(
    cfg: Varying, model: M, given: Pictured, gradients: Callable[[M, Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The loss of training pictures by their indices, each varied, where `gradients` takes pictures and classes."""

    def of(i: Tensor) -> Tensor:
        x = varied(given.train[i], cfg.vary).contiguous(memory_format=torch.channels_last)
        return gradients(model, x, given.targets.train[i])

    return of


def fit(run: Run, cfg: Varying, model: M, given: Pictured, gradients: Callable[[M, Tensor, Tensor], Tensor]) -> None:
    """All steps of a training on varied pictures with classes."""
    index = batches(cfg, len(given.train), run.seed)
    descend(run, cfg, model, index, on_varied(cfg, model, given, gradients))


def differentiated(model: nn.Module, loss: Tensor) -> Tensor:
    """The loss, with every parameter's `grad` by torch."""
    model.zero_grad()
    loss.backward()
    return loss.detach()


def by_autograd(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """-log p of classes [N], the mean over pictures [N, C, H, W], with every parameter's `grad` by torch."""
    return differentiated(model, F.cross_entropy(model(x), t))


@torch.no_grad()
def channels_last(model: M) -> M:
    """The same network, its windows laid out so that torch's convolutions on a CPU are several times as fast."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.contiguous(memory_format=torch.channels_last)
    return model


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """eta [N, K] of many pictures, some at once."""
    return torch.cat([model(piece) for piece in x.split(PIECE)])


def held_out(model: nn.Module, given: Pictured) -> dict[str, Tensor]:
    """How well the classes of the test pictures are predicted."""
    eta, t = logits(model, given.test), given.targets.test
    return {"nll": F.cross_entropy(eta, t), "accuracy": (eta.argmax(1) == t).double().mean()}


def beside(given: Pictured) -> dict[str, float]:
    """What needs no network reaches on the same pictures, by their pixels."""
    train, validation, test = (part.flatten(1) for part in given.parts().values())
    flat = replace(given, train=train, validation=validation, test=test)
    return bases.held_out(flat, Standard(train.shape[1]))


def known(
    trained: Trained, data: str | None, model: Callable[..., M], config: Callable[..., Any]
) -> tuple[M, Pictured]:
    """A trained network and the pictures that it is held against: a dataset's, or its own, with their fold.

    Raises:
        InputError: they are of another shape or of other classes.
    """
    built = trained.load(model, config)
    of = data or trained.options["data"]
    given = pictured(of, None if data else trained.options["fold"], tuple(trained.extras["shape"]))
    if given.outputs != trained.extras["classes"]:
        raise InputError(f"{of}: has {given.outputs} classes, but the model was trained on {trained.extras['classes']}")
    return built, given


def judge(
    run: Run, trained: Trained, data: str | None, model: Callable[..., nn.Module], config: Callable[..., Any]
) -> None:
    """Report how well a trained network classifies test pictures, beside what needs no network."""
    built, given = known(trained, data, model, config)
    run.say(given.describe())
    run.result(**held_out(built, given.to(run.device)), **beside(given))
