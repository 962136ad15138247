"""Rows against rows: paired by client and instant, refused where they are not of the same data."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_inmetro.errors import RunError
from fl_inmetro.metrics.significance import diebold_mariano
from fl_inmetro.runs import RunRecord
from fl_inmetro.runs.points import paired, points_of
from fl_inmetro.runs.versus import Entry, entry_of, versus
from tests.builders import client_names, single_run
from tests.quantile_runs import forecast_table, quantile_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunRecord.open(quantile_run(tmp_path_factory.mktemp("runs")))


def fault(call, *arguments):
    with pytest.raises(RunError) as caught:
        call(*arguments)
    return caught.value.faults[0]


# ----------------------------------------------------------------------------------- points
def test_points_are_the_rows_of_the_table(run):
    points = points_of(run.forecasts("mlp", "federated"))
    assert points.names == tuple(client_names(6))
    assert len(points) == 6 * 14 * 24
    assert points.forecast.levels == (0.1, 0.25, 0.5, 0.75, 0.9)
    assert (points.target_utc_s - points.issue_utc_s).tolist()[:25] == [
        3600 * (h % 24) for h in range(25)
    ]
    # Right quantiles: 80 % inside, within four standard errors; the first client's errors are
    # twice as large: P(|z| < 1.2816/2) = 47.8 %.
    sums = points.sums()
    first = sums.pop("sim-home-000")
    assert first.coverage_80 == pytest.approx(0.478, abs=4 * 0.5 / math.sqrt(336))
    for one in sums.values():
        assert one.coverage_80 == pytest.approx(0.8, abs=4 * 0.4 / math.sqrt(336))


def test_a_row_without_quantiles_has_none_although_the_file_has_their_columns(run):
    assert points_of(run.forecasts("ha4", "baseline")).forecast.levels == ()


def test_of_a_partition_the_clients_are_the_holders_or_the_meters():
    table = forecast_table(["m1", "m2"], [("mlp", "federated")], days=1)
    table = table.append_column("part", pa.array(["p"] * table.num_rows))
    assert points_of(table).names == ("p",)
    assert points_of(table, by_meter=True).names == ("m1", "m2")


def test_pairs_are_found_whatever_the_order():
    ours = forecast_table(["a", "b"], [("mlp", "federated")], days=3)
    theirs = forecast_table(["b", "c", "a"], [("ha4", "baseline")], days=2)
    shuffled = theirs.take(pa.array(np.random.default_rng(0).permutation(theirs.num_rows)))
    one, other = paired(ours, shuffled)
    assert one.names == other.names == ("a", "b")
    assert len(one) == len(other) == 2 * 2 * 24
    assert one.target_utc_s.tolist() == other.target_utc_s.tolist()
    assert one.observed_kwh.tolist() == other.observed_kwh.tolist()


# ----------------------------------------------------------------------------------- versus
def test_a_better_row_is_told_from_a_worse_one(run):
    ours, theirs = Entry(run.id, "mlp", "federated"), Entry(run.id, "ha4", "baseline")
    found = versus(run, ours, run, theirs)
    assert found.clear
    assert found.low <= found.difference <= found.high < 0
    assert (found.clients, found.days, found.points) == (6, 14, 6 * 14 * 24)
    sums = points_of(run.forecasts("mlp", "federated")).sums()
    assert found.nmae == pytest.approx(np.mean([s.nmae for s in sums.values()]), rel=1e-9)
    back = versus(run, theirs, run, ours)
    assert back.difference == pytest.approx(-found.difference)
    assert back.p_value == pytest.approx(found.p_value)
    # The test by a plain loop over clients and days.
    tables = [run.forecasts(e.model, e.training).to_pandas() for e in (ours, theirs)]
    daily = []
    for day in sorted(set(tables[0]["issue_time_utc"])):
        total = 0.0
        for name in client_names(6):
            for sign, frame, column in ((1, tables[0], "q50"), (-1, tables[1], "mean")):
                own = frame[frame["client_id"] == name]
                now = own[own["issue_time_utc"] == day]
                error = (now[column] - now["observed_kwh"]).abs().sum()
                total += sign * error / own["observed_kwh"].sum()
        daily.append(14 * total / 6)
    expected = diebold_mariano(np.array(daily))
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert found.lag == expected.lag == 2


def test_equal_rows_are_not_told_apart_and_a_repetition_says_the_same(run):
    # MLP and ridge have errors of the same size, drawn apart.
    ours, theirs = Entry(run.id, "mlp", "federated"), Entry(run.id, "ridge", "federated")
    found = versus(run, ours, run, theirs)
    assert not found.clear
    assert found == versus(run, ours, run, theirs)
    plain = found.to_json()
    assert plain["ours"] == {"run": run.id, "model": "mlp", "training": "federated"}
    assert plain["clear"] is False


def test_rows_are_chosen_as_the_help_says(run):
    assert entry_of(run) == Entry(run.id, "mlp", "federated")
    assert entry_of(run, rival=True) == Entry(run.id, "persistence_ensemble", "baseline")
    assert entry_of(run, "ridge") == Entry(run.id, "ridge", "federated")
    assert entry_of(run, "ridge", "local") == Entry(run.id, "ridge", "local")
    assert entry_of(run, "ha4") == Entry(run.id, "ha4", "baseline")
    wrong = fault(entry_of, run, "gru")
    assert wrong.code == "FL710"
    assert "mlp (federated)" in wrong.where


def test_what_cannot_be_paired_is_said(run, tmp_path):
    ours = Entry(run.id, "mlp", "federated")
    assert fault(versus, run, ours, run, ours).code == "FL710"
    local = Entry(run.id, "mlp", "local")
    assert "keeps no forecasts of mlp (local)" in fault(versus, run, ours, run, local).what
    other = RunRecord.open(single_run(tmp_path / "bare", clients=2))
    assert "keeps no forecasts" in fault(versus, run, ours, other, entry_of(other)).what
    path = quantile_run(tmp_path / "other")
    theirs = Entry(path.name, "mlp", "federated")
    names = client_names(6)
    tables = {
        "measured differs": forecast_table(names, [("mlp", "federated")], load_seed=8),
        "no client, issue time": forecast_table(["x"], [("mlp", "federated")]),
    }
    # Of the same instants and readings, but all forecasts of one are empty.
    empty = forecast_table(names, [("mlp", "federated")])
    columns = ["mean", *(c for c in empty.column_names if c.startswith("q"))]
    for column in columns:
        place = empty.column_names.index(column)
        nothing = pa.nulls(empty.num_rows, pa.float64())
        empty = empty.set_column(place, column, nothing)
    tables["no scored point in common"] = empty
    for said, table in tables.items():
        pq.write_table(table, path / "forecasts.parquet")
        what = fault(versus, run, ours, RunRecord.open(path), theirs).what
        assert said.split()[0] in what, said
        assert said.split()[-1] in what, said
