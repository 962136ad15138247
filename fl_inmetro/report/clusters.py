"""Who shares a model with whom, the clusters' mean days, and how they settled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from numpy.typing import NDArray

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.report import palette
from fl_inmetro.report.captions import columns, figure_title, note, table_title
from fl_inmetro.report.markup import figure, table
from fl_inmetro.report.words import model_label, ratio, whole
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord

#: Numbers of a profile: 24 hours of a working day, a Saturday, a Sunday.
_HOURS, _DAY_TYPES = 24, 3

_DASHES: tuple[palette.Dash, ...] = ("solid", "dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True, eq=False)
class Parted:
    """The clusters of one model, as the run kept them.

    Attributes:
        model: The learner.
        clients: Names, N.
        labels: Shape (N,).
        number: Clusters, K.
        profiles: Shape (N, 72); (0, 72) where none were shared.
        silhouettes: Number of clusters to mean silhouette.
        release: What left each client; None where nothing did.
        changed: Clients that took another model, by round; empty without choices.
    """

    model: str
    clients: tuple[str, ...]
    labels: NDArray[np.int64]
    number: int
    profiles: NDArray[np.float64]
    silhouettes: dict[int, float]
    release: dict[str, Any] | None
    changed: NDArray[np.int64]

    @property
    def settled(self) -> int:
        """The last round in which a client took another model; 0 where nobody ever did."""
        moved = np.flatnonzero(self.changed)
        return int(moved[-1]) + 1 if moved.size else 0

    @property
    def has_settled(self) -> bool:
        """Whether nobody took another model in the last round of all."""
        return not self.changed.size or not self.changed[-1]


def parted(record: RunRecord) -> list[Parted]:
    """Return the clusters of each model that was trained by clusters, in the order of the run."""
    found = []
    for stage in record.stages():
        if stage["training"] != "clustered":
            continue
        kept = weights.load(record.path, f"{stage['model']}-clustered-clusters")
        if kept is None:
            continue
        arrays, meta = kept
        state = weights.load(record.path, f"{stage['model']}-clustered-g0000")
        changed = state[0].get("memory.server.changed") if state else None
        found.append(
            Parted(
                stage["model"],
                tuple(json.loads(meta["clients"])),
                arrays["labels"],
                int(meta["number"]),
                arrays["profiles"],
                {int(k): v for k, v in json.loads(meta["silhouettes"]).items()},
                json.loads(meta["release"]),
                np.zeros(0, np.int64) if changed is None else changed,
            )
        )
    return found


def clusters(record: RunRecord, lang: Language) -> str:
    """The clusters of a report's training section; empty where no model was trained by any."""
    content = ""
    for place, one in enumerate(parted(record)):
        drawn = mean_days(one, lang)
        if drawn is not None:
            title = f"{figure_title('clusters', lang)}: {model_label(one.model, lang)}"
            sizes = np.bincount(one.labels, minlength=one.number)
            alt = f"{title}; " + ", ".join(whole(int(size), lang) for size in sizes)
            content += figure(f"fig-clusters-{place}", title, note("clusters", lang), alt, drawn)
        content += f'<p class="note">{escape(told(one, lang))}</p>\n'
        rows = [
            [model_label(one.model, lang), str(k + 1), whole(len(names), lang), ", ".join(names)]
            for k in range(one.number)
            for names in [[n for n, own in zip(one.clients, one.labels, strict=True) if own == k]]
        ]
        heads = columns(("model", "cluster", "clients", "members"), lang)
        content += table(table_title("clusters", lang), heads, rows)
    return content


def mean_days(one: Parted, lang: Language) -> go.Figure | None:
    """Draw the mean working day, Saturday and Sunday of each cluster; None without profiles."""
    if not len(one.profiles):
        return None
    drawn = go.Figure()
    colours = palette.model_colours([str(k) for k in range(one.number)])
    known = np.isfinite(one.profiles).all(1)
    for k in range(one.number):
        inside = known & (one.labels == k)
        if not inside.any():
            continue
        drawn.add_scatter(
            x=list(range(_DAY_TYPES * _HOURS)),
            y=one.profiles[inside].mean(0).tolist(),
            name=text("report.cluster_of", lang, number=k + 1, clients=int(inside.sum())),
            mode="lines",
            line={"color": colours[str(k)], "dash": _DASHES[k % len(_DASHES)], "width": 2},
        )
    drawn.update_layout(palette.layout(lang, 420))
    days = [text(f"report.day_type.{name}", lang) for name in ("working", "saturday", "sunday")]
    drawn.update_xaxes(
        tickvals=[day * _HOURS + hour for day in range(_DAY_TYPES) for hour in (0, 6, 12, 18)],
        ticktext=[
            f"{hour} h" if hour else f"0 h<br>{escape(day)}"
            for day in days
            for hour in (0, 6, 12, 18)
        ],
    )
    drawn.update_yaxes(title=text("report.axis.of_mean", lang))
    return drawn


def told(one: Parted, lang: Language) -> str:
    """Say what left the clients, what the silhouettes were, and when the clusters settled."""
    said = []
    if one.release is not None:
        said.append(
            text(
                "report.clusters.released",
                lang,
                sensitivity=number(float(one.release["sensitivity"]), 2, lang),
                noise=number(float(one.release["noise"]), 2, lang),
            )
        )
        if one.release["noise"] and one.release.get("simulated", True):
            said.append(text("report.clusters.simulated_noise", lang))
    if one.silhouettes:
        values = ", ".join(f"{k}: {ratio(v, lang)}" for k, v in sorted(one.silhouettes.items()))
        said.append(text("report.clusters.silhouettes", lang, values=values))
    if one.changed.size:
        if one.settled:
            counts = ", ".join(str(int(count)) for count in one.changed)
            how = "settled" if one.has_settled else "unsettled"
            said.append(text(f"report.clusters.{how}", lang, round=one.settled, counts=counts))
        else:
            said.append(text("report.clusters.still", lang))
    return " ".join(said)
