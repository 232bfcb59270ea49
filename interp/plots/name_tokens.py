"""Where in a name a person is known: token by token, what swaps move, where attention goes.

Tables are those of `interp.studies.name_tokens`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Look, curves, describe, rows

_MEASURES = {
    "determined": Look(PALETTE["grey"], symbol="x", name="people told apart up to there"),
    "strongest": Look(PALETTE["blue"], name="pairs for whom MLP 0 counts most there"),
    "attention": Look(
        PALETTE["orange"], symbol="diamond", name="attention to names that goes there"
    ),
}


def places(table: pd.DataFrame) -> go.Figure:
    """By token of the name: who is told apart, where swaps count, where attention goes.

    What to look for: whether blue is where grey first comes near 1, in every panel.

    Args:
        table: "places" of the study, of names of several tokens.
    """
    found = rows(table, ["seed", "names", "token", "n_tokens", *_MEASURES], "places")
    found = found.melt(["seed", "names", "token"], list(_MEASURES), "measure")
    names = list(dict.fromkeys(found["names"]))
    tokens = sorted(set(found["token"]))
    figure = curves(
        found, x="token", line="measure", column="names", looks=_MEASURES, n_columns=3, marks=True,
        axis=Axis("share", range=(-0.03, 1.05)), titles={n: n for n in names}, seeds=True,
        x_axis=Axis("token of the name", range=(tokens[0] - 0.3, tokens[-1] + 0.3)),
        heights=[170] * -(-len(names) // 3), what="places",
    )  # fmt: skip
    figure.update_xaxes(tickvals=tokens)
    return describe(
        figure,
        "Where in a name a person is known",
        """By token of the name: the share of people whom it tells apart from all others up to there; the
        share of pairs of people for whom a swap of MLP 0's output at that token, in every name, moves the
        answer most; and the share of the last layer's attention from where the value is predicted to names
        that goes there. Means over seeds, and their range. Look for whether blue is highest where grey first
        comes near 1, or always at the same token.""",
    )
