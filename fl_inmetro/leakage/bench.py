"""The attack bench: a finished run, its victims, every attack, and what each of them found."""

from __future__ import annotations

from fl_inmetro import seeds
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.leakage.inversion import inversion_attack
from fl_inmetro.leakage.property import features, property_told, tellable
from fl_inmetro.leakage.ratio import ratio_attack
from fl_inmetro.leakage.results import Detection, Leakage
from fl_inmetro.leakage.scene import Scene, scene_of
from fl_inmetro.leakage.traits import traits_of
from fl_inmetro.leakage.trials import client_membership, losses_of, window_membership
from fl_inmetro.plan import Prepared, prepare
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.runs.record import RunRecord

#: Clients that are shadows, and whose windows are looked at, at most.
MOST = 100

#: Victims whose windows are rebuilt by optimisation, at most: some ten seconds for each.
INVERTED = 2

#: Fewer windows or clients than this have no hundredth that could be named wrongly.
_HUNDRED = 100


def attack(
    record: RunRecord,
    model: str | None = None,
    clients: int = 5,
    *,
    invert: bool = True,
    secret: Secret | None = None,
    prepared: Prepared | None = None,
) -> Leakage:
    """Attack a finished run in every way there is, and measure what comes of it.

    Args:
        record: The run.
        model: One of its models; None = its first federated model that is trained by gradients.
        clients: Victims of the reconstructions, drawn from the run's seed.
        invert: Whether updates are inverted by optimisation, which takes longest.
        secret: What the noise of a private run is drawn from; None = a fresh one.
        prepared: The run's data, where they are at hand.

    Raises:
        PrivacyError: FL413, there is nothing to attack; FL414, fewer clients than victims.
        RunError: FL703, the run has lost its weights.
    """
    prepared = prepared or prepare(record.config)
    scene = scene_of(record, model, most=MOST, secret=secret, prepared=prepared)
    if clients > len(scene.names):
        raise PrivacyError(
            Fault(
                "FL414",
                f"there are not {clients} clients to attack",
                f"run {record.id} has {len(scene.names)} that can be",
                f"ask for at most {len(scene.names)} with --clients",
            )
        )
    seed = record.config.seed
    drawn = seeds.derive(seed, "leakage", "victims").permutation(len(scene.names))[:clients]
    victims = [scene.names[place] for place in sorted(drawn.tolist())]
    rebuilt, what = ratio_attack(scene, victims)
    left_out = {} if rebuilt else {"ratio": "no-door"}
    if invert:
        rebuilt = [*rebuilt, *inversion_attack(scene, victims[:INVERTED])]
    else:
        left_out["inversion"] = "not-asked"
    took_part = _took_part(record, scene)
    told = [
        *window_membership(losses_of(scene), took_part, seed),
        *client_membership(scene, took_part, seed),
    ]
    properties = properties_told(scene, seed)
    if not properties:
        left_out["property"] = "few"
    if not any(one.attack == "client-membership" for one in told):
        left_out["client-membership"] = "few"
    if scene.at == "last" and set(took_part) < set(scene.names):
        left_out.setdefault("client-membership", "last-model")
    detections = (*told, *properties)
    return Leakage(
        run=record.id,
        model=scene.learner.name,
        training="federated",
        protect=record.config.privacy.protect,
        epsilon=scene.epsilon,
        seen=scene.seen,
        recovered=what,
        clients=len(prepared.clients),
        attacked=len(victims),
        seed=seed,
        simulated=bool(record.manifest["data"].get("simulated")),
        reconstructions=tuple(rebuilt),
        detections=detections,
        notes=_notes(scene, detections, len(prepared.clients)),
        left_out=left_out,
    )


def properties_told(scene: Scene, seed: int) -> list[Detection]:
    """Tell the clients' properties from one update of each; those that few have are left out."""
    numbers = features([scene.update(name, 1) for name in scene.names], seed)
    return [
        property_told(numbers, has, what, seed)
        for what, has in traits_of(scene).items()
        if tellable(has)
    ]


# ------------------------------------------------------------------------------ internals
def _took_part(record: RunRecord, scene: Scene) -> list[str]:
    """Return the clients whose updates were accepted in some round."""
    rows = record.client_rounds(model=scene.learner.name, training="federated")
    return sorted({row["client_id"] for row in rows})


def _notes(scene: Scene, detections: tuple[Detection, ...], clients: int) -> tuple[str, ...]:
    """Return what has to be said of the figures."""
    kinds = {(one.attack, one.what) for one in detections}
    said = {
        "errors": True,
        "scale": True,
        "fresh-noise": scene.config.privacy.enabled,
        "sampled": clients > len(scene.names),
        "last-model": scene.at == "last",
        "season": ("window-membership", "later") in kinds,
        "rounds": ("client-membership", "not-drawn") in kinds,
        "few-negatives": any(one.negatives < _HUNDRED for one in detections),
        "properties": any(one.attack == "property" for one in detections),
    }
    return tuple(key for key, there in said.items() if there)
