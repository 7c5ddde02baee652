"""Equations of the perceptron, in the code that trains."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, identity, inequality
from mpcli_nets.perceptron.examples import POINTS, TRUTH


def gradcheck() -> Iterator[Case]:
    from mpcli_nets import perceptron
    from mpcli_nets.perceptron import separation

    def started(w: Tensor, b: Tensor) -> "perceptron.Perceptron":
        model = perceptron.Perceptron(perceptron.Config(), len(w))
        model.w.copy_(w)
        model.b.copy_(b[0])
        return model

    def corrected(w: Tensor, b: Tensor, x: Tensor) -> Sides:
        model = started(w, b)
        t = 1 - (w @ x + b[0] > 0).long()  # a mistake
        model.correct(x, t)
        sign = 2 * t - 1
        right = torch.cat([w + sign * x, b + sign])
        return torch.cat([model.w, model.b[None]]), right, torch.cat([w + sign * x, b])

    printed = Printed("(2)", "w += eta (t - y) x", "w += eta (t - y) x, b += eta (t - y)")
    yield identity("a mistake: w + (t - y) x, b + (t - y)", corrected, (4,), (1,), (4,), printed=printed)

    def nearer(w: Tensor, b: Tensor, x: Tensor) -> Sides:
        model = started(w, b)
        before = model.activation(x[None])[0]
        t = 1 - (before > 0).long()
        model.correct(x, t)
        return before + (2 * t - 1) * (x @ x + 1), model.activation(x[None])[0]

    yield identity("a mistake: w^T x + b moves by (t - y) (|x|^2 + 1)", nearer, (4,), (1,), (4,))

    def kept(w: Tensor, b: Tensor, x: Tensor) -> Sides:
        model = started(w, b)
        t = (x @ w + b[0] > 0).long()
        made = list(perceptron.one_pass(model, x, t))
        return torch.cat([model.w, model.b[None], torch.tensor([float(len(made))])]), torch.cat([w, b, torch.zeros(1)])

    yield identity("no mistake: w and b stay", kept, (4,), (1,), (9, 4))

    def mistakes(u: Tensor, x: Tensor) -> Sides:
        """Examples that u tells apart; a rule without an end is stopped after a hundred thousand mistakes."""
        t = (x @ u[:-1] + u[-1] > 0).long()
        model, made = started(0 * u[:-1], 0 * u[-1:]), 0
        while more := sum(1 for _ in perceptron.one_pass(model, x, t)):
            made += more
            if made > 100_000:
                break
        found = separation.separator(x, t)
        assert found is not None
        return float(made), separation.bound(found, x, t)

    yield inequality("separable: at most (R / g)^2 mistakes", mistakes, (3,), (20, 2), draws=20)

    def program(x: Tensor) -> Sides:
        """The corners of a square, moved by a tenth at random: opposite ones share a class."""
        t = torch.tensor(TRUTH["xor"])
        square = torch.tensor(POINTS).double() + 0.1 * x
        model = started(0 * x[0], 0 * x[0, :1])
        stopped = any(not list(perceptron.one_pass(model, square, t)) for _ in range(200))
        return float(stopped), float(separation.separator(square, t) is not None)

    yield identity("xor, its points moved a little: never stops, and no u", program, (4, 2))
