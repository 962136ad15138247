"""One client's private training by the batched program, where the plain one would take its time.

The plain loop takes the gradient of one window after the other. A node that trains alone need not:
it is a chunk of one client, and gets what the loop gets, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.cohort import train_chunk
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.lift import Lifted, NotLiftable
from fl_inmetro.learning.rows import Rows, training_arrays
from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.models.design import Design
from fl_inmetro.privacy.secret import Secret


def update_alone(
    learner: GradientLearner,
    state: Arrays,
    design: Design,
    work: LocalWork,
    seed: int,
    *,
    shift: Mapping[str, NDArray[Any]] | None = None,
    secret: Secret | None = None,
    debug: bool = False,
) -> tuple[Arrays, float]:
    """Do what `GradientLearner.update` does, which see for all arguments, as a chunk of one client.

    A network that has no batched form is trained by the loop.

    Raises:
        StepError: As the loop.
        ValueError: As the loop.
    """
    arrays = training_arrays(design)
    lifted = _lifted(learner, state, arrays["x"].shape[1:])
    if lifted is None:
        return learner.update(state, design, work, seed, shift=shift, secret=secret, debug=debug)
    private = learner.private(state)
    layout = Layout.of({n: state[n] for n in lifted.names if n not in private}, lifted.turned)
    done = train_chunk(
        learner,
        lifted,
        state,
        Rows.of(arrays, np.array([len(arrays["x"])])),
        work,
        np.array([work.epochs]),
        [seed],
        private={name: state[name][None] for name in private},
        shift={name: value[None] for name, value in (shift or {}).items()},
        secrets=None if secret is None else [secret],
        layout=layout,
        debug=debug,
    )
    sent = layout.with_control() if work.control == "scaffold" else layout
    own = {name: value[0] - state[name] for name, value in done.private.items()}
    return sent.arrays(done.matrix[0]) | own, float(done.losses[0])


def _lifted(learner: GradientLearner, state: Arrays, row_shape: tuple[int, ...]) -> Lifted | None:
    """Return the learner's network for many clients; None where there is none that agrees."""
    module = learner.loaded(state).eval()
    try:
        lifted = Lifted(module, stepped=True)
    except NotLiftable:
        return None
    return lifted if lifted.agrees(module, row_shape) else None
