"""The models of a finished run, ready to forecast any client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_inmetro.calibrated import calibration_key
from fl_inmetro.calibrated_model import CalibratedModel as CalibratedModel
from fl_inmetro.calibrated_model import FollowedModel as FollowedModel
from fl_inmetro.clustered import Clustering
from fl_inmetro.config.schema import ENSEMBLE, TRAINED
from fl_inmetro.data.fleet_windows import FleetWindows
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.derived import Blend
from fl_inmetro.errors import Fault, RunError
from fl_inmetro.federation.joint import MEMBERSHIP, of_cluster
from fl_inmetro.federation.training import best_private, best_state, own_key
from fl_inmetro.learning.blend import blended
from fl_inmetro.learning.conformal import FleetCalibration
from fl_inmetro.learning.followed import FollowedFleet
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.metrics import Forecast
from fl_inmetro.model import Model as Model
from fl_inmetro.models.design import Design
from fl_inmetro.plan import Job, settings_of
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.weights import load as load_weights

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """The models of one job of a run.

    Attributes:
        job: The learner and how it was trained.
        learner: The learner with its settings.
        shared: The model for any client; None for local-only training.
        own: Client to its own model (local-only training, tuned models).
        private: Client to the parameters that stayed with it.
    """

    job: Job
    learner: Learner
    shared: Arrays | None
    own: Mapping[str, Arrays]
    private: Mapping[str, Arrays]

    def state_for(self, client_id: str) -> Arrays | None:
        """Return the model for a client, or None where there is none."""
        state = self.shared if self.shared is not None else self.own.get(client_id)
        return None if state is None else state | self.private.get(client_id, {})

    def forecast(self, client_id: str, windows: Windows) -> Forecast | None:
        """Forecast a client's windows; None where it has no model for that client."""
        state = self.state_for(client_id)
        if state is None:
            return None
        return self._made(client_id, state, self.learner.design(windows, targets=False))

    def forecast_fleet(self, windows: FleetWindows) -> list[Forecast | None]:
        """Forecast many clients at once; for each what `forecast` says of it.

        What the model sees is computed for all of them at once. The network is asked client by
        client: how float32 rounds depends on the size of a batch.
        """
        states = [self.state_for(name) for name in windows.names]
        if all(state is None for state in states):
            return [None] * len(states)
        design = self.learner.design(windows, targets=False)
        asked = zip(windows.names, states, windows.rows(), strict=True)
        return [
            None if state is None else self._made(name, state, design.rows(rows))
            for name, state, rows in asked
        ]

    def _made(self, client_id: str, state: Arrays, design: Design) -> Forecast:
        if self._module is not None and client_id not in self.private:
            assert isinstance(self.learner, GradientLearner)
            return self.learner.forecast_with(self._module, design)
        return self.learner.forecast(state, design)

    def settled(
        self, clients: Mapping[str, ClientSeries], asked_utc_s: Ints, zone: str
    ) -> TrainedModel:
        """Return itself: nothing is chosen by readings."""
        return self

    @cached_property
    def _module(self) -> nn.Module | None:
        """The shared network, made once for all clients."""
        if self.shared is None or not isinstance(self.learner, GradientLearner):
            return None
        return self.learner.loaded(self.shared).eval()


@dataclass(frozen=True, eq=False)
class ClusteredModel(TrainedModel):
    """The models of clusters; `own` holds that of each client that took part.

    Attributes:
        clustering: Who is in which.
        models: The model of each cluster.
    """

    clustering: Clustering
    models: tuple[Arrays, ...]

    def state_for(self, client_id: str) -> Arrays | None:
        """Return the model of a client's cluster; of the largest for one that took no part."""
        known = super().state_for(client_id)
        return self.models[int(self.clustering.sizes.argmax())] if known is None else known

    def forecast(self, client_id: str, windows: Windows) -> Forecast | None:
        """Forecast a client's windows; one that took no part joins the cluster of its profile."""
        if client_id in self.own or not len(windows):
            return super().forecast(client_id, windows)
        joined = self.settled({client_id: windows.series}, windows.issue_utc_s, windows.timezone)
        return joined.forecast(client_id, windows)

    def forecast_fleet(self, windows: FleetWindows) -> list[Forecast | None]:
        """Forecast many clients at once; for each what `forecast` says of it."""
        clients = dict(zip(windows.names, windows.clients, strict=True))
        joined = self.settled(clients, windows.one.issue_utc_s, windows.timezone)
        return super(ClusteredModel, joined).forecast_fleet(windows)

    def settled(
        self, clients: Mapping[str, ClientSeries], asked_utc_s: Ints, zone: str
    ) -> ClusteredModel:
        """Return the model with the clusters that clients which took no part join.

        Each joins once, by its readings before the first of the issues that comes after its first
        reading. What it learns of itself later does not move it: its forecasts stay of one model.
        Who else is there, and from when on, changes nothing.
        """
        new = {
            name: self.models[self._cluster_of(series, asked_utc_s, zone)]
            for name, series in clients.items()
            if name not in self.own
        }
        return replace(self, own={**self.own, **new}) if new else self

    def _cluster_of(self, series: ClientSeries, asked_utc_s: Ints, zone: str) -> int:
        known = np.flatnonzero(series.valid)
        begin_utc_s = series.start_utc_s + int(known[0]) * series.resolution_s if known.size else 0
        later = asked_utc_s[asked_utc_s > begin_utc_s]
        if not known.size or not later.size:
            return int(self.clustering.sizes.argmax())
        own_zone = series.site.timezone or zone
        return self.clustering.nearest(series, int(later.min()), own_zone)


@dataclass(frozen=True, eq=False)
class BlendedModel:
    """An ensemble, or models fitted to each client.

    Attributes:
        job: What it is.
        parts: The models of its components.
        blend: Each client's weights.
        unseen: Weights of a client that has none, by component: all members of an ensemble alike,
            the federation's model where each client has its own blend.
    """

    job: Job
    parts: tuple[Model, ...]
    blend: Blend
    unseen: tuple[float, ...]

    def forecast(self, client_id: str, windows: Windows) -> Forecast | None:
        """Forecast a client's windows; None where no component has a model for that client."""
        weights = self._weights(client_id)
        return _blend(
            [
                part.forecast(client_id, windows) if weight > 0 else None
                for part, weight in zip(self.parts, weights, strict=True)
            ],
            weights,
        )

    def forecast_fleet(self, windows: FleetWindows) -> list[Forecast | None]:
        """Forecast many clients at once; for each what `forecast` says of it."""
        weights = [self._weights(name) for name in windows.names]
        nothing: list[Forecast | None] = [None] * len(weights)
        made = [
            part.forecast_fleet(windows) if any(own[k] > 0 for own in weights) else nothing
            for k, part in enumerate(self.parts)
        ]
        return [
            _blend(list(of), own) for of, own in zip(zip(*made, strict=True), weights, strict=True)
        ]

    def settled(
        self, clients: Mapping[str, ClientSeries], asked_utc_s: Ints, zone: str
    ) -> BlendedModel:
        """Return the blend of its components, each settled."""
        parts = tuple(part.settled(clients, asked_utc_s, zone) for part in self.parts)
        return replace(self, parts=parts)

    def _weights(self, client_id: str) -> NDArray[np.float64]:
        known = self.blend.weights_of(client_id)
        return np.array(self.unseen) if known is None else known


def _blend(made: Sequence[Forecast | None], weights: NDArray[np.float64]) -> Forecast | None:
    """Return the mean of what there is of the components with some weight; None without any."""
    used = [(f, w) for f, w in zip(made, weights, strict=True) if w > 0 and f is not None]
    return blended([f for f, _ in used], [w for _, w in used]) if used else None


def trained_model(
    record: RunRecord, model: str | None = None, training: str | None = None
) -> Model:
    """Return a run's model: the one named, else the one for everybody with the lowest nMAE.

    The validation days choose, so that the test days remain a test of what is served; where a row
    has no score on them (runs of before they were kept), the test days do. Personalised models
    come before the federated one, which they fall back on for a client that the run has never
    seen; models that serve nobody else come last.

    Raises:
        RunError: FL707, the run has no such finished model.
    """
    scored = [row for row in record.scores() if row["model"] in TRAINED]
    fitting = [
        row
        for row in scored
        if (model is None or row["model"] == model)
        and (training is None or row["training"] == training)
    ]
    if not fitting:
        have = ", ".join(f"{row['model']} ({row['training']})" for row in scored) or "none yet"
        raise RunError(
            Fault(
                "FL707",
                f"run `{record.id}` has no finished model that fits the question",
                f"model {model or 'any'}, training {training or 'any'}; finished: {have}",
                "choose one with --model and --training, or finish the run with --resume",
            )
        )
    order = {"personalised": 0, "federated": 1, "clustered": 2, "centralised": 3, "local": 4}
    first = min(order[row["training"]] for row in fitting)
    rivals = [row for row in fitting if order[row["training"]] == first]
    by = "nmae" if any(row.get("validation_nmae") is None for row in rivals) else "validation_nmae"
    best = min(rivals, key=lambda row: np.inf if row[by] is None else row[by])
    job = Job(best["model"], best["training"])
    plain = model_of(record, job)
    if not record.config.conformal.enabled:
        return plain
    kept = load_weights(record.path, calibration_key(job))
    if kept is None:
        raise _lost(record, calibration_key(job))
    settings = record.config.conformal
    if settings.follow:
        fleet = FollowedFleet.unpacked(*kept, settings)
        return FollowedModel(plain, fleet, record.manifest["window"]["issue_time"])
    return CalibratedModel(plain, FleetCalibration.unpacked(*kept))


def model_of(record: RunRecord, job: Job) -> Model:
    """Return the model of a finished job.

    Raises:
        RunError: FL703, its weights are not there.
    """
    if not job.is_derived:
        return _plain(record, job)
    kept = load_weights(record.path, job.blend_key)
    if kept is None:
        raise _lost(record, job.blend_key)
    blend = Blend.unpacked(*kept)
    if job.model == ENSEMBLE:
        members = tuple(model_of(record, Job(name, job.training)) for name in blend.components)
        return BlendedModel(job, members, blend, (1.0,) * len(members))
    parts: list[Model] = []
    for name in blend.components:
        if name == "tuned":
            learner = _learner(record, Job(job.model, "federated"))
            parts.append(TrainedModel(job, learner, None, blend.tuned, {}))
        else:
            parts.append(model_of(record, Job(job.model, name)))
    unseen = tuple(float(name == "federated") for name in blend.components)
    return BlendedModel(job, tuple(parts), blend, unseen)


# ------------------------------------------------------------------------------ internals
def _lost(record: RunRecord, key: str) -> RunError:
    text = f"run `{record.id}` has lost weights of a finished model"
    return RunError(Fault("FL703", text, key, "run it again"))


def _learner(record: RunRecord, job: Job) -> Learner:
    return learner_for(job.model, settings_of(job, record.config).models)


def _plain(record: RunRecord, job: Job) -> TrainedModel:
    learner = _learner(record, job)
    parted = load_weights(record.path, job.clusters_key) if job.training == "clustered" else None
    if job.training == "clustered" and parted is None:
        raise _lost(record, job.clusters_key)
    # A client whose own training failed has a group and no finished round.
    keys = {
        row["name"]: job.group_key(int(row["group"]))
        for row in record.federations(model=job.model, training=job.training)
        if row["best_round"] is not None
    }
    kept = {name: load_weights(record.path, key) for name, key in keys.items()}
    states = {name: best_state(arrays, record.id) for name, arrays in kept.items()}
    private: dict[str, Arrays] = {}
    for name, key in keys.items():
        private |= best_private(load_weights(record.path, own_key(key)) or kept[name])
    if parted is not None:
        clustering = Clustering.unpacked(*parted)
        models = _of_clusters(clustering, states)
        own = {name: models[k] | private.get(name, {}) for name, k in clustering.of.items()}
        return ClusteredModel(job, learner, None, own, private, clustering, models)
    if job.training == "local":
        return TrainedModel(job, learner, None, states, private)
    return TrainedModel(job, learner, next(iter(states.values())), {}, private)


def _of_clusters(clustering: Clustering, states: Mapping[str, Arrays]) -> tuple[Arrays, ...]:
    """Return the model of each cluster: a joint state taken apart, or federations by name."""
    first = next(iter(states.values()))
    if MEMBERSHIP in first:
        return tuple(of_cluster(k, first) for k in range(clustering.number))
    return tuple(states[f"cluster-{k + 1}"] for k in range(clustering.number))
