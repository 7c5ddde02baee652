"""The equations of SMPLify: the energy, the camera, the robust error, the priors."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Sides, gradient, identity, inequality, uniform
from mpcli_bodies import smplify
from mpcli_bodies.kit.keypoints import SMPL_24
from mpcli_bodies.smpl import SMPL, Body
from mpcli_bodies.smpl.files import random_body
from mpcli_bodies.smplify import observed, prior


def gradcheck() -> Iterator[Case]:
    yield from energy()
    yield from camera()
    yield from priors()


def energy() -> Iterator[Case]:
    def person(g: torch.Generator) -> Body:
        return dataclasses.replace(random_body(g), landmarks={"nose": 0})

    def whole(body: Body, places: Tensor, root: Tensor, betas: Tensor, deviation: Tensor) -> Sides:
        model, mean = SMPL(body, torch.float64), torch.zeros(24, 3).double()
        seen = observed.InSpace(model, body, SMPL_24, places, torch.ones(24).double(), "drawn")
        people = smplify.People(mean, deviation, 10, root, 0 * root)
        people.betas.data, people.body.data = betas, torch.full_like(people.body, 0.05)
        now, rows = smplify.Stage(1.0, 0.07, 2), torch.arange(2)
        betas, pose, place = people.guess(rows)
        away = model(betas, pose, place)[1] - places
        misfit = (0.09 * away.square().sum(-1) / (0.09 + away.square().sum(-1))).sum(1) / 0.07**2
        unusual = prior.independent(pose / deviation)[:, 1:].square().sum((1, 2)) / 2
        hinges = smplify.overextension(pose)
        without = misfit + unusual + hinges
        return people(seen, rows, now), without + betas.square().sum(1) / 2, without

    name = "E = 1/s^2 sum rho(e) + 1/2 (theta - mu)' C^-1 (theta - mu) + 1/2 |beta|^2 + sum_hinges exp(-a (bend + b))"
    draw = person, (24, 3), (2, 3), (2, 10), uniform(0.2, 1, 24, 3)
    yield identity(name, whole, *draw, mistake="no prior on the build")


def camera() -> Iterator[Case]:
    def before_camera(g: torch.Generator) -> Tensor:
        return torch.randn(6, 3, generator=g, dtype=torch.float64) - torch.tensor([0, 0, 6])

    def slope(x: Tensor, f: float, c: Tensor) -> Sides:
        z = x[:, 2]
        return observed.project(x, f, c), torch.stack([f / -z, f / z, f * (x[:, 0] - x[:, 1]) / z**2], 1)

    name = "dPi/dx = f (1/-z, 1/z, (x - y)/z^2), summed over u and v"
    yield gradient(name, slope, before_camera, lambda g: 550.0, (2,))

    def larger(x: Tensor, f: float, c: Tensor, a: Tensor) -> Sides:
        return observed.project(a * x, f, c), observed.project(x, f, c)

    name = "Pi(a x) = Pi(x): size and distance cannot be told apart"
    yield identity(name, larger, before_camera, lambda g: 550.0, (2,), uniform(1, 3, 1))

    def pull(e: Tensor) -> Sides:
        return observed.robust(e.square(), 0.5), 2 * e * 0.5**4 / (0.5**2 + e.square()).square(), 2 * e

    name = "rho'(e) = 2 e sigma^4 / (sigma^2 + e^2)^2"
    yield gradient(name, pull, (8,), mistake="a square: the farthest outlier pulls most")

    def bounded(e: Tensor) -> Sides:
        return observed.robust(e.square(), 0.5), e.square().clamp(max=0.5**2)

    yield inequality("rho(e) <= e^2 and rho(e) <= sigma^2", bounded, (8,))


def priors() -> Iterator[Case]:
    def hinges(pose: Tensor) -> Sides:
        slope = torch.zeros_like(pose)
        for joint, axis, sign in prior.HINGES:
            slope[:, joint, axis] = -20 * sign * torch.exp(-20 * (sign * pose[:, joint, axis] + 0.1))
        return smplify.overextension(pose), slope

    yield gradient("hinges: -a sign exp(-a (bend + b))", hinges, uniform(-0.1, 0.1, 2, 24, 3))

    def precision(away: Tensor) -> Sides:  # with C written out
        covariance = torch.eye(72, dtype=away.dtype)
        for hip, knee in ((3, 12), (6, 15)):  # about x; a thigh is lifted to -x, a knee bent to +x
            covariance[hip, knee] = covariance[knee, hip] = -prior.BENT_TOGETHER
        x = away.flatten(1)
        found = prior.independent(away).flatten(1).square().sum(1, keepdim=True)
        return found, x @ torch.linalg.inv(covariance) @ x.mT, x @ x.mT

    name = "(theta - mu)' C^-1 (theta - mu), knees given hips"
    yield identity(name, precision, (1, 24, 3), mistake="hip and knee taken as independent")
