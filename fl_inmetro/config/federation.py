"""The settings of the rounds: `[federation]`, and when one closes by the clock."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fl_inmetro.config.table import Positive, Table


class Federation(Table):
    """The rounds.

    `over_selection` and `deadline_s` are for nodes that take time of the clock on the wall: those
    of Flower. In this process nobody waits for anybody; `[virtual_time]` has its own.

    Attributes:
        num_server_rounds: Rounds of training (closed-form models need one and do one).
        fraction_fit: Share of the clients that train in a round; at least one does.
        local_epochs: Passes over a client's own windows per round.
        local_steps: At most so many steps of them; 0 = all. 1 is FedSGD: each client sends the
            gradient of one batch, and nobody drifts.
        epochs_alone: Epochs of local-only and of centralised training, one a round; None =
            `num_server_rounds` rounds of `local_epochs`.
        min_clients: A round needs at least so many accepted replies.
        over_selection: So many times the wanted number of clients is asked; the round closes with
            the wanted number of accepted replies (1.3 in Bonawitz et al. 2019, section 9).
        deadline_s: After so long a round closes with the replies that have come, if they are a
            quorum, else with the reply that makes it one; None = the wanted replies are waited for.
        quorum: Replies that are enough, of the wanted: up to 1 a share, above 1 a number. None =
            the `[gate] quorum`, in whose place it comes.
        timeout_s: How long to wait for replies at most.
        start_timeout_s: How long to wait for Flower's nodes to connect before the first round.
        patience: Stop after so many rounds none of which was the best; None = make them all.
        keep: The model that is kept: of the `best` round on the validation windows, or the `last`.
    """

    num_server_rounds: Positive = 10
    fraction_fit: float = Field(1.0, gt=0, le=1)
    local_epochs: Positive = 1
    local_steps: int = Field(0, ge=0)
    epochs_alone: Positive | None = None
    min_clients: Positive = 1
    over_selection: float = Field(1.0, ge=1, allow_inf_nan=False)
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    quorum: float | None = Field(None, gt=0, allow_inf_nan=False)
    timeout_s: float = Field(3600.0, gt=0)
    start_timeout_s: float = Field(60.0, ge=0)
    patience: Positive | None = None
    keep: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _patience_needs_a_best(self) -> Self:
        if self.patience is not None and self.keep == "last":
            raise ValueError('`patience` waits for a better round, and `keep = "last"` knows none')
        return self

    @property
    def by_the_clock(self) -> bool:
        """Whether a round may close before everybody who was asked has answered."""
        return self.over_selection > 1 or self.deadline_s is not None

    @model_validator(mode="after")
    def _can_close(self) -> Self:
        if self.quorum is not None and self.quorum > 1 and self.quorum != int(self.quorum):
            raise ValueError(
                f"`quorum` {self.quorum:g} is neither a share up to 1 nor a number of replies"
            )
        if self.deadline_s is not None and self.deadline_s > self.timeout_s:
            raise ValueError(
                f"`deadline-s` {self.deadline_s:g} is after `timeout-s` {self.timeout_s:g}, which "
                "bounds every wait"
            )
        return self

    def check_clock(self, engine: str, *, in_virtual_time: bool, is_foreign: bool) -> None:
        """Refuse what closes rounds by the clock where no clock runs.

        Raises:
            ValueError: It has no part in such a run.
        """
        given = {
            "over-selection": self.over_selection > 1,
            "deadline-s": self.deadline_s is not None,
        }
        if not any(given.values()):
            return
        named = " and ".join(f"`{key}`" for key, is_set in given.items() if is_set)
        if in_virtual_time:
            raise ValueError(
                f"`[federation]` {named}: virtual time has its own, in `[virtual_time]`"
            )
        if engine != "flower":
            raise ValueError(
                f"`[federation]` {named}: rounds close by the clock, and the clients of "
                f'`engine = "{engine}"` take no time of it; use `engine = "flower"`, or '
                "`[virtual_time]` with its own"
            )
        if is_foreign:
            raise ValueError(
                f"`[federation]` {named}: a Flower strategy of your own decides itself whom it "
                "asks, and waits for all of them"
            )
