"""`AttackedGrid`: the cohort engine with hostile clients among its own.

Strategy and gate are the product's, and do not know that they are being tried. A round's honest
updates are collected before anything is handed on, for some attackers look at them: so memory
holds one round, which only a laboratory may ask for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.attack import Attack as Settings
from fl_inmetro.config.attack import AttackName
from fl_inmetro.config.schema import Execution
from fl_inmetro.errors import Fault
from fl_inmetro.federation import messages
from fl_inmetro.federation.attacks.malformed import fault_of
from fl_inmetro.federation.attacks.sight import Sight
from fl_inmetro.federation.attacks.table import ATTACKS
from fl_inmetro.federation.cohort_grid import CohortGrid, Digest
from fl_inmetro.federation.engines import Digested
from fl_inmetro.learning.client import ClientWorker, Enrolment
from fl_inmetro.learning.private_moments import MomentsAsked
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays, Layout, UpdateBlock
from fl_inmetro.learning.work import CONTROL
from fl_inmetro.seeds import derive

Ints = NDArray[np.int64]


def hostile_clients(client_ids: Sequence[str], share: float, seed: int) -> tuple[str, ...]:
    """Return the hostile clients, sorted; those of a smaller share are among those of a larger.

    ⌊share · n⌋ of them, as a robust rule counts those that it bears; but at least one for a share
    above 0, and at least one client stays honest.
    """
    if share <= 0 or len(client_ids) < 2:
        return ()
    names = sorted(client_ids)
    count = min(max(math.floor(share * len(names) + 1e-9), 1), len(names) - 1)
    order = derive(seed, "attack", "hostile").permutation(len(names))
    return tuple(sorted(names[k] for k in order[:count]))


class AttackedGrid(CohortGrid):
    """Nodes in this process, some of which are hostile.

    Args:
        workers: One per node; those of hostile clients may train on poisoned windows.
        execution: Threads, chunk, memory, device.
        should_stop: Looked at between chunks; True raises `Interrupted`.
        attack: What the hostile clients do.
        hostile: Their names.
        settings: `[attack]`.
        seed: Root seed.
        debug: Stop at the first failure; the error names client, round and step.
    """

    def __init__(
        self,
        workers: Sequence[ClientWorker],
        execution: Execution | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        attack: AttackName,
        hostile: Collection[str],
        settings: Settings,
        seed: int,
        debug: bool = False,
    ) -> None:
        super().__init__(workers, execution, should_stop, debug=debug)
        self._attack_name = attack
        self._attack = ATTACKS[attack]
        self._hostile = frozenset(hostile)
        self._attack_settings = settings
        self._attack_seed = seed
        #: Round and model before, and of the round at work.
        self._models: tuple[tuple[int, Arrays], tuple[int, Arrays]] = ((0, {}), (0, {}))
        #: Client to the first round that it trained in, and its honest update of that round.
        self._first: dict[str, tuple[int, NDArray[np.float64]]] = {}

    def train_blocks(
        self,
        state: Arrays,
        client_ids: Sequence[str],
        request: messages.TrainRequest,
        digest: Callable[[UpdateBlock], Digest],
        epochs: Ints | None = None,
        control: Arrays | None = None,
    ) -> Iterator[Digest | ClientFailure]:
        """Train all clients honestly, let the hostile ones craft, and hand every block on.

        A probe is answered honestly: it trains nobody.
        """
        if request.round != self._models[1][0]:  # a round may be tried again
            self._models = (self._models[1], (request.round, state))
        if request.work.probe or not self._hostile & set(client_ids):
            yield from super().train_blocks(state, client_ids, request, digest, epochs, control)
            return
        # A list: the crafting of any row may need all of them.
        results = list(
            super().train_blocks(state, client_ids, request, lambda block: block, epochs, control)
        )
        blocks = [result for result in results if isinstance(result, UpdateBlock)]
        crafted = iter(self._crafted(blocks, request.round))
        for result in results:
            if isinstance(result, ClientFailure):
                yield result
            elif self._attack.malformed:
                yield self._with_malformed(result, request, digest)
            else:
                yield digest(next(crafted))

    def enrolments(
        self, asked: MomentsAsked | None = None
    ) -> Iterator[tuple[int, Enrolment | ClientFailure]]:
        """Yield what the clients say of themselves; hostile ones may make up their sums."""
        forge = self._attack.enrols
        for node, said in super().enrolments(asked):
            if forge and isinstance(said, Enrolment) and said.client_id in self._hostile:
                said = replace(said, sums=forge(said.sums, self._attack_settings))
            yield node, said

    # --------------------------------------------------------------------------- internals
    def _with_forged_sums(self, block: UpdateBlock) -> UpdateBlock:
        """Return a block with the sums of hostile clients replaced."""
        assert self._attack.sums is not None
        matrix = block.matrix.copy()
        for row in np.flatnonzero(self._bad(block)):
            forged = self._attack.sums(block.layout.arrays(matrix[row]), self._attack_settings)
            matrix[row] = block.layout.flat(forged)
        return replace(block, matrix=matrix)

    def _crafted(self, blocks: Sequence[UpdateBlock], round_: int) -> list[UpdateBlock]:
        """Return the blocks with the rows and weights of hostile clients replaced."""
        if self._attack.sums is not None:
            return [self._with_forged_sums(block) for block in blocks]
        if self._attack.craft is None or not blocks:
            return list(blocks)
        bad = np.concatenate([self._bad(block) for block in blocks])
        if not bad.any():
            return list(blocks)
        rows = np.concatenate([block.matrix for block in blocks]).astype(np.float64)
        weights = np.concatenate([block.weights for block in blocks])
        names = [name for block in blocks for name in block.client_ids]
        own = [name for name, hostile in zip(names, bad, strict=True) if hostile]
        sight = Sight(
            rows[bad],
            weights[bad],
            rows[~bad],
            weights[~bad],
            round_,
            derive(self._attack_seed, "attack", self._attack_name, "round", round_),
            self._last_change(blocks[0].layout),
            self._sent_first(own, rows[bad], round_),
        )
        # A model that is already ruined makes numbers that are not finite.
        with np.errstate(all="ignore"):
            crafted = self._attack.craft(sight, self._attack_settings)
            matrix = crafted.matrix.astype(blocks[0].matrix.dtype)
        places = np.cumsum(bad) - 1
        result, start = [], 0
        for block in blocks:
            mine = self._bad(block)
            if mine.any():
                taken = places[start : start + len(block)][mine]
                changed, claimed = block.matrix.copy(), block.weights.copy()
                changed[mine], claimed[mine] = matrix[taken], crafted.weights[taken]
                block = replace(block, matrix=changed, weights=claimed)
            result.append(block)
            start += len(block)
        return result

    def _bad(self, block: UpdateBlock) -> NDArray[np.bool_]:
        return np.array([name in self._hostile for name in block.client_ids], dtype=bool)

    def _last_change(self, layout: Layout) -> NDArray[np.float64]:
        """Return the last change of the global model in the order of a row."""
        (_, before), (_, now) = self._models
        change = np.zeros(layout.width)
        if before:
            for name, place in layout.slices().items():
                if not name.startswith(CONTROL):
                    order: Literal["C", "F"] = "F" if name in layout.turned else "C"
                    difference = now[name].astype(np.float64) - before[name]
                    change[place] = np.ravel(difference, order=order)
        return change

    def _sent_first(
        self, names: Sequence[str], rows: NDArray[np.float64], round_: int
    ) -> NDArray[np.float64]:
        """Return what clients sent in an earlier round, NaN where that was none; remember these."""
        sent = np.full_like(rows, np.nan)
        for place, name in enumerate(names):
            when, row = self._first.setdefault(name, (round_, rows[place].copy()))
            if when < round_:
                sent[place] = row
        return sent

    def _with_malformed(
        self,
        block: UpdateBlock,
        request: messages.TrainRequest,
        digest: Callable[[UpdateBlock], Digest],
    ) -> Digest:
        """Digest the honest rows; the others are messages, read by the product's own reader."""
        bad = self._bad(block)
        digested = digest(block.rows(~bad))
        if not isinstance(digested, Digested):
            raise TypeError("messages of the wrong form are of strategies that digest blocks")
        nodes = list(self.get_node_ids())
        faults: Mapping[str, Fault] = {
            name: fault_of(block.update(row), nodes[self._places[name]], request, row)
            for row, name in enumerate(block.client_ids)
            if bad[row]
        }
        return cast(Digest, replace(digested, refused={**digested.refused, **faults}))
