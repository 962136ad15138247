"""A rule of the user's own, by import path, and the loading of what an import path names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fl_inmetro.config import own_code
from fl_inmetro.config.own_code import place_of, said_by
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.robust.rule import Rule
from fl_inmetro.federation.stack import Floats, Stack


def imported(path: str) -> Any:
    """Return what `package.module:name` names, also from the current directory.

    Raises:
        FederationError: FL315, there is no such module or name, or the module fails.
    """
    return own_code.imported(path, lambda *said: _fault(path, *said))


@dataclass(frozen=True)
class UserRule(Rule):
    """A function `(matrix, weights) -> vector` of the user's own.

    It is given the whole matrix, shape (K, P) in float64, and the weights n_k, shape (K,); both are
    copies. It returns P finite numbers.

    Attributes:
        path: Where it came from, `package.module:function`.
        function: The function.
    """

    path: str
    function: Callable[[Floats, Floats], Any]
    name: ClassVar[str] = "a rule of your own"

    @classmethod
    def load(cls, path: str) -> UserRule:
        """Return the rule of an import path.

        Raises:
            FederationError: FL315, there is no such function.
        """
        function = imported(path)
        if not callable(function):
            raise _fault(path, f"it is no function but of type {type(function).__name__}")
        return cls(path, function)

    def _merged(self, stack: Stack, weights: Floats) -> Floats:
        try:
            # Silence is for our own arithmetic; the user's function warns as it would elsewhere.
            with np.errstate(over="warn", invalid="warn", divide="warn"):
                answer = np.asarray(self.function(stack.matrix(), weights.copy()))
        except Exception as error:  # a user's function may raise anything
            raise _fault(self.path, f"it fails: {said_by(error)}", place_of(error)) from error
        if answer.shape != (stack.width,) or answer.dtype.kind not in "fiu":
            got = f"an array of shape {answer.shape} and type {answer.dtype}"
            raise _fault(self.path, f"it returned {got}, not {stack.width} numbers")
        if not np.isfinite(answer).all():
            bad = np.count_nonzero(~np.isfinite(answer))
            what = f"{bad} of the {stack.width} numbers it returned are not finite"
            raise _fault(self.path, what)
        return answer.astype(np.float64)


def _fault(path: str, what: str, where: str = "", hint: str = "") -> FederationError:
    hint = hint or "a rule is `def rule(matrix, weights)` and returns one number per column"
    return FederationError(Fault("FL315", f"`{path}` cannot be used: {what}", where, hint))
