"""A followed calibration after its test window goes on from what the run has kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow.compute as pc
import pytest

from fl_inmetro import session
from fl_inmetro.config import RunConfig, check
from fl_inmetro.data.load import load
from fl_inmetro.forecasting import forecast
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import FollowedModel, trained_model

ORDER = [(name, "ascending") for name in ("client_id", "issue_time_utc", "target_time_utc")]
QUANTILES = ("q10", "q50", "q90")
FIRST, LAST = date(2024, 2, 3), date(2024, 2, 16)
#: Simulated readings end on 2024-02-29.
AFTER = date(2024, 2, 28)


def settings(**window: object) -> RunConfig:
    return check(
        {
            "data": {
                "source": "simulator",
                "simulator": {"clients": 3, "days": 60, "commercial_share": 0.5},
            },
            "window": {
                "validation_days": 8,
                "test_start": FIRST,
                "test_end": LAST,
                "timezone": "America/Sao_Paulo",
                **window,
            },
            "federation": {"num_server_rounds": 1},
            "models": {"mlp": {"hidden": [8], "loss": "quantile", "levels": [0.1, 0.5, 0.9]}},
            "compare": {"models": ["ridge", "mlp"], "training": ["local", "federated"]},
            # Eight memories are 9.6 days: fewer than the test window has.
            "conformal": {
                "enabled": True,
                "gamma": 0.1,
                "memory_days": 1.2,
                "levels": [0.1, 0.5, 0.9],
            },
        }
    )


@pytest.fixture(scope="module", params=[{}, {"horizon_h": 48.0, "lead_h": 12.0}], ids=str)
def record(request, tmp_path_factory) -> RunRecord:
    folder = tmp_path_factory.mktemp("runs")
    config = settings(**request.param)
    return RunRecord.open(session.start(config, "compare", folder, lambda e: None, lambda: False))


@pytest.fixture(scope="module")
def data(record):
    return load(record.config.data, record.config.seed)


class Counted:
    """A model that notes how many windows it was asked for."""

    def __init__(self, plain):
        self.plain, self.windows = plain, 0

    @property
    def job(self):
        return self.plain.job

    def forecast(self, client_id, windows):
        self.windows += len(windows)
        return self.plain.forecast(client_id, windows)

    def forecast_fleet(self, windows):
        self.windows += len(windows)
        return self.plain.forecast_fleet(windows)

    def settled(self, clients, asked_utc_s, zone):
        return self


def quantiles(record, model, data, first, last) -> np.ndarray:
    table = forecast(record, model, data, first, last).table.sort_by(ORDER)
    return np.stack([table[name].to_numpy() for name in QUANTILES])


def without_ends(model: FollowedModel) -> FollowedModel:
    """The same, learnt again from the first test day."""
    return replace(model, fleet=replace(model.fleet, ended={}))


@pytest.mark.parametrize("training", ["local", "federated"])
@pytest.mark.parametrize("name", ["ridge", "mlp"])
def test_beyond_eight_memories_a_test_day_is_still_the_one_that_was_scored(
    record, data, name, training
):
    model = trained_model(record, name, training)
    own = record.forecasts(name, training)
    names = own["client_id"].cast("string")
    own = own.set_column(own.column_names.index("client_id"), "client_id", names).sort_by(ORDER)
    last = own.filter(pc.equal(own["issue_time_utc"], pc.max(own["issue_time_utc"])))
    found = quantiles(record, model, data, LAST, LAST)
    expected = np.stack([last[q].to_numpy() for q in QUANTILES])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("training", ["local", "federated"])
@pytest.mark.parametrize("name", ["ridge", "mlp"])
def test_going_on_is_learning_again(record, data, name, training):
    """From the kept state, as from the first test day over every day since."""
    model = trained_model(record, name, training)
    assert sorted(model.fleet.ended) == sorted(data)
    day = date(2024, 2, 20)
    found = quantiles(record, model, data, day, day)
    # Asked for from the last test day on, every day since the first test day is learnt again.
    again = quantiles(record, model, data, LAST, day)
    per_issue = found.shape[1] // 3
    again = again.reshape(3, 3, -1)[:, :, -per_issue:].reshape(3, -1)
    np.testing.assert_allclose(found, again, rtol=1e-6)
    # What was learnt matters.
    other = quantiles(record, without_ends(model), data, FIRST, FIRST)
    assert not np.allclose(found[:, : other.shape[1]], other)


def test_a_day_after_the_window_asks_the_model_for_the_days_since(record, data):
    model = trained_model(record, "mlp", "federated")
    counted = Counted(model.plain)
    forecast(record, replace(model, plain=counted), data, LAST, LAST)
    assert counted.windows == 3 * 14  # the whole test window
    counted.windows = 0
    day = date(2024, 2, 17)
    forecast(record, replace(model, plain=counted), data, day, day)
    # The day asked for, and those whose readings had not come in at the last test day: that day,
    # and of a horizon of 48 h after 12 h also the two days before it.
    pending = 3 if model.fleet.ended and record.config.window.horizon_h == 48 else 1
    assert counted.windows == 3 * (1 + pending)


def test_long_after_the_window_days_beyond_eight_memories_are_skipped(record, data):
    model = trained_model(record, "mlp", "federated")
    counted = Counted(model.plain)
    forecast(record, replace(model, plain=counted), data, AFTER, AFTER)
    pending = 3 if record.config.window.horizon_h == 48 else 1
    # 17 to 28 February are 12 days; eight memories are 9.6 days, nine issues.
    assert counted.windows == 3 * (1 + 9 + pending)


def test_a_run_of_before_that_kept_no_ends_is_learnt_again(record, data):
    """To e⁻⁸: a run of before learns from the last eight memories alone."""
    model = trained_model(record, "mlp", "federated")
    arrays, meta = model.fleet.packed()
    old = {key: value for key, value in arrays.items() if not key.startswith("ended.")}
    fleet = type(model.fleet).unpacked(old, {k: v for k, v in meta.items() if k != "ended"},
                                       model.fleet.settings)  # fmt: skip
    assert fleet.ended == {}
    day = date(2024, 2, 10)  # within eight memories of the first test day
    found = quantiles(record, replace(model, fleet=fleet), data, day, day)
    expected = quantiles(record, model, data, day, day)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_ends_are_kept_to_the_bit_and_are_small(record):
    model = trained_model(record, "mlp", "federated")
    again = type(model.fleet).unpacked(*model.fleet.packed(), model.fleet.settings)
    for name, one in model.fleet.ended.items():
        for key in ("heard", "asked", "place", "weight", "pending_utc_s", "offsets"):
            np.testing.assert_array_equal(getattr(again.ended[name], key), getattr(one, key))
        # 14 days of 48 h and 3 levels at most, and mostly in bins that are there already.
        assert one.place.size <= 14 * 48 * 3
        assert (one.weight > 0).all()


def test_a_client_is_served_in_company_as_alone(record, data):
    model = trained_model(record, "mlp", "federated")
    day = date(2024, 2, 19)
    together = forecast(record, model, data, LAST, day).table
    from fl_inmetro.data.series import FederatedData

    for name, series in data.items():
        alone = forecast(record, model, FederatedData({name: series}, data.manifest), LAST, day)
        own = together.filter(pc.equal(together["client_id"], name))
        for column in ("mean", *QUANTILES):
            np.testing.assert_array_equal(own[column].to_numpy(), alone.table[column].to_numpy())
