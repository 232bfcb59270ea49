"""Attention patching: what attention of a reference checkpoint does to learning.

Every function takes a tidy table with the columns `seed`, `reference_step` (NA: the unpatched run),
`start` (the step from which patterns are patched), `layers` and `heads` ("all", or numbers apart by
spaces), `step`, `metric` ("attribute_loss" in nats, "attribute_accuracy" as a share), `value`; a
table read back from CSV will do. Source: paper, Fig. 3 (left and middle).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from interp.charts import INK, ROOT_STEPS, Axis, Level, Look, bars, curves, describe, looks_of
from interp.charts.panels import legend_key
from interp.charts.style import ramp
from interp.errors import InterpError
from interp.phases import NAMES, Phases
from interp.plots.patched_runs import (
    RUN,
    fixed_steps,
    frozen_runs,
    patching_rows,
    runs_in_parts,
    throughout_runs,
    unpatched_runs,
    whole_runs,
)

_MEASURES = {
    "attribute_loss": "attribute loss (nats)",
    "attribute_accuracy": "accuracy (share)",
}
_PHASE_DASH = dict(zip(NAMES, ("dot", "dashdot", "solid"), strict=True))
_LOSS = Axis("attribute loss (nats)", "nats")
_UNPATCHED = -1
"""Stands for a reference step where there is none."""


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
    patched, unpatched = throughout_runs(rows), unpatched_runs(rows)
    if patched.empty:
        whose = "" if seed is None else f" of seed {seed}"
        raise InterpError(
            f"The table has no runs{whose} patched from step 0 in all layers and heads to draw."
        )
    references = sorted(int(step) for step in patched["reference_step"].unique())
    looks: dict[float, Look] = {
        float(reference): Look(
            colour, _PHASE_DASH[phases.at(reference)], name=_reference(reference, phases)
        )
        for reference, colour in zip(references, ramp(len(references)), strict=True)
    }
    looks[_UNPATCHED] = Look(INK, "dash", 4, name="unpatched")
    drawn = pd.concat([patched, unpatched])
    drawn["reference_step"] = drawn["reference_step"].fillna(_UNPATCHED).astype(int)
    accuracy = metric == "attribute_accuracy"
    highest = float(rows["value"].max())
    limits = (-0.02, 1.12) if accuracy else (0, 1.1 * highest)
    figure = curves(
        drawn, line="reference_step", looks=looks, axis=Axis(_MEASURES[metric], range=limits),
        phases=phases, seeds=True, heights=[340],
    )  # fmt: skip
    _title_legend(figure, "reference checkpoint (step and its phase)")
    figure.update_layout(height=540 + 10 * len(references))
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
        rows, throughout_runs(rows), "reference_step", phases, fixed_steps(table, phases, steps),
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
        rows, frozen_runs(rows), "reference_step", phases, fixed_steps(table, phases, steps),
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
    whole = whole_runs(rows)
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
    chosen = runs_in_parts(rows)
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
    names = {reference: _reference(reference, phases) for reference in references}
    titles = {step: f"at step {step:,}" for step in at}
    chosen = chosen[chosen["step"].isin(at)]
    parted = zip(chosen["layers"], chosen["heads"], strict=True)
    figure = bars(
        chosen.assign(part=[_part_name(str(la), str(he)) for la, he in parted]), place="part",
        places={name: name for name in (_part_name(*part) for part in parts)}, facet="step",
        group="reference_step", looks=looks_of(references, names, ordered=True), titles=titles,
        levels=[
            Level("unpatched", level, (step,), "dash", INK, 2)
            for step, level in _levels(rows, at).items()
        ],
        axis=_LOSS, what="patched runs",
    )  # fmt: skip
    _title_legend(figure, "reference checkpoint (step and its phase)")
    return describe(
        figure,
        "Which layers and heads carry the gain",
        f"""Attribute loss, in nats, at fixed training steps (a panel each) of runs in which only the
        named layers or heads use the reference's attention patterns, from step 0 on; the others use
        their own. Filled marks: the mean over seeds; open ones: the seeds; dashed: the unpatched run.
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
    throughout = throughout_runs(rows)
    if not throughout.empty:
        figures["patching-curves"] = patching_curves(table, phases)
    if throughout["reference_step"].nunique() > 1:
        figures["patching-by-reference"] = loss_by_reference(table, phases, steps)
    if frozen_runs(rows)["reference_step"].nunique() > 1:
        figures["patching-freezing"] = freezing_curve(table, phases, steps)
    if (whole_runs(rows).groupby("reference_step")["start"].nunique() > 2).any():
        figures["patching-start"] = start_of_patching(table, phases, steps=steps)
    if not runs_in_parts(rows).empty:
        figures["patching-parts"] = patched_parts(table, phases)
    return figures


def _levels(rows: pd.DataFrame, steps: Sequence[int]) -> dict[int, float]:
    """The mean loss of unpatched runs at some steps; empty where there is none."""
    unpatched = unpatched_runs(rows)
    means = unpatched[unpatched["step"].isin(steps)].groupby("step")["value"].mean()
    return dict(zip(map(int, means.index), map(float, means), strict=True))


def _reference(step: int, phases: Phases) -> str:
    return f"{step:,} ({phases.at(step)})"


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
    places = sorted(int(step) for step in chosen[column].unique())
    ends = [places[0], places[-1]]
    looks = looks_of(steps, {step: f"step {step:,}" for step in steps}, ordered=True)
    looks = {step: replace(look, dash="solid") for step, look in looks.items()}
    levels = [
        Level(
            f"unpatched at step {step:,}", pd.Series([level, level], index=ends), dash="dash",
            colour=looks[step].colour, legend=False, group=str(step),
        )
        for step, level in _levels(rows, steps).items()
    ]  # fmt: skip
    chosen = chosen[chosen["step"].isin(steps)]
    highest = max([float(chosen["value"].max()), *_levels(rows, steps).values()])
    figure = curves(
        chosen.assign(place=chosen[column].astype(int)), x="place",
        line="step", looks=looks, axis=replace(_LOSS, range=(0, 1.12 * highest)), levels=levels,
        x_axis=replace(ROOT_STEPS, title=axis), phases=phases, seeds=True, spread="points",
        marks=True, heights=[320],
    )  # fmt: skip
    if levels:
        legend_key(figure, "unpatched", dash="dash", width=1.5)
    _title_legend(figure, "loss at training step")
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
    counts = rows.drop_duplicates(RUN).groupby(RUN[1:], dropna=False)["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    if high == 1:
        return "One seed."
    return f"The mean of {high if low == high else f'{low} to {high}'} seeds, and their spread."


def _part_name(layers: str, heads: str) -> str:
    """Words for what is patched, e.g. "layer 0, heads 1 and 2"."""
    where = "all layers" if layers == "all" else _numbered("layer", layers.split())
    return where if heads == "all" else f"{where},<br>{_numbered('head', heads.split())}"


def _numbered(what: str, numbers: Iterable[str]) -> str:
    listed = list(numbers)
    if len(listed) == 1:
        return f"{what} {listed[0]}"
    return f"{what}s {', '.join(listed[:-1])} and {listed[-1]}"
