"""The tables of a study, put together from its runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd

AnyRun = TypeVar("AnyRun")


def collect(
    runs: Iterable[AnyRun],
    of_run: Callable[[AnyRun], tuple[Mapping[str, Any], Mapping[str, pd.DataFrame]]],
    columns: Mapping[str, Sequence[str]],
) -> dict[str, pd.DataFrame]:
    """The tables of several runs, one below the other.

    Args:
        runs: Finished runs, in the order of the rows.
        of_run: From a run to what tells it apart (a value a column, e.g. its seed) and to its tables by
            name; one of which a run has nothing may be left out.
        columns: Of each table, in order. Every table of these names is returned, if need be empty;
            what a run measured beside them is left out.

    Returns:
        The tables by name.
    """
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in columns}
    for run in runs:
        apart, tables = of_run(run)
        for name, table in tables.items():
            if len(table):
                parts[name].append(table.assign(**apart)[list(columns[name])])
    return {
        name: pd.concat(found, ignore_index=True)
        if found
        else pd.DataFrame(columns=list(columns[name]))
        for name, found in parts.items()
    }


def complete(
    tables: Mapping[str, pd.DataFrame], columns: Mapping[str, Sequence[str]]
) -> dict[str, pd.DataFrame]:
    """The tables of these names; one that is missing is empty."""
    return {
        name: tables[name] if name in tables else pd.DataFrame(columns=list(wanted))
        for name, wanted in columns.items()
    }
