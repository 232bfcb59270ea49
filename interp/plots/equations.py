"""A dataset as a system of equations: residuals of facts, bits known, interference of groups."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    CROSSED,
    ROOT_AXIS,
    ROOT_STEPS,
    Axis,
    curves,
    describe,
    has_missing,
    heatmap,
    rows,
    signed_graph,
)
from interp.charts.tidy import called
from interp.equations import interference_matrix, relative_residuals
from interp.equations.interference import ALL, COSINE, SPECIFIC
from interp.errors import InterpError, require_frame
from interp.phases import Phases

_EDGES = np.array([*np.arange(0, 1.11, 0.1), np.inf])
_LABELS = [f"{low:.0%} to {low + 0.1:.0%}" for low in np.arange(0, 1.05, 0.1)] + ["110% and more"]
_N_BINS = 11
_MANY = 16  # checkpoints side by side
_LEAST = 0.05  # a cosine that a graph shows


def residual_distribution(table: pd.DataFrame, steps: Sequence[int] | None = None) -> go.Figure:
    """How residuals are distributed at every checkpoint: all or nothing, or all a little?

    What to look for: whether facts go from the top to the bottom with few between, or all sink together.

    Args:
        table: From `interp.equations.residuals`, with `step`; of people as shares of the baseline, of facts
            of common knowledge in nats.
        steps: Which checkpoints, by default evenly spaced ones, at most 16.

    Raises:
        InterpError: a column is missing, or there is nothing to draw.
    """
    require_frame(table, "residuals")
    found = rows(table, ["step", "loss"], "residuals")
    if found.empty:
        raise InterpError("The table of residuals has no rows to draw.")
    every = sorted(found["step"].unique().tolist())
    if steps is None:
        steps = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, _MANY).astype(int))]
    lacking = [step for step in steps if step not in every]
    if lacking or not len(steps):
        raise InterpError(f"The residuals have no step {lacking or 'to draw'}; there are {every}.")
    relative = "baseline" in found
    value = relative_residuals(found) if relative else found["loss"].to_numpy(dtype=float)
    if not np.isfinite(value).any():
        raise InterpError("The residuals have no number to draw.")
    edges, labels = _bins(value, relative)
    columns = {}
    for step in steps:
        own = value[(found["step"] == step).to_numpy()]
        counts, _ = np.histogram(own[np.isfinite(own)], edges)
        columns[f"{step:,}"] = counts / max(1, counts.sum())
    figure = heatmap(
        pd.DataFrame(columns, index=labels), axis=Axis("facts (share)", form=".3f"), signed=False,
        rows="loss (share of baseline)" if relative else "loss (nats)", columns="training (steps)",
        upward=True,
    )  # fmt: skip
    unit = "as a share of the no-knowledge baseline of its attribute" if relative else "in nats"
    return describe(
        figure,
        "Residuals of single facts",
        f"""Every column is a checkpoint, every cell the share of facts whose loss, {unit}, lies in that
        range; a column adds up to 1. Look for the way from the top to the bottom: where facts are learned
        all or nothing, they are at either end and few are between; where all are learned a little, the
        whole column sinks.""",
    )


def _bins(value: np.ndarray, relative: bool) -> tuple[np.ndarray, list[str]]:
    if relative:
        return _EDGES, _LABELS
    highest = max(float(value[np.isfinite(value)].max()), 1e-9)
    edges = np.linspace(0, highest * (1 + 1e-9), _N_BINS + 1)
    return edges, [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]


def capacity_curves(table: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """Bits known over training, of each attribute.

    What to look for: which attributes take up the bits, and whether they are still rising in the end.

    Args:
        table: From `interp.equations.bits_known`, with `step`.
        phases: Of the training, if they are known.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    found = rows(table, ["step", "attribute", "bits"], "bits known")
    own = found[found["attribute"] != ALL]
    own = own.assign(attribute=own["attribute"].str.replace("_", " "))
    figure = curves(
        own, y="bits", line="attribute", axis=Axis("bits known", "bits", ",.0f"), x_axis=ROOT_STEPS,
        phases=phases, marks=True,
    )  # fmt: skip
    return describe(
        figure,
        "Bits known",
        f"""Bits of each attribute that the model knows: facts times (baseline - loss) / ln 2, and 0 where
        the loss is above the baseline. Look for attributes that are learned later, or stop early.
        {ROOT_AXIS}""",
    )


def interference_heatmap(
    table: pd.DataFrame,
    step: int | None = None,
    *,
    by: str | None = None,
    component: str = ALL,
    layer: int | None = None,
) -> go.Figure:
    """Cosines of the gradients of groups of facts, and of what is specific to each group.

    What to look for: cells off the diagonal, against those on it: groups that help (blue) or hurt (orange)
    each other.

    Args:
        table: From `interp.equations.interference`.
        step: Which checkpoint; the last by default.
        by: By what facts are grouped, where the table has several.
        component: Which weights.
        layer: Of which layer; None for all.

    Raises:
        InterpError: a column is missing, no row fits, or several groupings do.
    """
    maps = {
        title: _spoken(
            interference_matrix(table, step, component=component, layer=layer, metric=metric, by=by)
        )
        for title, metric in (("gradients", COSINE), ("less the mean of all groups", SPECIFIC))
    }
    figure = heatmap(
        maps, axis=Axis("cosine", form=".2f", range=(-1, 1)), rows="group", columns="group", beside=True
    )  # fmt: skip
    names, shuffled, error = _facts_of(table, step, by, component, layer)
    projected = (
        f"Gradients were projected at random: a standard error of up to {error:.3f}."
        if error > 0
        else "Gradients are exact."
    )
    return describe(
        figure,
        f"Interference by {names}, {_weights(component, layer)}",
        f"""Cosine of the mean loss gradients of two groups of facts, each told in other wordings: a step
        for one group lowers the other's loss where it is above 0 (blue), and raises it below (orange).
        Left: of the gradients. Right: of what is specific to a group, its gradient less the mean of all
        groups' (unrelated groups then have {-1 / max(1, len(maps["gradients"]) - 1):.2f}). On the diagonal
        stands a group with itself in other wordings: no pair can be expected to have more. With
        facts dealt to groups at random, a group has {shuffled[COSINE]:.2f} (left) and
        {shuffled[SPECIFIC]:.2f} (right) with itself. {projected}
        {CROSSED if has_missing(figure) else ""}""",
    )


def interference_graph(
    table: pd.DataFrame,
    step: int | None = None,
    *,
    by: str | None = None,
    component: str = ALL,
    layer: int | None = None,
    metric: str = COSINE,
    least: float | int | None = None,
) -> go.Figure:
    """Groups of facts as a graph whose edges are signed.

    What to look for: clusters joined by blue edges, and orange edges between them.

    Args:
        table: From `interp.equations.interference`.
        step: Which checkpoint; the last by default.
        by: By what facts are grouped, where the table has several.
        component: Which weights.
        layer: Of which layer; None for all.
        metric: "specific" or "cosine".
        least: Edges of this magnitude or less are left out; by default 0.05, or twice the largest error of a
            projection if that is more.

    Raises:
        InterpError: a column is missing, no row fits, or several groupings do.
    """
    how = {"component": component, "layer": layer, "metric": metric, "by": by}
    matrix = _spoken(interference_matrix(table, step, **how))  # type: ignore[arg-type]
    names, shuffled, error = _facts_of(table, step, by, component, layer)
    bound = max(_LEAST, 2 * error) if least is None else float(least)
    figure = signed_graph(matrix, axis=Axis("cosine", form=".2f"), least=bound)
    of = "what is specific to two groups" if metric == SPECIFIC else "two groups"
    return describe(
        figure,
        f"Which groups help each other, by {names}",
        f"""A node for each group of facts; an edge is the cosine of the gradients of {of} ({
            _weights(component, layer)
        }), blue above 0 and orange, dashed, below; as wide as it is strong. Edges up to {
            bound:.2f} are left
        out. A group with itself has {
            np.nanmean(matrix.to_numpy().diagonal()):.2f} in other wordings on
        average, and {
            shuffled[metric]:.2f} with facts dealt to groups at random. Groups joined by strong blue
        edges stand close together. Look for clusters, and for orange edges between them: learning one costs
        the other.""",
    )


def _spoken(matrix: pd.DataFrame) -> pd.DataFrame:
    """A matrix whose groups are called as a reader is told them."""
    names = [str(name).replace("_", " ") for name in matrix.index]
    return matrix.set_axis(names, axis=0).set_axis(names, axis=1)


def _facts_of(
    table: pd.DataFrame, step: int | None, by: str | None, component: str, layer: int | None
) -> tuple[str, dict[str, float], float]:
    """By what facts are grouped, the control by metric, and the largest error, of what is drawn."""
    of = {"component": component, "layer": layer, "by": by}
    shuffled = {
        metric: float(
            interference_matrix(table, step, metric=metric, value="shuffled", **of).iloc[0, 0]  # type: ignore[arg-type]
        )
        for metric in (COSINE, SPECIFIC)
    }
    errors = [
        interference_matrix(table, step, metric=m, value="error", **of).to_numpy().max()  # type: ignore[arg-type]
        for m in (COSINE, SPECIFIC)
    ]
    return str(by or table["by"].iloc[0]), shuffled, float(np.nanmax([0.0, *errors]))


def _weights(component: str, layer: int | None) -> str:
    what = (
        "all weights" if component == ALL else f"weights of the {component.replace('mlp', 'MLP')}"
    )
    return what if layer is None else f"{what}, {called('layer', layer)}"
