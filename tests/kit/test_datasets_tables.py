"""Tables: what a CSV file means is read, told, or refused with the line and the column."""

import numpy as np
import pytest
import torch

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Table
from mpcli.notices import Notice

ROWS = [(i, i / 4, "yes" if i % 3 else "no") for i in range(12)]


def csv_file(folder, rows=ROWS, header="age,size,kind", delimiter=",", name="t.csv"):
    lines = [header.replace(",", delimiter), *(delimiter.join(map(str, row)) for row in rows)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def whole(parts):
    """All of a split, in the order of the file."""
    order = np.argsort(np.random.RandomState(0).permutation(len(ROWS)))
    return torch.cat(list(parts.parts().values()))[order]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_last_column_is_the_target_and_its_words_are_classes(tmp_path, delimiter):
    data = datasets.load(f"table:{csv_file(tmp_path, delimiter=delimiter)}", Table)
    assert data.columns == ("age", "size") and data.target == "kind" and data.classes == ("no", "yes")
    torch.testing.assert_close(whole(data), torch.tensor([[i, i / 4] for i in range(12)]))
    assert whole(data.targets).tolist() == [int(i % 3 > 0) for i in range(12)]
    assert [len(part) for part in data.parts().values()] == [8, 2, 2]
    assert "target kind (one of 2 classes)" in data.describe()


def test_a_column_may_be_named_and_other_words_become_columns_of_0_and_1(tmp_path):
    with pytest.warns(Notice, match="the words of column kind become 2 columns"):
        data = datasets.load(f"table:{csv_file(tmp_path)}@size", Table)
    assert data.columns == ("age", "kind=no", "kind=yes") and data.classes == () and data.target == "size"
    torch.testing.assert_close(whole(data.targets), torch.tensor([i / 4 for i in range(12)]))
    expected = [[i, float(i % 3 == 0), float(i % 3 > 0)] for i in range(12)]
    torch.testing.assert_close(whole(data), torch.tensor(expected))


def test_a_bare_path_is_a_table_where_rows_are_asked_for(tmp_path):
    assert datasets.load(str(csv_file(tmp_path)), Table).target == "kind"
    with pytest.raises(InputError, match=r"there is no file or folder .*t\.cvs: did you mean .*t\.csv"):
        datasets.load(str(tmp_path / "t.cvs"), Table)
    with pytest.warns(Notice):
        assert datasets.load(str(csv_file(tmp_path, delimiter="\t", name="t.TSV")) + "@age", Table).target == "age"


def test_a_file_with_an_at_in_its_name_is_itself(tmp_path):
    assert datasets.load(f"table:{csv_file(tmp_path, name='a@b.csv')}", Table).name == "a@b.csv"


@pytest.mark.parametrize(
    ("header", "change", "said"),
    [
        ("1,2,3", {}, "line 1 holds numbers"),
        ("a,a,kind", {}, "names two columns 'a'"),
        ("a,,kind", {}, "leaves a column without a name"),
        ("a,b", {}, "line 2 has 3 cells and the header 2"),
        ("a,b,kind", {3: (3, "", "no")}, "line 5 has nothing in column b"),
        ("a,b,kind", {3: (3, "NA", "no")}, "line 5 has nothing in column b"),
        ("a,b,kind", {3: (3, "x", "no")}, "column b holds 'x' among numbers"),
        ("a,b,kind", {3: (3, "1e999", "no")}, "column b holds 1e999"),
        ("a,b,kind", {3: (3, "1e39", "no")}, "column b holds 1e39"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path, header, change, said):
    rows = [change.get(i, row) for i, row in enumerate(ROWS)]
    with pytest.raises(InputError, match=r"t\.csv: .*" + said):
        datasets.load(f"table:{csv_file(tmp_path, rows, header)}", Table)


def test_commas_for_points_names_and_columns_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"column size holds 0,0; right would be 0\.0"):
        decimal = [(i, f"{i},{i}", "no") for i in range(12)]
        datasets.load(f"table:{csv_file(tmp_path, decimal, delimiter=';')}", Table)
    with pytest.raises(InputError, match="column size holds 200 different words"):
        datasets.load(f"table:{csv_file(tmp_path, [(i, f'name{i}', 'no') for i in range(200)])}", Table)
    with pytest.raises(InputError, match="no column 'colour'; right would be one of age, size, kind"):
        datasets.load(f"table:{csv_file(tmp_path)}@colour", Table)
    with pytest.raises(InputError, match="has 3 rows; right would be 6 or more"):
        datasets.load(f"table:{csv_file(tmp_path, ROWS[:3])}", Table)
    with pytest.raises(InputError, match="no header"):
        datasets.load(f"table:{csv_file(tmp_path, [], '')}", Table)


def test_the_tables_at_hand_are_those_of_scikit_learn():
    from sklearn.datasets import load_breast_cancer, load_diabetes

    for name, there in (("diabetes", load_diabetes(scaled=False)), ("breast_cancer", load_breast_cancer())):
        data = datasets.load(name, Table)
        order = np.random.RandomState(0).permutation(len(there.data))
        assert data.columns == tuple(there.feature_names)
        x = torch.cat(list(data.parts().values()))
        torch.testing.assert_close(x, torch.from_numpy(there.data[order].astype(np.float32)))
        y = torch.cat(list(data.targets.parts().values()))
        assert y.tolist() == there.target[order].tolist()
    assert data.classes == ("malignant", "benign") and y.dtype == torch.int64


def targets(values):
    return datasets.Split(values, values, values)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"targets": targets(torch.zeros(3))},
            r"targets train is \[3\] of torch.float32; right would be float32 \[2\]",
        ),
        ({"targets": targets(torch.zeros(2).long())}, r"targets train is \[2\] of torch.int64"),
        ({"targets": targets(torch.full((2,), 2)), "classes": ("a", "b")}, "targets train goes from 2 to 2 with 2"),
        ({"columns": ("a",)}, "columns names 1 of 3 columns"),
    ],
)
def test_targets_are_judged_at_the_door(given, said):
    rows = torch.zeros(2, 3)
    with pytest.raises(InputError, match=said):
        datasets.door.admit("mine", Table(rows, rows, rows, **given))
