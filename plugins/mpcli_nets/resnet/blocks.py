"""The residual block."""

from typing import Literal

from torch import Tensor, nn

Norm = Literal["batch", "group", "none"]
Order = Literal["post", "pre"]

GROUPS = 8  # of channels that are normalised together, where their number has this divisor


def normed(norm: Norm, channels: int, dimensions: int = 2) -> nn.Module:
    """What normalises maps [N, channels, H, W]: over the batch, in groups of channels of each example, or nothing.

    Of sequences [N, channels, L] with `dimensions` 1.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm1d(channels)
    if norm == "group":
        groups = next(count for count in range(GROUPS, 0, -1) if channels % count == 0)
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


class Block(nn.Module):
    """x + F(x), [N, inputs, H, W] -> [N, outputs, H / stride, W / stride], rounded up.

    `post` has f behind each convolution and behind the sum, `pre` norm and f before each convolution. Where channels or
    places change, x goes through a 1x1 convolution. A bottleneck has a quarter of its outputs inside. `plain` leaves x
    out of the sum.

    He, Zhang, Ren and Sun, Identity Mappings in Deep Residual Networks, 2016. arXiv:1603.05027
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        norm: Norm = "batch",
        order: Order = "post",
        *,
        plain: bool = False,
        bottleneck: bool = False,
    ):
        super().__init__()
        self.plain, self.post = plain, order == "post"
        inner = max(1, outputs // 4) if bottleneck else outputs
        biased = norm == "none"
        shapes = (
            [(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)]
            if bottleneck
            else [(inputs, inner, 3, stride), (inner, outputs, 3, 1)]
        )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, side, step, side // 2, bias=biased) for before, after, side, step in shapes
        )
        around = [after if self.post else before for before, after, _, _ in shapes]
        self.norms = nn.ModuleList(normed(norm, channels) for channels in around)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if not plain and (stride != 1 or inputs != outputs):
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=biased)
            self.shortcut = nn.Sequential(convolution, normed(norm, outputs)) if self.post else convolution

    def inner(self, x: Tensor) -> Tensor:
        """F(x)."""
        last = len(self.convolutions) - 1
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if self.post:
                x = norm(convolution(x))
                x = self.relu(x) if number < last else x
            else:
                x = convolution(self.relu(norm(x)))
        return x

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x) if self.plain else self.shortcut(x) + self.inner(x)
        return self.relu(y) if self.post else y
