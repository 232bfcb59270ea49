"""The report in a browser: drawn, saved, printed, and usable in every way people read pages."""

import csv
import io
import json
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from playwright.sync_api import Page, expect

from interp import plots
from interp.report import Embed, Finding, Listing, Section, Table, render
from interp.report.overview import overview
from tests.browser.conftest import scroll_through

HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"
DRAWN = """() => [...document.querySelectorAll(".plot")]
    .filter((plot) => plot.querySelector(".main-svg")).map((plot) => plot.id)"""
VIEW = """
interpViews.echo = async (element, settings, unpack) => {
  const bytes = await unpack("numbers");
  element.textContent = `${settings.word}: ${[...bytes].join(" ")}`;
};
"""


def small_page(tmp_path: Path, title: str = "A page", **embed) -> Path:
    """A page with one of everything, with hostile text wherever text can be."""
    figure = go.Figure(go.Scatter(y=[1, 3, 2], name=HOSTILE, text=HOSTILE, mode="lines+text"))
    figure.update_layout(xaxis_title=HOSTILE, height=380)
    figure.add_annotation(text=HOSTILE, x=1, y=2)
    plots.describe(figure, HOSTILE, HOSTILE)
    view = Embed(
        "echo", HOSTILE, HOSTILE, "echo", {"word": HOSTILE}, {"numbers": bytes([7, 0, 255])}, VIEW,
        ".view { min-height: 2rem; }", HOSTILE,
    )  # fmt: skip
    first = Section(
        HOSTILE, "first", text=[HOSTILE], results=[(HOSTILE,) * 3],
        findings=[Finding(HOSTILE, HOSTILE, "second", "figure"), Finding("b", "c", command=HOSTILE)],
    )  # fmt: skip
    second = Section(
        "Second", "second", figures={"figure": figure}, embeds=[view],
        tables=[Table(HOSTILE, [HOSTILE, "b\nc"], [["x", HOSTILE], ["1,5", 'say "so"']])],
        listings=[Listing(HOSTILE, HOSTILE)], terms={HOSTILE: HOSTILE},
    )  # fmt: skip
    path = tmp_path / "page.html"
    path.write_text(render(title, HOSTILE, [first, second]), encoding="utf-8")
    return path


def test_every_figure_is_drawn(open_page, report, finished):
    page = open_page(report)
    places = page.locator(".plot").count()
    scroll_through(page)
    assert len(page.evaluate(DRAWN)) == places
    assert page.locator(".notice").count() == 0
    assert page.locator("#overview-learning-curves-plot .main-svg").count() > 0
    # The overview shows figures of other sections: the page holds each only once.
    assert page.locator("[data-figure='learning-curves-data']").count() == 2
    assert page.locator("#learning-curves-data").count() == 1
    sentences = [finding.sentence for finding in overview(finished, []).findings]
    shown = page.locator(".sentence").all_text_contents()
    assert len(shown) == len(sentences) == 9
    assert [one for one in shown[:-1] if one not in sentences] == []


def test_figures_are_drawn_as_they_come_near(open_page, report):
    page = open_page(report)
    page.wait_for_selector("#overview-learning-curves-plot .main-svg")
    drawn = page.evaluate(DRAWN)
    assert len(drawn) < page.locator(".plot").count() / 2
    assert "emergence-order-plot" not in drawn
    before = page.evaluate("document.documentElement.scrollHeight")
    page.locator("#emergence-order-plot").scroll_into_view_if_needed()
    page.wait_for_selector("#emergence-order-plot .main-svg")
    # Figures had their room before they were drawn.
    assert page.evaluate("document.documentElement.scrollHeight") == before


@pytest.mark.parametrize("width", [375, 1280])
def test_a_link_to_a_section_stays_there(open_page, report, width):
    page = open_page(report, width, at="#emergence")
    page.wait_for_selector("#emergence-order-plot .main-svg")
    page.wait_for_timeout(500)
    top = page.locator("#emergence").bounding_box()["y"]
    assert 0 <= top < 150


@pytest.mark.parametrize("dark", [False, True])
def test_figures_are_saved(open_page, report, dark):
    page = open_page(report, dark=dark)
    figure = page.locator("figure", has=page.locator("#overview-learning-curves"))
    title = figure.locator("h4").text_content()
    button = figure.get_by_role("button", name=f"PNG of the figure {title}")
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == (
        "run-of-preset-smoke-seed-0-overview-learning-curves.png"
    )
    image = Path(download.value.path()).read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == (2000, 1280)
    at = image.index(b"IDAT")
    length = struct.unpack(">I", image[at - 4 : at])[0]
    pixels = zlib.decompressobj().decompress(image[at + 4 : at + 4 + length], 5)
    assert pixels[1:4] == b"\xff\xff\xff"  # after the filter's number: the first pixel is white

    with page.expect_download() as download:
        figure.get_by_role("button", name=f"SVG of the figure {title}").click()
    assert download.value.suggested_filename.endswith("-overview-learning-curves.svg")
    drawing = Path(download.value.path()).read_text(encoding="utf-8")
    root = ElementTree.fromstring(drawing)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element for element in root.iter() if element.tag.endswith("}text")]
    assert title in [text.text for text in texts]
    axis = next(text for text in texts if text.text == "training (steps)")
    assert "rgb(28, 33, 38)" in axis.attrib["style"]  # dark ink, whatever the page's theme


def test_tables_are_saved(open_page, report, tmp_path):
    for path in (report, small_page(tmp_path)):
        page = open_page(path)
        tables = page.locator("table")
        buttons = page.locator("[data-table]")
        assert tables.count() == buttons.count() > 0
        for i in range(tables.count()):
            shown = tables.nth(i).evaluate(
                "table => [...table.rows].map(row => [...row.cells].map(cell => cell.textContent))"
            )
            with page.expect_download() as download:
                buttons.nth(i).click()
            assert download.value.suggested_filename.endswith(f"-table-{_place(tables.nth(i))}.csv")
            text = Path(download.value.path()).read_bytes().decode("utf-8")
            assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == shown
            assert text.count("\r\n") == len(shown)


def _place(table) -> str:
    return table.get_attribute("id").rsplit("-", 1)[1]


def test_printing_draws_everything(open_page, report, tmp_path):
    page = open_page(report, at="#emergence")
    page.wait_for_selector("#emergence-order-plot .main-svg")
    assert len(page.evaluate(DRAWN)) < page.locator(".plot").count()
    assert page.pdf(path=tmp_path / "page.pdf")[:5] == b"%PDF-"
    assert len(page.evaluate(DRAWN)) == page.locator(".plot").count()
    page.emulate_media(media="print")
    for selector in ("nav", ".save", ".skip"):
        assert not page.locator(selector).first.is_visible()


def test_hostile_text_stays_text(open_page, tmp_path):
    page = open_page(small_page(tmp_path, HOSTILE))
    scroll_through(page)
    expect(page.locator(".view")).to_have_text(f"{HOSTILE}: 7 0 255")
    assert page.locator("img").count() == 0
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("figcaption").first.text_content() == HOSTILE
    with page.expect_download() as download:
        page.locator("[data-save=svg]").first.click()
    assert download.value.suggested_filename == (
        "img-src-x-onerror-alert-1-script-script-alert-2-script-first-figure.svg"
    )
    drawing = ElementTree.parse(download.value.path())
    assert not [e for e in drawing.iter() if e.tag.endswith("}img") or e.tag.endswith("}script")]
    page.locator(".plot").first.hover()
    page.wait_for_timeout(200)
    assert page.locator("img").count() == 0


def test_a_view_starts_at_its_address(open_page, tmp_path):
    path = tmp_path / "page.html"
    view = Embed("far", "Far", "c", "echo", {"word": "w"}, {"numbers": b"\x01"}, VIEW)
    room = Section("Room", "room", text=["."] * 300)
    path.write_text(render("T", "h", [room, Section("Views", "views", embeds=[view])]))
    page = open_page(path)
    page.wait_for_timeout(200)
    assert page.locator(".view").text_content() == ""
    page.evaluate("location.hash = '#far'")
    expect(page.locator(".view")).to_have_text("w: 1")


def test_a_failing_view_says_so(open_page, tmp_path):
    path = tmp_path / "page.html"
    broken = "interpViews.broken = () => { throw new Error('no data'); };"
    view = Embed("a", "A", "c", "broken", {}, {}, broken)
    path.write_text(render("T", "h", [Section("Views", "views", embeds=[view])]))
    page = open_page(path, script="console.error = () => {};")  # the error itself is meant
    page.wait_for_selector(".notice")
    assert page.get_by_role("alert").text_content() == "no data"


def test_an_old_browser_is_told(open_page, report):
    page = open_page(report, script="delete globalThis.DecompressionStream;")
    page.wait_for_selector("#overview-learning-curves-plot .notice")
    assert "DecompressionStream" in page.get_by_role("alert").first.text_content()
    assert page.locator("table").count() > 0


def test_without_javascript_the_tables_are_there(open_page, report):
    page = open_page(report, 375, javascript=False)
    assert "need JavaScript" in page.locator("main > noscript").inner_text()
    assert page.locator("#overview-table-1").is_visible()
    assert page.locator("nav a").first.is_visible()
    assert not page.locator(".save").first.is_visible()


def require_only_tables_to_scroll(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate("""() => [...document.querySelectorAll("main *")]
        .filter((e) => !e.closest("svg, .scroll, pre, .js-plotly-plot") &&
            e.getBoundingClientRect().right > innerWidth + 1)
        .map((e) => e.outerHTML.slice(0, 100))""")
    assert wide == []


def test_keyboard(open_page, report):
    page = open_page(report, 375)
    page.keyboard.press("Tab")
    assert _focused(page) == "Skip to the content"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.reload()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert _focused(page) == "Sections"
    first = page.locator("#section-list a").first
    assert not first.is_visible()
    page.keyboard.press("Enter")
    assert page.locator(".menu").get_attribute("aria-expanded") == "true"
    assert first.is_visible()
    page.keyboard.press("Escape")
    assert not first.is_visible()
    assert _focused(page) == "Sections"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert _focused(page) == "Attention maps"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#maps"
    assert not first.is_visible()


def test_a_wide_screen_shows_the_sections(open_page, report):
    page = open_page(report, 1280)
    assert not page.locator(".menu").is_visible()
    assert page.locator("#section-list a").last.is_visible()


def _focused(page: Page) -> str:
    return page.evaluate("document.activeElement.textContent").strip()


@pytest.mark.parametrize(("width", "dark"), [(360, True), (800, False)])
def test_accessible_and_only_tables_scroll_sideways(open_page, report, axe, width, dark):
    page = open_page(report, width, dark=dark)
    scroll_through(page)
    require_only_tables_to_scroll(page, width)
    if width == 800:  # a wide screen has the sections beside the text
        page.set_viewport_size({"width": 1280, "height": 900})
    violations = axe(page)
    assert violations == [], json.dumps(violations, indent=2)


def test_headings_are_in_order(open_page, report):
    page = open_page(report)
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
