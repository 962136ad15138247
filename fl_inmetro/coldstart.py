"""Cold starts: a federation's model on clients that it has never seen, with few readings or none.

The clients are dealt into folds. For each fold the federation is trained without its clients, as
`run` trains it; then the fold's clients are forecast over the test window, once for each length of
history: at each issue time only the last d days of readings are visible (`last`), or all since d
days before the test window (`since`: a meter that ages). Every length, model and baseline is scored
on the same targets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import events, seeds
from fl_inmetro.config.schema import ENSEMBLE, RunConfig
from fl_inmetro.data.protocols import without_protocol
from fl_inmetro.data.short_history import (
    FleetProfile,
    annual_scale_kwh,
    last_days,
    own_days,
    since,
)
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.training import Group, train_group
from fl_inmetro.learning.blend import blended
from fl_inmetro.learning.client import ClientData, ClientWorker, past_scale
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.metrics import ErrorSums, Forecast, score_fleet
from fl_inmetro.models.baselines import BASELINES, day_type_mean
from fl_inmetro.plan import Job, Prepared, settings_of
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
#: From what a client's size is known: its readings, a year's energy, or the fleet's median.
Size = Literal["readings", "annual", "fleet"]
#: Which readings are visible: the last days before each issue time, or all of a meter that was
#: installed so many days before the test window.
History = Literal["last", "since"]

#: What a history of some days is forecast with beside the models.
RIVALS = ("sn24", "ha4", "persistence_ensemble", "day_type_mean")
PROFILE = "fleet_profile"
#: A year's energy is taken from the readings where they cover at least so much of the year.
MIN_YEAR_SHARE = 0.8

#: (Model, training, history, days, size) → client → its errors.
_Key = tuple[str, str, History, int, Size]
_Sums = dict[_Key, dict[str, ErrorSums]]


@dataclass(frozen=True)
class Row:
    """A model on clients with so many days of history, over all folds.

    Attributes:
        model: The model or baseline.
        training: `federated`, `local` (on the client's own days alone) or `baseline`.
        history: Which readings are visible.
        days: Days of history.
        size: From what the client's size is known.
        nmae: Mean over the clients; None where nothing could be forecast.
        nrmse: Likewise.
        pinball: Likewise; None without quantiles.
        clients: Clients that were scored.
        points: Scored points.
    """

    model: str
    training: str
    history: History
    days: int
    size: Size
    nmae: float | None
    nrmse: float | None
    pinball: float | None
    clients: int
    points: int


class ColdStart:
    """Trains one federation for each fold and scores it on the clients left out.

    Args:
        config: The configuration.
        prepared: Its data.
        should_stop: Looked at between chunks; True raises `Interrupted`.

    Raises:
        FederationError: FL340, the configuration trains no federation of meters; FL341, there are
            fewer clients than twice the folds.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        without_protocol(config.protocol, "`coldstart`")
        check(config, len(prepared.clients))
        self.config, self.prepared = config, prepared
        self._should_stop = should_stop
        self._sums: _Sums = {}
        self.seconds = 0.0

    def folds(self) -> list[tuple[str, ...]]:
        """Return the clients of each fold, dealt by the seed; sizes differ by one at most."""
        names = sorted(self.prepared.clients)
        order = seeds.derive(self.config.seed, "coldstart", "folds").permutation(len(names))
        count = self.config.coldstart.folds
        return [tuple(sorted(names[k] for k in order[fold::count])) for fold in range(count)]

    def run(self) -> Iterator[int]:
        """Train and score fold by fold; yields the number of folds done.

        Raises:
            Interrupted: `should_stop` said so.
        """
        for number, fold in enumerate(self.folds()):
            started = time.perf_counter()
            self._fold(number, fold)
            self.seconds += time.perf_counter() - started
            yield number + 1

    def rows(self) -> list[Row]:
        """Return what was measured so far, by length of history."""
        found = [_row(key, sums) for key, sums in self._sums.items()]
        return sorted(found, key=lambda row: (row.history, row.days, row.size))

    def summary(self) -> dict[str, Any]:
        """Return everything as plain data."""
        settings = self.config.coldstart
        return {
            "name": self.config.name,
            "seed": self.config.seed,
            "model": self.config.model,
            "source": self.prepared.data.manifest.source,
            "simulated": self.prepared.data.manifest.simulated,
            "clients": len(self.prepared.clients),
            "folds": [list(fold) for fold in self.folds()],
            "days": list(settings.days),
            "window": self.prepared.splits.to_json(),
            "seconds": self.seconds,
            "rows": [asdict(row) for row in self.rows()],
        }

    # --------------------------------------------------------------------------- internals
    def _fold(self, number: int, fold: Sequence[str]) -> None:
        clients = self.prepared.clients
        inside = [client for name, client in clients.items() if name not in fold]
        model = Served([self._trained(name, number, inside) for name in members_of(self.config)])
        first = int(self.prepared.splits.test[0])
        profile = FleetProfile.of((client.train[0] for client in inside), first)
        for name in fold:
            for windows in clients[name].test:
                if len(windows):
                    self._client(clients[name], windows, model, profile)

    def _trained(
        self, name: str, number: int, inside: Sequence[ClientData]
    ) -> tuple[Learner, Arrays]:
        settings = settings_of(Job(name, "federated"), self.config)
        learner = learner_for(name, settings.models)
        workers = [ClientWorker(client, learner) for client in inside]
        grid = CohortGrid(workers, self.config.execution, self._should_stop)
        group = Group(f"{name}-fold-{number}", 0, "federation", checkpointed=False)
        return learner, train_group(grid, group, learner, settings, _Forgets(), _unheard).state

    def _client(
        self, client: ClientData, windows: Windows, model: Served, profile: FleetProfile
    ) -> None:
        target, scale = windows.target_kwh(), past_scale(windows)
        label = self.config.model

        def score(key: _Key, made: Forecast | Floats) -> None:
            own = ErrorSums.of(made, target, scale)
            self._sums.setdefault(key, {})[client.client_id] = own

        sizes: dict[Size, float] = {"fleet": profile.scale_kwh}
        if (annual := self._annual_scale_kwh(client.client_id, windows)) is not None:
            sizes["annual"] = annual
        if 0 in self.config.coldstart.days:
            for size, scale_kwh in sizes.items():
                lent = model.forecast(profile.lend(windows, scale_kwh))
                score((label, "federated", "last", 0, size), lent)
                plain = profile.forecast_kwh(windows, scale_kwh)
                score((PROFILE, "baseline", "last", 0, size), plain)
        # What a client without a usable day is forecast with, whatever forecasts it else.
        nothing = sizes.get("annual", profile.scale_kwh)
        lent = model.forecast(profile.lend(windows, nothing))
        lent_kwh = profile.forecast_kwh(windows, nothing)
        first = int(self.prepared.splits.test[0])
        for days in self.config.coldstart.days:
            if not days:
                continue
            own = {
                name: served
                for name in dict.fromkeys(("ridge", *members_of(self.config)))
                if (served := self._alone(name, client, windows, days)) is not None
            }
            young: dict[History, Windows] = {
                "last": last_days(windows, days),
                "since": since(windows, first, days),
            }
            for history, seen in young.items():
                made = filled(model.forecast(seen), lent)
                score((label, "federated", history, days, "readings"), made)
                spare = day_type_mean(seen)
                spare = np.where(np.isnan(spare), lent_kwh, spare)
                for name in RIVALS:
                    rival = BASELINES[name](seen)
                    plain = rival.mean_kwh if isinstance(rival, Forecast) else rival
                    full = np.where(np.isnan(plain), spare, plain)
                    score((name, "baseline", history, days, "readings"), full)
                for name, alone in own.items():
                    made = filled(alone.forecast(seen), Forecast(lent_kwh))
                    score((name, "local", history, days, "readings"), made)

    def _alone(self, name: str, client: ClientData, windows: Windows, days: int) -> Served | None:
        """Train the client's own model on the `days` days before the test window.

        None where so few days leave no window to train on, or the training failed.
        """
        first = int(self.prepared.splits.test[0])
        known = np.concatenate([part.issue_index for part in (*client.train, *client.validation)])
        train = own_days(replace(windows, issue_index=np.sort(known)), first, days)
        settings = settings_of(Job(name, "local"), self.config)
        models = settings.models
        if name == "mlp":  # its histories are short as they are
            nothing = {"short_histories": 0.0, "hidden_endings": 0.0}
            own = models.mlp.model_copy(update=nothing)
            models = models.model_copy(update={"mlp": own})
        learner = learner_for(name, models)
        none = windows.take(np.zeros(0, dtype=np.int64))
        worker = ClientWorker(ClientData(client.client_id, (train,), (none,), (none,)), learner)
        if not len(train) or not worker.train_design.points:
            return None
        group = Group("alone", 0, client.client_id, checkpointed=False)
        grid = LoopGrid([worker], self._should_stop)
        try:
            outcome = train_group(grid, group, learner, settings, _Forgets(), _unheard)
        except FederationError:
            return None
        return Served([(learner, outcome.state)])

    def _annual_scale_kwh(self, client_id: str, windows: Windows) -> float | None:
        """Return the client's mean step of the year before the test window, as a bill tells it."""
        resolution_s = windows.series.resolution_s
        given = self.config.coldstart.annual_kwh.get(client_id)
        if given is not None:
            return annual_scale_kwh(given, resolution_s)
        first = int(self.prepared.splits.test[0])
        year = windows.series.cut(first - 365 * DAY_S, first)
        known = year.energy_kwh[year.valid]
        mean = float(known.mean()) if known.size else 0.0
        enough = known.size * resolution_s >= MIN_YEAR_SHARE * 365 * DAY_S
        return mean if enough and mean > 0 else None


class Served:
    """The models of a configuration as one: the mean of its members' forecasts."""

    def __init__(self, members: Sequence[tuple[Learner, Arrays]]) -> None:
        self._members = members

    def forecast(self, windows: Windows) -> Forecast:
        """Forecast any client's windows."""
        made = [
            learner.forecast(state, learner.design(windows, targets=False))
            for learner, state in self._members
        ]
        return made[0] if len(made) == 1 else blended(made, [1.0] * len(made))


def members_of(config: RunConfig) -> tuple[str, ...]:
    """Return the learners that the configuration's model is made of."""
    return config.ensemble.members if config.model == ENSEMBLE else (config.model,)


def filled(forecast: Forecast, spare: Forecast) -> Forecast:
    """Return a forecast with what it lacks taken from another; shapes (N, H)."""
    mean_kwh = np.where(np.isnan(forecast.mean_kwh), spare.mean_kwh, forecast.mean_kwh)
    if forecast.quantiles_kwh is None:
        return Forecast(mean_kwh)
    # One that has no quantiles says the same at every level.
    other = spare.mean_kwh[..., None] if spare.quantiles_kwh is None else spare.quantiles_kwh
    quantiles = np.where(np.isnan(forecast.quantiles_kwh), other, forecast.quantiles_kwh)
    return Forecast(mean_kwh, forecast.levels, quantiles)


def check(config: RunConfig, clients: int) -> None:
    """Look whether cold starts can be studied with this configuration.

    Raises:
        FederationError: FL340, FL341; see `ColdStart`.
    """
    faults = []
    wanted = {
        "training": (config.training, "federated"),
        "engine": (config.engine, "cohort"),
        "[partition] kind": (config.partition.kind, "natural"),
    }
    for key, (given, needed) in wanted.items():
        if given != needed:
            text = "a cold start leaves meters out of a federation that is trained in this process"
            faults.append(Fault("FL340", text, f'{key} = "{given}"', f'use "{needed}"'))
    folds = config.coldstart.folds
    if clients < 2 * folds:
        text = f"{clients} clients cannot be dealt into {folds} folds of two or more"
        faults.append(Fault("FL341", text, "[coldstart] folds", "use fewer folds, or more clients"))
    if faults:
        raise FederationError(faults)


# ------------------------------------------------------------------------------ internals
def _row(key: _Key, sums: Mapping[str, ErrorSums]) -> Row:
    model, training, history, days, size = key
    scores = score_fleet(sums)
    scored = [one for one in sums.values() if one.n]
    nmae, nrmse, pinball = (_finite(scores[name]) for name in ("nmae", "nrmse", "pinball"))
    points = sum(one.n for one in scored)
    return Row(model, training, history, days, size, nmae, nrmse, pinball, len(scored), points)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unheard(event: events.Event) -> None:
    """Take an event that nobody listens to."""


class _Forgets:
    """A shelf that keeps nothing: each federation is trained once."""

    def save_state(self, name: str, arrays: Arrays, meta: Mapping[str, str]) -> None:
        """Keep nothing."""

    def load_state(self, name: str) -> tuple[Arrays, dict[str, str]] | None:
        """Return nothing."""
        return None
