"""The score table at every width: no number is cut, and what gave way is named."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from fl_inmetro.cli import tables
from fl_inmetro.i18n import Language, text


def row(model: str, training: str, nmae: float | None, **values: float | None) -> dict[str, Any]:
    return {
        "model": model,
        "training": training,
        "nmae": nmae,
        "wmape": 0.0912,
        "mae_kwh": 6.5011,
        "rmse_kwh": 17.7432,
        "nrmse": 0.2012,
        "mase": 0.9312,
        "worst_decile_nmae": 0.4321,
        "bytes": 0.0,
        "seconds": 12.34,
        **values,
    }


#: As of 86 buildings: the longest names, megabytes, a score that does not exist.
ROWS = [
    row("sn24", "baseline", 0.1750),
    row("persistence_ensemble", "baseline", 0.1491, mase=None),
    row("nlinear", "local", 0.1463),
    row("nlinear", "federated", 0.1402, bytes=157_012_345.0, better_than_local=0.8721),
    row("nlinear", "centralised", 0.1399, bytes=14_567_890.0, better_than_local=0.9302),
    row(
        "mlp",
        "federated",
        0.1333,
        bytes=157_012_345.0,
        better_than_local=1.0,
        mae_kwh=1352.4,
        pinball=0.0361,
        coverage_80=0.8042,
        harmed=0.0123,
    ),
]
LANGUAGES: tuple[Language, ...] = ("en", "pt-BR")


def drawn(width: int, lang: Language, rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    table, notes = tables.score_table(rows, lang, width)
    file = io.StringIO()
    tables.print_whole(table, Console(file=file, width=width))
    return file.getvalue().splitlines(), notes


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("width", [80, 100, 120, 10_000])
def test_the_table_fits_and_is_whole(width, lang):
    lines, notes = drawn(width, lang, ROWS)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert len(lines) == 2 + len(ROWS)
    head = lines[0]
    said, _, dropped = notes[-1].partition(": ")
    if said != text("cli.table.dropped", lang).partition(": ")[0]:
        dropped = ""
    for name in tables._COLUMNS:
        label = text(f"cli.table.{name}", lang)
        # A column is there or named as missing, never both.
        assert (label in head) != (label in dropped), label
    decimal = "." if lang == "en" else ","
    best = lines[-1]
    assert best.startswith("mlp *")
    for said in (f"0{decimal}1333", f"157{decimal}0 MB"):
        assert said in best
    assert ("1,352" if lang == "en" else "1.352") in best
    assert text("cli.training.centralised", lang) in lines[-2]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_column_gives_way_only_for_want_of_width(lang):
    """At the very width of the whole table nothing gives way; one less, and the first does."""
    whole = max(map(len, drawn(10_000, lang, ROWS)[0]))
    assert "MASE" in drawn(whole, lang, ROWS)[0][0]
    gone = text("cli.table.worst_decile_nmae", lang)
    assert gone in drawn(whole, lang, ROWS)[0][0]
    lines, notes = drawn(whole - 1, lang, ROWS)
    assert gone not in lines[0]
    assert notes[-1].partition(": ")[2].startswith(f"{gone} (")


def test_what_must_not_give_way_is_wider_than_a_tiny_terminal():
    lines, _ = drawn(20, "en", ROWS)
    assert all(name in lines[0] for name in ("nMAE", "MAE kWh", "moved"))
    assert lines[-1].endswith("157.0 MB")


def test_a_score_that_does_not_exist_is_a_dash():
    lines, _ = drawn(10_000, "en", ROWS)
    assert lines[3].split()[:2] == ["persistence_ensemble", "baseline"]
    assert "–" in lines[3]
    lines, _ = drawn(80, "en", [row("m", "local", None)])
    assert "*" not in lines[2]


def test_a_pipe_gets_all_columns_and_columns_gives_it_a_width(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    tables.print_scores(ROWS, "en")
    printed = capsys.readouterr().out
    assert all(text(f"cli.table.{name}", "en") in printed for name in tables._COLUMNS)
    assert "not shown" not in printed
    monkeypatch.setenv("COLUMNS", "80")
    tables.print_scores(ROWS, "en")
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "not shown for want of width: worst 10 %" in printed


def test_quantiles_have_columns_only_where_there_are_quantiles():
    lines, notes = drawn(10_000, "en", ROWS)
    assert "0.0361" in lines[-1]
    assert "80.4 %" in lines[-1]
    assert any(note.startswith("in 80 %: ") for note in notes)
    lines, notes = drawn(10_000, "en", ROWS[:-1])
    assert "pinball" not in lines[0]
    assert not any("80 %" in note for note in notes)


def test_a_fleet_without_quantiles_shows_no_scores_of_them():
    def said(**values: float) -> str:
        file = io.StringIO()
        Console(file=file, width=200).print(tables.fleet_table(values, "pt-BR"))
        return file.getvalue()

    assert said(nmae=0.1, pinball=math.nan, coverage_80=math.nan).split() == ["nMAE", "0,1000"]
    shown = said(nmae=0.1, pinball=0.0361, coverage_80=0.8, coverage_80_in_70_90=0.912)
    assert "0,0361" in shown
    assert "80,0 %" in shown
    assert "91 %" in shown


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (157_012_345, "157.0 MB"),
        (3.2e12, "3,200.0 GB"),
    ],
)
def test_sizes(n_bytes, said):
    assert tables.size(n_bytes, "en") == said


def test_rows_on_different_points_are_said_to_be():
    rows = [
        row("ha4", "baseline", 0.2, points=100, clients=5),
        row("mlp", "local", 0.1, points=90, clients=5),
    ]
    _, notes = tables.score_table(rows, "en", 100)
    assert notes[-1].startswith("rows are scored on 90 … 100 points of 5 clients")
    _, notes = tables.score_table(rows[:1] * 2, "en", 100)
    assert not any("points" in note for note in notes)
