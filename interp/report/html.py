"""Sections become one HTML page: everything inline, nothing from the network.

The page's Content-Security-Policy forbids every request; scripts run only if their SHA-256 is named
there, so that text from a run cannot become code even if escaping failed. plotly.js lies in the page
deflated and is run as an inline script of which the policy knows the SHA-256 too. Nothing in the
page is random or dated: the same run gives the same bytes.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from interp.errors import InterpError
from interp.files import replaceable, with_ending, write_text
from interp.plots import TEMPLATE, caption, title
from interp.progress import Progress, silent
from interp.report.elements import LeftOut, Section, SectionBuilder
from interp.report.sections import sections_of
from interp.report.summary import about, headline, page_title
from interp.report.trust import trust_note
from interp.run import Run
from interp.tables import for_spreadsheets
from interp.torch_state import default_state

_OVERVIEW = "overview"
"""The anchor of the list of findings."""
_TITLE_SPACE = 40
"""Pixels that the title of a figure takes at its top."""
_PAGE = re.compile(
    rb"<!doctype html>\s*<html lang=\"en\">.*<meta http-equiv=\"Content-Security-Policy\" "
    rb"content=\"default-src &#39;none&#39;.*<link rel=\"icon\" href=\"data:,\">\s*<style>",
    re.DOTALL,
)
"""What every page begins with, those of earlier versions too: only such a file is replaced by a page."""
_HEIGHT = 450
"""Pixels of a figure that names no height: plotly's own default."""


@default_state()
def write_report(
    run: Run,
    path: Path | str | None = None,
    sections: Sequence[SectionBuilder] | None = None,
    *,
    progress: Progress = silent,
) -> Path:
    """Writes the report of a run.

    Args:
        run: A run with metrics; training need not have ended.
        path: The file (.html is added to a name without an ending), `report.html` in the run's folder by
            default.
        sections: What the report holds, in order; by default what applies to the run. The page names those
            that leave themselves out.
        progress: Is told the share of sections that are built.

    Returns:
        The path of the file.

    Raises:
        RunError: nothing has been measured yet, or a result table is damaged, or `path` is a file that is
            no page of ours.
        StorageError: the file cannot be written; an older report is intact then.
    """
    target = run.path / "report.html" if path is None else page_to_write(path)
    run.check_results()  # before the sections, which take longer and read only some of them
    built = []
    sections = sections_of(run) if sections is None else sections
    for count, build in enumerate(sections):
        progress(count / len(sections), f"section {count + 1} of {len(sections)}")
        built.append(build(run))
    write_text(target, render(page_title(run), headline(run), built, about(run)))
    return target


def page_to_write(path: Path | str) -> Path:
    """A file for a page, which ends in .html if its name has no ending.

    Raises:
        RunError: something else than an older page lies there, or no file can.
    """
    return replaceable(with_ending(path, ".html"), _PAGE, "a page")


def render(
    title: str,
    headline: str,
    sections: Sequence[Section | LeftOut],
    about: Sequence[str] = (),
) -> str:
    """The page's HTML.

    It begins with the sentences of all sections, each a link to its section, and what is left out.

    Args:
        title: The page's title and first heading; files that the page offers are named after it.
        headline: One sentence below it.
        sections: The sections, in order, and what is left out; anchors of sections, figures and views
            must differ.
        about: Sentences below the headline: what it is about beside.

    Raises:
        InterpError: two sections, figures or views have the same anchor, or two measured tables the
            same name.
    """
    shown = [section for section in sections if isinstance(section, Section)]
    left_out = [one for one in sections if isinstance(one, LeftOut)]
    left_out += [one for section in shown for one in section.lacks]
    _check_anchors(shown)
    figures = {anchor: figure for section in shown for anchor, figure in section.figures.items()}
    embeds = [embed for section in shown for embed in section.embeds]
    # A page without figures goes without plotly.js, one of plain text without scripts.
    alive = any(
        s.figures or s.embeds or s.tables or s.downloads or s.sentence or s.listings or s.terms
        for s in shown
    )
    scripts = [_asset("report.js")] if alive else []
    scripts += dict.fromkeys(_script(embed.script) for embed in embeds)
    allowed = [*scripts, _plotly_js()] if figures else scripts
    packed = {"plotly-js": _packed_plotly_js()} if figures else {}
    for embed in embeds:
        packed |= {f"{embed.anchor}-{key}": pack(data) for key, data in embed.packed.items()}
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            headline=headline,
            about=about,
            sections=shown,
            found=[section for section in shown if section.sentence],
            left_out=_grouped(left_out),
            style=Markup(_asset("report.css")),
            styles=[Markup(_style(s)) for s in dict.fromkeys(e.style for e in embeds) if s],
            scripts=[Markup(script) for script in scripts],
            packed=packed | _packed_tables(shown),
            template=_json(TEMPLATE.to_plotly_json()) if figures else None,
            policy=content_security_policy(allowed),
        )
    )


def content_security_policy(scripts: Sequence[str]) -> str:
    """A policy that allows these inline scripts and styles, embedded images, and nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    script_sources = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {script_sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that cannot end the script element it stands in.

    The page shows the title as a heading, so the figure itself goes without; and all figures of the
    house style share its template, which the page holds once.
    """
    space = figure.layout.margin.t or TEMPLATE.layout.margin.t
    bare = go.Figure(figure).update_layout(title_text="", margin_t=max(space - _TITLE_SPACE, 12))
    content = json.loads(str(bare.to_json()))
    if bare.layout.template == TEMPLATE:
        del content["layout"]["template"]
    return _json(content)


def pack(data: bytes) -> str:
    """Bytes as the page holds them: deflated (zlib), in base64."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _check_anchors(sections: Sequence[Section]) -> None:
    anchors = [_OVERVIEW, *(section.anchor for section in sections)]
    anchors += [anchor for section in sections for anchor in section.figures]
    anchors += [embed.anchor for section in sections for embed in section.embeds]
    twice = sorted({anchor for anchor in anchors if anchors.count(anchor) > 1})
    if twice:
        raise InterpError(f"Anchors of a report must differ; given more than once: {twice}.")


def _grouped(left_out: Sequence[LeftOut]) -> list[tuple[str, str, str]]:
    """What is left out for the same reason, together: titles, reason, commands."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in left_out:
        groups.setdefault((one.why, "\n".join(one.commands)), []).append(one.title)
    return [(", ".join(dict.fromkeys(titles)), *reason) for reason, titles in groups.items()]


def _packed_tables(sections: Sequence[Section]) -> dict[str, str]:
    """The measured tables as CSV, by their ids in the page; sections may share one."""
    packed: dict[str, str] = {}
    for name, table in (pair for section in sections for pair in section.downloads.items()):
        content = pack(for_spreadsheets(table).to_csv(index=False, lineterminator="\n").encode())
        if packed.setdefault(f"{name}-csv", content) != content:
            raise InterpError(f"Two different tables of a page are called {name!r}.")
    return packed


def _height(figure: go.Figure) -> int:
    return int(figure.layout.height or _HEIGHT)


def _json(content: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _script(text: str) -> str:
    """A script as it stands in the page; a browser hashes it with its line ends made newlines.

    Raises:
        InterpError: it would end its own element.
    """
    if "</script" in text.lower() or "<!--" in text:
        raise InterpError("A view's script must hold neither '</script' nor '<!--'.")
    return "\n" + _one_line_end(text)


def _style(text: str) -> str:
    if "</style" in text.lower():
        raise InterpError("A view's style must not hold '</style'.")
    return "\n" + _one_line_end(text)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("interp.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure_json": figure_json,
        "json": _json,
        "figure_title": title,
        "figure_caption": caption,
        "figure_height": _height,
        "trust_note": trust_note,
    }
    return environment


@cache
def _plotly_js() -> str:
    return _one_line_end(plotly.offline.get_plotlyjs())


@cache
def _packed_plotly_js() -> str:
    return pack(_plotly_js().encode())


@cache
def _asset(name: str) -> str:
    text = files("interp.report").joinpath("assets", name).read_text(encoding="utf-8")
    return "\n" + _one_line_end(text)


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
