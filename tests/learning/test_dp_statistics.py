"""DP-SGD as a mechanism: variance, clipping, draws, independence, and that planted bugs are found.

The secret is fixed, so every figure here is the same in each run. Limits are those that a correct
mechanism would cross in one of ten thousand choices of the secret.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fl_inmetro.learning import chunk, dp_sgd
from fl_inmetro.learning.work import DpSgd, LocalWork
from fl_inmetro.privacy.secret import Secret
from tests.engines import flat
from tests.learning.private_steps import by, design, nlinear, zeros

both_engines = pytest.mark.parametrize("engine", ["loop", "cohort"])

#: Of being wrong about a correct mechanism.
RARE = 1e-4
ETA, CLIP, Z = 0.1, 2.0, 1.5


# ------------------------------------------------------------------------------- what must hold
def noise_of(engine: str, round_: int = 1, clients: int = 200) -> np.ndarray:
    """The noise alone, in units of its promised deviation: clients at their optimum (r = 0).

    Batches of 2 of 4 windows, one step: Δ = −η·zC·N(0, 1)/2. Shape (clients, 3).
    """
    designs = [design([[1, 0]] * 4, [[0]] * 4)] * clients
    work = LocalWork(steps=1, dp=DpSgd(CLIP, Z))
    moved = by(engine, nlinear(batch_size=2), zeros(), designs, work, round_)
    return np.array([flat(d) for d in moved]) / (ETA * Z * CLIP / 2)


def the_noise_has_its_variance(engine: str) -> None:
    """Σ of 600 squares is χ² with 600 degrees of freedom; and they are normal."""
    noise = noise_of(engine)
    low, high = stats.chi2.ppf([RARE / 2, 1 - RARE / 2], noise.size)
    assert low < (noise**2).sum() < high
    assert abs(noise.sum()) < stats.norm.ppf(1 - RARE / 2) * np.sqrt(noise.size)
    assert stats.kstest(noise.ravel(), "norm").pvalue > RARE


def noise_is_drawn_for_each_client_and_round(engine: str) -> None:
    """Correlations of m independent pairs are within 3.9/√m of zero (one of ten thousand)."""
    first, second = noise_of(engine), noise_of(engine, round_=2)
    limit = stats.norm.ppf(1 - RARE / 2)
    for one, other in ((first, second), (first[:-1], first[1:]), (first[:, 0], first[:, 1])):
        pairs = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(pairs) < limit / np.sqrt(one.size)


def steps_have_noise_of_their_own(engine: str) -> None:
    """Over four steps the variances add up: 4, where four times the same noise would have 16.

    At a rate of 1e-6 the model stays at its optimum beside a noise of 1.5.
    """
    designs = [design([[1, 0]] * 4, [[0]] * 4)] * 200
    made = nlinear(batch_size=2, eta_l=1e-6)
    work = LocalWork(epochs=2, dp=DpSgd(CLIP, Z))
    moved = by(engine, made, zeros(), designs, work)
    noise = np.array([flat(d) for d in moved]) / (1e-6 * Z * CLIP / 2)
    low, high = stats.chi2.ppf([RARE / 2, 1 - RARE / 2], noise.size)
    assert low < (noise**2).sum() / 4 < high


def each_window_is_drawn_by_itself(engine: str) -> None:
    """Six windows that move six digits of a number: which were drawn can be read off.

    x = 0, r_n = −4^n / 2: the bias alone has a gradient, 4^n. Batches of 2, so q = 1/3; 300
    clients. Counts of windows are binomial, and so is the number drawn by a client: its variance is
    6·(1/3)·(2/3); and no two windows go together.
    """
    powers = 4.0 ** np.arange(6)
    designs = [design([[0, 0]] * 6, -powers[:, None] / 2)] * 300
    work = LocalWork(steps=1, dp=DpSgd(1e6, 0.0))
    for round_ in (1, 2):
        moved = by(engine, nlinear(batch_size=2), zeros(), designs, work, round_)
        total = np.array([d["linear.bias"][0] for d in moved], np.float64) * -2 / ETA
        digits = (np.rint(total)[:, None] // powers.astype(int)) % 4
        assert np.abs(total - np.rint(total)).max() < 0.01
        assert set(np.unique(digits)) == {0, 1}  # drawn or not, never twice
        counts = digits.sum(0)
        for count in counts:
            assert stats.binomtest(int(count), 300, 1 / 3).pvalue > RARE
        each = digits.sum(1)
        spread = ((each - 2) ** 2).sum() / (6 * 2 / 9)
        assert 300 * 0.7 < spread < 300 * 1.4  # about χ² with 300 degrees of freedom
        pairs = np.corrcoef(digits.T)[np.triu_indices(6, 1)]
        assert np.abs(pairs).max() < stats.norm.ppf(1 - RARE / 30) / np.sqrt(300)


def no_window_moves_the_sum_by_more_than_the_clip(engine: str) -> None:
    """Where one window is wild, small, or not finite, and the others are not."""
    rng = np.random.default_rng(3)
    x, r = rng.normal(size=(5, 2)), rng.normal(size=(5, 1))
    for wild in (1e-3, 30.0, 1e4, 1e18, 1e30):
        without = sum_of(engine, x, r)
        moved = np.linalg.norm(sum_of(engine, [*x, [wild, -1]], [*r, [2 * wild]]) - without)
        assert moved <= CLIP * (1 + 1e-5)


def sum_of(engine: str, x: object, r: object) -> np.ndarray:
    """Σ clip(g_i, C) of a step on all windows."""
    one = design(x, r)
    work = LocalWork(steps=1, dp=DpSgd(CLIP, 0.0))
    (delta,) = by(engine, nlinear(), zeros(), [one], work)
    return -flat(delta).astype(np.float64) * len(one.x) / ETA


CHECKS = (
    the_noise_has_its_variance,
    noise_is_drawn_for_each_client_and_round,
    steps_have_noise_of_their_own,
    each_window_is_drawn_by_itself,
    no_window_moves_the_sum_by_more_than_the_clip,
)


@both_engines
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_holds(engine, check):
    check(engine)


# ---------------------------------------------------------------------------- and can be missed
noised, factors, poisson = dp_sgd.noised, dp_sgd.factors, dp_sgd.poisson


def half_noise(sums, normal, dp, expected):
    return noised(sums, normal, DpSgd(dp.clip, dp.noise_multiplier / 2), expected)


def divided_twice(sums, normal, dp, expected):
    """Noise made for the mean, and divided again: a quarter of the variance, here."""
    return noised(sums, [own / 2 for own in normal], dp, expected)


def of_the_clients_alone(secret, client_id, round_):
    return secret.child("client", client_id)


def of_the_round_alone(secret, client_id, round_):
    return secret.child("round", round_)


class OneNoise(dp_sgd.Draws):
    """The generator begins again in every step."""

    def noise(self, room):
        Secret(bytes([self._count] * 32)).generator("noise").standard_normal(
            out=room, dtype=np.float32
        )


def fixed_batch(generator, windows, rate):
    return np.sort(generator.permutation(windows)[: round(rate * windows)])


def twice_the_rate(generator, windows, rate):
    return poisson(generator, windows, 2 * rate)


def in_one_go(generator, windows, rate):
    """All windows or none: each has the right chance, but they go together."""
    return np.arange(windows) if generator.random() < rate else np.arange(0)


BUGS: dict[str, tuple[str, Callable, Callable]] = {
    "half noise": ("noised", half_noise, the_noise_has_its_variance),
    "noise divided by the batch twice": ("noised", divided_twice, the_noise_has_its_variance),
    "the same noise in every round": (
        "client_secret", of_the_clients_alone, noise_is_drawn_for_each_client_and_round,
    ),
    "the same noise for all clients": (
        "client_secret", of_the_round_alone, noise_is_drawn_for_each_client_and_round,
    ),
    "the same noise in every step": ("Draws", OneNoise, steps_have_noise_of_their_own),
    "no clipping": (
        "factors", lambda norms, clip: torch.ones_like(norms),
        no_window_moves_the_sum_by_more_than_the_clip,
    ),
    "clipped to twice the norm": (
        "factors", lambda norms, clip: factors(norms, 2 * clip),
        no_window_moves_the_sum_by_more_than_the_clip,
    ),
    "what is not finite counts": (
        "factors", lambda norms, clip: (clip / norms.clamp_min(1e-12)).clamp(max=1.0) + 0 * norms,
        no_window_moves_the_sum_by_more_than_the_clip,
    ),
    "a fixed number of windows": ("poisson", fixed_batch, each_window_is_drawn_by_itself),
    "twice the rate": ("poisson", twice_the_rate, each_window_is_drawn_by_itself),
    "windows drawn together": ("poisson", in_one_go, each_window_is_drawn_by_itself),
}  # fmt: skip


@both_engines
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(engine, bug, monkeypatch):
    name, broken, check = BUGS[bug]
    monkeypatch.setattr(dp_sgd, name, broken)
    if name == "Draws":
        monkeypatch.setattr(chunk, name, broken)
    with pytest.raises(AssertionError):
        check(engine)


# --------------------------------------------------------------------------------- any windows
finite = st.floats(-1e4, 1e4, width=32)


@both_engines
@given(
    windows=st.lists(st.tuples(finite, finite, finite), min_size=2, max_size=6),
    wild=st.floats(width=32),
)
@settings(max_examples=40, deadline=None)
def test_no_window_whatever_moves_the_sum_by_more_than_the_clip(engine, windows, wild):
    """Neighbours by one window, which may be anything a float32 is."""
    x = [[a, b] for a, b, _ in windows]
    r = [[c] for _, _, c in windows]
    moved = sum_of(engine, [*x, [wild, 1]], [*r, [1]]) - sum_of(engine, x, r)
    # The others' clipped gradients, up to C each, are rounded as they are added up.
    assert np.linalg.norm(moved) <= CLIP * (1 + 1e-5 * len(windows))
