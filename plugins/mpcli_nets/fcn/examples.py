"""Pictures with masks: crops to learn from, the loss, what is judged, and what needs no network."""

from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from skimage.filters import threshold_otsu
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Masked, Segmentation, shuffled
from mpcli.run import Run, Trained
from mpcli_nets import cnn
from mpcli_nets.fcn import measures

Given = Annotated[str, "pictures with masks"]
Other = Annotated[str | None, "dataset (that of the training)"]
Crop = Annotated[int, "pixels along a side of the crops that are learned from", Ge(8)]
Batch = Annotated[int, "crops a step", Ge(1)]
Some = Annotated[int, "test pictures that are drawn", Ge(1)]

M = TypeVar("M", bound=nn.Module)


class Cropping(cnn.Schedule, Protocol):
    """How a network is trained, and on how large crops."""

    @property
    def crop(self) -> int: ...


def masked(data: str, channels: int | None = None, classes: int | None = None) -> Segmentation:
    """Pictures with masks.

    Args:
        channels, classes: what a trained model needs; None takes any.

    Raises:
        InputError: there is no such dataset, or it has others than are needed.
    """
    given = datasets.load(data, Segmentation)
    for what, has, needs in (("channels", given.channels, channels), ("classes", len(given.classes), classes)):
        if needs not in (None, has):
            raise InputError(f"{data}: has {has} {what}, but the model was trained on {needs}")
    return given


def grey(x: Tensor) -> Tensor:
    """Bytes [C, H, W] as numbers in [0, 1]."""
    return x.float() / 255


def crops(part: Masked, index: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """A square of each picture, turned by right angles and mirrored by chance: [N, C, S, S], classes [N, S, S].

    S is `side`, or what the smallest picture of all has.
    """
    side = min(side, *(min(x.shape[1:]) for x in part.pictures))
    pictures, classes = [], []
    for i in index.tolist():
        x, t = part.pictures[i], part.masks[i]
        top, left, turn, mirrored = (
            int(torch.randint(most, ())) for most in (x.shape[1] - side + 1, x.shape[2] - side + 1, 4, 2)
        )
        square = torch.cat([x, t[None]])[:, top : top + side, left : left + side].rot90(turn, (1, 2))
        square = square.flip(2) if mirrored else square
        pictures.append(grey(square[:-1]))
        classes.append(square[-1].long())
    return torch.stack(pictures), torch.stack(classes)


def soft_dice(scores: Tensor, t: Tensor) -> Tensor:
    """1 - 2 sum p t / (sum p + sum t) of scores [N, K, ...], classes [N, ...]: the mean over all but the first class.

    Sums go over all pictures, and have one more above and below, so that a class that is nowhere costs nothing.

    Milletari, Navab and Ahmadi, V-Net, 2016. arXiv:1606.04797
    """
    p = scores.softmax(1).transpose(0, 1)[1:].flatten(1)
    one = F.one_hot(t, scores.shape[1]).movedim(-1, 0)[1:].flatten(1).to(p)
    return (1 - (2 * (p * one).sum(1) + 1) / (p.sum(1) + one.sum(1) + 1)).mean()


def loss_of(scores: Tensor, t: Tensor) -> Tensor:
    """-log p of the class of each pixel, the mean, and 1 - Dice."""
    return F.cross_entropy(scores, t) + soft_dice(scores, t)


def by_pixel(model: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and classes of all pixels."""
    return model(x), t


def fit(
    run: Run,
    cfg: Cropping,
    model: nn.Module,
    part: Masked,
    scored: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]] = by_pixel,
) -> None:
    """All steps of a training on crops, tracked and logged; the model is in evaluation afterwards."""

    def gradients(i: Tensor) -> Tensor:
        x, t = crops(part, i, cfg.crop)
        scores, classes = scored(model, x.contiguous(memory_format=torch.channels_last), t)
        return cnn.differentiated(model, loss_of(scores, classes))

    cnn.descend(run, cfg, model, shuffled(len(part), cfg.batch, run.seed), gradients)


Predict = Callable[[nn.Module, Tensor], Tensor]


@torch.no_grad()
def classes_of(model: nn.Module, x: Tensor) -> Tensor:
    """The likeliest class of each pixel, [H, W], of one picture, bytes [C, H, W]."""
    return model(grey(x)[None])[0].argmax(0)


def measured(said: Tensor, part: Masked, i: int, classes: int) -> dict[str, float]:
    """What is said of one picture, class numbers [H, W], held against its mask and its objects."""
    true = part.masks[i].cpu()
    found = {
        "dice": measures.over_classes(measures.dice, said, true, classes),
        "boundary_iou": measures.over_classes(measures.boundary_iou, said, true, classes),
    }
    if part.instances is not None:
        found["ap"] = measures.average_precision(measures.objects(said > 0), part.instances[i].cpu())
    return found


def mean(rows: list[dict[str, float]], prefix: str = "") -> dict[str, float]:
    """Of each measure its mean over pictures."""
    return {f"{prefix}{name}": sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def all_said(model: nn.Module, given: Segmentation, predict: Predict) -> list[Tensor]:
    """What a network says of each test picture, class numbers [H, W]."""
    return [predict(model, x).cpu() for x in given.test.pictures]


def held_out(model: nn.Module, given: Segmentation, predict: Predict = classes_of) -> dict[str, float]:
    """How well the masks of test pictures are predicted: the mean over pictures."""
    said = all_said(model, given, predict)
    return mean([measured(of, given.test, i, len(given.classes)) for i, of in enumerate(said)])


def beside(given: Segmentation) -> dict[str, float]:
    """What needs no network: Otsu's threshold of each picture, or of more classes the nearest mean colour."""
    one, many = otsu(given), nearest_colour(given)
    two = len(given.classes) == 2
    rows = [
        measured((one if two else many)(x.cpu()), given.test, i, len(given.classes))
        for i, x in enumerate(given.test.pictures)
    ]
    return mean(rows, "otsu_" if two else "colour_")


def otsu(given: Segmentation) -> Callable[[Tensor], Tensor]:
    """Class 1 on the side of each picture's threshold on which it is in most training pictures.

    Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979. IEEE Trans. SMC 9
    """

    def light(x: Tensor) -> Tensor:
        return grey(x.cpu()).mean(0)

    brighter = 0
    for x, t in zip(given.train.pictures, given.train.masks, strict=True):
        inside = t.cpu() > 0
        if inside.any() and not inside.all():
            brighter += 1 if light(x)[inside].mean() > light(x)[~inside].mean() else -1

    def said(x: Tensor) -> Tensor:
        shown = light(x)
        level = float(threshold_otsu(shown.numpy())) if shown.min() < shown.max() else float(shown.max())
        return (shown > level if brighter >= 0 else shown <= level).long()

    return said


def nearest_colour(given: Segmentation) -> Callable[[Tensor], Tensor]:
    """The class whose mean colour over all training pictures is nearest."""
    sums = torch.zeros(len(given.classes), given.channels)
    counts = torch.zeros(len(given.classes))
    for x, t in zip(given.train.pictures, given.train.masks, strict=True):
        flat = t.cpu().flatten().long()
        sums.index_add_(0, flat, grey(x.cpu()).flatten(1).T)
        counts += torch.bincount(flat, minlength=len(counts))
    colours = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], torch.inf)

    def said(x: Tensor) -> Tensor:
        far = (grey(x)[None] - colours[:, :, None, None]).square().sum(1)
        return far.argmin(0)

    return said


def known(
    trained: Trained, data: str | None, model: Callable[..., M], config: Callable[..., Any]
) -> tuple[M, Segmentation]:
    """A trained network and the pictures that it is held against: a dataset's, or its own.

    Raises:
        InputError: they have another number of channels or of classes.
    """
    built = trained.load(model, config)
    return built, masked(data or trained.options["data"], trained.extras["channels"], trained.extras["classes"])


def judge(
    run: Run,
    trained: Trained,
    data: str | None,
    model: Callable[..., nn.Module],
    config: Callable[..., Any],
    predict: Predict = classes_of,
) -> None:
    """Report how well a trained network predicts masks of test pictures, beside what needs no network."""
    built, given = known(trained, data, model, config)
    run.say(given.describe())
    run.result(**held_out(built, given.to(run.device), predict), **beside(given))


def as_written(x: Tensor) -> np.ndarray:
    """Class or object numbers [H, W] for a PNG file: two as 0 and 255, more as they are, of 16 bits if need be."""
    most = int(x.max())
    if most > 255:
        return x.numpy().astype(np.uint16)
    return (x * 255 if most == 1 else x).numpy().astype(np.uint8)
