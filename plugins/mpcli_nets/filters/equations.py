"""Equations of linear filters, in the code that filters."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, identity
from mpcli_nets.filters import linear, symmetry


def at(image: Tensor, i: int, j: int) -> Tensor:
    """I(i, j), 0 outside."""
    inside = 0 <= i < image.shape[0] and 0 <= j < image.shape[1]
    return image[i, j] if inside else image.new_zeros(())


def gradcheck() -> Iterator[Case]:
    yield from sums()
    yield from matrices()
    yield from symmetries()


def sums() -> Iterator[Case]:
    """Correlation and convolution, term by term."""

    def correlation(image: Tensor, k: Tensor) -> Sides:
        """Of 3x3, written out; the notes have c23 on the wrong side."""

        def whole(wrong: bool) -> Tensor:
            rows = []
            for i in range(6):
                for j in range(5):
                    terms = [k[m + 1, n + 1] * at(image, i + m, j + n) for m in (-1, 0, 1) for n in (-1, 0, 1)]
                    slip = k[1, 2] * (at(image, i, j - 1) - at(image, i, j + 1)) if wrong else 0
                    rows.append(torch.stack(terms).sum() + slip)
            return torch.stack(rows).reshape(6, 5)

        return linear.correlate(image, k), whole(False), whole(True)

    printed = Printed("(22)", "c13 without I, c23 I(i, j - 1)", "c13 I(i - 1, j + 1), c23 I(i, j + 1)")
    yield identity("correlation: sum K(m, n) I(i + m, j + n)", correlation, (6, 5), (3, 3), printed=printed)

    def convolution(image: Tensor, k: Tensor) -> Sides:
        rows = [
            torch.stack([k[m + 1, n + 1] * at(image, i - m, j - n) for m in (-1, 0, 1) for n in (-1, 0, 1)]).sum()
            for i in range(6)
            for j in range(5)
        ]
        return linear.convolve(image, k), torch.stack(rows).reshape(6, 5), linear.correlate(image, k)

    yield identity("convolution: sum K(m, n) I(i - m, j - n)", convolution, (6, 5), (3, 3), mistake="correlation")

    def commutes(image: Tensor, k: Tensor) -> Sides:
        """sum I(m, n) K(i - m, j - n); the notes print one sum twice, and call it a correlation."""
        return linear.convolve(image, k, "full"), linear.convolve(k, image, "full"), linear.correlate(image, k, "full")

    printed = Printed("(24) = (25)", "sum K(m, n) I(i - m, j - n) twice", "= sum I(m, n) K(i - m, j - n)")
    yield identity("I * K = K * I on full support", commutes, (6, 5), (3, 3), printed=printed)

    def turned(image: Tensor, k: Tensor) -> Sides:
        even = k + k.flip(0, 1)
        return linear.convolve(image, even), linear.correlate(image, even)

    yield identity("K(m, n) = K(-m, -n): both are one", turned, (6, 5), (3, 3))

    def difference(x: Tensor) -> Sides:
        k = torch.tensor([[-1.0, 1.0]], dtype=x.dtype)
        right = (x[1:] - x[:-1])[None]
        return linear.correlate(x[None], k, "valid"), right, linear.convolve(x[None], k, "valid")

    yield identity("[-1, 1]: f(x + 1) - f(x)", difference, (7,), mistake="as a convolution")

    def alike(image: Tensor, place: Tensor) -> Sides:
        """A template cut out of the picture, made brighter and steeper, is found where it was."""
        i, j = (int(k) for k in (place.abs() * 3).long().clamp(max=5))
        score = linear.match(image, 3 * image[i : i + 4, j : j + 4] + 2)
        return torch.stack([score.max(), score[i, j]]), torch.ones(2)

    yield identity("match: 1 where the template came from", alike, (9, 9), (2,))


def matrices() -> Iterator[Case]:
    """Filters as matrices."""

    def product(x: Tensor, k: Tensor) -> Sides:
        return linear.toeplitz(k, len(x)) @ x, linear.convolve(x[None], k[None], "full")[0]

    yield identity("T x = k * x in full", product, (7,), (3,))

    def adjoint(x: Tensor, y: Tensor, k: Tensor) -> Sides:
        """T^T y is the correlation: <T x, y> = <x, T^T y>."""
        return linear.toeplitz(k, len(x)).T @ y, linear.correlate(y[None], k[None], "valid")[0]

    yield identity("T^T y: the correlation", adjoint, (7,), (9,), (3,))

    def same(image: Tensor, k: Tensor) -> Sides:
        return linear.varying(image, k.expand(6, 5, 3, 3)), linear.correlate(image, k)

    yield identity("K(i, j, m, n) = K(m, n): a correlation", same, (6, 5), (3, 3))

    def recovered(k: Tensor) -> Sides:
        found = linear.impulse_response(lambda image: linear.convolve(image, k), 7, 7)
        return found[2:5, 2:5], k, k.flip(0, 1)

    yield identity("T of a single one: the kernel", recovered, (3, 3), mistake="turned by half a turn")


def symmetries() -> Iterator[Case]:
    """What the tester compares."""

    def filtered(u: Tensor, v: Tensor, k: Tensor) -> Sides:
        """T(a u + b v) = a T(u) + b T(v); the notes lose a and b."""
        left, right = symmetry.linear(lambda x: linear.correlate(x, k), u, v, 2.0, -3.0)
        return left, right, linear.correlate(u, k) + linear.correlate(v, k)

    printed = Printed("(18)", "T(a u + b v) = T(u) + T(v)", "T(a u + b v) = a T(u) + b T(v)")
    yield identity("a filter is linear", filtered, (6, 5), (6, 5), (3, 3), printed=printed)

    def shifted(u: Tensor, k: Tensor) -> Sides:
        inner = torch.zeros(9, 9, dtype=u.dtype)
        inner[3:6, 3:6] = u
        left, right = symmetry.equivariant(lambda x: linear.correlate(x, k), inner, (1, 2))
        return left, right, linear.correlate(inner, k)

    printed = Printed("001 5", "invariant: T(f(u)) = f(T(u))", "T(f(u)) = T(u); that one is equivariant")
    yield identity("a filter is equivariant to shifts", shifted, (3, 3), (3, 3), printed=printed)

    def summed(u: Tensor) -> Sides:
        return symmetry.invariant(lambda x: x.square().sum((-2, -1)), u, (2, 1))

    yield identity("a sum over all places is invariant", summed, (6, 5))
