"""The terms of a forecast add up to it, whatever the model, and say where it comes from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time

import numpy as np
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.explain.paths import TOLERANCE
from fl_inmetro.explain.terms import explain, terms_of
from fl_inmetro.trained import TrainedModel, trained_model
from fl_inmetro.units import DAY_S, epoch_s
from tests.fleets import federated

DAY = date(2024, 2, 25)
MODELS = ("ridge", "mlp", "nlinear", "gru", "tide", "cyclenet", "ensemble")


def forecast_of(made, model, client, level):
    issue = made.prepared.clients[client].test[0]
    place = [str(np.datetime64(int(s), "s"))[:10] for s in issue.issue_utc_s].index(str(DAY))
    whole = model.forecast(client, issue)
    return (whole.mean_kwh if level is None else whole.at(level))[place]


@pytest.mark.parametrize("training", ["local", "federated", "personalised"])
@pytest.mark.parametrize("name", MODELS)
def test_the_terms_add_up_to_the_forecast(made, name, training):
    model = trained_model(made.record, name, training)
    client = next(iter(made.prepared.clients))
    found = explain(made.record, model, made.prepared.data, client, DAY)
    whole = forecast_of(made, model, client, found.level)
    np.testing.assert_allclose(found.made.forecast_kwh, whole, rtol=1e-5)
    np.testing.assert_allclose(sum(found.made.terms.values()), found.made.forecast_kwh, rtol=1e-9)
    assert found.made.residual_share <= TOLERANCE
    assert found.level == (0.5 if name in ("mlp", "nlinear", "gru") else None)
    assert (found.made.steps == 0) == (name == "ridge")
    assert found.to_json()["complete"]


@pytest.mark.parametrize("level", [None, 0.1, 0.9])
@pytest.mark.parametrize("name", ["ridge", "mlp", "ensemble"])
@pytest.mark.parametrize("training", ["federated", "personalised"])
def test_calibration_is_a_term_of_its_own(calibrated, name, training, level):
    """It is what the calibrated forecast has more than the plain one; a learned median stays."""
    model = trained_model(calibrated.record, name, training)
    client = next(iter(calibrated.prepared.clients))
    found = explain(calibrated.record, model, calibrated.prepared.data, client, DAY, level)
    assert found.level == (level or 0.5)
    whole = forecast_of(calibrated, model, client, found.level)
    np.testing.assert_allclose(found.made.forecast_kwh, whole, rtol=1e-5)
    np.testing.assert_allclose(sum(found.made.terms.values()), whole, rtol=1e-5)
    assert found.made.residual_share <= TOLERANCE
    plain = forecast_of(calibrated, model.plain, client, found.level if name == "mlp" else None)
    shift = found.made.terms["calibration"]
    np.testing.assert_allclose(shift, whole - plain, atol=1e-6)
    assert bool(np.any(shift)) == (name != "mlp" or level is not None)


def test_a_blend_is_the_weighted_sum_of_its_components(made):
    """Members alike: a third of each one's terms."""
    client = next(iter(made.prepared.clients))

    def terms(name):
        model = trained_model(made.record, name, "federated")
        return explain(made.record, model, made.prepared.data, client, DAY).made.terms

    whole = terms("ensemble")
    # Ridge has no quantiles, so that the ensemble is one of means; so must its members be here.
    windows = made.prepared.clients[client].test[0]
    place = [str(np.datetime64(int(s), "s"))[:10] for s in windows.issue_utc_s].index(str(DAY))
    one = windows.take(np.array([place]))
    members = [
        terms_of(trained_model(made.record, name, "federated"), client, one, None).terms
        for name in ("ridge", "mlp", "nlinear")
    ]
    for name, values in whole.items():
        if name == "rest":
            continue
        own = sum(m.get(name, np.zeros(24)) for m in members) / 3
        np.testing.assert_allclose(values, own, atol=1e-9)


def test_the_base_is_the_profile_and_the_hours_are_local(made):
    model = trained_model(made.record, "mlp", "federated")
    client = next(iter(made.prepared.clients))
    windows = made.prepared.clients[client].test[0]
    found = explain(made.record, model, made.prepared.data, client, DAY)
    place = list(windows.issue_utc_s).index(found.issue_utc_s)
    design = model.learner.design(windows, targets=False)
    base = design.base[place].astype(float) * design.scale_kwh[place]
    np.testing.assert_allclose(found.made.terms["profile"], base)
    np.testing.assert_array_equal(found.observed_kwh, windows.target_kwh()[place])
    assert found.local[0] == "2024-02-25 00:00"
    assert found.local[23] == "2024-02-25 23:00"
    assert set(found.day_type) == {"sunday"}
    told = found.to_json()
    assert told["rows"][0]["target_time_utc"] == "2024-02-25T03:00:00Z"
    assert list(told["rows"][0]["terms"]) == told["terms"]


def test_a_forecast_below_the_floor_says_that_it_was_cut(made):
    """A constant of −10 scales below the base: the forecast is zero, and the cut says why."""
    model = trained_model(made.record, "ridge", "federated")
    assert model.shared is not None
    low = model.shared | {"coefficients": model.shared["coefficients"].copy()}
    low["coefficients"][-1] -= 10
    client = next(iter(made.prepared.clients))
    found = explain(made.record, replace(model, shared=low), made.prepared.data, client, DAY)
    assert not found.made.forecast_kwh.any()
    assert (found.made.terms["floor"] > 0).all()
    np.testing.assert_allclose(sum(found.made.terms.values()), 0, atol=1e-9)


# ---------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("FL360", {"client": "sim-hom-002"}),
        ("FL361", {"level": 0.7}),
        ("FL362", {"day": date(2023, 12, 1)}),
        ("FL362", {"day": date(2024, 9, 1)}),
    ],
)
def test_what_cannot_be_explained_is_a_fault(made, code, change):
    model = trained_model(made.record, "mlp", "federated")
    asked = {"client": next(iter(made.prepared.clients)), "day": DAY, "level": None, **change}
    with pytest.raises(FederationError) as caught:
        explain(made.record, model, made.prepared.data, **asked)
    (fault,) = caught.value.faults
    assert fault.code == code
    assert fault.where
    assert fault.hint


def test_a_model_that_forecasts_otherwise_than_by_its_state_is_fl363(made):
    class Doubled(TrainedModel):
        def forecast(self, client_id, windows):
            made = super().forecast(client_id, windows)
            return replace(made, mean_kwh=2 * made.mean_kwh, quantiles_kwh=2 * made.quantiles_kwh)

    plain = trained_model(made.record, "mlp", "federated")
    model = Doubled(plain.job, plain.learner, plain.shared, plain.own, plain.private)
    client = next(iter(made.prepared.clients))
    with pytest.raises(FederationError) as caught:
        explain(made.record, model, made.prepared.data, client, DAY)
    assert caught.value.faults[0].code == "FL363"


def test_a_client_without_a_model_has_no_forecast_fl362(made):
    model = trained_model(made.record, "mlp", "local")
    client = next(iter(made.prepared.clients))
    without = replace(model, own={k: v for k, v in model.own.items() if k != client})
    with pytest.raises(FederationError) as caught:
        explain(made.record, without, made.prepared.data, client, DAY)
    assert caught.value.faults[0].code == "FL362"


def test_a_forecast_that_stands_in_for_the_models_is_not_taken_apart(made):
    """Three silent days: `forecast` takes the mean of the day type there, and says why."""
    model = trained_model(made.record, "mlp", "federated")
    client = next(iter(made.prepared.clients))
    series = made.prepared.data[client]
    energy = series.energy_kwh.copy()
    energy[series.index_of(epoch_s(datetime.combine(DAY, time(), UTC)) - 3 * DAY_S) :] = np.nan
    silent = federated([replace(series, energy_kwh=energy)])
    with pytest.raises(FederationError) as caught:
        explain(made.record, model, silent, client, DAY)
    assert caught.value.faults[0].code == "FL362"
    assert "no_readings" in str(caught.value)
