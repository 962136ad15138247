"""Point scores with units, as sums that merge."""

from fl_inmetro.metrics.sums import (
    SUM_NAMES,
    ErrorSums,
    client_scores,
    naive_scale,
    score_fleet,
    share_better,
)

__all__ = ["SUM_NAMES", "ErrorSums", "client_scores", "naive_scale", "score_fleet", "share_better"]
