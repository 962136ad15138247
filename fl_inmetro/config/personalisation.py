"""`[personalisation]` and `[ensemble]`: what is made of models that are trained already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from fl_inmetro.config.table import Positive, Table

Component = Literal["federated", "clustered", "local", "tuned"]


class Personalisation(Table):
    """How `training = "personalised"` fits the federation's model to each client, on the client.

    A client blends the forecasts of its components; nothing of this leaves it.

    Attributes:
        components: `federated` is the shared model, `clustered` that of the client's cluster
            (`[clusters]`), `local` the one that the client trained alone,
            `tuned` the shared one after some epochs on the client's own windows (gradient models).
        epochs: Passes over the client's windows when tuning.
        eta_l_factor: Learning rate when tuning, as a share of the model's own.
        weights: `even` takes the components' mean; `validation` the weights that make the error of
            the client's own validation windows smallest: on these days it is never worse than its
            best component, `local` included, but two weeks are few to choose by.
        mu: Pull towards the federated model when tuning (Ditto's λ, Li et al. 2021).
        parts: Weights by validation are multiples of 1 / `parts`; 1 chooses one component.
    """

    components: tuple[Component, ...] = ("federated", "local", "tuned")
    weights: Literal["even", "validation"] = "even"
    epochs: Positive = 3
    eta_l_factor: float = Field(0.5, gt=0)
    mu: float = Field(0.0, ge=0)
    parts: int = Field(10, ge=1, le=50)

    @field_validator("components")
    @classmethod
    def _shared_among_them(cls, value: tuple[Component, ...]) -> tuple[Component, ...]:
        if len(set(value)) != len(value):
            raise ValueError("name each component once")
        if "federated" not in value:
            raise ValueError("`federated` is what is personalised: name it among the components")
        return value


class Ensemble(Table):
    """`model = "ensemble"`: the mean of several models' forecasts.

    Attributes:
        members: Learners whose forecasts are averaged, quantiles level by level.
    """

    members: tuple[str, ...] = ()

    def check(self, learners: Sequence[str]) -> None:
        """Refuse members that are no learners, or fewer than two.

        Raises:
            ValueError: They are.
        """
        unknown = [name for name in self.members if name not in learners]
        if unknown:
            raise ValueError(
                f"`[ensemble] members`: `{unknown[0]}` is no learner; there are "
                f"{', '.join(learners)}"
            )
        if len(set(self.members)) < max(len(self.members), 2):
            raise ValueError("`[ensemble] members` names at least two learners, each once")
