"""Student's t distribution, as far as tests need it: no more than NumPy is there at run time."""

from __future__ import annotations

import math

#: Relative accuracy of the continued fraction, and the terms it may take.
_ACCURACY, _MOST_TERMS = 1e-15, 10_000


def two_sided_p(statistic: float, degrees: float) -> float:
    """Return P(|T| ≥ |statistic|) for Student's t with so many degrees of freedom.

    It is I_x(n/2, 1/2) with x = n/(n + t²), n degrees of freedom: the regularised incomplete beta
    function (Abramowitz & Stegun 1964, 26.7.1 with 26.5.27).

    >>> round(two_sided_p(1.0, 1), 12)  # Cauchy: half of it lies beyond ±1
    0.5
    """
    if math.isnan(statistic):
        return math.nan
    if math.isinf(statistic):
        return 0.0
    square = statistic * statistic
    whole = degrees + square
    return _incomplete_beta(degrees / 2, 0.5, degrees / whole, square / whole)


def two_sided_bound(level: float, degrees: float) -> float:
    """Return the t with P(|T| ≤ t) = level for Student's t with so many degrees of freedom.

    Bisection of `two_sided_p`, which falls in t; exact to the last digits of a float.

    Raises:
        ValueError: The level does not lie in (0, 1), or there are no degrees of freedom.

    >>> round(two_sided_bound(0.5, 1), 12)  # Cauchy again
    1.0
    """
    if not 0 < level < 1 or not degrees > 0:
        raise ValueError(f"no bound holds {level} of a t with {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees) > 1 - level:
        low, high = high, 2 * high
    while high - low > 4 * math.ulp(high):
        middle = 0.5 * (low + high)
        if two_sided_p(middle, degrees) > 1 - level:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Return I_x(a, b) by the continued fraction of Abramowitz & Stegun 26.5.8; `rest` = 1 − x."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # it converges fast below that only
        return 1.0 - _incomplete_beta(b, a, rest, x)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    return math.exp(log_front) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """Return 1 + d₁/(1 + d₂/(1 + …)) by Lentz's method."""
    value = numerator = 1.0
    denominator = 0.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1.0 / (1.0 + d * denominator)
        numerator = 1.0 + d / numerator
        step = numerator * denominator
        value *= step
        if abs(step - 1.0) < _ACCURACY:
            break
    return value
