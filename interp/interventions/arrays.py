"""Tables as arrays: [layer, position] or [layer, head], as TransformerLens gives them, or by any columns."""

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import ArgumentError, require_frame, suggest

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
    _require_columns(table, ["layer", columns, value, *where])
    rows = _chosen(table, where)
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


def named_array(
    table: pd.DataFrame, *axes: str, value: str = "value", **where: Any
) -> tuple[Float[np.ndarray, "..."], dict[str, list[Any]]]:
    """One number of any tidy table by any of its columns, and what stands along each axis.

    Whole numbers (steps, layers, heads, tokens) go up along their axis, other labels come in the order of
    the table; NaN where the table has no such cell. Rows without a label on an axis (all layers together,
    say) are left out.

    Args:
        table: From any measure, or read back from a file.
        *axes: The columns that are axes, in order: "step", "layer", "head", "metric", ...
        value: The column of the numbers.
        **where: Which rows: `metric="name_to_name"`.

    Returns:
        The array, and of each axis its labels in order.

    Raises:
        ArgumentError: no axis, no such column or row, several cells in a place, or a value that is no
            number.

    Example:
        >>> table = pd.DataFrame({"layer": [1, 0], "metric": ["self", "self"], "value": [0.5, 0.25]})
        >>> named_array(table, "layer", metric="self")
        (array([0.25, 0.5 ]), {'layer': [0, 1]})
    """
    _require_columns(table, [*axes, value, *where])
    if not axes or len(set(axes)) < len(axes):
        raise ArgumentError(
            f"The axes are {list(axes)}; give at least one column, each once, of "
            f"{', '.join(map(str, table.columns))}."
        )
    rows = _chosen(table, where)
    rows = rows[rows[list(axes)].notna().all(axis=1)]
    if rows.empty:
        raise ArgumentError(
            f"No row of the table has a label on each of the axes {', '.join(axes)}."
        )
    if rows.duplicated(list(axes)).any():
        told = {*axes, value, *where}
        others = [
            str(name) for name in rows
            if name not in told and not pd.api.types.is_float_dtype(rows[name])
            and rows[name].nunique(dropna=False) > 1
        ]  # fmt: skip
        raise ArgumentError(
            f"The table has several cells of one {' and '.join(axes)}. Make an axis of, or choose by, "
            f"{' and '.join(others) or 'more columns, taking a part of the table'}."
        )
    if not pd.api.types.is_numeric_dtype(rows[value]):
        raise ArgumentError(f"The column {value!r} holds no numbers; an array is made of numbers.")
    labels = {axis: _labels(rows[axis]) for axis in axes}
    array = np.full([len(own) for own in labels.values()], np.nan)
    places = tuple(
        rows[axis].map({label: place for place, label in enumerate(own)}).to_numpy(dtype=int)
        for axis, own in labels.items()
    )
    array[places] = rows[value].to_numpy(dtype=float, na_value=np.nan)
    return array, labels


def as_xarray(table: pd.DataFrame, *axes: str, value: str = "value", **where: Any) -> Any:
    """`named_array` as an `xarray.DataArray`, with its axes as dimensions and their labels as coordinates.

    Raises:
        ArgumentError: xarray is not installed (it is no dependency), or as `named_array`.
    """
    array, labels = named_array(table, *axes, value=value, **where)
    try:
        xarray = import_module("xarray")
    except ImportError as error:
        raise ArgumentError(
            "as_xarray needs xarray, which is not installed: install it (pip install xarray), or use "
            "named_array, which gives the array and its labels."
        ) from error
    return xarray.DataArray(array, coords=labels, dims=list(axes), name=value)


def _labels(column: pd.Series) -> list[Any]:
    if pd.api.types.is_integer_dtype(column):
        return [int(label) for label in sorted(column.unique())]
    numbers = pd.api.types.is_float_dtype(column)
    if (
        numbers and (column == column.round()).all()
    ):  # whole numbers beside missing ones, from a file
        return [int(label) for label in sorted(column.unique())]
    return sorted(column.unique().tolist()) if numbers else list(dict.fromkeys(column))


def _require_columns(table: pd.DataFrame, names: list[str]) -> None:
    require_frame(table, "results")
    missing = [name for name in names if name not in table]
    if missing:
        raise ArgumentError(
            f"The table has no column {missing[0]!r}.{suggest(missing[0], map(str, table.columns))} "
            f"Columns: {', '.join(map(str, table.columns))}."
        )


def _chosen(table: pd.DataFrame, where: dict[str, Any]) -> pd.DataFrame:
    """The rows that hold what is asked for."""
    rows = table
    for name, wanted in where.items():
        known = list(dict.fromkeys(rows[name].dropna()))
        rows = rows[(rows[name] == wanted).fillna(False).astype(bool)]
        if rows.empty:
            raise ArgumentError(
                f"The table has no row with {name}={wanted!r} there. It has: {', '.join(map(str, known))}."
            )
    return rows
