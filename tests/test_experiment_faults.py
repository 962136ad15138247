"""A run in which something goes wrong: what is scored, what is said, what goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro import events, session
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.forecasting import forecast
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.table import learner
from fl_inmetro.metrics import score_fleet
from fl_inmetro.plan import prepare
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import trained_model
from tests.engines import ENGINES
from tests.fleets import tiny_config

both_engines = pytest.mark.parametrize("engine", ENGINES)


def carried_out(config, root: Path) -> tuple[RunRecord, list[events.Event]]:
    seen: list[events.Event] = []
    path = session.start(config, "run", root, seen.append, lambda: False)
    return RunRecord.open(path), seen


def warnings(seen: list[events.Event]) -> list[str]:
    return [e.text for e in seen if isinstance(e, events.Note) and e.level == "warning"]


def scripted(monkeypatch, rounds: list[tuple[float, int]]) -> None:
    """Let the validation of each round say (nMAE, meters that have it) from a script."""
    script = iter(rounds)

    def scored(self, number, sums):
        assert len(sums) == 4
        nmae, meters = next(script)
        return dict.fromkeys(sorted(sums)[:meters], nmae)

    monkeypatch.setattr(FederatedStrategy, "_scored", scored)


@pytest.mark.parametrize(
    ("rounds", "best"),
    [
        ([(0.3, 4), (0.1, 4), (0.2, 4)], 2),
        # Rounds are compared on the meters that both have: a meter that is silent decides nothing.
        ([(0.3, 4), (0.1, 3), (0.4, 4)], 2),
        ([(0.1, 3), (0.5, 4), (0.6, 4)], 1),
        # One meter of four is too few to be the best by, or to displace the best.
        ([(0.1, 1), (0.5, 4), (0.6, 4)], 2),
        ([(0.5, 4), (0.1, 1), (0.6, 4)], 1),
        # Nobody was ever evaluated: the latest round is all there is.
        ([(float("nan"), 0)] * 3, 3),
        # A tie keeps the earlier round.
        ([(0.2, 4), (0.2, 4), (0.3, 4)], 1),
    ],
)
@both_engines
def test_the_best_round_is_what_is_kept_scored_and_written(
    tmp_path, monkeypatch, engine, rounds, best
):
    scripted(monkeypatch, rounds)
    config = tiny_config(engine=engine)
    record, seen = carried_out(config, tmp_path)
    (finished,) = [e for e in seen if isinstance(e, events.GroupFinished)]
    assert finished.best_round == best
    kept = weights.load(record.path, "mlp-federated-g0000")
    assert kept is not None
    state = {n.removeprefix("best."): a for n, a in kept[0].items() if n.startswith("best.")}
    last = {n.removeprefix("state."): a for n, a in kept[0].items() if n.startswith("state.")}
    differ = any((state[name] != last[name]).any() for name in state)
    assert differ == (best != 3)  # otherwise the next lines could not tell them apart

    # The row and the file are those of the best state, recomputed here from the clients.
    prepared = prepare(config)
    workers = [ClientWorker(c, learner("mlp", config.models)) for c in prepared.clients.values()]
    sums = {n: s for w in workers for n, s in w.evaluate(state, "test").items()}
    (row,) = [r for r in record.scores() if r["training"] == "federated"]
    assert row["nmae"] == pytest.approx(score_fleet(sums)["nmae"], rel=1e-12)
    table = record.forecasts(model="mlp", training="federated")
    assert table is not None
    expected = np.concatenate(
        [f.mean_kwh.ravel() for w in workers for _, f in w.test_forecasts(state)]
    )
    written = table["mean"].to_numpy()
    np.testing.assert_array_equal(np.sort(written), np.sort(expected[np.isfinite(expected)]))


@both_engines
def test_a_client_that_cannot_be_scored_is_named(tmp_path, monkeypatch, engine):
    whole = ClientWorker.evaluated

    def evaluated(self, split):
        if split == "test" and self.client_id.endswith("002"):
            raise RuntimeError("the disk is gone")
        return whole(self, split)

    monkeypatch.setattr(ClientWorker, "evaluated", evaluated)
    monkeypatch.setattr(ClientWorker, "test_forecasts", lambda self, state: [])
    record, seen = carried_out(tiny_config(engine=engine), tmp_path)
    assert record.status == "completed"
    (said,) = warnings(seen)
    assert said == "mlp (federated): 1 of 4 clients not scored: sim-home-002"
    (rejected,) = [e for e in seen if isinstance(e, events.ClientRejected)]
    assert (rejected.client_id, rejected.code) == ("sim-home-002", "FL303")
    assert "RuntimeError: the disk is gone" in rejected.reason
    rows = {(r["model"], r["training"]): r for r in record.scores()}
    assert rows["ha4", "baseline"]["clients"] == 4
    assert rows["mlp", "federated"]["clients"] == 3


@both_engines
def test_a_client_that_cannot_be_trained_alone_does_not_cost_the_others_their_models(
    tmp_path, monkeypatch, engine
):
    whole = ClientWorker.__dict__["train_design"].func

    def train_design(self):
        design = whole(self)
        if self.client_id.endswith("002"):
            return replace(design, residual=design.residual * np.float32("inf"))
        return design

    monkeypatch.setattr(ClientWorker, "train_design", property(train_design))
    config = tiny_config(training="local", engine=engine)
    record, seen = carried_out(config, tmp_path)
    assert record.status == "completed"
    lost, unscored = warnings(seen)
    assert lost.startswith("mlp (local): client sim-home-002 has no model: FL302")
    assert unscored == "mlp (local): 1 of 4 clients not scored: sim-home-002"
    (row,) = [r for r in record.scores() if r["training"] == "local"]
    assert row["clients"] == 3
    prepared = prepare(config)
    first = prepared.splits.test[0].astype("datetime64[s]").astype("datetime64[D]").item()
    made = forecast(record, trained_model(record), prepared.data, first, first)
    # Its own past stands in for the model that it lacks, and the file says so.
    assert not made.skipped
    assert made.reasons == {"no_model": 1}
    assert made.methods["day_type_mean"] == 1
