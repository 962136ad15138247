"""`[privacy]`: whom the noise of a training protects, how much of it, and under which budget."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fl_inmetro.config.table import Share, Table

Protected = Literal["nobody", "client", "client-day", "window"]

#: ε where nobody asked for one: it multiplies odds by 3,000 at most; tens of clients can learn.
USUAL_EPSILON = 8.0


class Privacy(Table):
    """Differential privacy of what a federation releases.

    `client`: the server clips each client's update and adds noise to their sum; who sees the models
    learns little of whether a client's readings were among them. `window` and `client-day`: each
    client clips the gradient of every training window and adds noise itself (DP-SGD); nobody, the
    server included, learns much of one window, or of one day's readings.

    Attributes:
        protect: Whom the promise is made to.
        epsilon: ε of each federated model of the run, which the noise is made for; None = 8, unless
            there is a `noise_multiplier`.
        delta: δ; well below one over the number of those who are protected.
        noise_multiplier: Standard deviation of the noise over `clip`, in the place of `epsilon`.
        clip: Largest L2 norm of an update (`client`), or of a window's gradient.
        clip_quantile: With `client`, the clipping norm follows this quantile of the updates' norms,
            by noisy counts; None = `clip` stays.
        clip_rate: How fast it follows.
        noise_at: With `client`, where noise is made: at the `server`, or a share of it on each of
            the `clients`, so that the server never sees a sum without noise.
        on_grid: With `client`, noise of whole numbers, exact and from a cipher, in the place of
            doubles (`privacy/discrete.py`).
        scaler_share: Share of ε for the sums that standardise features; 0 = nothing is asked for,
            and public constants do it.
        metrics_share: Share of ε for the mean validation error of the rounds; 0 = no round is
            scored.
        calibration_share: Share of ε for the fleet's calibration, which serves clients that have no
            errors of their own (`[conformal]`, `follow = false`); 0 = they get none. With `client`
            and noise at the server.
        budget: Most that all runs of this federation (its `name`) may spend together; None = only
            `epsilon` binds.
        ledger: Folder of the ledgers, relative to the working directory; each federation (its
            `name`) has one of its own there.
        client_ledgers: Keep a ledger of each simulated client beside the federation's; nodes that
            are processes of their own always keep theirs. It takes milliseconds for each client
            and release.
    """

    protect: Protected = "nobody"
    epsilon: float | None = Field(None, gt=0, allow_inf_nan=False)
    delta: float = Field(1e-5, gt=0, lt=1)
    noise_multiplier: float | None = Field(None, gt=0, allow_inf_nan=False)
    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    clip_quantile: float | None = Field(None, gt=0, lt=1)
    clip_rate: float = Field(0.2, gt=0, allow_inf_nan=False)
    noise_at: Literal["server", "clients"] = "server"
    on_grid: bool = False
    scaler_share: Share = 0.0
    metrics_share: Share = 0.0
    calibration_share: Share = 0.0
    budget: float | None = Field(None, gt=0, allow_inf_nan=False)
    ledger: str = "ledgers"
    client_ledgers: bool = False

    @property
    def enabled(self) -> bool:
        """Whether anybody is protected."""
        return self.protect != "nobody"

    @property
    def goal(self) -> float | None:
        """ε that the noise is made for; None = the noise is given."""
        return None if self.noise_multiplier is not None else self.epsilon or USUAL_EPSILON

    @property
    def by_example(self) -> bool:
        """Whether clients clip window by window."""
        return self.protect in ("window", "client-day")

    @property
    def unheard(self) -> bool:
        """Whether noise is made against the server too: then no node tells it its errors."""
        return self.by_example or (self.enabled and self.noise_at == "clients")

    @model_validator(mode="after")
    def _says_how_much(self) -> Self:
        if not self.enabled:
            if self.epsilon is not None or self.noise_multiplier is not None:
                raise ValueError(
                    '`epsilon` and `noise-multiplier` protect nobody: add `protect = "client"`, '
                    '`"client-day"` or `"window"`'
                )
            return self
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give `epsilon` or `noise-multiplier`, one of them")
        if self.scaler_share + self.metrics_share + self.calibration_share >= 1:
            raise ValueError(
                "`scaler-share`, `metrics-share` and `calibration-share` leave the updates nothing"
            )
        if self.noise_at == "clients" and self.clip_quantile is not None:
            raise ValueError(
                "clients that add noise themselves clip at `clip`: `clip-quantile` is the server's"
            )
        if self.on_grid and (self.by_example or self.noise_at == "clients"):
            raise ValueError('`on-grid` is of `protect = "client"` with `noise-at = "server"`')
        if self.by_example and (self.clip_quantile is not None or self.noise_at == "clients"):
            raise ValueError(
                '`clip-quantile` and `noise-at` are of `protect = "client"`: windows are clipped '
                "at `clip`, on the client that holds them"
            )
        if self.budget is not None and (self.goal or 0.0) > self.budget:
            raise ValueError("`epsilon` of a run is above the `budget` of all runs")
        return self
