"""The equations of SMPLify: the camera, the robust error, the priors."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case
from mpcli.old_checks import gradient, identity, inequality
from mpcli_bodies.smplify import overextension, prior
from mpcli_bodies.smplify.observed import project, robust


def normal(g: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, generator=g, dtype=torch.float64)


def camera() -> Iterator[Case]:
    def before_camera(g: torch.Generator) -> tuple[Tensor, ...]:
        centre = 100 * normal(g, 2)
        return (
            normal(g, 6, 3) - torch.tensor([0.0, 0, 6]),
            500 + 100 * torch.rand(1, generator=g),
            centre,
            1 + normal(g, 1).abs(),
        )

    def flow(x: Tensor, f: Tensor, c: Tensor, a: Tensor) -> Tensor:
        z = x[:, 2]
        right, down = f / -z, f / z
        return torch.stack([right, down, f * (x[:, 0] - x[:, 1]) / z.square()], 1)

    yield gradient(
        "dPi/dx = f (1/-z, 1/z, (x - y)/z^2), summed over u and v",
        lambda x, f, c, a: project(x, f, c),
        flow,
        before_camera,
    )
    yield identity(
        "Pi(a x) = Pi(x): size and distance cannot be told apart",
        lambda x, f, c, a: project(a * x, f, c),
        lambda x, f, c, a: project(x, f, c),
        before_camera,
    )


def errors() -> Iterator[Case]:
    def drawn(g: torch.Generator) -> tuple[Tensor, float]:
        return normal(g, 8), 0.5

    yield gradient(
        "rho'(e) = 2 e sigma^4 / (sigma^2 + e^2)^2",
        lambda e, sigma: robust(e.square(), sigma),
        lambda e, sigma: 2 * e * sigma**4 / (sigma**2 + e.square()).square(),
        drawn,
    )
    yield inequality("rho(e) <= e^2", lambda e, sigma: robust(e.square(), sigma), lambda e, sigma: e.square(), drawn)
    yield inequality(
        "rho(e) <= sigma^2", lambda e, sigma: robust(e.square(), sigma), lambda e, sigma: 0 * e + sigma**2, drawn
    )


def priors() -> Iterator[Case]:
    def poses(g: torch.Generator) -> tuple[Tensor]:
        return (0.05 * normal(g, 2, 24, 3),)

    def pull(pose: Tensor) -> Tensor:
        slope = torch.zeros_like(pose)
        for joint, axis, sign in prior.HINGES:
            slope[:, joint, axis] = -20 * sign * torch.exp(-20 * (sign * pose[:, joint, axis] + 0.1))
        return slope

    yield gradient("hinges: -a sign exp(-a (bend + b))", overextension, pull, poses)

    def precision(away: Tensor) -> Tensor:  # with C written out
        covariance = torch.eye(72, dtype=away.dtype)
        for hip, knee in ((3, 12), (6, 15)):  # about x; a thigh is lifted to -x, a knee bent to +x
            covariance[hip, knee] = covariance[knee, hip] = -prior.BENT_TOGETHER
        return away.flatten(1) @ torch.linalg.inv(covariance) @ away.flatten(1).mT

    yield identity(
        "(theta - mu)' C^-1 (theta - mu), knees given hips",
        lambda away: prior.independent(away).flatten(1).square().sum(1, keepdim=True),
        precision,
        lambda g: (normal(g, 1, 24, 3),),
    )
