"""Published protocols: where they cut a series, and the windows of a fleet that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.protocol import Protocol
from fl_inmetro.config.schema import Window
from fl_inmetro.data.calendar import local_clock, steps_per_day
from fl_inmetro.data.features import MIN_TRAIN_DAYS
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.splits import ClientSplits, Splits
from fl_inmetro.data.windows import Windows, horizon_steps, lead_steps
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.units import HOUR_S

Ints = NDArray[np.int64]

#: GIFT-Eval: share of the shortest series that is tested on, and the most windows of it.
GIFT_SHARE, GIFT_WINDOWS = 0.1, 20

#: BuildingsBench: days before the test, those of them that choose the round, days of the test.
BUILDING_DAYS, BUILDING_VALIDATION_DAYS, BUILDING_TEST_DAYS = 180, 30, 180
#: A building with fewer days than this after the first 180 is left out.
BUILDING_LEAST_TEST_DAYS = 30


@dataclass(frozen=True, eq=False)
class Cut:
    """Where a protocol cuts one series: steps of issue, counted from its beginning.

    Attributes:
        train: Shape (A,), every window that may be trained on.
        validation: Shape (B,).
        test: Shape (C,), every window that is scored.
        fitted: Steps that a scale may be fitted on: those before the validation.
        first_step: The first step of a forecast that is scored.
    """

    train: Ints
    validation: Ints
    test: Ints
    fitted: int
    first_step: int = 0


@dataclass(frozen=True, eq=False)
class ProtocolTest:
    """One client's windows of a protocol's test, and what its errors are measured by.

    Attributes:
        windows: Every window that is scored.
        fitted: As in `Cut`.
        first_step: As in `Cut`.
    """

    windows: Windows
    fitted: int
    first_step: int


@dataclass(frozen=True, eq=False)
class ProtocolFleet:
    """What a protocol makes of a fleet.

    Attributes:
        splits: The issue times of all clients, for the manifest.
        clients: Client to the windows that it trains on, and those of our own scores.
        tests: Client to its windows of the protocol's test.
        excluded: Client to the reason it has none.
    """

    splits: Splits
    clients: Mapping[str, ClientSplits]
    tests: Mapping[str, ProtocolTest]
    excluded: Mapping[str, str]


def cut(protocol: Protocol, steps: int, shortest: int, resolution_s: int) -> Cut:
    """Cut a series of `steps` steps; arrays are empty where it is too short.

    Sources: `ltsf`: the loaders of Autoformer and what follows it (Wu et al. 2021, section 4): 70 %
    and 20 % rounded down, validation in between, every step an issue, no window dropped. `lstnet`:
    Lai et al. (2018), section 4.2: 60 % and 80 %, the target `horizon` steps after the last
    reading. `gift-eval`: Aksu et al. (2024), section 3: ⌈10 % of the shortest series / horizon⌉
    windows, at most 20, one after the other up to the end. `buildingsbench`: Emami et al. (2023),
    section 4, transfer: 180 days of which the last 30 choose the round, then up to 180 days, each
    window with its context inside its own part; the test begins one hour after the 180 days, as in
    the authors' code.

    Args:
        protocol: The protocol.
        steps: Length of the series.
        shortest: Length of the shortest series of the fleet.
        resolution_s: Length of a step.
    """
    horizon, past = protocol.horizon_steps, protocol.look_back_steps
    # Without a look-back there still has to be a week to learn the level from.
    first = past or 7 * steps_per_day(resolution_s)
    if protocol.name == "ltsf":
        train, test = int(steps * 0.7), steps - int(steps * 0.2)
        return Cut(
            _steps(first, train - horizon),
            _steps(train, test - horizon),
            _steps(test, steps - horizon),
            train,
        )
    if protocol.name == "lstnet":
        train, test = int(0.6 * steps), int((0.6 + 0.2) * steps)
        # Target t is forecast from t − horizon on: the issue is the step after it.
        return Cut(
            _steps(first, train - horizon),
            _steps(train - horizon + 1, test - horizon),
            _steps(test - horizon + 1, steps - horizon),
            train,
            horizon - 1,
        )
    if protocol.name == "gift-eval":
        count = min(max(1, math.ceil(GIFT_SHARE * shortest / horizon)), GIFT_WINDOWS)
        test = steps - count * horizon
        return Cut(
            _steps(first, test - 2 * horizon),
            _steps(test - horizon, test - horizon),
            _steps(test, steps - horizon, horizon),
            test - horizon,
        )
    day = steps_per_day(resolution_s)
    train, known = (BUILDING_DAYS - BUILDING_VALIDATION_DAYS) * day, BUILDING_DAYS * day
    end = min(known + 1 + BUILDING_TEST_DAYS * day + 1, steps)
    if steps < (BUILDING_DAYS + BUILDING_LEAST_TEST_DAYS) * day:
        end = 0  # left out, as there
    return Cut(
        _steps(first, train - horizon),
        _steps(train + first, known - horizon, day),
        # The authors' length counts ⌊(steps − context − horizon) / 24⌋ windows, one less than fit.
        _steps(known + 1 + first, end - horizon - day, day),
        train,
    )


def protocol_fleet(protocol: Protocol, data: FederatedData) -> ProtocolFleet:
    """Return the windows of every client, as the protocol cuts them.

    Raises:
        DataError: FL220, the data do not fit the protocol.
    """
    _check(protocol, data)
    shortest = min(len(series) for series in data.values())
    clients: dict[str, ClientSplits] = {}
    tests: dict[str, ProtocolTest] = {}
    excluded: dict[str, str] = {}
    for name, series in data.items():
        own = cut(protocol, len(series), shortest, data.resolution_s)
        train = _windows(protocol, data, series, own.train[:: protocol.every])
        test = _windows(protocol, data, series, own.test)
        if not len(train) or not len(test):
            excluded[name] = f"{len(series)} steps are too few for `{protocol.name}`"
            continue
        validation = _windows(protocol, data, series, _thinned(protocol, own.validation))
        # Our own scores keep every forecast: the whole test would be gigabytes.
        kept = _windows(protocol, data, series, _thinned(protocol, own.test))
        clients[name] = ClientSplits(train, validation, kept)
        tests[name] = ProtocolTest(test, own.fitted, own.first_step)
    if not clients:
        raise _refused(
            protocol,
            f"no client is long enough for {protocol.horizon_steps} steps ahead",
            "shorten `[protocol] horizon` or `look-back`, or use more data",
        )
    return ProtocolFleet(_splits(protocol, data, clients), clients, tests, excluded)


def horizon_of(window: Window, protocol: Protocol, resolution_s: int) -> int:
    """Return the steps of a run's forecasts, whichever of the two decides.

    Raises:
        DataError: FL207, the horizon is no whole number of steps.
    """
    if protocol.enabled:
        return protocol.horizon_steps
    return horizon_steps(window.horizon_h, resolution_s)


def lead_of(window: Window, protocol: Protocol, resolution_s: int) -> int:
    """Return the steps from an issue to its forecast: no protocol leaves any between them.

    Raises:
        DataError: FL207, the lead is no whole number of steps.
    """
    return 0 if protocol.enabled else lead_steps(window.lead_h, resolution_s)


def without_protocol(protocol: Protocol, what: str) -> None:
    """Refuse what cuts by `[window]` alone.

    Raises:
        DataError: FL220, a protocol decides.
    """
    if protocol.enabled:
        raise _refused(protocol, f"{what} cuts by `[window]`", "use a run without `[protocol]`")


# ------------------------------------------------------------------------------ internals
def _steps(first: int, last: int, stride: int = 1) -> Ints:
    """Return the steps from `first` to `last`, both included."""
    return np.arange(first, last + 1, stride, dtype=np.int64)


def _thinned(protocol: Protocol, issues: Ints) -> Ints:
    return issues[:: protocol.every] if protocol.name in ("ltsf", "lstnet") else issues


def _windows(
    protocol: Protocol, data: FederatedData, series: ClientSeries, issues: Ints
) -> Windows:
    windows = Windows(series, issues, protocol.horizon_steps, data.manifest.timezone)
    if past := protocol.look_back_steps:
        # A look-back shorter than a week is trained on with all that it has.
        days = min(MIN_TRAIN_DAYS, past / steps_per_day(data.resolution_s))
        windows = replace(windows, visible_from=issues - past, least_days=days)
    known = np.isfinite(windows.target_kwh()).any(axis=1)
    return windows.take(np.flatnonzero(known))


def _splits(protocol: Protocol, data: FederatedData, clients: Mapping[str, ClientSplits]) -> Splits:
    parts = [
        np.unique(np.concatenate([getattr(own, split).issue_utc_s for own in clients.values()]))
        for split in ("train", "validation", "test")
    ]
    zone = data.manifest.timezone
    second = int(local_clock(parts[2][:1], zone).second_of_day[0])
    time = f"{second // HOUR_S:02d}:{second % HOUR_S // 60:02d}"
    return Splits(parts[0], parts[1], parts[2], protocol.horizon_steps, time, zone)


def _check(protocol: Protocol, data: FederatedData) -> None:
    """Refuse data on which the protocol would be another one."""
    day, past = steps_per_day(data.resolution_s), protocol.look_back_steps
    if 0 < past < day:
        raise _refused(
            protocol,
            f"a look-back of {past} steps is less than the day that a client's level needs",
            f"set `[protocol] look-back` to {day} or more, or to 0 for all the past",
        )
    if protocol.name == "buildingsbench" and data.resolution_s != HOUR_S:
        raise _refused(
            protocol,
            f"it is made of hours, the readings of {data.resolution_s // 60} min",
            "set `[data] resolution-min = 60`",
        )
    if protocol.name == "buildingsbench":
        return
    spans = {(series.start_utc_s, series.end_utc_s) for series in data.values()}
    if protocol.name == "gift-eval":
        spans = {(0, end) for _, end in spans}
    if len(spans) > 1:
        same = "end at one instant" if protocol.name == "gift-eval" else "cover the same time"
        raise _refused(
            protocol,
            f"its clients {same}, these have {len(spans)} different spans",
            "leave the others out with `[data] exclude`",
        )


def _refused(protocol: Protocol, why: str, hint: str) -> DataError:
    what = f"the data do not fit the protocol `{protocol.name}`: {why}"
    return DataError(Fault("FL220", what, f'[protocol] name = "{protocol.name}"', hint))
