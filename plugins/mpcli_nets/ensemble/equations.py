"""Equations of ensembles, in the code that trains."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Sides, identity, inequality
from mpcli_nets.ensemble import members


def gradcheck() -> Iterator[Case]:
    from mpcli_nets import ensemble as page

    def split(f: Tensor, y: Tensor, a: Tensor) -> Sides:
        error, of_members, spread = page.ambiguity(f, y, a.softmax(0))
        return error, of_members - spread, of_members

    name = "(f - y)^2 = sum w_k (f_k - y)^2 - sum w_k (f_k - f)^2"
    yield identity(name, split, (7, 5, 3), (5, 3), (7,), mistake="the mean of the members' errors")

    def by_hand(f: Tensor, y: Tensor) -> Sides:
        error, _, spread = page.ambiguity(f, y, torch.full((7,), 1 / 7, dtype=torch.float64))
        right = torch.stack([(f.mean(0) - y).square().sum(1), f.var(0, correction=0).sum(1)])
        return torch.stack([error, spread]), right

    yield identity("the error is that of the mean, the spread the members' variance", by_hand, (7, 5, 3), (5, 3))

    def never_worse(f: Tensor, y: Tensor) -> Sides:
        error, of_members, _ = page.ambiguity(f, y, torch.full((7,), 1 / 7, dtype=torch.float64))
        return error, of_members

    yield inequality("the mean is no worse than its members on average", never_worse, (7, 5, 3), (5, 3))

    def least(f: Tensor, y: Tensor, a: Tensor) -> Sides:
        """Members of which the first is nearly right."""
        y = f[0] + 0.1 * y
        best = (page.mean(f, page.stacked(f, y)) - y).square().sum()
        equal = (page.mean(f, a.softmax(0)) - y).square().sum()
        return best, equal

    yield inequality("stacked weights are nearer than others", least, (7, 40, 3), (40, 3), (7,))

    def convex(f: Tensor, y: Tensor) -> Sides:
        w = page.stacked(f, y)
        return torch.stack([w.sum(), w.clamp(max=0).sum()]), torch.tensor([1.0, 0.0])

    yield identity("stacked: sum w_k = 1, no w_k below 0", convex, (7, 40, 3), (40, 3))

    def left_out(g: Tensor) -> Sides:
        n, draws = 40, 4000
        seeds = torch.Generator().manual_seed(0)
        missing = sum(n - len(members.bootstrap(n, seeds).unique()) for _ in range(draws)) / (n * draws)
        return abs(missing - (1 - 1 / n) ** n), 0.004

    yield inequality("out of a bootstrap: (1 - 1/n)^n, to 0.004", left_out, (1,), draws=1)

    def pure(x: Tensor, y: Tensor) -> Sides:
        """A tree that is fully grown knows its own examples, and says the same in the whole cell around each."""
        grown = members.tree(x, y, 0)
        return members.walk(grown, x), y

    yield identity("a full tree: its own examples exactly", pure, (20, 3), (20, 1), rtol=1e-12)

    def stump(threshold: Tensor, x: Tensor) -> Sides:
        one = {
            "feature": torch.tensor([1, -1, -1]),
            "threshold": torch.cat([threshold.float().double(), threshold.new_zeros(2)]),
            "left": torch.tensor([1, -1, -1]),
            "right": torch.tensor([2, -1, -1]),
            "value": torch.tensor([[0.0], [1.0], [2.0]]).double(),
        }
        below = x[:, 1].float().double() <= threshold.float().double()
        return members.walk(one, x)[:, 0], torch.where(below, 1.0, 2.0)

    yield identity("a node: left where x_j <= c, else right", stump, (1,), (30, 2))

    def normal(x: Tensor, y: Tensor) -> Sides:
        """X^T (X w - y) = 0."""
        w = members.linear(x, y, 0)
        inside = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        return inside.T @ members.straight(w, x), inside.T @ y

    yield identity("linear: X^T X w = X^T y", normal, (20, 3), (20, 1))

    def layered(x: Tensor, w: Tensor, b: Tensor, v: Tensor, c: Tensor) -> Sides:
        one = {"stack.0.weight": w, "stack.0.bias": b, "stack.1.weight": v, "stack.1.bias": c}
        return members.through(one, x), ((x @ w.T + b).clamp(min=0) @ v.T + c).softmax(1)

    yield identity("network: softmax(V max(0, W x + b) + c)", layered, (9, 4), (5, 4), (5,), (3, 5), (3,))
