"""Every fault through the real command: its code, exit code, place and hint, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.command_line import (
    BEGIN,
    TINY,
    Answer,
    Reading,
    call,
    config_for,
    fleet,
    long_file,
    readings,
)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., Answer]:
    """Call a command that has to fail cleanly: only coded faults, and no run left behind."""

    def check(*words: object, code: int, **env: str) -> Answer:
        root = tmp_path / "runs"
        answer = call(*words, "--runs", root, **env)
        assert answer.code == code, answer.err
        assert answer.out == ""
        assert answer.faults
        assert "Traceback" not in answer.err
        assert f"fl-inmetro explain {answer.faults[0]['code']}" in answer.err
        assert not root.exists() or not list(root.iterdir())
        return answer

    return check


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def on(folder: Path, rows: list[Reading], **format_: str) -> Path:
    return config_for(folder / "run.toml", long_file(folder / "meters.csv", rows, **format_))


# --------------------------------------------------------------- the six of the specification
def test_a_wrong_configuration_shows_all_its_faults_with_their_lines(refused, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(
        'modle = "ridge"\nmodel = "rigde"\n\n[federation]\nnum-server-rounds = 0\n\n'
        '[window]\ntimezone = "Mars/Olympus"\nhorizon-h = "day"\n'
    )
    answer = refused("run", path, code=3)
    faults = {fault["where"].removeprefix(f"{path}:"): fault for fault in answer.faults}
    assert {fault["code"] for fault in answer.faults} == {"FL102"}
    assert set(faults) == {
        '1  modle = "ridge"',
        '2  model = "rigde"',
        "5  num-server-rounds = 0",
        '8  timezone = "Mars/Olympus"',
        '9  horizon-h = "day"',
    }
    assert faults['1  modle = "ridge"']["hint"] == "did you mean `model`?"
    assert faults['2  model = "rigde"']["hint"] == "did you mean `ridge`?"
    assert "greater than or equal to 1" in faults["5  num-server-rounds = 0"]["what"]
    assert faults["5  num-server-rounds = 0"]["hint"] == "the default is 10"
    assert "America/Sao_Paulo" in faults['8  timezone = "Mars/Olympus"']["what"]
    assert faults['9  horizon-h = "day"']["hint"] == "the default is 24.0"


@pytest.mark.parametrize("command", ["run", "compare"])
def test_missing_columns_are_named_with_the_closest_there_are(refused, tmp_path, command):
    config = on(tmp_path, fleet(), head="client_id,time,kwh")
    answer = refused(command, config, code=4)
    assert [fault["code"] for fault in answer.faults] == ["FL202", "FL202"]
    assert all(fault["where"].endswith("meters.csv:1") for fault in answer.faults)
    assert 'set `format.columns.timestamp = "time"`' in answer.faults[0]["hint"]
    assert 'set `format.columns.value = "kwh"`' in answer.faults[1]["hint"]
    # What the hints propose works.
    columns = "--set", 'data.format.columns={timestamp = "time", value = "kwh"}'
    assert call(command, config, *columns, "--runs", tmp_path / "again").code == 0


def swapped(at: datetime) -> datetime:
    return at.replace(day=at.month, month=at.day) if at.day <= 12 else at


def test_exchanged_days_and_months_are_refused_with_the_setting_that_cures(refused, tmp_path):
    config = on(tmp_path, [(client, swapped(at), kwh) for client, at, kwh in fleet()])
    (fault,) = refused("run", config, code=4).faults
    assert fault["code"] == "FL204"
    # 2 January is written as 1 February: the second day of the file begins at line 26.
    assert fault["where"].endswith("meters.csv:26")
    assert "`format.day-first = true`" in fault["hint"]
    cured = "--set", "data.format.day-first=true"
    assert call("run", config, *cured, "--runs", tmp_path / "again").code == 0


def test_an_empty_client_is_refused_and_can_be_left_out(refused, tmp_path):
    rows: list[Reading] = fleet()
    config = on(tmp_path, rows)
    with (tmp_path / "meters.csv").open("a") as file:
        file.writelines(f"void,{at:%Y-%m-%d %H:%M},\n" for _, at, _ in readings("void", 60))
    (fault,) = refused("run", config, code=4).faults
    assert fault["code"] == "FL205"
    assert "client void" in fault["where"]
    # Head and 3 × 60 × 24 readings come before it.
    assert "meters.csv:4322" in fault["where"]
    assert "`data.exclude`" in fault["hint"]
    assert "`cleaning.drop-short = true`" in fault["hint"]
    for cure in ('data.exclude=["void"]', "data.cleaning.drop-short=true"):
        assert call("run", config, "--set", cure, "--runs", tmp_path / "again").code == 0


@pytest.mark.parametrize("first_day", [0, 40, 57], ids=["oldest", "training", "newest"])
def test_three_days_of_history_are_refused_and_the_hint_works(refused, tmp_path, first_day):
    config = on(tmp_path, [*fleet(), *readings("new", 3, first_day=first_day)])
    (fault,) = refused("run", config, code=4).faults
    assert fault["code"] == "FL206"
    assert "`new`" in fault["what"]
    assert "client new: readings from 2024-" in fault["where"]
    assert "drop-short = true" in fault["hint"]
    assert "fl-inmetro forecast" in fault["hint"]
    root = tmp_path / "again"
    cured = call("run", config, "--set", "data.cleaning.drop-short=true", "--runs", root)
    assert cured.code == 0
    assert "client new takes no part" in cured.err
    # The client that took no part is forecast like any other.
    day = f"{BEGIN + timedelta(days=first_day + 3):%Y-%m-%d}"
    words = ("--from", day, "--to", day, "-o", tmp_path / "f.parquet", "--runs", root)
    made = call("forecast", "--run", "latest", "--data", tmp_path / "meters.csv", *words)
    assert made.code == 0, made.err
    import pyarrow.parquet as pq

    rows = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert sum(row["client_id"] == "new" for row in rows) == 24


def test_an_unknown_run_is_answered_with_those_that_are_close(metered):
    (name,) = [path.name for path in (metered / "runs").iterdir()]
    wrong = name[:-1] + "z"
    days = ("--from", "2024-02-01", "--to", "2024-02-01", "-o", metered / "never.parquet")
    answer = call("forecast", "--run", wrong, "--data", "x.csv", *days, "--runs", metered / "runs")
    (fault,) = answer.faults
    assert (answer.code, answer.out, fault["code"]) == (6, "", "FL701")
    assert fault["where"] == f"{metered / 'runs'}  {wrong}"
    assert fault["hint"] == f"did you mean:\n      {name}"
    assert not (metered / "never.parquet").exists()


# -------------------------------------------------------------------------- configurations
def test_configurations_that_cannot_be_read(refused, tmp_path):
    (fault,) = refused("run", tmp_path / "absent.toml", code=3).faults
    assert (fault["code"], fault["where"]) == ("FL100", str(tmp_path / "absent.toml"))
    assert "examples/" in fault["hint"]
    (tmp_path / "latin.toml").write_bytes('name = "São"'.encode("latin-1"))
    (fault,) = refused("compare", tmp_path / "latin.toml", code=3).faults
    assert fault["code"] == "FL100"
    (tmp_path / "bare.toml").write_text("seed = 1\nname = tiny\n")
    (fault,) = refused("run", tmp_path / "bare.toml", code=3).faults
    assert (fault["code"], fault["where"]) == ("FL101", f"{tmp_path / 'bare.toml'}:2")
    assert fault["hint"]


@pytest.mark.parametrize(
    ("words", "code", "where", "hint"),
    [
        (["--set", "rounds"], "FL104", "--set rounds", "table.key=value"),
        (["--set", "federation.rounds=3"], "FL102", "--set federation.rounds=3", "num_server"),
        (["--seed", "-1"], "FL102", "--set seed=-1", "the default is 0"),
        (["--set", "model=rigde"], "FL102", "--set model=rigde", "ridge"),
    ],
)
def test_a_wrong_override_is_its_own_place(refused, tiny, words, code, where, hint):
    (fault,) = refused("run", tiny, *words, code=3).faults
    assert (fault["code"], fault["where"]) == (code, where)
    assert hint in fault["hint"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("compare.models=[]", "nothing to compare"),
        ('compare={models=["mlp"], training=[]}', "nothing to compare"),
        ('compare.models=["mlp", "mlp"]', "`mlp` is named more than once"),
    ],
)
def test_a_comparison_of_nothing_is_refused(refused, tiny, override, says):
    (fault,) = refused("compare", tiny, "--set", override, code=3).faults
    assert fault["code"] == "FL102"
    assert says in fault["what"]
    assert fault["where"].endswith("[compare]") or fault["where"].startswith("--set")


# ------------------------------------------------------------------------------------ data
def test_a_named_set_without_its_folder(refused, tiny, tmp_path):
    words = ("run", tiny, "--set", "data.source=cambridge_buildings")
    (fault,) = refused(*words, code=4).faults
    assert fault["code"] == "FL201"
    assert "FL_INMETRO_DATA" in fault["what"]
    assert "cambridge_buildings/electricity_hourly.parquet" in fault["hint"]
    (fault,) = refused(*words, code=4, FL_INMETRO_DATA=str(tmp_path)).faults
    assert fault["code"] == "FL201"
    assert str(tmp_path) in fault["where"] + fault["what"]


def test_a_window_outside_the_data(refused, tiny):
    words = ("--set", "window.test-start=2030-01-01", "--set", "window.test-end=2030-01-07")
    (fault,) = refused("run", tiny, *words, code=4).faults
    assert fault["code"] == "FL210"
    # Brasília is three hours behind UTC; 60 days from 1 January end on 1 March 2024.
    assert fault["where"] == "readings from 2024-01-01T03:00:00Z to 2024-03-01T03:00:00Z"
    assert "test-start" in fault["hint"]


def test_a_source_and_clients_that_are_not_there(refused, tiny):
    (fault,) = refused("run", tiny, "--set", "data.source=simulater", code=4).faults
    assert (fault["code"], fault["hint"]) == ("FL208", "did you mean `simulator`?")
    (fault,) = refused("run", tiny, "--set", 'data.clients=["nobody"]', code=4).faults
    assert fault["code"] == "FL209"


def test_without_validation_days_a_warning_says_so(tiny, tmp_path):
    answer = call("run", tiny, "--set", "window.horizon-h=144", "--runs", tmp_path / "r")
    assert answer.code == 0
    assert "warning: no forecast of the validation days" in answer.err
    assert "validation nMAE –" in answer.err
    assert "nan" not in answer.err


# ---------------------------------------------------------------------------------- places
def test_places_that_cannot_be_written(metered, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    answer = call("run", metered / "run.toml", "--runs", taken)
    assert (answer.code, answer.faults[0]["code"]) == (6, "FL704")
    assert answer.faults[0]["where"] == str(taken)
    assert "--runs" in answer.faults[0]["hint"]
    days = ("--from", "2024-02-20", "--to", "2024-02-20", "--runs", metered / "runs")
    forecast = ("forecast", "--run", "latest", "--data", metered / "meters.csv", *days)
    for place in (tmp_path, taken / "f.parquet"):  # a folder; a folder that is a file
        answer = call(*forecast, "-o", place)
        assert (answer.code, answer.out) == (6, "")
        assert (answer.faults[0]["code"], answer.faults[0]["where"]) == ("FL704", str(place))
    answer = call(*forecast, "-o", tmp_path / "f.csv")
    assert (answer.code, answer.faults[0]["code"]) == (3, "FL108")
    assert "f.parquet" in answer.faults[0]["hint"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
    # A folder that is not there yet is made, as for every other file of ours.
    assert call(*forecast, "-o", tmp_path / "new" / "deep" / "f.parquet").code == 0
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["f.parquet"]


# ------------------------------------------------------------------------- faults of our own
def test_an_unexpected_exception_is_coded_and_debugged_on_request(tiny, tmp_path, monkeypatch):
    from fl_inmetro import session

    def broken(*_: object) -> None:
        raise ZeroDivisionError("made by a test")

    monkeypatch.setattr(session, "prepare", broken)
    answer = call("run", tiny, "--runs", tmp_path / "runs")
    assert (answer.code, answer.out) == (1, "")
    (fault,) = answer.faults
    assert (fault["code"], fault["what"]) == ("FL900", "ZeroDivisionError: made by a test")
    assert "FL_INMETRO_DEBUG=1" in fault["hint"]
    assert "Traceback" not in answer.err
    with pytest.raises(ZeroDivisionError, match="made by a test"):
        call("run", tiny, "--runs", tmp_path / "runs", FL_INMETRO_DEBUG="1")


def test_a_run_that_fails_half_way_says_so_and_can_be_found(tiny, tmp_path):
    root = tmp_path / "runs"
    answer = call("run", tiny, "--set", "federation.min-clients=9", "--runs", root)
    assert (answer.code, answer.out) == (5, "")
    assert answer.faults[0]["code"] == "FL302"
    shown = call("runs", "show", "latest", "--runs", root)
    assert "failed" in shown.out
    assert "FL302" in shown.out
