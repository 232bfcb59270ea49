"""Batches and their spans, against a reference that goes through a biography token by token."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.biographies import (
    ATTRIBUTES,
    NAME_PARTS,
    Batch,
    Corpus,
    TokenKind,
    name_pools,
    templates,
    value_pools,
)
from interp.biographies.sampling import power_law
from interp.biographies.tokenizer import words
from interp.config import Config
from interp.errors import ConfigError

PER_TOKEN = ("tokens", "kind", "attribute", "sentence", "part")
fixed = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def assert_same(ours: Batch, theirs: Batch) -> None:
    for field in fields(Batch):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert a.dtype == b.dtype, field.name
        assert torch.equal(a, b), field.name


def reference(
    corpus: Corpus, individual: int, order: list[int], wordings: list[int]
) -> dict[str, list[int]]:
    """One biography, slowly: a list per field, one entry a token or one an attribute."""
    people, tokenizer = corpus.population, corpus.tokenizer
    parts = people.name(individual).split()  # every name is one word
    facts = people.facts(individual)
    bio: dict[str, list[int]] = {name: [] for name in PER_TOKEN}
    spans = {name: [0] * 6 for name in ("name_start", "name_length", "value_start", "value_length")}

    def add(word: str, kind: int, attribute: int, sentence: int, part: int) -> int:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        for token in ids:
            for name, value in zip(
                PER_TOKEN, (token, kind, attribute, sentence, part), strict=True
            ):
                bio[name].append(value)
        return len(ids)

    add("<bos>", TokenKind.SPECIAL, -1, -1, -1)
    for sentence, attribute in enumerate(order):
        for kind, text in templates()[ATTRIBUTES[attribute]][wordings[attribute]].parts:
            here = len(bio["tokens"])
            if kind == "name":
                spans["name_start"][attribute] = here
                for part in range(len(NAME_PARTS)):
                    length = add(parts[part], TokenKind.NAME, attribute, sentence, part)
                    spans["name_length"][attribute] += length
            elif kind == "value":
                spans["value_start"][attribute] = here
                length = add(facts[ATTRIBUTES[attribute]], TokenKind.VALUE, attribute, sentence, -1)
                spans["value_length"][attribute] = length
                bio["part"][here:] = list(range(length))
            else:
                of_words = TokenKind.TYPE if kind == "type" else TokenKind.TEXT
                for word in words(text):
                    is_mark = word in set(".,:;")
                    of_word = TokenKind.PUNCTUATION if is_mark else of_words
                    add(word, of_word, attribute, sentence, -1)
    return {**bio, **spans, "templates": wordings}


@st.composite
def biographies(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[list[int]]]:
    size = draw(st.integers(1, 4))
    people = draw(st.lists(st.integers(0, 31), min_size=size, max_size=size))
    order = [draw(st.permutations(range(6))) for _ in people]
    one = st.lists(st.integers(0, 24), min_size=6, max_size=6)
    return people, order, [draw(one) for _ in people]


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
@fixed
@given(drawn=biographies())
def test_spans_equal_the_reference(
    drawn: tuple[list[int], list[list[int]], list[list[int]]],
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    people, order, wordings = drawn
    batch = corpus.assemble(np.array(people), np.array(order), np.array(wordings))
    assert batch.individuals.tolist() == people
    expected = [reference(corpus, *one) for one in zip(people, order, wordings, strict=True)]
    width = max(len(bio["tokens"]) for bio in expected)
    assert batch.tokens.shape == (len(people), width)
    assert width <= corpus.longest
    padding = {"tokens": corpus.tokenizer.pad_token_id, "kind": int(TokenKind.PADDING)}
    for row, bio in enumerate(expected):
        for name, values in bio.items():
            missing = width - len(values) if name in PER_TOKEN else 0
            filled = [*values, *[padding.get(name, -1)] * missing]
            assert getattr(batch, name)[row].tolist() == filled, name
        ends = [s + n - 1 for s, n in zip(bio["name_start"], bio["name_length"], strict=True)]
        assert batch.name_end[row].tolist() == ends


@fixed
@given(drawn=biographies(), start=st.integers(0, 3), length=st.integers(1, 4))
def test_slicing_equals_assembling(
    drawn: tuple[list[int], list[list[int]], list[list[int]]],
    start: int,
    length: int,
    corpus: Corpus,
) -> None:
    people, order, wordings = (np.array(part) for part in drawn)
    rows = slice(min(start, len(people) - 1), start + length)
    whole = corpus.assemble(people, order, wordings)
    assert_same(whole[rows], corpus.assemble(people[rows], order[rows], wordings[rows]))


def test_split_covers_everything(corpus: Corpus) -> None:
    batch = corpus.batch(0, 10)
    parts = list(batch.split(4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.cat([part.individuals for part in parts]).equal(batch.individuals)
    assert_same(parts[1], batch[4:8])


def test_a_batch_depends_on_the_step_only(smoke: Config) -> None:
    first, second = Corpus.from_config(smoke), Corpus.from_config(smoke)
    forwards = [first.batch(step, 8) for step in range(4)]
    second.biographies(slice(0, 5))
    backwards = [second.batch(step, 8) for step in reversed(range(4))]
    for ours, theirs in zip(forwards, reversed(backwards), strict=True):
        assert_same(ours, theirs)


def test_batches_differ_between_steps_and_seeds(smoke: Config, corpus: Corpus) -> None:
    other = Corpus.from_config(smoke.with_settings(**{"training.seed": 1}))
    assert other.population.fingerprint() == corpus.population.fingerprint()
    here, next_step, other_seed = corpus.batch(0, 8), corpus.batch(1, 8), other.batch(0, 8)
    assert not torch.equal(here.templates, next_step.templates)
    assert not torch.equal(here.templates, other_seed.templates)


def test_measuring_biographies_are_the_same_every_time(corpus: Corpus) -> None:
    people = np.array([3, 3, 9])
    assert_same(corpus.biographies(people), corpus.biographies(people))
    other = corpus.biographies(people, draw=1)
    assert not torch.equal(other.templates, corpus.biographies(people).templates)
    assert_same(corpus.biographies(slice(2, 4)), corpus.biographies(np.array([2, 3])))


def wordings_of(corpus: Corpus, batch: Batch, which: str) -> np.ndarray:
    """Which of the batch's wordings are among the people's `which` ones."""
    pool = getattr(corpus.population, f"{which}_wordings")[batch.individuals.numpy()]
    return (pool == batch.templates.numpy()[..., None]).any(-1)


def test_training_shows_nobody_held_out_and_no_evaluation_wording(corpus: Corpus) -> None:
    people = set()
    for step in range(100):
        batch = corpus.batch(step, 16)
        people |= set(batch.individuals.tolist())
        assert wordings_of(corpus, batch, "train").all()
        assert not wordings_of(corpus, batch, "evaluation").any()
    assert people == set(range(24))


def test_evaluation_uses_evaluation_wordings_only(corpus: Corpus) -> None:
    for draw in range(10):
        batch = corpus.biographies(slice(None), draw=draw)
        assert wordings_of(corpus, batch, "evaluation").all()
        assert wordings_of(corpus, corpus.biographies(slice(None), "train", draw), "train").all()


def test_every_order_and_wording_comes(corpus: Corpus) -> None:
    batch = corpus.batch(0, 4096)
    first = batch.name_start.argmin(dim=1).bincount(minlength=6)
    assert first.min() > 0.1 * 4096
    sentence = batch.sentence[torch.arange(4096)[:, None], batch.value_start]
    assert sentence.sort(dim=1).values.equal(torch.arange(6, dtype=torch.int8).expand(4096, 6))
    assert len({tuple(row) for row in sentence.tolist()}) > 700  # of 720
    everything = {(a, t) for row in batch.templates.tolist() for a, t in enumerate(row)}
    assert len(everything) == 150


def test_power_law_reaches_the_batches(smoke: Config, corpus: Corpus) -> None:
    zipf = Corpus(corpus.population, corpus.tokenizer, power_law(24, exponent=2.0))
    counts = np.bincount(zipf.batch(0, 2000).individuals, minlength=32)
    assert counts[0] > 0.5 * 2000
    assert counts[24:].sum() == 0


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_padding_is_on_the_right_only(kind: str, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    batch = corpus.batch(0, 64)
    is_padding = batch.kind == TokenKind.PADDING
    assert torch.equal(is_padding, batch.tokens == corpus.tokenizer.pad_token_id)
    assert torch.equal(is_padding, is_padding.cummax(dim=1).values)
    assert not is_padding[:, -1].all()
    assert (batch.tokens[:, 0] == corpus.tokenizer.bos_token_id).all()


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_longest_is_attained(kind: str, request: pytest.FixtureRequest) -> None:
    """By somebody with the longest names and values, in the longest wordings."""
    corpus: Corpus = request.getfixturevalue(kind)
    people = corpus.population

    def n_tokens(text: str) -> int:
        return len(corpus.tokenizer(text, add_special_tokens=False)["input_ids"])

    def longest(texts: tuple[str, ...]) -> int:
        return int(np.argmax([n_tokens(text) for text in texts]))

    names, values = people.names.copy(), people.values.copy()
    names[0] = [longest(pool) for pool in name_pools(people.config)]
    values[0] = [longest(pool) for pool in value_pools(people.config).values()]
    wordings = [longest(tuple(t.render("", "") for t in templates()[a])) for a in ATTRIBUTES]
    extreme = Corpus(replace(people, names=names, values=values), corpus.tokenizer)
    batch = extreme.assemble(np.array([0]), np.arange(6)[None], np.array([wordings]))
    assert batch.tokens.shape[1] == extreme.longest == corpus.longest


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_longest_is_never_exceeded(kind: str, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    assert max(corpus.batch(step, 256).tokens.shape[1] for step in range(10)) <= corpus.longest


def test_a_context_too_short_is_refused(smoke: Config, corpus: Corpus) -> None:
    n = corpus.longest
    with pytest.raises(ConfigError, match=rf"{n} tokens.*context is {n - 1}.*model\.n_ctx to {n}"):
        Corpus.from_config(smoke.with_settings(**{"model.n_ctx": n - 1}))
    Corpus.from_config(smoke.with_settings(**{"model.n_ctx": n}))


def test_value_tokens(corpus: Corpus) -> None:
    for attribute, pool in value_pools(corpus.population.config).items():
        decoded = [corpus.tokenizer.decode(ids) for ids in corpus.value_tokens(attribute)]
        assert decoded == list(pool)
