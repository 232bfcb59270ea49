"""The page of the memory study over several seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from interp import plots
from interp.files import write_text
from interp.phases import Phases
from interp.report.elements import Section
from interp.report.html import render
from interp.report.memory import HEADLINE, dated, emergence_table, swap_table


def write_memory_report(
    tables: Mapping[str, pd.DataFrame], phases: Sequence[Phases], path: Path | str
) -> Path:
    """Writes the page of the memory study of one or several seeds.

    Args:
        tables: What `studies.memory_tables` returned.
        phases: Of the runs, in the order of their seeds.
        path: The HTML file.

    Returns:
        The path of the file.

    Raises:
        InterpError: a table lacks what a figure needs.
        StorageError: the file cannot be written.
    """
    emergence, strengths = tables["emergence"], tables["strengths"]
    n_seeds = emergence["seed"].nunique()
    order = Section(
        "The order of emergence",
        "emergence",
        text=[
            "Does the attention that recalls a person form before the memory it reads? Each "
            "mechanism is dated, in every seed, by the step at which it reaches half of its final "
            "strength."
        ],
        figures={
            "emergence-order": plots.emergence(emergence, strengths, phases),
            "strength-curves": plots.strength_curves(strengths, phases[0]),
        },
        tables=[emergence_table(emergence, strengths, phases[0])],
    )
    causal = Section(
        "Interventions",
        "interventions",
        text=["Swaps between two people and ablated MLPs, mean of the seeds."],
        figures={
            "swap-success": plots.swap_success(tables["swaps"], phases[0]),
            "swap-sites": plots.swap_sites(tables["swaps"]),
            "recall-edges": plots.recall_edges(tables["edges"], phases[0]),
            "mlp-ablation": plots.mlp_ablation(tables["ablations"], phases[0]),
        },
        tables=[swap_table(tables["swaps"], phases[0])],
    )
    stored = Section(
        "MLPs as a memory",
        "memory",
        text=["Keys, values and probes, mean of the seeds."],
        figures={
            "key-selectivity": plots.key_selectivity(tables["keys"], phases[0]),
            "promoted-values": plots.promoted_values(tables["values"], phases[0]),
            "key-value-agreement": plots.key_value_agreement(tables["values"], phases[0]),
            "probe-curves": plots.probe_curves(tables["probes"], phases[0]),
            "probe-sites": plots.probe_sites(tables["probes"]),
        },
    )
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    headline = "; ".join(f"{mechanism}: {dated(emergence, mechanism)[0]}" for mechanism in HEADLINE)
    page = render(
        f"MLP memory: {seeds}",
        f"Half of its final strength (mean of {seeds}) is reached by {headline}.",
        [order, causal, stored],
    )
    target = Path(path)
    write_text(target, page)
    return target
