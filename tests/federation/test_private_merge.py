"""Client-level noise: by hand, whoever answers; what is planted is found by the audit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_inmetro.config.federation import Federation
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import PrivacyError
from fl_inmetro.federation.closing import Quorum
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.private_merge import Following, PrivateMerge, Released
from fl_inmetro.federation.private_sampling import Poisson
from fl_inmetro.federation.robust import rule_factory
from fl_inmetro.federation.selection import Draw
from fl_inmetro.learning.update import Layout, UpdateBlock
from fl_inmetro.privacy.audit import Audit, by_many_releases, by_one_release
from fl_inmetro.privacy.secret import Secret

KEY = Secret(bytes(range(32)))


def block(rows) -> UpdateBlock:
    matrix = np.asarray(rows, dtype=np.float32)
    state = {"w": np.zeros(matrix.shape[1], np.float32)}
    n = len(matrix)
    names = tuple(f"c{k}" for k in range(n))
    # n_k differ: they must not matter.
    weights = np.arange(1.0, n + 1)
    return UpdateBlock(names, Layout.of(state), matrix, weights, np.zeros(n), np.zeros(n))


def private(z: float = 0.0, expected: float = 4.0, secret: Secret = KEY, **more) -> PrivateMerge:
    return PrivateMerge.over(
        DeltaMerge(),
        clip=more.pop("clip", 1.0),
        noise_multiplier=z,
        expected=expected,
        secret=secret,
        **more,
    )


def merged(merge: PrivateMerge, blocks, size: int, memory=None):
    state = {"w": np.zeros(size, np.float64), "x_mean": np.ones(2)}
    memory = merge.begin(state) if memory is None else memory
    after, memory = merge(state, [merge.digest(b) for b in blocks], memory)
    assert np.array_equal(after["x_mean"], state["x_mean"])
    return after["w"], memory


def test_the_sum_of_clipped_updates_over_the_expected_cohort_by_hand():
    # (3, 4) has norm 5: clipped to (.6, .8). (0, .5) stays. Four were expected.
    after, _ = merged(private(), [block([[3.0, 4.0], [0.0, 0.5]])], 2)
    assert after == pytest.approx([0.15, 0.325])
    # In two blocks, and with a third client that did not answer: the same.
    again, _ = merged(private(), [block([[3.0, 4.0]]), block([[0.0, 0.5]])], 2)
    assert again == pytest.approx(after)


def test_nobody_is_noise_alone():
    after, memory = merged(private(z=2.0), [], 5000)
    assert after.std() == pytest.approx(2.0 / 4, rel=0.05)
    assert memory["private.round"] == 1


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    clip=st.floats(1e-3, 1e3),
)
def test_without_one_client_the_sum_moves_by_the_clipping_norm_at_most(rows, clip):
    merge = private(expected=1.0, clip=clip)
    whole, _ = merged(merge, [block(rows)], 3)
    rest = [block(rows[1:])] if rows[1:] else []
    without, _ = merged(merge, rest, 3)
    assert np.linalg.norm(whole - without) <= clip * (1 + 1e-6)


def test_it_is_noted_before_it_is_applied_and_a_refusal_leaves_nothing():
    seen: list[Released] = []

    def refuse(released: Released) -> None:
        seen.append(released)
        raise RuntimeError

    merge = private(z=1.0, release=refuse)
    with pytest.raises(RuntimeError):
        merged(merge, [block([[1.0, 0.0]])], 2)
    assert (seen[0].round, seen[0].noise_multiplier, seen[0].sensitivity) == (1, 1.0, 1.0)


def test_the_same_round_of_the_same_sum_has_the_same_bits_and_no_other():
    seen: list[Released] = []
    merge = private(z=1.0, release=seen.append)
    first, memory = merged(merge, [block([[1.0, 0.0]])], 2)
    again, _ = merged(merge, [block([[1.0, 0.0]])], 2)
    assert np.array_equal(first, again)
    assert seen[0] == seen[1]
    # Another sum of the same round: its noise is another, or the difference would show a client.
    other, _ = merged(merge, [block([[1.0, 0.0], [0.0, 1.0]])], 2)
    assert abs((other - first)[1] - 0.25) > 1e-3
    following, _ = merged(merge, [block([[1.0, 0.0]])], 2, memory)
    assert not np.array_equal(first, following)


def test_shares_of_the_clients_are_topped_up_where_few_answered():
    # z C = 2. Three shares of variance 1: one is lacking of 4; with five none is.
    for answered, lacks in ((3, 1.0), (1, 3.0), (5, 0.0)):
        merge = private(z=2.0, expected=1.0, share=1.0)
        noise = merged(merge, [block(np.zeros((answered, 4000)))], 4000)[0]
        assert noise.var() == pytest.approx(lacks, rel=0.1)


def test_shares_are_not_clipped_off_again_and_no_row_is_longer_than_a_share_makes_it():
    # Four clients whose updates and shares of 1 are in: 4 of (z C)² = 4. A clip of 1 would have
    # left a 64th of the deviation, as a share of 4,000 numbers is 63 long.
    rows = np.random.default_rng(4).standard_normal((4, 4000))
    merge = private(z=2.0, expected=1.0, share=1.0)
    noise = merged(merge, [block(rows)], 4000)[0]
    assert noise == pytest.approx(rows.sum(0), abs=1e-5)
    assert noise.var() == pytest.approx(4.0, rel=0.1)
    # C + σ (√P + 8) = 1 + 63.2 + 8 bounds who does not add what it should.
    loud, _ = merged(merge, [block([*rows[:3], 1e6 * rows[3]])], 4000)
    rest, _ = merged(merge, [block([*rows[:3], 0 * rows[3]])], 4000)
    assert np.linalg.norm(loud - rest) == pytest.approx(9 + 4000**0.5, rel=1e-6)


def test_an_update_that_is_not_finite_never_reaches_the_sum():
    rows = [[0.3, 0.0], [np.nan, 1.0], [np.inf, 0.0]]
    for merge in (private(), private(share=1e-9), private(z=1.0, on_grid=True)):
        found = merge.digest(block(rows))
        alone = merge.digest(block([[0.3, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        assert np.array_equal(found.vector, alone.vector)
        assert found.terms[0] == 3


# ----------------------------------------------------------------------------- the grid
def test_on_the_grid_the_sum_is_exact_and_its_noise_whole():
    rows = 3.0 * np.random.default_rng(5).standard_normal((20, 3000)) / 3000**0.5
    merge = private(z=0.5, expected=10.0, on_grid=True)
    step = 0.5 / 2**20
    assert merge.digest(block(rows)).vector * step == pytest.approx(
        private().digest(block(rows)).vector, abs=20 * step
    )
    # In any order and any blocks: the same sum to the last bit, and so the same noise.
    one, _ = merged(merge, [block(rows)], 3000)
    blocks = [block(rows[k : k + 3]) for k in (18, 15, 12, 9, 6, 3, 0)]
    again, _ = merged(merge, blocks, 3000)
    assert np.array_equal(one, again)
    noise, _ = merged(merge, [], 3000)
    assert np.array_equal(noise * 10 / step, np.rint(noise * 10 / step))
    # Chi-square of 3,000: a deviation of .05 within 5 of 1.3 %.
    assert noise.std() == pytest.approx(0.05, rel=0.065)


@pytest.mark.parametrize("z", [0.3, 1.0])
def test_on_the_grid_the_norm_follows_as_well(z):
    rows = np.zeros((100, 2), np.float32)
    rows[:, 0] = np.linspace(0.1, 10.0, 100)
    merge = private(expected=100.0, z=z, on_grid=True, following=Following(0.7, 0.3, 5.0))
    memory = merge.begin({"w": np.zeros(2)})
    for _ in range(60):
        merge.control(memory)
        _, memory = merged(merge, [block(rows)], 2, memory)
    assert memory["private.clip"][0] == pytest.approx(7.0, rel=0.15)


def test_what_no_grid_holds_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="not on the grid"):
        private(z=1.0, share=1.0, on_grid=True)
    with pytest.raises(PrivacyError, match="FL409"):
        private(z=1e-6, on_grid=True)


@pytest.mark.parametrize(
    "inner", [DeltaMerge(rule_of=rule_factory("median", None)), DeltaMerge(scaffold=True)]
)
def test_what_lets_clients_decide_about_each_other_has_no_account(inner):
    with pytest.raises(ValueError, match="plain mean"):
        PrivateMerge.over(inner)


# ----------------------------------------------------------------------------- the draw
def test_each_client_is_drawn_by_itself_with_its_chance():
    names = [f"c{k}" for k in range(40)]
    draws = [Poisson(KEY, 0.3)(names, 12, Draw(0, number)) for number in range(500)]
    counts = np.array([len(d) for d in draws])
    # Binomial(40, .3): mean 12, variance 8.4; means of 500 have deviations .13 and .53.
    assert counts.mean() == pytest.approx(12, abs=0.5)
    assert counts.var() == pytest.approx(8.4, abs=2)
    each = np.array([[n in d for n in names] for d in map(set, draws)]).mean(0)
    assert abs(each - 0.3).max() < 0.1
    assert draws[0] == Poisson(KEY, 0.3)(names[::-1], 1, Draw(99, 0))  # the seed has no part in it
    assert draws[0] != Poisson(Secret.fresh(), 0.3)(names, 12, Draw(0, 0)) or len(draws[0]) < 3
    few = Poisson(KEY, 0.3)(names[:20], 12, Draw(0, 5))
    assert few == [n for n in draws[5] if n in set(names[:20])]
    assert Poisson(KEY, 1.0)(names, 1, Draw(0, 0)) == sorted(names)


def test_a_round_of_few_is_not_drawn_again_but_needs_its_replies():
    quorum = Quorum(Federation(min_clients=5), Gate(quorum=0.5), closed_form=False, drawn=True)
    assert quorum.fault(1, 0, 10, 0) is None  # nobody was drawn
    assert quorum.fault(1, 2, 10, 2) is None
    assert quorum.fault(1, 1, 10, 4) is not None  # half of the drawn are missing
    assert quorum.fault(1, 8, 10, 12) is None
    assert quorum.fault(1, 4, 10, 12) is not None


# -------------------------------------------------------------------- a norm that follows
def test_the_clipping_norm_follows_the_quantile_by_hand():
    # Norms .5, 2, 3 against C = 1: one is short. Counted from the middle: .5 − .5 − .5 = −.5; of
    # four expected, b̃ = .5 − .5/4 = .375. C becomes exp(−.2 (.375 − .5)).
    merge = private(following=Following(0.5, 0.2, 1.0))
    _, memory = merged(merge, [block([[0.5, 0.0], [2.0, 0.0], [0.0, 3.0]])], 2)
    assert memory["private.clip"] == pytest.approx([np.exp(0.2 * 0.125)])


def test_it_finds_the_quantile_and_a_resumed_one_goes_on():
    rows = np.zeros((100, 2), np.float32)
    rows[:, 0] = np.linspace(0.1, 10.0, 100)
    merge = private(expected=100.0, z=0.5, following=Following(0.7, 0.3, 5.0))
    memory = merge.begin({"w": np.zeros(2)})
    for _ in range(60):
        merge = replace(merge, now=type(merge.now)(0.0))  # as after a restart: memory alone is left
        merge.control(memory)
        _, memory = merged(merge, [block(rows)], 2, memory)
    assert memory["private.clip"][0] == pytest.approx(7.0, rel=0.15)


def test_the_count_and_the_sum_are_one_release_of_the_noise_that_is_claimed():
    # Two Gaussians of one draw with ratios 1/z' and 1/(2 s) are one with the root of the sum of
    # squares: z = 1 and s = 1 leave (1 − 1/4)^-1/2 for the sum.
    following = Following(0.5, 0.2, 1.0)
    assert following.of_sum(1.0) == pytest.approx((3 / 4) ** -0.5)
    merge = private(z=1.0, expected=1.0, following=following)
    noise = merged(merge, [], 20_000)[0]
    assert noise.std() == pytest.approx((3 / 4) ** -0.5, rel=0.03)
    with pytest.raises(PrivacyError, match="FL408"):
        following.of_sum(2.0)


# ----------------------------------------------------------------------------- the audit
class HalfNoise(PrivateMerge):
    def _noised(self, vector, *more):
        return vector + (super()._noised(vector, *more) - vector) / 2


class DividedTwice(PrivateMerge):
    def _noised(self, vector, *more):
        return vector + (super()._noised(vector, *more) - vector) / self.expected


class NoClipping(PrivateMerge):
    def digest(self, block):
        return replace(self, clip=1e9).digest(block) if self.clip < 1e9 else super().digest(block)


class MeanOfThoseWhoAnswered(PrivateMerge):
    """What a plain mean does: the noise is made for all that were expected."""

    def __call__(self, state, digests, memory):
        answered = sum(float(d.terms[0]) for d in digests)
        scaled = [replace(d, vector=d.vector * self.expected / answered) for d in digests]
        return super().__call__(state, scaled, memory)


def audited(
    kind: type[PrivateMerge], answered: int = 3, releases: int = 3000, on_grid: bool = False
) -> Audit:
    """Audit a round of ten expected clients, some of whom answer; the canary sends ten times C."""
    z, size = 1.0, 4
    scores: dict[bool, list[float]] = {True: [], False: []}
    honest = [[0.0, 0.3, 0.0, 0.0]] * (answered - 1)
    for number in range(releases):
        secret = KEY.child(number)
        for inside, found in scores.items():
            merge = kind.over(
                DeltaMerge(),
                clip=1.0,
                noise_multiplier=z,
                expected=10.0,
                secret=secret,
                on_grid=on_grid,
            )
            canary = [[10.0 * inside, 0.0, 0.0, 0.0]]
            after, _ = merged(merge, [block([*honest, *canary])], size)
            found.append(after[0] * 10.0)
    return by_many_releases(np.array(scores[True]), np.array(scores[False]), z, 1e-5)


@pytest.mark.parametrize("on_grid", [False, True])
def test_the_audit_passes_the_merge_as_it_is(on_grid):
    found = audited(PrivateMerge, on_grid=on_grid)
    assert found.holds
    assert found.noise == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("kind", "noise"),
    [(HalfNoise, 0.5), (DividedTwice, 0.1), (NoClipping, 0.1), (MeanOfThoseWhoAnswered, 0.3)],
)
def test_the_audit_finds_what_is_planted(kind, noise):
    # By hand: half the noise; a tenth, as ten are expected; ten times the sensitivity; and three of
    # ten answers under noise for ten: 1 · 3/10.
    found = audited(kind, releases=1500)
    assert found.noise == pytest.approx(noise, rel=0.1)
    assert not found.holds


def test_one_round_of_many_canaries_is_an_audit_too():
    # 1,000 canary clients in one release, each along a coordinate of its own, half of them in it.
    canaries, z = 1000, 1.0
    included = np.random.default_rng(3).random(canaries) < 0.5
    rows = 5.0 * np.eye(canaries, dtype=np.float32)[included]
    after, _ = merged(private(z=z, expected=7.0), [block(rows)], canaries)
    found = by_one_release(after * 7.0, included, 4.38, z, 1e-5)
    assert found.holds
    assert found.noise == pytest.approx(1.0, abs=0.1)
    assert found.lower_bound > 0.3  # the audit is not blind
