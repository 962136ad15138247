"""Every network of the house, and how one starts.

A network is a plain `nn.Module` written for one client. So that engines can run many clients in
one batch, it holds parameters only in `nn.Linear`, `nn.LayerNorm`, `nn.Conv1d`, `nn.Conv2d`,
`nn.LSTM`, `nn.GRU`, `Positions` and `Cycle`, calls these as `layer(x)`, takes dimension 0 as the
batch, and never mixes samples; it has no dropout. LSTM and GRU have `batch_first=True`, one
direction, and are called as `output, _ = self.rnn(x)`, a GRU of one layer also with a first state
as `self.rnn(x, h)`. `docs/methods.md` says how to add one.
"""

from __future__ import annotations

from fl_inmetro.models.convolution import CifarCnn
from fl_inmetro.models.covariates import Tide, TsMixer
from fl_inmetro.models.cyclenet import CycleNet
from fl_inmetro.models.decomposed import DLinear, SparseTsf
from fl_inmetro.models.initial import initial_parameters
from fl_inmetro.models.layers import Cycle, Positions
from fl_inmetro.models.linear import NLinear, RowMlp, WindowMlp
from fl_inmetro.models.nhits import Nhits
from fl_inmetro.models.recurrent import RecurrentForecaster
from fl_inmetro.models.segrnn import SegRnn
from fl_inmetro.models.transformer import PatchTst

__all__ = [
    "CifarCnn",
    "Cycle",
    "CycleNet",
    "DLinear",
    "NLinear",
    "Nhits",
    "PatchTst",
    "Positions",
    "RecurrentForecaster",
    "RowMlp",
    "SegRnn",
    "SparseTsf",
    "Tide",
    "TsMixer",
    "WindowMlp",
    "initial_parameters",
]
