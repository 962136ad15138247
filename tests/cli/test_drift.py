"""`fl-inmetro drift`: exit codes, both languages, JSON and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_inmetro.cli.drift import ALARM
from tests.cli.command_line import Answer, call, config_for, documented, long_file, readings

#: The first 60 days train a run; 90 are watched, and since the 70th one meter reads half as much.
NAMES, CHANGED = ("a", "b", "c"), 70


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, `same.csv` (as before), and `changed.csv` (meter b reads half)."""
    folder = tmp_path_factory.mktemp("watched")
    early = [r for k, n in enumerate(NAMES) for r in readings(n, 60, level_kwh=1.0 + k)]
    late = [r for k, n in enumerate(NAMES) for r in readings(n, 90, level_kwh=1.0 + k)]
    begin = early[0][1]
    half = [
        (n, at, kwh / 2 if n == "b" and (at - begin).days >= CHANGED else kwh)
        for n, at, kwh in late
    ]
    config = config_for(folder / "run.toml", long_file(folder / "meters.csv", early))
    long_file(folder / "same.csv", late)
    long_file(folder / "changed.csv", half)
    young = readings("d", 50, first_day=40)
    long_file(folder / "short.csv", [*late, *young])
    words = ("--set", "model=ridge", "--set", "window.validation-days=30")
    answer = call("run", config, "--runs", folder / "runs", *words)
    assert answer.code == 0, answer.err
    return folder


def drift(folder: Path, file: str, *words: object, **env: str) -> Answer:
    start = ("drift", "latest", "--runs", folder / "runs", "--data", folder / file)
    return call(*start, *words, **env)


def test_no_alarm_is_exit_code_0(watched):
    answer = drift(watched, "same.csv")
    assert answer.code == 0, answer.err
    assert "No alarm from 2024-03-01 to 2024-03-30: 3 clients" in answer.out


def test_an_alarm_is_exit_code_10_and_json_says_all(watched, tmp_path):
    answer = drift(watched, "changed.csv", "--json", "-o", tmp_path / "out")
    assert answer.code == ALARM == 10, answer.err
    found = json.loads(answer.out)
    assert sorted(found) == documented("drift")
    assert all(sorted(one) == documented("drift.alarms") for one in found["alarms"])
    kept = json.loads((tmp_path / "out" / "drift.json").read_text(encoding="utf-8"))
    assert found == {**kept, "file": found["file"], "page": found["page"]}
    assert found["days"] == ["2024-03-01", "2024-03-30"]
    assert found["reference"] == ["2024-01-24", "2024-02-29"]
    told = {(one["client_id"], one["kind"]): one for one in found["alarms"]}
    alarm = told["b", "level_down"]
    assert "2024-03-11" <= alarm["onset"] <= "2024-03-13"  # the 70th day is 2024-03-11
    assert alarm["size"] == pytest.approx(-0.45, abs=0.15)
    page = (tmp_path / "out" / "drift.html").read_text(encoding="utf-8")
    assert "uses less" in page
    assert page.count('class="plot"') == len({one["client_id"] for one in found["alarms"]})


def test_the_table_speaks_both_languages(watched):
    english = drift(watched, "changed.csv", "--lang", "en")
    portuguese = drift(watched, "changed.csv", "--lang", "pt")
    assert english.code == portuguese.code == ALARM
    assert "uses less" in english.out
    assert "check meter" in english.out or "refit client" in english.out
    assert "consome menos" in portuguese.out
    assert "avisado em" in portuguese.out


def test_without_data_the_runs_own_readings_are_read_anew(watched):
    """They end with the test window: there is no day to watch yet."""
    answer = call("drift", "latest", "--runs", watched / "runs")
    assert answer.code == 5
    assert [fault["code"] for fault in answer.faults] == ["FL356"]
    assert "readings until 2024-03-01" in answer.faults[0]["where"]
    assert "--data" in answer.faults[0]["hint"]


def test_without_data_those_that_the_run_left_out_are_not_watched(tmp_path):
    file = long_file(tmp_path / "meters.csv", [r for n in NAMES for r in readings(n, 90)])
    config = config_for(tmp_path / "run.toml", file)
    words = ("--runs", tmp_path / "runs", "--set", "model=ridge", "--set", 'data.exclude=["c"]')
    window = ("window.test-start=2024-02-20", "window.test-end=2024-02-29")
    sets = [w for key in (*window, "window.validation-days=30") for w in ("--set", key)]
    assert call("run", config, *words, *sets).code == 0
    found = json.loads(call("drift", "latest", "--runs", tmp_path / "runs", "--json").out)
    assert found["clients"] == 2


def test_reasons_are_told_in_the_language_of_the_reader(watched):
    """A meter that is read since 20 days before the watch: of the first nothing was foretold."""
    answer = drift(watched, "short.csv", "--lang", "pt")
    assert answer.code == 0, answer.err
    assert "d não é vigiado: FL355 19 dias de referência utilizáveis; são precisos 28" in answer.err
    found = json.loads(drift(watched, "short.csv", "--lang", "pt", "--json").out)
    assert found["skipped"] == {"d": "FL355 19 usable reference days, 28 are needed"}
    assert found["fleet_skipped"] is None


@pytest.mark.parametrize("wish", [("--alarm-every", "nan"), ("--shift", "nan")])
def test_a_wish_that_is_no_number_is_fl366(watched, wish):
    answer = drift(watched, "same.csv", *wish)
    assert [fault["code"] for fault in answer.faults] == ["FL366"]
    assert answer.faults[0]["where"] == " ".join(wish)


def test_the_pages_days_are_of_the_language(watched, tmp_path):
    pages = {}
    for lang in ("en", "pt"):
        drift(watched, "changed.csv", "--lang", lang, "-o", tmp_path / lang)
        pages[lang] = (tmp_path / lang / "drift.html").read_text(encoding="utf-8")
    assert '"tickformat":"%d/%m\\n%Y"' in pages["pt"]
    assert '"tickformat":"%d/%m' not in pages["en"]


def test_only_some_clients(watched):
    answer = drift(watched, "changed.csv", "--client", "a", "--client", "c", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["clients"], found["alarms"]) == (0, 2, [])
    assert drift(watched, "changed.csv", "--client", "z").faults[0]["code"] == "FL358"
