"""What a page is made of: sections, each made by one contract from the data that it needs.

A builder states its title, its anchor and its tables (`section`); it is called with these and gives the
sentence that says what was found, figures, tables and texts. Where data is missing it gives a `LeftOut`,
and the page says so in one place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go

from interp.run import Run

_Source = TypeVar("_Source")


@dataclass(frozen=True)
class Table:
    """A table of a page.

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
class LeftOut:
    """What a page does not show, for want of data.

    Attributes:
        why: What is missing.
        commands: What to type to have it; none if nothing would make it.
        title: Of the section; a builder made by `section` fills it in.
        nothing_there: Whether it was looked for, and there is nothing to measure: the page says so of each
            table that a section could show.
    """

    why: str
    commands: Sequence[str] = ()
    title: str = ""
    nothing_there: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a page. All text is plain text.

    The first figure is the main one; of a section without figures and views, the first table is. The
    main one stands open unless the section is `folded`, all others fold away until they are opened.

    Attributes:
        title: Its heading, and its entry in the navigation.
        anchor: Its id in the page: letters, digits and hyphens.
        sentence: What was found, with units; the page begins with the sentences of all its sections.
        text: Paragraphs on what was done; they fold away where there is a sentence.
        results: Results to show large: name, value with unit, remark.
        figures: Figures by their anchor. Title and caption are the figure's own
            (see `interp.plots.describe`).
        embeds: Interactive views.
        tables: Tables.
        downloads: The measured tables behind the figures, which the page offers as CSV, by file name
            without its ending.
        listings: Texts to fold away.
        terms: Terms with their definitions.
        folded: Whether the main figure is folded away too.
        lacks: What it shows less than it could.
    """

    title: str = ""
    anchor: str = ""
    sentence: str = ""
    text: Sequence[str] = ()
    results: Sequence[tuple[str, str, str]] = ()
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    embeds: Sequence[Embed] = ()
    tables: Sequence[Table] = ()
    downloads: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    listings: Sequence[Listing] = ()
    terms: Mapping[str, str] = field(default_factory=dict)
    folded: bool = False
    lacks: Sequence[LeftOut] = ()


SectionBuilder = Callable[[Run], Section | LeftOut]
"""Builds a section of a run's report, or says why it cannot."""


def section(
    find: Callable[[_Source, str], pd.DataFrame | LeftOut],
    title: str,
    anchor: str,
    needs: Sequence[str] = (),
    uses: Sequence[str] = (),
    *,
    folded: bool = False,
) -> Callable[[Callable[..., Section | LeftOut]], Callable[[_Source], Section | LeftOut]]:
    """Makes a builder of a function that takes a source (such as a run) and its tables.

    Args:
        find: Looks a table up by its name in a source, or says why it is not there.
        title: Of the section.
        anchor: Of the section.
        needs: Names of the tables without which the section is left out.
        uses: Of those that it shows where they are there; the function is given None for others. A
            section that needs none is left out where there is none that it uses.
        folded: See `Section`.

    Returns:
        A decorator. The section offers its tables as downloads, unless the function names others.
    """

    def decorate(
        build: Callable[..., Section | LeftOut],
    ) -> Callable[[_Source], Section | LeftOut]:
        @wraps(build)
        def built(source: _Source) -> Section | LeftOut:
            found = {name: find(source, name) for name in (*needs, *uses)}
            absent = {name: one for name, one in found.items() if isinstance(one, LeftOut)}
            if any(name in absent for name in needs) or (found and len(absent) == len(found)):
                first, *_ = absent.values()
                if first.nothing_there:
                    whys = dict.fromkeys(o.why for o in absent.values() if o.nothing_there)
                    first = replace(first, why="; ".join(whys))
                return replace(first, title=title)
            tables = {n: one for n, one in found.items() if isinstance(one, pd.DataFrame)}
            made = build(source, *(tables.get(name) for name in found))
            if isinstance(made, LeftOut):
                return replace(made, title=title)
            downloads = {name.replace("/", "-"): table for name, table in tables.items()}
            parts = (
                replace(o, title=f"{title}: {n}") for n, o in absent.items() if o.nothing_there
            )
            return replace(
                made,
                title=title,
                anchor=anchor,
                folded=folded,
                downloads=made.downloads or downloads,
                lacks=[*made.lacks, *parts],
            )

        return built

    return decorate
