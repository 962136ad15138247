"""Permutation importance: how much worse a model gets when a part of its input is of another day.

The windows of a client are dealt anew among themselves, for one block of the input at a time, and
the client scores the forecasts: nothing but sums of errors leaves it. All blocks of a repeat are
dealt by the same permutation, and so is a block in all the components of a blend.

Where features say the same (lags and profiles do), one of them can be replaced by another, and each
alone seems to matter little; that is why groups are the usual cut, and why importances do not add
up. A permuted input may also be one that no day has ever had.
Sources: Breiman (2001), "Random Forests", section 10; Fisher, Rudin & Dominici (2019), "All Models
are Wrong, but Many are Useful", eq. 3, whose model reliance this is, as a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.features import trailing_level
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.explain.blocks import Block, By, blocks_of, moved
from fl_inmetro.learning.adaptive_conformal import follow
from fl_inmetro.learning.blend import blended
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.update import Arrays
from fl_inmetro.metrics import ErrorSums, Forecast, score_fleet
from fl_inmetro.seeds import derive
from fl_inmetro.trained import (
    BlendedModel,
    CalibratedModel,
    ClusteredModel,
    FollowedModel,
    Model,
    TrainedModel,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Scores whose increase is told; both are better when smaller.
MEASURES = ("nmae", "pinball")

#: Why a client could not be asked: name of the reason, and what it says in an error.
WHY = {
    "few_windows": "fewer than two of its test windows can be forecast",
    "no_model": "the run has no model for it",
}


@dataclass(frozen=True, eq=False)
class Deal:
    """A block, and the window that each window takes it from.

    Attributes:
        block: Name of the block.
        order: Shape (N,), a permutation.
    """

    block: str
    order: Ints


@dataclass(frozen=True, eq=False)
class Look:
    """A model that is asked about the same windows again and again.

    Attributes:
        blocks: Names of the parts of its input.
        forecast: Returns the forecasts, with a block dealt anew or as they are.
    """

    blocks: tuple[str, ...]
    forecast: Callable[[Deal | None], Forecast]


@dataclass(frozen=True, eq=False)
class ClientSums:
    """What a client tells: the sums of its errors, and nothing else.

    Attributes:
        plain: With the input as it is.
        dealt: Block to the sums of each repeat.
    """

    plain: ErrorSums
    dealt: Mapping[str, tuple[ErrorSums, ...]]

    def __add__(self, other: ClientSums) -> ClientSums:
        names = dict.fromkeys((*self.dealt, *other.dealt))
        return ClientSums(
            self.plain + other.plain,
            {
                name: tuple(
                    a + b for a, b in zip(self.repeats(name), other.repeats(name), strict=False)
                )
                for name in names
            },
        )

    def repeats(self, block: str) -> tuple[ErrorSums, ...]:
        """Return the sums of a block's repeats; of one that the model has not, the plain ones."""
        most = max((len(sums) for sums in self.dealt.values()), default=0)
        return self.dealt.get(block, (self.plain,) * most)


@dataclass(frozen=True)
class Rise:
    """By how much a score grows when a block is dealt anew.

    Attributes:
        mean: Mean over the repeats.
        deviation: Standard deviation over the repeats (of n − 1); NaN for one repeat.
    """

    mean: float
    deviation: float

    @classmethod
    def of(cls, plain: float, dealt: Sequence[float]) -> Rise:
        """Return the rise of a score from its value with the input as it is."""
        rises = np.asarray(dealt) - plain
        many = len(rises) > 1
        return cls(float(rises.mean()), float(rises.std(ddof=1)) if many else float("nan"))


@dataclass(frozen=True, eq=False)
class Importance:
    """What the clients of a fleet have told.

    Attributes:
        clients: Client to its sums.
        left_out: Client to the reason why it could not be asked, one of `WHY`.
    """

    clients: Mapping[str, ClientSums]
    left_out: Mapping[str, str]

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that any client has, in the order in which they come."""
        return tuple(dict.fromkeys(name for own in self.clients.values() for name in own.dealt))

    def scores(self, client: str | None = None) -> dict[str, float]:
        """Return nMAE and pinball loss with the input as it is, of a client or of the fleet."""
        if client is not None:
            return _scores(self.clients[client].plain)
        return score_fleet({name: own.plain for name, own in self.clients.items()})

    def rises(self, block: str, client: str | None = None) -> dict[str, Rise]:
        """Return by how much each of `MEASURES` grows, of a client or of the fleet.

        The fleet's is the difference of two fleet scores, each a mean over the clients.
        """
        plain = self.scores(client)
        if client is not None:
            dealt = [_scores(sums) for sums in self.clients[client].repeats(block)]
        else:
            own = {name: sums.repeats(block) for name, sums in self.clients.items()}
            count = min(len(sums) for sums in own.values())
            dealt = [
                score_fleet({name: sums[k] for name, sums in own.items()}) for k in range(count)
            ]
        return {name: Rise.of(plain[name], [one[name] for one in dealt]) for name in MEASURES}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; what is not a number is None."""
        return {
            **self._told(None),
            "clients": {name: self._told(name) for name in self.clients},
            "left_out": dict(self.left_out),
        }

    def _told(self, client: str | None) -> dict[str, Any]:
        scores = self.scores(client)
        rows = []
        for block in self.blocks:
            row: dict[str, Any] = {"block": block}
            for name, rise in self.rises(block, client).items():
                row |= {name: _plain(rise.mean), f"{name}_sd": _plain(rise.deviation)}
            rows.append(row)
        return {**{name: _plain(scores[name]) for name in MEASURES}, "rows": rows}


def importance(
    model: Model, clients: Mapping[str, Sequence[Windows]], by: By, repeats: int, seed: int
) -> Importance:
    """Deal the blocks of each client's windows anew, and score what the model makes of it.

    Args:
        model: A run's model.
        clients: Client to its test windows, by meter.
        by: How finely the input is cut.
        repeats: Permutations of each client's windows.
        seed: Root of the run; a client's permutations depend on it, its name and the repeat.

    Raises:
        FederationError: FL364, no client has two windows that the model can forecast; FL363, the
            model is of a kind that cannot be taken apart.
    """
    told: dict[str, ClientSums] = {}
    left_out: dict[str, str] = {}
    for name, parts in clients.items():
        asked = [(part, orders) for part in parts if (orders := _orders(part, name, repeats, seed))]
        looks = [(part, orders, look(model, name, part, by)) for part, orders in asked]
        sums = [client_sums(own, part, orders) for part, orders, own in looks if own is not None]
        if not asked:
            left_out[name] = "few_windows"
        elif not sums:
            left_out[name] = "no_model"
        else:
            told[name] = sum(sums[1:], start=sums[0])
    if not told:
        raise FederationError(
            Fault(
                "FL364",
                "no client has two test windows that could be exchanged",
                "\n".join(f"client {name}: {WHY[why]}" for name, why in list(left_out.items())[:5]),
                "take a run with a longer test window, or a model that serves everybody",
            )
        )
    return Importance(told, left_out)


def client_sums(own: Look, windows: Windows, orders: Sequence[Ints]) -> ClientSums:
    """Return the error sums of one meter's windows, as they are and with each block dealt anew."""
    target_kwh = windows.target_kwh()
    return ClientSums(
        ErrorSums.of(own.forecast(None), target_kwh),
        {
            block: tuple(
                ErrorSums.of(own.forecast(Deal(block, order)), target_kwh) for order in orders
            )
            for block in own.blocks
        },
    )


def look(model: Model, client_id: str, windows: Windows, by: By) -> Look | None:
    """Prepare a model for many questions about a client's windows; None where it has none for it.

    Quantiles are calibrated as in the run: where calibration follows the client, it follows the
    dealt forecasts' errors too, as it would if that part of the input were always of another day.

    Raises:
        FederationError: FL363, a kind of model that cannot be taken apart.
    """
    if isinstance(model, CalibratedModel | FollowedModel):
        inner = look(model.plain, client_id, windows, by)
        return (
            None
            if inner is None
            else Look(
                inner.blocks,
                lambda deal: _calibrated(model, client_id, windows, inner.forecast(deal)),
            )
        )
    if isinstance(model, BlendedModel):
        return _blended(model, client_id, windows, by)
    if isinstance(model, TrainedModel):
        return _single(model, client_id, windows, by)
    raise unknown(model)


def state_of(model: TrainedModel, client_id: str, windows: Windows) -> Arrays | None:
    """Return the parameters that forecast a client's windows; None where there are none for it.

    A client that took no part in a run with clusters joins one by its own readings.
    """
    if isinstance(model, ClusteredModel) and len(windows):
        series = {client_id: windows.series}
        model = model.settled(series, windows.issue_utc_s, windows.timezone)
    return model.state_for(client_id)


def unknown(model: Model) -> FederationError:
    """Return the fault of a model of a kind that nothing here knows."""
    job = model.job
    return FederationError(
        Fault(
            "FL363",
            f"a model of type {type(model).__name__} cannot be taken apart",
            f"{job.model} ({job.training})",
            "choose another with --model and --training",
        )
    )


# ------------------------------------------------------------------------------ internals
def _scores(sums: ErrorSums) -> dict[str, float]:
    return {"nmae": sums.nmae, "pinball": sums.pinball}


def _plain(value: float) -> float | None:
    return value if isfinite(value) else None


def _orders(windows: Windows, client_id: str, repeats: int, seed: int) -> list[Ints]:
    """Return permutations of the windows that can be forecast; none where there are not two."""
    if not len(windows):
        return []
    served = np.flatnonzero(np.isfinite(trailing_level(windows).scale_kwh))
    if served.size < 2:
        return []
    orders = []
    for repeat in range(repeats):
        order = np.arange(len(windows))
        order[served] = derive(seed, "importance", client_id, repeat).permutation(served)
        orders.append(order)
    return orders


def _single(model: TrainedModel, client_id: str, windows: Windows, by: By) -> Look | None:
    state = state_of(model, client_id, windows)
    if state is None:
        return None
    learner = model.learner
    design = learner.design(windows, targets=False)
    blocks: dict[str, Block] = {b.name: b for b in blocks_of(learner, windows, by)}
    module = learner.loaded(state).eval() if isinstance(learner, GradientLearner) else None

    def forecast(deal: Deal | None) -> Forecast:
        seen = design if deal is None else moved(design, blocks[deal.block], deal.order)
        if module is not None:
            assert isinstance(learner, GradientLearner)
            return learner.forecast_with(module, seen)
        return learner.forecast(state, seen)

    plain = forecast(None)
    return Look(
        tuple(blocks),
        # What the model does not see cannot change its answer.
        lambda deal: plain if deal is None or deal.block not in blocks else forecast(deal),
    )


def _blended(model: BlendedModel, client_id: str, windows: Windows, by: By) -> Look | None:
    known = model.blend.weights_of(client_id)
    weights = np.array(model.unseen) if known is None else known
    parts = [
        (own, float(weight))
        for part, weight in zip(model.parts, weights, strict=True)
        if weight > 0 and (own := look(part, client_id, windows, by)) is not None
    ]
    if not parts:
        return None
    names = dict.fromkeys(name for own, _ in parts for name in own.blocks)
    used = [weight for _, weight in parts]
    return Look(tuple(names), lambda deal: blended([own.forecast(deal) for own, _ in parts], used))


def _calibrated(
    model: CalibratedModel | FollowedModel, client_id: str, windows: Windows, made: Forecast
) -> Forecast:
    if isinstance(model, FollowedModel):
        start = model.fleet.of(client_id)
        return made if start is None else follow(start, windows, made)[0]
    own = model.calibration.of(client_id)
    return made if own is None else own.of(windows, made)
