"""The client side as a Flower `ClientApp`: the same program in every engine."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_inmetro.federation import messages
from fl_inmetro.federation.own_ledger import OwnLedger
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.private import PrivateState
from fl_inmetro.learning.update import Arrays, Update
from fl_inmetro.privacy.secret import Secret


def client_app(
    find_worker: Callable[[Context], ClientWorker],
    *,
    secret: Secret | None = None,
    batched: bool = True,
    debug: bool = False,
    find_ledger: Callable[[Context], OwnLedger | None] = lambda context: None,
) -> ClientApp:
    """Return the client program; `find_worker` says which client a node is.

    It answers `query.enrol`, `train` and `evaluate`. Asked by a strategy that is not ours (no
    `reply = delta` in the request), it returns weights, as Flower's strategies expect. Private
    parameters and control variates stay in the node's own state, and what a training leaves of
    them is pending until a request says that its round counted. With `debug`, a step that fails
    is an error.
    Noise is drawn from `secret`, by client and round; without one, from a fresh one in every
    training, which nobody else ever sees. DP-SGD takes the gradients of many windows at once where
    it is `batched`, to rounding the same as one by one. What `[privacy]` lets leave the node is
    written into the ledger of `find_ledger` before it leaves; a node without one keeps none.
    """
    app = ClientApp()

    @app.query("enrol")  # type: ignore[untyped-decorator]  # flwr is not followed by mypy
    def enrol(message: Message, context: Context) -> Message:
        worker, ledger = find_worker(context), find_ledger(context)
        asked = messages.asked_in(message.content)
        enrolment = worker.enrol(asked, secret or Secret.fresh())
        if ledger is not None:
            ledger.enrolled(worker, asked, messages.claimed_in(message.content))
        return Message(messages.enrolment_reply(enrolment), reply_to=message)

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        worker, ledger = find_worker(context), find_ledger(context)
        request = messages.TrainRequest.of(message.content.config_records[messages.CONFIG])
        shared = messages.unpack(message.content.array_records[messages.ARRAYS])
        record = message.content.array_records.get(messages.CONTROL)
        heard = load_private(context.state).told(request.best_round, request.counted_round)
        private = heard.current
        update, kept = worker.train(
            shared | private.latest,
            request.work,
            request.seed,
            request.round,
            control=None if record is None else messages.unpack(record),
            own_control=private.control,
            secret=secret or Secret.fresh(),
            batched=batched,
            debug=debug,
        )
        if ledger is not None:
            ledger.trained(worker, request, messages.claimed_in(message.content))
        if kept.private or kept.control:
            # A strategy that is not ours never says what counted: then everything does.
            pending_in = None if request.counted_round is None else request.round
            save_private(context.state, heard.trained(kept.private, kept.control, pending_in))
        asks_weights = not request.delta and not worker.learner.closed_form
        content = reply_content(update, request, shared if asks_weights else None)
        return Message(content, reply_to=message)

    @app.evaluate()  # type: ignore[untyped-decorator]
    def evaluate(message: Message, context: Context) -> Message:
        worker, ledger = find_worker(context), find_ledger(context)
        request = message.content.config_records[messages.CONFIG]
        state = messages.unpack(message.content.array_records[messages.ARRAYS])
        split = str(request.get("split", "validation"))
        private = load_private(context.state).told(
            int(request.get("best-round", 0)), messages.counted_of(request)
        )
        if private.latest or private.pending_round:
            save_private(context.state, private)
        state |= private.best if split == "test" else private.current.latest
        if ledger is not None and split == "validation":
            claim = messages.claimed_in(message.content)
            ledger.scored(worker, int(request.get("server-round", 0)), claim)
        return Message(messages.evaluation_reply(worker.evaluate(state, split)), reply_to=message)

    return app


def reply_content(
    update: Update, request: messages.TrainRequest, state: Arrays | None
) -> RecordDict:
    """Return what goes back: the update as it is or, on top of `state`, as weights."""
    arrays = update.arrays
    if state is not None and not request.work.probe:  # a gradient is no step
        arrays = weights_after(state, arrays)
    return messages.update_reply(update, arrays, request)


def weights_after(state: Arrays, deltas: Arrays) -> Arrays:
    """Return w + Δ; buffers, which have no delta, as they were."""
    return {
        name: value + deltas[name] if name in deltas else value for name, value in state.items()
    }


def load_private(state: RecordDict) -> PrivateState:
    """Return what the node has kept of its client's private parameters and control variate."""
    if _LATEST not in state:
        return PrivateState()
    arrays = {key: messages.unpack(state.array_records[name]) for key, name in _ARRAYS.items()}
    rounds = {key: int(state.config_records[_ROUNDS][name]) for key, name in _NUMBERS.items()}
    return PrivateState(**arrays, **rounds)  # type: ignore[arg-type]  # fields by name, above


def save_private(state: RecordDict, private: PrivateState) -> None:
    """Keep it with the node, where Flower keeps it from round to round."""
    for key, name in _ARRAYS.items():
        state[name] = messages.pack(getattr(private, key))
    state[_ROUNDS] = ConfigRecord({name: getattr(private, key) for key, name in _NUMBERS.items()})


_LATEST, _ROUNDS = "private-latest", "private-rounds"

#: Field of `PrivateState` to its record, or to its value in the record of rounds.
_ARRAYS = {
    "latest": _LATEST,
    "best": "private-best",
    "control": "private-control",
    "pending": "private-pending",
    "pending_control": "private-pending-control",
}
_NUMBERS = {
    "best_round": "best-round",
    "pending_round": "pending-round",
    "counted_round": "counted-round",
}
