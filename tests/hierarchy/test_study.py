"""Calibration days, common instants, scores by level, and what a node's own forecast may see."""

import math

import numpy as np
import pytest

from fl_inmetro.config.models import Ridge
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.splits import Splits
from fl_inmetro.errors import DataError, RunError
from fl_inmetro.hierarchy import METHODS, hierarchy_of
from fl_inmetro.hierarchy.base import NODE_MODELS, node_forecasts, node_series
from fl_inmetro.hierarchy.study import describe, grid_of, shifted, study
from fl_inmetro.metrics import Forecast
from fl_inmetro.metrics.points import Points
from fl_inmetro.seeds import derive

DAY_S, HOUR_S = 86_400, 3_600
START_S = 1_704_067_200  # 2024-01-01
PAIR = hierarchy_of({"a": (), "b": ()}, ())


def fleet_points(mean, observed, levels=(), quantiles=None, names=("a", "b")):
    """Points of days × 24 h × clients; a client's rows together."""
    days, hours, m = mean.shape
    issue = START_S + DAY_S * np.repeat(np.arange(days), hours)
    target = issue + HOUR_S * np.tile(np.arange(hours), days)
    flat = [None if x is None else np.moveaxis(x, 2, 0) for x in (mean, observed, quantiles)]
    return Points(
        names,
        np.repeat(np.arange(m), days * hours),
        np.tile(issue, m),
        np.tile(target, m),
        Forecast(
            flat[0].ravel(), levels, None if quantiles is None else flat[2].reshape(-1, len(levels))
        ),
        flat[1].ravel(),
    )


def node_map(total):
    """Forecasts of the total, days × hours, by issue and target."""
    return {
        (START_S + DAY_S * d, START_S + DAY_S * d + HOUR_S * h): np.array([total[d, h]])
        for d in range(total.shape[0])
        for h in range(total.shape[1])
    }


def test_a_study_by_hand():
    # Both clients use 10 kWh. On the calibration day a errs by ±1, b by ±3, the total by ±√5
    # (variance 5); on the other the clients forecast 9 and 6, the total 24.
    sign = np.where(np.arange(24) % 2, 1.0, -1.0)
    mean = np.stack([np.stack([10 + sign, 10 + 3 * sign], 1), np.full((24, 2), [9.0, 6.0])])
    total = np.stack([20 + math.sqrt(5) * sign, np.full(24, 24.0)])
    levels = (0.1, 0.5, 0.9)
    quantiles = mean[..., None] + np.array([-2.0, 0.5, 2.0])
    points = fleet_points(mean, np.full((2, 24, 2), 10.0), levels, quantiles)
    grid = grid_of(PAIR, points, node_map(total))
    outcome = study(grid, ("bottom-up", "wls-var"), 1)
    scores = {(row.method, row.level): row for row in outcome.scores}
    # Before: the total errs by 4 of 20, the sum of the clients is 9 lower: 9/20. The clients'
    # points are the medians, 9.5 and 6.5: (0.05 + 0.35)/2; the means 9 and 6: (0.1 + 0.4)/2.
    assert scores["base", "total"].nmae == pytest.approx(0.2)
    assert scores["base", "total"].gap == pytest.approx(0.45)
    assert scores["base", "client"].nmae == pytest.approx(0.2)
    assert scores["base", "client"].nrmse == pytest.approx(0.25)
    assert scores["bottom-up", "total"].nmae == pytest.approx(0.25)
    assert scores["bottom-up", "total"].gap == 0
    # Variances 1, 9 and 5, a gap of 9: 9/15 = 0.6 a unit; the clients get 0.6 and 5.4: 9.6 and
    # 11.4, the total is 21; medians 10.1 and 11.9.
    after = outcome.leaf_kwh["wls-var"][24:]
    np.testing.assert_allclose(after, np.full((24, 2), [9.6, 11.4]))
    assert scores["wls-var", "total"].nmae == pytest.approx(0.05)
    assert scores["wls-var", "total"].bias == pytest.approx(0.05)
    assert scores["wls-var", "client"].nmae == pytest.approx((0.01 + 0.19) / 2)
    # Quantiles move as far as the mean and keep their widths.
    moved = shifted(grid, outcome.leaf_kwh["wls-var"], outcome.scored).forecast
    np.testing.assert_allclose(moved.quantiles_kwh[0], [7.6, 10.1, 11.6])
    facts = describe(grid, outcome)
    assert facts["levels"] == {"total": 1, "client": 2}
    assert facts["calibration"]["whole_instants"] == 24
    assert facts["scored"]["instants"] == 24
    assert facts["negative"] == {"bottom-up": 0, "wls-var": 0}


def random_case(days=6):
    rng = derive(1, "study")
    load = rng.uniform(5, 10, (days, 24, 2))
    mean = load + rng.normal(0, 1, load.shape)
    total = load.sum(axis=2) + rng.normal(0, 1, (days, 24))
    return load, mean, total


def test_what_is_scored_teaches_nothing():
    load, mean, total = random_case()
    garbage = load.copy()
    garbage[3:] = derive(2, "garbage").uniform(0, 1e6, load[3:].shape)
    made = [
        study(grid_of(PAIR, fleet_points(mean, seen), node_map(total)), METHODS, 3)
        for seen in (load, garbage)
    ]
    for method in METHODS:
        np.testing.assert_array_equal(*(one.leaf_kwh[method] for one in made))
    # But the calibration days do.
    garbage = load.copy()
    garbage[:3, :, 0] *= 1.5
    other = study(grid_of(PAIR, fleet_points(mean, garbage), node_map(total)), METHODS, 3)
    for method in ("top-down", "wls-var", "mint"):
        assert np.abs(other.leaf_kwh[method] - made[0].leaf_kwh[method]).max() > 1e-3


def test_forecasts_that_reach_into_calibration_are_not_scored():
    # Issued daily for 48 h: those of the second day are made before the first day's last target.
    load, mean, total = (np.tile(x, (1, 2, 1)[: x.ndim]) for x in random_case())
    grid = grid_of(PAIR, fleet_points(mean, load), node_map(total))
    outcome = study(grid, ("bottom-up",), 1)
    first = describe(grid, outcome)["scored"]
    assert first["instants"] == 48 * 4
    assert first["first_issue_utc"].startswith("2024-01-03")


def test_only_instants_at_which_all_have_a_forecast_count():
    load, mean, total = random_case()
    mean[2, 5, 0] = np.nan
    total[4, 7] = np.nan
    load[5, 1, 1] = np.nan
    grid = grid_of(PAIR, fleet_points(mean, load), node_map(total))
    assert (grid.instants, len(grid.issue_utc_s)) == (6 * 24, 6 * 24 - 2)
    assert grid.holes == {"a": 1}
    outcome = study(grid, ("bottom-up",), 3)
    after = shifted(grid, grid.leaf_kwh, outcome.scored)
    # b is not measured at one instant: it is not scored there, and nor is the total.
    assert sum(one.n for one in after.sums().values()) == 2 * (3 * 24 - 1) - 1
    known = mean[3:].copy()
    known[1, 7] = np.nan  # no forecast of the total
    error = np.abs(known.sum(axis=2) - load[3:].sum(axis=2))
    scored = np.isfinite(error)
    expected = error[scored].sum() / load[3:].sum(axis=2)[scored].sum()
    (row,) = [r for r in outcome.scores if (r.method, r.level) == ("bottom-up", "total")]
    assert row.nmae == pytest.approx(expected)


def test_faults_of_a_study():
    load, mean, total = random_case()
    gone = mean.copy()
    gone[:, :, 1] = np.nan
    with pytest.raises(RunError, match=r"FL716.*\n.*client b: none at 144 of 144"):
        grid_of(PAIR, fleet_points(gone, load), node_map(total))
    with pytest.raises(RunError, match="node total: none at all"):
        grid_of(PAIR, fleet_points(mean, load), {})
    grid = grid_of(PAIR, fleet_points(mean, load), node_map(total))
    with pytest.raises(RunError, match="nothing is left to score after 6 days"):
        study(grid, METHODS, 6)
    unseen = load.copy()
    unseen[:2, :, 0] = np.nan
    grid = grid_of(PAIR, fleet_points(mean, unseen), node_map(total))
    with pytest.raises(RunError, match=r"at 0 instants .* 24 are needed"):
        study(grid, METHODS, 2)


# ------------------------------------------------------------------------- nodes' own forecasts
def meter(name, start_day=0, days=70, level=1.0):
    rng = derive(4, "meter", name)
    hours = np.arange(24 * days)
    kwh = level * (1 + 0.5 * np.sin(2 * np.pi * hours / 24)) * rng.uniform(0.8, 1.2, hours.size)
    return ClientSeries(name, START_S + start_day * DAY_S, HOUR_S, kwh)


def issues(first, last):
    return START_S + DAY_S * np.arange(first, last, dtype=np.int64)


SPLITS = Splits(issues(0, 50), issues(50, 56), issues(56, 70), 24, "00:00", "UTC")


def test_sums_of_readings_by_hand():
    week = 7 * 24
    a = np.full(5 * week, 1.0)
    a[:week] = 3.0
    a[week + 5] = np.nan  # taken from the week before: 3
    a[2 * week + 6 : 4 * week : week] = np.nan  # two weeks running: both from week 1, 1
    b = np.full(4 * week, 10.0)
    b[0] = np.nan  # nothing lies before it
    data = {
        "a": ClientSeries("a", START_S, HOUR_S, a),
        "b": ClientSeries("b", START_S + week * HOUR_S, HOUR_S, b),
    }
    made = node_series(PAIR, data)
    (total,) = made.series
    assert (total.client_id, total.start_utc_s, len(total)) == ("total", START_S, 5 * week)
    expected = np.full(5 * week, 11.0)
    expected[:week] = np.nan
    expected[week] = np.nan
    expected[week + 5] = 13.0
    np.testing.assert_array_equal(total.energy_kwh, expected)
    # Three readings put in, of all that are known of the two.
    assert made.filled[0] == pytest.approx(3 / (5 * week + 4 * week - 1))
    with pytest.raises(DataError, match=r"FL219.*\n.*client b"):
        node_series(PAIR, {"a": data["a"]})


@pytest.mark.parametrize("name", NODE_MODELS)
def test_a_node_sees_nothing_of_the_future(name):
    tree = hierarchy_of({"a": ("f",), "b": ("f",), "c": ("g",)}, ("feeder",))
    data = {client: meter(client, level=1.0 + k) for k, client in enumerate("abc")}
    at = 60
    broken = {}
    for client, series in data.items():
        kwh = series.energy_kwh.copy()
        kwh[at * 24 :] = derive(5, "garbage", client).uniform(0, 1e5, kwh[at * 24 :].size)
        broken[client] = ClientSeries(client, series.start_utc_s, HOUR_S, kwh)
    made = [
        node_forecasts(name, Ridge(), node_series(tree, x).series, SPLITS, issues(56, at + 1))
        for x in (data, broken)
    ]
    for one, other in zip(*made, strict=True):
        assert one.mean_kwh.shape == (5, 24)
        np.testing.assert_array_equal(one.mean_kwh, other.mean_kwh)
        # And it is a forecast: closer to the wave than its own mean is.
    whole = node_series(tree, data).series[0].energy_kwh[56 * 24 : 61 * 24].reshape(5, 24)
    assert np.abs(made[0][0].mean_kwh - whole).mean() < 0.5 * np.abs(whole - whole.mean()).mean()


def test_nodes_without_a_day_to_train_on():
    series = node_series(PAIR, {"a": meter("a"), "b": meter("b", start_day=55, days=15)}).series
    with pytest.raises(DataError, match=r"FL219.*no node has a day"):
        node_forecasts("ridge", Ridge(), series, SPLITS, SPLITS.test)
    (made,) = node_forecasts("ha4", Ridge(), series, SPLITS, SPLITS.test)
    # A week of the newcomer lies behind the issues from day 62 on.
    assert np.isfinite(made.mean_kwh).all(axis=1).tolist() == [False] * 6 + [True] * 8
