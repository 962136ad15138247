"""Clients made by hand, and what they answer to a round of DP-SGD on each engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_inmetro.config.models import NLinear
from fl_inmetro.learning import dp_sgd
from fl_inmetro.learning.cohort import train_chunk
from fl_inmetro.learning.gradient import GradientLearner, client_seed
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.neural import NLinearLearner
from fl_inmetro.learning.rows import Rows, RowStore, training_arrays
from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.models.design import Design
from fl_inmetro.privacy.secret import Secret

#: A fixed one, so that what is drawn here is the same each time.
ROOT = Secret(b"not a secret: 32 bytes of a test")


def design(x: Any, residual: Any, known: Any = None) -> Design:
    r = np.array(residual, dtype=np.float32)
    mask = np.ones_like(r) if known is None else np.array(known, dtype=np.float32)
    ones, zeros = np.ones(len(r)), np.zeros(len(r))
    return Design(np.array(x, dtype=np.float32), np.zeros_like(r), ones, zeros, r * mask, mask)


def nlinear(**settings: Any) -> NLinearLearner:
    values = {"optimizer": "sgd", "eta_l": 0.1, "batch_size": 0, "loss": "mse", **settings}
    return NLinearLearner(NLinear(**values))


def zeros() -> Arrays:
    return {"linear.weight": np.zeros((1, 2), np.float32), "linear.bias": np.zeros(1, np.float32)}


def by(
    engine: str,
    made: GradientLearner,
    state: Arrays,
    designs: list[Design],
    work: LocalWork,
    round_: int = 1,
) -> list[Arrays]:
    """The deltas of clients d0, d1, … on one engine."""
    client_seeds = [client_seed(2, f"d{k}", 1) for k in range(len(designs))]
    secrets = [dp_sgd.client_secret(ROOT, f"d{k}", round_) for k in range(len(designs))]
    if engine == "loop":
        both = zip(designs, client_seeds, strict=True)
        done = [
            made.update(state, one, work, seed, secret=own)
            for (one, seed), own in zip(both, secrets, strict=True)
        ]
        assert all(np.isnan(loss) for _, loss in done)  # it would have no noise
        return [deltas for deltas, _ in done]
    store = RowStore()
    for one in designs:
        store.append(training_arrays(one))
    count = np.array([len(training_arrays(one)["x"]) for one in designs])
    lifted = Lifted(made.module(state))
    rows = Rows.of(store.finish(), count)
    epochs = np.full(len(designs), work.epochs)
    done = train_chunk(made, lifted, state, rows, work, epochs, client_seeds, secrets=secrets)
    assert np.isnan(done.losses).all()
    layout = Layout.of({name: state[name] for name in lifted.names}, lifted.turned)
    return [layout.arrays(row) for row in done.matrix]
