"""The settings of the attack laboratory: `[attack]`."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from fl_inmetro.config.table import Positive, Share, Table

AttackName = Literal[
    "sign-flip",
    "scaled",
    "noise",
    "alie",
    "ipm",
    "min-max",
    "min-sum",
    "free-rider",
    "free-rider-disguised",
    "nan",
    "garbage",
    "wrong-shape",
    "over-claim",
    "replay",
    "sybil",
    "sybil-jitter",
    "label-flip",
    "backdoor",
    "poisoned-enrolment",
    "poisoned-sums",
]
DefenceName = Literal[
    "fedavg",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "centered-clipping",
    "norm-bound",
    "fedavg-no-gate",
    "median-no-gate",
    "trimmed-mean-no-gate",
    "krum-no-gate",
    "multi-krum-no-gate",
    "bulyan-no-gate",
    "geometric-median-no-gate",
    "centered-clipping-no-gate",
    "norm-bound-no-gate",
]

ATTACK_NAMES: tuple[AttackName, ...] = get_args(AttackName)
#: Attacks on the sums of a model in closed form; all others are on updates.
ON_SUMS: tuple[AttackName, ...] = ("poisoned-sums",)
DEFENCE_NAMES: tuple[DefenceName, ...] = get_args(DefenceName)

#: Ends the name of a defence that is tried with the gate switched off.
NO_GATE = "-no-gate"


class Attack(Table):
    """Which attacks are tried on which defences, and how strong they are.

    Attributes:
        attacks: Attacks (`docs/attacks.md`); by default all that are on updates.
        defences: `fedavg` and every robust rule, each with the gate; with `-no-gate` behind the
            name, without it.
        shares: Shares of the clients that are hostile; 0 measures what a defence costs in peace.
        factor: `scaled` multiplies an honest update by this.
        noise: Norm of an update of `noise`, in units of the median norm of the honest ones.
        epsilon: ε of `ipm`.
        z: Standard deviations of `alie`; None = as many as the paper's rule allows.
        claim: `over-claim` claims so many times its training points.
        jitter: Norm of what tells the copies of `sybil-jitter` apart, in units of their own.
        disguise: Norm of the noise of `free-rider-disguised`, in units of the last global change.
        poisoned: Share of a hostile client's windows with the trigger of `backdoor`.
        trigger_h: Length of the trigger, the hours before the issue time.
        trigger_level: Load in every second hour of the trigger, in units of the trailing mean; the
            hours between have none.
        goal: What the backdoor wants to be forecast, in units of the usual day's profile.
        shift: `poisoned-enrolment` moves the mean of every feature by this, in units of the
            client's scale; its sums of squares are those of rows so moved.
        moment: `poisoned-sums` multiplies the residuals behind its sums by this.
    """

    attacks: tuple[AttackName, ...] = tuple(name for name in ATTACK_NAMES if name not in ON_SUMS)
    defences: tuple[DefenceName, ...] = (
        "fedavg-no-gate",
        "fedavg",
        "median",
        "trimmed-mean",
        "krum",
        "multi-krum",
        "bulyan",
        "geometric-median",
        "centered-clipping",
        "norm-bound",
    )
    shares: tuple[float, ...] = (0.0, 0.2)
    factor: float = Field(100.0, gt=0)
    noise: float = Field(5.0, gt=0)
    epsilon: float = Field(0.5, gt=0)
    z: float | None = Field(None, gt=0)
    claim: Positive = 1000
    jitter: float = Field(1e-3, gt=0)
    disguise: float = Field(0.1, gt=0)
    poisoned: Share = 0.5
    trigger_h: float = Field(6.0, gt=0, le=24)
    trigger_level: float = Field(3.0, gt=0)
    goal: float = Field(0.5, ge=0)
    shift: float = Field(1e12, allow_inf_nan=False)
    moment: float = Field(-3.0, allow_inf_nan=False)

    @field_validator("attacks", "defences", "shares")
    @classmethod
    def _each_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if not value:
            raise ValueError("name at least one")
        twice = sorted({str(one) for one in value if value.count(one) > 1})
        if twice:
            raise ValueError(f"{', '.join(f'`{one}`' for one in twice)} is named more than once")
        return value

    @field_validator("shares")
    @classmethod
    def _shares_below_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [share for share in value if not 0 <= share < 1]
        if wrong:
            raise ValueError(
                f"a share of {wrong[0]:g} leaves no honest client; shares are from 0 to below 1"
            )
        return value
