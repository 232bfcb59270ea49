"""The order in which mechanisms emerge: does recall attention form before the memory?

Tables of emergence have the columns `mechanism`, `seed`, `step` (at which the mechanism reaches half
of its final strength; NaN: absent in the end), `start`, `final`, `phase`; tables of strengths
`mechanism`, `step`, `value`, `control`, `strength` and, of several runs, `seed`.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import pandas as pd
import plotly.graph_objects as go

from interp.charts.bands import shade_phases, spread_steps
from interp.charts.style import DASHES, INK, PALETTE, describe, note, see_through
from interp.errors import InterpError
from interp.memory.emergence import FAINT
from interp.phases import Phases
from interp.plots.panels import COLOURS, Line, Panel, over_steps, rows, whole_numbers

GROUPS = {
    "attention": (
        "name grouping at last name",
        "name grouping at middle name",
        "type attention",
        "extraction attention",
    ),
    "memory at names": (
        "key selectivity",
        "key-value agreement at names",
        "probe at names",
        "MLP share at names",
        "MLP swap at names",
    ),
    "at the value": (
        "key-value agreement at value",
        "probe at value position",
        "attention swap at value",
        "MLP swap at value",
    ),
    "knowledge": ("knowledge",),
}
"""The mechanisms, by what they are part of."""
_LOOKS = {
    "attention": (PALETTE["blue"], "circle"),
    "memory at names": (PALETTE["orange"], "square"),
    "at the value": (PALETTE["green"], "diamond"),
    "knowledge": (INK, "star"),
    "other": (PALETTE["purple"], "triangle-up"),
}
_EMERGENCE = ("mechanism", "seed", "step", "final")
_STRENGTHS = ("mechanism", "step", "strength")


def emergence(
    emergence: pd.DataFrame,
    strengths: pd.DataFrame | None = None,
    phases: Phases | Sequence[Phases] | None = None,
) -> go.Figure:
    """The step at which each mechanism reaches half of its final strength: the main figure.

    What to look for: whether attention to names comes before the memory of the MLPs or after it.

    Args:
        emergence: See the module; a row for each mechanism and seed.
        strengths: See the module. With them a bar shows how long a mechanism takes to rise, and the
            axis reaches from the first to the last measured step.
        phases: Of the run, or of each seed's.

    Raises:
        InterpError: a column is missing, or the table is empty.
    """
    table = rows(emergence, _EMERGENCE, "emergence")
    if table.empty:
        raise InterpError("The table of emergence has no mechanism to draw.")
    of_seeds = [phases] if isinstance(phases, Phases) else list(phases or [])
    means = table.groupby("mechanism")["step"].mean()
    order = sorted(
        dict.fromkeys(table["mechanism"]), key=lambda m: (pd.isna(means[m]), means[m], _rank(m))
    )
    first, last = _extent(table, strengths, of_seeds)
    figure = go.Figure()
    seen: set[str] = set()
    labels: list[str] = []
    for y, mechanism in enumerate(order):
        group = group_of(mechanism)
        colour, symbol = _LOOKS[group]
        own = table[table["mechanism"] == mechanism]
        found = own[own["step"].notna()]
        shared = {"legendgroup": group}
        rise = None if strengths is None or found.empty else _rise(strengths, mechanism)
        if rise is not None:
            figure.add_scatter(
                x=[sqrt(step) for step in rise], y=[y, y], mode="lines", name=f"{mechanism}, rise",
                line={"color": see_through(colour, 0.3), "width": 12}, showlegend=False,
                hovertemplate=f"{mechanism}: from a quarter to three quarters of its final strength "
                f"between steps {rise[0]:,.0f} and {rise[1]:,.0f}<extra></extra>", **shared,
            )  # fmt: skip
        if len(found):
            _add_steps(figure, found, y, mechanism, colour, symbol, group not in seen)
            seen.add(group)
        label = mechanism
        if found.empty:
            why = "not measured" if own["final"].isna().all() else "absent"
            figure.add_annotation(
                text=f"<i>{why}</i>", x=sqrt(last), y=y, xanchor="right", showarrow=False,
                font={"size": 12, "color": INK},
            )  # fmt: skip
        elif len(found) < len(own):
            label = f"{mechanism} ({len(found)} of {len(own)})"
        labels.append(f"<b>{label}</b>" if mechanism == "knowledge" else _two_lines(label))
    if of_seeds:
        _shade_seeds(figure, of_seeds, first, last)
    # Ticks are true steps; without measured ones, round ones do.
    ticks = _round_steps(first, last) if strengths is None else whole_numbers(strengths["step"])
    ends = [e for p in of_seeds for e in (p.statistics_end, p.plateau_end) if e is not None]
    spread_steps(figure, {first, last, *ticks, *ends}, _mean_phases(of_seeds), margin=0.03)
    figure.update_xaxes(title_text="training (steps, square-root scale)")
    figure.update_yaxes(
        tickvals=list(range(len(order))), range=[len(order) - 0.4, -0.9], tickfont_size=12,
        ticktext=labels,
    )  # fmt: skip
    figure.update_layout(height=190 + 40 * len(order), margin_t=68)
    n_seeds = table["seed"].nunique()
    return describe(
        figure,
        "The order of emergence",
        f"""The training step at which each mechanism reaches half of its final strength (what it has
        beyond its control), from first to last, for {_count(n_seeds)}: small marks are seeds, the
        large one their mean, whiskers reach from the earliest to the latest. Pale bars, where shown:
        from a quarter to three quarters of the final strength. Blue circles: attention; orange
        squares: the memory at the name; green diamonds: what arrives where the value is predicted;
        star: knowledge, the accuracy that all of them are to explain. Shaded: the phases (of seeds,
        their mean), with strips from the earliest to the latest boundary. Absent: no stronger than its
        control in the end; in brackets, in how many seeds it is there. The axis goes with the square
        root of steps. Look for whether attention to names is above the memory, which means earlier,
        or below it; rows whose whiskers overlap have no order. Predictions follow a swap only where
        there is knowledge, so that swaps and probes cannot come before it; shares, of what names do
        for the answer at that step, can.""",
    )


def strength_curves(strengths: pd.DataFrame, phases: Phases) -> go.Figure:
    """Each mechanism's strength over training, as a share of its final one.

    What to look for: the order in which the lines cross one half.

    Args:
        strengths: See the module.
        phases: Of the run.

    Raises:
        InterpError: a column is missing.
    """
    table = rows(strengths, _STRENGTHS, "strengths")
    curves = {m: _shares(table, m) for m in dict.fromkeys(table["mechanism"])}
    faint = sorted(m for m, curve in curves.items() if curve is None)
    knowledge = curves.get("knowledge")
    panels = []
    for group in (*GROUPS, "other"):
        own = {
            m: curve for m, curve in curves.items() if curve is not None and group_of(m) == group
        }
        lines = [
            _strength_line(m, curve, {"color": COLOURS[i % 4], "dash": DASHES[i % 4], "width": 2})
            for i, (m, curve) in enumerate(sorted(own.items(), key=lambda item: _rank(item[0])))
        ]
        if knowledge is not None and group != "knowledge" and lines:
            style = {"color": PALETTE["grey"], "width": 3}
            lines.insert(0, _strength_line("knowledge", knowledge, style))
        if lines and group != "knowledge":
            panels.append(Panel(group, lines))
    if panels:
        figure = over_steps(panels, phases, "share of final", place=sqrt, band="range of seeds")
        figure.add_hline(y=0.5, line={"color": PALETTE["grey"], "dash": "dot", "width": 1.5})
        figure.update_yaxes(range=[-0.3, 1.5], tickvals=[0, 0.5, 1])
        figure.update_layout(height=190 + 215 * len(panels))
    else:
        figure = go.Figure()
        note(figure, "No mechanism is stronger<br>than its control in the end")
        figure.update_xaxes(title_text="training (steps)")
        figure.update_yaxes(title_text="share of final")
    left_out = (
        f"Left out, as their final strength is below {FAINT:g}: {', '.join(faint)}."
        if faint
        else ""
    )
    return describe(
        figure,
        "How mechanisms grow",
        f"""The strength of each mechanism (what it has beyond its control) as a share of its final
        strength, against training steps (square-root scale), a panel for attention, for the memory
        at the name, and for what arrives where the value is predicted. Grey: knowledge, the accuracy
        that they are to explain; dotted: one half, which dates a mechanism. {left_out} Look for the
        order in which lines cross one half, for lines that rise before knowledge, and for those that
        jump at the end of a phase.""",
    )


def group_of(mechanism: str) -> str:
    """What a mechanism is part of: a key of `GROUPS`, or "other"."""
    return next((group for group, own in GROUPS.items() if mechanism in own), "other")


def _add_steps(
    figure: go.Figure,
    found: pd.DataFrame,
    y: int,
    mechanism: str,
    colour: str,
    symbol: str,
    legend: bool,
) -> None:
    """A mechanism's seeds, their mean, and whiskers over their range."""
    group = group_of(mechanism)
    steps = [float(step) for step in found["step"]]
    mean = sum(steps) / len(steps)
    if len(steps) > 1:
        # Marks of seeds that fall together stay apart.
        offsets = [0.24 * (2 * i / (len(steps) - 1) - 1) for i in range(len(steps))]
        figure.add_scatter(
            x=[sqrt(step) for step in steps], y=[y + offset for offset in offsets], mode="markers",
            name=f"{mechanism}, seeds", legendgroup=group, showlegend=False,
            marker={"color": see_through(colour, 0.6), "size": 6, "symbol": symbol},
            customdata=[
                f"seed {seed}: step {step:,.0f}, final strength {final:.3f}"
                for seed, step, final in zip(found["seed"], steps, found["final"], strict=True)
            ],
            hovertemplate=f"{mechanism}, %{{customdata}}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=[sqrt(mean)], y=[y], mode="markers", name=group, legendgroup=group, showlegend=legend,
        marker={"color": colour, "size": 12, "symbol": symbol},
        error_x={
            "type": "data", "symmetric": False, "array": [sqrt(max(steps)) - sqrt(mean)],
            "arrayminus": [sqrt(mean) - sqrt(min(steps))], "thickness": 1.5, "width": 5,
            "color": colour,
        },
        hovertemplate=f"{mechanism}: step {mean:,.0f}, from {min(steps):,.0f} to "
        f"{max(steps):,.0f}<extra></extra>",
    )  # fmt: skip


def _shade_seeds(figure: go.Figure, phases: Sequence[Phases], first: int, last: int) -> None:
    """The mean phases, and a strip from the earliest to the latest seed at each boundary."""
    shade_phases(figure, _mean_phases(phases), first, last, "y domain", place=sqrt)
    for name in ("statistics_end", "plateau_end"):
        ends = [end for p in phases if (end := getattr(p, name)) is not None]
        if len(set(ends)) > 1:
            figure.add_shape(
                type="rect", layer="below", line_width=0, name=f"{name}, range of seeds",
                x0=sqrt(min(ends)), x1=sqrt(max(ends)), yref="paper", y0=0, y1=1,
                fillcolor=see_through(PALETTE["grey"], 0.3),
            )  # fmt: skip


def _mean_phases(phases: Sequence[Phases]) -> Phases:
    """Phases whose boundaries are the means of those that were reached."""
    if not phases:
        return Phases(None, None, 1.0, 0.05)

    def mean(ends: list[int]) -> int | None:
        return round(sum(ends) / len(ends)) if ends else None

    return replace(
        phases[0],
        statistics_end=mean([p.statistics_end for p in phases if p.statistics_end is not None]),
        plateau_end=mean([p.plateau_end for p in phases if p.plateau_end is not None]),
    )


def _extent(
    table: pd.DataFrame, strengths: pd.DataFrame | None, phases: Sequence[Phases]
) -> tuple[int, int]:
    """The first and the last step of the axis."""
    if strengths is not None and len(strengths):
        measured = whole_numbers(strengths["step"])
        return measured[0], measured[-1]
    ends = [e for p in phases for e in (p.statistics_end, p.plateau_end) if e is not None]
    latest = max([*ends, *table["step"].dropna()], default=0)
    size = 10 ** max(0, len(str(int(latest))) - 1) // 2 or 1
    return 0, size * int(1.2 * latest // size + 1)


def _round_steps(first: int, last: int) -> list[int]:
    size = 10 ** max(0, len(str(last)) - 2)
    return [step for step in range(first, last + 1, size) if step % (5 * size) == 0]


def _shares(table: pd.DataFrame, mechanism: str) -> pd.DataFrame | None:
    """Strength as a share of the final one: a row a step, a column a seed; None if too faint."""
    own = table[table["mechanism"] == mechanism]
    own = own if "seed" in own else own.assign(seed=0)
    curves = own.pivot_table("strength", "step", "seed").dropna()
    if curves.empty:
        return None
    curves = curves.loc[:, curves.iloc[-1] >= FAINT]
    return None if curves.empty else curves / curves.iloc[-1]


def _strength_line(name: str, shares: pd.DataFrame, style: dict[str, object]) -> Line:
    several = shares.shape[1] > 1
    return Line(
        name,
        shares.mean(axis=1),
        style,
        low=shares.min(axis=1) if several else None,
        high=shares.max(axis=1) if several else None,
    )


def _rise(strengths: pd.DataFrame, mechanism: str) -> tuple[float, float] | None:
    """Between which steps the mean share passes a quarter and three quarters for the last time."""
    table = rows(strengths, _STRENGTHS, "strengths")
    shares = _shares(table, mechanism)
    if shares is None:
        return None
    curve = shares.mean(axis=1)
    return _passes(curve, 0.25), _passes(curve, 0.75)


def _passes(curve: pd.Series, height: float) -> float:
    """The step from which a curve stays above a height, between measurements by a straight line."""
    steps, values = [float(step) for step in curve.index], [float(v) for v in curve]
    below = [i for i, value in enumerate(values) if value < height]
    if not below or below[-1] == len(values) - 1:
        return steps[0] if not below else steps[-1]
    i = below[-1]
    share = float(height - values[i]) / (values[i + 1] - values[i])
    return steps[i] + share * (steps[i + 1] - steps[i])


def _rank(mechanism: str) -> int:
    """The place of a mechanism where nothing else orders it."""
    known = [m for own in GROUPS.values() for m in own]
    return known.index(mechanism) if mechanism in known else len(known)


def _two_lines(name: str) -> str:
    """A long name, broken before its last words so that it fits beside a figure on a phone."""
    words = name.split()
    if len(name) <= 14 or len(words) < 2:
        return name
    cut = min(
        range(1, len(words)),
        key=lambda i: max(len(" ".join(words[:i])), len(" ".join(words[i:]))),
    )
    return f"{' '.join(words[:cut])}<br>{' '.join(words[cut:])}"


def _count(n_seeds: int) -> str:
    return "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
