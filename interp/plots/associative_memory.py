"""The toy associative memory: forgetting in fine-tuning, what replay saves, which weights move.

Tables of fine-tuning have the columns `seed`, `n_new` (new pairs), `replay_weight` (of each old pair
against 1 for a new one; NA: no replay), `step` (from the beginning of fine-tuning), `split` ("old",
"new"), `metric` ("accuracy", a share), `value`; tables of movement `part` ("key", "value") and `metric`
("mean movement", "largest movement") in place of `step` and `split`. Tables read back from CSV will do.
Source: paper, Appendix Q and R.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import isnan, sqrt

import pandas as pd
import plotly.graph_objects as go

from interp.charts.style import DASHES, INK, PALETTE, describe, ramp
from interp.plots.panels import SYMBOLS, Line, Panel, chosen, over_steps, rows

_FINETUNING = ("seed", "n_new", "replay_weight", "step", "split", "metric", "value")
_WEIGHT = "weight of each old pair against 1 for a new one"
_MOVEMENT = ("seed", "n_new", "replay_weight", "part", "metric", "value")


def weight_name(weight: float) -> str:
    """A replay weight in words; NaN stands for none.

    Example:
        >>> [weight_name(weight) for weight in (float("nan"), 0.125, 0.3, 2.0)]
        ['no replay', '1/8', '0.3', '2']
    """
    if isnan(weight):
        return "no replay"
    exact = Fraction(weight)
    return f"1/{exact.denominator}" if exact.numerator == 1 < exact.denominator else f"{weight:g}"


def forgetting_curves(table: pd.DataFrame, n_new: int | None = None) -> go.Figure:
    """Accuracy on old and on new pairs over fine-tuning, a line for each replay weight.

    What to look for: without replay old pairs are forgotten; the more replay, the less is forgotten
    and the more slowly the new pairs are learned.

    Args:
        table: Fine-tuning; see the module.
        n_new: The number of new pairs to draw; by default the smallest.

    Raises:
        InterpError: a column is missing, or there is no such row.
    """
    found = chosen(_typed(table, _FINETUNING, "fine-tuning"), "fine-tuning", metric="accuracy")
    n_new = int(found["n_new"].min()) if n_new is None else n_new
    found = chosen(found, "fine-tuning", n_new=n_new)
    panels = []
    for split in ("old", "new"):
        of_split = chosen(found, "fine-tuning", split=split)
        lines = []
        for weight, style in _styles(of_split).items():
            curves = _of_weight(of_split, weight).pivot_table("value", "step", "seed").dropna()
            several = curves.shape[1] > 1
            lines.append(
                Line(
                    weight_name(weight),
                    curves.mean(axis=1),
                    style,
                    low=curves.min(axis=1) if several else None,
                    high=curves.max(axis=1) if several else None,
                )
            )
        panels.append(Panel(f"{split} pairs", lines))
    figure = over_steps(panels, None, "accuracy (share)", place=sqrt, band="range of seeds")
    figure.update_yaxes(range=[-0.02, 1.06])
    figure.update_xaxes(title_text="fine-tuning (steps, square-root scale)", row=len(panels))
    figure.update_layout(
        legend_title={"text": _WEIGHT, "side": "top", "font_size": 12}, legend_xref="container",
        legend_x=0.02,
    )  # fmt: skip
    return describe(
        figure,
        f"Forgetting without attention: {n_new:,} new pairs",
        f"""Accuracy on all old pairs (above) and on all new ones (below), a share, against steps of
        fine-tuning on {n_new:,} new pairs (square-root scale). The model is one hidden layer between
        keys and values, with no attention. Lines are means over {_seeds(found)}, bands reach from the
        lowest to the highest; colours and dashes are replay weights. Look at the dashed grey line, no replay:
        whether the old pairs are lost, and how much of the new ones has been learned by then. With
        replay, look for what is kept above and what it costs below.""",
    )


def replay_tradeoff(table: pd.DataFrame) -> go.Figure:
    """Accuracy on old against accuracy on new pairs at the end of fine-tuning, by replay weight.

    What to look for: whether any weight reaches the upper right corner, where nothing is forgotten
    and everything new is known.

    Args:
        table: Fine-tuning; see the module.

    Raises:
        InterpError: a column is missing, or there is no such row.
    """
    found = chosen(_typed(table, _FINETUNING, "fine-tuning"), "fine-tuning", metric="accuracy")
    last = int(found["step"].max())
    ends = found[found["step"] == last]
    figure = go.Figure()
    weights = sorted(ends["replay_weight"].unique(), key=_order)
    marks = {w: SYMBOLS[i % len(SYMBOLS)] for i, w in enumerate(weights)}
    sizes = sorted(int(n) for n in ends["n_new"].unique())
    for i, (n_new, colour) in enumerate(zip(sizes, ramp(len(sizes)), strict=True)):
        own = chosen(ends, "fine-tuning", n_new=n_new)
        of_weights = {w: rows for w in weights if len(rows := _of_weight(own, w))}
        seeds = {
            split: [
                chosen(rows, "fine-tuning", split=split)["value"] for rows in of_weights.values()
            ]
            for split in ("old", "new")
        }
        figure.add_scatter(
            x=[values.mean() for values in seeds["new"]],
            y=[values.mean() for values in seeds["old"]], mode="lines+markers",
            customdata=[weight_name(weight) for weight in of_weights],
            name=f"{n_new:,} new pairs",
            line={"color": colour, "dash": DASHES[i % len(DASHES)], "width": 1.5},
            marker={"size": 10, "symbol": [marks[weight] for weight in of_weights]},
            error_x=_range_bars(seeds["new"]), error_y=_range_bars(seeds["old"]),
            hovertemplate="%{customdata}: new %{x:.3f}, old %{y:.3f}<extra></extra>",
        )  # fmt: skip
    for weight, mark in marks.items():
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=weight_name(weight), hoverinfo="skip",
            marker={"color": INK, "size": 10, "symbol": mark},
        )  # fmt: skip
    figure.update_xaxes(title_text="accuracy on new pairs (share)", range=[-0.04, 1.06])
    figure.update_yaxes(title_text="accuracy on old pairs (share)", range=[-0.04, 1.06])
    figure.update_layout(height=480, showlegend=True)
    return describe(
        figure,
        "What replay keeps, and what it costs",
        f"""Accuracy on all old pairs against accuracy on all new pairs, both shares, after
        {last:,} steps of fine-tuning, from no replay along increasing replay weights (marks: the weight
        of each old pair against 1 for a new one). Points are means over {_seeds(ends)}, bars reach from
        the lowest to the highest. Look for a weight in the upper right corner, where nothing would be
        forgotten and everything new known: if there is none, replay helps only in part.""",
    )


def weight_movement(table: pd.DataFrame) -> go.Figure:
    """How far fine-tuning moved keys (input weights) and values (output weights) of hidden units.

    What to look for: whether keys or values move further, and whether replay holds them in place.

    Args:
        table: Movement; see the module. Its mean over hidden units is drawn.

    Raises:
        InterpError: a column is missing, or there is no such row.
    """
    found = chosen(_typed(table, _MOVEMENT, "movement"), "movement", metric="mean movement")
    weights = sorted(found["replay_weight"].unique(), key=_order)
    places = list(range(len(weights)))
    sizes = sorted(int(n) for n in found["n_new"].unique())
    figure = go.Figure()
    for part, colour in (("key", PALETTE["blue"]), ("value", PALETTE["orange"])):
        for i, n_new in enumerate(sizes):
            own = chosen(found, "movement", part=part, n_new=n_new)
            seeds = [_of_weight(own, weight)["value"] for weight in weights]
            figure.add_scatter(
                x=places, y=[values.mean() for values in seeds], mode="lines+markers",
                name=f"{part}s" if len(sizes) == 1 else f"{part}s, {n_new:,} new pairs",
                line={"color": colour, "dash": DASHES[i % len(DASHES)], "width": 2},
                marker={"size": 8, "symbol": SYMBOLS[i % len(SYMBOLS)]},
                error_y=_range_bars(seeds),
                hovertemplate="%{y:.3f}",
            )  # fmt: skip
    figure.update_xaxes(
        title_text=_WEIGHT, tickvals=places,
        ticktext=[weight_name(weight) for weight in weights],
    )  # fmt: skip
    figure.update_yaxes(title_text="movement (share of the norm)", rangemode="tozero")
    figure.update_layout(height=420, hovermode="x unified")
    return describe(
        figure,
        "Which weights fine-tuning moves",
        f"""How far fine-tuning moved a hidden unit's key (its input weights, blue) and value (its output
        weights, orange): the norm of the change as a share of the norm before, mean over hidden units
        and {_seeds(found)}; bars reach from the lowest to the highest seed. Look for which of the two
        moves further, and whether replay holds them in place.""",
    )


def _typed(table: pd.DataFrame, columns: Sequence[str], what: str) -> pd.DataFrame:
    weights = pd.to_numeric(table.get("replay_weight", pd.Series(dtype=float))).astype(float)
    return rows(table, columns, what).assign(replay_weight=weights)


def _range_bars(seeds: Sequence[pd.Series]) -> dict[str, object]:
    """Bars from the lowest to the highest seed of each point."""
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3,
        "array": [values.max() - values.mean() for values in seeds],
        "arrayminus": [values.mean() - values.min() for values in seeds],
    }  # fmt: skip


def _order(weight: float) -> float:
    """No replay comes first."""
    return -1.0 if isnan(weight) else weight


def _of_weight(table: pd.DataFrame, weight: float) -> pd.DataFrame:
    own = table["replay_weight"].isna() if isnan(weight) else table["replay_weight"] == weight
    return table[own]


def _styles(table: pd.DataFrame) -> dict[float, dict[str, object]]:
    """Colour and dash of each replay weight, from none to the largest."""
    weights = sorted(table["replay_weight"].unique(), key=_order)
    replayed = [weight for weight in weights if not isnan(weight)]
    styles: dict[float, dict[str, object]] = {}
    for weight in weights:
        if isnan(weight):
            styles[weight] = {"color": INK, "dash": "dash", "width": 3}
        else:
            i = replayed.index(weight)
            colour = ramp(len(replayed))[i]
            styles[weight] = {"color": colour, "dash": DASHES[i % len(DASHES)], "width": 2}
    return styles


def _seeds(table: pd.DataFrame) -> str:
    n_seeds = table["seed"].nunique()
    return "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"
