"""Keys, values and probes of a run, checkpoint by checkpoint, from one pass each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Batch
from interp.errors import NothingToMeasureError, whole_number
from interp.knowledge import split_batch
from interp.memory.activations import cache_activations, draw_batches
from interp.memory.facts import AnyFacts, FactTexts
from interp.memory.keys import key_measures
from interp.memory.probes import probe_accuracies
from interp.memory.values import value_measures
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, corpus_of, over_steps, stacked
from interp.torch_state import default_state

_MEASURES = ("keys", "values", "probes")


@dataclass(frozen=True)
class MemoryTables:
    """What `key_measures`, `value_measures` and `probe_accuracies` return, with `step` in front.

    A table for which there is nothing to measure is empty, and `not_measured` says why, by its name.
    """

    keys: pd.DataFrame
    values: pd.DataFrame
    probes: pd.DataFrame
    not_measured: Mapping[str, str] = field(default_factory=dict)


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
    draws, training_draws = (
        whole_number(given, name, 2)
        for given, name in ((draws, "draws"), (training_draws, "training_draws"))
    )
    remedy = "facts of its own. Give facts (interp.memory.FactDraws)"
    corpus = corpus_of(series, remedy=remedy)
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
    progress: Progress = watched,
) -> MemoryTables:
    """Keys, values and probes over training.

    Every checkpoint is read once, on `facts`; of a run by default on at most `n_individuals` known people
    (None: all) in training wordings, of which the last draw chooses the probes' penalty, and in
    evaluation wordings, and as many held-out people, where the population has some. Memory and time grow
    with their number. `seed` is of all controls; other arguments and errors as `series.over_steps`.

    Raises:
        ArgumentError: fewer than two draws.
    """
    seed = whole_number(seed, "seed", 0)
    facts = fact_draws(series, n_individuals, draws, training_draws) if facts is None else facts
    measure = partial(_tables, facts=facts, batch_size=batch_size, seed=seed)
    tables = over_steps(series, measure, steps, device, workers=workers, progress=progress)
    found: dict[str, pd.DataFrame] = {}
    not_measured: dict[str, str] = {}
    for name in _MEASURES:
        of_steps = [(step, of_step[name]) for step, of_step in tables]
        measured = [(step, table) for step, table in of_steps if isinstance(table, pd.DataFrame)]
        found[name] = stacked(measured) if measured else pd.DataFrame()
        # What there is to measure is a matter of the texts: the same at every step.
        if not measured:
            not_measured[name] = str(of_steps[0][1])
    return MemoryTables(**found, not_measured=not_measured)


def _tables(
    model: TransformerBridge, facts: FactDraws, batch_size: int, seed: int
) -> dict[str, pd.DataFrame | str]:
    """Each table, or why there is nothing to measure."""
    fitted = cache_activations(model, facts.training, layers=[], batch_size=batch_size)
    tested = cache_activations(model, facts.evaluation, batch_size=batch_size)
    foreign = None
    if facts.held_out is not None:
        foreign = cache_activations(model, facts.held_out, sites=[], batch_size=batch_size)
    measures: dict[str, Callable[[], pd.DataFrame]] = {
        "keys": lambda: key_measures(facts.labels, tested, foreign, seed),
        "values": lambda: value_measures(model, facts.labels, tested, seed),
        "probes": lambda: probe_accuracies(facts.labels, fitted, tested, seed=seed),
    }
    found: dict[str, pd.DataFrame | str] = {}
    for name in _MEASURES:
        try:
            found[name] = measures[name]()
        except NothingToMeasureError as error:
            found[name] = str(error)
    return found
