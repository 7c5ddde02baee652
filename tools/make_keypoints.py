"""Make keypoints.json: what OpenPose would see of the embedded body in a known pose, with what is true beside it.

    python tools/make_keypoints.py

The body (its first two betas are 1 and 0.5) steps forward and waves; a camera of focal length 1100 pixels sees it from
four metres. Keypoints are off by a normal error of three pixels, the left ear is hidden by the head and the right small
toe was missed. `pose_keypoints_3d` holds the true places in the camera's axes, in metres.
"""

import json
from pathlib import Path

import torch

from mpcli_bodies.kit.keypoints import BODY_25, SMPL_24
from mpcli_bodies.smpl import SMPL, read_body
from mpcli_bodies.smplify.observed import Points, project

DATA = Path(__file__).resolve().parents[1] / "data" / "mpcli_data"

WIDTH, HEIGHT, FOCAL, NOISE = 720, 960, 1100.0, 3.0
POSE = {
    "pelvis": (0.05, -0.6, 0.02), "left_hip": (-0.55, 0.05, -0.05), "right_hip": (0.25, -0.1, 0.02),
    "left_knee": (0.5, 0, 0), "right_knee": (0.55, 0, 0), "left_ankle": (0.05, 0, 0), "right_ankle": (-0.2, 0, 0),
    "spine1": (0.05, 0.05, 0), "spine2": (0.05, 0.08, 0.03), "spine3": (0, 0.05, 0), "neck": (0.1, 0.1, 0),
    "head": (-0.05, 0.15, 0.05), "left_shoulder": (0.2, -0.5, -0.95), "right_shoulder": (-1.2, 0.3, 0.15),
    "left_elbow": (0, -0.8, 0), "right_elbow": (0, 1.5, 0), "left_wrist": (0.1, 0, -0.1),
}  # fmt: skip
HIDDEN = ("left_ear", "right_small_toe")


def main() -> None:
    body = read_body()
    smpl = SMPL(body, torch.float64)
    pose = torch.tensor([POSE.get(name, (0, 0, 0)) for name in SMPL_24], dtype=torch.float64)
    betas = torch.zeros(1, smpl.shapes, dtype=torch.float64)
    betas[0, :2] = torch.tensor([1.0, 0.5])
    place = torch.tensor([[0.15, -0.05, -4.0]], dtype=torch.float64)
    names = tuple(name for name in BODY_25 if not name.startswith("mid_"))
    points = Points(smpl, body, names, torch.ones(len(names)), "BODY_25")
    points.mix = points.mix.double()
    known = dict(zip(points.names, points(betas, pose[None], place)[0], strict=True))
    for part in ("shoulder", "hip"):
        known[f"mid_{part}"] = (known[f"left_{part}"] + known[f"right_{part}"]) / 2
    centre = torch.tensor([WIDTH / 2, HEIGHT / 2], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    flat, solid = [], []
    for name in BODY_25:
        seen = name not in HIDDEN
        error = NOISE * torch.randn(2, generator=generator, dtype=torch.float64)
        # The format counts whole pixels from the centre of the first.
        x, y = (project(known[name], FOCAL, centre) + error - 0.5).tolist()
        sure = 0.6 + 0.35 * float(torch.rand((), generator=generator))
        flat += [round(x, 2), round(y, 2), round(sure, 3)] if seen else [0, 0, 0]
        solid += [*(round(c, 5) for c in known[name].tolist()), 1]
    person = {"person_id": [-1], "pose_keypoints_2d": flat, "pose_keypoints_3d": solid}
    content = {"version": 1.3, "canvas_width": WIDTH, "canvas_height": HEIGHT, "people": [person]}
    (DATA / "keypoints.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
