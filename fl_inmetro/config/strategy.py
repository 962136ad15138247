"""The settings of aggregation: `[strategy]`, `[selection]` and `[gate]`."""

from __future__ import annotations

import math
import re
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from fl_inmetro.config.table import Positive, Share, Table

StrategyName = Literal[
    "fedavg",
    "fedavgm",
    "fedadagrad",
    "fedadam",
    "fedyogi",
    "fedprox",
    "scaffold",
    "variance-control",
    "fednova",
    "feddyn",
    "qfedavg",
    "fedbuff",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "centered-clipping",
    "norm-bound",
]
RuleName = Literal[
    "mean",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "centered-clipping",
    "norm-bound",
]
ServerOptimizerName = Literal["sgd", "momentum", "adagrad", "adam", "yogi"]
Sampler = Literal["uniform", "by-size", "power-of-choice", "round-robin", "availability"]

STRATEGY_NAMES: tuple[StrategyName, ...] = get_args(StrategyName)
RULE_NAMES: tuple[RuleName, ...] = get_args(RuleName)

#: A function or class of the user's own: `package.module:name`.
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Strategy(Table):
    """How the server merges what clients send.

    `name` is an entry of the table in `federation/recipes.py`; the entry fills the parts below, and
    a part that is given here replaces the entry's. Numbers that are not given have the entry's own
    default (`docs/aggregation.md` lists them).

    Attributes:
        name: Entry of the table, or `package.module:Class`, a Flower `Strategy` of your own.
        rule: How the updates of a round become one, or `package.module:function` of your own.
        server_optimizer: What the server does with that one update.
        eta: Server learning rate η.
        eta_l: Clients' learning rate η_l; None = that of the model.
        optimizer_l: Clients' optimiser; None = that of the model.
        batch_size_l: Windows of a client's step, 0 = all; None = those of the model. A round of one
            step adds up the clients' batches, so each may be smaller than one that is alone.
        eta_schedule: `cosine` lets the server's step fall to zero over the rounds.
        average: Decay of an average of the models of the rounds, which is validated and kept in
            the place of the last one; 0 = off.
        bias_correction: The moments of `fedadam` as Kingma & Ba (2015) correct them, from v = 0;
            Reddi et al. (2021) begin at v = τ² and correct nothing.
        beta_1: Server momentum, or decay of the first moment.
        beta_2: Decay of the second moment.
        tau: Adaptivity τ, the floor under the root of the second moment.
        mu: Weight of the clients' proximal term (mu/2)·‖w − w_global‖².
        beta: Share β of the last round's update in Δ_k ← Δ_k − β(Δ_k − Δ_previous).
        alpha: Weight α of FedDyn's dynamic regulariser.
        q: Fairness exponent of q-FedAvg; 0 weighs all clients alike.
        byzantine: Clients of a round that a robust rule must bear: a number, or below 1 a share.
        keep: Updates that Multi-Krum averages; None = all but the hostile ones it must bear.
        radius: Largest norm that `norm-bound` and `centered-clipping` let through; None = the
            median norm of the round.
        buffer: Updates that FedBuff waits for before the server makes a step.
        concurrency: Clients that are at work at the same time under FedBuff.
        arguments: What the constructor of a Flower `Strategy` of your own is given.
    """

    name: str = "fedavg"
    rule: str | None = None
    server_optimizer: ServerOptimizerName | None = None
    eta: float | None = Field(None, gt=0)
    eta_l: float | None = Field(None, gt=0)
    optimizer_l: Literal["sgd", "adam", "adamw"] | None = None
    batch_size_l: int | None = Field(None, ge=0)
    eta_schedule: Literal["constant", "cosine"] = "constant"
    average: float = Field(0.0, ge=0, lt=1)
    bias_correction: bool = False
    beta_1: float | None = Field(None, ge=0, lt=1)
    beta_2: float | None = Field(None, ge=0, lt=1)
    tau: float | None = Field(None, gt=0)
    mu: float | None = Field(None, ge=0)
    beta: float | None = Field(None, ge=0, lt=1)
    alpha: float | None = Field(None, gt=0)
    q: float | None = Field(None, ge=0)
    byzantine: float = Field(0.2, ge=0)
    keep: Positive | None = None
    radius: float | None = Field(None, gt=0)
    buffer: Positive = 10
    concurrency: Positive = 20
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str) -> str:
        if value not in STRATEGY_NAMES and not _IMPORT_PATH.fullmatch(value):
            raise ValueError(
                f"there is no strategy `{value}`; there are {', '.join(STRATEGY_NAMES)}, and "
                "`package.module:Class` for one of your own"
            )
        return value

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str | None) -> str | None:
        if value is not None and value not in RULE_NAMES and not _IMPORT_PATH.fullmatch(value):
            raise ValueError(
                f"there is no rule `{value}`; there are {', '.join(RULE_NAMES)}, and "
                "`package.module:function` for one of your own"
            )
        return value

    @field_validator("byzantine")
    @classmethod
    def _number_or_share(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError(f"{value:g} is neither a number of clients nor a share below 1")
        if 0.5 <= value < 1:
            raise ValueError(f"no rule bears a share of {value:g}: it must be below 0.5")
        return value

    @model_validator(mode="after")
    def _ours_only(self) -> Self:
        given = {
            "average": self.average > 0,
            "eta-schedule": self.eta_schedule != "constant",
            "bias-correction": self.bias_correction,
        }
        if self.is_foreign and any(given.values()):
            named = ", ".join(f"`{key}`" for key, is_set in given.items() if is_set)
            raise ValueError(
                f"a strategy of your own makes the model itself: {named} is not for it"
            )
        return self

    @model_validator(mode="after")
    def _arguments_are_of_a_class(self) -> Self:
        if self.arguments and not self.is_foreign:
            raise ValueError("`arguments` are for a strategy of your own (`package.module:Class`)")
        return self

    @property
    def is_foreign(self) -> bool:
        """Whether `name` is the import path of a Flower `Strategy`."""
        return ":" in self.name

    def hostile(self, clients: int) -> int:
        """Return f, the hostile clients that a rule must bear among so many.

        >>> Strategy(byzantine=0.2).hostile(12), Strategy(byzantine=3).hostile(12)
        (2, 3)
        """
        if self.byzantine >= 1:
            return int(self.byzantine)
        return math.floor(self.byzantine * clients + 1e-9)

    def __hash__(self) -> int:
        """Hash, as all tables can be: a whole configuration is the key of caches."""
        return hash((self.name, self.rule, self.eta, frozenset(self.arguments.items())))


class Selection(Table):
    """Which clients take part in a round.

    Attributes:
        sampler: `uniform`; `by-size` draws in proportion to n_k; `power-of-choice` asks those with
            the highest loss among drawn candidates; `round-robin` gives every client its turn
            before any has a second; `availability` draws among the devices that can be reached
            (`[virtual_time]`).
        candidates: Candidates of `power-of-choice`, d; None = twice the wanted number.
    """

    sampler: Sampler = "uniform"
    candidates: Positive | None = None

    @model_validator(mode="after")
    def _candidates_are_of_power_of_choice(self) -> Self:
        if self.candidates is not None and self.sampler != "power-of-choice":
            raise ValueError('`candidates` is a setting of `sampler = "power-of-choice"`')
        return self


class Gate(Table):
    """Which replies may touch the model.

    Names, shapes, types, the round and the version of the model are always checked.

    Attributes:
        enabled: False lets values that are not finite, weights and norms of any size pass; for
            studies of what then happens.
        norm_factor: A reply whose norm is above so many times the cohort's median is refused,
            unless norms of this cohort differ so much anyway (`federation/gate.py`, `limits_of`).
        spread_factor: A client whose sums lie so many times as far from the cohort's median as
            the median client's is refused: those that standardise features at enrolment, and
            those of a model in closed form (`learning/enrolment.py`).
        fit: Whether sums of a model in closed form are refused that contradict the model of the
            others (`learning/sums.py`).
        statistics: What standardises the features: the pooled `sums`, or the `median` of the
            clients' means and variances, which no minority can carry away.
        max_share: No client counts for more than this share of the rows in it; 1 = as many as it
            has.
        copies: Whether identical replies of several clients, and replies that a client has sent
            before, are let in.
        strikes: A client whose replies were refused so often is suspended; 0 = never.
        suspended_rounds: For so many rounds; 0 = for the rest of the run.
        quorum: Share of those asked whose replies must be good; without it a round is repeated.
        attempts: So often is a round tried before the run pauses.
    """

    enabled: bool = True
    norm_factor: float = Field(10.0, gt=1)
    spread_factor: float = Field(100.0, gt=1)
    fit: bool = True
    statistics: Literal["sums", "median"] = "sums"
    max_share: float = Field(1.0, gt=0, le=1)
    copies: bool = False
    strikes: int = Field(3, ge=0)
    suspended_rounds: int = Field(0, ge=0)
    quorum: Share = 0.5
    attempts: Positive = 3
