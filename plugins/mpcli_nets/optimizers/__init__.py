"""Optimizers: ten ways down the same slope, from gradient descent to L-BFGS.

    gd          theta <- theta - eps g                   g = 1/n sum_i g_i over all examples
    sgd         the same, g of one example; minibatch: of m, whose variance is s^2/m (n - m)/(n - 1)
    polyak      v <- alpha v - eps g(theta)              theta <- theta + v
    nesterov    v <- alpha v - eps g(theta + alpha v)    theta <- theta + v
    adagrad     r <- r + g^2                             theta <- theta - eps g / (delta + r^1/2)
    rmsprop     r <- rho r + (1 - rho) g^2               the same step: what is long ago is forgotten
    adam        m, v means of g and g^2                  theta <- theta - eta m^ / (v^^1/2 + eps)
                m^ = m / (1 - beta_1^t), v^ = v / (1 - beta_2^t): without the bias of a start at 0
    newton      theta <- theta - |H|^-1 g                lbfgs: with an H from the last differences of theta and g

    on a quadratic of condition number kappa the best constant rates leave of the distance in each step
    (kappa - 1)/(kappa + 1) to gradient descent and (kappa^1/2 - 1)/(kappa^1/2 + 1) to the heavy ball

`--data` is `quadratic`, `rosenbrock`, `beale`, `double_well` or `three_slopes`, on which the heavy ball can go round
for ever though it is strongly convex, or `run:RUN`: the training loss of a run of `mlp`, from where such a training
begins. A function is a mean over 64 examples that tilt it, so that sgd and minibatch have noise, which a falling rate
(`--decay`) quietens. A method that goes beyond all bounds is taken out. `render` draws the paths and the race.

Lessard, Recht and Packard, Analysis and Design of Optimization Algorithms, 2016. arXiv:1408.3595
Bottou, Curtis and Nocedal, Optimization Methods for Large-Scale Machine Learning, 2018. arXiv:1606.04838
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.datasets.split import shuffled
from mpcli.run import Run, Trained, watched
from mpcli_nets.optimizers import pictures
from mpcli_nets.optimizers.equations import gradcheck as gradcheck
from mpcli_nets.optimizers.landscapes import LARGEST, Landscape, Loss, landscape
from mpcli_nets.optimizers.methods import METHODS, Kept, Settings, decayed

__all__ = ["METHODS", "Settings", "decayed"]


BOUND = 1e12  # a loss beyond it is that of a method that has diverged


@dataclass(frozen=True)
class Config:
    methods: Annotated[tuple[str, ...], "which of them take part (all)"] = ()
    lr: Annotated[float | None, "rate of all (each its own, which suits the landscape)", Gt(0)] = None
    momentum: Annotated[float | None, "alpha of polyak and nesterov (what suits the landscape)", Ge(0), Lt(1)] = None
    decay: Annotated[Literal["constant", "inverse", "linear", "cosine"], "of the rate, as a function of the step"] = (
        "constant"
    )
    kappa: Annotated[float, "condition number of quadratic", Ge(1)] = 100.0
    noise: Annotated[float, "deviation of the examples' tilts of a function", Ge(0)] = 1.0
    batch: Annotated[int, "examples of minibatch", Ge(1)] = 8
    start: Annotated[tuple[float, ...], "where to begin (where the landscape says)"] = ()
    steps: Annotated[int, "steps of each", Ge(1)] = 300


class Paths(nn.Module):
    """Where each method was, [methods, steps + 1, D], D = 0 where there is more than can be drawn, and its loss."""

    where: Tensor
    loss: Tensor

    def __init__(self, cfg: Config, names: list[str], dim: int):
        super().__init__()
        self.names = names
        self.register_buffer("where", torch.zeros(len(names), cfg.steps + 1, dim, dtype=torch.float64))
        self.register_buffer("loss", torch.zeros(len(names), cfg.steps + 1, dtype=torch.float64))


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "quadratic, rosenbrock, beale, double_well, three_slopes, or run:RUN"] = "quadratic",
) -> None:
    of = landscape(data, cfg.kappa, cfg.noise, run.seed)
    names = taking_part(cfg, run, len(of.start))
    start = torch.tensor(cfg.start or of.start, dtype=torch.float64)
    if len(start) != len(of.start):
        wants = len(of.start)
        raise InputError(f"--start {','.join(map(str, cfg.start))}: {data} has {wants} numbers; right would be as many")
    told = {name: tuned(cfg, of, name) for name in names}
    seen = {name: drawn(cfg, of, name, run.seed) for name in names}
    run.say(f"{data}: {len(start)} numbers, {of.examples} examples, {cfg.steps} steps of {', '.join(names)}")
    paths = Paths(cfg, names, len(start) if len(start) <= 2 else 0)
    theta = {name: start.clone() for name in names}
    loss = {name: of.value(start).clone() for name in names}  # over all examples
    kept: dict[str, Kept] = {name: {} for name in names}
    out: dict[str, int] = {}  # the step at which a method was taken out
    record(paths, theta, loss, 0)
    for step in run.track(lambda step: step, cfg.steps, paths=paths, theta=theta, loss=loss, kept=kept, out=out):
        for name in names:
            if name in out:
                continue
            slope = partial(of.slope, chosen=seen[name](step))
            rate, settings = told[name]
            rate = decayed(rate, step, cfg.steps, cfg.decay)
            new = METHODS[name](theta[name], slope, rate, kept[name], of, settings)
            value = of.value(new)
            if value.abs() < BOUND:  # written so that nan is found too
                theta[name].copy_(new)
                loss[name].copy_(value)
            else:
                out[name] = step + 1
                kept[name].clear()
                run.say(f"{name} is out: beyond all bounds at step {step + 1}")
        record(paths, theta, loss, step + 1)
        run.log(**{f"loss_{name}": paths.loss[k, step + 1] for k, name in enumerate(names)})
    run.save(paths, cfg, names=names, dim=paths.where.shape[2])
    for k, name in enumerate(names):
        run.result(**{f"loss_{name}": paths.loss[k, -1]})
    if data == "quadratic":
        run.result(**contractions(paths))


def taking_part(cfg: Config, run: Run, dim: int) -> list[str]:
    """The methods that were asked for, less those that would take too much room."""
    unknown = [name for name in cfg.methods if name not in METHODS]
    if unknown or len(set(cfg.methods)) < len(cfg.methods):
        raise InputError(f"--methods {','.join(cfg.methods)}: right would be some of {', '.join(METHODS)}, each once")
    names = list(cfg.methods or METHODS)
    if "newton" in names and dim > LARGEST:
        if cfg.methods:
            raise InputError(
                f"--methods newton: of {dim} numbers a Hessian is too large; right would be {LARGEST} at most"
            )
        names.remove("newton")
        run.say(f"newton does not take part: of {dim} numbers a Hessian is too large")
    return names


def tuned(cfg: Config, of: Landscape | Loss, name: str) -> tuple[float, Settings]:
    """The rate of a method before it decays, and what else it is told."""
    own = {"polyak": of.rates.polyak, "nesterov": of.rates.nesterov}.get(name)
    plain = of.rates.rooted if name in ("adagrad", "rmsprop", "adam") else of.rates.plain
    rate, momentum = own or (plain, 0.0)
    return cfg.lr or rate, Settings(momentum=momentum if cfg.momentum is None else cfg.momentum)


def drawn(cfg: Config, of: Landscape | Loss, name: str, seed: int) -> Callable[[int], Tensor | None]:
    """The examples of which a method sees the gradient, by the step; None for all of them."""
    size = {"sgd": 1, "minibatch": min(cfg.batch, of.examples)}.get(name)
    return shuffled(of.examples, size, seed) if size else lambda step: None


def record(paths: Paths, theta: dict[str, Tensor], loss: dict[str, Tensor], step: int) -> None:
    """Note where every method is, and its loss."""
    for k, name in enumerate(paths.names):
        paths.where[k, step] = theta[name][: paths.where.shape[2]]
        paths.loss[k, step] = loss[name]


def contractions(paths: Paths) -> dict[str, float]:
    """What gradient descent and the heavy ball leave of the distance to 0 in each step, over the second half.

    At its best rates the heavy ball has a double root: its distance is as t rho^t, of which t is divided out.
    """
    found = {}
    for name, root in (("gd", 0), ("polyak", 1)):
        if name in paths.names:
            size = paths.where[paths.names.index(name)].norm(dim=1)
            seen = size[size > 1e-280]
            last = len(seen) - 1
            if half := last // 2:
                share = seen[-1] / seen[-1 - half] * ((last - half) / last) ** root
                found[f"contraction_{name}"] = float(share ** (1 / half))
    return found


def render(
    trained: Trained,
    run: Run,
    frames: Annotated[int, "frames of the paths at most", Ge(2)] = 60,
    fps: Annotated[float, "frames a second", Gt(0)] = 10.0,
) -> None:
    paths = trained.load(Paths, Config).cpu()
    options = trained.options
    heading = f"{trained.heading}, rate {options['decay']}"
    if paths.where.shape[2]:
        of = landscape(options["data"], options["kappa"], options["noise"], 0)
        assert isinstance(of, Landscape)
        last = paths.where.shape[1] - 1
        # More of the beginning than of the end, where little moves.
        shown = sorted({round(last * (k / (frames - 1)) ** 2) for k in range(frames)})
        canvas = pictures.Paths(heading, of, paths.where, paths.names)
        drawn = [canvas.at(step) for step in watched(shown, "drawing")]
        run.image("paths.gif", torch.stack(drawn + drawn[-1:] * round(2 * fps)), fps)
    run.figure("race.png", pictures.race(heading, paths.loss, paths.names))
    run.table("race.csv", ["step", *paths.names], [(step, *row) for step, row in enumerate(paths.loss.T.tolist())])
