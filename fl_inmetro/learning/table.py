"""One visible table: configuration name → learner."""

from __future__ import annotations

from collections.abc import Callable

from fl_inmetro.config.models import Models
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.neural import (
    MlpLearner,
    NLinearLearner,
    PatchTstLearner,
    RecurrentLearner,
    WindowMlpLearner,
)
from fl_inmetro.learning.own import OwnLearner
from fl_inmetro.learning.quantile_linear import QuantileLinearLearner
from fl_inmetro.learning.update import Learner
from fl_inmetro.learning.zoo import (
    CycleNetLearner,
    DLinearLearner,
    NhitsLearner,
    SegRnnLearner,
    SparseTsfLearner,
    TideLearner,
    TsMixerLearner,
)

LEARNERS: dict[str, Callable[[Models], Learner]] = {
    "ridge": lambda models: RidgeLearner(models.ridge),
    "quantile_linear": lambda models: QuantileLinearLearner(models.quantile_linear),
    "nlinear": lambda models: NLinearLearner(models.nlinear),
    "mlp": lambda models: MlpLearner(models.mlp),
    "window_mlp": lambda models: WindowMlpLearner(models.window_mlp),
    "gru": lambda models: RecurrentLearner("gru", models.gru),
    "lstm": lambda models: RecurrentLearner("lstm", models.lstm),
    "patchtst": lambda models: PatchTstLearner(models.patchtst),
    "dlinear": lambda models: DLinearLearner(models.dlinear),
    "sparsetsf": lambda models: SparseTsfLearner(models.sparsetsf),
    "cyclenet": lambda models: CycleNetLearner(models.cyclenet),
    "tide": lambda models: TideLearner(models.tide),
    "nhits": lambda models: NhitsLearner(models.nhits),
    "segrnn": lambda models: SegRnnLearner(models.segrnn),
    "tsmixer": lambda models: TsMixerLearner(models.tsmixer),
    "own": lambda models: OwnLearner(models.own),
}


def learner(name: str, models: Models) -> Learner:
    """Return the learner `name` with its settings."""
    return LEARNERS[name](models)
