"""Features of many clients at once are, to the bit, those of each client alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from fl_inmetro.data.calendar import issue_times_utc_s
from fl_inmetro.data.covariates import Covariate
from fl_inmetro.data.features import GROUPS, row_features
from fl_inmetro.data.fleet_windows import FleetPast, alike, stacked
from fl_inmetro.data.holidays import Holidays
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.site import Site
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import DataError
from fl_inmetro.models.design import context_design, profile_design
from fl_inmetro.seeds import derive
from tests.fleets import MONDAY

ZONE = "Europe/London"
HOUR = 3600


def clients(site: Site = Site(), count: int = 5) -> list[ClientSeries]:  # noqa: B008 - frozen
    """Clients of different size, start, end and gaps, over the change of the clock of 31 March."""
    made = []
    for k in range(count):
        rng = derive(7, "fleet windows", k)
        late = int(rng.integers(0, 60 * 24))
        energy = rng.gamma(2.0, 10.0**k, 100 * 24 - late - int(rng.integers(0, 50)))
        energy[rng.random(energy.size) < 0.1 * k] = np.nan
        made.append(ClientSeries(f"c{k}", MONDAY + late * HOUR, HOUR, energy, site))
    return made


def sites() -> dict[str, Site]:
    temperature = derive(1, "weather").normal(12.0, 4.0, 110 * 24)
    return {
        "nowhere": Site(),
        "at home": Site(
            Holidays("GB", "ENG"),
            52.2,
            0.1,
            (Covariate("temperature", "observed", MONDAY, HOUR, temperature),),
            ZONE,
        ),
    }


def alone(series: ClientSeries, issues, lead: int) -> Windows:
    index = (issues - series.start_utc_s) // HOUR
    return Windows(series, index, 24, ZONE, lead=lead)


ISSUES = issue_times_utc_s(date(2024, 3, 28), date(2024, 4, 3), "00:00", ZONE)


@pytest.mark.parametrize("lead", [0, 18])
@pytest.mark.parametrize("where", ["nowhere", "at home"])
def test_features_of_a_fleet_are_those_of_each_client(where, lead):
    made = clients(sites()[where])
    fleet = stacked(made, ISSUES, 24, ZONE, lead)
    whole = row_features(fleet, tuple(GROUPS))
    context = context_design(fleet, 168, targets=False)
    profile = profile_design(fleet, 168, targets=False, cycle_steps=168, features=("calendar",))
    assert np.isfinite(whole.level.scale_kwh).sum() > 20
    for k, rows in enumerate(fleet.rows()):
        windows = alone(made[k], ISSUES, lead)
        own = row_features(windows, tuple(GROUPS))
        np.testing.assert_array_equal(whole.x[rows], own.x)
        np.testing.assert_array_equal(whole.base[rows], own.base)
        for name in ("scale_kwh", "floor_kwh", "known_days"):
            found, expected = getattr(whole.level, name)[rows], getattr(own.level, name)
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(
            context.rows(rows).x, context_design(windows, 168, targets=False).x
        )
        np.testing.assert_array_equal(
            profile.rows(rows).x,
            profile_design(windows, 168, targets=False, cycle_steps=168, features=("calendar",)).x,
        )
        np.testing.assert_array_equal(fleet.of(k).issue_utc_s, ISSUES)
        np.testing.assert_array_equal(fleet.of(k).target_utc_s, fleet.target_utc_s[rows])


def test_any_step_of_any_client_may_be_asked_for_and_none_that_lies_ahead():
    made = clients()
    fleet = stacked(made, ISSUES, 24, ZONE)
    index = fleet.issue_index[:, None] - np.array([1, 5, 10_000])
    found = fleet.past.at(index)
    for k, rows in enumerate(fleet.rows()):
        shift = (made[k].start_utc_s - fleet.series.start_utc_s) // HOUR
        expected = alone(made[k], ISSUES, 0).past.at(index[rows] - shift)
        np.testing.assert_array_equal(found[rows], expected)
    assert isinstance(fleet.past, FleetPast)
    with pytest.raises(DataError, match="FL213"):
        fleet.past.at(fleet.issue_index[:, None])
    with pytest.raises(DataError, match="FL213"):
        fleet.past._of_all(fleet.one.issue_index[:, None] + 1)


def test_a_reading_after_the_issue_changes_nothing():
    made = clients()
    fleet = stacked(made, ISSUES, 24, ZONE)
    spoilt = []
    for one in made:
        energy = one.energy_kwh.copy()
        energy[max((int(ISSUES[-1]) - one.start_utc_s) // HOUR, 0) :] = 1e6
        spoilt.append(replace(one, energy_kwh=energy))
    other = stacked(spoilt, ISSUES, 24, ZONE)
    found, expected = (row_features(one, tuple(GROUPS)) for one in (other, fleet))
    np.testing.assert_array_equal(found.x, expected.x)


def test_clients_without_readings_or_before_their_first_have_no_scale():
    empty = ClientSeries("empty", int(ISSUES[0]), HOUR, np.zeros(0))
    young = ClientSeries("young", int(ISSUES[-1]), HOUR, np.ones(48))
    fleet = stacked([empty, young], ISSUES, 24, ZONE)
    assert np.isnan(row_features(fleet, ("recent", "age")).level.scale_kwh).all()
    np.testing.assert_array_equal(fleet.past.steps_so_far(), 0)
    assert np.isnan(fleet.past.mean_so_far()).all()


def test_parts_and_other_issue_times_are_the_same_clients():
    made = clients()
    fleet = stacked(made, ISSUES, 24, ZONE)
    part, earlier = fleet.part(slice(1, 3)), fleet.at(ISSUES[:2])
    assert part.names == ("c1", "c2")
    np.testing.assert_array_equal(earlier.of(4).issue_utc_s, ISSUES[:2])
    np.testing.assert_array_equal(part.past.lookback(48), fleet.past.lookback(48)[7:21])
    with pytest.raises(TypeError):
        fleet.take(np.arange(2))


def test_only_clients_of_the_same_surroundings_are_alike():
    both = sites()
    assert alike(both["nowhere"]) == alike(Site())
    assert alike(both["at home"]) != alike(both["nowhere"])
    assert alike(both["at home"]) != alike(replace(both["at home"], latitude_deg=50.0))
    assert alike(both["at home"]) != alike(sites()["at home"])  # a weather of its own
