"""The directory of all runs: list it, find a run in it, remove one."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fl_inmetro.errors import Fault, FlInmetroError, RunError
from fl_inmetro.runs import layout
from fl_inmetro.runs.lock import WriterLock
from fl_inmetro.runs.manifest import is_run
from fl_inmetro.runs.record import BASELINE, RunRecord

#: Status of a run whose files cannot be read; only listings use it.
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs.

    Attributes:
        id: The run's identifier.
        path: Its directory.
        status: `running`, `completed`, `interrupted`, `failed`, or `unreadable`.
        kind: `run` or `compare`.
        name: Name given in the configuration.
        seed: Root seed.
        created_utc: When it began.
        config_hash: First 12 hex digits of the SHA-256 of the frozen configuration.
        source: Name of the data source.
        simulated: True when no meter was involved.
        clients: Clients of the first trained model.
        rounds_done: Highest finished round of the model trained last.
        rounds_planned: Rounds it was to have.
        model: The best learner by test nMAE, or the one trained last while nothing is scored.
        training: How it was trained.
        nmae: Its mean nMAE over the clients on the test window.
        seconds: Wall time, once the run has ended.
    """

    id: str
    path: str
    status: str
    kind: str = ""
    name: str = ""
    seed: int | None = None
    created_utc: str = ""
    config_hash: str = ""
    source: str = ""
    simulated: bool = False
    clients: int | None = None
    rounds_done: int | None = None
    rounds_planned: int | None = None
    model: str = ""
    training: str = ""
    nmae: float | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def summarise(record: RunRecord) -> RunSummary:
    """Return the one-line summary of a run.

    Raises:
        RunError: FL703 when it cannot be read.
    """
    manifest, stages = record.manifest, record.stages()
    # A blend of models is a stage without a federation: it has no rounds to tell of.
    trained = [stage for stage in stages if stage["groups"]]
    last = (trained or stages or [{}])[-1]
    done = (
        max((row["round"] for row in record.rounds(stage=last["stage"])), default=0)
        if last
        else None
    )
    best = best_learner(record.scores()) or last
    data = manifest.get("data", {})
    return RunSummary(
        id=record.id,
        path=str(record.path),
        status=record.status,
        kind=record.kind,
        name=manifest.get("name", ""),
        seed=manifest.get("seed"),
        created_utc=manifest.get("created_utc", ""),
        config_hash=manifest.get("config_hash", ""),
        source=data.get("source", ""),
        simulated=bool(data.get("simulated")),
        clients=stages[0]["clients"] if stages else None,
        rounds_done=done,
        rounds_planned=last.get("rounds"),
        model=best.get("model", ""),
        training=best.get("training", ""),
        nmae=best.get("nmae"),
        seconds=record.seconds,
    )


def best_learner(scores: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the score row of the trained model with the lowest nMAE; None when none is scored."""
    trained = [r for r in scores if r["training"] != BASELINE and r.get("nmae") is not None]
    return min(trained, key=lambda row: float(row["nmae"]), default=None)


def best_baseline(scores: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the score row of the baseline with the lowest nMAE; None when none is scored."""
    plain = [r for r in scores if r["training"] == BASELINE and r.get("nmae") is not None]
    return min(plain, key=lambda row: float(row["nmae"]), default=None)


def list_runs(root: Path) -> list[RunSummary]:
    """Return the runs under `root`, newest first; a damaged one is listed as `unreadable`."""
    summaries = []
    for path in _directories(root):
        try:
            summaries.append(summarise(RunRecord.open(path)))
        except FlInmetroError:
            summaries.append(RunSummary(path.name, str(path), UNREADABLE))
    return summaries


def find_run(root: Path, name: str) -> Path:
    """Return the directory of a run.

    Args:
        root: Directory of all runs.
        name: A path to a run, a full identifier, a part of one that is unique, or `latest`.

    Raises:
        RunError: FL701 when there is no such run, or more than one; with the candidates.
    """
    runs = _directories(root)
    names = [path.name for path in runs]
    if name == "latest" and runs:
        return runs[0]
    if name and is_run(root / name):  # an absolute path replaces `root` here
        return root / name
    if name and is_run(Path(name)):
        return Path(name)
    found = [path for path in runs if name and name in path.name]
    if len(found) == 1:
        return found[0]
    place = f"{root}  {name}"
    if found:
        shown = "\n".join(path.name for path in found[:10])
        more = f"\nand {len(found) - 10} more" if len(found) > 10 else ""
        raise RunError(
            Fault(
                "FL701",
                f"`{name}` could be {len(found)} runs",
                place,
                f"name one of:\n{shown}{more}",
            )
        )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        hint = "did you mean:\n" + "\n".join(near)
    elif runs:
        hint = "`fl-inmetro runs ls` lists the runs; the newest is called `latest`"
    else:
        hint = "there are no runs here yet: `fl-inmetro run CONFIG.toml` makes one; "
        hint += "`--runs DIR` names another place"
    raise RunError(Fault("FL701", f"there is no run `{name}`", place, hint))


def remove_run(path: Path) -> None:
    """Delete a run directory and everything in it.

    Raises:
        RunError: FL701 when it is not a run; FL702 when it is being written; FL704 when the
            system refuses.
    """
    if not is_run(path):
        raise RunError(Fault("FL701", "this directory is not a run", str(path), ""))
    lock = WriterLock(path, patience_s=0.5)
    lock.release()
    # The manifest goes first: if the deletion stops half-way, what is left is no run any more.
    try:
        real = path.resolve()
        (real / layout.MANIFEST).unlink()
        shutil.rmtree(real)
    except OSError as error:
        raise layout.cannot_write(path, error.strerror or str(error)) from None


def _directories(root: Path) -> list[Path]:
    """Return the run directories, newest first: identifiers begin with their UTC time."""
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if is_run(p)), key=lambda p: p.name, reverse=True)
