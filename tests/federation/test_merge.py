"""Every entry of the table of strategies on replies small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fl_inmetro.config.models import Gradient, WindowMlp
from fl_inmetro.config.strategy import STRATEGY_NAMES, Strategy
from fl_inmetro.errors import ConfigError
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.recipes import RECIPES, compose, merge_for
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.weighing import ByAge, ByLocalWork, ByLoss, ByPoints, local_work_of
from fl_inmetro.learning.neural import WindowMlpLearner
from fl_inmetro.learning.update import Arrays, Layout, Update, UpdateBlock
from fl_inmetro.learning.work import steps_of

LEARNER = WindowMlpLearner(WindowMlp(eta_l=0.5, batch_size=10, optimizer="sgd"))
POINTS = {"a": 100, "b": 300}
#: a makes ⌈20/10⌉ = 2 steps per epoch, b 6.
ROSTER = Roster({"a": 1, "b": 2}, POINTS, 0, (1,), 1, {"a": 20, "b": 60})


def state(value: float = 1.0) -> Arrays:
    return {"w": np.array([value], dtype=np.float32)}


def block(**rows: Any) -> UpdateBlock:
    """Name to (delta, weight) or (delta, weight, loss before)."""
    updates = [
        Update(name, {"w": np.array([row[0]], dtype=np.float32)}, row[1], 0.0,
               start_loss=row[2] if len(row) > 2 else float("nan"))
        for name, row in rows.items()
    ]  # fmt: skip
    return UpdateBlock.stack(updates, Layout.of(updates[0].arrays))


def merge_of(name: str, **settings: Any) -> DeltaMerge:
    made = merge_for(LEARNER, Strategy(name=name, **settings), roster=ROSTER)
    assert isinstance(made, DeltaMerge)
    return made


def rounds(merge: DeltaMerge, *blocks: UpdateBlock, start: float = 1.0) -> list[float]:
    """The weight after each round."""
    now, memory, seen = state(start), merge.begin(state(start)), []
    for one in blocks:
        now, memory = merge(now, [merge.digest(one)], memory)
        seen.append(float(now["w"][0]))
    return seen


BOTH = block(a=(4.0, 100), b=(8.0, 300))  # weighted mean 7, mean 6


def test_the_table_has_every_name_and_each_can_be_made():
    assert set(RECIPES) == set(STRATEGY_NAMES)
    for name in STRATEGY_NAMES:
        assert isinstance(merge_of(name), DeltaMerge)


def test_fedavg_and_fedprox_are_the_weighted_mean():
    assert rounds(merge_of("fedavg"), BOTH) == [8]
    assert rounds(merge_of("fedavg", eta=0.5), BOTH) == [4.5]
    assert rounds(merge_of("fedprox"), BOTH) == [8]
    assert compose(Strategy(name="fedprox")).work(2).mu == 0.01
    assert compose(Strategy(name="fedprox", mu=0.3)).work(2).mu == 0.3
    assert compose(Strategy(name="median", mu=0.3)).work(2).mu == 0.3


def test_fedavgm_by_hand():
    # v = 7, w = 8; v = 0.9·7 + 7 = 13.3, w = 21.3.
    assert rounds(merge_of("fedavgm", beta_1=0.9), BOTH, BOTH) == pytest.approx([8, 21.3])


def test_variance_control_by_hand():
    # The first round has nothing to compare with: 7. Then 3 − 0.25·(3 − 7) = 4.
    second = block(a=(3.0, 100), b=(3.0, 300))
    assert rounds(merge_of("variance-control", beta=0.25), BOTH, second) == pytest.approx([8, 12])
    # β(Δ_k − Δ_previous) taken from each update first, as the formula has it, is the same.
    each = [3 - 0.25 * (3 - 7), 3 - 0.25 * (3 - 7)]
    assert np.average(each, weights=[100, 300]) == 4


def test_fednova_by_hand():
    # a_k = 2 and 6, p = 1/4 and 3/4: τ_eff = 2/4 + 18/4 = 5, Σ p Δ/a = 4/8 + 3·8/24 = 1.5, and
    # 5 · 1.5 = 7.5.
    assert rounds(merge_of("fednova"), BOTH) == pytest.approx([8.5])
    # With equal work it is FedAvg.
    weighing = ByLocalWork({"a": 3.0, "b": 3.0})
    assert rounds(DeltaMerge(weighing=weighing), BOTH) == pytest.approx([8])


def test_fednova_with_a_robust_rule_by_hand():
    # Rows Δ/a = 2 and 8/6; their median is 5/3, times τ_eff = 5.
    made = merge_of("fednova", rule="median")
    assert rounds(made, BOTH, start=0) == pytest.approx([25 / 3])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_the_local_work_is_what_the_steps_add_up_to(momentum, mu):
    """Against the optimiser of the product, and the paper's closed forms."""
    import torch

    from fl_inmetro.learning.optimizers import optimizer_of

    settings = Gradient(optimizer="sgd", momentum=momentum, eta_l=0.2)
    weight = torch.zeros(1)
    optimizer = optimizer_of(settings, [weight])
    for _ in range(5):
        optimizer.step([torch.ones(1) + mu * weight])
    a = local_work_of(5, settings, mu)
    assert -weight.item() / 0.2 == pytest.approx(a, rel=1e-5)
    if momentum and not mu:
        assert a == pytest.approx((5 - 0.9 * (1 - 0.9**5) / 0.1) / 0.1)
    if mu and not momentum:
        assert a == pytest.approx((1 - (1 - 0.2 * mu) ** 5) / (0.2 * mu))
    assert local_work_of(5, Gradient(optimizer="adam"), mu) == 5


def test_steps_count_the_last_short_batch():
    assert steps_of(21, 10, 2) == 6
    assert steps_of(21, 0, 2) == 2
    assert steps_of(21, 10, 2, 1) == 1


def test_qfedavg_by_hand():
    # η_l = 0.5: L = 2. q = 1, F = 1 and 3, Δ = 4 and 8:
    # Σ L F Δ = 2·4 + 2·3·8 = 56; h = (L Δ)² + L F = 64 + 2 and 256 + 6: Σ h = 328.
    replies = block(a=(4.0, 100, 1.0), b=(8.0, 300, 3.0))
    assert rounds(merge_of("qfedavg", q=1.0), replies) == pytest.approx([1 + 56 / 328])
    # q = 0 is the plain mean of the clients.
    assert rounds(merge_of("qfedavg", q=0.0), replies) == pytest.approx([7])
    assert compose(Strategy(name="qfedavg")).work(1).start_loss


def test_qfedavg_moves_towards_the_client_that_does_worst():
    replies = block(a=(-1.0, 1, 0.1), b=(1.0, 1, 10.0))
    assert ByLoss(2.0, 0.5).rows(replies)[0].tolist() == pytest.approx([2 * 0.01, 200])
    assert rounds(merge_of("qfedavg", q=2.0), replies, start=0)[0] > 0


def test_feddyn_by_hand():
    # Uniform mean 6; m = 2, both take part. h = −α·6, w = 1 + 6 − h/α = 13.
    # Then h = −α·12, w = 13 + 6 + 12 = 31.
    assert rounds(merge_of("feddyn", alpha=0.1), BOTH, BOTH) == pytest.approx([13, 31])
    # With one of two clients h moves by half: h = −α·4/2, w = 1 + 4 + 2.
    assert rounds(merge_of("feddyn", alpha=0.1), block(a=(4.0, 100))) == pytest.approx([7])


def scaffold_block(**rows: tuple[float, float, float]) -> UpdateBlock:
    updates = [
        Update(name, {"w": np.array([delta], dtype=np.float32),
                      "control.w": np.array([change], dtype=np.float32)}, weight, 0.0)
        for name, (delta, change, weight) in rows.items()
    ]  # fmt: skip
    return UpdateBlock.stack(updates, Layout.of(updates[0].arrays))


@pytest.mark.parametrize("rule", [None, "median"])
def test_scaffold_by_hand(rule):
    merge = merge_of("scaffold", rule=rule)
    assert sorted(merge.reply_like(state())) == ["control.w", "w"]
    memory = merge.begin(state())
    assert merge.control(memory)["w"].tolist() == [0]
    both = scaffold_block(a=(4.0, 1.0, 100), b=(8.0, 5.0, 300))
    after, memory = merge(state(), [merge.digest(both)], memory)
    # Mean: Δ = 7 and c = (100·1 + 300·5)/400 = 4. Median: 6 and 3.
    assert after["w"].tolist() == [8 if rule is None else 7]
    assert merge.control(memory)["w"].tolist() == [4 if rule is None else 3]
    # Only a takes part: c moves by 100/400 of its change.
    one = scaffold_block(a=(0.0, 8.0, 100))
    _, memory = merge(after, [merge.digest(one)], memory)
    assert merge.control(memory)["w"].tolist() == [6 if rule is None else 5]


def test_fedbuff_counts_old_updates_less():
    # 4/√(1+0) and 8/√(1+3), over two: (4 + 4)/2.
    made = DeltaMerge(weighing=ByAge({"a": 0, "b": 3}))
    assert rounds(made, BOTH, start=0) == pytest.approx([4])


def test_a_robust_rule_a_server_optimiser_and_a_proximal_term_combine():
    settings = Strategy(name="median", server_optimizer="momentum", beta_1=0.5, mu=0.1)
    made = merge_for(LEARNER, settings, roster=ROSTER)
    three = block(a=(1.0, 1), b=(2.0, 1), c=(1e6, 1))
    # Median 2, v = 2; then v = 1 + 2 = 3.
    assert rounds(made, three, three, start=0) == pytest.approx([2, 5])  # type: ignore[arg-type]
    assert compose(settings).work(1).mu == 0.1


def test_centred_clipping_starts_from_the_last_round():
    made = merge_of("centered-clipping", radius=1.0)
    first = block(a=(10.0, 1), b=(10.0, 1))
    memory, now, moved = made.begin(state(0)), state(0), []
    for _ in range(3):
        after, memory = made(now, [made.digest(first)], memory)
        moved.append(float(after["w"][0] - now["w"][0]))
        now = after
    # Each iteration moves the centre by at most the radius, and goes on from where it was.
    assert moved[0] < moved[1] < moved[2] <= 10


def test_blocks_of_a_rule_may_be_cut_anywhere():
    made = merge_of("trimmed-mean", byzantine=1)
    whole = block(a=(1.0, 1), b=(2.0, 1), c=(3.0, 1), d=(100.0, 1))
    parts = [block(a=(1.0, 1)), block(b=(2.0, 1), c=(3.0, 1)), block(d=(100.0, 1))]
    expected = rounds(made, whole, start=0)
    after, _ = made(state(0), [made.digest(part) for part in parts], made.begin(state(0)))
    assert after["w"].tolist() == expected == [2.5]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "qfedavg", "rule": "median"}, "no other rule"),
        ({"name": "qfedavg", "server_optimizer": "adam"}, "no server optimiser"),
        ({"name": "fedavg", "tau": 0.1}, "`tau` has no effect"),
        ({"name": "median", "byzantine": 2}, "`byzantine` has no effect"),
        ({"name": "a.b:C", "rule": "median"}, "merges by itself"),
    ],
)
def test_parts_that_do_not_combine_are_fl111(settings, said):
    with pytest.raises(ConfigError, match=said) as raised:
        compose(Strategy(**settings))
    assert raised.value.faults[0].code == "FL111"


@pytest.mark.parametrize("name", [n for n in STRATEGY_NAMES if n not in ("qfedavg", "scaffold")])
def test_a_merge_goes_on_from_its_memory_as_if_it_had_not_stopped(name):
    """The memory is all there is: nothing is kept in the merge itself."""
    rows = {f"c{k}": (float(k % 3), 10) for k in range(12)}
    roster = Roster({n: k for k, n in enumerate(rows)}, dict.fromkeys(rows, 10), 0, (1,), 1,
                    dict.fromkeys(rows, 5))  # fmt: skip

    def fresh() -> DeltaMerge:
        made = merge_for(LEARNER, Strategy(name=name), roster=roster)
        assert isinstance(made, DeltaMerge)
        if name == "fedbuff":
            return DeltaMerge(weighing=ByAge(dict.fromkeys(rows, 2)))
        return made

    blocks = [block(**{n: (d * (r + 1), w) for n, (d, w) in rows.items()}) for r in range(4)]
    whole = rounds(fresh(), *blocks)
    now, memory = state(), fresh().begin(state())
    for one in blocks:
        merge = fresh()
        now, memory = merge(now, [merge.digest(one)], {n: a.copy() for n, a in memory.items()})
    assert float(now["w"][0]) == whole[-1]


def test_a_rule_goes_on_from_its_own_answer_whatever_the_weighing_makes_of_it():
    """With equal work a, FedNova's rows are Δ/a: clipped at r/a they give what Δ gives at r."""
    replies = [block(a=(d, 100), b=(2 * d, 100), c=(50.0, 100)) for d in (1.0, 1.5, 2.0)]
    plain = merge_of("centered-clipping", radius=1.0)
    scaled = DeltaMerge(
        rule_of=merge_of("centered-clipping", radius=1.0 / 20).rule_of,
        remembers=True,
        weighing=ByLocalWork(dict.fromkeys("abc", 20.0)),
    )
    assert rounds(scaled, *replies) == pytest.approx(rounds(plain, *replies), rel=1e-6)


def test_a_rule_that_weighs_is_given_the_weights_of_the_weighing():
    # FedDyn counts each client as one: bounded by nothing, the mean of 0 and 2 is 1 for 99:1 too.
    made = DeltaMerge(
        rule_of=merge_of("norm-bound", radius=1e9).rule_of, weighing=ByPoints(uniform=True)
    )
    assert rounds(made, block(a=(0.0, 99), b=(2.0, 1)), start=0) == pytest.approx([1])
    by_points = merge_of("norm-bound", radius=1e9)
    assert rounds(by_points, block(a=(0.0, 99), b=(2.0, 1)), start=0) == pytest.approx([0.02])


def test_nothing_that_counts_gives_no_number_and_no_crash():
    """Only without the gate: weights that add up to nothing."""
    assert np.isnan(rounds(merge_of("fedavg"), block(a=(1.0, 1.0), b=(2.0, -1.0)))[0])


def test_the_average_model_by_hand_and_what_clients_go_on_from():
    """λ = .5 caps t / (t + 9) = .1, .18…: w̄ = 0 → .1·0 + .9·1 → (2/11)·.9 + (9/11)·3."""
    merge = DeltaMerge(average=0.5)
    state = {"w": np.zeros(1, np.float32), "x_mean": np.ones(1, np.float32)}
    memory = merge.begin(state)
    assert merge.served(state, memory)["w"].tolist() == [0.0]
    one, memory = merge(state, [merge.digest(one_reply(1.0))], memory)
    served = merge.served(one, memory)
    assert one["w"].tolist() == [1.0]
    np.testing.assert_allclose(served["w"], [0.9])
    assert served["w"].dtype == np.float32
    assert served["x_mean"].tolist() == [1.0]
    two, memory = merge(one, [merge.digest(one_reply(2.0))], memory)
    np.testing.assert_allclose(two["w"], [3.0])
    np.testing.assert_allclose(merge.served(two, memory)["w"], [2 / 11 * 0.9 + 9 / 11 * 3])
    assert DeltaMerge().served(two, DeltaMerge().begin(two)) == two


def one_reply(delta: float) -> UpdateBlock:
    update = Update("a", {"w": np.array([delta], np.float32)}, 1.0, 0.0, 0.0)
    return UpdateBlock.stack([update], Layout.of(update.arrays))
