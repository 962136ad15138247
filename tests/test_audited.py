"""The audit of a run's parts: passes the program as it is, and finds what is planted in it."""

from dataclasses import replace

import pytest

from fl_inmetro import audited
from fl_inmetro.audited import audit_run
from fl_inmetro.config import check
from fl_inmetro.errors import PrivacyError
from fl_inmetro.federation.private_merge import PrivateMerge
from fl_inmetro.learning import gradient
from fl_inmetro.privacy.discrete import Grid
from tests.fleets import clients_of, fleet

CLIENTS = list(clients_of(fleet(3))[0])


def found(protect: str, z: float, releases: int, model: str = "nlinear", group: int = 1, **more):
    privacy = {"protect": protect, "noise_multiplier": z, **more}
    settings = {"model": model, "privacy": privacy}
    planned = {"noise_multiplier": z, "sampling_rate": 1.0, "times": 5, "sampling": "all"}
    kept = {"planned": [planned], "group": group}
    account = {"delta": 1e-5, "models": {f"{model}-federated-g0000": kept}}
    parts = audit_run(check(settings), account, CLIENTS, releases)
    return {one.part: one.audit for one in parts}


def test_sums_of_clients_pass_whoever_answers():
    parts = found("client", 1.0, 1000)
    assert set(parts) == {"sum", "dropout", "one-release"}
    for audit in parts.values():
        assert audit.holds
        assert audit.noise == pytest.approx(1.0, abs=5 * audit.noise_error)
        assert audit.claimed_epsilon == pytest.approx(4.38, abs=0.01)


def test_half_the_noise_is_found_in_each(monkeypatch):
    whole = PrivateMerge._noised

    def half(self, vector, *more):
        return vector + (whole(self, vector, *more) - vector) / 2

    monkeypatch.setattr(PrivateMerge, "_noised", half)
    assert not any(audit.holds for audit in found("client", 1.0, 1000).values())


@pytest.mark.parametrize("protect", ["window", "client-day"])
def test_a_step_of_dp_sgd_passes(protect):
    audit = found(protect, 1.0, 300)["step"]
    assert audit.holds
    assert audit.noise == pytest.approx(1.0, abs=5 * audit.noise_error)


@pytest.mark.parametrize("more", [{"on_grid": True}, {"noise_at": "clients"}])
def test_the_run_s_own_merge_is_audited(more, monkeypatch):
    parts = found("client", 1.0, 300, **more)
    assert set(parts) == {"sum", "dropout", "one-release"}
    assert all(audit.holds for audit in parts.values())
    # Shares of clients, or whole numbers of a grid, of half the length.
    if "on_grid" in more:
        whole = Grid.noised

        def half(self, vector, secret):
            return vector + (whole(self, vector, secret) - vector) / 2

        monkeypatch.setattr(Grid, "noised", half)
    else:
        shared = audited.noised_rows
        less = lambda rows, layout, share, secrets: shared(  # noqa: E731
            rows, layout, replace(share, sigma=share.sigma / 2), secrets
        )
        monkeypatch.setattr(audited, "noised_rows", less)
        monkeypatch.setattr(PrivateMerge, "_noised", lambda self, vector, *more: vector)
    assert not found("client", 1.0, 300, **more)["sum"].holds


def test_a_clipping_norm_that_follows_leaves_the_sum_more_noise():
    parts = found("client", 0.2, 300, clip_quantile=0.5)
    assert all(audit.holds for audit in parts.values())
    # Ten clients: a count with noise of a half. (0.2^-2 - (2 * 0.5)^-2)^-1/2 = 24^-1/2 (theorem 1).
    assert parts["sum"].claimed_noise == pytest.approx(24**-0.5)
    assert parts["sum"].noise == pytest.approx(24**-0.5, abs=4 * parts["sum"].noise_error)


def test_a_day_moves_a_step_by_all_its_windows():
    one, day = found("window", 6.0, 300)["step"], found("client-day", 6.0, 300, group=6)["step"]
    assert one.holds
    assert day.holds
    # Six windows of clipped gradients beside six times the noise: as one beside one.
    assert day.noise == pytest.approx(1.0, abs=5 * day.noise_error)
    assert day.claimed_epsilon == pytest.approx(4.38, abs=0.01)
    # A day that is in more windows than the run has counted is found.
    assert day.claimed_epsilon > 4 * one.claimed_epsilon


def test_each_federation_is_audited():
    settings = {"privacy": {"protect": "client", "noise_multiplier": 1.0}}
    kept = {"planned": [{"noise_multiplier": 1.0}]}
    names = ("nlinear-federated-g0000", "mlp-federated-g0000", "ridge-federated-g0000")
    account = {"delta": 1e-5, "models": dict.fromkeys(names, kept)}
    parts = audit_run(check(settings), account, CLIENTS, 20)
    assert {one.model for one in parts} == set(names[:2])


def test_a_step_without_clipping_is_found(monkeypatch):
    monkeypatch.setattr(gradient.dp_sgd, "factors", lambda norms, clip: norms * 0 + 1)
    audit = found("window", 1.0, 60)["step"]
    assert not audit.holds
    assert audit.lower_bound > 1


def test_models_in_closed_form_have_no_step_to_audit():
    with pytest.raises(PrivacyError, match="FL419"):
        found("client", 1.0, 20, model="ridge")
