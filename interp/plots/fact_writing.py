"""Facts written in: how well they hold by place and number, by attribute, and what they cost.

Tables are those of `interp.studies.fact_writing`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

from collections import Counter
from itertools import cycle

import pandas as pd
import plotly.graph_objects as go

from interp.charts import COLOURS, DASHES, SYMBOLS, Axis, Look, curves, describe, rows
from interp.errors import InterpError

_METRICS = {
    "efficacy": "new facts, training wordings",
    "generalisation": "new facts, other wordings",
    "specificity_subject": "the same people's other facts",
    "specificity_others": "other people's facts",
}
_COLUMNS = ["seed", "method", "place", "n_edits", "metric", "attribute", "value"]
_SHARE = Axis("right (share)", range=(-0.03, 1.05))
_EDITS = Axis("facts written together", scale="log", form=",.0f")


def scores(table: pd.DataFrame) -> go.Figure:
    """What is right after an edit, over the number of facts, a line for each method and place.

    What to look for: a line that stays at 1 in all four panels.

    Args:
        table: "scores" of the study.
    """
    found = _whole(table, list(_METRICS))
    figure = curves(
        found, x="n_edits", line="how", looks=_looks(table), facet="metric", titles=_METRICS, axis=_SHARE,
        x_axis=_EDITS, seeds=True, marks=True,
    )  # fmt: skip
    return describe(
        figure,
        "Facts that hold",
        """Share of facts right after so many new facts were written together. New facts in wordings of
        training, and in those never seen with the person; of the same people's other facts and of other
        people's, those that were right before. Means over seeds, and each seed. Look for a line that stays
        near 1 in all panels; a place whose new facts are said but whose other facts are lost has overwritten
        them.""",
    )


def attributes(table: pd.DataFrame) -> go.Figure:
    """Efficacy by attribute, a panel for each number of facts, over places and methods.

    What to look for: an attribute that cannot be written at a place where others can.

    Args:
        table: "scores" of the study.
    """
    found = rows(table, _COLUMNS, "scores")
    found = _named(found[(found["metric"] == "efficacy") & (found["attribute"] != "all")])
    if found.empty:
        raise InterpError("The table of scores has no efficacy by attribute.")
    figure = curves(
        found, x="n_edits", line="how", looks=_looks(table), facet="attribute", axis=_SHARE, x_axis=_EDITS,
        titles={a: str(a).replace("_", " ") for a in dict.fromkeys(found["attribute"])}, marks=True,
    )  # fmt: skip
    return describe(
        figure,
        "New facts said, by attribute",
        """Efficacy: share of the new facts that are said in wordings of training, by attribute, over the
        number of facts written together. Means over seeds. Look for attributes that cannot be written at a
        name: a date is three tokens, each predicted elsewhere, and a vector at a name has to serve all.""",
    )


def costs(table: pd.DataFrame) -> go.Figure:
    """Arithmetic of editing and of fine-tuning, over the number of facts.

    What to look for: which line is lower, and whether they cross.

    Args:
        table: "scores" of the study.
    """
    figure = curves(
        _whole(table, ["arithmetic"]), x="n_edits", line="how", looks=_looks(table), x_axis=_EDITS,
        axis=Axis("arithmetic (tokens passing forward)", form=",.0f", scale="log"), seeds=True, marks=True,
    )  # fmt: skip
    return describe(
        figure,
        "What writing costs",
        """Arithmetic in tokens passing forward (backward to weights counts as two, to an activation as
        one), over the number of facts written together; of an edit the texts for the covariance are counted
        in each. Means over seeds, and each seed. Look for which line is lower.""",
    )


def _whole(table: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    found = rows(table, _COLUMNS, "scores")
    found = found[found["metric"].isin(metrics) & (found["attribute"] == "all")]
    if found.empty:
        raise InterpError(f"The table of scores has no {metrics[0]}.")
    return _named(found)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        how=[_name(*of) for of in zip(table["method"], table["place"], strict=True)]
    )


def _name(method: str, place: str) -> str:
    return method if place == "all weights" else f"{method.upper()}, {place}"


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    """A colour for each place, all weights among them; several methods at one differ by dash and mark."""
    pairs = list(dict.fromkeys(zip(table["method"], table["place"], strict=True)))
    places = list(dict.fromkeys(place for _, place in pairs))
    colours = dict(zip(places, cycle(COLOURS), strict=False))
    seen: Counter[str] = Counter()
    looks = {}
    for method, place in sorted(pairs, key=lambda of: of[0] == "rome"):
        n, name = seen[place], _name(method, place)
        seen[place] += 1
        dash, symbol = DASHES[n % len(DASHES)], SYMBOLS[n % len(SYMBOLS)]
        looks[name] = Look(colours[place], dash, symbol=symbol, name=name)
    return looks
