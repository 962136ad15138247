"""The plan of a run: the data cut into windows, the jobs, and the federations of each job.

Local-only and centralised training are federations too: many with one client each, and one with a
single client that holds everything. So a comparison is always like with like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fl_inmetro.config.diagnostics import Diagnostics
from fl_inmetro.config.models import Gradient
from fl_inmetro.config.privacy import Privacy
from fl_inmetro.config.schema import (
    BASELINES,
    ENSEMBLE,
    TRAINED,
    TRAININGS,
    USUAL_BASELINES,
    RunConfig,
)
from fl_inmetro.config.strategy import Gate, Selection, Strategy
from fl_inmetro.config.virtual_time import VirtualTime
from fl_inmetro.data.load import load
from fl_inmetro.data.partition import Partitioned, partition
from fl_inmetro.data.protocols import ProtocolTest, protocol_fleet
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.skew import skew_of
from fl_inmetro.data.splits import Splits, resolve, split_fleet
from fl_inmetro.data.surroundings import PERFECT
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.training import Group
from fl_inmetro.learning.client import ClientData, pooled

#: Findings that a person should look at before believing a result.
DOUBTFUL = ("unit_suspicion", "level_change", "outlier", "conflicting_duplicate", "register_reset")

#: Bytes of one reading that has to leave its meter for centralised training (float64, no stamp).
READING_BYTES = 8


@dataclass(frozen=True)
class Job:
    """A learner and how it is trained."""

    model: str
    training: str

    @property
    def is_derived(self) -> bool:
        """Whether it is made of models that are trained already, without a federation."""
        return self.model == ENSEMBLE or self.training == "personalised"

    @property
    def blend_key(self) -> str:
        """Return the name of a derived job's weights in the run directory."""
        return f"{self.model}-{self.training}-blend"

    @property
    def clusters_key(self) -> str:
        """Return the name under which who is in which cluster is kept."""
        return f"{self.model}-{self.training}-clusters"

    def group_key(self, number: int) -> str:
        """Return the name of a group's weights in the run directory."""
        return f"{self.model}-{self.training}-g{number:04d}"


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data cut into windows, ready to train on.

    Attributes:
        data: All clients' readings.
        splits: The issue times.
        clients: The clients that take part, by name.
        excluded: Meter to the reason it does not.
        meters: The meters whose windows they hold; where nothing is partitioned, the clients.
        partitioned: How the windows were dealt; None where each meter is a client.
        tests: Client to the windows that a published protocol scores, where one decides.
    """

    data: FederatedData
    splits: Splits
    clients: Mapping[str, ClientData]
    excluded: Mapping[str, str]
    meters: tuple[str, ...]
    partitioned: Partitioned | None = None
    tests: Mapping[str, ProtocolTest] = field(default_factory=dict)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the run directory keeps of the data."""
        manifest = self.data.manifest.to_json()
        return {
            **manifest,
            "excluded": {**manifest["excluded"], **self.excluded},
            "clients": {name: _coverage(self.data[name]) for name in self.meters},
            **({"partition": _held(self.partitioned)} if self.partitioned else {}),
        }

    @property
    def missing_test_days(self) -> int:
        """Days at the end of the test window of whose delivered hours nobody has a reading."""
        last = max(series.end_utc_s for series in self.data.values())
        delivered = self.splits.test + self.splits.lead * self.data.resolution_s
        return int((delivered >= last).sum())

    @property
    def doubtful_readings(self) -> dict[str, int]:
        """Findings of cleaning that can spoil a result, with the number of readings concerned."""
        found = self.data.manifest.cleaning
        return {kind: found[kind] for kind in DOUBTFUL if found.get(kind)}

    @property
    def perfect_forecasts(self) -> str:
        """The covariates of which forecasts see later observations, in words."""
        known = self.data.manifest.covariates.items()
        return ", ".join(name for name, seen in known if seen == PERFECT)

    @cached_property
    def reading_bytes(self) -> int:
        """What centralised training moves: every reading before the test window."""
        end = int(self.splits.test[0])
        return READING_BYTES * sum(
            int(self.data[name].cut(end_utc_s=end).valid.sum()) for name in self.meters
        )


def prepare(config: RunConfig) -> Prepared:
    """Load the data and cut the windows; nothing after this reads a user's file."""
    return cut(config, load(config.data, config.seed))


def cut(config: RunConfig, data: FederatedData) -> Prepared:
    """Cut data that are loaded into windows."""
    if config.protocol.enabled:
        fleet = protocol_fleet(config.protocol, data)
        held = {
            name: ClientData(
                name, (_trained_on(own.train, config),), (own.validation,), (own.test,)
            )
            for name, own in fleet.clients.items()
        }
        return Prepared(data, fleet.splits, held, fleet.excluded, tuple(held), tests=fleet.tests)
    splits = resolve(config.window, data)
    parts, excluded = split_fleet(data, splits, drop_short=config.data.cleaning.drop_short)
    if config.partition.kind == "natural":
        clients = {
            name: ClientData(
                name, (_trained_on(part.train, config),), (part.validation,), (part.test,)
            )
            for name, part in parts.items()
        }
        return Prepared(data, splits, clients, excluded, tuple(parts))
    dealt = partition(parts, config.partition, config.seed, known=tuple(data))
    clients = {
        name: ClientData(name, own.train, own.validation, own.test)
        for name, own in dealt.clients.items()
    }
    return Prepared(data, splits, clients, excluded, tuple(parts), dealt)


def _trained_on(windows: Windows, config: RunConfig) -> Windows:
    """Return training windows as they are trained on.

    Where days are protected, no window may know more than what its features look back to: a scale
    with a memory of all that was read before would tie each day to every later window.
    """
    if config.privacy.protect != "client-day":
        return windows
    return replace(windows, floor_share=0.0)


def jobs_of(config: RunConfig, kind: str) -> list[Job]:
    """Return what a `run` or a `compare` makes, each after what it is made of.

    Local-only training comes first (others are compared with it), a personalised model after its
    components, an ensemble after its members.
    """
    if kind == "run":
        members = config.ensemble.members if config.model == ENSEMBLE else ()
        models, wanted = (*members, config.model), {config.training}
        if config.training == "personalised":
            wanted |= {c for c in config.personalisation.components if c != "tuned"}
    else:
        models = tuple(name for name in config.compare.models if name in TRAINED)
        wanted = set(config.compare.training)
    return [
        Job(model, training) for model in models for training in TRAININGS if training in wanted
    ]


def check_sums(config: RunConfig, jobs: Sequence[Job]) -> None:
    """Look whether models made in rounds of sums hear every client in each round.

    Each round's sums belong to the coefficients of the one before: those of another part of the
    clients in every round are of another problem each time, and the rounds come to no end.

    Raises:
        FederationError: FL370, they do not.
    """
    share = config.federation.fraction_fit
    if share < 1 and any(j.model == "quantile_linear" and j.training == "federated" for j in jobs):
        raise FederationError(
            Fault(
                "FL370",
                "linear quantiles are solved from the sums of all clients, round after round",
                f"[federation] fraction-fit = {share:g}",
                "set it to 1, or take another model",
            )
        )


def baselines_of(config: RunConfig, kind: str) -> list[str]:
    """Return the baselines that are scored beside the models."""
    chosen = config.compare.models if kind == "compare" else USUAL_BASELINES
    return [name for name in chosen if name in BASELINES]


def groups_of(
    job: Job, clients: Sequence[ClientData], clusters: Sequence[Sequence[str]] = ()
) -> list[tuple[Group, list[ClientData]]]:
    """Return the federations of a job and who is in each.

    With `clusters`, the names of their clients, each of them is a federation of its own.
    """
    if job.training == "local":
        members = [(client.client_id, [client]) for client in clients]
    elif job.training == "centralised":
        members = [("pooled", [pooled("pooled", clients)])]
    elif clusters:
        known = {client.client_id: client for client in clients}
        members = [
            (f"cluster-{k + 1}", [known[name] for name in names])
            for k, names in enumerate(clusters)
        ]
    else:
        members = [("federation", list(clients))]
    return [
        (Group(job.group_key(k), k, name, checkpointed=job.training != "local"), inside)
        for k, (name, inside) in enumerate(members)
    ]


def settings_of(job: Job, config: RunConfig) -> RunConfig:
    """Return the settings of a job's federations.

    Those of one client cannot ask for a quorum, send nothing anywhere, and keep nothing from each
    other.
    """
    if job.training in ("federated", "clustered"):
        return _with_clients_rate(job, config)
    settings = config.federation
    alone = settings.model_copy(
        update={
            "min_clients": 1,
            "quorum": None,
            "over_selection": 1.0,
            "deadline_s": None,
            "local_steps": 0,
            "patience": None,
            "num_server_rounds": settings.epochs_alone or settings.num_server_rounds,
            "local_epochs": 1 if settings.epochs_alone else settings.local_epochs,
        }
    )
    here = VirtualTime()  # nothing is sent anywhere
    # One client merges with nobody: plain FedAvg is its training as it is.
    plain = {
        "strategy": Strategy(),
        "selection": Selection(),
        "gate": Gate(),
        "privacy": Privacy(),
        "diagnostics": Diagnostics(),
    }
    own = getattr(config.models, job.model)
    if getattr(own, "private", ()):
        own = own.model_copy(update={"private": ()})
    models = config.models.model_copy(update={job.model: own})
    return config.model_copy(
        update={"federation": alone, "virtual_time": here, "models": models, **plain}
    )


def _with_clients_rate(job: Job, config: RunConfig) -> RunConfig:
    """Return the settings with what `[strategy]` says of the clients' steps as the model's own."""
    own, strategy = getattr(config.models, job.model), config.strategy
    given = {
        "eta_l": strategy.eta_l,
        "optimizer": strategy.optimizer_l,
        "batch_size": strategy.batch_size_l,
    }
    change = {name: value for name, value in given.items() if value is not None}
    if not change or not isinstance(own, Gradient):
        return config
    models = config.models.model_copy(update={job.model: own.model_copy(update=change)})
    return config.model_copy(update={"models": models})


def _held(dealt: Partitioned) -> dict[str, dict[str, float]]:
    """Return what each client of a partition holds, for the manifest."""
    skew = skew_of(tuple(dealt.clients), dealt.counts, dealt.loads)
    return {
        one.client_id: {
            "meters": len(dealt.clients[one.client_id].meters),
            "windows": one.windows,
            "classes": one.classes,
            "js_distance": one.js_distance,
            "wasserstein": one.wasserstein,
        }
        for one in skew.clients
    }


def _coverage(series: ClientSeries) -> dict[str, int]:
    return {"steps": len(series), "missing": int((~series.valid).sum())}
