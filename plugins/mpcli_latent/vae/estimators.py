"""Two Monte Carlo estimates of the gradient of the ELBO in m and s of q(z|x) = N(m, s^2): which is the less noisy?

    z = m + s e, e ~ N(0, I):     grad f(m + s e)                     reparameterised, f = log p(x, z) / q(z|x)
    z ~ q:                        f(z) grad log q(z|x)                score function, or REINFORCE

Both have the gradient of E_q f as their mean. The second needs no derivative of f, and pays for it with variance.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal

LogRatio = Callable[[Tensor, Tensor, Tensor], Tensor]  # z, m, s [K, D] -> log p(x, z) - log q(z|x) [K]


def reparameterised(f: LogRatio, m: Tensor, s: Tensor, e: Tensor) -> Tensor:  # [D], [D], [K, D] -> [K, 2 D]
    m, s = (x.expand_as(e).clone().requires_grad_() for x in (m, s))
    return torch.cat(torch.autograd.grad(f(m + s * e, m, s).sum(), (m, s)), 1)


def score_function(f: LogRatio, m: Tensor, s: Tensor, e: Tensor) -> Tensor:  # [D], [D], [K, D] -> [K, 2 D]
    m, s = (x.expand_as(e).clone().requires_grad_() for x in (m, s))
    z = (m + s * e).detach()
    log_q = Normal(m, s).log_prob(z).sum()
    # log q within f depends on m and s as well: its own gradient has the mean 0 and is left out
    return f(z, m, s).detach()[:, None] * torch.cat(torch.autograd.grad(log_q, (m, s)), 1)
