"""What the components of shape do: the body at rest, some deviations along each of them."""

from typing import TYPE_CHECKING

import torch
import trimesh

from mpcli.errors import InputError
from mpcli.kit import pictures, raster
from mpcli.kit.cameras import framing
from mpcli.run import Run
from mpcli_bodies.smpl.files import Body
from mpcli_bodies.smpl.view import upward

if TYPE_CHECKING:
    from mpcli_bodies.smpl import SMPL

DEVIATIONS = (3.0, -3.0)


def components(run: Run, model: "SMPL", body: Body, count: int, height: int, azimuth: float, elevation: float) -> None:
    """Write shapes.png, a column a component, and where the body file has shape_variance the shares to shapes.csv.

    Raises:
        InputError: the body has fewer components.
    """
    if count > model.shapes:
        raise InputError(f"--components {count}: the body has {model.shapes}; give no more")
    betas = torch.cat([d * torch.eye(model.shapes)[:count] for d in DEVIATIONS]).to(model.template)
    vertices, joints = model(betas, betas.new_zeros(len(betas), model.joints, 3))
    camera = framing(vertices.flatten(0, 1), upward(joints), azimuth, elevation, height=height)
    images = torch.cat(
        [
            raster.render_mesh(
                trimesh.Trimesh(v.numpy(force=True), body.faces, process=False), camera, background=(1.0, 1.0, 1.0)
            )[:, :3]
            for v in vertices
        ]
    )
    names, known = [f"S_{n + 1}" for n in range(count)], len(body.variance) > 0
    if known:
        names = [f"{name}: {share:.1%}" for name, share in zip(names, body.variance, strict=False)]
    rows = [f"{d:+g} deviations" for d in DEVIATIONS]
    run.figure("shapes.png", pictures.tiles(images.unflatten(0, (2, count)), run.heading, columns=names, rows=rows))
    if known:
        held = body.variance.cumsum()
        numbered = enumerate(zip(body.variance.tolist(), held.tolist(), strict=True), 1)
        run.table("shapes.csv", ("component", "variance", "with_those_before"), ((n, *row) for n, row in numbered))
        run.say(f"{model.shapes} components hold {held[model.shapes - 1]:.2%} of the variance of shape")
