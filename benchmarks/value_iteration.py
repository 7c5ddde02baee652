"""Value iteration: sweeps over maps of cells, ours against what one would write with scipy, with numpy, or install.

    python -m venv peer && peer/bin/pip install pymdptoolbox==4.0b3 && export MDP_PYTHON=peer/bin/python
    python benchmarks/value_iteration.py

The world is a map of n x n cells, a fifth of them walls, four moves, a goal in one corner, discount 0.99; the same
transitions for all sides. `scipy`: (r + gamma P v).max over actions with P a sparse matrix. `shifted`: the value
array of the map shifted four ways, for any reward and any walls, as a general gridworld needs; `shifted, entering`:
the leanest such form, which needs all rewards to be those of cells entered. `pymdptoolbox` runs its ValueIteration on
dense or sparse matrices of its own interpreter; its time is that of a sweep inside `run()`. Figures are millions of
states swept a second. Memory is what our sweep keeps, and the growth of pymdptoolbox's process.
"""

import os
import subprocess
import sys
from functools import partial

from protocol import compare, cpu_seconds

GAMMA = 0.99


def world(n: int):
    import numpy as np

    from mpcli.kit import mdp
    from mpcli_rl.kit.gridworld import Gridworld

    cells = np.where(np.random.default_rng(0).random((n, n)) < 0.2, "#", ".")
    cells[-1, -1] = "G"
    env = Gridworld(["".join(row) for row in cells])
    return env, env.transition_table(), mdp


def timed(n: int, sweep, v) -> float:
    """CPU seconds a million states; every sweep takes the values of the one before."""
    state = [v]

    def work() -> None:
        state[0] = sweep(state[0])

    return cpu_seconds(work, units=n * n / 1e6)


def ours(n: int) -> float:
    from mpcli import heap

    heap.keep_freed_blocks()
    import numpy as np

    from mpcli_rl.value_iteration import Bellman

    _, table, _ = world(n)
    bellman = Bellman(table)
    kept = sum(part.nbytes for block in bellman.blocks for part in block if part is not None)
    v = np.zeros(n * n)
    assert np.allclose(bellman(bellman(v, GAMMA), GAMMA), table.backup(table.backup(v, GAMMA).max(1), GAMMA).max(1))
    print(f"  ours, {n}^2: {kept / n**2:.0f} bytes a state in the sweep", file=sys.stderr)
    return timed(n, lambda v: bellman(v, GAMMA), v)


def scipy_product(n: int) -> float:
    from mpcli import heap

    heap.keep_freed_blocks()
    import numpy as np

    _, table, _ = world(n)
    p, r = table.p, table.r
    return timed(n, lambda v: (r + GAMMA * (p @ v).reshape(r.shape)).max(1), np.zeros(n * n))


def shifted(n: int) -> float:
    from mpcli import heap

    heap.keep_freed_blocks()
    import numpy as np

    env, table, _ = world(n)
    here = np.arange(n * n).reshape(n, n)
    moves = env._next.reshape(4, n, n) != here  # where a step leads away
    goes_on = (table.terminal < 1).T.reshape(4, n, n)
    rewards = np.ascontiguousarray(table.r.T).reshape(4, n, n)

    def sweep(v):
        v = v.reshape(n, n)
        w = np.pad(v, 1, mode="edge")
        best = None
        for move, on, reward, to in zip(
            moves, goes_on, rewards, (w[:-2, 1:-1], w[1:-1, 2:], w[2:, 1:-1], w[1:-1, :-2]), strict=True
        ):
            worth = reward + GAMMA * on * np.where(move, to, v)
            best = worth if best is None else np.maximum(best, worth)
        return best.ravel()

    check(n, table, sweep)
    return timed(n, sweep, np.zeros(n * n))


def entering(n: int) -> float:
    from mpcli import heap

    heap.keep_freed_blocks()
    import numpy as np

    env, table, _ = world(n)
    walls, goal = env.cells == b"#", env.cells == b"G"
    gain = np.where(goal, 1.0, 0.0)
    dead = walls | goal
    w = np.full((n + 2, n + 2), -np.inf)

    def sweep(v):
        v = v.reshape(n, n)
        inside = w[1:-1, 1:-1]
        np.multiply(v, GAMMA, out=inside)
        new = inside.copy()  # to stay is always possible beside a wall, and never better elsewhere
        inside += gain
        inside[walls] = -np.inf
        for to in (w[:-2, 1:-1], w[1:-1, 2:], w[2:, 1:-1], w[1:-1, :-2]):
            np.maximum(new, to, out=new)
        new[dead] = 0
        return new.ravel()

    check(n, table, sweep)
    return timed(n, sweep, np.zeros(n * n))


def check(n: int, table, sweep) -> None:
    """The side computes the same values."""
    import numpy as np

    one = other = np.zeros(n * n)
    for _ in range(2 * n if n < 200 else 20):
        one, other = sweep(one), table.backup(other, GAMMA).max(1)
    assert np.allclose(one, other)


TOOLBOX = """
import re, sys, time
import numpy as np, scipy.sparse as sp
from mdptoolbox.mdp import ValueIteration
data = np.load(sys.argv[1])
n, kind = int(sys.argv[2]), sys.argv[3]
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
P = [sp.csr_matrix((data["d%d" % a], data["i%d" % a], data["p%d" % a]), shape=(n * n + 1,) * 2) for a in range(4)]
if kind == "dense":
    P = np.array([p.toarray() for p in P])
vi = ValueIteration(P, data["r"], 0.99, epsilon=1e-12)
vi.thresh, vi.max_iter, spent, sweeps = -1.0, 100, 0.0, 0
while spent < 2:
    vi.V, vi.iter = np.zeros(n * n + 1), 0
    start = time.process_time()
    vi.run()
    spent += time.process_time() - start
    sweeps += vi.iter
print("  pymdptoolbox, %s, %d^2: %.0f bytes a state" % (kind, n, (peak() - before) * 1024 / n**2), file=sys.stderr)
print(spent / sweeps / (n * n / 1e6))
"""


def toolbox(n: int, kind: str) -> float:
    """In the interpreter of $MDP_PYTHON; an end is a state of its own there, for rows must sum to 1."""
    import tempfile

    import numpy as np
    from scipy import sparse

    _, table, _ = world(n)
    states = n * n
    arrays = {"r": np.vstack([table.r, np.zeros((1, 4))])}
    for a in range(4):
        p = table.p[np.arange(states) * 4 + a]
        end = np.append(1 - np.asarray(p.sum(1)), 1.0)[:, None]
        p = sparse.csr_array(sparse.hstack([sparse.vstack([p, sparse.csr_array((1, states))]), end]))
        arrays |= {f"d{a}": p.data, f"i{a}": p.indices, f"p{a}": p.indptr}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.npz")
        np.savez(path, **arrays)
        command = [os.environ["MDP_PYTHON"], "-c", TOOLBOX, path, str(n), kind]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(said.split()[-1])


if __name__ == "__main__":
    for n in (100, 1000):
        for name, peer in (("scipy", scipy_product), ("shifted", shifted), ("shifted, entering", entering)):
            question = f"value iteration, {n}^2 cells, against {name}"
            compare(question, partial(ours, n), partial(peer, n), rate="million states/s", packages=("scipy",))
    if "MDP_PYTHON" in os.environ:
        for n, kind in ((10, "dense"), (32, "dense"), (10, "sparse"), (32, "sparse"), (100, "sparse")):
            question = f"value iteration, {n}^2 cells, against pymdptoolbox, {kind}"
            compare(question, partial(ours, n), partial(toolbox, n, kind), rate="million states/s", packages=("scipy",))
