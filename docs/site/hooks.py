"""The site shows this repository: each page, figure and table at the path that it has here.

So links that work in a folder of the repository work on the site. Copied is what pages link to; a
linked folder without a README becomes a page that shows its figures and lists its files. Notebooks
become pages with their saved outputs. Reference pages are made of `__all__` and of docstrings, the
page of commands of what `interp COMMAND --help` prints.
"""

import ast
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import interp
import interp.cli

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "notebooks/*.ipynb"]
LINK = re.compile(r"(?<=\]\()(?!https?://|#|mailto:)([^)#\s]+)")
FENCE = re.compile(r"^(```.*?^```)", re.DOTALL | re.MULTILINE)
BEFORE_LIST = re.compile(r"^((?![-*] |\d+\. |\s|\|).+)\n(?=[-*] |1\. )", re.MULTILINE)
PICTURES = (".svg", ".png")
REFERENCE = "docs/reference"
MODULES = (
    "asking", "batch", "contradictions", "errors", "knowledge", "phases", "plateau", "presets",
    "seeds", "series", "tables",
)  # fmt: skip
"""Modules that stand beside the packages, and have a page too."""
MODULE = """\
# interp.{name} {{#interp.{name}}}

::: interp.{name}
    options: {{members: [], show_root_heading: false, show_root_toc_entry: false, show_source: false}}
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the pages of packages and modules in the navigation."""
    pages = [{f"interp.{n}": f"{REFERENCE}/{n}.md"} for n in packages()]
    reference = next(part["Reference"] for part in config.nav or () if "Reference" in part)
    next(part for part in reference if "Python" in part)["Python"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces the files of `docs` by all that the site shows."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    made = {f"{REFERENCE}/{name}.md": text for name, text in reference_pages().items()}
    made[f"{REFERENCE}/commands.md"] = commands_page()
    for path in shown():
        name = path.relative_to(ROOT).as_posix()
        if path.is_dir():
            made[f"{name}/README.md"] = folder_page(path)
        elif path.suffix == ".ipynb":
            text, figures = notebook_page(path)
            made[name.replace(".ipynb", ".md")] = text
            for figure, data in figures.items():
                files.append(File.generated(config, f"notebooks/{figure}", content=data))
        else:
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to folders and notebooks become links to their pages."""
    here = (ROOT / page.file.src_uri).parent

    def page_of(match: re.Match[str]) -> str:
        target = match[1].rstrip("/")
        if (here / target).is_dir():
            return f"{target}/README.md"
        return target.replace(".ipynb", ".md")

    return "".join(
        part if part.startswith("```") else apart(LINK.sub(page_of, part))
        for part in FENCE.split(markdown)
    )


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A search finds names and docstrings, and not every line of code that mentions them."""
    source = '<details class="mkdocstrings-source"'
    return html.replace(source, f"{source} data-search-exclude")


def apart(text: str) -> str:
    """A blank line before each list, which GitHub does without and Python-Markdown needs."""
    return BEFORE_LIST.sub(r"\1\n\n", text)


def shown() -> list[Path]:
    """The pages, and the files and folders that they link to, and those link to in turn."""
    waiting = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    waiting += [*ROOT.glob("docs/site/*.css"), *ROOT.glob("docs/site/*.js")]
    found: dict[Path, None] = {}
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            page = path / "README.md"
            if page.exists():
                path = page
            else:
                waiting += (file for file in path.iterdir() if file.is_file())
        if path not in found:
            found[path] = None
            waiting += links(path)
    return list(found)


def links(path: Path) -> Iterator[Path]:
    """The files and folders that a page links to."""
    if path.suffix == ".md":
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            linked = (path.parent / target).resolve()
            if linked.is_relative_to(ROOT) and linked.exists():
                yield linked


def folder_page(folder: Path) -> str:
    """A page for a folder: its figures, and links to its files."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = [f"# {folder.name}", "", f"`{folder.relative_to(ROOT).as_posix()}`", ""]
    lines += [f"- [{file.name}]({file.name})" for file in files]
    for file in files:
        if file.suffix in PICTURES:
            lines += ["", f"## {file.stem}", "", f"![{file.stem}]({file.name})"]
    return "\n".join(lines)


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook with its saved outputs as Markdown, and its figures by path beside the page."""
    import nbformat
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(path, as_version=4)
    names = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(notebook, names)
    titles = iter(figure_titles(notebook.cells))
    text = re.sub(r"!\[svg\]", lambda _: f"![{next(titles)}]", text)
    text = re.sub(r"<style scoped>.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<table [^>]*>", "<table>", text)  # as the theme's own
    return text, dict(resources["outputs"])


def figure_titles(cells: Iterable[Any]) -> Iterator[str]:
    """What figures are called, for those who do not see them."""
    for cell in cells:
        for output in cell.get("outputs", ()):
            if "image/svg+xml" in (data := output.get("data", {})):
                layout = data.get("application/vnd.plotly.v1+json", {}).get("layout", {})
                title = layout.get("title", {}).get("text") or "figure"
                yield re.sub(r"<[^>]+>|[\[\]]", " ", title)


@cache
def statements(module: str) -> list[ast.stmt]:
    """The statements of a module; nothing is imported."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [inner for node in body for inner in (node.body if isinstance(node, ast.If) else [node])]


@cache
def public(module: str) -> list[str]:
    """The names in `__all__`, constants last; of a module beside the packages, what it defines."""
    for node in statements(module):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value), key=str.isupper)
    if module.removeprefix("interp.") not in MODULES:
        return []
    kinds = (ast.ClassDef, ast.FunctionDef)
    defined = [node.name for node in statements(module) if isinstance(node, kinds)]
    return [name for name in defined if not name.startswith("_")]


@cache
def defined(module: str, name: str) -> str:
    """The full name of an object where it is defined, which Griffe finds whatever is named alike."""
    for node in statements(module):
        if not (isinstance(node, ast.ImportFrom) and node.module):
            continue
        if name in [alias.name for alias in node.names]:
            return f"interp.{name}" if node.module == "interp" else defined(node.module, name)
    return f"{module}.{name}"


def packages() -> list[str]:
    """Packages and modules with public names."""
    names = [path.parent.name for path in ROOT.glob("interp/*/__init__.py")]
    return sorted(name for name in [*names, *MODULES] if public(f"interp.{name}"))


def reference_pages() -> dict[str, str]:
    """The pages of packages and modules by name, and that of the top level, `interp`.

    An object is documented once: on the page of the package that defines it, if it is public there.
    """
    members = {}
    for name in packages():
        module = f"interp.{name}"
        members[name] = [defined(module, member) for member in public(module)]
    top = {name: defined("interp", name) for name in interp.__all__}
    for place in top.values():
        if place.count(".") > 1 and place not in members[package := place.split(".")[1]]:
            members[package].append(place)
    pages = {}
    for name, places in members.items():
        homes = {place: place.split(".")[1] for place in places}
        others = [p for p in places if homes[p] != name and p in members.get(homes[p], ())]
        pages[name] = MODULE.format(name=name)
        if others:
            pages[name] += f"\nFrom other packages: {', '.join(map(linked, others))}.\n"
        pages[name] += "".join(f"\n::: {place}\n" for place in places if place not in others)
    pages["interp"] = top_level_page(top)
    return pages


def linked(place: str) -> str:
    """A name with a link to where it is documented."""
    return f"[`{place.rsplit('.')[-1]}`][{place}]"


def top_level_page(top: dict[str, str]) -> str:
    """The names of `interp.__all__` in a table."""
    about = ast.get_docstring(ast.Module(statements("interp"), [])) or ""
    lines = ["# interp {#interp}", "", about, "", "| name | what it is |", "|---|---|"]
    for name, place in top.items():
        shown = f'<span id="interp.{name}">[`interp.{name}`][{place}]</span>'
        lines.append(f"| {shown} | {summary(place)} |")
    return "\n".join(lines)


def summary(place: str) -> str:
    """The first sentence of an object's docstring."""
    module, _, name = place.rpartition(".")
    if module == "interp":
        text = ast.get_docstring(ast.Module(statements(place), []))
    else:
        kinds = (ast.ClassDef, ast.FunctionDef)
        node = next(n for n in statements(module) if isinstance(n, kinds) and n.name == name)
        text = ast.get_docstring(node)
    return (text or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def commands_page() -> str:
    """What `interp` and `interp COMMAND --help` print."""
    os.environ["COLUMNS"] = "90"
    parts = ["# Command line", ""]
    for command in ["", *interp.cli.COMMANDS]:
        printed = io.StringIO()
        with redirect_stdout(printed), suppress(SystemExit):
            interp.cli.main([*command.split(), "--help"])
        title = f"## interp {command}\n\n" if command else ""
        parts.append(f"{title}```text\n{printed.getvalue().strip()}\n```\n")
    return "\n".join(parts)
