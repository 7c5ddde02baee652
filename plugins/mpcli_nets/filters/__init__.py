"""Filters: correlation and convolution of a picture with a kernel, and which operators are such filters.

    varying        (T I)(i, j) = sum_mn K(i, j, m, n) I(i + m, j + n)      any linear filter
    correlation    (T I)(i, j) = sum_mn K(m, n) I(i + m, j + n)            the same kernel everywhere
    convolution    (T I)(i, j) = sum_mn K(m, n) I(i - m, j - n)            the kernel turned by half a turn:
                               = sum_mn I(m, n) K(i - m, j - n)            I * K = K * I, on full support
    one row x      k * x = T x,  T Toeplitz: k in every column, one place lower each time

    linear         T(a u + b v) = a T(u) + b T(v)
    equivariant    T(f(u)) = f(T(u))        invariant    T(f(u)) = T(u)        f a shift
    linear and equivariant to shifts: a convolution, with T of a single one as its kernel

The kernel [-1, 1] is f(x + 1) - f(x) as a correlation; as a convolution its sign is the other one. `render` filters
a picture, or finds a template in it by normalised correlation (`--template FILE`). `evaluate` tries whether a filter,
or any function or module of Python (`--module PACKAGE.MODULE:NAME`, which is imported), is linear, equivariant and
invariant; of what is both linear and equivariant it tells the kernel.

Lewis, Fast Normalized Cross-Correlation, 1995. Vision Interface
Jones and Palmer, An evaluation of the two-dimensional Gabor filter model of simple receptive fields, 1987.
"""

import importlib
import inspect
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.run import Run
from mpcli_nets.filters import kernels, linear, pictures, symmetry
from mpcli_nets.filters.equations import gradcheck as gradcheck

__all__ = ["kernels", "linear"]

ROW = 8  # numbers of the row whose matrix is drawn

Kernel = Annotated[str, "gradient, sobel, sobel_y, laplace, sharpen, box, gaussian, gabor, a picture, or '-1 1; 0 0'"]
Operation = Annotated[Literal["correlation", "convolution"], "what is done with the kernel"]
OPERATIONS = {"correlation": linear.correlate, "convolution": linear.convolve}


def render(
    run: Run,
    data: Annotated[str, "picture: a file, or camera"] = "camera",
    kernel: Kernel = "sobel",
    operation: Operation = "correlation",
    mode: Annotated[Literal["full", "same", "valid"], "which places"] = "same",
    template: Annotated[str | None, "picture to be found, in place of a kernel"] = None,
) -> None:
    image = kernels.picture(data)
    name = "camera" if data == "camera" else data.rpartition("/")[2]
    if template is not None:
        part = kernels.picture(template)
        fits(data, image, part)
        score = linear.match(image, part)
        best = int(score.argmax())
        at = best // score.shape[1], best % score.shape[1]
        heading = f"filters on {name}: {template.rpartition('/')[2]} found with {float(score.max()):.3f}"
        run.figure("match.png", pictures.found(heading, image, part, score, at))
        run.result(row=at[0], column=at[1], correlation=score.max())
        return
    k = kernels.kernel(kernel)
    if mode == "valid":
        fits(data, image, k)
    response = OPERATIONS[operation](image, k, mode)
    heading = f"filters on {name}: {operation} with {kernel if len(kernel) < 40 else 'a kernel'}, {mode}"
    run.figure("filtered.png", pictures.filtered(heading, image, k, response, operation))
    row = pictures.cropped(k)
    run.figure("toeplitz.png", pictures.matrix("filters: a convolution as a matrix", row, linear.toeplitz(row, ROW)))
    run.result(least=response.min(), greatest=response.max())


def fits(data: str, image: Tensor, part: Tensor) -> None:
    """Refuse a kernel or a template that is larger than the picture."""
    if part.shape[0] > image.shape[0] or part.shape[1] > image.shape[1]:
        has, wants = ("x".join(map(str, reversed(x.shape))) for x in (image, part))
        raise InputError(f"{data}: has {has} pixels, fewer than the {wants} that are to lie in it")


def evaluate(
    run: Run,
    kernel: Kernel = "sobel",
    operation: Operation = "correlation",
    module: Annotated[str | None, "PACKAGE.MODULE:NAME, a function or module of Python, in place of a kernel"] = None,
    shape: Annotated[tuple[int, ...], "of the pictures that it is tried on: channels,height,width", Ge(1)] = (
        1,
        24,
        24,
    ),
) -> None:
    if len(shape) != 3:
        raise InputError(f"--shape {','.join(map(str, shape))}: right would be channels,height,width such as 1,24,24")
    if module is None:
        k = kernels.kernel(kernel)
        name, operator = f"{operation} with {kernel}", lambda u: OPERATIONS[operation](u, k)
    else:
        name, operator = module, loaded(module)
    try:
        found = symmetry.examined(operator, (1, *shape), run.seed)
    except Exception as error:  # whatever somebody's code raises for pictures that it was not made for
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: cannot be tried on pictures [1, {', '.join(map(str, shape))}] ({first})") from error
    for one in found:
        said = "holds" if one.holds else f"fails: {one.where}"
        run.say(f"{name}: {one.name} {said} (off by {one.off:.1e})")
        run.result(**{one.name: int(one.holds), f"{one.name}_off": one.off})
    holds = {one.name for one in found if one.holds}
    if {"linearity", "equivariance"} <= holds and shape[0] == 1:
        response = linear.impulse_response(lambda u: operator(u[None, None])[0, 0], *shape[1:])
        inside = response.nonzero()
        if len(inside):
            (top, left), (bottom, right) = inside.min(0).values.tolist(), inside.max(0).values.tolist()
            k = response[top : bottom + 1, left : right + 1]
            rows = "; ".join(" ".join(f"{value:.4g}" for value in row) for row in k.tolist())
            run.say(
                f"{name} is a convolution with a kernel {len(k)}x{k.shape[1]}"
                + (f": {rows}" if k.numel() <= 49 else "")
            )


def loaded(module: str) -> symmetry.Operator:
    """What `PACKAGE.MODULE:NAME` names, made where it is a class, as an operator on float64."""
    package, _, name = module.partition(":")
    right = "right would be PACKAGE.MODULE:NAME, such as torch.nn:ReLU"
    try:
        found = importlib.import_module(package)
        for part in name.split("."):
            found = getattr(found, part)
        operator = found() if inspect.isclass(found) else found
    except Exception as error:  # whatever importing and making of somebody's code raises
        raise InputError(f"--module {module}: cannot be had ({type(error).__name__}: {error}); {right}") from error
    if not callable(operator):
        raise InputError(f"--module {module}: is no function and no module; {right}")
    if isinstance(operator, nn.Module):
        operator = operator.double().eval()
    return torch.no_grad()(operator)
