"""Shops and offices: opening hours, light, cooling, in some of them refrigeration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fl_inmetro.data.simulator.appliances import BIN_H
from fl_inmetro.data.simulator.atmosphere import Sky
from fl_inmetro.data.simulator.clock import SATURDAY, SUNDAY_OR_HOLIDAY, Clock, Floats
from fl_inmetro.data.simulator.households import Stream
from fl_inmetro.data.simulator.intervals import place


@dataclass(frozen=True)
class Trade:
    """One kind of business; all of it is an assumption (see docs/simulator.md).

    Attributes:
        share: Share among the commercial clients.
        opens_min: Usual local minute of opening on working days.
        closes_min: Usual local minute of closing on working days.
        saturday_closes_min: The same on Saturdays; 0 = closed on Saturdays.
        area_m2: Median floor area.
        light_kw_m2: Lighting power density.
        plug_kw_m2: Power density of devices in use.
        refrigeration_kw_m2: Mean power density of cold storage, all day and night.
    """

    share: float
    opens_min: float
    closes_min: float
    saturday_closes_min: float
    area_m2: float
    light_kw_m2: float
    plug_kw_m2: float
    refrigeration_kw_m2: float


TRADES: Mapping[str, Trade] = MappingProxyType(
    {
        "retail": Trade(0.45, 540, 1110, 840, 70, 0.011, 0.004, 0.0),
        "office": Trade(0.30, 495, 1080, 0, 90, 0.009, 0.010, 0.0),
        "grocery": Trade(0.25, 420, 1200, 1140, 90, 0.012, 0.005, 0.016),
    }
)

#: Electric power of cooling per floor area at full load, and from which air temperature it runs.
COOLING_KW_M2 = 0.035
COOLING_FROM_DEG_C = 20.0
#: Devices, signs and alarms outside opening hours, as a share of the daytime devices.
NIGHT_SHARE = 0.12


def shop_energy(clock: Clock, sky: Sky, stream: Stream) -> Floats:
    """Return the energy of a shop or an office, shape (T,) in kWh per bin.

    Closed on Sundays and national holidays, but for what runs always.
    """
    rng = stream("shop")
    names = tuple(TRADES)
    trade = TRADES[names[int(rng.choice(len(names), p=[TRADES[n].share for n in names]))]]
    area_m2 = float(np.clip(trade.area_m2 * np.exp(rng.normal(0, 0.5)), 20, 500))
    shift = rng.normal(0, 30, 2)
    cooled = rng.random() < 0.75

    jitter = stream("shop-days").standard_normal((clock.days, 3))
    saturday = clock.day_kind == SATURDAY
    closes = np.where(saturday, trade.saturday_closes_min, trade.closes_min + shift[1])
    opens = trade.opens_min + shift[0] + 6 * jitter[:, 0]
    closes = closes + 10 * jitter[:, 1]
    is_open = (clock.day_kind != SUNDAY_OR_HOLIDAY) & (closes > opens + 60)
    # Share of the bin within opening hours; staff come before the doors open and stay after.
    staffed = place(clock, opens - 20, closes - opens + 40, 4.0, is_open)
    trading = place(clock, opens, closes - opens, 4.0, is_open)

    busy = np.exp(0.12 * jitter[:, 2])[clock.day_of_bin]
    hum = np.exp(0.06 * stream("shop-bins").standard_normal(clock.bins))
    light_kw = trade.light_kw_m2 * area_m2 * (0.35 * staffed + 0.65 * trading)
    plug_kw = trade.plug_kw_m2 * area_m2 * (NIGHT_SHARE + (1 - NIGHT_SHARE) * trading * busy)
    degrees = sky.air_deg_c - COOLING_FROM_DEG_C + 0.004 * sky.irradiance_w_m2
    cooling_kw = COOLING_KW_M2 * area_m2 * cooled * trading * np.clip(degrees / 12.0, 0.0, 1.0)
    cold_kw = trade.refrigeration_kw_m2 * area_m2 * (1 + 0.025 * (sky.indoor_deg_c - 25))
    cold_kw *= 0.9 + 0.25 * trading  # doors are opened
    return (light_kw + plug_kw + cooling_kw + cold_kw) * hum * BIN_H
