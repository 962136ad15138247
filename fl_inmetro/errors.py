"""Every error of the house: code, what, where, what would work.

    FlInmetroError
    ├── ConfigError       1xx   the configuration file or a command-line override   (exit 3)
    ├── DataError         2xx   readings, windows, forecast sources                 (exit 4)
    ├── FederationError   3xx   clients, replies, engines                           (exit 5)
    ├── PrivacyError      4xx   privacy accounts and the ledger                     (exit 7)
    │   └── BudgetError         a release that a privacy budget does not allow      (exit 8)
    └── RunError          7xx   run directories and forecast files                  (exit 6)

Blocks 5xx (edge) and 6xx (portal) are reserved. Every code has a page in English
and in Portuguese (`fl_inmetro/i18n/<language>/errors.toml`), printed by `fl-inmetro explain CODE`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        code: Stable code, for example `FL202`.
        what: One sentence that names the fault.
        where: Place: `file:line  [table] key = value`, a client, a run; empty when unknown.
        hint: What would work; empty when nothing can be said.
    """

    code: str
    what: str
    where: str = ""
    hint: str = ""

    def render(self) -> str:
        """Return the fault as it is printed: error line, place, hint."""
        lines = [f"error[{self.code}]: {self.what}"]
        lines += [f"  --> {place}" for place in self.where.splitlines()]
        if self.hint:
            first, *rest = self.hint.splitlines()
            lines += [f"hint: {first}", *(f"      {line}" for line in rest)]
        return "\n".join(lines)

    def reason(self) -> str:
        """Return what is wrong and where, in one line, for a table that has the code apart."""
        return f"{self.what} ({self.where})" if self.where else self.what


class FlInmetroError(Exception):
    """Base of the errors a user may see; carries one or more faults, all found at once."""

    exit_code = 1

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        if not self.faults:
            raise ValueError("an error needs at least one fault")
        super().__init__("\n\n".join(fault.render() for fault in self.faults))

    def brief(self) -> str:
        """Return codes and sentences of all faults in one line, for logs and events."""
        return "; ".join(f"{fault.code} {fault.what}" for fault in self.faults)

    def __reduce__(self) -> tuple[type[FlInmetroError], tuple[tuple[Fault, ...]]]:
        # Exceptions cross process borders (Ray, multiprocessing) by their arguments.
        return type(self), (self.faults,)


class ConfigError(FlInmetroError):
    """The configuration cannot be used as written."""

    exit_code = 3


class DataError(FlInmetroError):
    """The readings cannot be used as they are."""

    exit_code = 4


class FederationError(FlInmetroError):
    """The federation cannot go on."""

    exit_code = 5


class RunError(FlInmetroError):
    """A run directory or a forecast file cannot be used."""

    exit_code = 6


class PrivacyError(FlInmetroError):
    """A privacy account, or the ledger that keeps it, cannot be used."""

    exit_code = 7


class BudgetError(PrivacyError):
    """The next release would spend more than a privacy budget allows; nothing was released."""

    exit_code = 8
