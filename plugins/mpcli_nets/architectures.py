"""Architectures: what networks are made of, layer by layer, what each layer costs and how far it sees.

    convolution   weights (m^2 C + 1) K      products m^2 C K at each of H' W' places      two FLOPs a product
    dense         weights (D + 1) K          products D K
    pool          weights 0                  H' = floor((H + p + p' - d (m - 1) - 1) / s) + 1
    field         f' = f + d (m - 1) j       jump j' = j s

`--net` names a network of this chapter, as its paper has it; `--layers` is a text as `cnn` takes it in its place, such
as "conv 3 16 p1, relu, pool 2, dense 10". Nothing is computed: tensors have shapes and no numbers, so that a network of
any size is counted in a moment. `render` writes the table of layers and draws it, and where the network stands among
those of the papers.

Canziani, Culurciello and Paszke, An Analysis of Deep Neural Network Models for Practical Applications, 2016.
arXiv:1605.07678
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge
from matplotlib.figure import Figure
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity
from mpcli.errors import InputError
from mpcli.kit.pictures import figure
from mpcli.run import Run
from mpcli_nets import cnn, googlenet, resnet, unet, vgg

Net = Literal[
    "alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "googlenet", "resnet18", "resnet34", "resnet50", "unet"
]  # fmt: skip
Shape = tuple[int, int, int]


def deep(depth: int) -> Callable[[Shape, int], nn.Module]:
    return lambda shape, classes: resnet.ResNet(resnet.Config(depth=depth, width=64, stem="large"), shape, classes)


def stacked(arch: vgg.Arch) -> Callable[[Shape, int], nn.Module]:
    def made(shape: Shape, classes: int) -> nn.Module:
        if shape[1] != shape[2]:
            raise InputError(
                f"--shape {','.join(map(str, shape))}: {arch} takes squares; right would be such as 3,224,224"
            )
        return vgg.VGG(vgg.Config(arch, width=64, units=4096, size=shape[1], norm=False), shape, classes)

    return made


def inceptions(shape: Shape, classes: int) -> nn.Module:
    cfg = googlenet.Config(width=64, stem="large", norm=False, heads=False)
    return googlenet.GoogLeNet(cfg, shape, classes)


def down_and_up(shape: Shape, classes: int) -> nn.Module:
    return unet.UNet(shape[0], classes, (64, 128, 256, 512, 1024), norm="none")


NETS: dict[Net, Callable[[Shape, int], nn.Module]] = {
    **{arch: stacked(arch) for arch in get_args(vgg.Arch)},
    "googlenet": inceptions,
    "resnet18": deep(18),
    "resnet34": deep(34),
    "resnet50": deep(50),
    "unet": down_and_up,
}


def named(net: Net, layers: str | None, shape: Shape, classes: int) -> nn.Module:
    """A network without numbers, of a name or of a text of layers."""
    with torch.device("meta"):
        return NETS[net](shape, classes) if layers is None else cnn.build(layers, shape)[0]


def render(
    run: Run,
    net: Annotated[Net, "which network"] = "vgg16",
    layers: Annotated[str | None, "a text of layers in place of a network, as cnn takes it"] = None,
    shape: Annotated[tuple[int, ...], "of the pictures: channels,height,width", Ge(1)] = (3, 224, 224),
    classes: Annotated[int, "numbers that come out of a network, of unet at every pixel", Ge(1)] = 1000,
) -> None:
    if len(shape) != 3:
        raise InputError(f"--shape {','.join(map(str, shape))}: right would be channels,height,width such as 3,224,224")
    size = (shape[0], shape[1], shape[2])
    model, name = named(net, layers, size, classes), net if layers is None else "these layers"
    rows = cnn.table(model, size)
    others: list[tuple[str, int, int, int]] = [
        (other, *cnn.totals(named(other, None, (3, 224, 224), 1000), (3, 224, 224))) for other in NETS
    ]
    mine = (name, *cnn.totals(model, size))
    heading = f"architectures: {name} on pictures of {'x'.join(map(str, size))}"
    run.figure("layers.png", by_layer(heading, rows))
    title = "architectures: networks for 1000 classes of 3x224x224"
    if mine not in others:
        others.append(mine)
        title += f", and {name} of {'x'.join(map(str, size))}"
    run.figure("family.png", family(title, others))
    run.table("layers.csv", cnn.COLUMNS, map(cnn.cells, rows))
    run.table("family.csv", ["network", "parameters", "flops", "layers"], others)
    run.result(parameters=mine[1], flops=mine[2], layers=mine[3])


def by_layer(heading: str, rows: Sequence[cnn.Row]) -> Figure:
    """Numbers that come out, parameters, FLOPs and field of every layer, in their order."""
    made = figure(heading, 1080, 620)
    panels = made.subplots(2, 2, sharex=True)
    at = range(1, len(rows) + 1)
    sizes = [int(torch.tensor(row.shape).prod()) for row in rows]
    of = {
        "numbers that come out": sizes,
        "parameters": [row.parameters for row in rows],
        "FLOPs": [row.flops for row in rows],
    }
    for axes, (title, values) in zip(panels.flat, of.items(), strict=False):
        axes.bar(at, values)
        axes.set(title=title)
    field = panels[1, 1]
    seen = [(number, row.field) for number, row in zip(at, rows, strict=True) if row.field is not None]
    field.step([number for number, _ in seen], [far for _, far in seen], where="mid")
    field.set(title="field, pixels along a side (none: all)", ylim=(0, None))
    for axes in panels[1]:
        axes.set(xlabel="layer")
    return made


def family(heading: str, rows: Sequence[tuple[str, int, int, int]]) -> Figure:
    """Parameters against FLOPs of (network, parameters, flops, layers), a disc as large as there are layers."""
    made = figure(heading, 840, 560)
    axes = made.subplots()
    for name, parameters, flops, layers in rows:
        axes.scatter(max(flops, 1), max(parameters, 1), s=12 * layers, alpha=0.5, label=f"{name}: {layers}")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a picture", ylabel="parameters")
    axes.margins(0.2)
    made.legend(loc="outside right center", markerscale=0.5, title="layers with weights")
    return made


def gradcheck() -> Iterator[Case]:
    def some(g: torch.Generator) -> Tensor:
        """Side, channels in and out, stride, border, dilation, and the side of the picture."""
        bounds = ((1, 5), (1, 4), (1, 6), (1, 3), (0, 2), (1, 2), (20, 30))
        return torch.tensor([int(torch.randint(low, high + 1, (), generator=g)) for low, high in bounds])

    def convolution(numbers: Tensor) -> Sides:
        """Parameters and operations of one layer; the bias is added and not multiplied."""
        m, c, k, s, p, d, n = numbers.tolist()
        p = min(p, d * (m - 1))
        places = (n + 2 * p - d * (m - 1) - 1) // s + 1
        model = named("vgg16", f"conv {m} {k} s{s} p{p} d{d}", (c, n, n), 1)
        (row,) = cnn.table(model, (c, n, n))
        products = m * m * c * k * places**2
        right = [(m * m * c + 1) * k, 2 * products, places, d * (m - 1) + 1, s]
        found = [row.parameters, row.flops, row.shape[1], row.field, row.jump]
        return torch.tensor(found), torch.tensor(right), torch.tensor([m * m * c * k, products, *right[2:]])

    yield identity("convolution: (m^2 C + 1) K, 2 m^2 C K H' W'", convolution, some, mistake="no bias, products alone")

    def dense(numbers: Tensor) -> Sides:
        _, c, k, *_, n = numbers.tolist()
        model = named("vgg16", f"dense {k}", (c, n, n), 1)
        row = cnn.table(model, (c, n, n))[-1]
        return torch.tensor([row.parameters, row.flops]), torch.tensor([(c * n * n + 1) * k, 2 * c * n * n * k])

    yield identity("dense: (D + 1) K", dense, some)

    def whole(_: Tensor) -> Sides:
        """What layers have, together, is what the network has."""
        found, right, once = [], [], []
        for net in ("alexnet", "vgg16", "googlenet", "resnet18"):
            model = named(net, None, (3, 224, 224), 1000)
            rows = cnn.table(model, (3, 224, 224))
            found.append(sum(row.parameters for row in rows))
            once.append(max(row.parameters for row in rows))
        rows = cnn.table(named("unet", None, (1, 64, 64), 2), (1, 64, 64))
        found.append(sum(row.parameters for row in rows))
        once.append(max(row.parameters for row in rows))
        right = [61_100_840, 138_357_544, 6_998_552, 11_689_512, 31_030_658]
        return torch.tensor(found), torch.tensor(right), torch.tensor(once)

    yield identity("the papers' networks", whole, (1,), mistake="their largest layer alone")
