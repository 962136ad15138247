"""The mean of a client's inputs, read off one update: no optimiser, no guess.

A layer y = W x + b has the gradients dW = Σ_t g_t x_tᵀ and db = Σ_t g_t, with g_t what comes back
from the loss. So dW_j / db_j is a mean of the inputs, weighted by g_tj: exact for one window,
and close to the plain mean for many. Over the units j it is one unknown vector in many equations,
dW_j = db_j m, of which least squares makes m = Σ_j db_j dW_j / Σ_j db_j²: units with little behind
them, and noise, count little. Steps of gradient descent add such sums up; what
many of them tell together is less, and steps of Adam, which weigh each number by itself, tell less
again. A server that is curious asks for one plain step over all windows instead (`gradient`): it is
the server that says what clients do.
Source: Geiping, Bauermeister, Dröge, Moeller (2020), "Inverting Gradients", proposition 3.1, for
one input of a biased layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro.leakage.results import Reconstruction
from fl_inmetro.leakage.scene import Scene
from fl_inmetro.leakage.view import View, comparable, measured, view_of

Floats = NDArray[np.float64]

#: Windows that are sent through a network to see what its layers are given.
_SHOWN = 4


@dataclass(frozen=True)
class Doors:
    """The linear layers through which inputs come into a network.

    Attributes:
        layers: Names of layers, each of which is given all of the first `width` inputs; or, with
            `parts`, of layers whose inputs add up to them.
        width: So many inputs, from the first.
        parts: Whether the layers are given parts that add up.
        mean: Shape (width,), what was taken off the inputs before the layers.
        std: Shape (width,), what they were divided by.
    """

    layers: tuple[str, ...]
    width: int
    parts: bool
    mean: Floats
    std: Floats


def doors_of(module: nn.Module, x: NDArray[np.float32]) -> Doors | None:
    """Find the layers that are given the inputs as they are, standardised, or in parts.

    Args:
        module: The network.
        x: Inputs of some windows, (N, …, F).

    Returns:
        None where no biased linear layer is given them so: recurrent and attention networks.
    """
    given = _given(module, torch.from_numpy(x[:_SHOWN]))
    own = torch.from_numpy(x[:_SHOWN])
    width = own.shape[-1]
    mean = getattr(module, "x_mean", torch.zeros(width)).double()
    std = getattr(module, "x_std", torch.ones(width)).double()
    plain = {name: seen for name, seen in given.items() if seen.shape[-1] <= width}
    for start, scale in ((mean, std), (torch.zeros(width), torch.ones(width))):
        if start.shape != (width,):
            continue
        wanted = (own.double() - start) / scale
        whole = [
            name for name, seen in plain.items() if _most_alike(seen, wanted[..., : seen.shape[-1]])
        ]
        if whole:
            wide = plain[whole[0]].shape[-1]
            same = tuple(name for name in whole if plain[name].shape[-1] == wide)
            return Doors(same, wide, False, start[:wide].numpy(), scale[:wide].numpy())
    for wide in sorted({seen.shape[-1] for seen in plain.values()}, reverse=True):
        parts = [name for name, seen in plain.items() if seen.shape == (*own.shape[:-1], wide)]
        if len(parts) > 1 and _most_alike(_added([plain[name] for name in parts]), own[..., :wide]):
            return Doors(tuple(parts), wide, True, np.zeros(wide), np.ones(wide))
    return None


def usable_doors(scene: Scene) -> Doors | None:
    """Return the layers through which inputs come in, where they are shared; else None."""
    some = scene.design(scene.names[0])
    doors = doors_of(scene.learner.loaded(scene.state).eval(), some.x)
    if doors is None or not set(_weights(doors)) <= set(scene.learner.shared(scene.state)):
        return None
    return doors


def mean_input(update: Mapping[str, NDArray[Any]], doors: Doors) -> Floats:
    """Return the mean of the inputs that an update tells of, in the inputs' own units; (width,)."""
    pairs = [
        (
            np.asarray(update[f"{name}.weight"], dtype=np.float64),
            np.asarray(update[f"{name}.bias"], dtype=np.float64),
        )
        for name in doors.layers
    ]
    if doors.parts:
        whole: Floats = np.sum([_solved([pair]) for pair in pairs], axis=0)
        return whole
    found: Floats = doors.mean + doors.std * _solved(pairs)
    return found


def ratio_attack(scene: Scene, victims: Sequence[str]) -> tuple[list[Reconstruction], str]:
    """Rebuild the victims' mean inputs from one update of each.

    Returns:
        What was found, empty where the network has no such layer; and what was rebuilt, `profile`
        or `features`.
    """
    some = scene.design(scene.names[0])
    view = view_of(scene.learner, _resolution_s(scene), some.x.shape[-1])
    doors = usable_doors(scene)
    if doors is None or not (view.columns < doors.width).any():
        return [], view.what
    view = View(view.what, view.columns[view.columns < doors.width])
    truths = {name: view.of(_mean(scene.design(name).x)) for name in scene.names}
    found = []
    for name in victims:
        if not comparable(truths[name]):
            continue
        others = np.mean([truth for other, truth in truths.items() if other != name], axis=0)
        windows = len(scene.design(name).x)
        updates = {"ratio": scene.update(name), "gradient": scene.gradient(name)}
        for attack, update in updates.items():
            guess = np.zeros(some.x.shape[-1])
            guess[: doors.width] = mean_input(update, doors)
            rebuilt = view.of(guess)
            found.append(measured(attack, name, windows, truths[name], rebuilt, others))
    return found, view.what


# ------------------------------------------------------------------------------ internals
def _mean(x: NDArray[np.float32]) -> Floats:
    """Return the mean over windows, and over the rows of each; (…, F) → (F,)."""
    rows: Floats = x.reshape(-1, x.shape[-1]).astype(np.float64)
    middle: Floats = rows.mean(axis=0)
    return middle


def _resolution_s(scene: Scene) -> int:
    return scene.workers[scene.names[0]].data.train[0].series.resolution_s


def _weights(doors: Doors) -> list[str]:
    return [f"{name}.{kind}" for name in doors.layers for kind in ("weight", "bias")]


def _solved(pairs: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return m = Σ_j db_j dW_j / Σ_j db_j² over the units of layers that are given the same."""
    above = np.sum([bias @ weight for weight, bias in pairs], axis=0)
    below = sum(float(bias @ bias) for _, bias in pairs)
    # Where nothing came back nothing is told; the standardised mean is as good as any guess.
    found: Floats = above / below if below else np.zeros_like(above)
    return found


def _given(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what each biased linear layer is given."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.setdefault(name, inputs[0].detach().double())

        return look

    handles = [
        layer.register_forward_pre_hook(hook(name))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer.bias is not None
    ]
    with torch.no_grad():
        module(x)
    for handle in handles:
        handle.remove()
    return seen


def _added(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(dim=0)


def _most_alike(seen: Tensor, wanted: Tensor) -> bool:
    """Whether nearly all numbers are the same: a few may have been cut at a limit."""
    if seen.shape != wanted.shape:
        return False
    same = torch.isclose(seen, wanted.double(), rtol=1e-4, atol=1e-4)
    return bool(same.double().mean() > 0.9)
