"""What is asked of a client, as values and as Flower records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fl_inmetro.learning.private_moments import MomentsAsked
from fl_inmetro.learning.work import Control, DpSgd, LocalWork, NoiseShare
from fl_inmetro.privacy.claim import Claim

#: Records of a message.
ARRAYS, METRICS, CONFIG, SUMS = "arrays", "metrics", "config", "sums"

#: Record of the server's control variate, beside the state.
CONTROL = "control"

#: Record of the promise that a request is part of.
PRIVACY = "privacy"

#: Message types of the three exchanges.
ENROL, TRAIN, EVALUATE = "query.enrol", "train", "evaluate"

_ONE_EPOCH = LocalWork()
_COUNTED = "counted-round"


@dataclass(frozen=True)
class TrainRequest:
    """What is asked of a client in a round, beside the state.

    Attributes:
        round: Number of the round.
        seed: Root seed.
        work: The local work.
        best_round: Best round so far; a client keeps its private parameters of that round.
        delta: Whether w_k − w is wanted; else weights, as Flower's own strategies expect.
        version: The server's name of the model that it sent; a reply says it back.
        counted_round: The last round whose merge this client's reply was part of, 0 before any;
            None = the server says nothing of it.
    """

    round: int
    seed: int = 0
    work: LocalWork = _ONE_EPOCH
    best_round: int = 0
    delta: bool = True
    version: str = ""
    counted_round: int | None = None

    def to_config(self) -> ConfigRecord:
        """Return the request as it travels."""
        values: dict[str, Any] = {
            "server-round": self.round,
            "local-epochs": self.work.epochs,
            "seed": self.seed,
            "best-round": self.best_round,
            "mu": self.work.mu,
        }
        if self.work.steps:
            values["local-steps"] = self.work.steps
        if self.work.rate != 1.0:
            values["rate"] = self.work.rate
        if self.delta:
            values["reply"] = "delta"
        if self.work.dp:
            values |= {"dp-clip": self.work.dp.clip, "dp-noise": self.work.dp.noise_multiplier}
        if self.work.share:
            values |= {"share-clip": self.work.share.clip, "share-sigma": self.work.share.sigma}
        if self.version:
            values["model-version"] = self.version
        if self.work.control != "none":
            values |= {"control": self.work.control, "alpha": self.work.alpha}
        if self.work.start_loss:
            values["start-loss"] = True
        if self.work.probe:
            values["probe"] = True
        if self.counted_round is not None:
            values[_COUNTED] = self.counted_round
        return ConfigRecord(values)

    @classmethod
    def of(cls, config: ConfigRecord) -> TrainRequest:
        """Read a request; of a strategy that is not ours, it may lack all but the round.

        Raises:
            ValueError: It asks for work that does not go together.
        """
        dp = None
        if "dp-clip" in config:
            dp = DpSgd(float(config["dp-clip"]), float(config["dp-noise"]))
        share = None
        if "share-clip" in config:
            share = NoiseShare(float(config["share-clip"]), float(config["share-sigma"]))
        return cls(
            int(config["server-round"]),
            int(config.get("seed", 0)),
            LocalWork(
                int(config.get("local-epochs", 1)),
                float(config.get("mu", 0.0)),
                dp,
                cast("Control", config.get("control", "none")),  # LocalWork looks at the name
                float(config.get("alpha", 0.0)),
                bool(config.get("start-loss", False)),
                bool(config.get("probe", False)),
                int(config.get("local-steps", 0)),
                float(config.get("rate", 1.0)),
                share,
            ),
            int(config.get("best-round", 0)),
            config.get("reply") == "delta",
            str(config.get("model-version", "")),
            counted_of(config),
        )


def enrol_request(asked: MomentsAsked | None) -> RecordDict:
    """Ask who a client is; under `[privacy]`, with what may leave it of its sums."""
    if asked is None:
        return RecordDict()
    return RecordDict({CONFIG: ConfigRecord({"unit": asked.unit, "noise": asked.noise_multiplier})})


def asked_in(content: RecordDict) -> MomentsAsked | None:
    """Read what may leave of a client's sums; None = they may as they are."""
    if CONFIG not in content.config_records:
        return None
    config = content.config_records[CONFIG]
    return MomentsAsked(str(config["unit"]), float(cast("float", config["noise"])))


def with_claim(content: RecordDict, claim: Claim) -> None:
    """Say with a request which promise it is part of."""
    content[PRIVACY] = ConfigRecord(claim.to_plain())


def claimed_in(content: RecordDict) -> Claim | None:
    """Read which promise a request is part of; None = it names none.

    Raises:
        PrivacyError: FL423, it cannot be one.
    """
    found = content.config_records.get(PRIVACY)
    return None if found is None else Claim.of(dict(found))


def counted_of(config: ConfigRecord) -> int | None:
    """Return the round that a request says has counted; None where it says nothing."""
    return int(config[_COUNTED]) if _COUNTED in config else None


def with_counted(request: Message, counted_round: int) -> Message:
    """Return a request of another's making that also says which round counted last."""
    content = RecordDict(dict(request.content.items()))
    if CONFIG not in content.config_records:
        return request
    content[CONFIG] = ConfigRecord({**content.config_records[CONFIG], _COUNTED: counted_round})
    to = request.metadata
    return Message(content, to.dst_node_id, to.message_type, group_id=to.group_id)


def train_request(
    state: ArrayRecord, request: TrainRequest, control: ArrayRecord | None = None
) -> RecordDict:
    """Ask for a round of local work; with SCAFFOLD, `control` is the server's control variate."""
    beside = {} if control is None else {CONTROL: control}
    return RecordDict({ARRAYS: state, CONFIG: request.to_config(), **beside})


def train_requests(
    state: ArrayRecord,
    request: TrainRequest,
    control: ArrayRecord | None,
    nodes: Mapping[str, int],
    counted: Mapping[str, int],
) -> list[Message]:
    """Return the messages that ask clients for a round; each is told what counted last.

    Args:
        state: The model.
        request: What is asked of all of them.
        control: The server's control variate (SCAFFOLD).
        nodes: Client to node id.
        counted: Client to the last round whose merge its reply was part of.
    """
    return [
        Message(
            train_request(state, replace(request, counted_round=counted[name]), control),
            node,
            TRAIN,
            group_id=str(request.round),
        )
        for name, node in nodes.items()
    ]


def evaluate_request(
    state: ArrayRecord,
    round_: int,
    split: str,
    best_round: int = 0,
    counted_round: int | None = None,
) -> RecordDict:
    """Ask for the error sums of `validation`, or of `test` for the model of the best round."""
    config = ConfigRecord({"server-round": round_, "split": split, "best-round": best_round})
    if counted_round is not None:
        config[_COUNTED] = counted_round
    return RecordDict({ARRAYS: state, CONFIG: config})
