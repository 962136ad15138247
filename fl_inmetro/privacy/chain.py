"""The chain of a ledger: each line carries the hash of all before it.

A line is `<hash> <body>` and a line feed. The body is canonical JSON (UTF-8, keys in order, no
blanks); the hash is SHA-256, in hexadecimal, over the hash of the line before (64 zeros before the
first), a line feed, and the body's bytes. So a change of any byte breaks the line it is in, and a
line that is dropped, added in between or moved breaks the next. Who may write the file can make it
anew from any line on; what is compared with a head kept elsewhere shows that too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

#: The hash before the first line.
ROOT_HASH = "0" * 64

_HASH_LENGTH = 64

#: Made once: making one for each line would take longer than the line.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


class BrokenChainError(Exception):
    """The bytes are not the chain that they should be; the text says what and where."""


@dataclass(frozen=True, slots=True)
class Head:
    """A point of the chain: how much stands before it, and the hash of all that.

    Attributes:
        entries: Number of lines.
        size_bytes: Bytes of these lines.
        hash: Hash of the last of them.
    """

    entries: int = 0
    size_bytes: int = 0
    hash: str = ROOT_HASH

    def to_bytes(self) -> bytes:
        """Return the checkpoint as it stands on disk."""
        return canonical(asdict(self)) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Head:
        """Read a checkpoint.

        Raises:
            BrokenChainError: It is none, or not byte for byte as `to_bytes` writes it.
        """
        try:
            head = cls(**json.loads(content))
            counts = type(head.entries) is int and type(head.size_bytes) is int
            same = counts and type(head.hash) is str and head.to_bytes() == content
        except (ValueError, TypeError, RecursionError):
            same = False
        if not same:
            raise BrokenChainError("the checkpoint is not readable")
        return head


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the chain.

    Attributes:
        body: What it says, plain data.
        head: The point of the chain right behind it.
    """

    body: dict[str, Any]
    head: Head


@dataclass(frozen=True)
class Scan:
    """What bytes of a chain hold.

    Attributes:
        lines: The lines, all of which follow from one another.
        head: The point behind the last of them.
        torn_bytes: Bytes behind that which are no line; only a write that was cut off leaves them.
    """

    lines: tuple[Line, ...]
    head: Head
    torn_bytes: int


def canonical(content: object) -> bytes:
    """Return plain data as canonical JSON: one spelling for one content."""
    return _ENCODER.encode(content).encode("utf-8")


def link(previous: str, body: bytes) -> str:
    """Return the hash of a body that follows the hash `previous`."""
    return hashlib.sha256(previous.encode("ascii") + b"\n" + body).hexdigest()


def write_line(head: Head, content: dict[str, Any]) -> tuple[bytes, Line]:
    """Return the bytes of the line that follows `head` and says `content`, and the line."""
    body = canonical(content)
    digest = link(head.hash, body)
    line = digest.encode("ascii") + b" " + body + b"\n"
    behind = Head(head.entries + 1, head.size_bytes + len(line), digest)
    return line, Line(content, behind)


def scan(data: bytes, start: Head, low: Head, high: Head) -> Scan:
    """Read the bytes that follow `start`, and hold them to two checkpoints.

    Args:
        data: Bytes of the file from `start.size_bytes` on.
        start: A point known to be right.
        low: Checkpoint read before the bytes: all up to it must be there.
        high: Checkpoint read after the bytes; `low` itself unless others are writing.

    Raises:
        BrokenChainError: A line does not follow from those before it, lines are missing that a
            checkpoint counts, a checkpoint is of another chain, or more than the one line stands
            behind `high` that a crash between line and checkpoint can leave there.
    """
    lines: list[Line] = []
    head = start
    seen = {start.entries: start}
    wanted = {low.entries, high.entries}
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        try:
            line = _read_line(data[at:end], head)
        except BrokenChainError:
            # Behind the checkpoint a power cut may leave a last line whose middle was not written.
            if head.size_bytes >= low.size_bytes and end == len(data) - 1:
                break
            raise
        lines.append(line)
        head, at = line.head, end + 1
        if head.entries in wanted:
            seen[head.entries] = head
    if head.entries < low.entries:
        raise BrokenChainError(
            f"{low.entries} entries were acknowledged, {head.entries} are there: "
            "the file was cut, or its last line changed"
        )
    for mark in (low, high):
        if start.entries <= mark.entries <= head.entries and seen[mark.entries] != mark:
            raise BrokenChainError(f"the checkpoint after entry {mark.entries} is of another chain")
    torn = len(data) - at
    if head.entries > high.entries + 1 or (head.entries > high.entries and torn):
        raise BrokenChainError(
            f"the checkpoint counts {high.entries} entries, {head.entries} are there: "
            "more than a crash can leave"
        )
    return Scan(tuple(lines), head, torn)


# ------------------------------------------------------------------------------ internals
def _read_line(raw: bytes, head: Head) -> Line:
    number = head.entries + 1
    digest, blank, body = raw[:_HASH_LENGTH], raw[_HASH_LENGTH : _HASH_LENGTH + 1], raw[65:]
    if blank != b" " or link(head.hash, body).encode("ascii") != digest:
        raise BrokenChainError(
            f"entry {number} does not follow from those before it: "
            "it was changed, or entries before it were taken out, added or moved"
        )
    try:
        content = json.loads(body.decode("utf-8"))
        plain = isinstance(content, dict) and canonical(content) == body
    except (ValueError, RecursionError):
        plain = False
    if not plain:
        raise BrokenChainError(f"entry {number} is not written as a ledger writes it")
    return Line(content, Head(number, head.size_bytes + len(raw) + 1, digest.decode("ascii")))
