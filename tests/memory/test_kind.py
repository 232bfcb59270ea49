"""Which memory: told apart exactly in compiled models, whichever way the value takes."""

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.biographies import Corpus
from interp.config import Config
from interp.errors import ArgumentError, NothingToMeasureError
from interp.interventions.sites import is_hooked
from interp.memory import KIND_COLUMNS, KindTexts, alikeness, memory_kind
from interp.memory.kind import RULE, kinds, verdict
from interp.model import hooked_transformer
from interp.run import Run
from tests.compiled.late import late_recall

SHARES = ["mlp", "late", "embeddings", "together", "neither"]


@pytest.fixture(scope="module")
def one_token(smoke: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return interp.one_token_people(smoke, tmp_path_factory.mktemp("people"))


def require(table: pd.DataFrame, shares: list[float], said: str) -> None:
    (row,) = table.to_dict("records")
    assert (row["recalled"], row["both"], row["control"]) == (1, 1, 0)
    assert [row[name] for name in SHARES] == shares
    assert row["rest"] == 1 - row["mlp"]
    logits = [row["mlp_share"], row["late_share"], row["embeddings_share"]]
    assert logits == pytest.approx(shares[:3], abs=1e-3)
    assert row["verdict"] == said


@pytest.mark.parametrize(("names", "variant"), [("three", "local"), ("one", "distributed")])
def test_facts_in_an_mlp_are_associative(
    smoke: Config, one_token: Config, names: str, variant: str
) -> None:
    compiled = interp.compile_recall(one_token if names == "one" else smoke, variant)  # type: ignore[arg-type]
    table = memory_kind(compiled.model, corpus=compiled.corpus, n=12)
    require(table, [1, 0, 0, 0, 0], "associative")
    assert table["alike_at_name"].item() == pytest.approx(0.5, abs=0.1)
    assert table["alike_arriving"].item() == 0.5


def test_facts_in_the_embeddings_are_geometric(one_token: Config) -> None:
    compiled = interp.compile_recall(one_token, "geometric")
    table = memory_kind(compiled.model, corpus=compiled.corpus, n=12)
    require(table, [0, 0, 1, 0, 0], "geometric")
    assert table["alike_at_name"].item() > 0.75
    assert not is_hooked(compiled.model)


@pytest.mark.parametrize(("how", "said"), [("lookup", "associative"), ("selection", "geometric")])
def test_an_mlp_after_the_read_looks_up_or_selects(one_token: Config, how: str, said: str) -> None:
    model, corpus = late_recall(one_token, how)  # type: ignore[arg-type]
    table = memory_kind(model, corpus=corpus, n=12)
    require(table, [0, 1, 0, 0, 0], said)
    assert (table["alike_arriving"].item() > 0.75) == (said == "geometric")


def test_a_run_over_its_checkpoints(smoke_run: Run) -> None:
    table = interp.memory_kind(smoke_run, steps=[0, 40], n=12)
    assert list(table) == ["step", *KIND_COLUMNS]
    assert table["step"].tolist() == [0, 40]
    assert table.loc[0, "verdict"] == "nothing recalled"
    again = interp.memory_kind(smoke_run, steps=[40], n=12)
    pd.testing.assert_frame_equal(table[1:].reset_index(drop=True), again, check_exact=True)


def test_the_model_stays_as_it_was(smoke: Config, corpus: Corpus) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = memory_kind({7: model}, corpus=corpus, n=6)
    assert table["n"].item() == 0
    assert table[SHARES].isna().all(axis=None)
    assert model.training
    assert not is_hooked(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_pairs_end_where_they_are_read(corpus: Corpus) -> None:
    texts = KindTexts.of(corpus, 12)
    assert list(texts.swapped) == list(texts.compared) == list(corpus.attributes)
    assert sum(map(len, texts.swapped.values())) == 12
    for attribute, pairs in texts.swapped.items():
        assert pairs.base.shape[1] == int(pairs.read.max()) + 1
        strangers = texts.strangers[attribute]
        assert (strangers != pairs.base_answer).all()
        assert (strangers != pairs.source_answer).all()
    for attribute, pairs in texts.compared.items():
        assert (pairs.source == pairs.source[0]).all()
        assert torch.equal(pairs.base_answer, texts.values[attribute])


def test_alikeness() -> None:
    generator = np.random.default_rng(0)
    values = np.arange(200) % 20
    noise = generator.standard_normal((200, 16))
    assert alikeness(noise, values) == pytest.approx(0.5, abs=0.03)
    assert alikeness(np.eye(20)[values] + 0.01 * noise[:, :1], values) > 0.99
    assert alikeness(np.ones((200, 4)) + 1e-9 * noise[:, :4], values) == 0.5, "rounding"
    assert np.isnan(alikeness(noise, np.arange(200)))


def test_verdicts() -> None:
    row = {"recalled": 1.0, "mlp": 0.5, "late": 0.3, "embeddings": 0.1, "neither": 0.1}
    unlike = {"alike_at_name": 0.5, "alike_arriving": 0.5}
    assert verdict(row | unlike) == "associative"
    assert verdict(row | unlike | {"alike_arriving": 0.9}) == "mixed"
    assert verdict(row | {"alike_at_name": 0.9, "alike_arriving": 0.9}) == "geometric"
    assert verdict(row | unlike | {"recalled": 0.2}) == "nothing recalled"
    assert kinds(row | unlike | {"alike_arriving": 0.9}) == pytest.approx((0.5, 0.4))
    assert "75%" in RULE


def test_what_cannot_be_measured(smoke: Config, corpus: Corpus) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer)
    with pytest.raises(ArgumentError, match="corpus"):
        memory_kind(model)
    with pytest.raises(ArgumentError, match="n=0"):
        memory_kind(model, corpus=corpus, n=0)
    alone = smoke.with_settings(**{"population.n_individuals": 2})
    with pytest.raises(NothingToMeasureError, match="larger population"):
        memory_kind(model, corpus=Corpus.from_config(alone))
