"""The noise of a run's releases, together, keeps the promise and no more."""

from dataclasses import replace

import pytest

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.calibrate import noise_for, smallest_noise
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.plan import planned

ONCE = Gaussian(1.0, 1.0, 1, "all")


@pytest.mark.parametrize(
    ("update", "epsilon"),
    [
        (Gaussian(1.0, 1.0, 20, "all"), 1.0),
        (Gaussian(1.0, 0.1, 50), 8.0),
        (Gaussian(1.0, 0.09, 40, "poisson", 3), 4.0),
    ],
)
def test_all_together_cost_the_epsilon_asked_for_and_hardly_less(update, epsilon):
    plan = planned(
        update,
        epsilon=epsilon,
        delta=1e-5,
        scaler=replace(ONCE, group=update.group),
        scaler_share=0.05,
        metrics=replace(ONCE, times=update.times, group=update.group),
        metrics_share=0.1,
        calibration=ONCE,
        calibration_share=0.05,
    )
    assert plan.events[-1] == plan.update
    assert account(plan.events, 1e-5).epsilon <= epsilon
    quieter = replace(plan.update, noise_multiplier=plan.update.noise_multiplier / 1.0011)
    beside_it = (plan.scaler, plan.metrics, plan.calibration)
    assert account((*beside_it, quieter), 1e-5).epsilon > epsilon
    for beside, share in zip(beside_it, (0.05, 0.1, 0.05), strict=True):
        cost = account((beside,), 1e-5).epsilon
        assert share * epsilon * 0.99 < cost <= share * epsilon
    # What has no share is not there, and leaves more for the updates.
    alone = planned(update, epsilon=epsilon, delta=1e-5, scaler=ONCE)
    assert alone.events == (alone.update,)
    assert alone.update.noise_multiplier < plan.update.noise_multiplier


def test_a_noise_that_is_given_stands_for_all():
    plan = planned(
        Gaussian(2.5, 0.1, 50),
        epsilon=None,
        delta=1e-5,
        scaler=ONCE,
        scaler_share=0.05,
        metrics=ONCE,
    )
    assert plan.update == Gaussian(2.5, 0.1, 50)
    assert plan.scaler == Gaussian(2.5, 1.0, 1, "all")
    assert plan.metrics is None


def test_noise_beside_what_is_spent_already():
    # The Gaussians of one sum each add up by 1/z^2: beside 3 rounds of z = 10, one of z' costs
    # as a single one of (3/100 + 1/z'^2)^-1/2.
    beside = (Gaussian(10.0, 1.0, 3, "all"),)
    alone = noise_for(1.0, 1e-5, 1.0, 1, "all")
    found = smallest_noise(ONCE, 1.0, 1e-5, beside).noise_multiplier
    assert found == pytest.approx((alone**-2 - 3 / 100) ** -0.5, rel=2e-3)
    with pytest.raises(PrivacyError, match="FL404"):
        smallest_noise(ONCE, 1.0, 1e-5, (Gaussian(1.0, 1.0, 3, "all"),))


def test_losses_beyond_all_meaning_do_not_fill_the_memory():
    # 50 rounds in which one has 29 records and hardly any noise: RDP stands for both.
    cost = account((Gaussian(0.1, 1.0, 50, "all", 29),), 1e-5)
    assert cost.epsilon_pld == cost.epsilon_rdp > 1e6


def test_large_groups_that_every_draw_meets_have_an_account():
    # 1 − (1 − .96)^30 is 1 in floating point: RDP is that of no draw at all, z/30.
    event = Gaussian(60.0, 0.96, 4, "poisson", 30)
    assert account((event,), 1e-5).epsilon_rdp == pytest.approx(
        account((Gaussian(60.0, 1.0, 4, "all", 30),), 1e-5).epsilon_rdp, rel=1e-2
    )
    assert account((event,), 1e-5).epsilon_pld <= account((event,), 1e-5).epsilon_rdp
