"""What the rest of the house knows of a client's readings: a dense series on a UTC grid.

Nothing after this type reads a user's file. A `ClientSeries` starts at `start_utc_s` and has one
value per step of `resolution_s`; a step without a usable reading is NaN in `energy_kwh`. Each value
is the energy of the step that *begins* at its instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.site import NOWHERE, Site
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.units import iso_utc

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClientSeries:
    """One client's load.

    Attributes:
        client_id: Stable name of the client.
        start_utc_s: Epoch second at which the first step begins; a multiple of `resolution_s`.
        resolution_s: Length of a step in seconds.
        energy_kwh: Shape (T,), energy of each step in kWh, NaN where there is no usable reading.
            The array is made read-only.
        site: What is known of the client beside its readings.
    """

    client_id: str
    start_utc_s: int
    resolution_s: int
    energy_kwh: Floats
    site: Site = NOWHERE

    def __post_init__(self) -> None:
        if self.resolution_s <= 0 or self.start_utc_s % self.resolution_s:
            raise ValueError(
                f"client {self.client_id}: start {self.start_utc_s} is not on the "
                f"{self.resolution_s} s grid"
            )
        if self.energy_kwh.ndim != 1:
            raise ValueError(f"client {self.client_id}: expected shape (T,)")
        energy = np.ascontiguousarray(self.energy_kwh, dtype=np.float64)
        if energy is self.energy_kwh:
            energy = energy.view()
        energy.flags.writeable = False
        object.__setattr__(self, "energy_kwh", energy)

    def __len__(self) -> int:
        return int(self.energy_kwh.size)

    @property
    def end_utc_s(self) -> int:
        """Epoch second at which the last step ends."""
        return self.start_utc_s + len(self) * self.resolution_s

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Shape (T,): True where there is a usable reading."""
        return np.isfinite(self.energy_kwh)

    def index_of(self, second: int) -> int:
        """Return the step that begins at `second`; may lie outside [0, T).

        Raises:
            ValueError: `second` is not on the grid.
        """
        index, rest = divmod(int(second) - self.start_utc_s, self.resolution_s)
        if rest:
            raise ValueError(f"{iso_utc(second)} is not on the {self.resolution_s} s grid")
        return index

    def cut(self, start_utc_s: int | None = None, end_utc_s: int | None = None) -> ClientSeries:
        """Return the part with steps in [start, end); the values are shared, not copied."""
        first = 0 if start_utc_s is None else min(max(self.index_of(start_utc_s), 0), len(self))
        last = len(self) if end_utc_s is None else min(self.index_of(end_utc_s), len(self))
        last = max(last, first)
        return ClientSeries(
            self.client_id,
            self.start_utc_s + first * self.resolution_s,
            self.resolution_s,
            self.energy_kwh[first:last],
            self.site,
        )


@dataclass(frozen=True)
class ReferenceWindow:
    """The evaluation window a published set of scores uses.

    Days are inclusive and written in `timezone`; a forecast is issued on each of them at
    `issue_time` for the next 24 h.
    """

    test_start: str
    test_end: str
    issue_time: str = "00:00"
    timezone: str = "UTC"


@dataclass(frozen=True)
class Manifest:
    """Where the readings came from and what was done to them; goes into the run directory.

    Attributes:
        source: Name of the source, for example `cambridge_buildings`.
        title: One line for people.
        licence: Licence or terms, in words.
        citation: How to cite, in words.
        timezone: Clock of the source: IANA name, `UTC`, or a fixed offset such as `Etc/GMT-10`.
        resolution_s: Step of the grid, seconds.
        simulated: True when no meter was ever involved; shown wherever data are shown.
        files: Path to SHA-256 of everything that was read.
        excluded: Client to the reason it was left out.
        cleaning: Counts of what cleaning found, `{finding: number of readings}`, over all clients.
        reference_window: Evaluation window of the published scores, if any.
        covariates: Covariate to what is known of it ahead: `observed`, `forecast`, `known ahead`
            or `perfect forecast`.
    """

    source: str
    title: str
    licence: str
    citation: str
    timezone: str
    resolution_s: int
    simulated: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    cleaning: Mapping[str, int] = field(default_factory=dict)
    reference_window: ReferenceWindow | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        window = self.reference_window
        return {
            **{k: v for k, v in vars(self).items() if k != "reference_window"},
            "files": dict(self.files),
            "excluded": dict(self.excluded),
            "cleaning": dict(self.cleaning),
            "covariates": dict(self.covariates),
            "reference_window": vars(window) if window else None,
        }


class FederatedData(Mapping[str, ClientSeries]):
    """Clients and their series, all of one resolution, in the order of their names.

    Raises:
        DataError: FL205 without any client; FL207 when resolutions differ.
    """

    def __init__(self, clients: Mapping[str, ClientSeries], manifest: Manifest) -> None:
        if not clients:
            raise DataError(
                Fault(
                    "FL205",
                    f"source `{manifest.source}` has no client left",
                    "\n".join(
                        f"{name}: {why}" for name, why in list(manifest.excluded.items())[:5]
                    ),
                    "check the client filter and what cleaning excluded: "
                    "`fl-inmetro data check SOURCE`",
                )
            )
        odd = {
            n: s.resolution_s for n, s in clients.items() if s.resolution_s != manifest.resolution_s
        }
        if odd:
            raise DataError(
                Fault(
                    "FL207",
                    f"{len(odd)} clients are not on the {manifest.resolution_s} s grid of the set",
                    "\n".join(f"client {n}: {s} s" for n, s in list(odd.items())[:5]),
                    "resample them to one resolution",
                )
            )
        self._clients = MappingProxyType(dict(sorted(clients.items())))
        self.manifest = manifest

    def __getitem__(self, client_id: str) -> ClientSeries:
        try:
            return self._clients[client_id]
        except KeyError:
            raise KeyError(client_id) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def resolution_s(self) -> int:
        """Step of every client's grid, seconds."""
        return self.manifest.resolution_s
