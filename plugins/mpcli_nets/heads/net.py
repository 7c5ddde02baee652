"""One backbone of residual blocks, and what stands on it."""

from typing import Literal

import torch
from torch import Tensor, nn

from mpcli_nets.resnet import Block

Task = Literal["localize", "detect", "gaze"]


class Backbone(nn.Sequential):
    """[N, C, H, W] -> [N, 4 width, H / 4, W / 4], rounded up."""

    def __init__(self, channels: int, width: int):
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Block(width, 2 * width, 2),
            Block(2 * width, 2 * width),
            Block(2 * width, 4 * width, 2),
            Block(4 * width, 4 * width),
        )


class Whole(nn.Sequential):
    """Numbers for a whole picture, which know where what is: every place has weights of its own."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]):
        places = -(-size[0] // 8) * -(-size[1] // 8)
        super().__init__(Block(inputs, inputs, 2), nn.Flatten(), nn.Linear(inputs * places, outputs))


class Located(nn.Module):
    """[N, K + 4]: logits of classes by the strongest place of each map, wherever it is, and a box by `Whole`."""

    def __init__(self, inputs: int, classes: int, size: tuple[int, int]):
        super().__init__()
        self.what = Block(inputs, inputs)
        self.top = nn.Linear(inputs, classes)
        self.box = Whole(inputs, 4, size)

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([self.top(self.what(z).amax((2, 3))), self.box(z)], 1)


class Everywhere(nn.Sequential):
    """Maps: one of centres for each class, whose scores begin near 0.1, and four of place and size."""

    def __init__(self, inputs: int, classes: int):
        last = nn.Conv2d(inputs, classes + 4, 1)
        with torch.no_grad():
            torch.as_tensor(last.bias)[:classes] = -2.2
        super().__init__(nn.Conv2d(inputs, inputs, 3, padding=1), nn.ReLU(), last)


class Network(nn.Module):
    """A backbone and the head of a task.

    localize: [N, K + 4], logits of classes, then the middle and the size of the box, in sides of the picture
    detect: [N, K + 4, H / 4, W / 4], see `centres.py`
    gaze: [N, 3], of length 1
    """

    def __init__(self, task: Task, width: int, shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.task = task
        self.backbone = Backbone(shape[0], width)
        inputs = 4 * width
        self.head: nn.Module
        if task == "detect":
            self.head = Everywhere(inputs, classes)
        elif task == "localize":
            self.head = Located(inputs, classes, (shape[1], shape[2]))
        else:
            self.head = Whole(inputs, 3, (shape[1], shape[2]))

    def features(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, D]
        """What the backbone says, the mean over all places."""
        return self.backbone(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.backbone(x))
        return nn.functional.normalize(y, dim=1) if self.task == "gaze" else y
