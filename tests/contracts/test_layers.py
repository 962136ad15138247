"""The house: imports go down the ranks, nothing heavy before its time, no file too long."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fl_inmetro"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: The floors of the house, as in docs/adr/0001; `portal` and `edge` are not built yet.
RANKS = (
    {"errors", "units", "seeds", "events", "i18n"},
    {"config", "metrics", "privacy"},
    {"data", "models", "ev", "trees"},
    {"learning"},
    {"federation", "runs"},
    {
        "plan",
        "experiment",
        "session",
        "derived",
        "calibrated",
        "clustered",
        "protected",
        "feasible",
        "audited",
        "trained",
        "forecasting",
        "fallback",
        "served",
        "model",
        "calibrated_model",
        "exported",
        "hierarchy",
        "explain",
        "flower_engine",
        "laboratory",
        "backtest",
        "coldstart",
        "drift",
        "leakage",
        "ev_study",
        "convergence",
        "report",
    },
    {"cli", "server_app", "client_app", "task"},
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}

#: Who may know a neighbour on the same floor, and why; none of these goes both ways.
NEIGHBOURS = {
    ("models", "data"): "a forecaster is a function of windows; data knows no forecaster",
    ("session", "protected"): "what cannot be private is refused before Flower is started",
    ("experiment", "plan"): "an experiment carries a plan out",
    ("experiment", "derived"): "an experiment makes rows of trained models too",
    ("derived", "plan"): "what is derived is a job of the plan",
    ("experiment", "calibrated"): "an experiment scores what it has calibrated",
    ("calibrated", "plan"): "what is calibrated is a job of the plan",
    ("calibrated", "derived"): "calibrated rows are rows, scored in the same way",
    ("experiment", "clustered"): "an experiment trains the clusters",
    ("experiment", "protected"): "an experiment opens the account of what it trains",
    ("protected", "plan"): "what is protected is a job of the plan",
    ("trained", "clustered"): "who is in which cluster is read as it was written",
    ("trained", "calibrated"): "a calibration is read as it was written",
    ("trained", "model"): "a trained model has the form of all",
    ("trained", "calibrated_model"): "a run's model may be calibrated",
    ("calibrated_model", "model"): "what is calibrated is a model of any kind",
    ("calibrated_model", "plan"): "a model says which job it is",
    ("model", "plan"): "a model says which job it is",
    ("fallback", "calibrated_model"): "a calibration may make quantiles of a stand-in's mean",
    ("trained", "plan"): "the names under which a plan's models are kept",
    ("trained", "derived"): "a blend is read as it was written",
    ("session", "plan"): "a session prepares the plan it hands on",
    ("session", "experiment"): "a session carries an experiment out",
    ("session", "feasible"): "what cannot be trained is refused before a run is begun",
    ("feasible", "clustered"): "clusters may not be feasible",
    ("feasible", "plan"): "what is asked for are the jobs of the plan",
    ("feasible", "protected"): "what cannot be private is not feasible",
    ("session", "flower_engine"): "a session may hand the whole run to Flower",
    ("convergence", "plan"): "a measurement trains one federation on a plan's data",
    ("laboratory", "plan"): "a laboratory trains many federations on one plan's data",
    ("coldstart", "plan"): "a study trains federations on a plan's data",
    ("backtest", "plan"): "each fold is cut as a plan is",
    ("backtest", "session"): "each fold is a run",
    ("drift", "trained"): "what is watched is a trained model",
    ("leakage", "plan"): "a run's clients are cut again as its plan cut them",
    ("leakage", "protected"): "a run's account is read where it was written",
    ("exported", "trained"): "what is exported is a trained model",
    ("explain", "plan"): "a run's test windows are cut again as its plan cut them",
    ("explain", "trained"): "what is explained is a trained model",
    ("forecasting", "trained"): "a forecast is a trained model's",
    ("forecasting", "served"): "a forecast is made of some clients at a time",
    ("forecasting", "fallback"): "a forecast goes down the ladder",
    ("served", "fallback"): "some clients' forecasts go down the ladder",
    ("served", "trained"): "some clients' forecasts are a trained model's",
    ("fallback", "trained"): "the first rungs are trained models",
    ("fallback", "plan"): "a run keeps the profile of the plan's clients",
    ("experiment", "fallback"): "a run keeps the profile that the last rung lends",
    ("hierarchy", "forecasting"): "a file of forecasts is read in one way",
    ("server_app", "task"): "the two Flower apps share one task",
    ("client_app", "task"): "the two Flower apps share one task",
}

#: What may not be loaded by `import …` of these modules (a portal reads runs without torch).
LIGHT = {
    "fl_inmetro.config": ("torch", "flwr", "ray", "pyarrow", "plotly"),
    "fl_inmetro.metrics": ("torch", "flwr", "ray", "pyarrow", "pydantic", "plotly"),
    "fl_inmetro.privacy.accountant": ("torch", "flwr", "numpy", "scipy", "dp_accounting"),
    "fl_inmetro.privacy.signed": ("torch", "flwr", "numpy", "cryptography", "dp_accounting"),
    "fl_inmetro.runs.record": ("torch", "flwr", "ray", "plotly"),
    "fl_inmetro.runs.recorder": ("torch", "flwr", "ray", "plotly"),
    "fl_inmetro.report.html": ("torch", "flwr", "ray"),
    "fl_inmetro.ev.calibration": ("torch", "flwr", "ray", "pyarrow", "plotly"),
    "fl_inmetro.ev.charging.hurdle": ("torch", "flwr", "ray", "pyarrow", "plotly"),
    "fl_inmetro.data.load": ("torch", "flwr", "ray", "plotly"),
    "fl_inmetro.cli.app": ("torch", "flwr", "ray", "numpy", "pyarrow", "pydantic", "plotly"),
}

#: Lines of a file; one that is longer needs an entry with its reason, up to the hard limit.
LONG, HARD_LIMIT = 420, 600
LONG_FOR_A_REASON: dict[str, str] = {}


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every `fl_inmetro.…` a file imports, also inside functions, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            names = (
                [f"{module}.{alias.name}" for alias in node.names]
                if module == "fl_inmetro"
                else [module]
            )
        else:
            continue
        yield from ((n, node.lineno) for n in names if n.split(".")[0] == "fl_inmetro")


def test_every_module_has_a_floor():
    assert {top(path) for path in MODULES} - {"__init__"} == set(RANK)


def test_imports_go_down_the_ranks():
    wrong = []
    used = set()
    for path in MODULES:
        here = top(path)
        for name, line in imports(path):
            there = name.split(".")[1] if "." in name else "__init__"
            if there in (here, "__init__", "__version__"):
                continue
            if here != "__init__" and RANK[there] < RANK[here]:
                continue
            used.add((here, there))
            if (here, there) not in NEIGHBOURS:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} may not import {there}")
    assert not wrong, "\n".join(wrong)
    assert used == set(NEIGHBOURS), "neighbours that nobody needs any more"


def test_neighbours_do_not_know_each_other_both_ways():
    assert not {(b, a) for a, b in NEIGHBOURS} & set(NEIGHBOURS)
    assert all(RANK[a] == RANK[b] for a, b in NEIGHBOURS)


def test_the_layer_test_would_notice(tmp_path, monkeypatch):
    """A metric that imports the federation, also from inside a function, is found."""
    module = tmp_path / "metrics" / "bad.py"
    module.parent.mkdir()
    module.write_text("def f():\n    from fl_inmetro.federation import rules\n", encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "MODULES", [module])
    with pytest.raises(AssertionError, match="metrics may not import federation"):
        test_imports_go_down_the_ranks()


@pytest.mark.parametrize("module", LIGHT)
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    code = f"import sys, {module}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    loaded = set(out.stdout.split())
    assert "fl_inmetro" in loaded
    assert not loaded & set(LIGHT[module])


def test_no_file_is_too_long():
    files = [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]
    lengths = {
        str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files
    }
    assert {name for name, n in lengths.items() if n > LONG} == set(LONG_FOR_A_REASON)
    assert max(lengths.values()) <= HARD_LIMIT


def test_names_say_what_is_inside():
    empty_names = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
    assert not [path for path in MODULES if empty_names & {*path.parts, path.stem}]


def test_every_module_begins_with_one_sentence():
    for path in MODULES:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, f"{path} has no docstring"
        assert docstring.splitlines()[0].endswith("."), f"{path}: first line is no sentence"
