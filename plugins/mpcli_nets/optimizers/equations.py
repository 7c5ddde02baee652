"""Equations of the optimizers, in the code that trains."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality, uniform
from mpcli_nets.optimizers import landscapes, methods
from mpcli_nets.optimizers.landscapes import Landscape, Rates
from mpcli_nets.optimizers.methods import Kept, Settings

RATE = uniform(0.01, 0.1)
SETTINGS = Settings()
STEPS = 7
NONE = Rates(1.0, (1.0, 0.0), (1.0, 0.0), 1.0)  # no case asks for them


def gradcheck() -> Iterator[Case]:
    yield from steps()
    yield from second_order()
    yield from noise()
    yield from slopes()


def under(g: Tensor, rate: float, name: str, settings: Settings = SETTINGS, count: int = STEPS) -> tuple[Tensor, Kept]:
    """The last step of a method under a gradient that is the same everywhere, and what it keeps."""
    kept: Kept = {}
    theta = torch.zeros_like(g)
    before = theta
    for _ in range(count):
        before, theta = theta, methods.METHODS[name](theta, lambda at: g, rate, kept, flat(g), settings)
    return theta - before, kept


def flat(g: Tensor) -> Landscape:
    """The function with that gradient everywhere."""
    return Landscape(lambda p: p @ g, (0.0,) * len(g), ((), ()), NONE)


def bowl(a: Tensor) -> Landscape:
    """theta^T A theta / 2 for A = a a^T + I."""
    matrix = a @ a.T + torch.eye(len(a), dtype=a.dtype)
    return Landscape(lambda p: p @ matrix @ p / 2, (0.0,) * len(a), ((), ()), NONE)


def steps() -> Iterator[Case]:
    """First order."""

    def momentum(g: Tensor, rate: Tensor) -> Sides:
        """After t steps: the geometric series, that of an endless one -eps g / (1 - alpha)."""
        moved, _ = under(g, float(rate), "polyak")
        return moved, -rate * g * (1 - 0.9**STEPS) / 0.1, -rate * g / 0.1

    yield identity("constant g: v = -eps g (1 - alpha^t) / (1 - alpha)", momentum, (3,), RATE,
                   mistake="the limit, from the first step on")  # fmt: skip

    def limit(g: Tensor, rate: Tensor) -> Sides:
        return torch.stack([under(g, float(rate), n, count=400)[0] for n in ("polyak", "nesterov")]), -rate * g.expand(
            2, 3
        ) / 0.1

    yield identity("constant g: v -> -eps g / (1 - alpha), Polyak's and Nesterov's", limit, (3,), RATE)

    def ahead(a: Tensor, theta: Tensor, v: Tensor, rate: Tensor) -> Sides:
        of, kept = bowl(a), {"v": v.clone()}
        found = methods.METHODS["nesterov"](theta, of.slope, float(rate), kept, of, SETTINGS)
        right = theta + 0.9 * v - rate * of.slope(theta + 0.9 * v)
        return found, right, theta + 0.9 * v - rate * of.slope(theta)

    yield identity("nesterov: the gradient at theta + alpha v", ahead, (3, 3), (3,), (3,), RATE,
                   mistake="at theta, Polyak's")  # fmt: skip

    def change(a: Tensor, theta: Tensor, rate: Tensor) -> Sides:
        """Nesterov's theta + alpha v is torch's parameter, which looks ahead already."""
        kept: Kept = {}
        of, ours, theirs, buffer = bowl(a), theta, theta.clone(), torch.zeros_like(theta)
        rate = 0.1 * rate
        for _ in range(STEPS):
            ours = methods.METHODS["nesterov"](ours, of.slope, float(rate), kept, of, SETTINGS)
            g = of.slope(theirs)
            buffer = 0.9 * buffer + g
            theirs = theirs - rate * (g + 0.9 * buffer)
        return ours + 0.9 * kept["v"], theirs

    yield identity("nesterov: theta + alpha v takes torch's steps", change, (3, 3), (3,), RATE)

    def summed(g: Tensor, rate: Tensor) -> Sides:
        moved, kept = under(g, float(rate), "adagrad")
        return torch.cat([kept["r"], moved]), torch.cat([STEPS * g**2, -rate * g / (1e-8 + STEPS**0.5 * g.abs())])

    yield identity("adagrad: r = t g^2, steps of eps / t^1/2", summed, (3,), RATE)

    def faded(g: Tensor, rate: Tensor) -> Sides:
        moved, kept = under(g, float(rate), "rmsprop")
        r = (1 - 0.99**STEPS) * g**2
        return torch.cat([kept["r"], moved]), torch.cat([r, -rate * g / (1e-8 + r.sqrt())])

    yield identity("rmsprop: r = (1 - rho^t) g^2", faded, (3,), RATE)

    def unbiased(g: Tensor, rate: Tensor) -> Sides:
        _, kept = under(g, float(rate), "adam")
        t = float(kept["t"])
        hats = torch.cat([kept["m"] / (1 - 0.9**t), kept["v"] / (1 - 0.999**t)])
        return hats, torch.cat([g, g**2]), torch.cat([kept["m"], kept["v"]])

    yield identity("adam, constant g: m^ = g, v^ = g^2 in every step", unbiased, (3,), RATE,
                   mistake="the means without correction")  # fmt: skip

    def rooted(g: Tensor, rate: Tensor) -> Sides:
        settings = Settings(eps=0.1)
        moved, _ = under(g, float(rate), "adam", settings)
        return moved, -rate * g / (g.abs() + 0.1), -rate * g / (g**2 + 0.1).sqrt()

    printed = Printed("002 10.2", "eta m^ / (v^ + eps)^1/2", "eta m^ / (v^^1/2 + eps)")
    yield identity("adam, constant g: steps of eta g / (|g| + eps)", rooted, (3,), RATE, printed=printed)

    def plain(a: Tensor, theta: Tensor, rate: Tensor) -> Sides:
        of = bowl(a)
        found = methods.METHODS["gd"](theta, of.slope, float(rate), {}, of, SETTINGS)
        return found, theta - rate * (a @ a.T @ theta + theta)

    yield identity("gd: theta - eps g", plain, (3, 3), (3,), RATE)


def second_order() -> Iterator[Case]:
    """Newton and L-BFGS."""

    def once(a: Tensor, theta: Tensor) -> Sides:
        of = bowl(a)
        return methods.METHODS["newton"](theta, of.slope, 1.0, {}, of, SETTINGS), torch.zeros(3)

    yield identity("newton: a quadratic in one step", once, (3, 3), (3,))

    def secant(s: Tensor, y: Tensor, s2: Tensor, y2: Tensor) -> Sides:
        """The last pair is met exactly: H y = s."""
        kept: Kept = {}
        for step, change in ((s, y), (s2, y2)):
            methods.remember(kept, step, change + step * (1 + change.norm() / step.norm()), 10)
        return methods.two_loops(kept, kept["changes"][-1]), kept["steps"][-1], kept["changes"][-1]

    yield identity("lbfgs: H y = s of the last pair", secant, (4,), (4,), (4,), (4,), mistake="H = 1")

    def formula(s: Tensor, y: Tensor, g: Tensor) -> Sides:
        """One pair: H = (1 - r s y^T) c (1 - r y s^T) + r s s^T, r = 1 / y.s, c = s.y / y.y."""
        kept: Kept = {}
        y = y + s * (1 + y.norm() / s.norm())
        methods.remember(kept, s, y, 10)
        r, one = 1 / (s @ y), torch.eye(4, dtype=s.dtype)
        h = (one - r * torch.outer(s, y)) @ (one - r * torch.outer(y, s)) / r / (y @ y) + r * torch.outer(s, s)
        return methods.two_loops(kept, g), h @ g

    yield identity("lbfgs: the two loops are the update of BFGS", formula, (4,), (4,), (4,))

    def lower(a: Tensor, theta: Tensor) -> Sides:
        of = bowl(a)
        return of.value(methods.METHODS["lbfgs"](theta, of.slope, 1.0, {}, of, SETTINGS)), of.value(theta)

    yield inequality("lbfgs: no step goes up", lower, (3, 3), (3,))


def noise() -> Iterator[Case]:
    """Examples."""

    def mean(theta: Tensor, tilts: Tensor) -> Sides:
        """All minibatches of two of five examples: their mean, and their variance."""
        n, m = 5, 2
        tilts = tilts - tilts.mean(0)
        of = Landscape(landscapes.beale, (0.0, 0.0), ((), ()), NONE, tilts)
        pairs = torch.stack([of.slope(theta, pair) for pair in torch.combinations(torch.arange(n), m)])
        spread = tilts.var(0, correction=0) / m
        left = torch.cat([pairs.mean(0), pairs.var(0, correction=0)])
        return left, torch.cat([of.slope(theta), spread * (n - m) / (n - 1)]), torch.cat([of.slope(theta), spread])

    yield identity("minibatch: E g = g, Var g = s^2 / m (n - m) / (n - 1)", mean, (2,), (5, 2),
                   mistake="s^2 / m, which is with replacement")  # fmt: skip

    def schedule(rate: Tensor) -> Sides:
        found = [methods.decayed(float(rate), 30, 120, decay) for decay in ("constant", "inverse", "linear", "cosine")]
        return torch.tensor(found), rate * torch.tensor([1, 1 / 4, 3 / 4, (1 + 0.5**0.5) / 2])

    yield identity("rates after a quarter: 1, 1/(1 + t/10), 3/4, (1 + cos pi/4)/2", schedule, uniform(0.1, 1))


def slopes() -> Iterator[Case]:
    """The functions."""

    def of(name: str, dim: int) -> Case:
        def sides(p: Tensor) -> Sides:
            found = landscapes.landscape(name, 30.0, 1.0, 0)
            return found.value(p), found.slope(p)

        return gradient(f"{name}: its gradient", sides, (dim,))

    for name in landscapes.FUNCTIONS:
        yield of(name, 1 if name == "three_slopes" else 2)

    def curved(p: Tensor) -> Sides:
        """f' of three_slopes, whose curvatures are 25, 1 and 25."""
        x = 3 * p
        right = torch.where(x < 1, 25 * x, torch.where(x < 2, x + 24, 25 * x - 24))
        found = landscapes.landscape("three_slopes", 1.0, 0.0, 0)
        return torch.cat([found.slope(x[i : i + 1]) for i in range(len(x))]), right

    yield identity("three_slopes: f' = 25 x, x + 24, 25 x - 24", curved, (40,))
