"""Cleaning of a whole source: every client, all faults at once, and clients against each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fl_inmetro.config.schema import Cleaning
from fl_inmetro.data.cleaning import levels
from fl_inmetro.data.cleaning.client import clean_client
from fl_inmetro.data.cleaning.findings import Ledger
from fl_inmetro.data.readings import Opened
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.errors import DataError
from fl_inmetro.i18n.said import said
from fl_inmetro.units import HOUR_S

#: Faults of a client that `drop_short` turns into an exclusion.
DROPPABLE = frozenset({"FL205", "FL206"})


@dataclass
class Cleaned:
    """What cleaning made of a source.

    Attributes:
        series: Client to its series; steps may still differ between clients.
        readings: Number of readings that came in, per client.
        excluded: Client to the reason it was left out.
        ledger: Findings and faults.
    """

    series: dict[str, ClientSeries] = field(default_factory=dict)
    readings: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)


def clean_source(source: Opened, names: Iterable[str], rules: Cleaning) -> Cleaned:
    """Clean the clients `names` of a source; faults are collected in the ledger, not raised."""
    result = Cleaned()
    ledger = result.ledger
    for name in names:
        try:
            readings = source.clients[name]()
            result.readings[name] = int(readings.value.size)
            result.series[name] = clean_client(readings, source, rules, ledger)
        except DataError as error:
            droppable = all(fault.code in DROPPABLE for fault in error.faults)
            if rules.drop_short and droppable:
                result.excluded[name] = "; ".join(fault.what for fault in error.faults)
                ledger.findings = [
                    replace(f, action="reported")
                    if f.client_id == name and f.action == "refused"
                    else f
                    for f in ledger.findings
                ]
            else:
                ledger.faults.extend(error.faults)
    # Per hour, so that clients of different steps can be told apart by level.
    hourly = {
        name: levels.level(series.energy_kwh) * HOUR_S / series.resolution_s
        for name, series in result.series.items()
    }
    for name, (factor, meaning) in levels.odd_clients(hourly).items():
        ledger.note(
            name,
            "unit_suspicion",
            int(result.series[name].valid.sum()),
            "reported",
            (),
            said("level_differs", factor=f"{factor:g}", meaning=meaning),
        )
    return result
