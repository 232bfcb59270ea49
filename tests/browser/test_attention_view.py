"""The attention view in a browser: in the report's page, and as a widget with a kernel that is played."""

import base64
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from interp.maps import (
    TrainingInfo,
    asset,
    map_text,
    record_maps,
    unpack_maps,
    view_settings,
    view_text,
    words_of,
)
from interp.maps.widget import to_choose
from interp.report import Section, render
from interp.report.maps import maps_section
from interp.run import Run

HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"
STEP = ".av-times .av-step"
CHOSEN = ".av-panel:first-child .av-chosen"


@pytest.fixture(scope="module")
def section(finished: Run) -> Section:
    found = maps_section(finished)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def maps_page(section: Section, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "page.html"
    path.write_text(render("Maps", "A page with maps alone.", [section]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def weights(finished: Run) -> np.ndarray:
    """What the view has to show of the first person: step, layer, head, query, key."""
    return unpack_maps(record_maps(finished, [map_text(finished, 0)])[0])


@pytest.fixture
def view(open_page, maps_page: Path):
    def open_(**how) -> Page:
        page = open_page(maps_page, **how)
        page.locator(".attention-view").scroll_into_view_if_needed()
        expect(page.locator(".av-panel-title").first).not_to_be_empty()
        return page

    return open_


def token(page: Page, position: int):
    return page.locator(f".av-panel:first-child .av-token[data-position='{position}']")


def attends_to(page: Page) -> list[tuple[str, float]]:
    """The readout of the chosen token: tokens and weights, the strongest first."""
    items = page.locator(".av-panel:first-child li.av-from").all()
    return [
        (li.locator("span").first.inner_text(), float(li.locator("b").inner_text())) for li in items
    ]


def expected(weights: np.ndarray, tokens: list[str], step: int, head: tuple[int, int], query: int):
    row = weights[step, head[0], head[1], query]
    order = np.argsort(-row, kind="stable")[:5]
    return [
        (tokens[key], pytest.approx(row[key], abs=0.0051)) for key in order if row[key] >= 0.005
    ]


def test_the_text_is_there_with_its_marks(view, finished: Run) -> None:
    page, text = view(), map_text(finished, 0)
    tokens = page.locator(".av-panel:first-child .av-text .av-token")
    assert tokens.all_inner_texts() == list(text.tokens)
    assert page.locator(".av-panel:first-child .av-text .av-name").count() == 18
    marks = view_text(text)["marks"]
    classes = [one.get_attribute("class").split() for one in tokens.all()]
    assert [f"av-{mark}" for mark in marks] == [names[1] for names in classes]
    names = page.locator(".av-person option").all_inner_texts()
    assert names[0] == finished.population.name(0)
    assert names[-1].startswith(finished.population.name(24))
    assert "held out" in names[-1]


def test_the_slider_moves_with_arrow_keys(view, finished: Run) -> None:
    page, steps = view(), finished.steps
    slider = page.get_by_role("slider", name="Checkpoint", exact=True)
    expect(page.locator(STEP)).to_contain_text(f"step {steps[-1]}")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(STEP)).to_contain_text(f"step {steps[-2]}")
    page.keyboard.press("Home")
    expect(page.locator(STEP)).to_contain_text("step 0 (statistics)")
    assert slider.get_attribute("aria-valuetext") == "step 0 (statistics)"
    expect(page.locator(".av-panel-title").first).to_contain_text("Step 0 (statistics)")
    assert page.locator(".av-times .av-phase-statistics").count() == 1


def test_the_step_changes_what_is_shown(view, finished: Run, weights: np.ndarray) -> None:
    page, tokens = view(), list(map_text(finished, 0).tokens)
    page.get_by_role("radio", name="head 1.0").click()
    token(page, 30).click()
    last = len(finished.steps) - 1
    assert attends_to(page) == expected(weights, tokens, last, (1, 0), 30)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("Home")
    expect(page.locator(STEP)).to_contain_text("step 0")
    assert attends_to(page) == expected(weights, tokens, 0, (1, 0), 30)


RECORD = """() => {
    globalThis.shown = [];
    globalThis.labels = [];
    const record = (selector, read, into, what) => {
        const element = document.querySelector(selector);
        const note = () => { if (read(element) !== into.at(-1)) into.push(read(element)); };
        new MutationObserver(note).observe(element, what);
    };
    record(".av-times .av-step", (e) => e.textContent, shown,
        { childList: true, characterData: true, subtree: true });
    record(".av-play", (e) => e.getAttribute("aria-label"), labels, { attributes: true });
}"""
"""Notes every step that is shown and what the button says: a test that looks may come too late."""


def test_play_runs_through_training_and_stops(view, finished: Run) -> None:
    page, frame = view(), 450  # milliseconds
    page.clock.install()
    page.evaluate(RECORD)
    page.get_by_role("button", name="Play through training").click()
    page.clock.run_for(frame * (len(finished.steps) + 1))
    # The click has made it a button to pause: it says this again at the end, and not before.
    expect(page.get_by_role("button", name="Play through training")).to_be_visible()
    shown = [int(re.match(r"step (\d+) ", text)[1]) for text in page.evaluate("shown")]
    assert shown == finished.steps
    assert page.evaluate("labels") == ["Pause", "Play through training"]


def test_hovering_shows_a_token_and_leaving_brings_the_chosen_back(
    view, finished: Run, weights: np.ndarray
) -> None:
    page, tokens = view(), list(map_text(finished, 0).tokens)
    page.get_by_role("radio", name="head 0.1").click()
    token(page, 12).click()
    token(page, 40).hover()
    assert attends_to(page) == expected(weights, tokens, -1, (0, 1), 40)
    assert page.locator(CHOSEN).get_attribute("data-position") == "40"
    shade = token(page, 40).evaluate("e => getComputedStyle(e).backgroundColor")
    alpha = float(re.search(r"([\d.]+)\)$", shade)[1])
    assert alpha == pytest.approx(0.78 * np.sqrt(weights[-1, 0, 1, 40, 40]), abs=0.01)
    page.locator("h1").hover()
    assert page.locator(CHOSEN).get_attribute("data-position") == "12"
    assert attends_to(page) == expected(weights, tokens, -1, (0, 1), 12)


def test_later_tokens_show_what_attends_to_the_chosen_one(view, weights: np.ndarray) -> None:
    page = view()
    page.get_by_role("radio", name="head 0.0").click()
    token(page, 1).click()
    to = page.locator(".av-panel:first-child li.av-to b").all_inner_texts()
    column = np.sort(weights[-1, 0, 0, 2:, 1])[::-1][:5]
    assert [float(one) for one in to] == pytest.approx(list(column), abs=0.0051)
    last = page.locator(".av-panel:first-child .av-token").count() - 1
    token(page, last).click()
    expect(page.locator(".av-panel:first-child .av-strongest").last).to_contain_text(
        "nothing above"
    )


def test_tokens_are_chosen_with_the_keyboard(view) -> None:
    page = view()
    token(page, 5).click()
    token(page, 5).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.position") == "6"
    assert token(page, 6).get_attribute("aria-selected") == "true"
    page.keyboard.press("Home")
    assert page.locator(CHOSEN).get_attribute("data-position") == "0"
    page.keyboard.press("ArrowLeft")
    assert page.locator(CHOSEN).get_attribute("data-position") == "0"
    page.keyboard.press("End")
    last = page.locator(".av-panel:first-child .av-token").count() - 1
    assert page.locator(CHOSEN).get_attribute("data-position") == str(last)
    stops = page.locator(".av-panel:first-child .av-token[tabindex='0']")
    assert stops.count() == 1  # one stop of the Tab key for the whole text


def test_heads_are_chosen_with_the_keyboard_and_have_their_roles(view, finished: Run) -> None:
    page = view()
    page.get_by_role("radio", name="head 0.0").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    checked = page.locator(".av-head[aria-checked='true']")
    assert checked.count() == 1
    assert checked.locator("span").inner_text() == "1.1"
    page.keyboard.press("ArrowRight")
    assert checked.locator("span").inner_text() == "1.mean"
    roles = finished.result("attention", "roles")
    of_last = (
        roles[roles["step"] == finished.steps[-1]]
        .set_index(["layer", "head"])["role"]
        .fillna("none")
    )
    for (layer, head), role in of_last.items():
        shown = page.locator(".av-head", has_text=f"{layer}.{head}").locator("small").inner_text()
        assert shown == ("" if role == "none" else role)


def test_facts_lead_to_where_they_are_predicted(view, finished: Run) -> None:
    page, record = view(), record_maps(finished, [map_text(finished, 0)])[0]
    told = view_text(record.text)["facts"]
    chips = page.locator(".av-panel:first-child .av-fact")
    assert chips.count() == 6
    for chip, fact in zip(chips.all(), told, strict=True):
        chip.click()
        assert page.locator(CHOSEN).get_attribute("data-position") == str(fact["position"])
        own = np.prod(record.own[-1, fact["position"] :][: fact["length"]] / 255)
        words = "<1%" if own < 0.01 else f"{100 * own:.0f}%"
        assert chip.locator("em").inner_text() == words
        assert chip.locator("strong").inner_text() == fact["value"]


def test_two_checkpoints_side_by_side(view, finished: Run, weights: np.ndarray) -> None:
    page, tokens = view(), list(map_text(finished, 0).tokens)
    assert not page.locator(".av-panel").nth(1).is_visible()
    page.get_by_label("Compare with another checkpoint").check()
    panels = page.locator(".av-panel")
    assert panels.nth(1).is_visible()
    boxes = [panels.nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.get_by_role("slider", name="Compared with").focus()
    page.keyboard.press("Home")
    expect(panels.nth(1).locator(".av-panel-title")).to_contain_text("Step 0")
    page.get_by_role("radio", name="head 1.1").click()
    panels.nth(1).locator(".av-token[data-position='20']").click()
    assert attends_to(page) == expected(weights, tokens, -1, (1, 1), 20)
    other = [float(b) for b in panels.nth(1).locator("li.av-from b").all_inner_texts()]
    assert other == pytest.approx(list(np.sort(weights[0, 1, 1, 20])[::-1][:5]), abs=0.0051)
    page.get_by_label("Compare with another checkpoint").uncheck()
    assert not panels.nth(1).is_visible()


def test_a_link_opens_the_same_view(view, open_page, maps_page: Path, finished: Run) -> None:
    page = view()
    assert "#" not in page.url  # a page that is merely read keeps its address
    page.locator(".av-person").select_option(index=2)
    page.get_by_role("radio", name="mean of layer 0").click()
    page.get_by_label("Compare with another checkpoint").check()
    page.get_by_role("slider", name="Checkpoint", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    token(page, 17).click()
    expect(page).to_have_url(re.compile("token=17"))  # it follows after a moment
    fragment = "#" + page.url.split("#")[1]
    assert f"step={finished.steps[-2]}" in fragment
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator(".av-tools .av-done")).to_contain_text("link to this view")

    again = open_page(maps_page, at=fragment, height=500)
    expect(again.locator(".av-panel-title").first).to_contain_text(f"Step {finished.steps[-2]}")
    for selector, count in {
        ".av-panel": 2,
        ".av-chosen": 2,
        ".av-head[aria-checked='true']": 1,
    }.items():
        ours, theirs = (p.locator(selector) for p in (page, again))
        assert theirs.count() == count
        assert theirs.all_inner_texts() == ours.all_inner_texts()
    assert again.locator(".av-person").input_value() == page.locator(".av-person").input_value()
    expect(again.locator("#attention-maps")).to_be_in_viewport()


@pytest.mark.parametrize(
    "query",
    ["", "?", "?step=-1&head=9.9&token=x&person=77", "?head=0&compare=", "?step=1e99&token=99999"],
)
def test_links_that_make_no_sense_show_what_they_can(view, query: str) -> None:
    page = view(at=f"#attention-maps{query}")
    expect(page.locator(STEP)).to_contain_text("step 40 ")
    assert page.locator(CHOSEN).count() == 1
    assert page.locator(".av-head[aria-checked='true']").count() == 1
    assert not page.locator(".av-panel").nth(1).is_visible()


def test_maps_are_saved(view, finished: Run, tmp_path: Path) -> None:
    page = view(dark=True)
    page.get_by_label("Compare with another checkpoint").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the attention map as SVG").click()
    assert download.value.suggested_filename.endswith(".svg")
    root = ElementTree.fromstring(Path(download.value.path()).read_bytes())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert finished.population.name(0) in texts[0]
    assert sum(text == "<bos>" for text in texts) == 4  # rows and columns of two maps
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the attention map as PNG").click()
    data = Path(download.value.path()).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (2 * int(root.attrib["width"]), 2 * int(root.attrib["height"]))


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)])
def test_nothing_is_cut_off_and_axe_agrees(view, axe, width: int, dark: bool) -> None:
    page = view(width=width, height=800, dark=dark)
    page.get_by_label("Compare with another checkpoint").check()
    token(page, 3).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate("""() => [...document.querySelectorAll(".attention-view *")]
        .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1
            && !e.closest(".av-slider, .av-cross")).map((e) => e.className)""")
    assert cut == []
    assert axe(page) == []


def test_the_longest_weight_leaves_text_readable(view, axe) -> None:
    """Position 0 attends to itself alone: the strongest shade there is."""
    page = view(width=360)
    token(page, 0).click()
    assert attends_to(page) == [("<bos>", 1.0)]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert axe(page) == []


def test_print_shows_the_view_without_its_tools(view) -> None:
    page = view()
    page.emulate_media(media="print")
    assert not page.locator(".av-play").is_visible()
    assert not page.locator(".av-tools").is_visible()
    assert page.locator(".av-text").first.is_visible()


def test_hostile_texts_stay_texts(open_page, section: Section, tmp_path: Path) -> None:
    embed = section.embeds[0]
    settings = json.loads(json.dumps(embed.settings))
    text = settings["texts"][0]
    text["name"] = HOSTILE
    text["tokens"][1] = HOSTILE
    text["facts"][0]["value"] = HOSTILE
    settings["words"] = [HOSTILE] * len(settings["words"])
    path = tmp_path / "hostile.html"
    page_of = [replace(section, embeds=[replace(embed, settings=settings)])]
    path.write_text(render("Maps", "h", page_of), encoding="utf-8")
    page = open_page(path, at="#attention-maps?token=1")
    expect(token(page, 1)).to_have_text(HOSTILE)
    expect(page.locator(".av-person option").first).to_have_text(HOSTILE)
    assert page.locator(".attention-view img, .attention-view script").count() == 0
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the attention map as SVG").click()
    root = ElementTree.fromstring(Path(download.value.path()).read_bytes())
    assert not [e for e in root.iter() if e.tag.endswith(("img", "script"))]


def test_damaged_maps_are_reported(open_page, section: Section, tmp_path: Path) -> None:
    embed = section.embeds[0]
    packed = {key: data[:-1] if key == "patterns-0" else data for key, data in embed.packed.items()}
    path = tmp_path / "damaged.html"
    page_of = [replace(section, embeds=[replace(embed, packed=packed)])]
    path.write_text(render("Maps", "h", page_of), encoding="utf-8")
    page = open_page(path, at="#attention-maps")
    expect(page.locator(".av-message")).to_contain_text("are incomplete")


WIDGET = """<!doctype html><html lang="en"><meta charset="utf-8"><title>w</title><style>{style}</style>
<div id="cell"></div><script>
const listeners = {{}}, sent = [];
globalThis.people = {people};
const values = {{ settings: {settings}, state: {state} }};
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
globalThis.model = {{
  get: (name) => values[name],
  set: (name, value) => {{ values[name] = value; model.tell(`change:${{name}}`); }},
  save_changes: () => sent.push({{ ...values.state }}),
  on: (event, f) => {{ (listeners[event] ??= []).push(f); }},
  off: (event, f) => {{ listeners[event] = (listeners[event] ?? []).filter((one) => one !== f); }},
  tell: (event, ...given) => (listeners[event] ?? []).forEach((f) => f(...given)),
  count: () => Object.values(listeners).flat().length,
  send: ({{ person, question }}) => setTimeout(() => {{
    const found = people[person];
    if (!found) return model.tell("msg:custom", {{ question, error: `Nobody is called ${{person}}.` }}, []);
    if (found.error) return model.tell("msg:custom", {{ question, ...found }}, []);
    const {{ text, words, patterns, predictions }} = found;
    model.tell("msg:custom", {{ question, text, words, keys: ["patterns", "predictions"] }},
      [patterns, predictions].map((one) => new DataView(bytes(one).buffer)));
  }}, 5),
}};
globalThis.sent = sent;
const source = new Blob([{esm}], {{ type: "text/javascript" }});
import(URL.createObjectURL(source)).then((module) => {{
  globalThis.render = module.default.render;
  globalThis.cleanup = render({{ model, el: document.getElementById("cell") }});
}});
</script></html>"""


@pytest.fixture
def widget(open_page, finished: Run, tmp_path: Path):
    """The widget's page, with a kernel that is played: it knows the people 3 and 7."""

    def open_(**state) -> Page:
        words: list[int] = []
        people = {}
        records = record_maps(finished, [map_text(finished, one) for one in (3, 7)])
        for record in records:
            words = words_of([record], words)
            packed = record.packed(words)
            people[record.text.number] = {
                "text": view_text(record.text),
                "words": finished.tokenizer.convert_ids_to_tokens(words),
                **{key: base64.b64encode(data).decode() for key, data in packed.items()},
            }
        first = words_of(records[:1])
        settings = view_settings(
            records[:1], first, finished.tokenizer, TrainingInfo.of(finished)
        ) | {"search": True}
        path = tmp_path / "widget.html"
        esm = asset("attention.js") + asset("widget.js")
        fields = {"people": people, "settings": settings, "state": state, "esm": esm}
        inlined = {name: json.dumps(value).replace("</", "<\\/") for name, value in fields.items()}
        path.write_text(WIDGET.format(style=asset("attention.css"), **inlined), encoding="utf-8")
        page = open_page(path)
        expect(page.locator(".av-panel-title").first).not_to_be_empty()
        return page

    return open_


def test_the_widget_shows_who_is_asked_for(widget, finished: Run) -> None:
    page = widget(step=20)
    expect(page.locator(STEP)).to_contain_text("step 20")
    assert "#" not in page.url
    page.locator(".av-search input").fill("7")
    page.locator(".av-search input").press("Enter")
    expect(page.locator(".av-person option:checked")).to_have_text(finished.population.name(7))
    page.locator(".av-search input").fill("Nobody")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".av-message")).to_have_text("Nobody is called Nobody.")
    tokens = page.locator(".av-panel:first-child .av-text .av-token")
    assert tokens.all_inner_texts() == list(map_text(finished, 7).tokens)


@pytest.mark.parametrize(("size", "dark"), [((1280, 800), False), ((390, 844), True)])
def test_matches_stand_below_the_search_and_are_chosen(
    widget, axe, finished: Run, size: tuple[int, int], dark: bool
) -> None:
    page, name = widget(), finished.population.name
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme="dark" if dark else "light")
    several = [(number, name(number)) for number in range(7, 15)]
    page.evaluate("(told) => { people.Ann = told; }", to_choose("Ann", several))
    field = page.locator(".av-search input")
    field.fill("Ann")
    field.press("Enter")
    message, matches = page.locator(".av-message"), page.locator(".av-matches button")
    expect(message).to_have_text("8 have 'Ann' in their name. Choose one:")
    assert matches.all_inner_texts() == [f"{full} {number}" for number, full in several]
    # All of it is in the window, between the search and the slider.
    box, below = field.bounding_box(), page.locator(".av-times").bounding_box()
    for shown in (message, matches.first, matches.last):
        expect(shown).to_be_in_viewport(ratio=1)
        assert box["y"] - 8 <= shown.bounding_box()["y"] < below["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert axe(page) == []
    page.get_by_role("radio", name="head 0.1").click()
    expect(matches).to_have_count(8)  # they stay until somebody is chosen
    matches.first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".av-person option:checked")).to_have_text(name(7))
    expect(matches).to_have_count(0)
    expect(message).to_have_text("")
    assert page.evaluate("document.activeElement.type") == "search"


def test_the_widget_and_the_kernel_share_the_state(widget, finished: Run) -> None:
    page = widget()
    page.get_by_role("radio", name="head 0.1").click()
    assert page.evaluate("sent.map((state) => state.head)") == ["1.0", "0.1"]  # and no half state
    assert page.evaluate("sent.at(-1).person") == 3
    page.evaluate("model.set('state', { person: 7, step: 0, head: '1.mean', compare: 40 })")
    expect(page.locator(".av-panel-title").first).to_have_text(
        "Step 0 (statistics), mean of layer 1's heads"
    )
    expect(page.locator(".av-person option:checked")).to_have_text(finished.population.name(7))
    assert page.locator(".av-panel").nth(1).is_visible()
    page.evaluate("cleanup()")
    assert page.evaluate("model.count()") == 0


def test_the_last_of_quick_changes_counts(widget, finished: Run) -> None:
    page = widget()
    page.evaluate("""() => {
        const show = (person) => {
            model.set("state", { person });
        };
        show(7);
        show(7);
        show(3);
    }""")
    page.wait_for_timeout(300)
    expect(page.locator(".av-person option:checked")).to_have_text(finished.population.name(3))
    assert page.evaluate("model.get('state').person") == 3
    names = page.locator(".av-person option").all_inner_texts()
    assert len(names) == len(set(names))
    page.evaluate("model.set('state', { person: 99 })")
    expect(page.locator(".av-message")).to_have_text("Nobody is called 99.")


def test_two_views_of_one_widget_do_not_mix(widget, finished: Run) -> None:
    page = widget()
    page.evaluate("""() => {
        const other = document.createElement("div");
        other.id = "other";
        document.body.append(other);
        render({ model, el: other });
    }""")
    other = page.locator("#other")
    expect(other.locator(".av-panel-title").first).not_to_be_empty()
    page.locator("#cell .av-search input").fill("7")
    page.locator("#cell .av-search input").press("Enter")
    for view in (page.locator("#cell"), other):
        expect(view.locator(".av-person option:checked")).to_have_text(finished.population.name(7))
        tokens = view.locator(".av-panel:first-child .av-text .av-token")
        assert tokens.all_inner_texts() == list(map_text(finished, 7).tokens)


def test_another_form_begins_the_view_anew(widget, axe, finished: Run) -> None:
    page = widget(person=3)
    assert page.locator(".av-form").count() == 0  # there is nothing to choose
    menu = {"forms": ["biography", "question", "last_name"], "form": "biography"}
    page.evaluate("(menu) => model.set('settings', { ...model.get('settings'), ...menu })", menu)
    listeners = page.evaluate("model.count()")
    choice = page.get_by_label("Form")
    assert choice.locator("option").all_inner_texts() == ["biography", "question", "last name"]
    choice.select_option("question")
    assert page.evaluate("model.get('form')") == "question"
    expect(page.locator(".av-message")).to_have_text("Reading the checkpoints …")
    page.evaluate("model.tell('msg:custom', { refused: 'It has no words for it.' })")
    expect(choice).to_have_value("biography")
    expect(page.locator(".av-message")).to_have_text("It has no words for it.")
    choice.focus()
    page.evaluate("model.set('settings', { ...model.get('settings'), form: 'question' })")
    expect(choice).to_have_value("question")
    expect(choice).to_be_focused()
    expect(page.locator(".av-person option:checked")).to_have_text(finished.population.name(3))
    assert page.evaluate("model.count()") == listeners  # the view before listens no longer
    assert axe(page) == []
    page.evaluate("cleanup()")
    assert page.evaluate("model.count()") == 0


def test_a_kernel_that_failed_can_be_asked_again(widget, finished: Run) -> None:
    page = widget()
    page.evaluate("globalThis.seven = people[7]; delete people[7]")
    page.locator(".av-search input").fill("7")
    page.locator(".av-search input").press("Enter")
    expect(page.locator(".av-message")).to_have_text("Nobody is called 7.")
    page.evaluate("people[7] = seven")
    page.locator(".av-search input").press("Enter")
    expect(page.locator(".av-person option:checked")).to_have_text(finished.population.name(7))
    expect(page.locator(".av-message")).to_have_text("")


STEPS, TOKENS = (0, 10, 20), ("<bos>", "Ada", "lives", "in", "Rome")
LEVELS = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 15), dtype=np.uint8)
"""Levels of three checkpoints, two layers, two heads; the view takes any, though rows do not add to 1."""


@pytest.fixture
def open_by_hand(open_page, section: Section, tmp_path: Path):
    """Opens the view with everything known (phases, roles, weights, predictions, curves), or changed."""

    def open_(n_steps: int = 3, text: dict | None = None, **changed) -> Page:
        settings, packed = settings_by_hand(n_steps)
        settings["texts"][0] |= text or {}
        embed = replace(section.embeds[0], settings=settings | changed, packed=packed)
        path = tmp_path / "by_hand.html"
        page_of = [replace(section, embeds=[embed])]
        path.write_text(render("Maps", "h", page_of), encoding="utf-8")
        page = open_page(path)
        page.locator(".view").scroll_into_view_if_needed()
        expect(page.locator(".av-panel-title").first).not_to_be_empty()
        return page

    return open_


@pytest.fixture
def by_hand(open_by_hand) -> Page:
    return open_by_hand()


def settings_by_hand(n_steps: int) -> tuple[dict, dict[str, bytes]]:
    """Settings and packed bytes of the first steps."""
    levels = levels_by_hand()
    differences = levels.copy()
    differences[1:] -= levels[:-1]
    n = len(TOKENS)
    predictions = b""
    for step in range(n_steps):
        own = bytes([0, 10, 20, 100 + 50 * step, 0])
        top = bytes([200] * n)
        words = np.array([0, 1, 2, step, 1], "<u2").tobytes()
        predictions += own + top + words
    text = {
        "person": 5, "name": "Ada", "held_out": False, "wordings": "train", "tokens": list(TOKENS),
        "marks": ["special", "name", "type", "text", "value"],
        "parts": ["", "first name", "", "", "first token"],
        "facts": [{"attribute": "university", "value": "Rome", "position": 3, "length": 1}],
    }  # fmt: skip
    curve = {"loss": [9.5, 5.25, 1.0], "accuracy": [0.0, 0.004, 0.75]}
    settings = {
        "title": "by hand", "steps": list(STEPS[:n_steps]), "n_layers": 2, "n_heads": 2, "fragment": "maps",
        "phases": [
            {"name": "statistics", "number": 1, "start": 0, "end": 10},
            {"name": "plateau", "number": 2, "start": 10, "end": 20},
            {"name": "knowledge", "number": 3, "start": 20, "end": 20},
        ],
        "curves": {"evaluation": curve, "held_out": curve},
        "roles": [[["none", "none"], ["none", "extraction" if step else "none"]] for step in STEPS],
        "words": ["Paris", "Ada", "Rome"], "texts": [text],
    }  # fmt: skip
    packed = {"patterns-5": differences[:n_steps].tobytes(), "predictions-5": predictions}
    return settings, packed


def levels_by_hand() -> np.ndarray:
    levels = LEVELS.copy()
    levels[:, 1, 1, 6 + 1] = 255  # head 1.1: from "in" to "Ada"
    return levels


def test_by_hand_the_view_begins_where_facts_are_read(by_hand: Page) -> None:
    assert by_hand.locator(".av-head[aria-checked='true'] span").inner_text() == "1.1"
    assert by_hand.locator(CHOSEN).get_attribute("data-position") == "3"
    expect(by_hand.locator(STEP)).to_have_text(
        "step 20 (knowledge) · all known people: loss 1.00 nats, accuracy 75%"
    )
    assert by_hand.locator(".av-head small").all_inner_texts() == ["", "", "", "", "extraction", ""]
    assert "training wordings" in by_hand.locator(".av-person option").inner_text()
    by_hand.get_by_label("Compare with another checkpoint").check()
    expect(by_hand.locator(".av-panel-title").nth(1)).to_contain_text("Step 0 (statistics)")
    by_hand.get_by_role("slider", name="Checkpoint", exact=True).focus()
    by_hand.keyboard.press("Home")
    expect(by_hand.locator(".av-step").first).to_have_text(
        "step 0 (statistics) · all known people: loss 9.50 nats, accuracy <1%"
    )
    assert by_hand.locator(".av-head small").all_inner_texts() == [""] * 6


def test_by_hand_predictions_are_those_of_the_step(by_hand: Page) -> None:
    of = by_hand.locator(".av-panel:first-child .av-of")
    fact = by_hand.locator(".av-panel:first-child .av-fact em")
    expect(of).to_have_text("in (text), next: Rome 78%")
    expect(fact).to_have_text("78%")
    by_hand.get_by_role("slider", name="Checkpoint", exact=True).focus()
    by_hand.keyboard.press("Home")
    expect(of).to_have_text("in (text), next: Paris 78%; true: Rome 39%")
    expect(fact).to_have_text("39%")


@pytest.mark.parametrize("head", ["0.1", "1.mean"])
def test_by_hand_pixels_and_saved_figure_are_the_weights(by_hand: Page, head: str) -> None:
    by_hand.locator(".av-head", has_text=head).click()
    levels = levels_by_hand()[-1] / 255
    weights = (levels[1] ** 2).mean(0) if head == "1.mean" else levels[0, 1] ** 2
    alpha = by_hand.evaluate("""() => {
        const canvas = document.querySelector(".av-map canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [...data].filter((_, i) => i % 4 === 3);
    }""")
    shown = np.array(alpha).reshape(5, 5)
    assert not shown[np.triu_indices(5, 1)].any()
    assert shown[np.tril_indices(5)] == pytest.approx(255 * 0.78 * np.sqrt(weights), abs=1)
    with by_hand.expect_download() as download:
        by_hand.get_by_role("button", name="Save the attention map as SVG").click()
    root = ElementTree.fromstring(Path(download.value.path()).read_bytes())
    titles = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    drawn = [float(title.rsplit(": ", 1)[1]) for title in titles]
    assert drawn == pytest.approx([w for w in weights if w >= 0.002], abs=0.0006)
    name = download.value.suggested_filename
    assert f"person-5-head-{head}-step-20" in name


def test_by_hand_pointing_at_the_map_tells_the_weight(by_hand: Page) -> None:
    box = by_hand.locator(".av-map canvas").first.bounding_box()
    cell = box["width"] / 5
    by_hand.mouse.move(box["x"] + 1.5 * cell, box["y"] + 3.5 * cell)
    expect(by_hand.locator(".av-under").first).to_have_text("in → Ada: 1.000")
    by_hand.mouse.move(box["x"] + 4.5 * cell, box["y"] + 3.5 * cell)
    expect(by_hand.locator(".av-under").first).to_have_text("Nothing later can be attended to.")
    by_hand.mouse.click(box["x"] + 0.5 * cell, box["y"] + 4.5 * cell)
    assert by_hand.locator(CHOSEN).get_attribute("data-position") == "4"


def test_by_hand_keys_are_heard(by_hand: Page) -> None:
    token(by_hand, 3).focus()
    by_hand.keyboard.press("ArrowLeft")
    expect(by_hand.locator(".av-hidden")).to_contain_text("attends to")
    expect(by_hand.locator(".av-hidden")).to_contain_text("is attended to by")


UNKNOWN = {"title": None, "phases": [], "curves": None, "roles": None}
"""Settings of a training of which only the models are known."""


def test_by_hand_a_training_may_have_no_phases_curves_or_roles(open_by_hand, axe) -> None:
    page = open_by_hand(**UNKNOWN, text={"wordings": None})
    expect(page.locator(STEP)).to_have_text("step 20")
    assert page.get_by_role("combobox", name="Text").count() == 1
    assert page.locator(".av-person option").inner_text() == "Ada"
    assert not page.locator(".av-times .av-phases").is_visible()
    assert not page.locator(".av-head small").first.is_visible()
    page.get_by_label("Compare with another checkpoint").check()
    expect(page.locator(".av-panel-title").nth(1)).to_contain_text("Step 10, head")  # the middle
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the attention map as SVG").click()
    words = Path(download.value.path()).read_text()
    assert "at weight 1.<" in words
    assert "null" not in words
    assert "attention-text-5" in download.value.suggested_filename
    assert axe(page) == []


def test_by_hand_one_model_needs_no_slider(open_by_hand) -> None:
    page = open_by_hand(1, **UNKNOWN)
    expect(page.locator(STEP)).to_have_text("step 0")
    for hidden in ("slider", "checkbox"):
        assert page.get_by_role(hidden).count() == 0
    assert page.get_by_role("button", name="Play through training").count() == 0
    assert attends_to(page) != []


def test_by_hand_a_text_may_have_neither_name_nor_value(open_by_hand) -> None:
    marks = ["special", *["text"] * 4]
    page = open_by_hand(**UNKNOWN, text={"marks": marks, "facts": [], "parts": [""] * 5})
    assert page.locator(CHOSEN).get_attribute("data-position") == "4"
    assert not page.locator(".av-facts").first.is_visible()
    assert "tokens:" not in page.locator(".av-legend").inner_text()


def test_by_hand_the_view_begins_with_the_text_it_is_told(open_by_hand) -> None:
    settings, _ = settings_by_hand(3)
    first = settings["texts"][0] | {"person": 4, "name": "Bob"}
    page = open_by_hand(texts=[first, settings["texts"][0]], begin=5)
    assert page.locator(".av-person option").all_inner_texts()[0].startswith("Bob")
    expect(page.locator(".av-person option:checked")).to_contain_text("Ada")


def test_a_widget_of_listed_texts_has_no_search(widget) -> None:
    page = widget()
    assert page.locator(".av-search").count() == 1
    page.evaluate("""() => {
        const other = document.createElement("div");
        other.id = "other";
        document.body.append(other);
        model.get("settings").search = false;
        render({ model, el: other });
    }""")
    expect(page.locator("#other .av-panel-title").first).not_to_be_empty()
    assert page.locator("#other .av-search").count() == 0
