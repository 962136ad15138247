"""The published scores of the cheap forecasts, from whole runs; federated ridge on real buildings.

The numbers stand in the table "Reference numbers" of the README of the data sets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_inmetro import events, session
from fl_inmetro.config import check
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not os.environ.get("FL_INMETRO_DATA"),
        reason="FL_INMETRO_DATA is not set: the real data sets are not here",
    ),
]

BASELINES = ("sn24", "sn168", "ha4")

# Set: kWh per printed unit; clients; for each score the text printed for SN-24, SN-168 and HA4.
PUBLISHED: dict[str, tuple[float, int, dict[str, tuple[str, str, str]]]] = {
    "cambridge_buildings": (
        1.0,
        82,
        {
            "nmae": ("0.1750", "0.1581", "0.1496"),
            "wmape": ("0.0898", "0.0835", "0.0772"),
            "mae_kwh": ("7.55", "7.03", "6.50"),
            "rmse_kwh": ("22.47", "22.94", "17.74"),
        },
    ),
    "sgsc_households": (
        1.0,
        44,
        {
            "nmae": ("1.0744", "1.0637", "0.9913"),
            "mae_kwh": ("0.1842", "0.1838", "0.1657"),
            "rmse_kwh": ("0.4001", "0.3953", "0.3234"),
        },
    ),
    "citylearn_fontana": (
        1.0,
        14,
        {
            "nmae": ("0.5631", "0.5953", "0.5097"),
            "mae_kwh": ("0.533", "0.559", "0.479"),
            "rmse_kwh": ("0.947", "0.961", "0.789"),
        },
    ),
    # A mean MW (or MWmed) over an hour is 1000 kWh.
    "ons_brazil": (
        1000.0,
        4,
        {
            "nmae": ("0.0644", "0.0708", "0.0566"),
            "mae_kwh": ("1352", "1617", "1270"),
            "rmse_kwh": ("2362", "2761", "2199"),
        },
    ),
    "pjm_zones": (
        1000.0,
        8,
        {
            "nmae": ("0.0791", "0.1211", "0.1079"),
            "mae_kwh": ("867", "1349", "1249"),
            "rmse_kwh": ("1549", "2460", "2384"),
        },
    ),
}


def ignore(event: events.Event) -> None:
    """No display."""


def never() -> bool:
    return False


def compared(root: Path, source: str, models: tuple[str, ...], training: tuple[str, ...]) -> Path:
    """A comparison on the set's own window; all that is not named is the default."""
    compare: dict[str, Any] = {"models": list(models), "training": list(training)}
    config = check({"name": "reference", "data": {"source": source}, "compare": compare})
    return session.start(config, "compare", root, ignore, never)


@pytest.fixture(scope="module")
def cambridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    models = (*BASELINES, "ridge")
    return compared(root, "cambridge_buildings", models, ("federated", "centralised"))


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_run_prints_the_published_scores(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if source == "cambridge_buildings":
        path: Path = request.getfixturevalue("cambridge")
    else:
        path = compared(tmp_path, source, BASELINES, ())
    rows = {row["model"]: row for row in RunRecord.open(path).scores() if row["model"] in BASELINES}
    unit_kwh, clients, published = PUBLISHED[source]
    for score, texts in published.items():
        for model, text in zip(BASELINES, texts, strict=True):
            value = rows[model][score] / (unit_kwh if score.endswith("_kwh") else 1.0)
            digits = len(text.partition(".")[2])
            assert f"{value:.{digits}f}" == text, (source, model, score, value)
    assert {int(rows[model]["clients"]) for model in BASELINES} == {clients}


def test_federated_ridge_equals_pooled_ridge_and_beats_the_best_cheap_forecast(
    cambridge: Path,
) -> None:
    stored = {}
    for training in ("federated", "centralised"):
        found = weights.load(cambridge, f"ridge-{training}-g0000")
        assert found is not None
        stored[training] = found[0]["best.coefficients"]
    federated, pooled = stored["federated"], stored["centralised"]
    assert np.abs(pooled).max() > 0.01
    assert (np.abs(federated - pooled) <= 1e-6 * np.maximum(1.0, np.abs(pooled))).all()
    rows = {(row["model"], row["training"]): row for row in RunRecord.open(cambridge).scores()}
    assert rows["ridge", "federated"]["nmae"] < 0.1496
    assert rows["ridge", "federated"]["clients"] == 82
