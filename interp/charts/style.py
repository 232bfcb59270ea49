"""The look of every figure, and the caption that travels with it.

Backgrounds are transparent and every ink keeps a contrast of at least 3.8 to 1 (lines 3.4 to 1) on
white and on near-black, so a figure is legible in a light and in a dark notebook alike. Colours are
those of Okabe and Ito, which colour-blind readers can tell apart, slightly shifted for that
contrast; lines that share a panel differ in their dashes too.
"""

import html
from typing import Any

import plotly.graph_objects as go

PALETTE = {
    "blue": "#1F83C4",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#B8689A",
    "grey": "#7A7F87",
}
"""Okabe and Ito's colours, readable on white and on near-black."""

_RAMP = ("#2A6FD6", "#7A68CE", "#B45FA6", "#C9606A", "#D06A12")
DASHES = ("solid", "dash", "dashdot", "12px,3px")
"""Dashes of lines that share a panel; dots are left for levels to compare with."""

INK = "#797D85"
"""Text and axis lines."""
GRID = "rgba(128,128,128,0.22)"
"""Grid lines."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"

_AXIS: dict[str, Any] = {
    "gridcolor": GRID,
    "linecolor": INK,
    "tickcolor": INK,
    "showline": True,
    "zeroline": False,
    "zerolinecolor": INK,
    "zerolinewidth": 1,
    "ticks": "outside",
    "ticklen": 4,
    "automargin": True,
    "spikecolor": INK,
    "spikethickness": 1,
    "spikedash": "dot",
    "title": {"standoff": 8, "font": {"size": 13}},
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        # At the very top: the list of phases takes up to two lines below it.
        "title": {
            "x": 0,
            "xref": "container",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"l": 8, "t": 8},
            "font": {"size": 16},
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(PALETTE.values()),
        "margin": {"l": 56, "r": 16, "t": 48, "b": 48},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": INK,
            "activecolor": PALETTE["blue"],
            "remove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
        },
        "hoverlabel": {
            "bgcolor": "#22272E",
            "bordercolor": "#7A7F87",
            "font": {"color": "#F2F4F6", "family": FONT, "size": 12},
        },
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "xanchor": "left",
            "font": {"size": 12},
            "bgcolor": "rgba(0,0,0,0)",
        },
    }
)
"""The plotly template of every figure."""


def ramp(n: int) -> list[str]:
    """Colours for ordered things, from blue (first) to orange (last).

    Blue to orange is an order that colour-blind readers see too; lightness grows slowly along it,
    as every colour has to stay readable on white and on near-black.

    Args:
        n: How many colours.

    Example:
        >>> ramp(2)
        ['#2A6FD6', '#D06A12']
    """
    stops = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in _RAMP]
    colours = []
    for i in range(n):
        at = i / (n - 1) * (len(stops) - 1) if n > 1 else 0.0
        low = min(int(at), len(stops) - 2)
        mixed = [
            round(a + (at - low) * (b - a)) for a, b in zip(stops[low], stops[low + 1], strict=True)
        ]
        colours.append("#" + "".join(f"{part:02X}" for part in mixed))
    return colours


def see_through(colour: str, alpha: float) -> str:
    """A colour of the palette with an opacity between 0 and 1."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def describe(figure: go.Figure, title: str, caption: str) -> go.Figure:
    """Gives a figure the house style, a title, and the caption that tells what to look for.

    Args:
        figure: The figure; it is changed and returned.
        title: A few words, shown above the figure.
        caption: Sentences for the reader, with the units.
    """
    text = " ".join(caption.split())
    figure.update_layout(template=TEMPLATE, title_text=title, meta={"caption": text})
    return figure


def caption(figure: go.Figure) -> str:
    """What to look for in a figure; empty for one that `describe` has not seen."""
    return str((figure.layout.meta or {}).get("caption", ""))


def title(figure: go.Figure) -> str:
    """The title of a figure."""
    return str(figure.layout.title.text or "")


def note(figure: go.Figure, text: str) -> None:
    """Writes a remark into the middle of a figure, for one that has nothing else to show."""
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)


def plain(text: str) -> str:
    """Text that plotly shows as it is: no HTML, no formula between dollar signs, no placeholder."""
    escaped = html.escape(text, quote=False)
    return escaped.replace("$", "&#36;").replace("%{", "%&#123;")


def two_lines(name: str) -> str:
    """A name of several words, broken so that it fits beside a figure on a phone."""
    words = name.split()
    if len(name) <= 14 or len(words) < 2:
        return plain(name)
    halves = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return "<br>".join(map(plain, min(halves, key=lambda half: max(map(len, half)))))
