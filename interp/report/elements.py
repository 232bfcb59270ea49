"""What a report is made of: sections with texts, results, figures, tables and listings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
class Section:
    """A section of a report, shown in the order of its attributes. All text is plain text.

    Attributes:
        title: Its heading, and its entry in the navigation.
        anchor: Its id in the page: letters, digits and hyphens.
        text: Paragraphs.
        results: Results to show large: name, value with unit, remark.
        figures: Figures by their anchor. Title and caption are the figure's own
            (see `interp.plots.describe`).
        tables: Tables.
        listings: Texts to fold away.
        terms: Terms with their definitions.
    """

    title: str
    anchor: str
    text: Sequence[str] = ()
    results: Sequence[tuple[str, str, str]] = ()
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    listings: Sequence[Listing] = ()
    terms: Mapping[str, str] = field(default_factory=dict)


SectionBuilder = Callable[[Run], Section | None]
"""Builds a section of a run; None if the run has nothing to show there."""
