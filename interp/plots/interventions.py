"""What patching single cells of a model does, and how well its approximation agrees.

A cell is a site with its layer, a position and, where not all of the site is patched, a head, a neuron
or a group of them. Grids have the columns `site`, `layer`, `position`, `head`, `metric`, `value` and, if
there are any, `neuron`, `group` and `unpatched` (the metric without the edit); tables of attribution
patching the same cells with `exact` and `approximate`. `position` is a readable label, such as "last
name" or "12 Smith · last name".
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    CROSSED,
    chosen,
    describe,
    has_missing,
    heatmap,
    looks_of,
    matrix,
    rows,
    scatter,
)
from interp.charts.tidy import unit_label
from interp.errors import InterpError
from interp.interventions import LOGIT_DIFFERENCE, SITES

METRIC_NAMES = {
    "log_probability": "log-probability of the own value (nats)",
    "source_log_probability": "log-probability of the source's value (nats)",
    LOGIT_DIFFERENCE: "logit difference (source's value minus own, logits)",
    "follows": "share that follows the source",
    "stays": "share that stays",
}
"""What a reader is told a metric is, with its unit."""
_CELL = ("site", "layer", "position", "head")
_MANY = 40
"""With more positions than these not every one of them is named at the axis."""
_WHAT = {True: "Change of the", False: "The"}


def patch_heatmap(table: pd.DataFrame, metric: str = LOGIT_DIFFERENCE) -> go.Figure:
    """What patching each cell does: layers (and heads or neurons) as rows, positions, a map a site.

    Layers go upward, as information does. Positions end with the last that changes the metric at all:
    the one that is read, since nothing behind it can.

    What to look for: the cells that carry the answer from the name to where it is predicted.

    Args:
        table: A grid of interventions; see the module.
        metric: The metric to draw.

    Raises:
        InterpError: a column or the metric is missing, or a cell is there more than once.
    """
    grid = rows(table, (*_CELL, "metric", "value"), "interventions", numbers=("layer",))
    grid = chosen(grid, "interventions", metric=metric)
    grid = grid.assign(part=_parts(grid), position=[_label(p) for p in grid["position"]])
    changes = "unpatched" in grid
    if changes:
        grid = grid.assign(value=grid["value"] - grid["unpatched"])
    if not grid["value"].notna().any():
        raise InterpError(f"The table of interventions has no value of {metric} to draw.")
    positions = list(dict.fromkeys(grid["position"]))
    acting = grid[grid["value"].fillna(0) != 0] if changes else grid
    last = max((positions.index(p) for p in acting["position"]), default=len(positions) - 1)
    grid = grid[grid["position"].isin(positions[: last + 1])]
    sites = list(dict.fromkeys(grid["site"]))
    names = {f"<b>{_site(site)}</b>": site for site in sites}
    maps = {
        title: matrix(
            grid[grid["site"] == site].sort_values("layer", kind="stable"), row="part",
            column="position", what="interventions",
        ).reindex(columns=[p for p in positions if p in set(grid["position"])])
        for title, site in names.items()
    }  # fmt: skip
    name, what = METRIC_NAMES.get(metric, metric), _axis_titles(grid)
    figure = heatmap(
        maps,
        axis=unit_of(name),
        rows=what,
        columns="position that is patched",
        upward=True,
        names=names,
    )
    figure.update_xaxes(tickangle=-90, dtick=1 if last < _MANY else None)
    highest = float(grid["value"].abs().max())
    return describe(
        figure,
        f"Patching cell by cell: {name.split(' (')[0]}",
        f"""{_WHAT[changes]} {name} when one cell is patched: rows are {what}, the first at the bottom,
        columns are positions up to the one that is read, a map for each site. Blue is above zero, orange
        below, and the stronger the colour the farther; all maps share one scale, whose end is
        {highest:.2f}. {CROSSED if has_missing(figure) else ""} Look for the cells that carry the answer:
        first at the name, in early layers, then where the value is predicted, in late ones; cells
        between the two move it.""",
    )


def unit_of(name: str) -> str:
    """The unit of a metric's name, in its brackets; those without are shares."""
    return name.rstrip(")").replace(" (", ", ").split(", ")[-1] if " (" in name else "share"


def attribution_error(table: pd.DataFrame) -> go.Figure:
    """Attribution patching, a gradient's approximation, against exact patching, cell by cell.

    What to look for: cells far from the line, where the approximation misleads.

    Args:
        table: The cells with `exact` and `approximate`; see the module.

    Raises:
        InterpError: a column is missing, or the table is empty.
    """
    columns = (*_CELL, "exact", "approximate")
    cells = rows(table, columns, "attribution patching", numbers=("layer",))
    cells = cells[cells["exact"].notna() & cells["approximate"].notna()]
    if cells.empty:
        raise InterpError("The table of attribution patching has no cell to draw.")
    exact, approximate = (cells[c].to_numpy(dtype=float) for c in ("exact", "approximate"))
    sites = list(dict.fromkeys(cells["site"]))
    places = [
        f"{part}, {_label(position)}"
        for part, position in zip(_parts(cells), cells["position"], strict=True)
    ]
    figure = scatter(
        cells.assign(place=places), x="exact", y="approximate", x_axis="exact", axis="approximate",
        group="site", label="place", identity=True,
        looks=looks_of(sites, {site: _site(site) for site in sites}),
    )  # fmt: skip
    measured = {str(m) for m in cells["metric"]} if "metric" in cells else set()
    name = METRIC_NAMES.get(m := measured.pop(), m) if len(measured) == 1 else "metric"
    return describe(
        figure,
        "Attribution patching against exact patching",
        f"""The change of the {name} by attribution patching (the gradient's approximation, one
        backward pass for all cells) against that by exact patching, a mark for each of
        {len(cells):,} cells; dotted: both equal. {_agreement(exact, approximate)} Look for cells far
        from the line: there the model is not linear enough, and only exact patching tells.""",
    )


def _agreement(exact: np.ndarray, approximate: np.ndarray) -> str:
    error = float(np.abs(exact - approximate).mean())
    words = f"The mean absolute error is {error:.3f}"
    if len(exact) < 3 or not exact.std() or not approximate.std():
        return f"{words}."
    return f"Their correlation is {np.corrcoef(exact, approximate)[0, 1]:.3f}; {words.lower()}."


def _parts(table: pd.DataFrame) -> list[str]:
    """Labels of layers with their heads or neurons: "1", "1.3", "1 · 0-63"."""
    neuron, group = (_neurons(table, name) for name in ("neuron", "group"))
    labels = []
    units = zip(table["site"], table["layer"], table["head"], neuron, group, strict=True)
    for site, layer, head, one, several in units:
        label = "all" if pd.isna(layer) else str(int(layer))
        of_heads = str(site) in SITES and SITES[str(site)].unit == "head"
        parts = [("." if of_heads else " · ", several), (".", head), (" · ", one)]
        sign, unit = next(((s, u) for s, u in parts if not pd.isna(u)), ("", ""))
        labels.append(label + sign + (unit_label(unit) if sign else ""))
    return labels


def _neurons(table: pd.DataFrame, name: str) -> pd.Series:
    """A column that not every table has; groups of neurons are `neurons` in tables of runs."""
    name = "neurons" if name == "group" and name not in table and "neurons" in table else name
    return table[name] if name in table else pd.Series(pd.NA, index=table.index)


def _axis_titles(grid: pd.DataFrame) -> str:
    """What the layers' axis shows."""
    parts = grid["part"].str
    more = ".head" if parts.contains(".", regex=False).any() else ""
    return f"layer{more}" + (" · neurons" if parts.contains(" · ", regex=False).any() else "")


def _site(site: str) -> str:
    """What a reader is told a site is."""
    return SITES[site].meaning if site in SITES else site.replace("_", " ")


def _label(position: str | float) -> str:
    return "all positions" if pd.isna(position) else str(position)
