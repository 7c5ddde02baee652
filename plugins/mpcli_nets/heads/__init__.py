"""Heads: one backbone of residual blocks, and three things that can be asked of a picture besides its class.

    localize   logits of classes, and the box of the one object: its middle and size, in sides of the picture
    detect     every object: for each class a map of centres y, and at each centre its place in the cell and log size
                   y = exp(-d^2 / (2 s^2))  around a centre, s a third of the box's mean side
                   loss  -(1 - p)^2 log p  at centres,  -(1 - y)^4 p^2 log(1 - p)  elsewhere, |error| of place and size
                   objects are cells above their eight neighbours: no anchors, and nothing else is suppressed
    gaze       a direction of length 1, by |a - b|^2 = 2 - 2 cos of the angle between them

`--data` is a scene of one digit, of one to four, or eyes, all drawn at random; `boxes:FILE.json` reads COCO's
annotations, `digit_scenes:mnist:DIR` has other digits. `evaluate` gives accuracy and IoU; mAP as COCO has it, and at an
IoU of 0.5 and 0.75; degrees; each beside what needs no network: means, what is linear in the pixels, and for objects a
threshold with the nearest neighbour. `render` draws boxes and arrows from the worst picture to the best.

Zhou, Wang and Kraehenbuehl, Objects as Points, 2019. arXiv:1904.07850
Lin, Goyal, Girshick, He and Dollar, Focal Loss for Dense Object Detection, 2017. arXiv:1708.02002
Wood et al., Rendering of Eyes for Eye-Shape Registration and Gaze Estimation, 2015. arXiv:1505.05916
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from mpcli.kit.datasets import Boxes
from mpcli.run import Run, Trained
from mpcli_nets import cnn
from mpcli_nets.cnn import Rate
from mpcli_nets.heads import pictures
from mpcli_nets.heads.centres import focal
from mpcli_nets.heads.equations import gradcheck as gradcheck
from mpcli_nets.heads.net import Network, Task
from mpcli_nets.heads.tasks import TASKS, Given, loaded, outputs, pictures_of

__all__ = ["Config", "Heads", "focal"]


@dataclass(frozen=True)
class Config:
    task: Annotated[Task, "what is asked of a picture"] = "detect"
    width: Annotated[int, "maps of the first layer, a quarter of those of the last", Ge(1)] = 16
    steps: Annotated[int, "training steps", Ge(1)] = 600
    batch: Annotated[int, "pictures a step", Ge(2)] = 32
    lr: Rate = 5e-3


class Heads(Network):
    """What is asked of pictures [N, C, H, W]."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int], classes: int):
        super().__init__(cfg.task, cfg.width, shape, classes)


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str | None, "pictures with boxes, or eyes (those of the task)"] = None,
) -> None:
    task = TASKS[cfg.task]
    given = loaded(cfg.task, data or task.default).to(run.device)
    run.say(given.describe())
    classes = len(given.classes) if isinstance(given, Boxes) else 0
    model = run.place(cnn.channels_last(Heads(cfg, given.shape, classes)))

    def gradients(i: Tensor) -> Tensor:
        x = pictures_of(given.train)[i].contiguous(memory_format=torch.channels_last)
        return cnn.differentiated(model, task.loss(given, model(x), i))

    cnn.descend(run, cfg, model, cnn.batches(cfg, len(given.train), run.seed), gradients)
    run.save(model, cfg, shape=given.shape, classes=classes)
    run.result(**task.measured(given.to("cpu"), outputs(model, given.test).cpu()))


def known(trained: Trained, data: str | None) -> tuple[Heads, Given, Task]:
    """A trained network, the pictures that it is held against, and its task.

    Raises:
        InputError: they are of another kind, shape or number of classes.
    """
    model = trained.load(Heads, Config)
    task = model.task
    of = data or trained.options["data"] or TASKS[task].default
    return model, loaded(task, of, tuple(trained.extras["shape"]), trained.extras["classes"] or None), task


Other = Annotated[str | None, "dataset (that of the training)"]


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    model, given, task = known(trained, data)
    run.say(given.describe())
    out = outputs(model, given.test.to(run.device)).cpu()
    run.result(**TASKS[task].measured(given, out), **TASKS[task].beside(given))


def render(
    trained: Trained,
    run: Run,
    data: Other = None,
    shown: Annotated[int, "test pictures that are drawn", Ge(1)] = 12,
) -> None:
    model, given, task = known(trained, data)
    model = model.cpu()
    out = outputs(model, given.test)
    heading = f"{trained.heading}\n{task}, {given.name}"
    run.figure("predictions.png", pictures.drawn(heading, task, given, out, shown))
    if task == "detect" and isinstance(given, Boxes):
        run.figure("centres.png", pictures.centre_maps(heading, given, out))
    with torch.no_grad():
        run.figure("maps.png", cnn.maps(heading, model, pictures_of(given.test)[:1]))
    run.table("layers.csv", cnn.COLUMNS, map(cnn.cells, cnn.table(model, given.shape)))
