"""A mesh out of a radiance field: where its density passes a level, as far as the training views can tell."""

import torch
import trimesh
from torch import Tensor

from mpcli.kit import isosurface
from mpcli.kit.datasets import Scene
from mpcli.run import watched
from mpcli_radiance.nerf import NeRF
from mpcli_radiance.nerf.views import share_of_views

PROBE = 48  # cells along each side of the whole scene, for a first look
OPAQUE = 30.0  # density at which a thirtieth of the scene takes 1 - 1/e of the light
AT_ONCE = 1 << 15  # places a call of the network


def extract(
    model: NeRF, scene: Scene, resolution: int, level: float | None, bounds: tuple[float, ...]
) -> trimesh.Trimesh:
    """The surface density = `level`, each vertex in the colour that it has when seen from straight above it.

    Without a level it is half of the greatest density, at most OPAQUE over the scene's reach; without bounds, the box
    is fitted around it.

    Raises:
        InputError: no density reaches the level, or the bounds are no box.
    """

    def hidden(x: Tensor) -> Tensor:
        return model.fine.hidden((x - model.space.middle) / model.space.reach)

    def density(x: Tensor) -> Tensor:  # where most views do not look, nothing is known
        known = model.space.holds(x) & (share_of_views(scene, x) > 0.5)
        return model.fine.density(hidden(x)) / model.space.reach * known

    device, reach = model.space.low.device, float(model.space.reach)
    steps = torch.linspace(-1, 1, PROBE + 1, device=device) * reach
    lattice = model.space.middle + torch.cartesian_prod(steps, steps, steps)
    with torch.inference_mode():
        found = torch.cat([density(x) for x in watched(lattice.split(AT_ONCE), "asking the density")])
    level = level or min(OPAQUE / reach, float(found.max()) / 2)
    solid = lattice[found > level] if (found > level).any() else lattice
    margin = 2 * reach / PROBE
    fitted = (_corner(solid.amin(0) - margin), _corner(solid.amax(0) + margin))
    box = isosurface.Grid(bounds=bounds).box(fitted)
    mesh = isosurface.marching_cubes(density, box, resolution, level, "dense", device=device).mesh()
    mesh.invert()  # density is greater inside, where distances are less
    places = torch.tensor(mesh.vertices, dtype=torch.float32, device=device)
    inward = torch.tensor(-mesh.vertex_normals, dtype=torch.float32, device=device)
    with torch.inference_mode():
        pairs = zip(places.split(AT_ONCE), inward.split(AT_ONCE), strict=True)
        colours = torch.cat([model.fine.colour(hidden(x), d) for x, d in pairs])
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=(colours * 255).byte().cpu().numpy())
    return mesh


def _corner(x: Tensor) -> tuple[float, float, float]:
    first, second, third = x.tolist()
    return first, second, third
