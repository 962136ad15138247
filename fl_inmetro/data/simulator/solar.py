"""Photovoltaic panels on the roof of a home."""

from __future__ import annotations

from fl_inmetro.data.simulator.appliances import BIN_H
from fl_inmetro.data.simulator.clock import Floats
from fl_inmetro.data.simulator.households import Scene

#: Losses of inverter, wiring, dirt and orientation (assumption; tilt is not modelled).
PERFORMANCE_RATIO = 0.80
#: Loss of crystalline silicon per degree above 25, and how much a module is warmer than the air.
LOSS_PER_DEG_C = 0.004
WARMING_DEG_C_M2_W = 0.028


def photovoltaic(scene: Scene) -> Floats:
    """Return the generated energy, shape (T,) in kWh per bin.

    The system is sized by the household, as owners do to cover about their own consumption:
    about 1.3 to 7.2 kW of peak power. It follows the global horizontal irradiance of the weather.
    """
    rng = scene.stream("panels")
    size_kw = min(6.0, 1.0 + scene.home.affluence * (0.5 + 0.4 * scene.home.residents))
    size_kw *= rng.uniform(0.85, 1.2)
    module_deg_c = scene.sky.air_deg_c + WARMING_DEG_C_M2_W * scene.sky.irradiance_w_m2
    efficiency = PERFORMANCE_RATIO * (1.0 - LOSS_PER_DEG_C * (module_deg_c - 25.0))
    return size_kw * scene.sky.irradiance_w_m2 / 1000.0 * efficiency * BIN_H
