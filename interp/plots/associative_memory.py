"""The toy associative memory: forgetting in fine-tuning, what replay saves, which weights move.

Tables of fine-tuning have the columns `seed`, `n_new` (new pairs), `replay_weight` (of each old pair
against 1 for a new one; NA: no replay), `step` (from the beginning of fine-tuning), `split` ("old",
"new"), `metric` ("accuracy", a share), `value`; tables of movement `part` ("key", "value") and `metric`
("mean movement", "largest movement") in place of `step` and `split`. Tables read back from CSV will do.
Source: paper, Appendix Q and R.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import isnan

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    DASHES,
    INK,
    PALETTE,
    ROOT_STEPS,
    Axis,
    Look,
    bars,
    chosen,
    curves,
    describe,
    looks_of,
    rows,
    scatter,
)
from interp.seeds import number_of

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
    figure = curves(
        found, line="replay", looks=_looks(found), facet="split",
        titles={"old": "old pairs", "new": "new pairs"}, seeds=True,
        axis=Axis("accuracy (share)", range=(-0.02, 1.06)),
        x_axis=replace(ROOT_STEPS, title="fine-tuning (steps, square-root scale)"),
    )  # fmt: skip
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
    wide = ends.pivot_table("value", ["n_new", "replay", "seed"], "split", sort=False)
    limits = (-0.04, 1.14)
    figure = scatter(
        wide.reset_index(), x="new", y="old", group="n_new", label="replay", seeds=True, text=True,
        path=True, looks=looks_of(*_sizes(ends), ordered=True), height=480,
        x_axis=Axis("accuracy on new pairs (share)", range=limits),
        axis=Axis("accuracy on old pairs (share)", range=limits), what="fine-tuning",
    )  # fmt: skip
    return describe(
        figure,
        "What replay keeps, and what it costs",
        f"""Accuracy on all old pairs against accuracy on all new pairs, both shares, after
        {last:,} steps of fine-tuning, by replay weight (of each old pair against 1 for a new
        one). Points are means over {_seeds(ends)}, bars reach from the lowest to the highest. Look for
        a weight in the upper right corner, where nothing would be forgotten and everything new
        known: if there is none, replay helps only in part.""",
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
    sizes, names = _sizes(found)
    looks = {
        f"{part}s, {names[n]}": Look(colour, symbol=symbol)
        for part, colour in (("key", PALETTE["blue"]), ("value", PALETTE["orange"]))
        for n, symbol in zip(sizes, ("circle", "square", "diamond") * len(sizes), strict=False)
    }
    groups = [f"{p}s, {names[int(n)]}" for p, n in zip(found["part"], found["n_new"], strict=True)]
    figure = bars(
        found.assign(group=groups), place="replay", group="group", looks=looks, upright=True,
        places={name: name for name in _looks(found)}, place_axis=_WEIGHT,
        axis="movement (share of the norm)", what="movement",
    )  # fmt: skip
    return describe(
        figure,
        "Which weights fine-tuning moves",
        f"""How far fine-tuning moved a hidden unit's key (its input weights, blue) and value (its output
        weights, orange): the norm of the change as a share of the norm before, mean over hidden units
        and {_seeds(found)}; bars reach from the lowest to the highest seed. Look for which of the two
        moves further, and whether replay holds them in place.""",
    )


def _typed(table: pd.DataFrame, columns: Sequence[str], what: str) -> pd.DataFrame:
    """The table with replay weights as numbers, and in words (`replay`)."""
    found = rows(table, columns, what)
    weights = pd.to_numeric(found["replay_weight"]).astype(float)
    return found.assign(replay_weight=weights, replay=[weight_name(w) for w in weights])


def _sizes(table: pd.DataFrame) -> tuple[list[int], Mapping[int, str]]:
    """Numbers of new pairs, and what they are called."""
    sizes = sorted({int(n) for n in table["n_new"]})
    return sizes, {n: f"{n:,} new pairs" for n in sizes}


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    """A look for each replay weight, from none (dashed grey) to the largest."""
    weights = sorted({float(w) for w in table["replay_weight"].dropna()})
    replayed = looks_of([weight_name(weight) for weight in weights], ordered=True)
    none = {weight_name(float("nan")): Look(INK, DASHES[1], 3)}
    return (none if table["replay_weight"].isna().any() else {}) | replayed


def _seeds(table: pd.DataFrame) -> str:
    return number_of(table["seed"].nunique(), "seed")
