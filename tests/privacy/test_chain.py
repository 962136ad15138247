"""The chain: the hash by hand, and every mutation of a byte."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_inmetro.privacy.chain import (
    BrokenChainError,
    Head,
    canonical,
    link,
    scan,
    write_line,
)

TEXT = st.text(max_size=12)
BODIES = st.lists(
    st.dictionaries(TEXT, st.none() | st.integers() | st.floats(allow_nan=False) | TEXT, max_size=4)
    .map(lambda d: json.loads(json.dumps(d)))
    .filter(lambda d: _encodable(d)),
    min_size=1,
    max_size=6,
)


def _encodable(body: object) -> bool:
    try:
        canonical(body)
    except ValueError:  # infinities, lone surrogates
        return False
    return True


def chain(bodies: list[dict[str, object]]) -> tuple[bytes, list[Head]]:
    data, heads = b"", [Head()]
    for body in bodies:
        line, seen = write_line(heads[-1], body)
        data, heads = data + line, [*heads, seen.head]
    return data, heads


def read(data: bytes, head: Head) -> list[dict[str, object]]:
    return [line.body for line in scan(data, Head(), head, head).lines]


def test_the_hash_is_sha256_over_the_hash_before_and_the_body() -> None:
    # By hand: 64 zeros, a line feed, {"a":1}; then that hash, a line feed, {"a":2}.
    first = hashlib.sha256(b"0" * 64 + b'\n{"a":1}').hexdigest()
    second = hashlib.sha256(first.encode() + b'\n{"a":2}').hexdigest()
    data, heads = chain([{"a": 1}, {"a": 2}])
    assert data == f'{first} {{"a":1}}\n{second} {{"a":2}}\n'.encode()
    assert heads[-1] == Head(2, len(data), second)
    # The first hash as `printf '%064d\n{"a":1}' 0 | sha256sum` gives it.
    assert first == "f21735afd2cd6af4fc5804b0045cebfd545aef8396d29d030c39cb8880b45b7f"


@given(BODIES)
def test_what_was_written_is_read(bodies: list[dict[str, object]]) -> None:
    data, heads = chain(bodies)
    found = scan(data, Head(), heads[-1], heads[-1])
    assert [line.body for line in found.lines] == bodies
    assert [line.head for line in found.lines] == heads[1:]
    assert found.torn_bytes == 0
    # From any point on, the rest alone is read in the same way.
    for start in heads:
        rest = scan(data[start.size_bytes :], start, heads[-1], heads[-1])
        assert rest.lines == found.lines[start.entries :]


@settings(max_examples=400)
@given(BODIES, st.data())
def test_a_changed_byte_is_found_or_changes_nothing(
    bodies: list[dict[str, object]], draw: st.DataObject
) -> None:
    data, heads = chain(bodies)
    at = draw.draw(st.integers(0, len(data) - 1))
    kind = draw.draw(st.sampled_from(["change", "drop", "add"]))
    byte = bytes([draw.draw(st.integers(0, 255))])
    changed = {
        "change": data[:at] + byte + data[at + 1 :],
        "drop": data[:at] + data[at + 1 :],
        "add": data[:at] + byte + data[at:],
    }[kind]
    try:
        found = read(changed, heads[-1])
    except BrokenChainError:
        assert changed != data
    else:
        assert found == bodies


@settings(max_examples=200)
@given(BODIES, st.data())
def test_a_changed_checkpoint_is_found_or_changes_nothing(
    bodies: list[dict[str, object]], draw: st.DataObject
) -> None:
    data, heads = chain(bodies)
    mark = heads[-1].to_bytes()
    at = draw.draw(st.integers(0, len(mark) - 1))
    changed = mark[:at] + bytes([draw.draw(st.integers(0, 255))]) + mark[at + 1 :]
    try:
        found = read(data, Head.from_bytes(changed))
    except BrokenChainError:
        assert changed != mark
    else:
        assert found == bodies


MANY = [{"n": n} for n in range(5)]


@pytest.mark.parametrize(
    "lines",
    [
        [0, 1, 3, 4],  # taken out
        [0, 1, 2, 3],  # the last taken out
        [0, 2, 1, 3, 4],  # moved
        [0, 1, 1, 2, 3, 4],  # written twice
        [],
    ],
)
def test_lines_that_are_taken_out_moved_or_repeated(lines: list[int]) -> None:
    data, heads = chain(MANY)
    pieces = data.splitlines(keepends=True)
    with pytest.raises(BrokenChainError):
        read(b"".join(pieces[n] for n in lines), heads[-1])


def test_a_line_of_another_chain_does_not_fit_in() -> None:
    data, heads = chain(MANY)
    other, _ = chain([{"n": 9}, *MANY])
    pieces = data.splitlines(keepends=True)
    pieces[2] = other.splitlines(keepends=True)[2]
    with pytest.raises(BrokenChainError, match="entry 3 does not follow"):
        read(b"".join(pieces), heads[-1])


def test_a_chain_made_anew_differs_from_the_checkpoint() -> None:
    """Who makes the chain anew from a line on, but leaves the checkpoint, is found."""
    data, heads = chain(MANY)
    forged, _ = chain([*MANY[:3], {"n": 7}, MANY[4]])
    assert len(forged) == len(data)
    with pytest.raises(BrokenChainError, match="checkpoint after entry 5 is of another chain"):
        read(forged, heads[-1])


def test_cut_at_any_byte_behind_the_checkpoint_keeps_what_was_acknowledged() -> None:
    """A power cut in the write of the last line leaves any part of it."""
    data, heads = chain(MANY)
    low = heads[4]
    for end in range(low.size_bytes, len(data) + 1):
        found = scan(data[:end], Head(), low, low)
        whole = end == len(data)
        assert [line.body for line in found.lines] == MANY[: 4 + whole]
        assert found.torn_bytes == (0 if whole else end - low.size_bytes)
    # Or its length without its content.
    blank = b"\0" * (len(data) - low.size_bytes - 1) + b"\n"
    found = scan(data[: low.size_bytes] + blank, Head(), low, low)
    assert (len(found.lines), found.torn_bytes) == (4, len(blank))


def test_more_behind_the_checkpoint_than_a_crash_leaves() -> None:
    data, heads = chain(MANY)
    with pytest.raises(BrokenChainError, match="counts 3 entries, 5 are there"):
        read(data, heads[3])
    with pytest.raises(BrokenChainError, match="more than a crash"):
        read(data + b"torn", heads[4])


def test_a_reader_beside_a_writer() -> None:
    """The checkpoint before the read and the one after it may be far apart."""
    data, heads = chain(MANY)
    assert len(scan(data, Head(), heads[1], heads[5]).lines) == 5
    assert len(scan(data[:-3], Head(), heads[1], heads[5]).lines) == 4  # a write under way
    with pytest.raises(BrokenChainError, match="checkpoint after entry 5"):
        scan(data, Head(), heads[1], Head(5, len(data), "f" * 64))


@pytest.mark.parametrize("body", [b'{"b":1,"a":2}', b'{"a": 1}', b"[]", b"nonsense", b'{"a":NaN}'])
def test_a_body_that_is_not_canonical_is_refused(body: bytes) -> None:
    line = link(Head().hash, body).encode() + b" " + body + b"\n"
    head = Head(1, len(line), link(Head().hash, body))
    with pytest.raises(BrokenChainError, match="not written as a ledger writes"):
        read(line, head)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b'{"entries":"1","hash":"0","size_bytes":1}\n', b"\xff"],
)
def test_a_checkpoint_that_is_none(content: bytes) -> None:
    with pytest.raises(BrokenChainError, match="not readable"):
        Head.from_bytes(content)
