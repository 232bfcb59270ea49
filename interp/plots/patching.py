"""Attention patching: what attention of a reference checkpoint does to learning.

Every function takes a tidy table with the columns `seed`, `reference_step` (NA: the unpatched run),
`start` (the step from which patterns are patched), `layers` and `heads` ("all", or numbers apart by
spaces), `step`, `metric` ("attribute_loss" in nats, "attribute_accuracy" as a share), `value`; a
table read back from CSV will do. Source: paper, Fig. 3 (left and middle).
"""

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.bands import shade_phases, spread_steps
from interp.charts.style import DASHES, INK, PALETTE, describe, ramp, see_through
from interp.errors import InterpError
from interp.phases import NAMES, Phases
from interp.series import nearest_steps

_COLUMNS = ("seed", "reference_step", "start", "layers", "heads", "step", "metric", "value")
_RUN = ["seed", "reference_step", "start", "layers", "heads"]
_MEASURES = {
    "attribute_loss": "attribute loss (nats)",
    "attribute_accuracy": "accuracy (share)",
}
_PHASE_DASH = dict(zip(NAMES, ("dot", "dashdot", "solid"), strict=True))
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon", "cross")


def patching_rows(table: pd.DataFrame, metric: str = "attribute_loss") -> pd.DataFrame:
    """One metric of a table of patched runs, with the types that a CSV file loses.

    Args:
        table: See the module.
        metric: "attribute_loss" or "attribute_accuracy".

    Raises:
        InterpError: a column is missing, or the metric is not in the table.
    """
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise InterpError(
            f"The table of patched runs lacks the columns {missing}; it has {list(table.columns)}."
        )
    rows = table[table["metric"] == metric].copy()
    if rows.empty:
        raise InterpError(
            f"The table of patched runs has no rows of metric {metric!r}; it has "
            f"{sorted(set(table['metric']))}."
        )
    rows["reference_step"] = pd.to_numeric(rows["reference_step"]).astype("Int64")
    for column in ("layers", "heads"):
        rows[column] = [_part(value) for value in rows[column]]
    return rows


def fixed_steps(
    table: pd.DataFrame, phases: Phases, steps: Sequence[int] | None = None
) -> list[int]:
    """The training steps at which runs are compared, all of them measured in every run.

    By default those nearest to the middle and the end of the plateau, to 1.5 and 2 times its end,
    and the last common one. Without a plateau's end: the end of the statistics phase, halfway from
    there to the last common step, and that step.

    Args:
        table: Patched runs; see the module.
        phases: Of the reference.
        steps: Steps of your own, instead of the default.

    Raises:
        InterpError: no step is common to all runs, or one of `steps` is not.
    """
    curves = patching_rows(table).groupby(_RUN, dropna=False)["step"]
    common = sorted(set.intersection(*(set(map(int, curve)) for _, curve in curves)))
    if not common:
        raise InterpError("The patched runs share no step at which to compare them.")
    if steps is not None:
        unknown = sorted(set(steps) - set(common))
        if unknown or not steps:
            raise InterpError(
                f"Steps {unknown} are not measured in every run; common to all are {common}."
            )
        return sorted(set(steps))
    last, statistics_end, plateau_end = common[-1], phases.statistics_end, phases.plateau_end
    if plateau_end is None:
        start = statistics_end or 0
        wanted = [start, (start + last) / 2, last]
    else:
        start = plateau_end if statistics_end is None else statistics_end
        middle = (start + plateau_end) / 2
        wanted = [middle, plateau_end, 1.5 * plateau_end, 2 * plateau_end, last]
    candidates = common[1:] if common[0] == 0 and len(common) > 1 else common
    return nearest_steps(candidates, wanted)


def patching_curves(
    table: pd.DataFrame,
    phases: Phases,
    metric: str = "attribute_loss",
    seed: int | None = None,
) -> go.Figure:
    """Learning curves of patched runs, coloured by reference step (paper, Fig. 3 middle).

    What to look for: references from after the plateau remove the plateau; the later the reference,
    the faster; references from the statistics phase are worse than the untrained model's patterns.

    Args:
        table: Patched runs; drawn are those patched from step 0 in all layers and heads.
        phases: Of the reference.
        metric: "attribute_loss" (nats) or "attribute_accuracy" (share).
        seed: The only seed to draw; by default the mean over all.

    Raises:
        InterpError: there are no such rows.
    """
    rows = patching_rows(table, metric)
    if seed is not None:
        rows = rows[rows["seed"] == seed]
    patched, unpatched = _throughout(rows), _unpatched(rows)
    if patched.empty:
        whose = "" if seed is None else f" of seed {seed}"
        raise InterpError(
            f"The table has no runs{whose} patched from step 0 in all layers and heads to draw."
        )
    references = sorted(int(step) for step in patched["reference_step"].unique())
    figure = go.Figure()
    for reference, colour in zip(references, ramp(len(references)), strict=True):
        phase = phases.at(reference)
        _add_mean(
            figure, patched[patched["reference_step"] == reference],
            f"{reference:,} ({phase})", {"color": colour, "dash": _PHASE_DASH[phase]}, colour,
        )  # fmt: skip
    if not unpatched.empty:
        _add_mean(figure, unpatched, "unpatched", {"color": INK, "dash": "dash", "width": 4}, INK)
    first, last = int(rows["step"].min()), int(rows["step"].max())
    highest = float(rows["value"].max())
    accuracy = metric == "attribute_accuracy"
    figure.update_yaxes(
        title_text=_MEASURES[metric], range=[-0.02, 1.12] if accuracy else [0, 1.1 * highest]
    )
    figure.update_xaxes(title_text="training (steps)", range=[first, last], tickformat=",d")
    shade_phases(figure, phases, first, last, "y domain")
    _title_legend(figure, "reference checkpoint (step and its phase)")
    figure.update_layout(height=540 + 10 * len(references), margin_t=68)
    what = "Attribute accuracy, a share" if accuracy else "Attribute loss, in nats"
    return describe(
        figure,
        "Learning with patched attention",
        f"""{what}, against training steps, of runs that start from the reference's initial weights
        and see its samples, but use the attention patterns of one of its checkpoints; the colour
        goes with the step of that checkpoint, from blue (first) to orange (last), and dots,
        dash-dots and solid lines are checkpoints of its statistics phase, plateau and knowledge
        phase. Grey dashes: the unpatched run. Shaded are the phases of the reference. {_seeds(rows)}
        Look for whether patterns from after the plateau remove the plateau, whether later ones do
        more, and whether those of the statistics phase do worse than those of the untrained model
        (step 0).""",
    )


def loss_by_reference(
    table: pd.DataFrame, phases: Phases, steps: Sequence[int] | None = None
) -> go.Figure:
    """Attribute loss (nats) at fixed training steps against the reference step (paper, Fig. 3).

    What to look for: a line below its dashed level means that the patterns help; lines that rise
    over the statistics phase, then fall through the plateau.

    Args:
        table: Patched runs; drawn are those patched from step 0 in all layers and heads.
        phases: Of the reference.
        steps: The training steps to compare at; see `fixed_steps`.

    Raises:
        InterpError: there are no such rows, or a step is not measured in every run.
    """
    rows = patching_rows(table)
    return _against(
        rows, _throughout(rows), "reference_step", phases, fixed_steps(table, phases, steps),
        "Loss by reference checkpoint",
        "reference checkpoint (steps, square-root scale)",
        "no runs patched from step 0 in all layers and heads",
        """of runs that use the attention patterns of a reference checkpoint throughout, against the
        step of that checkpoint""",
        """the line rises over the statistics phase (its patterns are worse than those of the
        untrained model) and falls through the plateau""",
    )  # fmt: skip


def freezing_curve(
    table: pd.DataFrame, phases: Phases, steps: Sequence[int] | None = None
) -> go.Figure:
    """Attribute loss (nats) at fixed training steps against the step at which attention is frozen.

    What to look for: the freezing step from which the lines reach their dashed level: attention
    patterns have nothing more to learn by then.

    Args:
        table: Patched runs; drawn are those whose reference step and start are equal, in all layers
            and heads.
        phases: Of the reference.
        steps: The training steps to compare at; see `fixed_steps`.

    Raises:
        InterpError: there are no such rows, or a step is not measured in every run.
    """
    rows = patching_rows(table)
    return _against(
        rows, _frozen(rows), "reference_step", phases, fixed_steps(table, phases, steps),
        "Freezing attention",
        "attention frozen (steps, square-root scale)",
        "no runs whose reference step and start of patching are equal",
        """of runs whose attention patterns are frozen at a step (from there on the patterns are
        those that the unpatched run had at that step), against that step""",
        """the line comes down to its dashed level: attention frozen there loses nothing. A
        comparison made before the freezing lies on the level""",
    )  # fmt: skip


def start_of_patching(
    table: pd.DataFrame,
    phases: Phases,
    reference_step: int | None = None,
    steps: Sequence[int] | None = None,
) -> go.Figure:
    """Attribute loss (nats) at fixed training steps against the step from which patterns are patched.

    What to look for: how early good patterns have to be there for their gain.

    Args:
        table: Patched runs; drawn are those of one reference, in all layers and heads.
        phases: Of the reference.
        reference_step: The reference; by default the one with most starts (the later of equals).
        steps: The training steps to compare at; see `fixed_steps`.

    Raises:
        InterpError: the reference has fewer than two starts, or a step is not measured in every run.
    """
    rows = patching_rows(table)
    whole = _whole(rows)
    n_starts = whole.groupby("reference_step")["start"].nunique()
    if reference_step is None:
        reference_step = max(
            (int(step) for step in n_starts.index), key=lambda s: (n_starts[s], s), default=-1
        )
    chosen = whole[whole["reference_step"] == reference_step]
    if chosen["start"].nunique() < 2:
        chosen = chosen.iloc[:0]
    return _against(
        rows, chosen, "start", phases, fixed_steps(table, phases, steps),
        f"Start of patching with the checkpoint of step {reference_step:,}",
        "start of patching (steps, square-root scale)",
        "no reference with two or more starts of patching"
        if reference_step < 0 else f"fewer than two starts of patching for reference {reference_step}",
        f"""of runs that use their own attention up to the start of patching, and from there on the
        patterns of the checkpoint of step {reference_step:,} ({phases.at(reference_step)}), against
        that start""",
        """the line begins to rise: good patterns that come later help less. A comparison made before
        the start lies on the level""",
    )  # fmt: skip


def patched_parts(
    table: pd.DataFrame, phases: Phases, steps: Sequence[int] | None = None
) -> go.Figure:
    """Attribute loss (nats) when only some layers or heads are patched, a panel for each step.

    What to look for: the smallest part that comes as far left as all layers together carries the
    gain.

    Args:
        table: Patched runs; drawn are those patched from step 0, for references with several parts.
        phases: Of the reference.
        steps: The training steps to compare at; by default the end of the plateau, 1.5 and 2 times
            that (see `fixed_steps`).

    Raises:
        InterpError: no reference has more than one part, or a step is not measured in every run.
    """
    rows = patching_rows(table)
    chosen = _in_parts(rows)
    if chosen.empty:
        raise InterpError(
            "The table has no reference of which several parts (layers, heads) were patched from "
            "step 0."
        )
    at = fixed_steps(table, phases, steps)
    if steps is None and len(at) == 5:
        at = at[1:4]
    parts = sorted(
        {(str(la), str(he)) for la, he in zip(chosen["layers"], chosen["heads"], strict=True)},
        key=lambda part: (part[0] != "all", part[0].count(" "), part[0], part[1] != "all", part[1]),
    )
    references = sorted(int(step) for step in chosen["reference_step"].unique())
    unpatched = _unpatched(rows)
    figure = make_subplots(rows=len(at), cols=1, shared_xaxes="all", vertical_spacing=0.06)
    for panel, step in enumerate(at, start=1):
        for i, (reference, colour) in enumerate(
            zip(references, ramp(len(references)), strict=True)
        ):
            offset = 0.6 * ((i + 0.5) / len(references) - 0.5)
            of_reference = chosen[
                (chosen["reference_step"] == reference) & (chosen["step"] == step)
            ]
            places = [
                parts.index((str(la), str(he))) + offset
                for la, he in zip(of_reference["layers"], of_reference["heads"], strict=True)
            ]
            means = of_reference.groupby(["layers", "heads"])["value"].mean()
            shared = {"row": panel, "col": 1, "legendgroup": str(reference)}
            label = f"{reference:,} ({phases.at(reference)})"
            figure.add_scatter(
                x=list(of_reference["value"]), y=places, mode="markers", name=f"{label}, a seed",
                showlegend=False, customdata=[str(s) for s in of_reference["seed"]],
                marker={"color": see_through(colour, 0.5), "size": 5, "symbol": "line-ns-open",
                        "line_width": 2},
                hovertemplate="%{x:.3f} nats, seed %{customdata}<extra></extra>", **shared,
            )  # fmt: skip
            figure.add_scatter(
                x=list(means), y=[parts.index(part) + offset for part in means.index],
                mode="markers", name=label, showlegend=panel == 1,
                marker={"color": colour, "size": 10, "symbol": _SYMBOLS[i % len(_SYMBOLS)]},
                hovertemplate=f"reference {label}: %{{x:.3f}} nats<extra></extra>", **shared,
            )  # fmt: skip
        if not unpatched.empty:
            level = float(unpatched.loc[unpatched["step"] == step, "value"].mean())
            figure.add_scatter(
                x=[level, level], y=[-0.5, len(parts) - 0.5], mode="lines", name="unpatched",
                showlegend=panel == 1, legendgroup="unpatched", row=panel, col=1,
                line={"color": INK, "dash": "dash", "width": 2},
                hovertemplate="unpatched: %{x:.3f} nats<extra></extra>",
            )  # fmt: skip
        figure.add_annotation(
            text=f"<b>at step {step:,}</b>", showarrow=False, x=0, xanchor="left", y=1,
            yanchor="bottom", xref="x domain", yref="y domain", row=panel, col=1,
        )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(parts))), ticktext=[_part_name(*part) for part in parts],
        range=[len(parts) - 0.5, -0.5],
    )  # fmt: skip
    figure.update_xaxes(rangemode="tozero", showticklabels=True)
    figure.update_xaxes(title_text="attribute loss (nats)", row=len(at))
    _title_legend(figure, "reference checkpoint (step and its phase)")
    figure.update_layout(height=180 + len(at) * (60 + 34 * len(parts)), margin_t=84)
    return describe(
        figure,
        "Which layers and heads carry the gain",
        f"""Attribute loss, in nats, at fixed training steps (a panel each) of runs in which only the
        named layers or heads use the reference's attention patterns, from step 0 on; the others use
        their own. Large symbols: the mean over seeds; ticks: the seeds; dashed: the unpatched run.
        {_seeds(chosen)} Look for the smallest part that comes as far left as all layers
        together.""",
    )


def patching_figures(table: pd.DataFrame, phases: Phases) -> dict[str, go.Figure]:
    """Every view that a table has rows for, by name; all compare at the same steps.

    Args:
        table: Patched runs; see the module.
        phases: Of the reference.

    Raises:
        InterpError: a column or the attribute loss is missing.
    """
    rows = patching_rows(table)
    steps = fixed_steps(table, phases)
    figures = {}
    throughout = _throughout(rows)
    if not throughout.empty:
        figures["patching-curves"] = patching_curves(table, phases)
    if throughout["reference_step"].nunique() > 1:
        figures["patching-by-reference"] = loss_by_reference(table, phases, steps)
    if _frozen(rows)["reference_step"].nunique() > 1:
        figures["patching-freezing"] = freezing_curve(table, phases, steps)
    if (_whole(rows).groupby("reference_step")["start"].nunique() > 2).any():
        figures["patching-start"] = start_of_patching(table, phases, steps=steps)
    if not _in_parts(rows).empty:
        figures["patching-parts"] = patched_parts(table, phases)
    return figures


def _whole(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs patched in all layers and heads."""
    whole = (rows["layers"] == "all") & (rows["heads"] == "all")
    return rows[rows["reference_step"].notna() & whole]


def _throughout(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs patched from step 0 in all layers and heads."""
    whole = _whole(rows)
    return whole[whole["start"] == 0]


def _frozen(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs whose attention is frozen at a step, in all layers and heads."""
    whole = _whole(rows)
    return whole[whole["reference_step"] == whole["start"]]


def _unpatched(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["reference_step"].isna()]


def _in_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs patched from step 0, of references of which several parts were patched."""
    patched = rows[rows["reference_step"].notna() & (rows["start"] == 0)]
    n_parts = patched.drop_duplicates(["reference_step", "layers", "heads"])["reference_step"]
    several = n_parts.value_counts()
    return patched[patched["reference_step"].isin(several.index[several > 1])]


def _add_mean(
    figure: go.Figure, rows: pd.DataFrame, name: str, line: dict[str, object], colour: str
) -> None:
    """The mean curve over seeds, with their range as a band if there are several."""
    curves = rows.pivot(index="step", columns="seed", values="value").dropna()
    if curves.shape[1] > 1:
        steps = list(curves.index)
        figure.add_scatter(
            x=[*steps, *steps[::-1]], y=[*curves.max(axis=1), *curves.min(axis=1)[::-1]],
            mode="lines", line_width=0, fill="toself", fillcolor=see_through(colour, 0.15),
            name=f"{name}, range of seeds", legendgroup=name, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=list(curves.index), y=list(curves.mean(axis=1)), mode="lines", name=name,
        legendgroup=name, line={"width": 2, **line},
        hovertemplate=f"{name}: %{{y:.3f}} at step %{{x:,d}}<extra></extra>",
    )  # fmt: skip


def _against(
    rows: pd.DataFrame,
    chosen: pd.DataFrame,
    column: str,
    phases: Phases,
    steps: Sequence[int],
    title: str,
    axis: str,
    lack: str,
    what: str,
    look: str,
) -> go.Figure:
    """The loss at fixed steps against a step of the design: a line each, with unpatched levels.

    Args:
        rows: All rows of the loss, for the unpatched levels.
        chosen: The rows to draw.
        column: The step on the x axis.
        phases: Of the reference.
        steps: The training steps to compare at.
        title: Of the figure.
        axis: Title of the x axis.
        lack: What the table has not, if `chosen` is empty.
        what: Caption: of which runs, against what.
        look: Caption: look for where...
    """
    if chosen.empty:
        raise InterpError(f"The table has {lack} to draw.")
    unpatched = _unpatched(rows)
    places = sorted(int(step) for step in chosen[column].unique())
    shown = sorted({*places, *(e for e in (phases.statistics_end, phases.plateau_end) if e)})
    figure = go.Figure()
    for i, (step, colour) in enumerate(zip(steps, ramp(len(steps)), strict=True)):
        at_step = chosen[chosen["step"] == step]
        means = at_step.groupby(column)["value"].mean()
        label = f"step {step:,}"
        if not unpatched.empty:
            level = float(unpatched.loc[unpatched["step"] == step, "value"].mean())
            figure.add_scatter(
                x=[sqrt(shown[0]), sqrt(shown[-1])], y=[level, level], mode="lines",
                name=f"unpatched at step {step:,}", legendgroup=label, showlegend=False,
                line={"color": colour, "dash": "dash", "width": 1.5},
                hovertemplate=f"unpatched at step {step:,}: %{{y:.3f}} nats<extra></extra>",
            )  # fmt: skip
        if at_step["seed"].nunique() > 1:
            figure.add_scatter(
                x=[sqrt(s) for s in at_step[column]], y=list(at_step["value"]), mode="markers",
                name=f"{label}, a seed", legendgroup=label, showlegend=False,
                marker={"color": see_through(colour, 0.5), "size": 5},
                customdata=[f"{s:,}, seed {seed}"
                            for s, seed in zip(at_step[column], at_step["seed"], strict=True)],
                hovertemplate="%{customdata}: %{y:.3f} nats<extra></extra>",
            )  # fmt: skip
        figure.add_scatter(
            x=[sqrt(s) for s in means.index], y=list(means), mode="lines+markers", name=label,
            legendgroup=label, line={"color": colour, "width": 2, "dash": DASHES[0]},
            marker={"symbol": _SYMBOLS[i % len(_SYMBOLS)], "size": 8},
            customdata=[f"{s:,} ({phases.at(int(s))})" for s in means.index],
            hovertemplate=f"%{{customdata}}, loss at {label}: %{{y:.3f}} nats<extra></extra>",
        )  # fmt: skip
    if not unpatched.empty:
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name="unpatched",
            line={"color": PALETTE["grey"], "dash": "dash", "width": 1.5},
        )  # fmt: skip
    values = [value for trace in figure.data for value in trace.y if value is not None]
    figure.update_yaxes(title_text="attribute loss (nats)", range=[0, 1.12 * max(values)])
    figure.update_xaxes(title_text=axis)
    shade_phases(figure, phases, shown[0], shown[-1], "y domain", place=sqrt)
    spread_steps(figure, shown, phases)
    _title_legend(figure, "loss at training step")
    figure.update_layout(height=520, margin_t=68)
    return describe(
        figure,
        title,
        f"""Attribute loss, in nats, at fixed training steps (a line each) {what}, in steps. The axis
        goes with the square root, so that the short first phases can be read; shaded are the phases
        of the reference. Dashed in the same colour: the unpatched run at the same training step.
        {_seeds(chosen)} A line below its level means that the patterns help. Look for where
        {look}.""",
    )


def _title_legend(figure: go.Figure, text: str) -> None:
    """Says once what all entries of the legend are, so that they can be short enough for a phone."""
    figure.update_layout(
        legend={"title": {"text": text, "side": "top", "font": {"size": 12}},
                "xref": "container", "x": 0.02}
    )  # fmt: skip


def _seeds(rows: pd.DataFrame) -> str:
    """How many seeds a figure shows, and how."""
    counts = rows.drop_duplicates(_RUN).groupby(_RUN[1:], dropna=False)["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    if high == 1:
        return "One seed."
    return f"The mean of {high if low == high else f'{low} to {high}'} seeds, and their spread."


def _part(value: Any) -> str:
    """Layers or heads as text: a CSV file turns "0" into 0, and beside empty cells into 0.0."""
    if pd.isna(value):
        return "all"
    return str(int(value)) if isinstance(value, float) else str(value)


def _part_name(layers: str, heads: str) -> str:
    """Words for what is patched, e.g. "layer 0, heads 1 and 2"."""
    where = "all layers" if layers == "all" else _numbered("layer", layers.split())
    return where if heads == "all" else f"{where},<br>{_numbered('head', heads.split())}"


def _numbered(what: str, numbers: Iterable[str]) -> str:
    listed = list(numbers)
    if len(listed) == 1:
        return f"{what} {listed[0]}"
    return f"{what}s {', '.join(listed[:-1])} and {listed[-1]}"
