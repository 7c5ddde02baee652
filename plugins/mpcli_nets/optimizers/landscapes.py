"""What the methods go down: functions of the plane or the line, and the training loss of a network.

Each is a mean over examples. Those of a function are the function, tilted: f(theta) + n_i . theta, where the tilts n_i
add up to nothing, so that a gradient of one example is that of f and noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call

from mpcli.errors import InputError
from mpcli.kit.randomness import generator
from mpcli.run import Trained
from mpcli_nets import mlp

EXAMPLES = 64  # tilts of a function
LARGEST = 300  # parameters of which a Hessian is taken


def quadratic(p: Tensor, kappa: float) -> Tensor:
    """(kappa x^2 + y^2) / 2, of condition number kappa. [..., 2] -> [...]."""
    return (kappa * p[..., 0] ** 2 + p[..., 1] ** 2) / 2


def rosenbrock(p: Tensor) -> Tensor:
    """(1 - x)^2 + 100 (y - x^2)^2: a bent valley, 0 at (1, 1)."""
    x, y = p[..., 0], p[..., 1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def beale(p: Tensor) -> Tensor:
    """Beale's: flat, with steep walls, 0 at (3, 1/2)."""
    x, y = p[..., 0], p[..., 1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def double_well(p: Tensor) -> Tensor:
    """(x^2 - 1)^2 + x / 4 + y^2: two minima, the left one deeper, and a saddle between."""
    x, y = p[..., 0], p[..., 1]
    return (x**2 - 1) ** 2 + x / 4 + y**2


def three_slopes(p: Tensor) -> Tensor:
    """f' = 25 x below 1, x + 24 to 2, 25 x - 24 beyond: strongly convex, smooth, 0 at 0.

    Lessard, Recht and Packard, Analysis and Design of Optimization Algorithms, 2016. arXiv:1408.3595
    """
    x = p[..., 0]
    middle = x**2 / 2 + 24 * x - 12
    return torch.where(x < 1, 12.5 * x**2, torch.where(x < 2, middle, 12.5 * x**2 - 24 * x + 36))


@dataclass(frozen=True)
class Rates:
    """Constant rates that suit a landscape: of gradient descent, of the heavy ball and Nesterov's with their alpha, and
    of the methods that divide by a root.
    """

    plain: float
    polyak: tuple[float, float]
    nesterov: tuple[float, float]
    rooted: float


def tuned(most: float, least: float) -> Rates:
    """The best of a quadratic with curvatures from `least` to `most`."""
    a, b = most**0.5, least**0.5
    share = (a - b) / (a + b)
    return Rates(2 / (most + least), (4 / (a + b) ** 2, share**2), (1 / most, share), 0.3)


@dataclass(frozen=True)
class Landscape:
    """A function, its examples, where methods begin, and what is drawn of it.

    Attributes:
        f: [..., D] -> [...].
        start: [D].
        box: (low, high) of what is drawn, a pair of numbers an axis.
        tilts: [N, D].
    """

    f: Callable[[Tensor], Tensor]
    start: tuple[float, ...]
    box: tuple[tuple[float, ...], tuple[float, ...]]
    rates: Rates
    tilts: Tensor | None = None

    @property
    def examples(self) -> int:
        return EXAMPLES if self.tilts is not None else 1

    def value(self, theta: Tensor) -> Tensor:
        return self.f(theta)

    def slope(self, theta: Tensor, chosen: Tensor | None = None) -> Tensor:
        """The gradient of the mean over all examples, or over some of them."""
        (g,) = torch.autograd.grad(self.f(at := theta.detach().requires_grad_()), at)
        return g if chosen is None or self.tilts is None else g + self.tilts[chosen].mean(0)

    def hessian(self, theta: Tensor) -> Tensor:
        return torch.autograd.functional.hessian(self.f, theta.detach())


class Loss:
    """The training loss of a network as a function of all its parameters [D], which begin as training begins."""

    rates = Rates(0.1, (0.02, 0.9), (0.02, 0.9), 0.01)

    def __init__(self, run: Path, seed: int):
        trained = Trained(run)
        if "activation" not in trained.options or "likelihood" not in trained.extras:
            raise InputError(f"run:{run}: is no run of a network; right would be a run of mlp")
        cfg = mlp.Config(**{name: trained.options[name] for name in ("hidden", "activation")})
        given = mlp.examples(trained.options["data"], trained.options["fold"])
        torch.manual_seed(seed)
        self.model = mlp.MLP(cfg, **trained.extras).double()
        mlp.measure(self.model, given)
        self.x, self.y = given.train, self.model.targets(given.targets.train)
        self.shapes = {name: p.shape for name, p in self.model.named_parameters()}
        self.start = tuple(torch.cat([p.detach().flatten() for p in self.model.parameters()]).tolist())

    @property
    def examples(self) -> int:
        return len(self.x)

    def f(self, theta: Tensor, chosen: Tensor | slice = slice(None)) -> Tensor:
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        eta, y = functional_call(self.model, named, (self.x[chosen],)), self.y[chosen]
        return self.model.likelihood.nll(eta, y, y.new_ones(())).mean()

    def value(self, theta: Tensor) -> Tensor:
        with torch.no_grad():
            return self.f(theta)

    def slope(self, theta: Tensor, chosen: Tensor | None = None) -> Tensor:
        at = theta.detach().requires_grad_()
        return torch.autograd.grad(self.f(at, slice(None) if chosen is None else chosen), at)[0]

    def hessian(self, theta: Tensor) -> Tensor:
        return torch.autograd.functional.hessian(self.f, theta.detach())


FUNCTIONS = ("quadratic", "rosenbrock", "beale", "double_well", "three_slopes")


def landscape(data: str, kappa: float, noise: float, seed: int) -> Landscape | Loss:
    """The function or the loss of that name; the tilts of a function have the deviation `noise`.

    Raises:
        InputError: there is none.
    """
    kind, _, argument = data.partition(":")
    if kind == "run" and argument:
        return Loss(Path(argument).expanduser(), seed)
    valley, slow, wells = (
        Rates(plain, (heavy, 0.9), (heavy, 0.9), rooted)
        for plain, heavy, rooted in ((1e-3, 5e-4, 0.2), (0.01, 5e-3, 0.1), (0.05, 0.02, 0.1))
    )
    # Of three_slopes the heavy ball has the rates that Lessard, Recht and Packard give it: best for a quadratic.
    made: dict[str, Landscape] = {
        "quadratic": Landscape(lambda p: quadratic(p, kappa), (1.0, 1.0), ((-1.3, -1.3), (1.3, 1.3)), tuned(kappa, 1)),
        "rosenbrock": Landscape(rosenbrock, (-1.2, 1.0), ((-2, -1), (2, 3)), valley),
        "beale": Landscape(beale, (1.0, 1.0), ((0, -1), (4, 1.5)), slow),
        "double_well": Landscape(double_well, (0.2, 1.0), ((-1.6, -1.2), (1.6, 1.2)), wells),
        "three_slopes": Landscape(three_slopes, (3.3,), ((-3.0,), (4.0,)), tuned(25, 1)),
    }
    if data not in made:
        raise InputError(
            f"{data}: is no landscape; right would be {', '.join(FUNCTIONS)}, or run:RUN with a run of mlp"
        )
    found = made[data]
    tilts = torch.randn(EXAMPLES, len(found.start), generator=generator(seed), dtype=torch.float64)
    tilts = noise * (tilts - tilts.mean(0))
    return Landscape(found.f, found.start, found.box, found.rates, tilts)
