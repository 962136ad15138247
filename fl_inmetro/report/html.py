"""One run as one self-contained HTML page: no network, a table beside every figure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import fl_inmetro
from fl_inmetro.i18n import Language, text
from fl_inmetro.report import results, sections
from fl_inmetro.report.findings import findings, limits
from fl_inmetro.report.fleet import fleet
from fl_inmetro.report.leakage import leakage
from fl_inmetro.report.markup import bullets, code
from fl_inmetro.report.privacy import privacy
from fl_inmetro.report.uncertainty import uncertainty
from fl_inmetro.runs.layout import write_whole
from fl_inmetro.runs.record import RunRecord

# The browser itself refuses every request the page could make, whatever the data contain.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)

_DRAW = """
for (const box of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(document.getElementById(box.id + "-data").textContent);
  if (box.clientWidth < 560) {  // the legend stands in one column: give it the height it takes
    const entries = figure.data.filter((trace) => trace.showlegend !== false).length;
    figure.layout.height += 20 * entries;
    box.style.height = figure.layout.height + "px";
  }
  Plotly.newPlot(box, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}
"""


def render(record: RunRecord, lang: Language) -> str:
    """Return the report of a run, as it stands now, as one HTML document.

    Raises:
        RunError: FL703 when a file of the run is damaged.
    """
    parts = [
        ("meaning", bullets(findings(record, lang)).replace("<ul>", '<ul class="answer">', 1)),
        ("identification", sections.identification(record, lang)),
        ("results", results.results(record, lang)),
        ("clients", results.clients(record, lang)),
        ("uncertainty", uncertainty(record, lang)),
        ("fleet", fleet(record, lang)),
        ("training", sections.training(record, lang)),
        ("forecasts", sections.forecasts(record, lang)),
        ("privacy", privacy(record, lang)),
        ("leakage", leakage(record, lang)),
        ("data", sections.data(record, lang)),
        ("method", sections.method(record, lang)),
        ("reproduce", sections.reproduce(record, lang)),
        ("limits", bullets(limits(record, lang))),
        ("log", sections.log(record, lang)),
        ("configuration", code(record.config_toml)),
    ]
    titled = [(key, text(f"report.section.{key}", lang), body) for key, body in parts]
    title = text("report.title_compare" if record.kind == "compare" else "report.title", lang)
    return page(title, record.id, titled, lang, _banners(record, lang))


def page(
    title: str,
    identifier: str,
    parts: Sequence[tuple[str, str, str]],
    lang: Language,
    banners: str = "",
) -> str:
    """Return one HTML document that needs no network.

    Args:
        title: Plain text.
        identifier: What the page is about, plain text.
        parts: Anchor, plain title and HTML of each section; those without HTML are left out.
        lang: Language of the page's own words.
        banners: HTML below the title, from `banner`.
    """
    shown = [part for part in parts if part[2]]
    links = "".join(f'<li><a href="#{key}">{escape(head)}</a></li>' for key, head, _ in shown)
    body = "".join(
        f'<section id="{key}">\n<h2>{escape(head)}</h2>\n{content}</section>\n'
        for key, head, content in shown
    )
    noscript = escape(text("report.noscript", lang))
    contents = escape(text("report.contents", lang))
    footer = text("report.footer", lang, version=fl_inmetro.__version__)
    return f"""<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(f"{title}: {identifier}")}</title>
<link rel="icon" href="data:,">
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="id">{escape(identifier)}</p>
{banners}<noscript><p class="banner">{noscript}</p></noscript>
</header>
<nav aria-labelledby="contents">
<h2 id="contents">{contents}</h2>
<ul>{links}</ul>
</nav>
<main>
{body}</main>
<footer>{escape(footer)}</footer>
<script>{_asset("plotly-basic.min.js")}</script>
<script>{_DRAW}</script>
</body>
</html>
"""


def write(record: RunRecord, path: Path, lang: Language) -> Path:
    """Write the report to a file and return its path.

    Raises:
        RunError: FL703 when a file of the run is damaged; FL704 when the place cannot be written.
    """
    write_whole(path, render(record, lang).encode())
    return path


def _banners(record: RunRecord, lang: Language) -> str:
    found = ""
    if record.manifest.get("data", {}).get("simulated"):
        found += banner(text("report.simulated", lang), text("report.simulated_text", lang))
    status = record.status
    name = text(f"report.status.{status}", lang)
    if status == "running":
        found += banner(name, text("report.running", lang))
    elif status == "failed":
        found += banner(name, text("report.failed", lang, reason=record.reason))
    elif status != "completed":
        found += banner(name, text("report.interrupted", lang))
    return found


def banner(head: str, body: str) -> str:
    """Return a line that nobody should overlook; both are plain text."""
    return f'<p class="banner"><strong>{escape(head)}</strong> · {escape(body)}</p>\n'


def _asset(name: str) -> str:
    return files("fl_inmetro.report").joinpath("assets", name).read_text(encoding="utf-8")
