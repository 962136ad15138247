"""What an adversary sees of a run: the clients' updates of one more round, with its protection.

The clients of a finished run are asked to train once more, from its first model or its last, by its
own settings. Under `[privacy]` what is seen is what the promise is about:

    window, client-day   the client's update, made of clipped gradients with its own noise
    client, noise here   the round's noisy sum, by somebody who knows all other updates: the
                         client's own one, clipped, with the whole noise
    client, noise there  the update as it leaves the client, clipped, with its share of the noise
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.schema import RunConfig
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.private_merge import CLIP
from fl_inmetro.federation.protection import client_merge, learner_under
from fl_inmetro.federation.recipes import compose
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.training import best_state
from fl_inmetro.learning.client import ClientData, ClientWorker
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import DpSgd, LocalWork, NoiseShare
from fl_inmetro.models.design import Design, joined
from fl_inmetro.plan import Job, Prepared, jobs_of, prepare, settings_of
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.protected import FILE
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.weights import load as load_weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The model that clients are asked from.
At = Literal["first", "last"]

#: Fewer clients have no others whose mean could be guessed.
FEWEST = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """A run as the attacks see it.

    Attributes:
        config: Its configuration.
        learner: What was trained.
        plain: The same with steps of plain gradient descent, by 1, over all windows.
        workers: The clients that are looked at, by name.
        first: The model before the first round.
        last: The model that was kept.
        work: What a client does in a round, without any noise.
        enrolled: Clients of the run, of which `workers` may be a part.
        clip: Clipping norm: the run's, or the one that it had followed to at its end.
        z: Noise multiplier of a sum of updates; 0 where nobody is protected.
        epsilon: ε that the run claims; None where it claims nothing.
        at: The model that clients are asked from.
        secret: What the noise is drawn from, by client and round.
    """

    config: RunConfig
    learner: GradientLearner
    plain: GradientLearner
    workers: Mapping[str, ClientWorker]
    first: Arrays
    last: Arrays
    work: LocalWork
    enrolled: int
    clip: float
    z: float
    epsilon: float | None
    at: At
    secret: Secret = field(repr=False)

    @property
    def state(self) -> Arrays:
        """The model that clients are asked from."""
        return self.first if self.at == "first" else self.last

    @property
    def names(self) -> tuple[str, ...]:
        """The clients."""
        return tuple(self.workers)

    @property
    def seen(self) -> str:
        """What the adversary sees; see the module."""
        privacy = self.config.privacy
        if not privacy.enabled:
            return "update"
        if privacy.by_example or privacy.noise_at == "clients":
            return "noisy_update"
        return "update_in_sum"

    @property
    def share(self) -> NoiseShare | None:
        """The noise that a client adds to its own update; None where it adds none."""
        if not self.config.privacy.enabled or self.config.privacy.by_example:
            return None
        named = (self.config, DeltaMerge(), self.z, self.enrolled)
        return client_merge(*named, self.secret, lambda released: None)[1]

    def design(self, name: str) -> Design:
        """Return what a client is trained on."""
        return self.workers[name].train_design.trainable()

    def bare(self, name: str, round_: int = 1) -> Arrays:
        """Return a client's update as it would be without any protection."""
        return self._trained(name, self.work, round_)

    def update(self, name: str, round_: int = 1) -> Arrays:
        """Return a client's update as the adversary sees it."""
        privacy = self.config.privacy
        if not privacy.enabled:
            return self.bare(name, round_)
        if privacy.by_example:
            work = replace(self.work, dp=DpSgd(privacy.clip, self.z))
            return self._trained(name, work, round_)
        if share := self.share:
            return self._trained(name, replace(self.work, share=share), round_)
        # The server's noise, all of it, on what is left when the others are taken away.
        rng = self.secret.generator("released", name, round_)
        return noisy(clipped(self.bare(name, round_), self.clip), self.z * self.clip, rng)

    def gradient(self, name: str, rows: Ints | None = None) -> Arrays:
        """Return the negative gradient of a client's loss as the adversary sees it.

        It is the update of one plain step by 1, which the server may ask for as well; it is
        protected as the run's updates are.

        Args:
            name: The client.
            rows: Which of its training windows; None = all.
        """
        privacy, design = self.config.privacy, self.design(name)
        if rows is not None:
            design = chosen(design, rows)
        rng = ("gradient", name, *(() if rows is None else (str(rows.tolist()),)))
        dp = DpSgd(privacy.clip, self.z) if privacy.by_example else None
        work = LocalWork(1, steps=1, dp=dp)
        deltas, _ = self.plain.update(self.state, design, work, 0, secret=self.secret.child(*rng))
        found = {key: deltas[key] for key in self.learner.shared(self.state)}
        if not privacy.enabled or dp is not None:
            return found
        share = self.share
        deviation = share.sigma if share else self.z * self.clip
        generator = self.secret.generator("noise", *rng)
        return noisy(clipped(found, self.clip), deviation, generator)

    def _trained(self, name: str, work: LocalWork, round_: int) -> Arrays:
        update, _ = self.workers[name].train(
            self.state, work, self.config.seed, round_, secret=self.secret
        )
        shared = self.learner.shared(self.state)
        return {key: update.arrays[key] for key in shared}


def scene_of(
    record: RunRecord,
    model: str | None = None,
    *,
    most: int = 100,
    at: At | None = None,
    secret: Secret | None = None,
    prepared: Prepared | None = None,
) -> Scene:
    """Set the scene of a finished run.

    Args:
        record: The run.
        model: One of its models; None = the first that was federated and trained by gradients.
        most: At most so many clients, spread over their names.
        at: The model that clients are asked from; None = the first, unless layers behind others
            start at zero there and keep what is before them from being told anything: the last.
        secret: What the noise is drawn from; None = a fresh one.
        prepared: The run's data, where they are at hand.

    Raises:
        PrivacyError: FL413, the run has no federated model that is trained by gradients, or fewer
            than three clients.
        RunError: FL703, its weights are not there.
    """
    config = record.config
    job, learner = _attacked(record, model)
    settings = settings_of(job, config)
    prepared = prepared or prepare(config)
    workers = {
        one.client_id: ClientWorker(one, learner)
        for one in _spread(list(prepared.clients.values()), most)
    }
    if len(workers) < FEWEST:
        raise PrivacyError(
            Fault(
                "FL413",
                "an attack is measured beside the guess of the other clients' mean",
                f"run {record.id} has {len(workers)} clients",
                f"attack a run of at least {FEWEST}",
            )
        )
    key = job.group_key(0)
    last = best_state(load_weights(record.path, key), record.id)
    _, drawn = enrol(LoopGrid(list(workers.values())), learner, config.seed, 600.0)
    trained = set(DeltaMerge().shared(drawn))
    # What is not trained, the standardisation for one, is everybody's: that of the run.
    first = {name: (drawn if name in trained else last)[name] for name in last}
    work = compose(config.strategy).work(
        settings.federation.local_epochs, settings.federation.local_steps
    )
    account = _account(record)
    kept = account["models"].get(key, {}) if account else {}
    own = settings.models
    plain = {"optimizer": "sgd", "eta_l": 1.0, "batch_size": 0, "eta_l_schedule": "constant"}
    plain |= {"weight_decay": 0.0, "momentum": 0.0}
    known = getattr(own, job.model)
    given = {name: value for name, value in plain.items() if hasattr(known, name)}
    stepping = learner_for(
        job.model, own.model_copy(update={job.model: known.model_copy(update=given)})
    )
    assert isinstance(stepping, GradientLearner)
    z = kept["planned"][-1]["noise_multiplier"] if kept.get("planned") else 0.0
    enrolled = len(prepared.clients)
    clip, z = _followed(record, key, config, enrolled, z)
    scene = Scene(
        config,
        learner,
        stepping,
        workers,
        first,
        last,
        replace(work, control="none", alpha=0.0),
        enrolled,
        clip,
        z,
        kept.get("epsilon"),
        at or "first",
        secret or Secret.fresh(),
    )
    return replace(scene, at="last") if at is None and _keeps_still(scene) else scene


def norm_of(arrays: Arrays) -> float:
    """Return the L2 norm of all numbers together."""
    return float(np.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays.values())))


def clipped(arrays: Arrays, norm: float) -> Arrays:
    """Return arrays scaled to at most an L2 norm, all together."""
    factor = min(1.0, norm / max(norm_of(arrays), 1e-30))
    return {name: array * np.float32(factor) for name, array in arrays.items()}


def noisy(arrays: Arrays, deviation: float, rng: np.random.Generator) -> Arrays:
    """Return arrays with normal noise on each number."""
    return {
        name: (array + deviation * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in arrays.items()
    }


def chosen(design: Design, rows: Ints) -> Design:
    """Return some windows of a design."""
    return Design(*(getattr(design, one.name)[rows] for one in fields(design)))


def flat(arrays: Arrays) -> Floats:
    """Return all numbers of arrays in the order of their names; (P,)."""
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)]).astype(np.float64)


def windows_of(learner: GradientLearner, client: ClientData, split: str) -> Design:
    """Return the windows of `validation` or `test` with their targets, as training has them."""
    parts = client.validation if split == "validation" else client.test
    return joined([learner.design(part) for part in parts]).trainable()


# ------------------------------------------------------------------------------ internals
def _attacked(record: RunRecord, model: str | None) -> tuple[Job, GradientLearner]:
    """Return the first federation whose clients send updates."""
    config = record.config
    found = [
        job
        for job in jobs_of(config, record.manifest["kind"])
        if job.training == "federated" and not job.is_derived and model in (None, job.model)
    ]
    for job in found:
        models = settings_of(job, config).models
        learner = learner_under(config.privacy, learner_for(job.model, models))
        if isinstance(learner, GradientLearner):
            return job, learner
    have = ", ".join(job.model for job in found) or "none"
    raise PrivacyError(
        Fault(
            "FL413",
            "there is no update of a gradient model to attack",
            f"run {record.id}; federated: {have}",
            'attack a run of a network with `training = "federated"`, such as nlinear or mlp',
        )
    )


def _followed(
    record: RunRecord, key: str, config: RunConfig, enrolled: int, z: float
) -> tuple[float, float]:
    """Return the clipping norm of the last round, and the noise of the sum beside it.

    A norm that follows a quantile falls with the updates, and the noise with it: the first round's
    would be far too much. Of the joint noise the count has its share, so the sum has more than z.
    """
    privacy = config.privacy
    if not z or privacy.clip_quantile is None or privacy.by_example:
        return privacy.clip, z
    merge, _ = client_merge(
        config, DeltaMerge(), z, enrolled, Secret.fresh(), lambda released: None
    )
    kept = load_weights(record.path, f"{key}-checkpoint")
    norms = [] if kept is None else [a for name, a in kept[0].items() if name.endswith(CLIP)]
    if not norms or merge.following is None:
        raise PrivacyError(
            Fault(
                "FL413",
                "the clipping norm that this run has followed to is not there",
                f"run {record.id}: weights/{key}-checkpoint.safetensors",
                "attack a run that has its checkpoint, or one with a fixed `clip`",
            )
        )
    return float(norms[0].ravel()[0]), merge.following.of_sum(z)


def _keeps_still(scene: Scene) -> bool:
    """Whether a layer of the first model has no gradient at all."""
    design = scene.design(scene.names[0])
    deltas, _ = scene.plain.update(scene.first, design, LocalWork(1, steps=1), 0)
    layers = (deltas[key] for key in scene.learner.shared(scene.first) if deltas[key].ndim > 1)
    return any(not layer.any() for layer in layers)


def _account(record: RunRecord) -> dict[str, Any] | None:
    path = record.path / FILE
    if not path.is_file():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _spread(clients: Sequence[ClientData], most: int) -> list[ClientData]:
    """Return at most so many that have windows, evenly spread over the order."""
    able = [one for one in clients if any(len(part) for part in one.train)]
    if len(able) <= most:
        return able
    places = np.linspace(0, len(able) - 1, most).round().astype(int)
    return [able[place] for place in dict.fromkeys(places.tolist())]
