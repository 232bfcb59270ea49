"""The data distribution: plateau, final loss and final accuracy against how unevenly people are shown.

Tables of runs have a row a run: `seed`, `n_individuals`, `distribution` (a name), `plateau_end` (steps),
`ended` (whether the plateau did end; if not, its end is where it counts as ending), `attribute_loss`
(nats) and `attribute_accuracy` (a share) at the last step; those of a power law have `exponent` too.
Tables of curves have `seed`, `n_individuals`, `distribution`, `step`, `metric`, `value`. Distributions
are drawn in the order in which they come; the first is the uniform one.
Every function raises `InterpError` where a column is missing or there is no row. Source: paper, Fig. 4, G
and H.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    DASHES,
    INK,
    SYMBOLS,
    Axis,
    Level,
    Look,
    bars,
    curves,
    describe,
    looks_of,
    plain,
    rows,
)
from interp.errors import InterpError
from interp.seeds import number_of

_RUNS = ("seed", "n_individuals", "plateau_end", "ended", "attribute_loss", "attribute_accuracy")
_CURVES = ("seed", "n_individuals", "distribution", "step", "metric", "value")
_PAPER = "The paper trains for 16,000 steps of 128 biographies (Fig. 4, G, H)."
_EXPONENT = Axis("exponent α of the power law (0: uniform)", form="g", hover="α =")
_MEASURES = {
    "plateau_end": Axis("end of the plateau (steps)", form=",.0f", best="min"),
    "attribute_loss": Axis("final attribute loss (nats)", best="min"),
    "attribute_accuracy": Axis("final accuracy (share)", best="max"),
}


def plateau_against_exponent(table: pd.DataFrame) -> go.Figure:
    """The end of the plateau (steps) against the exponent α of the power law, a line for each N.

    What to look for: whether lines fall from α = 0 and rise again, and where they are lowest.

    Args:
        table: Runs; see the module.
    """
    return describe(
        _against_exponent(table, "plateau_end"),
        "Power law: end of the plateau",
        f"""The step at which the plateau ends, against the exponent α of the power law by which people
        are shown (0: all equally often; 1: the second half as often as the first, the third a third as
        often, ...), a line for each number of people N. Points are runs ({_seeds(table)}), lines their
        means, and stars the lowest mean of a line (several where they tie). Look for lines that fall
        from α = 0 and rise again, and for where the stars are: in the paper at 0.6 to 0.8 for every N.
        The end is found on people asked about equally often. {_never(table)} {_PAPER}""",
    )


def final_against_exponent(table: pd.DataFrame) -> go.Figure:
    """Final loss (nats) and accuracy (a share) against the exponent α of the power law, for each N.

    What to look for: whether the best α, a star, moves to the right as N grows.

    Args:
        table: Runs; see the module.
    """
    return describe(
        _against_exponent(table, "attribute_loss", "attribute_accuracy"),
        "Power law: what is known in the end",
        f"""Attribute loss (nats, above) and accuracy (a share, below) at the last step, against the
        exponent α of the power law by which people are shown, a line for each number of people N.
        Everybody is asked about equally often. Points are runs ({_seeds(table)}), lines their means, and
        stars the best mean of a line. Look for whether the stars move to the right as N grows: the more
        people for the same training, the more uneven the best distribution. {_PAPER}""",
    )


def compared_distributions(table: pd.DataFrame) -> go.Figure:
    """Plateau end, final loss and final accuracy of distributions, one below the other.

    What to look for: points on the better side of the dotted line, which is the uniform distribution.

    Args:
        table: Runs; see the module.
    """
    found = _runs(table, "distribution")
    looks = _looks(found)
    uniform = found[found["distribution"] == next(iter(looks))]
    figure = bars(
        _long(found, *_MEASURES), place="distribution", group="distribution", facet="measure",
        axis=_MEASURES, zero=False, place_axis="who is shown", looks=looks,
        places={name: plain(name) for name in looks},
        levels=[
            Level("mean of the uniform distribution", uniform[name].mean(), (name,), legend=False)
            for name in _MEASURES
        ],
    )  # fmt: skip
    figure.update_layout(showlegend=False)
    return describe(
        figure,
        "Celebrities and power laws",
        f"""Where the plateau ends (steps, above), and attribute loss (nats) and accuracy (a share) at the
        last step, for distributions of {_people(found)} people: all equally likely, celebrities (so many
        people shown so many times as often as anybody else), and power laws. Everybody is asked about
        equally often. Open marks are runs ({_seeds(found)}), filled ones their means. Look for points on
        the better side of the dotted line, the mean of the uniform distribution (left of it above and in
        the middle, right of it below), and for whether celebrities get as far from it as power laws.
        {_never(found)} {_PAPER}""",
    )


def distribution_curves(table: pd.DataFrame) -> go.Figure:
    """Attribute loss and accuracy over training at the largest N, a line for each distribution.

    What to look for: which lines leave the plateau first, and whether they are best at the end too.

    Args:
        table: Curves; see the module.
    """
    found = _not_empty(rows(table, _CURVES, "learning curves", numbers=("n_individuals", "step")))
    found = found[found["n_individuals"] == found["n_individuals"].max()]
    figure = curves(
        found, line="distribution", looks=_looks(found), facet="metric", seeds=True,
        axis={"attribute_loss": "loss (nats)<br>all asked equally",
              "attribute_accuracy": "accuracy (share)<br>all asked equally"},
    )  # fmt: skip
    return describe(
        figure,
        f"Learning with {_people(found)} people",
        f"""Attribute loss (nats, above) and accuracy (a share, below) over training, in steps, with
        {_people(found)} people, for each distribution. Everybody is asked about equally often, however
        often they are shown. Lines are means over {_seeds(found)}, bands reach from the lowest to the
        highest. Look at the thick dashed grey line, the uniform distribution: which lines leave the
        plateau before it, and whether they are still ahead at the end.""",
    )


def _against_exponent(table: pd.DataFrame, *measures: str) -> go.Figure:
    """Panels of measures against α: runs as points, means as lines, best means as stars."""
    found = _runs(table, "exponent")
    sizes = sorted({int(n) for n in found["n_individuals"]})
    looks = looks_of(sizes, {n: f"N = {n:,}" for n in sizes}, ordered=True)
    figure = curves(
        _long(found, *measures, looks=looks), x="exponent", x_axis=_EXPONENT, line="n_individuals",
        looks=looks, facet="measure", axis={name: _MEASURES[name] for name in measures}, seeds=True,
        spread="points",
    )  # fmt: skip
    exponents = sorted(float(exponent) for exponent in found["exponent"].unique())
    figure.update_xaxes(tickvals=exponents, range=[exponents[0] - 0.06, exponents[-1] + 0.06])
    return figure


def _long(
    table: pd.DataFrame, *measures: str, looks: dict[int, Look] | None = None
) -> pd.DataFrame:
    """A row a run and measure; `symbol`: another mark where the plateau did not end."""
    marks = [
        f"{looks[int(n)].symbol if looks else SYMBOLS[0]}-open" if ended else "triangle-right"
        for n, ended in zip(table["n_individuals"], table["ended"], strict=True)
    ]
    named = [column for column in ("exponent", "distribution") if column in table]
    return table.assign(symbol=marks).melt(
        [*named, "seed", "n_individuals", "symbol"], list(measures), "measure"
    )


def _runs(table: pd.DataFrame, own: str) -> pd.DataFrame:
    return _not_empty(rows(table, (*_RUNS, own), "runs", numbers=("n_individuals", "seed")))


def _not_empty(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        raise InterpError("No run is finished, so that there is nothing to draw.")
    return table


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    """A look for each distribution: the first, the uniform one, stands out."""
    names = [str(name) for name in dict.fromkeys(table["distribution"])]
    words = {name: plain(name) for name in names}
    return looks_of(names, words, ordered=True, first=Look(INK, DASHES[1], 3))


def _never(table: pd.DataFrame) -> str:
    """What a caption says of plateaus that did not end."""
    never = int((~table["ended"].astype(bool)).sum())
    if not never:
        return ""
    return f"""Triangles ({never} of {len(table)} runs): the plateau did not end; they stand just above
        the last step."""


def _people(table: pd.DataFrame) -> str:
    return f"{int(table['n_individuals'].max()):,}"


def _seeds(table: pd.DataFrame) -> str:
    return number_of(table["seed"].nunique(), "seed")
