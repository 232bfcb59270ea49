"""Forms made for the model: exposures until facts are known, and what is carried over to prose.

Tables are those of `interp.studies.model_centric`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Level, Look, bars, curves, describe, rows

_FORMS = {
    "biography": Look(PALETTE["blue"], name="biographies"),
    "triple": Look(PALETTE["orange"], "dash", symbol="square", name="triples"),
    "mnemonic": Look(PALETTE["green"], "dot", symbol="diamond", name="mnemonic phrases"),
}
_OWN, _PROSE = "in the form they are told in", "in biographies"


def exposures(table: pd.DataFrame) -> go.Figure:
    """Accuracy over exposures of people who are met in one form alone.

    What to look for: which line reaches the level first on the left, and which stays low on the right.

    Args:
        table: "curves" of the study.
    """
    found = rows(table, ["seed", "form", "exposures", "asked_in", "accuracy"], "curves").copy()
    own = found[found["asked_in"] == found["form"]].assign(asked=_OWN)
    prose = found[found["asked_in"] == "biography"].assign(asked=_PROSE)
    both = pd.concat([own, prose], ignore_index=True)
    figure = curves(
        both, x="exposures", y="accuracy", line="form", looks=_looks(both), column="asked",
        titles={_OWN: _OWN, _PROSE: _PROSE}, x_axis=Axis("exposures a person", form=",.0f"),
        axis=Axis("facts known (share)", range=(-0.03, 1.05)), seeds=True, heights=[320],
        levels=[Level("nine facts in ten", 0.9)],
    )  # fmt: skip
    return describe(
        figure,
        "Facts told in one form alone",
        """Half of the people are met in biographies; the lines are of the other half, which is met in one
        form alone. Left: asked in that form; right: asked in biographies, in wordings never seen with
        them. In mnemonic phrases any value of the person that has not been told yet is right. Means over
        seeds, and their range. Look for which line rises first on the left, and whether it rises on the
        right at all.""",
    )


def carried(table: pd.DataFrame) -> go.Figure:
    """What is known at the end in prose, by attribute.

    What to look for: how far bars of people met in another form are below those of prose.

    Args:
        table: "carried" of the study.
    """
    found = rows(table, ["seed", "form", "people", "asked_in", "attribute", "accuracy"], "carried")
    own = found[(found["people"] == "in the form") & (found["asked_in"] == "biography")]
    figure = bars(
        own, place="attribute", y="accuracy", group="form", looks=_looks(own), what="people met in a form",
        axis=Axis("known in prose (share)", range=(0, 1.05)),
    )  # fmt: skip
    return describe(
        figure,
        "Known in prose, by the form in which people were met",
        """Accuracy in biographies at the end, in wordings never seen with them, of people who were met in one
        form alone; biographies are the control. Means over seeds, and their range. Look for how much of what
        triples or phrases taught is left where a sentence asks for it.""",
    )


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    return {name: look for name, look in _FORMS.items() if name in set(table["form"])}
