"""Equations of residual blocks, in the code that trains."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity
from mpcli_nets.resnet import blocks
from mpcli_nets.resnet.blocks import Block


def block(seed: int, *arguments: object, **options: object) -> Block:
    """A block in evaluation, with weights of the seed."""
    torch.manual_seed(seed)
    made = Block(*arguments, **options).double().eval()  # type: ignore[arg-type]
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.uniform_(torch.as_tensor(module.running_var), 0.5, 1.5)
    return made


def convolutions(made: Block) -> list[nn.Conv2d]:
    """Those of F, in their order."""
    return [layer for layer in made.convolutions if isinstance(layer, nn.Conv2d)]


def of(norm: nn.Module, z: Tensor) -> Tensor:
    """Batch normalisation by what was kept, written out."""
    assert isinstance(norm, nn.BatchNorm2d)
    scale = norm.weight / (torch.as_tensor(norm.running_var) + norm.eps).sqrt()
    return scale[:, None, None] * (z - torch.as_tensor(norm.running_mean)[:, None, None]) + norm.bias[:, None, None]


def gradcheck() -> Iterator[Case]:
    def post(x: Tensor) -> Sides:
        made = block(0, 3, 3)
        (one, two), (first, second) = convolutions(made), made.norms
        inner = of(second, F.conv2d(of(first, F.conv2d(x, one.weight, padding=1)).relu(), two.weight, padding=1))
        return made(x), (x + inner).relu(), x + inner.relu()

    yield identity("y = f(x + F(x))", post, (2, 3, 5, 4), mistake="x + f(F(x))")

    def pre(x: Tensor) -> Sides:
        made = block(1, 3, 3, order="pre")
        (one, two), (first, second) = convolutions(made), made.norms
        inner = F.conv2d(of(second, F.conv2d(of(first, x).relu(), one.weight, padding=1)).relu(), two.weight, padding=1)
        return made(x), x + inner, (x + inner).relu()

    yield identity("pre: y = x + F(x)", pre, (2, 3, 5, 4), mistake="f behind the sum")

    def shortcut(x: Tensor) -> Sides:
        made = block(2, 3, 6, 2)
        convolution, norm = made.shortcut.children()
        turned = F.conv2d(x, torch.as_tensor(convolution.weight), stride=2)
        right = (of(norm, turned) + made.inner(x)).relu()
        return made(x), right

    yield identity("places and channels change: a 1x1 convolution of x", shortcut, (2, 3, 5, 6))

    def way(x: Tensor, g: Tensor) -> Sides:
        """dL/dx of one block: that of F, and dL/dy itself."""
        made = block(3, 3, 3, order="pre")
        x = x.clone().requires_grad_()
        (whole,) = torch.autograd.grad((g * made(x)).sum(), x)
        (through,) = torch.autograd.grad((g * made.inner(x)).sum(), x)
        return whole, g + through, through

    yield identity("dL/dx = dL/dy (I + dF/dx)", way, (1, 3, 4, 4), (1, 3, 4, 4), mistake="without I")

    def still(x: Tensor) -> Sides:
        """With the last gamma and beta 0, a block hands on what is not negative."""
        made = block(4, 3, 3)
        nn.init.zeros_(torch.as_tensor(made.norms[-1].weight))
        nn.init.zeros_(torch.as_tensor(made.norms[-1].bias))
        return made(x.abs()), x.abs()

    yield identity("last gamma 0: y = x", still, (2, 3, 5, 4))

    def narrow(x: Tensor) -> Sides:
        """A bottleneck has 1x1, 3x3 and 1x1 weights of a quarter of its channels; two of 3x3 would have 18 C^2."""
        made = block(5, 16, 16, bottleneck=True)
        found = sum(layer.weight.numel() for layer in convolutions(made))
        return made(x).shape[1] + found, 16 + 2 * 16 * 4 + 9 * 4 * 4, 16 + 18 * 16 * 16

    yield identity("bottleneck: 2 C C/4 + 9 (C/4)^2 weights", narrow, (1, 16, 3, 3), mistake="as two of 3x3")

    def groups(x: Tensor) -> Sides:
        """Group normalisation of 2 channels each, of one example alone."""
        made = blocks.normed("group", 16).double()
        z = x.reshape(2, 8, 2, 3, 3)
        mean, var = z.mean((2, 3, 4), keepdim=True), z.var((2, 3, 4), correction=0, keepdim=True)
        right = ((z - mean) / (var + 1e-5).sqrt()).reshape(x.shape)
        over = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return made(x), right, (x - over[0]) / (over[1] + 1e-5).sqrt()

    yield identity("group: over channels and places of one example", groups, (2, 16, 3, 3), mistake="over the batch")
