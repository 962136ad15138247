"""The table of strategies: what each name fills in, and how settings become a merge.

A strategy is not a class: it is a line of `RECIPES` over the parts that `[strategy]` can also name
one by one, so a robust rule, a server optimiser and a proximal term combine freely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fl_inmetro.config.models import Gradient
from fl_inmetro.config.strategy import RuleName, ServerOptimizerName, Strategy, StrategyName
from fl_inmetro.errors import ConfigError, Fault
from fl_inmetro.federation import weighing
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.robust import rule_factory
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge, StatisticsMerge
from fl_inmetro.federation.server_optimizers import SERVER_OPTIMIZERS, Falling
from fl_inmetro.learning.update import Learner
from fl_inmetro.learning.work import LocalWork, steps_of

Weighing = Literal["points", "uniform", "local-work", "loss", "age"]
Control = Literal["none", "scaffold", "feddyn"]


@dataclass(frozen=True)
class Recipe:
    """What an entry of the table fills in.

    Attributes:
        rule: How the updates of a round become one.
        server_optimizer: What the server does with that one.
        weighing: How much each update counts.
        control: What clients correct their gradients by.
        numbers: Defaults of its own for the numbers of `[strategy]`; what it does not name has the
            default of the server optimiser, or is off.
    """

    rule: RuleName = "mean"
    server_optimizer: ServerOptimizerName = "sgd"
    weighing: Weighing = "points"
    control: Control = "none"
    numbers: Mapping[str, float] = field(default_factory=dict)


RECIPES: dict[StrategyName, Recipe] = {
    "fedavg": Recipe(),
    "fedavgm": Recipe(server_optimizer="momentum"),
    "fedadagrad": Recipe(server_optimizer="adagrad"),
    "fedadam": Recipe(server_optimizer="adam"),
    "fedyogi": Recipe(server_optimizer="yogi"),
    "fedprox": Recipe(numbers={"mu": 0.01}),
    "scaffold": Recipe(control="scaffold"),
    "variance-control": Recipe(numbers={"beta": 0.5}),
    "fednova": Recipe(weighing="local-work"),
    "feddyn": Recipe(weighing="uniform", control="feddyn", numbers={"alpha": 0.01}),
    "qfedavg": Recipe(weighing="loss", numbers={"q": 0.2}),
    "fedbuff": Recipe(weighing="age"),
    "median": Recipe("median"),
    "trimmed-mean": Recipe("trimmed-mean"),
    "krum": Recipe("krum"),
    "multi-krum": Recipe("multi-krum"),
    "bulyan": Recipe("bulyan"),
    "geometric-median": Recipe("geometric-median"),
    "centered-clipping": Recipe("centered-clipping"),
    "norm-bound": Recipe("norm-bound"),
}


@dataclass(frozen=True)
class Composition:
    """A strategy with nothing left open: the entry's parts, and what the settings replace.

    Attributes:
        settings: `[strategy]`.
        recipe: The entry of its name; that of FedAvg for a strategy of the user's own.
        rule: Name or import path of the rule.
        server_optimizer: Name of the server's optimiser.
    """

    settings: Strategy
    recipe: Recipe
    rule: str
    server_optimizer: ServerOptimizerName

    @property
    def filled(self) -> Strategy:
        """The settings with the entry's own numbers where none are given."""
        open_ = {n: v for n, v in self.recipe.numbers.items() if getattr(self.settings, n) is None}
        return self.settings.model_copy(update=open_)

    def number(self, name: str) -> float:
        """Return a number of `[strategy]`: as given, else the entry's own, else 0 (off)."""
        return float(getattr(self.filled, name) or 0.0)

    def work(self, epochs: int, steps: int = 0) -> LocalWork:
        """Return what the clients are asked to do in a round."""
        control = self.recipe.control
        return LocalWork(
            epochs=epochs,
            mu=self.number("mu"),
            control=control,
            alpha=self.number("alpha"),
            start_loss=self.recipe.weighing == "loss",
            steps=steps,
        )

    @property
    def is_asynchronous(self) -> bool:
        """Whether the server steps when its buffer is full, and not when a round ends."""
        return self.recipe.weighing == "age"


def compose(settings: Strategy) -> Composition:
    """Fill in what the settings leave open.

    Raises:
        ConfigError: FL111, parts that do not combine.
    """
    name = settings.name
    recipe = RECIPES["fedavg" if settings.is_foreign else name]  # type: ignore[index]  # checked when it was read
    rule = settings.rule or recipe.rule
    faults = []
    if recipe.weighing == "loss" and rule != "mean":
        faults.append(f"`{name}` weighs clients by their loss, which no other rule than `mean` has")
    if recipe.weighing == "loss" and settings.server_optimizer not in (None, "sgd"):
        faults.append(f"`{name}` has a step of its own: no server optimiser goes with it")
    if settings.is_foreign and (settings.rule or settings.server_optimizer):
        faults.append("a Flower strategy of your own merges by itself: no rule goes with it")
    given = [key for key in _NUMBERS if getattr(settings, key) is not None]
    if settings.is_foreign and given:
        faults.append(f"a Flower strategy of your own does not read {', '.join(given)}")
    optimizer = settings.server_optimizer or recipe.server_optimizer
    for key, users in _USED_BY.items():
        # A configuration that was read back from a run directory gives every key.
        given = getattr(settings, key) != type(settings).model_fields[key].default
        if given and not {name, rule, optimizer} & users:
            faults.append(f"`{key}` has no effect here: it is of {', '.join(sorted(users))}")
    if faults:
        where = "[strategy]"
        raise ConfigError([Fault("FL111", text, where, _COMBINE) for text in faults])
    return Composition(settings, recipe, rule, optimizer)


#: Which entries, rules and server optimisers read a setting that most do not.
_USED_BY: dict[str, frozenset[str]] = {
    "beta_1": frozenset({"momentum", "adagrad", "adam", "yogi"}),
    "beta_2": frozenset({"adam", "yogi"}),
    "tau": frozenset({"adagrad", "adam", "yogi"}),
    "bias_correction": frozenset({"adam"}),
    "alpha": frozenset({"feddyn"}),
    "q": frozenset({"qfedavg"}),
    "byzantine": frozenset({"trimmed-mean", "krum", "multi-krum", "bulyan"}),
    "keep": frozenset({"multi-krum"}),
    "radius": frozenset({"norm-bound", "centered-clipping"}),
    "buffer": frozenset({"fedbuff"}),
    "concurrency": frozenset({"fedbuff"}),
}

#: Numbers that every entry of the table reads; `eta_l` and `mu` are the clients'.
_NUMBERS = ("eta", "beta")

_COMBINE = "`fl-inmetro explain FL111` says which parts combine"


def merge_for(
    learner: Learner,
    settings: Strategy,
    private: frozenset[str] = frozenset(),
    roster: Roster | None = None,
    epochs: int = 1,
    steps: int = 0,
    rounds: int = 0,
) -> Merge:
    """Return how this learner's updates are merged under this strategy.

    Args:
        learner: The learner.
        settings: `[strategy]`.
        private: Parameters that stay on the clients.
        roster: The clients; what SCAFFOLD, FedNova and FedDyn know of them.
        epochs: Local epochs, for FedNova.
        steps: At most so many steps of them, for FedNova; 0 = all.
        rounds: All rounds, for a server step that falls with them.
    """
    if learner.closed_form:
        return StatisticsMerge(learner)
    composition = compose(settings)
    recipe = composition.recipe
    points = roster.points if roster else {}
    rule = composition.rule
    optimizer = SERVER_OPTIMIZERS[composition.server_optimizer](composition.filled)
    if settings.eta_schedule == "cosine":
        optimizer = Falling(optimizer, max(rounds, 1))
    return DeltaMerge(
        optimizer,
        private,
        rule_of=None if rule == "mean" else rule_factory(rule, settings),
        remembers=rule == "centered-clipping",
        weighing=_weighing(composition, learner, roster, epochs, steps),
        scaffold=recipe.control == "scaffold",
        total_points=float(sum(points.values())) if recipe.control == "scaffold" else 0.0,
        beta=composition.number("beta"),
        alpha=composition.number("alpha"),
        clients=len(points),
        average=settings.average,
    )


def _weighing(
    composition: Composition, learner: Learner, roster: Roster | None, epochs: int, steps: int
) -> weighing.Weighing:
    kind = composition.recipe.weighing
    if kind in ("points", "uniform"):
        return weighing.ByPoints(uniform=kind == "uniform")
    if kind == "age":
        return weighing.ByAge({})  # the asynchronous rounds fill it in
    settings: Gradient = learner.settings  # type: ignore[attr-defined]  # gradient learners have them
    if kind == "loss":
        return weighing.ByLoss(composition.number("q"), settings.eta_l)
    windows = roster.windows if roster else {}
    mu = composition.number("mu")
    return weighing.ByLocalWork(
        {
            name: weighing.local_work_of(
                steps_of(count, settings.batch_size, epochs, steps), settings, mu
            )
            for name, count in windows.items()
        }
    )
