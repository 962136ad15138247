"""`fl-inmetro privacy budget`: the accounts' numbers, in both languages, and what is refused."""

from __future__ import annotations

import json

import pytest

from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.mechanism import Gaussian
from tests.cli.command_line import call, documented


def budget(*words: object) -> dict[str, object]:
    answer = call("privacy", "budget", *words, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert isinstance(found, dict)
    return found


def test_the_numbers_are_those_of_the_accounts():
    words = "--rounds 2000 --clients 1000 --fraction 0.02 --sigma 1 --delta 1e-5"
    found = budget(*words.split())
    assert sorted(found) == documented("privacy budget")
    assert found["epsilon_rdp"] == pytest.approx(6.15, abs=0.01)
    assert found["epsilon_pld"] == pytest.approx(5.62, abs=0.01)
    assert found["epsilon"] == found["epsilon_pld"]
    after = found["after"]
    assert isinstance(after, list)
    assert [row["rounds"] for row in after] == [1, 10, 1000, 2000]
    ten = account((Gaussian(1, 0.02, 10),), 1e-5)
    assert (after[1]["epsilon_rdp"], after[1]["epsilon_pld"]) == (ten.epsilon_rdp, ten.epsilon_pld)
    assert found["relation"] == "add-remove"
    assert found["warnings"] == []


def test_noise_for_a_wanted_epsilon_does_and_is_short():
    found = budget("--rounds", 20, "--clients", 500, "--fraction", 0.1, "--epsilon", 3)
    assert 2.99 < found["epsilon"] <= 3
    # Four digits, as printed: who types them gets the same.
    again = budget("--rounds", 20, "--clients", 500, "--fraction", 0.1, "--sigma", found["sigma"])
    assert again == found
    assert len(str(found["sigma"]).replace(".", "").lstrip("0")) <= 4


def test_a_fixed_number_is_rounded_up_and_never_called_poisson():
    words = ("--rounds", 5, "--clients", 25, "--fraction", 0.1, "--sigma", 4)
    fixed = budget(*words, "--sampling", "without-replacement")
    assert (fixed["clients_per_round"], fixed["sampling_rate"]) == (3, 0.12)  # ⌈2.5⌉ of 25
    assert fixed["relation"] == "replace"
    assert fixed["epsilon"] > 1.5 * budget(*words)["epsilon"]


def test_warnings_where_a_number_promises_little():
    found = budget("--rounds", 50, "--clients", 10, "--sigma", 4, "--delta", 0.1)
    assert found["warnings"] == ["delta_large", "few_clients"]  # noise of 4/10 C in the mean
    answer = call("privacy", "budget", "--rounds", 50, "--clients", 10, "--sigma", 1.5)
    assert answer.code == 0
    assert answer.err.count("warning: ") == 1 + 1  # few clients, and an epsilon above 10
    assert "epsilon" in answer.err
    assert "more than a million" in answer.out


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        (
            "en",
            ("epsilon (RDP)", "epsilon 1.91.", "For one meter", "its having taken part by 6.69"),
        ),
        ("pt-BR", ("épsilon (RDP)", "épsilon 1,91.", "Para um medidor", "no máximo 6,69")),
    ],
)
def test_plain_words_in_both_languages(lang, words):
    answer = call(
        "privacy", "budget", "--rounds", 10, "--clients", 1000, "--sigma", 6.6, "--lang", lang
    )
    total = account((Gaussian(6.6, 1, 10, "all"),), 1e-5)
    assert total.epsilon == pytest.approx(1.9005, abs=1e-3)  # printed rounded up
    assert answer.code == 0
    for word in words:
        assert word in answer.out
    # 1 % of false alarms: at most e^1.9005 · 1 % = 6.69 %, rounded up.
    assert ("6.7 %" if lang == "en" else "6,7 %") in answer.out
    assert answer.err == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--sigma", 0), "FL401"),
        (("--sigma", 1, "--fraction", 2), "FL401"),
        (("--sigma", 1, "--fraction", 0.5, "--sampling", "all"), "FL401"),
        (("--sigma", 1, "--sampling", "shuffled"), "FL401"),
        (("--sigma", 1, "--delta", 0), "FL401"),
        (("--epsilon", 0), "FL401"),
        (("--epsilon", 1e-6), "FL404"),
    ],
)
def test_what_has_no_meaning_is_refused(words, code):
    answer = call("privacy", "budget", "--rounds", 10, "--clients", 100, *words)
    assert (answer.code, answer.out) == (7, "")
    assert [fault["code"] for fault in answer.faults] == [code]


@pytest.mark.parametrize("words", [(), ("--sigma", 1, "--epsilon", 1)])
def test_noise_or_epsilon_and_not_both(words):
    answer = call("privacy", "budget", "--rounds", 10, "--clients", 100, *words)
    assert answer.code == 2
    assert "--sigma" in answer.err
