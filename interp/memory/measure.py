"""Keys, values and probes of a run, checkpoint by checkpoint, from one harvest each."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from interp.attention.checkpoints import models_at
from interp.knowledge import split_batch
from interp.memory.harvest import draw_batches, harvest
from interp.memory.keys import key_measures
from interp.memory.probes import probe_accuracies
from interp.memory.values import value_measures
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
    tables: dict[str, list[pd.DataFrame]] = {"keys": [], "values": [], "probes": []}
    for step, model in models_at(run, steps, "cpu" if device is None else device):
        with run.patched(model, step):
            fitted = harvest(model, training, layers=[], batch_size=batch_size)
            tested = harvest(model, evaluation, batch_size=batch_size)
            foreign = (
                None
                if held_out is None
                else harvest(model, held_out, sites=[], batch_size=batch_size)
            )
        found = {
            "keys": key_measures(corpus, tested, foreign, seed),
            "values": value_measures(model, corpus, tested, seed),
            "probes": probe_accuracies(corpus, fitted, tested, seed=seed),
        }
        for name, table in found.items():
            table.insert(0, "step", step)
            tables[name].append(table)
    return MemoryTables(
        **{name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    )
