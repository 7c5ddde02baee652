"""Implicit geometric regularisation: a signed distance from a raw point cloud.

Given only points x_i on a surface, a network f is asked to vanish there and to have unit slope everywhere:

    loss = mean |f(x_i)| + lambda E (|grad f(x)| - 1)^2 + tau mean |grad f(x_i) - n_i|        (normals n_i: optional)

With `--vanish squared` the first term is mean f(x_i)^2, whose pull fades as f nears 0.

|grad f| = 1 is the Eikonal equation; the signed distance solves it, an occupancy in [0, 1] does not. The expectation is
over space: half of its points lie near the cloud, x_i + s_i N(0, I) with s_i the distance to the 50th neighbour, half
are uniform in the box. What chooses among all solutions is where the search starts and that it prefers smooth ones.

    h_0 = u,  z_k = W_k h_k + b_k,  h_{k+1} = log(1 + exp(beta z_k)) / beta,    f = w . h_K - r       softplus layers
    grad f = ... W_k^T (sigmoid(beta z_k) * (W_{k+1}^T ...))                  by the chain rule, written out below
    halfway, h_k is [h_k, u] / sqrt 2;    u = (x - c) / a and a f(u) are in the unit of the cloud: a distance again

It starts as a ball: with W_k ~ N(0, 2 / rows), b_k = 0 and w = sqrt(pi / columns), f(u) is about |u| - r.

For f = w . x and points in a hyperplane through 0 with normal n, gradient descent on mean (w . x_i)^2 +
lambda (|w| - 1)^2 ends at w = n or -n from almost every start; without lambda it keeps w . n as it was.

With the default options, 20,000 points of a cow, the mesh ends up less than 0.1 % of the bounding box's diagonal away
from the true surface (`chamfer` below 0.001; the ball at the start: more than 0.05).

Gropp, Yariv, Haim, Atzmon and Lipman, Implicit Geometric Regularization for Learning Shapes, 2020. arXiv:2002.10099
Atzmon and Lipman, SAL: Sign Agnostic Learning of Shapes from Raw Data, 2020. arXiv:1911.10414 (the start as a ball)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast

import numpy as np
import torch
import trimesh
from annotated_types import Ge, Gt, Interval
from scipy.spatial import KDTree
from torch import Tensor, nn
from torch.nn.functional import softplus

from mpcli.errors import Failed, InputError
from mpcli.kit import datasets, isosurface, metrics
from mpcli.kit.datasets.spot import sampled
from mpcli.kit.pictures import tiles
from mpcli.kit.randomness import generator
from mpcli.run import Run, Trained
from mpcli_surfaces.igr.equations import gradcheck as gradcheck
from mpcli_surfaces.kit import tracing
from mpcli_surfaces.kit.tracing import UP, View, outline
from mpcli_surfaces.mesh import FRONT

SLOPE = 1.5  # how steep a trained network may be where a search must not miss anything; an exact distance has 1


@dataclass(frozen=True)
class Config:
    width: Annotated[int, "width of a layer", Ge(4)] = 128
    depth: Annotated[int, "softplus layers", Ge(2)] = 4
    sharpness: Annotated[float, "beta of the softplus", Gt(0)] = 100.0
    radius: Annotated[float, "radius r of the ball at the start, as a share of the box", Gt(0)] = 0.5
    vanish: Annotated[Literal["absolute", "squared"], "|f| at the points, or |f|^2"] = "absolute"
    eikonal: Annotated[float, "weight lambda of unit slope", Ge(0)] = 0.1
    normals: Annotated[float, "weight tau of the cloud's normals; 0 leaves them unused", Ge(0)] = 0.0
    steps: Annotated[int, "training steps", Ge(1)] = 4000
    batch: Annotated[int, "points on the surface a step, and as many in space", Ge(2)] = 512
    lr: Annotated[float, "learning rate at the start; it falls to zero as a half cosine", Gt(0)] = 2e-3


class IGR(nn.Module):
    """f in the unit of the cloud, whose bounding box is [low, high]."""

    low: Tensor
    high: Tensor

    def __init__(self, cfg: Config, low: tuple[float, ...], high: tuple[float, ...]):
        super().__init__()
        self.beta, self.skip = cfg.sharpness, cfg.depth // 2
        rows = [cfg.width - 3 * (k + 1 == self.skip) for k in range(cfg.depth)]
        linears = nn.ModuleList(nn.Linear(cfg.width if k else 3, rows[k]) for k in range(cfg.depth))
        self.layers = cast(Sequence[nn.Linear], linears)
        self.last = nn.Linear(cfg.width, 1)
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / len(layer.weight)))
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.last.weight, math.sqrt(math.pi / cfg.width), 1e-4)
        nn.init.constant_(self.last.bias, -cfg.radius)
        self.register_buffer("low", torch.tensor(low), persistent=False)
        self.register_buffer("high", torch.tensor(high), persistent=False)

    @property
    def scale(self) -> Tensor:
        return (self.high - self.low).amax() / 2

    def unit(self, x: Tensor) -> Tensor:
        return (x - (self.low + self.high) / 2) / self.scale

    def ball(self) -> tuple[Tensor, Tensor]:  # middle and radius of the one around the cloud's box
        return (self.low + self.high) / 2, (self.high - self.low).norm() / 2

    def box(self) -> isosurface.Box:  # that of the cloud, and a tenth around it
        margin = 0.2 * self.scale
        return isosurface.corner(self.low - margin), isosurface.corner(self.high + margin)

    def ascend(self, u: Tensor) -> tuple[Tensor, list[Tensor]]:  # [B, 3] -> h_K [B, width], all z_k
        h, zs = u, []
        for k, layer in enumerate(self.layers):
            if k == self.skip:
                h = torch.cat([h, u], -1) / math.sqrt(2)
            zs.append(layer(h))
            h = softplus(zs[-1], self.beta)
        return h, zs

    def value(self, x: Tensor) -> Tensor:  # [B, 3] -> f [B]
        return self.scale * self.last(self.ascend(self.unit(x))[0])[:, 0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [B, 3] -> f [B], grad f [B, 3]
        h, zs = self.ascend(self.unit(x))
        slope, direct = self.last.weight, torch.zeros_like(x)
        for k in reversed(range(len(zs))):
            slope = (slope * torch.sigmoid(self.beta * zs[k])) @ self.layers[k].weight
            if k == self.skip:
                slope, direct = (slope / math.sqrt(2)).split([len(self.layers[k - 1].weight), 3], dim=-1)
        return self.scale * self.last(h)[:, 0], slope + direct


def read(data: str) -> tuple[datasets.Split[datasets.Points], trimesh.Trimesh | None]:
    """The points, and the true surface where `data` names a mesh.

    A mesh gives 20,000 points and none is held out, as it can be compared with itself. Of a cloud a tenth is held out.
    """
    found = datasets.load(data, datasets.Points, trimesh.Trimesh)
    if isinstance(found, trimesh.Trimesh):
        cloud = sampled(found, 20_000, seed=0)
        return datasets.Split(cloud, cloud[:0], cloud[:0]), found
    if len(found) < 20 or found.xyz.amax(0).equal(found.xyz.amin(0)):
        raise InputError(f"{data}: {len(found)} points show no surface; 20 different ones or more would be right")
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(found)))
    tenth = len(found) // 10
    return datasets.Split(found[order[tenth:]], found[:0], found[order[:tenth]]), None


def train(cfg: Config, run: Run, data: Annotated[str, "point cloud, or a mesh to draw one from"] = "spot") -> None:
    split, surface = read(data)
    cloud, held_out = split.train, split.test
    run.say(f"{data}: {len(cloud)} points to learn from, {len(held_out)} held out")
    if cfg.normals and cloud.normals is None:
        raise InputError(
            f"--normals {cfg.normals:g}: {data} has no normals; 0, or a cloud with normals, would be right"
        )
    x = cloud.xyz.to(run.device)
    n = cloud.normals.to(run.device) if cloud.normals is not None else torch.zeros_like(x)
    neighbours = min(51, len(cloud))  # the first is the point itself
    spread = torch.from_numpy(KDTree(cloud.xyz).query(cloud.xyz, neighbours)[0][:, -1:]).to(x)

    model = run.place(IGR(cfg, tuple(x.amin(0).tolist()), tuple(x.amax(0).tolist())))
    adam = torch.optim.Adam(model.parameters(), cfg.lr)
    anneal = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    batches = drawn(x, n, spread, model.box(), cfg.batch, run.seed)
    for points, normals, space in run.track(batches, cfg.steps, model=model, adam=adam, anneal=anneal):
        f, slope = model(torch.cat([points, space]))
        on_surface, in_space = slope.split(len(points))
        vanish, eikonal, turn = terms(f[: len(points)] / model.scale, on_surface, in_space, normals, cfg.vanish)
        loss = vanish + cfg.eikonal * eikonal + cfg.normals * turn
        adam.zero_grad()
        loss.backward()
        adam.step()
        anneal.step()
        run.log(loss=loss, vanish=vanish, eikonal=eikonal)
    run.save(model, cfg, low=model.low.tolist(), high=model.high.tolist())
    run.result(chamfer=chamfer(model.eval(), surface, held_out, resolution=128))


def drawn(
    x: Tensor, n: Tensor, spread: Tensor, box: isosurface.Box, size: int, seed: int
) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
    """Batches as a pure function of the step: `size` points of the cloud, their normals, and as many points in space.

    Of the latter, half are points of the cloud x [N, 3] moved by its `spread` [N, 1] times N(0, I), half even in the
    box.
    """
    low, high = (torch.tensor(corner, device=x.device) for corner in box)
    order = datasets.shuffled(len(x), size, seed)

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        index, g = order(step).to(x.device), generator(seed, step)
        some = index[::2]
        near = x[some] + spread[some] * torch.randn(len(some), 3, generator=g).to(x)
        even = low + (high - low) * torch.rand(size - len(some), 3, generator=g).to(x)
        return x[index], n[index], torch.cat([near, even])

    return batch


def terms(
    f: Tensor, slope: Tensor, in_space: Tensor, normals: Tensor, vanish: str = "absolute"
) -> tuple[Tensor, Tensor, Tensor]:
    """The three means of the loss: of f [B] and its slope [B, 3] at points of the surface with normals [B, 3] (zero
    where unknown), and of its slope at points in space [M, 3].
    """
    turn = (slope - normals).norm(dim=-1) * normals.any(-1)
    off = f.abs() if vanish == "absolute" else f.square()
    return off.mean(), (in_space.norm(dim=-1) - 1).square().mean(), turn.mean()


def chamfer(model: IGR, surface: trimesh.Trimesh | None, held_out: datasets.Points, resolution: int) -> float:
    """Between the extracted mesh and the truth, as a share of the diagonal of the cloud's bounding box.

    The mean of both directions. To a true surface distances are exact, from 5,000 points on either side. Held-out
    points are compared with as many points of the mesh, so that even a perfect mesh is about their spacing away.
    """
    try:
        mesh = isosurface.marching_cubes(
            model.value, model.box(), resolution, lipschitz=SLOPE, device=model.low.device
        ).mesh()
    except InputError as error:
        raise Failed(f"the trained function is no surface: {error}") from error
    if surface is None:
        apart = metrics.chamfer(sampled(mesh, len(held_out), seed=1).xyz, held_out.xyz)
    else:
        ours, theirs = sampled(mesh, 5_000, seed=1).xyz.numpy(), sampled(surface, 5_000, seed=2).xyz.numpy()
        there, back = metrics.point_to_surface(ours, surface), metrics.point_to_surface(theirs, mesh)
        apart = float(there.mean() + back.mean()) / 2
    return apart / float((model.high - model.low).norm())


def evaluate(
    trained: Trained,
    run: Run,
    data: Annotated[str | None, "point cloud or mesh to compare with; that of the run where none is named"] = None,
    resolution: Annotated[int, "cells along the longest side", Interval(ge=2, le=1024)] = 128,
) -> None:
    points, surface = read(data or trained.options["data"])
    run.result(chamfer=chamfer(trained.load(IGR, Config), surface, points.test, resolution))


def marching_cubes(
    trained: Trained,
    run: Run,
    grid: isosurface.Grid,
    lipschitz: Annotated[float, "steepest slope that the octree reckons with; a distance has 1", Gt(0)] = SLOPE,
) -> None:
    model = trained.load(IGR, Config)
    isosurface.extract(
        run, model.value, grid, model.box(), lipschitz, heading=trained.heading, up=UP["y"], azimuth=FRONT
    )


@dataclass(frozen=True)
class Upright(View):
    azimuth: Annotated[float, "angle of the (first) camera around the object, radians"] = FRONT
    up: Annotated[Literal["x", "y", "z"], "the axis that points up"] = "y"


@torch.no_grad()
def render(trained: Trained, run: Run, view: Upright) -> None:
    """Sphere tracing; the colour of a point is its normal n = grad f / |grad f|, as (n + 1) / 2."""
    model = trained.load(IGR, Config)
    turning = view.turning(run)
    middle, reach = model.ball()
    seen = view.cameras((outline(model.value, model.box(), model.low.device) - middle.cpu()) / reach.cpu(), turning)
    pose = seen.pose.to(middle.device).clone()
    pose[:, :3, 3] = middle + reach * pose[:, :3, 3]
    cameras = replace(seen.to(middle.device), pose=pose)
    pictures = tracing.normals(
        model.value, lambda x: model(x)[1].detach(), cameras, model.box(), SLOPE, tolerance=1e-3 * float(reach)
    )
    if turning:
        run.image("orbit.gif", pictures)
        return
    run.figure("normals.png", tiles(pictures, f"{trained.heading}\ncolour: the normal n, as (n + 1) / 2"))
