"""The series type: its grid, its sharing of memory, and what a federation of them refuses."""

import numpy as np
import pytest

from fl_inmetro.data.series import ClientSeries, FederatedData, Manifest
from fl_inmetro.errors import DataError
from tests.fleets import MONDAY, federated, series


def test_instants_and_indices_by_hand():
    one = ClientSeries("a", 7200, 3600, np.array([1.0, np.nan, 3.0]))
    assert (len(one), one.end_utc_s) == (3, 7200 + 3 * 3600)
    assert [one.index_of(7200 + k * 3600) for k in (-1, 0, 3)] == [-1, 0, 3]
    assert one.valid.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="grid"):
        one.index_of(7201)


@pytest.mark.parametrize(
    ("start", "step", "values"),
    [(1, 3600, np.ones(2)), (0, 0, np.ones(2)), (0, -60, np.ones(2)), (0, 3600, np.ones((2, 2)))],
)
def test_what_is_no_series(start, step, values):
    with pytest.raises(ValueError, match="client a"):
        ClientSeries("a", start, step, values)


def test_values_are_shared_and_read_only():
    values = np.arange(10.0)
    one = ClientSeries("a", 0, 3600, values)
    assert np.shares_memory(one.energy_kwh, values)
    with pytest.raises(ValueError, match="read-only"):
        one.energy_kwh[0] = 5
    assert values.flags.writeable  # the caller's own array is left as it was
    part = one.cut(7200, 5 * 3600)
    assert part.energy_kwh.tolist() == [2, 3, 4]
    assert part.start_utc_s == 7200
    assert np.shares_memory(part.energy_kwh, values)


def test_cuts_beyond_the_ends_are_empty_or_whole():
    one = ClientSeries("a", 36_000, 3600, np.arange(4.0))
    assert one.cut(0, 10**6 * 3600).energy_kwh.tolist() == [0, 1, 2, 3]
    assert len(one.cut(end_utc_s=0)) == 0
    assert len(one.cut(50 * 3600)) == 0
    assert len(one.cut(13 * 3600, 12 * 3600)) == 0


def test_clients_come_in_the_order_of_their_names():
    data = federated([series("b", 1), series("a", 1), series("c10", 1), series("c2", 1)])
    assert list(data) == ["a", "b", "c10", "c2"]
    assert len(data) == 4
    assert data.get("nobody") is None
    with pytest.raises(KeyError):
        data["nobody"]


def test_no_client_left_is_fl205_with_the_reasons():
    manifest = Manifest("made", "", "", "", "UTC", 3600, excluded={"x": "too short"})
    with pytest.raises(DataError) as caught:
        FederatedData({}, manifest)
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("FL205", "x: too short")
    assert fault.hint


def test_mixed_resolutions_are_fl207_with_the_clients():
    hourly, quarter = series("h", 1), series("q", 1, resolution_s=900)
    with pytest.raises(DataError) as caught:
        federated([hourly, quarter])
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("FL207", "client q: 900 s")


def test_the_manifest_is_plain_data():
    plain = federated([series("a", 1)]).manifest.to_json()
    assert plain["simulated"] is True
    assert plain["reference_window"] is None
    assert series("a", 1).start_utc_s == MONDAY
