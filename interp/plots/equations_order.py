"""Facts as equations, as a study: contradictions, order, and what learned apart is put together.

Tables are those of `interp.studies.equations`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Level, Look, bars, curves, describe, ramp, rows

_VALUES = {
    "p_a": Look(PALETTE["blue"], name="p(A), one's own value"),
    "p_b": Look(PALETTE["orange"], "dash", symbol="diamond", name="p(B), the second value"),
}
_SYSTEMS = {
    "one": Look(PALETTE["blue"], name="subsystem one"),
    "two": Look(PALETTE["orange"], "dash", symbol="diamond", name="subsystem two"),
}
_PEOPLE = {
    "old": Look(PALETTE["grey"], symbol="x", name="old people"),
    "first half": Look(PALETTE["blue"], name="first half of the new"),
    "second half": Look(PALETTE["orange"], symbol="diamond", name="second half of the new"),
}
_SPLITS = {"old": _PEOPLE["old"], "new": Look(PALETTE["blue"], name="new people, both halves")}
_SHARE = Axis("accuracy (share)", range=(-0.03, 1.05))
_CONTROL = "control"


def contradicted(table: pd.DataFrame) -> go.Figure:
    """The probability of both values of contradicted facts over training.

    What to look for: whether p(A) ends at the share of A, and which value the last panel ends with.

    Args:
        table: "contradicted" of the study.
    """
    found = rows(table, ["seed", "condition", "step", *_VALUES], "contradicted values")
    names = list(dict.fromkeys(found["condition"]))
    shares = {n: float(str(n).split()[1]) for n in names if str(n).startswith("mixed")}
    titles = {
        name: f"A in {shares[name]:g} of the biographies"
        if name in shares
        else f"{name}, in halves"
        for name in names
    }
    figure = curves(
        found.melt(["seed", "condition", "step"], list(_VALUES), "of"), line="of", looks=_VALUES,
        facet="condition", titles=titles, axis=Axis("probability", range=(-0.03, 1.05)), seeds=True,
        marks=True, heights=[170] * len(names),
        levels=[Level("share of A", share, only=(name,)) for name, share in shares.items()],
    )  # fmt: skip
    return describe(
        figure,
        "Which of two contradictory values is believed",
        """Mean probability of both values of people who have another value (B) of one attribute beside their
        own (A), in wordings never seen with them. Panels: A in a share of their biographies by chance
        (dotted), or A in the first half of training and B in the second. Means over seeds, and their range.
        Look for whether p(A) ends at the dotted line, and for which value wins where they come one after
        the other.""",
    )


def others(table: pd.DataFrame) -> go.Figure:
    """Accuracy on attributes that nobody is contradicted of, over training.

    What to look for: lines that rise later than the control.

    Args:
        table: "contradiction" of the study.
    """
    found = rows(table, ["seed", "condition", "step", "accuracy"], "contradictions")
    names = [name for name in dict.fromkeys(found["condition"]) if name != _CONTROL]
    looks = {_CONTROL: Look(PALETTE["grey"], "dash", width=3, name="no contradictions")}
    looks |= {n: Look(c, name=str(n)) for n, c in zip(names, ramp(len(names)), strict=True)}
    there = set(found["condition"])
    figure = curves(
        found, y="accuracy", line="condition", looks={n: k for n, k in looks.items() if n in there},
        axis=_SHARE, seeds=True, heights=[320],
    )  # fmt: skip
    return describe(
        figure,
        "Whether contradictory facts slow down the others",
        """Accuracy (share of values right, in wordings never seen with a person) on the attributes that
        nobody is contradicted of, of everybody. Lines: without contradictions; with a second value of
        another attribute for some people, mixed (by the share of biographies with their own) or one after
        the other. Means over seeds, and their range. Look for lines right of the dashed one.""",
    )


def order(table: pd.DataFrame) -> go.Figure:
    """Accuracy on both subsystems over training, a panel for each order.

    What to look for: how far the first falls while the second is learned, and whether ends differ.

    Args:
        table: "order" of the study.
    """
    found = rows(table, ["seed", "order", "step", *_SYSTEMS], "orders")
    names = list(dict.fromkeys(found["order"]))
    figure = curves(
        found.melt(["seed", "order", "step"], list(_SYSTEMS), "system"), line="system", looks=_SYSTEMS,
        facet="order", titles={n: "both from the start" if n == "both" else str(n) for n in names},
        axis=_SHARE, seeds=True, marks=True, heights=[200] * len(names),
    )  # fmt: skip
    return describe(
        figure,
        "Two subsystems of facts, one after the other or together",
        """Accuracy (share of values right, in wordings never seen with a person) on two halves of the facts.
        Panels: a third of the steps on one, a third on the other, a third on both; or all steps on both.
        Means over seeds, and their range. Look for how far the first falls in the second third, how fast it
        is back in the last, and whether all panels end alike.""",
    )


def merge(table: pd.DataFrame) -> go.Figure:
    """What runs and models made of them know of old and new people.

    What to look for: rows of models made of two runs whose points stand where those of both halves do.

    Args:
        table: "merge" of the study.
    """
    found = rows(table, ["seed", "model", *_PEOPLE], "merged models")
    figure = bars(
        found.melt(["seed", "model"], list(_PEOPLE), "people", "accuracy"), y="accuracy", place="model",
        group="people", looks=_PEOPLE, axis=_SHARE,
    )  # fmt: skip
    return describe(
        figure,
        "What models that learned apart know together",
        """Accuracy (share of values right, in wordings never seen with a person) on the people of the base,
        and on both halves of new ones. Rows: the base; runs that went on from it with one half, or with both
        for twice as many steps; the average of the first two, and the base with both task vectors times a
        scale (0.5 is the average again, a check); "switched": for each group the model that learned it; the
        same with adapters, which are alone, added, or switched. Means over seeds, and each seed. Look for
        rows of sums whose points stand where those of "both halves" do.""",
    )


def line(table: pd.DataFrame) -> go.Figure:
    """The loss along the straight line between two models.

    What to look for: a hill above the straight line between the ends.

    Args:
        table: "line" of the study.
    """
    found = rows(table, ["seed", "pair", "split", "alpha", "attribute_loss"], "losses along a line")
    keys = ["seed", "pair", "split"]
    ends = found[found["alpha"].isin([0, 1])].pivot_table("attribute_loss", keys, "alpha")
    at = ends.reindex(pd.MultiIndex.from_frame(found[keys])).to_numpy()
    straight = (1 - found["alpha"]) * at[:, 0] + found["alpha"] * at[:, 1]
    names = list(dict.fromkeys(found["pair"]))
    figure = curves(
        found.assign(straight=straight), x="alpha", y="attribute_loss", line="split", looks=_SPLITS,
        facet="pair", titles={name: str(name) for name in names}, level="straight", seeds=True, marks=True,
        x_axis=Axis("α, the share of the second model", form=".2f", hover="α"),
        axis=Axis("attribute loss (nats)", "nats"), heights=[240] * len(names),
    )  # fmt: skip
    return describe(
        figure,
        "Along the straight line between two models that learned apart",
        """Attribute loss (nats a value) of models whose weights are (1 - α) times those of the run on the
        first half of the new people and α times those of the run on the second; below, the control: the
        first run and itself. Dotted: the straight line between the losses at the ends. Means over seeds, and
        their range. Look for a hill above the dotted line (a barrier), or a valley: there the two know more
        together.""",
    )
