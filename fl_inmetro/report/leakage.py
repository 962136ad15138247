"""What attacks on a run's updates found, in sentences and tables; pure functions of its JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.report.markup import Column, bullets, table
from fl_inmetro.report.words import line_label, percent, ratio, whole
from fl_inmetro.runs.leakage import kept
from fl_inmetro.runs.record import RunRecord

Found = Mapping[str, Any]

_ERRORS = ("nrmse", "nrmse_population", "nrmse_flat", "smape", "smape_population")
_REBUILT = ("attack", "client", "windows", *_ERRORS)
_TOLD = ("attack", "what", "auc", "interval", "p", "tpr", "sizes", "accuracy", "prior")

#: Errors over those of a guess, up to which an attack works, and from which it tells nothing.
_WORKS, _LITTLE = 0.5, 0.95
_WORDS = frozenset({"attack", "client", "what", "interval", "sizes"})


def leakage(record: RunRecord, lang: Language) -> str:
    """Return the section of a run's report; empty where nobody attacked the run.

    Raises:
        RunError: FL703, what was found cannot be read.
    """
    return "".join(
        bullets([subject(one, lang), *sentences(one, lang), *notes(one, lang)]) + tables(one, lang)
        for one in kept(record).values()
    )


def subject(found: Found, lang: Language) -> str:
    """Say what was attacked, by whom, and what protects it."""
    said = text(
        "leakage.subject",
        lang,
        model=line_label(found["model"], found["training"], lang),
        run=found["run"],
        clients=whole(found["clients"], lang),
        attacked=whole(found["attacked"], lang),
        seen=text(f"leakage.seen.{found['seen']}", lang),
    )
    return f"{said}. {_protection(found, lang)}"


def sentences(found: Found, lang: Language) -> list[str]:
    """Say in one sentence what each attack came to, and which there was none of."""
    said = [_rebuilt(rows, found, lang) for rows in _grouped(found["reconstructions"])]
    said += [_told(one, lang) for one in found["detections"]]
    return said + [
        text(
            "leakage.missing",
            lang,
            attack=text(f"leakage.attack.{attack}", lang),
            why=text(f"leakage.left_out.{why}", lang),
        )
        for attack, why in found["left_out"].items()
    ]


def notes(found: Found, lang: Language) -> list[str]:
    """Say what has to be known of the figures."""
    return [text(f"leakage.note.{key}", lang) for key in (*found["notes"], "proof")]


def verdict(rows: Sequence[Found]) -> str:
    """Tell what reconstructions came to: `works`, `little` or `fails`.

    By the median over the victims of the error over that of the better guess without an update:
    at most one half works, below 0.95 more is told than can be guessed.
    """
    shares = []
    for one in rows:
        guesses = [one[key] for key in ("nrmse_population", "nrmse_flat") if one[key] is not None]
        if one["nrmse"] is not None and guesses:
            shares.append(one["nrmse"] / max(min(guesses), 1e-12))
    share = _median(shares)
    if share is None or share >= _LITTLE:
        return "fails"
    return "works" if share <= _WORKS else "little"


def tables(found: Found, lang: Language) -> str:
    """Return both tables as HTML."""
    drawn = ""
    for kind, (heads, rows) in columns(found, lang).items():
        drawn += table(text(f"leakage.caption.{kind}", lang), heads, rows) if rows else ""
    return drawn


def columns(found: Found, lang: Language) -> dict[str, tuple[list[Column], list[list[str]]]]:
    """Return the heads and cells of `reconstructions` and `detections`."""
    rebuilt = [
        [
            text(f"leakage.attack.{one['attack']}", lang),
            one["client_id"],
            whole(one["windows"], lang),
            *(ratio(one[key], lang, 3) for key in _ERRORS),
        ]
        for one in found["reconstructions"]
    ]
    told = [
        [
            text(f"leakage.attack.{one['attack']}", lang),
            text(f"leakage.what.{one['what']}", lang),
            ratio(one["auc"], lang, 3),
            f"{number(one['low'], 2, lang)} – {number(one['high'], 2, lang)}",
            ratio(one["p"], lang, 3),
            _share(one["tpr"], lang),
            f"{whole(one['positives'], lang)} / {whole(one['negatives'], lang)}",
            _share(one["accuracy"], lang),
            _share(None if one["accuracy"] is None else one["prior"], lang),
        ]
        for one in found["detections"]
    ]
    return {
        "reconstructions": (_heads(_REBUILT, lang), rebuilt),
        "detections": (_heads(_TOLD, lang), told),
    }


# ------------------------------------------------------------------------------ internals
def _heads(keys: Sequence[str], lang: Language) -> list[Column]:
    return [Column(text(f"leakage.column.{key}", lang), key not in _WORDS) for key in keys]


def _protection(found: Found, lang: Language) -> str:
    if found["epsilon"] is None:
        return text("leakage.unprotected", lang)
    who = text(f"privacy.who.{found['protect']}", lang)
    # Rounded up: less would promise too much.
    epsilon = number(math.ceil(100 * found["epsilon"] - 1e-9) / 100, 2, lang)
    return text("leakage.promise", lang, who=who, epsilon=epsilon)


def _grouped(rows: Sequence[Found]) -> list[list[Found]]:
    """Return the reconstructions by attack; inversions by their number of windows too."""
    groups: dict[tuple[str, int], list[Found]] = {}
    for one in rows:
        of_few = one["windows"] if one["attack"] == "inversion" else 0
        groups.setdefault((one["attack"], of_few), []).append(one)
    return list(groups.values())


def _rebuilt(rows: Sequence[Found], found: Found, lang: Language) -> str:
    """Say what came of one attack: the median over its victims."""
    error, population, flat = (
        _median([one[key] for one in rows]) for key in ("nrmse", "nrmse_population", "nrmse_flat")
    )
    return text(
        f"leakage.said.{rows[0]['attack']}",
        lang,
        what=text(f"leakage.recovered.{found['recovered']}", lang),
        nrmse=_share(error, lang),
        population=_share(population, lang),
        flat=_share(flat, lang),
        victims=whole(len({one["client_id"] for one in rows}), lang),
        windows=whole(rows[0]["windows"], lang),
        verdict=text(f"leakage.{verdict(rows)}", lang),
    )


def _told(one: Found, lang: Language) -> str:
    what = text(f"leakage.what.{one['what']}", lang)
    return text(
        f"leakage.said.{one['attack']}",
        lang,
        what=what if one["attack"] == "property" else what[:1].upper() + what[1:],
        auc=number(one["auc"], 2, lang),
        low=number(one["low"], 2, lang),
        high=number(one["high"], 2, lang),
        tpr=_share(one["tpr"], lang),
        accuracy=_share(one["accuracy"], lang),
        prior=_share(one["prior"], lang),
        p=ratio(one["p"], lang, 3),
        verdict=text("leakage.told" if one["works"] else "leakage.untold", lang),
    )


def _median(values: Sequence[float | None]) -> float | None:
    """Return the median of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _share(value: float | None, lang: Language) -> str:
    return percent(None if value is None else 100 * value, lang)
