"""The ledger: what pays, what does not, budgets, owners."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_inmetro.errors import BudgetError, PrivacyError
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.budget import Accountant, Budget, both_accountants
from fl_inmetro.privacy.journal import head_path
from fl_inmetro.privacy.ledger import Ledger, Owner, find_ledgers, ledger_path, read_ledger
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.release import digest_of, spending
from tests.privacy.ledgers import FLEET, HOME, ROOT_SUM, ledger, release


def codes(error: pytest.ExceptionInfo[PrivacyError]) -> list[str]:
    return [fault.code for fault in error.value.faults]


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    book = ledger(tmp_path, 2)
    found = read_ledger(book.path)
    assert found.owner == FLEET
    assert found.entries == book.entries()
    assert [entry.release for entry in found.entries] == [release(0), release(1)]
    assert [entry.sequence for entry in found.entries] == [2, 3]
    assert (len(found.bodies), found.torn_bytes) == (3, 0)
    assert found.entries[-1].hash == found.hash
    if os.name == "posix":
        assert {p.stat().st_mode & 0o077 for p in (book.path, head_path(book.path))} == {0}


def test_the_same_bits_pay_once_other_bits_pay_again(tmp_path: Path) -> None:
    book = ledger(tmp_path, 1)
    again = Ledger(tmp_path, FLEET)  # as after a restart
    assert again.record(release(0)).paid_before
    assert len(book.entries()) == len(again.entries()) == 1
    # Other noise gives other bits: another attempt.
    second = again.record(release(0, b"other noise"))
    assert (second.paid_before, second.entry.attempt) == (False, 2)
    # Both are known now, whichever comes again.
    assert again.record(release(0)).entry.attempt == 1
    assert again.record(release(0, b"other noise")).entry.attempt == 2
    # The same bits under another name, round, run or claim of noise are other releases.
    others: tuple[dict[str, Any], ...] = (
        {"what": "metric"},
        {"number": 1},
        {"run": "r2"},
        {"noise_multiplier": 4.0},
        {"times": 2},
    )
    for other in others:
        assert not again.record(release(**other)).paid_before, other
    assert len(read_ledger(book.path).entries) == 2 + len(others)


def test_spending_adds_up() -> None:
    releases = [release(0), release(1, times=3), release(2, noise_multiplier=2), release(3)]
    assert spending(releases) == (
        Gaussian(1.0, 0.1, 5, "poisson", 1),
        Gaussian(2.0, 0.1, 1, "poisson", 1),
    )


def test_a_budget_stops_before_it_is_exceeded(tmp_path: Path) -> None:
    """With noise 1 each costs 1 under the root: sqrt(4) = 2 fits a budget of 2, sqrt(5) not."""
    book, budget = Ledger(tmp_path, FLEET), Budget(2.0, 1e-5, "federation")
    for number in range(4):
        (verdict,) = book.check(release(number), [budget], ROOT_SUM)
        assert verdict.epsilon_before == pytest.approx(math.sqrt(number))
        assert verdict.epsilon_after == pytest.approx(math.sqrt(number + 1))
        assert verdict.allowed
        recorded = book.record(release(number), [budget], ROOT_SUM)
        assert recorded.entry.account == (
            {
                "accountant": "root-sum 1",
                "delta": 1e-5,
                "epsilon": math.sqrt(number + 1),
                "limit": 2.0,
                "scope": "federation",
            },
        )
    size = book.path.stat().st_size
    assert not book.check(release(4), [budget], ROOT_SUM)[0].allowed
    # Neither this object nor one after a restart can go on.
    for one in (book, Ledger(tmp_path, FLEET)):
        with pytest.raises(BudgetError) as error:
            one.record(release(4), [budget], ROOT_SUM)
        assert codes(error) == ["FL422"]
        assert error.value.exit_code == 8
        assert "from 2 to 2.236" in error.value.faults[0].what
        # What is spent is spent: sqrt(4 + 1/z²) > 2 for each z that is looked at.
        assert "whatever the noise" in error.value.faults[0].hint
    assert book.path.stat().st_size == size
    # What was paid for is not asked of the budget again.
    assert book.record(release(3), [budget], ROOT_SUM).paid_before


def test_the_hint_names_noise_that_fits(tmp_path: Path) -> None:
    """After one release of cost 1, 1 + 1/z² <= 1.25² needs z >= 1/0.75 = 1.3333."""
    book, budget = ledger(tmp_path, 1), Budget(1.25, 1e-5, "federation")
    with pytest.raises(BudgetError) as error:
        book.record(release(1), [budget], ROOT_SUM)
    hint = error.value.faults[0].hint
    named = float(hint.split("noise multiplier of ")[1].split()[0])
    assert 4 / 3 <= named <= 4 / 3 * 2 ** (1 / 16) + 0.01
    assert book.record(release(1, noise_multiplier=named), [budget], ROOT_SUM)


def test_scopes(tmp_path: Path) -> None:
    book = ledger(tmp_path, 3, HOME)
    run, client = Budget(2.0, 1e-5, "run"), Budget(2.0, 1e-5, "client")
    for number in (3, 4):
        verdicts = book.check(release(number, run="r2"), [run, client], ROOT_SUM)
        assert [v.epsilon_after for v in verdicts] == [
            pytest.approx(math.sqrt(number - 2)),
            pytest.approx(math.sqrt(number + 1)),
        ]
        if number == 3:
            book.record(release(number, run="r2"), [run, client], ROOT_SUM)
        else:
            with pytest.raises(BudgetError) as error:
                book.record(release(number, run="r2"), [run, client], ROOT_SUM)
            assert len(error.value.faults) == 1
            assert "this client" in error.value.faults[0].what
    with pytest.raises(PrivacyError) as wrong:
        book.check(release(9), [Budget(2.0, 1e-5, "federation")], ROOT_SUM)
    assert codes(wrong) == ["FL430"]


def test_accounts_that_cannot_be_trusted_allow_nothing(tmp_path: Path) -> None:
    book, budget = Ledger(tmp_path, FLEET), Budget(1e9, 1e-5, "federation")
    for value in (math.nan, math.inf):
        with pytest.raises(BudgetError):
            book.record(release(), [budget], Accountant("bad", lambda *_, v=value: v))
    with pytest.raises(BudgetError):
        book.record(release(noise_multiplier=0), [budget], ROOT_SUM)
    assert book.entries() == ()
    # Without a budget a release without noise is written down as what it is.
    assert book.record(release(noise_multiplier=0)).entry.release.noise_multiplier == 0


def test_epsilons_of_different_units_do_not_add_up(tmp_path: Path) -> None:
    book = Ledger(tmp_path, FLEET)
    book.record(release(0, subject="window"))
    with pytest.raises(PrivacyError) as error:
        book.record(release(1), [Budget(9.0, 1e-5, "federation")], ROOT_SUM)
    assert codes(error) == ["FL429"]
    assert "`window`" in str(error.value)


def test_one_replaced_is_not_one_more_or_less(tmp_path: Path) -> None:
    """Neither fits the other's budget; where all take part, one replaced moves the sum by 2 C."""
    book = Ledger(tmp_path, FLEET)
    replaced = Budget(20.0, 1e-5, "federation", relation="replace")
    everyone = release(sampling="all", sampling_rate=1, relation="replace")
    for one, budget in (
        (everyone, replace(replaced, relation="add-remove")),
        (release(), replaced),
    ):
        with pytest.raises(PrivacyError, match="FL429"):
            book.record(one, [budget], ROOT_SUM)
    noted = book.record(everyone, [replaced], both_accountants()).entry.account[0]["epsilon"]
    assert noted == pytest.approx(account((Gaussian(0.5, 1.0, 1, "all"),), 1e-5).epsilon)
    book.record(release(sampling="without-replacement", relation="replace"), [replaced], ROOT_SUM)
    assert len(book.entries()) == 2


def test_a_mechanism_without_account_is_recorded_but_fits_no_budget(tmp_path: Path) -> None:
    book = Ledger(tmp_path, FLEET)
    laplace = release(mechanism="laplace")
    with pytest.raises(PrivacyError) as error:
        book.record(laplace, [Budget(9.0, 1e-5, "federation")], ROOT_SUM)
    assert codes(error) == ["FL431"]
    assert book.record(laplace).entry.release == laplace


def test_what_makes_no_release() -> None:
    with pytest.raises(PrivacyError) as error:
        release(
            -1, run="a\nb", what="", mechanism="x" * 201, noise_multiplier=math.nan,
            sensitivity=0, sampling_rate=1.5, times=0, relation="near", subject="house",
            digest="AB",
        )  # fmt: skip
    assert codes(error) == ["FL423"] * 11
    for wrong in (
        {"sampling": "all", "sampling_rate": 0.5},
        {"times": True},
        {"number": 1.5},
        {"noise_multiplier": -1},
        {"run": "\ud800"},
        {"sampling": "none"},
        {"group": 0},
        {"sampling": "without-replacement"},
        {"sampling": "without-replacement", "relation": "replace", "group": 2},
    ):
        with pytest.raises(PrivacyError, match="FL423"):
            release(**wrong)  # type: ignore[arg-type]
    for budget in ((0, 1e-5, "run"), (math.inf, 1e-5, "run"), (1, 0, "run"), (1, 1e-5, "house")):
        with pytest.raises(PrivacyError, match="FL423"):
            Budget(*budget)  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="FL423"):
        Owner("")


def test_a_digest_knows_where_its_parts_end() -> None:
    assert digest_of([b"ab", b"c"]) != digest_of([b"a", b"bc"]) != digest_of([b"abc"])


def test_any_client_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ["a", "A", "..", "../a", "a/b", "ção", "x" * 200, "x" * 199 + "y", "CON", "."]
    paths = [ledger_path(tmp_path, Owner("north", name)) for name in names]
    assert len({str(path).lower() for path in paths}) == len(names)
    assert {path.parent for path in paths} == {tmp_path / "clients"}
    for name in names:
        Ledger(tmp_path, Owner("north", name)).record(release())
    Ledger(tmp_path, FLEET)
    found = find_ledgers(tmp_path)
    assert found[0] == ledger_path(tmp_path, FLEET)
    assert {read_ledger(path).owner.client for path in found} == {None, *names}


def test_somebody_elses_ledger_is_not_written_to(tmp_path: Path) -> None:
    ledger(tmp_path)
    with pytest.raises(PrivacyError, match="of another ledger: 'north'"):
        Ledger(tmp_path, Owner("south"))


def test_ledgers_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.ledger"):
        with pytest.raises(PrivacyError) as error:
            [read_ledger(one) for one in find_ledgers(path)]
        assert codes(error) == ["FL427"]
