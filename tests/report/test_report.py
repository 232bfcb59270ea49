"""The report: one page, offline, escaped, and the same bytes for the same run."""

import base64
import hashlib
import html
import io
import json
import re
import zlib
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go
import pytest

import interp
from interp import plots
from interp.errors import InterpError, RunError
from interp.report import SECTIONS, Embed, LeftOut, Section, Table, render, write_report
from interp.run import Run

HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, scripts with their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def code(self) -> list[str]:
        """The scripts that run."""
        return [text for text, attrs in self._scripts() if "type" not in attrs]

    def data(self, kind: str = "application/json") -> dict[str, str]:
        """The text of elements that hold data, by id."""
        return {a["id"]: text for text, a in self._scripts() if a.get("type") == kind}

    def _scripts(self) -> list[tuple[str, dict[str, str]]]:
        return list(zip(self.scripts, self.all("script"), strict=True))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    config = interp.preset(
        "smoke",
        preset=HOSTILE,
        **{
            "logging.wandb_project": HOSTILE,
            "training.n_steps": 10,
            "training.checkpoint_every": 10,
        },
    )
    return interp.train(config, tmp_path_factory.mktemp("report") / "run", progress=False)


@pytest.fixture(scope="module")
def source(run) -> str:
    path = write_report(run)
    assert path == run.path / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source) -> Page:
    return Page(source)


def test_the_same_run_gives_the_same_bytes(run, source, tmp_path):
    again = write_report(Run.load(run.path), tmp_path / "again.html")
    assert again.read_bytes() == source.encode()
    assert len(source.encode()) < 6_000_000
    assert str(run.path) not in source


def test_hostile_settings_stay_text(source, page):
    assert HOSTILE not in source
    assert html.escape(HOSTILE, quote=False)[:20] in source
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [a for _, attrs in page.elements for a in attrs if a.startswith("on")]
    # It is shown, though: in the title and twice in the configuration.
    assert page.text.count("<img src=x onerror=alert(1)>") >= 3


def test_hostile_figures_and_sections_stay_text():
    figure = plots.describe(go.Figure(go.Scatter(y=[1], name=HOSTILE)), HOSTILE, HOSTILE)
    section = Section(
        HOSTILE, "a", text=[HOSTILE], results=[(HOSTILE,) * 3], figures={"f": figure},
        tables=[Table(HOSTILE, [HOSTILE], [[HOSTILE]])], terms={HOSTILE: HOSTILE},
    )  # fmt: skip
    page = Page(render(HOSTILE, HOSTILE, [section]))
    assert "img" not in {tag for tag, _ in page.elements}
    assert len(page.code()) == 1
    assert json.loads(page.data()["f-data"])["data"][0]["name"] == HOSTILE


def view(**changes) -> Embed:
    settings = {
        "anchor": "v", "title": "V", "caption": "c", "view": "v", "settings": {"text": HOSTILE},
        "packed": {"bytes": b"\x00\xff" * 500}, "script": "interpViews.v = () => {};",
    }  # fmt: skip
    return Embed(**{**settings, **changes})


def test_views_are_packed_and_their_scripts_allowed():
    two = [view(style="p{}"), view(anchor="w", style="p{}", script="interpViews.w = () => {};")]
    text = render("t", "h", [Section("A", "a", embeds=two)])
    page = Page(text)
    assert json.loads(page.data()["v-settings"]) == {"text": HOSTILE}
    packed = page.data("application/octet-stream")
    assert set(packed) == {"v-bytes", "w-bytes"}
    assert zlib.decompress(base64.b64decode(packed["v-bytes"])) == b"\x00\xff" * 500
    assert len(page.code()) == 3
    assert allowed(page) == [digest(script) for script in page.code()]
    assert text.count("p{}") == 1
    same = Page(render("t", "h", [Section("A", "a", embeds=[view(), view(anchor="w")])]))
    assert len(same.code()) == 2


def test_a_view_cannot_end_its_element():
    for changes in ({"script": "'</SCRIPT>'"}, {"script": "<!--"}, {"style": "</style>"}):
        with pytest.raises(InterpError, match="must"):
            render("t", "h", [Section("A", "a", embeds=[view(**changes)])])


def digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def allowed(page: Page) -> list[str]:
    policy = page.all("meta")[1]["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    return rules["script-src"].split(" ")


def test_policy_forbids_the_network_and_unknown_scripts(page):
    policies = [
        a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data: blob:"
    assert "connect-src" not in rules
    packed = base64.b64decode(page.data("application/octet-stream")["plotly-js"])
    plotly = zlib.decompress(packed).decode()
    assert "plotly.js v" in plotly[:200]
    assert allowed(page) == [digest(script) for script in (*page.code(), plotly)]


def test_nothing_is_loaded(source, page):
    for tag, attrs in page.elements:
        for name in ("src", "srcset", "data", "poster", "action"):
            assert name not in attrs, (tag, attrs)
        if tag == "link":
            assert attrs["href"] == "data:,"
    styles = re.findall(r"<style>(.*?)</style>", source, flags=re.DOTALL)
    assert styles
    assert "url(" not in "".join(styles)
    assert "@import" not in "".join(styles)
    links = [a["href"] for a in page.all("a")]
    assert [link for link in links if not link.startswith("#")] == [
        "https://arxiv.org/abs/2503.21676"
    ]


def test_no_button_sends_figures_away(page):
    assert "showSendToCloud: false" in page.code()[0]  # plotly's default is true
    assert 'plotlyServerURL: ""' in page.code()[0]


def test_figures_are_in_the_page_with_their_captions(run, page):
    data = {name: json.loads(text) for name, text in page.data().items()}
    places = {a["id"]: a["data-figure"] for a in page.all("div") if "data-figure" in a}
    assert set(places.values()) == {name for name in data if name.endswith("-data")}
    assert places == {name.replace("-data", "-plot"): name for name in places.values()}
    assert list(places.values()) == [
        "learning-curves-data",
        "phase-sensitivity-data",
        "known-and-held-out-data",
        "attribute-curves-data",
    ]
    # All figures share the template of the house style.
    assert not [name for name in places.values() if "template" in data[name]["layout"]]
    assert data["figure-template"] == plots.TEMPLATE.to_plotly_json()
    figure = plots.learning_curves(run)
    assert len(data["learning-curves-data"]["data"]) == len(figure.data)
    assert data["learning-curves-data"]["layout"]["title"]["text"] == ""
    assert plots.title(figure) == "Three phases of learning"
    assert plots.caption(figure) in page.text


def test_structure_for_assistive_technology(page):
    tags = [tag for tag, _ in page.elements]
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert tags.count(landmark) == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            if name in attrs:
                assert attrs[name] in ids
    for link in page.all("a"):
        if link["href"].startswith("#"):
            assert link["href"][1:] in ids
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("figure")) == len(page.all("figcaption")) >= 4


def test_numbers_of_the_run(run, page):
    assert "24 people (8 more were held out) in 10 steps of 8 biographies." in page.text
    assert f"{run.curve().iloc[-1]:.2f} nats" in page.text
    held_out = run.curve("attribute_loss", "held_out").iloc[-1]
    assert f"{held_out / run.phase_baseline:.2f} times the baseline" in page.text
    for attribute, level in run.baselines.statistics.items():
        assert f"{level:.3f}" in page.text, attribute
    assert "1 statistics" in page.text
    assert "the plateau has not ended" in page.text  # a high loss is no hallucination yet
    assert run.config.to_yaml() in page.text


def test_sections_can_be_added_and_left_out(run, tmp_path):
    def more(run: Run) -> Section:
        return Section("Attention to names", "names", text=[f"Seed {run.config.seed}."])

    def never(run: Run) -> LeftOut:
        return LeftOut("no data", ["interp memory RUN"], "Something")

    path = write_report(run, tmp_path / "r.html", [SECTIONS[-1], never, more])
    page = Page(path.read_text(encoding="utf-8"))
    assert [a["href"] for a in page.all("a")][1:4] == ["#overview", "#glossary", "#names"]
    assert len(page.code()) == 1  # without figures, no plotly.js
    assert page.data("application/octet-stream") == {}
    assert "Left out: Something" in page.text
    assert "interp memory RUN" in page.text


def test_a_page_of_text_has_no_scripts():
    page = Page(render("t", "h", [Section("A", "a", text=["b"])]))
    assert page.scripts == []
    assert "script-src 'none'" in page.all("meta")[1]["content"]


def test_the_page_begins_with_its_findings():
    found = [Section(HOSTILE, "a", HOSTILE), Section("B", "b", "What b found.", folded=True)]
    page = Page(render("t", "h", [*found, Section("C", "c")]))
    links = [a["href"] for a in page.all("a")]
    assert links[1:7] == ["#overview", "#a", "#b", "#c", "#a", "#b"]
    assert "img" not in {tag for tag, _ in page.elements}
    assert page.text.count("What b found.") == 2


def test_measured_tables_are_in_the_page():
    table = pd.DataFrame({"step": [0, 5], "name": [HOSTILE, "b"]})
    sections = [
        Section("A", "a", downloads={"t": table}),
        Section("B", "b", downloads={"t": table}),
    ]
    page = Page(render("t", "h", sections))
    packed = zlib.decompress(base64.b64decode(page.data("application/octet-stream")["t-csv"]))
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(packed)), table)
    assert [a["data-csv"] for a in page.all("button") if "data-csv" in a] == ["t", "t"]
    other = Section("C", "c", downloads={"t": table[:1]})
    with pytest.raises(InterpError, match="different"):
        render("t", "h", [*sections, other])


def test_anchors_must_differ():
    with pytest.raises(InterpError, match="same"):
        render("t", "h", [Section("A", "same"), Section("B", "same")])


def test_a_run_without_measurements_is_refused(run, tmp_path):
    (tmp_path / "config.yaml").write_text(run.config.to_yaml(), encoding="utf-8")
    with pytest.raises(RunError, match="metric"):
        write_report(Run.load(tmp_path))
    assert not (tmp_path / "report.html").exists()
