"""Windows rebuilt from the gradient of a few of them, by descent on what would have given it.

The adversary knows the model and sees the gradient of the mean loss over n windows, protected as
the run protects updates. It looks for inputs x, and for what came back from the loss at the
outputs, v, whose gradient Σ v · ∂f(x)/∂w points the same way:

    min over x, v of  1 − cos(g(x, v), g_seen) + λ TV(x) + μ (ln ‖g‖ − ln ‖g_seen‖)²

v stands in the place of the targets: the gradient of an absolute or quantile loss says no more of a
target than the sign of the error, and cannot be followed down. The norm counts only where nothing
was clipped. Descent begins at the mean window of the other clients, moved to the mean that the
ratio of the first layer tells (`ratio.py`), where there is such a layer; what is known to all, such
as the hour, stays as it is.
Source: Zhu, Liu, Han (2019), "Deep Leakage from Gradients" (match the gradient); Geiping,
Bauermeister, Dröge, Moeller (2020), "Inverting Gradients" (cosine, total variation).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro import seeds
from fl_inmetro.leakage.ratio import mean_input, usable_doors
from fl_inmetro.leakage.results import Reconstruction
from fl_inmetro.leakage.scene import Scene, chosen, flat
from fl_inmetro.leakage.view import View, comparable, measured, view_of
from fl_inmetro.learning.update import Arrays

Floats = NDArray[np.float64]

#: Windows whose gradient is inverted.
SIZES = (1, 2, 4, 8)

#: Other clients' windows that the first guess is the mean of, for each of them.
_SHADOWS = 20

#: How far windows begin from each other, in deviations of the inputs.
_APART = 0.1

#: For this part of the steps only what came back is looked for: it is drawn, the inputs are not.
_FIRST = 4

#: So far from the others' mean, in units of a client's scale, no mean is believed.
_FAR = 10.0

#: More windows than this are put in order greedily.
_EXACT = 6


@dataclass(frozen=True)
class Descent:
    """How the inputs are looked for.

    Attributes:
        steps: Steps of Adam.
        restarts: Beginnings; the one that comes closest to the gradient counts.
        rate: Its first step size, which falls to zero, in deviations of the inputs.
        variation: λ.
        length: μ.
    """

    steps: int = 800
    restarts: int = 2
    rate: float = 0.1
    variation: float = 1e-4
    length: float = 0.01


def inversion_attack(
    scene: Scene,
    victims: Sequence[str],
    sizes: Sequence[int] = SIZES,
    descent: Descent | None = None,
) -> list[Reconstruction]:
    """Rebuild windows of the victims from gradients of 1, 2, 4 and 8 of them.

    Returns:
        One for each victim and size; sizes above what a victim has are left out.
    """
    some = scene.design(scene.names[0]).x
    resolution_s = scene.workers[scene.names[0]].data.train[0].series.resolution_s
    view = view_of(scene.learner, resolution_s, some.shape[-1])
    doors = usable_doors(scene)
    means = {name: _few(scene, name).mean(axis=0) for name in scene.names}
    found: list[Reconstruction] = []
    if not view.columns.size:
        return found
    for name in victims:
        prior = np.mean([mean for other, mean in means.items() if other != name], axis=0)
        design = scene.design(name)
        for size in sizes:
            if size > len(design.x):
                continue
            rng = seeds.derive(scene.config.seed, "leakage", "inversion", name, size)
            rows = np.sort(rng.choice(len(design.x), size, replace=False))
            true = _seen(view, chosen(design, rows).x)
            if not comparable(true):
                continue
            seen = scene.gradient(name, rows)
            start = prior.copy()
            if doors is not None and view.what == "profile":
                start[: doors.width] = mean_input(seen, doors)
            # A ratio of noise leads nowhere: nobody believes a mean that no client has.
            start = start if np.abs(start - prior).max() < _FAR else prior
            about = (view, rng, descent or Descent())
            guess = _seen(view, inverted(scene, seen, start, size, *about))
            population = _seen(view, np.repeat(prior[None], size, axis=0))
            guess = guess[_order(true, guess)]
            flat_ones = (one.ravel() for one in (true, guess, population))
            found.append(measured("inversion", name, size, *flat_ones))
    return found


def inverted(
    scene: Scene,
    seen: Arrays,
    prior: Floats,
    size: int,
    view: View,
    rng: np.random.Generator,
    descent: Descent,
) -> Floats:
    """Return the inputs whose gradient comes closest to the one that was seen; (size, …, F).

    Args:
        scene: The run; its model is what the gradient is of.
        seen: The negative gradient, by parameter.
        prior: What a window looks like as far as anybody knows, (…, F).
        size: Windows.
        view: Which of the inputs are readings; the others are taken as they are in `prior`.
        rng: What beginnings are drawn from.
        descent: How.
    """
    module = scene.learner.loaded(scene.state).eval()
    named = dict(module.named_parameters())
    parameters = [named[name] for name in sorted(seen)]
    wanted = -torch.from_numpy(flat(seen)).float()
    wide = prior.shape[-1]
    std = getattr(module, "x_std", torch.ones(wide))
    # Standardised where the network does so, for all inputs to be of one size.
    unit = std.detach() if std.shape == (wide,) else torch.ones(wide)
    secret = torch.zeros(wide)
    secret[torch.from_numpy(view.columns)] = 1.0
    unit = unit * secret
    first = torch.from_numpy(prior).float().repeat(size, *([1] * prior.ndim))
    long_enough = not scene.config.privacy.enabled
    best, closest = first, float("inf")
    for _ in range(descent.restarts):
        # Several windows have to begin apart; one begins where the mean is.
        moved = torch.from_numpy(rng.standard_normal(first.shape)).float() * _APART * (size > 1)
        moved.requires_grad_()
        with torch.no_grad():
            outputs = module(first)
        back = torch.from_numpy(rng.standard_normal(outputs.shape)).float() / outputs.numel()
        back.requires_grad_()
        optimizer = torch.optim.Adam([moved, back], lr=descent.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, descent.steps)
        for step in range(descent.steps):
            optimizer.zero_grad()
            x = first + unit * moved
            mismatch, length = _mismatch(module, parameters, x, back, wanted)
            loss = mismatch + descent.variation * _variation(moved)
            if long_enough:
                loss = loss + descent.length * length
            loss.backward()
            if float(mismatch.detach()) < closest:
                best, closest = x.detach().clone(), float(mismatch.detach())
            if step < descent.steps // _FIRST and moved.grad is not None:
                moved.grad.zero_()
            optimizer.step()
            schedule.step()
    found: Floats = best.numpy().astype(np.float64)
    return found


# ------------------------------------------------------------------------------ internals
def _mismatch(
    module: nn.Module, parameters: Sequence[Tensor], x: Tensor, back: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Return 1 − cos, and the square of how far the lengths are apart, both without a unit."""
    told = (module(x) * back).sum()
    parts = torch.autograd.grad(told, parameters, create_graph=True, allow_unused=True)
    known = [
        (torch.zeros_like(p) if part is None else part).reshape(-1)
        for p, part in zip(parameters, parts, strict=True)
    ]
    given = torch.cat(known)
    tiny = 1e-20
    cosine = (given @ wanted) / (given.norm() * wanted.norm() + tiny)
    length = torch.log(given.norm() + tiny) - torch.log(wanted.norm() + tiny)
    return 1 - cosine, length**2


def _variation(moved: Tensor) -> Tensor:
    """Return the mean step between neighbours in time: of a context, or of the rows of a window."""
    axis = 1
    return moved.diff(dim=axis).abs().mean() if moved.shape[axis] > 1 else moved.sum() * 0


def _few(scene: Scene, name: str) -> Floats:
    x = scene.design(name).x
    places = np.linspace(0, len(x) - 1, min(_SHADOWS, len(x))).astype(int)
    few: Floats = x[places].astype(np.float64)
    return few


def _seen(view: View, x: NDArray[np.floating]) -> Floats:
    """Return the readings of windows, one row each; (N, …, F) → (N, D)."""
    return view.of(np.asarray(x, dtype=np.float64)).reshape(len(x), -1)


def _order(true: Floats, guess: Floats) -> list[int]:
    """Return the order of guesses in which they come closest: nobody knows which is which."""
    apart = ((true[:, None] - guess[None]) ** 2).sum(axis=2)
    count = len(true)
    if count <= _EXACT:
        places = range(count)
        return list(
            min(
                itertools.permutations(places),
                key=lambda order: sum(apart[row, place] for row, place in enumerate(order)),
            )
        )
    order = np.full(count, -1)
    for pair in apart.ravel().argsort().tolist():
        row, place = divmod(pair, count)
        if order[row] < 0 and place not in order:
            order[row] = place
    return [int(place) for place in order]
