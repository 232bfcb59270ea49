"""What patching single cells of a model does, and how well its approximation agrees.

A cell is a site with its layer, a position and, where not all of the site is patched, a head, a neuron
or a group of them. Grids have the columns `site`, `layer`, `position`, `head`, `metric`, `value` and, if
there are any, `neuron`, `group` and `unpatched` (the metric without the edit); tables of attribution
patching the same cells with `exact` and `approximate`. `position` is a readable label, such as "last
name" or "12 Smith · last name".
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.style import INK, PALETTE, describe, see_through
from interp.errors import InterpError
from interp.interventions import LOGIT_DIFFERENCE, SITES
from interp.plots.panels import COLOURS, SIGNED, chosen, rows, unit_label

METRIC_NAMES = {
    "log_probability": "log-probability of the own value (nats)",
    "source_log_probability": "log-probability of the source's value (nats)",
    LOGIT_DIFFERENCE: "logit difference (source's value minus own, logits)",
    "follows": "share that follows the source",
    "stays": "share that stays",
}
"""What a reader is told a metric is, with its unit."""
_CELL = ("site", "layer", "position", "head")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "pentagon", "star")
_WHAT = {True: "Change of the", False: "The"}
_MANY = 8
"""More positions than these stand in rows, where there is room for their labels."""


def patch_heatmap(table: pd.DataFrame, metric: str = LOGIT_DIFFERENCE) -> go.Figure:
    """What patching each cell does: layers (and heads or neurons) against positions, by site.

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
    sites = list(dict.fromkeys(grid["site"]))
    positions = list(dict.fromkeys(grid["position"]))
    maps = [_map(grid[grid["site"] == site], site, positions) for site in sites]
    upright = len(positions) > _MANY
    maps = [values.T if upright else values for values in maps]
    figure, space = _map_panels(maps, upright)
    highest = max(1e-9, float(np.nanmax(np.abs(grid["value"].astype(float)))))
    name = METRIC_NAMES.get(metric, metric)
    # On a phone a column has 280 pixels over their number.
    legible = sum(len(values.columns) for values in maps[: len(maps) if upright else 1]) <= _MANY
    for i, (site, values) in enumerate(zip(sites, maps, strict=True)):
        at = {"row": 1, "col": i + 1} if upright else {"row": i + 1, "col": 1}
        figure.add_heatmap(
            z=values.astype(float).to_numpy().tolist(), x=list(values.columns),
            y=list(values.index), zmin=-highest, zmax=highest, colorscale=SIGNED, name=site,
            showscale=False, xgap=2, ygap=2, texttemplate="%{z:.2f}" if legible else None,
            textfont={"color": INK, "size": 11},
            hovertemplate=f"{_site(site)}, %{{y}}, %{{x}}: {name} %{{z:.3f}}<extra></extra>", **at,
        )  # fmt: skip
        figure.add_annotation(
            text=f"<b>{site.replace('_', '<br>') if upright else _site(site)}</b>", x=0, y=1,
            showarrow=False, xanchor="left", yanchor="bottom", align="left",
            font_size=11 if upright else 12, xref="x domain", yref="y domain", **at,
        )  # fmt: skip
    what, where = _axis_titles(grid), "position that is patched"
    figure.update_xaxes(showgrid=False, type="category", tickfont_size=11)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", tickfont_size=11)
    if upright:
        figure.update_xaxes(title_text=what)
        figure.update_yaxes(tickmode="linear", dtick=1)
    else:
        figure.update_yaxes(title_text=what)
        figure.update_xaxes(title_text=where, row=len(maps), tickangle=-90)
    figure.update_layout(margin_t=48 + space)
    whats, wheres = ("columns", "rows") if upright else ("rows", "columns")
    return describe(
        figure,
        f"Patching cell by cell: {name.split(' (')[0]}",
        f"""{_WHAT[changes]} {name} when one cell is patched: {whats} are {what}, {wheres} are
        positions, a map for each site{_listed(sites) if upright else ""}. Blue is above zero, orange
        below, and the stronger the colour the farther; all maps share one scale, whose end is
        {highest:.2f}. Look for the cells that carry the answer: first at the name, in early layers,
        then where the value is predicted, in late ones; cells between the two move it.""",
    )


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
    both = np.concatenate([exact, approximate])
    space = 0.05 * (float(np.ptp(both)) or 1.0)
    low, high = float(both.min()) - space, float(both.max()) + space
    figure = go.Figure()
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", name="equal", hoverinfo="skip",
        line={"color": PALETTE["grey"], "dash": "dot", "width": 1.5},
    )  # fmt: skip
    labels = cells.assign(part=_parts(cells))
    for i, site in enumerate(dict.fromkeys(cells["site"])):
        own = labels[labels["site"] == site]
        figure.add_scatter(
            x=list(own["exact"]), y=list(own["approximate"]), mode="markers", name=_site(site),
            marker={"color": see_through(COLOURS[i % len(COLOURS)], 0.75), "size": 8,
                    "symbol": _SYMBOLS[i % len(_SYMBOLS)]},
            customdata=[f"{part}, {_label(position)}"
                        for part, position in zip(own["part"], own["position"], strict=True)],
            hovertemplate=f"{_site(site)}, %{{customdata}}: exact %{{x:.3f}}, approximate "
            "%{y:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="exact", range=[low, high], nticks=6)
    figure.update_yaxes(title_text="approximate", range=[low, high], nticks=6)
    figure.update_layout(height=460)
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


def _map(grid: pd.DataFrame, site: str, positions: Sequence[str]) -> pd.DataFrame:
    """A site's values: rows are layers with their heads or neurons, columns are positions."""
    twice = grid[grid.duplicated(["part", "position"])]
    if len(twice):
        raise InterpError(
            f"The table of interventions has the cell {site}, {twice['part'].iloc[0]}, "
            f"{twice['position'].iloc[0]} more than once; give one model, checkpoint and metric."
        )
    parts = list(dict.fromkeys(grid.sort_values("layer", kind="stable")["part"]))
    values = grid.pivot(index="part", columns="position", values="value")
    return values.reindex(index=parts, columns=[p for p in positions if p in values])


def _map_panels(maps: Sequence[pd.DataFrame], upright: bool) -> tuple[go.Figure, int]:
    """Panels for maps: side by side if their rows are positions, else one below the other."""
    if upright:
        widths = [len(values.columns) for values in maps]
        figure = make_subplots(
            rows=1, cols=len(maps), shared_yaxes=True, column_widths=widths,
            horizontal_spacing=0.12 / len(maps),
        )  # fmt: skip
        figure.update_layout(height=170 + 20 * max(len(values) for values in maps))
        return figure, 40
    heights = [len(values) for values in maps]
    space = 34.0
    inner = 30.0 * sum(heights) + space * len(maps)
    figure = make_subplots(
        rows=len(maps), cols=1, shared_xaxes=True, row_heights=heights,
        vertical_spacing=space / inner,
    )  # fmt: skip
    figure.update_layout(height=round(inner) + 170)
    return figure, 14


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


def _listed(sites: Sequence[str]) -> str:
    """Where panels are too narrow for more than the names of sites: what they mean."""
    return f" ({'; '.join(f'{site}: {_site(site)}' for site in sites)})"


def _label(position: str | float) -> str:
    return "all positions" if pd.isna(position) else str(position)
