"""What data say of themselves: English where it is kept, found again in both languages."""

import string

import pytest

from fl_inmetro.i18n import catalogue, text
from fl_inmetro.i18n.said import said, told

MESSAGES = catalogue("data", "en")["said"]
#: Values that look like parts of messages, and names as files have them.
VALUES = ("2.5", "12", "kWh", "a", "2024-01-01 00:00", "America/Sao_Paulo", "column `a`")


def filled(key: str, value: str) -> dict[str, str]:
    names = [name for _, name, *_ in string.Formatter().parse(MESSAGES[key]) if name]
    return {name: "Wh read as kWh" if name == "meaning" else value for name in names}


@pytest.mark.parametrize("key", MESSAGES)
def test_a_sentence_is_told_in_portuguese_by_its_own_message(key):
    for value in VALUES:
        values = filled(key, value)
        sentence = said(key, **values)
        assert told(sentence, "en") == sentence
        wanted = {k: v.replace("2.5", "2,5") for k, v in values.items()}
        if "meaning" in wanted:
            wanted["meaning"] = text("data.said.unit_wh", "pt-BR")
        assert told(sentence, "pt-BR") == text(f"data.said.{key}", "pt-BR", **wanted)


def test_what_nobody_said_stays():
    assert told("Creative Commons BY 4.0", "pt-BR") == "Creative Commons BY 4.0"
    assert told("", "pt-BR") == ""
