"""Private standardisation: exact without noise, its sensitivity by trial, public under much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_inmetro.config.models import Mlp, Models, NLinear, Ridge
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.public_scales import public_scales
from fl_inmetro.errors import PrivacyError
from fl_inmetro.learning import private_moments
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.neural import MlpLearner, NLinearLearner, moments, standardisation
from fl_inmetro.learning.private_moments import (
    CLIENT_NORM,
    NAME,
    WINDOW_NORM,
    MomentsAsked,
    asked_of,
    released,
    row_names,
    window_moments,
)
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.models.design import Design
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.privacy.sums import PrivateSums, Whom
from tests.fleets import clients_of, fleet

GROUPS = ("lags", "calendar")
MLP = MlpLearner(Mlp(hidden=(2,), features=GROUPS))
NAMES = feature_names(GROUPS)
SCALES = public_scales(NAMES)
SECRET = Secret(bytes(range(32)))
DESIGNS = [MLP.design(client.train[0]) for client in clients_of(fleet(4))[0]]


def private(protect: Whom, z: float | None, noted: list[Any] | None = None) -> PrivateSums:
    kept = [] if noted is None else noted
    return PrivateSums(protect, z, SECRET, lambda *what: kept.append(what))


def scaling(protect: Whom, z: float | None, designs: list[Design] = DESIGNS) -> dict[str, Any]:
    """x_mean and x_std of a federation of these clients."""
    settings = private(protect, z)
    asked = MomentsAsked.of(settings)
    parts = [asked_of(MLP, d, asked, SECRET, f"c{k}") for k, d in enumerate(designs)]
    windows = [len(d.trainable().x) for d in designs]
    sums = released(MLP, parts, windows, settings, len(NAMES), 24)
    return standardisation(sums)


def hardly_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_moments, "CLIENT_NORM", 1e6)
    monkeypatch.setattr(private_moments, "WINDOW_NORM", 1e6)


def test_without_noise_and_clipping_it_is_todays_standardisation(monkeypatch):
    hardly_clipped(monkeypatch)
    rows = [d.trainable().x.reshape(-1, len(NAMES)) for d in DESIGNS]
    kept = SCALES.of_readings
    # No feature of the made fleet is cut.
    assert (np.abs(np.concatenate(rows) - SCALES.mean) <= 5 * SCALES.std)[:, kept].all()
    pooled = standardisation(moments(np.concatenate(rows)))
    found = scaling("window", 0.0)
    assert found["x_mean"][kept] == pytest.approx(pooled["x_mean"][kept], rel=1e-5)
    assert found["x_std"][kept] == pytest.approx(pooled["x_std"][kept], rel=1e-5)
    # Clients count one each, whatever the number of their windows.
    each = [moments(one) for one in rows]
    means = np.mean([one["x_sum"] / one["n"] for one in each], axis=0)
    squares = np.mean([one["x_sq_sum"] / one["n"] for one in each], axis=0)
    found = scaling("client", 0.0)
    assert found["x_mean"][kept] == pytest.approx(means[kept], rel=1e-5)
    assert found["x_std"][kept] == pytest.approx(np.sqrt(squares - means**2)[kept], rel=1e-5)
    # What no reading is behind is never asked for.
    assert found["x_mean"][~kept] == pytest.approx(SCALES.mean[~kept], abs=1e-6)


def test_a_window_by_hand():
    # One window of two steps, one feature of readings: lag 1.5 and 2.0 are u = 1 and 2; their mean
    # is 1.5, the mean of squares 2.5, less 1.
    design = DESIGNS[0]
    x = np.zeros((1, 2, 1), dtype=np.float32)
    x[0, :, 0] = 1.5, 2.0
    one = Design(x, np.ones((1, 2)), np.ones(1), np.zeros(1), x[..., 0], np.ones((1, 2)))
    assert window_moments(one, ["lag_1d"]).tolist() == [[1.5, 1.5]]
    # A feature is cut at five deviations: u = 5, and 25 − 1.
    far = replace(one, x=np.full_like(x, 1e6))
    assert window_moments(far, ["lag_1d"]).tolist() == [[5.0, 24.0]]
    assert window_moments(design, NAMES).shape[1] == 2 * SCALES.of_readings.sum()


@pytest.mark.parametrize("group", [1, 3])
def test_windows_that_change_move_a_client_by_their_number_of_norms(group):
    design = DESIGNS[1].trainable()
    asked = MomentsAsked("window", 0.0)
    whole = asked_of(MLP, design, asked, SECRET, "a")[NAME]
    wild = design.x.copy()
    wild[:] = 1e6  # every v as long as it can be
    for source in (design.x, wild):
        all_of = asked_of(MLP, replace(design, x=source), asked, SECRET, "a")[NAME]
        for first in range(0, len(design.x) - group, 5):
            rows = np.ones(len(design.x), dtype=bool)
            rows[first : first + group] = False
            kept = Design(
                source[rows],
                design.base[rows],
                design.scale_kwh[rows],
                design.floor_kwh[rows],
                design.residual[rows],
                design.known[rows],
            )
            less = asked_of(MLP, kept, asked, SECRET, "a")[NAME]
            assert np.linalg.norm(all_of - less) <= group * WINDOW_NORM * (1 + 1e-9)
    assert np.isfinite(whole).all()


def test_a_client_is_clipped_by_itself_and_again_by_the_server():
    wild = replace(DESIGNS[0], x=np.full_like(DESIGNS[0].x, 1e6))
    sent = asked_of(MLP, wild, MomentsAsked("client"), None, "a")[NAME]
    assert np.linalg.norm(sent) == pytest.approx(CLIENT_NORM)
    settings = private("client", 0.0)
    lying = {NAME: np.full_like(sent, 1e9)}
    honest = {NAME: np.zeros_like(sent)}
    state = standardisation(released(MLP, [lying, honest], [5, 5], settings, len(NAMES), 24))
    moved = (state["x_mean"] - SCALES.mean)[SCALES.of_readings] / SCALES.std[SCALES.of_readings]
    # Both halves of the vector are alike: half of C, divided by two clients, over √(2 F).
    assert moved == pytest.approx(CLIENT_NORM / 2 / np.sqrt(len(sent)), rel=1e-4)


def test_noise_of_the_clients_has_the_deviation_it_says():
    asked = MomentsAsked("window", 2.0)
    bare = asked_of(MLP, DESIGNS[0], MomentsAsked("window", 0.0), SECRET, "c")[NAME]
    drawn = np.concatenate(
        [asked_of(MLP, DESIGNS[0], asked, SECRET, f"c{k}")[NAME] - bare for k in range(200)]
    )
    # 5,600 numbers: five standard errors of a deviation are 5/√(2 · 5600) = 4.7 %.
    assert drawn.std() == pytest.approx(2.0 * WINDOW_NORM, rel=0.047)
    again = asked_of(MLP, DESIGNS[0], asked, SECRET, "c7")[NAME]
    assert again.tolist() == asked_of(MLP, DESIGNS[0], asked, SECRET, "c7")[NAME].tolist()
    with pytest.raises(ValueError, match="needs a secret"):
        asked_of(MLP, DESIGNS[0], asked, None, "c")


def test_much_noise_leaves_the_public_scales():
    for protect in ("client", "window"):
        found = scaling(protect, 1e5)  # type: ignore[arg-type]
        assert found["x_mean"] == pytest.approx(SCALES.mean, abs=1e-6)
        assert found["x_std"] == pytest.approx(SCALES.std, rel=1e-6)


def test_some_noise_is_usable():
    # Whatever was drawn, no deviation is zero or imaginary.
    for z in (1.0, 5.0, 25.0):
        found = scaling("client", z)
        assert (found["x_std"] >= 0.2 * SCALES.std).all()
        assert np.isfinite(found["x_mean"]).all()


def test_nothing_leaves_where_public_scales_do():
    noted: list[Any] = []
    settings = private("client", None, noted)
    assert asked_of(MLP, DESIGNS[0], MomentsAsked.of(settings), None, "a") == {}
    state = standardisation(released(MLP, [{}, {}], [5, 5], settings, len(NAMES), 24))
    assert state["x_mean"] == pytest.approx(SCALES.mean, abs=1e-6)
    assert noted == []


def test_a_release_is_noted_with_its_sensitivity():
    for protect, norm in (("client", CLIENT_NORM), ("client-day", WINDOW_NORM)):
        noted: list[Any] = []
        settings = private(protect, 1.0, noted)  # type: ignore[arg-type]
        asked = MomentsAsked.of(settings)
        part = asked_of(MLP, DESIGNS[0], asked, SECRET, "a")
        released(MLP, [part], [5], settings, len(NAMES), 24)
        assert [(round_, of) for round_, of, _ in noted] == [(0, norm)]


def test_rows_behind_a_context_are_standardised_as_rows():
    models = {"tide": {"features": list(GROUPS), "context_h": 48.0}}
    tide = learner_for("tide", Models.model_validate(models))
    client = clients_of(fleet(1))[0][0]
    design = tide.design(client.train[0])
    assert row_names(tide) == NAMES
    same = window_moments(DESIGNS[0], NAMES)
    assert window_moments(design, NAMES) == pytest.approx(same, abs=1e-5)
    settings = private("window", 0.0)
    part = asked_of(tide, design, MomentsAsked.of(settings), SECRET, "a")
    sums = released(tide, [part], [len(same)], settings, design.x.shape[-1], 24)
    state = tide.initial(sums, 0, design.x.shape[1:], 24)
    alone = scaling("window", 0.0, DESIGNS[:1])
    assert state["x_mean"] == pytest.approx(alone["x_mean"], abs=1e-5)
    assert state["x_std"] == pytest.approx(alone["x_std"], rel=1e-4)


def test_learners_without_standardisation_send_nothing():
    for one in (NLinearLearner(NLinear(context_h=24.0)), RidgeLearner(Ridge(features=GROUPS))):
        asked = MomentsAsked("client")
        assert asked_of(one, DESIGNS[0], asked, SECRET, "a") == {}


def test_sums_of_another_kind_are_refused():
    class Other(NLinearLearner):
        def enrol(self, design: Design) -> Any:
            return {"secret": design.residual}

    with pytest.raises(PrivacyError) as error:
        asked_of(Other(NLinear(context_h=24.0)), DESIGNS[0], MomentsAsked("nothing"), None, "a")
    assert error.value.faults[0].code == "FL411"
