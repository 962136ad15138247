"""The ledger under real processes: killed at any moment, and several at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_inmetro.privacy.budget import Budget
from fl_inmetro.privacy.ledger import Ledger, ledger_path, read_ledger
from fl_inmetro.seeds import derive
from tests.cli.command_line import environment
from tests.privacy.ledgers import FLEET, release

#: Records rounds from `begin` on, and tells of each when it is acknowledged.
WRITER = """
import sys
from pathlib import Path
from tests.privacy.ledgers import *
folder, run, begin, end = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
book = Ledger(folder, FLEET)
print("ready", flush=True)
for number in range(begin, end):
    done = book.record(release(number, run=run))
    print(number, int(done.paid_before), flush=True)
"""


def writer(folder: Path, run: str, begin: int, end: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), run, str(begin), str(end)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """After each SIGKILL all acknowledged rounds are there, at most one more, each once."""
    rng, begin, killed = derive(6, "kill"), 0, 0
    for _ in range(12):
        process = writer(tmp_path, "r1", begin, 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.0, 0.05)))
        process.send_signal(signal.SIGKILL)
        # Not `communicate`: it would lose what `readline` has read ahead.
        out = process.stdout.read()
        process.wait()
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()
        killed += process.returncode == -signal.SIGKILL
        told = [int(line.split()[0]) for line in out.splitlines() if line.endswith(("0", "1"))]
        acknowledged = max(told, default=begin - 1) + 1
        found = read_ledger(ledger_path(tmp_path, FLEET))
        rounds = [entry.release.round for entry in found.entries]
        assert rounds == list(range(len(rounds)))
        assert len(rounds) - acknowledged in (0, 1)
        # A resumed run begins with the round of which it was not told: it is paid for once.
        begin = acknowledged
    assert killed == 12
    assert begin > 12  # it did get on


def test_the_same_work_again_pays_nothing(tmp_path: Path) -> None:
    first = writer(tmp_path, "r1", 0, 5)
    assert first.communicate()[0].split("\n")[1:6] == [f"{n} 0" for n in range(5)]
    again = writer(tmp_path, "r1", 0, 6)
    lines = again.communicate()[0].split("\n")[1:7]
    assert lines == [f"{n} 1" for n in range(5)] + ["5 0"]


def test_several_processes_append_while_others_read(tmp_path: Path) -> None:
    Ledger(tmp_path, FLEET)
    path = ledger_path(tmp_path, FLEET)
    processes = [writer(tmp_path, name, 0, 40) for name in ("a", "b", "c")]
    seen = 0
    while any(process.poll() is None for process in processes):
        count = len(read_ledger(path).entries)  # never an error, never fewer
        assert count >= seen
        seen = count
        time.sleep(0.01)
    for process in processes:
        assert process.communicate()[1] == ""
    found = read_ledger(path).entries
    for name in ("a", "b", "c"):
        assert [e.release.round for e in found if e.release.run == name] == list(range(40))
    assert len(found) == 120


def test_two_processes_do_not_both_spend_the_last_of_a_budget(tmp_path: Path) -> None:
    """sqrt(n) <= 5 lets 25 releases through, whoever makes them."""
    code = WRITER.replace(
        "book.record(release(number, run=run))",
        "book.record(release(number, run=run), [Budget(5.0, 1e-5, 'federation')], ROOT_SUM)",
    ).replace("import *", "import *\nfrom fl_inmetro.privacy.budget import Budget")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), run, "0", "40"],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for run in ("a", "b")
    ]  # fmt: skip
    outs = [process.communicate() for process in processes]
    assert all("FL422" in err for _, err in outs)
    assert sum(out.count("\n") - 1 for out, _ in outs) == 25
    assert len(read_ledger(ledger_path(tmp_path, FLEET)).entries) == 25


def test_a_budget_counted_by_the_real_accountants(tmp_path: Path) -> None:
    """The ledger's epsilon is what the accountants say of the same events."""
    pytest.importorskip("dp_accounting")
    from fl_inmetro.privacy.accountant import account
    from fl_inmetro.privacy.budget import both_accountants
    from fl_inmetro.privacy.mechanism import Gaussian

    counting = both_accountants()
    book, budget = Ledger(tmp_path, FLEET), Budget(4.0, 1e-5, "federation")
    book.record(release(0, times=5), [budget], counting)
    noted = book.record(release(1, times=15), [budget], counting).entry.account[0]
    expected = account([Gaussian(1.0, 0.1, 20)], 1e-5).epsilon
    assert noted["epsilon"] == pytest.approx(expected, rel=1e-12)
    assert "dp-accounting" in noted["accountant"]
