from pathlib import Path

import numpy as np
import pytest

from interp.biographies import (
    ATTRIBUTES,
    Batch,
    Corpus,
    Population,
    build_tokenizer,
    load_tokenizer,
    name_pools,
    templates,
    value_pools,
    vocabulary,
)
from interp.biographies.tokenizer import SPECIAL_TOKENS, words
from interp.config import Config, TokenizerConfig
from interp.errors import RunError
from interp.model import hooked_transformer


def rendered(corpus: Corpus, batch: Batch, row: int) -> str:
    """A biography as plain text, from the templates and the person's facts."""
    individual = int(batch.individuals[row])
    name, facts = corpus.population.name(individual), corpus.population.facts(individual)
    order = np.argsort(batch.name_start[row].numpy())
    return " ".join(
        templates()[ATTRIBUTES[a]][int(batch.templates[row, a])].render(name, facts[ATTRIBUTES[a]])
        for a in order
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("born in 1990.", ["born", "in", "1990", "."]),
        ("Ada's home, today", ["Ada", "'s", "home", ",", "today"]),
        ("O'Sullivan moved", ["O'Sullivan", "moved"]),
        ("a: b; c", ["a", ":", "b", ";", "c"]),
    ],
)
def test_words(text: str, expected: list[str], corpus: Corpus) -> None:
    assert words(text) == expected
    pieces = corpus.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [piece for piece, _ in pieces] == expected


def test_vocabulary_is_exactly_what_the_population_needs(smoke: Config, corpus: Corpus) -> None:
    needed = {
        w for group in templates().values() for t in group for _, p in t.parts for w in words(p)
    }
    for pool in (*name_pools(smoke.population), *value_pools(smoke.population).values()):
        needed |= {word for entry in pool for word in words(entry)}
    listed = vocabulary(corpus.population.lexicon)
    assert tuple(listed[:3]) == SPECIAL_TOKENS
    assert len(set(listed)) == len(listed)
    assert set(listed[3:]) == needed
    assert corpus.tokenizer.get_vocab() == {word: i for i, word in enumerate(listed)}


def test_year_and_full_stop_are_two_tokens(corpus: Corpus) -> None:
    assert corpus.tokenizer.tokenize("born on 3 May 1905.") == [
        "born", "on", "3", "May", "1905", ".",
    ]  # fmt: skip


def test_special_tokens(corpus: Corpus) -> None:
    tokenizer = corpus.tokenizer
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer("born")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.tokenize("Rumpelstiltskin") == ["<unk>"]
    assert tokenizer.padding_side == "right"


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_biographies_round_trip(kind: str, request: pytest.FixtureRequest) -> None:
    """Every template with its people, to tokens and back to the same text."""
    corpus: Corpus = request.getfixturevalue(kind)
    seen = set()
    for step in range(10):
        batch = corpus.batch(step, 16)
        for row in range(len(batch)):
            text = rendered(corpus, batch, row)
            ids = corpus.tokenizer(text)["input_ids"]
            tokens = batch.tokens[row].tolist()
            assert tokens[: len(ids)] == ids
            assert set(tokens[len(ids) :]) <= {corpus.tokenizer.pad_token_id}
            assert corpus.tokenizer.decode(tokens, skip_special_tokens=True) == text
        seen |= {(a, int(t)) for row in batch.templates for a, t in enumerate(row)}
    assert len(seen) == 150


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_save_and_load(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tokenizer = request.getfixturevalue(kind).tokenizer
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "Ada was born on 3 May 1905."
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.all_special_tokens == tokenizer.all_special_tokens


def test_load_refuses_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_load_refuses_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(RunError, match="cannot be read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("saved", [False, True])
def test_model_tokenizes_as_the_corpus(
    smoke: Config, corpus: Corpus, batch: Batch, saved: bool, tmp_path: Path
) -> None:
    tokenizer = corpus.tokenizer
    if saved:  # TransformerLens loads it again from its folder then
        tokenizer.save_pretrained(tmp_path)
        tokenizer = load_tokenizer(tmp_path)
    model = hooked_transformer(smoke, tokenizer)
    texts = [rendered(corpus, batch, row) for row in range(len(batch))]
    assert model.to_tokens(texts).tolist() == batch.tokens.tolist()
    strings = model.to_str_tokens(texts[0])
    assert strings == ["<bos>", *words(texts[0])]
    assert strings == model.to_str_tokens(batch.tokens[0, : len(strings)])


def test_bpe_cuts_words_and_never_crosses_them(bpe_corpus: Corpus) -> None:
    tokenizer = bpe_corpus.tokenizer
    assert len(tokenizer) == 200
    pools = value_pools(bpe_corpus.population.config)
    assert any(len(ids) > 3 for ids in bpe_corpus.value_tokens("university"))
    for attribute in ATTRIBUTES:
        for value, ids in zip(pools[attribute], bpe_corpus.value_tokens(attribute), strict=True):
            assert tokenizer.decode(ids) == value
            assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("size", [128, 1024])
def test_bpe_is_the_same_every_time(smoke: Config, size: int) -> None:
    """A resumed run builds its tokenizer again."""
    config = TokenizerConfig(kind="bpe", bpe_vocabulary=size)
    lexicon = Population.of(smoke).lexicon
    built = [build_tokenizer(lexicon, config).backend_tokenizer.to_str() for _ in range(4)]
    assert len(set(built)) == 1
