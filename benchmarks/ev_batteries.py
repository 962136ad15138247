"""Cells aged in laboratories: cycle life, capacity ahead, and consumption over degradation.

    FL_INMETRO_DATA=… python benchmarks/ev_batteries.py [--json]

Nothing is chosen on the test parts: what is chosen is chosen by leaving out training cells.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from fl_inmetro.ev.batteries import Cells, Lives, read_discharges, read_lives  # noqa: E402
from fl_inmetro.ev.battery_life import (  # noqa: E402
    NAMES,
    VARIANCE,
    fade_features,
    left_out_rmse_cycles,
    life_model,
    life_sums,
)
from fl_inmetro.ev.calibration import total  # noqa: E402
from fl_inmetro.ev.capacity_ahead import FLEET_PAIRS, fleet_sums, forecasts, pairs  # noqa: E402
from fl_inmetro.ev.degradation import (  # noqa: E402
    cell_law_sums,
    degradation_ratio,
    law,
    store_kwh_per_100km,
)
from fl_inmetro.ev.drives import Floats  # noqa: E402
from fl_inmetro.ev.regression import only, regress  # noqa: E402

#: Batches of training cells that keep them apart, as laboratories would.
LABORATORIES = 4

#: Cells at room temperature; of these, those at 2 A.
ROOM = ("B0006", "B0007", "B0033", "B0034", "B0036")
TWO_AMPERES = ("B0006", "B0007", "B0036")

#: Of a small car at its battery's terminals; the law scales with it.
TERMINAL_KWH_PER_100KM = 15.0


def rmse(error: Floats) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def life_row(lives: Lives, features: Floats, columns: tuple[str, ...]) -> dict[str, Any]:
    """Return one model of life on the three parts of the cells."""
    train = lives.of("train")
    number = np.cumsum(train) % LABORATORIES
    model = life_model(
        total(
            life_sums(features[here], lives.life_cycles[here])
            for here in (train & (number == k) for k in range(LABORATORIES))
        ),
        columns,
    )
    pooled = life_model(life_sums(features[train], lives.life_cycles[train]), columns)
    gap = np.abs(model.regression.coefficient / pooled.regression.coefficient - 1).max()
    short = int(np.argmin(lives.life_cycles))
    row: dict[str, Any] = {
        "columns": columns[1:],
        "left_out_rmse": left_out_rmse_cycles(features[train], lives.life_cycles[train], columns),
        "left_out_rmse_median": left_out_rmse_cycles(
            features[train], lives.life_cycles[train], columns, mean=False
        ),
        "federated_gap": float(gap),
        "short_lived": float(model.mean_cycles(features[short : short + 1])[0]),
    }
    for part in ("train", "test1", "test2"):
        here = lives.of(part)
        life = lives.life_cycles[here]
        mean, median = model.mean_cycles(features[here]), model.median_cycles(features[here])
        low, high = model.interval_cycles(features[here])
        usual = life > lives.life_cycles[short]
        row[part] = {
            "rmse_median": rmse(median - life),
            "rmse_mean": rmse(mean - life),
            "rmse_mean_usual": rmse((mean - life)[usual]),
            "mape_median": float(100 * np.mean(np.abs(median / life - 1))),
            "mape_mean": float(100 * np.mean(np.abs(mean / life - 1))),
            "inside_80": float(np.mean((low <= life) & (life <= high))),
        }
    return row


def life_rows(lives: Lives) -> list[dict[str, Any]]:
    """Return the paper's model and, for one to three features more, what leaving out prefers."""
    features = fade_features(lives)
    train = lives.of("train")
    rows = [life_row(lives, features, VARIANCE)]
    others = [name for name in NAMES if name not in VARIANCE]
    for more in (1, 2, 3):
        columns = min(
            ((*VARIANCE, *extra) for extra in combinations(others, more)),
            key=lambda c: left_out_rmse_cycles(features[train], lives.life_cycles[train], c),
        )
        rows.append(life_row(lives, features, columns))
    return rows


def ahead_rows(cells: Cells, horizon: int) -> list[dict[str, Any]]:
    """Return MAE of each cell's capacity ahead: no change, other cells, and its own past too."""
    of = {name: pairs(cells[name], horizon) for name in ROOM}
    found = []
    for name, mine in of.items():
        others = fleet_sums([one for other, one in of.items() if other != name])
        told = {
            "persistence": mine.capacity_ah,
            "other cells": forecasts(mine, others, np.inf),
            "and its own past": forecasts(mine, others, FLEET_PAIRS),
        }
        found.append(
            {
                "cell": name,
                "pairs": len(mine.cycle),
                **{k: float(np.abs(v - mine.ahead_ah).mean()) for k, v in told.items()},
            }
        )
    return found


def law_rows(cells: Cells) -> list[dict[str, Any]]:
    """Return UEC(BDR) of each cell, of all, and of all others on each cell."""
    sums = {name: cell_law_sums(cells[name], TERMINAL_KWH_PER_100KM) for name in TWO_AMPERES}
    found = []
    for name in (*TWO_AMPERES, "all"):
        every = total(sums.values()) if name == "all" else sums[name]
        fit = law(every)
        turn = fit.extremum()
        row: dict[str, Any] = {
            "cell": name,
            "n": every.n,
            "a": fit.regression.coefficient.tolist(),
            "errors": fit.regression.standard_error.tolist(),
            "noise": fit.regression.noise,
            "noise_straight": regress(only(every, ("1", "BDR"))).noise,
            "r_squared": fit.regression.r_squared,
            "turn": [turn.ratio, turn.low, turn.high],
            "at_0.2": float(fit.at(np.array([0.2]))[0]),
        }
        if name != "all":
            cell = cells[name]
            ratio = degradation_ratio(cell.capacity_ah, float(cell.capacity_ah[:5].mean()))
            voltage = cell.mean_voltage_v
            uec = store_kwh_per_100km(TERMINAL_KWH_PER_100KM, voltage, float(voltage[:5].mean()))
            others = law(total(one for other, one in sums.items() if other != name))
            row["most_lost"] = float(ratio.max())
            row["mae_of_others"] = float(np.abs(others.at(ratio) - uec).mean())
            row["mae_of_no_change"] = float(np.abs(TERMINAL_KWH_PER_100KM - uec).mean())
        found.append(row)
    return found


def main() -> None:
    """Print the tables, or the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    data = Path(os.environ["FL_INMETRO_DATA"])
    lives = read_lives(data / "battery_severson")
    cells = read_discharges(data / "battery_nasa" / "discharge_cycles.parquet")
    life = life_rows(lives)
    ahead = {horizon: ahead_rows(cells, horizon) for horizon in (5, 10, 20)}
    laws = law_rows(cells)
    if asked.json:
        print(json.dumps({"life": life, "ahead": ahead, "law": laws}, indent=1))
        return
    print("left out:")
    for fault in (*lives.excluded, *cells.excluded):
        print(f"  {fault.code} {fault.reason()}")
    print("\nRMSE in cycles, of median and of mean lives; `usual` is without the short-lived cell")
    print("| features | left out | test1: median, mean, usual | test2 | MAPE | inside | short |")
    for row in life:
        one, two = row["test1"], row["test2"]
        print(
            f"| {', '.join(row['columns'])} | {row['left_out_rmse_median']:.0f}, "
            f"{row['left_out_rmse']:.0f} "
            f"| {one['rmse_median']:.1f} | {one['rmse_mean']:.1f} | {one['rmse_mean_usual']:.1f} "
            f"| {two['rmse_median']:.1f} | {two['rmse_mean']:.1f} "
            f"| {one['mape_mean']:.1f}, {two['mape_mean']:.1f} "
            f"({one['mape_median']:.1f}, {two['mape_median']:.1f} median) "
            f"| {100 * one['inside_80']:.0f} %, {100 * two['inside_80']:.0f} % "
            f"| {row['short_lived']:.0f} |"
        )
    print(f"federated of {LABORATORIES} against pooled: {life[0]['federated_gap']:.1e}")
    for horizon, rows in ahead.items():
        print(f"\n{horizon} discharges ahead, MAE in Ah:")
        for row in rows:
            told = [f"{row[key]:.4f}" for key in ("persistence", "other cells", "and its own past")]
            print(f"| {row['cell']} | {row['pairs']} | {' | '.join(told)} |")
    print(f"\nUEC(BDR), {TERMINAL_KWH_PER_100KM:g} kWh/100 km at the terminals:")
    for row in laws:
        told = [f"{a:.3f} ± {e:.3f}" for a, e in zip(row["a"], row["errors"], strict=True)]
        more = ""
        if row["cell"] != "all":
            more = (
                f" lost {100 * row['most_lost']:.0f} %, of others {row['mae_of_others']:.3f}, "
                f"no change {row['mae_of_no_change']:.3f} |"
            )
        at, low, high = row["turn"]
        print(
            f"| {row['cell']} | {row['n']} | {' | '.join(told)} | σ {row['noise']:.3f} "
            f"(straight {row['noise_straight']:.3f}) | R² {row['r_squared']:.3f} "
            f"| turn {at:.3f} ({low:.3f} – {high:.3f}) | at 0.2 {row['at_0.2']:.2f} |{more}"
        )


if __name__ == "__main__":
    main()
