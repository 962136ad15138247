"""Which properties the clients of a run have: by their readings, or as the simulator made them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import local_clock
from fl_inmetro.data.simulator.build import client_name, has_trait
from fl_inmetro.leakage.property import low_share, median_split
from fl_inmetro.leakage.scene import Scene
from fl_inmetro.learning.client import ClientData
from fl_inmetro.units import HOUR_S

Bools = NDArray[np.bool_]

#: Local hours in which a home sleeps, and in which it cooks and washes.
NIGHT, EVENING = (0, 6), (18, 22)


def traits_of(scene: Scene) -> dict[str, Bools]:
    """Return, for each property, which of the scene's clients has it; (K,) each.

    `night-low` and `evening-high` split the clients at the median of the share of their load that
    falls into those hours, over the readings that were trained on. Of simulated clients it is
    known who has a vehicle, panels or air conditioning, or is a shop.
    """
    clients = [scene.workers[name].data for name in scene.names]
    night = np.array([_share(one, *NIGHT) for one in clients])
    evening = np.array([_share(one, *EVENING) for one in clients])
    found = {}
    if np.isfinite(night).any():
        found["night-low"] = median_split(night, above=False)
        found["evening-high"] = median_split(evening, above=True)
    made = _simulated(scene)
    for trait in ("vehicle", "pv", "air_conditioning", "commercial"):
        if made:
            key = trait.replace("_", "-")
            found[key] = np.array([made[name][trait] for name in scene.names])
    return found


# ------------------------------------------------------------------------------ internals
def _share(client: ClientData, begin: int, end: int) -> float:
    """Return the share of some hours in the load that a client was trained on, over all its meters.

    The readings from the first training issue to the end of the last training forecast.
    """
    shares = []
    for part in client.train:
        if not len(part):
            continue
        series, first = part.series, int(part.issue_index.min())
        steps = np.arange(max(first, 0), min(int(part.issue_index.max()) + part.reach, len(series)))
        instants = series.start_utc_s + steps * series.resolution_s
        hour = local_clock(instants, part.timezone).second_of_day // HOUR_S
        shares.append(low_share(series.energy_kwh[steps], hour, begin, end))
    known = [one for one in shares if np.isfinite(one)]
    return float(np.mean(known)) if known else float("nan")


def _simulated(scene: Scene) -> Mapping[str, Mapping[str, bool]]:
    """Return client to trait to whether it has it; empty where the run's data are no simulation.

    A shop has none of what a home may have, whatever its number.
    """
    config = scene.config
    if config.data.source != "simulator":
        return {}
    settings = config.data.simulator
    seed = config.seed if settings.seed is None else settings.seed
    shares = {
        "vehicle": settings.ev_share,
        "pv": settings.pv_share,
        "air_conditioning": settings.air_conditioning_share,
    }
    found = {}
    for number in range(1, settings.clients + 1):
        shop = has_trait("commercial", settings.commercial_share, seed, number)
        owned = {
            trait: not shop and has_trait(trait, share, seed, number)
            for trait, share in shares.items()
        }
        found[client_name(settings, seed, number)] = {**owned, "commercial": shop}
    # Clients of a partition hold windows of many homes: they are none of these.
    return found if set(scene.names) <= set(found) else {}
