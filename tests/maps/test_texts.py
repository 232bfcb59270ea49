"""Attention maps of texts and models that are no run's: a series is a plain dict of models."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge.sources import boot_native

import interp
from interp.biographies import Spans, Texts, TokenKind
from interp.config import Config
from interp.errors import ArgumentError, CheckpointError, RunError
from interp.maps import (
    MapText,
    TrainingInfo,
    label_texts,
    map_steps,
    map_text,
    record_maps,
    unpack_maps,
    view_settings,
    view_text,
    words_of,
)
from interp.maps.widget import AttentionBrowser
from interp.model.build import bridge_config
from interp.phases import Phases
from interp.run import Run
from interp.series import Models

WORDS = ["<bos>", *(f"w{i}" for i in range(1, 10)), "capital", "language", "of", "is", ".",
         *(f"answer{i}" for i in range(15, 25)), *(f"name{i}" for i in range(25, 45))]  # fmt: skip
N_SUBJECTS = 5


def name_of(subject: int) -> list[int]:
    """A name of one to four tokens."""
    return [25 + 4 * subject + i for i in range(1 + subject % 4)]


def text(subject: int) -> tuple[list[int], Spans]:
    """<bos>, then: the capital of NAME is ANSWER; of NAME the language is ANSWER ANSWER ."""
    name, end = name_of(subject), 3 + len(name_of(subject))
    ids = [0, 10, 12, *name, 13, 15 + subject, 12, *name, 11, 13, 20 + subject, 19, 14]
    second = end + 2
    after = second + 1 + len(name)
    spans = Spans.from_lists(
        len(ids),
        sentences=[(1, second), (second, len(ids))],
        names=[(3, end), (second + 1, after)],
        values=[(end + 1, end + 2), (after + 2, after + 4)],
        types=[(1, 2), (after, after + 1)],
        punctuation=[(len(ids) - 1, len(ids))],
    )
    return ids, spans


def as_texts(parts: list[tuple[list[int], Spans]]) -> Texts:
    spans = Spans.stack([spans for _, spans in parts])
    tokens = torch.zeros(spans.kind.shape, dtype=torch.int64)
    for row, (ids, _) in enumerate(parts):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return Texts(tokens, spans)


@pytest.fixture(scope="module")
def texts() -> Texts:
    return as_texts([text(subject) for subject in range(N_SUBJECTS)])


@pytest.fixture(scope="module")
def labelled(texts: Texts) -> list[MapText]:
    return label_texts(texts, WORDS)


@pytest.fixture(scope="module")
def models(smoke: Config) -> dict:
    """Two models without a tokenizer, of three layers with four heads, in training mode."""
    shape = {"n_layers": 3, "n_heads": 4, "d_model": 32, "n_ctx": 32}
    config = smoke.with_settings(**{f"model.{name}": value for name, value in shape.items()})
    found = {}
    for step in (0, 70):
        model = boot_native(bridge_config(config, d_vocab=64), tokenizer=None)
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
        found[step] = model.train()
    return found


def test_a_text_is_labelled_by_its_spans(labelled: list[MapText], texts: Texts) -> None:
    for subject, one in enumerate(labelled):
        ids, _ = text(subject)
        assert one.number == subject
        assert one.ids.tolist() == ids  # without the padding
        assert one.tokens == tuple(WORDS[index] for index in ids)
        name = " ".join(WORDS[index] for index in name_of(subject))
        assert one.name == name
        assert [(fact.relation, fact.value) for fact in one.facts] == [
            ("capital", f"answer{15 + subject}"),
            ("language", f"answer{20 + subject} answer19"),
        ]
        for fact in one.facts:
            value = one.tokens[fact.position + 1 : fact.position + 1 + fact.length]
            assert " ".join(value) == fact.value
            assert one.spans.kind[0, fact.position] != TokenKind.VALUE
        assert not one.held_out
        assert one.wordings is None
    assert labelled[0].parts[3] == ""  # a name of one token has no parts
    assert labelled[2].parts[3:6] == tuple(f"name, token {i} of 3" for i in (1, 2, 3))
    assert labelled[0].parts[-3:] == ("first token", "later token", "")


def test_names_and_relations_may_be_given(texts: Texts) -> None:
    relations = [["seat", "tongue"]] * N_SUBJECTS
    names = [f"country {i}" for i in range(N_SUBJECTS)]
    given = label_texts(texts, WORDS, names=names, relations=relations)
    assert [one.name for one in given] == names
    assert {tuple(f.relation for f in one.facts) for one in given} == {("seat", "tongue")}


def test_texts_about_the_same_subject_are_told_apart_and_a_text_needs_no_name() -> None:
    plain = Spans.from_lists(3, sentences=[(0, 3)], names=[])
    both = as_texts([text(1), text(1), ([1, 2, 3], plain)])
    labelled = label_texts(both, WORDS)
    assert [one.name for one in labelled] == [
        "name29 name30 (text 0)", "name29 name30 (text 1)", "text 2",
    ]  # fmt: skip
    assert labelled[2].facts == ()


def test_a_tokenizer_tells_the_words(smoke_run: Run) -> None:
    """A biography as a text of nobody's: the same tokens, marks and values as the biography's own."""
    own = map_text(smoke_run.corpus, 3)
    batch = smoke_run.corpus.biographies(np.array([3]))
    one = label_texts(batch, smoke_run.tokenizer)[0]
    assert one.tokens == own.tokens
    assert one.name == own.name
    assert view_text(one)["marks"] == view_text(own)["marks"]
    place = {(f.position, f.length, f.value) for f in own.facts}
    assert {(f.position, f.length, f.value) for f in one.facts} == place


def test_bytes_of_words_become_readable_again() -> None:
    """Byte-level tokenizers, as GPT-2's, write " é" as three letters."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["Ġ", "Ã", "©", "ĠÃ©", "ĠRome", "Ada", "Ċ"]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    spans = Spans.from_lists(6, sentences=[(0, 6)], names=[(0, 2)], values=[(3, 5)])
    one = label_texts(Texts(torch.tensor([[5, 3, 4, 3, 4, 6]]), spans), fast)[0]
    assert one.tokens == ("Ada", " é", " Rome", " é", " Rome", "\\n")
    assert (one.name, one.facts[0].value) == ("Ada é", "é Rome")


def test_maps_are_the_models_attention(models: dict, labelled: list[MapText]) -> None:
    records = record_maps(models, labelled)
    for one, record in zip(labelled, records, strict=True):
        maps = unpack_maps(record)
        assert record.steps == (0, 70)
        assert maps.shape == (2, 3, 4, len(one), len(one))
        for place, step in enumerate(record.steps):
            logits, cache = models[step].run_with_cache(one.ids[None])
            exact = np.stack(
                [cache[f"blocks.{i}.attn.hook_pattern"][0].detach().numpy() for i in range(3)]
            )
            assert np.abs(maps[place] - exact).max() < 0.004
            probabilities = logits[0].softmax(-1).detach()
            own = probabilities[:-1].gather(1, one.ids[1:, None])[:, 0].numpy()
            np.testing.assert_allclose(record.own[place, :-1] / 255, own, atol=0.5 / 255 + 1e-6)
    assert not np.allclose(unpack_maps(records[0])[0], unpack_maps(records[0])[1], atol=0.01)


def test_models_stay_as_they_were(models: dict, labelled: list[MapText]) -> None:
    record_maps(models, labelled)
    for model in models.values():
        assert model.training
        assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_settings_of_a_training_of_which_nothing_else_is_known(
    models: dict, labelled: list[MapText]
) -> None:
    records = record_maps(models, labelled[:2])
    words = words_of(records)
    settings = view_settings(records, words, WORDS)
    assert (settings["n_layers"], settings["n_heads"]) == (3, 4)
    assert settings["phases"] == []
    assert [settings[name] for name in ("title", "curves", "roles")] == [None] * 3
    assert settings["words"] == [WORDS[w] if w < len(WORDS) else f"#{w}" for w in words]
    assert any(word.startswith("#") for word in settings["words"])  # the vocabulary is padded
    assert [one["person"] for one in settings["texts"]] == [0, 1]


def test_what_is_known_of_a_training_is_data(models: dict, labelled: list[MapText]) -> None:
    records = record_maps(models, labelled[:1])
    training = TrainingInfo(
        "mine", Phases(10, 40, 5.0, 0.05), {"evaluation": {"loss": {70: 1.23456}}},
        {(70, 2, 1): "extraction"},
    )  # fmt: skip
    settings = view_settings(records, words_of(records), WORDS, training)
    assert settings["title"] == "mine"
    assert [(p["name"], p["start"], p["end"]) for p in settings["phases"]] == [
        ("statistics", 0, 10), ("plateau", 10, 40), ("knowledge", 40, 70),
    ]  # fmt: skip
    assert settings["curves"] == {"evaluation": {"loss": [None, 1.2346]}}
    assert settings["roles"][1][2] == ["", "extraction", "", ""]
    assert not any(any(layer) for layer in settings["roles"][0])
    assert TrainingInfo.of(models) == TrainingInfo()
    assert TrainingInfo.of(Models(models, training.phases)) == TrainingInfo(phases=training.phases)


def test_checkpoints_that_fit_are_counted_on_the_models(
    models: dict, labelled: list[MapText]
) -> None:
    series = dict.fromkeys(range(0, 100, 10), models[0])
    n = len(labelled[0])
    one = n * (n + 1) // 2 * 3 * 4
    assert map_steps(series, labelled[:1], one * 10) == sorted(series)
    assert 2 < len(map_steps(series, labelled[:1], one * 10 - 1)) < 10
    assert map_steps(series, labelled[:1], 1) == [0, 90]
    known = Models(series, Phases(31, 58, 5.0, 0.05))
    assert map_steps(known, labelled[:1], 1) == [0, 30, 60, 90]


def test_bad_input_is_named(models: dict, texts: Texts, labelled: list[MapText]) -> None:
    with pytest.raises(ArgumentError, match="3 names for 5 texts"):
        label_texts(texts, WORDS, names=["a", "b", "c"])
    with pytest.raises(ArgumentError, match="Text 0 has 2 values"):
        label_texts(texts, WORDS, relations=[["seat"]] * N_SUBJECTS)
    with pytest.raises(ArgumentError, match=r"id 25 of text 0.*0 to 24"):
        label_texts(texts, WORDS[:25])
    with pytest.raises(ArgumentError, match="The vocabulary is one text"):
        label_texts(texts, "words")
    padding = Spans(torch.zeros(1, 2, dtype=torch.uint8), torch.full((1, 2), -1))
    empty = Texts(torch.zeros(1, 2, dtype=torch.int64), padding)
    with pytest.raises(ArgumentError, match="Text 0 is empty"):
        label_texts(empty, WORDS)
    with pytest.raises(ArgumentError, match="3 tokens"):
        replace(labelled[0], tokens=("a", "b", "c"))
    with pytest.raises(ArgumentError, match="no text to read"):
        record_maps(models, [])
    with pytest.raises(RunError, match="no checkpoint"):
        map_steps({}, labelled)
    with pytest.raises(CheckpointError, match="no checkpoint at step 7"):
        record_maps(models, labelled, [7])
    late = replace(labelled[0], ids=labelled[0].ids + 40)
    with pytest.raises(ArgumentError, match=r"vocabulary has ids 0 to 63"):
        record_maps(models, [late])
    long = Spans.from_lists(40, sentences=[(0, 40)], names=[])
    with pytest.raises(ArgumentError, match=r"40 tokens.*32"):
        record_maps(models, label_texts(Texts(torch.ones(1, 40).long(), long), WORDS))
    first, other = (record_maps(models, labelled[:1], [step])[0] for step in (0, 70))
    with pytest.raises(ArgumentError, match="different checkpoints"):
        view_settings([first, other], [], WORDS)
    with pytest.raises(ArgumentError, match="no record"):
        view_settings([], [], WORDS)


class TestExplore:
    """What the kernel's side of the widget does with texts."""

    @pytest.fixture
    def sent(self, models: dict, texts: Texts, monkeypatch: pytest.MonkeyPatch):
        view = interp.explore(models, texts=texts, vocabulary=WORDS)
        messages: list[tuple[dict, list]] = []
        monkeypatch.setattr(
            view, "send", lambda content, buffers=None: messages.append((content, buffers))
        )
        return view, messages

    def test_all_texts_are_listed_and_read_when_asked_for(
        self, sent, models: dict, labelled: list[MapText]
    ) -> None:
        view, messages = sent
        assert view.settings["texts"] == [view_text(one) for one in labelled]
        assert "search" not in view.settings
        view._answer(view, {"question": 1, "person": 3}, [])
        (answer, buffers), record = messages[0], record_maps(models, labelled[3:4])[0]
        assert answer["text"]["name"] == labelled[3].name
        assert buffers[0] == record.packed(words_of([record]))["patterns"]
        assert answer["words"][: len(view.settings["words"])] == view.settings["words"]

    def test_it_begins_with_the_text_asked_for(
        self, models: dict, texts: Texts, labelled: list[MapText]
    ) -> None:
        for which in (2, "2", labelled[2].name):
            view = interp.explore(models, which, step=0, texts=texts, vocabulary=WORDS)
            assert view.settings["begin"] == 2
            assert view.state == {"step": 0}
        view.show(labelled[1].name, head="2.3")
        assert view.state == {"step": 0, "person": 1, "head": "2.3"}
        with pytest.raises(ArgumentError, match=r"layers 0 to 2, heads 0 to 3"):
            view.show(head="2.4")

    def test_texts_keep_their_labels_and_are_numbered_by_place(
        self, models: dict, labelled: list[MapText]
    ) -> None:
        held_out = replace(labelled[3], held_out=True)
        view = interp.explore(models, texts=[held_out, labelled[1]], vocabulary=WORDS)
        listed = view.settings["texts"]
        assert [(one["person"], one["held_out"]) for one in listed] == [(0, True), (1, False)]
        twice = interp.explore(models, texts=[labelled[1]] * 2, vocabulary=WORDS)
        with pytest.raises(ArgumentError, match=r"2 texts.*0, 1"):
            twice.show(labelled[1].name)

    def test_models_bring_their_tokenizer(self, smoke_run: Run) -> None:
        models = dict.fromkeys((0, 10), smoke_run.model(0))
        batch = smoke_run.texts("evaluation", 2)
        view = interp.explore(models, texts=batch)
        words = smoke_run.tokenizer.convert_ids_to_tokens(batch[:1].tokens[0].tolist())
        assert view.settings["texts"][0]["tokens"] == words

    def test_a_run_shows_texts_of_yours_with_its_phases_and_curves(self, smoke_run: Run) -> None:
        chosen = [map_text(smoke_run, 3, "train"), map_text(smoke_run, 24)]
        view = interp.explore(smoke_run, texts=chosen)
        assert [(one["person"], one["wordings"]) for one in view.settings["texts"]] == [
            (0, "train"), (1, "evaluation"),
        ]  # fmt: skip
        alone = interp.explore(smoke_run)
        for name in ("title", "steps", "phases", "curves", "n_layers", "n_heads"):
            assert view.settings[name] == alone.settings[name]
        assert alone.settings["search"] is True

    def test_a_series_with_texts_of_its_own_needs_no_others(self, models: dict, texts) -> None:
        class Own(Models):
            tokenizer = WORDS

            def texts(self, split: str, n_individuals: int | None) -> Texts:
                return texts

        assert len(interp.explore(Own(models)).settings["texts"]) == N_SUBJECTS

    def test_one_model_at_a_time_is_read(self, models: dict, texts: Texts) -> None:
        class OneByOne:
            """A series of its own kind, that hands out one model and forgets it."""

            steps, known_phases = [0, 70], None

            def models(self, steps, device=None) -> Iterator:
                for step in steps:
                    with torch.no_grad():
                        yield step, models[step]

        view = interp.explore(OneByOne(), texts=texts, vocabulary=WORDS)
        assert view.settings["phases"] == []
        assert view.settings["steps"] == [0, 70]

    def test_bad_input_is_named(self, models: dict, texts: Texts, sent) -> None:
        with pytest.raises(ArgumentError, match=r"Give texts"):
            interp.explore(models, vocabulary=WORDS)
        with pytest.raises(ArgumentError, match=r"Give vocabulary"):
            interp.explore(models, texts=texts)
        with pytest.raises(ArgumentError, match="no text to browse"):
            interp.explore(models, texts=[], vocabulary=WORDS)
        with pytest.raises(ArgumentError, match="draw=2"):
            interp.explore(models, texts=texts, vocabulary=WORDS, draw=2)
        with pytest.raises(ArgumentError, match=r"no text 5; .* 0 to 4"):
            interp.explore(models, 5, texts=texts, vocabulary=WORDS)
        with pytest.raises(CheckpointError, match="no checkpoint at step 7"):
            interp.explore(models, texts=texts, vocabulary=WORDS, steps=[7])
        view, messages = sent
        for person, words in (
            ("nam25", "Did you mean 'name25'"),
            ("9" * 5000, "number or its name"),
        ):
            view._answer(view, {"question": 1, "person": person}, [])
            assert words in messages[-1][0]["error"]

    def test_the_kernel_keeps_a_few_texts(self, models: dict, labelled: list[MapText]) -> None:
        view: AttentionBrowser = interp.explore(models, texts=labelled * 3, vocabulary=WORDS)
        for number in range(12):
            view._record(number)
        assert len(view._records) <= 8
