"""A browser with the network cut, and the report of a finished run to look at.

The browser is the system's chromium, never one that playwright downloads. Where it, or axe-core, is
missing, the tests that need it are skipped, or fail if INTERP_REQUIRE_BROWSER=1 is set.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from interp.run import Run

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
expect.set_options(timeout=30_000)  # what is waited for comes late on a busy machine
_LOCAL = ("file:", "data:", "blob:")
_REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} by ${event.blockedURI}`));
"""


def absent(what: str, how: str) -> None:
    """Skips the test for want of something, or fails it where the browser tests are required."""
    message = f"{what} is not installed: {how}"
    if os.environ.get("INTERP_REQUIRE_BROWSER") == "1":
        pytest.fail(message)
    pytest.skip(message)


# One a module and not one a session: while it is open, playwright's event loop counts as running in
# this thread, and tests of other modules that start a loop of their own would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        absent("chromium", "apt-get install chromium, or put another one on the PATH")
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, as which containers run; pages here are ours.
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an HTML file: `open_page(path, width, height, dark, at="#anchor", script, javascript)`.

    `script` runs before the page's own; of a `site`, a folder, the page may ask for files. When the
    test ends, it fails for anything that the page wrote as an error to the console, threw, asked of
    the network, did not get, or was refused by its policy.
    """
    contexts, wrong = [], []

    def open_(
        path: Path,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        *,
        at: str = "",
        script: str = "",
        javascript: bool = True,
        site: Path | None = None,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=javascript,
            offline=True,
        )
        contexts.append(context)
        context.set_default_timeout(60_000)
        context.add_init_script(_REPORT_VIOLATIONS + script)
        page = context.new_page()
        address = path.resolve().as_uri()
        local = _LOCAL[1:] if site is None else (*_LOCAL[1:], f"{site.resolve().as_uri()}/")

        def requested(request: Request) -> None:
            if request.url.split("#")[0] != address and not request.url.startswith(local):
                wrong.append(f"request of {request.url}")

        page.on("request", requested)
        page.on("requestfailed", lambda request: wrong.append(f"no answer from {request.url}"))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.goto(address + at)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="session")
def report(finished: Run) -> Path:
    """The report of `finished`."""
    return finished.path / "report.html"


@pytest.fixture
def axe() -> Callable[[Page], list[dict[str, Any]]]:
    """Checks a page for accessibility; returns the serious and critical violations.

    playwright evaluates axe's source through the browser's debugger, which the page's policy does
    not bind; the policy itself stays in force for the page. Left out is the inside of plotly's
    drawings: thousands of paths, which stand in a labelled group with a caption.
    """
    if not AXE.exists():
        absent("axe-core", "npm ci --prefix tests/browser")

    def check(page: Page) -> list[dict[str, Any]]:
        page.evaluate(AXE.read_text(encoding="utf-8"))
        # What passes is only counted: to describe it takes longer than to check it.
        how = "{ preload: false, resultTypes: ['violations'] }"
        found = page.evaluate(f"axe.run({{ exclude: ['.plot .main-svg'] }}, {how})")["violations"]
        return [
            {
                "rule": violation["id"],
                "help": violation["help"],
                "nodes": [node["html"][:200] for node in violation["nodes"]][:5],
                "why": violation["nodes"][0]["failureSummary"],
            }
            for violation in found
            if violation["impact"] in ("serious", "critical")
        ]

    return check


def scroll_through(page: Page) -> None:
    """Scrolls from top to bottom, so that everything is drawn, and back."""
    undrawn = page.locator(".plot:not(:has(.main-svg, .notice))")
    for _ in range(5):
        # What has come near is looked up once a frame, and frames are rare on a busy machine.
        page.evaluate("""async () => {
            const frame = () => new Promise((done) => requestAnimationFrame(done));
            for (let y = 0; y < document.documentElement.scrollHeight; y += 700) {
                scrollTo({ top: y, behavior: "instant" });
                for (let i = 0; i < 4; i++) await frame();
            }
            scrollTo({ top: 0, behavior: "instant" });
        }""")
        # `wait_for_function` would evaluate text inside the page, which the page's policy forbids.
        try:
            expect(undrawn).to_have_count(0, timeout=20_000)
            return
        except AssertionError:
            continue  # what was laid out late may have moved below the window
    expect(undrawn).to_have_count(0)
