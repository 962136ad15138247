"""Bounds of Student's t, against SciPy and by hand."""

import pytest
from scipy import stats

from fl_inmetro.metrics.student import two_sided_bound, two_sided_p


def test_bounds_by_hand():
    """One degree of freedom is Cauchy's: P(|T| ≤ t) = 2·arctan(t)/π, so 0.5 lies within ±1.

    Two: P(|T| ≤ t) = t/√(2 + t²), so 0.8 gives t² = 0.64·(2 + t²), t = √(1.28/0.36) = 1.88562.
    """
    assert two_sided_bound(0.5, 1) == pytest.approx(1, rel=1e-12)
    assert two_sided_bound(0.8, 2) == pytest.approx((1.28 / 0.36) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("level", [0.01, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("degrees", [0.7, 1, 3.4, 30, 1e5])
def test_bounds_are_scipys(level, degrees):
    bound = two_sided_bound(level, degrees)
    assert bound == pytest.approx(stats.t.ppf(0.5 + level / 2, degrees), rel=1e-8)
    assert two_sided_p(bound, degrees) == pytest.approx(1 - level, rel=1e-9)


@pytest.mark.parametrize(("level", "degrees"), [(0.0, 3), (1.0, 3), (0.8, 0), (0.8, -1)])
def test_what_is_no_bound(level, degrees):
    with pytest.raises(ValueError, match="no bound"):
        two_sided_bound(level, degrees)
