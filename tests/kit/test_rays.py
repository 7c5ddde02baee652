"""Rays against boxes and spheres in closed form, and batches of pixels against the pictures they come from."""

import torch

from mpcli.kit import rays
from mpcli.kit.cameras import Cameras, look_at
from mpcli.kit.datasets import Pictures, Scene, Split


def random_rays(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    origins = 3 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    aim = 0.7 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    return origins, torch.nn.functional.normalize(aim - origins, dim=-1)


def densely(origins, directions, inside) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First and last distance inside a convex body, by looking every thousandth of a unit, and whether there is any."""
    t = torch.arange(0, 15, 1e-3, dtype=torch.float64)
    found = inside(origins[:, None] + t[:, None] * directions[:, None])
    first = torch.where(found, t, torch.inf).amin(-1)
    last = torch.where(found, t, -torch.inf).amax(-1)
    return first, last, found.any(-1)


def test_rays_enter_and_leave_a_box_where_dense_sampling_finds_them_to():
    low, high = torch.tensor([-1.0, -0.5, -2]).double(), torch.tensor([0.5, 1.0, 1.5]).double()
    origins, directions = random_rays(300)
    near, far = rays.intersect_box(origins, directions, low, high)
    first, last, hit = densely(origins, directions, lambda x: ((x >= low) & (x <= high)).all(-1))
    assert 50 < hit.sum() < 300 and (first[hit] == 0).any()
    torch.testing.assert_close(near[hit], first[hit], rtol=0, atol=1.1e-3)
    torch.testing.assert_close(far[hit], last[hit], rtol=0, atol=1.1e-3)
    assert (near >= far - 2e-3)[~hit].all()


def test_rays_along_an_axis():
    low, high = -torch.ones(3), torch.ones(3)
    origins = torch.tensor([[0.0, 0, 5], [0, 2, 5], [0, 1, 5], [0, 0, -5]])
    directions = torch.tensor([0.0, 0, -1]).expand(4, 3)
    near, far = rays.intersect_box(origins, directions, low, high)
    assert near[0] == 4 and far[0] == 6
    assert near[1] >= far[1] and near[3] >= far[3]  # beside the box, and behind the ray
    assert near[2] == 4 and far[2] == 6  # in the plane of a face


def small_scene(channels: int) -> Scene:
    """Views whose pixels tell which view, row and column they are."""
    view, row, column = torch.meshgrid(torch.arange(6.0), torch.arange(4.0), torch.arange(5.0), indexing="ij")
    images = torch.stack([view / 10, row / 10, column / 10, torch.full_like(view, 0.25)][:channels], 1)
    g = torch.Generator().manual_seed(1)
    poses = look_at(3 * torch.nn.functional.normalize(torch.randn(6, 3, generator=g), dim=-1))
    cameras = Cameras(poses, torch.full((6, 2), 6.0), torch.tensor([2.5, 2.0]).expand(6, 2), 5, 4)
    split = Split(torch.tensor([1, 4, 5]), torch.tensor([0]), torch.tensor([2, 3]))
    return Scene(Pictures(images), cameras, split, (1.0, 5.0), tuple(map(str, range(6))))


def test_a_batch_holds_rays_of_the_pixels_whose_colours_it_holds():
    scene = small_scene(3)
    draw = rays.pixel_batches(scene, scene.split.train, 600, seed=3, background=torch.ones(3))
    origins, directions, colours = draw(7)
    view, row, column = (10 * colours).round().long().unbind(-1)
    all_origins, all_directions = scene.cameras.rays()
    torch.testing.assert_close(origins, all_origins[view, row, column])
    torch.testing.assert_close(directions, all_directions[view, row, column])
    seen = torch.unique(torch.stack([view, row, column], -1), dim=0)
    assert set(view.tolist()) == {1, 4, 5} and len(seen) == 3 * 4 * 5  # all pixels of the training views, no other


def test_batches_are_a_function_of_seed_and_step():
    def first(seed: int, step: int) -> torch.Tensor:
        scene = small_scene(3)
        return rays.pixel_batches(scene, scene.split.train, 20, seed, background=torch.ones(3))(step)[2]

    assert torch.equal(first(0, 5), first(0, 5))
    assert not torch.equal(first(0, 5), first(0, 6)) and not torch.equal(first(0, 5), first(1, 5))


def test_opacity_is_laid_over_the_background():
    scene, background = small_scene(4), torch.tensor([0.0, 0.5, 1.0])
    _, _, colours = rays.pixel_batches(scene, scene.split.test, 50, seed=0, background=background)(0)
    restored = (colours - 0.75 * background) / 0.25
    assert set((10 * restored[:, 0]).round().int().tolist()) == {2, 3}
    picture = rays.over(scene.images[:], background)
    torch.testing.assert_close(picture, scene.images[:, :3] * 0.25 + 0.75 * background[:, None, None])
    assert torch.equal(rays.over(picture, torch.full((3,), 0.3)), picture)
