"""Keys, values and probes of a run, checkpoint by checkpoint, from one pass each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Batch
from interp.errors import ArgumentError
from interp.knowledge import split_batch
from interp.memory.activations import cache_activations, draw_batches
from interp.memory.facts import AnyFacts, FactTexts
from interp.memory.keys import key_measures
from interp.memory.probes import probe_accuracies
from interp.memory.values import value_measures
from interp.progress import Progress, silent
from interp.series import AnySeries, Device, over_steps


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


@dataclass(frozen=True)
class FactDraws:
    """Facts in several wordings: what `measure_memory` reads.

    Attributes:
        labels: Who has which values.
        training: Texts that training showed, at least two draws; probes learn from them, the last one
            chooses their penalty.
        evaluation: Other wordings of the same facts, at least two draws.
        held_out: Texts about subjects that training never showed; None if there are none.
    """

    labels: AnyFacts
    training: Sequence[Batch] | Sequence[FactTexts]
    evaluation: Sequence[Batch] | Sequence[FactTexts]
    held_out: Sequence[Batch] | Sequence[FactTexts] | None = None


def fact_draws(
    series: AnySeries, n_individuals: int | None = 512, draws: int = 2, training_draws: int = 3
) -> FactDraws:
    """The biographies on which a run's memory is measured.

    Raises:
        ArgumentError: the series has no people of its own.
    """
    corpus = getattr(series, "corpus", None)
    if corpus is None:
        raise ArgumentError(
            "A series of models has no facts of its own. Give facts (interp.memory.FactDraws)."
        )
    known = split_batch(corpus, "evaluation", n_individuals).individuals.numpy()
    held_out = None
    if corpus.population.config.n_held_out:
        people = split_batch(corpus, "held_out", n_individuals).individuals.numpy()
        held_out = draw_batches(corpus, people, "evaluation", range(draws))
    return FactDraws(
        corpus,
        draw_batches(corpus, known, "train", range(training_draws)),
        draw_batches(corpus, known, "evaluation", range(draws)),
        held_out,
    )


def measure_memory(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n_individuals: int | None = 512,
    draws: int = 2,
    training_draws: int = 3,
    batch_size: int = 64,
    device: Device = None,
    seed: int = 0,
    *,
    facts: FactDraws | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> MemoryTables:
    """Keys, values and probes over training.

    Every checkpoint is read once: known people in training wordings (which probes learn from) and in
    evaluation wordings, and held-out people, where the population has some, in evaluation wordings.
    A run that was trained with patched attention is read with the attention it was trained with.

    Args:
        series: A run, models by step, or another series (see `interp.series`).
        steps: Which checkpoints; all by default.
        n_individuals: Of a run, so many known and so many held-out people at most (see
            `knowledge.split_batch`); None for all. Memory and time grow with it.
        draws: Of a run, draws of evaluation wordings.
        training_draws: Of a run, draws of training wordings; the last one chooses the probes' penalty.
        batch_size: Texts per forward pass.
        device: Where to compute; where the models are by default, those of a run on the CPU.
        seed: Of all controls.
        facts: What is read, in place of a run's biographies.
        workers: Processes of one thread each; see `series.over_steps`.
        progress: Told after each checkpoint.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ArgumentError: no step is named, fewer than two draws, or a single person.
    """
    chosen = fact_draws(series, n_individuals, draws, training_draws) if facts is None else facts
    measure = partial(_tables, facts=chosen, batch_size=batch_size, seed=seed)
    found = over_steps(series, measure, steps, device, workers=workers, progress=progress)
    for step, tables in found:
        for table in tables.values():
            table.insert(0, "step", step)
    keys, values, probes = (
        pd.concat([tables[name] for _, tables in found], ignore_index=True)
        for name in ("keys", "values", "probes")
    )
    return MemoryTables(keys, values, probes)


def _tables(
    model: TransformerBridge, facts: FactDraws, batch_size: int, seed: int
) -> dict[str, pd.DataFrame]:
    """The three tables of one checkpoint."""
    fitted = cache_activations(model, facts.training, layers=[], batch_size=batch_size)
    tested = cache_activations(model, facts.evaluation, batch_size=batch_size)
    foreign = None
    if facts.held_out is not None:
        foreign = cache_activations(model, facts.held_out, sites=[], batch_size=batch_size)
    return {
        "keys": key_measures(facts.labels, tested, foreign, seed),
        "values": value_measures(model, facts.labels, tested, seed),
        "probes": probe_accuracies(facts.labels, fitted, tested, seed=seed),
    }
