"""The settings of each learner: one frozen value per `[models.…]` table."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from fl_inmetro.config.table import Positive, Share, Table

Loss = Literal["mae", "mse", "huber", "quantile", "student-t", "hurdle"]
Feature = Literal[
    "lags",
    "day_profiles",
    "recent",
    "calendar",
    "season",
    "holidays",
    "daylight",
    "weather",
    "tariff",
    "pv",
    "slots",
    "dispersion",
    "longer",
    "lately",
    "month",
    "age",
    "known_days",
    "silence",
]


def _rising(levels: tuple[float, ...]) -> tuple[float, ...]:
    if not levels:
        raise ValueError("name at least one level, such as 0.5")
    if any(not 0 < level < 1 for level in levels):
        raise ValueError("levels lie between 0 and 1")
    if list(levels) != sorted(set(levels)):
        raise ValueError("levels are different and ascending")
    return levels


#: Levels of quantiles.
Levels = Annotated[tuple[float, ...], AfterValidator(_rising)]


class Ridge(Table):
    """Ridge regression on the row features, in closed form (one round).

    Attributes:
        alpha: Penalty on the standardised coefficients, per training row.
        features: Feature groups (see `data/features.py`).
    """

    alpha: float = Field(1e-4, ge=0)
    features: tuple[Feature, ...] = Field(
        ("lags", "day_profiles", "recent", "calendar"), min_length=1
    )


class QuantileLinear(Table):
    """A mean and quantiles, each linear in the row features, in rounds of sums.

    Attributes:
        levels: Levels of the quantiles.
        alpha: Penalty on the standardised coefficients, per training row.
        rounds: Rounds at most, the first of them ridge's.
        tolerance: No round more once none would lower a level's loss by this share of it.
        features: Feature groups (see `data/features.py`).
    """

    levels: Levels = (0.1, 0.5, 0.9)
    alpha: float = Field(1e-4, ge=0)
    rounds: int = Field(40, ge=2)
    tolerance: float = Field(3e-5, gt=0, lt=1)
    features: tuple[Feature, ...] = Field(
        ("lags", "day_profiles", "recent", "calendar"), min_length=1
    )


class Gradient(Table):
    """How a client trains a gradient model during its local epochs.

    Attributes:
        loss: `mae` aims at the median, `mse` at the mean, `huber` between them; `quantile` gives
            quantiles and a mean, `student-t` a heavy-tailed distribution, `hurdle` one of
            intermittent loads (`docs/methods.md`).
        levels: Levels of the quantiles that the last three give.
        median_weight: Weight of the median's loss beside each other quantile's.
        mean_weight: Weight of the mean's squared error beside the quantiles' losses.
        mean_corner: Errors of the mean beyond this many times the scale pull no harder; None = as
            their square does.
        optimizer: Local optimiser, fresh in every round. `adam` adds the decay to the gradient,
            `adamw` shrinks the weights beside it.
        eta_l: Local learning rate; the models' own defaults are chosen for `adam`.
        eta_l_schedule: `cosine` lets it fall to zero over the rounds.
        momentum: Momentum of `sgd`; 0 = plain.
        batch_size: Windows per step; 0 = full batch.
        weight_decay: Weight decay.
        private: Names of parameters (shell patterns, such as `head.*`) that stay on each client.
    """

    loss: Loss = "mae"
    levels: Levels = (0.1, 0.5, 0.9)
    median_weight: float = Field(1.5, gt=0)
    mean_weight: float = Field(0.1, gt=0)
    mean_corner: float | None = Field(None, gt=0)
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    eta_l: float = Field(3e-3, gt=0)
    eta_l_schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = Field(0.0, ge=0, lt=1)
    batch_size: int = Field(32, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    private: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError('`momentum` is a setting of `optimizer = "sgd"`')
        return self


class Context(Gradient):
    """A gradient model that sees the context: the last hours before the issue time.

    Attributes:
        context_h: Length of the past it looks at, hours.
        normalise: Divide the context by the client's trailing mean (`scale`), or take the mean of
            each window off it and divide by the window's own deviation (`window`).
    """

    context_h: float = Field(168.0, gt=0)
    normalise: Literal["scale", "window"] = "scale"


class NLinear(Context):
    """NLinear (Zeng et al. 2023): one linear map from the context, relative to its last value."""


class Mlp(Gradient):
    """A perceptron on the row features: one row per forecast step, shared over steps.

    Attributes:
        hidden: Widths of the hidden layers; none = a linear model.
        shortcut: Add a linear map of the features beside the hidden layers.
        zero_start: The last layer starts at zero, so that the first forecast is the base profile;
            models with quantiles always do. Training with noise then has less to learn.
        copies: So many perceptrons, each trained for itself, whose forecasts are averaged.
        features: Feature groups (see `data/features.py`).
        short_histories: So many windows, as a share of the training windows, are added with their
            past hidden but for its last 1 to 28 days, so that the model also serves meters that are
            as young (`docs/coldstart.md`).
        hidden_endings: So many are added with their last 1 to 7 days hidden, so that the model also
            serves meters that are silent (`docs/serving.md`); a share of the training windows and
            of those that `short_histories` adds.
    """

    hidden: tuple[Positive, ...] = (64, 64)
    shortcut: bool = False
    zero_start: bool = False
    copies: Positive = 1
    short_histories: Share = 0.0
    hidden_endings: Share = 0.0
    features: tuple[Feature, ...] = Field(
        ("lags", "day_profiles", "recent", "calendar"), min_length=1
    )


class Profiled(Context):
    """A context model that corrects the day-type profile.

    Attributes:
        base: The mean or the median over the days of a type; None = that which the loss aims at:
            the mean for `mse`, else the median.
    """

    base: Literal["mean", "median"] | None = None

    @property
    def profile(self) -> Literal["mean", "median"]:
        """The base, chosen."""
        return self.base or ("mean" if self.loss == "mse" else "median")


class WindowMlp(Profiled):
    """A perceptron from the whole context to the whole horizon, on the day-type profile.

    Attributes:
        hidden: Widths of the hidden layers.
    """

    eta_l: float = Field(1e-3, gt=0)
    hidden: tuple[Positive, ...] = (64, 64)


class Recurrent(Profiled):
    """A recurrent network over the context; its last state corrects the day-type profile.

    Attributes:
        hidden: Width of the state.
        layers: Stacked recurrent layers.
    """

    eta_l: float = Field(1e-3, gt=0)
    hidden: Positive = 32
    layers: Positive = 1


class PatchTst(Profiled):
    """A small Transformer over patches of the context (Nie et al. 2023, PatchTST).

    Attributes:
        patch: Steps in a patch.
        stride: Steps from patch to patch, at most `patch`.
        width: Width of the embedding, d.
        heads: Attention heads; they divide `width`.
        layers: Encoder layers.
        feed_forward: Width inside the position-wise perceptron.
    """

    eta_l: float = Field(3e-4, gt=0)
    patch: Positive = 16
    stride: Positive = 8
    width: Positive = 32
    heads: Positive = 4
    layers: Positive = 2
    feed_forward: Positive = 64

    @model_validator(mode="after")
    def _fits(self) -> PatchTst:
        if self.width % self.heads:
            raise ValueError(f"`heads` = {self.heads} does not divide `width` = {self.width}")
        if self.stride > self.patch:
            raise ValueError(
                f"`stride` = {self.stride} is above `patch` = {self.patch}: "
                "steps between two patches would be seen by none"
            )
        return self


class DLinear(Profiled):
    """Moving average and remainder, each mapped linearly (Zeng et al. 2023).

    Attributes:
        average: Steps of the moving average, odd.
    """

    average: Positive = 25

    @field_validator("average")
    @classmethod
    def _has_a_middle(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"a moving average of {value} steps has no middle; use an odd number")
        return value


class SparseTsf(Profiled):
    """One small map from period to period (Lin et al. 2024).

    Attributes:
        period_h: The period, hours; it divides `context-h` and the horizon.
    """

    eta_l: float = Field(1e-2, gt=0)
    context_h: float = Field(336.0, gt=0)
    period_h: float = Field(24.0, gt=0)


class CycleNet(Profiled):
    """A learned cycle, of each client's own, and a network on the rest (Lin et al. 2024).

    Attributes:
        cycle_h: Length of the cycle, hours.
        hidden: Widths of the hidden layers; none is linear.
    """

    eta_l: float = Field(1e-3, gt=0)
    cycle_h: float = Field(168.0, gt=0)
    hidden: tuple[Positive, ...] = (64,)
    private: tuple[str, ...] = ("cycle.*",)


class Covariates(Profiled):
    """A context model that also sees row features of each forecast step.

    Attributes:
        features: Feature groups (see `data/features.py`).
    """

    features: tuple[Feature, ...] = ("lags", "day_profiles", "recent", "calendar")


class Tide(Covariates):
    """Dense encoder and decoder with covariates (Das et al. 2023, TiDE).

    Attributes:
        width: Width of the hidden layers.
        layers: Residual blocks of the encoder, and of the decoder.
        projected: Numbers that the covariates of a step become.
        decoded: Numbers that the decoder gives each step.
    """

    eta_l: float = Field(1e-3, gt=0)
    width: Positive = 64
    layers: Positive = 1
    projected: Positive = 4
    decoded: Positive = 8


class Nhits(Profiled):
    """Stacks that see the context at several rates (Challu et al. 2023, N-HiTS).

    Attributes:
        pools: Steps that each stack's pooling makes one of, from coarse to fine; the last is 1.
        hidden: Widths of the hidden layers of each stack.
    """

    pools: tuple[Positive, ...] = (24, 6, 1)
    hidden: tuple[Positive, ...] = (64, 64)

    @field_validator("pools")
    @classmethod
    def _from_coarse_to_fine(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[-1] != 1 or list(value) != sorted(set(value), reverse=True):
            raise ValueError("`pools` fall from coarse to fine and end with 1, such as [24, 6, 1]")
        return value


class SegRnn(Profiled):
    """A GRU over segments of the context (Lin et al. 2023, SegRNN).

    Attributes:
        segment: Steps in a segment; they divide the context and the horizon.
        width: Width of the embedding and of the state.
    """

    eta_l: float = Field(1e-3, gt=0)
    segment: Positive = 12
    width: Positive = 64


class TsMixer(Covariates):
    """Perceptrons over steps and features in turn (Chen et al. 2023, TSMixer).

    Attributes:
        width: Features that context and covariates are widened to, each.
        layers: Mixers.
        feed_forward: Width inside the perceptron over features.
    """

    width: Positive = 16
    layers: Positive = 2
    feed_forward: Positive = 32


class Own(Profiled):
    """A network of your own (`docs/methods.md`).

    Attributes:
        network: `package.module:Network`, also from the folder of the TOML file, or else from the
            directory the command is started in. It is made as `Network(context, horizon)`, in
            steps, or `Network(context, horizon, outputs)` for a loss with several numbers per step.
    """

    eta_l: float = Field(1e-3, gt=0)
    network: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class Models(Table):
    """Settings of each learner, used when that learner is run or compared."""

    ridge: Ridge = Ridge()
    quantile_linear: QuantileLinear = QuantileLinear()
    nlinear: NLinear = NLinear()
    mlp: Mlp = Mlp()
    window_mlp: WindowMlp = WindowMlp()
    gru: Recurrent = Recurrent()
    lstm: Recurrent = Recurrent()
    patchtst: PatchTst = PatchTst()
    dlinear: DLinear = DLinear()
    sparsetsf: SparseTsf = SparseTsf()
    cyclenet: CycleNet = CycleNet()
    tide: Tide = Tide()
    nhits: Nhits = Nhits()
    segrnn: SegRnn = SegRnn()
    tsmixer: TsMixer = TsMixer()
    own: Own = Own()
