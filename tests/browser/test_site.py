"""The site of the documentation (`make docs`): every link, every public name, and in a browser."""

import ast
import html
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import expect

import interp
import interp.cli

ROOT = Path(__file__).parents[2]
REPORT = "report_demo.html"
"""A page of another maker, which is copied as it is."""


@pytest.fixture(scope="session")
def site(made_once: Callable[..., Path]) -> Path:
    """The site, built once for all tests."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        built = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert built.returncode == 0, built.stderr

    return made_once("site", build)


@cache
def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(map(html.unescape, re.findall(r'\b(?:id|name)="([^"]+)"', page(path))))


def pages(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if path.name != REPORT]


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """The files of the site that a page links to or shows, each with the anchor."""
    for target in re.findall(r'\b(?:href|src)="?([^"\s>]+)', page(path)):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = unquote(html.unescape(target)).partition("#")
            yield (path.parent / file).resolve() if file else path, anchor


def test_no_link_is_dead(site: Path) -> None:
    dead = [
        (path.relative_to(site).as_posix(), str(target), anchor)
        for path in pages(site)
        if path.name != "404.html"  # whose addresses are those of a server
        for target, anchor in links(path)
        if not target.is_file()
        or (anchor and target.suffix == ".html" and anchor not in anchors(target))
    ]
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*\bsrc="?(?:https?:)?//|<link[^>]*stylesheet[^>]*//'
    )
    assert [path.name for path in pages(site) if loads.search(page(path))] == []


@pytest.mark.parametrize("name", interp.__all__)
def test_every_public_name_is_on_the_site(site: Path, name: str) -> None:
    top = site / "docs" / "reference" / "interp.html"
    row = re.search(rf'<span id="interp\.{name}"><a[^>]* href="([^"#]+)#([^"]+)"', page(top))
    assert row, "it is in the table, with a link to where it is documented"
    assert row[2] in anchors(top.parent / row[1])


PACKAGES = {
    path.parent.name: names
    for path in sorted((ROOT / "interp").glob("*/__init__.py"))
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    for names in [ast.literal_eval(node.value)]
}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_a_package_is_on_its_page(site: Path, package: str) -> None:
    path = site / "docs" / "reference" / f"{package}.html"
    shown = {anchor.rpartition(".")[2] for anchor in anchors(path)}
    shown |= {target.rpartition(".")[2] for _, target in links(path)}  # those of other packages
    assert set(PACKAGES[package]) - shown == set()


def test_every_command_is_on_the_site(site: Path) -> None:
    path = site / "docs" / "reference" / "commands.html"
    for command in [*interp.cli._WITH_PRESET, *interp.cli._ON_RUN]:
        assert f"interp-{command}" in anchors(path)
        assert f"usage: interp {command} " in html.unescape(re.sub("<[^>]+>", "", page(path)))


def test_the_figures_of_notebooks_are_on_the_site(site: Path) -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shown = site / "notebooks" / f"{path.stem}.html"
        assert page(shown).count("<img ") == page(path).count('"image/svg+xml"') > 0


def test_a_page_opens_as_a_file_and_is_searched(open_page, site):
    shown = open_page(site / "index.html", site=site)
    shown.locator(".md-search__input").press_sequentially("head_roles")
    found = shown.locator(".md-search-result__link", has_text="head_roles").first
    expect(found).to_be_visible()
    found.click()
    shown.wait_for_url("**/docs/reference/attention.html*")
    expect(shown.locator("h1")).to_have_text(re.compile("interp.attention"))


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark(open_page, site, dark):
    shown = open_page(site / "docs" / "forms.html", dark=dark, site=site)
    body = shown.locator("body")

    def is_dark() -> bool:
        colour = body.evaluate("body => getComputedStyle(body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 128

    assert is_dark() == dark, "as the system has it"
    seen = []
    for _ in range(3):
        shown.locator("form[data-md-component=palette] label:visible").click()
        seen.append(is_dark())
    assert seen == [False, True, dark]


@pytest.mark.parametrize(
    "name",
    ["index", "docs/findings", "docs/tables", "docs/protocol", "docs/reference/interventions",
     "docs/reference/commands", "notebooks/04_mlp_memory_and_a_traced_fact", "artifacts/index"],
)  # fmt: skip
def test_a_phone_scrolls_only_down(open_page, site, name):
    shown = open_page(site / f"{name}.html", width=390, site=site)
    expect(shown.locator("article")).to_be_visible()
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    wide = shown.evaluate("""() => [...document.querySelectorAll("article > *")]
        .filter((part) => part.getBoundingClientRect().right > innerWidth + 20)
        .map((part) => part.outerHTML.slice(0, 100))""")
    assert wide == []
