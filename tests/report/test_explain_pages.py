"""The pages and sentences of importance and explanations, on numbers made by hand."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fl_inmetro.i18n import catalogue
from fl_inmetro.report import explanation, importance

LANGS = ("en", "pt-BR")


def row(block: str, nmae: float, sd: float | None = 0.001) -> dict[str, Any]:
    return {"block": block, "nmae": nmae, "nmae_sd": sd, "pinball": None, "pinball_sd": None}


def told(**values: Any) -> dict[str, Any]:
    rows = [row("lags", 0.02), row("<b>odd</b>", 0.001), row("past_day_3", 0.05)]
    one = {"nmae": 0.3, "pinball": None, "rows": rows}
    return {
        "run": "r<1>",
        "model": "mlp",
        "training": "federated",
        "by": "group",
        "repeats": 5,
        "simulated": False,
        "nmae": 0.25,
        "pinball": None,
        "rows": rows,
        "clients": {"<i>a</i>": one, "b": one | {"nmae": 0.2}},
        "left_out": {},
        **values,
    }


def step(hour: int, **values: Any) -> dict[str, Any]:
    terms = {"profile": 1.9, "constant": 0.004, "lags": 0.31, "holidays": -0.1, "recent": 0.02}
    terms |= {"calendar": -0.021, "floor": 0.0, "rest": 1e-9}
    return {
        "target_time_utc": f"2024-05-08T{hour:02d}:00:00Z",
        "local": f"2024-05-08 {hour:02d}:00",
        "day_type": "working_day",
        "forecast_kwh": 2.113,
        "observed_kwh": 2.3 if hour < 12 else None,
        "terms": terms,
        **values,
    }


def forecast(**values: Any) -> dict[str, Any]:
    rows = [step(17, forecast_kwh=1.0), step(18)]
    return {
        "run": "r1",
        "model": "mlp",
        "training": "personalised",
        "simulated": True,
        "hour": None,
        "client": "<u>c</u>",
        "issue_time_utc": "2024-05-08T03:00:00Z",
        "level": 0.5,
        "steps": 64,
        "residual_share": 2e-4,
        "complete": True,
        "terms": list(rows[0]["terms"]),
        "rows": rows,
        **values,
    }


# -------------------------------------------------------------------------------- importance
def test_the_most_important_part_comes_first_and_what_is_unclear_is_said():
    first, unclear = importance.sentences(told(), "en")
    assert "day −3" in first
    assert "0.0500" in first
    assert "from 0.2500 to 0.3000" in first
    assert unclear.endswith("<b>odd</b>.")
    assert "de 0,2500 para 0,3000" in importance.sentences(told(), "pt-BR")[0]
    # One permutation has no spread, so nothing can be said of chance.
    lone = told(rows=[row("lags", 0.02, None)])
    assert len(importance.sentences(lone, "en")) == 1


def test_the_tables_hold_every_number():
    tiny = told(rows=[row("lags", -1e-7, 0.0)])
    assert importance.rows_of(tiny, "en")[1] == [["same hour, last 14 days", "0.0000", "0.0000"]]
    _, rows = importance.rows_of(told(), "en")
    assert rows == [
        ["day −3", "0.0500", "0.0010"],
        ["same hour, last 14 days", "0.0200", "0.0010"],
        ["<b>odd</b>", "0.0010", "0.0010"],
    ]
    heads, rows = importance.clients_of(told(), "en")
    assert [h.title for h in heads][:3] == ["Client", "nMAE", "day −3"]
    assert rows[0] == ["<i>a</i>", "0.3000", "0.0500", "0.0200", "0.0010"]
    with_pinball = told(pinball=0.1)
    for one in with_pinball["rows"]:
        one |= {"pinball": 0.01, "pinball_sd": 0.002}
    heads, rows = importance.rows_of(with_pinball, "en")
    assert len(heads) == 5
    assert rows[0][3:] == ["0.0100", "0.0020"]


def test_bars_have_whiskers_and_a_client_a_row_of_shades():
    drawn = importance.importance_figure(told(), "en")
    (bars,) = drawn.data
    assert list(bars.x) == [0.001, 0.02, 0.05]  # the largest on top
    assert list(bars.error_x.array) == [0.001] * 3
    cells = importance.clients_figure(told(), "en").data
    assert [list(bar.marker.color) for bar in cells] == [[0.05, 0.05], [0.02, 0.02], [0.001] * 2]
    assert list(cells[0].y) == ["b", "&lt;i&gt;a&lt;/i&gt;"]  # the worst on top
    many = {f"c{k:03d}": told()["clients"]["b"] | {"nmae": k} for k in range(100)}
    (first, *_) = importance.clients_figure(told(clients=many), "en").data
    assert len(first.y) == importance.MOST_ROWS
    assert first.y[-1] == "c099"


@pytest.mark.parametrize("lang", LANGS)
def test_the_page_of_importance_has_a_table_under_each_figure(lang):
    page = importance.render(told(), lang)
    _whole(page, 2)
    assert "<b>odd</b>" not in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<i>a</i>" not in page
    for note in ("permutation", "correlated", "base", "privacy", "model_only"):
        assert catalogue("explain", lang)["note"][note][:40] in page


# ------------------------------------------------------------------------------- explanation
def test_a_forecast_in_words():
    """The base, the three largest terms, and what is left. Groups that say the same are one: lags
    0.31 and recent 0.02 make 0.33; the average correction 0.004 rounds to nothing, and is left out.
    """
    assert explanation.sentence(forecast(), step(18), "en") == (
        "2024-05-08 18:00: 2.11 kWh; your usual working day gives 1.90; "
        "last days and hours +0.33; holidays −0.10; hour, weekday, season −0.02"
    )
    assert explanation.sentence(forecast(level=0.9), step(18), "pt-BR") == (
        "2024-05-08 18:00: 2,11 kWh no quantil 0,9; o seu dia útil habitual dá 1,90; "
        "últimos dias e horas +0,33; feriados −0,10; hora, dia da semana, época −0,02"
    )
    spread = {f"t{k}": 0.01 for k in range(6)} | {"profile": 2.0, "lags": 0.02}
    assert explanation.sentence(forecast(), step(18, terms=spread), "en").endswith(
        "gives 2.00; last days and hours +0.02; t0 +0.01; t1 +0.01; all else +0.04"
    )
    flat = step(18, terms={"last_reading": 2.113, "past_day_1": 1e-5})
    assert explanation.sentence(forecast(level=None), flat, "en") == (
        "2024-05-08 18:00: 2.11 kWh; your last reading gives 2.11"
    )


def test_the_highest_step_is_told_of_or_the_hour_that_is_asked_for():
    assert [r["local"] for r in explanation.told_rows(forecast())] == ["2024-05-08 18:00"]
    assert [r["local"] for r in explanation.told_rows(forecast(hour=17))] == ["2024-05-08 17:00"]
    assert explanation.told_rows(forecast(hour=3)) == []


def test_it_is_said_how_the_terms_were_made_and_when_they_do_not_add_up():
    said = explanation.made_how(forecast(), "en")
    assert "64 steps" in said[0]
    assert "0.0200 %" in said[0]
    assert len(said) == 2
    exact = explanation.made_how(forecast(steps=0), "en")
    assert exact[0].startswith("Exact")
    loose = explanation.made_how(forecast(complete=False, residual_share=0.02), "pt-BR")
    assert any("0,1 %" in line for line in loose)


def test_the_table_leaves_out_what_is_zero_all_day_and_shows_what_is_left_where_it_matters():
    heads, rows = explanation.rows_of(forecast(), "en")
    titles = [head.title for head in heads]
    assert "cut at the lowest forecast" not in titles
    assert "left by rounding and steps" not in titles
    assert "Measured" not in titles
    assert rows[1][:3] == ["2024-05-08 18:00", "2.11", "1.90"]
    titles = [h.title for h in explanation.rows_of(forecast(complete=False), "en")[0]]
    assert "left by rounding and steps" in titles
    measured = forecast(rows=[step(3)])
    assert "Measured" in [h.title for h in explanation.rows_of(measured, "en")[0]]


def test_a_terminal_names_the_day_once_and_writes_all_numbers_alike():
    """The largest number is 2.113: three significant digits of it leave two behind the mark."""
    days = [
        step(22),
        step(23),
        step(0, local="2024-05-09 00:00"),
        step(1, local="2024-05-09 01:00"),
    ]
    found = forecast(rows=[step(3, observed_kwh=0.012345), *days])
    _, rows = explanation.rows_of(found, "en", days, brief=True)
    assert [row[0] for row in rows] == [
        "2024-05-08 22:00", "           23:00", "2024-05-09 00:00", "           01:00"
    ]  # fmt: skip
    _, rows = explanation.rows_of(found, "pt-BR")
    assert [row[0] for row in rows][:2] == ["2024-05-08 03:00", "2024-05-08 22:00"]
    assert all(len(cell.lstrip("+−").partition(",")[2]) == 2 for cell in rows[0][1:])
    assert rows[0][1] == "0,01"
    assert rows[1][1] == "–"
    # A term may be larger than the forecast: then it says how many digits there are.
    large = step(18, terms={"profile": 12.0, "floor": -9.887})
    found = forecast(rows=[large], terms=["profile", "floor"])
    assert explanation.rows_of(found, "en")[1][0][1:] == ["2.1", "12.0", "−9.9"]


def test_the_stack_adds_up_to_the_line():
    found = forecast(rows=[step(h) for h in range(24)])
    drawn = explanation.terms_figure(found, "en")
    bars = [t for t in drawn.data if t.type == "bar"]
    assert sum(bar.y[5] for bar in bars) == pytest.approx(2.113)
    # As many colours with patterns as terms: no two look alike.
    looks = {(bar.marker.color, bar.marker.pattern.shape) for bar in bars}
    assert len(looks) == len(bars)
    many = {f"t{k}": 0.1 for k in range(30)} | {"profile": 1.0}
    crowd = forecast(rows=[step(1, terms=many, forecast_kwh=4.0)], terms=list(many))
    bars = [t for t in explanation.terms_figure(crowd, "en").data if t.type == "bar"]
    assert len(bars) == explanation.DRAWN + 1
    looks = {(bar.marker.color, bar.marker.pattern.shape) for bar in bars}
    assert len(looks) == len(bars)
    assert sum(bar.y[0] for bar in bars) == pytest.approx(4.0)


@pytest.mark.parametrize("lang", LANGS)
def test_the_page_of_an_explanation_has_a_table_under_the_figure(lang):
    page = explanation.render(forecast(), lang)
    _whole(page, 1)
    assert "<u>c</u>" not in page
    assert "&lt;u&gt;c&lt;/u&gt;" in page
    assert catalogue("report", lang)["simulated"] in page


def _whole(page: str, figures: int) -> None:
    """Every figure has a text for those who do not see it, data that are JSON, and a table."""
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert len(re.findall(r'role="img" aria-label="[^"]{20,}"', body)) == figures
    kept = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)
    assert len(kept) == figures
    assert all({t["type"] for t in json.loads(one)["data"]} <= {"bar", "scatter"} for one in kept)
    assert body.count("<table>") == figures
    assert "http://" not in body
    assert "https://" not in body
