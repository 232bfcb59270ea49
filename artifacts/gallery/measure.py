"""Measures attention and memory in finished runs in artifacts/ and writes the gallery's tables.

The runs: `tiny_seed0`, the other seeds that `interp train-patched` trained in `patching/runs`, `small`, and
variants of `tiny`.
"""

import argparse
from pathlib import Path

import pandas as pd

from interp.attention import attention_to_names, by_layer, head_roles, knockout
from interp.files import write_text
from interp.memory import edge_costs, swap_pairs, swap_success
from interp.run import Run
from interp.stages import MEMORY_STAGES, run_stages
from interp.studies import memory_tables

GALLERY = Path(__file__).parent
ARTIFACTS = GALLERY.parent
RUNS = {
    "tiny": ["tiny_seed0", "patching/runs/seed1_unpatched", "patching/runs/seed2_unpatched"],
    "small": ["small"],
}
VARIANTS = ("tiny_4layers", "late_names")


def phases(run: Run) -> dict[str, int | None]:
    """The boundaries that the numbers are held against."""
    found = run.phases
    return {"statistics_end": found.statistics_end, "plateau_end": found.plateau_end}


def measure(name: str) -> None:
    """Writes the tables of a preset, with a row's seed and the phases of its run."""
    scores, roles, costs = [], [], []
    for folder in RUNS[name]:
        run = Run.load(ARTIFACTS / folder)
        of_run = {"seed": run.config.seed, **phases(run)}
        found = attention_to_names(run)
        scores.append(by_layer(found).assign(**of_run))
        roles.append(head_roles(found).assign(**of_run))
        costs.append(knockout(run, n_individuals=64).assign(**of_run))
    for kind, tables in {"attention": scores, "roles": roles, "knockout": costs}.items():
        text = pd.concat(tables).round(5).to_csv(index=False)
        write_text(GALLERY / f"{kind}_{name}.csv", text)


def memory(name: str) -> None:
    """Writes the tables of the memory study of a preset, the means over attributes only."""
    runs = [Run.load(ARTIFACTS / folder) for folder in RUNS[name]]
    for run in runs:
        run_stages(run, MEMORY_STAGES)
    for kind, table in memory_tables(runs).items():
        if "attribute" in table:
            table = table[table["attribute"] == "all"]
        text = table.to_csv(index=False, float_format="%.4g")
        write_text(GALLERY / f"memory_{name}" / f"{kind}.csv", text)


def variants() -> None:
    """Swaps and cut edges at the last step of runs that are built otherwise."""
    tables = []
    for name in VARIANTS:
        run = Run.load(ARTIFACTS / name)
        model = run.model()
        for sentences, pairs in swap_pairs(run).items():
            swapped, cut = swap_success(model, pairs), edge_costs(model, pairs)
            tables += [table.assign(run=name, sentences=sentences) for table in (swapped, cut)]
    text = pd.concat(tables).to_csv(index=False, float_format="%.4g")
    write_text(GALLERY / "memory_variants.csv", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=[*RUNS, "variants"])
    for chosen in parser.parse_args().tables:
        if chosen == "variants":
            variants()
        else:
            measure(chosen)
            memory(chosen)
