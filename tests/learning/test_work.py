"""The order in which a client sees its windows: SplitMix64 against published numbers; batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.learning.work import (
    DpSgd,
    LocalWork,
    NoiseShare,
    StepError,
    Watch,
    batches,
    sampling_rate,
    window_orders,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_the_order_is_that_of_the_published_numbers():
    """SplitMix64 of seed 1234567 (rosettacode.org, "Pseudo-random numbers/Splitmix64") begins
    6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
    16408922859458223821: from the lowest, the windows 1, 3, 0, 2, 4.
    """
    assert window_orders(ints(1234567), ints(0), ints(5)).tolist() == [[1, 3, 0, 2, 4]]


def plain_splitmix64(seed: int, count: int, skip: int) -> list[int]:
    """As in the paper, number by number, after `skip` of them."""
    mask = 2**64 - 1
    state = (seed + skip * 0x9E3779B97F4A7C15) & mask
    found = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        found.append(z ^ (z >> 31))
    return found


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(1, 40))
def test_an_epoch_goes_on_2_to_the_32_numbers_later(seed, epoch, count):
    numbers = plain_splitmix64(seed, count, epoch << 32)
    expected = sorted(range(count), key=numbers.__getitem__)
    assert window_orders(ints(seed), ints(epoch), ints(count))[0].tolist() == expected


@given(
    st.lists(
        st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 9), st.integers(1, 12)),
        min_size=1,
        max_size=6,
    )
)
def test_clients_at_once_are_clients_one_by_one(clients):
    seeds, epochs, counts = (ints(*column) for column in zip(*clients, strict=True))
    together = window_orders(seeds, epochs, counts)
    for k, count in enumerate(counts):
        alone = window_orders(seeds[k : k + 1], epochs[k : k + 1], counts[k : k + 1])[0]
        assert together[k, :count].tolist() == alone.tolist()
        assert sorted(alone) == list(range(count))


def test_every_window_comes_at_every_place_as_often():
    """1000 clients, 5 windows: of 25 counts around 200 the squared deviations add up to χ²(16)."""
    orders = window_orders(np.arange(1000) * 7919, np.zeros(1000, np.int64), np.full(1000, 5))
    counts = np.array([[(orders[:, place] == w).sum() for w in range(5)] for place in range(5)])
    assert ((counts - 200) ** 2 / 200).sum() < 39.25  # its 99.9 % point


@pytest.mark.parametrize(("size", "lengths"), [(4, [4, 4, 2]), (10, [10]), (99, [10]), (0, [10])])
def test_batches_cut_each_epoch_by_itself(size, lengths):
    steps = list(batches(10, size, 3, 5))
    assert [len(step) for step in steps] == lengths * 3
    per_epoch = len(lengths)
    orders = [np.concatenate(steps[k : k + per_epoch]) for k in range(0, len(steps), per_epoch)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3  # another order in each epoch


def fail(error: BaseException, *, debug: bool) -> None:
    with Watch(debug=debug) as watch:
        watch.step = 3
        raise error


def test_a_watch_says_at_which_step_in_debug_mode_only():
    with pytest.raises(StepError, match="ValueError: no") as caught:
        fail(ValueError("no"), debug=True)
    assert caught.value.step == 3
    with pytest.raises(ValueError, match="no"):
        fail(ValueError("no"), debug=False)
    # What already says its step is left as it is, and so is a request to stop.
    with pytest.raises(StepError) as caught:
        fail(StepError(1, "earlier"), debug=True)
    assert caught.value.step == 1
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt(), debug=True)


def test_one_epoch_without_any_extra_is_the_default():
    assert LocalWork() == LocalWork(epochs=1, mu=0.0, dp=None)


@pytest.mark.parametrize(
    "values",
    [
        {"control": "scafold"},
        {"control": "feddyn"},
        {"alpha": 0.1},
        {"control": "scaffold", "alpha": 0.1},
        {"probe": True, "control": "scaffold"},
        {"probe": True, "dp": DpSgd(1.0, 1.0)},
        {"probe": True, "share": NoiseShare(1.0, 1.0)},
        {"start_loss": True, "dp": DpSgd(1.0, 1.0)},
        {"start_loss": True, "share": NoiseShare(1.0, 1.0)},
        {"dp": DpSgd(1.0, 1.0), "share": NoiseShare(1.0, 1.0)},
        {"control": "scaffold", "share": NoiseShare(1.0, 1.0)},
    ],
)
def test_work_that_does_not_go_together_is_refused(values):
    with pytest.raises(ValueError, match=r"control|alpha|probe|noise"):
        LocalWork(**values)


@pytest.mark.parametrize("kind", [DpSgd, NoiseShare])
@pytest.mark.parametrize(("clip", "noise"), [(0, 1), (-1, 1), (1, -1), (np.nan, 1), (1, np.inf)])
def test_noise_that_protects_nobody_is_refused(kind, clip, noise):
    with pytest.raises(ValueError, match="protects nobody"):
        kind(clip, noise)


@pytest.mark.parametrize(
    ("windows", "size", "rate"), [(64, 32, 0.5), (20, 32, 1), (20, 0, 1), (100, 1, 0.01)]
)
def test_a_window_is_drawn_with_chance_b_over_n(windows, size, rate):
    assert sampling_rate(windows, size) == pytest.approx(rate)
