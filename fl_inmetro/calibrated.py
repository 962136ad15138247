"""Calibrated rows: a job's forecasts with quantiles that hold what they promise, scored again.

Of a client's errors only the counts of `learning/conformal.py` are added up over the fleet; with
local-only training not even those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.data.windows import Windows
from fl_inmetro.derived import Done, Parts, scored
from fl_inmetro.learning.adaptive_conformal import follow_on
from fl_inmetro.learning.client import ClientData, added_up
from fl_inmetro.learning.conformal import (
    Calibration,
    FleetCalibration,
    Scores,
    calibrated,
    scores_of,
)
from fl_inmetro.learning.followed import Ended, FollowedFleet, followed
from fl_inmetro.learning.private_quantiles import private_calibration
from fl_inmetro.metrics import ErrorSums, Forecast
from fl_inmetro.plan import Job
from fl_inmetro.privacy.sums import PrivateSums


def calibration_key(job: Job) -> str:
    """Return the name of a job's calibration in the run directory."""
    return f"{job.model}-{job.training}-calibration"


def calibrate(
    job: Job,
    settings: Conformal,
    clients: Mapping[str, ClientData],
    done: Done,
    *,
    apart: bool = False,
    private: PrivateSums | None = None,
) -> tuple[Done, FleetCalibration | FollowedFleet]:
    """Calibrate a job by the errors of its validation windows; return it as it is then scored.

    With `follow`, each test window also by the errors of those that were over when it was issued.

    The validation forecasts stay as they were: what is made of the job (an ensemble, a personalised
    model) is calibrated by itself. Counted as traffic of a federation: every client's counts, and
    the fleet's, which go back to each.

    Args:
        job: What is calibrated.
        settings: `[conformal]`.
        clients: The clients.
        done: What the job has made.
        apart: Nothing is added up over clients, as under `[privacy]`.
        private: With `apart`, how the fleet's quantiles are released with noise, for clients that
            have no errors of their own; None = those get no calibration.

    Raises:
        DataError: FL218, nobody has an error that could be counted.
        PrivacyError: What `private.release` says.
    """
    counts_bytes = 0

    def ask(name: str) -> Scores | None:
        nonlocal counts_bytes
        total: Scores | None = None
        for windows, forecast in _parts(clients[name].validation, done.validation[name]):
            own = scores_of(windows, forecast, settings.blocks)
            total = own if total is None else total + own
            counts_bytes = own.counts.nbytes
        return total

    asked = {name: partial(ask, name) for name in clients if name in done.validation}
    fleet = _fleet(asked, settings, clients, alone=apart or job.training == "local")
    if private is not None and isinstance(fleet, FleetCalibration):
        fleet = replace(fleet, shared=_released([ask() for ask in asked.values()], fleet, private))
    test: dict[str, Parts] = {}
    ended: dict[str, Ended] = {}
    sums: dict[str, ErrorSums] = {}
    for name, client in clients.items():
        if name not in done.test:
            continue
        made = tuple(
            _calibrated(fleet, name, windows, forecast, ended)
            for windows, forecast in zip(client.test, done.test[name], strict=True)
        )
        test[name] = made
        sums |= added_up(
            (windows.scored_as, scored(windows, forecast))
            for windows, forecast in zip(client.test, made, strict=True)
        )
    if isinstance(fleet, FollowedFleet):
        # Who holds several meters follows each of them, and stands at no one place.
        own = {name: ended[name] for name in ended if len(clients[name].test) == 1}
        fleet = replace(fleet, ended=own)
    shared = not apart and job.training in ("federated", "clustered", "personalised")
    moved = 2 * len(asked) * counts_bytes if shared else 0
    return replace(done, test=test, sums=sums, n_bytes=done.n_bytes + moved), fleet


def _fleet(
    asked: Mapping[str, Callable[[], Scores | None]],
    settings: Conformal,
    clients: Mapping[str, ClientData],
    *,
    alone: bool,
) -> FleetCalibration | FollowedFleet:
    if not settings.follow:
        return calibrated(asked, settings, alone=alone)
    issues = [int(w.issue_utc_s[0]) for one in clients.values() for w in one.test if len(w)]
    return followed(asked, settings, min(issues, default=0), alone=alone)


def _released(
    asked: Sequence[Scores | None], fleet: FleetCalibration, private: PrivateSums
) -> Calibration:
    """Return the fleet's calibration from noisy answers; who has no errors answers zero."""
    like = next(scores for scores in asked if scores is not None)
    none = replace(like, counts=np.zeros_like(like.counts))
    levels = next(iter(fleet.own.values())).levels
    return private_calibration([none if one is None else one for one in asked], levels, private)


def _calibrated(
    fleet: FleetCalibration | FollowedFleet,
    name: str,
    windows: Windows,
    forecast: Forecast,
    ended: dict[str, Ended],
) -> Forecast:
    """Return a client's forecasts of one meter; a client without calibration keeps its own.

    Where it has followed to is noted in `ended`.
    """
    if isinstance(fleet, FollowedFleet):
        start = fleet.of(name)
        if start is None:
            return forecast
        done = follow_on(start, windows, forecast)
        if len(windows):
            ended[name] = Ended.of(done, windows.issue_utc_s)
        return done.forecast
    own = fleet.of(name)
    return forecast if own is None else own.of(windows, forecast)


def _parts(windows: tuple[Windows, ...], forecasts: Parts) -> list[tuple[Windows, Forecast]]:
    """Return the meters that have windows, with their forecasts."""
    return [(w, f) for w, f in zip(windows, forecasts, strict=True) if len(w)]
