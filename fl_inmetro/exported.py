"""A run's model as ONNX files, for programs that have neither this package nor PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_inmetro.data.features import feature_names
from fl_inmetro.data.protocols import horizon_of, lead_of
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import Fault, RunError
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.neural import ContextLearner, NLinearLearner
from fl_inmetro.learning.onnx_form import Rows, to_onnx
from fl_inmetro.learning.quantile_linear import QuantileLinearLearner
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.models.design import context_steps
from fl_inmetro.runs.layout import write_whole
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.seeds import derive
from fl_inmetro.trained import (
    BlendedModel,
    CalibratedModel,
    FollowedModel,
    Model,
    TrainedModel,
)
from fl_inmetro.units import DAY_S

#: Windows that a file is checked on, and the days of made-up readings that they come from.
_CHECKED, _DAYS = 8, 56


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        files: The ONNX files, one for each component.
        weights: Weight of each file in the blend; (1.0,) for a single model.
        recipe: The JSON file that says how to blend them, None for a single model.
        largest_gap: Largest difference between onnxruntime and PyTorch, as a share of
            max(1, |value|).
        calibrated: Whether the run calibrates this model's quantiles, which the files do not.
    """

    files: tuple[Path, ...]
    weights: tuple[float, ...]
    recipe: Path | None
    largest_gap: float
    calibrated: bool


@dataclass(frozen=True, eq=False)
class _Component:
    model: TrainedModel
    state: Arrays
    weight: float


def export(record: RunRecord, model: Model, path: Path, client_id: str = "") -> Exported:
    """Write a model as ONNX, each file checked by onnxruntime.

    The outputs of a file are in units of the client's scale, relative to its base profile; the
    metadata say what to do with them, and `docs/serving.md`.

    Args:
        record: The run.
        model: A model of it.
        path: The file, `….onnx`; the components of a blend are written beside it.
        client_id: Whose model, where clients have models or weights of their own; empty = the
            model for clients that the run has never seen.

    Raises:
        RunError: FL704 the place cannot be written; FL717 a package is missing; FL718 the
            model has no ONNX form; FL719 there is no model for this client.
    """
    plain = model.plain if isinstance(model, CalibratedModel | FollowedModel) else model
    parts = _components(plain, client_id, 1.0)
    if not parts:
        who = f"client {client_id}" if client_id else "a client that the run has never seen"
        raise RunError(
            Fault(
                "FL719",
                f"{model.job.model} ({model.job.training}) has no model for {who}",
                f"run {record.id}",
                "name a client of the run with --client, or take --training federated",
            )
        )
    base = f"{path.stem}.{{}}-{{}}{path.suffix}"
    single = len(parts) == 1
    files, gaps = [], []
    for number, part in enumerate(parts, start=1):
        job = part.model.job
        file = path if single else path.with_name(base.format(number, job.model))
        example = example_input(record, part.model.learner)
        made = to_onnx(
            part.model.learner, part.state, example, metadata(record, part.model, client_id)
        )
        write_whole(file, made.bytes)
        files.append(file)
        gaps.append(made.largest_gap)
    weights = tuple(part.weight for part in parts)
    recipe = None if single else path.with_suffix(".json")
    if recipe is not None:
        write_whole(recipe, _recipe(record, model, client_id, files, weights))
    return Exported(
        tuple(files),
        weights,
        recipe,
        max(gaps),
        calibrated=isinstance(model, CalibratedModel | FollowedModel),
    )


def metadata(record: RunRecord, model: TrainedModel, client_id: str = "") -> dict[str, object]:
    """Return what a file says of itself: what goes in, what comes out, and where it is from."""
    learner = model.learner
    resolution_s = int(record.manifest["data"]["resolution_s"])
    head = learner.head if isinstance(learner, GradientLearner) else None
    levels: tuple[float, ...] = () if head is None else tuple(head.levels)
    if isinstance(learner, QuantileLinearLearner):
        levels = learner.settings.levels
    context = isinstance(learner, ContextLearner)
    base = "day-type profile"
    if isinstance(learner, ContextLearner) and learner.base == "median":
        base = "median day-type profile"
    if isinstance(learner, NLinearLearner):
        base = "last reading"
    if head is not None and head.absolute:
        base = "zero"
    return {
        "fl_inmetro.run": record.id,
        "fl_inmetro.config_hash": str(record.manifest["config_hash"]),
        "fl_inmetro.model": model.job.model,
        "fl_inmetro.training": model.job.training,
        "fl_inmetro.client": client_id,
        "fl_inmetro.resolution_s": resolution_s,
        "fl_inmetro.horizon_steps": _horizon(record),
        "fl_inmetro.lead_steps": _lead(record),
        "fl_inmetro.levels": list(levels),
        "fl_inmetro.input": "context" if context else "rows",
        "fl_inmetro.context_steps": (
            context_steps(learner.context_h, resolution_s)
            if isinstance(learner, ContextLearner)
            else 0
        ),
        "fl_inmetro.features": list(_features(learner)),
        "fl_inmetro.normalise": learner.normalise
        if isinstance(learner, ContextLearner)
        else "scale",
        "fl_inmetro.base": base,
        "fl_inmetro.energy_kwh": "max((base + output) * scale_kwh, floor_kwh)",
    }


def example_input(record: RunRecord, learner: Learner) -> Rows:
    """Return inputs of a learner from readings that are made up; shape (8, …).

    Nothing of any client is in them; they have gaps, zeros and a peak, so that no branch of a
    model stays unseen.
    """
    resolution_s = int(record.manifest["data"]["resolution_s"])
    per_day = DAY_S // resolution_s
    rng = derive(0, "export", "example")
    energy = rng.gamma(1.5, 1.0, _DAYS * per_day)
    energy[rng.random(energy.size) < 0.03] = np.nan
    energy[rng.random(energy.size) < 0.05] = 0.0
    energy[-per_day] = 40.0
    series = ClientSeries("example", 0, resolution_s, energy)
    issues = (np.arange(_CHECKED, dtype=np.int64) + _DAYS - _CHECKED + 1) * per_day
    windows = Windows(series, issues, _horizon(record), "UTC", lead=_lead(record))
    return learner.design(windows, targets=False).x


# ------------------------------------------------------------------------------ internals
def _components(model: Model, client_id: str, weight: float) -> list[_Component]:
    """Return the trained models behind a model, with their shares of the forecast.

    A blend of blends is one blend with the products of the weights.
    """
    if isinstance(model, CalibratedModel | FollowedModel):
        return _components(model.plain, client_id, weight)
    if isinstance(model, TrainedModel):
        state = model.state_for(client_id)
        return [] if state is None else [_Component(model, state, weight)]
    assert isinstance(model, BlendedModel)
    known = model.blend.weights_of(client_id)
    own = np.array(model.unseen) if known is None else known
    made = [
        (_components(part, client_id, 1.0), float(share))
        for part, share in zip(model.parts, own, strict=True)
        if share > 0
    ]
    there = [(parts, share) for parts, share in made if parts]
    total = sum(share for _, share in there)
    return [
        _Component(part.model, part.state, weight * share / total * part.weight)
        for parts, share in there
        for part in parts
    ]


def _features(learner: Learner) -> tuple[str, ...]:
    groups: Any = ()
    if isinstance(learner, RidgeLearner | QuantileLinearLearner):
        groups = learner.settings.features
    elif isinstance(learner, GradientLearner):
        groups = getattr(learner.settings, "features", ())
    return feature_names(groups)


def _horizon(record: RunRecord) -> int:
    resolution_s = int(record.manifest["data"]["resolution_s"])
    return horizon_of(record.config.window, record.config.protocol, resolution_s)


def _lead(record: RunRecord) -> int:
    resolution_s = int(record.manifest["data"]["resolution_s"])
    return lead_of(record.config.window, record.config.protocol, resolution_s)


def _recipe(
    record: RunRecord, model: Model, client_id: str, files: list[Path], weights: tuple[float, ...]
) -> bytes:
    content: Mapping[str, object] = {
        "run": record.id,
        "config_hash": str(record.manifest["config_hash"]),
        "model": model.job.model,
        "training": model.job.training,
        "client": client_id or None,
        "components": [
            {"file": file.name, "weight": weight}
            for file, weight in zip(files, weights, strict=True)
        ],
        "blend": "turn each component into kWh by its own metadata, then take the weighted mean, "
        "of the means and of the quantiles that all components have",
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
