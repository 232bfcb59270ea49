"""What senders tell receivers directly: the figure of `interp.interventions.path_patch`."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts import chosen, describe, has_missing, heatmap, matrix, rows
from interp.charts.tidy import unit_label
from interp.errors import InterpError
from interp.interventions import LOGIT_DIFFERENCE
from interp.plots.interventions import METRIC_NAMES, unit_of

_COLUMNS = ("sender", "sender_layer", "sender_head", "receiver", "layer", "head", "metric", "value")
_READS = {"q_input": "queries", "k_input": "keys", "v_input": "values"}
_CROSSED = "Crossed cells: not measured, or no path, as one leads to a later layer."


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
    maps = {
        _READS.get(str(receiver), str(receiver)): matrix(
            part, row="start", column="end", value="change", what="paths"
        ).reindex(paths["start"].unique())
        for receiver, part in paths.groupby("receiver", sort=False)
    }
    name = METRIC_NAMES.get(metric, metric)
    figure = heatmap(maps, axis=unit_of(name), rows="sender", columns="receiver", beside=True)
    highest = float(paths["change"].abs().max())
    return describe(
        figure,
        f"Direct paths: {name.split(' (')[0]}",
        f"""Change of the {name} when what a sender writes reaches one receiver alone as the source
        has it: rows are senders, columns receivers (a layer and its head), a map for each input of
        the receivers. Blue is above zero, orange below; all maps share one scale, whose end is
        {highest:.2f}. {_CROSSED if has_missing(figure) else ""} Look for the pairs that talk to each
        other, and through which input.""",
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
