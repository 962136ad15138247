"""The page of a backtest, on rows made by hand."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from fl_inmetro.i18n import Language
from fl_inmetro.report.backtest import (
    SCORES,
    SLICES,
    TABLES,
    chance,
    findings,
    limits,
    render,
    rows,
    slice_figure,
    slice_rows,
)

NAMES = (("ha4", "baseline", 0.5), ("mlp", "federated", 0.4), ("mlp", "centralised", 0.39))
KEYS = {
    "age": ("7-13", "0-6"),
    "month": ("2024-02", "2023-12"),
    "lead": ("19-24", "25-30"),
    "weekday": ("0", "6"),
}


def row(model: str, training: str, nmae: float) -> dict[str, Any]:
    scores: dict[str, Any] = dict.fromkeys(SCORES, 0.25) | {"nmae": nmae}
    spread: dict[str, Any] = {f"{name}_sd": None for name in SCORES}
    if training != "baseline":
        spread |= {"nmae_sd": 0.0123}
    else:
        scores |= {"pinball": None, "coverage_80": None}
    counts = {"bytes": 8100.0, "seconds": 2.0, "clients": 3, "points": 576, "seeds": 2}
    return {"model": model, "training": training, **scores, **spread, **counts}


def held_against(ours: tuple[str, str], theirs: tuple[str, str], clear: bool) -> dict[str, Any]:
    return {
        "model": ours[0], "training": ours[1],
        "against_model": theirs[0], "against_training": theirs[1],
        "difference": 0.01, "low": 0.005, "high": 0.02, "p_value": 0.01, "lag": 2,
        "clear": clear, "clients": 3, "days": 8, "points": 576,
    }  # fmt: skip


def summary(**values: Any) -> dict[str, Any]:
    slices = [
        {
            "by": by, "slice": key, "model": model, "training": training,
            "nmae": nmae * (1 + place / 10), "nmae_sd": None, "ratio": nmae / 0.5 + place / 10,
            "points": 288,
        }
        for by, keys in KEYS.items()
        for place, key in enumerate(keys[::-1])
        for model, training, nmae in NAMES
    ]  # fmt: skip
    return {
        "name": "<b>mine</b>", "seed": 0, "seeds": [0, 1], "source": "simulator",
        "simulated": True, "directory": "runs/x", "refit_days": 7, "warm_start": False,
        "window": {"issue_time": "06:00", "timezone": "UTC", "lead_h": 18.0, "horizon_h": 24.0},
        "folds": [
            {"number": 0, "first": "2024-02-10", "last": "2024-02-16", "train_first": "2024-01-01",
             "train_last": "2024-02-04", "clients": 3, "runs": {"0": "r0", "1": "r1"}},
            {"number": 1, "first": "2024-02-17", "last": "2024-02-17", "train_first": None,
             "train_last": None, "clients": None, "runs": {}},
        ],
        "rows": [row(*name) for name in NAMES],
        "slices": slices,
        "tests": [
            held_against(("ha4", "baseline"), ("mlp", "centralised"), True),
            held_against(("mlp", "federated"), ("mlp", "centralised"), False),
        ],
        "seconds": 9.0, "complete": False,
        **values,
    }  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_the_page_holds_every_table_and_names_nobody_as_markup(lang: Language) -> None:
    found = render(summary(), lang)
    assert "<b>mine" not in found
    assert "<b>mine</b>" in unescape(found)
    assert ("0.4000 ± 0.0123" if lang == "en" else "0,4000 ± 0,0123") in found
    for by in SLICES:
        assert f'id="fig-{by}"' in found
        assert f'<section id="{by}">' in found
    # A warning that it is not complete, and one that no meter was involved.
    assert found.count('class="banner"') >= 2
    whole = render(summary(complete=True, simulated=False), lang)
    assert whole.count('class="banner"') < found.count('class="banner"')


def test_rows_show_the_spread_over_the_seeds() -> None:
    heads, cells = rows(summary(), "errors", "en")
    place = [head.title for head in heads].index("nMAE")
    assert [row[place] for row in cells] == ["0.5000", "0.4000 ± 0.0123", "0.3900 ± 0.0123"]
    assert "–" in cells[0]  # a baseline without quantiles
    heads, cells = rows(summary(), "fleet", "en")
    share = [head.title for head in heads].index("peak hour")
    assert cells[0][share] == "25.0 %"


@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_no_table_of_rows_is_wider_than_a_terminal(lang: Language) -> None:
    seen = set()
    for part in TABLES:
        heads, cells = rows(summary(), part, lang)
        columns = zip((head.title for head in heads), *cells, strict=True)
        assert sum(max(map(len, column)) + 1 for column in columns) <= 120
        seen |= {head.title for head in heads}
    assert {"nMAE", "NRMSE"} <= seen
    assert len(seen) == 2 + len(SCORES) + 4


def test_slices_stand_in_their_order() -> None:
    titles = {by: [head.title for head in slice_rows(summary(), by, "en")[0][2:]] for by in SLICES}
    assert titles == {
        "age": ["0–6 d", "7–13 d"],
        "month": ["2023-12", "2024-02"],
        "lead": ["19–24 h", "25–30 h"],
        "weekday": ["Mon", "Sun"],
    }
    _, cells = slice_rows(summary(), "age", "en")
    assert cells[1][2:] == ["0.4000 (80.0\xa0%)", "0.4400 (90.0\xa0%)"]
    drawn = slice_figure(summary(), "age", "en")
    # The best row first; in units of the baseline's.
    assert list(drawn.data[0].y) == pytest.approx([0.78, 0.88])
    by_month = slice_figure(summary(), "month", "en")
    assert list(by_month.data[0].x) == ["2023-12", "2024-02"]


def test_the_findings_are_those_of_the_rows() -> None:
    said = findings(summary(), "en")
    assert "MLP, centralised: 0.3900 ± 0.0123." in said[0]
    assert "MLP, federated" in said[1]
    assert "HA4" not in said[1]
    # 0.01 of 0.39 is 2.6 %.
    assert "+2.6 %" in said[2]
    assert "may be chance" in said[2]
    assert "78.0" in said[3]
    assert "88.0" in said[3]
    clear = [{**one, "clear": True} for one in summary()["tests"]]
    assert "better than every other row" in findings(summary(tests=clear), "en")[1]


def test_tests_and_limits() -> None:
    heads, cells = chance(summary(), "en")
    assert len(heads) == len(cells[0]) == 8
    assert [row[-1] for row in cells] == ["yes", "no"]
    assert len(limits(summary(seeds=[1]), "en")) == len(limits(summary(), "en")) + 1
