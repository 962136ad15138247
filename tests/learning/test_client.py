"""A client at work: what it says of itself, its sums by meter, and the pooled client."""

import numpy as np
import pytest

from fl_inmetro.config.models import Models
from fl_inmetro.learning.client import ClientWorker, past_scale, pooled
from fl_inmetro.learning.table import LEARNERS, learner
from fl_inmetro.metrics import ErrorSums, naive_scale
from fl_inmetro.models.design import context_steps
from tests.fleets import clients_of, fleet

CONTEXT_H = 30
CONTEXT_MODELS = ("nlinear", "window_mlp", "gru", "lstm", "patchtst", "dlinear", "nhits")
#: What stands behind the context: the place in a cycle; 24 rows of 14 + 6 + 10 + 20 features.
BEHIND = {"cyclenet": 1, "tide": 24 * 50, "tsmixer": 24 * 50}
SETTINGS = Models.model_validate(
    {
        "mlp": {"hidden": [3]},
        **{name: {"context_h": CONTEXT_H} for name in (*CONTEXT_MODELS, *BEHIND)},
        "sparsetsf": {"context_h": CONTEXT_H, "period_h": 6, "loss": "mse"},
        "segrnn": {"context_h": CONTEXT_H, "segment": 6},
        "own": {"context_h": CONTEXT_H, "network": "examples.own_network:DayFilters"},
    }
)


@pytest.fixture(scope="module")
def members():
    return clients_of(fleet(3, gaps=0.1))[0]


@pytest.mark.parametrize("name", list(LEARNERS))
def test_enrolment_counts_points_and_says_the_shape(members, name):
    made = learner(name, SETTINGS)
    assert made.name == name
    enrolment = ClientWorker(members[1], made).enrol()
    assert enrolment.client_id == "c1"
    # Points count from the first day that has seven days of readings in the four weeks before it.
    valid = members[1].train[0].series.valid
    expected = 0
    for issue in members[1].train[0].issue_index.tolist():
        if valid[max(0, issue - 28 * 24) : issue].sum() >= 7 * 24:
            expected += valid[issue : issue + 24].sum()
    assert enrolment.points == expected
    assert enrolment.horizon == 24
    context = context_steps(CONTEXT_H, 3600)
    if name in ("ridge", "quantile_linear", "mlp"):
        assert enrolment.x_shape[0] == 24
    else:
        assert enrolment.x_shape == (context + BEHIND.get(name, 0),)


@pytest.mark.parametrize("name", list(LEARNERS))
@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_is_the_error_of_the_forecast_on_that_split(members, name, split):
    made = learner(name, SETTINGS)
    worker = ClientWorker(members[0], made)
    enrolment = worker.enrol()
    state = made.initial(enrolment.sums, 0, enrolment.x_shape, enrolment.horizon)
    (sums,) = worker.evaluate(state, split).values()
    (windows,) = getattr(members[0], split)
    forecast = made.forecast(state, made.design(windows, targets=False)).mean_kwh
    error = (forecast - windows.target_kwh())[np.isfinite(windows.target_kwh())]
    assert sums.n == error.size
    assert sums.abs_kwh == pytest.approx(np.abs(error).sum())
    assert (sums.n_naive > 0) == (split == "test")


def test_the_scale_of_mase_is_all_history_before_the_test(members):
    windows = members[0].test[0]
    history = windows.series.energy_kwh[: 35 * 24]  # 2024-02-05 is day 35
    assert past_scale(windows) == naive_scale(history, 168)
    empty = windows.take(np.array([], dtype=np.int64))
    assert past_scale(empty) == ErrorSums()


def test_the_pooled_client_trains_on_all_and_answers_by_meter(members):
    made = learner("mlp", SETTINGS)
    centre = ClientWorker(pooled("pooled", members), made)
    single = [ClientWorker(member, made) for member in members]
    enrolments = [worker.enrol() for worker in single]
    together = centre.enrol()
    assert together.client_id == "pooled"
    assert together.points == sum(e.points for e in enrolments)
    for name, array in together.sums.items():
        added = np.sum([e.sums[name] for e in enrolments], axis=0)
        np.testing.assert_allclose(array, added, atol=1e-9)
    state = made.initial(together.sums, 0, together.x_shape, together.horizon)
    apart = {k: v for worker in single for k, v in worker.evaluate(state, "test").items()}
    assert centre.evaluate(state, "test") == apart
    assert [w.series.client_id for w, _ in centre.test_forecasts(state)] == ["c0", "c1", "c2"]
