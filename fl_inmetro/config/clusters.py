"""`[clusters]`: how `training = "clustered"` parts the clients into groups that share a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fl_inmetro.config.table import Positive, Table


class Clusters(Table):
    """Clients that are alike share a model, each group its own.

    Attributes:
        kind: `profile` = each client shares its mean day once and k-means parts them before the
            first round; `ifca` = each client takes the model with the lowest loss on its own
            training windows (Ghosh et al. 2020), again every `every` rounds.
        number: How many clusters; `auto` = the number from 2 to `most` whose profiles have the
            largest mean silhouette.
        most: Most clusters that `auto` tries.
        clip: Largest L2 norm of the profile that leaves a client; longer ones are shortened. The
            mean of all hours is 1, so that the same use at every hour has norm 8.49 (√72).
        noise: Standard deviation of the Gaussian noise that the client adds to each of the
            profile's 72 numbers. It is simulated: drawn from `seed`, and no protection from
            anybody who knows that.
        restarts: k-means starts so often from other centres; the best is kept.
        start: With `ifca`, `profile` = the first round trains the clusters of the profiles;
            `perturbed` = perturbations of one model, of which clients choose at once.
        perturbation: Size of those, as a share of 1/√(inputs of a neuron).
        every: With `ifca`, clients choose again after so many rounds.
    """

    kind: Literal["profile", "ifca"] = "profile"
    number: Positive | Literal["auto"] = "auto"
    most: int = Field(6, ge=2, le=50)
    clip: float = Field(16.0, gt=0, allow_inf_nan=False)
    noise: float = Field(0.0, ge=0, allow_inf_nan=False)
    restarts: int = Field(20, ge=1, le=1000)
    start: Literal["profile", "perturbed"] = "profile"
    perturbation: float = Field(0.1, gt=0, allow_inf_nan=False)
    every: Positive = 1

    @model_validator(mode="after")
    def _numbered(self) -> Clusters:
        if self.kind == "ifca" and self.start == "perturbed" and self.number == "auto":
            raise ValueError(
                "perturbed models are as many as `number` says; `auto` counts clusters of profiles"
            )
        return self

    @property
    def by_profile(self) -> bool:
        """Whether clients share their profiles."""
        return self.number != 1 and (self.kind == "profile" or self.start == "profile")
