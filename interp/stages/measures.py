"""What each stage measures of a trained run."""

from math import isnan

import joblib
import pandas as pd

from interp.attention import attention_to_names, averaged, head_roles, knockout
from interp.errors import RunError
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
from interp.stages.stage import StageResult
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
    phases = run.phases
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
        {"sensitivity": run.phase_sensitivity()},
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
    last = found.probes["step"] == found.probes["step"].max()
    probes = found.probes[last & (found.probes["attribute"] == "all")]
    column = "selectivity_other_people"
    best = probes.loc[probes.groupby("position")[column].idxmax()]
    return StageResult(
        {
            "step": int(probes["step"].max()),
            "probe_selectivity": {
                position: float(value)
                for position, value in zip(best["position"], best[column], strict=True)
            },
        },
        {"keys": found.keys, "values": found.values, "probes": found.probes},
    )


_GRID = Grid(
    ("resid_pre", "z", "mlp_out"),
    ("first name", "middle name", "last name", "every name", "type word", "predicts value"),
)


def intervene(run: Run, progress: Progress = silent) -> StageResult:
    """Swaps between people and ablated MLPs over training, a grid of patches at the last step."""
    device, workers = resolve_device(run.config.training.device), _workers(run)
    steps = steps_around_plateau(run)
    of_swaps, of_edges, of_ablations, of_grid = parts(progress, (60, 20, 15, 5))
    swapped = swaps(run, steps, device=device, workers=workers, progress=of_swaps)
    edges = recall_edges(run, steps, device=device, workers=workers, progress=of_edges)
    ablated = ablations(run, device=device, workers=workers, progress=of_ablations)
    of_grid(0.0, "a grid of patches")
    model = run.model(device=device)
    with run.patched(model):
        grid = attribution(model, swapped_people(run.corpus, 64), _GRID)
    # No neuron is patched by itself and no position: the table of runs has one column for neurons.
    grid = grid.rename(columns={"group": "neurons"}).drop(columns=["neuron", "token"])
    last = swapped[(swapped["step"] == swapped["step"].max()) & (swapped["sentences"] == "any")]
    # Before layer 0 a swap exchanges the tokens themselves, which says nothing about the model.
    last = last[(last["site"] != "resid_pre") | (last["layer"] != 0)]
    best = last.loc[last.groupby("position")["follows"].idxmax()]
    costs = ablated[ablated["layer"].isna() & (ablated["step"] == ablated["step"].max())]
    return StageResult(
        {
            "step": int(last["step"].max()),
            "follows": dict(zip(best["position"], best["follows"].astype(float), strict=True)),
            "ablation_cost": dict(zip(costs["position"], costs["cost"].astype(float), strict=True)),
            "attribution_correlation": _or_none(grid["exact"].corr(grid["approximate"])),
        },
        {"swaps": swapped, "edges": edges, "ablations": ablated, "attribution": grid},
    )


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
    found = {}
    for name, mechanism in MECHANISMS.items():
        stage, of_stage = mechanism.table
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
    steps, until = default_reference_steps(run, inside_plateau=1), default_until(run)
    early, end = run.phases.statistics_end, run.phases.plateau_end
    if early is not None and end is not None:  # of nine, the five that tell the phases apart
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
