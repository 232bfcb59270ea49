"""Biographies as texts of the attention view."""

from typing import Protocol, cast, runtime_checkable

import numpy as np

from interp.biographies import NAME_PARTS, Corpus, Spans, TokenKind, Wordings
from interp.errors import ArgumentError
from interp.maps.texts import Fact, MapText, value_part, words_by_id
from interp.torch_state import default_state


@runtime_checkable
class HasCorpus(Protocol):
    """Whatever has biographies of its own, as a run has."""

    @property
    def corpus(self) -> Corpus:
        """Draws biographies as token batches with spans."""
        ...


@default_state()
def map_text(
    people: Corpus | HasCorpus, individual: int, wordings: str = "evaluation", draw: int = 0
) -> MapText:
    """One biography of a person.

    With the same wordings and draw, everybody's sentences come in the same order.

    Args:
        people: A corpus, or what has one: a run.
        individual: Whom it is about; held-out people are allowed.
        wordings: As in `Corpus.biographies`.
        draw: As there.

    Raises:
        ArgumentError: no such individual or wordings, or a draw below 0.
    """
    corpus = people if isinstance(people, Corpus) else people.corpus
    population = corpus.population
    individual = population.individual(individual)
    if wordings not in ("train", "evaluation"):
        raise ArgumentError(f"There are no wordings {wordings!r}; give 'train' or 'evaluation'.")
    if draw < 0:
        raise ArgumentError(f"draw={draw}: draws are numbered from 0.")
    batch = corpus.biographies(np.array([individual]), cast(Wordings, wordings), draw)
    values = population.facts(individual)
    starts, lengths = batch.value_start[0].tolist(), batch.value_length[0].tolist()
    marks = zip(batch.kind[0].tolist(), batch.part[0].tolist(), strict=True)
    return MapText(
        individual,
        population.name(individual),
        batch.tokens[0],
        Spans.of(batch),
        tuple(words_by_id(corpus.tokenizer, batch.tokens[0].tolist())),
        tuple(_part(kind, part) for kind, part in marks),
        tuple(
            Fact(name.replace("_", " "), values[name], start - 1, length)
            for start, length, name in sorted(zip(starts, lengths, corpus.attributes, strict=True))
            if length
        ),
        bool(population.is_held_out[individual]),
        wordings,
    )


def _part(kind: int, part: int) -> str:
    if kind == TokenKind.NAME:
        return f"{NAME_PARTS[part]} name"
    return value_part(part) if kind == TokenKind.VALUE else ""
