"""Fine-tuning on differences: new people learned, old ones lost.

Tables are those of `interp.studies.differences`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import DASHES, PALETTE, Axis, Look, bars, curves, describe, ramp, rows
from interp.errors import InterpError
from interp.plots.differences import KNOWN, SHARE

_PEOPLE = {
    "old": Look(PALETTE["blue"], name="old people"),
    "new": Look(PALETTE["orange"], symbol="diamond", name="new people"),
}
_DASHED = {"old": ("old people", DASHES[0]), "new": ("new people", DASHES[1])}


def tuned_curves(table: pd.DataFrame) -> go.Figure:
    """Accuracy on old and new people over fine-tuning.

    What to look for: dashed lines that rise while solid ones of the same colour stay.

    Args:
        table: "tuned" of the study.
    """
    found = _tuned(table)
    names = list(dict.fromkeys(found["weights"]))
    looks = {n: Look(c, name=n) for n, c in zip(names, ramp(len(names)), strict=True)}
    figure = curves(
        found, y="accuracy", line="weights", looks=looks, dash="people", dashes=_DASHED,
        facet="told", column="replay", titles={n: f"on {n}" for n in dict.fromkeys(found["told"])},
        axis=SHARE, x_axis=Axis("fine-tuning (steps)", form=",.0f", hover="step"),
        heights=[200] * found["told"].nunique(), seeds=True,
    )  # fmt: skip
    return describe(
        figure,
        "New people learned, old ones lost",
        f"""{KNOWN} On old people (solid) and new ones (dashed), over steps of fine-tuning on the new. Panels:
        the loss on everything or only on values predicted wrong; with old people replayed or without.
        Colours: all weights are trained, or an adapter beside them. Means over seeds, and their range. Look
        for solid lines that stay while dashed ones of the same colour rise.""",
    )


def kept(table: pd.DataFrame) -> go.Figure:
    """Accuracy on old and new people at the end of fine-tuning.

    What to look for: rows with both points at the right.

    Args:
        table: "tuned" of the study.
    """
    found = _tuned(table)
    apart = ["weights", "told", "replay", "seed"]
    ends = found[found["step"] == found.groupby(apart)["step"].transform("max")]
    places = [
        f"{weights}, on {told}" for weights, told in zip(ends["weights"], ends["told"], strict=True)
    ]
    figure = bars(
        ends.assign(place=places), y="accuracy", place="place", group="people", looks=_PEOPLE,
        facet="replay", axis=SHARE,
    )  # fmt: skip
    return describe(
        figure,
        "What fine-tuning ends with",
        f"""At the end of fine-tuning on new people. {KNOWN} Rows: which weights are trained, and whether the
        loss is on everything or only on values predicted wrong. Panels: without replay, and with old people
        among the new. Means over seeds, and each seed. Look for rows in which both points are at the
        right: the new is learned, and the old is kept.""",
    )


def _tuned(table: pd.DataFrame) -> pd.DataFrame:
    wanted = ["seed", "weights", "told", "replay_weight", "step", "old", "new"]
    found = rows(table, wanted, "fine-tuning")
    if found.empty:
        raise InterpError("No run of fine-tuning has finished.")
    replay = [
        "without replay" if pd.isna(weight) else f"replay, weight {weight:g}"
        for weight in found["replay_weight"]
    ]
    return found.assign(replay=replay).melt(
        ["seed", "weights", "told", "replay", "step"], ["old", "new"], "people", "accuracy"
    )
