"""Random effects: a hand-worked case, statsmodels' mixed model, and sums that add up."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.charging.effects import Effects, UserSums, components, effects


def test_worked_by_hand():
    """Users (1, 3), (5, 7), (9, 11): means 2, 6, 10.

    within = 6 · 1 = 6, σ² = 6 / (6 − 3) = 2. between = 2 · (16 + 0 + 16) = 64, its mean square 32;
    n₀ = (6 − 12/6) / 2 = 2; τ² = (32 − 2) / 2 = 15. μ = 6, k = 2/15.
    """
    found = effects([np.array([1.0, 3.0]), np.array([5.0, 7.0]), np.array([9.0, 11.0])])
    assert found.mean == pytest.approx(6)
    assert found.within == pytest.approx(2)
    assert found.between == pytest.approx(15)
    assert found.strength == pytest.approx(2 / 15)
    # (4 + 2/15·6) / (2 + 2/15) = 4.8 / (32/15) = 2.25
    assert found.shrunk(np.array([4.0, 0.0]), np.array([2.0, 0.0])) == pytest.approx([2.25, 6.0])


def test_like_statsmodels_mixed_model():
    """With as many sessions for each user the analysis of variance is REML's answer."""
    rng = np.random.default_rng(0)
    users = [rng.normal(m, 2.0, 12) for m in rng.normal(10, 3.0, 15)]
    table = pd.DataFrame({"y": np.concatenate(users), "user": np.repeat(np.arange(len(users)), 12)})
    oracle = smf.mixedlm("y ~ 1", table, groups="user").fit(reml=True)
    found = effects(users)
    assert found.within == pytest.approx(oracle.scale, rel=1e-4)
    assert found.between == pytest.approx(float(oracle.cov_re.iloc[0, 0]), rel=1e-3)
    assert found.mean == pytest.approx(float(oracle.fe_params.iloc[0]), rel=1e-6)
    told = found.shrunk(np.array([u.sum() for u in users]), np.full(15, 12.0))
    blup = [oracle.fe_params.iloc[0] + oracle.random_effects[i].iloc[0] for i in range(15)]
    assert told == pytest.approx(blup, abs=1e-3)


def test_unequal_users_by_plain_loops():
    """Expectations of both sums of squares hold; a user with many sessions does not rule μ."""
    rng = np.random.default_rng(1)
    users = [rng.normal(m, 1.0, n) for m, n in zip((2, 5, 9, 4), (2, 30, 7, 1), strict=True)]
    n = [len(u) for u in users]
    every = np.concatenate(users)
    within = sum(((u - u.mean()) ** 2).sum() for u in users) / (len(every) - 4)
    between = sum(k * (u.mean() - every.mean()) ** 2 for k, u in zip(n, users, strict=True)) / 3
    n0 = (len(every) - sum(k * k for k in n) / len(every)) / 3
    tau = (between - within) / n0
    weight = [1 / (tau + within / k) for k in n]
    found = effects(users)
    assert (found.between, found.within) == pytest.approx((tau, within))
    assert found.mean == pytest.approx(np.average([u.mean() for u in users], weights=weight))
    assert effects([*users, np.zeros(0)]) == found


def test_users_who_do_not_differ_are_all_the_mean():
    found = effects([np.array([1.0, 3.0]), np.array([3.0, 1.0])])
    assert found.strength > 1e5
    assert found.shrunk(np.array([30.0]), np.array([10.0])) == pytest.approx([2.0], abs=1e-3)


@pytest.mark.parametrize("users", [[], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_too_little_to_say_how_users_differ(users):
    with pytest.raises(FederationError, match="FL373"):
        effects([np.array(own) for own in users])


def test_order_does_not_matter():
    rng = np.random.default_rng(2)
    users = [rng.normal(size=k) for k in (3, 4, 9)]
    parts = [UserSums.of(own) for own in users]
    forth, back = sum(parts, UserSums()), sum(parts[::-1], UserSums())
    assert components(forth) == pytest.approx(components(back))
    assert Effects(1.0, 2.0, 4.0).strength == 2.0
