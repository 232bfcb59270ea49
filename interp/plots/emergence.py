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

from interp.charts import (
    INK,
    PALETTE,
    ROOT_STEPS,
    Axis,
    Level,
    Look,
    bars,
    curves,
    describe,
    looks_of,
    note,
)
from interp.charts.bands import shade_phases
from interp.charts.style import see_through, two_lines
from interp.charts.tidy import rows, whole_numbers
from interp.errors import InterpError
from interp.memory.emergence import FAINT
from interp.phases import Phases

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
    "attention": Look(PALETTE["blue"]),
    "memory at names": Look(PALETTE["orange"], symbol="square"),
    "at the value": Look(PALETTE["green"], symbol="diamond"),
    "knowledge": Look(INK, symbol="star"),
    "other": Look(PALETTE["purple"], symbol="triangle-up"),
}
_EMERGENCE = ("mechanism", "seed", "step", "final")
_STRENGTHS = ("mechanism", "step", "strength")
_KNOWN = "knowledge"


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
    there = table.groupby("mechanism")["step"].count()
    n_seeds = table["seed"].nunique()
    first, last = _extent(table, strengths, of_seeds)
    figure = bars(
        table.assign(group=table["mechanism"].map(group_of),
                     final=[f"final strength {final:.3f}" for final in table["final"]]),
        place="mechanism", y="step", group="group", looks=_LOOKS, words="final",
        places={m: _label(m, int(there[m]), n_seeds) for m in order},
        axis=replace(ROOT_STEPS, range=(first, last)),
    )  # fmt: skip
    measured = table.groupby("mechanism")["final"].count()
    for y, mechanism in ((y, m) for y, m in enumerate(order) if not there[m]):
        why = "absent" if measured[mechanism] else "not measured"
        figure.add_annotation(
            text=f"<i>{why}</i>", x=sqrt(last), y=y, xanchor="right", showarrow=False,
            font={"size": 12, "color": INK},
        )  # fmt: skip
    if strengths is not None:
        # What is there comes first.
        rising = [mechanism for mechanism in order if there[mechanism]]
        _add_rises(figure, rows(strengths, _STRENGTHS, "strengths"), rising)
    if of_seeds:
        _shade_seeds(figure, of_seeds, first, last)
    figure.update_layout(margin_t=68)
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
        control in the end (not measured: this run has nothing to measure it on); in brackets, in how many
        seeds it is there. The axis goes with the square
        root of steps. Look for whether attention to names is above the memory, which means earlier,
        or below it; rows whose whiskers overlap have no order. Predictions follow a swap only where
        there is knowledge, so that swaps and probes cannot come before it; shares, of what names do
        for the answer at that step, can.""",
    )


def strength_curves(strengths: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """Each mechanism's strength over training, as a share of its final one.

    What to look for: the order in which the lines cross one half.

    Args:
        strengths: See the module.
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column is missing.
    """
    table = rows(strengths, _STRENGTHS, "strengths")
    faint, drawn, looks = [], [], {_KNOWN: Look(PALETTE["grey"], width=3)}
    for group in (*GROUPS, "other"):
        own = sorted((m for m in table["mechanism"].unique() if group_of(m) == group), key=_rank)
        shares = {m: _shares(table, m) for m in own}
        faint += [m for m, found in shares.items() if found.empty]
        shares = {m: found for m, found in shares.items() if not found.empty}
        if group == _KNOWN:
            continue
        looks |= looks_of(shares)
        # Knowledge is what each group is held against: it stands in every panel.
        with_knowledge = [_shares(table, _KNOWN), *shares.values()] if shares else []
        drawn += [found.assign(group=group) for found in with_knowledge]
    if drawn:
        figure = curves(
            pd.concat(drawn), y="share", line="mechanism", looks=looks, facet="group", seeds=True,
            axis=Axis("share of final", range=(-0.3, 1.5)), x_axis=ROOT_STEPS, phases=phases,
            levels=[Level("one half", 0.5, legend=False)],
        )  # fmt: skip
        figure.update_yaxes(tickvals=[0, 0.5, 1])
    else:
        figure = go.Figure()
        note(figure, "No mechanism is stronger<br>than its control in the end")
        figure.update_xaxes(title_text="training (steps)")
        figure.update_yaxes(title_text="share of final")
    left_out = (
        f"Left out, as their final strength is below {FAINT:g}: {', '.join(sorted(faint))}."
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


def _label(mechanism: str, n_there: int, n_seeds: int) -> str:
    """A mechanism's name; in brackets, in how many seeds it is there if in some only."""
    label = f"{mechanism} ({n_there} of {n_seeds})" if 0 < n_there < n_seeds else mechanism
    return f"<b>{label}</b>" if mechanism == _KNOWN else two_lines(label)


def _add_rises(figure: go.Figure, strengths: pd.DataFrame, order: Sequence[str]) -> None:
    """Pale bars from a quarter to three quarters of the final strength, behind the steps."""
    for y, mechanism in enumerate(order):
        shares = _shares(strengths, mechanism)
        if shares.empty:
            continue
        curve = shares.groupby("step")["share"].mean()
        start, end = _passes(curve, 0.25), _passes(curve, 0.75)
        figure.add_bar(
            y=[y], base=[sqrt(start)], x=[sqrt(end) - sqrt(start)], orientation="h", width=0.34,
            name=f"{mechanism}, rise", legendgroup=group_of(mechanism), showlegend=False,
            marker={"color": see_through(_LOOKS[group_of(mechanism)].colour, 0.3), "line_width": 0},
            hovertemplate=f"{mechanism}: from a quarter to three quarters of its final strength "
            f"between steps {start:,.0f} and {end:,.0f}<extra></extra>",
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
    return 0, int(float(f"{1.2 * latest:.2g}")) or 1


def _shares(table: pd.DataFrame, mechanism: str) -> pd.DataFrame:
    """Strength as a share of the final one, at the steps that all seeds have, without faint seeds."""
    own = table[table["mechanism"] == mechanism]
    own = own if "seed" in own else own.assign(seed=0)
    curves = own.pivot_table("strength", "step", "seed").dropna()
    if len(curves):
        curves = curves.loc[:, curves.iloc[-1] >= FAINT]
        curves /= curves.iloc[-1]
    shares = curves.reset_index().melt("step", var_name="seed", value_name="share")
    return shares.assign(mechanism=mechanism)


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


def _count(n_seeds: int) -> str:
    return "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
