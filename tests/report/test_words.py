import doctest
import tomllib
from importlib.resources import files

import pytest

from fl_inmetro.report import words


@pytest.mark.parametrize("area", ["report", "runs"])
def test_both_languages_have_the_same_keys_and_places(area):
    def keys(folder):
        table = tomllib.loads(
            files("fl_inmetro.i18n").joinpath(folder, f"{area}.toml").read_text("utf-8")
        )
        return {
            (part, key): sorted(piece.split("}")[0] for piece in value.split("{")[1:])
            for part, entry in table.items()
            for key, value in (entry.items() if isinstance(entry, dict) else [("", entry)])
        }

    assert keys("en") == keys("pt_br")


def test_examples_in_the_documentation():
    assert doctest.testmod(words).attempted > 0
    assert doctest.testmod(words).failed == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0.0000"),
        (0.001234567, "0.001235"),
        (12.3456, "12.35"),
        (1234.5, "1,234"),
        (None, "–"),
    ],
)
def test_energies_have_four_significant_digits(value, written):
    assert words.kwh(value, "en") == written


def test_missing_numbers_are_empty_cells():
    for write in (
        words.ratio,
        words.percent,
        words.kwh,
        words.whole,
        words.byte_count,
        words.duration,
    ):
        assert write(None, "en") == words.MISSING
        assert write(float("nan"), "en") == words.MISSING


def test_unknown_models_keep_their_names():
    assert words.line_label("mine", "federated", "en") == "mine, federated"
    assert words.line_label("ha4", "baseline", "pt-BR") == "HA4"


def test_spans_and_sizes_choose_their_unit():
    assert words.duration(90, "en") == "90.0\u00a0s"
    assert words.duration(150, "pt-BR") == "2,5\u00a0min"
    assert words.duration(9000, "en") == "2.5\u00a0h"
    assert words.byte_count(999, "en") == "999\u00a0B"
    assert words.byte_count(1.5e9, "pt-BR") == "1,50\u00a0GB"
