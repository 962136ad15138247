"""`fl-inmetro privacy attack`, as a user calls it."""

from __future__ import annotations

import json

import pytest

from fl_inmetro.i18n import catalogue
from fl_inmetro.runs.leakage import LEAKAGE, kept
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.shelf import find_run
from tests.cli.command_line import call, documented


@pytest.fixture(scope="module")
def attacked(metered, tmp_path_factory):
    """The options that name a run of three meters, its record, a page, and what was printed."""
    options = ("latest", "--runs", metered / "runs")
    page = tmp_path_factory.mktemp("attacked") / "page.html"
    asked = ("--clients", "2", "--no-invert", "--json", "-o", page)
    answer = call("privacy", "attack", *options, *asked)
    assert answer.code == 0, answer.err
    record = RunRecord.open(find_run(metered / "runs", "latest"))
    return options, record, page, json.loads(answer.out)


def test_what_is_printed_is_documented_and_kept(attacked):
    _, record, _, told = attacked
    assert sorted(told) == documented("privacy attack")
    assert (told["run"], told["attacked"], told["seen"]) == (record.id, 2, "update")
    assert told["simulated"] is False
    rebuilt, detected = told["reconstructions"], told["detections"]
    assert {one["attack"] for one in rebuilt} == {"ratio", "gradient"}
    assert all(sorted(one) == documented("privacy attack.reconstructions") for one in rebuilt)
    assert detected
    assert all(sorted(one) == documented("privacy attack.detections") for one in detected)
    # Three meters are too few on either side for what is told of clients.
    few = {"property": "few", "client-membership": "few", "inversion": "not-asked"}
    assert told["left_out"] == few
    assert kept(record) == {told["model"]: told}


def test_the_page_and_the_report_say_it(attacked):
    options, record, page, told = attacked
    written = page.read_text()
    assert "Readings rebuilt" in written
    assert told["reconstructions"][0]["client_id"] in written
    for lang, title in (("en", "What updates tell about a meter"), ("pt", "O que as atualizações")):
        answer = call("report", *options, "--lang", lang)
        assert answer.code == 0, answer.err
        report = (record.path / "report.html").read_text()
        assert 'id="leakage"' in report
        assert title in report


def test_in_words(attacked):
    options, _, _, _ = attacked
    asked = ("--clients", "1", "--no-invert", "--model", "mlp")
    answer = call("privacy", "attack", *options, *asked, "--lang", "pt")
    assert answer.code == 0, answer.err
    assert "Protegido: ninguém" in answer.out
    assert "um servidor curioso" in answer.out
    plain = call("privacy", "attack", *options, *asked)
    assert "Protected: nobody" in plain.out
    assert "median; meters: 1" in plain.out
    assert "Left out: inversion: not asked for." in plain.out


def test_what_cannot_be_attacked(attacked):
    options, _, _, _ = attacked
    more = call("privacy", "attack", *options, "--clients", "4")
    assert (more.code, more.faults[0]["code"]) == (7, "FL414")
    other = call("privacy", "attack", *options, "--model", "ridge")
    assert (other.code, other.faults[0]["code"]) == (7, "FL413")


def test_a_damaged_file_is_an_error_of_the_report(attacked, tmp_path):
    options, record, _, _ = attacked
    path = record.path / LEAKAGE
    content = path.read_bytes()
    try:
        path.write_bytes(b"{")
        answer = call("report", *options)
        assert (answer.code, answer.faults[0]["code"]) == (6, "FL703")
    finally:
        path.write_bytes(content)


def test_every_key_that_can_be_said_has_words():
    for lang in ("en", "pt-BR"):
        words = catalogue("leakage", lang)
        assert set(words["attack"]) == set(words["said"])
        assert {"update", "noisy_update", "update_in_sum"} == set(words["seen"])
        assert {"profile", "features"} == set(words["recovered"])
