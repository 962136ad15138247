"""A backtest carried out: no leakage, warm starts, kept folds, and a kill in the middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_inmetro import events, session
from fl_inmetro.backtest.study import Study, last_models
from fl_inmetro.backtest.summary import summary_of
from fl_inmetro.config import RunConfig
from fl_inmetro.data.load import load
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.errors import DataError, FederationError
from fl_inmetro.federation import training
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.learning.update import Arrays
from fl_inmetro.plan import Job, cut
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import RunRecord
from tests.fleets import MONDAY, fleet, tiny_config

DATA = fleet(3, 60)
WINDOW = {
    "validation_days": 5, "timezone": "UTC", "train_days": 0, "issue_time": "06:00", "lead_h": 18,
}  # fmt: skip
BACKTEST = {"first": "2024-02-10", "last": "2024-02-19", "refit_days": 5}


def config(**values: Any) -> RunConfig:
    plain = {
        "window": WINDOW,
        "backtest": BACKTEST,
        "federation": {"num_server_rounds": 2},
        "compare": {"models": ["sn168", "ridge", "mlp"], "training": ["local", "federated"]},
    }
    return tiny_config(**{**plain, **values})


def quiet(event: events.Event) -> None:
    """Nobody listens."""


def carried_out(study: Study) -> list[RunRecord]:
    return [study.carry_out(step, quiet, lambda: False) for step in study.steps()]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(config(), tmp_path_factory.mktemp("plain"), DATA)
    carried_out(study)
    return study


def models(record: RunRecord) -> dict[str, Arrays]:
    found = {}
    for model in ("ridge", "mlp"):
        for training_, name in (("federated", "federation"), ("local", "c0"), ("local", "c2")):
            state = last_models(record)(Job(model, training_), name)
            assert state is not None
            found[f"{model} {training_} {name}"] = state
    return found


def same(one: dict[str, Arrays], other: dict[str, Arrays]) -> bool:
    assert one.keys() == other.keys()
    return all(np.array_equal(one[job][name], other[job][name]) for job in one for name in one[job])


def test_a_fold_is_a_comparison_with_its_own_window(study: Study, tmp_path: Path) -> None:
    """The oracle: the run that `compare` makes of the same configuration."""
    step = study.steps()[1]
    path = session.start(
        step.config, "compare", tmp_path, quiet, lambda: False, prepared=cut(step.config, DATA)
    )
    kept, made = study.finished()[step], RunRecord.open(path)
    for own, other in zip(kept.scores(), made.scores(), strict=True):
        timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in (own, other)]
        assert timeless[0] == timeless[1]
    assert same(models(kept), models(made))
    assert kept.manifest["window"]["test"]["first_issue_utc"] == "2024-02-15T06:00:00Z"
    # The last delivery that was over at 06:00 of 02-15 is that of 02-14, issued on 02-13; the five
    # days of validation before 02-15 are 10 … 14, training ends before 02-10 06:00.
    assert kept.manifest["window"]["validation"]["last_issue_utc"] == "2024-02-13T06:00:00Z"
    assert kept.manifest["window"]["train"]["last_issue_utc"] == "2024-02-08T06:00:00Z"


@given(st.sampled_from([1e6, -3.0, 0.0]), st.integers(0, 1))
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_garbage_after_a_folds_first_issue_changes_none_of_its_models(
    study: Study, tmp_path_factory: pytest.TempPathFactory, garbage: float, number: int
) -> None:
    begin = 40 * 24 + 6 + number * 5 * 24  # 02-10 is day 40; five days later
    spoilt = {}
    for name, one in DATA.items():
        energy = one.energy_kwh.copy()
        energy[begin:] = garbage
        spoilt[name] = ClientSeries(name, one.start_utc_s, one.resolution_s, energy)
    data = FederatedData(spoilt, DATA.manifest)
    other = Study(config(), tmp_path_factory.mktemp("spoilt"), data)
    step = study.steps()[number]
    record = other.carry_out(step, quiet, lambda: False)
    assert same(models(study.finished()[step]), models(record))


def test_the_garbage_test_would_notice(study: Study, tmp_path: Path) -> None:
    """A reading of the day before the first issue does change the models."""
    spoilt = dict(DATA.items())
    energy = DATA["c1"].energy_kwh.copy()
    energy[30 * 24 : 31 * 24] *= 3.0
    spoilt["c1"] = ClientSeries("c1", MONDAY, 3600, energy)
    other = Study(config(), tmp_path, FederatedData(spoilt, DATA.manifest))
    record = other.carry_out(study.steps()[0], quiet, lambda: False)
    assert not same(models(study.finished()[study.steps()[0]]), models(record))


# ------------------------------------------------------------------------------ warm start
def test_a_warm_start_begins_with_the_bits_of_the_last_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = Study(
        config(backtest={**BACKTEST, "warm_start": True, "refit_rounds": 1}), tmp_path, DATA
    )
    first, second = warm.steps()
    before = warm.carry_out(first, quiet, lambda: False)
    began: list[Arrays] = []
    real = training.begin

    def begin(state: Arrays, n_bytes: int = 0) -> Any:
        began.append({name: array.copy() for name, array in state.items()})
        return real(state, n_bytes)

    monkeypatch.setattr(training, "begin", begin)
    after = warm.carry_out(second, quiet, lambda: False)
    # Ridge, the sums: nothing to begin from. MLP: the three clients alone, then the federation.
    starts = last_models(before)
    expected = [starts(Job("mlp", "local"), name) for name in ("c0", "c1", "c2")]
    expected.append(starts(Job("mlp", "federated"), "federation"))
    drawn = [state for state in began if "layers.0.weight" in state or len(state) > 3]
    assert len(drawn) >= 4
    for state, wanted in zip(began[-4:], expected, strict=True):
        assert wanted is not None
        assert state.keys() == wanted.keys()
        assert all(np.array_equal(state[name], wanted[name]) for name in wanted)
    assert len(after.rounds(model="mlp", training="federated")) == 1
    assert len(before.rounds(model="mlp", training="federated")) == 2


def test_a_start_of_another_model_is_refused() -> None:
    state = {"weight": np.zeros((2, 3))}
    with pytest.raises(ValueError, match="another model"):
        training._fitting({"weight": np.zeros((2, 4))}, state)
    assert training._fitting(state, {"weight": np.ones((2, 3))}) is state


# ----------------------------------------------------------------- refused before a training
def test_days_beyond_the_data_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    # The data end with 02-29: folds begin on 02-10, 15, 20, 25, and 03-01, 03-06.
    late = config(backtest={**BACKTEST, "last": "2024-03-08"})
    with pytest.raises(DataError) as caught:
        Study(late, tmp_path, DATA)
    assert {one.code for one in caught.value.faults} == {"FL210"}
    assert [one.where.splitlines()[0] for one in caught.value.faults] == [
        "fold 5: used from 2024-03-01 to 2024-03-05",
        "fold 6: used from 2024-03-06 to 2024-03-08",
    ]
    assert all("[backtest]" in one.hint for one in caught.value.faults)
    assert not list(tmp_path.iterdir())


def test_a_client_too_short_for_a_later_fold_is_told_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    # It begins on 02-02. Before the fold of 02-20 it has fewer than fourteen days to train on: the
    # last five days before are for validation.
    young = dict(DATA.items())
    old = young["c1"]
    young["c1"] = ClientSeries("c1", MONDAY + 32 * 86400, 3600, old.energy_kwh[32 * 24 :])
    data = FederatedData(young, DATA.manifest)
    late = config(backtest={**BACKTEST, "last": "2024-02-28"})
    with pytest.raises(DataError) as caught:
        Study(late, tmp_path, data)
    faults = caught.value.faults
    assert {one.code for one in faults} == {"FL206"}
    assert all("`c1`" in one.what for one in faults)
    places = [one.where.splitlines()[0] for one in faults]
    assert "fold 3: used from 2024-02-20 to 2024-02-24" in places
    assert "drop-short" in faults[0].hint
    assert "[backtest] first" in faults[0].hint
    assert not list(tmp_path.iterdir())
    # Left out of the folds that it is too short for, it stops none.
    cleaning = {"cleaning": {"drop_short": True}}
    assert len(Study(config(backtest=late.backtest, data=cleaning), tmp_path, data).steps()) == 4


# ----------------------------------------------------------------------------- kept, resumed
def stop_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in summary.items() if k not in ("seconds", "directory", "folds")}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in summary["rows"]]
    return {**kept, "rows": rows}


@pytest.mark.parametrize("warm", [False, True])
def test_killed_and_resumed_is_as_never_killed(tmp_path: Path, warm: bool) -> None:
    backtest = {**BACKTEST, "seeds": [0, 1], "warm_start": warm}
    whole = Study(config(backtest=backtest), tmp_path / "whole", DATA)
    carried_out(whole)
    broken = Study(config(backtest=backtest), tmp_path / "broken", DATA)
    broken.carry_out(broken.steps()[0], quiet, lambda: False)
    (kept,) = broken.finished().values()
    stopped = 0
    for step in broken.steps()[1:]:
        for calls in (6, 14):
            with pytest.raises(Interrupted):
                broken.carry_out(step, quiet, stop_after(calls))
            stopped += 1
        assert step not in broken.finished()
        partial = summary_of(broken)
        assert not partial["complete"]
        assert partial["rows"]
        broken.carry_out(step, quiet, lambda: False)
    assert stopped == 6
    # Another process finds what is there, and trains nothing of it again.
    again = Study(config(backtest=backtest), tmp_path / "broken", DATA)
    assert len(again.finished()) == len(again.steps()) == 4
    assert again.finished()[again.steps()[0]].id == kept.id
    assert len(list(again.path.iterdir())) == 4
    first, second = summary_of(whole), summary_of(again)
    assert first["complete"]
    assert timeless(first) == timeless(second)
    assert {row["seeds"] for row in first["rows"] if row["training"] != "baseline"} == {2}


def test_folds_of_every_seed_are_of_one_simulated_fleet(tmp_path: Path) -> None:
    """What a fold's run says of its data gives those that it was trained and scored on."""
    backtest = {"first": "2024-02-20", "last": "2024-02-22", "seeds": [3, 4]}
    settings_ = config(
        data={"simulator": {"clients": 3, "days": 60}},
        backtest=backtest,
        compare={"models": ["sn168"], "training": []},
    )
    study = Study(settings_, tmp_path)
    for step in study.steps():
        record = study.carry_out(step, quiet, lambda: False)
        again = load(record.config.data, record.config.seed)
        assert list(again) == list(study.data)
        for name, one in again.items():
            np.testing.assert_array_equal(one.energy_kwh, study.data[name].energy_kwh)
        points = points_of(record.forecasts("sn168", "baseline"))
        one = points.take(np.flatnonzero(points.client == 1))
        series = again[points.names[1]]
        place = (one.target_utc_s - series.start_utc_s) // series.resolution_s
        np.testing.assert_allclose(one.observed_kwh, series.energy_kwh[place])
    # A seed of the fleet that was given stays; another one is another fleet.
    own = config(data={"simulator": {"clients": 3, "days": 60, "seed": 8}}, backtest=backtest)
    assert {s.config.data.simulator.seed for s in Study(own, tmp_path).steps()} == {8}
    eight, other = load(own.data, 3), load(settings_.data, 8)
    assert list(eight) == list(other) != list(study.data)
    for name, series in eight.items():
        np.testing.assert_array_equal(series.energy_kwh, other[name].energy_kwh)


def test_other_data_are_fl350(study: Study) -> None:
    manifest = replace(DATA.manifest, files={"meters.csv": "0123"})
    other = Study(config(), study.path.parent, FederatedData(dict(DATA.items()), manifest))
    with pytest.raises(FederationError) as caught:
        other.finished()
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("FL350", "meters.csv")


def test_the_summary_says_what_was_done(study: Study) -> None:
    summary = summary_of(study)
    assert summary["complete"]
    assert [
        (f["first"], f["last"], f["train_first"], f["train_last"]) for f in summary["folds"]
    ] == [
        ("2024-02-10", "2024-02-14", "2024-01-01", "2024-02-03"),
        ("2024-02-15", "2024-02-19", "2024-01-01", "2024-02-08"),
    ]
    assert {row["clients"] for row in summary["rows"]} == {3}
    by = {one["by"]: [] for one in summary["slices"]}
    for one in summary["slices"]:
        if one["slice"] not in by[one["by"]]:
            by[one["by"]].append(one["slice"])
    assert by == {
        "month": ["2024-02"],
        "lead": ["19-24", "25-30", "31-36", "37-42"],
        "weekday": ["0", "1", "2", "3", "4", "5", "6"],
        "age": ["0-6"],
    }
    assert all(one["lag"] >= 1 for one in summary["tests"])  # 42 h from the issue to the end
