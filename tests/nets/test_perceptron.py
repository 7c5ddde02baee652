"""Perceptron: Novikoff's bound, the linear program beside the rule, cycles, and what the verbs write."""

import csv

import imageio.v3 as iio
import pytest
import torch
from mutants import result

from mpcli.errors import InputError
from mpcli_nets import perceptron
from mpcli_nets.perceptron import Config, Perceptron, one_pass, separation
from mpcli_nets.perceptron.examples import two_classes
from mpcli_nets.perceptron.pictures import view


def without_bias(original):
    def correct(self, x, t):
        b = self.b.clone()
        original(self, x, t)
        self.b.copy_(b)

    return correct


MUTANTS = {
    "the bias is never updated": (Perceptron, "correct", without_bias),
    "an update away from the target": (
        Perceptron,
        "correct",
        lambda original: lambda self, x, t: original(self, -x, t),
    ),
    "examples that were right are corrected": (
        perceptron,
        "one_pass",
        lambda original: lambda model, x, t: original(model, x, 1 - t),
    ),
    "no b in the activation": (Perceptron, "activation", lambda original: lambda self, x: x @ self.w),
    "a bound that is too small": (separation, "bound", result(lambda value: value / 1e3)),
    "a program that always finds u": (
        separation,
        "separator",
        lambda original: lambda x, t: (original(x, t), torch.ones(x.shape[1] + 1))[1],
    ),
}

SMALL = {"sample": ["--frames", "3"]}


def drawn(seed, separable):
    """Twenty to sixty points in two to five dimensions, and their targets: of a hyperplane, or by chance."""
    g = torch.Generator().manual_seed(seed)
    count, dim = int(torch.randint(20, 60, (), generator=g)), int(torch.randint(2, 6, (), generator=g))
    x = torch.randn(count, dim, generator=g).double()
    u = torch.randn(dim + 1, generator=g).double()
    height = x @ u[:-1] + u[-1]
    if separable:
        keep = height.abs() > 0.1 * u.norm()  # a margin, so that the rule stops soon
        return x[keep], (height[keep] > 0).long()
    return x, torch.randint(2, (count,), generator=g)


def taught(x, t, passes):
    """The model, its mistakes, and whether a pass came without one."""
    model, made = Perceptron(Config(), x.shape[1]), 0
    for _ in range(passes):
        more = sum(1 for _ in one_pass(model, x, t))
        made += more
        if not more:
            return model, made, True
    return model, made, False


def test_two_hundred_separable_sets_are_learned_within_novikoffs_bound():
    for seed in range(200):
        x, t = drawn(seed, separable=True)
        model, made, stopped = taught(x, t, 100_000)
        u = separation.separator(x, t)
        assert stopped and u is not None
        assert made <= separation.bound(u, x, t)
        assert torch.equal(model(x), t)
        assert (separation.signed(x, t) @ u > 0).all() and abs(u.norm() - 1) < 1e-12


def test_what_no_hyperplane_separates_never_stops_and_says_the_program():
    """Few points and labels by chance; weights that cancel all signed examples, found by other means, prove it."""
    from scipy.optimize import nnls

    found = []
    for seed in range(60):
        x, t = (part[:9] for part in drawn(seed, separable=False))
        z = separation.signed(x, t)
        # Gordan's theorem: either there is u, or there are weights that sum to one and cancel all examples.
        left = nnls(torch.cat([z.T, torch.ones(1, len(z))]).numpy(), [0.0] * z.shape[1] + [1.0])[1]
        found.append(separation.separator(x, t) is not None)
        assert found[-1] == (left > 1e-6)
        assert taught(x, t, 100)[2] <= found[-1]
    assert 10 < sum(found) < 50


def test_whole_numbers_come_back_to_where_they_were_exactly_when_nothing_separates_them():
    """Every Boolean function of three variables: the rule stops, or its state repeats, as the program says."""
    cube = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double()
    separable = 0
    for number in range(256):
        t = torch.tensor([number >> i & 1 for i in range(8)])
        model, states = Perceptron(Config(), 3), set()
        while (state := (*model.w.tolist(), float(model.b))) not in states:
            states.add(state)
            list(one_pass(model, cube, t))
        stopped = torch.equal(model(cube), t)
        assert stopped == (separation.separator(cube, t) is not None)
        separable += stopped
    assert separable == 104  # Muroga, Threshold Logic and Its Applications, 1971


@pytest.mark.parametrize(("name", "separable"), [("and", 1), ("or", 1), ("xor", 0)])
def test_four_points(mpcli, name, separable):
    metrics = mpcli("train", "perceptron", "--data", name, "--quiet", "--json").json["metrics"]
    assert metrics["separable"] == separable
    assert (metrics["accuracy"] == 1) == bool(separable)
    assert ("cycle" in metrics) != bool(separable)
    if separable:
        assert metrics["mistakes"] <= metrics["bound"]


def test_two_digits_and_tumours_are_told_apart(mpcli):
    digits = mpcli("train", "perceptron", "--classes", "3,8", "--quiet", "--json").json["metrics"]
    assert digits["separable"] == 1 and digits["mistakes"] <= digits["bound"]
    assert digits["accuracy"] > 0.9 and digits["majority_accuracy"] < 0.6
    tumours = mpcli("train", "perceptron", "--data", "breast_cancer", "--quiet", "--json").json["metrics"]
    assert tumours["accuracy"] > 0.92 and tumours["majority_accuracy"] < 0.65


def test_units_of_columns_do_not_matter(mpcli, tmp_path):
    rows = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    for name, factor in (("a", 1.0), ("b", 1024.0)):
        lines = [f"{x * factor!r},{y / factor!r},{'up' if x + y > 0.2 else 'down'}" for x, y in rows.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y,kind", *lines]))
    a, b = (
        mpcli("train", "perceptron", "--data", tmp_path / f"{name}.csv", "--quiet", "--json").json["metrics"]
        for name in "ab"
    )
    assert (a["mistakes"], a["accuracy"]) == (b["mistakes"], b["accuracy"])


def test_the_line_is_drawn_after_every_mistake(mpcli, tmp_path):
    run = mpcli("train", "perceptron", "--data", "and", "--quiet", "--json").json
    made = mpcli("sample", run["run"], "--out", tmp_path / "lines.gif", "--quiet", "--json").json
    mistakes = run["metrics"]["mistakes"]
    assert len(iio.imread(tmp_path / "lines.gif")) == mistakes + 1  # the last one stays
    table = next(path for path in made["artifacts"] if path.endswith("weights.csv"))
    with open(table) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == mistakes + 1
    assert [float(rows[0][name]) for name in ("w_x1", "w_x2", "b")] == [0, 0, 0]
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    w = torch.tensor([float(rows[-1][name]) for name in ("w_x1", "w_x2")])
    assert (x @ w + float(rows[-1]["b"]) > 0).tolist() == [False, False, False, True]


def test_the_plane_that_is_seen_shows_the_hyperplane_as_a_line():
    x, t = drawn(3, separable=True)
    model, _, _ = taught(x, t, 100_000)
    axes = view(x, model.w)
    torch.testing.assert_close(axes @ axes.T, torch.eye(2).double())
    seen = (x - x.mean(0)) @ axes.T @ (axes @ model.w) + model.activation(x.mean(0)[None])
    torch.testing.assert_close(seen, model.activation(x))


@pytest.mark.parametrize(
    ("data", "classes", "said"),
    [
        ("diabetes", "", "its target progression is 214 different numbers; right would be two classes"),
        ("moons", "", "its rows have no target"),
        ("digits", "3,x", "has no classes '3,x'; right would be two of 0, 1"),
        ("digits", "3", "has no classes '3'"),
        ("xor", "a,b", "xor has the classes false and true alone"),
    ],
)
def test_data_without_two_classes_are_refused(data, classes, said):
    with pytest.raises(InputError, match=said):
        two_classes(data, classes)


def test_another_width_is_refused(mpcli):
    run = mpcli("train", "perceptron", "--data", "and", "--quiet", "--json").json["run"]
    refused = mpcli("evaluate", run, "--data", "digits")
    assert refused.code == 2 and "has 64 numbers an example, but the model was trained on 2" in refused.err
