"""Air conditioning of homes: split units that follow the weather, mostly at night."""

from __future__ import annotations

import numpy as np

from fl_inmetro.data.simulator.clock import Floats
from fl_inmetro.data.simulator.households import Scene
from fl_inmetro.data.simulator.intervals import place

#: Indoor temperature (without cooling) at which a home thinks of switching on: mean, spread.
SWITCH_ON_DEG_C = (26.0, 1.0)
#: Share of the rated power per degree between the uncooled room and the set point.
LOAD_PER_DEG_C = 0.11


def air_conditioning(scene: Scene) -> Floats:
    """Return the energy of a home's split units, shape (T,) in kWh per bin.

    A bedroom unit runs from bedtime to the morning (or a timer stops it after some hours) on
    nights that are too warm; in larger homes a second unit cools the living room in the evening
    and on hot free afternoons. While on, the power follows the distance of the uncooled room from
    the set point, between a fifth of the rated power and all of it.
    """
    home, days, clock, sky = scene.home, scene.presence, scene.clock, scene.sky
    rng = scene.stream("cooling")
    rated_kw = rng.uniform(0.75, 1.25)  # 9 to 12 kBTU/h
    set_point_deg_c, warm_at = rng.normal(22.5, 0.8), rng.normal(*SWITCH_ON_DEG_C)
    uses_timer = rng.random() < 0.3
    bedrooms = 1 + int(home.residents >= 3 and rng.random() < 0.35 * home.affluence)
    living_room = bool(rng.random() < 0.35 * home.affluence)

    def indoor_at(minute: float) -> Floats:
        return sky.indoor_deg_c[clock.bin_at(np.full(clock.days, minute))]

    shifts = scene.stream("cooling-days").standard_normal((clock.days, 5))
    at_night = days.at_home & (indoor_at(1350) + 0.6 * shifts[:, 0] > warm_at)
    start = days.bed_min - 35 + 20 * shifts[:, 1]
    until = 1440 + days.wake_min - 20 + 15 * shifts[:, 2]
    if uses_timer:
        until = np.minimum(until, start + 240)
    on_kw = bedrooms * rated_kw * place(clock, start, until - start, 4.0, at_night)
    if living_room:
        evening = days.evening & (indoor_at(1170) + 0.6 * shifts[:, 3] > warm_at + 1.2)
        begin = days.return_min + 30
        on_kw += 1.3 * rated_kw * place(clock, begin, start - begin, 4.0, evening)
        hot = days.at_home & clock.free_day & (indoor_at(870) + shifts[:, 4] > warm_at + 2.0)
        on_kw += 1.3 * rated_kw * place(clock, np.full(clock.days, 810.0), 200.0, 4.0, hot)
    load = np.clip(LOAD_PER_DEG_C * (sky.indoor_deg_c - set_point_deg_c), 0.2, 1.0)
    return on_kw * load * 0.25
