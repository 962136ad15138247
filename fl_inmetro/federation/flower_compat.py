"""The only place that touches Flower's private parts, and sets its switches.

`Message(...)` takes the run and the sender from a process-global `TaskIdentity` that only Flower's
own runtimes set. A grid in this process has to set it too; a test fails when Flower moves it.
"""

from __future__ import annotations

import os

#: No telemetry, no update check, no environment built behind the user's back.
OFFLINE_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
for _name, _value in OFFLINE_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)  # before the first import of flwr

import logging  # noqa: E402 - the environment must be set first

from flwr.app import Error, Message  # noqa: E402
from flwr.supercore.run import Run  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

#: Flower's node id of the server side.
SERVER_NODE_ID = 1

#: Code of the error reply that stands for an exception in a client program.
CLIENT_FAILED = 2


def enter_run(run_id: int = 1) -> Run:
    """Give this process an identity to create messages with, unless Flower has given it one."""
    try:
        run_id = TaskIdentity.run_id
    except RuntimeError:
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = run_id
        TaskIdentity.node_id = SERVER_NODE_ID
    return Run.create_empty(run_id)


def error_reply(reason: str, request: Message) -> Message:
    """Return the reply of a client whose program raised, as Flower's own engines make it."""
    return Message(Error(code=CLIENT_FAILED, reason=reason), reply_to=request)


def quiet() -> None:
    """Keep Flower's log lines below warnings off the terminal; ours are the events."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
