"""Covariates: what an issue time may know of them, and the features made of that."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config.covariates import CovariateColumns, Covariates
from fl_inmetro.config.data import Data, Simulator
from fl_inmetro.data.covariates import Covariate, mean_of_last, on_grid
from fl_inmetro.data.features import GROUPS, feature_names, row_features
from fl_inmetro.data.holidays import Holidays
from fl_inmetro.data.load import load
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.simulator.atmosphere import weather
from fl_inmetro.data.site import Site
from fl_inmetro.data.sources.covariate_file import covariate_file
from fl_inmetro.data.surroundings import PERFECT
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import DataError
from tests.fleets import MONDAY, series

HOUR = 3600
ISSUE = np.array([MONDAY + 48 * HOUR])


def hours(name: str, kind: str, values: np.ndarray, **more: np.ndarray) -> Covariate:
    return Covariate(name, kind, MONDAY, HOUR, values, **more)  # type: ignore[arg-type]


def columns(site: Site, groups: tuple[str, ...], issue: int = 48, horizon: int = 24):
    one = ClientSeries("a", MONDAY, HOUR, np.ones(24 * 4), site)
    x = row_features(Windows(one, np.array([issue]), horizon), groups).x[0]
    return dict(zip(feature_names(groups), x.T, strict=True))


# ---------------------------------------------------------------------------- the guard
def test_an_observation_is_known_when_its_step_has_ended():
    one = hours("temperature", "observed", np.arange(96.0))
    assert one.at(ISSUE[:, None] - HOUR, ISSUE).tolist() == [[47]]
    for later in (0, -HOUR + 1 + HOUR // 2 + 1800, 5 * HOUR):
        with pytest.raises(DataError) as caught:
            one.at(ISSUE[:, None] + later, ISSUE)
        assert caught.value.faults[0].code == "FL213"


def test_a_forecast_is_known_from_its_issue_and_a_tariff_always():
    issued = np.where(np.arange(96) < 60, ISSUE[0], ISSUE[0] + 1)
    one = hours("temperature", "forecast", np.arange(96.0), issued_utc_s=issued)
    steps = ISSUE[:, None] + HOUR * np.array([[11, 12]])
    np.testing.assert_array_equal(one.at(steps, ISSUE), [[59, np.nan]])
    tariff = hours("tariff", "known", np.arange(96.0))
    np.testing.assert_array_equal(tariff.at(steps, ISSUE), [[59, 60]])
    assert np.isnan(tariff.at(steps + 96 * HOUR, ISSUE)).all()


def test_the_mean_of_the_last_day_by_hand():
    values = np.arange(96.0)
    values[40] = np.nan
    one = hours("temperature", "observed", values)
    # Steps 24 … 47 sum to 24 · 35.5 = 852; without 40: 812 of 23.
    assert mean_of_last(one, 24, ISSUE)[0] == pytest.approx(812 / 23)
    assert np.isnan(mean_of_last(one, 24, ISSUE - 72 * HOUR)[0])


# -------------------------------------------------------------------------- the features
def test_observed_weather_is_yesterdays_and_forecast_weather_the_targets():
    observed = hours("temperature", "observed", np.arange(96.0))
    got = columns(Site(covariates=(observed,)), ("weather",), horizon=30)
    np.testing.assert_array_equal(got["temperature"][:24], np.arange(24, 48))
    np.testing.assert_array_equal(got["temperature"][24:], np.arange(24, 30))  # the same day again
    np.testing.assert_array_equal(got["temperature_24h"], np.full(30, 35.5))
    assert not got["weather_missing"].any()
    perfect = columns(Site(covariates=(observed, observed.foreseen())), ("weather",))
    np.testing.assert_array_equal(perfect["temperature"], np.arange(48, 72))
    np.testing.assert_array_equal(perfect["cooling_degrees"], np.arange(48, 72) - 22)
    cold = hours("temperature", "observed", np.full(96, 10.0))
    np.testing.assert_array_equal(
        columns(Site(covariates=(cold,)), ("weather",))["heating_degrees"], np.full(24, 5.5)
    )


def test_what_is_missing_falls_back_and_only_the_neutral_value_is_marked():
    values = np.arange(96.0)
    values[30] = np.nan  # yesterday 06:00
    got = columns(Site(covariates=(hours("temperature", "observed", values),)), ("weather",))
    assert got["temperature"][6] == pytest.approx((852 - 30) / 23)
    assert got["weather_missing"][6] == 0
    gone = hours("temperature", "observed", np.full(96, np.nan))
    for site in (Site(covariates=(gone,)), Site()):
        got = columns(site, ("weather", "tariff", "pv"))
        assert (got["temperature"] == 18).all()
        assert (got["weather_missing"] == 1).all()
        assert (got["tariff_missing"] == 1).all()
        assert (got["pv_missing"] == 1).all()


def test_tariff_and_pv_by_hand():
    tariff = hours("tariff", "known", np.arange(96.0))
    got = columns(Site(covariates=(tariff,)), ("tariff",))
    np.testing.assert_array_equal(got["tariff"], np.arange(48, 72))
    np.testing.assert_allclose(got["tariff_vs_mean"], np.arange(24) - 11.5)
    # A load of 1 kWh per hour: 3 kW of PV are 3 times the scale.
    pv = hours("pv", "observed", np.full(96, 3.0))
    got = columns(Site(covariates=(pv,)), ("pv",))
    assert (got["pv_same_hour"] == 3).all()
    assert (got["pv_24h"] == 3).all()


def test_coarser_and_shifted_weather_is_never_later_than_the_issue():
    """Three-hourly weather on another phase: the latest whole step before the issue."""
    odd = Covariate("temperature", "observed", MONDAY + 1800, 3 * HOUR, np.arange(40.0))
    for issue in range(30, 60):
        got = columns(Site(covariates=(odd,)), ("weather",), issue)
        for h, value in enumerate(got["temperature"]):
            middle = MONDAY + (issue + h) * HOUR + 1800
            days = 1
            while True:
                step = (middle - days * 86400 - MONDAY - 1800) // (3 * HOUR)
                if MONDAY + 1800 + (step + 1) * 3 * HOUR <= MONDAY + issue * HOUR:
                    break
                days += 1
            if step >= 0:
                assert value == step


@given(
    st.integers(0, 39 * 24 + 23),
    st.sampled_from([24, 30, 48]),
    st.sampled_from([0.0, 1e6, -7.5, np.nan]),
)
def test_no_group_sees_a_covariate_after_its_issue_time(issue, horizon, garbage):
    """Readings, observations and forecasts issued later become garbage: rows keep their bits."""
    true = series("a", 40, gaps=0.1)
    rng = np.random.default_rng(issue)
    observed = {name: rng.random(24 * 40) for name in ("temperature", "humidity", "pv")}
    foreseen = rng.random(24 * 40)
    issued = true.start_utc_s + HOUR * (np.arange(24 * 40) - rng.integers(0, 48, 24 * 40))
    now = true.start_utc_s + issue * HOUR

    def made(spoil: bool) -> ClientSeries:
        energy, light = true.energy_kwh.copy(), foreseen.copy()
        parts = []
        if spoil:
            energy[issue:] = garbage
            light[issued > now] = garbage
        for name, values in observed.items():
            own = values.copy()
            if spoil:
                own[issue:] = garbage
            parts.append(Covariate(name, "observed", true.start_utc_s, HOUR, own))
        parts.append(Covariate("irradiance", "forecast", true.start_utc_s, HOUR, light, issued))
        site = Site(Holidays("BR", "SP"), -23.5, -46.6, tuple(parts))
        return ClientSeries("a", true.start_utc_s, HOUR, energy, site)

    index = np.unique(np.clip([issue - 24 * 9, issue - 1, issue], 0, len(true)))
    a, b = (row_features(Windows(made(spoil), index, horizon), tuple(GROUPS)) for spoil in (0, 1))
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.base, b.base)
    assert np.isfinite(a.x).all()


def test_a_site_goes_with_its_series():
    site = Site(Holidays("BR"), 1.0, 2.0, (hours("pv", "observed", np.ones(96)),))
    one = ClientSeries("a", MONDAY, HOUR, np.ones(96), site)
    assert one.cut(MONDAY + 24 * HOUR).site is site
    part = Windows(one, np.array([24, 48]), 24)
    assert part.take(np.array([1])).series.site is site
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(
        row_features(again, tuple(GROUPS)).x, row_features(part, tuple(GROUPS)).x
    )


# --------------------------------------------------------------------------- the sources
def test_the_simulator_brings_its_own_weather():
    simulator = Simulator(clients=2, days=20)
    for kind, label in (("observed", "observed"), ("perfect", PERFECT)):
        settings = Covariates(source="set", weather=kind)  # type: ignore[arg-type]
        data = load(Data(simulator=simulator, covariates=settings), 3)
        assert data.manifest.covariates == {"temperature": label, "irradiance": label}
        (first, *others) = next(iter(data.values())).site.named("temperature")
        made = weather(simulator, 3)
        np.testing.assert_array_equal(first.values, made.air_temperature_deg_c)
        assert first.kind == ("observed" if kind == "observed" else "known")
        assert len(others) == (kind == "perfect")
    assert load(Data(simulator=simulator), 3).manifest.covariates == {}


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "weather.csv"
    path.write_text(
        "when,who,temp,price\n"
        "2024-01-01 00:00:00,a,20.5,1\n2024-01-01 02:00:00,a,,3\n"
        "2024-01-01 01:00:00,a,21.5,2\n2024-01-01 00:00:00,b,9,1\n2024-01-01 01:00:00,b,8,1\n"
    )
    names = CovariateColumns(
        timestamp="when", client="who", temperature_deg_c="temp", tariff_per_kwh="price"
    )
    settings = Covariates(
        source="file", path=str(path), columns=names, timezone="America/Sao_Paulo"
    )
    found, files = covariate_file(settings, ["a", "b", "c"])
    assert sorted(found) == ["a", "b"]
    assert list(files) == ["weather.csv"]
    temperature, tariff = found["a"]
    assert (temperature.kind, tariff.kind) == ("observed", "known")
    assert temperature.start_utc_s == MONDAY + 3 * HOUR  # 2024-01-01 00:00 at UTC-3
    np.testing.assert_array_equal(temperature.values, [20.5, 21.5, np.nan])
    assert found["b"][0].values.tolist() == [9, 8]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("timestamp,t\n2024-01-01 00:00:00,1\n2024-01-01 00:00:00,2\n", "FL211"),
        ("timestamp,t\n2024-01-01 00:00:00,1\n", "FL211"),
        ("timestamp,t\nyesterday,1\ntoday,2\n", "FL211"),
        ("timestamp,t\n2024-01-01 00:00:00,warm\n2024-01-01 01:00:00,cold\n", "FL203"),
        ("timestamp,other\n2024-01-01 00:00:00,1\n", "FL202"),
    ],
)
def test_a_bad_file_is_a_coded_error(tmp_path, text, code):
    path = tmp_path / "weather.csv"
    path.write_text(text)
    columns_ = CovariateColumns(temperature_deg_c="t")
    with pytest.raises(DataError) as caught:
        covariate_file(Covariates(source="file", path=str(path), columns=columns_), ["a"])
    assert caught.value.faults[0].code == code


def test_instants_off_the_grid_are_refused():
    utc_s = np.array([0, 3600, 5000])
    with pytest.raises(ValueError, match="grid"):
        on_grid("pv", "observed", utc_s, np.ones(3))


def test_a_place_of_a_client_that_is_not_there_is_fl209():
    place = {"nobody": {"latitude_deg": 1, "longitude_deg": 1}}
    data = Data.model_validate(
        {"simulator": {"clients": 2, "days": 20}, "site": {"clients": place}}
    )
    with pytest.raises(DataError) as caught:
        load(data)
    assert caught.value.faults[0].code == "FL209"


@pytest.mark.data
def test_the_sets_bring_theirs(monkeypatch):
    import os

    if not os.environ.get("FL_INMETRO_DATA"):
        pytest.skip("FL_INMETRO_DATA is not set")
    settings = Covariates(source="set")
    data = load(Data(source="cambridge_buildings", covariates=settings, max_clients=1))
    # 2016-01-01 00:00 UTC, first row of the station's file, to 2019-06-30 23:00: 30,648 hours.
    (temperature,) = next(iter(data.values())).site.named("temperature")
    assert temperature.values.size == 30_648
    data = load(Data(source="citylearn_fontana", covariates=settings, max_clients=1))
    one = next(iter(data.values()))
    (pv,) = one.site.named("pv")
    assert pv.start_utc_s == one.start_utc_s  # the same rows of the same file
    (tariff,) = one.site.named("tariff")
    assert tariff.kind == "known"
