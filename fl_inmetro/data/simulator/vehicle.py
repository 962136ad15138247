"""Charging of an electric car at home."""

from __future__ import annotations

import numpy as np

from fl_inmetro.data.simulator.clock import Floats
from fl_inmetro.data.simulator.households import Scene
from fl_inmetro.data.simulator.intervals import place

#: Energy from the socket per distance: 0.16 kWh/km in the car, 88 % charging efficiency.
SOCKET_KWH_PER_KM = 0.16 / 0.88
#: No charge takes more than this (the usable battery of a mid-size car).
BATTERY_KWH = 45.0
CHARGER_KW = (3.7, 7.4)
CHARGER_SHARE = (0.55, 0.45)


def charging(scene: Scene) -> Floats:
    """Return the energy of home charging, shape (T,) in kWh per bin.

    The car drives every day the home is lived in (log-normal distances, less on Sundays). It is
    plugged in on some evenings, on arrival or, in some homes, by a timer at 23 h, and then takes
    what was driven since the last charge, at constant power.
    """
    days, clock = scene.presence, scene.clock
    rng = scene.stream("vehicle")
    power_kw = rng.choice(CHARGER_KW, p=CHARGER_SHARE)
    usual_km, eagerness = np.exp(rng.normal(np.log(30), 0.35)), rng.uniform(0.35, 0.9)
    by_timer = rng.random() < 0.25
    shifts = scene.stream("vehicle-days").standard_normal((clock.days, 2))
    chance = scene.stream("vehicle-plugs").random(clock.days)
    factor = np.where(clock.free_day, 0.7, 1.0) * np.exp(0.45 * shifts[:, 0] - 0.1)
    need_kwh = np.where(days.at_home, usual_km * factor * SOCKET_KWH_PER_KM, 0.0)
    plugged = days.at_home & (chance < eagerness)
    charged_kwh = np.zeros(clock.days)
    since_last = np.diff(np.cumsum(need_kwh)[plugged], prepend=0.0)
    charged_kwh[plugged] = np.minimum(since_last, BATTERY_KWH)
    arrival = days.return_min + 20 + 35 * shifts[:, 1]
    start = np.where(by_timer, 1380.0 + 5 * shifts[:, 1], arrival)
    return place(clock, start, 60.0 * charged_kwh / power_kw, power_kw, plugged)
