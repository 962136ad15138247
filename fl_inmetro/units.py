"""Energy, power, resolution and UTC instants, and the only conversions between them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

HOUR_S = 3600
DAY_S = 86_400

Unit = Literal["Wh", "kWh", "MWh", "W", "kW", "MW"]

#: Factor from an energy unit to kWh, or from a power unit to kW.
TO_KILO: dict[str, float] = {
    "Wh": 1e-3,
    "kWh": 1.0,
    "MWh": 1e3,
    "W": 1e-3,
    "kW": 1.0,
    "MW": 1e3,
}


def is_power(unit: str) -> bool:
    """Tell whether `unit` measures power (W, kW, MW) and not energy."""
    return not unit.endswith("h")


def to_kwh(value: NDArray[np.float64], unit: str, resolution_s: int) -> NDArray[np.float64]:
    """Convert readings to kWh per step.

    A power reading is the mean over its step, so energy = power × step.

    Shapes: any shape in, the same out.

    >>> to_kwh(np.array([4.0]), "kW", 900)
    array([1.])
    """
    factor = TO_KILO[unit]
    return value * (factor * resolution_s / HOUR_S if is_power(unit) else factor)


def epoch_s(moment: datetime) -> int:
    """Return seconds since 1970-01-01 UTC; a naive moment is taken as UTC."""
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def iso_utc(second: int) -> str:
    """Write an epoch second as `YYYY-MM-DDTHH:MM:SSZ`.

    >>> iso_utc(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(int(second), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
