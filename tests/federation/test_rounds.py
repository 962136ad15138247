"""Rounds of the composed strategy: quorum, repeated rounds, suspensions, other ways to merge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg, FedMedian  # noqa: F401 - named by its import path

from fl_inmetro import events
from fl_inmetro.errors import ConfigError, FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.grids import Interrupted, LoopGrid
from fl_inmetro.federation.progress import unpacked
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.training import Group, train_group
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.table import learner as learner_for
from tests.engines import ENGINES, Memory, apart, federated, grid_of, same_bits
from tests.learning.ragged import clients, config, learner, workers

SGD = {"optimizer": "sgd", "eta_l": 1e-2, "batch_size": 8}
SLOW = {"enabled": True, "profiles": {
    "fast": {"share": 0.5, "compute_factor": 10.0, "down_mbit_per_s": 100, "up_mbit_per_s": 100,
             "latency_s": 0.01, "availability": 1.0, "dropout": 0.0, "spread": 0.2},
    "slow": {"share": 0.5, "compute_factor": 0.01, "down_mbit_per_s": 1, "up_mbit_per_s": 1,
             "latency_s": 0.5, "availability": 1.0, "dropout": 0.2, "spread": 0.2},
}}  # fmt: skip


def asked(rounds: int = 3, model: str = "window_mlp", **tables: Any):
    federation = {"num_server_rounds": rounds, "keep": "last"} | tables.pop("federation", {})
    return config(model, SGD, federation=federation, **tables)


def of(kind: type, seen: Iterable[events.Event]) -> list[Any]:
    return [event for event in seen if isinstance(event, kind)]


class Hostile(LoopGrid):
    """Some clients send NaN, in the rounds that `when` names; asked again they may do otherwise."""

    repeats_itself = False

    def __init__(self, workers: Any, names: set[str], when: Callable[[int], bool]) -> None:
        super().__init__(workers)
        self._bad, self._when = names, when

    def send_and_receive(self, messages_: Iterable[Message], *, timeout: float | None = None):
        for reply in super().send_and_receive(messages_, timeout=timeout):
            if reply.metadata.message_type == messages.TRAIN:
                name = reply.content.config_records["config"]["client-id"]
                if name in self._bad and self._when(
                    int(reply.content.config_records["config"]["server-round"])
                ):
                    arrays = messages.unpack(reply.content.array_records["arrays"])
                    first = sorted(arrays)[0]
                    arrays[first] = np.full_like(arrays[first], np.nan)
                    reply.content["arrays"] = messages.pack(arrays)
            yield reply


def hostile(
    how: Any,
    bad: set[str],
    when: Callable[[int], bool] = lambda r: True,
    shelf: Memory | None = None,
):
    made = learner_for(how.model, how.models)
    grid = Hostile([ClientWorker(one, made) for one in clients()], bad, when)
    seen: list[events.Event] = []
    group = Group("g", 0, "federation", checkpointed=True)
    kept = shelf or Memory()
    return lambda: train_group(grid, group, made, how, kept, seen.append), seen, kept


# ------------------------------------------------------------------------ quorum and standing
def test_a_repeated_offender_is_suspended_and_the_others_go_on():
    how = asked(5, gate={"strikes": 2})
    train, seen, _ = hostile(how, {"c1"})
    train()
    assert [(e.round, e.client_id, e.until) for e in of(events.ClientSuspended, seen)] == [
        (2, "c1", 0)
    ]
    selected = [set(e.selected) for e in of(events.RoundStarted, seen)]
    assert ["c1" in s for s in selected] == [True, True, False, False, False]
    assert len(of(events.RoundFinished, seen)) == 5


def test_a_suspended_client_comes_back():
    how = asked(5, gate={"strikes": 1, "suspended_rounds": 2})
    train, seen, _ = hostile(how, {"c1"}, lambda round_: round_ == 1)
    train()
    selected = ["c1" in e.selected for e in of(events.RoundStarted, seen)]
    assert selected == [True, False, False, True, True]


def test_without_its_quorum_a_round_is_repeated_then_the_run_pauses_and_goes_on():
    bad = {"c0", "c1", "c2", "c3"}  # of seven: three good replies, and half of seven is four
    how = asked(3, gate={"attempts": 2, "strikes": 0})
    shelf = Memory()
    train, seen, _ = hostile(how, bad, lambda round_: round_ == 2, shelf)
    with pytest.raises(FederationError, match="round 2 has 3 good replies, it needs 4") as raised:
        train()
    assert raised.value.faults[0].code == "FL302"
    assert len([e for e in of(events.RoundStarted, seen) if e.round == 2]) == 2
    assert any("attempt 2 of 2" in e.text for e in of(events.Note, seen))
    assert {e.client_id for e in of(events.ClientReplied, seen) if e.round == 2} == set()
    # The checkpoint is of round 1; mended clients go on from it to the end of an untroubled run.
    assert unpacked(*shelf.kept["g-checkpoint"])[0].round == 1
    resumed = hostile(how, set(), shelf=shelf)[0]()
    whole = hostile(how, set())[0]()
    assert same_bits(resumed.state, whole.state)


def test_a_repeated_round_asks_others_where_there_are_others():
    how = asked(1, federation={"fraction_fit": 0.3}, gate={"attempts": 3, "quorum": 1.0})
    made = learner_for(how.model, how.models)
    names = sorted(one.client_id for one in clients())
    probe = hostile(how, set())
    probe[0]()
    first = set(of(events.RoundStarted, probe[1])[0].selected)
    train, seen, _ = hostile(how, first)
    train()
    started = [set(e.selected) for e in of(events.RoundStarted, seen)]
    assert started[0] == first
    assert all(not later & first for later in started[1:])
    assert len(of(events.RoundFinished, seen)) == 1
    assert made.name == how.model
    assert first < set(names)


def test_a_refused_client_changes_nothing_for_the_others():
    how = asked(1)
    bad = hostile(how, {"c3"})[0]()
    assert np.isfinite(np.concatenate([a.ravel() for a in bad.state.values()])).all()


# --------------------------------------------------------------------------- other strategies
NAMES = [
    "fedavgm", "fedadagrad", "fedadam", "fedyogi", "fedprox", "scaffold", "variance-control",
    "fednova", "feddyn", "qfedavg", "median", "trimmed-mean", "multi-krum", "geometric-median",
    "centered-clipping", "norm-bound",
]  # fmt: skip


def strategy_of(name: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    if name in ("fedadagrad", "fedadam", "fedyogi"):
        made["eta"] = 1e-3
    if name == "fedprox":
        made["mu"] = 1.0  # strong enough to be seen where three rounds move little
    if name in ("trimmed-mean", "multi-krum"):
        made["byzantine"] = 1
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_is_the_same_on_both_engines(name):
    how = asked(3, strategy=strategy_of(name), federation={"fraction_fit": 0.8})
    (loop, _, _), (cohort, _, _) = (federated(engine, how, clients()) for engine in ENGINES)
    assert apart(cohort.state, loop.state) < 2e-5
    plain = federated("cohort", asked(3, federation={"fraction_fit": 0.8}), clients())[0]
    assert apart(cohort.state, plain.state) > 1e-7


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["fedadam", "scaffold", "feddyn", "centered-clipping", "fedbuff"])
def test_resumed_is_uninterrupted(engine, name):
    tables: dict[str, Any] = {"strategy": strategy_of(name)}
    if name == "fedbuff":
        tables = {"strategy": {"name": name, "buffer": 3, "concurrency": 4}, "virtual_time": SLOW}
    else:
        tables["selection"] = {"sampler": "power-of-choice"}
    how = asked(4, **tables)
    whole = federated(engine, how, clients())[0]
    shelf, stops = Memory(), iter([False] * (9 if engine == "cohort" else 30) + [True] * 10_000)
    with pytest.raises(Interrupted):
        federated(engine, how, clients(), shelf, should_stop=lambda: next(stops))
    again = federated(engine, how, clients(), shelf)[0]
    assert same_bits(again.state, whole.state)
    assert again.simulated_s == whole.simulated_s


def test_a_run_with_power_of_choice_asks_the_worst():
    how = asked(3, selection={"sampler": "power-of-choice", "candidates": 7},
                federation={"fraction_fit": 0.3})  # fmt: skip
    _, seen, _ = federated("cohort", how, clients())
    nmae = {e.client_id: e.nmae for e in of(events.ClientEvaluated, seen) if e.round == 1}
    known = {n: v for n, v in nmae.items() if np.isfinite(v)}
    worst = set(sorted(known, key=lambda n: -known[n])[:3])
    asked_second = set(of(events.RoundStarted, seen)[1].selected)
    assert len(asked_second) == 3
    assert asked_second <= worst | (set(nmae) - set(known))


# ------------------------------------------------------------------------------------ FedBuff
def test_fedbuff_needs_virtual_time():
    with pytest.raises(ConfigError, match="virtual_time"):
        asked(1, strategy={"name": "fedbuff"})
    with pytest.raises(ConfigError, match="virtual_time"):
        asked(1, selection={"sampler": "availability"})


def test_fedbuff_with_everybody_at_work_at_the_same_pace_is_the_plain_mean():
    """No update is ever old, each counts as one: uniform FedAvg."""
    same = {"enabled": True, "profiles": {"one": SLOW["profiles"]["fast"] | {
        "share": 1.0, "spread": 0.0}}}  # fmt: skip
    how = asked(1, strategy={"name": "fedbuff", "buffer": 7, "concurrency": 7}, virtual_time=same)
    buffered = federated("cohort", how, clients())[0]
    uniform = asked(1, strategy={"name": "qfedavg", "q": 0.0})
    assert apart(buffered.state, federated("cohort", uniform, clients())[0].state) < 1e-5


def test_fedbuff_does_not_wait_for_the_slow():
    tables = {"virtual_time": SLOW}
    waiting = federated("cohort", asked(4, **tables), clients())[0]
    how = asked(4, strategy={"name": "fedbuff", "buffer": 3, "concurrency": 7}, **tables)
    buffered, seen, _ = federated("cohort", how, clients())
    assert 0 < buffered.simulated_s < waiting.simulated_s
    assert all(len(e.selected) == 3 for e in of(events.RoundStarted, seen))
    assert sum(1 for _ in of(events.RoundFinished, seen)) == 4


# -------------------------------------------------------------------- strategies of one's own
class Half(FedAvg):
    """Goes half of the way."""

    def configure_train(self, server_round, arrays, config, grid):
        self.before = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        merged, metrics = super().aggregate_train(server_round, replies)
        old, new = messages.unpack(self.before), messages.unpack(merged)
        return messages.pack({n: (old[n] + new[n]) / 2 for n in old}), metrics


class Broken(FedAvg):
    def aggregate_train(self, server_round, replies):
        raise RuntimeError("no idea")


class Nothing(FedAvg):
    def aggregate_train(self, server_round, replies):
        return None, None


class Wrong(FedAvg):
    def aggregate_train(self, server_round, replies):
        return messages.pack({"w": np.zeros(3, np.float32)}), None


HERE = "tests.federation.test_rounds"


def own(name: str, **arguments: Any) -> dict[str, Any]:
    plain = {"min_train_nodes": 1, "min_available_nodes": 1}
    return {"name": f"{HERE}:{name}", "arguments": plain | arguments}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flower_strategy_of_ones_own_merges(engine):
    theirs = federated(engine, asked(3, strategy=own("Half")), clients())[0]
    ours = federated(engine, asked(3, strategy={"eta": 0.5}), clients())[0]
    assert apart(theirs.state, ours.state) < 1e-5
    flowers = federated(engine, asked(2, strategy=own("FedMedian")), clients())[0]
    median = federated(engine, asked(2, strategy={"name": "median"}), clients())[0]
    assert apart(flowers.state, median.state) < 1e-5


def test_the_gate_stands_before_a_flower_strategy_too():
    train, seen, _ = hostile(asked(2, strategy=own("FedAvg")), {"c2"})
    outcome = train()
    assert {e.client_id for e in of(events.ClientRejected, seen)} == {"c2"}
    assert all(np.isfinite(a).all() for a in outcome.state.values())


def test_its_draws_follow_the_seed():
    how = asked(3, strategy=own("FedAvg", fraction_train=0.4))
    runs = [federated("cohort", how, clients()) for _ in range(2)]
    drawn = [[e.selected for e in of(events.RoundStarted, seen)] for _, seen, _ in runs]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1
    assert same_bits(runs[0][0].state, runs[1][0].state)


@pytest.mark.parametrize(
    ("strategy", "code", "said"),
    [
        (own("Broken"), "FL321", "aggregate_train failed: RuntimeError: no idea"),
        (own("Wrong"), "FL321", "other arrays"),
        (own("FedAvg", min_available_nodes=50), "FL302", "more than the 7 nodes"),
        (own("FedAvg", nonsense=1), "FL320", "cannot be made"),
        (own("asked"), "FL320", "no class"),
        ({"name": f"{HERE}:Missing"}, "FL315", "no `Missing`"),
        ({"name": "no_such_module:Missing"}, "FL315", "no module"),
    ],
)
def test_a_strategy_that_cannot_work_says_why(strategy, code, said, monkeypatch):
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    with pytest.raises((ConfigError, FederationError), match=said) as raised:
        federated("cohort", asked(1, strategy=strategy), clients())
    assert raised.value.faults[0].code == code


def test_a_strategy_that_returns_no_model_leaves_the_old_one():
    outcome, seen, _ = federated("cohort", asked(1, strategy=own("Nothing")), clients())
    assert any("returned no model" in e.text for e in of(events.Note, seen))
    first = enrol(
        grid_of("cohort", workers(learner("window_mlp", **SGD))),
        learner("window_mlp", **SGD),
        0,
        60,
    )[1]
    assert same_bits(outcome.state, first)
