"""The gate on stacked updates, by hand: which rows pass, why the others do not, and their norms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.federation.gate import judge
from fl_inmetro.learning.update import Layout, Update, UpdateBlock

POINTS = {"a": 10, "b": 10, "c": 10}
NAN, INF = float("nan"), float("inf")


def block(**rows: tuple[list[float], float, float]) -> UpdateBlock:
    """Client to (three values of `v` (2,) and `w` (1,), weight, loss)."""
    updates = [
        Update(
            name,
            {"v": np.array(v[:2], dtype=np.float32), "w": np.array(v[2:], dtype=np.float32)},
            weight,
            loss,
        )
        for name, (v, weight, loss) in rows.items()
    ]
    return UpdateBlock.stack(updates, Layout.of(updates[0].arrays))


def test_good_rows_pass_untouched_with_their_norms():
    # √(1 + 4 + 4) = 3 and √(0 + 9 + 16) = 5.
    good = block(a=([1, 2, 2], 10, 0.5), b=([0, 3, 4], 1, 0.0))
    judged = judge(good, POINTS)
    assert judged.block is good
    assert judged.norms.tolist() == [[3], [5]]
    assert not judged.refused


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (([NAN, 0, 0], 5, 0.1), "`b` sent `v` with values that are not finite"),
        (([0, 0, INF], 5, 0.1), "`b` sent `w` with values that are not finite"),
        (([0, 0, -INF], 5, 0.1), "`b` sent `w` with values that are not finite"),
        (([1, 1, 1], 0, 0.1), "`b` claims weight 0, it enrolled 10"),
        (([1, 1, 1], -3, 0.1), "`b` claims weight -3, it enrolled 10"),
        (([1, 1, 1], 11, 0.1), "`b` claims weight 11, it enrolled 10"),
        (([1, 1, 1], NAN, 0.1), "`b` claims weight nan"),
        (([1, 1, 1], INF, 0.1), "`b` claims weight inf"),
        (([1, 1, 1], 5, NAN), "`b` reports a loss that is not finite"),
        (([1, 1, 1], 5, INF), "`b` reports a loss that is not finite"),
    ],
)
def test_a_bad_row_is_refused_and_the_others_pass(row, said):
    judged = judge(block(a=([1, 2, 2], 10, 0.5), b=row, c=([0, 3, 4], 1, 0.0)), POINTS)
    assert list(judged.refused) == ["b"]
    assert judged.refused["b"].code == "FL301"
    assert said in judged.refused["b"].what
    assert judged.block.client_ids == ("a", "c")
    assert judged.norms.tolist() == [[3], [5]]
    assert judged.block.matrix.tolist() == [[1, 2, 2], [0, 3, 4]]
    assert judged.block.weights.tolist() == [10, 1]


def test_no_loss_is_asked_of_a_reply_with_noise_and_all_else_is():
    """NaN stands for a loss without noise; rows and weights have to be finite as ever."""
    rows = block(a=([1, 2, 2], 10, NAN), b=([NAN, 0, 0], 5, NAN), c=([0, 3, 4], NAN, NAN))
    judged = judge(rows, POINTS, losses=False)
    assert judged.block.client_ids == ("a",)
    assert set(judged.refused) == {"b", "c"}
    assert set(judge(rows, POINTS).refused) == {"a", "b", "c"}


def test_a_client_that_never_enrolled_has_no_weight():
    judged = judge(block(zz=([1, 1, 1], 1, 0.0)), POINTS)
    assert "`zz` claims weight 1, it enrolled 0" in judged.refused["zz"].what
    assert len(judged.block) == 0
    assert judged.norms.shape == (0, 1)


def test_finite_values_whose_squares_overflow_pass_with_their_norm():
    # 3·10³⁰ squared is no float32; the norm is 5·10³⁰.
    judged = judge(block(a=([3e30, 4e30, 0], 1, 0.0), b=([1, 2, 2], 1, 0.0)), POINTS)
    assert not judged.refused
    assert judged.norms[:, 0] == pytest.approx([5e30, 3], rel=1e-6)


@given(st.lists(st.floats(width=32), min_size=3, max_size=3), st.floats(), st.floats())
def test_what_passes_is_finite_and_weighs_no_more_than_it_enrolled(values, weight, loss):
    judged = judge(block(a=(values, weight, loss)), POINTS)
    fine = np.isfinite(values).all() and 0 < weight <= 10 and np.isfinite(loss)
    assert bool(judged.refused) == (not fine)
    assert len(judged.block) == int(fine)
    if fine:
        assert np.isfinite(judged.norms).all()
        assert judged.norms[0, 0] == pytest.approx(np.linalg.norm(values), rel=1e-5, abs=1e-20)
