"""What callers say of axes, lines and levels: titles with units, colours, dashes, marks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from math import log10, sqrt
from typing import Any, Literal

import pandas as pd

from interp.charts.style import DASHES, PALETTE, ramp
from interp.errors import ArgumentError

COLOURS = [PALETTE[name] for name in ("blue", "orange", "green", "purple", "grey")]
"""Colours of lines that share a panel, in order."""
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "cross")
"""Marks of lines that share a panel, in order."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        title: With the unit in brackets, e.g. "cost (nats)".
        unit: Behind a value under the pointer, e.g. "nats".
        form: How a value is written under the pointer.
        scale: "linear", "root" (square root: steps from 0) or "log" (above 0).
        range: Ends of the axis; by default what is drawn, from zero.
        hover: What an x value is called under the pointer; by default the title without its unit.
        best: Whether the lowest ("min") or the highest ("max") mean of a line gets a star.
    """

    title: str
    unit: str = ""
    form: str = ".3f"
    scale: Literal["linear", "root", "log"] = "linear"
    range: tuple[float | int, float | int] | None = None
    hover: str = ""
    best: Literal["min", "max"] | None = None

    def place(self, value: Any) -> float:
        """Where a value stands in plotly's coordinates of data."""
        return sqrt(value) if self.scale == "root" else float(value)

    def end(self, value: Any) -> float:
        """Where a value stands in plotly's coordinates of ranges, shapes and annotations."""
        return log10(value) if self.scale == "log" else self.place(value)

    def text(self, y: str = "%{y") -> str:
        """A value and its unit, for plotly's hover template."""
        return f"{y}:{self.form}}}{f' {self.unit}' if self.unit else ''}"

    def said(self, value: Any) -> str:
        """A value and its unit."""
        return f"{float(value):{self.form}}{f' {self.unit}' if self.unit else ''}"

    @property
    def options(self) -> dict[str, Any]:
        """Plotly's settings of an axis, without its title."""
        options: dict[str, Any] = {}
        if self.scale == "log":
            options |= {"type": "log", "rangemode": "normal", "dtick": "D2"}
        if self.range is not None:
            options["range"] = [self.end(value) for value in self.range]
        if self.form.endswith(".0f"):
            options["tickformat"] = ",d"
        return options

    @property
    def words(self) -> str:
        """What a value of it is called."""
        return self.hover or self.title.split(" (")[0]


STEPS = Axis("training (steps)", "", ",.0f", hover="step")
"""Training steps as they are."""
ROOT_STEPS = Axis("training (steps, square-root scale)", "", ",.0f", "root", hover="step")
"""Training steps on a square-root scale; a caption adds `ROOT_AXIS`."""
ROOT_AXIS = (
    "The axis goes with the square root of steps, so that the short first phases can be read."
)
"""What a caption says of `ROOT_STEPS`."""

Axes = str | Axis | Mapping[Any, str | Axis]
"""One axis for all panels, or one for each value of a facet."""


def axis_of(axis: str | Axis, unit: str = "", form: str | None = None) -> Axis:
    """An axis from its title, a unit and a form.

    Raises:
        ArgumentError: the title is empty.
    """
    found = Axis(axis) if isinstance(axis, str) else axis
    if not found.title:
        raise ArgumentError('An axis needs a title with its unit, e.g. "cost (nats)".')
    if isinstance(axis, str) and form is not None:
        found = replace(found, form=form)
    return replace(found, unit=found.unit or unit)


def axis_at(axis: Axes, key: Iterable[Any], unit: str = "") -> Axis:
    """The axis of a panel.

    Args:
        axis: One for all panels, or by the value of a facet.
        key: The values of the facets at that panel.
        unit: Where the axis has none.

    Raises:
        ArgumentError: none of the values has an axis.
    """
    if not isinstance(axis, Mapping):
        return axis_of(axis, unit)
    key = list(key)
    found = next((axis[value] for value in key if value in axis), None)
    if found is None:
        raise ArgumentError(f"No axis is given for the panel {key}; there is {list(axis)}.")
    return axis_of(found, unit)


@dataclass(frozen=True)
class Look:
    """How a line or a group of points looks.

    Attributes:
        colour: One that is readable on light and dark (`PALETTE`, `ramp`).
        dash: Of a line.
        width: Of a line, in pixels.
        symbol: Of points.
        name: For the legend and the pointer; by default the value of the table.
    """

    colour: str
    dash: str = "solid"
    width: float | int = 2
    symbol: str = "circle"
    name: str | None = None

    @property
    def line(self) -> dict[str, Any]:
        """Plotly's `line`."""
        return {"color": self.colour, "dash": self.dash, "width": self.width}


@dataclass(frozen=True)
class Level:
    """A level to compare with, drawn across a panel: chance, a baseline, a control.

    Attributes:
        name: For the legend and the pointer.
        value: A number, or one for each x.
        only: The panel needs to have all of these values of facets; without any, every panel has it.
        dash: Of the line.
        colour: Of the line.
        width: Of the line, in pixels.
        legend: Whether it stands in the legend.
        group: Entry of the legend that switches it; its name by default.
    """

    name: str
    value: float | int | pd.Series
    only: tuple[Any, ...] = ()
    dash: str = "dot"
    colour: str = PALETTE["grey"]
    width: float | int = 1.5
    legend: bool = True
    group: str | None = None

    @property
    def line(self) -> dict[str, Any]:
        """Plotly's `line`."""
        return {"color": self.colour, "dash": self.dash, "width": self.width}

    def at(self, key: Sequence[Any]) -> bool:
        """Whether a panel with these values of facets has it."""
        return set(self.only) <= set(key)


def looks_of(
    values: Iterable[Any],
    names: Mapping[Any, str] | None = None,
    *,
    ordered: bool = False,
    first: Look | None = None,
) -> dict[Any, Look]:
    """Looks for values that share a panel: colour, dash and mark differ from one to the next.

    Args:
        values: As they are in the table, in the order to draw.
        names: What a reader is told they are.
        ordered: Colours from blue (first) to orange (last), for steps, sizes, layers.
        first: A look of its own for the first value, e.g. for a default.

    Example:
        >>> looks_of([0, 1], ordered=True)[1].colour
        '#D06A12'
    """
    every = list(values)
    known = every[1:] if first is not None else every
    colours = ramp(len(known)) if ordered else COLOURS
    looks = {
        value: Look(colour, dash, symbol=symbol, name=(names or {}).get(value))
        for value, colour, dash, symbol in zip(
            known, cycle(colours), cycle(DASHES), cycle(SYMBOLS), strict=False
        )
    }
    if first is None or not every:
        return looks
    return {every[0]: replace(first, name=first.name or (names or {}).get(every[0])), **looks}


def completed(values: Sequence[Any], looks: Mapping[Any, Look] | None) -> dict[Any, Look]:
    """A look for every value: the caller's, else one of `looks_of`."""
    return {**looks_of(values), **(looks or {})}


def whiskers(means: pd.DataFrame, axis: Axis, colour: str) -> dict[str, Any]:
    """Plotly's error bars from the lowest seed to the highest.

    Args:
        means: As `interp.seeds.over_seeds` gives them.
        axis: Along which they go.
        colour: Of the bars.
    """
    low, mean, high = ([axis.place(v) for v in means[part]] for part in ("low", "mean", "high"))
    return {
        "type": "data", "symmetric": False, "thickness": 1.2, "width": 3, "color": colour,
        "array": [end - middle for end, middle in zip(high, mean, strict=True)],
        "arrayminus": [middle - end for middle, end in zip(mean, low, strict=True)],
    }  # fmt: skip
