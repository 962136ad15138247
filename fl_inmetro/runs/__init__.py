"""The run directory: one writer, many readers."""

from fl_inmetro.runs.difference import best_rounds, config_differences, score_table
from fl_inmetro.runs.record import BASELINE, RunRecord
from fl_inmetro.runs.recorder import Recorder
from fl_inmetro.runs.shelf import (
    RunSummary,
    best_baseline,
    best_learner,
    find_run,
    list_runs,
    remove_run,
    summarise,
)

__all__ = [
    "BASELINE",
    "Recorder",
    "RunRecord",
    "RunSummary",
    "best_baseline",
    "best_learner",
    "best_rounds",
    "config_differences",
    "find_run",
    "list_runs",
    "remove_run",
    "score_table",
    "summarise",
]
