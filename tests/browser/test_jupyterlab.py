"""A notebook in JupyterLab: its cells are run from the menu, and looked at in the light and the dark theme.

One server, one kernel and one page for the module. Nothing but the server may be asked for anything.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect

from tests.browser.conftest import absent

ROOT = Path(__file__).parents[2]
CELLS = (
    "import interp\n\nrun = interp.train(interp.preset('smoke'), 'run')\nrun",
    "fact = interp.locate_fact(run, 3, 'university')\nfact",
    "fact.predictions.head(4)",
    "interp.plots.learning_curves(run)",
    "interp.plots.located_fact(fact)",
    "view = interp.explore(run, 3, head='0.1')\nview",
    "print(view.state.get('head'), view.state.get('token'))\nview.show(step=0)",
)
TRAIN, FACT, TABLE, CURVES, LOCATED, VIEW, STATE = range(len(CELLS))
THEMES = ("JupyterLab Light", "JupyterLab Dark")
_PATIENCE = 300_000  # milliseconds: on a busy machine, that a kernel starts, imports and trains
_FOLDERS = (
    "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR",
)  # fmt: skip
_QUIET = {"fetchNews": "false", "checkForUpdates": False}
_OPTIONS = (
    "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
)  # fmt: skip

RECORD_BARS = """() => {
    globalThis.bars = [];
    new MutationObserver(() => {
        for (const bar of document.querySelectorAll("progress")) {
            const seen = [bar.value, bar.parentElement.innerText.trim()];
            if (JSON.stringify(seen) !== JSON.stringify(bars.at(-1))) bars.push(seen);
        }
    }).observe(document.body, { childList: true, subtree: true, attributes: true });
}"""
"""Notes all that progress bars show: they go away when the work is done."""

TEXTS = """(root) => {
    const parse = (css) => {
        const [r, g, b, a = 1] = css.match(/[\\d.]+/g).map(Number);
        return [r, g, b, a];
    };
    const over = ([r, g, b, a], below) =>
        [r, g, b].map((c, i) => c * a + below[i] * (1 - a)).concat(1);
    const behind = (element) => element === null ? [255, 255, 255, 1] :
        over(parse(getComputedStyle(element).backgroundColor), behind(element.parentElement));
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    return [...root.querySelectorAll("*")].filter((e) => own(e) && e.checkVisibility() &&
        e.getBoundingClientRect().width > 1 && e.localName !== "style").map((e) => {
        const style = getComputedStyle(e), paper = behind(e);
        const ink = over(parse(e instanceof SVGElement ? style.fill : style.color), paper);
        const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b);
        return { text: e.textContent.trim().slice(0, 40), paper: light(paper),
            contrast: (high + 0.05) / (low + 0.05) };
    });
}"""
"""All text that can be seen below an element: contrast with what is behind, and how light that is."""


@dataclass
class Lab:
    """A page of JupyterLab with the notebook open and all of its cells run."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def output(self, number: int) -> Locator:
        return self.cell(number).locator(".jp-OutputArea-output")

    def shown(self, number: int) -> Locator:
        """The last output of a cell, in sight."""
        output = self.output(number).last
        output.scroll_into_view_if_needed()
        return output

    def run_cell(self, number: int, count: int) -> None:
        """Runs one cell from the keyboard, as the kernel's execution `count`."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        prompt = self.cell(number).locator(".jp-InputArea-prompt")
        expect(prompt).to_have_text(f"[{count}]:", timeout=_PATIENCE)

    def menu(self, *names: str) -> None:
        """Chooses from the menu bar: a menu, its menus, and at last what is to be done."""
        self.page.locator(".lm-MenuBar-item", has_text=names[0]).click()
        for place, name in enumerate(names[1:]):
            item = self.page.locator(".lm-Menu").nth(place).locator(".lm-Menu-item")
            label = self.page.get_by_text(name, exact=True)
            item.filter(has=label).click()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that reads and writes nothing of the user's."""
    for package in ("jupyterlab", "ipywidgets", "anywidget"):
        if find_spec(package) is None:
            absent(package, "pip install 'interp[notebooks]'")
    folder = tmp_path_factory.mktemp("lab")
    own = {name: str(folder / name.lower()) for name in _FOLDERS}
    settings = Path(own["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", "apputils-extension")
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(_QUIET))
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (folder / "notebooks").mkdir()
    nbformat.write(notebook, folder / "notebooks" / "facts.ipynb")
    token, log = secrets.token_hex(), folder / "log"
    environment = {
        name: value for name, value in os.environ.items()
        if name not in ("PLOTLY_RENDERER", "TQDM_DISABLE")
    } | own | {"PYTHONPATH": str(ROOT), "JUPYTER_TOKEN": token}  # fmt: skip
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *_OPTIONS], cwd=folder / "notebooks",
            env=environment, stdout=written, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield f"{_address(process, Path(own['JUPYTER_RUNTIME_DIR']), log)}?token={token}"
    finally:
        process.terminate()  # with its kernels
        process.wait(60)


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Of the notebook, once the server says where it listens."""
    until = time.monotonic() + _PATIENCE / 1000
    while time.monotonic() < until and process.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            if text := path.read_text():
                return f"{json.loads(text)['url']}lab/tree/facts.ipynb"
        time.sleep(0.1)
    pytest.fail(f"JupyterLab does not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def opened(browser: Browser, server: str) -> Iterator[Lab]:
    """The notebook, open and run from its menu."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    context.set_default_timeout(120_000)
    lab = Lab(context.new_page())
    page, wrong, host = lab.page, lab.wrong, server.split("/lab")[0]

    def elsewhere(route: Route, request: Request) -> None:
        wrong.append(f"request of {request.url}")
        route.abort()

    local = (f"{host}/", host.replace("http", "ws", 1), "data:", "blob:")
    context.route(lambda url: not url.startswith(local), elsewhere)
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(server)
    expect(page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(len(CELLS), timeout=_PATIENCE)
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    expect(idle).to_be_attached(timeout=_PATIENCE)
    page.evaluate(RECORD_BARS)
    lab.menu("Run", "Run All Cells")
    prompts = page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-prompt")
    counts = [f"[{number}]:" for number, _ in enumerate(CELLS, 1)]
    expect(prompts).to_have_text(counts, timeout=_PATIENCE)
    yield lab
    context.close()


@pytest.fixture
def lab(opened: Lab) -> Iterator[Lab]:
    """The same; fails for what was asked of the network, or went wrong in the page, meanwhile."""
    yield opened
    wrong, opened.wrong[:] = list(opened.wrong), []
    assert wrong == []


def test_cells_run_and_training_shows_how_far_it_is(lab: Lab) -> None:
    page = lab.page
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    shares = [share for share, _ in page.evaluate("bars")]
    assert shares == sorted(shares), "on a fast machine the first that is seen is not the first"
    assert shares[-1] == 1
    assert page.evaluate("bars.at(-1)[1]").startswith("100% step 40 of 40")
    assert page.locator("progress").count() == 0, "what is done leaves no bar"
    expect(lab.shown(TRAIN)).to_contain_text("preset smoke")


def test_tables_and_figures_are_drawn(lab: Lab) -> None:
    expect(lab.shown(FACT).locator("strong")).to_contain_text("The university of")
    assert lab.shown(TABLE).locator("tbody tr").count() == 4
    for number, n_traces in ((CURVES, 3), (LOCATED, 10)):
        figure = lab.shown(number)
        expect(figure).to_contain_class("js-plotly-plot")
        expect(figure.locator(".main-svg").first).to_be_visible()
        assert len(figure.evaluate("figure => figure.data")) >= n_traces
        assert figure.locator(".trace path").count() >= n_traces
        box, room = figure.bounding_box(), lab.cell(number).bounding_box()
        assert 600 < box["width"] <= room["width"]


def test_the_widget_and_the_kernel_hear_each_other(lab: Lab) -> None:
    page, view = lab.page, lab.shown(VIEW)
    # The kernel's `show` has reached the page.
    title = view.locator(".av-panel-title").first
    expect(title).to_have_text("Step 0 (statistics), head 0.1", timeout=_PATIENCE)
    # By mouse and keyboard. JupyterLab would go to another cell on J, and cut one on X or D D.
    view.get_by_role("radio", name="head 1.0").click()
    view.locator(".av-token[data-position='5']").first.click()
    for key in ("ArrowRight", "j", "x", "d", "d"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.position") == "6"
    expect(page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(len(CELLS))
    view.get_by_role("slider", name="Checkpoint", exact=True).press("End")
    expect(title).to_have_text("Step 40 (statistics), head 1.0")
    lab.run_cell(STATE, len(CELLS) + 1)
    expect(lab.shown(STATE)).to_have_text("1.0 6")
    expect(title).to_have_text("Step 0 (statistics), head 1.0")
    # Maps of another person come from the kernel.
    text = view.get_by_role("listbox").first
    before = text.inner_text()
    view.locator(".av-search input").fill("7")
    view.locator(".av-search input").press("Enter")
    expect(text).not_to_have_text(before)
    expect(view.locator(".av-message")).to_have_text("")


@pytest.mark.parametrize("theme", THEMES)
def test_all_can_be_read_in_both_themes(lab: Lab, theme: str) -> None:
    lab.menu("Settings", "Theme", theme)
    body = lab.page.locator("body")
    expect(body).to_have_attribute("data-jp-theme-name", theme)
    dark = theme == THEMES[1]
    # A theme's style sheet comes after its name.
    paper = "getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor"
    lab.page.wait_for_function(f"/rgb\\((\\d+)/.exec({paper})[1] {'<' if dark else '>'} 128")
    wrong: list[dict[str, Any]] = []
    for number, least in ((FACT, 4.5), (TABLE, 4.5), (CURVES, 3.4), (LOCATED, 3.4), (VIEW, 4.5)):
        texts = lab.shown(number).evaluate(TEXTS)
        assert len(texts) > 10
        # No light box on a dark page, either.
        wrong += [t for t in texts if t["contrast"] < least or (dark and t["paper"] > 0.4)]
    assert wrong == []
