"""Pairs of biographies: another person in the same sentences, or another attribute of the same person."""

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer
from torch import Tensor

from interp.biographies import Batch, Corpus, SentenceForm, Spans, TokenKind
from interp.biographies.forms import BIOGRAPHY, form_number
from interp.errors import ArgumentError, NothingToMeasureError, require_known, whole_number
from interp.interventions.pairs import Pairs
from interp.knowledge import chosen_evenly, measured_individuals
from interp.torch_state import default_state

Place = Literal["first", "last", "any"]
"""Which sentence of its biography tells the fact that is asked for."""
_MOST_PAIRS = 100_000
_PAIRS_STREAM = 0x70616972  # keeps this random stream apart from those of batches


@default_state()
def swapped_people(
    corpus: Corpus,
    n: int | None = None,
    individuals: Integer[np.ndarray, " pair"] | None = None,
    others: Integer[np.ndarray, " pair"] | None = None,
    attribute: str | None = None,
    place: Place = "any",
    seed: int = 0,
    form: str = BIOGRAPHY,
) -> Pairs:
    """Another person in the same sentences: base and source differ in names and values only.

    The sentences are in evaluation wordings of the person of the base. Positions correspond token by
    token within the parts of a name, values and text, and the last token of a name's part always to
    the last. Where a value or a part is longer in one, tokens that are left over have no counterpart.

    Args:
        corpus: Of the run.
        n: So many pairs, at most 100,000; one for each of `knowledge.measured_individuals` by default.
            More than there are people repeats them, in other sentences.
        individuals: Whom the bases are about, in place of `n`; the known people in order by default.
        others: Whom the sources are about; by default another person drawn for each base, whose
            value begins with another token.
        attribute: The attribute asked for; by default all in turn, without those of which all known
            people have the same value if `others` are drawn. Nobody is asked for what they do not have.
        place: In which sentence of the biography it is told: "first" (the name has been mentioned
            once and nothing is told before), "last", or "any".
        seed: Of the draws.
        form: The form of the texts: one with a sentence for every attribute (`SentenceForm`), as "question".

    Raises:
        NothingToMeasureError: no known person has another value than a person of `individuals`, or
            somebody who is named does not have what is asked for.
        ArgumentError: nobody is named, somebody who does not exist, an unknown attribute or place, or a
            form of another kind.
        ConfigError: there is no such form, or the tokenizer does not know its words.
    """
    sentences = corpus.form(form)
    if not isinstance(sentences, SentenceForm):
        raise ArgumentError(
            f"The form {form!r} has no sentence for every attribute, of which one could be asked for; give "
            "one that has, such as biography or question."
        )
    generator = np.random.default_rng([_PAIRS_STREAM, whole_number(seed, "seed", 0)])
    has = corpus.population.values >= 0
    first = first_value_tokens(corpus)
    differing = attribute is None and others is None
    options = _differing(corpus, first) if differing else _attributes(corpus, attribute)
    able = np.asarray(has[:, options].any(axis=1))
    people = _people(corpus, n, individuals, able)
    told = has[people]
    if others is not None:
        told = told & has[_given_others(corpus, people, others)]
    asked = _in_turn(options, told)
    partners = _others(corpus, people, asked, first, others, generator)
    order = _order(asked, len(corpus.attributes), place, generator)
    wordings = _wordings(sentences, people, generator)
    number = form_number(form)
    base = sentences.exactly(people, order, wordings, number)
    source = sentences.exactly(partners, order, wordings, number)
    return _pairs(base, source, asked, asked)


@default_state()
def swapped_attributes(
    corpus: Corpus,
    n: int | None = None,
    individuals: Integer[np.ndarray, " pair"] | None = None,
    attribute: str | None = None,
    other: str | None = None,
    place: Place = "any",
    seed: int = 0,
) -> Pairs:
    """Another attribute of the same person: base and source differ in one sentence.

    That sentence tells `attribute` in the base and `other` in the source; the sentences before it
    are the same and tell neither. In it, name tokens, value tokens, the last word that tells the
    type, and the positions that predict the value correspond; other words have no counterpart.

    Arguments are those of `swapped_people`, and `other`, asked for in the source: by default the next
    attribute in order. Its sentence comes later, so that `place` may not be "last".
    """
    generator = np.random.default_rng([_PAIRS_STREAM, whole_number(seed, "seed", 0)])
    has = corpus.population.values >= 0
    options, in_source = _attributes(corpus, attribute), _attributes(corpus, other)
    either = np.union1d(options, in_source)
    if len(either) < 2:
        raise ArgumentError(
            f"attribute and other are both {corpus.attributes[either[0]]!r}; a swap needs two attributes."
        )
    able = has[:, options].any(axis=1) & has[:, in_source].any(axis=1)
    people = _people(corpus, n, individuals, able & (has[:, either].sum(axis=1) > 1))
    asked = _in_turn(options, has[people])
    if other is None:
        after = (asked[:, None] + np.arange(1, len(in_source))) % len(in_source)
        swapped = _first_told(after, has[people])
    else:
        swapped = np.full(len(people), in_source[0])
    if (asked == swapped).any():
        raise ArgumentError(
            f"attribute and other are both {corpus.attributes[int(asked[asked == swapped][0])]!r}; a swap "
            "needs two attributes."
        )
    if place == "last":
        raise ArgumentError(
            'place="last" leaves no sentence for the other attribute; choose "first" or "any".'
        )
    order = _order(asked, len(corpus.attributes), place, generator)
    rows = np.arange(len(people))
    # The other attribute's sentence comes later: it must not have been told before.
    both = np.sort([_places(order, asked), _places(order, swapped)], axis=0)
    order[rows, both] = asked, swapped
    changed = order.copy()
    changed[rows, both] = swapped, asked
    wordings = _wordings(corpus.biography, people, generator)
    base = corpus.assemble(people, order, wordings)
    source = corpus.assemble(people, changed, wordings)
    return _pairs(base, source, asked, swapped)


@default_state()
def first_value_tokens(corpus: Corpus) -> Int64[Tensor, "individual attribute"]:
    """The first token of every person's value of every attribute; -1 where there is none."""
    columns = zip(corpus.attributes, corpus.population.values.T, strict=True)
    firsts = [
        # An index of -1, for people who have no value, takes the last.
        torch.tensor([*(ids[0] for ids in corpus.value_tokens(attribute)), -1])[values]
        for attribute, values in columns
    ]
    return torch.stack(firsts, dim=1)


def _people(
    corpus: Corpus,
    n: int | None,
    individuals: Integer[np.ndarray, " pair"] | None,
    able: Bool[np.ndarray, " individual"],
) -> Integer[np.ndarray, " pair"]:
    """Whom the bases are about, out of those who have what is asked for (`able`)."""
    population = corpus.population
    if individuals is None:
        n = None if n is None else whole_number(n, "n", 1)
        if n is not None and n > _MOST_PAIRS:
            raise ArgumentError(
                f"n={n:,}: at most {_MOST_PAIRS:,} pairs fit into memory at a time; ask for fewer."
            )
        known = measured_individuals(corpus, "evaluation", n)
        if not able[known].all():
            everybody = measured_individuals(corpus, "evaluation")
            known = chosen_evenly(everybody[able[everybody]], n, alike=True)
        if not len(known):
            raise NothingToMeasureError(
                "No known person has what is asked for, so there is nobody to swap. Ask for other "
                "attributes."
            )
        return known if n is None else np.resize(known, n)
    chosen = np.asarray(individuals, dtype=np.int64)
    if n is not None and n != len(chosen):
        raise ArgumentError(
            f"n={n}, but {len(chosen)} individuals are given; leave one of them out."
        )
    _require_people(chosen, len(population), "individuals")
    if not able[chosen].all():
        lacking = int(chosen[~able[chosen]][0])
        raise NothingToMeasureError(
            f"Individual {lacking} ({population.name(lacking)}) does not have what is asked for. Leave "
            "them out, or ask for another attribute."
        )
    return chosen


def _require_people(chosen: Integer[np.ndarray, " pair"], n: int, what: str) -> None:
    if not len(chosen) or (chosen < 0).any() or (chosen >= n).any():
        raise ArgumentError(
            f"{what}={chosen[:8].tolist()} names somebody who does not exist, or nobody; there are "
            f"individuals 0 to {n - 1}."
        )


def _others(
    corpus: Corpus,
    people: Integer[np.ndarray, " pair"],
    asked: Integer[np.ndarray, " pair"],
    first: Int64[Tensor, "individual attribute"],
    others: Integer[np.ndarray, " pair"] | None,
    generator: np.random.Generator,
) -> Integer[np.ndarray, " pair"]:
    """Whom to swap with: given, or drawn among the known people whose answer differs."""
    if others is not None:
        return _given_others(corpus, people, others)
    known = np.arange(len(corpus.population))[corpus.population.trained]
    answers = first.numpy()
    partners = np.empty_like(people)
    for row, (person, attribute) in enumerate(zip(people, asked, strict=True)):
        theirs = answers[known, attribute]
        possible = known[(theirs != answers[person, attribute]) & (theirs >= 0)]
        if not len(possible):
            raise NothingToMeasureError(
                f"Nobody has another {corpus.attributes[attribute]} than individual {person}, so there is "
                "nobody to swap with. Give others, or use a larger population."
            )
        partners[row] = generator.choice(possible)
    return partners


def _given_others(
    corpus: Corpus, people: Integer[np.ndarray, " pair"], others: Integer[np.ndarray, " pair"]
) -> Integer[np.ndarray, " pair"]:
    chosen = np.asarray(others, dtype=np.int64)
    if len(chosen) != len(people):
        raise ArgumentError(f"{len(chosen)} others for {len(people)} individuals; give one each.")
    _require_people(chosen, len(corpus.population), "others")
    return chosen


def _differing(
    corpus: Corpus, first: Int64[Tensor, "individual attribute"]
) -> Integer[np.ndarray, " differing"]:
    """The attributes of which not all known people have the same first value token."""
    known = first[corpus.population.trained]
    told = known.amax(dim=0)  # a token that somebody's value begins with; -1 if nobody has one
    differ = ((known != told) & (known >= 0)).any(dim=0).nonzero()[:, 0].numpy()
    if not len(differ):
        raise NothingToMeasureError(
            "No two known people have values that begin with different tokens, so there is nobody to swap "
            "with. Use a larger population, or more values."
        )
    return differ


def _attributes(corpus: Corpus, attribute: str | None) -> Integer[np.ndarray, " option"]:
    """The attribute that is named, or all."""
    if attribute is None:
        return np.arange(len(corpus.attributes))
    require_known([attribute], corpus.attributes, "attribute")
    return np.array([corpus.attributes.index(attribute)])


def _in_turn(
    options: Integer[np.ndarray, " option"], has: Bool[np.ndarray, "pair attribute"]
) -> Integer[np.ndarray, " pair"]:
    """An attribute for each pair: the options in turn, of each the next that the pair has."""
    turns = np.arange(len(has))[:, None] + np.arange(len(options))
    return _first_told(options[turns % len(options)], has)


def _first_told(
    options: Integer[np.ndarray, "pair option"], has: Bool[np.ndarray, "pair attribute"]
) -> Integer[np.ndarray, " pair"]:
    told = np.take_along_axis(has, options, axis=1)
    lacking = ~told.any(axis=1)
    if lacking.any():
        raise NothingToMeasureError(
            f"The people of pair {int(lacking.argmax())} do not both have what is asked for. Give other "
            "people, or ask for another attribute."
        )
    first: Integer[np.ndarray, " pair"] = options[np.arange(len(has)), told.argmax(axis=1)]
    return first


def _order(
    asked: Integer[np.ndarray, " pair"], n: int, place: Place, generator: np.random.Generator
) -> Integer[np.ndarray, "pair sentence"]:
    """A random order of `n` sentences, with the one asked for at its place."""
    order = np.tile(np.arange(n), (len(asked), 1))
    generator.permuted(order, axis=1, out=order)
    require_known([place], get_args(Place), "place")
    if place == "any":
        return order
    target = 0 if place == "first" else n - 1
    rows, at = np.arange(len(asked)), _places(order, asked)
    order[rows, at] = order[:, target]
    order[:, target] = asked
    return order


def _places(
    order: Integer[np.ndarray, "pair sentence"], attributes: Integer[np.ndarray, " pair"]
) -> Integer[np.ndarray, " pair"]:
    places: Integer[np.ndarray, " pair"] = (order == attributes[:, None]).argmax(axis=1)
    return places


def _wordings(
    form: SentenceForm, people: Integer[np.ndarray, " pair"], generator: np.random.Generator
) -> Integer[np.ndarray, "pair attribute"]:
    """A template for every attribute, from those never seen with the person in training."""
    pool = form.wordings("evaluation")[people]
    chosen = generator.integers(0, pool.shape[-1], size=pool.shape[:2])[..., None]
    wordings: np.ndarray = np.take_along_axis(pool, chosen, axis=2)
    return wordings[..., 0]


def paired(base: Batch, source: Batch, asked: Integer[np.ndarray, " pair"]) -> Pairs:
    """Pairs out of two batches with the same sentences, by the attribute that is asked for in each."""
    return _pairs(base, source, asked, asked)


def _pairs(
    base: Batch,
    source: Batch,
    asked: Integer[np.ndarray, " pair"],
    asked_in_source: Integer[np.ndarray, " pair"],
) -> Pairs:
    rows = torch.arange(len(base))
    start = base.value_start[rows, torch.as_tensor(asked)]
    source_start = source.value_start[rows, torch.as_tensor(asked_in_source)]
    return Pairs(
        base.tokens, source.tokens, Spans.of(base), Spans.of(source),
        _correspondence(base, source), start - 1, source_start - 1,
        base.tokens[rows, start], source.tokens[rows, source_start],
    )  # fmt: skip


def _correspondence(base: Batch, source: Batch) -> Int64[Tensor, "pair position"]:
    """For each token of the base its counterpart in the source, -1 where it has none."""
    counterpart = torch.full_like(base.tokens, -1)
    for row in range(len(base)):
        places = {label: place for place, label in enumerate(_labels(source, row)) if label}
        for place, label in enumerate(_labels(base, row)):
            if label:
                counterpart[row, place] = places.get(label, -1)
    # In a sentence of another wording the words before the value differ, but not what they are for.
    for sentence in range(int(base.sentence.max()) + 1):
        for position_in in (_before_value, _last_type_word):
            here, there = position_in(base, sentence), position_in(source, sentence)
            rows = (here >= 0) & (there >= 0)
            free = rows.clone()
            free[rows] = counterpart[rows, here[rows]] < 0
            counterpart[free, here[free]] = there[free]
    return counterpart


def _labels(batch: Batch, row: int) -> list[tuple[int, ...] | None]:
    """What each token is, comparably between two biographies with the same sentence places."""
    counts: dict[tuple[int, ...], int] = {}
    labels: list[tuple[int, ...] | None] = []
    templates = batch.templates[row].tolist()
    fields = (batch.kind, batch.sentence, batch.attribute, batch.part)
    tokens = list(zip(*(field[row].tolist() for field in fields), strict=True))
    for place, (kind, sentence, attribute, part) in enumerate(tokens):
        if kind == TokenKind.PADDING:
            labels.append(None)
            continue
        key: tuple[int, ...] = (sentence, kind)
        if kind == TokenKind.NAME:
            key = (sentence, kind, part)
        elif kind not in (TokenKind.VALUE, TokenKind.SPECIAL):
            key = (sentence, attribute, templates[attribute], kind)
        counts[key] = counts.get(key, -1) + 1
        # Parts of names differ in length: their ends correspond, where a name is looked up.
        ends = kind == TokenKind.NAME and tokens[place][1:] != tokens[place + 1][1:]
        labels.append((*key, -1 if ends else counts[key]))
    return labels


def _before_value(batch: Batch, sentence: int) -> Int64[Tensor, " pair"]:
    is_value = (batch.kind == TokenKind.VALUE) & (batch.sentence == sentence)
    return is_value.int().argmax(dim=1) - 1


def _last_type_word(batch: Batch, sentence: int) -> Int64[Tensor, " pair"]:
    """The last type word of a sentence, -1 where it has none."""
    is_type = (batch.kind == TokenKind.TYPE) & (batch.sentence == sentence)
    places = torch.arange(batch.tokens.shape[1]).expand_as(batch.tokens)
    return places.where(is_type, -1).amax(dim=1)
