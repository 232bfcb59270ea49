"""Sections become one HTML page: everything inline, nothing from the network.

The page's Content-Security-Policy forbids every request; scripts run only if their SHA-256 is named
there, so that text from a run cannot become code even if escaping failed. Nothing in the page is
random or dated: the same run gives the same bytes.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go
import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from interp.errors import InterpError
from interp.files import write_text
from interp.plots import TEMPLATE, caption, title
from interp.report.sections import SECTIONS, Section, SectionBuilder
from interp.report.summary import headline, page_title
from interp.run import Run

_TITLE_SPACE = 40
"""Pixels that the title of a figure takes at its top."""


def write_report(
    run: Run, path: Path | str | None = None, sections: Sequence[SectionBuilder] = SECTIONS
) -> Path:
    """Writes the report of a run.

    Args:
        run: A run with metrics; training need not have ended.
        path: The file, `report.html` in the run's folder by default.
        sections: What the report holds, in order; a builder may return None to leave itself out.

    Returns:
        The path of the file.

    Raises:
        RunError: nothing has been measured yet.
        StorageError: the file cannot be written; an older report is intact then.
    """
    target = run.path / "report.html" if path is None else Path(path)
    built = [section for build in sections if (section := build(run)) is not None]
    write_text(target, render(page_title(run), headline(run), built))
    return target


def render(title: str, headline: str, sections: Sequence[Section]) -> str:
    """The page's HTML.

    Args:
        title: The page's title and first heading.
        headline: One sentence below it.
        sections: The sections, in order; their anchors and those of their figures must differ.

    Raises:
        InterpError: two sections or figures have the same anchor.
    """
    anchors = [s.anchor for s in sections] + [f for s in sections for f in s.figures]
    twice = sorted({anchor for anchor in anchors if anchors.count(anchor) > 1})
    if twice:
        raise InterpError(f"Anchors of a report must differ; given more than once: {twice}.")
    # plotly.js is 5 MB: a page without figures goes without it.
    scripts = [_plotly_js(), _asset("report.js")] if any(s.figures for s in sections) else []
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            headline=headline,
            sections=sections,
            style=Markup(_asset("report.css")),
            scripts=[Markup(script) for script in scripts],
            policy=content_security_policy(scripts),
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

    The page shows the title as a heading, so the figure itself goes without.
    """
    space = figure.layout.margin.t or TEMPLATE.layout.margin.t
    bare = go.Figure(figure).update_layout(title_text="", margin_t=max(space - _TITLE_SPACE, 12))
    # plotly escapes "<" and ">" today; the page does not rest on that.
    text = str(bare.to_json())
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("interp.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure_json": figure_json, "caption": caption, "title_of": title}
    return environment


@cache
def _plotly_js() -> str:
    # Browsers hash a script after turning its line ends into "\n".
    return "\n" + _one_line_end(plotly.offline.get_plotlyjs()) + "\n"


@cache
def _asset(name: str) -> str:
    text = files("interp.report").joinpath("assets", name).read_text(encoding="utf-8")
    return "\n" + _one_line_end(text)


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
