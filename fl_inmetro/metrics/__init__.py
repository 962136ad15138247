"""Scores with units, as sums that merge."""

from fl_inmetro.metrics.forecast import Forecast, joined_forecasts
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
    "naive_scale",
    "score_fleet",
    "share_better",
]
