"""One row of a comparison against another: how much better, and whether more than by chance."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.metrics.significance import (
    bootstrap_bounds,
    paired_losses,
    panel_test,
)
from fl_inmetro.runs.points import paired
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.shelf import best_baseline, best_learner
from fl_inmetro.seeds import derive

#: Below this p-value, and with zero outside the interval, a difference is more than chance.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Entry:
    """A row of a run's comparison.

    Attributes:
        run: The run's identifier.
        model: The model.
        training: How it was trained.
    """

    run: str
    model: str
    training: str


@dataclass(frozen=True)
class Versus:
    """Two rows on the points that both have.

    Attributes:
        ours: The first row.
        theirs: The second.
        nmae: Mean nMAE over the clients, of the first.
        other_nmae: Of the second.
        difference: The first's minus the second's; negative = the first is better.
        low: Lower end of the 95 % bootstrap interval of the difference, over clients and weeks.
        high: Upper end.
        statistic: Statistic of the panel Diebold-Mariano test; NaN where days do not differ.
        p_value: Its two-sided p-value; NaN likewise.
        lag: Days of serial correlation that its variance counts.
        clients: Clients that count.
        days: Days of issue.
        points: Pairs of forecasts.
    """

    ours: Entry
    theirs: Entry
    nmae: float
    other_nmae: float
    difference: float
    low: float
    high: float
    statistic: float
    p_value: float
    lag: int
    clients: int
    days: int
    points: int

    @property
    def clear(self) -> bool:
        """Whether the difference is more than chance by both the test and the interval."""
        return self.p_value < SIGNIFICANT and not self.low <= 0 <= self.high

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; what is not a number is None."""
        plain = {**asdict(self), "clear": self.clear}
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in plain.items()
        }


def entry_of(
    record: RunRecord, model: str | None = None, training: str | None = None, *, rival: bool = False
) -> Entry:
    """Return the row that is asked for: the best of a run that fits.

    Without a model and a training that is its best federated learner, else its best learner, else
    its best baseline; with `rival`, its best baseline first.

    Raises:
        RunError: FL710, no row fits.
    """
    rows = [
        row
        for row in record.scores()
        if model in (None, row["model"]) and training in (None, row["training"])
    ]
    federated = [row for row in rows if row["training"] == "federated"]
    orders = [best_learner(federated), best_learner(rows), best_baseline(rows)]
    found = next((row for row in (orders[::-1] if rival else orders) if row), None)
    if found is None:
        have = ", ".join(f"{r['model']} ({r['training']})" for r in record.scores()) or "none yet"
        raise _fault(
            f"run `{record.id}` has no scored row that fits the question",
            f"model {model or 'any'}, training {training or 'any'}; scored: {have}",
            "choose one of them with --model and --training (of the second: --against-model, "
            "--against-training)",
        )
    return Entry(record.id, found["model"], found["training"])


def versus(first: RunRecord, ours: Entry, second: RunRecord, theirs: Entry) -> Versus:
    """Compare two rows on the forecasts that both have made of the same instants.

    Raises:
        RunError: FL703 a file is damaged; FL710 a row has no forecasts, both are the same row, or
            they have no points in common.
    """
    where = " against ".join(f"{e.run}: {e.model} ({e.training})" for e in (ours, theirs))
    # Runs in two places may bear one name.
    if ours == theirs and first.path.resolve() == second.path.resolve():
        raise _fault(
            "a row cannot be tested against itself",
            where,
            "name another run, or another row with --against-model and --against-training",
        )
    tables = []
    for record, entry in ((first, ours), (second, theirs)):
        table = record.forecasts(entry.model, entry.training)
        if table is None or not table.num_rows:
            raise _fault(
                f"run `{record.id}` keeps no forecasts of {entry.model} ({entry.training})",
                str(record.path),
                "finish the run with --resume, or make it anew",
            )
        tables.append(table)
    try:
        losses = paired_losses(*paired(*tables))
    except ValueError as error:
        raise _fault(
            f"the two rows cannot be paired: {error}",
            where,
            "compare runs of the same data and the same test window",
        ) from None
    if not losses.clients or not losses.points:
        raise _fault(
            "the two rows have no scored point in common",
            where,
            "compare runs of the same data and the same test window",
        )
    test = panel_test(losses)
    # Of the two names, so that a repetition gives the same interval.
    rng = derive(int(first.manifest.get("seed") or 0), "versus", ours.model, theirs.model)
    bounds = bootstrap_bounds(losses, rng)
    return Versus(
        ours,
        theirs,
        losses.ours,
        losses.theirs,
        losses.difference,
        bounds.low,
        bounds.high,
        test.statistic,
        test.p_value,
        test.lag,
        len(losses.clients),
        len(losses.days),
        losses.points,
    )


def _fault(what: str, where: str, hint: str) -> RunError:
    return RunError(Fault("FL710", what, where, hint))
