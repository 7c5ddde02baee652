"""Ten ways down: each takes theta one step, from its gradients and what it keeps.

A method is a function of theta [D], of the `slope` that gives the gradient at any point, of the `rate` of this step, of
`kept`, a dict of tensors that it changes in place, and of its `Settings`; it gives the next theta.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Slope = Callable[[Tensor], Tensor]
Kept = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """What methods are told besides the rate.

    Attributes:
        momentum: alpha of Polyak's and Nesterov's.
        rho: how much of its mean square RMSProp keeps.
        betas: how much of its two means Adam keeps.
        eps: what is added to roots.
        pairs: differences that L-BFGS keeps.
    """

    momentum: float = 0.9
    rho: float = 0.99
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    pairs: int = 10


class Objective(Protocol):
    """What is to be minimised, for methods that ask for more than a gradient."""

    def value(self, theta: Tensor) -> Tensor:
        """[D] -> []."""

    def hessian(self, theta: Tensor) -> Tensor:
        """[D] -> [D, D]."""


def descent(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """theta - eps g: gradient descent, stochastic where the gradient is that of some examples."""
    return theta - rate * slope(theta)


def polyak(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """v <- alpha v - eps g; theta + v: the heavy ball.

    Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
    """
    v = kept.setdefault("v", torch.zeros_like(theta))
    v.copy_(s.momentum * v - rate * slope(theta))
    return theta + v


def nesterov(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """v <- alpha v - eps g(theta + alpha v); theta + v: the gradient where momentum leads.

    Nesterov, A method for solving the convex programming problem with convergence rate O(1/k^2), 1983.
    Sutskever, Martens, Dahl and Hinton, On the importance of initialization and momentum in deep learning, 2013. ICML
    """
    v = kept.setdefault("v", torch.zeros_like(theta))
    v.copy_(s.momentum * v - rate * slope(theta + s.momentum * v))
    return theta + v


def adagrad(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """r <- r + g^2; theta - eps g / (delta + r^1/2).

    Duchi, Hazan and Singer, Adaptive Subgradient Methods, 2011. Journal of Machine Learning Research 12
    """
    g, r = slope(theta), kept.setdefault("r", torch.zeros_like(theta))
    r.add_(g**2)
    return theta - rate * g / (s.eps + r.sqrt())


def rmsprop(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """r <- rho r + (1 - rho) g^2; theta - eps g / (delta + r^1/2).

    Tieleman and Hinton, Lecture 6.5: rmsprop, 2012.
    """
    g, r = slope(theta), kept.setdefault("r", torch.zeros_like(theta))
    r.copy_(s.rho * r + (1 - s.rho) * g**2)
    return theta - rate * g / (s.eps + r.sqrt())


def adam(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """m, v <- means of g, g^2; theta - eta m^ / (v^^1/2 + eps), m^ = m / (1 - beta_1^t), v^ = v / (1 - beta_2^t).

    Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015. arXiv:1412.6980
    """
    g, (first, second) = slope(theta), s.betas
    m, v = (kept.setdefault(name, torch.zeros_like(theta)) for name in "mv")
    t = kept.setdefault("t", torch.zeros((), dtype=theta.dtype))
    t.add_(1)
    m.copy_(first * m + (1 - first) * g)
    v.copy_(second * v + (1 - second) * g**2)
    unbiased, square = m / (1 - first ** float(t)), v / (1 - second ** float(t))
    return theta - rate * unbiased / (square.sqrt() + s.eps)


def newton(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """theta - t |H|^-1 g, |H| with the sizes of H's eigenvalues, and the first t of 1, 1/2, ... that goes down.

    Where H is positive it is Newton's own step; elsewhere the way off a saddle.
    Dauphin et al., Identifying and attacking the saddle point problem, 2014. arXiv:1406.2572
    """
    g = slope(theta)
    values, vectors = torch.linalg.eigh(of.hessian(theta))
    sizes = values.abs().clamp(min=1e-8 * float(values.abs().max()) + 1e-300)
    return down(theta, -vectors @ ((vectors.T @ g) / sizes), g, of)


def lbfgs(theta: Tensor, slope: Slope, rate: float, kept: Kept, of: Objective, s: Settings) -> Tensor:
    """theta - t H g, H the inverse Hessian that the last differences of theta and of g tell.

    Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989.
    """
    g = slope(theta)
    if "theta" in kept:
        remember(kept, theta - kept["theta"], g - kept["g"], s.pairs)
    kept["theta"], kept["g"] = theta.clone(), g.clone()
    direction = -two_loops(kept, g)
    if "steps" not in kept:  # nothing is known of H yet: a step of length 1 at most
        direction = direction / max(1.0, float(g.norm()))
    return down(theta, direction, g, of)


def remember(kept: Kept, step: Tensor, change: Tensor, pairs: int) -> None:
    """Keep a pair of differences, s and y, if the function curves upwards between."""
    if float(step @ change) <= 1e-12 * float(step.norm() * change.norm()):
        return
    for name, new in (("steps", step), ("changes", change)):
        before = [kept[name]] if name in kept else []
        kept[name] = torch.cat([*before, new[None]])[-pairs:]


def two_loops(kept: Kept, g: Tensor) -> Tensor:
    """H g by the two loops over the pairs, newest first and then oldest first."""
    if "steps" not in kept:
        return g
    steps, changes = kept["steps"], kept["changes"]
    curvature = (steps * changes).sum(1)
    q, shares = g.clone(), torch.zeros_like(curvature)
    for i in reversed(range(len(steps))):
        shares[i] = steps[i] @ q / curvature[i]
        q = q - shares[i] * changes[i]
    q = q * curvature[-1] / (changes[-1] @ changes[-1])
    for i in range(len(steps)):
        q = q + steps[i] * (shares[i] - changes[i] @ q / curvature[i])
    return q


def down(theta: Tensor, direction: Tensor, g: Tensor, of: Objective) -> Tensor:
    """theta + t d with the first t of 1, 1/2, 1/4, ... that lowers the value by 1e-4 t g . d or more; else theta."""
    value, drop, t = of.value(theta), g @ direction, 1.0
    while t > 1e-12:
        if of.value(theta + t * direction) <= value + 1e-4 * t * drop:
            return theta + t * direction
        t /= 2
    return theta


Method = Callable[[Tensor, Slope, float, Kept, Objective, Settings], Tensor]
METHODS: dict[str, Method] = {
    "gd": descent,
    "sgd": descent,
    "minibatch": descent,
    "polyak": polyak,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "newton": newton,
    "lbfgs": lbfgs,
}


def decayed(rate: float, step: int, steps: int, decay: str) -> float:
    """The rate of a step counted from 0: constant, rate / (1 + step / 10), or on a line or a cosine down to 0."""
    share = step / steps
    factors = {
        "constant": 1.0,
        "inverse": 1 / (1 + step / 10),
        "linear": 1 - share,
        "cosine": (1 + math.cos(math.pi * share)) / 2,
    }
    return rate * factors[decay]
