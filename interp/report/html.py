"""Sections become one HTML page: everything inline, nothing from the network.

The page's Content-Security-Policy forbids every request; scripts run only if their SHA-256 is named
there, so that text from a run cannot become code even if escaping failed. plotly.js lies in the page
deflated and is run as an inline script of which the policy knows the SHA-256 too. Nothing in the
page is random or dated: the same run gives the same bytes.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from interp.errors import InterpError
from interp.files import write_text
from interp.plots import TEMPLATE, caption, title
from interp.report.elements import Section, SectionBuilder
from interp.report.overview import overview
from interp.report.sections import SECTIONS
from interp.report.summary import headline, page_title
from interp.run import Run

_TITLE_SPACE = 40
"""Pixels that the title of a figure takes at its top."""
_HEIGHT = 450
"""Pixels of a figure that names no height: plotly's own default."""


@dataclass(frozen=True)
class _Place:
    """A place where a figure is drawn.

    Attributes:
        anchor: Its id in the page.
        title: Its heading.
        caption: What to look for.
        data: The id of the figure's JSON.
        height: In pixels.
    """

    anchor: str
    title: str
    caption: str
    data: str
    height: int


def write_report(
    run: Run, path: Path | str | None = None, sections: Sequence[SectionBuilder] = SECTIONS
) -> Path:
    """Writes the report of a run.

    Args:
        run: A run with metrics; training need not have ended.
        path: The file, `report.html` in the run's folder by default.
        sections: What the report holds after the overview, in order; a builder may return None to
            leave itself out.

    Returns:
        The path of the file.

    Raises:
        RunError: nothing has been measured yet, or a result table is damaged.
        StorageError: the file cannot be written; an older report is intact then.
    """
    run.check_results()  # before the sections, which take longer and read only some of them
    target = run.path / "report.html" if path is None else Path(path)
    built = [section for build in sections if (section := build(run)) is not None]
    built = [overview(run, built), *built]
    write_text(target, render(page_title(run), headline(run), built))
    return target


def render(title: str, headline: str, sections: Sequence[Section]) -> str:
    """The page's HTML.

    Args:
        title: The page's title and first heading; files that the page offers are named after it.
        headline: One sentence below it.
        sections: The sections, in order; their anchors and those of their figures and views must
            differ.

    Raises:
        InterpError: two sections, figures or views have the same anchor, or a finding points to a
            figure or a section that is not in the page.
    """
    _check_anchors(sections)
    figures = {anchor: figure for s in sections for anchor, figure in s.figures.items()}
    embeds = [embed for section in sections for embed in section.embeds]
    shown = {anchor: _place(anchor, anchor, figure) for anchor, figure in figures.items()}
    for section in sections:
        for finding in section.findings:
            if finding.figure is not None:
                anchor = f"{section.anchor}-{finding.figure}"
                shown[anchor] = _place(anchor, finding.figure, figures[finding.figure])
    # A page without figures goes without plotly.js, one without anything to save without scripts.
    alive = figures or embeds or any(section.tables for section in sections)
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
            sections=sections,
            titles={section.anchor: section.title for section in sections},
            places=shown,
            style=Markup(_asset("report.css")),
            styles=[Markup(_style(s)) for s in dict.fromkeys(e.style for e in embeds) if s],
            scripts=[Markup(script) for script in scripts],
            packed=packed,
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
    anchors = [s.anchor for s in sections]
    anchors += [anchor for s in sections for anchor in s.figures]
    anchors += [embed.anchor for s in sections for embed in s.embeds]
    twice = sorted({anchor for anchor in anchors if anchors.count(anchor) > 1})
    if twice:
        raise InterpError(f"Anchors of a report must differ; given more than once: {twice}.")
    known = {None, *anchors}
    for finding in (finding for section in sections for finding in section.findings):
        for anchor in (finding.anchor, finding.figure):
            if anchor not in known:
                raise InterpError(
                    f"The finding {finding.title!r} points to {anchor!r}, which is not in the page. "
                    f"Anchors: {', '.join(anchors)}."
                )


def _place(anchor: str, data: str, figure: go.Figure) -> _Place:
    height = int(figure.layout.height or _HEIGHT)
    return _Place(anchor, title(figure), caption(figure), f"{data}-data", height)


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
    environment.filters |= {"figure_json": figure_json, "json": _json}
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
