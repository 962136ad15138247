"""A watch from end to end: planted changes, advice, and the change of definition of 2023."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.config import check
from fl_inmetro.config import load as load_config
from fl_inmetro.data.load import load
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.windows import Windows
from fl_inmetro.drift import Alarm, Report, Request, watch
from fl_inmetro.drift.alarms import of_streak
from fl_inmetro.errors import FederationError, RunError
from fl_inmetro.metrics import Forecast
from fl_inmetro.plan import Job
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.seeds import derive
from fl_inmetro.trained import trained_model
from fl_inmetro.units import DAY_S, iso_utc
from tests.fleets import MONDAY, federated

#: 90 reference days from 2024-01-01, 110 watched ones from 2024-03-31.
REFERENCE, DAYS = 90, 200
FIRST = date(2024, 3, 31)
WAVE = 1 + 0.5 * np.sin(2 * np.pi * np.arange(24) / 24)


@dataclass(frozen=True)
class Knowing:
    """A model that knows each client's wave, and nothing of its days."""

    @property
    def job(self) -> Job:
        return Job("ridge", "federated")

    def forecast(self, client_id: str, windows: Windows) -> Forecast | None:
        return Forecast(np.tile(WAVE, (len(windows), 1)))


def energy_of(name: str) -> np.ndarray:
    """Days that differ by 3 % (one factor each) and steps by 5 %; shape (days, 24)."""
    rng = derive(6, "energy", name)
    day = np.exp(rng.normal(0, 0.03, (DAYS, 1)))
    return day * WAVE * np.exp(rng.normal(0, 0.05, (DAYS, 24)))


def fleet(changed: Mapping[str, np.ndarray] | None = None, count: int = 6) -> FederatedData:
    energies = {f"c{k}": energy_of(f"c{k}") for k in range(count)} | dict(changed or {})
    return federated([ClientSeries(n, MONDAY, 3600, e.ravel()) for n, e in energies.items()])


def record(issues: int = REFERENCE, **window: Any) -> RunRecord:
    def part(first: int, days: int) -> dict[str, Any]:
        edges = {"first_issue_utc": first, "last_issue_utc": first + days - 1}
        return {
            **{key: iso_utc(MONDAY + day * DAY_S) for key, day in edges.items()},
            "issues": days,
        }

    manifest = {
        "window": {
            "timezone": "UTC",
            "issue_time": "00:00",
            "validation": part(REFERENCE - issues, issues - 14),
            "test": part(REFERENCE - 14, 14),
            **window,
        },
        "data": {"resolution_s": 3600},
    }
    return cast(RunRecord, SimpleNamespace(id="made", manifest=manifest, config=check({})))


def watched(data: FederatedData, **request: Any) -> Report:
    wish = Request(**{"shift": 2.0} | request)
    return watch(record(), Knowing(), data, wish)


def found(report: Report) -> dict[tuple[str | None, str], Alarm]:
    return {(one.client_id, one.kind): one for one in report.alarms}


def test_nothing_is_told_of_clients_that_stay_as_they_are():
    report = watched(fleet())
    assert report.alarms == ()
    assert report.days[0] == FIRST
    assert len(report.days) == DAYS - REFERENCE
    assert report.reference == (date(2024, 1, 1), date(2024, 3, 30))
    assert len(report.watched) == 6


def test_a_client_that_uses_more_is_told_with_onset_and_size():
    """+12 % from the 40th watched day on: four deviations of its days (3 %, and 5 % / √24)."""
    energy = energy_of("c2")
    energy[REFERENCE + 40 :] *= 1.12
    report = watched(fleet({"c2": energy}))
    alarm = found(report)["c2", "level_up"]
    assert abs((alarm.onset - FIRST).days - 40) <= 2
    # A score ends at Φ⁻¹(90.5 / 91) = 2.54, less k = 1; so the limit is passed in so many days.
    least = int(report.watched["c2"].limits["level"] / 1.54) + 1
    assert least <= (alarm.day - FIRST).days - 40 + 1 <= least + 3
    assert alarm.size == pytest.approx(0.12, abs=0.05)
    assert alarm.advice == "client"
    assert {name for name, _ in found(report)} == {"c2"}


def test_a_client_that_uses_a_fifth_is_looked_for_at_the_meter():
    energy = energy_of("c1")
    energy[REFERENCE + 30 :] /= 5
    alarm = found(watched(fleet({"c1": energy})))["c1", "level_down"]
    assert alarm.advice == "meter"
    assert abs((alarm.onset - FIRST).days - 30) <= 2
    assert alarm.size == pytest.approx(-0.8, abs=0.05)


def test_a_change_of_everybody_is_the_federations():
    """The middle of the day is 15 % higher from the 50th watched day on."""
    changed = {f"c{k}": energy_of(f"c{k}") for k in range(6)}
    for energy in changed.values():
        energy[REFERENCE + 50 :, 10:16] *= 1.15
    told = found(watched(fleet(changed)))
    since = FIRST + timedelta(days=50)
    fleets = told[None, "shape_up"]
    assert (fleets.onset, fleets.advice) == (since, "federation")
    assert fleets.size == pytest.approx(0.15, abs=0.03)
    for k in range(6):
        alarm = told[f"c{k}", "shape_up"]
        assert abs((alarm.onset - since).days) <= 2
        assert alarm.advice == "federation"


def test_what_is_small_in_everybody_is_plain_in_the_fleet():
    """+2.5 %: less than a deviation of a client's days (3.2 %), nearly two of the mean of six.

    With k = 1 the fleet's sum grows by 0.9 a day, a client's falls: it is told by chance alone.
    """
    changed = {f"c{k}": energy_of(f"c{k}") for k in range(6)}
    for energy in changed.values():
        energy[REFERENCE + 20 :] *= 1.025
    told = found(watched(fleet(changed)))
    fleets = told.pop((None, "level_up"))
    assert abs((fleets.onset - FIRST).days - 20) <= 2
    assert (fleets.day - FIRST).days < 20 + 15
    assert fleets.size == pytest.approx(0.025, abs=0.02)
    assert all(alarm.day > fleets.day for alarm in told.values())


def test_missing_and_unchanging_readings_are_the_meters():
    missing, flat = energy_of("c3"), energy_of("c4")
    missing[REFERENCE + 10 : REFERENCE + 20] = np.nan
    flat[REFERENCE + 60 : REFERENCE + 70] = 1.0
    told = found(watched(fleet({"c3": missing, "c4": flat})))
    gone, stuck = told["c3", "missing"], told["c4", "flat"]
    assert (gone.onset, gone.day) == (FIRST + timedelta(days=10), FIRST + timedelta(days=12))
    assert (stuck.onset, stuck.day) == (FIRST + timedelta(days=60), FIRST + timedelta(days=62))
    assert gone.advice == stuck.advice == "meter"


def test_streaks_as_long_as_those_of_before_are_usual():
    """Four such days in a row in the reference: the fifth is told, twice."""
    before = np.array([0, 1, 1, 1, 1, 0], dtype=bool)
    after = np.array([1] * 4 + [0] + [1] * 7 + [0] + [1] * 5, dtype=bool)
    days = [FIRST + timedelta(days=d) for d in range(len(after))]
    (alarm,) = of_streak("a", "missing", before, after, days)
    assert (alarm.onset, alarm.day, alarm.size) == (days[5], days[9], 5)
    assert (alarm.again, alarm.last) == (1, days[17])
    assert of_streak("a", "missing", before, after[:5], days[:5]) == []


def test_a_chart_learns_nothing_from_the_days_it_watches():
    """Whatever the watched days say, limits and yardsticks stay as they are."""
    energy = energy_of("c0")
    energy[REFERENCE:] *= 7
    plain, changed = watched(fleet()), watched(fleet({"c0": energy}))
    assert changed.watched["c0"].limits == plain.watched["c0"].limits
    before = plain.watched["c0"].scores["level"][:REFERENCE]
    np.testing.assert_array_equal(changed.watched["c0"].scores["level"][:REFERENCE], before)


def test_what_cannot_be_watched_is_said():
    def code(*arguments: Any, **request: Any) -> str:
        made = arguments[0] if arguments else record()
        with pytest.raises((FederationError, RunError)) as caught:
            watch(made, Knowing(), fleet(count=2), Request(**request))
        return caught.value.faults[0].code

    assert code(record(issues=27)) == "FL355"
    assert code(first=date(2024, 3, 30)) == "FL356"
    assert code(last=date(2024, 7, 19)) == "FL356"  # readings end with 18 July
    assert code(first=date(2024, 5, 2), last=date(2024, 5, 1)) == "FL356"
    assert code(clients=("c9",)) == "FL358"
    assert code(record(timezone=None, validation=None)) == "FL723"


def test_one_short_reference_does_not_end_the_watch_of_the_others():
    energy = energy_of("c2")
    energy[: REFERENCE - 28] = np.nan
    report = watched(fleet({"c2": energy}), shift=1.0, every_days=365_000)
    assert set(report.watched) == {"c0", "c1", "c3", "c4", "c5"}
    assert report.skipped["c2"].told("en").startswith("FL357 28 reference days")
    assert report.skipped["c2"].told("pt-BR").startswith("FL357 28 dias de referência")


def test_a_fleet_whose_reference_is_too_short_leaves_its_clients_their_charts():
    """One client knows days 0 to 59 of the reference, the other 30 to 89: both know 30 of 90.

    Limits are made for steps of 5 %: 28 · 1.05 = 29 days.
    """
    day = np.arange(REFERENCE)
    energies = {name: energy_of(name) for name in ("c0", "c1")}
    energies["c0"][:REFERENCE][day >= 60] = np.nan
    energies["c1"][:REFERENCE][day < 30] = np.nan
    report = watched(fleet(energies, 2), shift=1.0, every_days=365_000)
    assert set(report.watched) == {"c0", "c1"}
    assert (report.fleet, report.skipped) == (None, {})
    assert report.fleet_skipped is not None
    assert report.fleet_skipped.told("pt-BR").startswith("FL357 29 dias de referência")
    assert report.to_json()["fleet_skipped"].startswith("FL357 29 reference days")
    assert all(report.watched[name].paths for name in report.watched)


@pytest.mark.parametrize(
    "wish", [{"every_days": np.nan}, {"every_days": np.inf}, {"shift": np.nan}]
)
def test_a_wish_that_is_no_number_is_refused(wish):
    with pytest.raises(FederationError) as caught:
        Request(**wish)
    assert [fault.code for fault in caught.value.faults] == ["FL366"]


def test_one_client_of_many_can_be_watched_alone():
    report = watched(fleet(), clients=("c5",), first=date(2024, 5, 1), last=date(2024, 5, 31))
    assert list(report.watched) == ["c5"]
    assert report.fleet is None
    assert (report.days[0], report.days[-1]) == (date(2024, 5, 1), date(2024, 5, 31))


def test_days_are_those_of_delivery_and_not_of_issue():
    """Issued at 06:00 for the next day: a lead of 18 h. c1 uses a third more on and from one day.

    The first issue of the validation window, on 1 January, is for the second.
    """
    energy = energy_of("c1")
    energy[REFERENCE + 40 :] *= 1.33
    made = record(issue_time="06:00")
    for part in ("validation", "test"):
        for edge in ("first_issue_utc", "last_issue_utc"):
            at = made.manifest["window"][part][edge]
            made.manifest["window"][part][edge] = at.replace("T00:", "T06:")
    with_lead = check({"window": {"lead_h": 18}})
    made = cast(RunRecord, SimpleNamespace(id="made", manifest=made.manifest, config=with_lead))
    report = watch(made, Knowing(), fleet({"c1": energy}), Request(shift=2.0))
    assert report.reference == (date(2024, 1, 2), date(2024, 3, 31))
    assert report.days[-1] == FIRST + timedelta(days=DAYS - REFERENCE - 1)
    alarm = found(report)["c1", "level_up"]
    # The wave is the same on each day, so a shifted day would show as a wrong shape.
    assert {kind for _, kind in found(report)} == {"level_up", "error_up"}
    assert abs((alarm.onset - FIRST).days - 40) <= 1
    assert alarm.size == pytest.approx(0.33, abs=0.06)


@pytest.mark.data
@pytest.mark.skipif(
    not os.environ.get("FL_INMETRO_DATA"),
    reason="FL_INMETRO_DATA is not set: the real data sets are not here",
)
def test_the_change_of_definition_of_2023_is_found_and_2022_is_quiet(tmp_path: Path):
    """ONS counts distributed generation since 2023-04-29: more load in the middle of the day.

    examples/ons-drift.toml: trained on readings of before 2021, 2021 is the reference.
    """
    example = Path(__file__).parents[2] / "examples" / "ons-drift.toml"
    config = load_config(example)
    path = session.start(config, "run", tmp_path, lambda event: None, lambda: False)
    made = RunRecord.open(path)
    data = load(made.config.data)
    quiet = watch(made, trained_model(made), data, Request(last=date(2022, 12, 31)))
    assert quiet.alarms == ()
    assert quiet.days[0] == date(2021, 12, 31)
    report = watch(made, trained_model(made), data, Request())
    told = found(report)
    fleets = told[None, "shape_up"]
    change = date(2023, 4, 29)
    assert abs((fleets.onset - change).days) <= 2
    assert change <= fleets.day <= change + timedelta(days=14)
    assert fleets.advice == "federation"
    alarmed = {name for name, kind in told if kind == "shape_up" and name is not None}
    assert len(alarmed) >= 3
    for name in alarmed:
        assert change <= told[name, "shape_up"].day <= change + timedelta(days=14)
    json.dumps(report.to_json(), allow_nan=False)
