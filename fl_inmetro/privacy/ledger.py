"""The ledger: every noisy release is written down, durably, before it leaves.

One ledger per federation and one per client. `Ledger.record` is called with the bits that are to
leave already computed; when it returns, the entry is on disk and they may leave. A crash between
the two counts a release that never left: at most the one of that moment. A run that is resumed and
comes to the very same bits (same run, round, name, digest and mechanism) is told that they are paid
for: who has them already learns nothing from them again. Other bits of the same round, for
example under other noise, are another attempt, and pay.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.budget import Accountant, Budget, Scope, Verdict, judge, refuse_excess
from fl_inmetro.privacy.chain import Line
from fl_inmetro.privacy.journal import Journal, broken, read_chain
from fl_inmetro.privacy.release import FIELDS, Release, plain_name

#: Version of what the lines say.
FORMAT = 1

SUFFIX = ".ledger"

_OPENED = {"kind", "format", "sequence", "at_utc", "federation", "client"}
_RELEASED = {"kind", "sequence", "at_utc", "federation", "client", "attempt", "account", *FIELDS}
_NOTED = {"accountant", "delta", "epsilon", "limit", "scope"}


@dataclass(frozen=True)
class Owner:
    """Whose ledger it is.

    Attributes:
        federation: Name of the federation.
        client: Name of the client; None for the federation's own ledger.
    """

    federation: str
    client: str | None = None

    def __post_init__(self) -> None:
        names = [self.federation] if self.client is None else [self.federation, self.client]
        if not all(plain_name(name) for name in names):
            raise PrivacyError(
                Fault("FL423", "a ledger's owner is named in at most 200 printable characters")
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """A release as it stands in a ledger.

    Attributes:
        owner: Whose ledger it is.
        sequence: Place in the ledger; 1 is the line that opens it, so releases begin at 2.
        at_utc: When it was written, by this machine's clock, ISO 8601.
        attempt: From 1; a round that was released again with other bits has more.
        release: What was released.
        account: What each budget said then: `scope`, `epsilon` with this release, `delta`,
            `limit`, `accountant`.
        hash: Hash of the chain up to here.
    """

    owner: Owner
    sequence: int
    at_utc: str
    attempt: int
    release: Release
    account: tuple[dict[str, Any], ...]
    hash: str


@dataclass(frozen=True)
class Recorded:
    """The answer to `Ledger.record`.

    Attributes:
        entry: The entry that stands for the release.
        paid_before: Whether the very same release stood there already.
    """

    entry: Entry
    paid_before: bool


@dataclass(frozen=True)
class Contents:
    """A ledger that was read and checked.

    Attributes:
        path: Its file.
        owner: Whose it is.
        opened_utc: When it was begun.
        entries: Its releases, in order.
        bodies: What all lines say, the opening one first, as plain data.
        hash: Hash of the whole chain.
        torn_bytes: Bytes at the end that a crash has left and the next writer drops.
    """

    path: Path
    owner: Owner
    opened_utc: str
    entries: tuple[Entry, ...]
    bodies: tuple[dict[str, Any], ...]
    hash: str
    torn_bytes: int


class Ledger:
    """One ledger, open for writing; several processes and threads may have it open at once."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        """Open the ledger of `owner` in `folder`; begin it when there is none.

        Raises:
            PrivacyError: FL420 when it is broken or somebody else's, FL421 when the place cannot
                be written, FL424 when another process does not let go.
        """
        self.owner = owner
        self.path = ledger_path(folder, owner)
        self._journal = Journal(self.path)
        self._entries: list[Entry] = []
        self._by_place: dict[tuple[str, int, str], list[Entry]] = {}
        self._own = threading.Lock()
        with self._own, self._journal.writing() as lines:
            self._take_in(lines)
            if not self._journal.head.entries:
                self._journal.append(
                    {"kind": "opened", "format": FORMAT, "sequence": 1, **self._stamp()}
                )

    def entries(self) -> tuple[Entry, ...]:
        """Return the releases, as far as this object knows them."""
        return tuple(self._entries)

    def check(
        self, wanted: Release, budgets: Sequence[Budget], account: Accountant
    ) -> tuple[Verdict, ...]:
        """Say what each budget would say to a release, without writing anything down.

        The digest does not matter. This is the question before a round; `record` asks again.

        Raises:
            PrivacyError: FL429, see `judge`; FL430 when a budget is not for this kind of ledger.
        """
        with self._own, self._journal.writing() as lines:
            self._take_in(lines)
            return self._judge(wanted, budgets, account)

    def record(
        self,
        release: Release,
        budgets: Sequence[Budget] = (),
        account: Accountant | None = None,
    ) -> Recorded:
        """Write a release down before it leaves; it may leave when this returns.

        Budgets are held under the lock: no two processes can both spend the last of one.

        Raises:
            BudgetError: FL422 when a budget would be exceeded; nothing is written, nothing may
                leave.
            PrivacyError: As `check` and as opening.
        """
        if budgets and account is None:
            raise ValueError("a budget needs an accountant")
        with self._own, self._journal.writing() as lines:
            self._take_in(lines)
            tried = self._by_place.get(_place(release), [])
            for entry in tried:
                if entry.release == release:
                    return Recorded(entry, paid_before=True)
            verdicts = self._judge(release, budgets, account) if account else ()
            if all(verdict.allowed for verdict in verdicts):
                line = self._journal.append(
                    {
                        "kind": "release",
                        "sequence": self._journal.head.entries + 1,
                        "attempt": len(tried) + 1,
                        "account": [verdict.to_json() for verdict in verdicts],
                        **self._stamp(),
                        **release.to_json(),
                    }
                )
                self._take_in((line,))
                return Recorded(self._entries[-1], paid_before=False)
        # Without the lock: what would work is looked for with many accounts.
        assert account is not None  # no verdict without one
        refuse_excess(verdicts, release, account, str(self.path))
        raise AssertionError("unreachable: a release that is not allowed is refused")

    def _stamp(self) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"at_utc": now, "federation": self.owner.federation, "client": self.owner.client}

    def _judge(
        self, wanted: Release, budgets: Sequence[Budget], account: Accountant
    ) -> tuple[Verdict, ...]:
        verdicts = []
        mine = "federation" if self.owner.client is None else "client"
        for budget in budgets:
            if budget.scope not in ("run", mine):
                raise PrivacyError(
                    Fault(
                        "FL430",
                        f"a budget of scope `{budget.scope}` cannot be held in a {mine}'s ledger",
                        str(self.path),
                        f"give it the scope `{mine}` or `run`, or hold it in the other ledger",
                    )
                )
            releases = [
                entry.release
                for entry in self._entries
                if budget.scope != "run" or entry.release.run == wanted.run
            ]
            verdicts.append(judge(budget, releases, wanted, account))
        return tuple(verdicts)

    def _take_in(self, lines: Sequence[Line]) -> None:
        for line in lines:
            entry = _entry(line, self.path, self.owner)
            if entry is not None:
                self._entries.append(entry)
                self._by_place.setdefault(_place(entry.release), []).append(entry)


def ledger_path(folder: Path, owner: Owner) -> Path:
    """Return where the ledger of `owner` stands; any name makes a file name, and its own."""
    if owner.client is None:
        return folder / f"federation{SUFFIX}"
    # The digits keep apart what a file system may take for one: `A` and `a`, long names cut.
    digits = hashlib.sha256(owner.client.encode("utf-8")).hexdigest()[:12]
    return folder / "clients" / f"{quote(owner.client, safe='')[:80]}-{digits}{SUFFIX}"


def find_ledgers(path: Path) -> tuple[Path, ...]:
    """Return the ledger that `path` is, or those in the folder that it is, the federation's first.

    Raises:
        PrivacyError: FL427 when there is none.
    """
    if not path.is_dir():
        return (path,)
    found = {p for p in path.rglob(f"*{SUFFIX}") if p.is_file()}
    # A checkpoint without its ledger is a ledger that was taken away: reading it says so.
    found |= {p.with_suffix("") for p in path.rglob(f"*{SUFFIX}.head")}
    if not found:
        raise PrivacyError(
            Fault("FL427", "there is no ledger", str(path), "name a ledger or its folder")
        )
    return tuple(sorted(found, key=lambda p: (len(p.parts), p)))


def read_ledger(path: Path) -> Contents:
    """Read and check a ledger, without a lock, also while others write.

    Raises:
        PrivacyError: FL420 when it is broken, FL421 when it cannot be read, FL427 when there is
            none or nothing was ever written to it.
    """
    seen = read_chain(path)
    if not seen.lines:
        raise PrivacyError(Fault("FL427", "the ledger was never begun", str(path)))
    opened = seen.lines[0].body
    try:
        owner = Owner(opened["federation"], opened["client"])
    except (KeyError, PrivacyError):
        raise broken(path, "its first entry does not open a ledger") from None
    entries = [_entry(line, path, owner) for line in seen.lines]
    return Contents(
        path=path,
        owner=owner,
        opened_utc=opened["at_utc"],
        entries=tuple(entry for entry in entries if entry is not None),
        bodies=tuple(line.body for line in seen.lines),
        hash=seen.head.hash,
        torn_bytes=seen.torn_bytes,
    )


# ------------------------------------------------------------------------------ internals
def _place(release: Release) -> tuple[str, int, str]:
    return release.run, release.round, release.what


def _entry(line: Line, path: Path, owner: Owner) -> Entry | None:
    """Read a line's content; None for the one that opens the ledger."""
    body, number = line.body, line.head.entries
    kind = "opened" if number == 1 else "release"
    wanted = _OPENED if number == 1 else _RELEASED
    if (
        body.get("kind") != kind
        or set(body) != wanted
        or body["sequence"] != number
        or not isinstance(body["at_utc"], str)
    ):
        raise broken(path, f"entry {number} does not say what a ledger's entry says")
    if (body["federation"], body["client"]) != (owner.federation, owner.client):
        raise broken(path, f"entry {number} is of another ledger: {body['federation']!r}")
    if number == 1:
        if body["format"] != FORMAT:
            raise broken(path, f"it is of format {body['format']!r}, this program reads {FORMAT}")
        return None
    try:
        release = Release(**{name: body[name] for name in FIELDS})
    except PrivacyError as error:
        raise broken(path, f"entry {number}: {error.faults[0].what}") from None
    noted = body["account"]
    if (
        type(body["attempt"]) is not int
        or not isinstance(noted, list)
        or not all(_is_note(one) for one in noted)
    ):
        raise broken(path, f"entry {number} does not say what a ledger's entry says")
    return Entry(
        owner,
        number,
        body["at_utc"],
        body["attempt"],
        release,
        tuple(body["account"]),
        line.head.hash,
    )


def _is_note(one: object) -> bool:
    """Tell whether something is what `Verdict.to_json` makes."""
    if not isinstance(one, dict) or set(one) != _NOTED:
        return False
    numbers = all(type(one[name]) is float for name in ("delta", "epsilon", "limit"))
    return numbers and isinstance(one["accountant"], str) and one["scope"] in get_args(Scope)
