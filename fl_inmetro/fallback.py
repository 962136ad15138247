"""The ladder that `forecast` goes down where a model should not be asked, rung by rung.

1. The chosen model.
2. The run's federated model of that kind, where the chosen one has none for the client or gives no
   number: its own readings are not at fault.
3. The mean by day type of the client's last four weeks; of a flat line, without that line.
4. The same of the last weeks in which there were readings, as many whole weeks ago as needed.
5. The fleet's profile at the client's size: the mean of its readings, else a year's energy.

What is left after that has no forecast, and the reason is told. No rung looks ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.calibrated_model import mean_calibration, unfollowed
from fl_inmetro.config.fallback import Fallback
from fl_inmetro.data.ailments import Reason, flat_steps
from fl_inmetro.data.calendar import steps_forward, steps_per_day
from fl_inmetro.data.features import TRAILING_DAYS, trailing_level
from fl_inmetro.data.fleet_windows import FleetWindows
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.short_history import FleetProfile, ProfileSums, annual_scale_kwh
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import Fault, RunError
from fl_inmetro.learning.conformal import hour_blocks
from fl_inmetro.metrics import Forecast
from fl_inmetro.models.baselines import day_type_mean
from fl_inmetro.plan import Prepared
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.recorder import Recorder
from fl_inmetro.runs.weights import load as load_weights
from fl_inmetro.trained import Model, trained_model
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_TYPE_MEAN, LAST_KNOWN_WEEKS, FLEET_PROFILE = (
    "day_type_mean",
    "last_known_weeks",
    "fleet_profile",
)

#: Name of the fleet's profile in the run directory.
PROFILE_KEY = "fleet-profile"


def method_of(model: Model) -> str:
    """Return what a file of forecasts calls a model: `mlp/federated`."""
    return f"{model.job.model}/{model.job.training}"


def keep_profile(prepared: Prepared, recorder: Recorder) -> None:
    """Keep the fleet's profile of the four weeks before the test window with the run, as sums.

    Only these sums leave a client; how large it is does not.
    """
    if not prepared.splits.test.size:
        return
    first = int(prepared.splits.test[0])
    total: ProfileSums | None = None
    for client in prepared.clients.values():
        for part in client.train:
            own = ProfileSums.of(part, first)
            total = own if total is None else total + own
    if total is None or not total.count.any():  # nobody has a scale: there is nothing to lend
        return
    recorder.save_state(PROFILE_KEY, FleetProfile.from_sums(total, float("nan")).packed(), {})


def kept_profile(record: RunRecord) -> FleetProfile | None:
    """Return the fleet's profile of a run; None where it keeps none."""
    kept = load_weights(record.path, PROFILE_KEY)
    return None if kept is None else FleetProfile.unpacked(kept[0])


@dataclass(frozen=True, eq=False)
class Rungs:
    """What the ladder has found for one client.

    Attributes:
        forecast: N windows; NaN where no rung could serve.
        method: Shape (N,), who made each; None without a forecast.
    """

    forecast: Forecast
    method: list[str | None]


@dataclass(frozen=True, eq=False)
class Ladder:
    """Who stands in for a model.

    Attributes:
        settings: `[fallback]`.
        model: The chosen model.
        federated: The run's federated model of that kind, where the chosen one is another.
        profile: The fleet's profile, where the run keeps it.
        annual_kwh: Client to the energy that it uses in a year, where that is known.
    """

    settings: Fallback
    model: Model
    federated: Model | None
    profile: FleetProfile | None
    annual_kwh: Mapping[str, float]

    def levels_of(
        self, made: Sequence[Forecast | None], windows: FleetWindows
    ) -> tuple[float, ...]:
        """Return the levels of the model's forecasts, or where it made none of the federated's.

        A client without a calibration may have none where the others have some.
        """
        found = [one.levels for one in made if one is not None]
        if not found and self.federated is not None:
            own = self.federated.forecast(windows.names[0], windows.of(0))
            found = [] if own is None else [own.levels]
        return max(found, key=len, default=())

    def serve(
        self,
        client_id: str,
        fleet: FleetWindows,
        k: int,
        made: Forecast | None,
        reasons: list[Reason | None],
        levels: tuple[float, ...],
    ) -> Rungs:
        """Go down the ladder with the windows that have a reason; the others stay as they are.

        Quantiles of a stand-in are those that a calibration makes of a mean, and empty where the
        model is calibrated by moving quantiles of its own.

        Args:
            client_id: The client.
            fleet: The windows of some clients.
            k: Its place among them; it has N windows.
            made: The model's forecast; None where it has no model for the client.
            reasons: N reasons, None = the model's forecast is taken.
            levels: Of the quantiles that are wanted.
        """
        shape = (fleet.issues, fleet.horizon)
        if made is not None and not any(reasons):
            name = method_of(self.model)
            method: list[str | None] = [name if row.any() else None for row in _numbers(made)]
            if made.levels != levels:  # quantiles that others have are empty here
                made = Forecast(made.mean_kwh, levels, np.full((*shape, len(levels)), np.nan))
            return Rungs(made, method)
        windows = fleet.of(k)
        mean = np.full(shape, np.nan) if made is None else made.mean_kwh.copy()
        quantiles = np.full((*shape, len(levels)), np.nan)
        if made is not None and made.quantiles_kwh is not None and made.levels == levels:
            quantiles = made.quantiles_kwh.copy()
        method = [method_of(self.model)] * len(windows)
        # Without a model there is nothing to take, whether others may stand in or not.
        open_ = np.array([reason is not None or made is None for reason in reasons], dtype=np.bool_)
        mean[open_], quantiles[open_] = np.nan, np.nan
        for row in np.flatnonzero(open_):
            method[row] = None

        def take(name: str, rows: NDArray[np.bool_], own: Forecast) -> None:
            """Let a rung serve what it can of the rows."""
            got = np.isfinite(own.mean_kwh).all(axis=1)
            places = np.flatnonzero(rows)[got]
            mean[places] = own.mean_kwh[got]
            if own.quantiles_kwh is not None and own.levels == levels:
                quantiles[places] = own.quantiles_kwh[got]
            for row in places:
                method[row] = name
            open_[places] = False

        if not self.settings.enabled and client_id not in self.annual_kwh:
            return Rungs(Forecast(mean, levels, quantiles if levels else None), method)
        blameless = np.array([r in (Reason.NO_MODEL, Reason.NOT_FINITE) for r in reasons])
        if self.federated is not None and (rows := open_ & blameless).any():
            others = self.federated.forecast(client_id, windows.take(rows))
            if others is not None:
                take(method_of(self.federated), rows, others)
        flat = np.array([reason is Reason.FLAT_LINE for reason in reasons])
        if (rows := open_ & ~flat).any():
            take(DAY_TYPE_MEAN, rows, self._day_type_mean(client_id, windows.take(rows)))
        for row in np.flatnonzero(open_ & flat):
            alone = np.arange(len(windows)) == row
            moving = _without_flat_line(windows.take(alone), self.settings)
            take(DAY_TYPE_MEAN, alone, self._day_type_mean(client_id, moving))
        for row in np.flatnonzero(open_):
            alone = np.arange(len(windows)) == row
            take(LAST_KNOWN_WEEKS, alone, self._last_known_weeks(windows.take(alone)))
        for row in np.flatnonzero(open_):
            alone = np.arange(len(windows)) == row
            take(*self._lent(client_id, windows.take(alone), alone))
        return Rungs(Forecast(mean, levels, quantiles if levels else None), method)

    def _day_type_mean(self, client_id: str, windows: Windows) -> Forecast:
        made, calibration = day_type_mean(windows), mean_calibration(self.model, client_id)
        if calibration is None:
            return Forecast(made)
        level = trailing_level(windows)
        block = hour_blocks(windows, len(calibration.offsets))
        return calibration.apply(Forecast(made), level.scale_kwh, block, level.floor_kwh)

    def _last_known_weeks(self, windows: Windows) -> Forecast:
        """Forecast one window as if it were issued whole weeks earlier, when there were readings.

        The first of those weeks has at least one day of them in the four weeks before it. Weeks are
        those of the local clock.
        """
        resolution_s, made = windows.series.resolution_s, np.full((1, windows.horizon), np.nan)
        now_s = windows.target_utc_s
        for weeks in range(1, self.settings.known_weeks + 1):
            then_s = now_s - weeks * 7 * DAY_S
            moved = steps_forward(then_s, now_s, windows.zone, resolution_s)
            for steps in np.unique(moved):  # more than one on a day when the clock is changed
                back = weeks * 7 * steps_per_day(resolution_s) - int(steps)
                earlier = day_type_mean(replace(windows, issue_index=windows.issue_index - back))
                made = np.where(moved == steps, earlier, made)
            if np.isfinite(made).all():
                return Forecast(made)
        return Forecast(np.full((1, windows.horizon), np.nan))

    def _lent(
        self, client_id: str, windows: Windows, rows: NDArray[np.bool_]
    ) -> tuple[str, NDArray[np.bool_], Forecast]:
        """Forecast one window by the fleet's profile at the client's size.

        For a client whose year is told, the model sees the profile as its past and corrects it.
        """
        nothing = Forecast(np.full((1, windows.horizon), np.nan))
        if self.profile is None:
            return FLEET_PROFILE, rows, nothing
        annual_kwh = self.annual_kwh.get(client_id)
        if annual_kwh is None:
            scale_kwh = _size_kwh(windows, self.settings.size_days)
            if scale_kwh is None:
                return FLEET_PROFILE, rows, nothing
            return FLEET_PROFILE, rows, Forecast(self.profile.forecast_kwh(windows, scale_kwh))
        scale_kwh = annual_scale_kwh(annual_kwh, windows.series.resolution_s)
        model = self.model if self.federated is None else self.federated
        corrected = unfollowed(model, client_id, self.profile.lend(windows, scale_kwh))
        if corrected is None or not np.isfinite(corrected.mean_kwh).all():
            return FLEET_PROFILE, rows, Forecast(self.profile.forecast_kwh(windows, scale_kwh))
        return f"{method_of(model)} on {FLEET_PROFILE}", rows, corrected


def blamed(made: Forecast | None, reasons: Sequence[Reason | None]) -> list[Reason | None]:
    """Add to a client's reasons that there is no model for it, or that it gives no number."""
    if made is None:
        return [reason or Reason.NO_MODEL for reason in reasons]
    return [
        reason or (None if row.all() else Reason.NOT_FINITE)
        for reason, row in zip(reasons, _numbers(made), strict=True)
    ]


def ladder_of(
    record: RunRecord, trained: Model, settings: Fallback, years: Mapping[str, float]
) -> Ladder:
    """Return the ladder of a run's model.

    Args:
        record: The run.
        trained: A model of it.
        settings: `[fallback]`.
        years: Clients to the energy that they use in a year, kWh.

    Raises:
        RunError: FL720, a client is known by its year alone, and the run keeps no profile to lend.
    """
    federated = None
    if settings.enabled and trained.job.training != "federated":
        try:
            federated = trained_model(record, trained.job.model, "federated")
        except RunError:  # this run has none
            federated = None
    profile = kept_profile(record)
    if years and profile is None:
        raise RunError(
            Fault(
                "FL720",
                f"run `{record.id}` keeps no profile that could be lent to a client without "
                "readings",
                f"{PROFILE_KEY}.safetensors",
                "run it again: runs keep the fleet's profile since this version",
            )
        )
    return Ladder(settings, trained, federated, profile, years)


def without_readings(
    years: Mapping[str, float], data: FederatedData, issues: Ints
) -> dict[str, ClientSeries]:
    """Return the clients that are not among the data, with no reading and the first one's site."""
    if not len(issues):
        return {}
    like = next(iter(data.values()))
    step = like.resolution_s
    start_utc_s = like.start_utc_s + (int(issues[0]) - like.start_utc_s) // step * step
    return {
        name: ClientSeries(name, start_utc_s, step, np.zeros(0), like.site)
        for name in years
        if name not in data
    }


# ------------------------------------------------------------------------------ internals
def _numbers(made: Forecast) -> NDArray[np.bool_]:
    """Return where a forecast is a number, in its mean and all its quantiles; (N, H)."""
    finite = np.isfinite(made.mean_kwh)
    if made.quantiles_kwh is not None:
        finite &= np.isfinite(made.quantiles_kwh).all(axis=2)
    return finite


def _without_flat_line(windows: Windows, settings: Fallback) -> Windows:
    """Return one window that does not see the standstill before it."""
    series, issue = windows.series, int(windows.issue_index[0])
    hidden = int(flat_steps(windows, settings)[0])
    energy = series.energy_kwh.copy()
    energy[max(issue - hidden, 0) : issue] = np.nan
    own = ClientSeries(
        series.client_id, series.start_utc_s, series.resolution_s, energy, series.site
    )
    return replace(windows, series=own)


def _size_kwh(windows: Windows, days: float) -> float | None:
    """Return the mean step of the readings before one issue, at least a day of them; else None."""
    per_day = steps_per_day(windows.series.resolution_s)
    past = windows.past.lookback(max(round(days * per_day), TRAILING_DAYS * per_day))
    known = past[np.isfinite(past)]
    mean = float(known.mean()) if known.size >= per_day else 0.0
    return mean if mean > 0 else None
