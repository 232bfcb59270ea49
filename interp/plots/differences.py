"""Training on differences: what is learned at what cost, on which data, and what fine-tuning keeps.

Tables are those of `interp.studies.differences`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw. Where there is no plain run to hold
others against, a figure says so.
"""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Level, Look, bars, curves, describe, note, ramp, rows

_FEW, _SOME, _MANY = ramp(5)[2:]
_CONDITIONS = {
    "plain": Look(PALETTE["blue"], width=3, name="plain"),
    "random of 4": Look(PALETTE["grey"], "dash", symbol="x", name="random of 4"),
    "smallest loss of 4": Look(PALETTE["grey"], symbol="x", name="smallest loss of 4"),
    "largest loss of 2": Look(_FEW, "dash", symbol="square", name="largest loss of 2"),
    "largest loss of 4": Look(_SOME, "dashdot", symbol="square", name="largest loss of 4"),
    "largest loss of 8": Look(_MANY, symbol="square", name="largest loss of 8"),
    "wrong values": Look(PALETTE["green"], symbol="diamond", name="wrong values"),
    "contrast": Look(PALETTE["green"], "dash", symbol="diamond", name="contrast"),
    "wrong values, contrast": Look(
        PALETTE["green"], "dashdot", symbol="diamond", name="wrong values, contrast"
    ),
}
_DATA = {
    "uniform": "everybody equally likely",
    "uneven": "some people rare",
    "contradictory": "contradictory facts",
}
_COSTS = {
    "examples": "examples (and steps)",
    "values": "values with a loss",
    "arithmetic": "arithmetic",
}
_GROUPS = {
    ("uniform", "all"): "everybody equally likely",
    ("uneven", "common half"): "some people rare: the common half of the people",
    ("uneven", "rare half"): "some people rare: the rare half",
    ("contradictory", "contradicted"): "contradictory facts: values that have a second one",
    ("contradictory", "other values"): "contradictory facts: all other values",
}
SHARE = Axis("accuracy (share)", range=(-0.03, 1.05))
_APART = ("seed", "data", "condition")
KNOWN = "Accuracy is the share of values right, in wordings never seen with a person."


def learning_curves(table: pd.DataFrame) -> go.Figure:
    """Accuracy over examples, over values that the loss is on and over arithmetic.

    What to look for: lines that rise before plain training in the first panel and after it in the last.

    Args:
        table: "curves" of the study.
    """
    found = rows(table, [*_APART, "step", *_COSTS, "accuracy"], "curves")
    found = found[found["data"] == "uniform"]
    if not (found["condition"] == "plain").any():
        return _nothing(
            "What is learned, and at what cost",
            "No plain run with uniform data has finished, which others are held against.",
        )
    parts = []
    for measure in _COSTS:
        # Seeds differ a little in what a step costs; they are compared at equal steps.
        cost = found.groupby(["condition", "step"])[measure].transform("mean")
        whole = cost[found["condition"] == "plain"].max()
        parts.append(found.assign(measure=measure, cost=cost / whole))
    figure = curves(
        pd.concat(parts), x="cost", y="accuracy", line="condition", looks=_there(found, _CONDITIONS),
        facet="measure", titles=_COSTS, axis=SHARE, seeds=True,
        x_axis=Axis("cost (1: all of plain training)", hover="cost", form=".3f"),
        heights=[210, 210, 210],
    )  # fmt: skip
    return describe(
        figure,
        "What is learned, and at what cost",
        f"""{KNOWN} Over what training had cost until then, where 1 is what all of plain training costs:
        in examples, and so in steps, which all have equally many; in values that the loss is on; and in
        arithmetic, in which a token that passes forward counts once, one that passes backward twice more,
        and candidates that are scored, too. Means over seeds, and their range; everybody equally likely.
        Look for lines that rise before plain training in the first panel and after it in the last: what
        they save in examples they cost in arithmetic.""",
    )


def costs(table: pd.DataFrame) -> go.Figure:
    """What it cost until 90% and 99% of the facts were known, against plain training.

    What to look for: points below 1, and whether they stay there in arithmetic.

    Args:
        table: "costs" of the study.
    """
    found = rows(table, [*_APART, "share", *_COSTS], "costs")
    found = found[found["data"] == "uniform"]
    plain = found[found["condition"] == "plain"].set_index(["seed", "share"])
    parts = []
    for measure in _COSTS:
        keys = pd.MultiIndex.from_frame(found[["seed", "share"]])
        base = plain[measure].astype(float).reindex(keys).to_numpy()
        parts.append(found.assign(measure=measure, ratio=found[measure].astype(float) / base))
    ratios = pd.concat(parts)
    ratios["until"] = [f"{share:.0%} known" for share in ratios["share"]]
    if not ratios["ratio"].notna().any():
        return _nothing(
            "What it costs until most is known", "No plain run knew as much at its end."
        )
    until = list(dict.fromkeys(ratios["until"]))
    colours = [Look(PALETTE["blue"]), Look(PALETTE["orange"], symbol="diamond")]
    figure = bars(
        ratios, y="ratio", place="condition", group="until", facet="measure", titles=_COSTS,
        axis=Axis("cost against plain training (ratio)", form=".2f"),
        looks=dict(zip(until, colours, strict=False)),
        places={name: name for name in _CONDITIONS if name in set(found["condition"])},
        levels=[Level("plain training", 1.0)],
    )  # fmt: skip
    return describe(
        figure,
        "What it costs until most is known",
        f"""Until 90% and 99% of the values are known, divided by what plain training of the same seed costs
        until then: in examples (and steps), in values that the loss is on, and in arithmetic. {KNOWN} Means
        over seeds, and each seed; everybody equally likely. What is not known at the end of training has no
        point. Look for points left of 1 in the first panel, and for where they stand in the last.""",
    )


def other_data(table: pd.DataFrame) -> go.Figure:
    """Accuracy over steps with and without selection, a panel for each kind of data.

    What to look for: in which panel the lines are furthest apart.

    Args:
        table: "curves" of the study.
    """
    found = _everywhere(rows(table, [*_APART, "step", "accuracy"], "curves"))
    figure = curves(
        found, y="accuracy", line="condition", looks=_there(found, _CONDITIONS), facet="data",
        titles=_DATA, axis=SHARE, seeds=True, heights=[200] * found["data"].nunique(),
    )  # fmt: skip
    return describe(
        figure,
        "Whether selecting by loss helps depends on the data",
        f"""{KNOWN} Over training steps, each with as many examples; means over seeds, and their range.
        Panels: everybody equally likely; the likelihood of people a power law, so that some are rare; some
        people with another value of one attribute in some of their biographies (right is their own). Look
        for the panel in which selecting helps most, and for one in which it does not.""",
    )


def groups(table: pd.DataFrame) -> go.Figure:
    """What is known at the end: of common and rare people, of contradicted and other values.

    What to look for: rare people whom selection makes known; contradicted values that it does not.

    Args:
        table: "groups" of the study.
    """
    found = _everywhere(rows(table, [*_APART, "group", "accuracy"], "groups"))
    of = zip(found["data"], found["group"], strict=True)
    found = found.assign(people=[_GROUPS.get(key, ", ".join(key)) for key in of])
    looks = _there(found, _CONDITIONS)
    figure = bars(
        found, y="accuracy", place="condition", group="condition", looks=looks, facet="people",
        titles={name: name for name in _GROUPS.values() if name in set(found["people"])},
        places={name: name for name in looks}, axis=SHARE,
    )  # fmt: skip
    return describe(
        figure,
        "Whose facts are known at the end",
        f"""At the end of training, after equally many steps and examples. {KNOWN} Means over seeds, and each
        seed. Panels: everybody; where some people are rare, the more and the less likely half of them; where
        facts contradict each other, values with a second one (right is the one in most biographies) and
        all others. Look for whether the largest loss makes the rare half known, and for what becomes of
        contradicted values.""",
    )


def _everywhere(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of conditions that are on most kinds of data."""
    kinds = table.groupby("condition")["data"].nunique()
    return table[table["condition"].isin(kinds[kinds == kinds.max()].index)]


def _there(table: pd.DataFrame, looks: Mapping[str, Look]) -> dict[str, Look]:
    return {name: look for name, look in looks.items() if name in set(table["condition"])}


def _nothing(title: str, why: str) -> go.Figure:
    figure = describe(go.Figure(), title, why)
    note(figure, why)
    figure.update_layout(height=220, xaxis_visible=False, yaxis_visible=False)
    return figure
