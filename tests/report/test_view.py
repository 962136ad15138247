import numpy as np
import pytest

from fl_inmetro import events as ev
from fl_inmetro.report import view
from fl_inmetro.report.view import Line
from fl_inmetro.report.weeks import Week, clock_of, weeks
from fl_inmetro.runs import RunRecord
from fl_inmetro.seeds import derive
from tests.builders import compare_run, create, single_run, write_forecasts


def score(model, training, per_client):
    """A score line whose clients have the given nMAE."""
    mean = sum(per_client.values()) / len(per_client)
    rows = {name: {"nmae": value} for name, value in per_client.items()}
    return ev.ModelScored(model, training, {"nmae": mean}, rows)


@pytest.fixture
def small(tmp_path):
    with create(tmp_path) as recorder:
        recorder(score("ha4", "baseline", {"a": 0.20, "b": 0.30, "c": 0.40}))
        recorder(score("sn24", "baseline", {"a": 0.50, "b": 0.50, "c": 0.50}))
        recorder(score("mlp", "local", {"a": 0.20, "b": 0.25, "c": 0.50}))
        recorder(score("mlp", "federated", {"a": 0.10, "b": 0.30, "c": 0.40}))
        recorder(score("mlp", "centralised", {"a": 0.05, "b": 0.05, "c": 0.05}))
    return RunRecord.open(recorder.path)


def test_the_report_is_about_the_best_federated_learner(small):
    assert view.main_line(small) == Line("mlp", "federated")
    assert view.baseline_line(small) == Line("ha4", "baseline")


def test_gains_by_hand(small):
    # a: (0.20 - 0.10) / 0.20 = 50 %; b: (0.25 - 0.30) / 0.25 = -20 %; c: (0.5 - 0.4) / 0.5 = 20 %
    found = view.gains(small, "mlp")
    assert [g.client_id for g in found] == ["a", "c", "b"]
    assert [g.percent for g in found] == pytest.approx([50.0, 20.0, -20.0])


def test_spread_is_numpys_quantiles_and_sorted_by_median(small):
    found = view.spreads(small)
    medians = [float(s.quantiles[2]) for s in found]
    assert medians == sorted(medians)
    federated = next(s for s in found if s.line.training == "federated")
    # Of 0.10, 0.30, 0.40, interpolated: p10 = 0.10 + 0.2 * 0.20, p75 = 0.30 + 0.5 * 0.10
    assert federated.quantiles[[0, 2, 3]] == pytest.approx([0.14, 0.30, 0.35])


def test_curves_average_groups_by_their_clients_and_add_their_bytes(tmp_path):
    with create(tmp_path) as recorder:
        recorder(ev.RunStarted("mlp", "local", 4, 2, 2))
        recorder(ev.GroupStarted(0, "one", 1))
        recorder(ev.RoundFinished(0, 1, 1.0, 0.4, True, 10, 20, 1.0))
        recorder(ev.RoundFinished(0, 2, 0.5, 0.2, True, 10, 20, 1.0))
        recorder(ev.GroupStarted(1, "three", 3))
        recorder(ev.RoundFinished(1, 1, 2.0, 0.8, True, 1, 2, 0.5))
    (curve,) = view.curves(RunRecord.open(recorder.path))
    assert curve.rounds.tolist() == [1, 2]
    assert curve.loss.tolist() == pytest.approx([(1 * 1.0 + 3 * 2.0) / 4, 0.5])
    assert curve.nmae.tolist() == pytest.approx([(0.4 + 3 * 0.8) / 4, 0.2])
    assert curve.bytes_down.tolist() == [11, 10]
    assert curve.bytes_up.tolist() == [22, 20]
    assert curve.groups == 2


def test_median_worst_and_best_client(small):
    assert view.example_clients(small, Line("mlp", "federated")) == {
        "median": "b",
        "worst": "c",
        "best": "a",
    }


def test_one_client_is_not_shown_three_times(tmp_path):
    with create(tmp_path) as recorder:
        recorder(score("mlp", "federated", {"only": 0.1}))
    found = view.example_clients(RunRecord.open(recorder.path), Line("mlp", "federated"))
    assert list(found.values()) == ["only"]


def test_paired_difference_by_hand(small):
    found = view.difference(small, Line("mlp", "federated"), Line("ha4", "baseline"))
    # a: -0.10, b: 0, c: 0 -> mean -1/30; the resampled means lie between -0.10 and 0.
    assert found.mean == pytest.approx(-1 / 30)
    assert found.clients == 3
    assert -0.10 - 1e-12 <= found.low <= found.mean <= found.high <= 0.0


def test_a_constant_difference_has_an_interval_of_no_width():
    found = view.bootstrap(np.full(10, -0.25), seed=3)
    assert (found.mean, found.low, found.high) == (-0.25, -0.25, -0.25)


def test_the_bootstrap_interval_agrees_with_the_normal_approximation():
    sample = derive(1, "sample").normal(0.01, 0.05, 400)
    found = view.bootstrap(sample, seed=1)
    error = 1.959964 * sample.std() / np.sqrt(sample.size)  # large-sample theory, two-sided 95 %
    assert found.low == pytest.approx(sample.mean() - error, abs=0.15 * error)
    assert found.high == pytest.approx(sample.mean() + error, abs=0.15 * error)
    assert found == view.bootstrap(sample, seed=1)


def test_weeks_are_seven_days_of_three_clients_with_their_baseline(tmp_path):
    record = RunRecord.open(compare_run(tmp_path))
    found = weeks(record, Line("mlp", "federated"))
    assert [w.role for w in found] == ["median", "worst", "best"]
    table = record.forecasts("mlp", "federated", [found[0].client_id])
    assert found[0].mean_kwh.tolist() == table.column("mean").to_pylist()[: 7 * 24]
    assert found[0].observed_kwh.size == 7 * 24
    assert found[0].baseline_kwh is not None
    assert str(found[0].target_time_utc[0]) == "2024-05-15T03:00:00"


def test_a_week_is_told_on_the_clock_of_the_run(tmp_path):
    record = RunRecord.open(compare_run(tmp_path))
    assert clock_of(record) == "America/Sao_Paulo"
    # 03:00 UTC is midnight in São Paulo, which is three hours behind all year.
    assert weeks(record, Line("mlp", "federated"))[0].told_times()[:2] == [
        "2024-05-15 00:00",
        "2024-05-15 01:00",
    ]


def test_the_hour_that_autumn_repeats_is_told_twice():
    # In Berlin summer time ended on 2024-10-27 at 01:00 UTC, from 03:00 back to 02:00.
    instants = np.array(["2024-10-27T00:00:00", "2024-10-27T01:00:00"], dtype="datetime64[s]")
    known = np.ones(2)
    week = Week("a", "best", instants, "Europe/Berlin", known, known, None)
    assert week.told_times() == ["2024-10-27 02:00 +02:00", "2024-10-27 02:00 +01:00"]
    first = Week("a", "best", instants[:1], "Europe/Berlin", known[:1], known[:1], None)
    assert first.told_times() == ["2024-10-27 02:00"]


def test_of_overlapping_forecasts_the_last_issued_counts(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = single_run(tmp_path, clients=1)
    write_forecasts(path / "forecasts.parquet", ["sim-home-000"], [("mlp", "federated")], days=1)
    table = pq.read_table(path / "forecasts.parquet")
    later = table.set_column(
        1, "issue_time_utc", pa.array([t.as_py().replace(hour=9) for t in table["issue_time_utc"]])
    ).set_column(3, "mean", pa.array([9.0] * table.num_rows))
    both = pa.concat_tables([later.cast(table.schema), table])
    pq.write_table(both, path / "forecasts.parquet")
    (week,) = weeks(RunRecord.open(path), Line("mlp", "federated"))
    assert set(week.mean_kwh.tolist()) == {9.0}


def test_a_run_without_anything_has_no_numbers(tmp_path):
    with create(tmp_path) as recorder:
        record = RunRecord.open(recorder.path)
        assert view.main_line(record) is None
        assert (view.curves(record), view.spreads(record), view.gains(record, "mlp")) == (
            [],
            [],
            [],
        )
