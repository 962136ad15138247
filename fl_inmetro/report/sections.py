"""The sections of a report: each returns its HTML, or an empty string where there is nothing."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from fl_inmetro.config.strategy import Strategy
from fl_inmetro.i18n import Language, text
from fl_inmetro.i18n.said import told
from fl_inmetro.report import figures, view
from fl_inmetro.report.captions import columns, facts, figure_title, note, nothing, table_title
from fl_inmetro.report.clusters import clusters
from fl_inmetro.report.findings import step
from fl_inmetro.report.markup import Column, bullets, code, figure, table
from fl_inmetro.report.weeks import clock_of, weeks
from fl_inmetro.report.words import (
    byte_count,
    duration,
    kwh,
    line_label,
    model_label,
    percent,
    ratio,
    significant,
    training_label,
    whole,
    yes_no,
)
from fl_inmetro.runs.difference import flatten
from fl_inmetro.runs.record import RunRecord


def identification(record: RunRecord, lang: Language) -> str:
    """Which run this is."""
    manifest = record.manifest
    source = manifest.get("source") or {}
    commit = str(source.get("commit", "")) or "–"
    if source.get("modified"):
        commit += f" ({text('report.item.modified', lang)})"
    rows = [
        ("run", record.id),
        ("kind", text(f"report.kind.{record.kind}", lang)),
        ("status", text(f"report.status.{record.status}", lang)),
        ("created", str(manifest.get("created_utc", ""))),
        ("duration", duration(record.seconds, lang)),
        ("seed", str(manifest.get("seed"))),
        ("config_hash", str(manifest.get("config_hash"))),
        ("commit", commit),
        ("versions", ", ".join(f"{k} {v}" for k, v in manifest.get("versions", {}).items())),
        ("machine", ", ".join(str(v) for v in _machine(manifest.get("machine", {})))),
    ]
    return facts("identification", rows, lang)


def training(record: RunRecord, lang: Language) -> str:
    """The rounds: curves, bytes, and what was refused."""
    found = view.curves(record)
    if not found:
        return nothing(lang)
    content = ""
    drawn = figures.training_curves(record, lang)
    if drawn:
        alt = f"{figure_title('curves', lang)}: " + "; ".join(
            f"{line_label(c.line.model, c.line.training, lang)} "
            f"{ratio(float(c.nmae[0]), lang)} → {ratio(float(c.nmae[-1]), lang)}"
            for c in found
        )
        content += figure(
            "fig-curves", figure_title("curves", lang), note("curves", lang), alt, drawn
        )
    heads = columns(_ROUND, lang)
    rows = [
        [
            model_label(c.line.model, lang),
            training_label(c.line.training, lang),
            str(int(c.rounds[i])),
            ratio(float(c.loss[i]), lang),
            ratio(float(c.nmae[i]), lang),
            byte_count(float(c.bytes_down[i]) if _federated(c) else None, lang),
            byte_count(float(c.bytes_up[i]) if _federated(c) else None, lang),
            duration(float(c.seconds[i]), lang),
        ]
        for c in found
        for i in range(c.rounds.size)
    ]
    if any(c.groups > 1 for c in found):
        content += f'<p class="note">{escape(note("local_groups", lang))}</p>\n'
    content += table(table_title("curves", lang), heads, rows)
    content += _bytes(record, found, lang)
    content += clusters(record, lang)
    return content + _heterogeneity(record, lang) + _rejected(record, lang)


def forecasts(record: RunRecord, lang: Language) -> str:
    """A week of forecasts of three clients; empty when the run kept none."""
    line = view.main_line(record)
    drawn = figures.forecast_weeks(record, lang)
    if line is None or drawn is None:
        return ""
    found = weeks(record, line)
    base = view.baseline_line(record)
    title = figure_title("forecast", lang)
    label = line_label(line.model, line.training, lang)
    alt = f"{title}: " + "; ".join(
        f"{text(f'report.role.{week.role}', lang)} {week.client_id}, "
        f"MAE {kwh(float(np.nanmean(np.abs(week.mean_kwh - week.observed_kwh))), lang)} kWh"
        for week in found
        if np.isfinite(week.mean_kwh - week.observed_kwh).any()
    )
    content = figure(
        "fig-forecast",
        title,
        note("forecast", lang, model=label, clock=clock_of(record)),
        alt,
        drawn,
    )
    for week in found:
        heads = [
            Column(text("report.column.time_on", lang, clock=week.clock), numeric=False),
            Column(text("report.column.observed_kwh", lang)),
            Column(text("report.column.forecast_kwh", lang)),
        ]
        values = [week.observed_kwh, week.mean_kwh]
        if base and week.baseline_kwh is not None:
            heads.append(Column(f"{model_label(base.model, lang)}, kWh"))
            values.append(week.baseline_kwh)
        rows = [
            [moment, *(kwh(float(v[i]), lang) for v in values)]
            for i, moment in enumerate(week.told_times())
        ]
        caption = f"{text(f'report.role.{week.role}', lang)}: {week.client_id}"
        content += table(caption, heads, rows)
    return content


def data(record: RunRecord, lang: Language) -> str:
    """Where the readings came from and what was done to them."""
    content = record.manifest.get("data", {})
    known = content.get("clients")
    per_client = known if isinstance(known, dict) else {}
    steps = sum(int(c.get("steps", 0)) for c in per_client.values())
    missing = sum(int(c.get("missing", 0)) for c in per_client.values())
    stages = record.stages()
    count = len(known) if known else (stages[0]["clients"] if stages else None)
    resolution_s = content.get("resolution_s")
    rows = [
        ("source", str(content.get("source", ""))),
        ("data_title", str(content.get("title", ""))),
        ("simulated", yes_no(bool(content.get("simulated")), lang)),
        ("licence", told(str(content.get("licence", "")), lang)),
        ("citation", told(str(content.get("citation", "")), lang)),
        ("timezone", str(content.get("timezone", ""))),
        ("resolution", step(record, lang) if resolution_s else ""),
        ("meters" if content.get("partition") else "clients", whole(count, lang)),
        ("partition", _partition(record, lang)),
    ]
    if steps:
        share = percent(100 * missing / steps, lang)
        rows += [
            ("readings", whole(steps, lang)),
            ("missing", f"{whole(missing, lang)} ({share})"),
        ]
    rows.append(("excluded", whole(len(content.get("excluded") or {}), lang)))
    html = facts("data", rows, lang)
    tables = (
        ("excluded", "client", "reason", content.get("excluded"), False),
        ("cleaning", "key", "count", content.get("cleaning"), True),
        ("files", "file", "sha256", content.get("files"), False),
    )
    for name, first, second, values, numeric in tables:
        if values:
            heads = [
                Column(text(f"report.column.{first}", lang), numeric=False),
                Column(text(f"report.column.{second}", lang), numeric=numeric),
            ]
            cells = [
                [k, whole(v, lang) if numeric else told(str(v), lang)] for k, v in values.items()
            ]
            html += table(text(f"report.item.{name}", lang), heads, cells)
    return html


def method(record: RunRecord, lang: Language) -> str:
    """Models, strategy, window and the settings that shape them."""
    raw = record.config_raw
    federation, strategy = raw.get("federation", {}), raw.get("strategy", {})
    # The name, and what was set: most of the table has no part in most strategies.
    usual = {k: v for k, v in Strategy().model_dump(mode="json").items() if k != "name"}
    scored = list(dict.fromkeys(row["model"] for row in record.scores() + record.stages()))
    texts: Mapping[str, str] = {m: _model_text(m, lang) for m in scored}
    models = "\n".join(f"{model_label(m, lang)}{': ' if t else ''}{t}" for m, t in texts.items())
    window = "\n".join(f"{k} = {v}" for k, v in flatten(record.manifest.get("window", {})).items())
    rows = [
        ("models", models),
        ("window", window),
        ("strategy", ", ".join(f"{k} = {v}" for k, v in strategy.items() if v != usual.get(k))),
        ("rounds", str(federation.get("num_server_rounds", ""))),
        ("fraction", percent(100 * federation.get("fraction_fit", float("nan")), lang, 0)),
        ("local_epochs", str(federation.get("local_epochs", ""))),
        ("engine", str(raw.get("engine", ""))),
        ("seed", str(record.manifest.get("seed"))),
    ]
    return facts("method", rows, lang)


def reproduce(record: RunRecord, lang: Language) -> str:
    """The command that makes this run again, and how to tell that it did."""
    manifest = record.manifest
    command = f"fl-inmetro {record.kind} config.toml --seed {manifest.get('seed')}"
    say = [text("report.reproduce.same", lang, hash=manifest.get("config_hash"))]
    if (manifest.get("source") or {}).get("modified"):
        say.append(text("report.reproduce.unclean", lang))
    intro = f"<p>{escape(text('report.reproduce.intro', lang))}</p>\n"
    return intro + code(command) + bullets(say)


def log(record: RunRecord, lang: Language) -> str:
    """The notes of the run; empty when it wrote none."""
    notes = record.notes()
    if not notes:
        return ""
    heads = [
        Column(text(f"report.column.{k}", lang), numeric=False)
        for k in ("time_utc", "level", "text")
    ]
    rows = [[note["utc"], note["level"], note["text"]] for note in notes]
    return table(text("report.section.log", lang), heads, rows)


# ------------------------------------------------------------------------------ internals
def _partition(record: RunRecord, lang: Language) -> str:
    """Say which clients hold the meters' windows; empty where each meter is a client."""
    held = record.manifest.get("data", {}).get("partition")
    if not held:
        return ""
    settings = record.config_raw.get("partition", {})
    distances = [client["js_distance"] for client in held.values()]
    return text(
        "report.partition",
        lang,
        kind=settings.get("kind", ""),
        by=settings.get("by", ""),
        clients=whole(len(held), lang),
        distance=ratio(sum(distances) / len(distances), lang, 2),
    )


_ROUND = (
    "model", "training", "round", "loss", "validation_nmae", "bytes_down", "bytes_up", "seconds"
)  # fmt: skip


def _bytes(record: RunRecord, found: list[view.Curve], lang: Language) -> str:
    line = view.main_line(record)
    drawn = figures.bytes_by_round(record, lang)
    if drawn is None or line is None:
        return ""
    label = line_label(line.model, line.training, lang)
    rows = [
        [
            model_label(c.line.model, lang),
            training_label(c.line.training, lang),
            whole(c.rounds.size, lang),
            byte_count(float(c.bytes_down.sum()), lang),
            byte_count(float(c.bytes_up.sum()), lang),
        ]
        for c in found
        if _federated(c)
    ]
    heads = columns(("model", "training", "rounds", "bytes_down", "bytes_up"), lang)
    total = next(float((c.bytes_down + c.bytes_up).sum()) for c in found if c.line == line)
    alt = f"{figure_title('bytes', lang)}: {label}, {byte_count(total, lang)}"
    remark = note("bytes", lang, model=label)
    content = figure("fig-bytes", figure_title("bytes", lang), remark, alt, drawn)
    return content + table(table_title("bytes", lang), heads, rows)


def _heterogeneity(record: RunRecord, lang: Language) -> str:
    """How unlike the clients were; empty unless `[diagnostics] heterogeneity` measured it."""
    drawn = figures.heterogeneity(record, lang)
    if drawn is None:
        return ""
    found = view.unlikeness(record)
    title = figure_title("heterogeneity", lang)
    alt = f"{title}: " + "; ".join(
        f"{model_label(one.line.model, lang)} B² {significant(one.ratio[0], lang)} → "
        f"{significant(one.ratio[-1], lang)}"
        for one in found
    )
    names = ("gradient_norm_squared", "dissimilarity", "gradient_variance", "ratio")
    heads = columns(("model", "round", *names, "cosine", "distance"), lang)
    rows = [
        [
            model_label(one.line.model, lang),
            str(int(one.rounds[i])),
            *(significant(getattr(one, name)[i], lang) for name in (*names, "cosine", "distance")),
        ]
        for one in found
        for i in range(one.rounds.size)
    ]
    content = figure("fig-heterogeneity", title, note("heterogeneity", lang), alt, drawn)
    return content + table(table_title("heterogeneity", lang), heads, rows)


def _federated(curve: view.Curve) -> bool:
    """Only a federation moves models; the other trainings merely use the same machinery."""
    return curve.line.training in ("federated", "clustered")


def _rejected(record: RunRecord, lang: Language) -> str:
    refused = record.rejected()
    if not refused:
        return ""
    heads = columns(("model", "training", "round", "client", "code", "reason"), lang)
    rows = [
        [
            model_label(r["model"], lang),
            training_label(r["training"], lang),
            str(r["round"]),
            r["client_id"],
            r["code"],
            r["reason"],
        ]
        for r in refused
    ]
    title = figure_title("rejected", lang)
    return f"<h3>{escape(title)}</h3>\n" + table(title, heads, rows)


def _machine(found: dict[str, Any]) -> list[str]:
    cores = found.get("cores")
    parts = [found.get("cpu"), f"{cores} CPU" if cores else "", found.get("system")]
    return [str(part) for part in parts if part]


def _model_text(model: str, lang: Language) -> str:
    try:
        return text(f"report.model_text.{model}", lang)
    except KeyError:  # a model of a plug-in has a name only
        return ""
