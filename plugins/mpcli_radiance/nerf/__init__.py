"""Neural radiance field: a scene as a network from place and direction to density and colour, fitted to pictures.

Light that reaches the camera along the ray r(t) = o + t d, with density sigma and colour c:

    C = int T(t) sigma(r(t)) c(r(t), d) dt,    T(t) = exp(-int_near^t sigma(r(s)) ds)

    C ~ sum_i w_i c_i + (1 - sum_i w_i) background,    w_i = T_i (1 - exp(-sigma_i delta_i)),    delta_i = t_{i+1} - t_i
    T_i = exp(-sum_{j<i} sigma_j delta_j), T_1 = 1          so that sum_i w_i = 1 - exp(-sum_i sigma_i delta_i)

Two networks share a ray. The coarse one sees one place in each of N equal parts of it; its weights, made a piecewise
constant density over t, say where the fine one looks as well. The loss is |C_coarse - C|^2 + |C_fine - C|^2.

    gamma(p) = (sin 2^0 pi p, cos 2^0 pi p, ..., sin 2^{L-1} pi p, cos 2^{L-1} pi p)       p in [-1, 1], L = 10; 4 for d

gives the network high frequencies, or sines of random frequencies do. Density is read off before the direction enters.

Where nothing can be is cut out before. Of pictures with a plain background, or with opacity, t runs through what their
silhouettes leave of space, else through all that the views see within the scene's bounds; p = 1 at its border.

Mildenhall, Srinivasan, Tancik, Barron, Ramamoorthi and Ng, NeRF: Representing Scenes as Neural Radiance Fields for
View Synthesis, 2020. arXiv:2003.08934
Tancik et al., Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains, 2020.
arXiv:2006.10739
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu, softplus

from mpcli.errors import InputError
from mpcli.kit import datasets, metrics, raster, rays
from mpcli.kit.cameras import Cameras
from mpcli.kit.datasets import Scene
from mpcli.kit.metrics import SSIM_WINDOW
from mpcli.kit.pictures import tiles
from mpcli.run import ANIMATIONS, Run, Trained, watched
from mpcli_radiance.nerf.batches import jittered, rays_that_meet
from mpcli_radiance.nerf.encodings import Coordinates, Encoding, Octaves, RandomFourier
from mpcli_radiance.nerf.equations import gradcheck as gradcheck
from mpcli_radiance.nerf.space import Space, measured
from mpcli_radiance.nerf.views import DEPTH, around, depth_map, span

BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "measured": None}


@dataclass(frozen=True)
class Config:
    width: Annotated[int, "units of a layer; 256 in the paper", Ge(4)] = 64
    depth: Annotated[int, "layers before the density; 8 in the paper", Ge(2)] = 4
    encoding: Annotated[
        Literal["positional", "fourier", "none"], "octaves, random frequencies, or coordinates as they are"
    ] = "positional"
    octaves: Annotated[int, "L of gamma for places; 10 in the paper", Ge(1)] = 8
    octaves_direction: Annotated[int, "L of gamma for directions", Ge(1)] = 4
    bandwidth: Annotated[float, "standard deviation of the random frequencies", Gt(0)] = 4.0
    coarse: Annotated[int, "samples a ray of the coarse network; 64 in the paper", Ge(2)] = 16
    fine: Annotated[int, "samples a ray that the fine network adds; 128 in the paper", Ge(1)] = 16
    background: Annotated[
        Literal["measured", "white", "black"], "behind the scene; measured: white, or what is at the pictures' borders"
    ] = "measured"
    steps: Annotated[int, "training steps", Ge(1)] = 900
    batch: Annotated[int, "rays a step, of those that may meet something", Ge(1)] = 512
    lr: Annotated[float, "learning rate at the start; it falls tenfold", Gt(0)] = 5e-3


def encodings(cfg: Config) -> tuple[Encoding, Encoding]:  # of places and of directions
    if cfg.encoding == "none":
        return Coordinates(), Coordinates()
    octaves = cfg.encoding == "positional"
    place = Octaves(cfg.octaves) if octaves else RandomFourier(cfg.octaves, cfg.bandwidth)
    return place, Octaves(cfg.octaves_direction)


class Field(nn.Module):
    """sigma(x) and c(x, d). The encoded place enters again after the middle layer; the direction only at the end."""

    def __init__(self, cfg: Config):
        super().__init__()
        self.place, self.direction = encodings(cfg)
        self.layers = nn.ModuleList(nn.Linear(cfg.width if i else self.place.size, cfg.width) for i in range(cfg.depth))
        self.skip = max(1, 5 * cfg.depth // 8)  # the sixth layer of the paper's eight
        self.again = nn.Linear(self.place.size, cfg.width, bias=False)
        self.to_density = nn.Linear(cfg.width, 1)
        self.to_feature = nn.Linear(cfg.width, cfg.width)
        self.from_feature = nn.Linear(cfg.width, cfg.width // 2)
        self.from_direction = nn.Linear(self.direction.size, cfg.width // 2, bias=False)
        self.to_colour = nn.Linear(cfg.width // 2, 3)

    # A layer fed with the vector (h, e) computes W_h h + W_e e + b: two layers, added, spare the copying into one.

    def hidden(self, x: Tensor) -> Tensor:  # places in [-1, 1]^3 [..., 3] -> [..., W]
        h = encoded = self.place(x)
        for i, layer in enumerate(self.layers):
            h = layer(h)
            h = h + self.again(encoded) if i == self.skip else h
            h = relu(h, inplace=not h.requires_grad)
        return h

    def density(self, h: Tensor) -> Tensor:  # [..., W] -> sigma [...] > 0, per unit of the scaled places
        # The paper's ReLU can be zero everywhere after a few steps, and then learns no more: one seed in four here. The
        # factor lets walls become opaque, and empty places clear, in few steps.
        return softplus(10 * self.to_density(h)[..., 0])

    def colour(self, h: Tensor, d: Tensor) -> Tensor:  # [..., W], unit directions [..., 3] or broadcast -> [..., 3]
        h = self.from_feature(self.to_feature(h)) + self.from_direction(self.direction(d))
        return self.to_colour(h.relu()).sigmoid()

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        h = self.hidden(x)
        return self.density(h), self.colour(h, d)


def stratified(near: float, far: float, n: int, u: Tensor) -> Tensor:  # u [R, n] in [0, 1): one place in each part
    return near + (far - near) * (torch.arange(n, device=u.device) + u) / n


def spacing(s: Tensor, end: Tensor) -> Tensor:  # s [R, N] ascending, end [R] -> delta [R, N]; the last reaches to it
    return torch.diff(s, append=end[:, None])


def weights(sigma: Tensor, delta: Tensor) -> Tensor:  # [R, N] -> w [R, N]
    thickness = sigma * delta
    before = thickness.cumsum(-1) - thickness  # sum over j < i
    return -torch.exp(-before) * torch.expm1(-thickness)


def importance(edges: Tensor, mass: Tensor, u: Tensor) -> Tensor:
    """Places [R, M] where the distribution with `mass` [R, N] between `edges` [R, N + 1] has reached the shares u."""
    cdf = (mass / mass.sum(-1, keepdim=True)).cumsum(-1)
    i = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(max=mass.shape[-1] - 1)
    after, share = cdf.gather(-1, i), (mass / mass.sum(-1, keepdim=True)).gather(-1, i)
    low, high = edges.gather(-1, i), edges.gather(-1, i + 1)
    return low + (high - low) * ((u - (after - share)) / share).clamp(0, 1)


class NeRF(nn.Module):
    """Both fields of a scene, the space that it fills, scaled to [-1, 1]^3, and the colour behind it."""

    def __init__(self, cfg: Config, background: tuple[float, ...] = (1.0, 1.0, 1.0)):
        super().__init__()
        self.cfg, self.space = cfg, Space()
        self.register_buffer("background", torch.tensor(background), persistent=False)
        self.coarse, self.fine = Field(cfg), Field(cfg)

    background: Tensor

    def midpoints(self, rows: int) -> tuple[Tensor, Tensor]:  # where in its part each place lies: [R, N], [R, M]
        half = self.background.new_full((rows, self.cfg.coarse + self.cfg.fine), 0.5)
        return half[:, : self.cfg.coarse], half[:, self.cfg.coarse :]

    def first_places(self, end: Tensor, u: Tensor) -> Tensor:  # [R], [R, N] in [0, 1) -> s [R, N]
        return stratified(0, 1, self.cfg.coarse, u) * end[:, None]

    def all_places(self, s: Tensor, w: Tensor, end: Tensor, u: Tensor) -> Tensor:
        # the coarse network's s and w [R, N], end [R], and [R, M] in [0, 1) -> [R, N + M], sorted
        edges = torch.cat([torch.zeros_like(end)[:, None], (s[:, 1:] + s[:, :-1]) / 2, end[:, None]], -1)
        shares = stratified(0, 1, self.cfg.fine, u)
        more = importance(edges, w.detach() + 1e-3, shares)  # a little everywhere, lest the coarse network be blind
        return torch.cat([s, more], -1).sort(-1).values

    def scaled(self, origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:  # [R, 3], [R, 3], [R, N] -> [R, N, 3]
        return (origins[:, None] - self.space.middle + t[..., None] * directions[:, None]) / self.space.reach

    def light(
        self, field: Callable[..., tuple[Tensor, Tensor]], origins: Tensor, directions: Tensor, t: Tensor, delta: Tensor
    ) -> tuple[Tensor, Tensor]:  # of rays [R, 3] at t [R, N], each for delta [R, N]: weights [R, N], colours [R, 3]
        sigma, c = field(self.scaled(origins, directions, t), directions[:, None])
        w = weights(sigma, delta / self.space.reach)
        return w, (w[..., None] * c).sum(1) + (1 - w.sum(-1, keepdim=True)) * self.background

    def forward(
        self, origins: Tensor, directions: Tensor, offsets: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rays [R, 3] -> colours of the coarse and of the fine network [R, 3], and the fine network's t and w.

        `offsets` [R, N] and [R, M] say where in its part each sample lies; without them in the middle.
        """
        u, v = offsets or self.midpoints(len(origins))
        way = self.space.open(origins, directions)
        s = self.first_places(way.length, u)
        w, coarse = self.light(self.coarse, origins, directions, way.at(s), spacing(s, way.length))
        s = self.all_places(s, w, way.length, v)
        t = way.at(s)
        w, fine = self.light(self.fine, origins, directions, t, spacing(s, way.length))
        return coarse, fine, t, w

    @torch.inference_mode()
    def render(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `forward` gives, in a fraction of the time: colour [R, 3], expected distance [R] and opacity [R]."""
        from mpcli_radiance.nerf.march import march

        colour, distance = self.background.expand_as(origins).clone(), torch.zeros_like(origins[:, 0])
        opacity = torch.zeros_like(distance)
        for rows in torch.arange(len(origins), device=origins.device).split(4096):  # bounds the memory
            way = self.space.open(origins[rows], directions[rows])
            meets = way.length > 0
            rows, way = rows[meets], way.of(meets)
            o, d = origins[rows], directions[rows]
            u, v = self.midpoints(len(o))
            s = self.first_places(way.length, u)
            w, _ = march(self, self.coarse, o, d, way.at(s), spacing(s, way.length), coloured=False)
            s = self.all_places(s, w, way.length, v)
            t = way.at(s)
            w, seen = march(self, self.fine, o, d, t, spacing(s, way.length), coloured=True)
            opacity[rows] = w.sum(-1)
            colour[rows] = seen + (1 - opacity[rows])[:, None] * self.background
            distance[rows] = (w * t).sum(-1) / opacity[rows].clamp(min=1e-6)
        return colour, distance, opacity

    def view(self, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        """What one camera sees: colour [3, H, W], distance [H, W] and opacity [H, W]."""
        origins, directions = camera.rays()
        colour, distance, opacity = self.render(origins.flatten(0, 2), directions.flatten(0, 2))
        size = (camera.height, camera.width)
        return colour.T.unflatten(1, size), distance.unflatten(0, size), opacity.unflatten(0, size)


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "scene: pictures with cameras"] = "cow",
    judged: Annotated[int, "test views that the result is measured on", Ge(1)] = 5,
) -> None:
    scene = datasets.load(data, Scene).to(run.device)
    run.say(scene.describe())
    if min(scene.images.shape[2:]) < SSIM_WINDOW:
        height, width = scene.images.shape[2:]
        raise InputError(
            f"{data}: its views are {width}x{height}; right would be {SSIM_WINDOW} pixels or more each way"
        )
    known = BACKGROUNDS[cfg.background]
    space, background, found = measured(scene, None if known is None else torch.tensor(known, device=run.device))
    run.say(f"{data}: {found}")
    model = run.place(NeRF(cfg, tuple(background.tolist())))
    model.space.load_state_dict(space.state_dict())
    adam = torch.optim.Adam(model.parameters(), cfg.lr, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.ExponentialLR(adam, 0.1 ** (1 / cfg.steps))
    pixels = rays_that_meet(scene, space, background, cfg.batch, run.seed)
    batches = jittered(pixels, cfg.coarse, cfg.fine, run.seed)
    for origins, directions, colours, *offsets in run.track(batches, cfg.steps, model=model, adam=adam, decay=decay):
        coarse, fine, _, _ = model(origins, directions, offsets)
        loss = mse_loss(coarse, colours) + mse_loss(fine, colours)
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
        run.log(loss=loss, train_psnr=-10 * mse_loss(fine, colours).detach().log10())
    run.save(model, cfg, background=tuple(background.tolist()))
    _, psnr, ssim = zip(*judge(model.eval(), scene, judged), strict=True)
    run.result(psnr=mean(psnr), ssim=mean(ssim))
    blind = nothing_learned(scene, space, background, pixels(0)[2].mean(0), judged)
    if mean(psnr) < blind + 2:
        run.say(
            f"{data}: nothing was learned: one colour wherever there may be something gives {blind:.1f} dB; "
            "right would be cameras that belong to the pictures, more --steps or a smaller --lr"
        )


def judge(model: NeRF, scene: Scene, most: int | None = None) -> Iterator[tuple[str, float, float]]:
    """Name, PSNR in dB and SSIM of the test views, or of the first of them."""
    for i in watched(scene.split.test[:most].tolist(), "held-out views"):
        picture = model.view(scene.cameras[i])[0].clamp(0, 1)
        truth = rays.over(scene.images[i], model.background)
        yield scene.names[i], float(metrics.psnr(picture, truth)), float(metrics.ssim(picture, truth))


def nothing_learned(scene: Scene, space: Space, background: Tensor, mean_colour: Tensor, most: int) -> float:
    """PSNR in dB of a guess at the first test views: one colour wherever a ray meets open space."""
    found = []
    for i in scene.split.test[:most].tolist():
        origins, directions = (x.flatten(0, 2).split(1 << 14) for x in scene.cameras[i].rays())
        meets = torch.cat([space.open(o, d).length > 0 for o, d in zip(origins, directions, strict=True)])
        truth = rays.over(scene.images[i], background)
        guess = torch.where(meets.view(truth.shape[1:]), mean_colour[:, None, None], background[:, None, None])
        found.append(float(metrics.psnr(guess, truth)))
    return mean(found)


def evaluate(
    trained: Trained,
    run: Run,
    data: Annotated[str | None, "scene; that of the run where none is named"] = None,
) -> None:
    model = trained.load(NeRF, Config)
    scene = datasets.load(data or trained.options["data"], Scene).to(run.device)
    rows = list(judge(model, scene))
    run.table("views.csv", ["view", "psnr", "ssim"], rows)
    run.result(psnr=mean(row[1] for row in rows), ssim=mean(row[2] for row in rows))


def render(
    trained: Trained,
    run: Run,
    path: Annotated[Literal["test", "orbit"], "the held-out views beside the truth, or once round the scene"] = "test",
    show: Annotated[Literal["colour", "depth", "both"], "colour, distance (near is bright), or side by side"] = "both",
    views: Annotated[int, "test views at most", Ge(1)] = 5,
    frames: Annotated[int, "views of an orbit", Ge(1)] = 30,
    size: Annotated[int | None, "pixels of the longer side; those of the scene where none is given", Ge(8)] = None,
    elevation: Annotated[float, "angle of an orbit above the ground, radians", Interval(ge=-1.57, le=1.57)] = 0.4,
    up: Annotated[Literal["x", "y", "z", "cameras"], "the axis an orbit goes round, or the cameras' mean up"] = "z",
) -> None:
    model = trained.load(NeRF, Config)
    scene = datasets.load(trained.options["data"], Scene).to(run.device)
    index = scene.split.test[:views]
    cameras = scene.cameras[index] if path == "test" else around(scene, model.space.middle, frames, elevation, up)
    if size is not None:
        scale = size / max(cameras.width, cameras.height)
        cameras = cameras.resized(max(1, round(cameras.width * scale)), max(1, round(cameras.height * scale)))
    seen = [model.view(cameras[i]) for i in watched(range(len(cameras)), "views")]
    colour, distance, opacity = (torch.stack(part).cpu() for part in zip(*seen, strict=True))
    near, far = span(distance[opacity > 0.5])
    columns = {"rendered": colour, "depth": depth_map(distance, opacity, near, far)}
    if show != "both":
        columns.pop("rendered" if show == "depth" else "depth")
    names = [Path(scene.names[i]).name for i in index.tolist()] if path == "test" else []
    if path == "test" and size is None:
        truth = torch.stack([rays.over(scene.images[i], model.background) for i in index]).cpu()
        columns = {"true": truth} | columns
        quality = metrics.psnr(colour.clamp(0, 1), truth).tolist()
        names = [f"{name}\n{value:.1f} dB" for name, value in zip(names, quality, strict=True)]
    pictures = torch.stack(list(columns.values()), 1).clamp(0, 1)  # [R, K, 3, H, W]
    if path == "orbit" or run.suffix in ANIMATIONS:
        side_by_side = torch.cat(list(pictures.unbind(1)), -1)  # [R, 3, H, K W]
        run.image("orbit.gif" if path == "orbit" else "test.png", side_by_side, fps=15)
        return
    legend = ("distance along the ray, scene units", near, far, DEPTH) if show != "colour" else None
    run.figure("test.png", tiles(pictures, f"{trained.heading}\nheld-out views", list(columns), names, scale=legend))


def marching_cubes(
    trained: Trained,
    run: Run,
    resolution: Annotated[int, "cells along the longest side of the box", Interval(ge=2, le=1024)] = 128,
    level: Annotated[float | None, "density of the surface; none: half of the greatest, at most 20", Gt(0)] = None,
    bounds: Annotated[tuple[float, ...], "b for [-b, b]^3, or xmin,ymin,zmin,xmax,ymax,zmax; empty: fitted"] = (),
) -> None:
    from mpcli_radiance.nerf.surface import extract

    model = trained.load(NeRF, Config)
    mesh = extract(model, datasets.load(trained.options["data"], Scene).to(run.device), resolution, level, bounds)
    run.mesh("mesh.ply", mesh)
    run.figure("mesh.png", raster.portrait(mesh, trained.heading))
    run.result(vertices=len(mesh.vertices), faces=len(mesh.faces))
