"""The families that can be compared, by name; each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.family import Family

if TYPE_CHECKING:
    from fl_inmetro.ev.trip_features import Kind as FeatureKind
    from fl_inmetro.ev_study.networks import Kind
    from fl_inmetro.ev_study.sequence_family import Physics
    from fl_inmetro.ev_study.tree_family import Way


def _rate() -> Family:
    from fl_inmetro.ev_study.plain import RateFamily

    return RateFamily()


def _ordinary() -> Family:
    from fl_inmetro.ev.physics_family import OrdinaryCar

    return OrdinaryCar()


def _physics() -> Family:
    from fl_inmetro.ev.physics_family import PhysicsFamily

    return PhysicsFamily()


def _physics_rest() -> Family:
    from fl_inmetro.ev.physics_family import PhysicsFamily

    return PhysicsFamily(rest=True)


def _regression(kind: FeatureKind) -> Callable[[], Family]:
    def build() -> Family:
        from fl_inmetro.ev.trip_family import TripRegression

        return TripRegression(kind)

    return build


def _trees(way: Way, physics: bool) -> Callable[[], Family]:
    def build() -> Family:
        from fl_inmetro.ev_study.tree_family import TreeFamily

        return TreeFamily(way, physics)

    return build


def _sequence(kind: Kind, physics: Physics) -> Callable[[], Family]:
    def build() -> Family:
        from fl_inmetro.ev_study.sequence_family import SequenceFamily

        return SequenceFamily(kind, physics)

    return build


#: In the order of tables.
FAMILIES: dict[str, Callable[[], Family]] = {
    "rate": _rate,
    "before_trip": _regression("before"),
    "ordinary_car": _ordinary,
    "physics": _physics,
    "physics_rest": _physics_rest,
    "regression": _regression("drive"),
    "boosted_trees": _trees("boosted", physics=False),
    "bagged_trees": _trees("bagged", physics=False),
    "random_forest": _trees("forest", physics=False),
    "physics_boosted_trees": _trees("boosted", physics=True),
    "physics_forest": _trees("forest", physics=True),
    "lstm": _sequence("lstm", "none"),
    "transformer": _sequence("transformer", "none"),
    "physics_into_lstm": _sequence("lstm", "input"),
    "physics_lstm": _sequence("lstm", "residual"),
    "physics_transformer": _sequence("transformer", "residual"),
}

#: Families that see nothing of the drive: only what is known before it.
BEFORE = frozenset({"rate", "before_trip"})


def families(names: Iterable[str] = ()) -> list[Family]:
    """Return families by their names, in the order of tables; all without a name.

    Raises:
        DataError: FL229, a name that is none.
    """
    wanted = list(names) or list(FAMILIES)
    if unknown := [name for name in wanted if name not in FAMILIES]:
        known = ", ".join(FAMILIES)
        raise DataError([Fault("FL229", f"no model `{name}`", "", known) for name in unknown])
    return [build() for name, build in FAMILIES.items() if name in wanted]
