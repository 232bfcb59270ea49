"""Changing distributions: what is known of each group over its turns, how fast it is learned and lost.

Tables are those of `interp.studies.sequential`; read back from CSV they will do.
"""

from typing import cast

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.style import DASHES, GRID, INK, PALETTE, describe, note, see_through
from interp.plots.panels import COLOURS, SYMBOLS, chosen, legend_key, rows

_KNOWLEDGE = ("n_groups", "n_repeats", "seed", "step", "group", "metric", "value")
_TURNS = ("n_groups", "n_repeats", "seed", "repeat", "group", "begin", "end")
_LOG_TICKS = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
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
    inner = 52 * n_groups
    figure = make_subplots(rows=n_groups, shared_xaxes=True, vertical_spacing=8 / inner)
    for index in range(1, n_groups + 1):
        curves = found[found["group"] == index].pivot_table("value", "step", "seed")
        mean, steps = curves.mean(axis=1), [int(step) for step in curves.index]
        if curves.shape[1] > 1:
            low, high = curves.min(axis=1).tolist(), curves.max(axis=1).tolist()
            figure.add_scatter(
                x=[*steps, *steps[::-1]], y=[*high, *low[::-1]], mode="lines", line_width=0,
                fill="toself", fillcolor=see_through(PALETTE["blue"], 0.2), hoverinfo="skip",
                showlegend=False, row=index, col=1,
            )  # fmt: skip
        figure.add_scatter(
            x=steps, y=mean.tolist(), mode="lines", name=f"group {index}", showlegend=False,
            line={"color": PALETTE["blue"], "width": 2}, row=index, col=1,
            hovertemplate=f"group {index}: %{{y:.3f}} at step %{{x:,d}}<extra></extra>",
        )  # fmt: skip
        # After the curve: plotly shades no panel that is empty.
        for begin, end in shaded[shaded["group"] == index][["begin", "end"]].itertuples(
            index=False
        ):
            figure.add_vrect(
                x0=int(begin), x1=int(end), fillcolor=_SHADE, line_width=0, layer="below",
                row=index, col=1,
            )  # fmt: skip
        figure.update_yaxes(
            range=[-0.04, 1.08], tickvals=[0, 0.5, 1], ticktext=["0", "", "1"], title_text=str(index),
            row=index, col=1,
        )  # fmt: skip
    legend_key(figure, "accuracy on the group", color=PALETTE["blue"])
    legend_key(figure, "the group's own turns", color=_SHADE, width=12)
    last = int(found["step"].max())
    figure.update_xaxes(range=[0, last], tickformat=",d", nticks=8)
    figure.update_xaxes(title_text="training (steps)", row=n_groups)
    figure.add_annotation(
        text="accuracy (share) of group …", x=0, xref="paper", xanchor="left", y=1, yref="paper",
        yanchor="bottom", xshift=-48, yshift=4, showarrow=False, font_size=12,
    )  # fmt: skip
    figure.update_layout(height=inner + 190, margin_t=64)
    n_seeds = found["seed"].nunique()
    return describe(
        figure,
        f"{n_groups} groups, one after the other, {_times(n_repeats)}",
        f"""Attribute accuracy (a share) on each group, a panel each, over training in steps with a constant
        learning rate; in wordings never seen with a person. Shaded: the steps in which only this group
        is trained on. Lines are means over {_seeds(n_seeds)}, bands reach from the lowest to the highest.
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
        InterpError: a column is missing.
    """
    found = rows(turns, (*_TURNS, "mean_accuracy", "after"), "turns")
    found = found[found["repeat"] == 1]
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.08)
    for i, (name, own) in enumerate(_schedules(found)):
        colour = COLOURS[i % len(COLOURS)]
        for row, column in enumerate(("mean_accuracy", "after"), 1):
            means = own.groupby("group")[column].mean()
            figure.add_scatter(
                x=means.index.tolist(), y=means.tolist(), mode="lines", name=name, legendgroup=name,
                showlegend=row == 1, row=row, col=1, hoverinfo="skip",
                line={"color": colour, "dash": DASHES[i % len(DASHES)], "width": 2},
            )  # fmt: skip
            figure.add_scatter(
                x=own["group"].tolist(), y=own[column].tolist(), mode="markers", name=name,
                legendgroup=name, showlegend=False, row=row, col=1,
                customdata=own["seed"].tolist(),
                marker={
                    "symbol": f"{SYMBOLS[i % len(SYMBOLS)]}-open", "size": 8, "color": colour,
                    "line": {"width": 1.5},
                },
                hovertemplate=(
                    f"group %{{x}}, seed %{{customdata}}: %{{y:.3f}}<extra>{name}</extra>"
                ),
            )  # fmt: skip
    if found.empty:
        note(figure, "Nothing was measured")
    figure.update_yaxes(range=[-0.04, 1.08], nticks=6)
    figure.update_yaxes(title_text="mean accuracy in<br>the turn (share)", row=1)
    figure.update_yaxes(title_text="accuracy at the<br>turn's end (share)", row=2)
    figure.update_xaxes(dtick=1)
    figure.update_xaxes(title_text="group, in order of first turns", row=2)
    figure.update_layout(height=500, margin_t=56)
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
    figure = go.Figure()
    for i, (name, own) in enumerate(_schedules(told)):
        colour, symbol = COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]
        lost = own["lose_half"].notna()
        for part, mark in ((own[lost], symbol), (own[~lost], "arrow-up")):
            if part.empty:
                continue
            hover = [
                f"group {group}, turn {repeat}, seed {seed}: learned in {learn:.0f} steps, "
                + (f"lost in {lose:.0f}" if lose == lose else f"not lost in {followed:.0f}")
                for group, repeat, seed, learn, lose, followed in part[
                    ["group", "repeat", "seed", "learn_half", "lose_half", "followed"]
                ].itertuples(index=False)
            ]
            opened = [mark if repeat == 1 else f"{mark}-open" for repeat in part["repeat"]]
            figure.add_scatter(
                x=part["learn_half"].tolist(),
                y=part["lose_half"].fillna(part["followed"]).tolist(),
                mode="markers", name=name, legendgroup=name, showlegend=mark != "arrow-up",
                text=hover, hovertemplate="%{text}<extra>" + name + "</extra>",
                marker={
                    "symbol": opened, "size": 9, "color": colour, "line": {"width": 1.5, "color": colour},
                },
            )  # fmt: skip
    values = [*told["learn_half"], *told["lose_half"].fillna(told["followed"])]
    if values:
        low, high = max(1.0, min(values)) / 1.3, max(values) * 1.3
        figure.add_scatter(
            x=[low, high], y=[low, high], mode="lines", name="as fast", hoverinfo="skip",
            line={"color": INK, "dash": "dot", "width": 1.5},
        )  # fmt: skip
    else:
        note(figure, "No turn taught enough to measure")
    ticks = {
        "type": "log",
        "tickvals": _LOG_TICKS,
        "ticktext": [f"{tick:,}" for tick in _LOG_TICKS],
    }
    figure.update_xaxes(title_text="to learn half, in the turn (steps)", gridcolor=GRID, **ticks)
    figure.update_yaxes(title_text="to lose half, after the turn (steps)", gridcolor=GRID, **ticks)
    figure.update_layout(height=480)
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


def _schedules(turns: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The turns of each schedule, by name."""
    found = []
    for key, own in turns.groupby(["n_repeats", "n_groups"]):
        n_repeats, n_groups = cast("tuple[int, int]", key)
        found.append((f"{n_groups} groups, {_times(int(n_repeats))}", own))
    return found


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"
