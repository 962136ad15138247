"""A whole run and a whole comparison: sums, bytes, interruption and resumption."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_inmetro import events, session
from fl_inmetro.config import own_code
from fl_inmetro.data.load import load
from fl_inmetro.errors import ConfigError, RunError
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.metrics import ErrorSums, naive_scale, score_fleet
from fl_inmetro.plan import Job, Prepared, groups_of, jobs_of, prepare
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord
from tests.engines import ENGINES
from tests.fleets import tiny_config

Sink = Callable[[events.Event], None]


def ignore(event: events.Event) -> None:
    """No display."""


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> RunRecord:
    root = tmp_path_factory.mktemp("runs")
    return RunRecord.open(session.start(tiny_config(), "compare", root, ignore, never))


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(tiny_config())


# ------------------------------------------------------------------------------------ jobs
def test_local_only_comes_first_and_run_has_one_job():
    config = tiny_config(compare={"models": ["mlp", "sn24", "ridge"]})
    assert jobs_of(config, "run") == [Job("mlp", "federated")]
    assert [(job.model, job.training) for job in jobs_of(config, "compare")] == [
        (model, training)
        for model in ("mlp", "ridge")
        for training in ("local", "federated", "centralised")
    ]


def test_groups_of_a_job(prepared):
    clients = list(prepared.clients.values())
    names = [client.client_id for client in clients]
    local = groups_of(Job("mlp", "local"), clients)
    assert [group.name for group, _ in local] == names
    assert [[m.client_id for m in members] for _, members in local] == [[n] for n in names]
    assert [group.key for group, _ in local] == [f"mlp-local-g{k:04d}" for k in range(4)]
    ((federation, members),) = groups_of(Job("mlp", "federated"), clients)
    assert (federation.name, len(members)) == ("federation", 4)
    ((centre, (everybody,)),) = groups_of(Job("mlp", "centralised"), clients)
    assert centre.name == "pooled"
    assert [w.series.client_id for w in everybody.test] == names


# ------------------------------------------------------------------------------------ rows
def row(record: RunRecord, model: str, training: str) -> dict[str, Any]:
    (found,) = [r for r in record.scores() if (r["model"], r["training"]) == (model, training)]
    return found


def test_a_comparison_has_its_rows_in_order(compared):
    assert compared.status == "completed"
    assert [(r["model"], r["training"]) for r in compared.scores()] == [
        ("sn168", "baseline"),
        ("mlp", "local"),
        ("mlp", "federated"),
        ("mlp", "centralised"),
    ]


def test_a_baseline_is_scored_as_by_hand(compared, prepared):
    """SN-168 against plain indexing: the reading 168 steps earlier."""
    sums: dict[str, ErrorSums] = {}
    for name, client in prepared.clients.items():
        (windows,) = client.test
        energy = windows.series.energy_kwh
        steps = (windows.issue_index[:, None] + np.arange(24)).ravel()
        scale = naive_scale(energy[: windows.issue_index[0]], 168)
        sums[name] = ErrorSums.of(energy[steps - 168], energy[steps], scale)
    expected = score_fleet(sums)
    got = row(compared, "sn168", "baseline")
    for key, value in expected.items():
        kept = np.nan if got[key] is None else got[key]
        assert kept == pytest.approx(value, rel=1e-12, nan_ok=True), key
    assert got["pinball"] is None  # a baseline gives no quantiles
    assert got["points"] == 4 * 7 * 24
    assert got["mase"] == pytest.approx(np.mean([s.mase for s in sums.values()]))


@pytest.mark.parametrize("training", ["local", "federated", "centralised"])
def test_scores_are_those_of_the_forecasts_in_the_file(compared, training):
    """The table of forecasts and the sums that travelled say the same."""
    table = compared.forecasts("mlp", training)
    assert table is not None
    frame = table.to_pandas()
    per_client = {}
    for name, part in frame.groupby("client_id", observed=True):
        per_client[name] = ErrorSums.of(part["mean"].to_numpy(), part["observed_kwh"].to_numpy())
    expected = score_fleet(per_client)
    got = row(compared, "mlp", training)
    for key in ("nmae", "wmape", "mae_kwh", "rmse_kwh", "nrmse", "bias", "points"):
        assert got[key] == pytest.approx(expected[key], rel=1e-9), key
    by_client = {r["client_id"]: r for r in compared.client_scores("mlp", training)}
    for name, sums in per_client.items():
        assert by_client[str(name)]["nmae"] == pytest.approx(sums.nmae, rel=1e-9)


def test_better_than_local_counts_clients(compared):
    local = {r["client_id"]: r["mae_kwh"] for r in compared.client_scores("mlp", "local")}
    for training in ("federated", "centralised"):
        ours = {r["client_id"]: r["mae_kwh"] for r in compared.client_scores("mlp", training)}
        wins = sum(ours[name] < local[name] for name in local)
        assert row(compared, "mlp", training)["better_than_local"] == wins / 4
    assert "better_than_local" not in row(compared, "mlp", "local")


# ----------------------------------------------------------------------------------- bytes
def test_bytes_by_hand(compared, prepared):
    """What has to leave the meters in each kind of training.

    MLP of F features and one hidden layer of 4: 4·F + 4 + 4 + 1 float32 parameters, and the two
    buffers of F float32 that travel down only. Enrolment sends 1 + 2·F float64. A round of four
    clients sends the state down to train and to evaluate, and deltas and fifteen float64 sums up.
    """
    state, _ = weights.load(compared.path, "mlp-federated-g0000") or ({}, {})
    width = len(state["best.x_mean"])
    parameters = 4 * (4 * width + 4 + 4 + 1)
    down = parameters + 4 * 2 * width
    enrolment = 8 * (1 + 2 * width)
    a_round = 2 * down + parameters + 15 * 8
    federated = row(compared, "mlp", "federated")
    assert federated["bytes"] == 4 * (enrolment + 3 * a_round)
    rounds = compared.rounds(model="mlp", training="federated")
    assert [r["bytes_down"] for r in rounds] == [4 * 2 * down] * 3
    assert [r["bytes_up"] for r in rounds] == [4 * (parameters + 120)] * 3
    # Nothing leaves for local-only training; every reading before the test window for the other.
    assert row(compared, "mlp", "local")["bytes"] == 0
    readings = 0
    for name in prepared.clients:
        one = prepared.data[name]
        before = one.energy_kwh[: one.index_of(int(prepared.splits.test[0]))]
        readings += int(np.isfinite(before).sum())
    assert row(compared, "mlp", "centralised")["bytes"] == 8 * readings
    assert row(compared, "sn168", "baseline")["bytes"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_closed_form_model_makes_one_round(tmp_path, engine):
    config = tiny_config(model="ridge", engine=engine)
    record = RunRecord.open(session.start(config, "run", tmp_path, ignore, never))
    (only,) = record.rounds(model="ridge")
    state, _ = weights.load(record.path, "ridge-federated-g0000") or ({}, {})
    size = len(state["best.coefficients"])
    # Up: the matrix, the vector and the square of sums in float64, and fifteen error sums.
    assert only["bytes_up"] == 4 * 8 * (size * size + size + 1 + 15)
    assert record.stages()[0]["rounds"] == 1


def test_federated_ridge_is_the_centralised_ridge(tmp_path):
    config = tiny_config(compare={"models": ["ridge"], "training": ["federated", "centralised"]})
    record = RunRecord.open(session.start(config, "compare", tmp_path, ignore, never))
    federated, centralised = (
        (weights.load(record.path, f"ridge-{kind}-g0000") or ({}, {}))[0]["best.coefficients"]
        for kind in ("federated", "centralised")
    )
    np.testing.assert_allclose(federated, centralised, rtol=1e-6, atol=1e-9)
    for key in ("nmae", "mae_kwh", "rmse_kwh"):
        scores = [row(record, "ridge", kind)[key] for kind in ("federated", "centralised")]
        assert scores[0] == pytest.approx(scores[1], rel=1e-9)


def test_a_quorum_of_the_federation_does_not_bind_single_clients(tmp_path):
    config = tiny_config(federation={"num_server_rounds": 1, "min_clients": 3})
    record = RunRecord.open(session.start(config, "compare", tmp_path, ignore, never))
    assert record.status == "completed"


def test_the_data_of_a_run_are_in_its_manifest(compared, prepared):
    data = compared.manifest["data"]
    assert data["simulated"] is True
    assert list(data["clients"]) == list(prepared.clients)
    assert compared.manifest["window"]["test"]["issues"] == 7
    again = load(tiny_config().data, tiny_config().seed)
    for name, series in prepared.data.items():
        np.testing.assert_array_equal(series.energy_kwh, again[name].energy_kwh)


# ------------------------------------------------------------------------------ resumption
def tables(record: RunRecord) -> dict[str, Any]:
    """Everything recorded, without times."""

    def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k not in ("seconds", "utc", "id")} for r in rows]

    names = ("stages", "federations", "rounds", "client_rounds", "client_evals", "rejected")
    found = {name: timeless(getattr(record, name)()) for name in names}
    for kind in ("RoundStarted", "RoundFinished"):
        found[kind] = timeless([event["json"] for event in record.events(kind)])
    found["scores"] = timeless(record.scores())
    found["client_scores"] = timeless(record.client_scores())
    return found


def models(record: RunRecord) -> dict[str, bytes]:
    """The bits of every model that the run ended with, by group."""
    found: dict[str, bytes] = {}
    for file in sorted((record.path / "weights").glob("*.safetensors")):
        arrays, meta = weights.load(record.path, file.stem) or ({}, {})
        progress = json.loads(meta.get("progress", "{}"))  # the fleet's profile has none
        progress.pop("seconds", None)
        found[f"{file.stem} progress"] = json.dumps(progress).encode()
        for name, array in arrays.items():
            found[f"{file.stem} {name}"] = array.tobytes()
    return found


class Stop:
    """Asks to stop once `after` messages or chunks have been looked at, over the whole run."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


class Messages:
    """Counts how often a run asks whether to stop: once per message to a client, or its answer."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bool:
        self.count += 1
        return False


def interrupted_and_resumed(config, kind, root: Path, stops: list[int]) -> RunRecord:
    with pytest.raises(Interrupted):
        session.start(config, kind, root, ignore, Stop(stops[0]))
    path = session.find_unfinished(config, kind, root)
    assert RunRecord.open(path).status == "interrupted"
    for stop in stops[1:]:
        with pytest.raises(Interrupted):
            session.resume(path, ignore, Stop(stop))
    assert session.resume(path, ignore, never) == path
    record = RunRecord.open(path)
    assert record.status == "completed"
    return record


@pytest.mark.parametrize("training", ["federated", "local", "centralised"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_stopped_anywhere_and_resumed_is_an_uninterrupted_one(tmp_path, engine, training):
    # Steps so large that the best round is not the last one: it, too, has to survive.
    config = tiny_config(
        engine=engine,
        # The cohort looks between chunks: of one client here, so that it looks as often.
        execution={"chunk": 1, "workers": 2},
        training=training,
        federation={"num_server_rounds": 3, "fraction_fit": 0.5},
        models={"mlp": {"hidden": [4], "eta_l": 1.0}},
    )
    counter = Messages()
    whole = RunRecord.open(session.start(config, "run", tmp_path / "whole", ignore, counter))
    expected, bits = tables(whole), models(whole)
    assert min(group["best_round"] for group in whole.federations()) < 3
    # Federated, 4 clients: 4 to enrol, then 2 + 4 a round, then 4 to score: 26 messages.
    assert counter.count == {"federated": 26, "local": 4 * 8, "centralised": 8}[training]
    # In enrolment; after each of the rounds; within rounds, training and evaluating; at scoring.
    places = {"federated": [2, 4, 5, 8, 10, 13, 16, 19, 22, 24], "local": [0, 3, 8, 13, 20, 31]}
    for stop in places.get(training, [0, 1, 2, 3, 5, 7]):
        record = interrupted_and_resumed(config, "run", tmp_path / f"stop{stop}", [stop])
        assert tables(record) == expected, f"stopped after {stop} messages"
        assert models(record) == bits, f"stopped after {stop} messages"


def test_a_comparison_stopped_three_times_is_an_uninterrupted_one(tmp_path, compared):
    # One chunk: local 32 looks, federated 4 + 3·(1 + 4) + 4 = 23, centralised 8.
    record = interrupted_and_resumed(tiny_config(), "compare", tmp_path, [14, 34, 38])
    assert tables(record) == tables(compared)
    assert models(record) == models(compared)
    ours, theirs = (r.forecasts() for r in (record, compared))
    assert ours is not None
    assert ours.equals(theirs)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path, compared):
    config = tiny_config()
    again = RunRecord.open(session.start(config, "compare", tmp_path / "a", ignore, never))
    assert models(again) == models(compared)
    assert tables(again) == tables(compared)
    other = RunRecord.open(
        session.start(tiny_config(seed=4), "compare", tmp_path / "b", ignore, never)
    )
    a, b = models(other), models(compared)
    name = "mlp-federated-g0000 state.layers.0.weight"
    assert a[name] != b[name]


def test_nothing_to_resume_is_fl706(tmp_path):
    config = tiny_config()
    with pytest.raises(RunError) as caught:
        session.find_unfinished(config, "run", tmp_path)
    assert caught.value.faults[0].code == "FL706"
    with pytest.raises(Interrupted):
        session.start(config, "run", tmp_path, ignore, Stop(1))
    with pytest.raises(RunError, match="FL706"):  # of another configuration, or of another kind
        session.find_unfinished(tiny_config(seed=9), "run", tmp_path)
    with pytest.raises(RunError, match="FL706"):
        session.find_unfinished(config, "compare", tmp_path)
    assert session.find_unfinished(config, "run", tmp_path).exists()


def test_another_engine_is_refused_where_it_cannot_serve(tmp_path):
    with pytest.raises(ConfigError) as caught:
        session.start(tiny_config(engine="flower"), "compare", tmp_path, ignore, never)
    (fault,) = caught.value.faults
    assert fault.code == "FL306"
    assert 'engine = "cohort"' in fault.hint
    assert not list(tmp_path.iterdir())


def test_the_loop_and_the_cohort_write_the_same_record(tmp_path):
    """Every recorded number of the default engine is the specification's, to rounding.

    With Huber's loss: the slopes of |e| are signs, which cancel to a rounding error here and there,
    and Adam makes a whole step of that.
    """
    records = []
    for engine in ENGINES:
        config = tiny_config(engine=engine, models={"mlp": {"hidden": [4], "loss": "huber"}})
        path = session.start(config, "compare", tmp_path / engine, ignore, never)
        records.append(tables(RunRecord.open(path)))
    assert equal_to_rounding(*records)


def equal_to_rounding(one: Any, other: Any) -> bool:
    """Whether two records of plain values are equal, floats to 10⁻⁴ (biases near zero to 10⁻⁶)."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return all(equal_to_rounding(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return all(equal_to_rounding(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-4, abs=1e-6, nan_ok=True)
    return bool(one == other)


def test_changed_data_cannot_be_resumed(tmp_path):
    """FL705: a file of readings that was edited since the run began."""
    hours = np.arange("2024-01-01", "2024-03-01", dtype="datetime64[h]")
    lines = ["client_id,timestamp,energy_kwh"]
    for name, level in (("a", 1.0), ("b", 2.0)):
        lines += [f"{name},{hour}:00,{level + (k % 24) / 24:.3f}" for k, hour in enumerate(hours)]
    file = tmp_path / "meters.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    config = tiny_config(data={"source": "long", "path": str(file)})
    with pytest.raises(Interrupted):
        session.start(config, "run", tmp_path / "runs", ignore, Stop(4))
    path = session.find_unfinished(config, "run", tmp_path / "runs")
    file.write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(RunError) as caught:
        session.resume(path, ignore, never)
    (fault,) = caught.value.faults
    assert fault.code == "FL705"
    assert "meters.csv" in fault.where


def test_changed_code_of_one_s_own_cannot_be_resumed(tmp_path):
    """FL705: a run whose rounds were merged by two rules would be neither's."""
    code = tmp_path / "rule_that_changes.py"
    text = (Path(__file__).parents[1] / "examples" / "own_rule.py").read_text(encoding="utf-8")
    code.write_text(text, encoding="utf-8")
    name = text.split("\ndef ", 1)[1].split("(", 1)[0]
    config = tiny_config(strategy={"name": "fedavg", "rule": f"rule_that_changes:{name}"})
    own_code.search_beside(config, tmp_path)
    with pytest.raises(Interrupted):
        session.start(config, "run", tmp_path / "runs", ignore, Stop(4))
    path = session.find_unfinished(config, "run", tmp_path / "runs")
    code.write_text(text + "\n# another\n", encoding="utf-8")
    with pytest.raises(RunError, match="FL705") as caught:
        session.resume(path, ignore, never)
    assert str(code) in caught.value.faults[0].where
    code.write_text(text, encoding="utf-8")
    session.resume(path, ignore, never)
