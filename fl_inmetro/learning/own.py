"""A network of the user's own, by import path, as a context learner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fl_inmetro.config import models as settings_of
from fl_inmetro.config.own_code import imported, place_of, said_by
from fl_inmetro.errors import ConfigError, Fault
from fl_inmetro.learning.neural import ContextLearner
from fl_inmetro.learning.update import Arrays
from fl_inmetro.models.networks import initial_parameters

#: Under this name the state keeps context and horizon, in steps: no shape need tell them. It is
#: among the `BUFFERS` of the federation, which are sent and have no delta.
SIZES = "context_and_horizon"


class OwnLearner(ContextLearner):
    """A user's network from the context to the horizon.

    Raises:
        ConfigError: FL115, there is no such network, or it cannot be used.
    """

    name = "own"

    def __init__(self, settings: settings_of.Own) -> None:
        super().__init__(settings)
        if settings.network is None:
            raise _fault("no network is named", "", 'set `network = "my_file:MyNetwork"`')
        self.path = settings.network
        found = imported(self.path, lambda *said: _fault(f"`{self.path}`: {said[0]}", *said[1:]))
        if not callable(found):
            raise _fault(f"`{self.path}` is no class but of type {type(found).__name__}")
        self._made: Callable[..., object] = found

    def network(self, context: int, horizon: int) -> nn.Module:
        """Make the user's network, and let it say its sizes."""
        outputs = () if self.outputs == 1 else (self.outputs,)
        try:
            module = self._made(context, horizon, *outputs)
        except Exception as error:  # a user's class may raise anything
            asked = ", ".join(str(size) for size in (context, horizon, *outputs))
            what = f"`{self.path}` cannot be made with ({asked}): {said_by(error)}"
            raise _fault(what, place_of(error)) from error
        if not isinstance(module, nn.Module):
            raise _fault(f"`{self.path}` makes a {type(module).__name__}, no torch.nn.Module")
        module.register_buffer(SIZES, torch.tensor([context, horizon], dtype=torch.float32))
        return module

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Draw the parameters, and try the network once.

        Raises:
            ConfigError: FL115, it does not give what it should, or has layers without a rule for
                their first values.
        """
        module = self.network(shape[-1], horizon)
        try:
            drawn = initial_parameters(module, seed)
        except TypeError as error:
            hint = "`docs/methods.md` names the layers that a network may have parameters in"
            raise _fault(f"`{self.path}`: {error}", "", hint) from error
        kept = [name for name in module.state_dict() if name not in drawn and name != SIZES]
        if kept:
            hint = "register it with `persistent=False`: only parameters are trained and sent"
            raise _fault(f"`{self.path}` keeps a buffer `{kept[0]}`", "", hint)
        self._try(module, shape[-1], horizon)
        return {**drawn, SIZES: np.array([shape[-1], horizon], dtype=np.float32)}

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Return the sizes that the state keeps."""
        context, horizon = np.asarray(state[SIZES]).tolist()
        return int(context), int(horizon)

    def _try(self, module: nn.Module, context: int, horizon: int) -> None:
        wanted = (2, horizon) if self.outputs == 1 else (2, horizon, self.outputs)
        try:
            with torch.no_grad():
                answer = module(torch.zeros(2, context))
        except Exception as error:  # a user's network may raise anything
            what = f"`{self.path}` fails on two windows of {context} steps: {said_by(error)}"
            raise _fault(what, place_of(error)) from error
        if not isinstance(answer, torch.Tensor) or tuple(answer.shape) != wanted:
            shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer)
            raise _fault(f"`{self.path}` gives {shape} for two windows, not {wanted}")


def _fault(what: str, where: str = "", hint: str = "") -> ConfigError:
    hint = hint or "a network is made as `Network(context, horizon)` and maps (N, L) to (N, H)"
    return ConfigError(Fault("FL115", what, where or "[models.own] network", hint))
