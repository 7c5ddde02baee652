"""The table of action values, its schedule, and the report beside exact values."""

import numpy as np
import pytest
import torch

from mpcli.run import Run, Trained
from mpcli_rl.kit import mdp, tabular


def test_rows_write_into_the_table():
    table = tabular.Q(3, 2, 0.5)
    q, visits = table.rows()
    q[1][0] += 2
    visits[2][1] += 1
    assert table.q.tolist() == [[0.5, 0.5], [2.5, 0.5], [0.5, 0.5]] and table.visits[2, 1] == 1
    assert table.greedy(np.array([1, 0])).tolist() == [0, 0]


def test_the_schedule_is_a_line_that_stays():
    line = tabular.schedule(1.0, 0.2, 40)
    assert [line(step) for step in (0, 20, 40, 400)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_a_table_is_kept_and_the_best_one_is_reported_as_such(tmp_path):
    env = "mpcli/Gridworld-v0"
    (tmp_path / "config.json").write_text(f'{{"env": "{env}"}}')
    run = Run(tmp_path, device="cpu")
    model = mdp.transition_table(tabular.world(env))
    table = tabular.Q(*model.r.shape)
    table.q[:] = torch.from_numpy(model.backup(mdp.solve(model, 0.9), 0.9))
    from mpcli_rl.q_learning import Config

    tabular.save(run, table, Config())
    assert torch.equal(tabular.load(Trained(tmp_path, "cpu")).q, table.q)
    tabular.report(run, env, table, 0.9, 5, finished=[(14, 1.0, 14)])
    seen = run.metrics
    assert seen["return_mean"] == seen["return_exact"] == 1 and seen["return_std"] == 0
    for name in ("value_start", "value_start_exact", "value_start_greedy"):
        assert seen[name] == pytest.approx(0.9**13)
    tabular.evaluate(Trained(tmp_path, "cpu"), run, 3)
    assert {path.name for path in run.artifacts} == {"returns.csv", "returns.png", "values.png"}


def test_a_wide_world_is_reported_without_linear_solves(tmp_path, monkeypatch):
    monkeypatch.setattr(mdp, "EXACT", 20)
    run = Run(tmp_path, device="cpu")
    tabular.report(run, "mpcli/Gridworld-v0(max_episode_steps=20)", tabular.Q(54, 4), 0.9, 2)
    assert set(run.metrics) == {"return_mean", "return_std", "value_start"}
