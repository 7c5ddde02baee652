"""Pinhole cameras: pixels to rays and points to pixels, in one convention.

    x_cam = R^T (x - t)                                     R, t: camera-to-world rotation and camera centre
    u = c_x + f_x x_cam / d,   v = c_y - f_y y_cam / d,     d = -z_cam: depth along the viewing axis

Camera axes are OpenGL's: x right, y up, looking down -z. Pixel coordinates run right and down from the top left
corner of the image, and the centre of the first pixel is (0.5, 0.5), so that scaling an image scales them.

Hartley and Zisserman, Multiple View Geometry in Computer Vision, 2nd edition, 2004, chapter 6.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """B pinhole cameras that share one image size.

    `pose` is camera-to-world (rigid), `focal` holds (f_x, f_y) and `centre` the principal point (c_x, c_y), in pixels.
    """

    pose: Float[Tensor, "batch 4 4"]
    focal: Float[Tensor, "batch 2"]
    centre: Float[Tensor, "batch 2"]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.pose)

    def __getitem__(self, index: "int | slice | Tensor") -> "Cameras":
        """The chosen cameras, still batched: an int gives a batch of one."""
        if isinstance(index, int):
            index = torch.tensor([range(len(self))[index]])
        return replace(self, pose=self.pose[index], focal=self.focal[index], centre=self.centre[index])

    def to(self, device: torch.device | str | torch.dtype) -> "Cameras":
        """The same cameras on a device, or in a floating point type."""
        return replace(self, pose=self.pose.to(device), focal=self.focal.to(device), centre=self.centre.to(device))

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras looking at images scaled to `width` by `height` pixels."""
        scale = self.focal.new_tensor([width / self.width, height / self.height])
        return replace(self, focal=self.focal * scale, centre=self.centre * scale, width=width, height=height)

    def rays(self) -> tuple[Float[Tensor, "batch height width 3"], Float[Tensor, "batch height width 3"]]:
        """Origins and unit directions, in the world, of the rays through all pixel centres."""
        rows, columns = torch.meshgrid(
            torch.arange(self.height, device=self.pose.device),
            torch.arange(self.width, device=self.pose.device),
            indexing="ij",
        )
        pixels = torch.stack([columns, rows], -1).to(self.pose.dtype) + 0.5  # [H, W, 2]
        each = (slice(None), None, None)
        return _rays(self.pose[each], self.focal[each], self.centre[each], pixels)

    def rays_at(
        self, camera_index: Int[Tensor, " n"], pixel_xy: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Origins and unit directions, in the world, of the rays through `pixel_xy` of the cameras `camera_index`.

        `pixel_xy` is (x, y) in continuous pixels: the centre of column i, row j is (i + 0.5, j + 0.5).
        """
        return _rays(self.pose[camera_index], self.focal[camera_index], self.centre[camera_index], pixel_xy)

    def project(
        self, points: Float[Tensor, "*points 3"]
    ) -> tuple[Float[Tensor, "batch *points 2"], Float[Tensor, "batch *points"]]:
        """Where every camera sees world points: pixels (x, y), and depth along the viewing axis, in scene units.

        Depth is positive in front of the camera. The pixels of a point that is not in front mean nothing.
        """
        each = (slice(None), *(None,) * (points.ndim - 1))
        seen = points - self.pose[:, :3, 3][each]
        seen = (self.pose[:, :3, :3].mT[each] @ seen[..., None])[..., 0]
        depth = -seen[..., 2]
        right_down = torch.stack([seen[..., 0], -seen[..., 1]], -1)
        return self.centre[each] + self.focal[each] * right_down / depth[..., None], depth


def _rays(
    pose: Float[Tensor, "*#batch 4 4"],
    focal: Float[Tensor, "*#batch 2"],
    centre: Float[Tensor, "*#batch 2"],
    pixels: Float[Tensor, "*#pixels 2"],
) -> tuple[Float[Tensor, "*rays 3"], Float[Tensor, "*rays 3"]]:
    right, down = ((pixels - centre) / focal).unbind(-1)
    directions = torch.stack([right, -down, -torch.ones_like(right)], -1)
    directions = (pose[..., :3, :3] @ directions[..., None])[..., 0]
    return pose[..., :3, 3].expand_as(directions), torch.nn.functional.normalize(directions, dim=-1)


def pinhole(pose: Float[Tensor, "batch 4 4"], field_of_view: float, width: int, height: int) -> Cameras:
    """Square pixels, principal point in the middle, and a horizontal `field_of_view` in radians."""
    focal = width / (2 * math.tan(field_of_view / 2))
    return Cameras(
        pose=pose,
        focal=pose.new_full((len(pose), 2), focal),
        centre=pose.new_tensor([width / 2, height / 2]).expand(len(pose), 2),
        width=width,
        height=height,
    )


def look_at(
    eye: Float[Tensor, "*batch 3"],
    target: Float[Tensor, "*#batch 3"] | Sequence[float] = (0.0, 0.0, 0.0),
    up: Float[Tensor, "*#batch 3"] | Sequence[float] = (0.0, 0.0, 1.0),
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world poses at `eye` that look at `target`, upright with respect to `up`.

    Straight along `up` every roll is as good as another, and one is chosen. An eye on its target has no direction and
    gives zeros.
    """
    target = torch.as_tensor(target, dtype=eye.dtype, device=eye.device)
    up = torch.as_tensor(up, dtype=eye.dtype, device=eye.device)
    backward = torch.nn.functional.normalize(eye - target, dim=-1)
    right = torch.linalg.cross(up.expand_as(backward), backward)
    # The axis that is farthest from the viewing direction stands in where `up` is parallel to it.
    spare = torch.nn.functional.one_hot(backward.abs().argmin(-1), 3).to(eye.dtype)
    parallel = right.norm(dim=-1, keepdim=True) < 1e-6 * up.norm(dim=-1, keepdim=True)
    right = torch.where(parallel, torch.linalg.cross(spare, backward), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    pose = torch.eye(4, dtype=eye.dtype, device=eye.device).repeat(*eye.shape[:-1], 1, 1)
    pose[..., :3, 0] = right
    pose[..., :3, 1] = torch.linalg.cross(backward, right)
    pose[..., :3, 2] = backward
    pose[..., :3, 3] = eye
    return pose


def orbit(
    n: int,
    radius: float,
    elevation: float,
    target: Sequence[float] = (0.0, 0.0, 0.0),
    up: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    width: int,
    height: int,
    field_of_view: float = 0.7,
    azimuth: float = 0.0,
) -> Cameras:
    """`n` cameras evenly on a full circle around `target`, counter-clockwise seen from above, all looking at it.

    `radius` is the distance to the target in scene units, `elevation` the angle above the horizontal plane, `azimuth`
    the angle of the first camera, and `field_of_view` is horizontal, all in radians. At azimuth 0 the camera stands
    in front: at -y when z is up, at +z when y is up.
    """
    above = torch.nn.functional.normalize(torch.tensor(up, dtype=torch.float64), dim=0)
    side = torch.eye(3, dtype=torch.float64)[0 if above[0].abs() < 0.9 else 1]
    side = torch.nn.functional.normalize(side - (side @ above) * above, dim=0)
    front = torch.linalg.cross(side, above)
    angle = azimuth + 2 * math.pi * torch.arange(n, dtype=torch.float64)[:, None] / n
    offset = math.cos(elevation) * (angle.cos() * front + angle.sin() * side) + math.sin(elevation) * above
    eye = torch.tensor(target, dtype=torch.float64) + radius * offset
    return pinhole(look_at(eye, target, up).float(), field_of_view, width, height)


def framing(
    points: Float[Tensor, "n 3"],
    up: Sequence[float],
    azimuth: float,
    elevation: float,
    *,
    height: int,
    width: int | None = None,
    n: int = 1,
    zoom: float = 1.0,
) -> Cameras:
    """`n` cameras of an `orbit` around points, as near as all of them can be for each to see every point.

    Without a width the picture is as wide as the points need, within 0.5 and 2 heights. `zoom` enlarges what is seen.
    """
    field = math.tan(0.25)  # of the picture's half height at distance 1: a moderate telephoto lens
    points = points.double()
    middle = (points.amin(0) + points.amax(0)) / 2
    around = orbit(n, 1.0, elevation, up=up, width=height, height=height, azimuth=azimuth).pose[:, :3, :3]
    axes = [(points - middle) @ directions for directions in around.to(points)]  # n times right, up, back [N, 3]
    right, high = (max(float(x[:, axis].abs().max()) for x in axes) for axis in (0, 1))
    aspect = width / height if width else min(2.0, max(0.5, right / max(high, 1e-9)))
    room = 0.94 * field  # leaving a margin
    near = (torch.maximum(x[:, 1].abs(), x[:, 0].abs() / aspect) / room + x[:, 2] for x in axes)
    distance = max(1e-9, *(float(x.max()) for x in near))
    across = 2 * math.atan(aspect * field)
    width = width or round(height * aspect)
    seen = orbit(
        n, distance, elevation, middle.tolist(), up,
        width=width, height=height, field_of_view=across, azimuth=azimuth,
    )  # fmt: skip
    return replace(seen, focal=seen.focal * zoom)


def opencv_to_opengl(world_to_camera: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world poses with OpenGL axes, from world-to-camera poses with OpenCV's, which COLMAP also uses.

    OpenCV's axes are x right, y down, z forward: the same camera turned half round its x axis. The poses are rigid.
    """
    turned = world_to_camera[..., :3, :3].mT
    pose = torch.zeros_like(world_to_camera)
    pose[..., :3, :3] = turned * world_to_camera.new_tensor([1.0, -1.0, -1.0])
    pose[..., :3, 3] = -(turned @ world_to_camera[..., :3, 3:])[..., 0]
    pose[..., 3, 3] = 1
    return pose
