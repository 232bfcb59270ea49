"""One model, moved from checkpoint to checkpoint of its run; and which checkpoints tell most."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pandas as pd
import torch
from joblib import Parallel, delayed
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ConfigError, RunError
from interp.progress import Progress, counted, silent
from interp.run import Run, load_checkpoint

T = TypeVar("T")
_CHUNKS = 4  # of checkpoints for each worker: few models are built, and none waits long at the end


def models_at(
    run: Run, steps: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[int, TransformerBridge]]:
    """The model of a run at some steps, increasing: built once, then only its weights change.

    Args:
        run: The run.
        steps: Which checkpoints; all by default.
        device: Where the weights go.

    Raises:
        CheckpointError: there is no checkpoint at a step; known before the first is handed out.
        ConfigError: no step is named.
        RunError: the run has no checkpoint at all.
    """
    chosen = run.steps if steps is None else sorted(set(steps))
    if steps is not None and not chosen:
        raise ConfigError("steps=[] names no checkpoint; leave it out to read all of them.")
    unknown = [step for step in chosen if step not in run.steps]
    model = run.model(unknown[0] if unknown else chosen[0] if chosen else None, device)
    for index, step in enumerate(chosen):
        if index:
            load_checkpoint(run.path, step, model, run.config)
        yield step, model


def over_steps(
    run: Run,
    measure: Callable[[TransformerBridge], T],
    steps: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[tuple[int, T]]:
    """What is measured of a run's models, in the order of the steps.

    A run that was trained with patched attention is measured with the attention it was trained with.

    Args:
        run: The run.
        measure: From a model to what is measured; sent to the workers.
        steps: Which checkpoints; all by default.
        device: Where to compute; the CPU by default.
        workers: So many processes, each with one thread; the result does not depend on their number,
            to the last bit. By default this process, with the threads that it has. Small models gain
            little from a second thread, and nearly twice the speed from a second process.
        progress: Told after each checkpoint.

    Raises:
        CheckpointError, RunError: as `models_at`.
        ConfigError: as `models_at`, or no worker.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}: at least one process has to work.")
    place = "cpu" if device is None else device
    chosen = list(run.steps if steps is None else sorted(set(steps)))
    if workers is None:
        found = _measured(run, measure, steps, place)
        return list(counted(found, len(chosen), "checkpoint", progress))
    if workers == 1 or len(chosen) < 2:
        with _one_thread():
            found = _measured(run, measure, steps, place)
            return list(counted(found, len(chosen), "checkpoint", progress))
    unknown = set(chosen) - set(run.steps)
    if unknown:
        run.model(min(unknown), place)  # says what is missing
    size = max(1, len(chosen) // (_CHUNKS * workers))
    chunks = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    progress(0.0)
    jobs = (delayed(_measured_alone)(run, measure, chunk, place) for chunk in chunks)
    tables: list[tuple[int, T]] = []
    with warnings.catch_warnings():
        # A worker that has grown is replaced by a fresh one, and nothing is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        for chunk in Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
            tables += chunk
            progress(len(tables) / len(chosen), f"checkpoint {len(tables):,} of {len(chosen):,}")
    return sorted(tables, key=lambda found: found[0])


def table_over_steps(
    run: Run,
    measure: Callable[[TransformerBridge], pd.DataFrame],
    steps: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """What is measured of a run's models, one table below the other, with `step` in front.

    Args:
        run: The run.
        measure: From a model to a table.
        steps: Which checkpoints; all by default.
        device: Where to compute; the CPU by default.
        workers: Processes of one thread each; see `over_steps`.
        progress: Told after each checkpoint.

    Raises:
        CheckpointError, ConfigError, RunError: as `models_at`.
    """
    found = over_steps(run, measure, steps, device, workers=workers, progress=progress)
    for step, table in found:
        table.insert(0, "step", step)
    return pd.concat([table for _, table in found], ignore_index=True)


def _measured(
    run: Run,
    measure: Callable[[TransformerBridge], T],
    steps: Sequence[int] | None,
    device: torch.device | str,
) -> Iterator[tuple[int, T]]:
    for step, model in models_at(run, steps, device):
        with run.patched(model, step):
            found = measure(model)
        yield step, found


def _measured_alone(
    run: Run,
    measure: Callable[[TransformerBridge], T],
    steps: Sequence[int],
    device: torch.device | str,
) -> list[tuple[int, T]]:
    """In a worker process."""
    with _one_thread():
        return list(_measured(run, measure, steps, device))


@contextmanager
def _one_thread() -> Iterator[None]:
    """While this lasts, this process computes with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def steps_around_plateau(run: Run) -> list[int]:
    """The checkpoints that date what happens: all of them around the plateau, fewer elsewhere.

    All from half of the statistics phase to twice the plateau's end; before and after that, those
    that are at least a quarter later than the one before, and the first and the last. Where the run
    has not left its plateau: all.

    Raises:
        RunError: the run has no checkpoint yet.
    """
    steps = run.steps
    if not steps:
        raise RunError(f"{run.path} has no checkpoint yet; train it with --resume.")
    phases = None if run.metrics.empty else run.phases
    if phases is None or phases.statistics_end is None or phases.plateau_end is None:
        return steps
    kept: list[int] = []
    for step in steps:
        around = phases.statistics_end / 2 <= step <= 2 * phases.plateau_end
        if around or not kept or step >= 1.25 * kept[-1] or step == steps[-1]:
            kept.append(step)
    return kept
