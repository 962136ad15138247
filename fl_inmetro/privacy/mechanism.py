"""What noisy rounds spend, as values that add up: Gaussian noise on sums of clipped vectors.

A run's spending is a tuple of `Gaussian`; two runs together are the concatenation of their tuples.
Each says how much noise was really added over what one record can change, and how the records
were really drawn. Rates and counts may differ from round to round.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from fl_inmetro.errors import Fault, PrivacyError

Sampling = Literal["poisson", "without-replacement", "all"]
Relation = Literal["add-remove", "replace"]
Noise = Literal["sum", "shares", "mean"]


@dataclass(frozen=True)
class Gaussian:
    """Gaussian noise on a sum of vectors of norm ≤ C, some times over, each time a fresh draw.

    Attributes:
        noise_multiplier: z = s/C: standard deviation s of the noise that is in the released sum,
            in each coordinate, over the clipping norm C. 0 is no noise.
        sampling_rate: Chance q of one record to be in the sum: of each by itself (`poisson`),
            m/n for m of n records (`without-replacement`), 1 (`all`).
        times: How often.
        sampling: How the records were drawn. Never call draws of a fixed number Poisson: that
            promises too much.
        group: Records that belong to the one who is protected: 1 where a record is a client or a
            window; the windows that a day touches where it is a client-day.
        relation: What becomes of those records among neighbours: they are there or not
            (`add-remove`), which moves the sum by C for each that is drawn, or others stand in
            their place (`replace`), which moves it by up to 2 C. A day's readings are in windows
            that stay when the day changes or is missing: they are replaced.

    Raises:
        PrivacyError: FL401, a value has no meaning; all of them at once.
    """

    noise_multiplier: float
    sampling_rate: float
    times: int = 1
    sampling: Sampling = "poisson"
    group: int = 1
    relation: Relation = "add-remove"

    def __post_init__(self) -> None:
        faults = [Fault("FL401", what, "a Gaussian release") for what in _faults(self)]
        if faults:
            raise PrivacyError(faults)


#: What a run has spent; composition is concatenation.
Events = tuple[Gaussian, ...]


def relation_of(events: Iterable[Gaussian]) -> Relation:
    """Say which data sets an account calls neighbours.

    `add-remove`: one record more or less, which moves a sum by at most C. `replace`: one record
    is another one, the number of records is known; that moves a sum by up to 2 C. Draws of a
    fixed number without replacement have only the second. Where all take part either is counted,
    so what is beside replaced records counts as replaced.

    Raises:
        PrivacyError: FL402, Poisson draws of records that are there or not, and replaced ones or
            draws of a fixed number, in one account.
    """
    given = [event for event in events if event.times]
    fixed = any(event.sampling == "without-replacement" for event in given)
    if not fixed and all(event.relation == "add-remove" for event in given):
        return "add-remove"
    drawn = [event for event in given if event.sampling == "poisson"]
    if any(fixed or event.relation == "add-remove" for event in drawn):
        raise PrivacyError(
            Fault(
                "FL402",
                "records that are there or not, and replaced ones, cannot be one account",
                "sampling poisson: one record more or less; without-replacement: one replaced",
                "draw in one way in all rounds, or account them apart and add both epsilons",
            )
        )
    return "replace"


@dataclass(frozen=True)
class Parts:
    """Events as the accountants need them, the same for every order of the same events.

    Attributes:
        precision: Σ times · (Δ/s)² of the rounds in which all took part, with Δ the most that
            the one who is protected can change: together they are one Gaussian of 1/√precision.
        drawn: Events with a draw, equal ones joined, in a fixed order.
        relation: Neighbouring data sets.
    """

    precision: float
    drawn: Events
    relation: Relation


def parts(events: Iterable[Gaussian]) -> Parts:
    """Join equal events, and all those without a draw.

    The Gaussian mechanisms of one sum each compose exactly: their squared ratios of sensitivity
    to noise add up (Dong, Roth, Su 2022, Gaussian differential privacy, corollary 3.3).

    Raises:
        PrivacyError: FL402, see `relation_of`.
    """
    given = tuple(events)
    relation = relation_of(given)
    most = 2.0 if relation == "replace" else 1.0
    precision: list[float] = []
    drawn: Counter[tuple[float, float, Sampling, int, Relation]] = Counter()
    for event in given:
        z, q, group = event.noise_multiplier, event.sampling_rate, event.group
        if q == 0 or event.times == 0:
            continue
        if q == 1:
            precision.append(event.times * (most * group / z) ** 2 if z else math.inf)
        else:
            drawn[z, q, event.sampling, group, event.relation] += event.times
    return Parts(
        math.fsum(precision),
        tuple(
            Gaussian(z, q, times, how, k, relation_)
            for (z, q, how, k, relation_), times in sorted(drawn.items())
        ),
        relation,
    )


def round_of_clients(clients: int, fraction: float, z: float, sampling: str) -> Gaussian:
    """Return one round of a federation as it is accounted, with noise.

    Draws of a fixed number take ⌈fraction · clients⌉, as the federation does; the rate is what
    was drawn.

    Args:
        clients: Clients of the federation, ≥ 1.
        fraction: Share of them in a round, or the chance of each (`poisson`), in (0, 1].
        z: Noise multiplier, above 0.
        sampling: One of `Sampling`.

    Raises:
        PrivacyError: FL401, also without noise: there is no bound then.
    """
    faults = []
    if clients < 1:
        faults.append(f"a federation has at least one client, not {clients}")
    if not 0 < fraction <= 1:
        faults.append(f"the fraction of clients is in (0, 1], not {fraction}")
    if not (math.isfinite(z) and z > 0):
        faults.append(f"without noise there is no bound: sigma is a number above 0, not {z}")
    if faults:
        raise PrivacyError([Fault("FL401", what, "a round of clients") for what in faults])
    rate = fraction
    if sampling == "without-replacement":
        rate = max(1, math.ceil(fraction * clients - 1e-9)) / clients
    return Gaussian(z, rate, 1, sampling)  # type: ignore[arg-type]  # refused if unknown


def noise_of_round(z: float, expected: int, answered: int, noise: Noise) -> float:
    """Return the noise multiplier that a round really had when not all expected clients answered.

    What counts is the noise in the release over what one client can change there.

    - `sum`: the server adds z·C to the sum and divides by the *expected* number of clients. Both
      the noise and C stay: z, whoever answers.
    - `shares`: each client adds z·C/√expected. The noise of `answered` of them is
      z·C·√(answered/expected); one client still changes C.
    - `mean`: the server adds z·C/expected to the mean of those that answered, of which one
      changes C/answered: z·answered/expected. That is the fault of a plain mean: with 1 of 10
      replies and z = 1 it is 0.1.

    Args:
        z: Noise multiplier that was meant, ≥ 0.
        expected: Clients that were expected, ≥ 1; the noise was made for them.
        answered: Clients whose replies are in the sum, ≥ 0.
        noise: Where the noise is added.

    Raises:
        PrivacyError: FL401.
    """
    if expected < 1 or answered < 0 or not z >= 0 or noise not in get_args(Noise):
        what = f"no such round: z {z}, {answered} of {expected} clients, noise {noise!r}"
        raise PrivacyError(Fault("FL401", what, "a round", "see `noise_of_round`"))
    share = answered / expected
    return z * {"sum": 1.0, "shares": math.sqrt(share), "mean": share}[noise]


def windows_touching(span_steps: int, stride_steps: int, day_steps: int) -> int:
    """Return how many windows of one client a day's readings are in, at most.

    A window reads `span_steps` steps from its begin: the context (and whatever older readings its
    features use) and the horizon. Windows begin every `stride_steps`. A window that begins at s
    has a step in common with the day [0, D) when -span < s < D, and of these D + span − 1
    instants every stride-th is a begin.

    Args:
        span_steps: Steps from the first that a window reads to the last that it forecasts, ≥ 1.
        stride_steps: Steps between the begins of windows, ≥ 1.
        day_steps: Steps of a day, ≥ 1.

    >>> windows_touching(span_steps=8 * 24, stride_steps=24, day_steps=24)
    9
    """
    if min(span_steps, stride_steps, day_steps) < 1:
        what = f"windows of {span_steps} steps every {stride_steps}, days of {day_steps} steps"
        raise PrivacyError(Fault("FL401", what, "windows of a day", "each is at least 1"))
    return -(-(day_steps + span_steps - 1) // stride_steps)


# ------------------------------------------------------------------------------ internals
def _faults(event: Gaussian) -> Iterable[str]:
    if not (math.isfinite(event.noise_multiplier) and event.noise_multiplier >= 0):
        yield f"the noise multiplier is a number from 0, not {event.noise_multiplier}"
    if not 0 <= event.sampling_rate <= 1:
        yield f"the sampling rate is in [0, 1], not {event.sampling_rate}"
    if event.times < 0:
        yield f"the number of times is not negative: {event.times}"
    if event.group < 1:
        yield f"a group has at least one record, not {event.group}"
    if event.sampling not in get_args(Sampling):
        yield f"sampling is one of {', '.join(get_args(Sampling))}, not {event.sampling!r}"
    if event.sampling == "all" and event.sampling_rate != 1:
        yield f"with sampling all the rate is 1, not {event.sampling_rate}"
    if event.relation not in get_args(Relation):
        yield f"relation is one of {', '.join(get_args(Relation))}, not {event.relation!r}"
    if event.sampling == "without-replacement" and event.group != 1:
        yield "groups of records have no account where a fixed number of records is drawn"
