import json

import pytest

from fl_inmetro import events as ev
from fl_inmetro.errors import RunError
from fl_inmetro.runs import (
    Recorder,
    RunRecord,
    best_rounds,
    config_differences,
    find_run,
    list_runs,
    remove_run,
    score_table,
    summarise,
)
from tests.builders import compare_run, config, create, single_run


def rename(path, name):
    """Give a run the identifier of another moment."""
    return path.rename(path.with_name(name))


@pytest.fixture
def three(tmp_path):
    names = [
        "2026-01-01T00-00-00_old_mlp-federated_s1_aaaa",
        "2026-02-01T00-00-00_mid_mlp-federated_s1_bbbb",
        "2026-03-01T00-00-00_new_mlp-federated_s2_cccc",
    ]
    return tmp_path, [rename(single_run(tmp_path, clients=2), name) for name in names]


def fault(caught):
    return caught.value.faults[0]


def test_runs_are_listed_newest_first_and_other_directories_ignored(three):
    root, paths = three
    (root / "notes").mkdir()
    assert [s.id for s in list_runs(root)] == [p.name for p in reversed(paths)]
    assert list_runs(root / "nowhere") == []


def test_a_damaged_run_is_listed_as_unreadable(three):
    root, paths = three
    (paths[1] / "run.sqlite").unlink()
    assert [s.status for s in list_runs(root)] == ["completed", "unreadable", "completed"]


def test_a_run_is_found_by_path_id_part_or_latest(three, monkeypatch):
    root, paths = three
    assert find_run(root, str(paths[0])) == paths[0]
    assert find_run(root, paths[0].name) == paths[0]
    assert find_run(root, "bbbb") == paths[1]
    assert find_run(root, "latest") == paths[2]
    monkeypatch.chdir(paths[0])
    assert find_run(root, ".").resolve() == paths[0].resolve()


def test_an_unknown_run_names_close_ones(three):
    root, paths = three
    with pytest.raises(RunError) as caught:
        find_run(root, "2026-01-01T00-00-00_olt_mlp-federated_s1_aaaa")
    assert fault(caught).code == "FL701"
    assert paths[0].name in fault(caught).hint


def test_an_ambiguous_name_lists_the_candidates(three):
    root, paths = three
    with pytest.raises(RunError) as caught:
        find_run(root, "_s1_")
    assert fault(caught).code == "FL701"
    assert paths[0].name in fault(caught).hint
    assert paths[1].name in fault(caught).hint
    assert paths[2].name not in fault(caught).hint


@pytest.mark.parametrize("name", ["latest", "x", ""])
def test_an_empty_root_says_how_to_make_a_run(tmp_path, name):
    with pytest.raises(RunError) as caught:
        find_run(tmp_path, name)
    assert fault(caught).code == "FL701"
    assert "fl-inmetro run" in fault(caught).hint


def test_a_summary_names_the_best_learner_by_hand(tmp_path):
    record = RunRecord.open(compare_run(tmp_path))
    summary = summarise(record)
    lowest = min(
        (s["nmae"], s["model"], s["training"])
        for s in record.scores()
        if s["training"] != "baseline"
    )
    assert (summary.nmae, summary.model, summary.training) == lowest
    assert (summary.clients, summary.rounds_done, summary.rounds_planned) == (6, 4, 4)
    assert (summary.status, summary.seconds, summary.simulated) == ("completed", 61.5, True)
    json.dumps(summary.to_json())


def test_a_blend_of_models_has_no_rounds_of_its_own(tmp_path):
    with create(tmp_path) as recorder:
        recorder(ev.RunStarted("mlp", "federated", 6, 1, 4))
        recorder(ev.RunStarted("mlp", "personalised", 6, 0, 1))
        recorder.flush()
        summary = summarise(RunRecord.open(recorder.path))
    assert (summary.rounds_done, summary.rounds_planned) == (0, 4)


def test_a_run_that_has_just_begun_has_a_summary(tmp_path):
    with create(tmp_path) as recorder:
        summary = summarise(RunRecord.open(recorder.path))
    assert (summary.nmae, summary.rounds_done, summary.model) == (None, None, "")


def test_removing_a_run_removes_only_that_run(three):
    root, paths = three
    remove_run(paths[1])
    assert [s.id for s in list_runs(root)] == [paths[2].name, paths[0].name]


def test_a_running_run_and_a_foreign_directory_are_not_removed(three):
    root, paths = three
    with Recorder.reopen(paths[0]):
        with pytest.raises(RunError) as caught:
            remove_run(paths[0])
        assert fault(caught).code == "FL702"
        assert paths[0].is_dir()
    with pytest.raises(RunError) as caught:
        remove_run(root)
    assert fault(caught).code == "FL701"


def test_only_the_settings_that_differ_are_shown(tmp_path):
    one = single_run(tmp_path)
    two = single_run(tmp_path, models={"mlp": {"eta_l": 0.01}}, strategy={"eta": 0.5})
    records = [RunRecord.open(one), RunRecord.open(two)]
    assert config_differences(records) == {
        "models.mlp.eta_l": [0.003, 0.01],
        "strategy.eta": [None, 0.5],
    }
    assert config_differences(records[:1]) == {}


def test_scores_stand_side_by_side_with_gaps_where_a_run_has_none(tmp_path):
    run, compare = single_run(tmp_path), compare_run(tmp_path)
    rows = score_table([RunRecord.open(run), RunRecord.open(compare)])
    by_key = {(r["model"], r["training"]): r["scores"] for r in rows}
    assert by_key["ridge", "local"][0] is None
    assert by_key["ridge", "local"][1]["nmae"] > 0
    assert None not in by_key["mlp", "federated"]


def test_best_rounds_are_of_stages_with_one_model(tmp_path):
    found = best_rounds(RunRecord.open(compare_run(tmp_path)))
    assert {(r["model"], r["training"]) for r in found} == {
        (m, t) for m in ("ridge", "nlinear", "mlp") for t in ("federated", "centralised")
    }
    assert {r["best_round"] for r in found if r["model"] != "ridge"} == {4}


def test_forecasts_are_read_in_parts(tmp_path):
    record = RunRecord.open(compare_run(tmp_path, clients=3))
    assert record.forecasts().num_rows == 3 * 5 * 240
    part = record.forecasts("mlp", "federated", ["sim-home-001"])
    assert set(part.column("client_id").to_pylist()) == {"sim-home-001"}
    assert part.num_rows == 240
    assert RunRecord.open(single_run(tmp_path)).forecasts() is None


def test_config_of_the_record_is_the_config_of_the_run(tmp_path):
    given = config(model="ridge")
    with create(tmp_path, given) as recorder:
        assert RunRecord.open(recorder.path).config == given
