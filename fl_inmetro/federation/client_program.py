"""The client side as a Flower `ClientApp`: the same program in every engine."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fl_inmetro.federation import messages
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.update import Arrays


def client_app(find_worker: Callable[[Context], ClientWorker]) -> ClientApp:
    """Return the client program; `find_worker` says which client a node is.

    It answers `query.enrol`, `train` and `evaluate`. Asked by a strategy that is not ours (no
    `reply = delta` in the request), it returns weights, as Flower's strategies expect.
    """
    app = ClientApp()

    @app.query("enrol")  # type: ignore[untyped-decorator]  # flwr is not followed by mypy
    def enrol(message: Message, context: Context) -> Message:
        worker = find_worker(context)
        return Message(messages.enrolment_reply(worker.enrol()), reply_to=message)

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        worker = find_worker(context)
        request = message.content.config_records[messages.CONFIG]
        state = messages.unpack(message.content.array_records[messages.ARRAYS])
        update = worker.train(
            state,
            int(request.get("local-epochs", 1)),
            int(request.get("seed", 0)),
            int(request["server-round"]),
        )
        arrays = update.arrays
        if request.get("reply") != "delta" and not worker.learner.closed_form:
            arrays = _weights(state, update.arrays)
        return Message(messages.update_reply(update, arrays), reply_to=message)

    @app.evaluate()  # type: ignore[untyped-decorator]
    def evaluate(message: Message, context: Context) -> Message:
        worker = find_worker(context)
        request = message.content.config_records[messages.CONFIG]
        state = messages.unpack(message.content.array_records[messages.ARRAYS])
        sums = worker.evaluate(state, str(request.get("split", "validation")))
        return Message(messages.evaluation_reply(sums), reply_to=message)

    return app


def _weights(state: Arrays, deltas: Arrays) -> Arrays:
    """Return w + Δ; buffers, which have no delta, as they were."""
    return {
        name: value + deltas[name] if name in deltas else value for name, value in state.items()
    }
