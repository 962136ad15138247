"""Rounds under client-level noise: engines, draws of nobody, drop-out, stops, and the gate."""

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro import events
from fl_inmetro.config.schema import Execution, Federation
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import FederationError
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.private_merge import PrivateMerge, Released
from fl_inmetro.federation.private_sampling import Poisson
from fl_inmetro.federation.progress import begin
from fl_inmetro.federation.protection import alone
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.selection import Draw
from fl_inmetro.federation.spending import Account
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.federation.training import Group, train_group
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.privacy.ledger import Ledger, Owner
from fl_inmetro.privacy.secret import Secret
from tests.engines import ENGINES, Memory, apart, flat, grid_of, same_bits
from tests.federation.test_cohort_faults import put
from tests.learning.ragged import OPTIMIZERS, clients, config, learner, workers

NETWORK = learner("window_mlp", batch_size=8, eta_l=1e-2, optimizer="sgd", loss="mse")
CLIP = 0.01
#: Of seven clients drawn with chance .3, some rounds of these have nobody.
DRAWS = Secret(bytes(range(32)))


def trained(engine, chosen=None, rounds=1, rate=1.0, z=0.0, gate=None, state=None, **more):
    """Rounds of a private merge; returns progress, events, what was released, and the start."""
    released: list[Released] = more.pop("released", [])
    seen: list[events.Event] = []
    grid = grid_of(engine, chosen or workers(NETWORK), Execution(chunk=3, workers=2))
    roster, first = enrol(grid, NETWORK, 0, 60)
    merge = PrivateMerge.over(
        more.pop("inner", DeltaMerge()),
        clip=more.pop("clip", CLIP),
        noise_multiplier=z,
        expected=more.pop("expected", 7 * rate),
        secret=DRAWS,
        release=released.append,
    )
    strategy = FederatedStrategy(
        roster,
        merge,
        closed_form=False,
        settings=Federation(num_server_rounds=rounds, fraction_fit=rate, **more),
        seed=0,
        gate=gate or alone(Gate()),
        sampler=Poisson(DRAWS, rate),
        emit=seen.append,
    )
    progress = strategy.run(grid, begin(state or first), rounds, 60)
    return progress, seen, released, first


def drawn(seen):
    return [one.selected for one in seen if isinstance(one, events.RoundStarted)]


def test_the_cohort_is_the_loop_and_rounds_of_nobody_go_on():
    (loop, seen, noted, first), (cohort, others, _, _) = (
        trained(engine, rounds=12, rate=0.3) for engine in ENGINES
    )
    assert drawn(seen) == drawn(others)
    sizes = [len(names) for names in drawn(seen)]
    assert 0 in sizes  # nobody was drawn once: the round was neither repeated nor a fault
    assert max(sizes) > 2.1  # more than qK were drawn, and none of them was left out
    assert len(sizes) == len(noted) == 12
    assert [one.round for one in noted] == list(range(1, 13))
    assert apart(loop.state, cohort.state) < 1e-5
    assert apart(loop.state, first) > 1e-3


def test_a_round_of_nobody_releases_noise_of_the_whole_deviation():
    of_seven = [f"c{k}" for k in range(7)]
    sampler = Poisson(DRAWS, 0.1)
    number = next(n for n in range(2, 99) if not sampler(of_seven, 1, Draw(0, n)))
    progress, seen, released, _ = trained("cohort", rounds=number, rate=0.1, z=2.0)
    assert drawn(seen)[number - 1] == ()
    assert released[-1].noise_multiplier == 2.0
    before, *_ = trained("cohort", rounds=number - 1, rate=0.1, z=2.0)
    moved = flat(progress.state) - flat(before.state)
    shared = moved[np.flatnonzero(moved)]
    # z C / (qK) = 2 · .01 / .7; a chi-square of P numbers.
    assert shared.std() == pytest.approx(2.0 * CLIP / 0.7, rel=5 / np.sqrt(2 * len(shared)))


@pytest.mark.parametrize("engine", ENGINES)
def test_who_does_not_answer_contributes_nothing_and_the_divisor_stays(engine):
    how = {"clip": 2e-4}
    with_it, seen, _, first = trained(engine, with_sick_network("c3"), **how)
    six = [one for one in workers(NETWORK) if one.client_id != "c3"]
    without, *_ = trained(engine, six, state=first, **how)
    assert [e.client_id for e in seen if isinstance(e, events.ClientRejected)] == ["c3"]
    assert apart(with_it.state, without.state) < 1e-6
    whole, *_ = trained(engine, state=first, **how)
    # The seventh's own update, clipped, over seven is all that is missing.
    missing = np.linalg.norm(flat(whole.state) - flat(with_it.state))
    assert missing == pytest.approx(2e-4 / 7, rel=0.02)


def with_sick_network(*bad):
    chosen = workers(NETWORK)
    for one in chosen:
        if one.client_id in bad:
            one.__dict__["train_design"] = put("residual", np.inf)(one.train_design)
    return chosen


@pytest.mark.parametrize("engine", ENGINES)
def test_below_the_quorum_nothing_is_released(engine):
    released: list[Released] = []
    with pytest.raises(FederationError, match="FL302"):
        trained(engine, with_sick_network("c0", "c1", "c2", "c3"), z=1.0, released=released)
    assert released == []


# ----------------------------------------------------------------------------- the gate
def loud(*chosen: str, times: float = -300.0) -> list[ClientWorker]:
    """Three clients; the last of them learns from errors that are far too large."""
    three = [one for one in workers(NETWORK) if one.client_id in chosen]
    for one in three:
        if one.client_id == "c6":
            design = one.train_design
            one.__dict__["train_design"] = replace(
                design, residual=(design.residual * times).astype(np.float32)
            )
    return three


@pytest.mark.parametrize(("gate", "kept"), [(alone(Gate()), True), (Gate(), False)])
def test_no_client_decides_whether_another_counts(gate, kept):
    """With c0 and c1 the loud one is far off the median, with c0 alone it makes the median."""
    grid = grid_of("cohort", loud("c0", "c1", "c6"))
    _, state = enrol(grid, NETWORK, 0, 60)
    how = {"gate": gate, "expected": 1.0, "clip": 1e-4, "state": state}
    both, seen, *_ = trained("cohort", loud("c0", "c1", "c6"), **how)
    less, *_ = trained("cohort", loud("c0", "c6"), **how)
    refused = {e.client_id for e in seen if isinstance(e, events.ClientRejected)}
    moved = float(np.linalg.norm(flat(both.state) - flat(less.state)))
    assert refused == (set() if kept else {"c6"})
    # The sensitivity is C where each is judged alone; the usual gate breaks it.
    assert (moved <= 1e-4 * (1 + 1e-3)) == kept


def test_the_private_gate_still_refuses_what_no_reply_may_be():
    gate = alone(Gate(strikes=2, quorum=0.25))
    assert gate.enabled
    assert (gate.strikes, gate.quorum) == (2, 0.25)
    _, seen, *_ = trained("loop", with_sick_network("c4"), gate=gate)
    assert [e.code for e in seen if isinstance(e, events.ClientRejected)] == ["FL301"]


# ------------------------------------------------------------------------- a whole group
class Stop:
    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def asked(folder, **privacy):
    given = {"protect": "client", "noise_multiplier": 0.5, "clip": 0.01, "ledger": str(folder)}
    return config(
        "window_mlp",
        OPTIMIZERS["sgd"] | {"batch_size": 8},
        federation={"num_server_rounds": 6, "fraction_fit": 0.5},
        privacy=given | privacy,
        execution={"chunk": 2, "workers": 1},
    )


def one_group(engine, how, secret, shelf, folder, **options):
    """Train a group whose account has the given secret, as a run that is resumed has."""
    kept = folder / "north" / "secrets" / "r1.secret"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(secret.key)
    account = Account(how.privacy, "r1", "north", lambda record: None)
    made = learner("window_mlp", **OPTIMIZERS["sgd"], batch_size=8)
    grid = grid_of(
        engine,
        [ClientWorker(one, made) for one in clients()],
        how.execution,
        secret=secret.child("clients"),
        **options,
    )
    group = Group("g", 0, "federation", checkpointed=True)
    outcome = train_group(
        grid, group, made, how, shelf, lambda event: None, spending=account.group("g")
    )
    return outcome.state


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("noise_at", ["server", "clients"])
def test_a_run_that_was_stopped_ends_in_the_same_bits_and_spends_the_same(
    engine, noise_at, tmp_path
):
    secret = Secret.fresh()
    calm, halted = tmp_path / "calm", tmp_path / "halted"
    how = asked(calm, noise_at=noise_at)
    whole = one_group(engine, how, secret, Memory(), calm)
    how, shelf = asked(halted, noise_at=noise_at), Memory()
    with pytest.raises(Interrupted):
        one_group(engine, how, secret, shelf, halted, should_stop=Stop(40))
    assert shelf.kept  # it was stopped after a checkpoint
    resumed = one_group(engine, how, secret, shelf, halted)
    assert same_bits(whole, resumed)
    spent = [
        [(e.release.round, e.release.what, e.release.digest) for e in ledger.entries()]
        for ledger in (Ledger(folder / "north", Owner("north")) for folder in (calm, halted))
    ]
    assert spent[0] == spent[1]
    assert [number for number, what, _ in spent[0] if what == "update"] == [1, 2, 3, 4, 5, 6]
