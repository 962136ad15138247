"""Linear regression from sums: exact over cars or cells in one round, with all its statistics.

    y = Σ_j β_j·x_j + e,    e ~ N(0, σ²/w)

β needs X'WX, X'Wy, y'Wy and n: `calibration.Sums`, whose terms are the columns here and whose units
are those of the columns. They add up over rows and so over clients; what is found from the total is
what the pooled rows would give, not an approximation of it. With them come standard errors, t and
p values, R² and prediction intervals, which no averaging of models can give.

An intercept is the column `INTERCEPT`. With a penalty λ (ridge regression; Hoerl and Kennard, 1970)

    β = argmin Σ w·(y − x·β)² + λ·Σ_j S_j·(β_j − β⁰_j)²,    S_j = Σ w·(x_j − x̄_j)²

where x̄ is 0 without an intercept, which itself is never pulled. S_j makes λ a share and free of
units: λ = 1 halves the coefficient of a column that stands alone. It also means that a column which
hardly varied is hardly pulled. Where β is known beforehand in its own units, `held` is the better
answer: a normal prior β_j ~ N(β⁰_j, s_j²), as in `calibration`.

Sources: Draper and Smith, *Applied Regression Analysis*, 3rd ed. (1998), chapters 1, 5 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault, FederationError
from fl_inmetro.ev.calibration import Sums
from fl_inmetro.ev.drives import Floats
from fl_inmetro.metrics.student import two_sided_bound, two_sided_p

#: The column of ones.
INTERCEPT = "1"

#: A column whose square, after all columns before it, is a smaller share than this says nothing of
#: its own. Sums hold squares: half of a float's digits.
_ALIKE = 1e-10

#: σ² and β depend on each other; they settle in a few steps.
_ROUNDS = 60


def sums_of_rows(names: Sequence[str], x: Floats, y: Floats, weight: Floats | None = None) -> Sums:
    """Return what leaves a client: sums over its rows.

    Args:
        names: Of the columns.
        x: [row, column].
        y: [row].
        weight: w [row], 1 where None; rows of weight 0 do not count.

    Raises:
        DataError: FL224, shapes that do not fit, a missing value, or a weight below 0.
    """
    w = np.ones(len(y)) if weight is None else weight
    if x.shape != (len(y), len(names)) or y.ndim != 1 or w.shape != y.shape:
        raise DataError(
            Fault("FL224", f"{x.shape} values for {len(y)} rows of {len(names)} columns", "rows")
        )
    finite = np.isfinite(x).all(axis=1) & np.isfinite(y) & np.isfinite(w)
    if not finite.all() or w.min(initial=0.0) < 0:
        at = int(np.argmin(finite & (w >= 0)))
        raise DataError(Fault("FL224", "a value is missing, or a weight below 0", f"row {at}"))
    root = np.sqrt(w)
    xw, yw = x * root[:, None], y * root
    return Sums(tuple(names), xw.T @ xw, xw.T @ yw, float(yw @ yw), int(np.count_nonzero(w)))


def only(sums: Sums, columns: Sequence[str]) -> Sums:
    """Return the sums of some of the columns: another model needs no other round.

    Raises:
        FederationError: FL372, there is no such column.
    """
    if unknown := [name for name in columns if name not in sums.terms]:
        raise FederationError(
            Fault(
                "FL372",
                f"the sums have no column {', '.join(f'`{name}`' for name in unknown)}",
                "",
                f"they have {', '.join(sums.terms)}",
            )
        )
    at = [sums.terms.index(name) for name in columns]
    return Sums(tuple(columns), sums.xx[np.ix_(at, at)], sums.xy[at], sums.yy, sums.n)


@dataclass(frozen=True)
class Regression:
    """A linear model and how well it is known.

    Attributes:
        names: Columns, in the order of every array.
        coefficient: β [column].
        covariance: Of β [column, column]; with a penalty or prior that of the posterior.
        noise: σ, of a row of weight 1.
        degrees: Degrees of freedom that are left: rows − those that β takes (with a penalty or
            prior no whole number), and those that a prior of the noise adds.
        n: Rows that it was learned from.
        r_squared: Share of y's (weighted) square that it explains: around the mean where there is
            an intercept, around 0 where not; nan where y never varies.
        penalty: λ.
    """

    names: tuple[str, ...]
    coefficient: Floats
    covariance: Floats
    noise: float
    degrees: float
    n: int
    r_squared: float
    penalty: float

    @property
    def standard_error(self) -> Floats:
        """Return the standard error of each coefficient [column]."""
        error: Floats = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        return error

    @property
    def t_value(self) -> Floats:
        """Return β over its standard error [column]; infinite where nothing is left to err."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Floats = self.coefficient / self.standard_error
        return ratio

    @property
    def p_value(self) -> Floats:
        """Return the two-sided p value of β = 0 [column]."""
        return np.array([two_sided_p(float(t), self.degrees) for t in self.t_value])

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return low and high of each coefficient's confidence interval [column]."""
        half = two_sided_bound(level, self.degrees) * self.standard_error
        return self.coefficient - half, self.coefficient + half

    def predict(self, x: Floats) -> Floats:
        """Return y [row] of rows [row, column]."""
        y: Floats = x @ self.coefficient
        return y

    def prediction_interval(
        self, x: Floats, level: float = 0.8, weight: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Return low and high of new measurements [row]: the line's own error and a row's noise.

        Args:
            x: [row, column].
            level: Share of new rows that it holds, if the errors are normal and independent.
            weight: Of the new rows, 1 where None.
        """
        w = np.ones(len(x)) if weight is None else weight
        variance = np.einsum("ri,ij,rj->r", x, self.covariance, x) + self.noise**2 / w
        half = two_sided_bound(level, self.degrees) * np.sqrt(np.maximum(variance, 0.0))
        y = self.predict(x)
        return y - half, y + half


def regress(
    sums: Sums, penalty: float = 0.0, toward: Mapping[str, float] | None = None
) -> Regression:
    """Find β from sums.

    Args:
        sums: Of all rows of all clients.
        penalty: λ ≥ 0.
        toward: β⁰ of some columns; 0 of the others.

    Raises:
        FederationError: FL371, the rows do not decide β: too few, a column that never varies, or
            columns of which one is a sum of the others (all of them at once, with the others), or
            a penalty below 0. FL372, `toward` names no column.
    """
    if not (np.isfinite(penalty) and penalty >= 0):
        raise _undecided(f"a penalty of {penalty}", "it is a share of 0 or more")
    centre = _centre(sums.terms, toward)
    slopes = np.array([i for i, name in enumerate(sums.terms) if name != INTERCEPT], dtype=np.int64)
    mean, ones = _means(sums)
    # Deviations from the mean: an intercept then stands apart from all the rest.
    a = (sums.xx - ones * np.outer(mean, mean))[np.ix_(slopes, slopes)]
    b = (sums.xy - mean * _mean_y(sums) * ones)[slopes]
    square = max(sums.yy - ones * _mean_y(sums) ** 2, 0.0)
    size = np.sqrt(np.maximum(np.diag(a), 0.0))
    _decided(sums, slopes, a, size, penalty)
    scaled = a / np.outer(size, size)
    inverse = np.linalg.inv(scaled + penalty * np.eye(len(slopes)))
    beta = inverse @ (b / size + penalty * size * centre[slopes]) / size
    degrees = sums.n - bool(ones) - float(np.trace(inverse @ scaled))
    if degrees <= 1e-9:
        raise _undecided(
            f"{sums.n} rows for {len(sums.terms)} columns: nothing is left to judge the error by",
            "give more rows, or fewer columns",
        )
    # What rounding leaves of a perfect fit may lie below 0.
    rest = max(square - 2 * float(beta @ b) + float(beta @ a @ beta), 0.0)
    variance = rest / degrees
    k = len(sums.terms)
    coefficient, covariance = np.zeros(k), np.zeros((k, k))
    coefficient[slopes] = beta
    spread = variance * inverse / np.outer(size, size)
    covariance[np.ix_(slopes, slopes)] = spread
    if ones:
        at = sums.terms.index(INTERCEPT)
        coefficient[at] = _mean_y(sums) - mean[slopes] @ beta
        covariance[at, slopes] = covariance[slopes, at] = -spread @ mean[slopes]
        covariance[at, at] = variance / ones + mean[slopes] @ spread @ mean[slopes]
    return Regression(
        sums.terms,
        coefficient,
        covariance,
        float(np.sqrt(variance)),
        degrees,
        sums.n,
        1 - rest / square if square > 0 else float("nan"),
        penalty,
    )


@dataclass(frozen=True)
class Noise:
    """What is known of σ beforehand: it looks like `usual`, as if seen in so many rows."""

    usual: float
    rows: float


def held(
    sums: Sums, toward: Mapping[str, float], spread: Mapping[str, float], noise: Noise
) -> Regression:
    """Find β with a normal prior; one row is enough, and none leaves the prior as it is.

        β = argmin Σ w·(y − x·β)²/σ² + Σ_j ((β_j − β⁰_j)/s_j)²
        σ² = (Σ w·(y − x·β)² + m·σ₀²) / (n − p + m),    p = Σ_j 1 − var(β_j)/s_j²

    which settle in turn (MacKay, *Bayesian interpolation*, 1992; p counts the parameters that the
    rows decide). Without σ₀ a single row would be fitted without error.

    Args:
        sums: Of all rows.
        toward: β⁰ of each column.
        spread: s of each column, above 0.
        noise: σ₀ and m.

    Raises:
        FederationError: FL371, a spread or a noise that is not above 0; FL372, a column without
            prior.
    """
    if lost := [name for name in sums.terms if name not in toward or name not in spread]:
        what = f"{', '.join(f'`{name}`' for name in lost)} have no prior"
        raise FederationError(Fault("FL372", what, "regression", "give all columns one"))
    centre = np.array([toward[name] for name in sums.terms])
    sd: Floats = np.array([spread[name] for name in sums.terms])
    if not (np.all(sd > 0) and np.all(np.isfinite(sd)) and noise.usual > 0 and noise.rows > 0):
        raise _undecided("a prior whose spread or noise is not above 0", "give numbers above 0")
    # The unknowns are deviations in units of their spread, turned so that each stands for itself:
    # a step of σ² and β then costs no more than their number.
    a, b = sums.xx * np.outer(sd, sd), (sums.xy - sums.xx @ centre) * sd
    square = sums.yy - 2 * float(centre @ sums.xy) + float(centre @ sums.xx @ centre)
    strength, turn = np.linalg.eigh(a)
    strength = np.maximum(strength, 0.0)
    along = turn.T @ b
    variance = noise.usual**2
    for _ in range(_ROUNDS):
        away = along / (strength + variance)
        rest = max(square - 2 * float(away @ along) + float(away @ (strength * away)), 0.0)
        degrees = sums.n - float(np.sum(strength / (strength + variance))) + noise.rows
        before, variance = variance, (rest + noise.rows * noise.usual**2) / degrees
        if abs(variance - before) <= 1e-10 * before:
            break
    covariance = (turn * (variance / (strength + variance))) @ turn.T * np.outer(sd, sd)
    away = turn @ (along / (strength + variance))
    explained = 1 - rest / sums.yy if sums.yy > 0 else float("nan")
    return Regression(
        sums.terms,
        np.asarray(centre + sd * away, dtype=np.float64),
        np.asarray(covariance, dtype=np.float64),
        float(np.sqrt(variance)),
        degrees,
        sums.n,
        explained,
        0.0,
    )


def without(whole: Sums, part: Sums) -> Sums:
    """Return sums less those of a part of their rows: leaving a trip out reads nothing again."""
    xx = whole.xx - part.xx
    # What only the part had is 0 now, but for rounding.
    xx[np.abs(xx) <= 1e-13 * np.abs(whole.xx)] = 0.0
    yy = max(whole.yy - part.yy, 0.0)
    return Sums(whole.terms, xx, whole.xy - part.xy, yy, whole.n - part.n)


def _centre(names: Sequence[str], toward: Mapping[str, float] | None) -> Floats:
    unknown = sorted(set(toward or {}) - set(names))
    if unknown:
        raise FederationError(
            Fault(
                "FL372",
                f"`toward` speaks of {', '.join(f'`{name}`' for name in unknown)}",
                "",
                f"the columns are {', '.join(names)}",
            )
        )
    return np.array([(toward or {}).get(name, 0.0) for name in names])


def _means(sums: Sums) -> tuple[Floats, float]:
    """Return the columns' means and the sum of weights; both 0 without an intercept."""
    if INTERCEPT not in sums.terms:
        return np.zeros(len(sums.terms)), 0.0
    at = sums.terms.index(INTERCEPT)
    ones = float(sums.xx[at, at])
    if not ones > 0:
        raise _undecided("there is no row", "give some")
    mean: Floats = sums.xx[at] / ones
    return mean, ones


def _mean_y(sums: Sums) -> float:
    if INTERCEPT not in sums.terms:
        return 0.0
    at = sums.terms.index(INTERCEPT)
    return float(sums.xy[at] / sums.xx[at, at])


def _decided(
    sums: Sums, slopes: NDArray[np.int64], a: Floats, size: Floats, penalty: float
) -> None:
    """Refuse columns that say nothing of their own.

    Columns are taken one after the other (Cholesky): what is left of a column's square when those
    before it have explained what they can is 1 − R², the inverse of its variance inflation.
    """
    names = [sums.terms[i] for i in slopes]
    still = size**2 <= 1e-12 * np.diag(sums.xx)[slopes]
    if np.any(still):
        constant = ", ".join(f"`{name}`" for name, dead in zip(names, still, strict=True) if dead)
        beside = " beside the intercept" if INTERCEPT in sums.terms else " but 0"
        raise _undecided(f"{constant} never vary, and say nothing{beside}", "leave them out")
    if penalty > 0:
        return
    scaled = a / np.outer(size, size)
    free: list[int] = []
    said = []
    for j in range(len(names)):
        share = scaled[np.ix_(free, [j])][:, 0]
        by = np.linalg.solve(scaled[np.ix_(free, free)], share) if free else share
        if 1.0 - share @ by > _ALIKE:
            free.append(j)
            continue
        others = [names[i] for i, c in zip(free, by, strict=True) if abs(c) > 1e-4]
        said.append(f"`{names[j]}` is made of {', '.join(f'`{name}`' for name in others)}")
    if said:
        raise _undecided("; ".join(said), "leave it out, give more rows, or a penalty above 0")


def _undecided(what: str, hint: str) -> FederationError:
    return FederationError(Fault("FL371", what, "regression", hint))
