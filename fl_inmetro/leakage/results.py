"""What attacks on a run found, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

#: How a victim's readings are computed back from an update.
Rebuilding = Literal["ratio", "gradient", "inversion"]

#: How clients, or their windows, are told apart.
Telling = Literal["window-membership", "client-membership", "property"]

#: What the adversary of the reconstructions has before them, see `Leakage.seen`.
Seen = Literal["update", "noisy_update", "update_in_sum"]

#: A property is told when permuted labels do as well at most so often: a twentieth, shared among
#: the handful of properties that are tried.
RARE = 0.01


@dataclass(frozen=True)
class Reconstruction:
    """A victim's readings, computed back from what left the client.

    Attributes:
        attack: `ratio`, of an update of the run's own local work; `gradient`, the same of one plain
            step over all windows, which a curious server may ask for; `inversion`, of one over few.
        client_id: Whose readings.
        windows: Training windows that were in the update.
        nrmse: RMSE of what was computed back, over the mean of the true values.
        smape: Mean of 2|a − b|/(|a| + |b|), between 0 and 2.
        nrmse_population: The same of the mean of the other clients: of who saw no update.
        smape_population: The same.
        nrmse_flat: nRMSE of who guesses a load that never changes, at the others' mean.
    """

    attack: str
    client_id: str
    windows: int
    nrmse: float
    smape: float
    nrmse_population: float
    smape_population: float
    nrmse_flat: float = math.inf

    @property
    def works(self) -> bool:
        """Whether the update told more than can be guessed without it.

        A flat guess counts too: noise makes an attack guess a flat load, which is nearer than the
        mean of the others to a client that is unlike them, and nobody's secret.
        """
        return self.nrmse < min(self.nrmse_population, self.nrmse_flat)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; what is not finite is null."""
        return {**_plain(asdict(self)), "works": self.works}


@dataclass(frozen=True)
class Detection:
    """How well clients, or windows, are told apart by a score.

    Attributes:
        attack: `window-membership`, `client-membership` or `property`.
        what: The property (`vehicle`, `night-low`, …); for windows and clients, whom they are
            compared with (`later`, `others`; `not-drawn`, `not-drawn-known`, `never`).
        auc: Chance that one that is has a higher score than one that is not; 0.5 = by chance.
        tpr: Share of those that are, found at the false positive rate `fpr`.
        fpr: The false positive rate that is allowed.
        low: Lower end of the 95 % interval of `auc`, by bootstrap.
        high: Its upper end.
        positives: How many are.
        negatives: How many are not.
        prior: Share of the larger of the two: how often who always says so is right.
        accuracy: How often the attack is right with each left out in turn; None where no decision
            is made.
        p: Chance of an AUC as high or higher where the labels mean nothing, by permutation of
            them; None where the bootstrap says enough: no rule was learned from few clients.
    """

    attack: str
    what: str
    auc: float
    tpr: float
    fpr: float
    low: float
    high: float
    positives: int
    negatives: int
    prior: float
    accuracy: float | None = None
    p: float | None = None

    @property
    def works(self) -> bool:
        """Whether it is more than chance: below the interval, or by the permutations."""
        return self.low > 0.5 if self.p is None else self.p <= RARE

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; what is not finite is null."""
        return {**_plain(asdict(self)), "works": self.works}


@dataclass(frozen=True)
class Leakage:
    """What was found in one run.

    Attributes:
        run: Its id.
        model: Name of the attacked model.
        training: How it was trained.
        protect: `[privacy] protect` of the run.
        epsilon: The ε that its updates were planned for; None without noise.
        seen: What the adversary sees of a client: `update`, its update as it is; `noisy_update`,
            one with its own noise (made of noisy steps, or with its share of a sum's noise);
            `update_in_sum`, the noisy sum of a round, by somebody who knows all other updates.
        recovered: What is rebuilt: `profile`, the context before a forecast relative to its own
            mean; `features`, the row features of readings.
        clients: Clients of the run.
        attacked: Victims of the reconstructions.
        seed: What victims and shadows were drawn from; the noise is fresh in every attack.
        simulated: Whether the run's readings were simulated.
        reconstructions: One for each attack, victim and number of windows.
        detections: One for each thing that is told apart.
        notes: Keys of `leakage.note`: what the figures do not mean.
        left_out: Attack to the key of `leakage.left_out` that says why there is none.
    """

    run: str
    model: str
    training: str
    protect: str
    epsilon: float | None
    seen: str
    recovered: str
    clients: int
    attacked: int
    seed: int
    simulated: bool
    reconstructions: tuple[Reconstruction, ...]
    detections: tuple[Detection, ...]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as `leakage.json` keeps them."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            **plain,
            "reconstructions": [one.to_json() for one in self.reconstructions],
            "detections": [one.to_json() for one in self.detections],
            "notes": list(self.notes),
            "left_out": dict(self.left_out or {}),
        }


# ------------------------------------------------------------------------------ internals
def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
