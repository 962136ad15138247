"""The ground floor: seeds, units, errors, events, languages."""

import hashlib
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro import events, i18n
from fl_inmetro.errors import (
    BudgetError,
    ConfigError,
    DataError,
    Fault,
    FederationError,
    FlInmetroError,
    PrivacyError,
    RunError,
)
from fl_inmetro.seeds import derive, derive_seed
from fl_inmetro.units import epoch_s, is_power, iso_utc, to_kwh


# ---------------------------------------------------------------------------------- seeds
def test_a_seed_is_the_hash_of_root_and_path():
    # By the definition: SHA-256 of the parts joined by U+001F, first 8 bytes, 63 bits.
    text = "7\x1fstr:client\x1fstr:b12\x1fint:3"
    expected = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    assert derive_seed(7, "client", "b12", 3) == expected


def test_seeds_are_the_same_in_another_process():
    code = "from fl_inmetro.seeds import derive_seed; print(derive_seed(1, 'x', 2))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "99", "PYTHONPATH": ":".join(sys.path)},
    )
    assert int(out.stdout) == derive_seed(1, "x", 2)


def test_a_generator_does_not_depend_on_what_was_drawn_before():
    first = derive(0, "a").random(3)
    derive(0, "b").random(1000)
    assert (derive(0, "a").random(3) == first).all()


PATHS = st.lists(st.text(alphabet="ab12", max_size=3) | st.integers(0, 20), max_size=3).map(tuple)


@given(st.integers(0, 5), PATHS, st.integers(0, 5), PATHS)
def test_other_paths_have_other_seeds(root, path, other_root, other_path):
    # `1` and `"1"` are different names, too; 63 bits do not collide in a few thousand draws.
    typed = [
        (root, *((type(p), p) for p in path)),
        (other_root, *((type(p), p) for p in other_path)),
    ]
    same = derive_seed(root, *path) == derive_seed(other_root, *other_path)
    assert same == (typed[0] == typed[1])


# ---------------------------------------------------------------------------------- units
@pytest.mark.parametrize(
    ("value", "unit", "resolution_s", "kwh"),
    [
        (4.0, "kW", 900, 1.0),  # 4 kW for a quarter of an hour
        (4.0, "kWh", 900, 4.0),
        (500.0, "Wh", 1800, 0.5),
        (500.0, "W", 1800, 0.25),
        (2.0, "MW", 3600, 2000.0),
        (2.0, "MWh", 900, 2000.0),
    ],
)
def test_kwh_by_hand(value, unit, resolution_s, kwh):
    assert to_kwh(np.array([value]), unit, resolution_s)[0] == pytest.approx(kwh, rel=1e-15)
    assert is_power(unit) == (unit in ("W", "kW", "MW"))


def test_instants():
    assert epoch_s(datetime(1970, 1, 2)) == epoch_s(datetime(1970, 1, 2, tzinfo=UTC)) == 86_400
    assert epoch_s(datetime(1970, 1, 1, 21, tzinfo=timezone(timedelta(hours=-3)))) == 86_400
    assert iso_utc(86_399) == "1970-01-01T23:59:59Z"
    assert iso_utc(np.int64(0)) == "1970-01-01T00:00:00Z"


# --------------------------------------------------------------------------------- errors
def test_a_fault_is_rendered_as_the_house_form_says():
    fault = Fault("FL103", "too few", "run.toml:14  [strategy] x = 2\nclient b", "do\nthis")
    assert fault.render() == (
        "error[FL103]: too few\n"
        "  --> run.toml:14  [strategy] x = 2\n"
        "  --> client b\n"
        "hint: do\n"
        "      this"
    )
    assert Fault("FL1", "bare").render() == "error[FL1]: bare"


def test_all_faults_are_said_at_once_and_survive_a_process_border():
    error = DataError([Fault("FL202", "one"), Fault("FL203", "two", "here")])
    assert str(error) == "error[FL202]: one\n\nerror[FL203]: two\n  --> here"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is DataError
    assert again.faults == error.faults
    with pytest.raises(ValueError, match="at least one"):
        DataError([])


def test_exit_codes_tell_the_kinds_apart():
    kinds = (FlInmetroError, ConfigError, DataError, FederationError, RunError, PrivacyError)
    assert [kind.exit_code for kind in (*kinds, BudgetError)] == [1, 3, 4, 5, 6, 7, 8]


# --------------------------------------------------------------------------------- events
def test_events_go_to_every_sink_in_order_and_cannot_be_changed():
    seen: list[tuple[str, events.Event]] = []
    emit = events.fan_out(lambda e: seen.append(("first", e)), lambda e: seen.append(("second", e)))
    note = events.Note("info", "x")
    emit(note)
    assert seen == [("first", note), ("second", note)]
    with pytest.raises(AttributeError):
        note.text = "y"  # type: ignore[misc]


# ------------------------------------------------------------------------------ languages
def test_language_comes_from_the_wish_then_the_environment(monkeypatch):
    for name in ("FL_INMETRO_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert i18n.language() == "en"
    monkeypatch.setenv("LANG", "pt_BR.UTF-8")
    assert i18n.language() == "pt-BR"
    monkeypatch.setenv("FL_INMETRO_LANG", "en")
    assert i18n.language() == "en"
    assert i18n.language("pt-BR") == "pt-BR"


def test_numbers_have_the_marks_of_the_language():
    assert i18n.number(1234567.891, 2, "en") == "1,234,567.89"
    assert i18n.number(1234567.891, 2, "pt-BR") == "1.234.567,89"
    assert i18n.number(-0.5, 1, "pt-BR") == "-0,5"


def test_an_unknown_message_is_an_error_of_ours():
    with pytest.raises(KeyError):
        i18n.text("errors.FL000.title", "en")
