"""The ladder, rung by rung: gaps, flat lines and clients without readings, made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fl_inmetro import session
from fl_inmetro.config.fallback import Fallback
from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.calendar import issue_times_utc_s
from fl_inmetro.data.fleet_windows import stacked
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.short_history import FleetProfile, annual_scale_kwh
from fl_inmetro.data.simulator import simulate
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import RunError
from fl_inmetro.fallback import PROFILE_KEY, Ladder, kept_profile, ladder_of
from fl_inmetro.forecasting import forecast
from fl_inmetro.metrics import Forecast, joined_forecasts
from fl_inmetro.models.baselines import day_type_mean
from fl_inmetro.plan import prepare
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.weights import weights_path
from fl_inmetro.trained import trained_model
from tests.fleets import MONDAY, by_the_clock, federated, tiny_config

DAY, HOUR = 24, 3600
#: The model is asked in spite of long gaps.
PATIENT = Fallback(no_readings_days=14)
ZONE = "America/Sao_Paulo"
#: A Monday.
ISSUE = date(2024, 2, 26)
#: Midnight in Brasília, in steps since Monday, 1 January, 00:00 UTC.
AT = 56 * DAY + 3


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    root = tmp_path_factory.mktemp("runs")
    config = tiny_config(compare={"models": ["ridge", "mlp"]}, conformal={"enabled": True,
                         "levels": [0.1, 0.5, 0.9]})  # fmt: skip
    path = session.start(config, "compare", root, lambda event: None, lambda: False)
    return RunRecord.open(path)


@pytest.fixture(scope="module")
def home() -> ClientSeries:
    (one,) = simulate(Simulator(clients=1, days=70), 9).values()
    assert one.start_utc_s == MONDAY + 3 * HOUR
    energy = np.concatenate([np.full(3, np.nan), one.energy_kwh])
    return ClientSeries("home", MONDAY, HOUR, energy)


def known_to(series: ClientSeries, steps: int) -> ClientSeries:
    """The same meter, of which nothing is known from a step on."""
    energy = series.energy_kwh.copy()
    energy[steps:] = np.nan
    return replace(series, energy_kwh=energy)


def made_for(
    record: RunRecord,
    series: ClientSeries,
    model: str = "mlp",
    training: str = "federated",
    **how: object,
) -> tuple[pa.Table, tuple[str | None, str | None]]:
    """Return a day's forecasts of one meter, with who made them and why."""
    trained = trained_model(record, model, training)
    clients = federated([series])
    how.setdefault("fallback", PATIENT)
    found = forecast(record, trained, clients, ISSUE, ISSUE, **how).table  # type: ignore[arg-type]
    (method,) = set(found["method"].to_pylist())
    (reason,) = set(found["reason"].to_pylist())
    return found, (method, reason)


def window(series: ClientSeries, at: int = AT) -> Windows:
    return Windows(series, np.array([at]), 24, ZONE)


def test_a_healthy_meter_is_the_models(record, home):
    found, who = made_for(record, home)
    assert who == ("mlp/federated", None)
    plain = trained_model(record, "mlp", "federated").forecast("home", window(home))
    np.testing.assert_allclose(found["mean"].to_numpy(), plain.mean_kwh[0], rtol=1e-6)
    # With the ladder off it is the same.
    off, _ = made_for(record, home, fallback=Fallback(enabled=False))
    np.testing.assert_array_equal(off["mean"].to_numpy(), found["mean"].to_numpy())


@pytest.mark.parametrize(
    ("missing", "reason"), [(13 * DAY, "missing_lags"), (20 * DAY, "no_readings")]
)
def test_after_a_gap_the_mean_of_the_day_type_stands_in(record, home, missing, reason):
    series = known_to(home, AT - missing)
    found, who = made_for(record, series)
    assert who == ("day_type_mean", reason)
    # Monday's hours: the mean of the working days that are known of the last 28, hour by hour.
    known = series.energy_kwh[AT - 28 * DAY : AT].reshape(28, DAY)
    working = [day for day in range(28) if day % 7 < 5 and np.isfinite(known[day]).all()]
    assert len(working) >= 5
    np.testing.assert_allclose(found["mean"].to_numpy(), known[working].mean(axis=0), rtol=1e-6)
    # The same model, asked all the same, says something else.
    off, who = made_for(record, series, fallback=Fallback(enabled=False))
    assert who == ("mlp/federated", None)
    assert not np.allclose(off["mean"].to_numpy(), found["mean"].to_numpy())


def test_a_flat_line_is_left_out_of_the_mean(record, home):
    energy = home.energy_kwh.copy()
    energy[AT - 40 : AT] = 0.05
    series = replace(home, energy_kwh=energy)
    found, who = made_for(record, series)
    assert who == ("day_type_mean", "flat_line")
    energy = energy.copy()
    energy[AT - 40 : AT] = np.nan
    hidden = day_type_mean(window(replace(home, energy_kwh=energy)))
    np.testing.assert_allclose(found["mean"].to_numpy(), hidden[0], rtol=1e-12)


def test_beyond_four_weeks_the_last_known_ones_stand_in(record, home):
    # Readings end 38 days before: one day more than four weeks and nine days. Two weeks earlier
    # four days of them are in sight.
    series = known_to(home, AT - 38 * DAY)
    found, who = made_for(record, series)
    assert who == ("last_known_weeks", "no_readings")
    earlier = day_type_mean(window(series, AT - 14 * DAY))
    assert np.isnan(day_type_mean(window(series, AT - 7 * DAY))).all()
    np.testing.assert_allclose(found["mean"].to_numpy(), earlier[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "first", "last"),
    [
        (datetime(2024, 3, 31, tzinfo=UTC), 33, 60),
        (datetime(2024, 10, 27, tzinfo=UTC), 33, 60),
    ],
)
def test_the_last_known_weeks_are_those_of_the_local_clock(change, first, last):
    """A load that repeats by the clock of London, known until four days before its change.

    Seen from whole weeks earlier it is forecast exactly, by the clock and not by UTC.
    """
    made = by_the_clock("Europe/London", change - timedelta(days=35), 100)
    energy = made.energy_kwh.copy()
    energy[31 * DAY :] = np.nan
    series = replace(made, energy_kwh=energy)
    ladder = Ladder(PATIENT, None, None, None, {})  # type: ignore[arg-type]  # no model is asked
    for day in range(first, last):
        at = np.array([day * DAY])
        (found,) = ladder._last_known_weeks(Windows(series, at, DAY, "Europe/London")).mean_kwh
        (true,) = Windows(made, at, DAY, "Europe/London").target_kwh()
        np.testing.assert_allclose(found, true, rtol=1e-6)
        (plain,) = ladder._last_known_weeks(Windows(series, at, DAY, "UTC")).mean_kwh
        assert day < 35 or np.abs(plain - true).max() > 1


def test_then_the_fleets_profile_at_the_clients_size(record, home):
    series = known_to(home, AT - 38 * DAY)
    settings = Fallback(known_weeks=0)
    found, who = made_for(record, series, fallback=settings)
    assert who == ("fleet_profile", "no_readings")
    profile = kept_profile(record)
    size = float(np.nanmean(series.energy_kwh))
    expected = profile.forecast_kwh(window(series), size)
    np.testing.assert_allclose(found["mean"].to_numpy(), expected[0], rtol=1e-12)
    # Readings that are older than `size-days` say nothing of a size: nobody is left.
    old = Fallback(known_weeks=0, size_days=30)
    clients = federated([series, replace(home, client_id="other")])
    trained = trained_model(record, "mlp", "federated")
    made = forecast(record, trained, clients, ISSUE, ISSUE, old)
    assert list(made.skipped) == ["home"]
    assert made.methods == {"mlp/federated": 1}


def test_each_issue_has_its_own_rung(record, home):
    """A meter that falls silent, day after day."""
    series = known_to(home, 20 * DAY)
    trained = trained_model(record, "mlp", "federated")
    first, last = date(2024, 1, 20), date(2024, 3, 1)
    made = forecast(record, trained, federated([series]), first, last, PATIENT)
    rows = made.table.group_by(["issue_time_utc", "method", "reason"]).aggregate([])
    rows = sorted(rows.to_pylist(), key=lambda row: row["issue_time_utc"])
    assert len(rows) == 42
    # It ends on 21 January, 00:00 UTC; issues are at 03:00 UTC. Of the 336 hours before it the
    # issue of 1 February knows those since 18 January, 03:00, 69, and that of the 2nd 45: one in
    # five are 67.2. On 3 February the last reading is 315 hours old, on the 4th 339. Of 28 days
    # the issue of the 16th knows those since 19 January, 03:00, 45 hours, that of the 17th 21:
    # less than a day. So 20 January … 1 February, 2 and 3, 4 … 16, and 17 February … 1 March.
    words = [(row["method"], row["reason"]) for row in rows]
    expected = (
        [("mlp/federated", None)] * 13
        + [("day_type_mean", "missing_lags")] * 2
        + [("day_type_mean", "no_readings")] * 13
        + [("last_known_weeks", "no_readings")] * 14
    )
    assert words == expected
    assert made.methods == {"mlp/federated": 13, "day_type_mean": 15, "last_known_weeks": 14}
    assert made.reasons == {"missing_lags": 2, "no_readings": 27}
    # The file says what is served alone.
    day = rows[30]["issue_time_utc"].date()
    alone = forecast(record, trained, federated([series]), day, day, PATIENT).table
    own = made.table.filter(pc.equal(made.table["issue_time_utc"], rows[30]["issue_time_utc"]))
    np.testing.assert_array_equal(own["mean"].to_numpy(), alone["mean"].to_numpy())


def test_a_client_of_local_models_is_the_federations(record, home):
    found, who = made_for(record, home, training="local")
    assert who == ("mlp/federated", "no_model")
    other, _ = made_for(record, home)
    for name in ("mean", "q10", "q90"):
        np.testing.assert_array_equal(found[name].to_numpy(), other[name].to_numpy())


class Broken:
    """A model that gives no number for the second half of its forecasts."""

    def __init__(self, plain):
        self.plain = plain

    @property
    def job(self):
        return self.plain.job

    def forecast(self, client_id, windows):
        made = self.plain.forecast(client_id, windows)
        mean = made.mean_kwh.copy()
        mean[:, 12:] = np.inf
        return Forecast(mean, made.levels, made.quantiles_kwh)

    def forecast_fleet(self, windows):
        return [self.forecast(name, windows.of(k)) for k, name in enumerate(windows.names)]


def test_what_is_no_number_is_never_given(record, home):
    trained = Broken(trained_model(record, "mlp", "federated"))
    made = forecast(record, trained, federated([home]), ISSUE, ISSUE)
    assert made.methods == {"day_type_mean": 1}
    assert made.reasons == {"not_finite": 1}
    assert np.isfinite(made.table["mean"].to_numpy()).all()


# -------------------------------------------------------------------------------- quantiles
def test_quantiles_of_a_stand_in_are_a_calibrations_or_empty(record, home):
    series = known_to(home, AT - 20 * DAY)
    # `mlp` gives a mean here, so that the calibration makes quantiles of any mean.
    found, who = made_for(record, series)
    assert who[0] == "day_type_mean"
    low, high = (found[name].to_numpy() for name in ("q10", "q90"))
    assert (low <= high).all()
    assert (low < high).any()
    config = tiny_config(conformal={"enabled": True}, models={"mlp": {"loss": "quantile"}})
    path = session.start(config, "run", record.path.parent, lambda e: None, lambda: False)
    moved, who = made_for(RunRecord.open(path), series)
    assert who[0] == "day_type_mean"
    assert moved["q10"].null_count == moved.num_rows == 24
    healthy, _ = made_for(RunRecord.open(path), home)
    assert healthy["q10"].null_count == 0


# ------------------------------------------------------------------- known by its year alone
def test_a_client_of_whom_only_the_year_is_known(record, home):
    trained = trained_model(record, "mlp", "federated")
    years = {"new": 3650.0}
    made = forecast(record, trained, federated([home]), ISSUE, ISSUE, None, years)
    own = made.table.filter(pc.equal(made.table["client_id"], "new"))
    assert set(own["method"].to_pylist()) == {"mlp/federated on fleet_profile"}
    assert set(own["reason"].to_pylist()) == {"too_few_readings"}
    assert made.methods == {"mlp/federated": 1, "mlp/federated on fleet_profile": 1}
    # 3,650 kWh a year are 10 kWh a day and 10/24 an hour. The model sees the profile as its past.
    assert annual_scale_kwh(3650.0, HOUR) == pytest.approx(10 / 24)
    lent = kept_profile(record).lend(window(replace(home, client_id="new")), 10 / 24)
    expected = trained.plain.forecast("new", lent)
    np.testing.assert_allclose(own["mean"].to_numpy(), expected.mean_kwh[0], rtol=1e-9)
    assert not np.allclose(own["mean"].to_numpy(), 10 / 24 * kept_profile(record).share[0])


def test_a_year_is_a_size_where_the_readings_tell_none_and_else_is_not_looked_at(record, home):
    trained = trained_model(record, "mlp", "federated")
    few = known_to(home, AT - 60 * DAY)  # nothing at all
    first = replace(few, energy_kwh=np.where(np.arange(len(few)) < AT - 10, np.nan,
                    home.energy_kwh))  # fmt: skip
    made = forecast(record, trained, federated([first]), ISSUE, ISSUE, None, {"home": 3650.0})
    assert made.methods == {"mlp/federated on fleet_profile": 1}
    _, who = made_for(record, home, annual_kwh={"home": 1.0})
    assert who == ("mlp/federated", None)


def test_local_models_lend_nothing_and_the_federation_does(record, home):
    trained = trained_model(record, "mlp", "local")
    made = forecast(record, trained, federated([home]), ISSUE, ISSUE, None, {"new": 3650.0})
    assert made.methods == {"mlp/federated": 1, "mlp/federated on fleet_profile": 1}


# ------------------------------------------------------------------------- the kept profile
def test_the_kept_profile_is_that_of_the_four_weeks_before_the_test_window(record):
    prepared = prepare(record.config)
    parts = [client.train[0] for client in prepared.clients.values()]
    expected = FleetProfile.of(parts, int(prepared.splits.test[0]))
    kept = kept_profile(record)
    np.testing.assert_array_equal(kept.share, expected.share)
    assert np.isnan(kept.scale_kwh)  # how large its clients are has left none of them
    # What is kept are sums: 4 clients of 28 days are 112 readings of each hour at most.
    assert kept.total is not None
    assert kept.total.count.sum(axis=0).max() <= 4 * 28
    with pytest.raises(ValueError, match="sums"):
        FleetProfile(kept.share, 1.0).packed()


def test_a_run_without_a_profile_lends_nothing_and_says_so(record, home, tmp_path):
    import shutil

    old = tmp_path / record.path.name
    shutil.copytree(record.path, old)
    weights_path(old, PROFILE_KEY).unlink()
    old = RunRecord.open(old)
    with pytest.raises(RunError) as caught:
        made_for(old, home, annual_kwh={"new": 3650.0})
    assert caught.value.faults[0].code == "FL720"
    trained = trained_model(old, "mlp", "federated")
    both = federated([known_to(home, 3), replace(home, client_id="other")])
    assert list(forecast(old, trained, both, ISSUE, ISSUE).skipped) == ["home"]


def test_the_issue_is_where_it_is_said_to_be():
    (at,) = issue_times_utc_s(ISSUE, ISSUE, "00:00", ZONE)
    assert at == MONDAY + AT * HOUR == int(datetime(2024, 2, 26, 3, tzinfo=UTC).timestamp())


def test_who_trains_alone_shares_no_profile(tmp_path):
    config = tiny_config(training="local", model="ridge")
    path = session.start(config, "run", tmp_path, lambda event: None, lambda: False)
    assert kept_profile(RunRecord.open(path)) is None


@pytest.mark.parametrize("bare_first", [True, False])
def test_quantiles_that_one_client_lacks_are_empty_and_spoil_nothing(record, home, bare_first):
    trained = trained_model(record, "mlp", "local")
    ladder = ladder_of(record, trained, record.config.fallback, {})
    windows = stacked([home, home], np.array([home.end_utc_s]), 24, "UTC", 0)
    level = Forecast(np.ones((1, 24)), (0.5,), np.ones((1, 24, 1)))
    made = [Forecast(np.ones((1, 24))), level]
    if not bare_first:
        made.reverse()
    levels = ladder.levels_of(made, windows)
    assert levels == (0.5,)
    served = [ladder.serve(home.client_id, windows, k, made[k], [None], levels) for k in (0, 1)]
    joined = joined_forecasts([one.forecast for one in served])
    assert joined.quantiles_kwh is not None
    bare = 0 if bare_first else 1
    assert np.isnan(joined.quantiles_kwh[bare]).all()
    assert (joined.quantiles_kwh[1 - bare] == 1).all()
