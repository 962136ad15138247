"""Cold starts: who is left out, what is seen, and numbers that a plain loop gives too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.coldstart import ColdStart, filled
from fl_inmetro.config import RunConfig
from fl_inmetro.data.series import FederatedData
from fl_inmetro.data.short_history import last_days, since
from fl_inmetro.errors import FederationError
from fl_inmetro.learning.client import ClientData
from fl_inmetro.metrics import Forecast
from fl_inmetro.plan import Prepared
from tests.fleets import clients_of, fleet, tiny_config

DAYS = {"folds": 2, "days": [0, 1, 3, 20]}


def config(**values: object) -> RunConfig:
    return tiny_config(**{"coldstart": DAYS, "models": {"mlp": {"hidden": [4]}}, **values})


def prepared(data: FederatedData) -> Prepared:
    clients, splits = clients_of(data)
    by_name = {one.client_id: one for one in clients}
    return Prepared(data, splits, by_name, {}, tuple(by_name))


def studied(data: FederatedData, **values: object) -> ColdStart:
    study = ColdStart(config(**values), prepared(data))
    assert list(study.run()) == [1, 2]
    return study


@pytest.fixture(scope="module")
def study() -> ColdStart:
    return studied(fleet(4, 40))


def nmae(
    study: ColdStart,
    model: str,
    training: str,
    days: int,
    size: str = "readings",
    history: str = "last",
) -> float:
    wanted = (model, training, history, days, size)
    found = [
        row
        for row in study.rows()
        if (row.model, row.training, row.history, row.days, row.size) == wanted
    ]
    assert len(found) == 1
    assert found[0].nmae is not None
    return found[0].nmae


def test_every_client_is_left_out_once(study: ColdStart):
    folds = study.folds()
    assert sorted(name for fold in folds for name in fold) == ["c0", "c1", "c2", "c3"]
    assert {len(fold) for fold in folds} == {2}
    others = [ColdStart(config(seed=seed), study.prepared).folds() for seed in range(8)]
    assert any(other != folds for other in others)
    assert ColdStart(config(), study.prepared).folds() == folds


def test_all_lengths_are_scored_on_the_same_targets(study: ColdStart):
    rows = study.rows()
    assert len({row.points for row in rows}) == 1
    assert {row.clients for row in rows} == {4}
    assert all(row.nmae is not None for row in rows)


def test_the_rows_that_there_are(study: ColdStart):
    found = {(row.model, row.training, row.days, row.size) for row in study.rows()}
    # Without readings: the model and the profile, at the fleet's size (40 days are no year).
    assert {key for key in found if key[2] == 0} == {
        ("mlp", "federated", 0, "fleet"),
        ("fleet_profile", "baseline", 0, "fleet"),
    }
    # One day leaves no window with a day behind it to train on.
    assert {key[0] for key in found if key[2] == 1 and key[1] == "local"} == set()
    assert {key[0] for key in found if key[2] == 3 and key[1] == "local"} == {"ridge", "mlp"}


def test_yesterday_is_yesterday_by_a_plain_loop(study: ColdStart):
    """Where yesterday's reading is missing: the mean of that hour on the two days before."""
    errors = []
    for client in study.prepared.clients.values():
        windows = client.test[0]
        energy = windows.series.energy_kwh
        error = load = 0.0
        count = 0
        for issue in windows.issue_index:
            for step in range(24):
                at = issue + step
                if not np.isfinite(energy[at]):
                    continue
                past = [energy[at - 24 * k] for k in (1, 2, 3)]
                made = past[0] if np.isfinite(past[0]) else spare(windows, energy, at, past)
                error += abs(made - energy[at])
                load += energy[at]
                count += 1
        errors.append(error / load)
    assert nmae(study, "sn24", "baseline", 3) == pytest.approx(np.mean(errors), rel=1e-6)


def spare(windows, energy, at, past):  # type: ignore[no-untyped-def]
    """Mean of the hour on the days of the target's type among the last three, else on all."""

    def kind(step: int) -> int:
        return max((step // 24) % 7 - 4, 0)  # the series begin on a Monday

    known = [(kind(at - 24 * k), p) for k, p in zip((1, 2, 3), past, strict=True)]
    values = [p for k, p in known if np.isfinite(p) and k == kind(at)]
    values = values or [p for _, p in known if np.isfinite(p)]
    return np.mean(values)


def garbage(data: FederatedData, name: str, first: int, last: int) -> FederatedData:
    """Make a client's readings of days `first` to `last` 1000 times as large."""
    one = data[name]
    energy = one.energy_kwh.copy()
    energy[first * 24 : last * 24] *= 1000
    return FederatedData({**data, name: replace(one, energy_kwh=energy)}, data.manifest)


def test_nothing_older_than_its_days_is_known_of_a_client_left_out(study: ColdStart):
    """The test window begins on day 35; days 0 to 29 of c1 say nothing to whom knows 3 days."""
    other = studied(garbage(fleet(4, 40), "c1", 0, 30))
    mine, theirs = ({k: s["c1"] for k, s in one._sums.items()} for one in (study, other))
    for key, sums in mine.items():
        again = theirs[key]
        if key[3] in (0, 1, 3):
            assert sums.abs_kwh == again.abs_kwh, key
        elif key[1] == "local":
            assert sums.abs_kwh != again.abs_kwh, key


def test_a_meter_that_ages_is_seen_whole_in_the_end(study: ColdStart):
    """The windows are issued on days 35 to 39: at 20 days nothing that is used is older than 28."""
    assert nmae(study, "sn24", "baseline", 3, history="since") == pytest.approx(
        nmae(study, "sn24", "baseline", 20, history="since"), rel=0.05
    )
    last, older = (nmae(study, "mlp", "federated", 3, history=h) for h in ("last", "since"))
    assert last != older
    # On its first day of forecasts both know the same three days.
    windows = study.prepared.clients["c1"].test[0]
    first = int(study.prepared.splits.test[0])
    fixed, ages = last_days(windows, 3), since(windows, first, 3)
    assert fixed.visible_from[0] == ages.visible_from[0]
    assert (ages.visible_from == ages.visible_from[0]).all()


def test_a_years_energy_sets_the_size():
    annual = {f"c{k}": 8760.0 * (1.0 + k) for k in range(4)}
    study = studied(fleet(4, 40), coldstart={**DAYS, "annual_kwh": annual})
    told = nmae(study, "fleet_profile", "baseline", 0, "annual")
    guessed = nmae(study, "fleet_profile", "baseline", 0, "fleet")
    # Loads of 1, 2, 3 and 4 kWh at the fleet's median are off by their distance from it; at their
    # own, by the noise of ±30 % alone, whose mean is 15 %.
    assert told < 0.25 < guessed


def test_an_ensemble_is_the_mean_of_its_members():
    study = studied(
        fleet(4, 40),
        model="ensemble",
        ensemble={"members": ["ridge", "mlp"]},
        coldstart={"folds": 2, "days": [3]},
    )
    assert nmae(study, "ensemble", "federated", 3) > 0
    assert {row.model for row in study.rows() if row.training == "local"} == {"ridge", "mlp"}


def test_a_model_trained_on_short_histories_is_another():
    settings = {"mlp": {"hidden": [4], "short_histories": 0.5}}
    other = studied(fleet(4, 40), models=settings, coldstart={"folds": 2, "days": [3]})
    assert np.isfinite(nmae(other, "mlp", "federated", 3))
    study = studied(fleet(4, 40), coldstart={"folds": 2, "days": [3]})
    assert nmae(other, "mlp", "federated", 3) != nmae(study, "mlp", "federated", 3)
    # Its own model knows nothing of that.
    assert nmae(other, "mlp", "local", 3) == nmae(study, "mlp", "local", 3)


def test_the_same_seed_gives_the_same_rows(study: ColdStart):
    assert studied(fleet(4, 40)).rows() == study.rows()


def test_what_is_lacking_is_filled_level_by_level():
    nan = np.nan
    made = Forecast(np.array([[1.0, nan]]), (0.1, 0.9), np.array([[[0.5, 2.0], [nan, nan]]]))
    spare_one = Forecast(np.array([[7.0, 8.0]]), (0.1, 0.9), np.array([[[6.0, 9.0], [5.0, 9.5]]]))
    result = filled(made, spare_one)
    assert result.mean_kwh.tolist() == [[1.0, 8.0]]
    assert result.quantiles_kwh is not None
    assert result.quantiles_kwh.tolist() == [[[0.5, 2.0], [5.0, 9.5]]]
    plain = filled(made, Forecast(np.array([[7.0, 8.0]])))
    assert plain.quantiles_kwh is not None
    assert plain.quantiles_kwh[0, 1].tolist() == [8.0, 8.0]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"training": "local"}, "FL340"),
        ({"engine": "loop"}, "FL340"),
        ({"coldstart": {"folds": 3}}, "FL341"),
    ],
)
def test_what_cannot_be_studied_is_refused(values, code):
    with pytest.raises(FederationError) as caught:
        ColdStart(config(**values), prepared(fleet(4, 40)))
    assert [fault.code for fault in caught.value.faults] == [code]


def test_an_empty_test_part_is_left_out():
    ready = prepared(fleet(4, 40))
    one = ready.clients["c0"]
    nothing = one.test[0].take(np.zeros(0, dtype=np.int64))
    cut = ClientData("c0", one.train, one.validation, (nothing,))
    study = ColdStart(config(), replace(ready, clients={**ready.clients, "c0": cut}))
    assert list(study.run()) == [1, 2]
    assert {row.clients for row in study.rows()} == {3}
