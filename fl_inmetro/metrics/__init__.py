"""Scores with units, as sums that merge."""

from fl_inmetro.metrics.forecast import (
    Forecast,
    joined_forecasts,
    level_of_column,
    quantile_column,
)
from fl_inmetro.metrics.scores import (
    QUANTILE_SCORES,
    client_scores,
    score_fleet,
    share_better,
    share_harmed,
)
from fl_inmetro.metrics.sums import SUM_NAMES, ErrorSums, naive_scale

__all__ = [
    "QUANTILE_SCORES",
    "SUM_NAMES",
    "ErrorSums",
    "Forecast",
    "client_scores",
    "joined_forecasts",
    "level_of_column",
    "naive_scale",
    "quantile_column",
    "score_fleet",
    "share_better",
    "share_harmed",
]
