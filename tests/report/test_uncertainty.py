"""The section on intervals and the one on the fleet's sum, from runs whose errors are known."""

import math
import re

import numpy as np
import pytest

from fl_inmetro.i18n import text
from fl_inmetro.metrics.calibration import calibration
from fl_inmetro.report import uncertainty as section
from fl_inmetro.report.findings import findings, limits
from fl_inmetro.report.fleet import fleet
from fl_inmetro.report.html import render
from fl_inmetro.runs import RunRecord
from fl_inmetro.runs.points import points_of
from tests.builders import compare_run
from tests.quantile_runs import LEVELS, forecast_table, quantile_run
from tests.report.test_figures import GREYS, OKABE_ITO


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunRecord.open(quantile_run(tmp_path_factory.mktemp("runs"), clients=12))


@pytest.fixture(scope="module")
def found(run):
    return section.found_in(run)


def test_reliability_draws_what_was_observed(found):
    diagonal, drawn = section.reliability(found, "en").data
    assert list(diagonal.x) == list(diagonal.y) == [0, 100]
    assert list(drawn.x) == pytest.approx([100 * level for level in LEVELS])
    # Eleven clients are right, the errors of the first are twice too large for its quantiles.
    right = np.array(LEVELS)
    assert np.array(drawn.y) / 100 == pytest.approx(right, abs=0.03)


def test_quantiles_that_are_too_narrow_lie_between_the_diagonal_and_the_median():
    table = forecast_table(["a", "b"], [("mlp", "federated")], days=60, spread=0.5)
    narrow = calibration(points_of(table.slice(60 * 24)), "UTC")
    assert narrow is not None
    # P(z < ½·z_τ) for τ = .1 and .9: 26.1 and 73.9 %.
    assert narrow.observed[[0, 4]] == pytest.approx([0.261, 0.739], abs=4 * 0.44 / math.sqrt(1440))


def test_the_client_outside_the_band_is_marked(found):
    figure = section.coverage_by_client(found, "en")
    inside, outside = figure.data[:2]
    assert len(inside.x) + len(outside.x) == 12
    assert list(outside.hovertext) == ["sim-home-000"]
    assert outside.marker.symbol != inside.marker.symbol
    assert outside.marker.color != inside.marker.color
    assert min(inside.y) >= 70
    assert max(outside.y) < 70 < 100
    assert next(iter(figure.layout.xaxis.ticktext)) == "sim-home-000"


def test_hours_are_drawn_by_the_clock_of_the_run(found):
    nominal, coverage, width = section.by_hour(found, "en").data
    assert set(nominal.y) == {80}
    assert list(coverage.x) == list(width.x) == list(range(24))
    assert width.yaxis == "y2"
    # Width 2 · 1.2816 · 0.1 kWh over a mean load of about 1 kWh, at every hour.
    assert list(width.y) == pytest.approx([25.6] * 24, abs=0.7)


def test_an_interval_that_is_not_there_is_not_drawn():
    table = forecast_table(["a"], [("mlp", "federated")], days=2).drop_columns(["q10", "q90"])
    found = calibration(points_of(table), "UTC")
    assert section.coverage_by_client(found, "en") is None
    assert section.by_hour(found, "en") is None
    assert len(section.reliability(found, "en").data[1].x) == 3


def test_figures_use_the_palette_and_no_colour_alone(found):
    for draw in (section.reliability, section.coverage_by_client, section.by_hour):
        content = draw(found, "pt-BR").to_json()
        colours = set(re.findall(r'"color":"(#[0-9A-Fa-f]{6})"', content)) - {"#1A1A1A"}
        assert colours <= OKABE_ITO | GREYS, draw.__name__


@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_the_page_says_it_in_both_languages(run, lang):
    html = render(run, lang)
    for name in ("reliability", "coverage", "hours"):
        assert f'id="fig-{name}"' in html
        assert text(f"report.figure.{name}", lang) in html
    assert text("report.section.fleet", lang) in html
    assert text("report.limits.quantiles", lang) in limits(run, lang)
    assert text("report.limits.point", lang) not in limits(run, lang)
    said = " ".join(findings(run, lang))
    score = next(r for r in run.scores() if (r["model"], r["training"]) == ("mlp", "federated"))
    covered = f"{100 * score['coverage_80']:.1f}".replace(".", "," if lang == "pt-BR" else ".")
    assert f"{covered}\u00a0%" in said
    assert score["coverage_80_in_70_90"] == pytest.approx(11 / 12)
    assert "92\u00a0%" in said


def test_a_run_without_quantiles_has_no_such_section(tmp_path):
    bare = RunRecord.open(compare_run(tmp_path))
    assert section.uncertainty(bare, "en") == ""
    assert 'id="uncertainty"' not in render(bare, "en")
    assert text("report.limits.point", "en") in limits(bare, "en")


def test_the_fleet_has_a_row_for_each_row_with_forecasts(run):
    html = fleet(run, "en")
    assert html.count("<tr>") == 1 + 3  # mlp, ridge, ha4
    # Errors of eleven clients of 0.1 kWh and one of 0.2 add up to √(11·.01 + .04) = .387 kWh over
    # a load of 12 kWh; MAE = .387·√(2/π)/12 = .0257.
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html.split("MLP")[1])
    assert float(cells[1]) == pytest.approx(0.0257, rel=0.1)


def test_a_fleet_that_is_read_in_parts_is_the_same(run, monkeypatch):
    import fl_inmetro.report.fleet as module

    whole = fleet(run, "en")
    asked = []
    read = RunRecord.forecasts
    monkeypatch.setattr(
        RunRecord, "forecasts", lambda *given: asked.append(given[3]) or read(*given)
    )
    monkeypatch.setattr(module, "MOST_POINTS", 5000)
    assert fleet(run, "en") == whole
    groups = [clients for clients in asked if clients is not None]
    assert len(groups) > 2
    assert max(len(clients) for clients in groups) < 12
