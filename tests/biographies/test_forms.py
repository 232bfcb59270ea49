"""Every form against a slow reference that writes down, token by token, what the form is to be."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from interp import preset
from interp.biographies import (
    FORMS,
    Batch,
    Corpus,
    Lexicon,
    Population,
    SentenceForm,
    Spans,
    Template,
    TokenKind,
    build_tokenizer,
    load_tokenizer,
    position_masks,
    save_tokenizer,
)
from interp.biographies.forms import form_texts
from interp.biographies.forms.phrases import N_LANGUAGES, person_word, translated
from interp.biographies.tokenizer import PUNCTUATION, words
from interp.config import Config, PopulationConfig, TokenizerConfig
from interp.errors import ConfigError

KINDS = {
    "name": TokenKind.NAME,
    "value": TokenKind.VALUE,
    "text": TokenKind.TEXT,
    "type": TokenKind.TYPE,
}
Piece = tuple[str, str, int, int, int]  # text, kind, sentence, attribute, answer


@pytest.fixture(scope="module")
def forms_config() -> Config:
    return preset("smoke", **{"data.vocabulary": tuple(FORMS)})


@pytest.fixture(scope="module")
def every(forms_config: Config) -> Corpus:
    return Corpus.from_config(forms_config)


def people_of(seed: int, *, missing: bool) -> Population:
    """Random people with odd names, of one to four words, and values of one to six tokens."""
    rng = np.random.default_rng(seed)
    letters = list("abcdé̈ßðøŁяжДΩλ中文かな한글")

    def word() -> str:
        return "".join(rng.choice(letters, size=rng.integers(1, 6)))

    def distinct(n: int, longest: int, used: set[str]) -> tuple[str, ...]:
        found: list[str] = []
        while len(found) < n:
            text = " ".join(word() for _ in range(rng.integers(1, longest + 1)))
            if text not in used:
                used.add(text)
                found.append(text)
        return tuple(found)

    n, n_attributes = 7, int(rng.integers(1, 5))
    used: set[str] = set()
    first, last = distinct(5, 1, used), distinct(8, 1, used)
    middle = ("", *distinct(3, 2, used))
    attributes = [f"thing_{i}" for i in range(n_attributes)]
    values = {a: distinct(int(rng.integers(2, 6)), 6, used) for a in attributes}
    wordings = {
        a: tuple(
            Template.parse(t)
            for t in (
                f"{{name}}'s <{a}> is {{value}}.",
                f"Of {{name}}, the <{a}>: {{value}}, you see.",
            )
        )
        for a in attributes
    }
    questions = {
        a: (Template.parse(f"What is <{a}> of {{name}}? Answer: {{value}}."),) for a in attributes
    }
    lexicon = Lexicon((("", *first), middle, last), values, wordings, questions, 1)  # fmt: skip
    shape = (n, n_attributes)
    names = np.stack([rng.integers(0, len(p), n) for p in lexicon.names], 1).astype(np.int32)
    own = np.stack([rng.integers(0, len(p), n) for p in values.values()], 1).astype(np.int32)
    if missing:
        own[rng.random(shape) < 0.3] = -1
    order = rng.permuted(np.tile(np.arange(2, dtype=np.uint8), (*shape, 1)), axis=-1)
    return Population(
        PopulationConfig(n_individuals=n - 2, n_held_out=2), names, own, order, lexicon
    )


def corpus_of(population: Population, names: Sequence[str]) -> Corpus:
    more = form_texts(names, population.lexicon, len(population))
    return Corpus(population, build_tokenizer(population.lexicon, TokenizerConfig(), more))


def reference(corpus: Corpus, form: str, batch: Batch, row: int) -> list[Piece]:
    """What a sequence is to be, in words: of every piece its text, kind, sentence, attribute, answer."""
    people, person = corpus.population, int(batch.individuals[row])
    lexicon, attributes = people.lexicon, people.attributes
    parts = [pool[i] for pool, i in zip(lexicon.names, people.names[person], strict=True)]
    facts = people.facts(person)
    has = [a for a in range(len(attributes)) if attributes[a] in facts]
    told: list[Piece] = []
    starts = batch.value_start[row]
    order = sorted(has, key=lambda a: int(starts[a]))
    sentence_of = {a: int(batch.sentence[row, starts[a]]) for a in has if starts[a] >= 0}
    if form in ("biography", "question", "triple", "reordered_name"):
        made = corpus.form(form)
        assert isinstance(made, SentenceForm)
        for a in order:
            s = sentence_of[a]
            template = made.templates(lexicon)[attributes[a]][int(batch.templates[row, a])]
            for kind, text in template.parts:
                if kind == "name":
                    if form == "reordered_name":
                        told.append((parts[2], "name", s, a, -1))
                        if parts[0] or parts[1]:
                            told.append((",", "text", s, a, -1))
                        told += [(part, "name", s, a, -1) for part in parts[:2]]
                    else:
                        told += [(part, "name", s, a, -1) for part in parts]
                elif kind == "value":
                    told.append((facts[attributes[a]], "value", s, a, s))
                else:
                    told.append((text, kind, s, a, -1))
        return told
    if form in ("mnemonic", "fused", "polyglot"):
        first = int(
            batch.attribute[row, 1]
        )  # the attribute that would come first, had the person one
        named = [person_word(person)] if form == "fused" else parts
        told = [(part, "name", 0, first, -1) for part in named]
        for a in order:
            value = facts[attributes[a]]
            if form == "polyglot":
                at = int(starts[a])
                shown = corpus.tokenizer.decode(
                    batch.tokens[row, at : at + int(batch.value_length[row, a])]
                )
                versions = [translated(value, language) for language in range(N_LANGUAGES)]
                value = next(v for v in versions if " ".join(words(v)) == " ".join(words(shown)))
            told.append((value, "value", sentence_of[a], a, sentence_of[a]))
        return told
    if form == "inverse":
        told = [("Who has", "text", 0, -1, -1)]
        for i, a in enumerate(order):
            told += [(",", "text", 0, a, -1)] * (i > 0)
            told += [("the", "text", 0, a, -1), (attributes[a].replace("_", " "), "type", 0, a, -1)]
            told.append((facts[attributes[a]], "value", 0, a, -1))
        told.append(("? Answer:", "text", 0, -1, -1))
        told += [(part, "name", 0, -1, 0) for part in parts]
        return [*told, (".", "text", 0, -1, -1)]
    raise AssertionError(form)


def check(corpus: Corpus, form: str, batch: Batch) -> None:
    """A batch against the reference, every mask of it."""
    tokenizer = corpus.tokenizer
    for row in range(len(batch)):
        tokens, kinds, sentences, attributes, answers = (
            [tokenizer.bos_token_id],
            [1],
            [-1],
            [-1],
            [-1],
        )
        parts: list[int | None] = [-1]
        for text, kind, sentence, attribute, answer in reference(corpus, form, batch, row):
            place = 0
            for word in words(text):
                for token in tokenizer(word, add_special_tokens=False)["input_ids"]:
                    tokens.append(token)
                    is_mark = word in PUNCTUATION and kind in ("text", "type")
                    kinds.append(int(TokenKind.PUNCTUATION if is_mark else KINDS[kind]))
                    sentences.append(sentence)
                    attributes.append(attribute)
                    answers.append(answer)
                    parts.append(place if kind == "value" else None if kind == "name" else -1)
                    place += 1
        n = len(tokens)
        assert batch.tokens[row, :n].tolist() == tokens
        assert set(batch.tokens[row, n:].tolist()) <= {tokenizer.pad_token_id}
        assert batch.kind[row, :n].tolist() == kinds
        assert not batch.kind[row, n:].any()
        for found, wanted in (
            (batch.sentence, sentences), (batch.attribute, attributes), (batch.answer, answers),
        ):  # fmt: skip
            assert found[row, :n].tolist() == wanted
            assert (found[row, n:] == -1).all()
        for place, part in enumerate(parts):
            assert part is None or int(batch.part[row, place]) == part
        assert n <= corpus.form(form).longest


@pytest.mark.parametrize("form", [name for name in FORMS if name != "part"])
@pytest.mark.parametrize("missing", [False, True])
def test_every_mask_equals_a_slow_reference(form: str, missing: bool) -> None:
    for seed in range(12):
        corpus = corpus_of(people_of(seed, missing=missing), [form])
        for wordings in ("train", "evaluation"):
            check(corpus, form, corpus.sequences(slice(0, 7), form, wordings, draw=seed))


@pytest.mark.parametrize("form", [name for name in FORMS if name != "part"])
def test_drawn_people_in_every_form(form: str, every: Corpus) -> None:
    check(every, form, every.sequences(slice(0, 12), form, "train"))
    check(every, form, every.sequences(slice(3, 8), form, "evaluation", draw=4))


@pytest.mark.parametrize("bpe", [False, True])
def test_a_part_of_a_date(bpe: bool, forms_config: Config) -> None:
    settings = {"data.vocabulary": ("part",), "tokenizer.kind": "bpe"} if bpe else {}
    corpus = Corpus.from_config(forms_config.with_settings(**settings, **{"model.n_ctx": 512}))
    seen = set()
    for draw in range(6):
        batch = corpus.sequences(slice(0, 10), "part", "train", draw)
        for row in range(len(batch)):
            text = corpus.tokenizer.decode(batch.tokens[row], skip_special_tokens=True)
            answer = corpus.tokenizer.decode(batch.tokens[row][batch.answer[row] == 0])
            facts = corpus.population.facts(int(batch.individuals[row]))
            assert answer == facts["birth_date"].split()[1]
            assert corpus.population.name(int(batch.individuals[row])) in text
            assert text.replace(" .", ".").replace(" ?", "?").endswith(f"? Answer : {answer}.")
            seen.add((int(batch.individuals[row]), int(batch.templates[row, 1])))
    held = corpus.sequences(slice(0, 10), "part", "evaluation")
    theirs = {(i, int(held.templates[i, 1])) for i in range(10)}
    assert not theirs & seen


def test_prose_and_questions_keep_what_precedes_a_value_apart(every: Corpus) -> None:
    """No wording up to its value is the beginning of another, of either form: else the next is a guess."""
    lexicon = every.population.lexicon
    groups = [lexicon.templates, lexicon.questions]
    told = []
    for template in (t for group in groups for ts in group.values() for t in ts):
        row: list[str] = []
        for kind, text in template.parts:
            row += words(text) if kind in ("text", "type") else [f"{{{kind}}}"]
        told.append((template.source, row))
    for source, row in told:
        before = row[: row.index("{value}")]
        for other, theirs in told:
            if theirs[: len(before)] == before:
                assert theirs[len(before)] == "{value}", f"{source!r} against {other!r}"


def test_a_person_has_four_questions_in_training_and_another_for_evaluation(every: Corpus) -> None:
    form = every.form("question")
    assert isinstance(form, SentenceForm)
    train, held = form.wordings("train"), form.wordings("evaluation")
    assert train.shape[-1] == 4
    assert held.shape[-1] == 1
    both = np.sort(np.concatenate([train, held], axis=-1), axis=-1)
    np.testing.assert_array_equal(both, np.broadcast_to(np.arange(5), both.shape))
    assert len(np.unique(held)) == 5  # chosen for each person and attribute


@pytest.mark.parametrize("k", [1, 3])
def test_wordings_of_a_person(k: int) -> None:
    corpus = Corpus.from_config(preset("smoke", **{"data.wordings": k}))
    seen: dict[tuple[int, int], set[int]] = {}
    for step in range(60):
        batch = corpus.batch(step, 16)
        for person, templates in zip(
            batch.individuals.tolist(), batch.templates.tolist(), strict=True
        ):
            for attribute, template in enumerate(templates):
                seen.setdefault((person, attribute), set()).add(template)
    assert max(map(len, seen.values())) == k
    held = corpus.biographies(slice(0, 32)).templates.tolist()
    assert all(
        t not in seen.get((p, a), ()) for p, row in enumerate(held) for a, t in enumerate(row)
    )


def test_fixed_order_is_that_of_the_attributes() -> None:
    corpus = Corpus.from_config(preset("smoke", **{"data.order": "fixed"}))
    for batch in (corpus.batch(3, 8), corpus.biographies(slice(0, 5))):
        assert (batch.name_start.diff(dim=1) > 0).all()


def stages(*forms: dict[str, object], start: int = 0) -> tuple[dict[str, object], ...]:
    return ({"start": start, "forms": forms},)


def test_a_mixture_has_its_weights_people_and_loss() -> None:
    config = preset("smoke", **{"data.stages": stages(
        {"form": "biography", "weight": 3.0},
        {"form": "question", "weight": 1.0, "people": (0, 0.5), "loss": "answers"},
        {"form": "mnemonic", "weight": 1.0, "people": (0.5, 1), "loss": "values"},
    )})  # fmt: skip
    corpus = Corpus.from_config(config)
    batches = [corpus.batch(step, 100) for step in range(20)]
    form = torch.cat([b.form for b in batches])
    people = torch.cat([b.individuals for b in batches])
    share = [float((form == n).float().mean()) for n in (0, 1, list(FORMS).index("mnemonic"))]
    assert share == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    n = config.population.n_individuals
    assert set(people[form == 0].tolist()) == set(range(n))
    assert set(people[form == 1].tolist()) == set(range(n // 2))
    assert set(people[form > 1].tolist()) == set(range(n // 2, n))
    batch = batches[0]
    counted = corpus.counted(batch, 0)
    assert counted is not None
    for row in range(len(batch)):
        if batch.form[row] == 0:
            wanted = batch.kind[row] != TokenKind.PADDING
        else:
            wanted = batch.kind[row] == TokenKind.VALUE
        assert torch.equal(counted[row], wanted)
    again = Corpus.from_config(config).batch(0, 100)
    assert torch.equal(again.tokens, batch.tokens)


def test_rows_of_a_mixture_are_what_the_forms_are_alone() -> None:
    names = [name for name in FORMS if name != "part"]
    config = preset("smoke", **{
        "data.stages": stages(*({"form": name} for name in names)), "data.vocabulary": ("part",),
    })  # fmt: skip
    corpus = Corpus.from_config(config)
    batch = corpus.batch(5, 60)
    for number, name in enumerate(FORMS):
        for row in (batch.form == number).nonzero()[:, 0].tolist():
            check(corpus, name, batch[row : row + 1])


def test_stages_change_what_is_shown() -> None:
    config = preset("smoke", **{"data.stages": (
        {"start": 0, "forms": [{"form": "mnemonic"}]}, {"start": 4, "forms": [{"form": "biography"}]},
    )})  # fmt: skip
    corpus = Corpus.from_config(config)
    assert [set(corpus.batch(s, 8).form.tolist()) for s in (0, 3, 4, 9)] == [{5}, {5}, {0}, {0}]


def test_one_stage_of_biographies_has_all_tokens_counted(corpus: Corpus) -> None:
    assert corpus.counted(corpus.batch(0, 4), 0) is None


def test_spans_of_every_form_can_be_read(every: Corpus) -> None:
    for form in FORMS:
        batch = every.sequences(slice(0, 4), form)
        spans = Spans.of(batch)
        masks = position_masks(spans, ["last name", "predicts value", "name"])
        assert masks["last name"].any()
        if form not in ("inverse",):
            where = masks["predicts value"].nonzero()
            assert {int(batch.kind[r, p + 1]) for r, p in where} == {int(TokenKind.VALUE)}


def test_the_vocabulary_grows_at_its_end(smoke: Config, corpus: Corpus, every: Corpus) -> None:
    ours, more = corpus.tokenizer.get_vocab(), every.tokenizer.get_vocab()
    assert {word: more[word] for word in ours} == ours
    assert len(more) > len(ours)
    other = Corpus.from_config(smoke.with_settings(**{"data.vocabulary": tuple(reversed(FORMS))}))
    assert other.tokenizer.get_vocab() == more


def test_a_tokenizer_with_questions_is_read_back(
    every: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(every.tokenizer, folder)
    text = every.tokenizer.decode(
        every.sequences(slice(0, 1), "question").tokens[0], skip_special_tokens=True
    )
    assert load_tokenizer(folder)(text)["input_ids"] == every.tokenizer(text)["input_ids"]
    assert every.tokenizer.unk_token_id not in every.tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("settings", "words_of_it"),
    [
        ({"data.stages": stages({"form": "biografy"})}, ["biografy", "Did you mean 'biography'"]),
        ({"data.vocabulary": ("haiku",)}, ["haiku", "Forms: biography"]),
        ({"data.stages": stages({"form": "biography"}, start=5)}, ["data.stages", "first begins at 0"]),
        ({"data.stages": ({"forms": []},)}, ["has no form"]),
        ({"data.stages": stages({"form": "part"}, {"form": "part", "loss": "values"})}, ["twice", "once"]),
        ({"data.stages": stages({"form": "biography", "people": (0.5, 0.5)})}, ["from < to"]),
        ({"data.stages": stages({"form": "biography", "people": (0, 0.001)})}, ["nobody", "larger"]),
        ({"data.stages": stages({"form": "biography", "weight": 0})}, ["weight", "above 0"]),
        ({"data.stages": stages({"form": "biography", "loss": "words"})}, ["loss", "values"]),
        ({"data.vocabulary": ("fused",), "tokenizer.kind": "bpe"}, ["fused", "tokenizer.kind"]),
        ({"data.wordings": 0}, ["wordings", "1"]),
        ({"data.order": "sorted"}, ["order", "fixed"]),
        ({"data.stages": stages({"form": "inverse"}), "model.n_ctx": 20}, ["n_ctx", "forms"]),
        ({"data.stages": ({"forms": [{"form": "biography"}], "weights": "adapter"},)}, ["adapter.rank"]),
        ({"adapter.rank": 4}, ["no stage trains it"]),
        ({"adapter.alpha": 4.0}, ["adapter.rank"]),
        ({"data.wordings": 21}, ["wordings", "20"]),
    ],
)  # fmt: skip
def test_what_cannot_be(settings: dict[str, object], words_of_it: Sequence[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Corpus.from_config(preset("smoke", **settings)).batch(0, 8)
    assert all(word in str(error.value) for word in words_of_it), str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_is_not_asked_in_words_that_it_does_not_have(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="does not know the words of the form 'question'"):
        corpus.sequences(slice(0, 2), "question")
