"""Tables of interventions as arrays, [layer, position] or [layer, head], as TransformerLens gives them."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import ArgumentError, suggest

_AXES = ("position", "token", "head", "neuron")


def as_array(
    table: pd.DataFrame, columns: str = "position", value: str = "value", **where: Any
) -> Float[np.ndarray, "layer column"]:
    """One number of each cell of a grid, by layer and position, head or neuron.

    Layers, tokens, heads and neurons are where their numbers say, from 0 to the highest in the table,
    and NaN where the table has no such cell; positions come in the order of the table (that of the
    text, for "each").

    Args:
        table: From `patch`, `attribution`, or the same read back from a file.
        columns: "position" (by label), "token" (single positions by number), "head" or "neuron".
        value: The column of the numbers: "value", "change", "unpatched"; "exact" or "approximate".
        **where: Which rows, if there are several cells in a place: `site="z"`, `metric="follows"`,
            `position="last name"`.

    Raises:
        ArgumentError: no such column or row, or several cells in a place.

    Example:
        ```python
        table = patch(model, pairs, Grid("resid_pre", "each"), metrics=LOGIT_DIFFERENCE)
        as_array(table, value="change")                       # [layer, position], logits
        ```
    """
    if columns not in _AXES:
        raise ArgumentError(
            f"columns={columns!r}: an array is by layer and {', '.join(_AXES[:-1])} or {_AXES[-1]}."
        )
    missing = [name for name in ("layer", columns, value, *where) if name not in table]
    if missing:
        raise ArgumentError(
            f"The table has no column {missing[0]!r}.{suggest(missing[0], map(str, table.columns))} "
            f"Columns: {', '.join(map(str, table.columns))}."
        )
    rows = table
    for name, wanted in where.items():
        known = list(dict.fromkeys(rows[name].dropna()))
        rows = rows[(rows[name] == wanted).fillna(False).astype(bool)]
        if rows.empty:
            raise ArgumentError(
                f"The table has no row with {name}={wanted!r} there. It has: {', '.join(map(str, known))}."
            )
    rows = rows[rows[columns].notna() & rows["layer"].notna()]
    if rows.empty:
        raise ArgumentError(f"No cell of the table has a {columns} of its own.")
    twice = rows.duplicated(["layer", columns])
    if twice.any():
        names = {"site", "metric", "position", "head", "neuron", "group", "step", "pair"} - {
            columns
        }
        others = [n for n in rows if n in names and rows[n].nunique(dropna=False) > 1]
        raise ArgumentError(
            f"The table has several cells of one layer and {columns}. Choose by "
            f"{' and '.join(f'{name}=...' for name in others) or 'taking a part of the table'}."
        )
    place = rows[columns]
    if columns == "position":
        place = place.map({label: index for index, label in enumerate(dict.fromkeys(place))})
    layer, column = rows["layer"].to_numpy(dtype=int), place.to_numpy(dtype=int)
    array = np.full((layer.max() + 1, column.max() + 1), np.nan)
    array[layer, column] = rows[value].to_numpy(dtype=float)
    return array
