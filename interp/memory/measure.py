"""Keys, values and probes of a run, checkpoint by checkpoint, from one harvest each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.attention.checkpoints import over_steps
from interp.biographies import Batch, Corpus
from interp.knowledge import split_batch
from interp.memory.harvest import draw_batches, harvest
from interp.memory.keys import key_measures
from interp.memory.probes import probe_accuracies
from interp.memory.values import value_measures
from interp.progress import Progress, silent
from interp.run import Run


@dataclass(frozen=True)
class MemoryTables:
    """What is measured of a run's MLP layers as memory.

    Attributes:
        keys: Columns `step`, then those of `key_measures`.
        values: Columns `step`, then those of `value_measures`.
        probes: Columns `step`, then those of `probe_accuracies`.
    """

    keys: pd.DataFrame
    values: pd.DataFrame
    probes: pd.DataFrame


def measure_memory(
    run: Run,
    steps: Sequence[int] | None = None,
    n_individuals: int | None = 512,
    draws: int = 2,
    training_draws: int = 3,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> MemoryTables:
    """Keys, values and probes over a run's training.

    Every checkpoint is read once: known people in training wordings (which probes learn from) and in
    evaluation wordings, and held-out people, where the population has some, in evaluation wordings.
    A run that was trained with patched attention is read with the attention it was trained with.

    Args:
        run: The run.
        steps: Which checkpoints; all by default.
        n_individuals: So many known and so many held-out people at most (see
            `knowledge.split_batch`); None for all. Memory and time grow with it.
        draws: Draws of evaluation wordings.
        training_draws: Draws of training wordings; the last one chooses the probes' penalty.
        batch_size: Biographies per forward pass.
        device: Where to compute; the CPU by default.
        seed: Of all controls.
        workers: Processes of one thread each; see `attention.checkpoints.over_steps`.
        progress: Told after each checkpoint.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ConfigError: no step is named, fewer than two draws, or a single person.
    """
    corpus = run.corpus
    known = split_batch(corpus, "evaluation", n_individuals).individuals.numpy()
    training = draw_batches(corpus, known, "train", range(training_draws))
    evaluation = draw_batches(corpus, known, "evaluation", range(draws))
    held_out = None
    if run.config.population.n_held_out:
        people = split_batch(corpus, "held_out", n_individuals).individuals.numpy()
        held_out = draw_batches(corpus, people, "evaluation", range(draws))
    measure = partial(
        _tables,
        corpus=corpus,
        training=training,
        evaluation=evaluation,
        held_out=held_out,
        batch_size=batch_size,
        seed=seed,
    )
    found = over_steps(run, measure, steps, device, workers=workers, progress=progress)
    for step, tables in found:
        for table in tables.values():
            table.insert(0, "step", step)
    keys, values, probes = (
        pd.concat([tables[name] for _, tables in found], ignore_index=True)
        for name in ("keys", "values", "probes")
    )
    return MemoryTables(keys, values, probes)


def _tables(
    model: TransformerBridge,
    corpus: Corpus,
    training: Sequence[Batch],
    evaluation: Sequence[Batch],
    held_out: Sequence[Batch] | None,
    batch_size: int,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """The three tables of one checkpoint."""
    fitted = harvest(model, training, layers=[], batch_size=batch_size)
    tested = harvest(model, evaluation, batch_size=batch_size)
    foreign = None
    if held_out is not None:
        foreign = harvest(model, held_out, sites=[], batch_size=batch_size)
    return {
        "keys": key_measures(corpus, tested, foreign, seed),
        "values": value_measures(model, corpus, tested, seed),
        "probes": probe_accuracies(corpus, fitted, tested, seed=seed),
    }
