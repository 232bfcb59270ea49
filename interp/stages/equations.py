"""What `interp equations` measures of a run: residuals, bits known, interference. Not in the main job."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from interp.equations import GROUPINGS, between, bits_known, interference, residuals
from interp.errors import (
    ArgumentError,
    NothingToMeasureError,
    RunError,
    require_known,
    whole_number,
)
from interp.files import folder_lock, remove_files
from interp.knowledge import measured_individuals
from interp.model import parameter_counts
from interp.progress import Job, Progress, parts, silent
from interp.run import Run, resolve_device
from interp.series import informative_steps, nearest_steps
from interp.stages.stage import Measured, Stage, StageResult
from interp.torch_state import default_state

DEFAULT_GROUPINGS = ("attribute", "first name", "last name")
_STAGE = Stage(
    "equations",
    "Facts as equations: residuals, bits known, interference",
    lambda run, progress: StageResult({}),
    60.0,
    needs_attention=False,
)


@default_state()
def measure_equations(
    run: Run,
    by: Sequence[str] = DEFAULT_GROUPINGS,
    *,
    steps: Sequence[int] | None = None,
    people: int = 1024,
    n_individuals: int = 96,
    n_groups: int = 8,
    max_memory_gb: float | int | None = 1.0,
    announce: Callable[[str], None] = lambda title: None,
    progress: bool | Progress = True,
) -> dict[str, Any]:
    """Measures a finished run's facts as equations; writes `results/equations/`, in place of what was there.

    Args:
        run: The run.
        by: By what facts are grouped, names out of `interp.equations.GROUPINGS`. One that the population does
            not have is left out, if another is there.
        steps: Which checkpoints; by default `informative_steps` for residuals, and for interference those at
            the end of the phases and the last.
        people: The residuals of at most how many people, evenly spaced.
        n_individuals: See `interp.equations.interference`, as for `n_groups` and `max_memory_gb`.
        n_groups: See there.
        max_memory_gb: See there.
        announce: Called with the title.
        progress: Show progress on standard error; or where to report it to.

    Returns:
        The summary: bits known, shares of facts that are known at the last checkpoint, groupings left out.

    Raises:
        RunError: training has not finished.
        ArgumentError: no such grouping, or numbers that are none.
    """
    require_known(by, GROUPINGS, "grouping")
    people = whole_number(people, "people", 1)
    n_individuals = whole_number(n_individuals, "n_individuals", 2)
    n_groups = whole_number(n_groups, "n_groups", 2)
    if max_memory_gb is not None and not max_memory_gb > 0:
        raise ArgumentError(f"max_memory_gb={max_memory_gb}: give GiB above 0.")
    if not run.finished:
        raise RunError(
            f"{run.given} has not been trained to its end; `interp train --resume` does."
        )
    how = {"n_individuals": n_individuals, "n_groups": n_groups, "max_memory_gb": max_memory_gb}
    kept: dict[str, Any] = {}

    def compute(of: Run, report: Progress) -> StageResult:
        result = _measured(of, list(dict.fromkeys(by)), steps, people, how, report)
        kept.update(result.summary)
        return result

    stage = replace(_STAGE, compute=compute)
    with folder_lock(run.path):
        remove_files(run.path, {"results/equations": r"summary\.json"})
        job = Job({stage.name: stage.expected_seconds(run.config)}, progress)
        with job.task(stage.name, partial(announce, stage.title)) as report:
            stage.execute(run, report)
    return kept


def _measured(
    run: Run,
    by: Sequence[str],
    steps: Sequence[int] | None,
    people: int,
    how: dict[str, Any],
    progress: Progress = silent,
) -> StageResult:
    device = resolve_device(run.config.training.device)
    of_facts, *of_groups = parts(progress, (30, *[70 / len(by)] * len(by)))
    found = Measured()
    every = informative_steps(run) if steps is None else steps
    known = measured_individuals(run.corpus, "train", people)
    table = found.add(
        "residuals",
        lambda: residuals(run, every, known, device=device, progress=of_facts),
    )
    summary: dict[str, Any] = {}
    if table is not None:
        n = run.config.population.n_individuals
        parameters = parameter_counts(run.model(every[0]))["total"]
        bits = found.add("capacity", lambda: bits_known(table, parameters, n))
        last = between(table).iloc[-1]
        summary |= {
            "step": int(last["step"]),
            **{name: float(last[name]) for name in ("known", "between", "unknown")},
        }
        if bits is not None:
            overall = bits[(bits["attribute"] == "all")].iloc[-1]
            summary |= {n: float(overall[n]) for n in ("bits", "bits_per_parameter")}
    at = _moments(run) if steps is None else steps
    tables, left_out = [], {}
    for one, report in zip(by, of_groups, strict=True):
        try:
            tables.append(interference(run, at, one, device=device, progress=report, **how))
        except NothingToMeasureError as error:
            left_out[one] = str(error)
    if tables:
        found.tables["interference"] = pd.concat(tables, ignore_index=True)
    else:
        found.not_measured["interference"] = " ".join(left_out.values())
    if left_out:
        summary["left_out"] = left_out
    return StageResult(summary, found.tables, found.not_measured)


def _moments(run: Run) -> list[int]:
    """The checkpoints at the end of the statistics phase, at the end of the plateau, and the last."""
    phases = run.phases
    ends = [step for step in (phases.statistics_end, phases.plateau_end) if step is not None]
    return nearest_steps(run.steps, [*ends, run.steps[-1]])
