"""Answers in every form against a slow reference: one sequence, one token, one plain pass at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import interp
from interp import asking
from interp.biographies import FORMS, Corpus
from interp.biographies.forms.phrases import N_LANGUAGES, translated
from interp.config import Config
from interp.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    NothingToMeasureError,
    RunError,
)
from interp.model import hooked_transformer
from interp.run import Run
from tests.biographies.test_forms import corpus_of, people_of
from tests.every_form import ADAPTED, EVERY_FORM, knows_nothing

WITHOUT_TYPES = {"mnemonic": 1, "fused": 1, "polyglot": N_LANGUAGES}


@pytest.fixture(scope="module")
def config() -> Config:
    return EVERY_FORM


@pytest.fixture(scope="module")
def every(config: Config) -> Corpus:
    return Corpus.from_config(config)


@pytest.fixture(scope="module")
def model(every: Corpus) -> TransformerBridge:
    return knows_nothing(every)


@pytest.fixture(scope="module")
def adapted(trained: Callable[[Config], Run]) -> Run:
    return trained(ADAPTED)


def slow_answers(
    model: TransformerBridge, corpus: Corpus, form: str, people: np.ndarray, draw: int = 0
) -> pd.DataFrame:
    """What `answers` is to give, from whole passes over single sequences without padding."""
    batch = corpus.sequences(people, form, "evaluation", draw)
    pad = corpus.tokenizer.pad_token_id
    rows = []
    for row in range(len(batch)):
        tokens = [t for t in batch.tokens[row].tolist() if t != pad]
        person = int(batch.individuals[row])
        facts = corpus.population.facts(person)
        with torch.no_grad():
            logits = model(torch.tensor([tokens]))[0].double()
        numbers = batch.answer[row, : len(tokens)].tolist()
        untold = dict(facts)
        for number in sorted(set(numbers) - {-1}):
            places = [place for place, one in enumerate(numbers) if one == number]
            index = int(batch.attribute[row, places[0]])
            attribute = corpus.attributes[index] if form != "inverse" else "name"
            losses = [-float(logits[p - 1].log_softmax(-1)[tokens[p]]) for p in places]
            right = [int(logits[p - 1].argmax()) == tokens[p] for p in places]
            if form in WITHOUT_TYPES:
                begins = {
                    corpus.tokenizer(translated(v, language), add_special_tokens=False)["input_ids"][0]
                    for v in untold.values()
                    for language in range(WITHOUT_TYPES[form])
                }  # fmt: skip
                right[0] = int(logits[places[0] - 1].argmax()) in begins
                del untold[attribute]
            rows.append(
                (form, person, attribute, sum(losses), all(right), float(np.exp(-losses[0])))
            )
    return pd.DataFrame(rows, columns=list(asking.ANSWER_COLUMNS))


def alike(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        found, expected, check_dtype=False, rtol=1e-4, atol=1e-5, check_column_type=False
    )


@pytest.mark.parametrize("form", FORMS)
def test_answers_against_single_passes(form: str, model: TransformerBridge, every: Corpus) -> None:
    people = np.array([3, 0, 21, 8])
    found = interp.answers(model, every, form, people, batch_size=3)
    alike(found, slow_answers(model, every, form, people))
    assert found["right"].dtype == bool


@pytest.mark.parametrize("seed", range(3))
def test_missing_values(seed: int, config: Config) -> None:
    population = people_of(seed, missing=True)
    names = [name for name in FORMS if name != "part"]
    corpus = corpus_of(population, names)
    model = hooked_transformer(
        config.with_settings(**{"model.n_ctx": 256}), corpus.tokenizer
    ).eval()
    people = np.arange(len(population))
    for form in names:
        if not (corpus.sequences(people, form).answer >= 0).any():
            continue
        alike(
            interp.answers(model, corpus, form, people), slow_answers(model, corpus, form, people)
        )
    n_facts = int((population.values >= 0).sum())
    assert len(interp.answers(model, corpus, "mnemonic", people)) == n_facts


def oracle(choose: Callable[[int, int], int], n_vocab: int) -> Callable[..., torch.Tensor]:
    def logits_at(model: Any, tokens: Any, rows: Any, places: Any) -> torch.Tensor:
        pairs = zip(rows.tolist(), places.tolist(), strict=True)
        chosen = torch.tensor([choose(row, place) for row, place in pairs])
        return 50.0 * torch.nn.functional.one_hot(chosen, n_vocab).float()

    return logits_at


@pytest.mark.parametrize("form", FORMS)
def test_one_who_knows_everything(
    form: str, model: TransformerBridge, every: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = every.sequences(every.population.trained, form)
    knows = oracle(lambda row, place: int(batch.tokens[row, place + 1]), model.cfg.d_vocab)
    monkeypatch.setattr(asking, "logits_at", knows)
    found = interp.answers(model, every, form)
    assert found["right"].all()
    assert found["loss"].max() < 1e-4
    assert found["probability"].min() > 0.999
    accuracy = interp.accuracy_by_form(found)
    assert (accuracy["accuracy"] == 1).all()
    assert accuracy["attribute"].iloc[0] == "all"


@pytest.mark.parametrize("form", ["mnemonic", "fused", "polyglot"])
def test_any_value_that_is_not_told_yet_may_come(
    form: str, model: TransformerBridge, every: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who begins with the last value everywhere is right wherever a value has one token; with the
    first value, only there where it has not been told."""
    everybody = np.arange(12)
    batch = every.sequences(everybody, form)
    length = (batch.answer >= 0).sum(dim=1)
    for which, right_after in (("last", True), ("first", False)):
        order = batch.value_start.sort(dim=1).values
        begins = order[:, -1] if which == "last" else order[:, 0]

        def says(row: int, place: int, begins: torch.Tensor = begins) -> int:
            starts_value = bool((batch.value_start[row] == place + 1).any())
            at = int(begins[row]) if starts_value else place + 1
            return int(batch.tokens[row, at])

        monkeypatch.setattr(asking, "logits_at", oracle(says, model.cfg.d_vocab))
        found = interp.answers(model, every, form, everybody)
        for _, own in found.groupby("individual"):
            assert own["right"].iloc[0]
            assert own["right"].iloc[1:].all() == right_after
    assert length.min() >= 6


def test_another_language_is_right(
    model: TransformerBridge, every: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = np.arange(12)
    batch = every.sequences(people, "polyglot")
    tokenizer = every.tokenizer
    wanted: dict[tuple[int, int], int] = {}
    for row in range(12):
        facts = every.population.facts(row)
        for index, attribute in enumerate(every.attributes):
            word = translated(facts[attribute], 1)
            start = int(batch.value_start[row, index])
            wanted[row, start - 1] = tokenizer(word, add_special_tokens=False)["input_ids"][0]
    says = oracle(
        lambda row, place: wanted.get((row, place), int(batch.tokens[row, place + 1])),
        model.cfg.d_vocab,
    )
    monkeypatch.setattr(asking, "logits_at", says)
    assert interp.answers(model, every, "polyglot", people)["right"].all()
    assert not interp.answers(model, every, "mnemonic", people)["right"].any()


def test_batches_and_draws(model: TransformerBridge, every: Corpus) -> None:
    forms = ("biography", "inverse", "mnemonic")
    tables = [interp.answers(model, every, forms, slice(0, 7), batch_size=n) for n in (1, 3, 100)]
    for table in tables[1:]:
        alike(table, tables[0])
    other = interp.answers(model, every, forms, slice(0, 7), draw=1)
    assert not np.allclose(other["loss"], tables[0]["loss"])
    train = interp.answers(model, every, "biography", slice(0, 7), wordings="train")
    assert not np.allclose(train["loss"], tables[0]["loss"].head(len(train)))


def test_over_checkpoints_and_with_the_adapter(adapted: Run) -> None:
    forms = ("mnemonic", "question", "triple")
    table = interp.answers(adapted, forms=forms, individuals=slice(0, 6))
    assert table["step"].unique().tolist() == adapted.steps == [0, 4, 8]
    by_step = interp.accuracy_by_form(table)
    assert by_step.columns.tolist() == [
        "step", "form", "attribute", "accuracy", "loss", "probability",
    ]  # fmt: skip
    for use in ("off", "on", "merged", None):
        found = interp.answers(
            adapted, forms=forms, individuals=slice(0, 6), steps=[8], adapter=use
        )
        one = interp.answers(adapted.model(8, adapter=use), adapted.corpus, forms, slice(0, 6))
        pd.testing.assert_frame_equal(found.drop(columns="step"), one)
        before = table[table["step"] == 4].drop(columns="step").reset_index(drop=True)
        assert before.equals(one) == (use == "off")
    with pytest.raises(RunError, match="no adapter at step 4"):
        interp.answers(adapted, forms=forms, steps=[4], adapter="on")
    by_hand = {4: adapted.model(4), 8: adapted.model(8)}
    again = interp.answers(by_hand, adapted.corpus, forms, slice(0, 6), workers=1)
    later = table[table["step"] > 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, later)


def test_bad_arguments(model: TransformerBridge, every: Corpus, smoke_run: Run) -> None:
    with pytest.raises(ArgumentError, match="No form"):
        interp.answers(model, every, ())
    with pytest.raises(ConfigError, match="Did you mean 'question'"):
        interp.answers(model, every, "qestion")
    with pytest.raises(ArgumentError, match="give indices"):
        interp.answers(model, every, individuals=np.array([999]))
    with pytest.raises(ArgumentError, match="Give corpus"):
        interp.answers(model)
    with pytest.raises(ArgumentError, match="adapter='off'"):
        interp.answers(model, every, adapter="off")
    with pytest.raises(ConfigError, match="does not know the words of the form"):
        interp.answers(smoke_run, forms="question")
    with pytest.raises(CheckpointError, match="step 3"):
        interp.answers(smoke_run, forms="biography", steps=[3])
    short = model.cfg.n_ctx
    try:
        model.cfg.n_ctx = 20
        with pytest.raises(ConfigError, match="context is 20 tokens"):
            interp.answers(model, every, "biography")
    finally:
        model.cfg.n_ctx = short
    with pytest.raises(ArgumentError, match="no column 'form'"):
        interp.accuracy_by_form(pd.DataFrame({"right": [True]}))


def test_nobody_has_an_answer(config: Config) -> None:
    population = people_of(0, missing=False)
    population.values[:] = -1
    corpus = corpus_of(population, ["mnemonic"])
    model = hooked_transformer(config, corpus.tokenizer).eval()
    with pytest.raises(NothingToMeasureError, match="'mnemonic'"):
        interp.answers(model, corpus, "mnemonic")


def test_form_independence() -> None:
    accuracy = {"biography": 0.8, "question": 0.4, "triple": 0.0}
    assert interp.form_independence(accuracy, "biography") == pytest.approx(0.25)
    assert np.isnan(interp.form_independence(accuracy, "triple"))
    for lacking in ({"biography": 0.8}, {"question": 0.4}, {}):
        with pytest.raises(ArgumentError, match="Form independence"):
            interp.form_independence(lacking, "biography")
