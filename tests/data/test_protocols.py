"""Where published protocols cut a series, against plain counts and the published numbers."""

import math

import numpy as np
import pytest

from fl_inmetro.config.protocol import Protocol
from fl_inmetro.config.schema import Window
from fl_inmetro.data.protocols import cut, horizon_of, protocol_fleet, without_protocol
from fl_inmetro.data.series import ClientSeries, FederatedData, Manifest
from fl_inmetro.errors import DataError

HOUR = 3600
#: Hours of the public `electricity` set of 321 clients.
ECL = 26_304


def fleet(*lengths: int, resolution_s: int = HOUR, ends: bool = False) -> FederatedData:
    longest = max(lengths)
    rng = np.random.default_rng(3)
    clients = {
        f"c{k}": ClientSeries(
            f"c{k}",
            (longest - length) * resolution_s if ends else 0,
            resolution_s,
            1 + rng.random(length),
        )
        for k, length in enumerate(lengths)
    }
    return FederatedData(clients, Manifest("made", "made", "", "", "UTC", resolution_s))


@pytest.mark.parametrize(
    ("look_back", "horizon", "train", "validation", "test"),
    [
        # 26,304 hours: 18,412 of training, 2,632 of validation, 5,260 of test. Windows of test:
        # 5,260 − H + 1; of training: 18,412 − L − H + 1. (The loaders of the field print 18,221,
        # 2,537 and 5,165 for L = H = 96.)
        (96, 96, 18_221, 2_537, 5_165),
        (336, 96, 17_981, 2_537, 5_165),
        (336, 720, 17_357, 1_913, 4_541),
    ],
)
def test_ltsf_has_the_windows_of_the_published_loaders(look_back, horizon, train, validation, test):
    own = cut(Protocol(name="ltsf", look_back=look_back, horizon=horizon), ECL, ECL, HOUR)
    assert (own.train.size, own.validation.size, own.test.size) == (train, validation, test)
    assert own.fitted == 18_412
    assert own.test[0] == ECL - 5_260
    assert own.test[-1] + horizon == ECL


@pytest.mark.parametrize("horizon", [3, 6, 12, 24])
def test_lstnet_scores_each_step_of_the_last_fifth_once(horizon):
    own = cut(Protocol(name="lstnet", horizon=horizon), ECL, ECL, HOUR)
    # The plain loop: target t, the last known reading at t − horizon.
    loop = [t for t in range(ECL) if t >= int((0.6 + 0.2) * ECL)]
    target = own.test + own.first_step
    assert target.tolist() == loop
    assert (own.test - 1 == target - horizon).all()
    # Training: 168 hours of context, the target still in the first 60 %.
    assert own.train[0] == 168
    assert own.train[-1] + own.first_step == int(0.6 * ECL) - 1
    assert (own.validation + own.first_step)[0] == int(0.6 * ECL)


@pytest.mark.parametrize(("shortest", "windows"), [(26_304, 20), (4_000, 9), (300, 1)])
def test_gift_eval_has_at_most_twenty_windows_one_after_the_other(shortest, windows):
    own = cut(Protocol(name="gift-eval"), shortest + 100, shortest, HOUR)
    assert windows == min(20, math.ceil(0.1 * shortest / 48))
    assert own.test.size == windows
    assert own.test[-1] + 48 == shortest + 100
    assert (np.diff(own.test) == 48).all()
    # The window before the test chooses; all that is trained on ends before that.
    assert own.validation.tolist() == [own.test[0] - 48]
    assert not own.train.size or own.train[-1] + 48 <= own.validation[0]


@pytest.mark.parametrize("hours", [211 * 24, 300 * 24, 400 * 24])
def test_buildingsbench_has_the_windows_of_the_authors_loader(hours):
    own = cut(Protocol(name="buildingsbench"), hours, hours, HOUR)
    # What follows hour 180 · 24, up to 180 days and one hour; ⌊(length − 168 − 24) / 24⌋ windows.
    length = min(hours - 180 * 24 - 1, 180 * 24 + 1)
    assert own.test.size == (length - 168 - 24) // 24
    assert own.test[0] == 180 * 24 + 1 + 168
    assert own.validation[0] == 150 * 24 + 168
    assert own.validation[-1] + 24 <= 180 * 24
    assert own.train[-1] + 24 == 150 * 24


def test_a_building_without_thirty_days_after_the_first_180_is_left_out():
    made = protocol_fleet(Protocol(name="buildingsbench"), fleet(209 * 24, 250 * 24))
    assert list(made.clients) == ["c1"]
    assert "too few" in made.excluded["c0"]


def test_our_own_scores_see_every_hour_of_the_day_and_the_protocol_every_window():
    made = protocol_fleet(Protocol(name="ltsf", horizon=24), fleet(1_500))
    own, test = made.clients["c0"], made.tests["c0"].windows
    assert len(test) == 300 - 24 + 1
    assert len(own.test) == math.ceil(277 / 5)
    assert set(own.train.issue_index % 24) == set(range(24))
    assert made.splits.horizon == 24


def test_a_forecast_sees_no_more_than_the_look_back():
    made = protocol_fleet(Protocol(name="ltsf", look_back=96, horizon=24), fleet(1_500))
    past = made.tests["c0"].windows.past.lookback(100)
    assert np.isnan(past[:, :4]).all()
    assert np.isfinite(past[:, 4:]).all()
    # And with four days of it, it can still be trained on.
    assert made.clients["c0"].train.least_days == 4


@pytest.mark.parametrize(
    ("name", "data", "more"),
    [
        ("ltsf", fleet(1_500, 1_400), {}),
        ("gift-eval", fleet(1_500, 1_400), {}),
        ("buildingsbench", fleet(30_000, resolution_s=900), {}),
        ("ltsf", fleet(100), {}),
        ("ltsf", fleet(1_500), {"look_back": 12}),
    ],
)
def test_data_on_which_it_would_be_another_protocol_are_refused(name, data, more):
    with pytest.raises(DataError) as caught:
        protocol_fleet(Protocol(name=name, **more), data)
    assert caught.value.faults[0].code == "FL220"


def test_gift_eval_takes_series_of_different_lengths_that_end_together():
    made = protocol_fleet(Protocol(name="gift-eval"), fleet(1_500, 1_400, ends=True))
    # ⌈0.1 · 1,400 / 48⌉ = 3 windows for both.
    assert [len(test.windows) for test in made.tests.values()] == [3, 3]


def test_a_protocol_decides_the_horizon_of_a_run():
    assert horizon_of(Window(horizon_h=12), Protocol(), 1800) == 24
    assert horizon_of(Window(), Protocol(name="ltsf"), HOUR) == 96
    without_protocol(Protocol(), "this")
    with pytest.raises(DataError, match="FL220"):
        without_protocol(Protocol(name="ltsf"), "this")
