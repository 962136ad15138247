"""A protocol's test is scored block by block, and blocks change nothing."""

import numpy as np
import pytest

from fl_inmetro.data.protocols import ProtocolTest
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.protocol import BLOCK, score_test
from fl_inmetro.metrics.forecast import Forecast
from fl_inmetro.metrics.protocol import protocol_scores

ENERGY = 1 + np.random.default_rng(2).random(1_000)
WINDOWS = Windows(ClientSeries("a", 0, 3600, ENERGY), np.arange(300, 970), 6)


def test_no_more_than_a_block_is_forecast_at_once_and_each_window_once():
    seen = []

    def forecast(part: Windows) -> Forecast:
        assert len(part) <= BLOCK
        seen.extend(part.issue_index.tolist())
        return Forecast(np.repeat(part.past.lookback(1), 6, axis=1))

    measure, sums = score_test(ProtocolTest(WINDOWS, 300, 0), forecast)
    assert seen == WINDOWS.issue_index.tolist()
    assert len(seen) > 2 * BLOCK
    # The plain loop, in kWh: the last reading again and again, and GIFT-Eval's scale.
    square, scaled = 0.0, []
    for issue in seen:
        error = ENERGY[issue - 1] - ENERGY[issue : issue + 6]
        season = np.abs(ENERGY[24:issue] - ENERGY[: issue - 24]).mean()
        square += float((error**2).sum())
        scaled.extend(np.abs(error) / season)
    assert sums.sq_kwh2 == pytest.approx(square, rel=1e-12)
    assert (measure.mean_kwh, measure.deviation_kwh) == (ENERGY[:300].mean(), ENERGY[:300].std())
    scores = protocol_scores("gift-eval", {"a": (measure, sums)})
    assert scores["protocol_mase"] == pytest.approx(np.mean(scaled), rel=1e-10)


def test_only_the_steps_of_the_protocol_are_scored():
    def forecast(part: Windows) -> Forecast:
        made = part.target_kwh()
        made[:, :5] += 100  # wrong where nobody looks
        return Forecast(made)

    _, sums = score_test(ProtocolTest(WINDOWS, 300, 5), forecast)
    assert (sums.n, sums.sq_kwh2, sums.missing) == (len(WINDOWS), 0.0, 0)
