"""What a report is made of: sections with findings, texts, figures, tables, views and listings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from interp.run import Run


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        caption: What it shows, with units.
        header: Column titles; the first column heads the rows.
        rows: The cells, as text.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Listing:
    """Text that is folded away until opened, such as a configuration."""

    title: str
    text: str


@dataclass(frozen=True)
class Embed:
    """An interactive view that is not a plotly figure.

    It is drawn by `interpViews[view](element, settings, unpack)` when it comes near the window, and
    at once if the page is opened at its anchor; `unpack(key)` gives a Promise of a Uint8Array.
    To offer files, a view calls `interpPage.download(name, blob)`.

    Attributes:
        anchor: The id of its heading: letters, digits and hyphens.
        title: Its heading.
        caption: What to look for, plain text.
        view: Name of the JavaScript function in `interpViews` that draws it.
        settings: What that function is given; anything that JSON knows.
        packed: Bytes by key (letters, digits and hyphens), which the page holds deflated.
        script: JavaScript that defines the function; the same text is inlined once.
        style: CSS; the same text is inlined once.
        fallback: Text shown without JavaScript.
    """

    anchor: str
    title: str
    caption: str
    view: str
    settings: Mapping[str, Any]
    packed: Mapping[str, bytes]
    script: str
    style: str = ""
    fallback: str = ""


@dataclass(frozen=True)
class Finding:
    """One result in one sentence, with the figure that supports it.

    Attributes:
        title: Its heading.
        sentence: What was found, with units; for a stage that has not run, that it has not.
        anchor: The anchor of the section that tells more; None if there is none.
        figure: The anchor of one of that section's figures; None if there is none.
        command: What to type to have the result, where it is missing.
    """

    title: str
    sentence: str
    anchor: str | None = None
    figure: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Section:
    """A section of a report, shown in the order of its attributes. All text is plain text.

    Attributes:
        title: Its heading, and its entry in the navigation.
        anchor: Its id in the page: letters, digits and hyphens.
        text: Paragraphs.
        results: Results to show large: name, value with unit, remark.
        findings: Results in a sentence each, with figures that other sections show too.
        figures: Figures by their anchor. Title and caption are the figure's own
            (see `interp.plots.describe`).
        embeds: Interactive views.
        tables: Tables.
        listings: Texts to fold away.
        terms: Terms with their definitions.
    """

    title: str
    anchor: str
    text: Sequence[str] = ()
    results: Sequence[tuple[str, str, str]] = ()
    findings: Sequence[Finding] = ()
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    embeds: Sequence[Embed] = ()
    tables: Sequence[Table] = ()
    listings: Sequence[Listing] = ()
    terms: Mapping[str, str] = field(default_factory=dict)


SectionBuilder = Callable[[Run], Section | None]
"""Builds a section of a run; None if the run has nothing to show there."""
