"""Which clients share a model: parted by what they share of themselves, or by their own choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import events
from fl_inmetro.config.clusters import Clusters
from fl_inmetro.config.models import Gradient
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.data.calendar import local_clock, steps_per_day
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.errors import ConfigError, Fault, FederationError
from fl_inmetro.federation.closing import Quorum
from fl_inmetro.federation.joint import MEMBERSHIP, Choices
from fl_inmetro.federation.kmeans import best_kmeans, kmeans, nearest, silhouette
from fl_inmetro.federation.recipes import compose
from fl_inmetro.federation.robust import rule_factory
from fl_inmetro.learning.client import ClientData
from fl_inmetro.learning.profile import (
    WIDTH,
    Release,
    day_type_profile,
    mean_day,
    profile_release,
    released,
    span_of,
)
from fl_inmetro.learning.update import Arrays
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Days of readings that a client needs to be assigned by its profile: every day of a week, once.
LEAST_DAYS = 7

#: Readings so long before a forecast make the profile of a client that the run has not seen.
_LOOK_BACK_S = 56 * DAY_S


@dataclass(frozen=True, eq=False)
class Clustering:
    """Who is in which cluster, and what the server knows of them.

    Attributes:
        clients: Names, N.
        labels: Shape (N,), each client's cluster; 0 is the largest where profiles decide.
        number: Clusters, K.
        profiles: Shape (N, 72), what the clients released; NaN for one that has none. (0, 72) where
            nothing was asked.
        silhouettes: Number of clusters to mean silhouette, of those that were tried.
        release: What left each client; None where nothing did.
    """

    clients: tuple[str, ...]
    labels: Ints
    number: int
    profiles: Floats = field(default_factory=lambda: np.zeros((0, WIDTH)))
    silhouettes: Mapping[int, float] = field(default_factory=dict)
    release: Release | None = None

    @property
    def of(self) -> dict[str, int]:
        """Client to its cluster."""
        return {name: int(k) for name, k in zip(self.clients, self.labels, strict=True)}

    @property
    def sizes(self) -> Ints:
        """Clients in each cluster, shape (K,)."""
        return np.bincount(self.labels, minlength=self.number)

    @property
    def centres(self) -> Floats:
        """Mean of the members' profiles, shape (K, 72); NaN where none of them has one."""
        centres = np.full((self.number, WIDTH), np.nan)
        if not len(self.profiles):
            return centres
        known = np.isfinite(self.profiles).all(1)
        for k in range(self.number):
            inside = known & (self.labels == k)
            if inside.any():
                centres[k] = self.profiles[inside].mean(0)
        return centres

    @property
    def bytes_up(self) -> int:
        """Bytes of the profiles that left the clients."""
        return int(np.isfinite(self.profiles).all(1).sum()) * WIDTH * 8

    def members(self) -> list[list[str]]:
        """Return the clients of each cluster."""
        return [
            [name for name, own in zip(self.clients, self.labels, strict=True) if own == k]
            for k in range(self.number)
        ]

    def choices(self, settings: Clusters, seed: int) -> Choices:
        """Return how the clients go on to choose by themselves (IFCA)."""
        size = settings.perturbation if settings.start == "perturbed" else 0.0
        return Choices(self.number, settings.every, self.of, seed, size)

    def chosen(self, joint: Arrays, names: Sequence[str]) -> Clustering:
        """Return the clusters that the clients of a joint state took, in this order of names.

        One that could not enrol stays where it was.
        """
        now = self.of | dict(zip(names, joint[MEMBERSHIP].tolist(), strict=True))
        return replace(self, labels=np.array([now[name] for name in self.clients], np.int64))

    def nearest(self, series: ClientSeries, issue_utc_s: int, zone: str) -> int:
        """Return the cluster of a client that took no part, by its readings before an issue.

        With a week of readings that of the nearest centre; else, and where no profiles were shared,
        the largest.
        """
        largest = int(self.sizes.argmax())
        own = _recent_profile(series, issue_utc_s, zone)
        centres = self.centres
        with_centre = np.flatnonzero(np.isfinite(centres).all(1))
        if own is None or not len(with_centre):
            return largest
        if self.release is not None:  # beside centres of profiles that were shortened
            clip = self.release.sensitivity / 2
            own = own * min(1.0, clip / float(np.linalg.norm(own)))
        return int(with_centre[nearest(own[None], centres[with_centre])[0]])

    def packed(self) -> tuple[Arrays, dict[str, str]]:
        """Return arrays and text that can be kept."""
        meta = {
            "clients": json.dumps(self.clients),
            "number": str(self.number),
            "silhouettes": json.dumps(dict(self.silhouettes)),
            "release": json.dumps(self.release.to_json() if self.release else None),
        }
        return {"labels": self.labels, "profiles": self.profiles}, meta

    @classmethod
    def unpacked(cls, arrays: Arrays, meta: Mapping[str, str]) -> Clustering:
        """Return what `packed` was made of."""
        release = json.loads(meta["release"])
        return cls(
            tuple(json.loads(meta["clients"])),
            arrays["labels"],
            int(meta["number"]),
            arrays["profiles"],
            {int(k): v for k, v in json.loads(meta["silhouettes"]).items()},
            Release(**release) if release else None,
        )


def part_clients(
    settings: Clusters, clients: Mapping[str, ClientData], seed: int, emit: events.Emit
) -> Clustering:
    """Part the clients by their profiles; without profiles all begin in the first cluster.

    A client whose training windows have no readings joins the largest cluster.

    Raises:
        ConfigError: FL119, there are fewer clients with a profile than clusters.
    """
    names = tuple(sorted(clients))
    if not settings.by_profile:
        return Clustering(names, np.zeros(len(names), np.int64), int(settings.number))
    profiles = np.full((len(names), WIDTH), np.nan)
    for place, name in enumerate(names):
        train = clients[name].train
        own = day_type_profile(train)
        if own is None:
            emit(events.Note("warning", f"client {name} has no profile: it joins the most"))
            continue
        span = span_of(train)
        profiles[place] = released(own, settings.clip, settings.noise, seed, name, span)
    known = np.isfinite(profiles).all(1)
    vectors = profiles[known]
    wanted = 1 if settings.number == "auto" else settings.number
    if len(vectors) < wanted:
        raise ConfigError(
            Fault(
                "FL119",
                f"{len(vectors)} clients with a profile cannot make {wanted} clusters",
                f"[clusters] number = {wanted}",
                'ask for fewer, or let `number = "auto"` choose',
            )
        )
    if settings.number == "auto":
        found, tried = best_kmeans(vectors, settings.most, seed, settings.restarts)
    else:
        found = kmeans(vectors, settings.number, seed, settings.restarts)
        tried = {}
        if 1 < settings.number < len(vectors):
            tried = {settings.number: silhouette(vectors, found.labels)}
    labels = np.zeros(len(names), np.int64)  # 0 is the largest
    labels[known] = found.labels
    release = profile_release(settings.clip, settings.noise)
    parted = Clustering(names, labels, len(found.centres), profiles, tried, release)
    sizes = ", ".join(map(str, parted.sizes))
    emit(events.Note("info", f"clusters of profiles: {parted.number}; sizes: {sizes}"))
    return parted


def check_clusters(config: RunConfig, model: str) -> None:
    """Refuse what IFCA has no part in; clusters of profiles are federations like any other.

    Raises:
        ConfigError: FL118.
    """
    if config.clusters.kind != "ifca":
        return
    own, recipe = getattr(config.models, model), None
    if not config.strategy.is_foreign:
        recipe = compose(config.strategy).recipe
    refused = {
        f"`{model}` (solved in closed form)": not isinstance(own, Gradient),
        "a Flower strategy of your own": config.strategy.is_foreign,
        f"`{config.strategy.name}`": recipe is not None
        and (recipe.control != "none" or recipe.weighing == "age"),
        f"[models.{model}] private": bool(getattr(own, "private", ())),
        "[virtual_time]": config.virtual_time.enabled,
        "[diagnostics] heterogeneity": config.diagnostics.heterogeneity,
        "[federation] over-selection, deadline-s": config.federation.by_the_clock,
    }
    if named := [what for what, is_set in refused.items() if is_set]:
        raise ConfigError(
            Fault(
                "FL118",
                f"clients cannot choose among models with {', '.join(named)}",
                '[clusters] kind = "ifca"',
                'use `kind = "profile"`, whose clusters are federations like any other',
            )
        )


def check_sizes(
    config: RunConfig, models: Sequence[str], clients: Mapping[str, ClientData]
) -> None:
    """Refuse clusters of profiles that are too small for the rounds that are asked for.

    Where clients choose for themselves a cluster may be small for a while: it stands still.

    Raises:
        FederationError: FL365, a cluster has fewer clients than its rounds need replies, or than
            the robust rule needs.
        ConfigError: FL119.
    """
    demanding = config.federation.min_clients > 1 or (config.federation.quorum or 0.0) > 1
    robust = not config.strategy.is_foreign and compose(config.strategy).rule != "mean"
    if config.clusters.kind != "profile" or not models or not (demanding or robust):
        return
    parted = part_clients(config.clusters, clients, config.seed, lambda event: None)
    sizes = [int(size) for size in parted.sizes]
    for model in models:
        closed_form = not isinstance(getattr(config.models, model), Gradient)
        quorum = Quorum(config.federation, config.gate, closed_form=closed_form)
        for size in sizes:
            wanted, asked = (size, size) if closed_form else quorum.aims(size, size)
            needed, why = quorum.needed(wanted), "[federation] min-clients, quorum"
            short = needed > asked
            what = f"its rounds need {needed} replies"
            if not short and robust and not closed_form:
                rule = compose(config.strategy).rule
                fault = rule_factory(rule, config.strategy)(asked).needs(asked)
                if fault is not None:
                    short, what, why = True, fault.what, "[strategy] rule, byzantine"
            if short:
                told = ", ".join(map(str, sizes))
                raise FederationError(
                    Fault(
                        "FL365",
                        f"a cluster has {size} of the clients, {asked} in a round: {what}",
                        f"{why}; clusters of {told}",
                        "lower what the rounds need, or ask for fewer clusters (`number`)",
                    )
                )


# ------------------------------------------------------------------------------ internals
def _recent_profile(series: ClientSeries, issue_utc_s: int, zone: str) -> Floats | None:
    """Return the profile of the weeks before an issue; None with less than a week of readings."""
    seen = series.cut(start_utc_s=issue_utc_s - _LOOK_BACK_S, end_utc_s=issue_utc_s)
    if int(seen.valid.sum()) < LEAST_DAYS * steps_per_day(series.resolution_s):
        return None
    steps = np.arange(len(seen), dtype=np.int64)
    clock = local_clock(seen.start_utc_s + steps * seen.resolution_s, zone)
    return mean_day(seen.energy_kwh, clock.day_type, clock.second_of_day)
