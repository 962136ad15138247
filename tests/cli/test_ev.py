"""`fl-inmetro ev compare`: the table, the documented JSON, and refusals without a traceback."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.command_line import call, documented

SMALL = ("ev", "compare", "--cars", "5", "--trips", "8", "--model", "physics", "--model", "rate")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ev")
    done = call(*SMALL, "--json", "-o", str(folder))
    assert done.code == 0, done.err
    return json.loads(done.out), folder


def test_json_has_the_documented_keys(result):
    found, folder = result
    assert set(found) == set(documented("ev compare"))
    assert all(set(row) == set(documented("ev compare.rows")) for row in found["rows"])
    written = json.loads((folder / "ev_compare.json").read_text())
    assert written == {key: value for key, value in found.items() if key != "file"}


def test_rows_of_each_training_and_group(result):
    found, _ = result
    rows = {(r["model"], r["training"], r["group"]): r for r in found["rows"]}
    assert len(rows) == len(found["rows"]) == 2 * 3 * 2
    for group in ("seen", "new"):
        federated, central = (rows["physics", t, group] for t in ("federated", "central"))
        assert federated["mae_kwh"] == central["mae_kwh"]
        assert 0 < federated["bytes"] < central["bytes"]
        assert rows["physics", "local", group]["bytes"] == 0
        assert federated["mae_kwh"] < rows["rate", "federated", group]["mae_kwh"]
    assert {row["task"] for row in found["rows"] if row["model"] == "rate"} == {"before"}
    assert found["simulated"] is True
    assert found["traces"] == "generated"
    assert found["cited"]["measured_here"] is False


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        ("en", ("Simulated cars", "calibrated physics", "New cars", "Cited, not measured here")),
        ("pt-BR", ("Carros simulados", "física calibrada", "Carros novos", "Citado, não medido")),
    ],
)
def test_the_table_in_both_languages(lang, words):
    done = call(*SMALL, "--training", "federated", "--lang", lang)
    assert done.code == 0, done.err
    for word in words:
        assert word in done.out
    assert "local" not in done.out.split("95 %")[0].replace("locais", "")


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--model", "phisics"), 4, "FL229"),
        (("--new-cars", "5"), 4, "FL228"),
        (("--own-trips", "8"), 4, "FL228"),
    ],
)
def test_wishes_that_cannot_be(more, code, said):
    done = call("ev", "compare", "--cars", "5", "--trips", "8", *more)
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (("--cars", "5", "--trips", "8", "--folds", "3"), "--folds"),
        (("nothing.parquet", "--traces", "chicago", "--cars", "22"), "--cars, --traces"),
    ],
)
def test_options_that_do_not_belong_to_the_data_are_refused(asked, named):
    done = call("ev", "compare", *asked, COLUMNS="200")
    assert done.code == 2
    assert named in done.err


def test_a_set_and_a_file_that_are_not_here(tmp_path):
    done = call("ev", "compare", "ev_bmw_i3", FL_INMETRO_DATA=str(tmp_path))
    assert (done.code, "FL201" in done.err) == (4, True)
    done = call("ev", "compare", "nothing.parquet")
    assert (done.code, "FL224" in done.err) == (4, True)
    done = call("ev", "compare", str(tmp_path))
    assert (done.code, "no weekly file" in done.err) == (4, True)


@pytest.mark.data
@pytest.mark.skipif("FL_INMETRO_DATA" not in os.environ, reason="FL_INMETRO_DATA is not set")
def test_the_measured_car_names_its_bad_trip():
    if not (Path(os.environ["FL_INMETRO_DATA"]) / "ev_bmw_i3").is_dir():
        pytest.skip("FL_INMETRO_DATA has no ev_bmw_i3")
    done = call(
        "ev", "compare", "ev_bmw_i3", "--model", "physics", "--training", "federated",
        "--folds", "5", "--json", FL_INMETRO_DATA=os.environ["FL_INMETRO_DATA"],
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["traces"] is None
    assert "trip B34" in found["excluded"][0]
    (row,) = found["rows"]
    assert row["trips"] == 47
    assert row["mae_kwh_per_100km"] < 1.25
    assert row["mae_kwh"] < 0.18
    assert 0.7 < row["coverage_80"] < 0.9
