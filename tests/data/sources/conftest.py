"""Small files made for the tests: hours of several meters, written in many layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

START = datetime(2024, 1, 1)


@pytest.fixture
def long_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write a long CSV of whole days; `stamp` says how an instant is written."""

    def write(
        stamp: str | Callable[[datetime], str] = "%Y-%m-%d %H:%M",
        days: int = 40,
        clients: Sequence[str] = ("a", "b"),
        name: str = "meters.csv",
        start: datetime = START,
        edit: Callable[[list[str]], list[str]] = lambda rows: rows,
    ) -> Path:
        rng = np.random.default_rng(0)
        rows = []
        for client in clients:
            for hour in range(24 * days):
                moment = start + timedelta(hours=hour)
                text = moment.strftime(stamp) if isinstance(stamp, str) else stamp(moment)
                rows.append(f"{client},{text},{rng.uniform(1, 2):.3f}")
        path = tmp_path / name
        path.write_text("\n".join(["client_id,timestamp,energy_kwh", *edit(rows)]) + "\n")
        return path

    return write
