"""The main job as stages: each one reads a run and writes its results into it.

A stage's results lie in `results/<stage>/`: its tables as CSV, and `summary.json`, which is written
last, so that a stage with a summary is finished and is not run again. A new stage is one function
and one entry in `STAGES`; the report and `summary.json` pick it up by name.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from interp.config import Config, flatten
from interp.errors import (
    ConfigError,
    FolderInUseError,
    RunError,
    StorageError,
    suggest,
)
from interp.files import folder_lock, place_to_write, write_json
from interp.model import NO_ATTENTION
from interp.progress import Job, Progress, part
from interp.report import write_report
from interp.run import Run
from interp.run.stage_summary import DIGESTS, NOT_MEASURED, read_stage_summary
from interp.stages.measures import (
    find_phases,
    intervene,
    measure_attention,
    measure_knockouts,
    measure_knowledge,
    order_of_emergence,
    patch_attention,
    read_memory,
)
from interp.stages.stage import Stage
from interp.torch_state import default_state
from interp.training import train
from interp.training.loop import expected_seconds


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
        80.0,
        _by_training,
    ),
)
"""The stages between training and the report, in their order."""


MEMORY_STAGES = ("attention", "memory", "interventions", "emergence")
"""What `interp memory` runs."""


@default_state()
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
            f"{', '.join(unfit)}: not for {run.given}, {NO_ATTENTION}. `interp report` shows what there is "
            "to see of it."
        )
    if not run.finished:
        raise RunError(
            f"{run.given} has not been trained to its end; `interp train --resume` does."
        )
    if all(stage.finished(run) for stage in STAGES if stage.name in names):
        return  # nothing is to be written
    with folder_lock(run.path):
        chosen = [s for s in STAGES if s.name in names and not s.finished(run)]
        expected = {stage.name: stage.expected_seconds(run.config) for stage in chosen}
        job = Job(expected, progress)
        for stage in chosen:
            with job.task(stage.name, partial(announce, stage.title)) as report:
                stage.execute(run, report)


_REPORT_SECONDS = 5.0


@default_state()
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
    that need attention are skipped, and their summaries say so. Tables for which a run has nothing to
    measure are left out: `Run.not_measured`, `summary.json` and the report say which, and why.

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
    out = place_to_write(out)
    n_stages = len(STAGES) + 2
    expected = {"training": expected_seconds(config)}
    expected |= {stage.name: stage.expected_seconds(config) for stage in STAGES}
    expected["report"] = _REPORT_SECONDS
    before = Run(out)
    job = Job(expected, progress)
    if not overwrite:
        for stage in STAGES:
            if stage.finished(before):
                job.skip(stage.name)
    title = f"[1/{n_stages}] Train the {config.preset} model"
    with job.task("training", partial(announce, title)) as report:
        if before.finished and not overwrite:
            report(1.0, "done before")
        run = train(
            config, before.given, resume=not overwrite, overwrite=overwrite, progress=report
        )
    with ExitStack() as held:
        try:
            held.enter_context(folder_lock(run.path))
        except (FolderInUseError, StorageError) as error:
            if not _complete(run):
                raise
            announce(f"[{n_stages}/{n_stages}] Everything was done before and is kept: {error}")
            return run
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


def _complete(run: Run) -> bool:
    pages = (run.path / "summary.json", run.path / "report.html")
    return all(stage.finished(run) for stage in STAGES) and all(page.exists() for page in pages)


def summary(run: Run) -> dict[str, Any]:
    """The summaries of all finished stages, by stage, with what was run.

    Where there are tables with nothing to measure, they come last, by "stage/table", with the reasons.
    """
    config = run.config
    found: dict[str, Any] = {
        "preset": config.preset,
        "seed": config.seed,
        "n_individuals": config.population.n_individuals,
        "steps": run.steps[-1],
    }
    for stage in STAGES:
        if stage.finished(run):
            found[stage.name] = read_stage_summary(run.results_path / stage.name)
            for note in (DIGESTS, NOT_MEASURED):
                found[stage.name].pop(note, None)
    reasons = run.not_measured
    return found | ({NOT_MEASURED: reasons} if reasons else {})


def summary_table(paths: Sequence[Path | str]) -> pd.DataFrame:
    """The summaries of several finished runs, one row each, columns by dotted name.

    Raises:
        RunError: a folder holds no run, or one that `reproduce` has not finished.
    """
    if not paths:
        raise RunError("No run is given; name the folders of finished runs.")
    rows = []
    for path in paths:
        run = Run.load(path)
        unfinished = [stage.name for stage in STAGES if not stage.finished(run)]
        if unfinished:
            raise RunError(
                f"{run.given} has no result of: {', '.join(unfinished)}. Finish it with "
                "`interp reproduce --out` and the same settings."
            )
        rows.append(flatten(summary(run)))
    return pd.DataFrame(rows)
