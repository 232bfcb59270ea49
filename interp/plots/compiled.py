"""Compiled models: how many facts a memory holds at so many neurons, as computed, in theory and trained.

Tables are those of `interp.studies.compiled`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Look, curves, describe, rows

_MEMORIES = {
    "least squares": Look(PALETTE["blue"], name="computed (least squares)"),
    "theory": Look(PALETTE["grey"], "dot", name="theory"),
    "gradient descent": Look(PALETTE["orange"], symbol="diamond", name="the same memory, trained"),
    "transformer": Look(
        PALETTE["green"], "dash", symbol="x", name="a trained transformer, both MLPs"
    ),
}
_PEOPLE = Axis("people", form=",.0f", scale="log")
_NEURONS = Axis("neurons", form=",.0f", scale="log")


def capacity(table: pd.DataFrame) -> go.Figure:
    """The share of facts held, over neurons, by number of people.

    What to look for: how far lines of the same people are apart.

    Args:
        table: "capacity" of the study.
    """
    found = rows(table, ["seed", "n_individuals", "n_neurons", "memory", "accuracy"], "capacity")
    people = sorted(set(found["n_individuals"]))
    figure = curves(
        found, x="n_neurons", y="accuracy", line="memory", looks=_looks(found), column="n_individuals",
        titles={n: f"{n:,} people" for n in people}, n_columns=min(3, len(people)), x_axis=_NEURONS,
        axis=Axis("facts held (share)", range=(-0.03, 1.05)), seeds=True, marks=True,
    )  # fmt: skip
    return describe(
        figure,
        "Facts held by so many neurons",
        """The share of facts that a memory holds: a value is told by the direction that the sum of its
        neurons agrees with most. Computed: random features of names, and least squares to the values.
        Theory: the same if what other people leave behind is Gaussian, with no free number. Trained: the same
        memory after gradient descent on all of its weights; a trained transformer is counted by the neurons
        of both of its MLPs, and can hold facts elsewhere too. Means over seeds, and their range. Look for how
        far apart the lines are.""",
    )


def needed(table: pd.DataFrame) -> go.Figure:
    """Neurons that hold nine facts in ten, over people.

    What to look for: straight lines of slope 1, and the distance between them.

    Args:
        table: "needed" of the study.
    """
    found = rows(table, ["seed", "memory", "n_individuals", "n_neurons"], "needed")
    figure = curves(
        found, x="n_individuals", y="n_neurons", line="memory", looks=_looks(found), x_axis=_PEOPLE,
        axis=Axis("neurons that hold nine facts in ten", form=",.0f", scale="log"), seeds=True, marks=True,
        heights=[340],
    )  # fmt: skip
    return describe(
        figure,
        "Neurons that nine facts in ten need",
        """How many neurons hold nine facts in ten, over the number of people, both in logarithms: on a
        straight line that rises tenfold where people grow tenfold, facts held are in proportion to neurons.
        Means over seeds, and their range. Look for the distance between lines: it is what training saves.""",
    )


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    return {name: look for name, look in _MEMORIES.items() if name in set(table["memory"])}
