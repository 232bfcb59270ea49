"""Pairs of prompts and kinds of positions, against loops over tokens."""

from itertools import groupby
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from interp.biographies import ATTRIBUTES, N_TRAIN_TEMPLATES, Corpus, Spans, TokenKind, templates
from interp.biographies.tokenizer import encode_words
from interp.errors import ConfigError, NothingToMeasureError
from interp.interventions import (
    POSITIONS,
    Pairs,
    control_positions,
    first_value_tokens,
    position_labels,
    resolve_positions,
    swapped_attributes,
    swapped_people,
)

NAME, VALUE, TEXT, TYPE = TokenKind.NAME, TokenKind.VALUE, TokenKind.TEXT, TokenKind.TYPE
BOTH_CORPORA = pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
CHANGES: dict[str, Any] = {
    "swapped_people": swapped_people,
    "swapped_attributes": swapped_attributes,
}


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    return swapped_people(corpus, n=12)


OF_FACTS = {
    "subject": "name", "last subject token": "last name", "relation": "type words",
    "predicts answer": "predicts value", "answer": "first value token",
}  # fmt: skip


def slow_positions(pairs: Pairs, row: int) -> dict[str, set[int]]:
    """Every position kind of one pair, token by token."""
    kinds, sentences = pairs.spans.kind[row].tolist(), pairs.spans.sentence[row].tolist()
    read = int(pairs.read[row])
    own = sentences[read + 1]
    found: dict[str, set[int]] = {name: set() for name in POSITIONS}
    found |= {"first token": {0}, "predicts value": {read}, "first value token": {read + 1}}
    for sentence in range(own + 1):
        here = [t for t in range(read + 1) if sentences[t] == sentence]
        name = [t for t in here if kinds[t] == NAME]
        words = [t for t in here if kinds[t] == TYPE]
        found["every name"] |= set(name)
        found["every first name"] |= set(name[:1])
        found["every middle name"] |= set(name[1:-1])
        found["every last name"] |= set(name[-1:])
        if sentence < own:
            found["earlier names"] |= set(name)
            found["earlier last names"] |= set(name[-1:])
            found["earlier values"] |= {t for t in here if kinds[t] == VALUE}
            continue
        found["name"], found["first name"], found["last name"] = set(name), {name[0]}, {name[-1]}
        found["middle name"] = set(name[1:-1])
        found["type words"], found["type word"] = set(words), {words[-1]}
        found["text"] = {t for t in here if kinds[t] == TEXT}
    return found | {name: found[same] for name, same in OF_FACTS.items()}


@BOTH_CORPORA
@pytest.mark.parametrize("change", CHANGES)
def test_positions_equal_the_slow_reference(
    change: str, kind: str, request: pytest.FixtureRequest
) -> None:
    pairs = CHANGES[change](request.getfixturevalue(kind), n=12)
    for some in (pairs, pairs.flipped()):
        masks = resolve_positions(some, list(POSITIONS))
        assert list(masks) == list(POSITIONS)
        for row in range(len(some)):
            for name, expected in slow_positions(some, row).items():
                assert set(masks[name][row].nonzero()[:, 0].tolist()) == expected, name


def segments(corpus: Corpus, ids: list[int], spans: Spans, row: int, person: int) -> list[Any]:
    """A biography as (what, sentence, tokens): texts, and each part of a name by itself."""
    kinds, sentences = spans.kind[row].tolist(), spans.sentence[row].tolist()
    of_token = [
        (kind if kind in (NAME, VALUE) else -1, sentence)
        for kind, sentence in zip(kinds, sentences, strict=True)
        if kind != TokenKind.PADDING
    ]
    parts = [encode_words(corpus.tokenizer, [p])[0] for p in corpus.population.name(person).split()]
    found, place = [], 0
    for (what, sentence), group in groupby(of_token):
        lengths = [len(part) for part in parts] if what == NAME else [len(list(group))]
        for length in lengths:
            found.append((what, sentence, range(place, place + length)))
            place += length
        if what == NAME:
            assert ids[place - sum(lengths) : place] == [token for part in parts for token in part]
    return found


@BOTH_CORPORA
def test_people_correspond_part_by_part(kind: str, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    people, others = np.arange(10), np.arange(10)[::-1].copy()
    pairs = swapped_people(corpus, individuals=people, others=others)
    differing = 0
    for row in range(10):
        base, source = pairs.base[row].tolist(), pairs.source[row].tolist()
        mine = segments(corpus, base, pairs.spans, row, int(people[row]))
        its = segments(corpus, source, pairs.source_spans, row, int(others[row]))
        expected = [-1] * len(base)
        for (what, sentence, here), (other, place, there) in zip(mine, its, strict=True):
            assert (what, sentence) == (other, place)
            differing += len(here) != len(there)
            for index in range(min(len(here), len(there))):
                expected[here[index]] = there[index]
            if what == -1:
                assert [base[t] for t in here] == [source[t] for t in there]
            if what == NAME:  # the last token of a part is the last of its counterpart
                if len(here) > len(there):
                    expected[here[len(there) - 1]] = -1
                expected[here[-1]] = there[-1]
        assert pairs.source_position[row].tolist() == expected
        read, source_read = int(pairs.read[row]), int(pairs.source_read[row])
        assert expected[read] == source_read
        attribute = ATTRIBUTES[row % 6]
        for ids, at, answer, person in (
            (base, read, pairs.base_answer, people[row]),
            (source, source_read, pairs.source_answer, others[row]),
        ):
            value = encode_words(
                corpus.tokenizer, [corpus.population.facts(int(person))[attribute]]
            )
            assert ids[at + 1 : at + 1 + len(value[0])] == value[0]
            assert int(answer[row]) == value[0][0]
    assert differing, "there are names or values of different lengths"


@BOTH_CORPORA
def test_attributes_correspond(kind: str, request: pytest.FixtureRequest) -> None:
    """Whatever is equal before the sentence; in it, what has the same part to play."""
    corpus: Corpus = request.getfixturevalue(kind)
    pairs = swapped_attributes(corpus, n=30)
    for row in range(30):
        kinds, sentences = pairs.spans.kind[row].tolist(), pairs.spans.sentence[row].tolist()
        there = pairs.source_spans
        their_kinds, their_sentences = there.kind[row].tolist(), there.sentence[row].tolist()
        read, source_read = int(pairs.read[row]), int(pairs.source_read[row])
        own = sentences[read + 1]
        assert own == their_sentences[source_read + 1]
        begin = sentences.index(own)
        counterparts = pairs.source_position[row].tolist()
        assert counterparts[:begin] == list(range(begin)), "the same until there"
        assert torch.equal(pairs.base[row, :begin], pairs.source[row, :begin])
        inside = [t for t, sentence in enumerate(sentences) if sentence == own]
        theirs = [t for t, sentence in enumerate(their_sentences) if sentence == own]
        name = [t for t in inside if kinds[t] == NAME]
        assert [counterparts[t] for t in name] == [t for t in theirs if their_kinds[t] == NAME]
        assert counterparts[read] == source_read
        types = [t for t in inside if kinds[t] == TYPE and t != read]
        last = max(t for t in inside if kinds[t] == TYPE)
        for t in types:
            its = max(i for i in theirs if their_kinds[i] == TYPE)
            assert counterparts[t] == (its if t == last else -1)
        values = [t for t in inside if kinds[t] == VALUE]
        their_values = [t for t in theirs if their_kinds[t] == VALUE]
        assert [counterparts[t] for t in values[: len(their_values)]] == their_values[: len(values)]
        rest = set(inside) - {*name, *types, *values, read}
        assert all(counterparts[t] == -1 for t in rest)


@BOTH_CORPORA
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["any", "first", "last"])
def test_nothing_tells_the_answer_before_it_is_asked(
    place: Any, change: str, kind: str, request: pytest.FixtureRequest
) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    if (change, place) == ("swapped_attributes", "last"):
        with pytest.raises(ConfigError, match="no sentence"):
            swapped_attributes(corpus, n=6, place="last")
        return
    pairs = CHANGES[change](corpus, n=18, place=place)
    known = corpus.population.config.n_individuals
    for row in range(18):
        asked = {row % 6} if change == "swapped_people" else {row % 6, (row + 1) % 6}
        sentences, kinds = pairs.spans.sentence[row], pairs.spans.kind[row]
        told = int(sentences[pairs.read[row] + 1])
        assert place == "any" or told == {"first": 0, "last": 5}[place]
        facts = corpus.population.facts(row % known)
        tokens = [encode_words(corpus.tokenizer, [facts[name]])[0] for name in ATTRIBUTES]
        others = [tokens[index] for index in range(6) if index not in asked]
        # What stands before the sentence is the values of other attributes, each once.
        for sentence in range(told):
            value = pairs.base[row, (sentences == sentence) & (kinds == VALUE)].tolist()
            assert value in others
            others.remove(value)
        before = pairs.base[row, : pairs.read[row] + 1]
        assert int((kinds[: len(before)] == VALUE).sum()) == sum(
            int(((sentences == sentence) & (kinds == VALUE)).sum()) for sentence in range(told)
        )
    if change == "swapped_people":
        assert pairs.differ.all()


def test_wordings_are_those_of_evaluation(corpus: Corpus) -> None:
    people = corpus.population
    pairs = swapped_people(corpus, n=12, place="first")
    for row in range(12):
        attribute = row % 6
        pool = people.wordings[row, attribute, N_TRAIN_TEMPLATES:]
        first = pairs.base[row, pairs.spans.sentence[row] == 0]
        said = corpus.tokenizer.decode(first)
        name, value = people.name(row), people.facts(row)[ATTRIBUTES[attribute]]
        squeezed = "".join(said.split())
        possible = [
            "".join(templates()[ATTRIBUTES[attribute]][i].render(name, value).split()) for i in pool
        ]
        assert squeezed in possible


@BOTH_CORPORA
@pytest.mark.parametrize("change", CHANGES)
def test_flipped(change: str, kind: str, request: pytest.FixtureRequest) -> None:
    pairs = CHANGES[change](request.getfixturevalue(kind), n=30)
    back = pairs.flipped()
    assert torch.equal(back.base, pairs.source)
    assert torch.equal(back.source, pairs.base)
    assert torch.equal(back.read, pairs.source_read)
    assert torch.equal(back.base_answer, pairs.source_answer)
    for row in range(30):
        expected = [-1] * back.base.shape[1]
        for place, there in enumerate(pairs.source_position[row].tolist()):
            if there >= 0:
                expected[there] = max(expected[there], place)
        assert back.source_position[row].tolist() == expected
    rows = torch.arange(30)
    assert torch.equal(back.source_position[rows, back.read], pairs.read)
    again = back.flipped()
    assert torch.equal(again.base, pairs.base)
    assert torch.equal(again.spans.kind, pairs.spans.kind)
    assert torch.equal(again.source_read, pairs.source_read)
    if change == "swapped_people":
        assert torch.equal(again.source_position, pairs.source_position)
    else:  # of two positions with one counterpart the last keeps it
        lost = again.source_position != pairs.source_position
        assert (again.source_position[lost] == -1).all()
        assert lost.sum() < 30


def test_choices(corpus: Corpus) -> None:
    n_known = corpus.population.config.n_individuals
    assert len(swapped_people(corpus)) == n_known
    more = swapped_people(corpus, n=n_known + 3)
    width = min(int(more.read[0]), int(more.read[n_known]))
    assert not torch.equal(more.base[0, :width], more.base[n_known, :width])
    one = swapped_people(corpus, n=6, attribute="university", seed=3)
    first = first_value_tokens(corpus)
    assert first.shape == (len(corpus.population), 6)
    university = ATTRIBUTES.index("university")
    assert torch.equal(one.base_answer, first[:6, university])
    again = swapped_people(corpus, n=6, attribute="university", seed=3)
    assert torch.equal(one.base, again.base)
    assert torch.equal(one.source, again.source)
    other = swapped_people(corpus, n=6, attribute="university", seed=4)
    assert not torch.equal(one.base_answer, other.source_answer)
    held_out = np.arange(len(corpus.population))[corpus.population.held_out][:2]
    unknown = swapped_people(corpus, individuals=held_out)
    assert torch.equal(unknown.base_answer, torch.stack([first[held_out[i], i] for i in (0, 1)]))
    swap = swapped_attributes(corpus, n=4, attribute="major", other="company")
    assert torch.equal(swap.base_answer, first[:4, ATTRIBUTES.index("major")])
    assert torch.equal(swap.source_answer, first[:4, ATTRIBUTES.index("company")])
    assert swap.differ.all()


def test_parts_of_pairs(pairs: Pairs) -> None:
    few = pairs[2:5]
    assert len(few) == 3
    assert torch.equal(few.base, pairs.base[2:5])
    assert torch.equal(few.source_spans.kind, pairs.source_spans.kind[2:5])
    chosen = pairs.read > pairs.read.median()
    assert torch.equal(pairs[chosen].read, pairs.read[chosen])
    assert torch.equal(pairs.to("cpu").source_position, pairs.source_position)
    with pytest.raises(ConfigError, match="There are no pairs"):
        pairs[:0]


def test_controls_are_text_that_tells_nothing(pairs: Pairs) -> None:
    like = resolve_positions(pairs, "every name")["every name"]
    chosen = control_positions(pairs, like)
    places = torch.arange(like.shape[1])
    plain = pairs.spans.is_kind(TEXT, TokenKind.PUNCTUATION) & (places < pairs.read[:, None])
    assert not (chosen & ~plain).any()
    assert not (chosen & like).any()
    assert torch.equal(chosen.sum(1), torch.minimum(like.sum(1), plain.sum(1)))
    assert torch.equal(chosen, control_positions(pairs, like))
    assert not torch.equal(chosen, control_positions(pairs, like, seed=1))


def test_labels_of_single_positions(corpus: Corpus) -> None:
    alike = swapped_people(corpus, individuals=np.zeros(3, dtype=int), attribute="major")
    one = alike[:1]
    labels = position_labels(one, corpus.tokenizer)
    assert len(set(labels)) == len(labels) == one.base.shape[1]
    read, last = (
        int(one.read[0]),
        int(resolve_positions(one, "last name")["last name"].nonzero()[0, 1]),
    )
    word = corpus.tokenizer.convert_ids_to_tokens(int(one.base[0, last]))
    assert labels[last] == f"{last} {word} · last name"
    assert labels[read].endswith("predicts value") or labels[read].endswith("name")
    assert labels[read + 1].endswith("first value token")
    assert labels[0] == "0 <bos>"
    mixed = position_labels(swapped_people(corpus, n=12), corpus.tokenizer)
    assert mixed[0] == "0 <bos>"
    assert mixed[30] == "30"
    assert position_labels(one)[last] == f"{last} · last name"
    each = resolve_positions(one, ("each", "last name"), corpus.tokenizer)
    assert list(each) == [*labels, "last name"]
    assert all(each[label].nonzero().tolist() == [[0, i]] for i, label in enumerate(labels))


def test_positions_of_ones_own(pairs: Pairs) -> None:
    mask = torch.rand(pairs.base.shape) > 0.5
    found = resolve_positions(pairs, {"mine": mask, "read": pairs.read})
    assert torch.equal(found["mine"], mask)
    assert torch.equal(found["read"], resolve_positions(pairs, "predicts value")["predicts value"])


def changed(pairs: Pairs, **parts: Any) -> Pairs:
    names = pairs.__dataclass_fields__
    return Pairs(**({name: getattr(pairs, name) for name in names} | parts))


def test_errors_of_pairs(corpus: Corpus, pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    # In use nobody checks types and shapes before the function does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    n, width = pairs.base.shape
    cases: list[tuple[str, dict[str, Tensor]]] = [
        (r"read has the shape \(3,\), expected \(12,\)", {"read": pairs.read[:3]}),
        ("source_position has the shape", {"source_position": pairs.source_position[:, 1:]}),
        ("base_answer has the shape", {"base_answer": pairs.base_answer[:, None]}),
        (f"read holds the position {width}", {"read": torch.full((n,), width)}),
        ("source_read holds the position -1", {"source_read": torch.full((n,), -1)}),
        (
            "source_position holds 10.* the source has positions 0 to",
            {"source_position": pairs.source_position + 1000},
        ),
        ("there are 12 bases", {"source": pairs.source[:5]}),
    ]
    for message, parts in cases:
        with pytest.raises(ConfigError, match=message):
            changed(pairs, **parts)
    with pytest.raises(ConfigError, match="spans has the shape"):
        changed(pairs, spans=Spans(pairs.spans.kind[:2], pairs.spans.sentence[:2]))
    with pytest.raises(ConfigError, match="position by position"):
        Pairs.of_tokens(pairs.base, pairs.base[:, 1:], pairs.spans, 3, 4, 5)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ("swapped_people", {"attribute": "majr"}, r"'majr'.*'major'"),
        ("swapped_people", {"place": "middle"}, "There is no place 'middle'"),
        ("swapped_people", {"n": 0}, "n=0"),
        ("swapped_people", {"n": 3, "individuals": np.arange(4)}, "leave one of them out"),
        ("swapped_people", {"individuals": np.array([10**6])}, "does not exist"),
        ("swapped_people", {"individuals": np.array([], dtype=int)}, "does not exist, or nobody"),
        ("swapped_people", {"n": 2, "others": np.arange(3)}, "3 others for 2 individuals"),
        ("swapped_people", {"n": 1, "others": np.array([-1])}, "does not exist"),
        ("swapped_attributes", {"attribute": "major", "other": "major"}, "are both 'major'"),
        ("swapped_attributes", {"other": "majr"}, "no attribute 'majr'"),
        ("swapped_attributes", {"attribute": "major", "place": "last"}, "leaves no sentence"),
        ("swapped_attributes", {"attribute": "major", "place": "end"}, "There is no place 'end'"),
    ],
)
def test_errors_of_swaps(
    change: str,
    settings: dict[str, Any],
    message: str,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        CHANGES[change](corpus, **settings)


def test_nobody_to_swap_with(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    values = corpus.population.values.copy()
    values[:, ATTRIBUTES.index("major")] = 0
    monkeypatch.setitem(corpus.population.__dict__, "values", values)
    with pytest.raises(NothingToMeasureError, match=r"another major.*individual 0"):
        swapped_people(corpus, n=1, attribute="major")
    majors = set(first_value_tokens(corpus)[:, ATTRIBUTES.index("major")].tolist())
    pairs = swapped_people(corpus, n=12)  # asked for the five others
    assert not majors & set(pairs.base_answer.tolist())
    monkeypatch.setitem(corpus.population.__dict__, "values", values * 0)
    with pytest.raises(NothingToMeasureError, match="nobody to swap with"):
        swapped_people(corpus, n=12)
