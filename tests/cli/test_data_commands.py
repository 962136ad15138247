"""`fl-inmetro data`: what it prints, the JSON keys that `docs/data.md` promises, its refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fl_inmetro.cli.data import app
from fl_inmetro.config import load
from fl_inmetro.data.cleaning.findings import KINDS
from fl_inmetro.data.sources import SOURCES
from fl_inmetro.errors import ConfigError, DataError
from fl_inmetro.i18n import catalogue

DOC = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture
def meters(tmp_path: Path) -> Path:
    path = tmp_path / "meters.csv"
    rows = [
        f"{client};{day:02d}/01/2024 {hour:02d}:00;{1 + hour / 10:.2f}".replace(".", ",")
        for client in ("casa-1", "casa-2")
        for day in range(1, 32)
        for hour in range(24)
    ]
    rows[30] = rows[30].rsplit(";", 1)[0] + ";-1,00"
    path.write_text("\n".join(["medidor;data;consumo", *rows]) + "\n")
    return path


def invoke(*words: object, fails: type[Exception] | None = None) -> tuple[str, Exception | None]:
    result = CliRunner(env={"COLUMNS": "100", "FL_INMETRO_LANG": "en"}).invoke(
        app, [str(word) for word in words]
    )
    if fails is None:
        assert result.exception is None, result.exception
    else:
        assert isinstance(result.exception, fails)
    error = result.exception if isinstance(result.exception, Exception) else None
    return result.stdout, error


def test_check_says_what_it_assumed_found_and_did(meters: Path) -> None:
    printed, _ = invoke("check", meters, "--decimal", ",", "--timezone", "America/Sao_Paulo")
    assert "column `medidor` holds the client" in printed
    assert "dates have the day first" in printed
    assert re.search(r"negative readings\s+marked missing\s+1\s+1", printed)
    assert "meters.csv:32 (2024-01-02 06:00)" in printed
    assert "Usable: 2 clients, 1,488 readings, 1,487 of 1,488 steps of 60 min" in printed
    assert "2024-01-01 03:00" in printed  # Brasília is three hours behind UTC


def test_check_json_is_one_object_with_the_documented_keys(meters: Path) -> None:
    printed, _ = invoke("check", meters, "--decimal", ",", "--json")
    report = json.loads(printed)
    assert report["counts"] == {"negative": 1, "gap": 1}
    assert report["refused"] is False
    assert documented("check") == keys_of(report)
    for name in ("clients", "findings"):
        assert documented(f"check.{name}") == keys_of(report[name][0])


def test_refused_data_print_their_faults_as_json_too(meters: Path) -> None:
    printed, error = invoke("check", meters, "--json", fails=DataError)
    report = json.loads(printed)
    assert report["refused"] is True
    assert [fault["code"] for fault in report["faults"]] == ["FL203"]
    assert (
        report["faults"][0]["hint"]
        == 'set `format.decimal = ","` (`data check` takes `--decimal ","`)'
    )
    assert documented("check.faults") == keys_of(report["faults"][0])
    assert isinstance(error, DataError)
    assert error.exit_code == 4


def test_refusal_after_cleaning_shows_the_report_first(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    rows = "".join(f"2024-01-01 {h:02d}:00,1,\n" for h in range(24))
    path.write_text("timestamp,m1,m2\n" + rows)
    printed, error = invoke("check", path, fails=DataError)
    assert "REFUSED" in printed
    assert "empty client" in printed
    assert isinstance(error, DataError)
    assert [fault.code for fault in error.faults] == ["FL205"]


def test_check_takes_settings_from_a_configuration(meters: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        '[data.format]\ndecimal = ","\nunit = "Wh"\n[data.cleaning]\nnegatives = "keep"\n'
    )
    printed, _ = invoke("check", meters, "--config", config, "--json")
    report = json.loads(printed)
    assert report["findings"][0]["action"] == "reported"
    assert report["clients"][0]["mean_kw"] == pytest.approx(0.00215, rel=0.01)


def test_wrong_options_and_targets_are_coded_errors(meters: Path) -> None:
    for words, kind, code in (
        (("check", meters, "--timezone", "Nowhere"), ConfigError, "FL102"),
        (("check", meters, "--unit", "J"), ConfigError, "FL102"),
        (("check", meters, "--layout", "tall"), DataError, "FL208"),
        (("check", meters, "--value-column", "kwh"), DataError, "FL202"),
        (("check", "cambrige_buildings"), DataError, "FL208"),
        (("describe", meters.with_name("meter.csv")), DataError, "FL203"),
    ):
        _, error = invoke(*words, fails=kind)
        assert isinstance(error, (ConfigError, DataError))
        assert [fault.code for fault in error.faults] == [code]


def test_describe_gives_the_mean_day_on_the_clock_of_the_source(meters: Path) -> None:
    words = ("describe", meters, "--decimal", ",", "--timezone", "America/Sao_Paulo")
    found = json.loads(invoke(*words, "--json")[0])
    # The value is 1 + hour / 10 kWh on the local clock, so the profile must be exactly that.
    assert found["clients"][1]["profile_kw"] == pytest.approx([1 + h / 10 for h in range(24)])
    assert found["clients"][0]["missing_share"] == pytest.approx(1 / 744)
    assert documented("describe") == keys_of(found)
    assert documented("describe.clients") == keys_of(found["clients"][0])
    printed, _ = invoke(*words)
    assert "▃▃▃▄▄▄▄▄▄▄▅▅▅▅▅▅▆▆▆▆▇▇▇█" in printed or "█" in printed
    assert "SIMULATED" not in printed


def test_describe_labels_the_simulator(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[data.simulator]\nclients = 2\ndays = 3\n")
    printed, _ = invoke("describe", "simulator", "--config", config)
    assert printed.startswith("SIMULATED")


def test_ls_says_what_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FL_INMETRO_DATA", raising=False)
    found = json.loads(invoke("ls", "--json")[0])
    assert [one["present"] for one in found["sets"]] == [False] * 5 + [True]
    assert [one["name"] for one in found["sets"]] == [*SOURCES, "simulator"]
    assert documented("ls") == keys_of(found)
    assert documented("ls.sets") == keys_of(found["sets"][0])
    _, error = invoke("check", "pjm_zones", fails=DataError)
    assert isinstance(error, DataError)
    assert error.faults[0].code == "FL201"
    file = tmp_path / "pjm_zones" / "load_hourly.parquet"
    file.parent.mkdir()
    file.write_bytes(b"PAR1")
    monkeypatch.setenv("FL_INMETRO_DATA", str(tmp_path))
    found = json.loads(invoke("ls", "--json")[0])
    assert [one["name"] for one in found["sets"] if one["present"]] == ["pjm_zones", "simulator"]
    _, error = invoke("check", "pjm_zones", fails=DataError)
    assert isinstance(error, DataError)
    assert error.faults[0].code == "FL203"


def test_every_finding_has_its_words_in_both_languages() -> None:
    for language in ("en", "pt-BR"):
        assert set(catalogue("data", language)["finding"]) == set(KINDS)
        for code in ("201", "202", "203", "204", "205", "206", "207", "208", "209", "211"):
            page = catalogue("errors", language)[f"FL{code}"]
            assert all(page[key] for key in ("title", "meaning", "cure"))


def test_the_module_imports_nothing_heavy() -> None:
    heavy = "numpy pyarrow pydantic torch flwr pandas"
    code = (
        "import sys, fl_inmetro.cli.data;"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"


def keys_of(value: dict[str, object]) -> list[str]:
    return sorted(value)


def documented(table: str) -> list[str]:
    """Keys of a table of `docs/data.md` that stands under the heading `### JSON: <table>`."""
    section = DOC.read_text(encoding="utf-8").split(f"### JSON: `{table}`\n", 1)[1]
    section = section.split("\n#", 1)[0]
    return sorted(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))


# ------------------------------------------------------------------------ a run's own TOML
def run_file(folder: Path, data: str) -> Path:
    path = folder / "my.toml"
    path.write_text(f"seed = 7\n{data}")
    return path


@pytest.mark.parametrize("command", ["check", "describe"])
def test_a_configuration_stands_for_the_data_of_its_run(meters: Path, command: str) -> None:
    file = run_file(
        meters.parent,
        '[data]\nsource = "long"\npath = "meters.csv"\nresolution-min = 120\n'
        '[data.format]\ndecimal = ","\n'
        '[data.format.columns]\nclient = "medidor"\ntimestamp = "data"\nvalue = "consumo"\n',
    )
    by_toml = json.loads(invoke(command, file, "--json")[0])
    by_path = json.loads(invoke(command, meters, "--config", file, "--json")[0])
    assert by_toml["clients"] == by_path["clients"]
    assert {one["client_id"] for one in by_toml["clients"]} == {"casa-1", "casa-2"}


def test_a_simulated_run_is_described_with_its_own_seed(tmp_path: Path) -> None:
    from fl_inmetro.data.simulator import simulate

    file = run_file(tmp_path, "[data.simulator]\nclients = 2\ndays = 30\n")
    found = json.loads(invoke("describe", file, "--json")[0])
    other = json.loads(invoke("describe", "simulator", "--config", file, "--json")[0])
    assert found["clients"] == other["clients"]
    settings = load(file).data.simulator
    (mean_7, mean_0) = (
        [float(np.nanmean(one.energy_kwh)) for _, one in sorted(simulate(settings, seed).items())]
        for seed in (7, 0)
    )
    assert [one["mean_kw"] for one in found["clients"]] == pytest.approx(mean_7, rel=1e-3)
    assert mean_7 != pytest.approx(mean_0, rel=1e-2)


def test_two_configurations_are_refused(meters: Path) -> None:
    file = run_file(meters.parent, "")
    _, error = invoke("describe", file, "--config", file, fails=DataError)
    assert isinstance(error, DataError)
    assert [fault.code for fault in error.faults] == ["FL223"]


# --------------------------------------------------------------------------- in Portuguese
def test_what_was_assumed_and_found_is_told_in_portuguese(meters: Path) -> None:
    lines = meters.read_text().splitlines()
    # casa-1 ends four days early, has a gap of three hours and an outlier.
    first = [line for line in lines[1:] if line.startswith("casa-1")][: 27 * 24]
    del first[100:103]
    first[400] = first[400].rsplit(";", 1)[0] + ";900,00"
    second = [line for line in lines[1:] if line.startswith("casa-2")]
    meters.write_text("\n".join([lines[0], *first, *second]) + "\n")
    words = ["check", str(meters), "--decimal", ",", "--timezone", "America/Sao_Paulo"]
    env = {"COLUMNS": "400", "FL_INMETRO_LANG": "pt-BR"}
    answer = CliRunner(env=env).invoke(app, words).output
    for sentence in (
        "suposto: uma tabela longa: uma linha por leitura",
        "suposto: a coluna `medidor` traz o cliente",
        "suposto: unidade kWh, relógio America/Sao_Paulo, as marcas indicam o início do passo",
        "suposto: separador `;`",
        "suposto: as datas têm o dia primeiro",
        "3 lacunas, a maior de 3 h",  # the negative and the outlier are gaps too
        "a maior 900 kWh",
        "termina antes dos outros",
        "a última leitura é 4 dias antes da última da frota",
    ):
        assert sentence in answer, sentence
    kept = json.loads(CliRunner(env=env).invoke(app, [*words, "--json"]).output)
    assert "a long table: one row per reading" in kept["assumed"]
    told = CliRunner(env=env).invoke(app, ["describe", *words[1:]]).output
    assert "não informado (arquivo seu)" in told


def test_one_client_is_one(meters: Path) -> None:
    one = [line for line in meters.read_text().splitlines() if not line.startswith("casa-2")]
    meters.write_text("\n".join(one) + "\n")
    answer = invoke("check", meters, "--decimal", ",")[0]
    assert "Usable: 1 client, " in answer
