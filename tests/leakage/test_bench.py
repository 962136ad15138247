"""The bench on finished runs: who is attacked, what is told, what noise does to it."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.data.simulator.build import has_trait
from fl_inmetro.errors import PrivacyError
from fl_inmetro.leakage.bench import attack
from fl_inmetro.leakage.scene import clipped, flat, norm_of, scene_of
from fl_inmetro.leakage.traits import traits_of
from fl_inmetro.leakage.trials import client_membership, losses_of, released, window_membership
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.runs.record import RunRecord
from tests.fleets import tiny_config

SECRET = Secret(b"k" * 32)


@pytest.fixture(scope="module")
def scene(open_run):
    return scene_of(open_run.record, secret=SECRET, prepared=open_run.prepared)


@pytest.fixture(scope="module")
def noisy(noisy_run):
    return scene_of(noisy_run.record, secret=SECRET, prepared=noisy_run.prepared)


def test_the_same_run_gives_the_same_figures(open_run, noisy_run):
    for run in (open_run, noisy_run):
        once, again = (
            attack(run.record, clients=3, invert=False, secret=SECRET, prepared=run.prepared)
            for _ in range(2)
        )
        assert once == again
        assert once.attacked == 3
        assert len({one.client_id for one in once.reconstructions}) == 3
    other = attack(
        noisy_run.record,
        clients=3,
        invert=False,
        secret=Secret(b"l" * 32),
        prepared=noisy_run.prepared,
    )
    assert other != again
    assert "fresh-noise" in other.notes


def test_what_protects_is_told(open_run, noisy_run):
    plain = attack(open_run.record, clients=1, invert=False, prepared=open_run.prepared)
    assert (plain.protect, plain.epsilon, plain.seen) == ("nobody", None, "update")
    under = attack(noisy_run.record, clients=1, invert=False, prepared=noisy_run.prepared)
    assert (under.protect, under.seen) == ("client", "update_in_sum")
    assert under.epsilon == pytest.approx(8.0, abs=0.02)
    assert under.epsilon <= 8.0
    assert under.simulated
    assert under.left_out == {"inversion": "not-asked"}


def test_who_took_part_is_told_without_noise_and_hardly_with_it(scene, noisy):
    """Twelve clients, five rounds of six each; noise of about the clipping norm.

    No test of one client in one such sum has an area above Φ(1/(z√2)), see test_membership; 30
    scores against 30 have a standard error of 0.07.
    """
    told = {one.what: one for one in client_membership(scene, scene.names, 5)}
    assert told["not-drawn-known"].auc > 0.9
    assert told["not-drawn"].auc > 0.65
    assert (told["not-drawn"].positives, told["not-drawn"].negatives) == (30, 30)
    assert "never" not in told  # all took part
    bound = NormalDist().cdf(1 / (noisy.z * 2**0.5))
    for one in client_membership(noisy, noisy.names, 5):
        assert one.auc < bound + 0.15


def test_a_release_is_the_sum_of_clipped_updates_and_one_noise(scene, noisy):
    names = list(scene.names[:3])
    plain = sum(flat(scene.bare(name, 2)) for name in names)
    np.testing.assert_allclose(released(scene, names, 2), plain, rtol=1e-5, atol=1e-7)
    clip = noisy.config.privacy.clip
    bare = sum(flat(clipped(noisy.bare(name, 2), clip)) for name in names)
    noise = released(noisy, names, 2) - bare
    # P normal numbers of deviation zC: their mean square is (zC)²(1 ± √(2/P)).
    spread = np.sqrt(2 / noise.size)
    assert np.mean(noise**2) == pytest.approx((noisy.z * clip) ** 2, rel=5 * spread)


def test_who_never_took_part_is_compared_with_who_did(scene):
    took = scene.names[:6]
    losses = losses_of(scene)
    told = {one.what: one for one in window_membership(losses, took, 5)}
    assert set(told) == {"later", "others"}
    count = sum(int(np.isfinite(losses.train[name]).sum()) for name in took)
    others = sum(int(np.isfinite(losses.train[name]).sum()) for name in scene.names[6:])
    assert (told["others"].positives, told["others"].negatives) == (count, others)
    assert told["later"].positives == count
    never = [one for one in client_membership(scene, took, 5) if one.what == "never"]
    assert [(one.positives, one.negatives) for one in never] == [(6, 6)]


def test_losses_are_what_training_took_off(scene):
    name = scene.names[0]
    [part] = scene.workers[name].data.test
    used = part.target_kwh()
    last, first = (
        np.array(
            [np.nansum(np.abs(made[n] - used[n])) / np.nansum(used[n]) for n in range(len(part))]
        )
        for made in (
            scene.learner.forecast(state, scene.learner.design(part)).point_kwh
            for state in (scene.last, scene.first)
        )
    )
    np.testing.assert_allclose(losses_of(scene).later[name][-len(part) :], last - first)


def test_a_model_that_has_learned_nothing_tells_no_window(scene):
    """Easy windows are no members: the first model, attacked as if it were the last."""
    nothing = losses_of(replace(scene, last=scene.first))
    took = scene.names[:6]
    for one in window_membership(nothing, took, 5):
        assert (one.auc, one.works) == (0.5, False)


def test_noise_is_the_run_s_own_however_few_are_looked_at(tmp_path):
    """Shares are made for all who are enrolled, not for those that the bench looks at."""
    config = tiny_config(
        model="nlinear",
        privacy={"protect": "client", "noise_at": "clients", "ledger": str(tmp_path / "ledgers")},
    )
    path = session.start(config, "run", tmp_path / "runs", lambda event: None, lambda: False)
    record = RunRecord.open(path)
    whole, few = scene_of(record), scene_of(record, most=3)
    assert len(few.names) == 3 < len(whole.names) == whole.enrolled
    assert few.share == whole.share


def test_a_clipping_norm_that_follows_is_the_last_one(tmp_path):
    config = tiny_config(
        model="nlinear",
        privacy={
            "protect": "client",
            "noise_multiplier": 0.05,
            "clip": 100.0,
            "clip_quantile": 0.5,
            "clip_rate": 1.0,
            "ledger": str(tmp_path / "ledgers"),
        },
    )
    path = session.start(config, "run", tmp_path / "runs", lambda event: None, lambda: False)
    scene = scene_of(RunRecord.open(path))
    # All updates are far shorter: each of the rounds takes e^-(1/2) off, up to the count's noise.
    rounds = config.federation.num_server_rounds
    assert scene.clip < 100 * np.exp(-0.4 * rounds)
    assert scene.z == pytest.approx((0.05**-2 - (2 * len(scene.names) / 20) ** -2) ** -0.5)


def test_traits_are_those_the_simulator_gave(scene):
    traits = traits_of(scene)
    shops = np.array([name.startswith("sim-shop") for name in scene.names])
    np.testing.assert_array_equal(traits["commercial"], shops)
    numbers = [int(name[-3:]) for name in scene.names]
    vehicles = [
        has_trait("vehicle", 0.5, 5, number) and not shop
        for number, shop in zip(numbers, shops, strict=True)
    ]
    np.testing.assert_array_equal(traits["vehicle"], vehicles)
    assert traits["night-low"].sum() == traits["evening-high"].sum() == 6  # halves of twelve


def test_night_is_a_share_of_what_was_trained_on(scene):
    """The lowest night share of all is below the median, by a plain loop over local hours."""
    shares = {}
    for name in scene.names:
        [part] = scene.workers[name].data.train
        series = part.series
        first, last = part.issue_index.min(), part.issue_index.max() + part.reach
        night, every = [], []
        for step in range(first, last):
            hour = (series.start_utc_s + step * series.resolution_s) // 3600 % 24 - 3  # Brasília
            every.append(series.energy_kwh[step])
            if hour % 24 < 6:
                night.append(series.energy_kwh[step])
        shares[name] = np.mean(night) / np.mean(every)
    middle = np.median(list(shares.values()))
    low = [shares[name] < middle for name in scene.names]
    np.testing.assert_array_equal(traits_of(scene)["night-low"], low)


def test_updates_under_a_promise_are_as_long_as_noise(noisy):
    update = noisy.update(noisy.names[0])
    size = sum(array.size for array in update.values())
    assert norm_of(update) == pytest.approx(
        noisy.z * noisy.config.privacy.clip * np.sqrt(size), rel=0.15
    )


def test_more_victims_than_clients(open_run):
    with pytest.raises(PrivacyError, match=r"FL414.*13 clients"):
        attack(open_run.record, clients=13, prepared=open_run.prepared)


def test_a_round_of_few_shares_has_all_of_the_noise(tmp_path):
    config = tiny_config(
        model="nlinear",
        privacy={"protect": "client", "noise_at": "clients", "ledger": str(tmp_path / "ledgers")},
    )
    path = session.start(config, "run", tmp_path / "runs", lambda event: None, lambda: False)
    scene = scene_of(RunRecord.open(path))
    one = scene.names[:1]
    sums = np.stack([released(scene, one, round_) for round_ in range(1, 60)])
    # What differs from round to round is the noise, and drawn batches, which are clipped to C.
    deviation = float(sums.std(axis=0, ddof=1).mean())
    assert deviation == pytest.approx(scene.z * scene.clip, rel=0.2)
    assert scene.share.sigma < 0.8 * scene.z * scene.clip
