"""Rows of a forecast file as points: names are coded alike however a file holds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from fl_inmetro.runs.points import points_of
from fl_inmetro.seeds import derive

PLAIN = ["m9", "m10", "a", "m9", "a", "m10", "m9"]


def column(kind: str) -> pa.ChunkedArray:
    """The same seven names: as text, coded, coded chunk by chunk with names that do not occur."""
    if kind == "text":
        return pa.chunked_array([PLAIN[:3], PLAIN[3:]])
    if kind == "coded":
        return pa.chunked_array([pa.array(PLAIN).dictionary_encode()])
    names = (["m10", "unused", "a", "m9"], ["a", "m9", "m10", "another"])
    chunks = [
        pa.DictionaryArray.from_arrays(pa.array([own.index(n) for n in part], pa.int32()), own)
        for own, part in zip(names, (PLAIN[:4], PLAIN[4:]), strict=True)
    ]
    return pa.chunked_array(chunks)


@pytest.mark.parametrize("kind", ["text", "coded", "chunked"])
def test_names_are_sorted_and_rows_point_to_them(kind):
    at = pa.array(np.arange(7), pa.timestamp("s", tz="UTC"))
    columns = {"client_id": column(kind), "issue_time_utc": at, "target_time_utc": at}
    numbers = derive(1, "points").uniform(size=7)
    table = pa.table({**columns, "mean": numbers, "observed_kwh": numbers})
    points = points_of(table)
    names, places = np.unique(PLAIN, return_inverse=True)
    assert points.names == tuple(names)
    assert points.client.tolist() == places.tolist()
    assert points.client.dtype == np.int64
