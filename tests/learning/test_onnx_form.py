"""ONNX files give what PyTorch gives, for every learner and head, on any number of windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from fl_inmetro import seeds
from fl_inmetro.config.models import Models
from fl_inmetro.errors import RunError
from fl_inmetro.learning import onnx_form
from fl_inmetro.learning.onnx_form import TOLERANCE, normal_quantile, to_onnx, whole_of
from fl_inmetro.learning.quantile_linear import rounds_of
from fl_inmetro.learning.table import LEARNERS, learner
from fl_inmetro.learning.work import LocalWork
from tests.fleets import series, windows

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

SIZES: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [6]},
    "nlinear": {},
    "window_mlp": {"hidden": [6]},
    "gru": {"hidden": 5, "layers": 2},
    "lstm": {"hidden": 5, "layers": 2},
    "patchtst": {"patch": 6, "stride": 6, "width": 8, "heads": 2, "layers": 1, "feed_forward": 8},
    "dlinear": {},
    "sparsetsf": {"period_h": 6},
    "cyclenet": {},
    "tide": {"width": 6},
    "nhits": {"pools": [5, 1], "hidden": [6]},
    "segrnn": {"segment": 6, "width": 5},
    "tsmixer": {"width": 3},
    "own": {"network": "examples.own_network:DayFilters"},
}
SEEN = windows(series("a", 40, gaps=0.03), range(20, 27), horizon=12)


def made(name: str, **more: Any):
    """A learner, a state in which every parameter has been drawn, and its inputs."""
    own = dict(SIZES.get(name, {})) | more
    if name not in ("ridge", "quantile_linear", "mlp"):
        own.setdefault("context_h", 24)
    one = learner(name, Models.model_validate({name: own}))
    design = one.design(SEEN)
    state = one.initial(one.enrol(design), 1, design.x.shape[1:], design.base.shape[1])
    if name in ("ridge", "quantile_linear"):
        for _ in range(rounds_of(one, 1)):
            state = one.finish(state, one.update(state, design, LocalWork(), 0)[0])
        return one, state, design.x
    rng = seeds.derive(1, "onnx", name)
    for key, _ in one.module(state).named_parameters():  # heads of zeros would agree with anything
        state[key] = rng.normal(0, 0.3, state[key].shape).astype(np.float32)
    return one, state, design.x


def held(one, state, x) -> tuple[Any, onnx_form.OnnxModel]:
    """Assert that the file is valid and gives what PyTorch gives for 1, 3 and 7 windows."""
    model = to_onnx(one, state, x[:2], {"who": one.name, "levels": [0.1]})
    proto = onnx.load_from_string(model.bytes)
    onnx.checker.check_model(proto, full_check=True)
    assert {p.key: p.value for p in proto.metadata_props} == {"who": one.name, "levels": "[0.1]"}
    session = onnxruntime.InferenceSession(model.bytes, providers=["CPUExecutionProvider"])
    for count in (1, 3, 7):
        with torch.no_grad():
            wanted = whole_of(one, state)(torch.from_numpy(x[:count]))
        given = session.run(None, {"x": x[:count]})
        assert len(given) == len(wanted)
        for a, b in zip(given, wanted, strict=True):
            size = np.maximum(1.0, np.abs(b.numpy()))
            assert np.all(np.abs(a - b.numpy()) <= TOLERANCE * size)
            assert np.ptp(a) > 1e-3  # says something
    return proto, model


@pytest.mark.parametrize("name", SIZES)
def test_every_network(name):
    # The example of a network of one's own gives one number for each step.
    loss = "mse" if name == "own" else "quantile"
    one, state, x = made(name, loss=loss)
    proto, _ = held(one, state, x)
    assert [o.name for o in proto.graph.output] == ["mean", "quantiles"][: 1 + (name != "own")]


@pytest.mark.parametrize("loss", ["mae", "student-t", "hurdle"])
@pytest.mark.parametrize("name", ["nlinear", "mlp"])
def test_every_head(name, loss):
    one, state, x = made(name, loss=loss)
    held(one, state, x)


def test_ridge_is_one_gemm_and_gives_what_the_learner_forecasts():
    one, state, x = made("ridge")
    proto, model = held(one, state, x)
    assert [n.op_type for n in proto.graph.node].count("Gemm") == 1
    design = one.design(SEEN, targets=False)
    session = onnxruntime.InferenceSession(model.bytes, providers=["CPUExecutionProvider"])
    (mean,) = session.run(None, {"x": design.x})
    np.testing.assert_allclose(design.to_kwh(mean), one.forecast(state, design).mean_kwh, rtol=1e-6)


def test_linear_quantiles_are_one_gemm_and_what_the_learner_forecasts():
    one, state, x = made("quantile_linear", rounds=4, levels=[0.05, 0.5, 0.9, 0.95])
    state["coefficients"][[1, 3]] = state["coefficients"][[3, 1]]  # they cross: the graph sorts
    proto, model = held(one, state, x)
    assert [n.op_type for n in proto.graph.node].count("Gemm") == 1
    design = one.design(SEEN, targets=False)
    session = onnxruntime.InferenceSession(model.bytes, providers=["CPUExecutionProvider"])
    mean, quantiles = session.run(None, {"x": design.x})
    wanted = one.forecast(state, design)
    np.testing.assert_allclose(design.to_kwh(mean), wanted.mean_kwh, rtol=1e-6)
    np.testing.assert_allclose(design.to_kwh(quantiles), wanted.quantiles_kwh, rtol=1e-6)


def test_every_learner_of_the_table_is_tested_here():
    assert {*SIZES, "ridge", "quantile_linear"} == set(LEARNERS)


def test_recurrent_networks_are_single_operators():
    for name in ("gru", "lstm"):
        one, state, x = made(name, loss="mse")
        proto, _ = held(one, state, x)
        assert [n.op_type for n in proto.graph.node].count(name.upper()) == 2  # two layers


def test_the_normal_quantile_is_that_of_scipy():
    p = np.concatenate([np.linspace(1e-4, 1 - 1e-4, 999), [1e-12, 1e-9, 1 - 1e-9, 0.075, 0.925]])
    # AS 241, check values: PPND16(0.25) = −0.674489750196082, PPND16(0.001) = −3.090232306167814.
    known = normal_quantile(torch.tensor([0.25, 0.001], dtype=torch.float64)).numpy()
    np.testing.assert_allclose(known, [-0.674489750196082, -3.090232306167814], rtol=1e-14)
    np.testing.assert_allclose(normal_quantile(torch.from_numpy(p)).numpy(), ndtri(p), rtol=1e-9)


def test_missing_packages_are_fl717(monkeypatch):
    monkeypatch.setattr(onnx_form, "PACKAGES", ("onnx", "no_such_runtime"))
    with pytest.raises(RunError) as caught:
        to_onnx(*made("ridge"), {})
    (fault,) = caught.value.faults
    assert fault.code == "FL717"
    assert "no_such_runtime" in fault.what
    assert "[onnx]" in fault.hint


def test_a_file_that_gives_other_values_is_fl718(monkeypatch):
    # A GRU whose gates were left in PyTorch's order must not pass the check.
    one, state, x = made("gru", loss="mse")
    wrong = onnx_form._OnnxRecurrent.__init__

    def unturned(self, layer):
        wrong(self, layer)
        self.w0 = layer.weight_ih_l0.detach()[None].contiguous()

    monkeypatch.setattr(onnx_form._OnnxRecurrent, "__init__", unturned)
    with pytest.raises(RunError) as caught:
        to_onnx(one, state, x, {})
    assert caught.value.faults[0].code == "FL718"
