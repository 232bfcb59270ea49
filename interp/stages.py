"""The main job as stages: each one reads a run and writes its results into it.

A stage's results lie in `results/<stage>/`: its tables as CSV, and `summary.json`, which is written
last, so that a stage with a summary is finished and is not run again. A new stage is one function
and one entry in `STAGES`; the report and `summary.json` pick it up by name.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from interp.attention import attention_to_names, averaged, head_roles, knockout
from interp.attention.checkpoints import steps_around_plateau
from interp.config import Config, flatten
from interp.errors import ConfigError, RunError, suggest
from interp.experiments.patching import comparison, default_reference_steps, default_until, patching
from interp.files import folder_lock, write_json, write_text
from interp.interventions import attribution, swapped_people
from interp.knowledge import SPLITS, Baseline, measure
from interp.memory import (
    ablations,
    emergence_steps,
    measure_memory,
    mechanism_strengths,
    recall_edges,
    swaps,
)
from interp.model import parameter_counts
from interp.report import write_report
from interp.run import Run, resolve_device
from interp.training import train


@dataclass(frozen=True)
class StageResult:
    """What a stage found.

    Attributes:
        summary: The numbers a script would want; goes into the run's `summary.json`.
        tables: Tidy tables by name; each becomes a CSV file.
    """

    summary: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the main job.

    Attributes:
        name: Its folder in `results/` and its key in `summary.json`.
        title: What a person is told it does.
        compute: From a trained run to its result.
    """

    name: str
    title: str
    compute: Callable[[Run], StageResult]

    def finished(self, run: Run) -> bool:
        """Whether the run holds this stage's result."""
        return (run.results_path / self.name / "summary.json").exists()

    def execute(self, run: Run) -> None:
        """Computes and writes the result, the summary last.

        Raises:
            StorageError: a file could not be written.
        """
        started = time.perf_counter()
        result = self.compute(run)
        folder = run.results_path / self.name
        for name, table in result.tables.items():
            write_text(folder / f"{name}.csv", table.to_csv(index=False))
        seconds = round(time.perf_counter() - started, 2)
        write_json(folder / "summary.json", {**result.summary, "seconds": seconds})


def find_phases(run: Run) -> StageResult:
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


def measure_knowledge(run: Run) -> StageResult:
    """What the last checkpoint knows of everybody: known people and held-out ones."""
    model = run.model(device=resolve_device(run.config.training.device))
    splits = [s for s in SPLITS if s != "held_out" or run.config.population.n_held_out]
    with run.patched(model):
        tables = [measure(model, run.corpus, split) for split in splits]
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


def measure_attention(run: Run) -> StageResult:
    """Attention to names, and the heads' roles, at every checkpoint."""
    scores = attention_to_names(run, device=resolve_device(run.config.training.device))
    roles = head_roles(scores)
    means = averaged(scores).pivot_table("value", "step", "metric")
    phases = run.phases
    moments: dict[str, float | None] = {
        "start": run.steps[0],
        "statistics_end": phases.statistics_end,
        "plateau_end": phases.plateau_end,
        "end": run.steps[-1],
    }
    at = {
        name: min(run.steps, key=lambda s: abs(s - step))
        for name, step in moments.items()
        if step is not None
    }
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


def measure_knockouts(run: Run) -> StageResult:
    """What cutting the edges of attention costs, at some checkpoints."""
    device = resolve_device(run.config.training.device)
    costs = knockout(run, n_individuals=64, device=device)
    whole = costs[costs["layer"].isna() & (costs["step"] == costs["step"].max())]
    found = dict(zip(whole["edge"], whole["cost"].astype(float), strict=True))
    return StageResult({"step": int(costs["step"].max()), "cost": found}, {"costs": costs})


def read_memory(run: Run) -> StageResult:
    """Keys, values and probes of the MLP layers, at a part of the checkpoints."""
    found = measure_memory(
        run, steps_around_plateau(run), device=resolve_device(run.config.training.device)
    )
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


_GRID_SITES = ("resid_pre", "z", "mlp_out")
_GRID_POSITIONS = (
    "first name",
    "middle name",
    "last name",
    "every name",
    "type word",
    "predicts value",
)


def intervene(run: Run) -> StageResult:
    """Swaps between people and ablated MLPs over training, a grid of patches at the last step."""
    device = resolve_device(run.config.training.device)
    swapped = swaps(run, steps_around_plateau(run), device=device)
    edges = recall_edges(run, steps_around_plateau(run), device=device)
    ablated = ablations(run, device=device)
    model = run.model(device=device)
    with run.patched(model):
        grid = attribution(model, swapped_people(run.corpus, 64), _GRID_SITES, _GRID_POSITIONS)
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


def order_of_emergence(run: Run) -> StageResult:
    """The step at which each mechanism reaches half of its final strength."""
    strengths = mechanism_strengths(run)
    steps = emergence_steps(strengths, run.phases.at)
    steps.insert(1, "seed", run.config.seed)
    found = zip(steps["mechanism"], steps["step"], strict=True)
    return StageResult(
        {"half_strength_step": {name: _or_none(step) for name, step in found}},
        {"steps": steps, "strengths": strengths},
    )


def patch_attention(run: Run) -> StageResult:
    """The run again, with the attention of its own checkpoints: one for each phase, and the last.

    The study with more reference steps and several seeds is `interp patch`.
    """
    if run.config.patching.on:
        return StageResult({"skipped": "the run has patched attention itself"})
    steps, until = default_reference_steps(run, inside_plateau=1), default_until(run)
    early, end = run.phases.statistics_end, run.phases.plateau_end
    if early is not None and end is not None:  # of nine, the five that tell the phases apart
        steps = tuple(s for s in steps if s in (steps[0], steps[-1]) or early <= s <= end)
    on_cpu = resolve_device(run.config.training.device).type == "cpu"
    long = until * len(steps) > 1000  # shorter ones are done before worker processes have begun
    workers = min(len(steps), os.cpu_count() or 1, 4) if on_cpu and long else 1
    out = run.results_path / "patching"
    table = patching([run], out, steps, until=until, workers=workers, progress=workers == 1)
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


STAGES: tuple[Stage, ...] = (
    Stage("phases", "Find the three phases", find_phases),
    Stage("knowledge", "Measure what is known, and of held-out people", measure_knowledge),
    Stage("attention", "Measure attention to names and the roles of heads", measure_attention),
    Stage("knockout", "Cut edges of attention", measure_knockouts),
    Stage("memory", "Read the memory of the MLPs: keys, values, probes", read_memory),
    Stage("interventions", "Swap activations between people, ablate MLPs", intervene),
    Stage("emergence", "Find the order in which mechanisms emerge", order_of_emergence),
    Stage("patching", "Train again with the attention of checkpoints", patch_attention),
)
"""The stages between training and the report, in their order."""


MEMORY_STAGES = ("attention", "memory", "interventions", "emergence")
"""What `interp memory` runs."""


def run_stages(
    run: Run, names: Sequence[str], announce: Callable[[str], None] = lambda title: None
) -> None:
    """Runs some stages on a finished run; those that are finished are kept as they are.

    Args:
        run: A run that has been trained to its end.
        names: Stages, in the order of `STAGES`.
        announce: Called with each stage's title as it begins.

    Raises:
        ConfigError: an unknown stage.
        RunError: training has not finished.
    """
    known = [stage.name for stage in STAGES]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"There is no stage {name!r}.{suggest(name, known)} Stages: {', '.join(known)}."
            )
    if not run.finished:
        raise RunError(f"{run.path} has not been trained to its end; `interp train --resume` does.")
    with folder_lock(run.path):
        for stage in STAGES:
            if stage.name in names and not stage.finished(run):
                announce(stage.title)
                stage.execute(run)


def reproduce(
    config: Config,
    out: Path | str,
    *,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda title: None,
    progress: bool = True,
) -> Run:
    """The main job: train, run every stage, write `summary.json` and `report.html`.

    What is finished is kept: a run that was killed goes on where it was.

    Args:
        config: What to train.
        out: The run's folder.
        overwrite: Delete the run in `out` first.
        announce: Called with each stage's title as it begins.
        progress: Show a progress bar while training.

    Raises:
        InterpError: as `train` does.
    """
    n_stages = len(STAGES) + 2
    announce(f"[1/{n_stages}] Train the {config.preset} model")
    run = train(config, out, resume=not overwrite, overwrite=overwrite, progress=progress)
    with folder_lock(run.path):
        for number, stage in enumerate(STAGES, 2):
            if stage.finished(run):
                announce(f"[{number}/{n_stages}] {stage.title}: done before")
                continue
            announce(f"[{number}/{n_stages}] {stage.title}")
            stage.execute(run)
        announce(f"[{n_stages}/{n_stages}] Write the report")
        write_json(run.path / "summary.json", summary(run))
        write_report(run)
    return run


def summary(run: Run) -> dict[str, Any]:
    """The summaries of all finished stages, by stage, with what was run."""
    config = run.config
    found: dict[str, Any] = {
        "preset": config.preset,
        "seed": config.seed,
        "n_individuals": config.population.n_individuals,
        "steps": run.steps[-1],
    }
    for stage in STAGES:
        if stage.finished(run):
            path = run.results_path / stage.name / "summary.json"
            try:
                found[stage.name] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise RunError(
                    f"{path} is damaged ({error}). Delete it and run `interp reproduce` again."
                ) from error
    return found


def summary_table(paths: Sequence[Path | str]) -> pd.DataFrame:
    """The summaries of several finished runs, one row each, columns by dotted name.

    Raises:
        RunError: a folder holds no run, or one that `reproduce` has not finished.
    """
    rows = []
    for path in paths:
        run = Run.load(path)
        unfinished = [stage.name for stage in STAGES if not stage.finished(run)]
        if unfinished:
            raise RunError(
                f"{run.path} has no result of: {', '.join(unfinished)}. Finish it with "
                "`interp reproduce --out` and the same settings."
            )
        rows.append(flatten(summary(run)))
    return pd.DataFrame(rows)
