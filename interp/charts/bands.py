"""The phases of a run as stretches of steps, for figures and tables."""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import plotly.graph_objects as go

from interp.phases import Phases, phase_bands

_FILLS = {
    "statistics": "rgba(122,127,135,{alpha})",
    "plateau": "rgba(230,159,0,{alpha})",
    "knowledge": "rgba(31,131,196,{alpha})",
}
_SHADE, _SWATCH = 0.14, 0.55
_STAGE = {"color": "rgb(122,127,135)", "dash": "dash"}


def shade_phases(
    figure: go.Figure,
    phases: Phases,
    first: int,
    last: int,
    axis: str,
    n_columns: int = 1,
    place: Callable[[float], float] = float,
) -> None:
    """Shades the phases behind all panels, numbers them, and lists them above.

    Where a training has stages, the step at which each later one begins is a dashed vertical line; the
    list names what it trains on.

    Args:
        figure: A figure whose x axes are steps.
        phases: Where the phases meet.
        first: The first measured step.
        last: The last measured step.
        axis: The y axis below whose upper edge the numbers stand, e.g. "y domain".
        n_columns: Columns of panels, made by `make_subplots`.
        place: Where a step stands on the x axis, for axes that are not linear (see `spread_steps`).
    """
    for band in phase_bands(phases, first, last):
        start, end = place(band.start), place(band.end)
        for column in range(1, n_columns + 1):
            x, y = ("x", axis) if column == 1 else (f"x{column}", f"y{column} domain")
            figure.add_shape(
                type="rect", layer="below", line_width=0, name=band.name,
                xref=x, x0=start, x1=end, yref="paper", y0=0, y1=1,
                fillcolor=_FILLS[band.name].format(alpha=_SHADE),
            )  # fmt: skip
            if band.end < last:
                figure.add_shape(
                    type="line", layer="below", name=f"end of {band.name}",
                    xref=x, x0=end, x1=end, yref="paper", y0=0, y1=1,
                    line={"color": _FILLS["statistics"].format(alpha=0.8), "width": 1},
                )  # fmt: skip
            figure.add_annotation(
                text=f"<b>{band.number}</b>", showarrow=False, font_size=12,
                x=(start + end) / 2, xref=x, y=1, yref=y, yanchor="top",
            )  # fmt: skip
        if band.name == "knowledge":
            extent = f"from step {band.start:,}"
        elif band.closed:
            extent = f"to step {band.end:,}"
        else:
            extent = "not left"
        figure.add_scatter(
            x=[None], y=[None], mode="markers", hoverinfo="skip", legend="legend2",
            name=f"{band.number} {band.name}, {extent}",
            marker={"symbol": "square", "size": 11,
                    "color": _FILLS[band.name].format(alpha=_SWATCH)},
        )  # fmt: skip
    for number, (start, label) in enumerate(phases.stages, 2):
        if not first < start <= last:
            continue
        for column in range(1, n_columns + 1):
            x, y = ("x", axis) if column == 1 else (f"x{column}", f"y{column} domain")
            figure.add_shape(
                type="line", name=f"stage {number}", xref=x, x0=place(start), x1=place(start),
                yref="paper", y0=0, y1=1, line={**_STAGE, "width": 1.4},
            )  # fmt: skip
            figure.add_annotation(
                text=f"stage {number}", showarrow=False, font={"size": 11, "color": _STAGE["color"]},
                x=place(start), xref=x, xanchor="left", xshift=3, y=1, yref=y, yanchor="top", yshift=-14,
            )  # fmt: skip
        figure.add_scatter(
            x=[None], y=[None], mode="lines", hoverinfo="skip", legend="legend2", line=_STAGE,
            name=f"stage {number}, {label}, from step {start:,}",
        )  # fmt: skip
    figure.update_layout(
        legend2={
            "orientation": "h", "yref": "paper", "y": 1.0, "yanchor": "bottom",
            "x": 0, "xanchor": "left", "font": {"size": 12}, "bgcolor": "rgba(0,0,0,0)",
            "itemclick": False, "itemdoubleclick": False,
        }
    )  # fmt: skip


def spread_steps(figure: go.Figure, steps: Iterable[int], phases: Phases | None = None) -> None:
    """Gives the x axes a square-root scale with true steps as ticks; see `root_ticks`."""
    figure.update_xaxes(**root_ticks(steps, phases))


def root_ticks(
    steps: Iterable[float | int], phases: Phases | None = None, *, margin: float = 0.02
) -> dict[str, Any]:
    """Plotly's settings of an axis with a square-root scale and true steps as ticks.

    The first phases take few steps and the last one many: on a linear axis the first could not be
    read, and a logarithm has no place for step 0. Data go in at `math.sqrt(step)`.

    Args:
        steps: The steps to mark; those too close to another one go without a tick.
        phases: Their ends are marked first, if they are known.
        margin: Space at both ends, as a share of the axis.
    """
    every = sorted(set(steps))
    first, last = sqrt(every[0]), sqrt(every[-1])
    width = (last - first) or 1.0
    known = () if phases is None else (phases.plateau_end, phases.statistics_end)
    ends = [end for end in known if end in every]
    ticks: list[float | int] = []
    # The second half of a square-root axis has the room: later steps choose first.
    for step in (every[0], every[-1], *ends, *reversed(every)):
        space = 0.1 if step in ends else 0.125
        if all(abs(sqrt(step) - sqrt(other)) >= space * width for other in ticks):
            ticks.append(step)
    return {
        "tickvals": [sqrt(step) for step in sorted(ticks)],
        "ticktext": [f"{step:,.0f}" for step in sorted(ticks)],
        "range": [first - margin * width, last + margin * width],
        "tickangle": 0,
        "tickfont_size": 11,
    }


def round_steps(first: float | int, last: float | int) -> list[float | int]:
    """The ends of a square-root axis, and steps of one digit and zeros all along it."""
    between = [float(f"{last * (k / 16) ** 2:.1g}") for k in range(1, 16)]
    return [first, *(step for step in between if first < step < last), last]
