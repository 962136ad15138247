"""Delimited text: look at the first lines, then stream the whole file in batches of known types."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from fl_inmetro.config.schema import FileFormat
from fl_inmetro.data.sources.files import open_text
from fl_inmetro.errors import DataError, Fault

#: Bytes looked at to find encoding, separator and header.
LOOK = 1 << 18
BLOCK = 1 << 23
SEPARATORS = (";", "\t", "|", ",")
_QUOTED = re.compile(r'"[^"]*"')
_NUMBER = re.compile(r"^[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?$")
#: Texts that stand for a reading that is not there.
NO_VALUE = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "-", "?"]


@dataclass(frozen=True)
class Look:
    """What the first lines of a text file show.

    Attributes:
        path: The file.
        separator: Field separator.
        encoding: `utf-8` or `latin-1`.
        columns: Names of the columns; c000, c001, … without a header.
        rows: The first data rows, as texts.
        header: Whether the first line holds names.
    """

    path: Path
    separator: str
    encoding: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    header: bool

    @property
    def first_line(self) -> int:
        """Line of the first data row."""
        return 2 if self.header else 1


def is_number(text: str) -> bool:
    """Tell whether a field is a number, with either decimal mark."""
    return bool(_NUMBER.match(text.strip()))


def look(path: Path, settings: FileFormat) -> Look:
    """Find encoding, separator and columns of a text file.

    Raises:
        DataError: FL203 when it is empty, binary, has doubled names, or has data for names.
    """
    with open_text(path) as stream:
        try:
            raw = stream.read(LOOK)
        except (OSError, pa.ArrowException) as error:
            what = f"`{path.name}` cannot be unpacked: {str(error).splitlines()[0]}"
            raise DataError(Fault("FL203", what, str(path), "download it again")) from error
    if b"\x00" in raw:
        hint = "text files in UTF-8 or Latin-1, or Parquet, can be read"
        raise DataError(Fault("FL203", f"`{path.name}` is not a text file", str(path), hint))
    cut = raw if len(raw) < LOOK else raw[: raw.rfind(b"\n") + 1]
    try:
        text, encoding = cut.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = cut.decode("latin-1"), "latin-1"
    lines = [line for line in text.splitlines()[:200] if line.strip()]
    if not lines:
        raise DataError(Fault("FL203", f"`{path.name}` is empty", str(path), ""))
    separator = settings.separator if settings.separator != "auto" else _separator(lines)
    try:
        table = [tuple(f) for f in csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)]
    except (csv.Error, TypeError) as error:
        what = f"`{path.name}` cannot be read with separator `{separator}`: {error}"
        raise DataError(Fault("FL203", what, str(path), "check `format.separator`")) from error
    if not settings.header:
        names = tuple(f"c{i:03d}" for i in range(len(table[0])))
        return Look(path, separator, encoding, names, tuple(table), False)
    names = tuple(name.strip() for name in table[0])
    if len(names) > 1 and all(is_number(name) for name in names):
        raise DataError(
            Fault(
                "FL203",
                f"the first line of `{path.name}` holds numbers, not names",
                f"{path.name}:1",
                "set `format.header = false` (wide tables), with `format.start` and "
                "`format.resolution-min`",
            )
        )
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        what = f"columns named twice: {', '.join(f'`{d}`' for d in doubled[:5])}"
        raise DataError(Fault("FL203", what, f"{path.name}:1", "give every column its own name"))
    return Look(path, separator, encoding, names, tuple(table[1:]), True)


def _separator(lines: list[str]) -> str:
    """Choose the separator that splits all first lines alike; `;` and tabs before commas.

    A comma may be a decimal mark, so it is tried last, and quoted text is left out.
    """
    bare = [_QUOTED.sub('""', line) for line in lines[:50]]
    for mark in SEPARATORS:
        counts = {line.count(mark) for line in bare}
        if len(counts) == 1 and counts != {0}:
            return mark
    # Some line is broken; it will be named when the file is read.
    return max(SEPARATORS, key=lambda mark: bare[0].count(mark))


def stream(
    found: Look,
    texts: list[str],
    numbers: list[str],
    decimal: str,
) -> Iterator[pa.RecordBatch]:
    """Yield the file in batches: `texts` as dictionary-encoded strings, `numbers` as float64.

    Raises:
        DataError: FL203 with the lines that have too few or too many fields, or no number where a
            number should be.
    """
    broken: list[tuple[int, int, int]] = []
    rows_before = 0

    def on_broken(row: pacsv.InvalidRow) -> str:
        broken.append((row.number or 0, row.expected_columns, row.actual_columns))
        return "skip"

    text_type = pa.dictionary(pa.int32(), pa.string())
    types = dict.fromkeys(texts, text_type) | dict.fromkeys(numbers, pa.float64())
    try:
        reader = pacsv.open_csv(
            open_text(found.path),
            read_options=pacsv.ReadOptions(
                block_size=BLOCK,
                encoding=found.encoding,
                column_names=list(found.columns),
                skip_rows=1 if found.header else 0,
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=found.separator, invalid_row_handler=on_broken
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=types,
                include_columns=[*texts, *numbers],
                decimal_point=decimal,
                null_values=NO_VALUE,
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        for batch in reader:
            rows_before += batch.num_rows
            yield batch
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(_diagnose(found, numbers, decimal, str(error))) from error
    if broken:
        raise DataError(_diagnose(found, numbers, decimal, f"{len(broken)} broken lines"))


def _diagnose(found: Look, numbers: list[str], decimal: str, message: str) -> list[Fault]:
    """Read the file again, slowly, to name the lines that stopped the fast reader."""
    mark = re.escape(decimal)
    number = re.compile(rf"^[+-]?(\d+({mark}\d*)?|{mark}\d+)([eE][+-]?\d+)?$|^[+-]?inf(inity)?$")
    places = [found.columns.index(name) for name in numbers]
    width = len(found.columns)
    wrong: list[tuple[int, str, str]] = []
    broken: list[tuple[int, int]] = []
    wrong_count = broken_count = 0
    text = io.TextIOWrapper(open_text(found.path), encoding=found.encoding, newline="")
    with text:
        reader = csv.reader(text, delimiter=found.separator)
        try:
            for index, row in enumerate(reader):
                if not row or (index == 0 and found.header):
                    continue
                if len(row) != width:
                    broken_count += 1
                    if len(broken) < 3:
                        broken.append((reader.line_num, len(row)))
                    continue
                for place in places:
                    field = row[place].strip()
                    if field not in NO_VALUE and not number.match(field.lower()):
                        wrong_count += 1
                        if len(wrong) < 3:
                            wrong.append((reader.line_num, found.columns[place], field))
        except (UnicodeDecodeError, csv.Error, OSError) as error:
            line = reader.line_num + 1
            name = found.path.name
            return [Fault("FL203", f"`{name}` cannot be read: {error}", f"{name}:{line}", "")]
    name = found.path.name
    faults = []
    if broken:
        lines = "\n".join(f"{name}:{line}  {fields} fields" for line, fields in broken)
        what = f"{broken_count} lines do not have the {width} fields of the first line"
        faults.append(Fault("FL203", what, lines, f"the separator is taken as `{found.separator}`"))
    if wrong:
        lines = "\n".join(f"{name}:{line}  {column} = `{text}`" for line, column, text in wrong)
        other = "," if decimal == "." else "."
        swapped = all(is_number(text) and other in text for _, _, text in wrong)
        flag = f'(`data check` takes `--decimal "{other}"`)'
        hint = (
            f'set `format.decimal = "{other}"` {flag}'
            if swapped
            else "empty fields count as missing"
        )
        what = f"{wrong_count} values are not numbers"
        faults.append(Fault("FL203", what, lines, hint))
    return faults or [Fault("FL203", f"`{name}` cannot be read: {message}", name, "")]
