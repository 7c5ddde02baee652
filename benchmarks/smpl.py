"""SMPL forward and backward, 6890 vertices: ours against `smplx`, at batch 1, 32 and 256.

    python -m pip install smplx==0.1.28          # its licence is for research only; mpcli does not depend on it
    python benchmarks/smpl.py

One body of random numbers (four bones a vertex, ten shapes), float32, gradients to betas and pose. Large freed tensors
cost page faults, so both sides are measured twice: with glibc as it is, and with freed blocks kept in the process, as
the `mpcli` command asks for at its start.
"""

from collections.abc import Callable
from functools import partial

from protocol import compare, cpu_seconds


def step(batch: int, kept: bool, forward: Callable) -> float:
    """CPU seconds of a step; `forward` is a function of body, betas and pose that gives the function to be timed."""
    from mpcli.heap import keep_freed_blocks

    if kept:
        assert keep_freed_blocks()
    import torch

    from mpcli_bodies.smpl.files import random_body

    torch.set_num_threads(1)
    body = random_body(torch.Generator().manual_seed(0), vertices=6890)
    generator = torch.Generator().manual_seed(1)
    betas = torch.randn(batch, 10, generator=generator).requires_grad_()
    pose = torch.randn(batch, 24, 3, generator=generator).requires_grad_()
    along = torch.randn(6890, 3, generator=generator)
    vertices = forward(body, betas, pose)

    def work() -> None:
        (vertices() * along).sum().backward()
        betas.grad = pose.grad = None

    return cpu_seconds(work)


def ours(body, betas, pose):
    from mpcli_bodies.smpl import SMPL

    model = SMPL(body)
    return lambda: model(betas, pose)[0]


def peer(body, betas, pose):
    import numpy as np
    import smplx
    from smplx.utils import Struct

    model = smplx.SMPL(
        model_path="", batch_size=len(betas),
        data_struct=Struct(
            v_template=body.template, shapedirs=body.shapes, posedirs=body.correctives, weights=body.weights,
            J_regressor=body.regressor, kintree_table=np.array([body.parents, range(24)]), f=body.faces,
        ),
    )  # fmt: skip
    return lambda: model(betas=betas, global_orient=pose[:, 0], body_pose=pose[:, 1:].flatten(1)).vertices


if __name__ == "__main__":
    for kept in (False, True):
        for batch in (1, 32, 256):
            question = f"smpl forward and backward, batch {batch}, {'freed blocks kept' if kept else 'glibc as it is'}"
            sides = (partial(step, batch, kept, ours), partial(step, batch, kept, peer))
            compare(question, *sides, packages=("smplx",))
