"""What a person sees while a run works: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fl_inmetro import events as ev
from fl_inmetro.cli.tables import size
from fl_inmetro.i18n import Language, number, text


class Display:
    """An event sink that shows round, loss, validation error, bytes and time left on stderr."""

    def __init__(self, lang: Language) -> None:
        self._lang = lang
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not os.environ.get("FL_INMETRO_NO_PROGRESS")
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._task: TaskID | None = None
        self._stage = ev.RunStarted("", "", 0, 0, 0)
        self._bytes = 0
        self._began = time.monotonic()
        self._groups_done = 0
        self._rejected = 0

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
            case ev.RoundFinished():
                self._round(event)
            case ev.GroupFinished():
                self._group(event)
            case ev.ClientRejected():
                self._reject(event)
            case ev.ModelScored():
                self._scored(event)
            case ev.Note(level="warning"):
                self._line(text("cli.progress.warning", self._lang, what=event.text))
            case _:
                pass

    def say(self, line: str) -> None:
        """Show a line of another engine's log."""
        self._line(line)

    def interrupted(self, kind: str, file: Path | None, root: Path) -> None:
        """Say how to go on."""
        config = f" {file}" if file else ""
        runs = "" if root == Path("runs") else f" --runs {root}"
        command = f"fl-inmetro {kind}{config}{runs} --resume"
        self._line(text("cli.progress.interrupted", self._lang, command=command))

    # --------------------------------------------------------------------------- internals
    def _start(self, event: ev.RunStarted) -> None:
        self._stage = event
        self._bytes = self._groups_done = 0
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
        if self._stage.training == "local":
            return  # one line per client is enough; its rounds are in the run directory
        state = text(
            "cli.progress.state",
            self._lang,
            loss=number(event.loss, 4, self._lang),
            nmae=number(event.nmae, 4, self._lang),
            mark="*" if event.is_best else " ",
            bytes=size(self._bytes, self._lang),
        )
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
            nmae = number(event.nmae, 4, self._lang)
            state = text("cli.progress.client", self._lang, nmae=nmae)
            self._progress.update(self._task, completed=self._groups_done, state=state)

    def _reject(self, event: ev.ClientRejected) -> None:
        self._rejected += 1
        if self._rejected > 5:
            return  # all of them are in the run directory; five are enough to see the pattern
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

    def _scored(self, event: ev.ModelScored) -> None:
        if event.training == "baseline":
            return
        nmae = number(event.scores["nmae"], 4, self._lang)
        if self._live and self._task is not None:
            state = text("cli.progress.scored", self._lang, nmae=nmae)
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            self._progress.update(self._task, completed=task.total, state=state)
        else:
            training = text(f"cli.training.{event.training}", self._lang)
            scored = text("cli.progress.scored", self._lang, nmae=nmae)
            self._line(f"{event.model} · {training}  {scored}")

    def _line(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a request to stop after the client at work; the second is hard."""
    asked = threading.Event()

    def handler(number_: int, frame: FrameType | None) -> None:
        del number_, frame
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        sys.stderr.write("\n" + text("cli.progress.stopping") + "\n")

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for s, old in previous.items():
            signal.signal(s, old)
