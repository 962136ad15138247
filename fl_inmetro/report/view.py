"""The numbers behind the figures and their tables, taken from a run record; no drawing here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.runs.record import BASELINE, RunRecord
from fl_inmetro.runs.shelf import best_baseline, best_learner
from fl_inmetro.seeds import derive

Floats = NDArray[np.float64]

#: Levels of the per-client distribution that are drawn and tabulated.
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
RESAMPLES = 2000


@dataclass(frozen=True)
class Line:
    """One line of the comparison: a model and how it was trained."""

    model: str
    training: str


@dataclass(frozen=True)
class Curve:
    """What one stage did, round by round; every array has shape (R,).

    Attributes:
        line: Model and training.
        planned: Rounds it was to have.
        groups: Federations that are summed or averaged here (one per client when local).
        rounds: Round numbers.
        loss: Mean training loss over the clients, scaled units.
        nmae: Mean validation nMAE over the clients.
        bytes_down: Bytes of the arrays sent to clients, all groups together.
        bytes_up: Bytes of the arrays sent by clients.
        seconds: Time of the round, all groups together.
    """

    line: Line
    planned: int
    groups: int
    rounds: NDArray[np.int64]
    loss: Floats
    nmae: Floats
    bytes_down: Floats
    bytes_up: Floats
    seconds: Floats


@dataclass(frozen=True)
class Spread:
    """Distribution of a score over the clients.

    Attributes:
        line: Model and training.
        clients: Number of clients with a finite score.
        quantiles: Shape (5,), at `LEVELS`.
    """

    line: Line
    clients: int
    quantiles: Floats


@dataclass(frozen=True)
class Gain:
    """What federation did for one client: nMAE alone and together, and the gain in per cent."""

    client_id: str
    local: float
    federated: float

    @property
    def percent(self) -> float:
        """100 · (local − federated) / local; positive = the federation helped."""
        return 100.0 * (self.local - self.federated) / self.local


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95 % bootstrap interval over the clients."""

    mean: float
    low: float
    high: float
    clients: int


def main_line(record: RunRecord) -> Line | None:
    """Return the line the report is about.

    A `run` has one learner. In a comparison it is the best federated learner by test nMAE, or the
    best learner when none is federated. While nothing is scored: the stage that was begun last.
    """
    learnt = [row for row in record.scores() if row["training"] != BASELINE]
    federated = [row for row in learnt if row["training"] == "federated"]
    best = best_learner(federated) or best_learner(learnt)
    if best is None:
        stages = record.stages()
        best = stages[-1] if stages else None
    return Line(best["model"], best["training"]) if best else None


def baseline_line(record: RunRecord) -> Line | None:
    """Return the baseline with the lowest nMAE; None when none is scored."""
    best = best_baseline(record.scores())
    return Line(best["model"], best["training"]) if best else None


def score_of(record: RunRecord, line: Line | None) -> dict[str, Any] | None:
    """Return the fleet scores of a line; None when it is not scored."""
    for row in record.scores():
        if line == Line(row["model"], row["training"]):
            return row
    return None


def curves(record: RunRecord) -> list[Curve]:
    """Return one curve per stage that finished a round.

    Loss and nMAE of a round are means over its groups, each weighted by its clients.
    """
    sizes = {(row["stage"], row["group"]): row["clients"] for row in record.federations()}
    rows = record.rounds()
    found = []
    for stage in record.stages():
        mine = [row for row in rows if row["stage"] == stage["stage"]]
        if not mine:
            continue
        per_round: dict[int, list[dict[str, Any]]] = {}
        for row in mine:
            per_round.setdefault(row["round"], []).append(row)
        numbers = sorted(per_round)

        def mean(
            key: str, per_round: Mapping[int, Any] = per_round, s: int = stage["stage"]
        ) -> Floats:
            return np.array(
                [
                    _weighted(
                        [_number(row[key]) for row in per_round[n]],
                        [sizes.get((s, row["group"]), 1) for row in per_round[n]],
                    )
                    for n in sorted(per_round)
                ]
            )

        def total(key: str, per_round: Mapping[int, Any] = per_round) -> Floats:
            return np.array(
                [float(sum(row[key] or 0 for row in per_round[n])) for n in sorted(per_round)]
            )

        found.append(
            Curve(
                line=Line(stage["model"], stage["training"]),
                planned=stage["rounds"],
                groups=len({row["group"] for row in mine}),
                rounds=np.array(numbers, dtype=np.int64),
                loss=mean("loss"),
                nmae=mean("nmae"),
                bytes_down=total("bytes_down"),
                bytes_up=total("bytes_up"),
                seconds=total("seconds"),
            )
        )
    return found


def client_table(record: RunRecord, line: Line) -> dict[str, dict[str, Any]]:
    """Return `{client_id: scores}` of a line, in the order of the names."""
    rows = record.client_scores(line.model, line.training)
    return {row["client_id"]: row for row in rows}


def spreads(record: RunRecord) -> list[Spread]:
    """Return the distribution of nMAE over the clients, for each scored line, best median first."""
    by_line: dict[Line, list[float]] = {}
    for row in record.client_scores():
        value = _number(row.get("nmae"))
        if np.isfinite(value):
            by_line.setdefault(Line(row["model"], row["training"]), []).append(value)
    found = [
        Spread(line, len(values), np.quantile(np.array(values), LEVELS))
        for line, values in by_line.items()
    ]
    return sorted(found, key=lambda spread: float(spread.quantiles[2]))


def gains(record: RunRecord, model: str) -> list[Gain]:
    """Return each client's gain of the federated over the local-only model, largest first.

    Clients count that both were scored on, with an error above zero when alone.
    """
    alone = client_table(record, Line(model, "local"))
    together = client_table(record, Line(model, "federated"))
    found = []
    for name, row in together.items():
        ours, theirs = _number(row.get("nmae")), _number(alone.get(name, {}).get("nmae"))
        if np.isfinite(ours) and np.isfinite(theirs) and theirs > 0:
            found.append(Gain(name, theirs, ours))
    return sorted(found, key=lambda gain: (-gain.percent, gain.client_id))


def difference(record: RunRecord, ours: Line, theirs: Line) -> Interval | None:
    """Return the mean difference of nMAE (ours − theirs) with a 95 % interval; None without pairs.

    Clients are resampled with replacement, pairs kept together (percentile bootstrap, Efron &
    Tibshirani 1993, ch. 13). It says how the mean varies with the *choice of clients*, not with the
    weeks of the test window or with the seed.
    """
    first, second = client_table(record, ours), client_table(record, theirs)
    pairs = np.array(
        [
            _number(first[name].get("nmae")) - _number(second[name].get("nmae"))
            for name in first
            if name in second
        ]
    )
    pairs = pairs[np.isfinite(pairs)]
    if pairs.size < 2:
        return None
    return bootstrap(pairs, int(record.manifest.get("seed") or 0))


def bootstrap(differences: Floats, seed: int) -> Interval:
    """Return the mean of paired differences and its 95 % percentile bootstrap interval.

    Shapes: (K,), one difference per client.
    """
    size = differences.size
    rng = derive(seed, "report", "bootstrap")
    means = np.array([differences[rng.integers(0, size, size)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(differences.mean()), float(low), float(high), int(size))


def example_clients(record: RunRecord, line: Line) -> dict[str, str]:
    """Return `{best, median, worst: client_id}` by nMAE; fewer entries when there are few clients.

    The median client is the lower of the two middle ones when their number is even.
    """
    ranked = sorted(
        (_number(row.get("nmae")), name)
        for name, row in client_table(record, line).items()
        if np.isfinite(_number(row.get("nmae")))
    )
    if not ranked:
        return {}
    places = {"median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1, "best": 0}
    chosen: dict[str, str] = {}
    for role, place in places.items():
        name = ranked[place][1]
        if name not in chosen.values():
            chosen[role] = name
    return chosen


@dataclass(frozen=True)
class Week:
    """Forecast and observation of one client; all of shape (T,), ordered by time.

    Attributes:
        client_id: Which client.
        role: `best`, `median` or `worst`.
        target_time_utc: When each step begins, numpy datetime64[s], UTC.
        observed_kwh: Energy of the step; NaN where unknown.
        mean_kwh: Its forecast.
        baseline_kwh: Forecast of the best baseline; None when the file has none.
    """

    client_id: str
    role: str
    target_time_utc: NDArray[np.datetime64]
    observed_kwh: Floats
    mean_kwh: Floats
    baseline_kwh: Floats | None


def weeks(record: RunRecord, line: Line, days: int = 7) -> list[Week]:
    """Return the first `days` days of test forecasts of the median, worst and best client.

    Where forecasts overlap, the one that was issued last counts: the one a user would have had.
    """
    roles = example_clients(record, line)
    if not roles:
        return []
    base = baseline_line(record)
    ours = _forecasts(record, line, list(roles.values()), days)
    theirs = _forecasts(record, base, list(roles.values()), days) if base else {}
    found = []
    for role, name in roles.items():
        if name not in ours:
            continue
        mine, other = ours[name], theirs.get(name, {})
        instants = sorted(mine)
        found.append(
            Week(
                client_id=name,
                role=role,
                target_time_utc=np.array(instants, dtype="datetime64[s]"),
                observed_kwh=np.array([mine[t][1] for t in instants]),
                mean_kwh=np.array([mine[t][0] for t in instants]),
                baseline_kwh=(
                    np.array([other.get(t, (np.nan, np.nan))[0] for t in instants])
                    if other
                    else None
                ),
            )
        )
    return found


def _forecasts(
    record: RunRecord, line: Line, clients: list[str], days: int
) -> dict[str, dict[np.datetime64, tuple[float, float]]]:
    """Return `{client: {target instant: (forecast, observation)}}` of the first `days` days."""
    table = record.forecasts(line.model, line.training, clients)
    if table is None or table.num_rows == 0:
        return {}
    names = table.column("client_id").to_pylist()
    issued = _instants(table.column("issue_time_utc"))
    target = _instants(table.column("target_time_utc"))
    mean = np.array([_number(v) for v in table.column("mean").to_pylist()])
    observed = np.array([_number(v) for v in table.column("observed_kwh").to_pylist()])
    end = target.min() + np.timedelta64(days, "D")
    found: dict[str, dict[np.datetime64, tuple[float, float]]] = {}
    for i in np.argsort(issued, kind="stable"):  # a later issue overwrites an earlier one
        if target[i] < end:
            found.setdefault(names[i], {})[target[i]] = (float(mean[i]), float(observed[i]))
    return found


def _instants(column: Any) -> NDArray[np.datetime64]:
    """Read a column of timestamps (or ISO text) as datetime64[s] in UTC."""
    values = column.to_pylist()
    plain = [_utc(v) if isinstance(v, datetime) else str(v).removesuffix("Z") for v in values]
    return np.array(plain, dtype="datetime64[s]")


def _utc(moment: datetime) -> datetime:
    """Return the instant on the UTC clock without a zone, as NumPy wants it."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _weighted(values: list[float], weights: list[int]) -> float:
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if np.isfinite(v)]
    if len(pairs) == 1:
        return pairs[0][0]  # exactly: v · w / w may differ from v in the last bit
    total = sum(w for _, w in pairs)
    return sum(v * w for v, w in pairs) / total if total else float("nan")


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
