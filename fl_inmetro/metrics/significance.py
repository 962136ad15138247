"""Whether two forecasters differ by more than chance: tests on paired losses over days and clients.

The unit of time is the day of issue: errors of one day, and of clients under one weather, go
together, so single hours or single clients are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.student import two_sided_p
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Days of a block of the bootstrap: a week, so that weekdays stay together.
BLOCK_DAYS = 7
RESAMPLES = 2000

#: A variance this much below the mean square of what it is of is rounding.
_ROUNDING = 1e-20


@dataclass(frozen=True)
class MeanTest:
    """A test of "the mean is zero".

    Attributes:
        mean: The mean.
        statistic: Its corrected t statistic; NaN where the mean has no variance to be held to.
        p_value: Two-sided, of Student's t with `count` − 1 degrees of freedom; NaN likewise.
        count: Length of the series.
        lag: Lags whose covariances count in the variance.
        error: Standard error of the mean, mean / statistic; NaN likewise.
    """

    mean: float
    statistic: float
    p_value: float
    count: int
    lag: int
    error: float = math.nan


def default_lag(count: int) -> int:
    """Return ⌊4 (T/100)^(2/9)⌋, the usual rule for the Bartlett window (Newey & West 1994).

    >>> default_lag(28), default_lag(56)
    (3, 3)
    """
    return min(math.floor(4 * math.pow(count / 100, 2 / 9)), max(count - 1, 0))


def diebold_mariano(differences: Floats, lag: int | None = None) -> MeanTest:
    """Test whether the mean of a series of loss differences is zero.

    The variance of the mean is that of Newey & West (1987), γ₀ + 2 Σ_l (1 − l/(L + 1)) γ_l over T,
    which unlike the rectangular window of Diebold & Mariano (1995) is never negative. The statistic
    is corrected for short series as Harvey, Leybourne & Newbold (1997, eq. 9) have it, with
    h = L + 1, and held to Student's t with T − 1 degrees of freedom. With L = 0 this is the
    paired t test.

    Args:
        differences: Shape (T,), ours − theirs, in order of time.
        lag: L; None = `default_lag`.
    """
    count = differences.size
    lag = default_lag(count) if lag is None else lag
    mean = float(differences.mean()) if count else math.nan
    if count < 2:
        return MeanTest(mean, math.nan, math.nan, count, lag)
    centred = differences - mean
    covariances = [
        float(centred[place:] @ centred[: count - place]) / count for place in range(lag + 1)
    ]
    weights = [1.0, *(2 * (1 - place / (lag + 1)) for place in range(1, lag + 1))]
    variance = sum(w * c for w, c in zip(weights, covariances, strict=True)) / count
    if variance <= _ROUNDING * float(differences @ differences) / count:
        return MeanTest(mean, math.nan, math.nan, count, lag)
    h = lag + 1
    correction = math.sqrt(max(count + 1 - 2 * h + h * (h - 1) / count, 0.0) / count)
    statistic = correction * mean / math.sqrt(variance)
    error = math.sqrt(variance) / correction if correction else math.nan
    return MeanTest(mean, statistic, two_sided_p(statistic, count - 1), count, lag, error)


@dataclass(frozen=True, eq=False)
class Losses:
    """Paired losses of two forecasters.

    Attributes:
        days: Shape (D,), epoch seconds of the issues, ascending.
        clients: The K clients.
        excess: Shape (K, D): what each client and day has of the difference in nMAE, ours − theirs,
            times D; the mean over all is that difference. 0 where a client has no pair that day.
        points: Pairs.
        ours: nMAE of the pairs, ours.
        theirs: Theirs.
        overlap: How many later issues come before the end of a forecast: its errors are correlated
            with theirs, however good both are.
    """

    days: Ints
    clients: tuple[str, ...]
    excess: Floats
    points: int
    ours: float
    theirs: float
    overlap: int = 0

    @property
    def difference(self) -> float:
        """Difference in nMAE."""
        return float(self.excess.mean()) if self.excess.size else math.nan

    def daily(self) -> Floats:
        """Return the mean over the clients of each day, shape (D,)."""
        means: Floats = self.excess.mean(axis=0)
        return means


def paired_losses(ours: Points, theirs: Points) -> Losses:
    """Pair the points of two forecasters, row by row, and sum their losses by client and day.

    A client's loss is its absolute error over its mean load, both over the pairs: nMAE. Clients
    whose mean load there is not above zero have none.

    Args:
        ours: Forecasts.
        theirs: Forecasts of the same clients, issues, targets and loads, in the same order.

    Raises:
        ValueError: The rows are not those of the same things.
    """
    same = ours.names == theirs.names and all(
        np.array_equal(a, b)
        for a, b in (
            (ours.client, theirs.client),
            (ours.issue_utc_s, theirs.issue_utc_s),
            (ours.target_utc_s, theirs.target_utc_s),
        )
    )
    if not same:
        raise ValueError("the two forecasts are not of the same clients and instants")
    both = ours.scored & theirs.scored
    ours, theirs = ours.take(both), theirs.take(both)
    errors = [np.abs(one.forecast.point_kwh - one.observed_kwh) for one in (ours, theirs)]
    return losses_of(
        ours.names,
        ours.client,
        ours.issue_utc_s,
        np.ones(len(ours), dtype=np.int64),
        ours.observed_kwh,
        errors[0],
        errors[1],
        int((ours.target_utc_s - ours.issue_utc_s).max(initial=0)),
    )


def losses_of(
    names: tuple[str, ...],
    client: Ints,
    issue_utc_s: Ints,
    count: Ints,
    load_kwh: Floats,
    ours_kwh: Floats,
    theirs_kwh: Floats,
    ahead_s: int,
) -> Losses:
    """Return paired losses from sums over pairs: single ones, or all of a client and an issue.

    Args:
        names: The clients.
        client: Shape (R,), places in `names`.
        issue_utc_s: Shape (R,).
        count: Shape (R,), pairs in each sum.
        load_kwh: Shape (R,), what was measured.
        ours_kwh: Shape (R,), our absolute errors.
        theirs_kwh: Shape (R,), theirs.
        ahead_s: From the issue to the begin of the farthest step of all.
    """
    size = len(names)
    pairs = np.bincount(client, weights=count, minlength=size)
    load = np.bincount(client, weights=load_kwh, minlength=size)
    days, day = np.unique(issue_utc_s, return_inverse=True)
    cell = client * len(days) + day.reshape(-1)
    # |e| / (n · mean load) = |e| / Σ load: the sum over a client's points is its nMAE.
    usable = np.flatnonzero(load > 0)
    nmae = [
        np.bincount(cell, weights=error, minlength=size * len(days)).reshape(size, len(days))[
            usable
        ]
        / load[usable, None]
        for error in (ours_kwh, theirs_kwh)
    ]
    return Losses(
        days.astype(np.int64),
        tuple(names[k] for k in usable),
        (nmae[0] - nmae[1]) * len(days),
        int(pairs[usable].sum()),
        _fleet(nmae[0]),
        _fleet(nmae[1]),
        ahead_s // DAY_S,
    )


def panel_test(losses: Losses, lag: int | None = None) -> MeanTest:
    """Test the mean over the clients day by day with `diebold_mariano`.

    What clients have in common on a day stays in the daily mean, so clients that share weather do
    not count as independent (as in the panel tests of Timmermann & Zhu 2019). Without `lag` it is
    that of `default_lag`, and at least the overlap of the forecasts.
    """
    if lag is None:
        days = len(losses.days)
        lag = max(default_lag(days), min(losses.overlap, max(days - 1, 0)))
    return diebold_mariano(losses.daily(), lag)


def mean_losses(each: Sequence[Losses]) -> Losses:
    """Return the mean of paired losses of the same pairs, made once with each of several seeds.

    Raises:
        ValueError: They are not of the same clients and days, or there are none.
    """
    if not each:
        raise ValueError("a mean needs at least one")
    first = each[0]
    if any(
        one.clients != first.clients or not np.array_equal(one.days, first.days) for one in each
    ):
        raise ValueError("the losses are not of the same clients and days")
    return replace(
        first,
        excess=np.mean([one.excess for one in each], axis=0),
        ours=float(np.mean([one.ours for one in each])),
        theirs=float(np.mean([one.theirs for one in each])),
    )


def seeds_test(each: Sequence[Losses], lag: int | None = None) -> MeanTest:
    """Test the mean over the seeds for what other days and another training would give.

    The variance of the mean is that of `panel_test` plus s²/S, s² the variance of the difference
    from seed to seed: a model trained again is another model (Bouthillier et al. 2021). The
    statistic is held to Student's t with the degrees of freedom of such a sum, (a + b)² /
    (a²/(T − 1) + b²/(S − 1)) (Satterthwaite 1946). What days and seeds do to each other is in both
    variances: with few seeds the test is on the safe side. Losses that no seed changes, and a
    single seed, give `panel_test`; the latter says nothing of another training.

    Args:
        each: Paired losses with each seed, of the same clients and days.
        lag: As in `panel_test`.
    """
    whole = panel_test(mean_losses(each), lag)
    if len(each) < 2:
        return whole
    differences = np.array([one.difference for one in each])
    of_seeds = float(differences.var(ddof=1)) / len(each)
    square = float(differences @ differences) / len(each)
    if of_seeds <= _ROUNDING * square or not math.isfinite(whole.error):
        return whole
    of_days = whole.error**2
    error = math.sqrt(of_days + of_seeds)
    degrees = (of_days + of_seeds) ** 2 / (
        of_days**2 / (whole.count - 1) + of_seeds**2 / (len(each) - 1)
    )
    statistic = whole.mean / error
    return replace(whole, statistic=statistic, p_value=two_sided_p(statistic, degrees), error=error)


@dataclass(frozen=True)
class Bounds:
    """An interval of the difference in nMAE that 95 % of the resamples lie in."""

    low: float
    high: float


def bootstrap_bounds(
    losses: Losses | Sequence[Losses], rng: np.random.Generator, block_days: int = BLOCK_DAYS
) -> Bounds:
    """Return the 95 % percentile interval of the difference, resampling clients and days at once.

    Clients are drawn with replacement, and days in blocks that run on from the last day to the
    first (circular block bootstrap, Politis & Romano 1992); pairs stay together. Drawing both axes
    covers other clients and other weeks, and is mildly conservative for it (Owen & Eckles 2012).
    A dozen blocks are few all the same: of eight weeks or less take it for a rough interval.
    Of S > 1 seeds S − 1 are drawn with replacement: the mean of so many varies as the mean of S
    seeds does, s²/S (Rao & Wu 1988), that of S would vary less, by a third of it for three seeds.

    Args:
        losses: Paired losses, K ≥ 1 clients and D ≥ 1 days; or those with each seed, of the same.
        rng: Source of the draws.
        block_days: Days of a block, cut to D.
    """
    each = (losses,) if isinstance(losses, Losses) else tuple(losses)
    excess = np.stack([one.excess for one in each])
    seeds, size, days = excess.shape
    length = min(block_days, days)
    blocks = -(-days // length)
    means = np.empty(RESAMPLES)
    for draw in range(RESAMPLES):
        starts = rng.integers(0, days, blocks)
        picked = ((starts[:, None] + np.arange(length)) % days).reshape(-1)[:days]
        clients = np.bincount(rng.integers(0, size, size), minlength=size)
        when = np.bincount(picked, minlength=days)
        by_seed = (clients @ excess) @ when / (size * days)
        means[draw] = by_seed[rng.integers(0, seeds, seeds - 1)].mean() if seeds > 1 else by_seed[0]
    low, high = np.quantile(means, (0.025, 0.975))
    return Bounds(float(low), float(high))


def _fleet(nmae: Floats) -> float:
    return float(nmae.sum(axis=1).mean()) if len(nmae) else math.nan
