"""More seeds: what each of many seeds says, and their mean, held against a threshold.

The table is that of `interp.studies.more_seeds`; a table read back from CSV will do. Raises `InterpError`
where a column is missing or there is nothing to draw.
"""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Level, Look, bars, describe, rows
from interp.seeds import over_seeds

_SEEDS, _INTERVAL = "each seed", "95% interval of the mean"
_LOOKS = {
    _SEEDS: Look(PALETTE["blue"]),
    _INTERVAL: Look(PALETTE["orange"], symbol="square"),
}


def values_of_seeds(
    numbers: pd.DataFrame, shown: Mapping[str, tuple[str, float, str]]
) -> go.Figure:
    """What the rule of each case reads of every seed, and the interval of the mean.

    What to look for: whether the interval lies on one side of the threshold.

    Args:
        numbers: "numbers" of the study: a row a `case` and `seed`, with a `value`.
        shown: By case, in order: what its value is, with the unit; the threshold; and how values are written.
    """
    found = rows(numbers, ["case", "seed", "value"], "numbers")
    means = over_seeds(found, "case")
    ends = means.melt("case", ["interval_low", "interval_high"], var_name="seed").dropna()
    both = pd.concat([found.assign(of=_SEEDS), ends.assign(of=_INTERVAL)], ignore_index=True)
    figure = bars(
        both, place="of", group="of", facet="case", looks=_LOOKS, zero=False, what="numbers",
        axis={name: Axis(unit, form=form) for name, (unit, _, form) in shown.items()},
        places={_SEEDS: _SEEDS, _INTERVAL: _INTERVAL},
        levels=[
            Level("threshold", limit, (name,), legend=i == 0)
            for i, (name, (_, limit, _)) in enumerate(shown.items())
        ],
    )  # fmt: skip
    return describe(
        figure,
        "Claims that their studies could not decide, with more seeds",
        """Of every claim what its rule reads of each of many seeds, none of which its study has, with their
        mean and range; below it the 95% interval of the mean (Student's t). Dotted: the threshold of the
        rule. Look for intervals that the threshold is not in: these claims are decided, whatever single
        seeds say.""",
    )
