"""What cleaning found and did: findings per client, and the report that holds them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fl_inmetro.errors import Fault

Action = Literal["repaired", "marked missing", "reported", "refused"]

#: Every kind of finding, in the order of the report. Texts: `i18n/*/data.toml`, table `finding`.
KINDS = (
    "out_of_order",
    "missing_value",
    "nonexistent_hour",
    "repeated_hour",
    "jitter",
    "off_grid",
    "duplicate",
    "conflicting_duplicate",
    "register_reset",
    "register_rollover",
    "changing_resolution",
    "zero_missing",
    "negative",
    "impossible_low",
    "flat",
    "outlier",
    "gap",
    "gap_filled",
    "unit_suspicion",
    "level_change",
    "begins_late",
    "ends_early",
    "empty",
    "too_short",
)

#: How many places a finding names.
PLACES = 3


@dataclass(frozen=True)
class Finding:
    """One kind of thing found in one client.

    Attributes:
        client_id: The client; empty for a finding about a whole file.
        kind: One of `KINDS`.
        count: Number of readings (or steps, for gaps) concerned.
        action: What was done.
        places: The first few places: file, line, stamp; or an instant.
        detail: Numbers that explain it, in English; empty when there is nothing to add.
    """

    client_id: str
    kind: str
    count: int
    action: Action
    places: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class ClientSummary:
    """One client after cleaning: what came in and what is usable."""

    client_id: str
    readings: int
    steps: int
    valid_steps: int
    start_utc: str
    end_utc: str
    resolution_s: int
    mean_kw: float


@dataclass(frozen=True)
class CleaningReport:
    """Everything that was found in one source.

    Attributes:
        source: Name of the source.
        readings: Number of readings that came in, over all clients.
        clients: The clients that are left.
        findings: What was found, client by client.
        excluded: Client to the reason it was left out.
        assumed: What the reader decided by itself.
        faults: Why the data are refused; empty when they are not.
    """

    source: str
    readings: int = 0
    clients: tuple[ClientSummary, ...] = ()
    findings: tuple[Finding, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def refused(self) -> bool:
        """Tell whether the data cannot be used as they are."""
        return bool(self.faults)

    def counts(self) -> dict[str, int]:
        """Return the number of readings per kind of finding, over all clients."""
        total: dict[str, int] = {}
        for finding in self.findings:
            total[finding.kind] = total.get(finding.kind, 0) + finding.count
        return {kind: total[kind] for kind in KINDS if kind in total}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types (keys: see `docs/data.md`)."""
        return {
            "source": self.source,
            "readings": self.readings,
            "refused": self.refused,
            "counts": self.counts(),
            "clients": [vars(client).copy() for client in self.clients],
            "findings": [{**vars(f), "places": list(f.places)} for f in self.findings],
            "excluded": dict(self.excluded),
            "assumed": list(self.assumed),
            "faults": [vars(fault).copy() for fault in self.faults],
        }


class Ledger:
    """Collects findings and faults while a source is cleaned."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.faults: list[Fault] = []

    def note(
        self,
        client_id: str,
        kind: str,
        count: int,
        action: Action,
        places: Iterable[str] = (),
        detail: str = "",
    ) -> None:
        """Write a finding down; one of count 0 is none."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind of finding: {kind}")
        if count:
            first = tuple(places)[:PLACES]
            self.findings.append(Finding(client_id, kind, int(count), action, first, detail))

    def refuse(self, fault: Fault) -> None:
        """Write a reason down for which the data are refused."""
        self.faults.append(fault)
