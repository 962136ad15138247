"""Sessions told at plug-in: federated = central, no look ahead, made habits, the real sets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.charging.forecast import Settings, columns, fit, fit_local, fleet_of
from fl_inmetro.ev.charging.past import past
from fl_inmetro.ev.charging.scoring import gain, point_score
from fl_inmetro.ev.charging.sources import read_norway, read_workplace
from tests.ev.charging.made import sessions, town
from tests.ev.charging.test_sessions import NORWAY, WORKPLACE

S = town()
TRAIN = np.arange(len(S)) < int(0.75 * len(S))
MODEL = fit(S, TRAIN, "energy_kwh")


def test_federated_is_central():
    central = fit(S, TRAIN, "energy_kwh", training="central")
    assert MODEL.mean == pytest.approx(central.mean, abs=1e-8)
    told, other = MODEL.predict(S, ~TRAIN), central.predict(S, ~TRAIN)
    assert told.mean == pytest.approx(other.mean, abs=1e-9)
    for name in ("low", "middle", "high"):
        assert getattr(told, name) == pytest.approx(getattr(other, name), abs=1e-4)


def test_it_learns_that_a_longer_gap_needs_more():
    """Energy is a habit times the days since: the own mean cannot say it, the gap does."""
    known = past(S, S.energy_kwh)
    y = S.energy_kwh[~TRAIN]
    own = (known.total / np.maximum(known.n, 1))[~TRAIN]
    told = MODEL.predict(S, ~TRAIN)
    assert np.abs(told.middle - y).mean() < 0.5 * np.abs(own - y).mean()
    assert np.abs(told.mean - y).mean() < 0.5 * np.abs(own - y).mean()
    # Few rows for 33 columns: an interval as fitted is too small, and is to be moved.
    assert np.mean((told.low <= y) & (y <= told.high)) < 0.6
    moved = fit(S, TRAIN, "energy_kwh", Settings(conformal=True)).predict(S, ~TRAIN)
    assert 0.6 < np.mean((moved.low <= y) & (y <= moved.high)) < 0.97


def test_what_comes_later_does_not_matter():
    """Test values of later than plug-in change nothing, and the test not the model."""
    at = len(S) - 10
    changed = replace(S, energy_kwh=np.where(np.arange(len(S)) >= at, 99.0, S.energy_kwh))
    again = fit(changed, TRAIN, "energy_kwh")
    assert np.array_equal(again.mean, MODEL.mean)
    before = MODEL.predict(S, ~TRAIN).middle
    after = again.predict(changed, ~TRAIN).middle
    assert np.array_equal(before[: at - TRAIN.sum() + 1], after[: at - TRAIN.sum() + 1])


def test_quantiles_are_in_order_and_within_what_was_seen():
    told = MODEL.predict(S, ~TRAIN)
    assert np.all((told.low <= told.middle) & (told.middle <= told.high))
    assert told.low.min() >= 0
    assert told.high.max() <= S.energy_kwh[TRAIN].max() * 1.01


def test_a_stranger_is_told_from_the_fleet():
    stranger = sessions([("new", 24 * 70, 3, 5.0)])
    told = MODEL.predict(stranger, np.array([0]))
    fleet = S.energy_kwh[TRAIN]
    assert np.quantile(fleet, 0.1) < told.middle[0] < np.quantile(fleet, 0.9)
    assert told.low[0] < told.middle[0] < told.high[0]


def test_columns_of_a_stranger_by_hand():
    """No past: mean, recent, same hour and last are μ; quantiles the fleet's; gap and use 0."""
    values = {"a": np.array([1.0, 3.0]), "b": np.array([5.0, 7.0]), "c": np.array([9.0, 11.0])}
    fleet = fleet_of(values, dict.fromkeys(values, 10.0))
    # μ = 6 (see test_effects); 36 kWh in 3 · 10 days; ranks ⌈7·0.1⌉, ⌈7·0.5⌉, ⌈7·0.9⌉ of six.
    assert fleet.effects.mean == pytest.approx(6)
    assert fleet.rate == pytest.approx(1.2)
    assert fleet.quantiles[:2] == pytest.approx([1.0, 7.0], rel=0.011)
    s = sessions([("new", 0, 3, 5.0)])
    row = columns(s, past(s, s.energy_kwh), fleet)[0]
    assert row[[0, 1, 2, 3, 7]] == pytest.approx([1, 6, 6, 6, 6])
    assert row[4:7] == pytest.approx(fleet.quantiles)
    assert row[8] == 1
    assert row[9:15] == pytest.approx([0] * 6)
    # 17:00 on a Monday is a knot: 1 at it, 0 at the others, and the same times the mean.
    hats = row[19:26]
    assert list(hats) == [0, 0, 0, 0, 1, 0, 0]
    assert row[26:33] == pytest.approx(6 * hats)
    assert len(row) == 33


def test_conformal_widening_brings_the_coverage_back():
    """Were the second half of the training wilder, the interval of the first would be too small."""
    rng = np.random.default_rng(1)
    rows = [
        (f"u{k % 5}", 24.0 * k / 5, 3.0, float(10 + rng.normal() * (0.5 if k < 200 else 3.0)))
        for k in range(400)
    ]
    s = sessions([(u, a, h, max(y, 0.1)) for u, a, h, y in rows])
    train = np.arange(len(s)) < 300
    y = s.energy_kwh[~train]

    def inside(settings: Settings) -> float:
        told = fit(s, train, "energy_kwh", settings).predict(s, ~train)
        return float(np.mean((told.low <= y) & (y <= told.high)))

    assert inside(Settings(conformal=True, held_back=0.3)) > inside(Settings()) + 0.05


def test_local_models_are_of_their_own_user_alone():
    local = fit_local(S, TRAIN, "energy_kwh")
    assert set(local.models) <= set(S.user)
    told = local.predict(S, ~TRAIN)
    user = S.user[~TRAIN][0]
    alone = S.take(S.user == user)
    own = fit_local(alone, np.flatnonzero(TRAIN[S.user == user]), "energy_kwh")
    again = own.predict(alone, np.flatnonzero(~TRAIN[S.user == user]))
    assert told.middle[S.user[~TRAIN] == user] == pytest.approx(again.middle, abs=1e-9)
    stranger = sessions([("new", 0, 3, 5.0)])
    with pytest.raises(FederationError, match="FL369"):
        local.predict(stranger, np.array([0]))


def test_too_few_sessions():
    s = sessions([("a", 0, 2, 8.0), ("b", 1, 2, 5.0), ("a", 24, 3, 12.0)])
    for settings in (Settings(), Settings(conformal=True)):
        with pytest.raises(FederationError, match="FL373"):
            fit(s.take(np.array([0, 1])), np.array([0, 1]), "energy_kwh", settings)


def own_mean_errors(
    path: Path, names: tuple[str, str, str], cut: float | np.datetime64
) -> np.ndarray:
    """Errors of the own mean on the table as it is; the mean of all for who was not there."""
    table = pq.read_table(path).to_pandas().sort_values(names[1], kind="stable")
    late = (
        table[names[1]] >= cut
        if isinstance(cut, np.datetime64)
        else np.arange(len(table)) >= int(cut * len(table))
    )
    mean = table[~late].groupby(names[0])[names[2]].mean()
    told = table[late][names[0]].map(mean).fillna(table[~late][names[2]].mean())
    return (table[late][names[2]] - told).to_numpy()


@pytest.mark.data
@pytest.mark.skipif(not NORWAY.exists(), reason="FL_INMETRO_DATA does not hold the sessions")
def test_homes_in_december_beat_the_published_own_mean():
    """README of the data: own mean 5.23 kWh, RMSE 8.39, on every row of December 2019."""
    error = own_mean_errors(
        NORWAY, ("User_ID", "Start_plugin", "El_kWh"), np.datetime64("2019-12-01")
    )
    assert np.abs(error).mean() == pytest.approx(5.23, abs=0.005)
    assert np.sqrt((error**2).mean()) == pytest.approx(8.39, abs=0.005)
    s = read_norway(NORWAY)
    test = s.local_s >= np.datetime64("2019-12-01").astype("datetime64[s]").astype(int)
    train = s.end_utc_s <= s.start_utc_s[test][0]
    told = fit(s, train, "energy_kwh").predict(s, test)
    y = s.energy_kwh[test]
    assert len(y) > 0.97 * len(error)
    score = point_score(told.middle, y, s.user[test])
    assert score.mae < 4.5
    assert score.rmse < 7.3
    known = past(s, s.energy_kwh)
    so_far = (known.total / np.maximum(known.n, 1))[test]
    assert gain(told.middle, so_far, y, s.user[test])[1] > 0
    assert 0.74 < np.mean((told.low <= y) & (y <= told.high)) < 0.86


@pytest.mark.data
@pytest.mark.skipif(not WORKPLACE.exists(), reason="FL_INMETRO_DATA does not hold the sessions")
def test_workplaces_beat_the_published_own_mean():
    """README of the data: own mean 1.65 kWh, RMSE 2.49, on the last fifth of all rows."""
    error = own_mean_errors(WORKPLACE, ("userId", "created", "kwhTotal"), 0.8)
    assert np.abs(error).mean() == pytest.approx(1.65, abs=0.005)
    assert np.sqrt((error**2).mean()) == pytest.approx(2.49, abs=0.005)
    s = read_workplace(WORKPLACE)
    test = np.arange(len(s)) >= int(0.8 * len(s))
    train = ~test & (s.end_utc_s <= s.start_utc_s[test][0])
    told = fit(s, train, "energy_kwh").predict(s, test)
    score = point_score(told.middle, s.energy_kwh[test], s.user[test])
    assert score.mae < 1.4
    assert score.rmse < 2.25
