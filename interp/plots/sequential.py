"""Changing distributions: what is known of each group over its turns, how fast it is learned and lost.

Tables are those of `interp.studies.sequential`; read back from CSV they will do.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    PALETTE,
    Axis,
    Look,
    chosen,
    curves,
    describe,
    looks_of,
    note,
    rows,
    scatter,
)
from interp.charts.panels import legend_key
from interp.charts.style import see_through
from interp.seeds import number_of

_KNOWLEDGE = ("n_groups", "n_repeats", "seed", "step", "group", "metric", "value")
_TURNS = ("n_groups", "n_repeats", "seed", "repeat", "group", "begin", "end")
_SHADE = see_through(PALETTE["orange"], 0.22)


def group_curves(
    known: pd.DataFrame, turns: pd.DataFrame, n_groups: int, n_repeats: int
) -> go.Figure:
    """Accuracy of each group over training, a panel a group, its own turns shaded.

    What to look for: steeper rises from group to group, and how fast what was learned in a turn is
    lost when another group's begins.

    Args:
        known: "knowledge": `n_groups`, `n_repeats`, `seed`, `step`, `group`, `metric`, `value`.
        turns: `begin` and `end` (steps) of each turn.
        n_groups: Which schedule.
        n_repeats: Which schedule.

    Raises:
        InterpError: a column is missing, or there is no such schedule.
    """
    own = {"n_groups": n_groups, "n_repeats": n_repeats}
    found = rows(known, _KNOWLEDGE, "knowledge")
    found = chosen(found, "knowledge", metric="attribute_accuracy", **own)
    shaded = chosen(rows(turns, _TURNS, "turns"), "turns", **own)
    shaded = shaded.drop_duplicates(["group", "begin"])
    figure = curves(
        found, facet="group", seeds=True, heights=[52] * n_groups,
        looks={None: Look(PALETTE["blue"], name="accuracy on the group")},
        axis={group: Axis(str(group), range=(-0.04, 1.08)) for group in range(1, n_groups + 1)},
    )  # fmt: skip
    for group, begin, end in shaded[["group", "begin", "end"]].itertuples(index=False):
        figure.add_vrect(
            x0=int(begin), x1=int(end), fillcolor=_SHADE, line_width=0, layer="below",
            row=int(group), col=1,
        )  # fmt: skip
    legend_key(figure, "the group's own turns", color=_SHADE, width=12)
    figure.update_yaxes(tickvals=[0, 0.5, 1], ticktext=["0", "", "1"])
    figure.add_annotation(
        text="accuracy (share) of group …", x=0, xref="paper", xanchor="left", y=1, yref="paper",
        yanchor="bottom", xshift=-48, yshift=4, showarrow=False, font_size=12,
    )  # fmt: skip
    n_seeds = found["seed"].nunique()
    return describe(
        figure,
        f"{n_groups} groups, one after the other, {_times(n_repeats)}",
        f"""Attribute accuracy (a share) on each group, a panel each, over training in steps with a constant
        learning rate; in wordings never seen with a person. Shaded: the steps in which only this group
        is trained on. Lines are means over {number_of(n_seeds, "seed")}, bands reach from the lowest to the
        highest.
        Look for steeper rises from group to group in the first round (new groups are learned ever
        faster), and for whether falls after a turn are steeper than rises in it (forgetting is faster
        than learning).""",
    )


def new_groups(turns: pd.DataFrame) -> go.Figure:
    """How well each group is learned in its first turn, by the order in which groups come.

    What to look for: curves that rise to the right, also from the second group on.

    Args:
        turns: "turns": with `mean_accuracy` and `after`, shares.

    Raises:
        InterpError: a column is missing, or no group had its first turn.
    """
    found = rows(turns, (*_TURNS, "mean_accuracy", "after"), "turns")
    found = found[found["repeat"] == 1]
    measures = {
        "mean_accuracy": Axis("mean accuracy in<br>the turn (share)", range=(-0.04, 1.08)),
        "after": Axis("accuracy at the<br>turn's end (share)", range=(-0.04, 1.08)),
    }
    table = _scheduled(found).melt(["schedule", "group", "seed"], list(measures), "measure")
    figure = curves(
        table, x="group", line="schedule", facet="measure", axis=measures, seeds=True, what="turns",
        spread="points", x_axis=Axis("group, in order of first turns", form=",.0f", hover="group"),
        looks=looks_of(table["schedule"].unique()),
    )  # fmt: skip
    figure.update_xaxes(dtick=1)
    return describe(
        figure,
        "How fast new groups are learned",
        f"""What is known of each group in its first turn: above the mean accuracy over the steps of the
        turn, which is the higher the sooner the group is learned; below the accuracy at the turn's end;
        both shares. A point for each seed ({found["seed"].nunique()}), lines through their means; colours,
        dashes and marks are schedules, whose turns differ in length and in people. Look for a rise to the
        right: new groups are learned ever faster. A rise from the first group to the second alone may
        be due to everything but people that is learned in the very first turn.""",
    )


def learning_and_forgetting(turns: pd.DataFrame, learned: float) -> go.Figure:
    """Steps to lose half of what a turn has taught against steps to learn it, a point a turn.

    What to look for: points below the diagonal, where forgetting is faster than learning.

    Args:
        turns: "turns": with `after`, `learn_half`, `lose_half` and `followed` (steps).
        learned: The accuracy at the end of a turn from which on it is drawn.

    Raises:
        InterpError: a column is missing.
    """
    found = rows(turns, (*_TURNS, "after", "learn_half", "lose_half", "followed"), "turns")
    found = found.astype({"after": float, "learn_half": float, "lose_half": float})
    told = found[
        (found["after"] >= learned) & found["learn_half"].notna() & (found["followed"] > 0)
    ]
    if told.empty:
        figure = go.Figure()
        note(figure, "No turn taught enough to measure")
    else:
        # Filled marks first: the legend shows them.
        points = _scheduled(told).sort_values("repeat", kind="stable")
        looks, lost = looks_of(points["schedule"].unique()), points["lose_half"].notna()
        marks = points["schedule"].map({name: look.symbol for name, look in looks.items()})
        figure = scatter(
            points.assign(
                lost=points["lose_half"].fillna(points["followed"]),
                symbol=marks.where(lost, "arrow-up") + points["repeat"].gt(1).map({True: "-open", False: ""}),
                point=[f"group {group}, turn {repeat}, seed {seed}{'' if there else ', not lost by then'}"
                       for group, repeat, seed, there in
                       zip(points["group"], points["repeat"], points["seed"], lost, strict=True)],
            ),
            x="learn_half", y="lost", group="schedule", label="point", looks=looks, identity=True,
            x_axis=Axis("to learn half, in the turn (steps)", "steps", ",.0f", "log"),
            axis=Axis("to lose half, after the turn (steps)", "steps", ",.0f", "log"),
        )  # fmt: skip
    return describe(
        figure,
        "Learning and forgetting",
        f"""For each turn that ends with an accuracy of at least {learned:g}: steps after its end until half
        of that accuracy is lost, against steps from its beginning until half of it is reached, both
        logarithmic and read linearly between checkpoints; a point for each turn of each seed
        ({told["seed"].nunique()}). Filled marks are a group's first turn, open ones later turns; arrows
        up: half was not lost before the group came again or the run ended. Look for points below the
        dotted diagonal: there forgetting is faster than learning.""",
    )


def _scheduled(turns: pd.DataFrame) -> pd.DataFrame:
    """Turns with the names of their schedules, in order."""
    names = [
        f"{groups} groups, {_times(int(repeats))}"
        for groups, repeats in zip(turns["n_groups"], turns["n_repeats"], strict=True)
    ]
    return turns.assign(schedule=names).sort_values(["n_repeats", "n_groups"], kind="stable")


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")
