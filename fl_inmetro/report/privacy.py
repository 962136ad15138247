"""What a run promised to those whose readings it learned from, in numbers and in plain words."""

from __future__ import annotations

import json
import math
from statistics import median
from typing import Any

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.privacy.meaning import belief_from_half, odds_factor, true_positive_bound
from fl_inmetro.report.markup import Column, bullets, table
from fl_inmetro.report.words import model_label, significant, whole
from fl_inmetro.runs.record import RunRecord

#: False positive rate at which a membership test is bounded.
_FALSE_POSITIVES = 0.01

#: Odds beyond this say nothing any more.
_NO_BOUND = 1e6


def account_of(record: RunRecord) -> dict[str, Any] | None:
    """Return what the run kept of its account; None where nobody was protected."""
    path = record.path / "privacy.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def privacy(record: RunRecord, lang: Language) -> str:
    """Return the section; empty where nobody was protected."""
    account = account_of(record)
    if account is None:
        return ""
    who = text(f"privacy.who.{account['protect']}", lang)
    lines = [text("privacy.report.promise", lang, who=who)]
    models = account["models"]
    for key, one in models.items():
        lines += _meaning(_label(key, lang), one, account, who, lang)
        lines += _by_client(_label(key, lang), one.get("clients") or {}, lang)
    lines += [text(f"privacy.report.{key}", lang) for key in _LIMITS[account["protect"]]]
    where = text(
        "privacy.report.ledger", lang, folder=account["ledger"], name=account["federation"]
    )
    rows = [_row(key, one, account, lang) for key, one in models.items()]
    return bullets([*lines, where]) + (_table(rows, lang) if rows else "")


#: What is said of what the promise does not cover.
_LIMITS = {
    "client": ("server", "errors", "public"),
    "client-day": ("device", "errors", "public"),
    "window": ("device", "overlap", "errors", "public"),
}


def _label(key: str, lang: Language) -> str:
    return model_label(key.split("-", 1)[0], lang)


def _meaning(
    model: str, one: dict[str, Any], account: dict[str, Any], who: str, lang: Language
) -> list[str]:
    epsilon, delta = one.get("spent", one["epsilon"]), account["delta"]
    odds = odds_factor(epsilon)
    return [
        text(
            f"privacy.report.meaning{'_day' if account['protect'] == 'client-day' else ''}",
            lang,
            model=model,
            epsilon=_up(epsilon, lang),
            delta=significant(delta, lang, 2),
            who=who,
            odds=text("privacy.say.no_bound", lang) if odds > _NO_BOUND else _up(odds, lang),
            belief=_up(100 * belief_from_half(epsilon), lang) + " %",
            false=_up(100 * _FALSE_POSITIVES, lang) + " %",
            true=_up(100 * true_positive_bound(epsilon, delta, _FALSE_POSITIVES), lang) + " %",
        )
    ]


def _by_client(model: str, clients: dict[str, float], lang: Language) -> list[str]:
    """Say how ε differs from client to client; nothing where it does not."""
    if not clients:
        return []
    low, middle, high = min(clients.values()), median(clients.values()), max(clients.values())
    numbers = {"low": _up(low, lang), "middle": _up(middle, lang), "high": _up(high, lang)}
    return [text("privacy.report.clients", lang, model=model, **numbers)]


def _row(key: str, one: dict[str, Any], account: dict[str, Any], lang: Language) -> list[str]:
    update = one["planned"][-1]
    return [
        _label(key, lang),
        text(f"privacy.who.{account['protect']}", lang),
        _up(one["epsilon"], lang),
        _up(one["spent"], lang) if "spent" in one else "–",
        significant(account["delta"], lang, 2),
        significant(update["noise_multiplier"], lang, 4),
        significant(one["clip"], lang, 4),
        whole(update["times"], lang),
        significant(update["sampling_rate"], lang, 3),
        whole(one["group"], lang),
    ]


def _table(rows: list[list[str]], lang: Language) -> str:
    keys = ("model", "who", "planned", "spent", "delta", "noise", "clip", "times", "rate", "group")
    heads = [
        Column(text(f"privacy.report.column.{key}", lang), numeric=key not in ("model", "who"))
        for key in keys
    ]
    return table(text("privacy.report.caption", lang), heads, rows)


def _up(value: float, lang: Language) -> str:
    """Write an upper bound with three digits, rounded up: less would promise too much."""
    places = max(0, min(6, 2 - (math.floor(math.log10(value)) if value > 0 else 0)))
    return number(math.ceil(value * 10**places - 1e-9) / 10**places, places, lang)
