"""A client's share of the noise: by hand, as statistics, and what is left out of a reply."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fl_inmetro.config.models import Models
from fl_inmetro.learning import noise_share
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.noise_share import noised, noised_rows
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Layout
from fl_inmetro.learning.work import DpSgd, LocalWork, NoiseShare
from fl_inmetro.privacy.secret import Secret
from tests.engines import apart, flat, same_bits
from tests.federation.rounds import Plain, planted
from tests.learning.private_steps import ROOT, design, nlinear, zeros
from tests.learning.ragged import clients, learner, workers

NOTHING = NoiseShare(5.0, 0.0)


def arrays(*values: float) -> dict[str, np.ndarray]:
    v = np.array(values, np.float32)
    return {"w": v[:2].reshape(1, 2), "b": v[2:]}


def test_the_whole_update_is_clipped_by_hand():
    """(3, 4 | 12) has norm 13: at most 5 leaves 5/13 of it; (3, 0 | 4) has norm 5 and passes."""
    cut = noised(arrays(3, 4, 12), NOTHING, ROOT)
    np.testing.assert_allclose(cut["w"], [[15 / 13, 20 / 13]], rtol=1e-6)
    np.testing.assert_allclose(cut["b"], [60 / 13], rtol=1e-6)
    assert same_bits(noised(arrays(3, 0, 4), NOTHING, ROOT), arrays(3, 0, 4))
    assert same_bits(noised(arrays(0, 0, 0), NOTHING, ROOT), arrays(0, 0, 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_is_noise_alone(bad):
    """3e38 is finite, and so is its norm in float64: it is clipped to nearly nothing."""
    share = NoiseShare(5.0, 1.0)
    got = noised(arrays(bad, 1, 1), share, ROOT)
    alone = noised(arrays(0, 0, 0), share, ROOT)
    assert np.isfinite(flat(got)).all()
    away = np.linalg.norm(flat(got) - flat(alone))
    assert away == pytest.approx(0 if bad != 3e38 else 5, rel=1e-5, abs=1e-6)


def test_the_callers_arrays_stay_as_they_are():
    mine = arrays(3, 4, 12)
    noised(mine, NoiseShare(5.0, 1.0), ROOT)
    assert same_bits(mine, arrays(3, 4, 12))


def test_the_noise_has_its_variance_and_is_each_clients_own():
    """400 clients of 5 numbers: Σ of squares is χ² with 2,000 degrees of freedom."""
    layout = Layout.of({"w": np.zeros((2, 2), np.float32), "b": np.zeros(1, np.float32)})
    matrix = np.zeros((400, 5), np.float32)
    secrets = [ROOT.child(k) for k in range(400)]
    noised_rows(matrix, layout, NoiseShare(1.0, 0.3), secrets)
    normal = matrix / 0.3
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], 2000)
    assert low < (normal**2).sum() < high
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]) < 3.9 / np.sqrt(1995)
    again = np.zeros((1, 5), np.float32)
    noised_rows(again, layout, NoiseShare(1.0, 0.3), secrets[7:8])
    assert (again[0] == matrix[7]).all()


@pytest.mark.parametrize("model", ["mlp", "cyclenet", "gru"])
@pytest.mark.parametrize("engine", ["loop", "cohort"])
def test_only_what_is_shared_is_clipped_and_noised(engine, model):
    """Beside the same training without: shared deltas are cut to norm C, private ones are not."""
    made = learner(model, batch_size=8)
    plain = Plain.on(engine, workers(made), made, LocalWork(2), secret=ROOT)
    free = plain.round()
    clip = min(np.linalg.norm(flat(u.arrays)) for u in free.values()) / 2
    cut = Plain.on(engine, workers(made), made, LocalWork(2, share=NoiseShare(clip, 0)))
    for name, update in cut.round().items():
        before = free[name].arrays
        size = np.linalg.norm(flat(before))
        assert apart({n: v * size / clip for n, v in update.arrays.items()}, before) < 1e-4
        assert np.isnan(update.loss)
        assert update.weight == free[name].weight
    assert same_bits(cut.kept(), plain.kept())
    assert bool(plain.kept()) == (model == "cyclenet")


# ------------------------------------------------------------------------------- the client
@pytest.mark.parametrize("work", [LocalWork(dp=DpSgd(1, 1)), LocalWork(share=NoiseShare(1, 1))])
def test_noise_needs_a_secret(work):
    (worker,) = planted(nlinear(), [design([[1, 0]], [[2]])])
    with pytest.raises(ValueError, match="needs a secret to draw from"):
        worker.train(zeros(), work, 0, 1)
    if work.dp:
        with pytest.raises(ValueError, match="needs a secret"):
            nlinear().update(zeros(), worker.train_design, work, 0)


@pytest.mark.parametrize("work", [LocalWork(dp=DpSgd(1, 1)), LocalWork(share=NoiseShare(1, 1))])
def test_a_model_in_closed_form_has_no_gradient_to_clip(work):
    worker = ClientWorker(clients()[0], learner_for("ridge", Models()))
    with pytest.raises(TypeError, match="closed form"):
        worker.train({}, work, 0, 1, secret=ROOT)


def test_private_parameters_are_clipped_and_noised_with_the_others():
    """The bias stays on the client. x = (3, 4), r = 1: gradient (−6, −8 | −2), norm √104.

    Clipped to 2 with the bias in the norm, η = 0.1: 0.2/√104 of (6, 8 | 2), and the same with
    noise in all three.
    """
    made = nlinear(private=("linear.bias",))
    (worker,) = planted(made, [design([[3, 4]], [[1]])])
    work = LocalWork(dp=DpSgd(2.0, 0.0))
    update, kept = worker.train(zeros(), work, 0, 1, secret=ROOT)
    share = 0.2 / np.sqrt(104)
    np.testing.assert_allclose(update.arrays["linear.weight"], [[6 * share, 8 * share]], rtol=1e-5)
    assert list(update.arrays) == ["linear.weight"]
    # It is kept, though there is no loss that would be finite.
    np.testing.assert_allclose(kept.private["linear.bias"], [2 * share], rtol=1e-5)
    noisy = replace(work, dp=DpSgd(2.0, 1.0))
    update, kept = worker.train(zeros(), noisy, 0, 1, secret=ROOT)
    assert abs(kept.private["linear.bias"][0] - 2 * share) > 1e-3
    assert np.isnan(update.loss)


@pytest.mark.parametrize("model", ["cyclenet", "mlp"])
def test_engines_agree_on_private_parameters_with_dp(model):
    """Three rounds of two epochs, unequal clients, Poisson batches, noise on all parameters."""
    made = learner(
        model, batch_size=8, private=["cycle.*"] if model == "cyclenet" else ["layers.2.*"]
    )
    work = LocalWork(2, dp=DpSgd(0.1, 0.5))
    ends = [Plain.on(e, workers(made), made, work, secret=ROOT) for e in ("loop", "cohort")]
    start = ends[0].kept()
    for _ in range(3):
        for plain in ends:
            plain.round()
    loop, cohort = ends
    assert apart(cohort.state, loop.state) < 1e-4
    for name, value in loop.kept().items():
        np.testing.assert_allclose(cohort.kept()[name], value, rtol=1e-3, atol=1e-4)
    assert any(not np.array_equal(loop.kept()[name], start[name]) for name in start)


def test_a_share_without_its_clip_is_no_share(monkeypatch):
    """What the tests above would miss if they missed it."""
    monkeypatch.setattr(noise_share, "_factor", lambda norm, clip: np.float32(1))
    with pytest.raises(AssertionError):
        test_the_whole_update_is_clipped_by_hand()


def test_secrets_do_not_show_in_what_is_printed():
    assert "not a secret" not in repr(Secret(ROOT.key)) + str(NoiseShare(1, 1))
