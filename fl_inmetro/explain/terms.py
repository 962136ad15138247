"""What one forecast is made of: terms in kWh that add up to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.ailments import ailments
from fl_inmetro.data.calendar import issue_times_utc_s
from fl_inmetro.data.protocols import horizon_of, lead_of
from fl_inmetro.data.series import FederatedData
from fl_inmetro.data.windows import Windows, windows_at
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.explain.blocks import LAST_READING, PROFILE, base_of, blocks_of
from fl_inmetro.explain.importance import state_of, unknown
from fl_inmetro.explain.paths import TOLERANCE, parts_of, point
from fl_inmetro.metrics import Forecast
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import BlendedModel, CalibratedModel, FollowedModel, Model, TrainedModel
from fl_inmetro.units import iso_utc

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Terms that are no part of the input: what a model adds on an average day, the cut at the lowest
#: forecast, what calibration moves a quantile by, and what the way's finite steps leave.
CONSTANT, FLOOR, CALIBRATION, REST = "constant", "floor", "calibration", "rest"

#: What rounding may make of a forecast, as a share of the largest of the day.
SAME = 1e-4

#: Kinds of the day of a step, by number; see `Windows.day_types`.
DAY_TYPES = ("working_day", "saturday", "sunday", "holiday")


@dataclass(frozen=True, eq=False)
class Terms:
    """A forecast of H steps taken apart.

    Attributes:
        forecast_kwh: Shape (H,).
        terms: Name to its part, shape (H,), kWh; they add up to the forecast.
        steps: Most parts of the way that a component took; 0 where all are exact.
    """

    forecast_kwh: Floats
    terms: Mapping[str, Floats]
    steps: int

    @property
    def residual_share(self) -> float:
        """What integration left over, the largest of the day, over the day's largest swing."""
        rest = np.abs(self.terms.get(REST, np.zeros(1))).max()
        still = (CONSTANT, FLOOR, CALIBRATION)
        own = [v for k, v in self.terms.items() if k not in still and not _is_base(k)]
        swing = np.abs(sum(own, np.zeros_like(self.forecast_kwh))).max()
        return float(rest / swing) if swing > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Explanation:
    """A forecast of one client, taken apart.

    Attributes:
        client: The client.
        issue_utc_s: When it was issued.
        target_utc_s: Shape (H,), when its steps begin.
        local: Shape (H,), the same on the client's clock, as text.
        day_type: Kind of the day of each step, one of `DAY_TYPES`.
        level: The quantile's level; None = the mean.
        observed_kwh: Shape (H,), what was measured; NaN where it is not known (yet).
        made: The terms.
    """

    client: str
    issue_utc_s: int
    target_utc_s: Ints
    local: tuple[str, ...]
    day_type: tuple[str, ...]
    level: float | None
    observed_kwh: Floats
    made: Terms

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; what is not a number is None."""
        share = self.made.residual_share
        return {
            "client": self.client,
            "issue_time_utc": iso_utc(self.issue_utc_s),
            "level": self.level,
            "steps": self.made.steps,
            "residual_share": share,
            "complete": share <= TOLERANCE,
            "terms": list(self.made.terms),
            "rows": [
                {
                    "target_time_utc": iso_utc(int(self.target_utc_s[h])),
                    "local": self.local[h],
                    "day_type": self.day_type[h],
                    "forecast_kwh": float(self.made.forecast_kwh[h]),
                    "observed_kwh": _known(self.observed_kwh[h]),
                    "terms": {name: float(v[h]) for name, v in self.made.terms.items()},
                }
                for h in range(len(self.local))
            ],
        }


def explain(
    record: RunRecord,
    model: Model,
    data: FederatedData,
    client: str,
    day: date,
    level: float | None = None,
) -> Explanation:
    """Take the forecast of a client that is issued on a day apart.

    Args:
        record: The run.
        model: Its model.
        data: Readings, as the run reads them.
        client: One of their clients.
        day: Day of issue on the clock of the run's window.
        level: Of a quantile; None = the median where the model has one, else the mean.

    Raises:
        FederationError: FL360, the data have no such client; FL361, no quantile of that level;
            FL362, there is no forecast; FL363, the model cannot be taken apart.
    """
    series = data.get(client)
    if series is None:
        raise _nobody(client, data, record)
    asked = (record.config.window, record.config.protocol, data.resolution_s)
    window = record.manifest["window"]
    issues = issue_times_utc_s(day, day, window["issue_time"], window["timezone"])
    windows = windows_at(
        series, issues, horizon_of(*asked), window["timezone"], known=False, lead=lead_of(*asked)
    )
    full = model.forecast(client, windows) if len(windows) else None
    if full is None or not np.isfinite(full.mean_kwh).all():
        raise FederationError(
            Fault(
                "FL362",
                "there is no forecast to take apart",
                f"client {client}, issued {iso_utc(int(issues[0]))}; readings go from "
                f"{iso_utc(series.start_utc_s)} to {iso_utc(series.end_utc_s)}",
                "name a day within or right after the readings, with a day of readings in the "
                "four weeks before, and a model that serves this client",
            )
        )
    settings = record.config.fallback
    ill = ailments(windows, settings)[0] if settings.enabled else None
    if ill is not None:
        raise FederationError(
            Fault(
                "FL362",
                f"another forecast stands in for the model's here ({ill}), and is not taken apart",
                f"client {client}, issued {iso_utc(int(issues[0]))}",
                "name a day whose forecast the model makes; `forecast` writes in the columns "
                "`method` and `reason` who made which",
            )
        )
    chosen = _level(full, level)
    clock = windows.target_clock
    return Explanation(
        client,
        int(windows.issue_utc_s[0]),
        windows.target_utc_s[0],
        tuple(
            _local(int(d), int(s))
            for d, s in zip(clock.day[0], clock.second_of_day[0], strict=True)
        ),
        tuple(DAY_TYPES[int(kind)] for kind in windows.day_types(clock)[0]),
        chosen,
        windows.target_kwh()[0],
        terms_of(model, client, windows, chosen),
    )


def terms_of(model: Model, client: str, windows: Windows, level: float | None) -> Terms:
    """Take a model's forecast of one window apart; its terms add up to what `forecast` gives.

    A blend's terms are the weighted means of its components'. What calibration moves a quantile by
    (or, of a model of the mean, makes it from the mean by) is a term of its own.

    Raises:
        FederationError: FL363, the model is of a kind that cannot be taken apart, or its terms are
            not those of what it forecasts.
    """
    full = model.forecast(client, windows)
    assert full is not None
    whole = point(full, level)
    assert whole is not None
    plain = model
    while isinstance(plain, CalibratedModel | FollowedModel):
        plain = plain.plain
    made = plain.forecast(client, windows)
    assert made is not None
    own = level if level is not None and made.at(level) is not None else None
    found = _terms(plain, client, windows, own)
    before = point(made, own)
    assert found is not None
    assert before is not None
    # A model that serves a client otherwise than by its state would be told of wrongly.
    if np.abs(found.forecast_kwh - before[0]).max() > SAME * max(np.abs(before[0]).max(), 1e-9):
        raise unknown(plain)
    named = dict(found.terms)
    if plain is not model:
        named[CALIBRATION] = whole[0] - before[0]
    # Last of all, so that nothing is hidden: rounding, and what the steps of the way leave.
    named[REST] = whole[0] - sum(named.values(), np.zeros(windows.horizon))
    return Terms(whole[0], named, found.steps)


# ------------------------------------------------------------------------------ internals
def _is_base(name: str) -> bool:
    return name in (PROFILE, LAST_READING)


def _terms(model: Model, client: str, windows: Windows, level: float | None) -> Terms | None:
    """Return the terms without what they leave; None where there is no forecast."""
    if isinstance(model, BlendedModel):
        return _blend(model, client, windows, level)
    if not isinstance(model, TrainedModel):
        raise unknown(model)
    state = state_of(model, client, windows)
    if state is None:
        return None
    learner = model.learner
    design = learner.design(windows, targets=False)
    scale_kwh = float(design.scale_kwh[0])
    if not np.isfinite(scale_kwh):
        return None
    parts = parts_of(learner, state, design, blocks_of(learner, windows, "group"), level)
    found: dict[str, Floats] = {}
    base = design.base[0].astype(np.float64)
    if (name := base_of(learner)) is not None:
        found[name] = base * scale_kwh
    found[CONSTANT] = parts.at_baseline * scale_kwh
    found |= {name: values * scale_kwh for name, values in parts.blocks.items()}
    uncut = (base + parts.answer) * scale_kwh
    found[FLOOR] = np.maximum(float(design.floor_kwh[0]) - uncut, 0.0)
    return Terms(uncut + found[FLOOR], found, parts.steps)


def _blend(model: BlendedModel, client: str, windows: Windows, level: float | None) -> Terms | None:
    known = model.blend.weights_of(client)
    weights = np.array(model.unseen) if known is None else known
    parts = [
        (found, float(weight))
        for part, weight in zip(model.parts, weights, strict=True)
        if weight > 0 and (found := _terms(part, client, windows, level)) is not None
    ]
    if not parts:
        return None
    total = sum(weight for _, weight in parts)
    named: dict[str, Floats] = {}
    for found, weight in parts:
        for name, values in found.terms.items():
            named[name] = named.get(name, np.zeros_like(values)) + weight / total * values
    order = sorted(named, key=_rank)
    forecast = sum((w / total * f.forecast_kwh for f, w in parts), np.zeros(windows.horizon))
    return Terms(
        forecast, {name: named[name] for name in order}, max(found.steps for found, _ in parts)
    )


def _rank(name: str) -> int:
    """Return where a term stands: bases, the average correction, the input's parts, the cut."""
    return 0 if _is_base(name) else {CONSTANT: 1, FLOOR: 3}.get(name, 2)


def _level(forecast: Forecast, asked: float | None) -> float | None:
    if asked is None:
        return 0.5 if forecast.at(0.5) is not None else None
    if forecast.at(asked) is None:
        have = ", ".join(f"{level:g}" for level in forecast.levels) or "none"
        raise FederationError(
            Fault(
                "FL361",
                f"the model has no quantile at {asked:g}",
                f"levels: {have}",
                "ask for one of these, or leave --level out for the median or the mean",
            )
        )
    return asked


def _nobody(client: str, data: FederatedData, record: RunRecord) -> FederationError:
    from difflib import get_close_matches

    if client in record.manifest["data"].get("partition", {}):
        return FederationError(
            Fault(
                "FL360",
                f"`{client}` was made by [partition] and holds windows of several meters",
                f"meters such as {', '.join(list(data)[:3])}",
                "a forecast is of one meter: name that with --client",
            )
        )
    near: Sequence[str] = get_close_matches(client, list(data), n=3) or list(data)[:3]
    return FederationError(
        Fault(
            "FL360",
            f"the data have no client `{client}`",
            f"{len(data)} clients, such as {', '.join(near)}",
            "name one of them with --client, or other readings with --data",
        )
    )


def _local(day: int, second: int) -> str:
    """Return local days since 1970 and seconds of the day as `YYYY-MM-DD HH:MM`."""
    return f"{np.datetime64(day, 'D')} {second // 3600:02d}:{second % 3600 // 60:02d}"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
