"""Chronological splits: training, then validation, then test, by issue time.

A window belongs to a split only if its whole target lies before the next split begins, so that no
model is fitted or chosen on a reading that is scored later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.schema import Window
from fl_inmetro.data.calendar import issue_times_utc_s, local_date
from fl_inmetro.data.features import trailing_level
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.windows import Windows, horizon_steps, lead_steps, windows_at
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said
from fl_inmetro.units import DAY_S, iso_utc

Ints = NDArray[np.int64]

#: Length of the test window of a source without a reference window.
DEFAULT_TEST_DAYS = 28

#: A client needs at least so many days with readings in training to take part: a week to learn
#: its level from and a week to learn from.
MIN_TRAIN_WINDOWS = 14

#: A client with readings, but fewer than this, is an error wherever in time they lie.
LEAST_HISTORY_DAYS = 7


@dataclass(frozen=True, eq=False)
class Splits:
    """Issue times of each split, and what they have in common.

    Attributes:
        train: Shape (days,), epoch seconds.
        validation: Likewise.
        test: Likewise.
        horizon: Steps of a forecast.
        issue_time: Local time of issue, HH:MM.
        timezone: Clock of issue and calendar.
        lead: Steps from the issue to the first step of the forecast.
    """

    train: Ints
    validation: Ints
    test: Ints
    horizon: int
    issue_time: str
    timezone: str
    lead: int = 0

    @property
    def reach(self) -> int:
        """Steps from an issue to the end of its forecast."""
        return self.lead + self.horizon

    def to_json(self) -> dict[str, object]:
        """Return the window as plain data for the run's manifest."""
        return {
            "timezone": self.timezone,
            "issue_time": self.issue_time,
            "horizon_steps": self.horizon,
            **({"lead_steps": self.lead} if self.lead else {}),
            **{
                name: {
                    "first_issue_utc": iso_utc(part[0]) if part.size else None,
                    "last_issue_utc": iso_utc(part[-1]) if part.size else None,
                    "issues": int(part.size),
                }
                for name, part in (
                    ("train", self.train),
                    ("validation", self.validation),
                    ("test", self.test),
                )
            },
        }


@dataclass(frozen=True, eq=False)
class ClientSplits:
    """One client's windows by split; each may be empty except where `split_client` says so."""

    train: Windows
    validation: Windows
    test: Windows


def resolve(window: Window, data: FederatedData) -> Splits:
    """Turn the configuration's days into issue times for this data set.

    What the configuration leaves open is taken from the source's reference window: its test days,
    its issue time, its clock. A source without one is scored on its last 28 days, from midnight to
    midnight of its own clock.

    Raises:
        DataError: FL210, the data do not cover the window.
    """
    reference = data.manifest.reference_window
    horizon = horizon_steps(window.horizon_h, data.resolution_s)
    lead = lead_steps(window.lead_h, data.resolution_s)
    reach_s = (lead + horizon) * data.resolution_s
    issue_time = window.issue_time or (reference.issue_time if reference else "00:00")
    timezone = window.timezone or (reference or data.manifest).timezone
    first_known = min(series.start_utc_s for series in data.values())
    last_known = max(series.end_utc_s for series in data.values())
    if window.test_start and window.test_end:
        first, last = window.test_start, window.test_end
    elif reference and not window.test_days:
        first, last = (
            date.fromisoformat(reference.test_start),
            date.fromisoformat(reference.test_end),
        )
    else:
        last = local_date(last_known - reach_s, timezone)
        if int(issue_times_utc_s(last, last, issue_time, timezone)[0]) + reach_s > last_known:
            last -= timedelta(days=1)
        first = last - timedelta(days=(window.test_days or DEFAULT_TEST_DAYS) - 1)
    validation_first = first - timedelta(days=window.validation_days)
    if window.train_start:
        train_first = window.train_start
    elif window.train_days:
        train_first = validation_first - timedelta(days=window.train_days)
    else:
        train_first = local_date(first_known, timezone)
    train_first = max(train_first, local_date(first_known, timezone))

    def issues(start: date, end: date, before: int | None) -> Ints:
        times = issue_times_utc_s(start, end, issue_time, timezone)
        if before is None:
            return times
        return times[times + reach_s <= before]

    day = timedelta(days=1)
    test = issues(first, last, None)
    validation = issues(validation_first, first - day, int(test[0]))
    boundary = int((validation if validation.size else test)[0])
    train = issues(train_first, validation_first - day, boundary)
    if not train.size or int(test[0]) + lead * data.resolution_s >= last_known:
        raise DataError(
            Fault(
                "FL210",
                f"the data do not cover the window: test {first} to {last}, "
                f"validation from {validation_first}, training before that",
                f"readings from {iso_utc(first_known)} to {iso_utc(last_known)}",
                "move `test-start`/`test-end` or shorten `validation-days` in [window]",
            )
        )
    return Splits(train, validation, test, horizon, issue_time, timezone, lead)


def split_client(series: ClientSeries, splits: Splits) -> ClientSplits:
    """Return one client's windows with known targets, by split."""
    return ClientSplits(
        *(
            windows_at(series, issues, splits.horizon, splits.timezone, lead=splits.lead)
            for issues in (splits.train, splits.validation, splits.test)
        )
    )


def split_fleet(
    data: FederatedData, splits: Splits, *, drop_short: bool
) -> tuple[dict[str, ClientSplits], dict[str, str]]:
    """Return the clients that can take part, and why the others cannot.

    A client without any reading in the training days is left out: it has nothing to say. So is one
    whose readings are too few, or all zero, to be scaled by. One with fewer than
    `MIN_TRAIN_WINDOWS` training windows is an error, unless `drop_short`; and so is one with less
    than a week of readings, wherever they lie: such a client is more often a mistake than a meter.

    Raises:
        DataError: FL206, one fault per client that is too short; FL205, nobody is left.
    """
    clients: dict[str, ClientSplits] = {}
    excluded: dict[str, str] = {}
    faults: list[Fault] = []
    for name, series in data.items():
        parts = split_client(series, splits)
        days = len(parts.train)
        known_s = int(series.valid.sum()) * series.resolution_s
        brief = 0 < known_s < LEAST_HISTORY_DAYS * DAY_S
        if days >= MIN_TRAIN_WINDOWS and trailing_level(parts.train).trainable.any():
            clients[name] = parts
        elif days >= MIN_TRAIN_WINDOWS:
            excluded[name] = said("no_level")
        elif not brief and not days and not len(parts.validation) and not len(parts.test):
            excluded[name] = said("not_in_window")
        elif drop_short or not (days or brief):
            excluded[name] = said("too_few_days", days=days, least=MIN_TRAIN_WINDOWS)
        else:
            faults.append(
                Fault(
                    "FL206",
                    f"client `{name}` has {days} days to train on, {MIN_TRAIN_WINDOWS} are needed",
                    f"client {name}: readings from {iso_utc(series.start_utc_s)} "
                    f"to {iso_utc(series.end_utc_s)}",
                    "leave it out with `[data.cleaning] drop-short = true`; it can still be "
                    "forecast by the trained model: `fl-inmetro forecast`",
                )
            )
    if faults:
        raise DataError(faults)
    if not clients:
        raise DataError(
            Fault(
                "FL205",
                "no client has readings to train on",
                "\n".join(f"client {name}: {why}" for name, why in list(excluded.items())[:5]),
                "move the window in [window], or use other data",
            )
        )
    return clients, excluded
