"""The main job as stages: each one reads a run and writes its results into it.

A stage's results lie in `results/<stage>/`: its tables as CSV, and `summary.json`, which is written
last, so that a stage with a summary is finished and is not run again. A new stage is one function
and one entry in `STAGES`; the report and `summary.json` pick it up by name.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from interp.attention import attention_to_names, averaged, head_roles, knockout
from interp.config import Config, flatten
from interp.errors import ConfigError, RunError, suggest
from interp.files import folder_lock, write_json
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
from interp.model import NO_ATTENTION, parameter_counts
from interp.progress import Job, Progress, counted, part, parts, silent
from interp.report import write_report
from interp.run import Run, resolve_device
from interp.run.tables import result_table
from interp.series import nearest_step, steps_around_plateau
from interp.studies.cells import default_reference_steps, default_until
from interp.studies.patching import comparison, patching
from interp.training import train
from interp.training.loop import expected_seconds


@dataclass(frozen=True)
class StageResult:
    """What a stage found.

    Attributes:
        summary: The numbers a script would want; goes into the run's `summary.json`.
        tables: Tidy tables by name, as `interp.run.tables` declares them; each becomes a CSV file.
    """

    summary: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the main job.

    Attributes:
        name: Its folder in `results/` and its key in `summary.json`.
        title: What a person is told it does.
        compute: From a trained run to its result; reports its progress.
        seconds: About how long it takes on 2 CPU cores at `tiny`.
        grows: How much longer it takes with other settings.
        needs_attention: Whether it reads or changes attention, which recurrent models have none of.
    """

    name: str
    title: str
    compute: Callable[[Run, Progress], StageResult]
    seconds: float
    grows: Callable[[Config], float] = lambda config: 1.0
    needs_attention: bool = True

    def fits(self, config: Config) -> bool:
        """Whether it is for models like this one; it is skipped otherwise."""
        return config.model.recurrence is None or not self.needs_attention

    def expected_seconds(self, config: Config) -> float:
        """About how long it takes: a first guess, until this machine's pace is seen."""
        return self.seconds * self.grows(config) if self.fits(config) else 0.0

    def finished(self, run: Run) -> bool:
        """Whether the run holds this stage's result."""
        return (run.results_path / self.name / "summary.json").exists()

    def execute(self, run: Run, progress: Progress = silent) -> None:
        """Computes and writes the result, the summary last; of a stage that is skipped, why.

        Raises:
            StorageError: a file could not be written.
        """
        started = time.perf_counter()
        skipped = StageResult({"skipped": NO_ATTENTION})
        result = self.compute(run, progress) if self.fits(run.config) else skipped
        folder = run.results_path / self.name
        for name, table in result.tables.items():
            result_table(self.name, name).write(folder / f"{name}.csv", table)
        seconds = round(time.perf_counter() - started, 2)
        write_json(folder / "summary.json", {**result.summary, "seconds": seconds})


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
                f"{run.path} has no table {of_stage!r} of the stage {stage!r}, which {name!r} is read "
                f"from. Run `interp memory` on it; if it does not help, the stage was run by an older "
                f"version: delete {folder} first."
            )
        needed = [column for column in (mechanism.value, mechanism.control) if column is not None]
        lacking = [column for column in needed if column not in table]
        if lacking:
            raise RunError(
                f"{folder / of_stage}.csv has no column {lacking[0]!r}: it was made by an older version. "
                f"Delete {folder} and run `interp reproduce --out {run.path}` with the same settings again."
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


def _by_model(config: Config) -> float:
    """How much larger the model is than at `tiny`, by the work of a token."""
    model = config.model
    return model.n_layers * model.d_model * (4 * model.d_model + 2 * model.d_mlp) / 393_216


def _by_checkpoints(config: Config) -> float:
    """The same, times how many more checkpoints there are of how many more people, up to 512."""
    people = config.population.n_individuals + config.population.n_held_out
    return (
        _by_model(config) * len(config.training.checkpoint_steps()) / 41 * min(people, 1024) / 640
    )


def _by_everybody(config: Config) -> float:
    population = config.population
    return _by_model(config) * (population.n_individuals + population.n_held_out) / 640


def _by_cells(config: Config) -> float:
    """The same as `_by_model`, times how many more heads and layers there are to cut."""
    model = config.model
    return _by_model(config) * (1 + model.n_layers * (1 + model.n_heads)) / 11


def _by_training(config: Config) -> float:
    return expected_seconds(config) / expected_seconds(Config())


STAGES: tuple[Stage, ...] = (
    Stage("phases", "Find the three phases", find_phases, 0.2, needs_attention=False),
    Stage(
        "knowledge",
        "Measure what is known, and of held-out people",
        measure_knowledge,
        1.0,
        _by_everybody,
        needs_attention=False,
    ),
    Stage(
        "attention",
        "Measure attention to names and the roles of heads",
        measure_attention,
        11.0,
        _by_checkpoints,
    ),
    Stage("knockout", "Cut edges of attention", measure_knockouts, 8.0, _by_cells),
    Stage(
        "memory",
        "Read the memory of the MLPs: keys, values, probes",
        read_memory,
        45.0,
        _by_checkpoints,
    ),
    Stage(
        "interventions",
        "Swap activations between people, ablate MLPs",
        intervene,
        40.0,
        _by_checkpoints,
    ),
    Stage("emergence", "Find the order in which mechanisms emerge", order_of_emergence, 0.3),
    Stage(
        "patching",
        "Train again with the attention of checkpoints",
        patch_attention,
        100.0,
        _by_training,
    ),
)
"""The stages between training and the report, in their order."""


MEMORY_STAGES = ("attention", "memory", "interventions", "emergence")
"""What `interp memory` runs."""


def run_stages(
    run: Run,
    names: Sequence[str],
    announce: Callable[[str], None] = lambda title: None,
    *,
    progress: bool | Progress = True,
) -> None:
    """Runs some stages on a finished run; those that are finished are kept as they are.

    Args:
        run: A run that has been trained to its end.
        names: Stages, in the order of `STAGES`.
        announce: Called with each stage's title as it begins.
        progress: Show progress on standard error; or where to report that of the whole to.

    Raises:
        ConfigError: an unknown stage, or one that needs attention, of a recurrent model.
        RunError: training has not finished.
    """
    known = [stage.name for stage in STAGES]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"There is no stage {name!r}.{suggest(name, known)} Stages: {', '.join(known)}."
            )
    unfit = [stage.name for stage in STAGES if stage.name in names and not stage.fits(run.config)]
    if unfit:
        raise ConfigError(
            f"{', '.join(unfit)}: not for {run.path}, {NO_ATTENTION}. `interp report` shows what there is "
            "to see of it."
        )
    if not run.finished:
        raise RunError(f"{run.path} has not been trained to its end; `interp train --resume` does.")
    with folder_lock(run.path):
        chosen = [s for s in STAGES if s.name in names and not s.finished(run)]
        expected = {stage.name: stage.expected_seconds(run.config) for stage in chosen}
        job = Job(expected, progress)
        for stage in chosen:
            with job.task(stage.name, partial(announce, stage.title)) as report:
                stage.execute(run, report)


_REPORT_SECONDS = 5.0


def reproduce(
    config: Config,
    out: Path | str,
    *,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda title: None,
    progress: bool | Progress = True,
) -> Run:
    """The main job: train, run every stage, write `summary.json` and `report.html`.

    What is finished is kept: a run that was killed goes on where it was. Of a recurrent model, stages
    that need attention are skipped, and their summaries say so.

    Args:
        config: What to train.
        out: The run's folder.
        overwrite: Delete the run in `out` first.
        announce: Called with each stage's title as it begins.
        progress: Show on standard error how far the stage and the whole job are, and the time that
            is left; or where to report the share of the whole job to.

    Raises:
        InterpError: as `train` does.
    """
    n_stages = len(STAGES) + 2
    expected = {"training": expected_seconds(config)}
    expected |= {stage.name: stage.expected_seconds(config) for stage in STAGES}
    expected["report"] = _REPORT_SECONDS
    before = Run(Path(out))
    job = Job(expected, progress)
    if not overwrite:
        for stage in STAGES:
            if stage.finished(before):
                job.skip(stage.name)
    title = f"[1/{n_stages}] Train the {config.preset} model"
    with job.task("training", partial(announce, title)) as report:
        if before.finished and not overwrite:
            report(1.0, "done before")
        run = train(config, out, resume=not overwrite, overwrite=overwrite, progress=report)
    with folder_lock(run.path):
        for number, stage in enumerate(STAGES, 2):
            title = f"[{number}/{n_stages}] {stage.title}"
            if stage.finished(run):
                announce(f"{title}: done before")
                continue
            if not stage.fits(config):
                title += ": skipped, not for recurrent models"
            with job.task(stage.name, partial(announce, title)) as report:
                stage.execute(run, report)
        title = f"[{n_stages}/{n_stages}] Write the report"
        with job.task("report", partial(announce, title)) as report:
            write_json(run.path / "summary.json", summary(run))
            write_report(run, progress=part(report, 0.0, 0.7))
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
            found[stage.name] = _stage_summary(run, stage)
    return found


def _stage_summary(run: Run, stage: Stage) -> dict[str, Any]:
    """What a finished stage has summed up."""
    path = run.results_path / stage.name / "summary.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected names with values, found {type(found).__name__}")
    except (ValueError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({error}). Delete it and run `interp reproduce --out {run.path}` with the "
            "same settings again."
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
