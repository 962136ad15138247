"""`fl-inmetro coldstart` on a small simulated fleet."""

from __future__ import annotations

import json

from click.testing import Result
from typer.testing import CliRunner

from fl_inmetro.cli.app import app
from tests.cli.command_line import documented

SMALL = (
    "data.simulator.clients=4",
    "data.simulator.days=60",
    "window.validation-days=5",
    "window.test-days=5",
    "federation.num-server-rounds=2",
    "models.mlp.hidden=[4]",
)
OPTIONS = [part for value in SMALL for part in ("--set", value)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        app, ["coldstart", *OPTIONS, "--folds", "2", "--days", "0,3", *arguments]
    )


def test_json_holds_what_the_file_holds(tmp_path):
    done = run("--json", "-o", str(tmp_path))
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    kept = json.loads((tmp_path / "coldstart.json").read_text(encoding="utf-8"))
    assert said == {**kept, "file": str(tmp_path / "coldstart.json")}
    assert sorted(said) == documented("coldstart")
    assert all(sorted(row) == documented("coldstart.rows") for row in said["rows"])
    assert said["complete"] is True
    assert said["days"] == [0, 3]
    assert sum(len(fold) for fold in said["folds"]) == said["clients"] == 4
    assert {(row["model"], row["days"]) for row in said["rows"]} >= {
        ("mlp", 0),
        ("fleet_profile", 0),
        ("mlp", 3),
        ("day_type_mean", 3),
    }


def test_the_table_has_a_column_for_each_length():
    english, portuguese = run("--lang", "en"), run("--lang", "pt")
    assert english.exit_code == portuguese.exit_code == 0
    assert "0 d, fleet's size" in english.stdout
    assert "3 d" in english.stdout
    assert "fleet_profile" in english.stdout
    assert "0 d, porte da frota" in portuguese.stdout
    assert "próprio" in portuguese.stdout
    # Another decimal mark.
    row = next(line for line in portuguese.stdout.splitlines() if line.startswith("day_type_mean"))
    assert "," in row
    assert "." not in row


def test_days_that_do_not_rise_are_refused():
    from fl_inmetro.errors import ConfigError

    refused = CliRunner().invoke(app, ["coldstart", *OPTIONS, "--days", "3,0"])
    assert isinstance(refused.exception, ConfigError)
    assert refused.exception.faults[0].code == "FL102"
