"""REINFORCE proved by enumeration: all episodes of a small world; a Gaussian policy by quadrature."""

import itertools
import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality, uniform
from mpcli_rl import reinforce as page
from mpcli_rl.kit.policy import Policy

LATE = page.Config(gamma=0.8, discount_late=True)
WHOLE = page.Config(gamma=0.8, to_go=False)
PRACTICE = page.Config(gamma=0.8)
WORLD = ((3, 2), (3, 2, 3), (3, 2), (3,))  # logits of pi(a|s) and of p(s'|s, a), r(s, a), b(s)

LOGITS = "policy.mean.0.weight"  # [A, S]
Weighed = tuple[Tensor, page.Episode]


def agent(theta: Tensor, b: Tensor) -> page.Agent:
    """The agent whose logits and baseline are these numbers of a state."""
    made = page.Agent(page.Config(hidden=()), 3, actions=2, low=(), high=()).double()
    made.policy.mean[0].weight.data, made.value[0].weight.data = theta.T, b[None]
    return made


def episodes(theta: Tensor, p: Tensor, r: Tensor) -> list[Weighed]:
    """All of three steps from state 0, with their probabilities."""
    found, going, pi = [], p.softmax(2), theta.softmax(1)
    for *actions, second, third in itertools.product(*[range(2)] * 3, *[range(3)] * 2):
        s, a = torch.tensor([0, second, third]), torch.tensor(actions)
        chance = going[s[:-1], a[:-1], s[1:]].prod() * pi[s, a].prod()
        found.append((chance, (one_hot(s, 3).double(), a, r[s, a])))
    return found


def earned(theta: Tensor, p: Tensor, r: Tensor) -> Tensor:
    """J of the three steps, by the values of the states."""
    v = torch.zeros_like(r[:, 0])
    for _ in range(3):
        v = (theta.softmax(1) * (r + 0.8 * p.softmax(2) @ v)).sum(1)
    return v[0]


def estimated(cfg: page.Config, theta: Tensor, p: Tensor, r: Tensor, b: Tensor) -> Tensor:
    """The expectation of the gradient that an episode gives."""
    model = agent(theta, b)
    terms = [chance * page.loss(cfg, model, [episode]) for chance, episode in episodes(theta, p, r)]
    return -torch.autograd.grad(torch.stack(terms).sum(), model.get_parameter(LOGITS))[0].T


def by_score(factor: partial[Tensor], theta: Tensor, p: Tensor, r: Tensor) -> Tensor:
    """E[sum_t f_t grad log pi(a_t|s_t)], f [T] being a function of an episode."""
    leaf = theta.clone().requires_grad_()
    log_pi = leaf.log_softmax(1)
    terms = [
        c * (factor(*one) * (one[0] @ log_pi).gather(1, one[1][:, None])[:, 0]).sum()
        for c, one in episodes(theta, p, r)
    ]
    return torch.autograd.grad(torch.stack(terms).sum(), leaf)[0]


def whole_less_last(b: Tensor, s: Tensor, a: Tensor, r: Tensor) -> Tensor:
    return page.returns(r, 0.8)[0] - (s @ b)[-1].expand(len(r))


def seeing_the_action(b: Tensor, s: Tensor, a: Tensor, r: Tensor) -> Tensor:
    return page.returns(r, 0.8) - (s @ b) * (1 + a)


def late(theta: Tensor, p: Tensor, r: Tensor, b: Tensor) -> Sides:
    exact = torch.func.grad(earned)(theta, p, r)
    return exact, estimated(LATE, theta, p, r, b), estimated(PRACTICE, theta, p, r, b)


def whole(theta: Tensor, p: Tensor, r: Tensor, b: Tensor) -> Sides:
    exact, printed = torch.func.grad(earned)(theta, p, r), by_score(partial(whole_less_last, b), theta, p, r)
    return exact, estimated(WHOLE, theta, p, r, b), printed


def unbiased(theta: Tensor, p: Tensor, r: Tensor, b: Tensor) -> Sides:
    with_b, without = (estimated(PRACTICE, theta, p, r, x) for x in (b, 0 * b))
    return with_b, without, by_score(partial(seeing_the_action, b), theta, p, r)


def variance(theta: Tensor, p: Tensor, r: Tensor) -> Sides:
    """Of the gradient that one episode gives, with a constant baseline: the best one, and none."""
    model, known = agent(theta, r[:, 0]), episodes(theta, p, r)
    chance = torch.stack([c for c, _ in known])

    def each(c: Tensor) -> Tensor:  # [K, S A]
        model.mean_return.fill_(c)
        cfg = page.Config(gamma=0.8, to_go=False, baseline="mean")
        weight = model.get_parameter(LOGITS)
        return torch.stack([torch.autograd.grad(page.loss(cfg, model, [one]), weight)[0].ravel() for _, one in known])

    def spread(g: Tensor) -> Tensor:
        return chance @ g.square().sum(1) - (chance @ g).square().sum()

    none = each(torch.zeros(()))
    step = each(torch.ones(())) - none  # sum_t grad log pi
    best = -(chance @ (step * none).sum(1)) / (chance @ step.square().sum(1))
    return spread(each(best)), spread(none)


def backwards(r: Tensor) -> Sides:
    step = torch.arange(len(r))
    power = torch.triu(0.8 ** (step - step[:, None]).double())
    before = torch.cat([r.new_zeros(1), r[:-1]])
    return page.returns(r, 0.8), power @ r, before * power.sum(1)


def likelihood(theta: Tensor, p: Tensor) -> Sides:
    s, a = torch.tensor([0, 2, 1, 1, 0]), torch.tensor([1, 0, 1, 0])
    log_pi, _ = agent(theta, theta[:, 0]).policy(one_hot(s[:-1], 3).double(), a)
    going = p.softmax(2)[s[:-1], a, s[1:]]
    pi = theta.softmax(1)[s[:-1], a]
    return log_pi.sum() + going.log().sum(), (pi * going).prod().log(), (pi.log() * going).prod().log()


def likelihood_slope(theta: Tensor, p: Tensor) -> Sides:
    model, s, a = agent(theta, theta[:, 0]), torch.tensor([0, 2, 1, 1]), torch.tensor([1, 0, 1, 0])
    slope = torch.autograd.grad(model.policy(one_hot(s, 3).double(), a)[0].sum(), model.get_parameter(LOGITS))[0].T
    probability = torch.func.grad(lambda x: (x.softmax(1)[s, a].prod() * p.softmax(2)[s, a, s.roll(-1)].prod()).log())
    return slope, probability(theta), torch.zeros_like(theta)


NODES = torch.linspace(-12, 12, 2001, dtype=torch.float64)
MASSES = torch.exp(-(NODES**2) / 2) / math.sqrt(2 * math.pi) * (NODES[1] - NODES[0])  # of N(0, 1), which sum to 1


def gaussian(theta: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """log pi(a) and the entropy of N(m, sigma^2), theta = (m, log sigma)."""
    pi = Policy((), 1, 1, (-1.0,), (1.0,)).double()
    nn.utils.vector_to_parameters(torch.stack([theta[1], theta[0] * 0, theta[0]]), pi.parameters())
    return pi(torch.zeros(len(a), 1).double(), a[:, None])


def score(theta: Tensor) -> Sides:
    sigma = theta[1].exp()
    a = theta[0] + sigma * NODES
    reward = torch.sin(2 * a) - a**2 / 2
    expected = (gaussian(theta, a)[0].exp() * reward).sum() * sigma * (NODES[1] - NODES[0])
    return expected, torch.stack([NODES / sigma, NODES**2 - 1]) @ (MASSES * reward)


def entropy(theta: Tensor) -> Sides:
    log_pi, found = gaussian(theta, theta[0] + theta[1].exp() * NODES)
    return found[0], -(MASSES * log_pi).sum()


def gradcheck() -> Iterator[Case]:
    name = "grad J = E[sum_t gamma^t grad log pi (G_t - b(s_t))], all episodes of a small world"
    yield identity(name, late, *WORLD, mistake="gamma^t left out")

    printed = Printed("(292)", "b(s_t) outside the sum over t, t the last", "inside it, or b(s_0)")
    name = "grad J = E[(sum_t grad log pi) (G_0 - b(s_0))], all episodes of a small world"
    yield identity(name, whole, *WORLD, printed=printed)

    printed = Printed("000 13.2", "b may be what does not depend on the policy", "... on the action: not b(s, a)")
    yield identity(
        "a baseline b(s_t) leaves the expectation alone, without gamma^t too", unbiased, *WORLD, printed=printed
    )

    yield inequality("the best constant baseline takes variance away", variance, *WORLD[:3], draws=3)

    printed = Printed("(289)", "G_k = sum_{t > k} gamma^(t-k-1) R_k", "G_k = sum_{t > k} gamma^(t-k-1) R_t")
    yield identity("G_k = R_{k+1} + gamma G_{k+1}", backwards, (7,), printed=printed)

    printed = Printed("(284)", "log [p(s_1) prod log pi p(s')]", "log [p(s_1) prod pi p(s')]")
    name = "log p(tau) = log p(s_1) + sum log pi(a|s) + sum log p(s'|s, a)"
    yield identity(name, likelihood, (3, 2), (3, 2, 3), printed=printed)

    printed = Printed("002 13", "sum grad log p_theta(a|s), p being the world's", "sum grad log pi_theta(a|s)")
    name = "grad log p(tau) = sum grad log pi(a|s): theta is not in the world"
    yield identity(name, likelihood_slope, (3, 2), (3, 2, 3), printed=printed)

    theta = uniform(-0.7, 0.7, 2)
    yield gradient("Gaussian policy: grad E[r(a)] = E[grad log N(a; m, sigma^2) r(a)]", score, theta)
    yield identity("entropy of a Gaussian policy = -E[log pi]", entropy, theta)
