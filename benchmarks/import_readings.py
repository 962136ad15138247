"""Import ten million readings of a long CSV: read, clean, build; prints seconds and peak memory.

    python benchmarks/import_readings.py [--readings 10000000] [--clients 300] [--layout long|wide]

The file is made in a temporary folder (not timed). The import runs in a process of its own, so that
its peak memory is that of the import and not of making the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fl_inmetro.seeds import derive

STEP_S = 900
START = np.datetime64("2022-01-01T00:00", "s")


def make(path: Path, readings: int, clients: int, layout: str, order: str) -> int:
    """Write the file; returns the number of readings in it."""
    steps = readings // clients
    stamps = np.datetime_as_string(START + np.arange(steps) * STEP_S, unit="s")
    stamps = np.char.replace(stamps, "T", " ")
    rng = derive(0, "benchmark", "import")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if layout == "wide":
            file.write(";".join(['""', *(f'"MT_{i:03d}"' for i in range(clients))]) + "\n")
            for stamp in stamps:
                row = np.char.replace(np.char.mod("%.4f", rng.gamma(2.0, 0.2, clients)), ".", ",")
                file.write(f'"{stamp}";' + ";".join(row) + "\n")
            return steps * clients
        file.write("client_id,timestamp,energy_kwh\n")
        if order == "time":
            names = [f"meter-{i:04d}" for i in range(clients)]
            for stamp in stamps:
                values = np.char.mod("%.3f", rng.gamma(2.0, 0.2, clients))
                file.write(
                    "".join(f"{n},{stamp},{v}\n" for n, v in zip(names, values, strict=True))
                )
            return steps * clients
        for client in range(clients):
            values = np.char.mod("%.3f", rng.gamma(2.0, 0.2, steps))
            name = f"meter-{client:04d}"
            file.write("".join(f"{name},{s},{v}\n" for s, v in zip(stamps, values, strict=True)))
    return steps * clients


def measure(path: Path, layout: str) -> None:
    """Import the file and print one JSON object."""
    from fl_inmetro.config.schema import Data, FileFormat
    from fl_inmetro.data.load import load_with_report

    wide = FileFormat(decimal=",", unit="kW", timezone="Europe/Lisbon", timestamp_marks="end")
    settings = wide if layout == "wide" else FileFormat()
    begin = time.perf_counter()
    data, report = load_with_report(Data(source=layout, path=str(path), format=settings))
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "readings": report.readings,
                "clients": len(data),
                "seconds": round(seconds, 2),
                "peak_rss_mb": round(peak / 1e6),
                "findings": report.counts(),
            }
        )
    )


def main() -> None:
    """Make the file, import it in a child process, print the figures and the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--readings", type=int, default=10_000_000)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--layout", choices=("long", "wide"), default="long")
    parser.add_argument("--order", choices=("client", "time"), default="client")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure, chosen.layout)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.csv"
        make(path, chosen.readings, chosen.clients, chosen.layout, chosen.order)
        print(f"file: {path.stat().st_size / 1e6:.0f} MB, {chosen.layout}, by {chosen.order}")
        command = [sys.executable, __file__, "--layout", chosen.layout, "--measure", str(path)]
        subprocess.run(command, check=True)
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
