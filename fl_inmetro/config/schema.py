"""The shape of a run: one frozen value per table of the TOML file.

Keys may be written `num-server-rounds` or `num_server_rounds`. Unknown keys are errors. Defaults
are stated here and nowhere else; `fl-inmetro run --set table.key=value` overrides any of them.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from fl_inmetro.config.attack import Attack
from fl_inmetro.config.conformal import Conformal
from fl_inmetro.config.diagnostics import Diagnostics
from fl_inmetro.config.federation import Federation as Federation
from fl_inmetro.config.models import Models
from fl_inmetro.config.partition import Partition
from fl_inmetro.config.personalisation import Ensemble, Personalisation
from fl_inmetro.config.strategy import Gate, Selection, Strategy
from fl_inmetro.config.table import Positive, Share, Table
from fl_inmetro.config.virtual_time import VirtualTime
from fl_inmetro.units import Unit

Learner = Literal[
    "ridge",
    "nlinear",
    "mlp",
    "window_mlp",
    "gru",
    "lstm",
    "patchtst",
    "dlinear",
    "sparsetsf",
    "cyclenet",
    "tide",
    "nhits",
    "segrnn",
    "tsmixer",
    "own",
]
Training = Literal["local", "federated", "personalised", "centralised"]
Baseline = Literal[
    "sn24",
    "sn168",
    "ha4",
    "persistence_ensemble",
    "day_type_mean",
    "median_28d",
    "ewma_slot",
    "slot_quantiles",
]
Ensembled = Literal["ensemble"]
Model = Baseline | Learner | Ensembled

BASELINES: tuple[Baseline, ...] = get_args(Baseline)
#: Those that are scored beside a model where nobody chose.
USUAL_BASELINES: tuple[Baseline, ...] = ("sn24", "sn168", "ha4", "persistence_ensemble")
LEARNERS: tuple[Learner, ...] = get_args(Learner)
TRAININGS: tuple[Training, ...] = get_args(Training)
ENSEMBLE: Ensembled = "ensemble"
#: What can be trained: learners, and the mean of several.
TRAINED: tuple[str, ...] = (*LEARNERS, ENSEMBLE)


# ---------------------------------------------------------------------------------- data
class Columns(Table):
    """Column names of the user's files.

    Attributes:
        client: Column that names the meter (long tables; absent in wide ones).
        timestamp: Column with the instant of the reading.
        value: Column with the reading (long tables, files of a folder).
    """

    client: str = "client_id"
    timestamp: str = "timestamp"
    value: str = "energy_kwh"


class FileFormat(Table):
    """How to read the user's files.

    Attributes:
        columns: Column mapping.
        separator: Field separator of CSV files; `auto` looks at the first lines.
        decimal: Decimal mark of CSV files.
        header: False for tables without names (wide files only; columns are then c000, c001, …).
        day_first: True for 31/12/2024, False for 12/31/2024; None decides from the file and refuses
            when it cannot. For dates that start with the year, True exchanges day and month back
            where they were exchanged (day up to 12), False trusts them as they are written.
        start: Instant of the first row, for tables without timestamps.
        resolution_min: Step in minutes; None finds it in the timestamps.
        unit: Unit of the readings; power is the mean over the step.
        quantity: `interval` = energy or mean power of each step; `register` = running total.
        timezone: Clock of the timestamps: `UTC`, an IANA name, or a fixed offset (`Etc/GMT+3`).
        timestamp_marks: Whether a timestamp marks the start or the end of its step.
        repeated_hour: What a lone reading in the hour that autumn repeats stands for: the `first`
            passing (the second is missing), or `both` (each passing gets half of it).
        zeros_mean_missing: True when the source writes 0 for readings it does not have.
    """

    columns: Columns = Columns()
    separator: str = "auto"
    decimal: Literal[".", ","] = "."
    header: bool = True
    day_first: bool | None = None
    start: str | None = None
    resolution_min: Positive | None = None
    unit: Unit = "kWh"
    quantity: Literal["interval", "register"] = "interval"
    timezone: str = "UTC"
    timestamp_marks: Literal["start", "end"] = "start"
    repeated_hour: Literal["first", "both"] = "first"
    zeros_mean_missing: bool = False

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return known_zone(value)


class Cleaning(Table):
    """What cleaning may repair, and when it refuses (see `docs/data.md`).

    Attributes:
        flat_hours: A non-zero value repeated for at least this long is a stuck meter.
        flat: Report flat lines only, or mask them (mark them missing) from `flat_hours` on.
        outlier_factor: A reading above this many times the 99th percentile of the client's readings
            before it is an outlier (in the first two weeks: this many times squared).
        outliers: Report outliers only, or mask them.
        negatives: Mask negative readings, or keep them (meters of net consumption).
        max_gap_fill_h: So much of the beginning of every gap is filled with the reading of the day
            before, or of the week before; 0 fills none.
        min_days: A client with fewer days of usable readings is an error (FL206), or is
            left out when `drop_short` is set.
        drop_short: Leave clients out (with the reason in the manifest) instead of stopping.
    """

    flat_hours: float = Field(48.0, gt=0)
    flat: Literal["report", "mask"] = "report"
    outlier_factor: float = Field(10.0, gt=1)
    outliers: Literal["report", "mask"] = "mask"
    negatives: Literal["mask", "keep"] = "mask"
    max_gap_fill_h: float = Field(0.0, ge=0)
    min_days: int = Field(0, ge=0)
    drop_short: bool = False


class Simulator(Table):
    """The built-in simulator of Brazilian consumers (no meter is involved; labelled so everywhere).

    Attributes:
        clients: Number of consumers.
        start: First day, local time of Brasília.
        days: Length in days.
        resolution_min: Step in minutes: 15, 30 or 60.
        climate: Climate of the weather series.
        air_conditioning_share: Share of homes with air conditioning.
        pv_share: Share of homes with photovoltaic panels.
        ev_share: Share of homes that charge an electric vehicle.
        commercial_share: Share of clients that are shops or offices.
    """

    clients: Positive = 10
    start: date = date(2024, 1, 1)
    days: int = Field(180, ge=1, le=3660)
    resolution_min: Literal[15, 30, 60] = 60
    climate: Literal["sao_paulo", "rio_de_janeiro", "recife", "porto_alegre", "brasilia"] = (
        "sao_paulo"
    )
    air_conditioning_share: Share = 0.3
    pv_share: Share = 0.1
    ev_share: Share = 0.1
    commercial_share: Share = 0.2


class Data(Table):
    """Where the readings come from.

    Attributes:
        source: `simulator`, one of the named sets (`fl-inmetro data ls`), or the layout of the
            user's own files: `long`, `wide`, `folder`.
        path: File or folder (`long`, `wide`, `folder`); relative paths start at the TOML file.
        clients: Use these clients only; empty = all.
        exclude: Leave these clients out.
        max_clients: Use the first so many clients, in the order of their names.
        resolution_min: Bring all series to this step by summing energy; None keeps the source's.
    """

    source: str = "simulator"
    path: str | None = None
    clients: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_clients: Positive | None = None
    resolution_min: Positive | None = None
    format: FileFormat = FileFormat()
    cleaning: Cleaning = Cleaning()
    simulator: Simulator = Simulator()


# -------------------------------------------------------------------------------- window
class Window(Table):
    """Which forecasts are made and which past may be used for them.

    A forecast is issued on each day at `issue_time` of `timezone` for `horizon_h` hours. Days are
    inclusive. The order is training, validation, test; nothing is ever fitted on later data.

    Attributes:
        horizon_h: Length of a forecast in hours.
        issue_time: Local time of issue, HH:MM; None = the source's own, else 00:00.
        timezone: Clock of `issue_time`, of the days below, and of the calendar features; None = the
            source's own.
        train_start: First day of issue in training; None = as early as `train_days` allows.
        train_days: Length of training in days, when `train_start` is not given; 0 = all there is.
        validation_days: Days before the test window that choose the best round.
        test_start: First test day. Without test days and without `test_days`: the source's
            reference window, else the last 28 days of the data.
        test_end: Last test day.
        test_days: The test window is the last so many days of the data, unless `test_start` says
            otherwise.
    """

    horizon_h: float = Field(24.0, gt=0, le=24 * 60)
    issue_time: str | None = Field(None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    timezone: str | None = None
    train_start: date | None = None
    train_days: int = Field(365, ge=0)
    validation_days: Positive = 14
    test_start: date | None = None
    test_end: date | None = None
    test_days: Positive | None = None

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        return value and known_zone(value)

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if (self.test_start is None) != (self.test_end is None):
            raise ValueError("give both `test_start` and `test_end`, or neither")
        if self.test_start and self.test_end and self.test_end < self.test_start:
            raise ValueError("`test_end` is before `test_start`")
        if (
            self.train_start
            and self.test_start
            and self.train_start + timedelta(days=self.validation_days) >= self.test_start
        ):
            raise ValueError("`train_start` leaves no training day before validation and test")
        return self


# ----------------------------------------------------------------------------- execution
class Execution(Table):
    """How the cohort engine uses this machine; it changes the time a run takes, not what it finds.

    Attributes:
        workers: Threads that train chunks of clients at the same time; 0 = one per core.
        chunk: Clients trained as one batch; 0 = as measured for each kind of model. (Sums are added
            chunk by chunk, so another size may change the last bits.)
        memory_mb: Windows beyond this are kept in a temporary file that is read as needed.
        device: Where gradient models are trained.
    """

    workers: int = Field(0, ge=0, le=256)
    chunk: int = Field(0, ge=0)
    memory_mb: Positive = 4096
    device: Literal["cpu", "cuda"] = "cpu"


class Compare(Table):
    """Which rows `fl-inmetro compare` prints.

    Attributes:
        models: Baselines, learners, and `ensemble` (see `[ensemble]`).
        training: How each learner is trained; without any, only baselines are scored.
            `personalised` needs what it is made of: see `[personalisation]`.
    """

    models: tuple[Model, ...] = (*USUAL_BASELINES, "ridge", "nlinear", "mlp")
    training: tuple[Training, ...] = ("local", "federated", "centralised")

    @field_validator("models", "training")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({one for one in value if value.count(one) > 1})
        if twice:
            raise ValueError(f"{', '.join(f'`{one}`' for one in twice)} is named more than once")
        return value

    @model_validator(mode="after")
    def _something(self) -> Compare:
        baselines = [name for name in self.models if name in BASELINES]
        learners = [name for name in self.models if name in TRAINED]
        if not baselines and not (learners and self.training):
            raise ValueError(
                "there is nothing to compare: name a baseline, or a learner and a training"
            )
        return self


class RunConfig(Table):
    """One run, whole: everything that decides its result.

    Attributes:
        name: Short name; part of the run's identifier.
        seed: Root of all randomness.
        engine: `cohort` = in this process, many clients as one batch; `loop` = in this process, one
            client after the other (the specification); `flower` = Flower's simulation (Ray).
        model: The learner that `run` trains, or `ensemble`.
        training: How `run` trains it.
    """

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")
    seed: int = Field(0, ge=0)
    engine: Literal["cohort", "loop", "flower"] = "cohort"
    model: Learner | Ensembled = "mlp"
    training: Training = "federated"
    data: Data = Data()
    window: Window = Window()
    partition: Partition = Partition()
    models: Models = Models()
    federation: Federation = Federation()
    strategy: Strategy = Strategy()
    selection: Selection = Selection()
    gate: Gate = Gate()
    attack: Attack = Attack()
    diagnostics: Diagnostics = Diagnostics()
    compare: Compare = Compare()
    ensemble: Ensemble = Ensemble()
    personalisation: Personalisation = Personalisation()
    conformal: Conformal = Conformal()
    execution: Execution = Execution()
    virtual_time: VirtualTime = VirtualTime()

    @model_validator(mode="after")
    def _made_of_what_is_there(self) -> RunConfig:
        if ENSEMBLE in (self.model, *self.compare.models):
            self.ensemble.check(LEARNERS)
        if ENSEMBLE in self.compare.models:
            before = self.compare.models[: self.compare.models.index(ENSEMBLE)]
            missing = [name for name in self.ensemble.members if name not in before]
            if missing:
                raise ValueError(
                    f"`[compare] models` names `ensemble` before its members {', '.join(missing)}"
                )
        if "personalised" in self.compare.training:
            needed = [c for c in self.personalisation.components if c != "tuned"]
            missing = [name for name in needed if name not in self.compare.training]
            if missing:
                raise ValueError(
                    f"`personalised` blends {', '.join(needed)}: add {', '.join(missing)} to "
                    "`[compare] training`, or leave it out of `[personalisation] components`"
                )
        return self

    @model_validator(mode="after")
    def _by_the_clock(self) -> RunConfig:
        self.federation.check_clock(
            self.engine,
            in_virtual_time=self.virtual_time.enabled,
            is_foreign=self.strategy.is_foreign,
        )
        return self

    @model_validator(mode="after")
    def _in_virtual_time(self) -> RunConfig:
        if self.virtual_time.enabled:
            return self._asynchronous()
        if self.selection.sampler == "availability":
            raise ValueError(
                '`[selection] sampler = "availability"` asks the devices of `[virtual_time]`; '
                "give it `enabled = true`"
            )
        if self.strategy.name == "fedbuff":
            raise ValueError(
                '`[strategy] name = "fedbuff"` orders replies by the devices of `[virtual_time]`; '
                "give it `enabled = true`"
            )
        return self

    def _asynchronous(self) -> RunConfig:
        """Refuse what has no part where nobody waits, or where a strategy chooses by itself."""
        if self.strategy.is_foreign:
            raise ValueError("a Flower strategy of your own does not run in `[virtual_time]`")
        if self.strategy.name != "fedbuff":
            return self
        time = self.virtual_time
        useless = {
            "[federation] fraction-fit": self.federation.fraction_fit != 1,
            "[selection] sampler": self.selection.sampler != "uniform",
            "[virtual_time] deadline-s": time.deadline_s is not None,
            "[virtual_time] quorum": time.quorum != 1,
            "[virtual_time] over-selection": time.over_selection != 1,
        }
        if named := [key for key, is_set in useless.items() if is_set]:
            raise ValueError(
                f"`fedbuff` waits for `buffer` updates of `concurrency` clients: "
                f"{', '.join(named)} has no part in it"
            )
        return self


def known_zone(value: str) -> str:
    """Return `value` if it names a time zone.

    Raises:
        ValueError: It does not.
    """
    try:
        ZoneInfo(value)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError on some systems
        raise ValueError(_zone_hint(value)) from error
    except KeyError as error:
        raise ValueError(_zone_hint(value)) from error
    return value


def _zone_hint(value: str) -> str:
    return (
        f"`{value}` is not a time zone; use an IANA name such as America/Sao_Paulo, UTC, "
        "or a fixed offset such as Etc/GMT+3 (three hours behind UTC)"
    )
