"""The report in a browser: drawn, saved, printed, and usable in every way people read pages."""

import csv
import io
import json
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import plotly.graph_objects as go
import pytest
from playwright.sync_api import Page, expect

from interp import plots
from interp.report import Embed, LeftOut, Listing, Section, Table, render
from tests.browser.conftest import scroll_through
from tests.helpers import wait_for

HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"
DRAWN = """() => [...document.querySelectorAll(".plot")]
    .filter((plot) => plot.querySelector(".main-svg")).map((plot) => plot.id)"""
VIEW = """
interpViews.echo = async (element, settings, unpack) => {
  const bytes = await unpack("numbers");
  element.textContent = `${settings.word}: ${[...bytes].join(" ")}`;
};
"""


def figure(words: str = "words") -> go.Figure:
    drawn = go.Figure(go.Scatter(y=[1, 3, 2], name=words, text=words, mode="lines+text"))
    drawn.update_layout(xaxis_title=words, height=380)
    drawn.add_annotation(text=words, x=1, y=2)
    plots.describe(drawn, words, words)
    return drawn


def small_page(tmp_path: Path, title: str = "A page", **embed) -> Path:
    """A page with one of everything, with hostile text wherever text can be."""
    view = Embed(
        "echo", HOSTILE, HOSTILE, "echo", {"word": HOSTILE}, {"numbers": bytes([7, 0, 255])}, VIEW,
        ".view { min-height: 2rem; }", HOSTILE,
    )  # fmt: skip
    first = Section(HOSTILE, "first", HOSTILE, text=[HOSTILE], results=[(HOSTILE,) * 3])
    absent = LeftOut(HOSTILE, [HOSTILE], HOSTILE)
    second = Section(
        "Second", "second", figures={"figure": figure(HOSTILE)}, embeds=[view], folded=True,
        tables=[Table(HOSTILE, [HOSTILE, "b\nc"], [["x", HOSTILE], ["1,5", 'say "so"']])],
        listings=[Listing(HOSTILE, HOSTILE)], terms={HOSTILE: HOSTILE},
    )  # fmt: skip
    path = tmp_path / "page.html"
    path.write_text(render(title, HOSTILE, [first, second, absent]), encoding="utf-8")
    return path


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")


def test_the_page_begins_with_the_sentences_of_its_sections(open_page, report):
    page = open_page(report)
    sections = page.locator("main > section:has(> .sentence)")
    assert page.locator(".findings li").count() == sections.count() == 9
    said = page.locator(".sentence").all_text_contents()
    listed = page.locator(".findings li").all_text_contents()
    assert all(item.endswith(sentence) for item, sentence in zip(listed, said, strict=True))


def test_the_page_is_short_and_begins_with_its_findings(open_page, report):
    page = open_page(report, 1280, 800)
    for link in page.locator(".findings a").all():
        box = link.bounding_box()
        assert box["y"] + box["height"] <= 800
    scroll_through_open(page)
    assert page.evaluate("document.documentElement.scrollHeight") <= 12 * 800


def scroll_through_open(page: Page) -> None:
    """Draws what stands open; what is folded stays so."""
    for plot in page.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
        expect(plot.locator(".main-svg").first).to_be_attached(timeout=60_000)


def test_figures_are_drawn_as_they_come_near(open_page, report):
    page = open_page(report)
    page.wait_for_selector("#learning-curves-plot .main-svg")
    drawn = page.evaluate(DRAWN)
    assert len(drawn) < page.locator(".plot").count() / 2
    assert "attention-to-names-plot" not in drawn
    before = page.evaluate("document.documentElement.scrollHeight")
    page.locator("#attention-to-names-plot").scroll_into_view_if_needed()
    page.wait_for_selector("#attention-to-names-plot .main-svg")
    # Figures had their room before they were drawn.
    assert page.evaluate("document.documentElement.scrollHeight") == before


def test_a_link_opens_what_is_folded(open_page, report):
    page = open_page(report)
    fold = page.locator("details:has(#known-and-held-out)")
    assert not fold.evaluate("fold => fold.open")
    page.locator(".findings a[href='#held-out']").click()
    assert fold.evaluate("fold => fold.open")
    drawing = page.locator("#known-and-held-out-plot .main-svg").first
    expect(drawing).to_be_in_viewport()
    assert (
        drawing.bounding_box()["width"]
        == page.locator("#known-and-held-out-plot").bounding_box()["width"]
        > 500
    )
    # The same link again, after the reader has closed it; and an anchor inside of a fold.
    fold.locator("summary").click()
    assert not fold.evaluate("fold => fold.open")
    page.locator(".findings a[href='#held-out']").click()
    assert fold.evaluate("fold => fold.open")
    page.evaluate("location.hash = '#attention-table-1'")
    expect(page.locator("#attention-table-1")).to_be_in_viewport()


def test_a_folded_figure_follows_the_window(open_page, report):
    page = open_page(report, at="#phase-sensitivity")
    plot = page.locator("#phase-sensitivity-plot")
    expect(plot.locator(".main-svg").first).to_be_visible()
    fold = page.locator("details:has(#phase-sensitivity)")
    fold.evaluate("fold => { fold.open = false; }")
    page.set_viewport_size({"width": 700, "height": 900})
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    fold.evaluate("fold => { fold.open = true; }")
    drawn = plot.locator(".main-svg").first
    wait_for(lambda: drawn.bounding_box()["width"] <= plot.bounding_box()["width"] < 700)


def test_measured_values_are_saved(open_page, report, finished):
    page = open_page(report)
    with page.expect_download() as download:
        page.locator("#attention ~ .save [data-csv='attention-scores']").click()
    assert download.value.suggested_filename == "run-of-preset-smoke-seed-0-attention-scores.csv"
    saved = pd.read_csv(download.value.path())
    pd.testing.assert_frame_equal(
        saved, pd.read_csv(finished.results_path / "attention" / "scores.csv"), check_dtype=False
    )


@pytest.mark.parametrize("width", [pytest.param(375, marks=pytest.mark.slow), 1280])
def test_a_link_to_a_section_stays_there(open_page, report, width):
    page = open_page(report, width, at="#emergence")
    page.wait_for_selector("#emergence-order-plot .main-svg")
    page.wait_for_timeout(500)
    top = page.locator("#emergence").bounding_box()["y"]
    assert 0 <= top < 150


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_figures_are_saved(open_page, report, dark):
    page = open_page(report, dark=dark)
    figure = page.locator("figure", has=page.locator("#learning-curves"))
    title = figure.locator("h3").text_content()
    button = figure.get_by_role("button", name=f"PNG of the figure {title}")
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == ("run-of-preset-smoke-seed-0-learning-curves.png")
    image = Path(download.value.path()).read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == (2000, 1352)
    at = image.index(b"IDAT")
    length = struct.unpack(">I", image[at - 4 : at])[0]
    pixels = zlib.decompressobj().decompress(image[at + 4 : at + 4 + length], 5)
    assert pixels[1:4] == b"\xff\xff\xff"  # after the filter's number: the first pixel is white

    with page.expect_download() as download:
        figure.get_by_role("button", name=f"SVG of the figure {title}").click()
    assert download.value.suggested_filename.endswith("-learning-curves.svg")
    drawing = Path(download.value.path()).read_text(encoding="utf-8")
    root = ElementTree.fromstring(drawing)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element for element in root.iter() if element.tag.endswith("}text")]
    assert title in [text.text for text in texts]
    axis = next(text for text in texts if text.text == "training (steps, square-root scale)")
    assert "rgb(28, 33, 38)" in axis.attrib["style"]  # dark ink, whatever the page's theme


def test_tables_are_saved(open_page, report, tmp_path):
    for path in (report, small_page(tmp_path)):
        page = open_page(path)
        unfold(page)
        tables = page.locator(".scroll table")
        buttons = page.locator("[data-table]")
        assert tables.count() == buttons.count() > 0
        longest = max(range(tables.count()), key=lambda i: tables.nth(i).locator("tr").count())
        for i in sorted({0, longest, tables.count() - 1}):
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


def test_printing_draws_everything(open_page, tmp_path):
    """Figures in sight, far below and folded: more of them would be drawn in the same way."""
    room = {"text": ["."] * 100}
    sections = [
        Section(name, name, figures={f"{name}-figure": figure()}, folded=name == "folded", **room)
        for name in ("near", "far", "folded")
    ]
    path = tmp_path / "page.html"
    path.write_text(render("A page", "h", sections), encoding="utf-8")
    page = open_page(path, at="#far-figure")
    page.wait_for_selector("#far-figure-plot .main-svg")
    assert len(page.evaluate(DRAWN)) < page.locator(".plot").count() == 3
    assert page.pdf(path=tmp_path / "page.pdf")[:5] == b"%PDF-"
    assert len(page.evaluate(DRAWN)) == page.locator(".plot").count()
    page.emulate_media(media="print")
    for _ in range(100):  # what is out of sight is laid out a frame later
        folded = page.evaluate("""[...document.querySelectorAll("main details > :nth-child(2)")]
            .filter((content) => !content.checkVisibility({ contentVisibilityAuto: true }))
            .map((content) => content.outerHTML.slice(0, 100))""")
        if not folded:
            break
        page.wait_for_timeout(50)
    assert folded == [], "also where no script has opened them"
    for selector in ("nav", ".save", ".skip"):
        assert not page.locator(selector).first.is_visible()


def test_hostile_text_stays_text(open_page, tmp_path):
    page = open_page(small_page(tmp_path, HOSTILE))
    unfold(page)
    scroll_through(page)
    expect(page.locator(".view")).to_have_text(f"{HOSTILE}: 7 0 255")
    assert page.locator("img").count() == 0
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("figcaption").first.text_content() == HOSTILE
    with page.expect_download() as download:
        page.locator("[data-save=svg]").first.click()
    assert download.value.suggested_filename == (
        "img-src-x-onerror-alert-1-script-script-alert-2-script-figure.svg"
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
    page.wait_for_selector("#learning-curves-plot .notice")
    assert "DecompressionStream" in page.get_by_role("alert").first.text_content()
    assert page.locator("table").count() > 0


def test_without_javascript_the_tables_are_there(open_page, report):
    page = open_page(report, 375, javascript=False)
    assert "need JavaScript" in page.locator("main > noscript").inner_text()
    page.locator("summary", has_text="Each attribute at step").click()
    assert page.locator("#attributes-table-1").is_visible()
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
    assert _focused(page) == "Learning"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#learning"
    assert not first.is_visible()


def test_a_wide_screen_shows_the_sections(open_page, report):
    page = open_page(report, 1280)
    assert not page.locator(".menu").is_visible()
    assert page.locator("#section-list a").last.is_visible()


def _focused(page: Page) -> str:
    return page.evaluate("document.activeElement.textContent").strip()


@pytest.mark.parametrize(
    ("width", "dark"), [(360, True), pytest.param(800, False, marks=pytest.mark.slow)]
)
def test_all_is_drawn_and_accessible_and_only_tables_scroll_sideways(
    open_page, report, axe, width, dark
):
    page = open_page(report, width, dark=dark)
    places = page.locator(".plot").count()
    unfold(page)
    scroll_through(page)
    assert len(page.evaluate(DRAWN)) == places > 20
    assert page.locator(".notice").count() == 0
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
