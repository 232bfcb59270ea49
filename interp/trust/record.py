"""What is known of measures: the marks over several populations, which come with the package.

`artifacts/gallery/trust.py` writes them.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import pandas as pd

_FILE = "marks.csv"
RECORD_COLUMNS = (
    "measure", "what", "variant", "models", "hits", "misses", "false_alarms", "error", "unit", "rule",
)  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Marks of several models as sums over them: a row a measure and variant.

    Args:
        table: Tables of `trust_table` of several populations, one after the other.

    Returns:
        Columns `RECORD_COLUMNS`: `models` is how many were marked, `hits`, `misses` and `false_alarms` are
        sums, `error` is the mean.
    """
    grouped = table.groupby(["measure", "variant"], sort=False)
    first = grouped[["what", "unit", "rule"]].first()
    sums = grouped[["hits", "misses", "false_alarms"]].sum()
    numbers = pd.DataFrame({"models": grouped.size(), "error": grouped["error"].mean()})
    found = pd.concat([first, sums, numbers], axis=1).reset_index()
    return found[list(RECORD_COLUMNS)]


@cache
def record() -> pd.DataFrame:
    """The marks that come with the package, as `summary` gives them."""
    with files("interp.trust").joinpath(_FILE).open() as file:
        return pd.read_csv(file, keep_default_na=False, na_values={"error": [""]})


def in_words(measures: Sequence[str]) -> str:
    """What the record says of some measures, a sentence each: "patch z: 18 of 18 found, no false alarm"."""
    table = record()
    parts = []
    for measure in measures:
        own = table[table["measure"] == measure]
        hits, misses, alarms = (int(own[c].sum()) for c in ("hits", "misses", "false_alarms"))
        false = {0: "no false alarm", 1: "1 false alarm"}.get(alarms, f"{alarms} false alarms")
        parts.append(f"{measure} {hits} of {hits + misses} found, {false}")
    return "; ".join(parts)
