"""A learner's model as an ONNX graph: its network, its head, and the words to read it by.

The packages `onnx`, `onnxscript` and `onnxruntime` are the extra `[onnx]`; nothing else of the
product imports them. GRU and LSTM become ONNX's own operators: taken apart step by step, a week of
hours alone would make thousands of nodes.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.quantile_linear import QuantileLinearLearner
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.models.design import CLIP
from fl_inmetro.models.heads import Head, PointHead, QuantileHead

if TYPE_CHECKING:
    import onnx

#: Packages of the extra `[onnx]`.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

#: Outputs of a file; the second only where the model has quantiles.
OUTPUTS = ("mean", "quantiles")
_OUT = "fl_inmetro_"

#: What two runtimes may differ by: a share of the value, or of the client's scale below 1.
TOLERANCE = 1e-5

Rows = NDArray[np.float32]


class Whole(nn.Module):
    """A network with its head: x → the mean, and the quantiles where the head gives any.

    Shapes: x (N, …) → (N, H), (N, H, Q); in the units of `Design.residual`.
    """

    def __init__(self, network: nn.Module, head: Head) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return one or two tensors."""
        raw = self.network(x)
        quantiles = self.head.quantiles(raw)
        mean = self.head.mean(raw)
        return (mean,) if quantiles is None else (mean, quantiles)


class LinearNetwork(nn.Module):
    """Ridge, or several such, as a network: rows cut at five deviations, one product, in float64.

    Shapes: x (N, H, F) → (N, H); for coefficients (R, F+1), (N, H, R).
    """

    low: Tensor
    high: Tensor

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        reach = CLIP * state["x_std"]
        self.register_buffer("low", torch.from_numpy(state["x_mean"] - reach))
        self.register_buffer("high", torch.from_numpy(state["x_mean"] + reach))
        coefficients = torch.from_numpy(np.asarray(state["coefficients"], dtype=np.float64))
        self.shape = coefficients.shape[:-1]
        rows = coefficients.reshape(-1, coefficients.shape[-1])
        self.linear = nn.Linear(rows.shape[1] - 1, len(rows), dtype=torch.float64)
        self.linear.load_state_dict({"weight": rows[:, :-1], "bias": rows[:, -1]})

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction."""
        seen = torch.minimum(torch.maximum(x.double(), self.low), self.high)
        # Two dimensions, so that the product is one Gemm.
        flat: Tensor = self.linear(seen.flatten(0, 1))
        return flat.reshape(x.shape[0], x.shape[1], *self.shape).float()


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model in ONNX's form.

    Attributes:
        bytes: The file.
        metadata: Its `metadata_props`.
        largest_gap: Largest difference to PyTorch on the example, as a share of
            max(1, |value|).
    """

    bytes: bytes
    metadata: Mapping[str, str]
    largest_gap: float


def whole_of(learner: Learner, state: Arrays) -> Whole:
    """Return a learner's model with its head.

    Raises:
        TypeError: A learner of no known family.
    """
    if isinstance(learner, RidgeLearner):
        return Whole(LinearNetwork(state), PointHead("mse")).eval()
    if isinstance(learner, QuantileLinearLearner):
        return Whole(LinearNetwork(state), QuantileHead(learner.settings.levels, 1.0)).eval()
    if isinstance(learner, GradientLearner):
        return Whole(learner.loaded(state), learner.head).eval()
    raise TypeError(f"{learner.name} is neither linear nor a network")


def to_onnx(
    learner: Learner, state: Arrays, example: Rows, metadata: Mapping[str, object]
) -> OnnxModel:
    """Return a model as ONNX, checked by onnxruntime against PyTorch on `example`.

    The graph has an input `x` and the outputs `mean` and, where the model gives any, `quantiles`;
    the first dimension of all is free.

    Args:
        learner: The learner with its settings.
        state: Its model.
        example: Inputs as `Learner.design` makes them, (N, H, F) or (N, L), N ≥ 2.
        metadata: Written to the file; text as it is, everything else as JSON.

    Raises:
        RunError: FL717, a package of the extra `[onnx]` is missing; FL718, the model has no ONNX
            form, or its ONNX form gives other values.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise RunError(
            Fault(
                "FL717",
                f"export needs packages that are not installed: {', '.join(missing)}",
                f"model {learner.name}",
                'install the extra: pip install "fl-inmetro[onnx]"',
            )
        )
    whole = whole_of(learner, state)
    x = torch.from_numpy(np.ascontiguousarray(example, dtype=np.float32))
    with torch.no_grad():
        expected = [part.numpy() for part in whole(x)]
    try:
        proto = _translated(whole, x, len(expected))
    except Exception as error:  # a user's own network may hold anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise _no_form(learner, f"PyTorch's exporter says: {said}") from error
    del proto.metadata_props[:]
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    for key, value in words.items():
        proto.metadata_props.add(key=key, value=value)
    content = proto.SerializeToString()
    return OnnxModel(content, words, _largest_gap(learner, content, x, expected))


def normal_quantile(p: Tensor) -> Tensor:
    """Return the standard normal quantile of p in (0, 1), in float64, of operators ONNX has.

    Source: Wichura (1988), "Algorithm AS 241", Applied Statistics 37, PPND16: a relative accuracy
    of about 1e-16.
    """
    q = p - 0.5
    # Each branch sees only arguments it is made for, so that none overflows.
    r = 0.180625 - (q * q).clamp(max=0.180625)
    centre = q * _ratio(r, _CENTRE)
    tail = torch.sqrt(-torch.log(torch.minimum(p, 1 - p)))
    near, far = tail.clamp(max=5.0) - 1.6, tail.clamp(min=5.0) - 5.0
    outside = torch.where(tail <= 5.0, _ratio(near, _NEAR), _ratio(far, _FAR))
    return torch.where(q.abs() <= 0.425, centre, torch.sign(q) * outside)


# ------------------------------------------------------------------------------ internals
def _no_form(learner: Learner, why: str) -> RunError:
    hint = "export another model of the run with --model"
    what = f"the model `{learner.name}` has no ONNX form that can be relied on"
    return RunError(Fault("FL718", what, why, hint))


def _largest_gap(learner: Learner, content: bytes, x: Tensor, expected: list[Rows]) -> float:
    """Return how far onnxruntime is from `expected`, for all windows at once and for one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for rows in (slice(None), slice(0, 1)):
        answers = session.run(None, {"x": x[rows].numpy()})
        for answer, wanted in zip(answers, expected, strict=True):
            reference = wanted[rows]
            if answer.shape != reference.shape or not np.isfinite(answer).all():
                raise _no_form(learner, f"onnxruntime gives {answer.shape}, or no numbers")
            gap = np.abs(answer - reference) / np.maximum(1.0, np.abs(reference))
            largest = max(largest, float(gap.max(initial=0.0)))
    if largest > TOLERANCE:
        raise _no_form(learner, f"onnxruntime differs from PyTorch by {largest:.1e}")
    return largest


def _translated(whole: Whole, x: Tensor, outputs: int) -> onnx.ModelProto:
    _exchange_recurrent(whole)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own parts
            free = torch.export.Dim("windows", min=1)
            graph = torch.export.export(whole, (x,), dynamic_shapes=({0: free},))
            graph = graph.run_decompositions(
                {torch.ops.aten.special_ndtri.default: normal_quantile}
            )
            program = torch.onnx.export(
                graph,
                (),
                dynamo=True,
                input_names=["x"],
                output_names=[_OUT + name for name in OUTPUTS[:outputs]],
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    _name_outputs(proto)
    return proto


def _name_outputs(proto: onnx.ModelProto) -> None:
    """Give the outputs their plain names, which PyTorch may have given to a value inside."""
    graph = proto.graph
    names = {_OUT + name: name for name in OUTPUTS} | {name: name + "_inside" for name in OUTPUTS}
    for node in graph.node:
        for values in (node.input, node.output):
            for k, value in enumerate(values):
                values[k] = names.get(value, value)
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


class _OnnxRecurrent(nn.Module):
    """A GRU or an LSTM in ONNX's order of gates; only for export, it computes nothing itself.

    Source: the operators GRU and LSTM of ONNX 14; PyTorch has the GRU's gates as (r, z, n), ONNX as
    (z, r, n); the LSTM's as (i, f, g, o), ONNX as (i, o, f, g).
    """

    def __init__(self, layer: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.kind = "GRU" if isinstance(layer, nn.GRU) else "LSTM"
        self.hidden, self.layers = layer.hidden_size, layer.num_layers
        order = (1, 0, 2) if self.kind == "GRU" else (0, 3, 1, 2)

        def turned(name: str) -> Tensor:
            gates = getattr(layer, name).detach().chunk(len(order))
            return torch.cat([gates[k] for k in order])

        for k in range(self.layers):
            bias = torch.cat([turned(f"bias_ih_l{k}"), turned(f"bias_hh_l{k}")])
            self.register_buffer(f"w{k}", turned(f"weight_ih_l{k}")[None].contiguous())
            self.register_buffer(f"r{k}", turned(f"weight_hh_l{k}")[None].contiguous())
            self.register_buffer(f"b{k}", bias[None].contiguous())

    def forward(self, x: Tensor, first: Tensor | None = None) -> tuple[Tensor, None]:
        """Return the outputs of every step; (N, T, F) → (N, T, hidden)."""
        y = x.transpose(0, 1)
        attributes: dict[str, Any] = {"hidden_size": self.hidden}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1
        for k in range(self.layers):
            inputs: list[Tensor | None] = [y, *(getattr(self, f"{n}{k}") for n in "wrb")]
            if first is not None:
                inputs += [None, first[k : k + 1]]
            steps, windows = y.shape[0], y.shape[1]
            out = torch.onnx.ops.symbolic(
                self.kind,
                inputs,
                attributes,
                dtype=x.dtype,
                shape=(steps, 1, windows, self.hidden),
                version=14,
            )
            y = out.squeeze(1)
        return y.transpose(0, 1), None


def _exchange_recurrent(module: nn.Module) -> None:
    """Put `_OnnxRecurrent` in the place of recurrent layers that have one direction and biases."""
    for name, child in module.named_children():
        if type(child) in (nn.GRU, nn.LSTM):
            assert isinstance(child, nn.GRU | nn.LSTM)
            plain = child.batch_first and child.bias and not child.bidirectional
            if plain and not child.proj_size:
                setattr(module, name, _OnnxRecurrent(child))
        else:
            _exchange_recurrent(child)


def _ratio(r: Tensor, table: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    top, bottom = (_horner(r, row) for row in table)
    return top / bottom


def _horner(r: Tensor, row: tuple[float, ...]) -> Tensor:
    total = torch.full_like(r, row[-1])
    for value in row[-2::-1]:
        total = total * r + value
    return total


#: Coefficients of AS 241 (numerator and denominator, lowest power first).
_CENTRE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_NEAR = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)
