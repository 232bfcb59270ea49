"""What senders tell receivers directly: the figure of `interp.interventions.path_patch`."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.style import INK, describe
from interp.errors import InterpError
from interp.interventions import LOGIT_DIFFERENCE
from interp.plots.interventions import METRIC_NAMES
from interp.plots.panels import SIGNED, chosen, rows, unit_label

_COLUMNS = ("sender", "sender_layer", "sender_head", "receiver", "layer", "head", "metric", "value")
_READS = {"q_input": "queries", "k_input": "keys", "v_input": "values"}
_LEGIBLE = 12
"""With more columns than these, all maps together, numbers do not fit into the cells."""


def path_heatmap(table: pd.DataFrame, metric: str = LOGIT_DIFFERENCE) -> go.Figure:
    """What patching each direct path changes: senders against receivers, a map for each input.

    What to look for: the pairs of heads that talk to each other, and through which input.

    Args:
        table: From `path_patch`.
        metric: The metric to draw.

    Raises:
        InterpError: a column or the metric is missing, a path is there more than once, or there is
            nothing to draw.
    """
    paths = rows(table, (*_COLUMNS, "unpatched"), "paths", numbers=("sender_layer", "layer"))
    paths = chosen(paths, "paths", metric=metric)
    if paths[["sender", "sender_layer", "receiver", "layer"]].isna().any(axis=None):
        raise InterpError("The table of paths has a row without its sender, receiver or layer.")
    values = paths[["value", "unpatched"]].apply(pd.to_numeric, errors="coerce")
    values = values.astype(float).replace([np.inf, -np.inf], np.nan)
    paths = paths.assign(**values)
    paths = paths.assign(
        change=paths["value"] - paths["unpatched"],
        start=[
            _sender(*row) for row in _of(paths, "sender", "sender_layer", *_heads(paths, "sender_"))
        ],
        end=[_head(*row) for row in _of(paths, "layer", *_heads(paths, ""))],
    )
    if not paths["change"].notna().any():
        raise InterpError(f"The table of paths has no value of {metric} to draw.")
    twice = paths[paths.duplicated(["start", "receiver", "end"])]
    if len(twice):
        raise InterpError(
            f"The table of paths has the path from {twice['start'].iloc[0]} to {twice['end'].iloc[0]} "
            f"({twice['receiver'].iloc[0]}) more than once; give one model, checkpoint and metric."
        )
    starts = list(dict.fromkeys(paths["start"]))
    maps = {
        receiver: part.pivot(index="start", columns="end", values="change").reindex(
            index=starts, columns=list(dict.fromkeys(part["end"]))
        )
        for receiver, part in paths.groupby("receiver", sort=False)
    }
    highest = max(1e-9, float(np.nanmax(np.abs(paths["change"].astype(float)))))
    figure = make_subplots(
        rows=1, cols=len(maps), shared_yaxes=True, horizontal_spacing=0.04,
        column_widths=[len(values.columns) for values in maps.values()],
        subplot_titles=[f"<b>{_READS.get(str(name), str(name))}</b>" for name in maps],
    )  # fmt: skip
    name = METRIC_NAMES.get(metric, metric)
    legible = sum(len(values.columns) for values in maps.values()) <= _LEGIBLE
    for column, (receiver, values) in enumerate(maps.items(), start=1):
        figure.add_heatmap(
            z=values.astype(float).to_numpy().tolist(), x=list(values.columns), y=starts,
            zmin=-highest, zmax=highest, colorscale=SIGNED, showscale=False, xgap=2, ygap=2,
            texttemplate="%{z:.2f}" if legible else None, textfont={"color": INK, "size": 11},
            hovertemplate=f"from %{{y}} to the {_READS.get(str(receiver), receiver)} of %{{x}}: change "
            "%{z:.3f}<extra></extra>",
            name=str(receiver), row=1, col=column,
        )  # fmt: skip
    figure.update_annotations(font_size=12)
    figure.update_xaxes(showgrid=False, type="category", title_text="receiver", tickfont_size=11)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", tickfont_size=11)
    figure.update_yaxes(title_text="sender", col=1)
    figure.update_layout(height=170 + 30 * len(starts))
    return describe(
        figure,
        f"Direct paths: {name.split(' (')[0]}",
        f"""Change of the {name} when what a sender writes reaches one receiver alone as the source
        has it: rows are senders, columns receivers (a layer and its head), a map for each input of
        the receivers. Blue is above zero, orange below; all maps share one scale, whose end is
        {highest:.2f}. Look for the pairs that talk to each other, and through which input.""",
    )


def _of(table: pd.DataFrame, *columns: str) -> zip:  # type: ignore[type-arg]
    return zip(*(table[column] for column in columns), strict=True)


def _heads(paths: pd.DataFrame, of: str) -> tuple[str, ...]:
    """The columns that tell which heads, of those that the table has."""
    return tuple(name for name in (f"{of}head", f"{of}group") if name in paths)


def _sender(kind: str, layer: object, *heads: object) -> str:
    return f"MLP {layer}" if kind == "mlp_out" else _head(layer, *heads)


def _head(layer: object, *heads: object) -> str:
    label = next((head for head in reversed(heads) if not pd.isna(head)), None)  # type: ignore[call-overload]
    return str(layer) if label is None else f"{layer}.{unit_label(label)}"
