"""What each stage measures of a trained run."""

from functools import partial
from math import isnan
from typing import Any

import joblib
import pandas as pd
import torch

from interp.attention import attention_to_names, averaged, head_roles, knockout
from interp.errors import NothingToMeasureError, RunError
from interp.interventions import Grid, attribution, swapped_people
from interp.knowledge import SPLITS, Baseline, measure
from interp.memory import (
    MECHANISMS,
    ablations,
    emergence_steps,
    measure_memory,
    mechanism_strengths,
    recall_edges,
    swaps,
)
from interp.model import parameter_counts
from interp.progress import Progress, counted, parts, silent
from interp.run import Run, resolve_device
from interp.series import nearest_step, steps_around_plateau
from interp.stages.stage import Measured, StageResult
from interp.studies.cells import default_reference_steps, default_until
from interp.studies.patching import comparison, patching
from interp.training.loop import expected_seconds


def _workers(run: Run) -> int:
    """How many processes measure a run's checkpoints, each with one thread.

    Tables do not depend on it. Small runs are measured before worker processes have begun.
    """
    if resolve_device(run.config.training.device).type != "cpu":
        return 1
    return min(joblib.cpu_count(), 4) if expected_seconds(run.config) > 20 else 1


def find_phases(run: Run, progress: Progress = silent) -> StageResult:
    """The three phases, and how they move with δ."""
    phases, found = run.phases, Measured()
    found.add("sensitivity", run.phase_sensitivity)
    return StageResult(
        {
            "statistics_end": phases.statistics_end,
            "plateau_end": phases.plateau_end,
            "plateau_length": phases.plateau_length,
            "delta": phases.delta,
            "phase_baseline": run.phase_baseline,
            "baseline": run.baseline,
            "population_entropy": Baseline.overall(run.baselines.population),
        },
        found.tables,
        found.not_measured,
    )


def measure_knowledge(run: Run, progress: Progress = silent) -> StageResult:
    """What the last checkpoint knows of everybody: known people and held-out ones."""
    model = run.model(device=resolve_device(run.config.training.device))
    splits = [s for s in SPLITS if s != "held_out" or run.config.population.n_held_out]
    with run.patched(model):
        tables = [
            measure(model, run.corpus, split)
            for split in counted(splits, len(splits), "group of people", progress)
        ]
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "step", run.steps[-1])
    overall = table[table["attribute"] == "all"]
    return StageResult(
        {
            "step": run.steps[-1],
            "parameters": parameter_counts(model),
            **{
                split: dict(zip(rows["metric"], rows["value"], strict=True))
                for split in splits
                for rows in [overall[overall["split"] == split]]
            },
        },
        {"final": table},
    )


_SUMMARISED = ("name_to_name", "attribute_to_any_name", "attribute_to_type", "attribute_sharpness")


def measure_attention(run: Run, progress: Progress = silent) -> StageResult:
    """Attention to names, and the heads' roles, at every checkpoint."""
    device = resolve_device(run.config.training.device)
    scores = attention_to_names(run, device=device, workers=_workers(run), progress=progress)
    roles = head_roles(scores)
    means = averaged(scores).pivot_table("value", "step", "metric")
    phases = run.phases
    moments: dict[str, float | None] = {
        "start": run.steps[0],
        "statistics_end": phases.statistics_end,
        "plateau_end": phases.plateau_end,
        "end": run.steps[-1],
    }
    at = {name: nearest_step(run.steps, step) for name, step in moments.items() if step is not None}
    last = roles[roles["step"] == run.steps[-1]]
    return StageResult(
        {
            **{m: {name: float(means[m][s]) for name, s in at.items()} for m in _SUMMARISED},
            "roles": {
                f"{row.layer}.{row.head}": str(row.role) for row in last.itertuples(index=False)
            },
        },
        {"scores": scores, "roles": roles},
    )


def measure_knockouts(run: Run, progress: Progress = silent) -> StageResult:
    """What cutting the edges of attention costs, at some checkpoints."""
    device = resolve_device(run.config.training.device)
    costs = knockout(run, n_individuals=64, device=device, workers=_workers(run), progress=progress)
    whole = costs[costs["layer"].isna() & (costs["step"] == costs["step"].max())]
    found = dict(zip(whole["edge"], whole["cost"].astype(float), strict=True))
    return StageResult({"step": int(costs["step"].max()), "cost": found}, {"costs": costs})


def read_memory(run: Run, progress: Progress = silent) -> StageResult:
    """Keys, values and probes of the MLP layers, at a part of the checkpoints."""
    device = resolve_device(run.config.training.device)
    steps = steps_around_plateau(run)
    found = measure_memory(run, steps, device=device, workers=_workers(run), progress=progress)
    tables = {"keys": found.keys, "values": found.values, "probes": found.probes}
    summary = {"step": steps[-1], "probe_selectivity": {}}
    if "probes" not in found.not_measured:
        last = found.probes[found.probes["attribute"] == "all"]
        summary["probe_selectivity"] = _best(last, "selectivity_other_people")
    measured = {name: table for name, table in tables.items() if name not in found.not_measured}
    return StageResult(summary, measured, found.not_measured)


def _best(table: pd.DataFrame, column: str) -> dict[str, float | None]:
    """For each position, the largest number of a column at the last step; None where there is none."""
    best = table[table["step"] == table["step"].max()].groupby("position")[column].max()
    return {str(position): _or_none(value) for position, value in best.items()}


_GRID = Grid(
    ("resid_pre", "z", "mlp_out"),
    ("first name", "middle name", "last name", "every name", "type word", "predicts value"),
)


def intervene(run: Run, progress: Progress = silent) -> StageResult:
    """Swaps between people and ablated MLPs over training, a grid of patches at the last step."""
    device, workers = resolve_device(run.config.training.device), _workers(run)
    steps = steps_around_plateau(run)
    of_swaps, of_edges, of_ablations, of_grid = parts(progress, (60, 20, 15, 5))
    how: dict[str, Any] = {"device": device, "workers": workers}
    found = Measured()
    swapped = found.add("swaps", lambda: swaps(run, steps, progress=of_swaps, **how))
    found.add("edges", lambda: recall_edges(run, steps, progress=of_edges, **how))
    ablated = found.add("ablations", lambda: ablations(run, progress=of_ablations, **how))
    of_grid(0.0, "a grid of patches")
    grid = found.add("attribution", partial(_attribution, run, device))
    summary: dict[str, Any] = {"step": steps[-1]}
    if swapped is not None:
        # Before layer 0 a swap exchanges the tokens themselves, which says nothing about the model.
        behind = swapped[(swapped["site"] != "resid_pre") | (swapped["layer"] != 0)]
        summary["follows"] = _best(behind[behind["sentences"] == "any"], "follows")
    if ablated is not None:
        costs = ablated[ablated["layer"].isna() & (ablated["step"] == ablated["step"].max())]
        costs_at = zip(costs["position"], costs["cost"].astype(float), strict=True)
        summary["ablation_cost"] = dict(costs_at)
    if grid is not None:
        correlation = grid["exact"].corr(grid["approximate"])
        summary["attribution_correlation"] = _or_none(correlation)
    return StageResult(summary, found.tables, found.not_measured)


def _attribution(run: Run, device: torch.device) -> pd.DataFrame:
    """A grid of patches between people at the last step."""
    model = run.model(device=device)
    with run.patched(model):
        grid = attribution(model, swapped_people(run.corpus, 64), _GRID)
    # No neuron is patched by itself and no position: the table of runs has one column for neurons.
    return grid.rename(columns={"group": "neurons"}).drop(columns=["neuron", "token"])


def _or_none(number: float) -> float | None:
    """A number as JSON knows it."""
    return None if isnan(number) else float(number)


def order_of_emergence(run: Run, progress: Progress = silent) -> StageResult:
    """The step at which each mechanism reaches half of its final strength."""
    strengths = mechanism_strengths(_mechanism_tables(run), run.curve("attribute_accuracy"))
    steps = emergence_steps(strengths, run.phases.at)
    steps.insert(1, "seed", run.config.seed)
    found = zip(steps["mechanism"], steps["step"], strict=True)
    return StageResult(
        {"half_strength_step": {name: _or_none(step) for name, step in found}},
        {"steps": steps, "strengths": strengths},
    )


def _mechanism_tables(run: Run) -> dict[tuple[str, str], pd.DataFrame]:
    """The tables that mechanisms are read from; refuses those of older versions that lack a column."""
    found, not_measured = {}, run.not_measured
    for name, mechanism in MECHANISMS.items():
        stage, of_stage = mechanism.table
        if f"{stage}/{of_stage}" in not_measured:
            continue
        table, folder = run.result(stage, of_stage), run.results_path / stage
        if table is None:
            raise RunError(
                f"{run.given} has no table {of_stage!r} of the stage {stage!r}, which {name!r} is read "
                f"from. Run `interp memory` on it; if it does not help, the stage was run by an older "
                f"version: delete {folder} first."
            )
        needed = [column for column in (mechanism.value, mechanism.control) if column is not None]
        lacking = [column for column in needed if column not in table]
        if lacking:
            raise RunError(
                f"{folder / of_stage}.csv has no column {lacking[0]!r}: it was made by an older version. "
                f"Delete {folder} and run `interp reproduce --out {run.given}` with the same settings again."
            )
        found[mechanism.table] = table
    return found


def patch_attention(run: Run, progress: Progress = silent) -> StageResult:
    """The run again, with the attention of its own checkpoints: one for each phase, and the last.

    The study with more reference steps and several seeds is `interp train-patched`.
    """
    if run.config.patching.on:
        return StageResult({"skipped": "the run has patched attention itself"})
    steps, until = default_reference_steps(run, inside_plateau=0), default_until(run)
    if not until:
        raise NothingToMeasureError(
            "The loss is below the baseline from step 0 on, so there is no plateau that attention patterns "
            "could shorten."
        )
    early, end = run.phases.statistics_end, run.phases.plateau_end
    if early is not None and end is not None:  # of six, the four that tell the phases apart
        steps = tuple(s for s in steps if s in (steps[0], steps[-1]) or early <= s <= end)
    on_cpu = resolve_device(run.config.training.device).type == "cpu"
    long = until * len(steps) > 1000  # shorter ones are done before worker processes have begun
    workers = min(len(steps), joblib.cpu_count(), 4) if on_cpu and long else 1
    out = run.results_path / "patching"
    table = patching([run], out, steps, until=until, workers=workers, progress=progress)
    last = comparison(table)
    last = last[last["step"] == last["step"].max()]
    names = last["reference_step"].astype(str)
    return StageResult(
        {
            "reference_steps": list(steps),
            "until": until,
            "gain": dict(zip(names, last["gain"].astype(float), strict=True)),
        },
        {"curves": table},
    )
