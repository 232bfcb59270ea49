"""Figures of several kinds as one: panels one below the other, each with axes of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

_TOP, _BOTTOM, _LINE, _PAD = 44, 96, 18, 8
"""Pixels: above the first title, below the last panel, of a line of a title, around titles."""


@dataclass(frozen=True)
class Part:
    """A figure of one panel, as a panel of another.

    Attributes:
        figure: Of any kind of chart.
        title: Above it, from the left edge; lines apart by `<br>`.
        height: Of the panel, in pixels.
        below: Pixels below it, for its ticks and axis title.
    """

    figure: go.Figure
    title: str
    height: int
    below: int = 44


def stack(parts: Sequence[Part], *, left: int = 92) -> go.Figure:
    """One figure of several, one below the other.

    Titles, and texts that begin at the left edge of a panel, begin at that of the figure.

    Args:
        parts: From above, each of one panel.
        left: Pixels left of the panels.

    Returns:
        The figure, without title and caption; the first part has the axes `x` and `y`, the second
        `x2` and `y2`. The list of phases, if a part has one, stands at the bottom.
    """
    titles = [_PAD + _LINE * (1 + part.title.count("<br>")) for part in parts]
    inside = sum(titles) + sum(part.height + part.below for part in parts)
    figure, top = go.Figure(), 0
    texts: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for number, (part, title) in enumerate(zip(parts, titles, strict=True), 1):
        n = "" if number == 1 else str(number)
        top += title
        high, low = 1 - top / inside, max(1 - (top + part.height) / inside, 0)
        top += part.height + part.below
        layout = part.figure.to_plotly_json()["layout"]
        for trace in part.figure.data:
            moved = {**trace.to_plotly_json(), "xaxis": f"x{n}", "yaxis": f"y{n}"}
            figure.add_trace(
                moved | ({"coloraxis": f"coloraxis{n}"} if "coloraxis" in moved else {})
            )
        figure.update_layout(
            {
                f"xaxis{n}": {**layout.get("xaxis", {}), "anchor": f"y{n}", "domain": [0, 1]},
                f"yaxis{n}": {
                    **layout.get("yaxis", {}), "anchor": f"x{n}", "domain": [low, high],
                    "automargin": False,
                },
                **({f"coloraxis{n}": layout["coloraxis"]} if "coloraxis" in layout else {}),
                **({"barmode": layout["barmode"]} if "barmode" in layout else {}),
                **({"legend2": {**layout["legend2"], "yref": "container", "y": 0}}
                   if "legend2" in layout else {}),
            }
        )  # fmt: skip
        shapes += [_moved(shape, n) for shape in layout.get("shapes", ())]
        at_edge = {"x": 0, "xref": "paper", "xanchor": "left", "xshift": _PAD - left}
        for text in layout.get("annotations", ()):
            moved = _moved(text, n)
            texts.append(moved | at_edge if moved["xref"].endswith("domain") else moved)
        texts.append(
            {"text": part.title, "y": high, "yref": "paper", "yanchor": "bottom", "yshift": 4,
             "showarrow": False, "align": "left", "font": {"size": 13}, **at_edge}
        )  # fmt: skip
    # All at once: plotly looks at every one again whenever one is added.
    figure.update_layout(
        annotations=texts, shapes=shapes, height=_TOP + _BOTTOM + inside,
        margin={"t": _TOP, "b": _BOTTOM, "l": left},
    )  # fmt: skip
    return figure


def _moved(item: dict[str, Any], n: str) -> dict[str, Any]:
    """A shape or a text on the axes of its panel; what went over all of the figure, over the panel."""
    refs = {"x": f"x{n}", "y": f"y{n}"}
    moved = dict(item)
    for axis, ref in refs.items():
        kept = str(item.get(f"{axis}ref", axis))
        moved[f"{axis}ref"] = ref if kept == axis else f"{ref} domain"
    return moved
