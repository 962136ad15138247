"""From a run directory to what its model rests on: the wiring of `fl-inmetro importance`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.explain.blocks import By
from fl_inmetro.explain.importance import importance
from fl_inmetro.plan import prepare
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import Model


def study(
    record: RunRecord, model: Model, clients: Sequence[str], by: By, repeats: int
) -> dict[str, Any]:
    """Ask the clients of a run, or some of them, and return what they told as plain JSON types.

    The run's data are read and cut again as the run did.

    Raises:
        FederationError: FL360, the run has no such client; FL363 or FL364, see `importance`.
        DataError: The data of the run cannot be read.
    """
    prepared = prepare(record.config)
    held = {name: one.test for name, one in prepared.clients.items()}
    made = prepared.partitioned is not None
    faults = [_nobody(name, list(held), made=made) for name in clients if name not in held]
    if faults:
        raise FederationError(faults)
    asked = {name: held[name] for name in (clients or held)}
    found = importance(model, asked, by, repeats, record.config.seed)
    return {
        "run": record.id,
        "model": model.job.model,
        "training": model.job.training,
        "by": by,
        "repeats": repeats,
        "simulated": bool(record.manifest["data"].get("simulated")),
        **found.to_json(),
    }


def _nobody(client: str, held: Sequence[str], *, made: bool) -> Fault:
    from difflib import get_close_matches

    near = get_close_matches(client, held, n=3) or held[:3]
    return Fault(
        "FL360",
        f"there is no client `{client}`",
        f"the run has {len(held)} clients"
        + (", made by [partition] of the windows of its meters" if made else "")
        + f", such as {', '.join(near)}",
        "name one of them with --client, or leave it out for all",
    )
