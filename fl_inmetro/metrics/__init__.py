"""Scores with units, as sums that merge."""

from fl_inmetro.metrics.forecast import (
    Forecast,
    joined_forecasts,
    level_of_column,
    quantile_column,
)
from fl_inmetro.metrics.sums import (
    SUM_NAMES,
    ErrorSums,
    client_scores,
    naive_scale,
    score_fleet,
    share_better,
)

__all__ = [
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
]
