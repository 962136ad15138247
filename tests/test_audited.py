"""The audit of a run's parts: passes the program as it is, and finds what is planted in it."""

import pytest

from fl_inmetro.audited import audit_run
from fl_inmetro.config import check
from fl_inmetro.errors import PrivacyError
from fl_inmetro.federation.private_merge import PrivateMerge
from fl_inmetro.learning import gradient
from tests.fleets import clients_of, fleet

CLIENTS = list(clients_of(fleet(3))[0])


def found(protect: str, z: float, releases: int, model: str = "nlinear"):
    settings = {"model": model, "privacy": {"protect": protect, "noise_multiplier": z}}
    planned = {"noise_multiplier": z, "sampling_rate": 1.0, "times": 5, "sampling": "all"}
    account = {"delta": 1e-5, "models": {"nlinear-federated-g0000": {"planned": [planned]}}}
    audited = audit_run(check(settings), account, CLIENTS, releases)
    return {one.part: one.audit for one in audited}


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


def test_a_step_without_clipping_is_found(monkeypatch):
    monkeypatch.setattr(gradient.dp_sgd, "factors", lambda norms, clip: norms * 0 + 1)
    audit = found("window", 1.0, 60)["step"]
    assert not audit.holds
    assert audit.lower_bound > 1


def test_models_in_closed_form_have_no_step_to_audit():
    with pytest.raises(PrivacyError, match="FL419"):
        found("client", 1.0, 20, model="ridge")
