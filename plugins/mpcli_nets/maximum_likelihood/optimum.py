"""The most likely weights: Newton steps where -log p is smooth, proximal steps where the prior has a kink.

Weights W are [D + 1, K], the last row b of uniform prior; X has a column of ones at its end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpcli_nets.maximum_likelihood.likelihoods import Laplace, Likelihood

DONE = 1e-11  # of the largest weight: a step that moves none by more is the last
FLAT = 1e-10  # of the first slope: what is left of it at the optimum, where rounding hides the way on
SMOOTH = 1e-10  # of the scale: what is left of the rounding of |r| in the end


@dataclass(frozen=True)
class Posterior:
    """-log p(y|X, W) - log p(W) of examples X [N, D + 1], y [N, K], up to a constant.

    `prior` is a distribution of weights around 0 of scale `tau`, or None, the uniform one.
    """

    likelihood: Likelihood
    prior: Likelihood | None
    tau: Tensor
    x: Tensor
    y: Tensor
    s: Tensor

    def value(self, w: Tensor) -> Tensor:
        nll = self.likelihood.nll(self.x @ w, self.y, self.s).sum()
        return nll + self.prior.nll(w[:-1], 0 * w[:-1], self.tau).sum() if self.prior else nll

    def slope(self, w: Tensor) -> Tensor:  # [D + 1, K]
        slope = (self.likelihood.slope(self.x @ w, self.y, self.s).T @ self.x).T
        if self.prior:
            slope[:-1] += self.prior.slope(w[:-1], 0 * w[:-1], self.tau)
        return slope

    def curve(self, w: Tensor) -> Callable[[Tensor], Tensor]:
        """The Hessian X^T S X, and what the prior adds, as a linear map of [D + 1, K]."""
        eta = self.x @ w

        def times(v: Tensor) -> Tensor:
            curved = (self.likelihood.curve(eta, self.y, self.s, self.x @ v).T @ self.x).T
            if self.prior:
                curved[:-1] += self.prior.curve(w[:-1], 0 * w[:-1], self.tau, v[:-1])
            return curved

        return times


Memory = dict[str, Tensor]  # what a method keeps from step to step


def begun(at: Posterior, w: Tensor) -> Memory:
    """The memory before the first step, from weights W."""
    one, first = w.new_ones(()), at.slope(w).abs().max()
    size = torch.linalg.eigvalsh(at.x.T @ at.x)[-1].sqrt()
    return {"weights": w.clone(), "ahead": w.clone(), "momentum": one, "eps": 1e4 * one, "size": size, "first": first}


def step(at: Posterior, memory: Memory) -> bool:
    """One step, in place: says whether it was the last that moves anything."""
    before = memory["weights"].clone()
    if isinstance(at.likelihood, Laplace):
        memory["weights"].copy_(rounded(at, memory))
    elif isinstance(at.prior, Laplace):
        memory["weights"].copy_(proximal(at, memory))
    elif (g := at.slope(before)).abs().max() > FLAT * memory["first"]:
        memory["weights"].copy_(newton(at, before, g, conjugate))
    w = memory["weights"]
    still = bool((w - before).abs().max() <= DONE * w.abs().max())
    return still and not (isinstance(at.likelihood, Laplace) and memory["eps"] > SMOOTH)


def newton(
    at: Posterior, w: Tensor, g: Tensor, solve: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
) -> Tensor:
    """W - t H^-1 g, g the slope at W, with the first t of 1, 1/2, 1/4, ... that lowers -log p enough.

    Armijo, Minimization of functions having Lipschitz continuous first partial derivatives, 1966.
    """
    d = solve(at.curve(w), -g)
    value, drop, t = at.value(w), (g * d).sum(), 1.0
    while t > 1e-10:
        if at.value(w + t * d) <= value + 1e-4 * t * drop:
            return w + t * d
        t /= 2
    # So near the optimum that rounding hides what is left of the way down.
    return w + d if at.slope(w + d).abs().max() < g.abs().max() else w


def conjugate(hessian: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """H^-1 b by conjugate gradients, from products with H alone, to a tenth of b: exact enough far from the optimum.

    Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems, 1952.
    """
    x, r = torch.zeros_like(b), b.clone()
    p, size, goal = r.clone(), (r * r).sum(), 1e-2 * (b * b).sum()
    for _ in range(10 * b.numel()):
        if size <= goal:
            break
        hp = hessian(p)
        bend = (p * hp).sum()
        if bend <= 0:
            break
        a = size / bend
        x, r = x + a * p, r - a * hp
        size, last = (r * r).sum(), size
        p = r + size / last * p
    return x


def direct(hessian: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """H^-1 b of a small and ill-conditioned H, column by column."""
    unit = torch.eye(len(b), dtype=b.dtype, device=b.device)
    h = torch.cat([hessian(column[:, None]) for column in unit], 1)
    root = h.diagonal().clamp(min=1e-300).rsqrt()
    return root[:, None] * torch.linalg.lstsq(root[:, None] * h * root, root[:, None] * b).solution


def proximal(at: Posterior, memory: Memory) -> Tensor:
    """soft(V - t g(V), t / tau) with t = 1 / L, at a point V ahead of W: exact zeros where the prior pulls hardest.

    Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm, 2009. SIAM Journal on Imaging Sciences 2
    O'Donoghue and Candes, Adaptive Restart for Accelerated Gradient Schemes, 2015. arXiv:1204.3982
    """
    w, v, m = memory["weights"], memory["ahead"], memory["momentum"]
    smooth = replace(at, prior=None)
    # The largest second derivative by eta: of a Gaussian, of a sigmoid, of a softmax.
    most = at.s**-2 if at.likelihood.scaled else {1: 0.25}.get(at.y.shape[1], 0.5)
    t = 1 / (most * memory["size"] ** 2)
    new = v - t * smooth.slope(v)
    new[:-1] = soft(new[:-1], t / at.tau)
    if ((v - new) * (new - w)).sum() > 0:
        m.fill_(1.0)
    after = (1 + (1 + 4 * m**2).sqrt()) / 2
    memory["ahead"].copy_(new + (m - 1) / after * (new - w))
    m.copy_(after)
    return new


def soft(w: Tensor, by: Tensor) -> Tensor:
    """The proximal map of by |w|: nearer to 0 by that much, and 0 where there is less."""
    return w.sign() * (w.abs() - by).clamp(min=0)


def rounded(at: Posterior, memory: Memory) -> Tensor:
    """A Newton step with every |r| as (r^2 + eps^2)^1/2, eps a little smaller each time.

    In the end a weight under a Laplace prior whose slope w / (w^2 + eps^2)^1/2 is not 1 in size is 0.
    """
    eps = memory["eps"]
    eps.mul_(0.5).clamp_(min=SMOOTH)
    kinked = isinstance(at.prior, Laplace)
    narrow = float(eps * at.tau)
    prior = Laplace(narrow) if kinked else at.prior
    near = replace(at, likelihood=Laplace(float(eps * at.s)), prior=prior)
    w = newton(near, memory["weights"], near.slope(memory["weights"]), direct)
    if kinked and eps <= SMOOTH:
        inside = w[:-1].abs() / (w[:-1].square() + narrow**2).sqrt() < 1 - 1e-8
        w[:-1] = torch.where(inside, 0.0, w[:-1])
    return w
