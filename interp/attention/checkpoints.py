"""One model, moved from checkpoint to checkpoint of its run; and which checkpoints tell most."""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ConfigError, RunError
from interp.run import Run, load_checkpoint


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


def table_over_steps(
    run: Run,
    measure: Callable[[TransformerBridge], pd.DataFrame],
    steps: Sequence[int] | None = None,
    device: torch.device | str | None = None,
) -> pd.DataFrame:
    """What is measured of a run's models, one table below the other, with `step` in front.

    A run that was trained with patched attention is measured with the attention it was trained with.

    Args:
        run: The run.
        measure: From a model to a table.
        steps: Which checkpoints; all by default.
        device: Where to compute; the CPU by default.

    Raises:
        CheckpointError, ConfigError, RunError: as `models_at`.
    """
    tables = []
    for step, model in models_at(run, steps, "cpu" if device is None else device):
        with run.patched(model, step):
            table = measure(model)
        table.insert(0, "step", step)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


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
