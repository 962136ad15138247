"""Private runs as a whole: what they spend, what they leave behind, and what a restart changes."""

import hashlib
import json
from pathlib import Path

import pytest

from fl_inmetro import events, session
from fl_inmetro.errors import BudgetError, PrivacyError
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.learning.conformal import FleetCalibration
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.ledger import Entry, read_ledger
from fl_inmetro.privacy.release import spending
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord
from tests.fleets import tiny_config

KEY = hashlib.sha256(b"of these tests alone").digest()


def private(folder: Path, **settings):
    given = {"protect": "client", "ledger": str(folder / "ledgers"), **settings.pop("privacy", {})}
    return tiny_config(privacy=given, **settings)


def entries(folder: Path) -> tuple[Entry, ...]:
    return read_ledger(folder / "ledgers" / "tiny" / "federation.ledger").entries


def started(config, folder: Path, seen=None) -> Path:
    emit = (lambda event: None) if seen is None else seen.append
    return session.start(config, "run", folder / "runs", emit, lambda: False)


@pytest.fixture
def one_secret(monkeypatch):
    """The system's randomness, as if it gave the same bits again."""
    monkeypatch.setattr(Secret, "fresh", classmethod(lambda cls: cls(KEY)))


@pytest.mark.parametrize("engine", ["loop", "cohort"])
@pytest.mark.parametrize("protect", ["client", "window", "client-day"])
@pytest.mark.parametrize("model", ["nlinear", "ridge"])
def test_a_run_spends_what_was_planned_and_forgets_its_secret(
    tmp_path, monkeypatch, engine, protect, model
):
    monkeypatch.setattr(Secret, "fresh", classmethod(lambda cls: cls(KEY)))
    config = private(tmp_path, privacy={"protect": protect}, engine=engine, model=model)
    path = started(config, tmp_path)
    said = json.loads((path / "privacy.json").read_text())
    (key, one), releases = (
        next(iter(said["models"].items())),
        [e.release for e in entries(tmp_path)],
    )
    rounds = 1 if model == "ridge" else config.federation.num_server_rounds
    assert [r.round for r in releases] == list(range(1, rounds + 1))
    (planned,) = one["planned"]
    assert {r.noise_multiplier for r in releases} == {planned["noise_multiplier"]}
    assert {r.subject for r in releases} == {protect}
    assert sum(r.times for r in releases) == planned["times"]
    assert (planned["group"] > 1) == (protect == "client-day")
    spent = account(spending(releases), 1e-5).epsilon
    assert one["spent"] == pytest.approx(spent, rel=1e-6)
    assert 7 < spent <= 8.0
    assert {r.run for r in releases} == {f"{path.name}/{key}"}
    assert not list((tmp_path / "ledgers" / "tiny" / "secrets").iterdir())
    held = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(KEY in file.read_bytes() for file in held)
    assert not any(KEY.hex().encode() in file.read_bytes() for file in held)


def final(path: Path) -> dict[str, bytes]:
    kept = weights.load(path, "nlinear-federated-g0000")
    assert kept is not None
    return {name: array.tobytes() for name, array in kept[0].items()}


@pytest.mark.parametrize("protect", ["client", "window"])
def test_stopped_anywhere_and_resumed_it_spends_and_ends_as_if_it_never_was(
    tmp_path, one_secret, protect
):
    def config(name):
        settings = {"protect": protect, "noise_multiplier": 1.0}
        return private(tmp_path / name, privacy=settings, model="nlinear", engine="loop")

    whole = started(config("whole"), tmp_path / "whole")
    for stop in (5, 9, 14):
        folder, left = tmp_path / f"stop{stop}", [stop]

        def should_stop(left=left) -> bool:
            left[0] -= 1
            return left[0] < 0

        with pytest.raises(Interrupted):
            session.start(
                config(folder.name), "run", folder / "runs", lambda event: None, should_stop
            )
        (path,) = (folder / "runs").iterdir()
        session.resume(path, lambda event: None, lambda: False)
        assert final(path) == final(whole)
        assert [(e.release.round, e.release.digest) for e in entries(folder)] == [
            (e.release.round, e.release.digest) for e in entries(tmp_path / "whole")
        ]


def test_a_lost_secret_pays_again_and_a_lost_ledger_stops(tmp_path):
    config = private(tmp_path, model="nlinear", engine="loop")
    left = [14]

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(Interrupted):
        session.start(config, "run", tmp_path / "runs", lambda event: None, should_stop)
    (path,) = (tmp_path / "runs").iterdir()
    released = len(entries(tmp_path))
    assert released
    ledger = tmp_path / "ledgers"
    aside = ledger.rename(tmp_path / "aside")
    with pytest.raises(PrivacyError, match="FL416"):
        session.resume(path, lambda event: None, lambda: False)
    for left_over in ledger.rglob("*"):
        assert not left_over.name.startswith("federation")
    if ledger.exists():
        for file in sorted(ledger.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        ledger.rmdir()
    aside.rename(ledger)
    for secret in (ledger / "tiny" / "secrets").iterdir():
        secret.unlink()
    session.resume(path, lambda event: None, lambda: False)
    own = [e.release for e in entries(tmp_path)]
    assert account(spending(own), 1e-5).epsilon <= 8.0


def test_a_tampered_ledger_stops_the_next_run(tmp_path):
    config = private(tmp_path, model="nlinear")
    started(config, tmp_path)
    path = tmp_path / "ledgers" / "tiny" / "federation.ledger"
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":7', 1))
    with pytest.raises(PrivacyError, match="FL420"):
        started(config, tmp_path)


def test_what_all_runs_of_a_name_have_spent_together_is_said(tmp_path):
    config = private(tmp_path, model="nlinear")
    first, second = [], []
    started(config, tmp_path, first)
    started(config, tmp_path, second)
    together = account(spending(e.release for e in entries(tmp_path)), 1e-5).epsilon
    assert together > 8.0

    def said(seen):
        notes = (e.text for e in seen if isinstance(e, events.Note) and e.level == "warning")
        return [one for one in notes if "together have spent" in one]

    assert said(first) == []
    (line,) = said(second)
    assert f"epsilon {together:.4g} " in line


def test_no_second_run_goes_beyond_the_budget_of_all(tmp_path):
    config = private(tmp_path, privacy={"budget": 9.0}, model="nlinear")
    started(config, tmp_path)
    before = entries(tmp_path)
    seen = []
    with pytest.raises(BudgetError, match="FL422"):
        started(config, tmp_path, seen)
    assert entries(tmp_path) == before
    assert not any(type(event).__name__ == "RoundFinished" for event in seen)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": {"name": "median"}}, "plain sum"),
        ({"strategy": {"name": "feddyn"}}, "control variates"),
        ({"strategy": {"name": "scaffold"}}, "control variates"),
        ({"diagnostics": {"heterogeneity": True}}, "heterogeneity"),
        ({"selection": {"sampler": "by-size"}}, "by chance alone"),
        ({"federation": {"patience": 3}}, "fixed in advance"),
        ({"model": "quantile_linear"}, "sums in every round"),
        ({"training": "clustered"}, "who shares a model"),
        ({"privacy": {"calibration_share": 0.1}}, "released once"),
        ({"conformal": {"enabled": True}}, "calibration"),
        ({"virtual_time": {"enabled": True}}, "before everybody"),
        (
            {
                "model": "mlp",
                "models": {"mlp": {"short_histories": 0.5}},
                "privacy": {"protect": "window"},
            },
            "how often",
        ),
        ({"model": "ridge", "privacy": {"noise_at": "clients"}}, "at the server"),
        ({"privacy": {"noise_at": "clients", "scaler_share": 0.1}}, "at the server"),
        ({"training": "centralised"}, "only federations have noise"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_trained(tmp_path, settings, said):
    given = {"model": "nlinear", **settings}
    with pytest.raises(PrivacyError, match="FL417") as caught:
        started(private(tmp_path, **given), tmp_path)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []  # no ledger, and no run that failed


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_windows_go_together_with_control_variates(name, tmp_path):
    """They are made of gradients that were noised already; the account is the same."""
    config = private(tmp_path, model="nlinear", privacy={"protect": "window"})
    started(config, tmp_path)
    plain = [e.release.spent() for e in entries(tmp_path)]
    config = private(
        tmp_path, model="nlinear", privacy={"protect": "window"}, strategy={"name": name}
    )
    started(config, tmp_path)
    assert [e.release.spent() for e in entries(tmp_path)][len(plain) :] == plain


def test_a_comparison_has_its_yardsticks_without_noise(tmp_path):
    config = private(
        tmp_path, compare={"models": ["nlinear"], "training": ["local", "federated", "centralised"]}
    )
    path = session.start(config, "compare", tmp_path / "runs", lambda event: None, lambda: False)
    assert {e.release.run.split("/")[1] for e in entries(tmp_path)} == {"nlinear-federated-g0000"}
    assert len(RunRecord.open(path).scores()) == 3


def test_what_is_handed_out_says_nothing_of_single_clients(tmp_path):
    seen = []
    path = started(private(tmp_path, model="nlinear", engine="cohort"), tmp_path, seen)
    kept, bare = (
        weights.load(path, f"nlinear-federated-g0000{end}") for end in ("-checkpoint", "")
    )
    assert kept is not None
    assert bare is not None
    for arrays, meta in (kept, bare):
        progress = json.loads(meta["progress"])
        assert progress["best_scores"] == {}
        assert not progress["best_nmae"] >= 0  # NaN: the study's events have it
        for name in ("memory.standing.scores", "memory.standing.marks"):
            assert name not in arrays or not arrays[name].any()
    assert {name.split(".")[0] for name in bare[0]} == {"state", "best"}
    clients = {e.client_id for e in seen if isinstance(e, events.ClientEvaluated)}
    text = b"".join(file.read_bytes() for file in path.glob("weights/*"))
    assert clients
    assert not any(name.encode() in text for name in clients)


def test_the_ledger_of_others_is_asked_before_anything_is_trained(tmp_path):
    config = private(tmp_path, model="nlinear", privacy={"budget": 50.0})
    started(config, tmp_path)
    before = entries(tmp_path)
    other = private(tmp_path, model="nlinear", privacy={"budget": 50.0, "protect": "window"})
    with pytest.raises(PrivacyError, match="FL429"):
        started(other, tmp_path)
    assert entries(tmp_path) == before


def test_nothing_of_readings_is_released_before_the_whole_run_fits_the_budget(tmp_path):
    def config(**privacy):
        given = {"budget": 9.0, "epsilon": 8.0, "scaler_share": 0.1, **privacy}
        models = {"mlp": {"hidden": [4]}}
        return private(tmp_path, model="mlp", models=models, privacy=given)

    started(config(), tmp_path)
    before = entries(tmp_path)
    assert before[0].release.what == "scaler"
    with pytest.raises(BudgetError, match="FL422"):
        started(config(), tmp_path)
    assert entries(tmp_path) == before


def test_the_fleet_s_calibration_is_released_with_noise_for_those_without_errors(tmp_path):
    def config(folder, **privacy):
        return private(
            folder,
            model="nlinear",
            privacy={"epsilon": 8.0, **privacy},
            conformal={"enabled": True, "fleet_days": 0, "follow": False},
        )

    path = started(config(tmp_path, calibration_share=0.2), tmp_path)
    releases = [e.release for e in entries(tmp_path)]
    assert [one.what for one in releases] == ["update"] * 3 + ["calibration"]
    assert account(spending(releases), 1e-5).epsilon <= 8.0
    kept = weights.load(path, "nlinear-federated-calibration")
    assert kept is not None
    fleet = FleetCalibration.unpacked(*kept)
    assert fleet.shared is not None
    # Without a share nobody's errors are added up: who has none of its own gets nothing.
    other = tmp_path / "other"
    path = started(config(other), other)
    kept = weights.load(path, "nlinear-federated-calibration")
    assert kept is not None
    alone = FleetCalibration.unpacked(*kept)
    assert alone.shared is None
    assert set(alone.own) == set(fleet.own)
    assert [e.release.what for e in entries(other)] == ["update"] * 3


@pytest.mark.parametrize(("delta", "warned"), [(0.3, True), (1e-5, False)])
def test_a_delta_that_protects_nobody_is_told(tmp_path, delta, warned):
    seen = []
    started(private(tmp_path, model="nlinear", privacy={"delta": delta}), tmp_path, seen)
    notes = [e.text for e in seen if isinstance(e, events.Note) and e.level == "warning"]
    assert any("is not below one over the 4 clients" in one for one in notes) == warned
