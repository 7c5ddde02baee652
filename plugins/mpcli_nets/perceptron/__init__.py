"""Perceptron: a hyperplane between two classes, moved by its mistakes.

    y = 1{w^T x + b > 0}          on a mistake:   w <- w + eta (t - y) x,   b <- b + eta (t - y),   t in {0, 1}

    with x~ = (x, 1), |x~| <= R, and (2t - 1) u^T x~ >= g > 0 for a unit vector u and every example,
    the rule makes at most (R / g)^2 mistakes, and then none                                    Novikoff's theorem
    whether there is such a u is a linear program:     max g over u, g   with   |u_j| <= 1

A step is a pass over the training examples in their order; it begins at w = 0, where eta changes w and b by one factor
and no decision, so that it is 1. Where no hyperplane separates the classes, w stays bounded and goes on for ever;
with whole numbers it comes back to where it was, which is told as a cycle. The columns of a table are standardised
first, by mean and deviation of the training rows; pictures stay as they are.

`--data` may be `and`, `or` or `xor`: four points. `sample` draws the line after every mistake.

Rosenblatt, The perceptron: a probabilistic model for information storage and organization in the brain, 1958.
Psychological Review 65
Novikoff, On convergence proofs on perceptrons, 1962. Symposium on the Mathematical Theory of Automata 12
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.kit.pictures import frame
from mpcli.run import Run, Trained, watched
from mpcli_nets.kit.rows import Standard
from mpcli_nets.perceptron.equations import gradcheck as gradcheck
from mpcli_nets.perceptron.examples import TwoClasses, two_classes
from mpcli_nets.perceptron.pictures import lines, view
from mpcli_nets.perceptron.separation import bound, separator


@dataclass(frozen=True)
class Config:
    steps: Annotated[int, "passes over the training examples at most", Ge(1)] = 1000


class Perceptron(nn.Module):
    """The decision of examples [N, D], in float64, so that sums of whole numbers are exact."""

    w: Tensor
    b: Tensor

    def __init__(self, cfg: Config, dim: int):
        super().__init__()
        self.inputs = Standard(dim)  # [N, D] as they come -> [N, D] as w sees them
        self.register_buffer("w", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("b", torch.zeros((), dtype=torch.float64))

    def activation(self, x: Tensor) -> Tensor:  # [N, D] -> w^T x + b [N]
        return x @ self.w + self.b

    def forward(self, x: Tensor) -> Tensor:  # [N, D] -> y [N], 0 or 1
        return (self.activation(x) > 0).long()

    def correct(self, x: Tensor, t: Tensor) -> None:  # [D], []: the rule, for one example that was mistaken
        error = (t - self(x[None])[0]).to(self.w)
        self.w += error * x
        self.b += error


def one_pass(model: Perceptron, x: Tensor, t: Tensor) -> Iterator[int]:
    """Go once through the examples in their order and correct each mistake; gives the number of each."""
    start = 0
    while start < len(x):
        wrong = (model(x[start:]) != t[start:]).nonzero()
        if not len(wrong):
            return
        start += int(wrong[0])
        model.correct(x[start], t[start])
        yield start
        start += 1


Data = Annotated[str, "dataset with classes, or the four points of and, or, xor"]
Classes = Annotated[str, "two classes with a comma between; the first two of the dataset where none are named"]


def train(cfg: Config, run: Run, data: Data = "digits", classes: Classes = "") -> None:
    examples = two_classes(data, classes).to(run.device)
    run.say(examples.describe())
    model = Perceptron(cfg, examples.train.shape[1]).to(run.device)
    if examples.standardised:
        model.inputs.measure(examples.train)
    x, t = model.inputs(examples.train), examples.targets.train
    # The state at the end of each pass: where it comes back, the passes between go on for ever.
    states: list[str] = []
    told = {"mistakes": 0, "cycle": 0, "done": 0}
    for _ in run.track(lambda step: step, cfg.steps, model=model, states=states, told=told):
        if not told["done"]:
            made = sum(1 for _ in one_pass(model, x, t))
            told["mistakes"] += made
            state = hashlib.sha256(torch.cat([model.w, model.b[None]]).cpu().numpy().tobytes()).hexdigest()
            told["cycle"] = len(states) - states.index(state) if made and state in states else 0
            told["done"] = int(made == 0 or told["cycle"] > 0)
            states.append(state)
            run.log(mistakes=made, train_accuracy=(model(x) == t).double().mean())
    run.save(model, cfg, dim=len(model.w))
    verdict(run, model, x, t, told)
    run.result(**held_out(model, examples))


def verdict(run: Run, model: Perceptron, x: Tensor, t: Tensor, told: dict[str, int]) -> None:
    """What the rule found, beside what the linear program says."""
    u = separator(x.cpu(), t.cpu())
    run.result(mistakes=told["mistakes"], separable=int(u is not None))
    if u is not None:
        run.result(bound=bound(u, x.cpu(), t.cpu()))
        run.say("a hyperplane separates the training examples, says the linear program")
    elif told["cycle"]:
        run.result(cycle=told["cycle"])
        passes = "after each pass" if told["cycle"] == 1 else f"every {told['cycle']} passes"
        run.say(f"no hyperplane separates the training examples, says the linear program; w comes back {passes}")
    else:
        run.say("no hyperplane separates the training examples, says the linear program: the rule goes on for ever")
    if u is not None and not told["done"]:
        run.say("it had not stopped yet; more --steps let it")


def held_out(model: Perceptron, examples: TwoClasses) -> dict[str, Tensor]:
    """Accuracy on the test examples and, to compare, of always naming the class that training saw most."""
    t = examples.targets.test
    most = (examples.targets.train.double().mean() > 0.5).long()
    right = model(model.inputs(examples.test)) == t
    return {"accuracy": right.double().mean(), "majority_accuracy": (t == most).double().mean()}


def evaluate(trained: Trained, run: Run, data: Annotated[str | None, "dataset (that of the training)"] = None) -> None:
    model = trained.load(Perceptron, Config)
    examples = two_classes(data or trained.options["data"], trained.options["classes"], len(model.w))
    run.say(examples.describe())
    run.result(**held_out(model, examples.to(run.device)))


def sample(
    trained: Trained,
    run: Run,
    frames: Annotated[int, "frames at most, evenly over the mistakes", Ge(2)] = 60,
    fps: Annotated[float, "frames a second", Gt(0)] = 4.0,
) -> None:
    final = trained.load(Perceptron, Config).cpu()
    examples = two_classes(trained.options["data"], trained.options["classes"], len(final.w))
    x, t = final.inputs(examples.train), examples.targets.train
    # Training is repeated, which takes no time beside the drawing, and ends where it ended.
    model = Perceptron(Config(), len(final.w))
    states = [(model.w.clone(), model.b.clone(), -1)]
    for _ in range(trained.options["steps"]):
        made = [(model.w.clone(), model.b.clone(), i) for i in one_pass(model, x, t)]
        states += made
        if not made or (torch.equal(model.w, final.w) and torch.equal(model.b, final.b)):
            break
    last, count = len(states) - 1, min(frames, len(states))
    chosen = [round(k * last / max(1, count - 1)) for k in range(count)]
    shown = view(x, model.w)
    drawn = []
    for k in watched(chosen, "drawing"):
        w, b, mistaken = states[k]
        heading = f"{trained.heading}\nafter {k} of {last} mistakes"
        drawn.append(frame(lines(shown, x, t, w, b, mistaken, heading, examples)))
    run.image("lines.gif", torch.stack(drawn + drawn[-1:] * round(2 * fps)), fps)
    run.table(
        "weights.csv",
        ["mistake", "example", "b", *(f"w_{name}" for name in examples.columns)],
        [(k, i, b, *w.tolist()) for k, (w, b, i) in enumerate(states)],
    )
