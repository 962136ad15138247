"""The attack laboratory: a grid of attack × defence × share, one federation per cell.

Data and designs are prepared once and shared by all cells. Every cell is scored on the same
clients: those that are honest at the largest share of the grid. Hostile clients tell the truth
when they are asked for their validation errors; lying there is an attack on the choice of the best
round, and is not tried here.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fl_inmetro import events
from fl_inmetro.config.attack import ON_SUMS, AttackName
from fl_inmetro.config.models import Gradient
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.errors import ConfigError, Fault, FederationError
from fl_inmetro.federation.attacks.defences import defence_settings
from fl_inmetro.federation.attacks.grid import AttackedGrid, hostile_clients
from fl_inmetro.federation.attacks.poison import BackdoorTest, KeptWorker, PoisonedWorker
from fl_inmetro.federation.attacks.results import NONE, Cell, Row
from fl_inmetro.federation.attacks.table import ATTACKS, Data
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.progress import unpacked
from fl_inmetro.federation.training import Group, train_group
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Arrays
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.plan import Prepared

#: Key of the model on the shelf of one cell.
_KEY = "cell"


#: Codes of replies that were refused: bad ones, and copies. Clients that failed are not among them.
_REFUSALS = frozenset({"FL301", "FL305", "FL323"})

#: What all cells are compared with.
_CLEAN = Cell(None, "fedavg-no-gate", 0.0)


class Laboratory:
    """Trains the cells of a grid, one after the other.

    Args:
        config: The configuration.
        prepared: Its data.
        should_stop: Looked at between chunks; True raises `Interrupted`.

    Raises:
        FederationError: FL316 another engine or training, FL317 a model in closed form, FL318 too
            few clients.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        check(config)
        self.config = _with_clients_rate(config)
        self._should_stop = should_stop
        self._learner = learner_for(self.config.model, self.config.models)
        self._workers: dict[str, ClientWorker] = {
            name: KeptWorker(data, self._learner) for name, data in prepared.clients.items()
        }
        if len(self._workers) < 2:
            raise FederationError(
                Fault(
                    "FL318",
                    f"the federation has {len(self._workers)} client: it cannot have a hostile "
                    "and an honest one",
                    "[data]",
                    "use two clients or more; with so few, a rule bears no attacker",
                )
            )
        self._manifest = prepared.manifest
        self.meters = self._honest_meters()
        self._poisoned: dict[tuple[Data, str], PoisonedWorker] = {}
        self._test: BackdoorTest | None = None
        self._clean: _Trained | None = None

    def cells(self) -> list[Cell]:
        """Return the grid, defences first without attackers, then attack by attack."""
        settings = self.config.attack
        found = [Cell(None, d, 0.0) for d in settings.defences if 0.0 in settings.shares]
        found += [
            Cell(attack, defence, share)
            for share in sorted(settings.shares)
            if share > 0
            for attack in settings.attacks
            for defence in settings.defences
        ]
        return found

    def hostile(self, share: float) -> tuple[str, ...]:
        """Return the clients that are hostile at a share, sorted."""
        return hostile_clients(list(self._workers), share, self.config.seed)

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return everything as plain data: what was tried, and the rows."""
        config = self.config
        return {
            "name": config.name,
            "seed": config.seed,
            "model": config.model,
            "source": self._manifest["source"],
            "simulated": bool(self._manifest.get("simulated")),
            "rounds": config.federation.num_server_rounds,
            "clients": len(self._workers),
            "hostile": {f"{share:g}": list(self.hostile(share)) for share in config.attack.shares},
            "meters": sorted(self.meters),
            "nmae_clean": self._clean.nmae if self._clean else None,
            "settings": config.attack.model_dump(mode="json"),
            "byzantine": config.strategy.byzantine,
            "gate": config.gate.model_dump(mode="json"),
            "rows": [row.to_json() for row in rows],
        }

    def rows(self) -> Iterator[Row]:
        """Yield the row of each cell, as it is trained.

        A cell that cannot be trained, or whose model says what is no number, has its reason.

        Raises:
            Interrupted: `should_stop` said so.
            FederationError: FedAvg without attackers cannot be trained.
        """
        for cell in self.cells():
            yield self.row(cell)

    def row(self, cell: Cell) -> Row:
        """Train a cell and return its row."""
        clean = self._clean_model()
        hostile = self.hostile(cell.share) if cell.attack else ()
        name = cell.attack or NONE
        began = time.perf_counter()
        seen = _Watch(frozenset(hostile))
        nothing = Row(name, cell.defence, cell.share, len(hostile), None, None, clean.nmae)
        try:
            trained = clean if cell == _CLEAN else self._train(cell, hostile, seen)
        except (FederationError, ConfigError) as error:
            spent = time.perf_counter() - began
            return _counted(replace(nothing, reason=error.brief(), seconds=spent), seen)
        backdoor = backdoor_clean = None
        if cell.attack and ATTACKS[cell.attack].data == "backdoor":
            test = self._backdoor_test()
            backdoor, backdoor_clean = _finite(test.error(trained.state)), test.error(clean.state)
        row = replace(
            nothing,
            nmae=trained.nmae,
            nmae_last=trained.nmae_last,
            seconds=trained.seconds,
            backdoor=backdoor,
            backdoor_clean=_finite(backdoor_clean),
            reason=trained.reason,
        )
        return _counted(row, seen)

    # --------------------------------------------------------------------------- internals
    def _honest_meters(self) -> frozenset[str]:
        """Return the clients that every cell is scored on."""
        largest = max(self.config.attack.shares)
        return frozenset(self._workers) - set(self.hostile(largest))

    def _clean_model(self) -> _Trained:
        if self._clean is None:
            trained = self._train(_CLEAN, (), _Watch(frozenset()))
            if trained.nmae is None:
                raise FederationError(
                    Fault(
                        "FL319",
                        f"there is nothing to compare with: {trained.reason}",
                        "FedAvg without attackers",
                        "look at `fl-inmetro run` of this configuration first",
                    )
                )
            self._clean = trained
        return self._clean

    def _train(self, cell: Cell, hostile: tuple[str, ...], seen: _Watch) -> _Trained:
        began = time.perf_counter()
        strategy, gate = defence_settings(cell.defence, self.config)
        config = self.config.model_copy(update={"strategy": strategy, "gate": gate})
        members = self._members(cell.attack, hostile)
        execution = config.execution
        grid: CohortGrid
        if cell.attack is None:
            grid = CohortGrid(members, execution, self._should_stop)
        else:
            grid = AttackedGrid(
                members,
                execution,
                self._should_stop,
                attack=cell.attack,
                hostile=hostile,
                settings=config.attack,
                seed=config.seed,
            )
        shelf = _Memory()
        group = Group(_KEY, 0, "federation", checkpointed=False)
        outcome = train_group(grid, group, self._learner, config, shelf, seen)
        kept = shelf.load_state(_KEY)
        assert kept is not None
        progress, _ = unpacked(*kept)
        last: dict[str, ErrorSums] = {}
        for found in grid.evaluate_blocks(progress.state, "test", progress.best_round):
            if isinstance(found, tuple):
                last |= found[1]
        missing, _ = self._missing(outcome.sums)
        nmae, reason = self._mean_nmae(outcome.sums)
        nmae_last, _ = self._mean_nmae(last)
        return _Trained(
            outcome.state, nmae, nmae_last, reason, missing, time.perf_counter() - began
        )

    def _members(self, attack: AttackName | None, hostile: tuple[str, ...]) -> list[ClientWorker]:
        """Return the nodes; hostile ones train on poisoned windows where the attack says so."""
        kind = ATTACKS[attack].data if attack else None
        if kind is None:
            return list(self._workers.values())
        return [
            self._poisoner(kind, name) if name in hostile else worker
            for name, worker in self._workers.items()
        ]

    def _poisoner(self, kind: Data, name: str) -> PoisonedWorker:
        key = (kind, name)
        if key not in self._poisoned:
            data, settings = self._workers[name].data, self.config.attack
            self._poisoned[key] = PoisonedWorker(
                data, self._learner, kind, settings, self.config.seed
            )
        return self._poisoned[key]

    def _backdoor_test(self) -> BackdoorTest:
        if self._test is None:
            honest = [worker for name, worker in self._workers.items() if name in self.meters]
            self._test = BackdoorTest(honest, self.config.attack)
        return self._test

    def _mean_nmae(self, sums: Mapping[str, ErrorSums]) -> tuple[float | None, str]:
        """Return the mean nMAE of the meters, or why there is none.

        A model that says infinity for one window has not forecast it; the mean of the others would
        hide that.
        """
        missing, known = self._missing(sums)
        expected = self._clean.missing if self._clean else missing
        if missing > expected:
            return None, f"{missing - expected} of {known} forecasts are no finite number"
        scored = [one.nmae for name, one in sums.items() if name in self.meters]
        values = [value for value in scored if math.isfinite(value)]
        if not values:
            return None, "no meter can be scored"
        return float(np.mean(values)), ""

    def _missing(self, sums: Mapping[str, ErrorSums]) -> tuple[int, int]:
        """Return the test points of the meters without a forecast, and all of them."""
        scored = [one for name, one in sums.items() if name in self.meters]
        known = sum(one.n_load for one in scored)
        return known - sum(one.n for one in scored), known


def check(config: RunConfig) -> None:
    """Look whether the laboratory can try this configuration.

    Raises:
        FederationError: FL316 another engine or training, FL317 attacks on updates
            for a model in closed form, or the other way.
    """
    faults = []
    if config.engine != "cohort":
        text = "hostile clients live in the cohort engine"
        faults.append(
            Fault("FL316", text, f'engine = "{config.engine}"', 'use `engine = "cohort"`')
        )
    if config.training != "federated":
        text = "there is nobody to attack outside a federation"
        where = f'training = "{config.training}"'
        faults.append(Fault("FL316", text, where, 'use `training = "federated"`'))
    closed_form = learner_for(config.model, config.models).closed_form
    wrong = [name for name in config.attack.attacks if (name in ON_SUMS) != closed_form]
    if wrong and closed_form:
        faults.append(
            Fault(
                "FL317",
                f"`{config.model}` sends sums, and `{wrong[0]}` is on updates",
                f'model = "{config.model}"',
                "choose a gradient model, such as `mlp` or `nlinear`; on sums there is "
                "`poisoned-sums`",
            )
        )
    elif wrong:
        faults.append(
            Fault(
                "FL317",
                f"`{wrong[0]}` is on sums, and `{config.model}` sends updates",
                f'model = "{config.model}"',
                "choose a model in closed form: `ridge`",
            )
        )
    rules = [name for name in config.attack.defences if not name.startswith("fedavg")]
    if closed_form and not wrong and rules:
        faults.append(
            Fault(
                "FL317",
                f"`{config.model}` sends sums, and `{rules[0]}` is a rule for updates",
                f'model = "{config.model}"',
                "try the defences `fedavg-no-gate` and `fedavg`: without and with the gate",
            )
        )
    if faults:
        raise FederationError(faults)


# ------------------------------------------------------------------------------ internals
@dataclass(frozen=True)
class _Trained:
    """The model of a cell and its scores; `missing` test points have no forecast."""

    state: Arrays
    nmae: float | None
    nmae_last: float | None
    reason: str
    missing: int
    seconds: float


@dataclass
class _Watch:
    """Counts refusals and suspensions; an event sink."""

    hostile: frozenset[str]
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.ClientRejected) and event.code in _REFUSALS:
            self._count("refused", event.client_id)
        elif isinstance(event, events.ClientSuspended):
            self._count("suspended", event.client_id)

    def _count(self, kind: str, client_id: str) -> None:
        self.counts[kind + ("" if client_id in self.hostile else "_honest")] += 1


class _Memory:
    """A shelf that is forgotten with its cell."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Arrays, dict[str, str]]] = {}

    def save_state(self, name: str, arrays: Arrays, meta: Mapping[str, str]) -> None:
        """Keep arrays."""
        self._kept[name] = (arrays, dict(meta))

    def load_state(self, name: str) -> tuple[Arrays, dict[str, str]] | None:
        """Return what was kept, or None."""
        return self._kept.get(name)


def _counted(row: Row, seen: _Watch) -> Row:
    names = ("refused", "refused_honest", "suspended", "suspended_honest")
    return replace(row, **{name: seen.counts[name] for name in names})  # type: ignore[arg-type]  # four integers by name


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _with_clients_rate(config: RunConfig) -> RunConfig:
    """Return the settings with `[strategy] eta_l` as the model's own learning rate."""
    own, eta_l = getattr(config.models, config.model), config.strategy.eta_l
    if eta_l is None or not isinstance(own, Gradient):
        return config
    models = config.models.model_copy(
        update={config.model: own.model_copy(update={"eta_l": eta_l})}
    )
    return config.model_copy(update={"models": models})
