"""Rows of a table of patched runs: which runs, and the steps at which they are compared.

Tables are those of `interp.plots.patching`.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp.charts import rows as checked
from interp.errors import InterpError
from interp.phases import Phases
from interp.series import nearest_steps

_COLUMNS = ("seed", "reference_step", "start", "layers", "heads", "step", "metric", "value")
RUN = ["seed", "reference_step", "start", "layers", "heads"]


def patching_rows(table: pd.DataFrame, metric: str = "attribute_loss") -> pd.DataFrame:
    """One metric of a table of patched runs, with the types that a CSV file loses.

    Args:
        table: See the module.
        metric: "attribute_loss" or "attribute_accuracy".

    Raises:
        InterpError: a column is missing, or the metric is not in the table.
    """
    table = checked(table, _COLUMNS, "patched runs")
    rows = table[table["metric"] == metric].copy()
    if rows.empty:
        raise InterpError(
            f"The table of patched runs has no rows of metric {metric!r}; it has "
            f"{sorted(set(table['metric']))}."
        )
    rows["reference_step"] = pd.to_numeric(rows["reference_step"]).astype("Int64")
    for column in ("layers", "heads"):
        rows[column] = [_part(value) for value in rows[column]]
    return rows


def fixed_steps(
    table: pd.DataFrame, phases: Phases, steps: Sequence[int] | None = None
) -> list[int]:
    """The training steps at which runs are compared, all of them measured in every run.

    By default those nearest to the middle and the end of the plateau, to 1.5 and 2 times its end,
    and the last common one. Without a plateau's end: the end of the statistics phase, halfway from
    there to the last common step, and that step.

    Args:
        table: Patched runs; see the module.
        phases: Of the reference.
        steps: Steps of your own, instead of the default.

    Raises:
        InterpError: no step is common to all runs, or one of `steps` is not.
    """
    curves = patching_rows(table).groupby(RUN, dropna=False)["step"]
    common = sorted(set.intersection(*(set(map(int, curve)) for _, curve in curves)))
    if not common:
        raise InterpError("The patched runs share no step at which to compare them.")
    if steps is not None:
        unknown = sorted(set(steps) - set(common))
        if unknown or not steps:
            raise InterpError(
                f"Steps {unknown} are not measured in every run; common to all are {common}."
            )
        return sorted(set(steps))
    last, statistics_end, plateau_end = common[-1], phases.statistics_end, phases.plateau_end
    if plateau_end is None:
        start = statistics_end or 0
        wanted = [start, (start + last) / 2, last]
    else:
        start = plateau_end if statistics_end is None else statistics_end
        middle = (start + plateau_end) / 2
        wanted = [middle, plateau_end, 1.5 * plateau_end, 2 * plateau_end, last]
    candidates = common[1:] if common[0] == 0 and len(common) > 1 else common
    return nearest_steps(candidates, wanted)


def whole_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs patched in all layers and heads."""
    whole = (rows["layers"] == "all") & (rows["heads"] == "all")
    return rows[rows["reference_step"].notna() & whole]


def throughout_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs patched from step 0 in all layers and heads."""
    whole = whole_runs(rows)
    return whole[whole["start"] == 0]


def frozen_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs whose attention is frozen at a step, in all layers and heads."""
    whole = whole_runs(rows)
    return whole[whole["reference_step"] == whole["start"]]


def unpatched_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs with their own attention."""
    return rows[rows["reference_step"].isna()]


def runs_in_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs patched from step 0, of references of which several parts were patched."""
    patched = rows[rows["reference_step"].notna() & (rows["start"] == 0)]
    n_parts = patched.drop_duplicates(["reference_step", "layers", "heads"])["reference_step"]
    several = n_parts.value_counts()
    return patched[patched["reference_step"].isin(several.index[several > 1])]


def _part(value: Any) -> str:
    """Layers or heads as text: a CSV file turns "0" into 0, and beside empty cells into 0.0."""
    if pd.isna(value):
        return "all"
    return str(int(value)) if isinstance(value, float) else str(value)
