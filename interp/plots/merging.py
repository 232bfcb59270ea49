"""The loss along the straight line between two models' weights."""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import Axis, curves, describe
from interp.merging import barrier
from interp.merging.line import with_straight

_LOSS, _ACCURACY = "attribute loss", "attribute accuracy"
_NAMES = {"held_out": "held out"}


def line_curves(line: pd.DataFrame) -> go.Figure:
    """Loss and accuracy along the straight line between two models' weights, a curve for each split.

    What to look for: whether the loss rises above the dotted line between its ends.

    Args:
        line: What `interp.loss_along_line` returned.

    Raises:
        ArgumentError: another table, or one without its ends.
    """
    table = with_straight(line).replace({"split": _NAMES})
    of_loss = table.assign(measure=_LOSS, value=table["attribute_loss"])
    of_accuracy = table.assign(
        measure=_ACCURACY, value=table["attribute_accuracy"], straight=float("nan")
    )
    figure = curves(
        pd.concat([of_loss, of_accuracy], ignore_index=True),
        x="alpha", line="split", facet="measure", level="straight", marks=True,
        x_axis=Axis("α, the share of the second model", form=".2f", hover="α"),
        axis={
            _LOSS: Axis("attribute loss (nats)", "nats"),
            _ACCURACY: Axis("attribute accuracy (share)", range=(-0.02, 1.02)),
        },
        what="losses along a line",
    )  # fmt: skip
    barriers = ", ".join(
        f"{_NAMES.get(split, split)} {barrier(line, split):.3g} nats"
        for split in dict.fromkeys(line["split"])
    )
    return describe(
        figure,
        "Along the straight line between two models",
        f"""Attribute loss (nats per value) and accuracy (share of values) of models whose weights are
        (1 - α) times those of the first and α times those of the second. Dotted: the straight line
        between the losses at the ends. The barrier is the largest excess over it: {barriers}. Look for a
        loss that stays at the dotted line or below: then the two lie in one basin, and their average knows
        what they know. A hill between them says that they do not, whatever each of them knows.""",
    )
