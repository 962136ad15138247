"""The sections of a report: each returns its HTML, or an empty string where there is nothing."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from fl_inmetro.i18n import Language, text
from fl_inmetro.report import figures, view
from fl_inmetro.report.findings import step
from fl_inmetro.report.markup import Column, bullets, code, figure, pairs, table
from fl_inmetro.report.words import (
    byte_count,
    duration,
    kwh,
    line_label,
    model_label,
    percent,
    ratio,
    training_label,
    whole,
    yes_no,
)
from fl_inmetro.runs.difference import flatten
from fl_inmetro.runs.record import RunRecord

#: A per-client table longer than this shows its two ends only, to keep the page under 3 MB.
MOST_CLIENTS = 2000


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
    return _pairs("identification", rows, lang)


def results(record: RunRecord, lang: Language) -> str:
    """The comparison: the figure and all fleet scores."""
    scores = record.scores()
    if not scores:
        return _nothing(lang)
    scores.sort(key=lambda row: (row.get("nmae") is None, row.get("nmae") or 0.0))
    best = scores[0]
    alt = f"{_figure('comparison', lang)}: " + "; ".join(
        f"{line_label(r['model'], r['training'], lang)} {ratio(r.get('nmae'), lang)}"
        for r in scores
    )
    drawn = figures.comparison(record, lang)
    head = (
        figure("fig-comparison", _figure("comparison", lang), _note("comparison", lang), alt, drawn)
        if drawn and best
        else ""
    )
    return head + table(
        _table_of("comparison", lang), _columns(_FLEET, lang), [_fleet_row(r, lang) for r in scores]
    )


def clients(record: RunRecord, lang: Language) -> str:
    """Errors per client: distribution, gain from federation, and the table of all of them."""
    line = view.main_line(record)
    if line is None or not view.client_table(record, line):
        return _nothing(lang)
    content = ""
    spread = figures.client_spread(record, lang)
    if spread:
        found = view.spreads(record)
        rows = [
            [
                line_label(s.line.model, s.line.training, lang),
                whole(s.clients, lang),
                *(ratio(float(q), lang) for q in s.quantiles),
            ]
            for s in found
        ]
        columns = [
            Column(text("report.column.model", lang), numeric=False),
            Column(text("report.column.clients", lang)),
            *(
                Column(text("report.column.quantile", lang, percent=round(100 * level)))
                for level in view.LEVELS
            ),
        ]
        alt = f"{_figure('spread', lang)}: {text('report.axis.median', lang)} " + "; ".join(
            f"{row[0]} {row[4]}" for row in rows
        )
        content += figure(
            "fig-spread", _figure("spread", lang), _note("spread", lang), alt, spread
        ) + table(_table_of("spread", lang), columns, rows)
    gain = figures.federation_gain(record, lang)
    if gain:
        found_gains = view.gains(record, line.model)
        note = _note("gain", lang, model=model_label(line.model, lang))
        helped = sum(g.percent >= 0 for g in found_gains)
        alt = (
            f"{_figure('gain', lang)}: {text('report.axis.better', lang, count=helped)}, "
            f"{text('report.axis.worse', lang, count=len(found_gains) - helped)}"
        )
        rows = [
            [g.client_id, ratio(g.local, lang), ratio(g.federated, lang), percent(g.percent, lang)]
            for g in found_gains
        ]
        columns = [
            Column(text("report.column.client", lang), numeric=False),
            Column(text("report.column.local_nmae", lang)),
            Column(f"nMAE {training_label('federated', lang)}"),
            Column(text("report.column.gain", lang)),
        ]
        shown, hint = _ends(rows, lang)
        content += figure("fig-gain", _figure("gain", lang), note, alt, gain)
        content += hint + table(_table_of("gain", lang), columns, shown)
    return content + _per_client(record, line, lang)


def training(record: RunRecord, lang: Language) -> str:
    """The rounds: curves, bytes, and what was refused."""
    found = view.curves(record)
    if not found:
        return _nothing(lang)
    content = ""
    drawn = figures.training_curves(record, lang)
    if drawn:
        alt = f"{_figure('curves', lang)}: " + "; ".join(
            f"{line_label(c.line.model, c.line.training, lang)} "
            f"{ratio(float(c.nmae[0]), lang)} → {ratio(float(c.nmae[-1]), lang)}"
            for c in found
        )
        content += figure("fig-curves", _figure("curves", lang), _note("curves", lang), alt, drawn)
    columns = _columns(_ROUND, lang)
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
        content += f'<p class="note">{escape(_note("local_groups", lang))}</p>\n'
    content += table(_table_of("curves", lang), columns, rows)
    return content + _bytes(record, found, lang) + _rejected(record, lang)


def forecasts(record: RunRecord, lang: Language) -> str:
    """A week of forecasts of three clients; empty when the run kept none."""
    line = view.main_line(record)
    drawn = figures.forecast_weeks(record, lang)
    if line is None or drawn is None:
        return ""
    found = view.weeks(record, line)
    base = view.baseline_line(record)
    title = _figure("forecast", lang)
    label = line_label(line.model, line.training, lang)
    alt = f"{title}: " + "; ".join(
        f"{text(f'report.role.{week.role}', lang)} {week.client_id}, "
        f"MAE {kwh(float(np.nanmean(np.abs(week.mean_kwh - week.observed_kwh))), lang)} kWh"
        for week in found
        if np.isfinite(week.mean_kwh - week.observed_kwh).any()
    )
    content = figure("fig-forecast", title, _note("forecast", lang, model=label), alt, drawn)
    for week in found:
        columns = [
            Column(text("report.column.time_utc", lang), numeric=False),
            Column(text("report.column.observed_kwh", lang)),
            Column(text("report.column.forecast_kwh", lang)),
        ]
        values = [week.observed_kwh, week.mean_kwh]
        if base and week.baseline_kwh is not None:
            columns.append(Column(f"{model_label(base.model, lang)}, kWh"))
            values.append(week.baseline_kwh)
        rows = [
            [str(moment).replace("T", " "), *(kwh(float(v[i]), lang) for v in values)]
            for i, moment in enumerate(week.target_time_utc)
        ]
        caption = f"{text(f'report.role.{week.role}', lang)}: {week.client_id}"
        content += table(caption, columns, rows)
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
        ("licence", str(content.get("licence", ""))),
        ("citation", str(content.get("citation", ""))),
        ("timezone", str(content.get("timezone", ""))),
        ("resolution", step(record, lang) if resolution_s else ""),
        ("clients", whole(count, lang)),
    ]
    if steps:
        share = percent(100 * missing / steps, lang)
        rows += [
            ("readings", whole(steps, lang)),
            ("missing", f"{whole(missing, lang)} ({share})"),
        ]
    rows.append(("excluded", whole(len(content.get("excluded") or {}), lang)))
    html = _pairs("data", rows, lang)
    tables = (
        ("excluded", "client", "reason", content.get("excluded"), False),
        ("cleaning", "key", "count", content.get("cleaning"), True),
        ("files", "file", "sha256", content.get("files"), False),
    )
    for name, first, second, values, numeric in tables:
        if values:
            columns = [
                Column(text(f"report.column.{first}", lang), numeric=False),
                Column(text(f"report.column.{second}", lang), numeric=numeric),
            ]
            cells = [[k, whole(v, lang) if numeric else str(v)] for k, v in values.items()]
            html += table(text(f"report.item.{name}", lang), columns, cells)
    return html


def method(record: RunRecord, lang: Language) -> str:
    """Models, strategy, window and the settings that shape them."""
    raw = record.config_raw
    federation, strategy = raw.get("federation", {}), raw.get("strategy", {})
    scored = list(dict.fromkeys(row["model"] for row in record.scores() + record.stages()))
    texts: Mapping[str, str] = {m: _model_text(m, lang) for m in scored}
    models = "\n".join(f"{model_label(m, lang)}{': ' if t else ''}{t}" for m, t in texts.items())
    window = "\n".join(f"{k} = {v}" for k, v in flatten(record.manifest.get("window", {})).items())
    rows = [
        ("models", models),
        ("window", window),
        ("strategy", ", ".join(f"{k} = {v}" for k, v in strategy.items())),
        ("rounds", str(federation.get("num_server_rounds", ""))),
        ("fraction", percent(100 * federation.get("fraction_fit", float("nan")), lang, 0)),
        ("local_epochs", str(federation.get("local_epochs", ""))),
        ("engine", str(raw.get("engine", ""))),
        ("seed", str(record.manifest.get("seed"))),
    ]
    return _pairs("method", rows, lang)


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
    columns = [
        Column(text(f"report.column.{k}", lang), numeric=False)
        for k in ("time_utc", "level", "text")
    ]
    rows = [[note["utc"], note["level"], note["text"]] for note in notes]
    return table(text("report.section.log", lang), columns, rows)


# ------------------------------------------------------------------------------ internals
_FLEET = (
    "model", "training", "nmae", "wmape", "mae_kwh", "rmse_kwh", "mase", "nrmse", "bias",
    "worst_decile_nmae", "better_than_local", "clients", "points", "bytes", "seconds",
)  # fmt: skip
_ROUND = (
    "model", "training", "round", "loss", "validation_nmae", "bytes_down", "bytes_up", "seconds"
)  # fmt: skip


def _fleet_row(row: dict[str, Any], lang: Language) -> list[str]:
    share = row.get("better_than_local")
    return [
        model_label(row["model"], lang),
        training_label(row["training"], lang),
        ratio(row.get("nmae"), lang),
        ratio(row.get("wmape"), lang),
        kwh(row.get("mae_kwh"), lang),
        kwh(row.get("rmse_kwh"), lang),
        ratio(row.get("mase"), lang, 3),
        ratio(row.get("nrmse"), lang),
        ratio(row.get("bias"), lang),
        ratio(row.get("worst_decile_nmae"), lang),
        percent(None if share is None else 100 * share, lang, 0),
        whole(row.get("clients"), lang),
        whole(row.get("points"), lang),
        byte_count(row.get("bytes"), lang),
        duration(row.get("seconds"), lang),
    ]


def _per_client(record: RunRecord, line: view.Line, lang: Language) -> str:
    """The table of every client, largest error first."""
    mine = view.client_table(record, line)
    base = view.baseline_line(record)
    base_rows = view.client_table(record, base) if base else {}
    # None sorts last: a client without a scored point has no error.
    ranked = sorted(mine.values(), key=lambda r: (r.get("nmae") is None, -(r.get("nmae") or 0.0)))
    columns = _columns(
        ("client", "mean_kwh", "points", "nmae", "mae_kwh", "rmse_kwh", "mase", "bias"), lang
    )
    if base:
        name = model_label(base.model, lang)
        columns.append(Column(text("report.column.baseline_nmae", lang, name=name)))
    rows = []
    for row in ranked:
        cells = [
            row["client_id"],
            kwh(row.get("mean_kwh"), lang),
            whole(row.get("points"), lang),
            ratio(row.get("nmae"), lang),
            kwh(row.get("mae_kwh"), lang),
            kwh(row.get("rmse_kwh"), lang),
            ratio(row.get("mase"), lang, 3),
            ratio(row.get("bias"), lang),
        ]
        if base:
            cells.append(ratio(base_rows.get(row["client_id"], {}).get("nmae"), lang))
        rows.append(cells)
    label = line_label(line.model, line.training, lang)
    note = _note("per_client", lang, model=label, step=step(record, lang))
    title = _figure("per_client", lang)
    shown, hint = _ends(rows, lang)
    head = f'<h3>{escape(title)}</h3>\n<p class="note">{escape(note)}</p>\n'
    return head + hint + table(_table_of("per_client", lang), columns, shown)


def _ends(rows: list[list[str]], lang: Language) -> tuple[list[list[str]], str]:
    """Cut a table that would make the page too large to its two ends, and say so."""
    if len(rows) <= MOST_CLIENTS:
        return rows, ""
    half = MOST_CLIENTS // 2
    hint = text(
        "report.capped",
        lang,
        shown=whole(2 * half, lang),
        total=whole(len(rows), lang),
        half=whole(half, lang),
    )
    return rows[:half] + rows[-half:], f'<p class="note">{escape(hint)}</p>\n'


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
    columns = _columns(("model", "training", "rounds", "bytes_down", "bytes_up"), lang)
    total = next(float((c.bytes_down + c.bytes_up).sum()) for c in found if c.line == line)
    alt = f"{_figure('bytes', lang)}: {label}, {byte_count(total, lang)}"
    note = _note("bytes", lang, model=label)
    content = figure("fig-bytes", _figure("bytes", lang), note, alt, drawn)
    return content + table(_table_of("bytes", lang), columns, rows)


def _federated(curve: view.Curve) -> bool:
    """Only a federation moves models; the other trainings merely use the same machinery."""
    return curve.line.training == "federated"


def _rejected(record: RunRecord, lang: Language) -> str:
    refused = record.rejected()
    if not refused:
        return ""
    columns = _columns(("model", "training", "round", "client", "code", "reason"), lang)
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
    title = _figure("rejected", lang)
    return f"<h3>{escape(title)}</h3>\n" + table(title, columns, rows)


def _columns(keys: tuple[str, ...], lang: Language) -> list[Column]:
    words = {"model", "training", "client", "code", "reason"}
    return [Column(text(f"report.column.{k}", lang), numeric=k not in words) for k in keys]


def _pairs(section: str, rows: list[tuple[str, str]], lang: Language) -> str:
    caption = text(f"report.section.{section}", lang)
    return pairs(caption, [(text(f"report.item.{k}", lang), v) for k, v in rows if v])


def _machine(found: dict[str, Any]) -> list[str]:
    cores = found.get("cores")
    parts = [found.get("cpu"), f"{cores} CPU" if cores else "", found.get("system")]
    return [str(part) for part in parts if part]


def _model_text(model: str, lang: Language) -> str:
    try:
        return text(f"report.model_text.{model}", lang)
    except KeyError:  # a model of a plug-in has a name only
        return ""


def _figure(key: str, lang: Language) -> str:
    return text(f"report.figure.{key}", lang)


def _note(key: str, lang: Language, **values: object) -> str:
    return text(f"report.note.{key}", lang, **values)


def _table_of(key: str, lang: Language) -> str:
    return text("report.table_of", lang, name=_figure(key, lang))


def _nothing(lang: Language) -> str:
    return f'<p class="note">{escape(text("report.no_figure", lang))}</p>\n'
