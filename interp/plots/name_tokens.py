"""Where in a name a person is known: token by token, what swaps move, where attention goes.

Tables are those of `interp.studies.name_tokens`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Look, bars, describe, rows

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
    figure = bars(
        found, place="token", group="measure", facet="names", looks=_MEASURES, upright=True,
        axis=Axis("share", range=(-0.03, 1.05)), titles={n: n for n in names},
        places={token: str(token) for token in sorted(set(found["token"]))}, place_axis="token of the name",
        what="places",
    )  # fmt: skip
    return describe(
        figure,
        "Where in a name a person is known",
        """By token of the name: the share of people whom it tells apart from all others up to there; the
        share of pairs of people for whom a swap of MLP 0's output at that token, in every name, moves the
        answer most; and the share of the last layer's attention from where the value is predicted to names
        that goes there. Means over seeds, and each seed. Look for whether blue is highest where grey first
        comes near 1, or always at the same token.""",
    )
