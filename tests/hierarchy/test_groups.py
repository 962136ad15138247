"""The file of groups: both forms, and every fault with its code."""

import numpy as np
import pytest

from fl_inmetro.errors import RunError
from fl_inmetro.hierarchy import Hierarchy, read_groups

CSV = "client_id,feeder,region\nm1,F1,north\nm2,F1,north\nm3,F2,north\nm4,,south\nm5,,\n"
TOML = """\
levels = ["feeder", "region"]
[clients]
m1 = ["F1", "north"]
m2 = ["F1", "north"]
m3 = ["F2", "north"]
m4 = ["", "south"]
m5 = ["", ""]
"""
KNOWN = ("m1", "m2", "m3", "m4", "m5", "m6")


@pytest.mark.parametrize(("name", "text"), [("g.csv", CSV), ("g.toml", TOML)])
def test_both_forms_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    tree, left_out = read_groups(tmp_path / name, KNOWN)
    assert left_out == ["m6"]
    assert tree.nodes == ("total", "region:north", "region:south", "feeder:F1", "feeder:F2")
    assert tree.level_names == ("total", "region", "feeder")
    assert tree.parent.tolist() == [-1, 0, 0, 1, 1]
    assert tree.leaves == ("m1", "m2", "m3", "m4", "m5")
    assert tree.leaf_parent.tolist() == [3, 3, 4, 2, 0]
    np.testing.assert_array_equal(tree.sums(np.array([1.0, 2, 4, 8, 16])), [31, 7, 8, 3, 4])


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("g.csv", "meter,feeder\nm1,F1\n", "does not name the columns"),
        ("g.csv", "client_id,feeder\nm1,F1\nm1,F2\n", "`m1` is there more than once, first in F1"),
        ("g.csv", "client_id,feeder\nm1,F1\nm7,F2\n", "1 clients of the file have no forecasts"),
        ("g.csv", "client_id,feeder\nm1\n", "a row needs 2 cells"),
        ("g.csv", "client_id,feeder\n", "names no client"),
        ("g.csv", "", "does not name the columns"),
        ("g.csv", "client_id,total\nm1,F1\n", "cannot be called `total`"),
        ("g.csv", "client_id,feeder,feeder\nm1,F1,x\n", "cannot be called `feeder`"),
        (
            "g.csv",
            "client_id,feeder,region\nm1,F1,n\nm2,F1,s\n",
            "feeder `F1` lies in `n` and in `s` (client `m2`)",
        ),
        ("g.csv", "client_id,feeder,region\nm1,F1,n\nm2,F1,\n", "lies in `n` and in `total`"),
        ("g.toml", "levels = [", "cannot be read"),
        ("g.toml", "[clients]\nm1 = ['F1']\n", "lacks `levels`"),
        ("g.toml", "levels = ['feeder']\n[clients]\nm1 = 'F1'\n", "needs a list of 1 names"),
        ("none.csv", None, "there is no such file"),
    ],
)
def test_faults(tmp_path, name, text, fault):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match="FL715") as caught:
        read_groups(tmp_path / name, KNOWN)
    assert fault in str(caught.value)


def test_all_faults_at_once(tmp_path):
    (tmp_path / "g.csv").write_text("client_id,feeder\nm1\nm1,F1\nm1,F2\nm9,F1\n")
    with pytest.raises(RunError) as caught:
        read_groups(tmp_path / "g.csv", KNOWN)
    assert [fault.code for fault in caught.value.faults] == ["FL715"] * 3


def test_a_tree_is_checked():
    with pytest.raises(ValueError, match="after its parent"):
        Hierarchy(
            ("a",), np.array([1]), ("total", "x", "y"), ("total", "f", "f"), np.array([-1, 2, 0])
        )
    with pytest.raises(ValueError, match="without a leaf"):
        Hierarchy(("a",), np.array([0]), ("total", "x"), ("total", "f"), np.array([-1, 0]))
