"""The sentences of a report that say what its numbers mean, computed from the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.report import view
from fl_inmetro.report.privacy import account_of
from fl_inmetro.report.view import Line
from fl_inmetro.report.words import (
    byte_count,
    duration,
    kwh,
    line_label,
    model_label,
    percent,
    ratio,
    whole,
)
from fl_inmetro.runs.record import RunRecord

#: Below so many clients a share or a quantile over clients is called coarse.
FEW_CLIENTS = 20


def findings(record: RunRecord, lang: Language) -> list[str]:
    """Return the sentences, as plain text, most important first; never empty."""
    line = view.main_line(record)
    score = view.score_of(record, line)
    baseline = view.baseline_line(record)
    base_score = view.score_of(record, baseline)
    if line is None or score is None or score.get("nmae") is None:
        if baseline and base_score:
            name = model_label(baseline.model, lang)
            theirs = ratio(base_score["nmae"], lang)
            return [text("report.finding.only_baselines", lang, baseline=name, theirs=theirs)]
        return [text("report.finding.unscored", lang)]
    say = [*_against_baseline(record, line, score, baseline, base_score, lang)]
    say.append(
        text(
            "report.finding.kwh",
            lang,
            mae=kwh(score.get("mae_kwh"), lang),
            rmse=kwh(score.get("rmse_kwh"), lang),
            step=step(record, lang),
            points=whole(score.get("points"), lang),
            worst=ratio(score.get("worst_decile_nmae"), lang),
        )
    )
    if _covered(score):
        say.append(
            text(
                "report.finding.interval_80",
                lang,
                covered=percent(100 * score["coverage_80"], lang),
                share=percent(100 * score["coverage_80_in_70_90"], lang, 0),
                width=percent(100 * (score.get("width_80") or float("nan")), lang, 0),
            )
        )
    if line.training == "federated":
        say += _against_local(record, line, score, lang)
        say += _against_centralised(record, line, score, lang)
        say += _bytes(record, line, lang)
    return say


def limits(record: RunRecord, lang: Language) -> list[str]:
    """Return what the run does not show, as plain text."""
    scores = record.scores()
    clients = max((int(row.get("clients") or 0) for row in scores), default=0)
    line, baseline = view.main_line(record), view.baseline_line(record)
    compared = bool(line and baseline and view.difference(record, line, baseline))
    wanted: list[tuple[bool, str]] = [
        (bool(record.manifest.get("data", {}).get("simulated")), "simulated"),
        ("partition" in record.manifest.get("data", {}), "partition"),
        (True, "window"),
        (True, "seed"),
        (compared, "interval"),
        (0 < clients < FEW_CLIENTS, "few"),
        (not _covered(view.score_of(record, line)), "point"),
        (_covered(view.score_of(record, line)), "quantiles"),
        (_shares(record) and account_of(record) is None, "privacy"),
        (any(row["training"] == "centralised" for row in scores), "pooled"),
    ]
    values = {"seed": record.manifest.get("seed"), "clients": clients}
    return [text(f"report.limits.{key}", lang, **values) for holds, key in wanted if holds]


def _shares(record: RunRecord) -> bool:
    """Whether updates left the clients."""
    return any(s["training"] in ("federated", "clustered") for s in record.stages())


def step(record: RunRecord, lang: Language) -> str:
    """Return the step of the data in words, such as `60 min`."""
    resolution_s = record.manifest.get("data", {}).get("resolution_s")
    return (
        duration(None, lang)
        if not resolution_s
        else f"{number(resolution_s / 60, 0, lang)}\u00a0min"
    )


def _covered(score: dict[str, Any] | None) -> bool:
    """Whether a row has quantiles that were scored."""
    return bool(score) and score is not None and score.get("coverage_80") is not None


def _against_baseline(
    record: RunRecord,
    line: Line,
    score: dict[str, Any],
    baseline: Line | None,
    base_score: dict[str, Any] | None,
    lang: Language,
) -> list[str]:
    model, ours = line_label(line.model, line.training, lang), ratio(score["nmae"], lang)
    if baseline is None or not base_score or not base_score["nmae"]:
        return [text("report.finding.no_baseline", lang, model=model, ours=ours)]
    name = model_label(baseline.model, lang)
    change = 100.0 * (1.0 - score["nmae"] / base_score["nmae"])
    key = "better" if change >= 0 else "worse"
    say = [
        text(
            f"report.finding.{key}",
            lang,
            model=model,
            ours=ours,
            baseline=name,
            theirs=ratio(base_score["nmae"], lang),
            percent=percent(abs(change), lang),
        )
    ]
    interval = view.difference(record, line, baseline)
    if interval:
        clear = interval.low > 0 or interval.high < 0
        say.append(
            text(
                f"report.finding.interval_{'clear' if clear else 'unclear'}",
                lang,
                baseline=name,
                clients=whole(interval.clients, lang),
                mean=ratio(interval.mean, lang),
                low=ratio(interval.low, lang),
                high=ratio(interval.high, lang),
            )
        )
    return say


def _against_local(
    record: RunRecord, line: Line, score: dict[str, Any], lang: Language
) -> list[str]:
    share = score.get("better_than_local")
    gains = view.gains(record, line.model)
    if share is None or not gains:
        return []
    median = float(np.median([gain.percent for gain in gains]))
    values: dict[str, Any] = {
        "share": percent(100 * share, lang, 0),
        "median": percent(median, lang),
    }
    return [text("report.finding.local", lang, **values)]


def _against_centralised(
    record: RunRecord, line: Line, score: dict[str, Any], lang: Language
) -> list[str]:
    pooled = view.score_of(record, Line(line.model, "centralised"))
    if not pooled or not pooled.get("nmae"):
        return []
    change = 100.0 * (score["nmae"] / pooled["nmae"] - 1.0)
    key = "centralised_better" if change >= 0 else "centralised_worse"
    # "x % lower" is of the larger of the two, as in the sentence on the baseline.
    shown = change if change >= 0 else 100.0 * (1.0 - score["nmae"] / pooled["nmae"])
    theirs = ratio(pooled["nmae"], lang)
    return [text(f"report.finding.{key}", lang, theirs=theirs, percent=percent(shown, lang))]


def _bytes(record: RunRecord, line: Line, lang: Language) -> list[str]:
    curve = next((c for c in view.curves(record) if c.line == line), None)
    stage = next((s for s in record.stages() if Line(s["model"], s["training"]) == line), None)
    if curve is None or stage is None or not stage["clients"]:
        return []
    total = float(curve.bytes_down.sum() + curve.bytes_up.sum())

    return [
        text(
            "report.finding.bytes",
            lang,
            model=model_label(line.model, lang),
            total=byte_count(total, lang),
            rounds=whole(curve.rounds.size, lang),
            each=byte_count(total / stage["clients"], lang),
        )
    ]
