"""What a person sees while a run works: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

from fl_inmetro import events as ev
from fl_inmetro.cli.tables import size
from fl_inmetro.config.schema import TRAINED, TRAININGS
from fl_inmetro.i18n import Language, number, text
from fl_inmetro.i18n.said import told

#: Refused replies and clients left out that are shown; all of them are in the run directory.
_SHOWN = 5

#: Replies that virtual time leaves out.
_ABSENT = frozenset({"FL309", "FL310", "FL311"})

#: Width of the widest bar, and of the narrowest that still says something.
_BAR, _LEAST_BAR = 20, 5


class Display:
    """An event sink that shows round, loss, validation error, bytes and time left on stderr."""

    def __init__(self, lang: Language) -> None:
        self._lang = lang
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not os.environ.get("FL_INMETRO_NO_PROGRESS")
        self._state, bar = _layout(self._console.width, lang)
        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
        if bar:
            columns.append(BarColumn(bar_width=bar))
        columns += [
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[state]}", markup=False),
            TimeLeft(compact=True),
        ]
        self._progress = _Bars(*columns, console=self._console)
        self._task: TaskID | None = None
        self._stage = ev.RunStarted("", "", 0, 0, 0)
        self._bytes = 0
        self._simulated_s = 0.0
        self._began = time.monotonic()
        self._groups_done = 0
        self._rejected = 0
        self._left_out = 0

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def __call__(self, event: ev.Event) -> None:
        """Show an event."""
        match event:
            case ev.RunStarted():
                self._start(event)
            case ev.GroupStarted():
                self._bytes = event.n_bytes
            case ev.RoundFinished():
                self._round(event)
            case ev.GroupFinished():
                self._group(event)
            case ev.ClientRejected():
                self._reject(event)
            case ev.ClientSuspended():
                self._suspend(event)
            case ev.ModelScored():
                self._scored(event)
            case ev.Note():
                self._note(event)
            case _:
                pass

    def say(self, line: str) -> None:
        """Show a line of another engine's log."""
        self._line(line)

    def stopping(self) -> None:
        """Say that a stop was asked for; may be called from a signal handler."""
        said = text("cli.progress.stopping", self._lang)
        if self._live:
            # The bars are drawn again ten times a second, by a thread that may print.
            self._progress.below = said
        else:
            # The interrupted code may be inside a print: only the bare system call is safe here.
            os.write(2, f"{said}\n".encode())

    def interrupted(self, command: str | None) -> None:
        """Say how to go on: by `command`, or that this run cannot go on."""
        key = "interrupted" if command else "stopped"
        self._line(text(f"cli.progress.{key}", self._lang, command=command or ""))

    # --------------------------------------------------------------------------- internals
    def _start(self, event: ev.RunStarted) -> None:
        self._stage = event
        self._bytes = self._groups_done = 0
        self._simulated_s = 0.0
        self._began = time.monotonic()
        training = text(f"cli.training.{event.training}", self._lang)
        name = f"{event.model} · {training}"
        total = event.groups if event.training == "local" else event.rounds
        if self._live:
            self._task = self._progress.add_task(name, total=total, state="")
        else:
            self._line(text("cli.progress.start", self._lang, name=name, clients=event.clients))

    def _round(self, event: ev.RoundFinished) -> None:
        self._bytes += event.bytes_down + event.bytes_up
        self._simulated_s += event.simulated_s
        if self._stage.training == "local":
            return  # one line per client is enough; its rounds are in the run directory
        state = text(
            f"cli.progress.{self._state if self._live else 'state'}",
            self._lang,
            loss=self._number(event.loss),
            nmae=self._number(event.nmae),
            # Without a score nothing is best: then the last round counts.
            mark="*" if event.is_best and not math.isnan(event.nmae) else " ",
            # Nothing of a pooled client travels round by round; the table says what pooling moved.
            bytes="" if self._stage.training == "centralised" else size(self._bytes, self._lang),
        )
        if self._simulated_s:
            virtual = number(self._simulated_s, 1, self._lang)
            state += f"  {text('cli.progress.virtual', self._lang, seconds=virtual)}"
        if self._live and self._task is not None:
            self._progress.update(self._task, completed=event.round, state=state)
        else:
            spent = time.monotonic() - self._began
            left = spent / event.round * (self._stage.rounds - event.round)
            where = text(
                "cli.progress.round", self._lang, round=event.round, rounds=self._stage.rounds
            )
            ahead = text("cli.progress.left", self._lang, seconds=number(left, 0, self._lang))
            self._line(f"{where}  {state}  {ahead}")

    def _group(self, event: ev.GroupFinished) -> None:
        if self._stage.training != "local":
            return
        self._groups_done += 1
        if self._live and self._task is not None:
            nmae = self._number(event.nmae)
            state = text("cli.progress.client", self._lang, nmae=nmae)
            self._progress.update(self._task, completed=self._groups_done, state=state)

    def _reject(self, event: ev.ClientRejected) -> None:
        if event.code in _ABSENT:
            return  # virtual time: no fault, and the rows of the run say who and why
        self._rejected += 1
        if self._rejected > _SHOWN:
            return
        self._line(
            text(
                "cli.progress.rejected",
                self._lang,
                client=event.client_id,
                round=event.round,
                code=event.code,
                reason=event.reason,
            )
        )

    def _suspend(self, event: ev.ClientSuspended) -> None:
        key = "cli.progress.suspended_until" if event.until else "cli.progress.suspended"
        self._line(text(key, self._lang, client=event.client_id, until=event.until))

    def _scored(self, event: ev.ModelScored) -> None:
        if event.training == "baseline":
            return
        nmae = self._number(event.scores["nmae"])
        if self._live and self._task is not None:
            state = text("cli.progress.scored", self._lang, nmae=nmae)
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            self._progress.update(self._task, completed=task.total, state=state)
        else:
            training = text(f"cli.training.{event.training}", self._lang)
            scored = text("cli.progress.scored", self._lang, nmae=nmae)
            self._line(f"{event.model} · {training}  {scored}")

    def _note(self, event: ev.Note) -> None:
        what = told(event.text, self._lang)
        if event.level == "warning":
            self._line(text("cli.progress.warning", self._lang, what=what))
            return
        self._left_out += 1
        if self._left_out <= _SHOWN:
            self._line(what)
        elif self._left_out == _SHOWN + 1:
            self._line("…")

    def _number(self, value: float) -> str:
        return number(value, 4, self._lang) if value == value else "–"

    def _line(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Bars(Progress):
    """Bars with a line below them."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn; Rich's interface."""
        yield from super().get_renderables()
        if self.below:
            yield Text(self.below, style="bold")


def _layout(width: int, lang: Language) -> tuple[str, int]:
    """Return the form of the state and the width of the bar that fit into `width` columns."""
    names = [
        f"{model} · {text(f'cli.training.{training}', lang)}"
        for model in TRAINED
        for training in TRAININGS
    ]
    sample = {"loss": "0.0000", "nmae": "0.0000", "mark": "*", "bytes": "000.0 MB"}
    # Name, 00/00, state and 00:00, with a blank between any two columns.
    beside = max(map(cell_len, names)) + len("00/00") + len("00:00") + 4
    for state in ("state", "state_short"):
        left = width - beside - cell_len(text(f"cli.progress.{state}", lang, **sample))
        if left >= _LEAST_BAR:
            return state, min(left, _BAR)
    return "state_short", 0


@contextmanager
def stop_on_interrupt(say: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a request to stop after the client at work; the second is hard.

    `say` is called in the signal handler, when the request comes in.
    """
    asked = threading.Event()

    def handler(number_: int, frame: FrameType | None) -> None:
        del number_, frame
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for s, old in previous.items():
            signal.signal(s, old)
