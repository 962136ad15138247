"""The vehicle dynamics beside the rated consumption of six cars, on the cycles they are rated on.

    FL_INMETRO_DATA=… python benchmarks/ev_rated.py

The window sticker says kWh per mile from the socket, adjusted to real driving. A model says what
leaves the battery on UDDS (city) and HWFET (highway). Between them lie the charger (86 %) and the
adjustment of at most 30 % that FASTSim applies to its own battery cars; so model / 0.86 / 0.7.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from fl_inmetro.ev.drives import Drives, one_drive  # noqa: E402
from fl_inmetro.ev.dynamics import trip_energies  # noqa: E402
from fl_inmetro.ev.parameters import Vehicle, public_cars  # noqa: E402

MILE_KM = 1.609344
CHARGER_EFFICIENCY = 0.86
MOST_ADJUSTMENT = 0.3


@dataclass(frozen=True)
class Row:
    """One car: city, highway and both (55 : 45), in kWh per mile."""

    car: str
    laboratory: tuple[float, float, float]
    label: tuple[float, float, float]
    rated: tuple[float, float, float] | None

    @property
    def deviation_percent(self) -> tuple[float, ...]:
        """Model over rated."""
        if self.rated is None:
            return ()
        return tuple(100 * (a / b - 1) for a, b in zip(self.label, self.rated, strict=True))


def cycles(folder: Path) -> dict[str, Drives]:
    """Read the standard cycles, at 22 °C: a test cell has 20 to 30 °C (40 CFR 1066)."""
    table = pq.read_table(folder / "drive_cycles" / "standard_cycles_1hz.parquet").to_pandas()
    return {
        str(name): one_drive(
            rows["cycMps"].to_numpy(np.float64),
            22.0,
            np.nan_to_num(rows["cycGrade"].to_numpy(np.float64)),
        )
        for name, rows in table.groupby("cycle", observed=True)
        if np.all(np.diff(rows["cycSecs"]) == 1)
    }


def laboratory(vehicle: Vehicle, drives: dict[str, Drives]) -> tuple[float, float, float]:
    """Return kWh per mile from the battery on UDDS and HWFET, and of both."""
    city, highway = (
        float(energy.battery_kwh[0] / energy.distance_km[0] * MILE_KM)
        for energy in (trip_energies(drives[name], vehicle) for name in ("udds", "hwfet"))
    )
    return city, highway, 0.55 * city + 0.45 * highway


def rows(folder: Path) -> list[Row]:
    """Return one row for each of the public cars."""
    drives = cycles(folder)
    found = []
    for name, car in public_cars().items():
        laboratory_values = laboratory(car.vehicle, drives)
        socket = CHARGER_EFFICIENCY * (1 - MOST_ADJUSTMENT)
        city, highway, both = (value / socket for value in laboratory_values)
        found.append(Row(name, laboratory_values, (city, highway, both), car.rated_kwh_per_mile))
    return found


def main() -> None:
    """Print the table."""
    print("| car | battery, city / highway / both | label by model | rated | deviation, % |")
    print("|---|---|---|---|---|")
    for row in rows(Path(os.environ["FL_INMETRO_DATA"])):
        texts = [
            " / ".join(f"{value:.3f}" for value in values)
            for values in (row.laboratory, row.label, row.rated or ())
        ]
        deviation = " / ".join(f"{value:+.1f}" for value in row.deviation_percent)
        print(f"| {row.car} | {' | '.join(texts)} | {deviation} |")


if __name__ == "__main__":
    main()
