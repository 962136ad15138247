"""Whole runs by published protocols, on small files in the layouts of the public sets."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fl_inmetro import session
from fl_inmetro.config.load import load as load_config
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.plan import prepare
from fl_inmetro.runs.record import RunRecord

EXAMPLES = Path(__file__).parents[1] / "examples" / "protocols"
HOURS, CLIENTS = 1_200, 3


def loads() -> np.ndarray:
    """Hourly loads of three clients of very different size; shape (T, 3)."""
    rng = np.random.default_rng(5)
    hour = np.arange(HOURS)[:, None]
    shape = 2 + np.sin(2 * np.pi * hour / 24) + 0.3 * rng.random((HOURS, CLIENTS))
    return np.round(shape * np.array([1.0, 30.0, 900.0]), 3)


def without_header(folder: Path) -> Path:
    path = folder / "electricity.txt"
    np.savetxt(path, loads(), delimiter=",", fmt="%.3f")
    return path


def with_dates(folder: Path) -> Path:
    path = folder / "electricity.csv"
    first = datetime(2016, 7, 1, 2)
    lines = ["date,0,1,OT"]
    for k, row in enumerate(loads()):
        stamp = first + timedelta(hours=k)
        lines.append(f"{stamp:%Y-%m-%d %H:%M:%S}," + ",".join(f"{value:.3f}" for value in row))
    path.write_text("\n".join(lines) + "\n")
    return path


def scores(
    tmp_path: Path, example: str, path: Path, *models: str, **protocol: Any
) -> dict[tuple[str, str], dict[str, float]]:
    """Return the rows of an example's comparison on another file."""
    config = load_config(EXAMPLES / example)
    data = config.data.model_copy(update={"path": str(path)})
    compare = config.compare.model_copy(
        update={"models": models, "training": ("federated", "centralised")}
    )
    settings = config.model_copy(
        update={
            "data": data,
            "compare": compare,
            "protocol": config.protocol.model_copy(update=protocol),
        }
    )
    run = session.start(settings, "compare", tmp_path / "runs", lambda event: None, lambda: False)
    return {(row["model"], row["training"]): row for row in RunRecord.open(run).scores()}


def yesterday(y: np.ndarray, issue: int, horizon: int) -> np.ndarray:
    """The same hours of the last day before the issue, again and again."""
    return np.stack([y[issue - 24 + h % 24] for h in range(horizon)])


def test_ltsf_by_the_plain_loop_of_the_published_loaders(tmp_path):
    rows = scores(
        tmp_path, "ltsf.toml", with_dates(tmp_path), "sn24", "ridge", horizon=30, look_back=168
    )
    y = loads()
    train, test, horizon = int(HOURS * 0.7), HOURS - int(HOURS * 0.2), 30
    z = (y - y[:train].mean(axis=0)) / y[:train].std(axis=0)
    errors = np.stack(
        [yesterday(z, i, horizon) - z[i : i + horizon] for i in range(test, HOURS - horizon + 1)]
    )
    row = rows["sn24", "baseline"]
    assert row["protocol_mse"] == pytest.approx((errors**2).mean(), rel=1e-9)
    assert row["protocol_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-9)
    assert row["protocol_points"] == errors.size
    # Every model is scored on the same points; in a comparison, ours stand beside.
    for key in (("ridge", "federated"), ("ridge", "centralised")):
        assert rows[key]["protocol_points"] == errors.size
        assert rows[key]["protocol_missing"] == 0
        assert rows[key]["protocol_mse"] < row["protocol_mse"]
        assert rows[key]["nmae"] > 0
    # Ridge from sums is the pooled ridge, by whatever it is scored.
    assert rows["ridge", "federated"]["protocol_mse"] == pytest.approx(
        rows["ridge", "centralised"]["protocol_mse"], rel=1e-4
    )


def test_lstnet_by_the_plain_loop(tmp_path):
    rows = scores(tmp_path, "lstnet.toml", without_header(tmp_path), "sn24", horizon=6)
    y = loads()
    target = np.arange(int((0.6 + 0.2) * HOURS), HOURS)
    # Six hours ahead, the same hour of the day before is known.
    made = y[target - 24]
    rse = np.sqrt(((made - y[target]) ** 2).sum() / ((y[target] - y[target].mean()) ** 2).sum())
    corr = np.mean([np.corrcoef(made[:, k], y[target, k])[0, 1] for k in range(CLIENTS)])
    row = rows["sn24", "baseline"]
    assert row["protocol_rse"] == pytest.approx(rse, rel=1e-9)
    assert row["protocol_corr"] == pytest.approx(corr, rel=1e-9)
    assert row["protocol_points"] == target.size * CLIENTS


def test_gift_eval_by_the_plain_loop(tmp_path):
    path = tmp_path / "LD2011_2014.txt"
    y = loads()
    # Quarters of an hour in kW, stamps at their end, decimal commas, in winter: no change of clock.
    first = datetime(2011, 1, 1)
    lines = ['"";"MT_001";"MT_002";"MT_003"']
    for k in range(4 * HOURS):
        stamp = first + timedelta(minutes=15 * (k + 1))
        values = ";".join(f"{value:.3f}".replace(".", ",") for value in y[k // 4])
        lines.append(f'"{stamp:%Y-%m-%d %H:%M:%S}";{values}')
    path.write_text("\n".join(lines) + "\n")
    rows = scores(tmp_path, "gift-eval.toml", path, "sn24", "slot_quantiles")
    windows = min(20, int(np.ceil(0.1 * HOURS / 48)))
    scaled, off, load = [], 0.0, 0.0
    for issue in range(HOURS - windows * 48, HOURS, 48):
        for k in range(CLIENTS):
            change = np.abs(y[24:issue, k] - y[: issue - 24, k]).mean()
            distance = np.abs(yesterday(y[:, k], issue, 48) - y[issue : issue + 48, k])
            scaled.extend(distance / change)
            off, load = off + distance.sum(), load + np.abs(y[issue : issue + 48, k]).sum()
    row = rows["sn24", "baseline"]
    assert row["protocol_points"] == windows * 48 * CLIENTS
    assert row["protocol_mase"] == pytest.approx(np.mean(scaled), rel=1e-9)
    assert row["protocol_nd"] == pytest.approx(off / load, rel=1e-9)
    assert row.get("protocol_crps") is None
    assert 0 < rows["slot_quantiles", "baseline"]["protocol_crps"] < 1


def test_buildingsbench_by_the_plain_loop(tmp_path):
    rng = np.random.default_rng(8)
    folder, errors = tmp_path / "BDG-2", []
    folder.mkdir()
    for name, first, days in (
        ("bear", datetime(2016, 1, 1), 230),
        ("fox", datetime(2017, 5, 1), 215),
    ):
        y = np.round(
            5 + 3 * np.sin(np.arange(24 * days) * 2 * np.pi / 24) + rng.random(24 * days), 3
        )
        stamps = (first + timedelta(hours=k) for k in range(24 * days))
        lines = [f"{at:%Y-%m-%d %H:%M:%S},{v:.3f}" for at, v in zip(stamps, y, strict=True)]
        path = folder / f"{name}_clean={first.year}.csv"
        path.write_text("\n".join(["timestamp,power", *lines]) + "\n")
        # The test set of the authors: all after hour 180 · 24, its windows with their context.
        test = y[180 * 24 + 1 :]
        square, load = [], []
        for k in range((len(test) - 168 - 24) // 24):
            past, target = test[24 * k : 24 * k + 168], test[24 * k + 168 : 24 * k + 192]
            made = past.reshape(7, 24).mean(axis=0)
            square.extend((made - target) ** 2)
            load.extend(target)
        errors.append(np.sqrt(np.mean(square)) / np.mean(load))
    row = scores(tmp_path, "buildingsbench.toml", folder, "persistence_ensemble")
    found = row["persistence_ensemble", "baseline"]
    assert found["protocol_nrmse"] == pytest.approx(np.median(errors), rel=1e-9)


def test_a_window_beside_a_protocol_is_an_error():
    with pytest.raises(ValidationError, match=r"\[window\]"):
        RunConfig.model_validate({"protocol": {"name": "ltsf"}, "window": {"horizon_h": 48.0}})


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_a_configuration_of_its_protocol(path):
    config = load_config(path)
    assert config.protocol.name == path.stem
    assert config.protocol.enabled


def test_the_windows_of_a_run_are_those_of_its_protocol(tmp_path):
    config = load_config(EXAMPLES / "lstnet.toml")
    data = config.data.model_copy(update={"path": str(without_header(tmp_path))})
    prepared = prepare(config.model_copy(update={"data": data}))
    assert prepared.splits.horizon == 24
    assert list(prepared.tests) == list(prepared.clients)
