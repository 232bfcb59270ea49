"""The section on facts as equations: residuals, bits known, interference."""

from typing import Any, cast

import pandas as pd

from interp.equations import between
from interp.plots.equations import (
    capacity_curves,
    interference_graph,
    interference_heatmap,
    residual_distribution,
)
from interp.report.elements import Section, Table
from interp.report.run_tables import of_run
from interp.run import Run


@of_run(
    "Facts as equations",
    "equations",
    ["equations/residuals", "equations/capacity"],
    ["equations/interference"],
    folded=True,
)
def equations_section(
    run: Run, residuals: pd.DataFrame, capacity: pd.DataFrame, pairs: pd.DataFrame | None
) -> Section:
    """Residuals of single facts over training, bits known, and which groups of facts interfere."""
    shares = between(residuals)
    figures = {"residual-distribution": residual_distribution(residuals)}
    if len(shares) > 1:
        figures["bits-known"] = capacity_curves(capacity, run.known_phases)
    overall = capacity[capacity["attribute"] == "all"].set_index("step")
    tables = [_shares(shares, overall)]
    downloads = {"residuals-by-step": shares, "bits-known": capacity}
    if pairs is not None:
        for by in dict.fromkeys(pairs["by"]):
            anchor = by.replace(" ", "-")
            figures[f"interference-by-{anchor}"] = interference_heatmap(pairs, by=by)
            figures[f"interference-graph-by-{anchor}"] = interference_graph(pairs, by=by)
        tables.append(_by_component(pairs))
        downloads["interference"] = pairs
    return Section(
        sentence=equations_sentence(shares, overall),
        text=[
            "Every fact is an equation, the weights are the unknowns. The residual of an equation is the "
            "loss of its value, in wordings never seen with the person. Two groups of facts interfere "
            "where their loss gradients have a negative cosine: a step that lowers the loss of one raises "
            "that of the other. Bits are (baseline - loss) / ln 2 for each fact, against the entropy "
            "of the values that these people have."
        ],
        figures=figures,
        tables=tables,
        downloads=downloads,
    )


def equations_sentence(shares: pd.DataFrame, overall: pd.DataFrame) -> str:
    """How facts were distributed where the mean was nearest to half of the baseline, and bits in the end."""
    half = shares.iloc[int((shares["mean"] - 0.5).abs().argmin())]
    step = int(shares["step"].iloc[-1])
    last = overall.loc[step]
    said = (
        f"At step {int(half['step']):,}, with losses of {half['mean']:.0%} of the baseline in the mean, "
        f"{half['known']:.0%} of facts were known, {half['unknown']:.0%} not, and {half['between']:.0%} in "
        "between"
    )
    return (
        f"{said}; at step {step:,} the model knows {last['bits']:,.0f} bits, "
        f"{last['bits_per_parameter']:.3f} per parameter."
    )


def _shares(shares: pd.DataFrame, overall: pd.DataFrame) -> Table:
    rows = [
        (
            f"{int(row.step):,}", f"{row.mean:.2f}", f"{row.known:.0%}", f"{row.between:.0%}",
            f"{row.unknown:.0%}", f"{overall.loc[row.step, 'bits']:,.0f}",
            f"{overall.loc[row.step, 'bits_per_parameter']:.4f}",
        )
        for row in cast(Any, shares.itertuples(index=False))
    ]  # fmt: skip
    return Table(
        "Facts by their loss as a share of the baseline: known below 0.2, unknown above 0.8, between the "
        "two; the mean; and bits known, of everybody trained on.",
        ("step", "mean", "known", "between", "unknown", "bits", "bits per parameter"),
        rows,
    )


def _by_component(pairs: pd.DataFrame) -> Table:
    last = pairs[(pairs["step"] == pairs["step"].max()) & (pairs["metric"] == "cosine")]
    rows = []
    for (by, component, layer), own in last.groupby(
        ["by", "component", "layer"], sort=False, dropna=False
    ):
        same = own["group"] == own["other"]
        where = "" if pd.isna(layer) else f", layer {int(layer)}"
        rows.append(
            (
                f"{by}: {str(component).replace('mlp', 'MLP')}{where}",
                f"{own.loc[same, 'value'].mean():.2f}",
                f"{own.loc[~same, 'value'].mean():.2f}",
                f"{own.loc[~same, 'value'].min():.2f}",
                f"{own['shuffled'].iloc[0]:.2f}",
                f"{own['error'].max():.3f}",
            )
        )
    return Table(
        f"Cosine of the gradients of groups of facts at step {int(pairs['step'].max()):,}, by the weights: a "
        "group with itself in other wordings (the ceiling), with other groups (mean and lowest), with "
        "itself when facts are dealt to groups at random, and the standard error of a projection.",
        ("weights", "with itself", "with others", "lowest", "shuffled", "error"),
        rows,
    )
