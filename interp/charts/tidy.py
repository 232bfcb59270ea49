"""Tidy tables as charts need them: checked, with their types, and in order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from interp.errors import InterpError


def rows(
    table: pd.DataFrame, columns: Sequence[str], what: str, numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """A table with the types that a CSV file loses.

    Args:
        table: Tidy, as made or read back from CSV.
        columns: The columns it must have.
        what: What it holds, for the error, e.g. "knockouts".
        numbers: Columns of whole numbers that may be NA.

    Raises:
        InterpError: a column is missing, or one of whole numbers holds something else.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise InterpError(
            f"The table of {what} lacks the columns {missing}; it has {list(table.columns)}."
        )
    typed = {}
    for column in numbers:
        try:
            typed[column] = pd.to_numeric(table[column]).astype("Int64")
        except (ValueError, TypeError) as error:
            raise InterpError(
                f"The column {column} of the table of {what} has to hold whole numbers ({error})."
            ) from error
    return table.assign(**typed)


def unit_label(number: object) -> str:
    """A head or a group of neurons as text; a CSV file turns 3 beside empty cells into 3.0."""
    return str(int(number)) if isinstance(number, float) else str(number)


def chosen(
    table: pd.DataFrame, what: str, **wanted: str | int | float | Sequence[str]
) -> pd.DataFrame:
    """The rows that have these values.

    Args:
        table: Tidy.
        what: What it holds, for the error.
        wanted: A column's value, or several of which any will do.

    Raises:
        InterpError: there is no such row.
    """
    found = table
    for column, value in wanted.items():
        several = [value] if isinstance(value, str | int | float) else list(value)
        of_value = found[found[column].isin(several)]
        if of_value.empty:
            listed = " or ".join(str(one) for one in several)
            has = sorted({str(other) for other in found[column]})
            raise InterpError(f"The table of {what} has no {column} {listed}; it has {has}.")
        found = of_value
    return found


def at_step(table: pd.DataFrame, step: int | None, what: str) -> tuple[pd.DataFrame, int]:
    """The rows of one step, by default the last, and that step.

    Raises:
        InterpError: nothing was measured at that step, or at all.
    """
    measured = whole_numbers(table["step"])
    if not measured:
        raise InterpError(f"The table of {what} has no rows to draw.")
    step = measured[-1] if step is None else step
    if step not in measured:
        raise InterpError(f"There is no row of {what} at step {step}; there is {measured}.")
    return table[table["step"] == step], step


def by_step(table: pd.DataFrame, column: str = "value") -> pd.Series:
    """The mean of a column at every step that has one."""
    return table.groupby("step")[column].mean().dropna()


def in_order(values: pd.Series, first: str = "last name") -> list[str]:
    """Different values as they come, one of them first."""
    return sorted(dict.fromkeys(str(value) for value in values), key=lambda v: v != first)


def whole_numbers(values: Iterable[Any]) -> list[int]:
    """Different values, in order, as Python's integers."""
    return sorted({int(value) for value in values})


def values_of(column: pd.Series, known: Mapping[Any, Any] | None = None) -> list[Any]:
    """The different values of a column, in the order in which a chart shows them.

    Args:
        column: Of a tidy table.
        known: What a caller says of some values; they come first, in its order.

    Returns:
        Without `known`: NA (all layers, all heads) as None, then numbers in order, or words as they
        come. Whole numbers are Python's.
    """
    found: list[Any] = list(dict.fromkeys(plain_value(value) for value in column))
    if not any(isinstance(value, str) for value in found):
        found.sort(key=lambda value: (value is not None, value if value is not None else 0))
    if known is None:
        return found
    return [v for v in known if v in found] + [v for v in found if v not in known]


def plain_value(value: Any) -> Any:
    """A cell as Python has it: NA is None, a whole number int, text str."""
    if pd.isna(value):
        return None
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() else float(value)


def having(table: pd.DataFrame, column: str | None, value: Any) -> pd.DataFrame:
    """The rows with a value of `values_of`; all of them without a column."""
    if column is None:
        return table
    return table[table[column].isna() if value is None else table[column] == value]


def called(column: str, value: Any, names: Mapping[Any, str] | None = None) -> str:
    """What a reader is told a value is: "layer 0", "all layers", or the word itself."""
    if names is not None and value in names:
        return names[value]
    words = column.replace("_", " ")
    if value is None:
        return f"all {words}s"
    return value if isinstance(value, str) else f"{words} {value:,}"
