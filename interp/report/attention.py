"""The sections about attention: where it goes, what cutting it costs, what patching it does."""

from collections.abc import Callable, Sequence

import pandas as pd

from interp import plots
from interp.phases import Phases
from interp.plots import SCORE_NAMES
from interp.report.elements import Section, Table
from interp.report.overview import attention_sentence, knockout_sentence, patching_sentence
from interp.report.run_tables import of_run
from interp.run import Run
from interp.series import nearest_step

_KEY_SCORES = (
    "name_to_name",
    "attribute_to_name",
    "attribute_to_earlier_names",
    "attribute_to_type",
)


@of_run("Attention", "attention", ["attention/scores"], ["attention/roles"])
def attention_section(run: Run, scores: pd.DataFrame, roles: pd.DataFrame | None) -> Section:
    """Attention to names and the roles of heads."""
    figures = {
        "attention-to-names": plots.attention_to_names(scores, run.phases),
        "attention-by-head": plots.attention_by_head(scores, run.phases),
        "attention-sharpness": plots.sharpness(scores, run.phases),
    }
    tables = [_score_table(scores, run.phases)]
    if roles is not None:
        figures["head-roles"] = plots.head_roles(roles, run.phases)
        tables.append(_role_table(roles))
    return Section(
        sentence=attention_sentence(scores),
        text=[
            "At every checkpoint, on evaluation biographies: the share of attention that goes from "
            "the last token of a name to the rest of that name, and from the position that predicts "
            "the first token of a value to names and to the words that tell the type of attribute."
        ],
        figures=figures,
        tables=tables,
    )


@of_run("Attention knockout", "knockout", ["knockout/costs"], folded=True)
def knockout_section(run: Run, costs: pd.DataFrame) -> Section:
    """What cutting attention costs."""
    costs = plots.knockout_rows(costs)
    whole, single = costs["head"].isna(), costs["head"].notna() & costs["layer"].notna()
    figures = {}
    if whole.any():
        figures["knockout-costs"] = plots.knockout_costs(costs, run.phases)
    if single.any():
        figures["knockout-by-head"] = plots.knockout_by_head(costs)
    return Section(
        sentence=knockout_sentence(costs),
        text=[
            "At several checkpoints, attention from some positions to others is cut in the trained "
            "model, which is not trained further. The cost is the rise of the attribute loss; "
            "the control cuts as many other tokens."
        ],
        figures=figures,
        tables=[_cost_table(costs[whole & costs["layer"].isna()])],
    )


@of_run("Attention patching", "patching", ["patching/curves"], folded=True)
def patching_section(run: Run, curves: pd.DataFrame) -> Section:
    """What attention of reference checkpoints does to learning."""
    return Section(
        sentence=patching_sentence(curves, run.phases),
        text=[
            "The run is trained again from the same initial weights on the same samples, but with "
            "the attention patterns of one of its own checkpoints, the reference, in place of the "
            "model's. Whatever such a run learns faster or more slowly is due to those patterns."
        ],
        figures=plots.patching_figures(curves, run.phases),
        tables=[reference_table(curves, run.phases)],
    )


def reference_table(
    table: pd.DataFrame, phases: Phases, steps: Sequence[int] | None = None
) -> Table:
    """The loss at fixed steps for every reference, beside that of the unpatched run.

    Args:
        table: Patched runs (see `interp.plots.patching`); shown are those patched from step 0 in
            all layers and heads.
        phases: Of the reference.
        steps: The training steps to compare at; see `interp.plots.fixed_steps`.
    """
    at = plots.fixed_steps(table, phases, steps)
    losses = plots.patching_rows(table)
    losses = losses[losses["step"].isin(at)]
    n_seeds = losses["seed"].nunique()
    unpatched = losses[losses["reference_step"].isna()].pivot_table("value", "seed", "step")
    throughout = losses[
        losses["reference_step"].notna()
        & (losses["start"] == 0)
        & (losses["layers"] == "all")
        & (losses["heads"] == "all")
    ]
    rows = []
    if len(unpatched):
        rows.append(("unpatched", "", *(f"{unpatched[step].mean():.2f}" for step in at)))
    for reference in sorted({int(step) for step in throughout["reference_step"]}):
        runs = throughout[throughout["reference_step"] == reference]
        patched = runs.pivot_table("value", "seed", "step")
        cells = []
        for step in at:
            # Seed by seed: a reference with fewer seeds is held against those alone.
            change = (patched - unpatched)[step].mean() if len(unpatched) else float("nan")
            against = "" if pd.isna(change) else f" ({change:+.2f})"
            cells.append(f"{patched[step].mean():.2f}{against}")
        rows.append((f"step {reference:,}", phases.at(reference), *cells))
    mean = "" if n_seeds == 1 else f", mean of up to {n_seeds} seeds"
    return Table(
        f"Attribute loss in nats{mean}, patched from step 0 in all layers and heads; in brackets "
        "the difference from the unpatched run at the same step.",
        ("reference", "its phase", *(f"at step {step:,}" for step in at)),
        rows,
    )


def _score_table(scores: pd.DataFrame, phases: Phases) -> Table:
    """The key scores at the turning points of training."""
    steps = sorted({int(step) for step in scores["step"]})

    columns: list[tuple[str, Callable[[pd.Series], int]]] = [
        (f"start (step {steps[0]:,})", lambda _: steps[0])
    ]
    if phases.statistics_end is not None:
        statistics_end = nearest_step(steps, phases.statistics_end)
        columns.append((f"end of statistics (step {statistics_end:,})", lambda _: statistics_end))
    columns.append(("lowest (at step)", lambda curve: int(str(curve.idxmin()))))
    if phases.plateau_end is not None:
        plateau_end = nearest_step(steps, phases.plateau_end)
        columns.append((f"end of plateau (step {plateau_end:,})", lambda _: plateau_end))
    columns.append((f"last (step {steps[-1]:,})", lambda _: steps[-1]))

    layers = sorted({int(layer) for layer in scores["layer"]})
    rows = []
    for metric in _KEY_SCORES:
        for layer in (None, *layers):
            own = scores[(scores["metric"] == metric) & scores["value"].notna()]
            own = own if layer is None else own[own["layer"] == layer]
            if own.empty:
                continue
            curve = own.groupby("step")["value"].mean()
            cells = []
            for title, step_of in columns:
                step = step_of(curve)
                at = f" ({step:,})" if title.startswith("lowest") else ""
                cells.append(f"{curve[step]:.3f}{at}" if step in curve.index else "")
            where = "all" if layer is None else str(layer)
            chance = own["chance"].mean()
            level = "" if pd.isna(chance) else f"{chance:.3f}"
            rows.append((SCORE_NAMES[metric], where, *cells, level))
    return Table(
        "Shares of attention, averaged over heads; chance is what uniform attention gives.",
        ("score", "layer", *(title for title, _ in columns), "chance"),
        rows,
    )


def _role_table(roles: pd.DataFrame) -> Table:
    """The role of each head at the last checkpoint."""
    last = int(roles["step"].max())
    rows = []
    for _, row in roles[roles["step"] == last].sort_values(["layer", "head"]).iterrows():
        decided = not pd.isna(row["metric"]) and not pd.isna(row["value"])
        rows.append(
            (
                f"{int(row['layer'])}.{int(row['head'])}",
                "none" if pd.isna(row["role"]) else str(row["role"]),
                SCORE_NAMES.get(row["metric"], str(row["metric"])) if decided else "",
                f"{row['value']:.3f}" if decided else "",
                f"{row['chance']:.3f}" if decided else "",
            )
        )
    return Table(
        f"Roles of heads (layer.head) at step {last:,}, with the score that decided (for none: "
        "the strongest), a share of attention.",
        ("head", "role", "score", "value", "chance"),
        rows,
    )


def _cost_table(costs: pd.DataFrame) -> Table:
    """The costs of cutting each edge in all layers, a checkpoint a row."""
    edges = [edge for edge in SCORE_NAMES if edge in set(costs["edge"])]
    rows = []
    for step in sorted({int(step) for step in costs["step"]}):
        at_step = costs[costs["step"] == step]
        by_edge = at_step.groupby("edge")["cost"].mean()
        cells = [f"{by_edge[edge]:+.3f}" if edge in by_edge.index else "" for edge in edges]
        rows.append((f"step {step:,}", f"{at_step['intact'].mean():.3f}", *cells))
    return Table(
        "Cost of cutting attention in all layers: the rise of the attribute loss, in nats.",
        ("checkpoint", "intact loss", *(SCORE_NAMES[edge] for edge in edges)),
        rows,
    )
