import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from fl_inmetro import events as ev
from fl_inmetro.errors import RunError
from fl_inmetro.i18n import text
from fl_inmetro.report.html import render, write
from fl_inmetro.runs import RunRecord
from tests.builders import (
    DATA,
    client_names,
    compare_events,
    compare_run,
    create,
    run_events,
    single_run,
    write_forecasts,
)

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """What a browser would build: tags, nesting faults, headings, tables, text outside scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.faults, self.headings, self.open = [], [], [], []
        self.rows, self.words, self.scripts, self.links, self.ids = [], [], [], [], []
        self.feed(html)
        self.close()
        self.faults += [f"unclosed {tag}" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        for key in ("src", "href", "action", "data", "poster", "srcset"):
            if key in values:
                self.links.append(values[key])
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> out of place")

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.words.append(data)
            if self.open and self.open[-1] in ("td", "th") and self.rows:
                self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    return RunRecord.open(compare_run(tmp_path_factory.mktemp("runs"), clients=24))


@pytest.fixture(scope="module", params=["en", "pt-BR"])
def page(request, compared):
    return request.param, Page(render(compared, request.param))


def test_the_page_is_well_formed_and_says_its_language(page):
    lang, found = page
    assert found.faults == []
    assert found.tags[0] == ("html", {"lang": lang})
    assert len(found.ids) == len(set(found.ids))


def test_headings_go_down_one_step_at_a_time(page):
    _, found = page
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(found.headings, found.headings[1:], strict=False))


def test_every_table_header_has_a_scope_and_every_table_a_caption(page):
    _, found = page
    assert all(a.get("scope") in ("col", "row") for tag, a in found.tags if tag == "th")
    names = [tag for tag, _ in found.tags]
    assert names.count("caption") == names.count("table") >= 8


def test_nothing_is_fetched(page):
    _, found = page
    assert all(link.startswith("#") or link == "data:," for link in found.links)
    targets = {link[1:] for link in found.links if link.startswith("#")}
    assert targets <= set(found.ids)
    policies = [a for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policies[0]["content"]
    css = files("fl_inmetro.report").joinpath("assets/page.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_plotly_is_inlined_once_and_every_figure_has_its_data_and_a_description(page):
    _, found = page
    assert sum("Plotly, Inc." in script for script in found.scripts) == 1
    plots = [a for _, a in found.tags if a.get("class") == "plot"]
    assert len(plots) == 6
    assert all(a["role"] == "img" and len(a["aria-label"]) > 30 for a in plots)
    data = [a["id"] for t, a in found.tags if t == "script" and a.get("type") == "application/json"]
    assert data == [f"{a['id']}-data" for a in plots]
    assert all(json.loads(s)["data"] for s in found.scripts if s.startswith("{"))


def test_the_table_has_the_scores_of_the_run(compared, page):
    lang, found = page
    mark = "," if lang == "pt-BR" else "."
    federated = next(
        row for row in compared.scores() if (row["model"], row["training"]) == ("mlp", "federated")
    )
    cells = next(
        row for row in found.rows if row[:2] == ["MLP", text("report.training.federated", lang)]
    )
    assert cells[2] == f"{federated['nmae']:.4f}".replace(".", mark)
    assert cells[4].startswith(f"{federated['mae_kwh']:.3f}".replace(".", mark))
    baseline = text("report.training.baseline", lang)
    baselines = [row for row in found.rows if len(row) == len(cells) and baseline in row]
    assert len(baselines) == 4


def test_simulated_data_are_labelled_before_anything_else(page):
    lang, found = page
    label = text("report.simulated", lang)
    assert label in found.text
    assert found.text.index(label) < found.text.index(text("report.section.meaning", lang))


def test_measured_data_carry_no_such_label(tmp_path):
    data = {**DATA, "simulated": False, "title": "Meters"}
    with create(tmp_path, data=data) as recorder:
        for event in run_events(client_names(3)):
            recorder(event)
    html = Page(render(RunRecord.open(recorder.path), "en"))
    assert text("report.simulated", "en") not in html.text


def test_what_is_needed_to_reproduce_is_there(compared, page):
    _, found = page
    assert compared.manifest["config_hash"] in found.text
    assert "fl-inmetro compare config.toml --seed 7" in found.text
    assert " ".join(compared.config_toml.split()) in found.text
    for name, version in compared.manifest["versions"].items():
        assert f"{name} {version}" in found.text
    assert "sim-home-099" in found.text  # left out, with the reason


def test_the_meaning_is_computed_from_the_numbers(tmp_path):
    clients = {"a": 0.08, "b": 0.12}
    with create(tmp_path) as recorder:
        recorder(ev.RunStarted("mlp", "federated", 2, 1, 3))
        recorder(ev.GroupStarted(0, "all", 2))
        recorder(ev.RoundFinished(0, 1, 0.5, 0.1, True, 3_000_000, 1_000_000, 1.0))
        for model, training, factor in (
            ("ha4", "baseline", 2.0),
            ("mlp", "local", 1.25),
            ("mlp", "federated", 1.0),
            ("mlp", "centralised", 0.8),
        ):
            rows = {name: {"nmae": value * factor} for name, value in clients.items()}
            scores = {"nmae": 0.1 * factor, "mae_kwh": 0.5, "rmse_kwh": 0.7, "points": 48.0}
            if training == "federated":
                scores["better_than_local"] = 1.0
            recorder(ev.ModelScored(model, training, scores, rows))
        recorder(ev.RunFinished("completed", 1.0))
    page = Page(render(RunRecord.open(recorder.path), "en")).text
    # 0.1 against 0.2: half the error. Local 0.125: gain 20 %. Centralised 0.08: 25 % above it.
    assert (
        "mean nMAE 0.1000. The best baseline, HA4, has 0.2000. The error is 50.0 % lower." in page
    )
    assert "100 % of the clients have a lower error" in page
    assert "(median gain in nMAE 20.0 %)" in page
    assert "would give nMAE 0.0800; keeping them apart costs 25.0 % more error" in page
    assert "moved 4.00 MB in 1 rounds: 2.00 MB per client" in page


def test_a_model_worse_than_the_baseline_is_called_worse(tmp_path):
    with create(tmp_path) as recorder:
        recorder(ev.ModelScored("ha4", "baseline", {"nmae": 0.1}, {}))
        recorder(ev.ModelScored("mlp", "federated", {"nmae": 0.15}, {}))
    page = Page(render(RunRecord.open(recorder.path), "en")).text
    assert "The error is 50.0 % higher: the baseline is to be preferred." in page


HOSTILE = '<script>alert("x")</script>'


@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_everything_that_comes_from_data_is_inert(tmp_path, lang):
    names = [HOSTILE, '"><img src=x onerror=alert(1)>', "</script><svg onload=alert(2)>"]
    data = {
        **DATA,
        "title": HOSTILE,
        "citation": HOSTILE,
        "licence": "</pre></section>",
        "excluded": {HOSTILE: HOSTILE},
        "cleaning": {HOSTILE: 3},
        "files": {HOSTILE: "00"},
        "clients": names,
    }
    with create(tmp_path, data=data) as recorder:
        for event in compare_events(names, 2, ["mlp"]):
            if isinstance(event, ev.RunFinished):
                recorder(ev.ClientRejected(0, 1, HOSTILE, HOSTILE, HOSTILE))
                recorder(ev.Note("warning", HOSTILE))
                recorder(ev.ModelScored(HOSTILE, HOSTILE, {"nmae": 0.5}, {HOSTILE: {"nmae": 0.5}}))
                event = ev.RunFinished("failed", 1.0, HOSTILE)
            recorder(event)
        write_forecasts(recorder.path / "forecasts.parquet", names, [("mlp", "federated")])
    html = render(RunRecord.open(recorder.path), lang)
    page = Page(html)
    assert page.faults == []
    tags = [tag for tag, _ in page.tags]
    assert "img" not in tags
    assert "svg" not in tags
    assert not any(k.startswith("on") for _, attrs in page.tags for k in attrs)
    # Only ours run: Plotly and the drawing; everything else in a script element is JSON.
    running = [a for t, a in page.tags if t == "script" and a.get("type") != "application/json"]
    assert len(running) == 2
    assert page.text.count(HOSTILE) >= 8  # shown to the reader, as text


def test_an_interrupted_run_shows_what_it_has(tmp_path):
    with create(tmp_path, kind="run") as recorder:
        for event in run_events(client_names(4), 6):
            if isinstance(event, ev.RoundStarted) and event.round == 4:
                break
            recorder(event)
    page = Page(render(RunRecord.open(recorder.path), "en"))
    assert page.faults == []
    assert text("report.interrupted", "en") in page.text
    assert text("report.finding.unscored", "en") in page.text
    assert ["MLP", "federated", "3"] in [row[:3] for row in page.rows]


def test_a_run_that_has_only_begun_renders(tmp_path):
    with create(tmp_path) as recorder:
        page = Page(render(RunRecord.open(recorder.path), "pt-BR"))
    assert page.faults == []
    assert text("report.running", "pt-BR") in page.text


def test_a_single_run_has_its_baselines_beside_it(tmp_path):
    page = Page(render(RunRecord.open(single_run(tmp_path)), "en"))
    assert page.faults == []
    assert sum("baseline" in row for row in page.rows) == 4
    assert "fl-inmetro run config.toml" in page.text


def test_a_thousand_clients_fit_in_three_megabytes(tmp_path):
    names = client_names(1000)
    with create(tmp_path) as recorder:
        for event in compare_events(names, 2, ["ridge", "mlp"]):
            recorder(event)
        write_forecasts(recorder.path / "forecasts.parquet", names[:5], [("mlp", "federated")])
    path = write(RunRecord.open(recorder.path), tmp_path / "out" / "r.html", "en")
    assert path.stat().st_size < 3_000_000
    page = Page(path.read_text())
    assert page.faults == []
    assert sum(row[0] == "sim-home-999" for row in page.rows if row) >= 2


def test_more_clients_than_a_page_can_hold_are_cut_and_counted(tmp_path):
    names = client_names(2500)
    with create(tmp_path, kind="run") as recorder:
        for event in run_events(names, 1):
            recorder(event)
    html = render(RunRecord.open(recorder.path), "en")
    assert len(html.encode()) < 3_000_000
    assert "2,000 of 2,500 clients are shown" in Page(html).text


def test_a_report_that_cannot_be_written_is_a_coded_error(tmp_path):
    record = RunRecord.open(single_run(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as caught:
        write(record, tmp_path / "file" / "report.html", "en")
    assert caught.value.faults[0].code == "FL704"


def test_the_vendored_plotly_is_the_basic_bundle_with_its_licence():
    assets = files("fl_inmetro.report").joinpath("assets")
    code = assets.joinpath("plotly-basic.min.js").read_text(encoding="utf-8")
    assert code.startswith("/**\n* plotly.js (basic - minified) v4.1.1")
    assert "</script" not in code.lower()
    assert "MIT License" in assets.joinpath("plotly-basic.LICENSE.txt").read_text(encoding="utf-8")
