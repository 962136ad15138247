"""What travels: our values as Flower records, and back, checked.

A request carries the state; a reply carries an update, sums, or an enrolment. Everything read from
a reply is validated before it may touch the model: kind, keys, shapes, finite numbers, weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.requests import ARRAYS as ARRAYS
from fl_inmetro.federation.requests import CONFIG as CONFIG
from fl_inmetro.federation.requests import CONTROL as CONTROL
from fl_inmetro.federation.requests import ENROL as ENROL
from fl_inmetro.federation.requests import EVALUATE as EVALUATE
from fl_inmetro.federation.requests import METRICS as METRICS
from fl_inmetro.federation.requests import SUMS as SUMS
from fl_inmetro.federation.requests import TRAIN as TRAIN
from fl_inmetro.federation.requests import TrainRequest as TrainRequest
from fl_inmetro.federation.requests import asked_in as asked_in
from fl_inmetro.federation.requests import claimed_in as claimed_in
from fl_inmetro.federation.requests import counted_of as counted_of
from fl_inmetro.federation.requests import enrol_request as enrol_request
from fl_inmetro.federation.requests import evaluate_request as evaluate_request
from fl_inmetro.federation.requests import train_request as train_request
from fl_inmetro.federation.requests import train_requests as train_requests
from fl_inmetro.federation.requests import with_counted as with_counted
from fl_inmetro.learning.client import Enrolment
from fl_inmetro.learning.update import Arrays, Update
from fl_inmetro.metrics import SUM_NAMES, ErrorSums
from fl_inmetro.metrics.sums import COUNTS, NEVER_NEGATIVE

#: Whole numbers beyond it are no counts of ours: a float64 no longer tells them apart.
_MOST = 1 << 53

#: Characters of a client's name, and of what is quoted of a reply, at most.
_NAME_LENGTH, _QUOTED_LENGTH = 200, 400

#: What reading a reply of the wrong form may raise (`int` of infinity is an OverflowError).
_MALFORMED = (KeyError, TypeError, ValueError, OverflowError)


def pack(arrays: Arrays) -> ArrayRecord:
    """Return arrays as a Flower record, keys in order."""
    return ArrayRecord({name: Array(np.asarray(a)) for name, a in sorted(arrays.items())})


def unpack(record: ArrayRecord) -> Arrays:
    """Return a Flower record as arrays."""
    return {name: array.numpy() for name, array in record.items()}


def n_bytes(record: ArrayRecord) -> int:
    """Return the bytes of the arrays of a record, without framing."""
    # From shape and type: decoding every array to count it costs more than sending it.
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in record.values())


# ------------------------------------------------------------------------------- replies
def enrolment_reply(enrolment: Enrolment) -> RecordDict:
    """Pack what a client says of itself."""
    return RecordDict(
        {
            ARRAYS: pack(enrolment.sums),
            CONFIG: ConfigRecord(
                {
                    "client-id": enrolment.client_id,
                    "num-examples": enrolment.points,
                    "x-shape": list(enrolment.x_shape),
                    "horizon": enrolment.horizon,
                    "windows": enrolment.windows,
                }
            ),
        }
    )


def update_reply(update: Update, arrays: Arrays, request: TrainRequest) -> RecordDict:
    """Pack an update; `arrays` are its deltas, sums, or (for Flower's strategies) weights.

    The reply says which round and which model it answers, so that an old one is known as such.
    """
    metrics = {"num-examples": update.weight, "loss": update.loss, "seconds": update.seconds}
    if request.work.start_loss:
        metrics[_START_LOSS] = update.start_loss
    if request.work.probe:
        metrics[_SPREAD] = update.spread
    answers = {
        "client-id": update.client_id,
        "server-round": request.round,
        "model-version": request.version,
    }
    return RecordDict(
        {
            ARRAYS: pack(arrays),
            METRICS: MetricRecord(metrics),
            CONFIG: ConfigRecord(answers),
        }
    )


_START_LOSS, _SPREAD = "start-loss", "gradient-variance"


def evaluation_reply(sums: Mapping[str, ErrorSums]) -> RecordDict:
    """Pack error sums by meter, with the mean error that Flower's own strategies average."""
    rows = {name: list(column) for name, column in zip(SUM_NAMES, _columns(sums), strict=True)}
    total = sum(sums.values(), start=ErrorSums())
    return RecordDict(
        {
            METRICS: MetricRecord({"num-examples": total.n, "wmape": total.wmape}),
            # Not a MetricRecord: Flower's own strategies refuse a reply that has two of those.
            SUMS: ConfigRecord({name: [float(v) for v in column] for name, column in rows.items()}),
            CONFIG: ConfigRecord({"client-ids": list(sums)}),
        }
    )


def read_enrolment(reply: Message) -> Enrolment:
    """Read an enrolment.

    Raises:
        FederationError: FL301 malformed, FL303 the client failed.
    """
    content = _content(reply)
    try:
        config = content.config_records[CONFIG]
        enrolment = Enrolment(
            client_id=_text(config["client-id"]),
            points=int(_number(config["num-examples"])),
            x_shape=tuple(int(n) for n in _list(config["x-shape"])),
            horizon=int(_number(config["horizon"])),
            sums=_arrays(content.array_records[ARRAYS]),
            windows=int(_number(config["windows"])),
        )
    except _MALFORMED as error:
        raise _malformed(reply, f"enrolment: {error}") from None
    try:
        check_enrolment(enrolment)
    except ValueError as error:
        raise _malformed(reply, str(error)) from None
    return enrolment


def check_enrolment(enrolment: Enrolment) -> None:
    """Look at the values of an enrolment.

    Raises:
        ValueError: It has no name that can be shown, no training point, more of them than its
            windows hold or fewer than windows, or sums that are not finite.
    """
    name = enrolment.client_id
    if not name or not name.isprintable() or len(name) > _NAME_LENGTH:
        raise ValueError(f"`{shown(name, 40)}` is no name of a client")
    if enrolment.points <= 0:
        raise ValueError(f"client `{name}` has no training point")
    points, windows, horizon = enrolment.points, enrolment.windows, enrolment.horizon
    # Each window has at least one of the points: what FedNova weighs by cannot be made up.
    if not windows <= points <= windows * horizon or points > _MOST:
        raise ValueError(
            f"client `{name}` claims {points:.16g} training points in {windows:.16g} windows of "
            f"{horizon:.16g}"
        )
    for name, array in enrolment.sums.items():
        if not np.isfinite(array).all():
            raise ValueError(f"enrolment: `{name}` is not finite")


def read_update(reply: Message, client_id: str, like: Arrays, request: TrainRequest) -> Update:
    """Read an update of the right form; its values are for the gate to judge.

    Args:
        reply: Flower's message.
        client_id: Who was asked.
        like: Arrays whose names, shapes and dtypes the reply must have.
        request: What was asked: the reply must answer its round and its version of the model.

    Raises:
        FederationError: FL301 malformed, FL303 the client failed.
    """
    content = _content(reply)
    try:
        arrays = _arrays(content.array_records[ARRAYS])
        metrics = content.metric_records[METRICS]
        weight, loss = _number(metrics["num-examples"]), _number(metrics["loss"])
        seconds = _number(metrics["seconds"])
        start_loss = _number(metrics[_START_LOSS]) if request.work.start_loss else math.nan
        spread = _number(metrics[_SPREAD]) if request.work.probe else math.nan
        config = content.config_records[CONFIG]
        sender, version = _text(config["client-id"]), _text(config["model-version"])
        answered = _number(config["server-round"])
    except _MALFORMED as error:
        raise _malformed(reply, f"update: {error}") from None
    if sender != client_id:
        raise _malformed(reply, f"`{sender}` answered for `{client_id}`")
    if answered != request.round:
        why = f"`{client_id}` answers round {answered:g}, asked was {request.round}"
        raise _malformed(reply, why)
    if version != request.version:
        why = f"`{client_id}` answers for model `{version}`, sent was `{request.version}`"
        raise _malformed(reply, why)
    # The dtype too: a float64 that is finite may be infinite in a float32 model.
    wanted = {name: (a.shape, a.dtype.name) for name, a in like.items()}
    got = {name: (a.shape, a.dtype.name) for name, a in arrays.items()}
    if differ := sorted(name for name in wanted | got if wanted.get(name) != got.get(name)):
        theirs, ours = (forms.get(differ[0], "nothing") for forms in (got, wanted))
        why = f"`{client_id}` sent {theirs} for `{shown(differ[0], 80)}`, the model has {ours}"
        raise _malformed(reply, why)
    return Update(client_id, arrays, weight, loss, seconds, start_loss, spread)


def answered_round(reply: Message) -> int | None:
    """Return the round that a reply says it answers; None where it says none that can be read."""
    if not reply.has_content():
        return None
    try:
        round_ = _number(reply.content.config_records[CONFIG]["server-round"])
        return int(round_) if round_ == int(round_) else None
    except _MALFORMED:
        return None


def read_evaluation(reply: Message) -> dict[str, ErrorSums]:
    """Read error sums by meter.

    Raises:
        FederationError: FL301 malformed, FL303 the client failed.
    """
    content = _content(reply)
    try:
        names = [_text(n) for n in _list(content.config_records[CONFIG]["client-ids"])]
        record = content.config_records[SUMS]
        columns = [[float(v) for v in _list(record[name])] for name in SUM_NAMES]
        rows = zip(*columns, strict=True)
        sums = {name: _sums(row) for name, row in zip(names, rows, strict=True)}
    except _MALFORMED as error:
        raise _malformed(reply, f"evaluation: {error}") from None
    return sums


# ------------------------------------------------------------------------------ internals
def _arrays(record: ArrayRecord) -> Arrays:
    """Unpack what somebody else has packed.

    Raises:
        ValueError: A value is no array of floating-point numbers.
    """
    arrays: Arrays = {}
    for name, packed in record.items():
        try:
            array = packed.numpy()
        except Exception as error:  # bytes from outside: NumPy may raise anything on them
            raise ValueError(f"`{name}` cannot be read: {error}") from None
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise ValueError(f"`{name}` is no array of floating-point numbers")
        arrays[name] = array
    return arrays


def _columns(sums: Mapping[str, ErrorSums]) -> list[tuple[float, ...]]:
    rows = [astuple(s) for s in sums.values()]
    return list(zip(*rows, strict=True)) if rows else [() for _ in SUM_NAMES]


def _sums(row: tuple[float, ...]) -> ErrorSums:
    if not all(math.isfinite(value) for value in row):
        raise ValueError("sums are not finite")
    for name, value in zip(SUM_NAMES, row, strict=True):
        if value < 0 and name in NEVER_NEGATIVE:
            raise ValueError(f"`{name}` is negative")
        if name in COUNTS and (value != int(value) or value > _MOST):
            raise ValueError(f"`{name}` is no whole number, or beyond all counts")
    values = {
        name: int(value) if name in COUNTS else value
        for name, value in zip(SUM_NAMES, row, strict=True)
    }
    return ErrorSums(**values)  # type: ignore[arg-type]  # int and float by name, above


def _content(reply: Message) -> RecordDict:
    if reply.has_error():
        node, reason = reply.metadata.src_node_id, reply.error.reason
        raise FederationError(client_failed(node, reason or "no reason given"))
    return reply.content


def client_failed(node: int, reason: str) -> Fault:
    """Return the fault of a client whose work raised."""
    return Fault(
        "FL303",
        "a client failed while it worked",
        f"node {node}: {shown(reason)}",
        "--debug stops there and names client, round and step",
    )


def malformed(node: int, why: str) -> Fault:
    """Return the fault of a reply that cannot be used."""
    return Fault("FL301", f"a reply was refused: {shown(why)}", f"node {node}", "")


def shown(text: str, length: int = _QUOTED_LENGTH) -> str:
    """Return a client's words as a log, a terminal and a database bear them.

    One line of about `length` characters, none of them invisible; the middle of more is left out.

    >>> shown("disk full\\n\\x1b[31mround 2: loss 0")
    'disk full \\\\x1b[31mround 2: loss 0'
    """
    half = length // 2
    if len(text) > length:  # the cause of a failure stands at the end of its trace
        text = f"{text[:half]} … {text[-half:]}"
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _malformed(reply: Message, why: str) -> FederationError:
    return FederationError(malformed(reply.metadata.src_node_id, why))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return float(value)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value
