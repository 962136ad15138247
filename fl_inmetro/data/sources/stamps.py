"""Stamps in text files: which format they have, which order of day and month, and their instants.

Accepted: `2024-12-31 23:45[:00[.0]]`, `2024-12-31T23:45[Z|+01:00]`, `31/12/2024 23:45`,
`12/31/2024 11:45 PM` (separators - / . and dates without a time too; 24:00 ends a day).
Stamps are kept as year, first and second part until the whole file has been seen, because only the
whole file can tell 03/04 from 04/03.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fl_inmetro.data.cleaning.dates import (
    better_exchanged,
    days_of,
    exchange,
    first_jump,
    jumps,
)
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said
from fl_inmetro.units import DAY_S

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PATTERN = (
    r"^\s*(?P<a>\d{1,4})[-/.](?P<b>\d{1,2})[-/.](?P<c>\d{1,4})"
    r"(?:[T ]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?"
    r"\s*(?P<half>[AaPp][Mm])?)?"
    r"\s*(?P<zone>Z|z|[+-]\d{2}:?\d{2})?\s*$"
)

#: Offsets move the second of the day out of [0, 86400]; this keeps the packed part positive.
_BIAS = 1 << 18
_SHIFT = 20

YEAR_FIRST = 1
YEAR_LAST = 2
#: How many clients' stamps are looked at for the order of day and month.
SAMPLE = 20

FORMATS = (
    "stamps may be written 2024-12-31 23:45[:00], 2024-12-31T23:45Z, 31/12/2024 23:45 or "
    "12/31/2024 11:45 PM"
)


@dataclass
class Stamps:
    """What has been seen of a file's stamps so far.

    Attributes:
        place: Name of the file, for faults.
        kinds: Bits of `YEAR_FIRST` and `YEAR_LAST`.
        zoned: Number of stamps with an offset from UTC (`Z`, `+01:00`).
        total: Number of readable stamps.
        first_over_12: Line where the first part (of a year-last date) is over 12; 0 = none.
        second_over_12: Line where the second part is over 12; 0 = none.
        month_over_12: Line where the second part of a year-first date is over 12; 0 = none.
        bad: First unreadable stamps: (line, text).
        bad_count: Number of unreadable stamps.
    """

    place: str
    kinds: int = 0
    zoned: int = 0
    total: int = 0
    first_over_12: int = 0
    second_over_12: int = 0
    month_over_12: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    bad_count: int = 0

    def read(self, column: pa.Array, first_line: int) -> Ints:
        """Read one batch of stamps; returns them packed (see `decode`), shape (N,), -1 = bad.

        `column` is a dictionary-encoded string array, so that each text is read only once.
        """
        texts = column.dictionary
        packed, kind, zoned = _parse(texts)
        codes = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
        rows = np.where(codes >= 0, packed[codes], -1) if packed.size else np.full(len(codes), -1)
        good = rows >= 0
        self._note_bad(np.flatnonzero(~good), codes, texts, first_line)
        self.total += int(good.sum())
        if zoned.any():
            self.zoned += int(zoned[codes[good]].sum())
        used = np.unique(codes[good])
        for bit in (YEAR_FIRST, YEAR_LAST):
            if (kind[used] == bit).any():
                self.kinds |= bit
        first, second = (packed >> _SHIFT) // 100 % 100, (packed >> _SHIFT) % 100
        for name, over in (
            ("first_over_12", (kind == YEAR_LAST) & (first > 12)),
            ("second_over_12", (kind == YEAR_LAST) & (second > 12)),
            ("month_over_12", (kind == YEAR_FIRST) & (first > 12)),
        ):
            if not getattr(self, name) and over[used].any():
                setattr(self, name, int(np.flatnonzero(good & over[codes])[0]) + first_line)
        return rows.astype(np.int64)

    def _note_bad(
        self, rows: NDArray[np.int64], codes: NDArray[np.int64], texts: pa.Array, first_line: int
    ) -> None:
        self.bad_count += rows.size
        for row in rows[: max(0, 3 - len(self.bad))]:
            text = texts[int(codes[row])].as_py() if codes[row] >= 0 else ""
            self.bad.append((int(row) + first_line, text))

    def faults(self) -> list[Fault]:
        """Return what makes these stamps unusable, whatever the order of day and month."""
        found = []
        if self.bad_count:
            places = "\n".join(f"{self.place}:{line}  `{text}`" for line, text in self.bad)
            what = f"{self.bad_count} timestamps cannot be read"
            found.append(Fault("FL211", what, places, FORMATS))
        if self.kinds == YEAR_FIRST | YEAR_LAST:
            what = "dates with the year first and with the year last in one file"
            found.append(Fault("FL211", what, self.place, "write all dates in one format"))
        if 0 < self.zoned < self.total:
            what = f"{self.zoned} of {self.total} timestamps have an offset from UTC, others do not"
            found.append(Fault("FL211", what, self.place, "write all timestamps in one format"))
        return found


def decode(packed: Ints, kinds: int, day_first: bool) -> tuple[Ints, Bools]:
    """Return seconds of the clock of packed stamps, and which of them are dates that exist.

    Shapes: (N,) in and out. Year-first dates are year, month, day, whatever `day_first` is.
    """
    date, second = packed >> _SHIFT, (packed & ((1 << _SHIFT) - 1)) - _BIAS
    year, rest = np.divmod(date, 10_000)
    first, other = np.divmod(rest, 100)
    flip = kinds == YEAR_LAST and day_first
    month, day = (other, first) if flip else (first, other)
    exists = (month >= 1) & (month <= 12) & (day >= 1)
    safe_month = np.where(exists, month, 1)
    days = days_of(year, safe_month, np.where(exists, day, 1))
    one = np.ones_like(year)
    length = days_of(year + safe_month // 12, safe_month % 12 + 1, one) - days_of(
        year, safe_month, one
    )
    exists &= day <= length
    return days * DAY_S + second, exists


def _parse(texts: pa.Array) -> tuple[Ints, NDArray[np.int8], Bools]:
    """Read distinct texts: packed stamp (-1 = unreadable), kind of date, has an offset."""
    size = len(texts)
    fast = _parse_fixed(texts)
    if fast is not None:
        return fast, np.full(size, YEAR_FIRST, dtype=np.int8), np.zeros(size, dtype=bool)
    parts = pc.extract_regex(texts, PATTERN)
    matched = pc.is_valid(parts).to_numpy(zero_copy_only=False)

    def text(name: str) -> pa.Array:
        return pc.fill_null(pc.struct_field(parts, name), "")

    def number(name: str) -> Ints:
        column = text(name)
        filled = pc.if_else(pc.equal(column, ""), "0", column)
        return np.asarray(pc.cast(filled, pa.int64()).to_numpy(zero_copy_only=False))

    a, b, c = number("a"), number("b"), number("c")
    long_a = pc.utf8_length(text("a")).to_numpy(zero_copy_only=False) == 4
    long_c = pc.utf8_length(text("c")).to_numpy(zero_copy_only=False) == 4
    kind = np.where(long_a & ~long_c, YEAR_FIRST, np.where(long_c & ~long_a, YEAR_LAST, 0))
    year = np.where(kind == YEAR_FIRST, a, c)
    first = np.where(kind == YEAR_FIRST, b, a)
    second_part = np.where(kind == YEAR_FIRST, c, b)
    hour, minute, second = number("hour"), number("minute"), number("second")
    half = pc.utf8_lower(text("half"))
    pm = pc.equal(half, "pm").to_numpy(zero_copy_only=False)
    am = pc.equal(half, "am").to_numpy(zero_copy_only=False)
    twelve = (hour >= 1) & (hour <= 12)
    hour = np.where(pm | am, hour % 12 + 12 * pm, hour)
    zone = text("zone")
    zoned = pc.not_equal(zone, "").to_numpy(zero_copy_only=False)
    offset_s = np.zeros(size, dtype=np.int64)
    for row in np.flatnonzero(zoned):
        offset_s[row] = _offset_s(zone[int(row)].as_py())
    second_of_day = hour * 3600 + minute * 60 + second - offset_s
    good = (
        matched
        & (kind > 0)
        & (np.maximum(first, second_part) <= 31)
        & (np.minimum(first, second_part) >= 1)
        & (np.minimum(first, second_part) <= 12)
        & (year >= 1900)
        & (hour * 3600 + minute * 60 + second <= DAY_S)
        & (minute < 60)
        & (second < 60)
        & (twelve | ~(pm | am))
    )
    date = year * 10_000 + first * 100 + second_part
    packed = np.where(good, (date << _SHIFT) + second_of_day + _BIAS, -1)
    return packed, np.where(good, kind, 0).astype(np.int8), zoned & good


def _parse_fixed(texts: pa.Array) -> Ints | None:
    """Read `YYYY-MM-DD HH:MM[:SS]` texts of one width fast; None when they are not that."""
    if not len(texts) or texts.null_count or texts.offset:
        return None
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32, count=len(texts) + 1)
    width = int(ends[1] - ends[0])
    if width not in (16, 19) or not (np.diff(ends) == width).all():
        return None
    chars = np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]].reshape(-1, width)
    marks = {4: b"-", 7: b"-", 10: b" T", 13: b":"} | ({16: b":"} if width == 19 else {})
    if not all(np.isin(chars[:, at], list(mark)).all() for at, mark in marks.items()):
        return None
    digits = chars[:, [i for i in range(width) if i not in marks]]
    if ((digits < ord("0")) | (digits > ord("9"))).any():
        return None
    value = digits.astype(np.int64) - ord("0")

    def number(low: int, high: int) -> Ints:
        return np.asarray(value[:, low:high] @ 10 ** np.arange(high - low - 1, -1, -1))

    date = number(0, 8)
    hour, minute = number(8, 10), number(10, 12)
    second = number(12, 14) if width == 19 else np.zeros_like(hour)
    second_of_day = hour * 3600 + minute * 60 + second
    month, day = date // 100 % 100, date % 100
    good = (
        (date >= 1900_00_00)
        & (np.minimum(month, day) >= 1)
        & (np.minimum(month, day) <= 12)
        & (np.maximum(month, day) <= 31)
        & (minute < 60)
        & (second < 60)
        & (second_of_day <= DAY_S)
    )
    return np.where(good, (date << _SHIFT) + second_of_day + _BIAS, -1)


def _offset_s(text: str) -> int:
    if text in ("Z", "z"):
        return 0
    digits = text[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if text[0] == "-" else seconds


# ------------------------------------------------------------------------- order of the parts
Lines = Callable[[int, int], int]


@dataclass(frozen=True)
class Order:
    """How the dates of a file are to be read, and what was assumed for it."""

    kinds: int
    day_first: bool
    exchanged: bool = False
    assumed: tuple[str, ...] = ()

    def clock_s(self, packed: Ints) -> tuple[Ints, Bools]:
        """Return seconds of the clock and which dates exist. Shapes: (N,) in and out."""
        clock_s, exists = decode(packed, self.kinds, self.day_first)
        return (exchange(clock_s) if self.exchanged else clock_s), exists


def decide(stamps: Stamps, columns: list[Ints], day_first: bool | None, line_of: Lines) -> Order:
    """Decide the order of day and month from everything the file shows.

    Args:
        stamps: What was seen while reading.
        columns: Packed stamps of some clients, each in file order.
        day_first: What the user says, if anything.
        line_of: (index of the column, index in it) to a line of the file.

    Raises:
        DataError: FL211 unreadable stamps; FL204 dates that cannot be told, or were exchanged.
    """
    faults = stamps.faults()
    if faults:
        raise DataError(faults)
    place = stamps.place
    if stamps.month_over_12:
        raise DataError(
            Fault(
                "FL204",
                "a date has a month above 12: day and month are exchanged",
                f"{place}:{stamps.month_over_12}",
                "export the file again with dates as 2024-12-31 (year, month, day)",
            )
        )
    if stamps.kinds != YEAR_LAST:
        order = Order(stamps.kinds, False)
        clocks = [order.clock_s(column)[0] for column in columns]
        return check_exchanged(clocks, place, day_first, line_of, order)
    if stamps.first_over_12 and stamps.second_over_12:
        raise DataError(
            Fault(
                "FL204",
                "some dates can only be day/month/year and others only month/day/year: day and "
                "month are exchanged in a part of the file",
                f"{place}:{stamps.first_over_12}  day first\n"
                f"{place}:{stamps.second_over_12}  month first",
                "no setting of `format.day-first` can read both; export the file again with dates "
                "as 2024-12-31",
            )
        )
    shown = True if stamps.first_over_12 else False if stamps.second_over_12 else None
    if day_first is not None and shown is not None and day_first != shown:
        line = stamps.first_over_12 or stamps.second_over_12
        given, right = str(day_first).lower(), str(shown).lower()
        what = f"`format.day-first = {given}` makes a month above 12"
        raise DataError(
            Fault("FL204", what, f"{place}:{line}", f"set `format.day-first = {right}`")
        )
    chosen = day_first if day_first is not None else shown
    assumed: tuple[str, ...] = ()
    if chosen is None:
        chosen = _by_sequence(columns, place, line_of)
    if day_first is None:
        assumed = (said("day_first" if chosen else "month_first"),)
    order = Order(YEAR_LAST, chosen, assumed=assumed)
    clocks = [order.clock_s(column)[0] for column in columns]
    _, _, wrong = better_exchanged(clocks)
    if wrong and shown is not None:
        raise _exchanged_fault(clocks, place, line_of, "")
    if wrong:
        right = str(not chosen).lower()
        raise _exchanged_fault(clocks, place, line_of, f"set `format.day-first = {right}`")
    return order


def _by_sequence(columns: list[Ints], place: str, line_of: Lines) -> bool:
    """Choose the order that lets the days follow each other; FL204 when both or neither do."""
    scores = [
        sum(jumps(decode(column, YEAR_LAST, day_first)[0]) for column in columns)
        for day_first in (True, False)
    ]
    days = [
        {int(d) for column in columns for d in np.unique(decode(column, YEAR_LAST, f)[0] // DAY_S)}
        for f in (True, False)
    ]
    if days[0] == days[1] and scores[0] == scores[1]:
        return True  # every date is the same either way, such as 01/01 or 05/05
    low, high = min(scores), max(scores)
    if high >= 3 and low <= 0.5 * high:
        return scores[0] < scores[1]
    raise DataError(
        Fault(
            "FL204",
            "day and month of the dates cannot be told apart: no part of any date is above 12, and "
            "the order of the days fits both ways",
            f"{place}:{line_of(0, 0)}",
            "set `format.day-first = true` for 31/12/2024 or `false` for 12/31/2024",
        )
    )


def check_exchanged(
    clocks: list[Ints], place: str, day_first: bool | None, line_of: Lines, order: Order
) -> Order:
    """Check year-first dates (or typed timestamps) for an exchange of day and month.

    Raises:
        DataError: FL204 when they were exchanged and nothing is said about it, or when they are to
            be exchanged back and would fall out of order by it.
    """
    if day_first is False:
        return order
    if day_first is None:
        if better_exchanged(clocks)[2]:
            hint = "`format.day-first = true` exchanges them back (days 1 to 12)"
            raise _exchanged_fault(clocks, place, line_of, hint)
        return order
    before = sum(jumps(clock_s) for clock_s in clocks)
    after = sum(jumps(exchange(clock_s)) for clock_s in clocks)
    if after > before:
        raise DataError(
            Fault(
                "FL204",
                "`format.day-first = true` would exchange day and month of dates that are in order "
                f"({before} jumps as written, {after} when exchanged)",
                place,
                "remove `format.day-first`: the dates start with the year",
            )
        )
    assumed = ("day and month of dates up to day 12 are exchanged back",)
    return Order(order.kinds, order.day_first, True, assumed)


def _exchanged_fault(clocks: list[Ints], place: str, line_of: Lines, hint: str) -> DataError:
    written = [jumps(clock_s) for clock_s in clocks]
    worst = int(np.argmax(written))
    row = first_jump(clocks[worst])
    total, better = sum(written), sum(jumps(exchange(clock_s)) for clock_s in clocks)
    return DataError(
        Fault(
            "FL204",
            "day and month of some dates are exchanged: as written the days jump "
            f"{total} times, with day and month exchanged {better} times",
            f"{place}:{line_of(worst, row)}",
            hint or "no setting reads this file; export it again with dates as 2024-12-31",
        )
    )
