"""Biographies as texts of the attention view."""

from typing import Protocol, cast, runtime_checkable

import numpy as np

from interp.biographies import NAME_PARTS, Corpus, Spans, TokenKind, Wordings
from interp.biographies.forms import BIOGRAPHY
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
    people: Corpus | HasCorpus,
    individual: int,
    wordings: str = "evaluation",
    draw: int = 0,
    form: str = BIOGRAPHY,
    number: int | None = None,
) -> MapText:
    """One biography of a person, or another form of text about them.

    With the same wordings and draw, everybody's sentences come in the same order.

    Args:
        people: A corpus, or what has one: a run.
        individual: Whom it is about; held-out people are allowed.
        wordings: As in `Corpus.biographies`.
        draw: As there.
        form: One of `interp.biographies.FORMS`.
        number: By which the view asks for it; the individual by default.

    Raises:
        ArgumentError: no such individual or wordings, or a draw below 0.
        ConfigError: no such form, or the tokenizer does not know its words.
    """
    corpus = people if isinstance(people, Corpus) else people.corpus
    population = corpus.population
    individual = population.individual(individual)
    if wordings not in ("train", "evaluation"):
        raise ArgumentError(f"There are no wordings {wordings!r}; give 'train' or 'evaluation'.")
    if draw < 0:
        raise ArgumentError(f"draw={draw}: draws are numbered from 0.")
    batch = corpus.sequences(np.array([individual]), form, cast(Wordings, wordings), draw)
    starts, lengths = batch.value_start[0].tolist(), batch.value_length[0].tolist()
    facts = population.facts(individual)
    tokens, numbers = batch.tokens[0].tolist(), batch.answer[0].tolist()
    told = sorted(
        (start, length, attribute)
        for start, length, attribute in zip(starts, lengths, corpus.attributes, strict=True)
        if length and numbers[start] >= 0
    )
    if not told and max(numbers) >= 0:  # what is to be recalled is the name
        told = [(numbers.index(0), numbers.count(0), "name")]
    marks = zip(batch.kind[0].tolist(), batch.part[0].tolist(), strict=True)
    return MapText(
        individual if number is None else number,
        population.name(individual) + ("" if form == BIOGRAPHY else f" ({form.replace('_', ' ')})"),
        batch.tokens[0],
        Spans.of(batch),
        tuple(words_by_id(corpus.tokenizer, tokens)),
        tuple(_part(kind, part) for kind, part in marks),
        tuple(
            Fact(
                attribute.replace("_", " "),
                facts[attribute]
                if form == BIOGRAPHY
                else str(corpus.tokenizer.decode(tokens[start : start + length])),
                start - 1,
                length,
            )
            for start, length, attribute in told
        ),
        bool(population.is_held_out[individual]),
        wordings if form == BIOGRAPHY else None,
    )


def _part(kind: int, part: int) -> str:
    if kind == TokenKind.NAME:
        return f"{NAME_PARTS[part]} name"
    return value_part(part) if kind == TokenKind.VALUE else ""
