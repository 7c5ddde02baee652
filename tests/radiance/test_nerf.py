"""The radiance field: its sums against closed forms, its samplers against their distributions, and that it learns."""

import csv
import dataclasses
import json
import math

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from mutants import arguments, larger, part, result
from PIL import Image
from scipy.stats import kstest

from mpcli.kit import datasets, metrics, rays
from mpcli.kit.cameras import look_at, pinhole
from mpcli.kit.datasets.types import Pictures, every_eighth
from mpcli.kit.pictures import tiles
from mpcli_radiance import nerf
from mpcli_radiance.nerf import (
    Config,
    Field,
    NeRF,
    Octaves,
    RandomFourier,
    encodings,
    importance,
    spacing,
    stratified,
    weights,
)
from mpcli_radiance.nerf import march as marching
from mpcli_radiance.nerf.space import Openings, Space, measured

SMALL = {
    "train": ["--width", "8", "--depth", "2", "--coarse", "4", "--fine", "4", "--batch", "16", "--judged", "1"],
    "marching_cubes": ["--resolution", "16"],
}


def without_background(light):
    def dark(self, *args):
        w, colour = light(self, *args)
        return w, colour - (1 - w.sum(-1, keepdim=True)) * self.background

    return dark


def seeing_direction(forward):
    return lambda field, x, d: (field.density(field.hidden(x) + d.sum(-1, keepdim=True)), forward(field, x, d)[1])


def only_sines(entries):
    return torch.cat([entries[..., : entries.shape[-1] // 2]] * 2, -1)


MUTANTS = {
    "no background": (NeRF, "light", without_background),
    "a sample dims itself": (nerf, "weights", lambda w: lambda sigma, delta: w(sigma, delta) * (-sigma * delta).exp()),
    "nothing dims": (nerf, "weights", lambda w: lambda sigma, delta: -torch.expm1(-sigma * delta)),
    "weights too large": (nerf, "weights", result(larger)),
    "the last sample reaches no further": (nerf, "spacing", arguments(lambda s, end: (s, s[:, -1]))),
    "closed space is passed too": (Openings, "at", lambda at: lambda way, s: way.near[:, None] + s),
    "open where it is closed": (Space, "holds", result(lambda held: ~held)),
    "shares from the wrong end": (nerf, "importance", arguments(lambda edges, mass, u: (edges, mass, 1 - u))),
    "mass of the next interval": (nerf, "importance", arguments(lambda edges, mass, u: (edges, mass.roll(1, -1), u))),
    "samples of the next part": (nerf, "stratified", arguments(lambda near, far, n, u: (near, far, n, u + 0.9))),
    "gamma without its cosines": (
        Octaves,
        "forward",
        result(only_sines),
    ),
    "frequencies without pi": (Octaves, "forward", arguments(lambda self, p: (self, p / math.pi))),
    "density that sees the direction": (Field, "forward", seeing_direction),
    "rendering in other colours": (NeRF, "render", part(0, larger)),
}

TINY = ("--width", 32, "--depth", 3, "--coarse", 16, "--fine", 12, "--batch", 128)


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------------ sums


def test_weights_are_shares_of_the_light_that_is_not_let_through():
    sigma, t = 20 * uniform(50, 12), uniform(50, 12).sort(-1).values
    delta = spacing(t, torch.full((50,), 1.5, dtype=torch.float64))
    w = weights(sigma, delta)
    assert (w >= 0).all() and (w.sum(-1) <= 1).all()
    torch.testing.assert_close(w.sum(-1), 1 - torch.exp(-(sigma * delta).sum(-1)))
    # The definition, sample by sample.
    alpha, passing = 1 - torch.exp(-sigma * delta), torch.ones(50, dtype=torch.float64)
    for i in range(12):
        torch.testing.assert_close(w[:, i], passing * alpha[:, i])
        passing = passing * (1 - alpha[:, i])


def test_intervals_fill_the_ray_from_the_first_sample_to_its_end():
    t = uniform(5, 7).sort(-1).values
    delta = spacing(t, torch.full((5,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(delta[:, :-1], t[:, 1:] - t[:, :-1])
    torch.testing.assert_close(delta.sum(-1), 2.0 - t[:, 0])


BOX = Space((-2.0, -2.0, -2.0), (2.0, 2.0, 2.0))


def constant_fog(sigma: float, colour: float, cfg: Config, background=(1.0, 1.0, 1.0)) -> NeRF:
    """A model whose networks are cut short: the same density, per unit of length, and colour everywhere."""
    model = NeRF(cfg, background).eval()
    model.space.load_state_dict(BOX.state_dict())
    raw = math.log(math.expm1(2 * sigma)) / 10
    for field in (model.coarse, model.fine):
        for layer, value in ((field.to_density, raw), (field.to_colour, math.log(colour / (1 - colour)))):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.constant_(layer.bias, value)
    return model


def test_light_through_a_slab_of_constant_density_is_beers_law():
    behind = torch.tensor([1.0, 0.0, 0.4])
    model = constant_fog(0.7, 0.3, Config(width=8, depth=2, coarse=64, fine=64), tuple(behind.tolist()))
    model.space.bounds.copy_(torch.tensor([1.0, 3.0]))
    origins = torch.tensor([[-3.0, 0.0, 0.5], [0.0, 3.0, 0.0], [0.2, 0.2, 2.5]])
    directions = torch.tensor([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])
    coarse, fine, t, w = model(origins, directions)
    end = torch.full((3,), 3.0)
    for colour, first in ((coarse, 1 + 1 / 64), (fine, t[:, 0])):
        through = torch.exp(-0.7 * (end - first))[:, None]  # the sums begin at the first sample
        torch.testing.assert_close(colour, 0.3 * (1 - through) + behind * through)
    torch.testing.assert_close(t, t.sort(-1).values)
    assert t.shape == w.shape == (3, 128)


def test_a_scene_of_another_unit_is_the_same_picture():
    cfg = Config(width=8, depth=2, coarse=20, fine=20)
    small, large = NeRF(cfg).eval(), NeRF(cfg).eval()
    large.load_state_dict(small.state_dict())
    large.space.low *= 1000
    large.space.high *= 1000
    origins = torch.tensor([[0.0, 0.2, 3.0]]).expand(20, 3)
    directions = torch.nn.functional.normalize(0.3 * torch.randn(20, 3) - origins, dim=-1)
    torch.testing.assert_close(large(1000 * origins, directions)[1], small(origins, directions)[1], atol=1e-4, rtol=0)


# -------------------------------------------------------------------------------------------------------- samplers


def test_stratified_samples_are_one_in_each_part_and_even_over_the_ray():
    t = stratified(2.0, 6.0, 8, uniform(4000, 8))
    part = ((t - 2) / 0.5).floor().long()
    assert torch.equal(part, torch.arange(8).expand(4000, 8))
    assert kstest(t.flatten().numpy(), "uniform", (2, 4)).pvalue > 1e-3
    assert kstest((t[:, 3] - 3.5).numpy(), "uniform", (0, 0.5)).pvalue > 1e-3


def test_importance_samples_follow_the_weights():
    edges, mass = torch.tensor([[0.0, 1, 1.5, 3, 5]]).double(), torch.tensor([[0.2, 3.0, 0.0, 0.8]]).double()
    t = importance(edges, mass, uniform(1, 20000))[0]
    assert not ((t > 1.5) & (t < 3)).any()

    def cdf(x):
        return np.interp(x, edges[0].numpy(), np.concatenate([[0], mass[0].cumsum(0)]) / 4)

    assert kstest(t.numpy(), cdf).pvalue > 1e-3
    assert kstest(t.numpy() + 0.05, cdf).pvalue < 1e-6  # the test would notice
    mean, second = (0.2 * 0.5 + 3 * 1.25 + 0.8 * 4) / 4, (0.2 / 3 + 3 * 19 / 12 + 0.8 * 49 / 3) / 4
    assert t.mean().item() == pytest.approx(mean, abs=0.03)
    assert t.square().mean().item() == pytest.approx(second, abs=0.2)


def test_importance_samples_are_better_than_even_ones():
    # A striped, opaque surface around t = 0.7: how wrong is its colour, for how many samples in all?
    def density(t: torch.Tensor) -> torch.Tensor:
        return 200 * torch.exp(-(((t - 0.7) / 0.02) ** 2) / 2)

    def colour(t: torch.Tensor) -> torch.Tensor:
        return (weights(density(t), spacing(t, t.new_ones(len(t)))) * (0.5 + 0.5 * torch.sin(60 * t))).sum(-1)

    def error(n: int, guided: bool) -> float:
        t = stratified(0, 1, n, uniform(3000, n))
        if guided:
            t = stratified(0, 1, n // 2, uniform(3000, n // 2))
            guide = weights(density(t), spacing(t, t.new_ones(len(t)))) + 1e-5
            edges = torch.cat([torch.zeros(3000, 1), (t[:, 1:] + t[:, :-1]) / 2, torch.ones(3000, 1)], -1)
            more = importance(edges, guide, stratified(0, 1, n // 2, uniform(3000, n // 2)))
            t = torch.cat([t, more], -1).sort(-1).values
        return float((colour(t) - truth).square().mean().sqrt())

    truth = colour(torch.linspace(0, 1, 100_001, dtype=torch.float64)[None])
    even, guided = ([error(n, kind) for n in (16, 32, 64, 128)] for kind in (False, True))
    assert even == sorted(even, reverse=True) and guided == sorted(guided, reverse=True)  # more samples help ...
    assert all(better < 0.75 * worse for better, worse in zip(guided, even, strict=True))  # ... guided ones help more


# ----------------------------------------------------------------------------------------------------------- space


def ball_scene(background: float, opacity: bool, spots: bool = False, unit: float = 1.0) -> datasets.Scene:
    """A grey ball of radius 0.5 about (0.3, 0, 0), in units of length; its spots have the colour of the background."""
    eyes = 3 * torch.nn.functional.normalize(torch.randn(24, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    middle = torch.tensor([0.3, 0.0, 0.0])
    cameras = pinhole(look_at(eyes, middle), 0.7, 48, 40)
    origins, directions = cameras.rays()
    across = torch.linalg.cross(origins - middle, directions).norm(dim=-1)[:, None]
    ball = (across < 0.5).float()
    colour = torch.where((across < 0.1) & spots, background, 0.4 + 0.2 * directions.movedim(-1, 1)).clamp(0, 1)
    images = torch.cat([colour, ball], 1) if opacity else colour * ball + background * (1 - ball)
    pose = cameras.pose.clone()
    pose[:, :3, 3] *= unit
    return datasets.Scene(
        Pictures(images),
        dataclasses.replace(cameras, pose=pose),
        every_eighth(24),
        (1.5 * unit, 4.5 * unit),
        ("",) * 24,
    )


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    ("background", "opacity", "spots"),
    [(1.0, True, False), (1.0, False, True), (0.0, False, False), (0.7, False, True)],
)
def test_silhouettes_leave_the_thing_and_little_else(background, opacity, spots, unit):
    space, colour, found = measured(ball_scene(background, opacity, spots, unit), None)
    assert "silhouettes leave" in found and colour.tolist() == pytest.approx([1.0 if opacity else background] * 3)
    middle = torch.tensor([0.3, 0.0, 0.0])
    inside = middle + 0.49 * torch.nn.functional.normalize(torch.randn(2000, 3), dim=-1) * torch.rand(2000, 1)
    beyond = middle + 0.75 * torch.nn.functional.normalize(torch.randn(2000, 3), dim=-1)
    assert space.holds(unit * inside).float().mean() > 0.999 and space.holds(unit * beyond).float().mean() < 0.02
    assert (space.low / unit > torch.tensor([-0.4, -0.7, -0.7])).all()
    assert (space.high / unit < torch.tensor([1.0, 0.7, 0.7])).all()


def test_without_a_plain_background_the_bounds_say_where_to_look():
    scene = ball_scene(1.0, False)
    images = scene.images[:]
    noisy = dataclasses.replace(scene, images=Pictures(torch.where(images == 1, torch.rand(images.shape), images)))
    space, _, found = measured(noisy, None)
    assert "no plain background" in found and space.cells.all()
    way = space.open(*(x[:, 20, 24] for x in scene.cameras.rays()))
    torch.testing.assert_close(way.near, torch.full((24,), 1.5))
    torch.testing.assert_close(way.length, torch.full((24,), 3.0))


def test_cameras_that_are_not_those_of_the_pictures_are_told():
    scene = ball_scene(1.0, True)
    wrong = dataclasses.replace(scene, cameras=scene.cameras[torch.arange(24).roll(5)])
    turned = wrong.cameras.pose.clone()
    turned[:, :3, :3] = turned[:, :3, :3] @ torch.tensor(
        [[0.9553, 0.0, 0.2955], [0.0, 1.0, 0.0], [-0.2955, 0.0, 0.9553]]
    )
    turned[::2, :3, :3] = scene.cameras.pose[::2, :3, :3]
    wrong = dataclasses.replace(wrong, cameras=dataclasses.replace(wrong.cameras, pose=turned))
    space, _, found = measured(wrong, None)
    assert "cameras are wrong" in found and space.cells.all()


def test_training_rays_meet_the_thing():
    scene = ball_scene(1.0, True)
    space, background, _ = measured(scene, None)
    origins, directions, colours = nerf.rays_that_meet(scene, space, background, 200, 3)(7)
    assert origins.shape == colours.shape == (200, 3)
    assert (space.open(origins, directions).length > 0).all()
    across = torch.linalg.cross(origins - torch.tensor([0.3, 0.0, 0.0]), directions).norm(dim=-1)
    assert across.max() < 0.8 and (across < 0.5).float().mean() > 0.5


# -------------------------------------------------------------------------------------------------------- networks


def test_gamma_has_60_and_24_entries_which_are_sines_and_cosines_of_octaves():
    p = 2 * torch.rand(5, 3) - 1
    assert Octaves(10)(p).shape == (5, 60) and Octaves(4)(p).shape == (5, 24)
    expected = torch.cat([f(2**k * math.pi * p) for k in range(4) for f in (torch.sin, torch.cos)], -1)
    found = Octaves(4)(p)  # in an order of its own
    torch.testing.assert_close(found.sort(-1).values, expected.sort(-1).values, atol=1e-5, rtol=0)


def test_random_fourier_features_have_a_gaussian_kernel():
    # gamma(p) . gamma(q) / m -> E cos(2 pi B (p - q)) = exp(-2 pi^2 s^2 |p - q|^2)
    gamma = RandomFourier(4000, bandwidth=0.5)
    p, q = 0.3 * torch.randn(2, 40, 3)
    found = (gamma(p) * gamma(q)).sum(-1) / 12000
    expected = torch.exp(-2 * math.pi**2 * 0.25 * (p - q).square().sum(-1))
    torch.testing.assert_close(found, expected, atol=0.04, rtol=0)
    assert expected.max() - expected.min() > 0.5


@pytest.mark.parametrize("encoding", ["positional", "fourier", "none"])
def test_density_does_not_depend_on_the_direction_but_colour_does(encoding):
    field = Field(Config(width=16, depth=4, encoding=encoding))
    torch.nn.init.constant_(field.to_density.bias, 0.5)
    x, (d, other) = torch.randn(30, 3), torch.nn.functional.normalize(torch.randn(2, 30, 3), dim=-1)
    assert torch.equal(field(x, d)[0], field(x, other)[0]) and (field(x, d)[0] > 0).any()
    assert (field(x, d)[1] - field(x, other)[1]).abs().max() > 1e-4
    leaf = d.clone().requires_grad_()
    density, colour = field(x, leaf)
    assert not density.requires_grad or torch.autograd.grad(density.sum(), leaf, allow_unused=True)[0] is None
    assert torch.autograd.grad(colour.sum(), leaf)[0].abs().max() > 0


def test_the_place_enters_again_behind_the_middle():
    field = Field(Config(width=8, depth=8))
    x = torch.randn(4, 3)
    before = field.hidden(x)
    for i in range(5):
        torch.nn.init.zeros_(field.layers[i].weight)
        torch.nn.init.zeros_(field.layers[i].bias)
    after = field.hidden(x)
    assert not torch.equal(before, after)
    assert (after[0] - after[1]).abs().max() > 0  # cut off from below, it still knows where it is
    torch.nn.init.zeros_(field.again.weight)
    assert (field.hidden(x)[0] - field.hidden(x)[1]).abs().max() == 0


def test_batches_are_a_function_of_seed_and_step_and_all_along_rays():
    def batch(seed: int, step: int) -> tuple[torch.Tensor, ...]:
        scene = datasets.load("cow", datasets.Scene)
        pixels = rays.pixel_batches(scene, scene.split.train, 50, seed, torch.ones(3))
        return nerf.jittered(pixels, 5, 7, seed)(step)

    ours = batch(1, 5)
    assert [tuple(x.shape) for x in ours] == [(50, 3), (50, 3), (50, 3), (50, 5), (50, 7)]
    assert all(torch.equal(x, y) for x, y in zip(ours, batch(1, 5), strict=True))
    for other in (batch(2, 5), batch(1, 6)):
        assert not torch.isin(torch.cat(other[3:], 1), torch.cat(ours[3:], 1)).any()
    assert kstest(torch.cat(ours[3:], 1).flatten().numpy(), "uniform").pvalue > 1e-3


def test_without_offsets_samples_lie_in_the_middle():
    model = constant_fog(0.7, 0.3, Config(width=8, depth=2, coarse=4, fine=3))
    ray = torch.zeros(2, 3), torch.eye(3)[:2]
    t = model(*ray)[2]
    for given in (torch.full((2, 4), 0.5), torch.full((2, 3), 0.5)), (torch.rand(2, 4), torch.rand(2, 3)):
        assert torch.equal(model(*ray, given)[2], t) == bool((given[0] == 0.5).all())


def test_paper_size():
    model = NeRF(Config(width=256, depth=8, octaves=10))
    field = model.fine
    # Eight layers of 256, the sixth fed with the place again; density; a feature; 128 units that see the direction.
    expected = 60 * 256 + 7 * 256 * 256 + 60 * 256 + 8 * 256 + (256 + 1) + (256 * 256 + 256)
    expected += (256 + 24) * 128 + 128 + 128 * 3 + 3
    assert sum(p.numel() for p in field.parameters()) == expected
    assert sum(p.numel() for p in model.parameters()) == 2 * expected


@pytest.mark.parametrize("encoding", ["positional", "fourier", "none"])
def test_without_octaves_or_random_frequencies_a_network_does_not_fit_high_frequencies(encoding):
    x = torch.linspace(-1, 1, 128)[:, None].expand(-1, 3)
    target = torch.sin(16 * math.pi * x[:, :1])
    gamma, _ = encodings(Config(encoding=encoding, octaves=5))
    net = torch.nn.Sequential(
        torch.nn.Linear(gamma.size, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(),
        torch.nn.Linear(32, 1),
    )  # fmt: skip
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(150):
        loss = (net(gamma(x)) - target).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss > 0.3 if encoding == "none" else loss < 0.02  # the power of the target is 0.5


# -------------------------------------------------------------------------------------------------------- rendering


def lively(cfg: Config, background) -> NeRF:
    """An untrained model whose rays end: with empty places, dense places, and colours that differ."""
    model = NeRF(cfg, background).eval()
    model.space.load_state_dict(Space((-1.9, -2.0, -2.1), (2.1, 2.0, 1.9)).state_dict())
    for field in (model.coarse, model.fine):
        torch.nn.init.normal_(field.to_density.weight, std=6 / math.sqrt(cfg.width))
        torch.nn.init.normal_(field.to_colour.weight, std=3.0)
    return model


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.0, 0.2, 0.5)])
def test_fast_rendering_is_the_straightforward_sum(background, monkeypatch):
    model = lively(Config(width=32, depth=4, coarse=40, fine=50, octaves=3), background)
    origins = 3 * torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    directions = torch.nn.functional.normalize(0.5 * torch.randn(500, 3) - origins, dim=-1)
    with torch.no_grad():
        _, expected, t, w = model(origins, directions)
    colour, distance, opacity = model.render(origins, directions)
    bound = 90 * marching.NEGLIGIBLE  # what may be left out of a ray of 90 samples
    torch.testing.assert_close(colour, expected, atol=bound, rtol=0)
    torch.testing.assert_close(opacity, w.sum(-1), atol=bound, rtol=0)
    monkeypatch.setattr(marching, "NEGLIGIBLE", 1e-30)
    torch.testing.assert_close(model.render(origins, directions)[0], expected, atol=3e-6, rtol=0)
    sure = opacity > 0.1
    torch.testing.assert_close(distance[sure], ((w * t).sum(-1) / w.sum(-1))[sure], atol=2e-3, rtol=0)
    assert (opacity > 0.999).float().mean() > 0.2 and expected.std() > 0.1


class Ball(Field):
    """An opaque ball of radius 1, half of the scaled cube, in empty space; counts the samples that it is asked for."""

    asked, coloured = 0, 0

    def hidden(self, x):
        self.asked += len(x)
        self.inside = x.norm(dim=-1) < 0.5
        return super().hidden(x)

    def density(self, h):
        return 100.0 * self.inside

    def colour(self, h, d):
        self.coloured += len(h)
        return super().colour(h, d)


def test_rendering_skips_what_is_hidden_or_empty():
    model = NeRF(Config(width=8, depth=2, coarse=32, fine=32)).eval()
    model.space.load_state_dict(BOX.state_dict())
    model.coarse.__class__ = model.fine.__class__ = Ball
    origins, empty = torch.tensor([0.0, 0.0, 3.0]).expand(200, 3), torch.tensor([1.5, 0.0, 3.0]).expand(200, 3)
    straight, beside = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, 0.0])
    _, distance, opacity = model.render(origins, straight.expand(200, 3))
    assert (opacity > 0.99).all() and (distance - 2.0).abs().max() < 0.1
    assert model.coarse.coloured == 0 and model.coarse.asked == 200 * 16  # the ball begins after 8 of 32 samples
    assert model.fine.asked < 200 * 64 and 0 < model.fine.coloured < 200 * 40
    model.coarse.asked = model.fine.asked = model.fine.coloured = 0
    _, _, opacity = model.render(empty, straight.expand(200, 3))
    assert (opacity == 0).all() and model.fine.coloured == 0
    assert model.coarse.asked == 200 * 32 and model.fine.asked == 200 * 64  # nothing says that it is empty
    model.coarse.asked = model.fine.asked = 0
    colour, _, opacity = model.render(origins, beside.expand(200, 3))
    assert (opacity == 0).all() and (colour == 1).all() and model.coarse.asked == model.fine.asked == 0


def test_memory_is_bounded_at_any_image_size(monkeypatch):
    model = NeRF(Config(width=8, depth=2, coarse=2, fine=2)).eval()
    monkeypatch.setattr(marching, "TILE", 8 * 4096)
    largest = 0
    plain = Field.hidden

    def watched(self, x):
        nonlocal largest
        largest = max(largest, len(x))
        return plain(self, x)

    monkeypatch.setattr(Field, "hidden", watched)
    scene = datasets.load("cow", datasets.Scene)
    colour, distance, opacity = model.view(scene.cameras[0].resized(300, 200))
    assert colour.shape == (3, 200, 300) and distance.shape == opacity.shape == (200, 300)
    assert 0 < largest <= 4096


def test_a_view_is_laid_out_like_its_camera():
    # A fog that is dense only on the right of the first camera must darken the right of its picture.
    model = constant_fog(3.0, 0.01, Config(width=8, depth=2, coarse=8, fine=8))
    camera = datasets.load("cow", datasets.Scene).cameras[0].resized(24, 16)
    right = camera.pose[0, :3, 0]
    plain = Field.density

    class Half(Field):
        def hidden(self, x):
            self.side = (x @ right) > 0
            return super().hidden(x)

        def density(self, h):
            return plain(self, h) * self.side

    for field in (model.coarse, model.fine):
        field.__class__ = Half
    colour, _, _ = model.view(camera)
    assert colour[:, :, 16:].mean() < 0.1 and colour[:, :, :8].mean() > 0.9


# ------------------------------------------------------------------------------------------------------- from the shell


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small field, trained for some seconds."""
    from mpcli.cli import run

    out = tmp_path_factory.mktemp("nerf") / "run"
    assert run(["train", "nerf", *map(str, TINY), "--steps", "250", "--quiet", "--out", str(out)]) == 0
    return out


@pytest.mark.learning
def test_it_learns_the_scene(mpcli, trained):
    result = mpcli("evaluate", trained, "--json")
    assert result.code == 0, result.err
    scene = datasets.load("cow", datasets.Scene)
    truth = rays.over(scene.images[scene.split.test], torch.ones(3))
    # An untrained fog, or a network that knows the mean colour, or one that knows white: under 15 dB.
    constant = truth.mean(dim=(0, 2, 3), keepdim=True)
    blind = max(-10 * (truth - guess).square().mean().log10().item() for guess in (constant, torch.ones(1)))
    assert blind < 15
    assert result.json["metrics"]["psnr"] > blind + 3.5
    assert 0.5 < result.json["metrics"]["ssim"] < 1


def test_evaluation_has_a_row_a_view(mpcli, trained):
    result = mpcli("evaluate", trained, "--out", "judged", "--json")
    with open(next(path for path in result.json["artifacts"] if path.endswith(".csv")), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["view"] for row in rows] == [f"test/r_{i}.png" for i in range(5)]
    for metric in ("psnr", "ssim"):
        mean = sum(float(row[metric]) for row in rows) / 5
        assert result.json["metrics"][metric] == pytest.approx(mean)


def test_test_views_stand_beside_the_truth(mpcli, trained, monkeypatch):
    sheets = []

    def kept(images, heading, columns, rows, **more):
        sheets.append((images, columns))
        return tiles(images, heading, columns, rows, **more)

    monkeypatch.setattr(nerf, "tiles", kept)
    result = mpcli("render", trained, "--views", 2)
    assert result.code == 0, result.err
    ((images, columns),) = sheets
    assert columns == ["true", "rendered", "depth"] and images.shape == (2, 3, 3, 64, 64)
    scene = datasets.load("cow", datasets.Scene)
    torch.testing.assert_close(images[:, 0], rays.over(scene.images[scene.split.test[:2]], torch.ones(3)))
    assert metrics.psnr(images[:, 1], images[:, 0]).min() > 16


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio leaves ffmpeg's pipes open
@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".png"])
def test_an_orbit_in_colour_and_depth(mpcli, trained, tmp_path, suffix):
    out = tmp_path / f"orbit{suffix}"
    result = mpcli("render", trained, "--path", "orbit", "--frames", 3, "--size", 32, "--out", out)
    assert result.code == 0 and result.path == out, result.err
    if suffix != ".png":
        frames = iio.imread(out, plugin="FFMPEG" if suffix == ".mp4" else None)
        assert frames.shape[:3] == (3, 32, 64)
        assert np.abs(frames[0].astype(float) - frames[1]).mean() > 2
        depth = frames[:, :, 32:].astype(float)
        assert depth[:, :, -2:].mean() > depth[:, 12:20, 12:20].mean() + 30  # white where there is nothing


def test_the_surface_is_where_the_cow_is(mpcli, trained):
    result = mpcli("marching-cubes", trained, "--resolution", 40)
    assert result.code == 0, result.err
    mesh = trimesh.load(result.path)
    centre = np.abs(mesh.bounds.mean(axis=0)).max()
    assert centre < 0.35 and 0.8 < mesh.extents.max() < 2.6
    assert mesh.visual.kind == "vertex"
    assert mesh.volume > 0  # faces look outwards


def test_a_level_that_no_density_reaches_is_refused(mpcli, trained):
    result = mpcli("marching-cubes", trained, "--resolution", 16, "--level", "1e9")
    assert result.code == 2 and "level" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize("option", [("--encoding", "none"), ("--background", "black"), ("--octaves", "2")])
def test_options_reach_the_model(mpcli, option):
    result = mpcli("train", "nerf", *TINY, "--steps", 2, "--judged", 1, *option)
    assert result.code == 0, result.err
    again = mpcli("evaluate", result.path, "--json")
    assert again.code == 0, again.err
    first = mpcli("train", "nerf", *TINY, "--steps", 2, "--judged", 5, *option, "--json").json["metrics"]["psnr"]
    assert again.json["metrics"]["psnr"] == pytest.approx(first, abs=1e-4)


def test_a_picture_of_the_background_alone_is_told(mpcli):
    result = mpcli("train", "nerf", *TINY, "--steps", 1, "--judged", 1)
    assert result.code == 0 and "nothing was learned" in result.err and " dB" in result.err, result.err


@pytest.mark.learning
def test_it_learns_a_scene_that_nothing_was_chosen_for(mpcli, shared_data):
    data = f"blender:{shared_data / 'nerf-spot'}@64"
    result = mpcli("train", "nerf", "--data", data, "--steps", 150, "--judged", 3, "--json")
    assert result.code == 0 and "nothing was learned" not in result.err, result.err
    assert result.json["metrics"]["psnr"] > 19  # one colour: 13 dB


def test_real_layouts_are_read(mpcli, shared_data):
    for spec in (f"blender:{shared_data / 'nerf-spot'}@32", f"colmap:{shared_data / 'colmap-spot'}@32"):
        result = mpcli("train", "nerf", *TINY, "--steps", 2, "--judged", 1, "--data", spec, "--json")
        assert result.code == 0, result.err
        assert result.json["metrics"]["psnr"] > 3
        shown = mpcli("render", result.json["run"], "--path", "orbit", "--up", "cameras", "--frames", 2, "--size", 16)
        assert shown.code == 0, shown.err


def test_the_embedded_scene_is_what_its_script_makes():
    import make_scene

    scene = datasets.load("cow", datasets.Scene)
    assert [len(part) for part in scene.split.parts().values()] == [40, 5, 5]
    pose = look_at(make_scene.eyes(5, turn=4.0))[2:3]
    torch.testing.assert_close(scene.cameras.pose[scene.split.test[2]], pose[0].float())
    picture = make_scene.seen(make_scene.cow(), pose)
    assert (picture[0] - scene.images[scene.split.test[2]]).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("side", [1, 8])
def test_views_too_small_to_be_judged_are_refused_before_the_training(mpcli, tmp_path, side):
    frames = []
    for i in range(3):
        Image.new("RGB", (side, side)).save(tmp_path / f"{i}.png")
        pose = np.eye(4)
        pose[:3, 3] = (0.1 * i, 0, 4)
        frames.append({"file_path": f"{i}.png", "transform_matrix": pose.tolist()})
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames}))
    result = mpcli("train", "nerf", "--data", str(tmp_path), "--steps", "3")
    assert result.code == 2 and f"its views are {side}x{side}; right would be 11 pixels" in result.err
