"""Folds of a backtest: dates by hand, what each trains on, and what cannot be tried."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.backtest.folds import Fold, check, fold_configs, folds_of, seeds_of, span_of
from fl_inmetro.config import RunConfig, config_hash
from fl_inmetro.config.backtest import Backtest
from fl_inmetro.data.splits import resolve
from fl_inmetro.errors import ConfigError
from tests.fleets import fleet, tiny_config

FIRST = date(2024, 2, 10)


def config(**values: Any) -> RunConfig:
    window = {"validation_days": 5, "timezone": "UTC", "issue_time": "00:00", "train_days": 0}
    return tiny_config(**{"window": window, **values})


def hashes(settings: RunConfig, folds: Sequence[Fold], seed: int = 3) -> list[str]:
    return [config_hash(own) for own in fold_configs(settings, folds, seed)]


def test_dates_by_hand() -> None:
    # 13 days of issue, trained again every 5: 10–14, 15–19 and the three days that are left.
    folds = folds_of(FIRST, date(2024, 2, 22), 5)
    assert [(f.number, f.first.day, f.last.day, f.days) for f in folds] == [
        (0, 10, 14, 5),
        (1, 15, 19, 5),
        (2, 20, 22, 3),
    ]
    # Over the end of February of a leap year.
    (_, late) = folds_of(date(2024, 2, 20), date(2024, 3, 4), 10)
    assert (late.first, late.last) == (date(2024, 3, 1), date(2024, 3, 4))


@given(st.integers(1, 400), st.integers(1, 90))
def test_every_day_is_in_one_fold(days: int, refit_days: int) -> None:
    last = FIRST + timedelta(days=days - 1)
    folds = folds_of(FIRST, last, refit_days)
    every = [f.first + timedelta(days=k) for f in folds for k in range(f.days)]
    assert every == [FIRST + timedelta(days=k) for k in range(days)]
    assert all(f.days == refit_days for f in folds[:-1])
    assert [f.number for f in folds] == list(range(len(folds)))


def test_each_fold_trains_on_what_was_there_before_it() -> None:
    data = fleet(1, 60)
    settings = config(backtest={"first": FIRST, "last": "2024-02-22", "refit_days": 5})
    folds = folds_of(*span_of(settings, data), 5)
    train = [resolve(own.window, data) for own in fold_configs(settings, folds, 3)]
    for fold, splits in zip(folds, train, strict=True):
        begin = splits.test[0]
        assert len(splits.test) == fold.days
        assert splits.train[-1] + 24 * 3600 <= splits.validation[0]
        assert splits.validation[-1] + 24 * 3600 <= begin
    # From 2024-01-01 on; 40, 45 and 50 days before the folds, of which 5 are for validation.
    assert [len(splits.train) for splits in train] == [35, 40, 45]
    rolling = config(backtest={"first": FIRST, "last": "2024-02-22", "train_days": 20})
    lengths = [len(resolve(own.window, data).train) for own in fold_configs(rolling, folds, 3)]
    assert lengths == [20, 20, 20]


def test_the_days_are_those_of_the_window_where_none_are_given() -> None:
    data = fleet(1, 60)  # until 2024-02-29
    window = {"test_days": 9, "validation_days": 5, "timezone": "UTC", "issue_time": "00:00"}
    assert span_of(config(window=window), data) == (date(2024, 2, 21), date(2024, 2, 29))
    later = config(window=window, backtest={"first": "2024-02-25"})
    assert span_of(later, data) == (date(2024, 2, 25), date(2024, 2, 29))
    with pytest.raises(ConfigError) as caught:
        span_of(config(window=window, backtest={"first": "2024-03-25"}), data)
    assert caught.value.faults[0].code == "FL116"
    assert seeds_of(config()) == (3,)
    assert seeds_of(config(backtest={"seeds": [5, 1]})) == (5, 1)


def test_a_fold_is_the_same_run_whatever_comes_after_it() -> None:
    """A longer backtest, or one with more seeds, keeps what is done."""
    plain = {"first": FIRST, "last": "2024-02-22", "refit_days": 5}
    longer = {**plain, "last": "2024-02-29", "seeds": [3, 4]}
    folds = folds_of(FIRST, date(2024, 2, 19), 5)
    for warm in (False, True):
        one, other = (config(backtest={**b, "warm_start": warm}) for b in (plain, longer))
        assert hashes(one, folds) == hashes(other, folds)
        assert not set(hashes(one, folds)) & set(hashes(one, folds, 4))
    # What a warm start came from decides its result: the first fold is that of the cold ones, the
    # second is not.
    cold, warmed = (config(backtest={**plain, "warm_start": w}) for w in (False, True))
    assert hashes(cold, folds)[0] == hashes(warmed, folds)[0]
    assert hashes(cold, folds)[1] != hashes(warmed, folds)[1]
    # Folds that begin earlier: the days of 02-15 were then the third fold's, from other models.
    before = folds_of(date(2024, 2, 5), date(2024, 2, 19), 5)
    assert before[2].first == folds[1].first
    assert hashes(warmed, before)[2] not in hashes(warmed, folds)
    assert hashes(cold, before)[1:] == hashes(cold, folds)


@pytest.mark.parametrize(
    "change",
    [
        {"federation": {"num_server_rounds": 13, "epochs_alone": 10}},
        {"federation": {"num_server_rounds": 12, "epochs_alone": 11}},
        {"federation": {"num_server_rounds": 12, "epochs_alone": 10, "patience": 2}},
        {"models": {"mlp": {"eta_l": 0.5}}},
        {"window": {"validation_days": 6}},
        {"conformal": {"enabled": True}},
    ],
)
def test_what_changes_the_first_training_changes_all_that_came_of_it(
    change: dict[str, Any],
) -> None:
    """Rounds and epochs of a warm fold are its own: only the chain holds those of the first."""
    backtest = {"refit_days": 5, "warm_start": True, "refit_rounds": 1}
    federation = {"num_server_rounds": 12, "epochs_alone": 10}
    folds = folds_of(FIRST, date(2024, 2, 24), 5)
    one = config(backtest=backtest, federation=federation)
    other = config(**{"backtest": backtest, "federation": federation, **change})
    assert len(folds) == 3
    assert not set(hashes(one, folds)) & set(hashes(other, folds))
    assert len({*hashes(one, folds)}) == 3


def test_rounds_of_a_warm_start() -> None:
    backtest = {"first": FIRST, "last": "2024-02-22", "warm_start": True, "refit_rounds": 4}
    federation = {"num_server_rounds": 12, "epochs_alone": 10}
    settings = config(backtest=backtest, federation=federation)
    first, second = (
        own.federation
        for own in fold_configs(settings, folds_of(FIRST, date(2024, 2, 22), 7)[:2], 3)
    )
    # 10 epochs alone go with 12 rounds; a third of the rounds, a third of the epochs: 3.33 → 3.
    assert (first.num_server_rounds, first.epochs_alone) == (12, 10)
    assert (second.num_server_rounds, second.epochs_alone) == (4, 3)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"engine": "flower"}, "engine"),
        ({"partition": {"kind": "iid", "clients": 2}}, "[partition] kind"),
        ({"protocol": {"name": "ltsf"}, "window": {}}, "[protocol]"),
        (
            {"compare": {"models": ["cyclenet"]}, "backtest": {"warm_start": True}},
            "[backtest] warm-start",
        ),
    ],
)
def test_what_cannot_be_tried_is_fl117(values: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(config(**values))
    (fault,) = caught.value.faults
    assert fault.code == "FL117"
    assert fault.where.startswith(where)
    assert fault.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": "2024-02-10", "last": "2024-02-09"},
        {"seeds": [1, 1]},
        {"seeds": [-1]},
        {"refit_rounds": 3},
        {"refit_days": 0},
    ],
)
def test_settings_that_cannot_be_are_fl102(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(backtest=wrong)
    assert {fault.code for fault in caught.value.faults} == {"FL102"}


def test_the_defaults_try_what_a_comparison_does() -> None:
    check(config())
    assert Backtest().refit_days == 28
    assert not Backtest().warm_start
