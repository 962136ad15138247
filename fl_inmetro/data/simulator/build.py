"""Puts a federation of simulated consumers together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.series import ClientSeries, FederatedData, Manifest
from fl_inmetro.data.simulator.appliances import COMMON, shower
from fl_inmetro.data.simulator.atmosphere import Sky, sky
from fl_inmetro.data.simulator.climates import CLIMATES
from fl_inmetro.data.simulator.clock import BIN_S, BINS_PER_DAY, TIMEZONE, Clock, Floats, clock
from fl_inmetro.data.simulator.cooling import air_conditioning
from fl_inmetro.data.simulator.households import Scene, Stream, household, presence
from fl_inmetro.data.simulator.shops import shop_energy
from fl_inmetro.data.simulator.solar import photovoltaic
from fl_inmetro.data.simulator.vehicle import charging
from fl_inmetro.seeds import derive

LICENCE = "Apache-2.0, as the software that computed it; no person and no meter is behind it"

#: Steps of the golden-ratio kind, one per trait: multiples of them modulo 1 fill [0, 1) evenly
#: from the first client on, so a share of 0.2 means about every fifth client, also of ten.
_STEP = {
    "commercial": (5**0.5 - 1) / 2,
    "air_conditioning": 2**0.5 - 1,
    "pv": 3**0.5 - 1,
    "vehicle": 7**0.5 - 2,
}


def simulate(settings: Simulator, seed: int) -> FederatedData:
    """Simulate Brazilian consumers; nothing in it was measured, and its manifest says so.

    Client k depends on the seed, its number and the settings that concern it (climate, start, the
    four shares): more clients or more days change nothing in what was there before. Everything is
    computed in 15-minute bins; coarser series are sums of those. A home with panels shows what
    its import register counts: consumption minus generation, never below 0, bin by bin.

    Raises:
        ConfigError: FL106, the days lie outside the years whose clocks and holidays are known.
    """
    axis = clock(settings.start, settings.days)
    climate = CLIMATES[settings.climate]
    above = sky(axis, climate, seed)
    resolution_s = settings.resolution_min * 60
    clients: dict[str, ClientSeries] = {}
    for number in range(1, settings.clients + 1):
        client_id = client_name(settings, seed, number)
        energy = np.maximum(
            sum(parts(settings, seed, number, axis, above).values(), np.zeros(axis.bins)), 0.0
        )
        delivered = energy[BINS_PER_DAY:].reshape(-1, resolution_s // BIN_S).sum(axis=1)
        clients[client_id] = ClientSeries(
            client_id, axis.start_utc_s + BINS_PER_DAY * BIN_S, resolution_s, delivered
        )
    return FederatedData(
        clients,
        Manifest(
            source="simulator",
            title=f"SIMULATED Brazilian consumers, climate of {climate.city} (no meter involved)",
            licence=LICENCE,
            citation=(
                f"fl-inmetro, built-in simulator of Brazilian consumers, seed {seed}. "
                "Simulated: not to be cited as measurements"
            ),
            timezone=TIMEZONE,
            resolution_s=resolution_s,
            simulated=True,
        ),
    )


def client_name(settings: Simulator, seed: int, number: int) -> str:
    """Return the id of the client with this number (from 1): `sim-home-003`, `sim-shop-004`."""
    kind = "shop" if has_trait("commercial", settings.commercial_share, seed, number) else "home"
    return f"sim-{kind}-{number:03d}"


def has_trait(trait: str, share: float, seed: int, number: int) -> bool:
    """Tell whether client `number` is among the `share` that has a trait; never depends on others.

    A larger share keeps those who have it already.
    """
    offset = derive(seed, "simulator", "trait", trait).random()
    return bool((offset + number * _STEP[trait]) % 1.0 < share)


def parts(
    settings: Simulator, seed: int, number: int, axis: Clock, above: Sky
) -> Mapping[str, Floats]:
    """Return a client's energy by use, each of shape (T,) in kWh per bin; generation is negative.

    A shop is one part, `shop`. The keys of a home are the appliances it owns.
    """
    stream: Stream = partial(derive, seed, "simulator", "client", number)
    if has_trait("commercial", settings.commercial_share, seed, number):
        return {"shop": shop_energy(axis, above, stream)}
    home = household(
        stream,
        has_trait("air_conditioning", settings.air_conditioning_share, seed, number),
        has_trait("pv", settings.pv_share, seed, number),
        has_trait("vehicle", settings.ev_share, seed, number),
    )
    scene = Scene(axis, above, home, presence(axis, home, stream), stream)
    uses = {name: appliance(scene) for name, appliance in COMMON.items()}
    if stream("shower-owned").random() < CLIMATES[settings.climate].electric_shower_share:
        uses["shower"] = shower(scene)
    if home.has_air_conditioning:
        uses["air_conditioning"] = air_conditioning(scene)
    if home.has_vehicle:
        uses["vehicle"] = charging(scene)
    if home.has_pv:
        uses["pv"] = -photovoltaic(scene)
    return uses
