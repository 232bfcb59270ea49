"""Training an associative memory: pre-training on old pairs, then fine-tuning on new ones.

A run takes seconds, so one that was killed is trained again from the start, to the same bytes. Sums
add up in one order whatever the machine's number of cores, as training keeps to one thread.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from interp.associative_memory.config import AssociativeMemoryConfig
from interp.associative_memory.model import AssociativeMemory, recall_logits, recall_loss
from interp.associative_memory.pairs import BLOCK, Pairs, finetuning_samples, pretraining_samples
from interp.associative_memory.run import LAYOUT, AssociativeMemoryRun
from interp.config import differences
from interp.ending import write_ending
from interp.errors import DivergedError, RunError
from interp.files import (
    absolute,
    folder_lock,
    place_to_write,
    refuse_foreign,
    remove_parts,
    write_tensors,
    write_text,
)
from interp.progress import Progress, parts, showing
from interp.threads import using_threads
from interp.torch_state import default_state


@default_state()
def train(
    config: AssociativeMemoryConfig,
    out: Path | str,
    *,
    resume: bool = True,
    progress: bool | Progress = True,
) -> AssociativeMemoryRun:
    """Trains an associative memory and returns the run.

    Args:
        config: What to train.
        out: The run's folder.
        resume: Accept a folder that holds this run already: a finished one is returned as it is, an
            unfinished one is trained from the start.
        progress: Show progress on standard error; or where to report it to.

    Raises:
        RunError: the folder is in use, holds something else, or a run with other settings, or this
            run and `resume` was not asked for.
        DivergedError: the loss became NaN or infinite.
        StorageError: a file could not be written.
    """
    out = absolute(place_to_write(out))
    run = AssociativeMemoryRun(out)
    _look(config, run, resume)
    if run.finished:
        return AssociativeMemoryRun.load(out)
    with using_threads(1):
        pairs = Pairs.draw(config)
        model = AssociativeMemory(config.model, config.seed)
    with folder_lock(out):
        if not _look(config, run, resume):
            write_text(run.config_path, config.to_yaml())
        remove_parts(out, LAYOUT)
        if not run.finished:
            run.finished_path.unlink(missing_ok=True)
            seconds = expected_seconds(config)
            with showing("associative memory", seconds, progress) as report, using_threads(1):
                _train(config, run, model, pairs, report)
        return AssociativeMemoryRun.load(out)


def expected_seconds(config: AssociativeMemoryConfig) -> float:
    """About how long a run takes on one CPU core."""
    model, pre, fine = config.model, config.pretraining, config.finetuning
    weights = model.n_hidden * (2 * model.d_model)
    a_step = 2.5e-4 + 5e-11 * weights * config.optimizer.batch_size
    n_measured = len(pre.measured_steps()) + len(fine.measured_steps())
    a_measurement = 2e-11 * weights * (pre.n_pairs + fine.n_new)
    return a_step * (pre.n_steps + fine.n_steps) + a_measurement * n_measured


def changed_settings(config: AssociativeMemoryConfig, folder: Path) -> list[str]:
    """In what the run in a folder differs from these settings, one line each."""
    return differences(config, AssociativeMemoryRun.load(folder).config)


@default_state()
def measure(model: AssociativeMemory, pairs: Pairs) -> dict[tuple[str, str], float]:
    """Accuracy (share) and loss (nats) on all old and on all new pairs, by (split, metric)."""
    measured = {}
    with torch.no_grad():
        logits = recall_logits(model, pairs.keys, pairs.values)
        losses = torch.nn.functional.cross_entropy(logits, pairs.answers, reduction="none")
        right = (logits.argmax(dim=1) == pairs.answers).double()
        for split in ("old", "new"):
            measured[split, "accuracy"] = right[pairs.split(split)].mean().item()
            measured[split, "loss"] = losses[pairs.split(split)].double().mean().item()
    return measured


def _look(config: AssociativeMemoryConfig, run: AssociativeMemoryRun, resume: bool) -> bool:
    """Whether the folder holds this run; refuses one that holds something else."""
    out = run.path
    if "config.yaml" not in refuse_foreign(out):
        return False
    changed = changed_settings(config, out)
    if changed:
        raise RunError(
            f"{out} holds an associative memory with other settings:\n  "
            + "\n  ".join(changed)
            + "\nUse those settings, or another folder."
        )
    if not resume:
        raise RunError(
            f"{out} already holds this run. Use resume=True to keep it, or another folder."
        )
    return True


def _train(
    config: AssociativeMemoryConfig,
    run: AssociativeMemoryRun,
    model: AssociativeMemory,
    pairs: Pairs,
    progress: Progress,
) -> None:
    pre, fine = config.pretraining, config.finetuning
    rows: list[dict[str, Any]] = []
    progress(0.0)
    first, second = parts(progress, [pre.n_steps, fine.n_steps])

    def cosine(step: int) -> float:
        return pre.learning_rate * 0.5 * (1 + math.cos(math.pi * step / pre.n_steps))

    _train_phase("pretraining", model, pairs, config, cosine, pretraining_samples, rows, first, run)
    _train_phase(
        "finetuning", model, pairs, config, lambda step: fine.learning_rate, finetuning_samples, rows,
        second, run,
    )  # fmt: skip
    write_text(run.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))
    steps = {"pretraining_steps": pre.n_steps, "finetuning_steps": fine.n_steps}
    write_ending(run.path, steps, [run.metrics_path.name])


def _train_phase(
    phase: Literal["pretraining", "finetuning"],
    model: AssociativeMemory,
    pairs: Pairs,
    config: AssociativeMemoryConfig,
    learning_rate: Callable[[int], float],
    samples: Callable[[AssociativeMemoryConfig, int], np.ndarray],
    rows: list[dict[str, Any]],
    progress: Progress,
    run: AssociativeMemoryRun,
) -> None:
    """One phase, with an optimizer of its own; what is measured is added to `rows`."""
    optimizer = _adamw(model, config)
    settings = config.pretraining if phase == "pretraining" else config.finetuning
    n_steps, due = settings.n_steps, set(settings.measured_steps())
    shown = torch.empty(0, dtype=torch.int64)
    for step in range(n_steps + 1):
        if step in due:
            measured = measure(model, pairs)
            if not all(math.isfinite(value) for value in measured.values()):
                raise DivergedError(
                    f"The loss became NaN or infinite before step {step} of {phase}; use a lower "
                    f"learning rate ({phase}.learning_rate)."
                )
            rows += [
                {"phase": phase, "step": step, "split": split, "metric": metric, "value": value}
                for (split, metric), value in measured.items()
            ]
            progress(step / n_steps, f"{phase}, step {step:,} of {n_steps:,}")
        if step == n_steps:
            break
        if step % BLOCK == 0:
            shown = torch.from_numpy(samples(config, step // BLOCK))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        chosen = shown[step % BLOCK]
        loss = recall_loss(model, pairs.keys[chosen], pairs.values, pairs.answers[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    note = {"format": "interp associative memory 1", "phase": phase}
    write_tensors(run.weights_path(phase), dict(model.named_parameters()), note)


def _adamw(model: AssociativeMemory, config: AssociativeMemoryConfig) -> torch.optim.AdamW:
    """AdamW; only weights decay, not biases."""
    settings = config.optimizer
    decay = {2: settings.weight_decay, 1: 0.0}  # by the number of axes
    groups = [{"params": [p], "weight_decay": decay[p.ndim]} for p in model.parameters()]
    return torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=True)
