"""`DeltaMerge`: rule, server optimiser and corrections in one, for every strategy of the table.

The parts are chosen by `federation/recipes.py` and combine freely: how updates are weighed, how
they become one (a running weighted mean, or a robust rule on all of them), what is corrected, and
what the server optimiser does with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fl_inmetro.errors import Fault
from fl_inmetro.federation.progress import with_prefix
from fl_inmetro.federation.robust import CenteredClipping, Rule
from fl_inmetro.federation.rules import Floats, WeightedSum, total_of, weighted_sum
from fl_inmetro.federation.server_optimizers import ServerOptimizer, Sgd
from fl_inmetro.federation.stack import Spool, Stack
from fl_inmetro.federation.weighing import ByPoints, Weighing
from fl_inmetro.learning.update import Arrays, Layout, UpdateBlock, with_control
from fl_inmetro.learning.work import CONTROL

#: Arrays of a state that are set at enrolment, or steer a solution, and are never trained.
BUFFERS = frozenset({"x_mean", "x_std", "context_and_horizon", "smoothing", "gain"})

_OPTIMIZER, _PREVIOUS, _DRIFT, _CENTRE = "optimizer.", "previous.", "drift.", "centre."
_AVERAGE, _AVERAGED = "average.", "averaged"


@dataclass(frozen=True, eq=False)
class Held:
    """A block that a robust rule will see whole.

    Attributes:
        block: The updates as the rule is to see them.
        weights: What each counts, shape (K,).
        terms: Sums of the weighing, shape (T,).
    """

    block: UpdateBlock
    weights: Floats
    terms: Floats

    def kept_by(self, spool: Spool) -> Held:
        """Return the same with its updates where the spool has room for them."""
        return replace(self, block=replace(self.block, matrix=spool.keep(self.block.matrix)))


@dataclass(frozen=True)
class DeltaMerge:
    """w ← w + optimiser(rule(Δ_1 … Δ_K)), with the corrections of the strategies that have one.

    Attributes:
        optimizer: The server's; `Sgd(1)` replaces w by the mean of the clients' weights (FedAvg).
        private: Parameters that stay on the clients.
        rule_of: Number of clients to the rule; None = weighted mean, in running form.
        remembers: The rule starts from the last round's answer (centred clipping).
        weighing: How each update counts.
        scaffold: Clients also send changes of their control variates. The server's moves by
            Σ n_k Δc_k / n, n over all clients: the paper's mean where all have as many points.
            Source: Karimireddy et al. (2020), "SCAFFOLD", Algorithm 1.
        total_points: n, for `scaffold`.
        beta: Variance control, Δ ← Δ − β(Δ − Δ_previous); every rule that moves with its
            updates gives the same whether each update is corrected or their aggregate.
        alpha: FedDyn, h ← h − α (|S|/m) Δ and w ← w + Δ − h/α; 0 = off.
            Source: Acar et al. (2021), "Federated Learning Based on Dynamic Regularization".
        clients: m, for `alpha`.
        average: Decay λ of the model that is kept, w̄ ← λ_t w̄ + (1 − λ_t) w after each round t,
            λ_t = min(λ, t / (t + 9)), so that the first rounds are soon forgotten; 0 = off.
            Source: Polyak & Juditsky (1992) for averaging the iterates of SGD.
    """

    optimizer: ServerOptimizer = field(default_factory=lambda: Sgd(1.0))
    private: frozenset[str] = frozenset()
    rule_of: Callable[[int], Rule] | None = None
    remembers: bool = False
    weighing: Weighing = field(default_factory=ByPoints)
    scaffold: bool = False
    total_points: float = 0.0
    beta: float = 0.0
    alpha: float = 0.0
    clients: int = 0
    average: float = 0.0

    def shared(self, state: Arrays) -> Arrays:
        """Return the trained and shared part of a state: buffers have no delta."""
        return {
            name: array
            for name, array in state.items()
            if name not in BUFFERS and name not in self.private
        }

    def reply_like(self, state: Arrays) -> Arrays:
        """Return the deltas that a reply has and, with SCAFFOLD, its control variates."""
        shared = self.shared(state)
        return with_control(shared) if self.scaffold else shared

    def begin(self, state: Arrays) -> Arrays:
        """Return the optimiser's memory and what the corrections start from."""
        shared = self.shared(state)
        memory = _with(_OPTIMIZER, self.optimizer.begin(shared))
        if self.scaffold:
            memory |= {CONTROL + name: np.zeros_like(array) for name, array in shared.items()}
        if self.alpha:
            memory |= {_DRIFT + n: np.zeros(a.shape) for n, a in shared.items()}
        if self.average:
            memory |= _with(_AVERAGE, {n: a.astype(np.float64) for n, a in shared.items()})
            memory[_AVERAGED] = np.zeros(1)
        return memory

    def control(self, memory: Arrays) -> Arrays:
        """Return SCAFFOLD's control variate of the server."""
        return with_prefix(CONTROL, memory)

    def served(self, state: Arrays, memory: Arrays) -> Arrays:
        """Return the average model, where one is kept, else the state."""
        average = with_prefix(_AVERAGE, memory)
        return state | {name: value.astype(state[name].dtype) for name, value in average.items()}

    def needs(self, clients: int) -> Fault | None:
        """Return why a round of so many clients cannot be merged; None if it can."""
        return self.rule_of(clients).needs(clients) if self.rule_of else None

    def digest(self, block: UpdateBlock) -> Any:
        """Return the sums of a block, or the block itself for a rule that must see all."""
        coefficients, terms = self.weighing.rows(block)
        if self.rule_of is None:
            return weighted_sum(block, coefficients, terms)
        # The first term is what the weighing lets each update count; an update prepared for a rule
        # has the rest of its coefficient in its values.
        return Held(self.weighing.prepared(block), terms[:, 0].copy(), terms.sum(0))

    def __call__(
        self, state: Arrays, digests: Sequence[Any], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the next state and memory; what has no delta stays as it is."""
        aggregated, terms, centre = self._aggregate(digests, memory)
        delta = {n: a for n, a in aggregated.items() if not n.startswith(CONTROL)}
        kept: Arrays = {}
        if self.scaffold:
            share = terms[0] / self.total_points if self.total_points else 1.0
            kept |= {
                CONTROL + name: (value + share * aggregated[CONTROL + name]).astype(value.dtype)
                for name, value in self.control(memory).items()
            }
        previous = with_prefix(_PREVIOUS, memory)
        if self.beta and previous:
            delta = {n: d - self.beta * (d - previous[n]) for n, d in delta.items()}
        if self.beta:
            kept |= _with(_PREVIOUS, delta)
        if self.remembers:
            kept |= _with(_CENTRE, centre)
        step, moments = self.optimizer.step(delta, with_prefix(_OPTIMIZER, memory))
        kept |= _with(_OPTIMIZER, moments)
        if self.alpha:
            share_of_all = terms[0] / (self.clients or terms[0])  # FedDyn counts each as one
            drift = {
                n: h - self.alpha * share_of_all * delta[n]
                for n, h in with_prefix(_DRIFT, memory).items()
            }
            step = {n: s - drift[n] / self.alpha for n, s in step.items()}
            kept |= _with(_DRIFT, drift)
        after = {
            name: (value + step[name]).astype(value.dtype) if name in step else value
            for name, value in state.items()
        }
        if self.average:
            rounds = memory[_AVERAGED] + 1.0
            decay = min(self.average, float(rounds[0] / (rounds[0] + 9.0)))
            kept |= {
                _AVERAGE + n: decay * a + (1.0 - decay) * after[n]
                for n, a in with_prefix(_AVERAGE, memory).items()
            }
            kept[_AVERAGED] = rounds
        return after, kept

    def _aggregate(self, digests: Sequence[Any], memory: Arrays) -> tuple[Arrays, Floats, Arrays]:
        """Return the aggregate, the terms of the weighing, and what the rule itself answered."""
        if self.rule_of is None:
            total: WeightedSum = total_of(digests)
            vector = total.vector * self.weighing.factor(total.terms)
            return total.layout.arrays(vector), total.terms, {}
        layout = digests[0].block.layout
        terms = np.sum([held.terms for held in digests], axis=0)
        centre = self._by_rule(digests, layout, memory)
        answer = layout.arrays(centre * self.weighing.factor_after_rule(terms))
        deltas = {n: a for n, a in layout.arrays(centre).items() if not n.startswith(CONTROL)}
        return answer, terms, deltas

    def _by_rule(self, digests: Sequence[Held], layout: Layout, memory: Arrays) -> Floats:
        """Apply the rule to the deltas and, apart from them, to SCAFFOLD's control variates."""
        assert self.rule_of is not None
        weights = np.concatenate([held.weights for held in digests])
        rule = self.rule_of(len(weights))
        width = layout.width // 2 if self.scaffold else layout.width
        vector = np.zeros(layout.width)
        for start in range(0, layout.width, width):
            half = slice(start, start + width)
            own = rule
            # Control variates start from zero: their last change says nothing of the next.
            if start == 0 and isinstance(rule, CenteredClipping):
                own = replace(rule, start=self._start(layout, memory))
            vector[half] = own(Stack.of([held.block.matrix[:, half] for held in digests]), weights)
        return vector

    def _start(self, layout: Layout, memory: Arrays) -> Floats | None:
        """Return the last round's aggregate as a vector; None in the first round."""
        centre = with_prefix(_CENTRE, memory)
        if not centre:
            return None
        start: Floats = Layout.of(centre, layout.turned).flat(centre)
        return start


def _with(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}
