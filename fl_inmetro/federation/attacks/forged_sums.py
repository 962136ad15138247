"""Made-up sums: of enrolment, and of a model in closed form.

They are those of rows that could be, so that no check of a client by itself finds them.
"""

from __future__ import annotations

from fl_inmetro.learning.enrolment import is_standardisation
from fl_inmetro.learning.update import Arrays


def moved(sums: Arrays, shift: float) -> Arrays:
    """Return standardisation sums of rows whose every feature is larger by `shift`.

    Σ(x + a) = Σx + na and Σ(x + a)² = Σx² + 2aΣx + na². A learner that enrols with nothing leaves
    nothing to make up.
    """
    if not is_standardisation(sums):
        return sums
    n, x_sum, x_sq_sum = sums["n"], sums["x_sum"], sums["x_sq_sum"]
    return {
        "n": n,
        "x_sum": x_sum + n * shift,
        "x_sq_sum": x_sq_sum + 2 * shift * x_sum + n * shift**2,
    }


def scaled(sums: Arrays, factor: float) -> Arrays:
    """Return sums of the same rows with every residual `factor` times as large.

    Σz(ar) = aΣzr and Σ(ar)² = a²Σr²; below zero the solution is turned round.
    """
    return {
        **sums,
        "moment": factor * sums["moment"],
        "square": factor**2 * sums["square"],
    }
