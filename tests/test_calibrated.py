"""Calibrated runs: scored, kept and served alike, and nothing shared where nothing may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fl_inmetro import session
from fl_inmetro.calibrated import calibrate
from fl_inmetro.config import RunConfig, check
from fl_inmetro.config.conformal import Conformal
from fl_inmetro.data.calendar import issue_times_utc_s
from fl_inmetro.data.load import load
from fl_inmetro.data.series import FederatedData
from fl_inmetro.derived import Done
from fl_inmetro.errors import ConfigError, DataError, RunError
from fl_inmetro.forecasting import forecast
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.conformal import FleetCalibration, fit, scores_of
from fl_inmetro.learning.followed import FollowedFleet
from fl_inmetro.plan import Job, prepare
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import CalibratedModel, FollowedModel, trained_model

ORDER = [(name, "ascending") for name in ("client_id", "issue_time_utc", "target_time_utc")]
FIRST, LAST = date(2024, 2, 23), date(2024, 2, 29)


def settings(*, enabled: bool, follow: bool = False) -> RunConfig:
    return check(
        {
            "data": {
                "source": "simulator",
                "simulator": {"clients": 4, "days": 60, "commercial_share": 0.5},
            },
            "window": {"test_days": 7, "validation_days": 14},
            "federation": {"num_server_rounds": 2},
            "models": {"mlp": {"hidden": [8], "loss": "quantile"}},
            "compare": {
                "models": ["ha4", "ridge", "mlp", "ensemble"],
                "training": ["local", "federated", "personalised", "centralised"],
            },
            "ensemble": {"members": ["ridge", "mlp"]},
            "conformal": {
                "enabled": enabled,
                "follow": follow,
                "blocks": 4,
                "levels": [0.1, 0.5, 0.9],
            },
        }
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    kinds = {
        True: settings(enabled=True),
        False: settings(enabled=False),
        "followed": settings(enabled=True, follow=True),
    }
    return {
        kind: RunRecord.open(
            session.start(config, "compare", folder, lambda e: None, lambda: False)
        )
        for kind, config in kinds.items()
    }


def columns(record, model, training):
    table = record.forecasts(model, training)
    names = table["client_id"].cast("string")
    table = table.set_column(table.column_names.index("client_id"), "client_id", names)
    return table.sort_by(ORDER)


@pytest.mark.parametrize("kind", [True, "followed"])
@pytest.mark.parametrize("model", ["ridge", "mlp", "ensemble"])
@pytest.mark.parametrize("training", ["local", "federated", "personalised", "centralised"])
def test_what_is_served_is_what_was_scored(runs, model, training, kind):
    record = runs[kind]
    served = trained_model(record, model, training)
    assert isinstance(served, FollowedModel if kind == "followed" else CalibratedModel)
    data = load(record.config.data, record.config.seed)
    found = forecast(record, served, data, FIRST, LAST).table.sort_by(ORDER)
    own = columns(record, model, training)
    for name in ("mean", "q10", "q50", "q90"):
        np.testing.assert_allclose(found[name].to_numpy(), own[name].to_numpy(), rtol=1e-9)


def test_means_stay_and_quantiles_move(runs):
    plain, moved = (columns(runs[enabled], "mlp", "federated") for enabled in (False, True))
    np.testing.assert_array_equal(plain["mean"].to_numpy(), moved["mean"].to_numpy())
    assert (plain["q90"].to_numpy() != moved["q90"].to_numpy()).mean() > 0.9
    assert columns(runs[False], "ridge", "federated")["q90"].null_count > 0
    score = {row["model"]: row for row in runs[True].scores() if row["training"] == "federated"}
    assert np.isfinite(score["ridge"]["coverage_80"])


def served(record, data, first, last, model="mlp", training="federated"):
    made = forecast(record, trained_model(record, model, training), data, first, last)
    return made.table.sort_by(ORDER)


def spoilt(record, data, since):
    """The same data, with garbage for all readings from a day's issue on."""
    rng = np.random.default_rng(5)
    window = record.manifest["window"]
    since_utc_s = issue_times_utc_s(since, since, window["issue_time"], window["timezone"])[0]
    made = {}
    for name, series in data.items():
        energy = series.energy_kwh.copy()
        first = (since_utc_s - series.start_utc_s) // series.resolution_s
        energy[first:] = rng.gamma(2.0, 50.0, energy.size - first)
        made[name] = replace(series, energy_kwh=energy)
    return FederatedData(made, data.manifest)


def test_a_single_day_goes_on_from_the_days_before_it(runs):
    record = runs["followed"]
    data = load(record.config.data, record.config.seed)
    day = date(2024, 2, 27)
    own = columns(record, "mlp", "federated")
    own = own.filter(pc.equal(pc.cast(own["issue_time_utc"], "date32"), pa.scalar(day)))
    found = served(record, data, day, day)
    assert len(found) == len(own) == 4 * 24
    for name in ("q10", "q50", "q90"):
        np.testing.assert_allclose(found[name].to_numpy(), own[name].to_numpy(), rtol=1e-9)


def test_days_before_the_test_window_are_calibrated_and_nothing_is_learnt_from_them(runs):
    record = runs["followed"]
    data = load(record.config.data, record.config.seed)
    both = served(record, data, date(2024, 2, 20), LAST)
    own = columns(record, "mlp", "federated")
    later = both.filter(pc.greater_equal(both["issue_time_utc"], own["issue_time_utc"][0]))
    np.testing.assert_allclose(later["q90"].to_numpy(), own["q90"].to_numpy(), rtol=1e-9)
    assert np.isfinite(both["q90"].to_numpy()).all()


def test_readings_after_the_issue_change_no_forecast(runs):
    record = runs["followed"]
    data = load(record.config.data, record.config.seed)
    day = date(2024, 2, 26)
    plain = served(record, data, FIRST, day)
    found = served(record, spoilt(record, data, day), FIRST, day)
    for name in ("mean", "q10", "q50", "q90"):
        np.testing.assert_array_equal(found[name].to_numpy(), plain[name].to_numpy())
    # Those of the day before are learnt from.
    other = served(record, spoilt(record, data, date(2024, 2, 25)), FIRST, day)
    assert (other["q90"].to_numpy() != plain["q90"].to_numpy()).any()


def test_a_new_client_learns_from_its_own_days(runs):
    # Another home, with the readings of a known one but ten times as erratic from the first test
    # day on: its intervals grow.
    record = runs["followed"]
    data = load(record.config.data, record.config.seed)
    name, series = next(iter(data.items()))
    fleet = FederatedData({"new": replace(series, client_id="new")}, data.manifest)
    calm = served(record, fleet, LAST, LAST)
    wild = served(record, spoilt(record, fleet, FIRST), LAST, LAST)

    def width(table):
        scale = np.abs(table["mean"].to_numpy()).mean()
        return (table["q90"].to_numpy() - table["q10"].to_numpy()).mean() / scale

    known = served(record, FederatedData({name: series}, data.manifest), LAST, LAST)
    assert (known["q90"].to_numpy() != calm["q90"].to_numpy()).any()
    assert width(wild) > width(calm)


def test_the_fleets_counts_are_in_the_bytes(runs):
    # 4 clients, there and back, 8 bytes for each of 4 blocks × 3 levels × 1,383 bins (`mlp`) or
    # × 1 error of the mean (`ridge`).
    cost = {
        (enabled, row["model"]): row["bytes"]
        for enabled, record in runs.items()
        for row in record.scores()
        if row["training"] == "federated"
    }
    for model, width in (("ridge", 1), ("mlp", 3)):
        assert cost[True, model] - cost[False, model] == 2 * 4 * 8 * 4 * width * 1383


def test_local_training_shares_nothing(runs):
    found = weights.load(runs["followed"].path, "ridge-local-calibration")
    assert found is not None
    followed = FollowedFleet.unpacked(*found, runs["followed"].config.conformal)
    assert followed.fleet.n == 0
    assert followed.of("nobody") is None
    found = weights.load(runs[True].path, "ridge-local-calibration")
    assert found is not None
    kept = FleetCalibration.unpacked(*found)
    assert kept.shared is None
    assert kept.of("nobody") is None
    assert len(kept.own) == 4


def test_a_client_that_was_never_seen_takes_the_fleets(runs):
    found = weights.load(runs[True].path, "mlp-federated-calibration")
    assert found is not None
    kept = FleetCalibration.unpacked(*found)
    assert kept.of("nobody") is kept.shared
    assert all((one.offsets != kept.shared.offsets).any() for one in kept.own.values())
    again = FleetCalibration.unpacked(*kept.packed())
    assert list(again.own) == list(kept.own)
    assert (again.shared.offsets == kept.shared.offsets).all()


def test_a_calibration_is_what_its_own_errors_say(runs):
    # Client by client from the windows themselves, without the sum over the fleet.
    record = runs[True]
    prepared = prepare(record.config)
    served = trained_model(record, "ridge", "local")
    assert isinstance(served, CalibratedModel)
    for name, client in prepared.clients.items():
        windows = client.validation[0]
        scores = scores_of(windows, served.plain.forecast(name, windows), 4)
        expected = fit(scores, scores, record.config.conformal).offsets
        worker = ClientWorker(client, served.plain.learner)
        state = served.plain.state_for(name)
        np.testing.assert_array_equal(worker.calibrate(state, 4).counts, scores.counts)
        np.testing.assert_allclose(served.calibration.of(name).offsets, expected)


def test_a_lost_calibration_is_an_error(runs):
    record = runs[True]
    path = weights.weights_path(record.path, "ridge-centralised-calibration")
    kept = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(RunError, match="FL703"):
            trained_model(record, "ridge", "centralised")
    finally:
        path.write_bytes(kept)


def test_no_errors_to_calibrate_by_is_an_error():
    with pytest.raises(DataError, match="FL218"):
        calibrate(Job("ridge", "federated"), Conformal(), {}, Done())


@pytest.mark.parametrize(
    "table",
    [{"blocks": 5}, {"fleet_days": -1}, {"gamma": 2}, {"memory_days": 1}, {"levels": [0.9, 0.1]}],
)
def test_settings_out_of_range_are_refused(table):
    with pytest.raises(ConfigError):
        check({"conformal": table})
