"""The body function against the package that the field uses."""

import numpy as np
import pytest
import torch

from mpcli_bodies.smpl import SMPL, read_body
from mpcli_bodies.smpl.files import random_body

pytestmark = pytest.mark.peers
smplx = pytest.importorskip("smplx", reason="smplx, whose licence is for research only, is not installed")


@pytest.mark.parametrize("source", ["embedded", "random"])
@pytest.mark.parametrize("batch", [1, 20])
def test_vertices_joints_and_gradients_are_those_of_smplx(source, batch):
    from smplx.utils import Struct

    body = read_body() if source == "embedded" else random_body(torch.Generator().manual_seed(0), vertices=6890)
    parents = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
    if source == "embedded":
        assert body.parents == tuple(parents)
    peer = smplx.SMPL(
        model_path="", batch_size=batch,
        data_struct=Struct(
            v_template=body.template, shapedirs=body.shapes, posedirs=body.correctives, weights=body.weights,
            J_regressor=body.regressor, kintree_table=np.array([body.parents, range(24)]), f=body.faces,
        ),
    )  # fmt: skip
    g = torch.Generator().manual_seed(1)
    betas = torch.randn(batch, 10, generator=g).requires_grad_()
    pose = (0.8 * torch.randn(batch, 24, 3, generator=g)).requires_grad_()
    place = torch.randn(batch, 3, generator=g)
    vertices, joints = SMPL(body)(betas, pose, place)
    theirs = peer(betas=betas, global_orient=pose[:, 0], body_pose=pose[:, 1:].flatten(1), transl=place)
    assert (vertices - theirs.vertices).abs().max() < 1e-5
    assert (joints - theirs.joints[:, :24]).abs().max() < 1e-5
    along = torch.randn(6890, 3, generator=g) / 6890
    ours = torch.autograd.grad((vertices * along).sum(), (betas, pose))
    other = torch.autograd.grad((theirs.vertices * along).sum(), (betas, pose))
    for a, b in zip(ours, other, strict=True):
        assert (a - b).abs().max() < 1e-5
