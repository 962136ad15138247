"""Conformal calibration of a federation's forecasts, from the errors of the validation windows.

Every client counts its errors, in units of its own level, in a sketch (`metrics/sketch.py`); the
fleet's sketch is the sum, the only thing that leaves a client. From both a client takes what each
quantile of its forecasts must be moved by. Nothing is assumed of the model.

- A forecast with quantiles: every level is moved by the conformal quantile of y − q_τ at τ (Romano,
  Patterson & Candès 2019, "Conformalized quantile regression", with a score for each side, their
  theorem 2; here for each level). Moved quantiles that cross are sorted, which makes no pinball sum
  larger (Chernozhukov, Fernández-Val & Galichon 2010). Its own median stays where it is, and no
  other level is moved across it: what is promised below holds for levels that need not cross it.
- A forecast of the mean alone: its quantiles are the mean plus the conformal quantiles of y − ŷ
  (split conformal prediction, Lei et al. 2018).
- By block of hours of the local day, as groups of their own (Mondrian; Vovk et al. 2005, ch. 4).

**What is promised.** Were the client's days exchangeable and its own n errors of a block all that
it listens to, a level τ >= 1/2 would be reached with probability τ at least, and at most
τ + 1/(n+1) (without ties; within the relative width of a bin). The fleet's errors enter as `n0`
errors more, spread like those of all others: by Barber et al. 2023 (theorem 2a) the probability
then falls short of τ by at most n0 / (n + n0 + 1) · d, d the total variation between the client's
errors and the fleet's. So a client with few days leans on the fleet, at the price of d, and one
with many on itself. A client never seen takes the fleet's: its level is reached on average over
the fleet's points (Lu et al. 2023, "Federated conformal predictors", theorem 4.3, with clients
weighted by their points), and not on each client. Hours of one day depend on each other, so that
the spread around τ is that of days, not of points.

**Ties.** A load that is often exactly zero has quantiles at the floor: then the share at or below
them is the share of zeros, however low the level, and the interval covers more than it says. It is
never randomised: a forecast that says the same twice is worth more than an exact share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.features import trailing_level
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.metrics import Forecast
from fl_inmetro.metrics.sketch import ERROR_BINS, Bins, Counts, conformal_values
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

#: Beyond it whole numbers are no counts of ours: a sum over the fleet would not be exact.
_MOST = 1 << 53


@dataclass(frozen=True, eq=False)
class Scores:
    """Errors of some windows, counted; adds up over clients of any size.

    Attributes:
        levels: S levels of the quantiles whose errors are counted; empty: those of the mean, S = 1.
        counts: Shape (blocks, S, bins), errors in units of the client's level.
        per_day: Steps of a block in a day.
        bins: Where the bins lie.
    """

    levels: tuple[float, ...]
    counts: Counts
    per_day: float
    bins: Bins = ERROR_BINS

    def __add__(self, other: Scores) -> Scores:
        return replace(self, counts=self._like(other) + other.counts)

    def __sub__(self, other: Scores) -> Scores:
        left = self._like(other) - other.counts
        if (left < 0).any():
            raise ValueError("the client's errors are not among the fleet's")
        return replace(self, counts=left)

    def _like(self, other: Scores) -> Counts:
        alike = (self.levels, self.counts.shape, self.per_day, self.bins)
        if alike != (other.levels, other.counts.shape, other.per_day, other.bins):
            raise ValueError("errors of different levels, blocks or bins cannot be added")
        return self.counts

    @property
    def n(self) -> int:
        """Number of points whose errors are counted."""
        return int(self.counts[:, 0].sum())

    def to_arrays(self) -> Arrays:
        """Return what travels: `counts` is the only part that is a client's."""
        return {
            "counts": self.counts,
            "levels": np.array(self.levels),
            "per-day": np.array(self.per_day),
            "bins": np.array(astuple(self.bins)),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, like: Scores | None = None) -> Scores:
        """Return what `to_arrays` was made of; `like` says what was asked for.

        Raises:
            ValueError: The counts are of another shape or kind, one is negative or beyond 2⁵³, the
                levels of one block have different numbers of points, or it is not as asked for.
        """
        counts = np.asarray(arrays["counts"])
        bins = Bins(*(float(value) for value in arrays["bins"]))
        levels = tuple(float(level) for level in arrays["levels"])
        width = max(len(levels), 1)
        if counts.dtype != np.int64 or counts.ndim != 3 or counts.shape[1:] != (width, bins.size):
            raise ValueError(f"{counts.dtype} of shape {counts.shape} are no counts of errors")
        if (counts < 0).any() or (counts > _MOST).any():
            raise ValueError("a count is negative, or beyond all counts")
        points = counts.sum(axis=-1)
        if (points != points[:, :1]).any():
            raise ValueError("every level of a block counts the same points")
        scores = cls(levels, counts, float(arrays["per-day"]), bins)
        if like is not None:
            like._like(scores)
        return scores


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the quantiles of a client's forecasts are moved by.

    Attributes:
        levels: The Q levels of calibrated forecasts.
        of_mean: Whether it makes quantiles of a mean; else it moves quantiles.
        offsets: Shape (blocks, Q), in units of the client's level.
    """

    levels: tuple[float, ...]
    of_mean: bool
    offsets: Floats

    def apply(
        self, forecast: Forecast, scale_kwh: Floats, block: Ints, floor_kwh: Floats
    ) -> Forecast:
        """Return the forecast with calibrated quantiles; its mean and its median stay.

        A median that the forecaster has learned is the better point forecast: its error on two
        weeks of one client says little of the next day. The other levels stay on their sides of it.

        Args:
            forecast: N windows of H steps.
            scale_kwh: Shape (N,), the client's level at each issue.
            block: Shape (N, H), see `hour_blocks`.
            floor_kwh: Shape (N,), the lowest forecast.

        Raises:
            ValueError: The forecast has other levels than those that were calibrated.
        """
        if forecast.levels != (() if self.of_mean else self.levels):
            raise ValueError(f"calibrated for levels {self.levels}, not for {forecast.levels}")
        made = forecast.mean_kwh[..., None]
        if forecast.quantiles_kwh is not None:
            made = forecast.quantiles_kwh
        moved = made + self.offsets[block] * scale_kwh[:, None, None]
        cut = np.maximum(moved, floor_kwh[:, None, None])
        median = None if self.of_mean else forecast.at(0.5)
        if median is not None:
            below = np.array(self.levels) < 0.5
            middle = median[..., None]
            cut = np.where(below, np.minimum(cut, middle), np.maximum(cut, middle))
            cut[..., int(np.argmin(np.abs(np.array(self.levels) - 0.5)))] = median
        return Forecast(forecast.mean_kwh, self.levels, np.sort(cut, axis=-1))

    def of(self, windows: Windows, forecast: Forecast) -> Forecast:
        """Return a client's forecast with calibrated quantiles."""
        level = trailing_level(windows)
        block = hour_blocks(windows, len(self.offsets))
        return self.apply(forecast, level.scale_kwh, block, level.floor_kwh)


def hour_blocks(windows: Windows, blocks: int) -> Ints:
    """Return the block of the local day that each target step is in; shape (N, H)."""
    block: Ints = windows.target_clock.second_of_day * blocks // DAY_S
    return block


def collect(
    forecast: Forecast,
    target_kwh: Floats,
    scale_kwh: Floats,
    block: Ints,
    blocks: int,
    per_day: float,
    bins: Bins = ERROR_BINS,
) -> Scores:
    """Count the errors y − ŷ of one client; a point without target or forecast is not counted.

    Shapes: target (N, H) and scale (N,), kWh; block (N, H), 0 … blocks − 1.
    """
    errors = errors_of(forecast, target_kwh, scale_kwh)
    width = errors.shape[-1]
    group = block[..., None] * width + np.arange(width)
    counts = bins.counts(errors, group, blocks * width)
    return Scores(forecast.levels, counts.reshape(blocks, width, bins.size), per_day, bins)


def errors_of(forecast: Forecast, target_kwh: Floats, scale_kwh: Floats) -> Floats:
    """Return y − ŷ in units of the level, of every quantile or else of the mean; (N, H, S)."""
    made = forecast.mean_kwh[..., None]
    if forecast.quantiles_kwh is not None:
        made = forecast.quantiles_kwh
    with np.errstate(invalid="ignore", divide="ignore"):
        errors: Floats = (target_kwh[..., None] - made) / scale_kwh[:, None, None]
    return errors


def scores_of(windows: Windows, forecast: Forecast, blocks: int) -> Scores:
    """Count the errors of the forecasts of one meter's windows."""
    return collect(
        forecast,
        windows.target_kwh(),
        trailing_level(windows).scale_kwh,
        hour_blocks(windows, blocks),
        blocks,
        steps_per_day(windows.series.resolution_s) / blocks,
    )


def fit(own: Scores | None, fleet: Scores, settings: Conformal) -> Calibration:
    """Return what quantiles must be moved by.

    Args:
        own: The client's errors; None for a client that has none.
        fleet: Those of all clients, the client's among them.
        settings: `fleet_days`, and the levels of forecasts of a mean.

    Raises:
        DataError: FL218, nobody has an error that could be counted.
        ValueError: The client's errors are not among the fleet's.
    """
    mass = mixed(own, fleet, settings.fleet_days)
    of_mean = not fleet.levels
    levels = settings.levels if of_mean else fleet.levels
    asked = np.array(levels)
    if not of_mean:
        asked = asked[:, None]
    offsets = conformal_values(mass, fleet.bins, asked).reshape(len(mass), len(levels))
    return Calibration(levels, of_mean, offsets)


def mixed(own: Scores | None, fleet: Scores, fleet_days: float) -> Floats:
    """Return own errors and, beside them, the others' as if they were few; see the module.

    A block in which nobody has an error takes the errors of the whole day.

    Shapes: (blocks, S, bins).

    Raises:
        DataError: FL218, nobody has an error that could be counted.
        ValueError: The client's errors are not among the fleet's.
    """
    mass: Floats
    if own is None or not own.n:
        mass = fleet.counts.astype(np.float64)
    else:
        others = (fleet - own).counts
        n = others.sum(axis=-1, keepdims=True)
        # Not more of them than there are.
        weight = np.minimum(fleet_days * fleet.per_day, n) / np.maximum(n, 1.0)
        mass = own.counts + weight * others
    n = mass.sum(axis=-1, keepdims=True)
    if not n.any():
        raise nothing_to_calibrate_by()
    return mass if n.all() else np.where(n > 0, mass, mass.sum(axis=0))


def nothing_to_calibrate_by() -> DataError:
    """Return FL218: nobody has an error that could be counted."""
    return DataError(
        Fault(
            "FL218",
            "nothing to calibrate the forecasts by: no validation window has both a forecast and a "
            "reading",
            "[conformal] enabled = true",
            "give `[window] validation-days` some days with readings",
        )
    )


@dataclass(frozen=True, eq=False)
class FleetCalibration:
    """Calibrations of a fleet: one for any client, and each client's own.

    Attributes:
        shared: For a client that was never seen; None where nothing was shared.
        own: Client to its own; private to it where clients are apart.
    """

    shared: Calibration | None
    own: Mapping[str, Calibration]

    def of(self, client_id: str) -> Calibration | None:
        """Return a client's calibration; None where there is none for it."""
        return self.own.get(client_id, self.shared)

    def packed(self) -> tuple[Arrays, dict[str, str]]:
        """Return arrays and text that can be kept."""
        arrays: Arrays = {}
        if self.shared is not None:
            arrays["shared"] = self.shared.offsets
        if self.own:
            arrays["own"] = np.stack([one.offsets for one in self.own.values()])
        one = next(iter(self.own.values()), self.shared)
        kept = (one.levels, one.of_mean) if one is not None else ((), True)
        return arrays, {"clients": json.dumps(list(self.own)), "kind": json.dumps(kept)}

    @classmethod
    def unpacked(cls, arrays: Arrays, meta: Mapping[str, str]) -> FleetCalibration:
        """Return what `packed` was made of."""
        levels, of_mean = json.loads(meta["kind"])

        def one(offsets: Floats) -> Calibration:
            return Calibration(tuple(levels), of_mean, offsets)

        shared = one(arrays["shared"]) if "shared" in arrays else None
        own = arrays.get("own", ())
        named = zip(json.loads(meta["clients"]), own, strict=True)
        return cls(shared, {name: one(offsets) for name, offsets in named})


def calibrated(
    clients: Mapping[str, Callable[[], Scores | None]],
    settings: Conformal,
    *,
    alone: bool = False,
) -> FleetCalibration:
    """Calibrate a fleet whose clients are asked twice, so that no sketch but the sum is kept.

    Args:
        clients: Name to what counts the client's errors; None where it has no forecast.
        settings: `[conformal]`.
        alone: Nothing is shared: each client by its own errors only.

    Raises:
        DataError: FL218, nobody has an error that could be counted.
    """
    total: Scores | None = None
    for ask in clients.values():
        if (scores := ask()) is not None:
            total = scores if total is None else total + scores
    if total is None:
        total = Scores((), np.zeros((settings.blocks, 1, ERROR_BINS.size), dtype=np.int64), 0.0)
    shared = fit(None, total, settings)
    own = {
        name: fit(scores, scores if alone else total, settings)
        for name, ask in clients.items()
        if (scores := ask()) is not None and scores.n
    }
    return FleetCalibration(None if alone else shared, own)
