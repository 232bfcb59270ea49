"""Keys, values and probes of a run, checkpoint by checkpoint, from one pass each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Batch
from interp.knowledge import split_batch
from interp.memory.activations import cache_activations, draw_batches
from interp.memory.facts import AnyFacts, FactTexts
from interp.memory.keys import key_measures
from interp.memory.probes import probe_accuracies
from interp.memory.values import value_measures
from interp.progress import Progress, silent
from interp.series import AnySeries, Device, of_run, over_steps, stacked
from interp.torch_state import default_state


@dataclass(frozen=True)
class MemoryTables:
    """What `key_measures`, `value_measures` and `probe_accuracies` return, with `step` in front."""

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


@default_state()
def fact_draws(
    series: AnySeries, n_individuals: int | None = 512, draws: int = 2, training_draws: int = 3
) -> FactDraws:
    """The biographies on which a run's memory is measured."""
    remedy = "facts of its own. Give facts (interp.memory.FactDraws)"
    corpus = of_run(series, "corpus", remedy)
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


@default_state()
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

    Every checkpoint is read once, on `facts`; of a run by default on at most `n_individuals` known people
    (None: all) in training wordings, of which the last draw chooses the probes' penalty, and in
    evaluation wordings, and as many held-out people, where the population has some. Memory and time grow
    with their number. `seed` is of all controls; other arguments and errors as `series.over_steps`.

    Raises:
        ArgumentError: fewer than two draws, or a single person.
    """
    facts = fact_draws(series, n_individuals, draws, training_draws) if facts is None else facts
    measure = partial(_tables, facts=facts, batch_size=batch_size, seed=seed)
    tables = over_steps(series, measure, steps, device, workers=workers, progress=progress)
    return MemoryTables(
        *(stacked((step, of_step[i]) for step, of_step in tables) for i in range(3))
    )


def _tables(
    model: TransformerBridge, facts: FactDraws, batch_size: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    fitted = cache_activations(model, facts.training, layers=[], batch_size=batch_size)
    tested = cache_activations(model, facts.evaluation, batch_size=batch_size)
    foreign = None
    if facts.held_out is not None:
        foreign = cache_activations(model, facts.held_out, sites=[], batch_size=batch_size)
    return (
        key_measures(facts.labels, tested, foreign, seed),
        value_measures(model, facts.labels, tested, seed),
        probe_accuracies(facts.labels, fitted, tested, seed=seed),
    )
