"""How much noise each release of a run gets, so that all of them together keep the promise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fl_inmetro.privacy.calibrate import smallest_noise
from fl_inmetro.privacy.mechanism import Events, Gaussian


@dataclass(frozen=True)
class Planned:
    """The releases of a run before it begins.

    Attributes:
        update: The noisy sums of updates or gradients, all rounds together.
        scaler: The sums that standardise features; None = they are not asked for.
        metrics: The mean validation errors, all rounds together; None = they are not asked for.
        calibration: The fleet's quantiles of errors; None = they are not asked for.
    """

    update: Gaussian
    scaler: Gaussian | None = None
    metrics: Gaussian | None = None
    calibration: Gaussian | None = None

    @property
    def events(self) -> Events:
        """What is spent when the run is through."""
        # Updates last: they are what is told of a plan.
        every = (self.scaler, self.metrics, self.calibration, self.update)
        return tuple(event for event in every if event is not None)


def planned(
    update: Gaussian,
    *,
    epsilon: float | None,
    delta: float,
    scaler: Gaussian | None = None,
    scaler_share: float = 0.0,
    metrics: Gaussian | None = None,
    metrics_share: float = 0.0,
    calibration: Gaussian | None = None,
    calibration_share: float = 0.0,
) -> Planned:
    """Fill in the noise multipliers.

    The releases beside the updates get the noise with which each alone costs its share of ε; the
    updates get the least noise with which all together cost at most ε. Without an ε the multiplier
    of `update` stands, for all of them.

    Args:
        update: Draws and times of the updates' sums; the noise counts where there is no ε.
        epsilon: ε of all releases together; None = the noise of `update` is given.
        delta: δ.
        scaler: Draws and times of the sums that standardise features; None = there are none.
        scaler_share: Their share of ε, in (0, 1).
        metrics: Draws and times of the mean validation errors; None = there are none.
        metrics_share: Their share of ε, in (0, 1).
        calibration: Draws and times of the fleet's quantiles of errors; None = there are none.
        calibration_share: Their share of ε, in (0, 1).

    Raises:
        PrivacyError: FL401, FL403, FL404, as `noise_for`.
    """

    def beside(event: Gaussian | None, share: float) -> Gaussian | None:
        if event is None or not share:
            return None
        if epsilon is None:
            return replace(event, noise_multiplier=update.noise_multiplier)
        return smallest_noise(event, share * epsilon, delta)

    others = Planned(
        update,
        beside(scaler, scaler_share),
        beside(metrics, metrics_share),
        beside(calibration, calibration_share),
    )
    if epsilon is None:
        return others
    fixed = others.events[:-1]
    return replace(others, update=smallest_noise(update, epsilon, delta, fixed))
