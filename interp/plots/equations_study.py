"""Facts as equations, as a study: residuals of single facts, interference, bits known of more people.

Tables are those of `interp.studies.equations`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    PALETTE,
    ROOT_AXIS,
    ROOT_STEPS,
    Axis,
    Level,
    Look,
    bars,
    curves,
    describe,
    heatmap,
    ramp,
    rows,
)
from interp.equations.interference import ALL, SPECIFIC
from interp.errors import InterpError

_STATES = {
    "known": Look(PALETTE["blue"], name="known (below 0.1 nats)"),
    "between": Look(PALETTE["orange"], "dash", name="between"),
    "unknown": Look(PALETTE["grey"], name="not known (90% of the baseline or above)"),
}
_QUANTILES = {"q10": "10%", "q25": "25%", "q50": "50%", "q75": "75%", "q90": "90%"}
_KINDS = {
    "itself": Look(PALETTE["blue"], name="a group with itself"),
    "others": Look(PALETTE["orange"], symbol="diamond", name="two groups"),
    "dealt": Look(PALETTE["grey"], symbol="x", name="itself, dealt at random (control)"),
}
_BY = {"attribute": "facts grouped by attribute", "people": "by people"}
_COUNTS = {
    "bits_per_parameter": "of all parameters",
    "bits_per_non_embedding": "without embeddings",
}
_KNOWN_BITS = {100: 1.0, 1000: 2.0}
"""Bits a parameter by exposures, of GPT-2 (Allen-Zhu & Li 2024, arXiv:2404.05405)."""


def residual_shares(table: pd.DataFrame) -> go.Figure:
    """Shares of facts that are known, between and not known, over training.

    What to look for: how high the line of facts between rises where the others cross.

    Args:
        table: "residuals" of the study.
    """
    found = rows(table, ["seed", "step", "attribute", *_STATES], "residuals")
    own = found[found["attribute"] == ALL].melt(["seed", "step"], list(_STATES), "state")
    figure = curves(
        own, line="state", looks=_STATES, axis=Axis("facts (share)", range=(-0.03, 1.05)),
        x_axis=ROOT_STEPS, seeds=True, marks=True, heights=[300],
    )  # fmt: skip
    return describe(
        figure,
        "Facts known, not known, and between",
        f"""Of all facts of a plain run, in wordings never seen with a person: those with a loss below 0.1
        nats, those with 90% of the baseline of their attribute or more, and the rest. Means over seeds, and
        their range. Look for how high the dashed line rises: where facts are learned all or nothing, it
        stays low; where all are learned a little, it holds nearly all of them for a while. {ROOT_AXIS}""",
    )


def residual_quantiles(table: pd.DataFrame) -> go.Figure:
    """Quantiles of residuals over training.

    What to look for: lines that fall one after the other, or all together.

    Args:
        table: "residuals" of the study.
    """
    found = rows(table, ["seed", "step", "attribute", *_QUANTILES], "residuals")
    own = found[found["attribute"] == ALL].melt(["seed", "step"], list(_QUANTILES), "quantile")
    looks = {
        name: Look(colour, name=f"{said} of facts below")
        for (name, said), colour in zip(_QUANTILES.items(), ramp(len(_QUANTILES)), strict=True)
    }
    figure = curves(
        own, line="quantile", looks=looks, axis=Axis("loss (share of baseline)", form=".2f"),
        x_axis=ROOT_STEPS, seeds=True, marks=True, heights=[300],
        levels=[Level("baseline: frequencies alone", 1.0)],
    )  # fmt: skip
    return describe(
        figure,
        "Residuals of single facts over training",
        f"""Quantiles of the losses of all facts of a plain run, each as a share of its attribute's baseline
        (1: only frequencies of values are known). Means over seeds, and their range. Look for lines that
        fall far apart from each other (facts are learned one after the other) or together (all at once, a
        little each). {ROOT_AXIS}""",
    )


def interference_maps(table: pd.DataFrame) -> go.Figure:
    """What is specific to the gradients of two attributes, in each phase.

    What to look for: attributes that help (blue) or hurt (orange) each other.

    Args:
        table: "interference" of the study.
    """
    found = rows(
        table, ["phase", "step", "by", "group", "other", "metric", "value"], "interference"
    )
    own = found[(found["by"] == "attribute") & (found["metric"] == SPECIFIC)]
    if own.empty:
        raise InterpError("The table of interference has no pair of attributes.")
    maps = {phase: _matrix(of) for phase, of in own.groupby("phase", sort=False)}
    n = len(next(iter(maps.values())))
    figure = heatmap(
        {str(phase): of for phase, of in maps.items()}, axis=Axis("cosine", form=".2f", range=(-1, 1)),
        rows="attribute", columns="attribute", beside=True,
    )  # fmt: skip
    return describe(
        figure,
        "Interference between attributes, phase by phase",
        f"""Cosine of what is specific to the mean loss gradients of two attributes (of each, less the mean of
        all), told in other wordings; all weights, means over seeds. Unrelated attributes have
        {-1 / max(1, n - 1):.2f}; on the diagonal stands an attribute with itself in other wordings. Panels:
        the middle checkpoint of each phase of a plain run. Look for pairs that help each other more than
        that (blue), or less (orange), and for whether this lasts.""",
    )


def _matrix(table: pd.DataFrame) -> pd.DataFrame:
    """The means over seeds as a symmetric matrix."""
    means = table.groupby(["group", "other"], sort=False)["value"].mean()
    both = pd.concat([means, means.swaplevel().rename_axis(["group", "other"])])
    names = list(dict.fromkeys(table["group"]))
    square: pd.DataFrame = both[~both.index.duplicated()].unstack().reindex(names)[names]
    spoken = [str(name).replace("_", " ") for name in names]
    return square.set_axis(spoken, axis=0).set_axis(spoken, axis=1)


def interference_groups(table: pd.DataFrame) -> go.Figure:
    """How much groups agree with themselves, with others, and dealt at random, in each phase.

    What to look for: in which phase a group with itself stands apart from the control.

    Args:
        table: "interference" of the study.
    """
    found = rows(
        table, ["seed", "phase", "by", "group", "other", "metric", "value", "shuffled"], "interference"
    )  # fmt: skip
    own = found[found["metric"] == SPECIFIC]
    same = own["group"] == own["other"]
    parts = [
        own[same].assign(kind="itself"),
        own[~same].assign(kind="others"),
        own[same].assign(kind="dealt", value=own["shuffled"][same]),
    ]
    means = pd.concat(parts).groupby(["seed", "phase", "by", "kind"], sort=False)["value"].mean()
    figure = bars(
        means.reset_index(), place="phase", group="kind", looks=_KINDS, facet="by", titles=_BY,
        axis=Axis("cosine of what is specific to a group", form=".2f"), zero=False,
    )  # fmt: skip
    return describe(
        figure,
        "Whether groups of facts are subsystems of their own",
        """Cosine of what is specific to the gradients of groups of facts: of a group with itself in other
        wordings (the ceiling of any pair), of two groups, and of a group with itself after facts were dealt
        to groups at random (the control). Means over groups and seeds, and each seed; at the middle
        checkpoint of each phase. Look for the phase in which a group with itself leaves the control: from
        then on its facts pull the weights a way of their own.""",
    )


def capacity(table: pd.DataFrame) -> go.Figure:
    """Bits known a parameter, over the number of people.

    What to look for: where lines stop rising, and how far below the dotted ones.

    Args:
        table: "capacity" of the study.
    """
    found = rows(table, ["seed", "width", "exposures", "n_individuals", *_COUNTS], "capacity")
    long = found.melt(
        ["seed", "width", "exposures", "n_individuals"], list(_COUNTS), "count", "held"
    )
    exposures = sorted(set(long["exposures"]))
    widths = sorted(set(long["width"]))
    colours = ramp(len(widths) + 1)[1:]
    looks = {w: Look(c, name=f"width {w}") for w, c in zip(widths, colours, strict=True)}
    levels = [
        Level("GPT-2 (Allen-Zhu & Li 2024)", bits, only=(n, "bits_per_parameter"))
        for n, bits in _KNOWN_BITS.items()
        if n in exposures
    ]
    figure = curves(
        long, x="n_individuals", y="held", line="width", looks=looks, facet="exposures", column="count",
        titles={**{n: f"{n:,} exposures" for n in exposures}, **_COUNTS}, levels=levels, seeds=True,
        x_axis=Axis("people", form=",.0f", scale="log"), axis=Axis("bits a parameter", form=".2f"),
        marks=True, heights=[240] * len(exposures),
    )  # fmt: skip
    return describe(
        figure,
        "Bits that a parameter holds",
        """Bits of facts known at the end (facts x (baseline - loss) / ln 2, in wordings never seen with a
        person) for each parameter, over the number of people; each person was met equally often, and a
        learning rate falls to 0. Columns: of all parameters, and without embeddings of tokens, positions and
        the unembedding. Dotted: what is known of GPT-2 on biographies, of all parameters, names counted
        too. Means over seeds, and their range. Look for where a line stops rising: there are more equations
        than the weights can hold.""",
    )
