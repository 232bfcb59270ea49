"""Facts written into models that are not ours: GPT-2's transposed matrices, gated MLPs, norms behind MLPs."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import interp
from interp.errors import ArgumentError
from interp.writing import Rewrites, TargetSettings, weights_digest
from tests.architectures import boot
from tests.facts.capitals import CAPITALS
from tests.facts.conftest import make_tokenizer

NEW = {("France", "capital"): "Tokyo", ("Japan", "capital"): "Paris"}
TEMPLATES = {"capital": ["The [capital] of {subject} is", "{subject} has the [capital]"]}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer("byte-level").save_pretrained(folder)
    return folder


@cache
def booted(name: str, folder: Path) -> Any:
    return boot(name, PreTrainedTokenizerFast.from_pretrained(folder))[0]


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Gemma 2"])
@pytest.mark.parametrize("method", ["rome", "memit"])
def test_new_answers_become_likelier_and_go_again(
    name: str, method: Any, tokenizer_folder: Path
) -> None:
    model = booted(name, tokenizer_folder)
    facts = interp.Facts.from_table(CAPITALS, model.tokenizer, TEMPLATES)
    rewrites = Rewrites.of_facts(facts, NEW, essence="{subject} is a")
    before = weights_digest(model)
    edit = interp.write_facts(
        model, rewrites, 0, "last subject token", method=method, weight=1e-3, ridge=1e-3,
        targets=TargetSettings(n_steps=30, lr=0.3, kl=0.1, largest=10.0),
    )  # fmt: skip
    told = facts.with_answers(NEW)
    told = told.of(subject=["France", "Japan"])
    was = told.known(model)["answer_probability"]
    with edit.applied(model):
        now = told.known(model)["answer_probability"]
        weight: torch.Tensor = model.blocks[0].mlp.out.weight
        assert weight.shape in (edit.factors[0].change.shape, edit.factors[0].change.T.shape)
    assert np.log(now / was).mean() > 0.3
    assert weights_digest(model) == before
    assert set(edit.table["before"]) == {"Paris", "Tokyo"}


def test_a_norm_behind_the_mlp_allows_one_layer(tokenizer_folder: Path) -> None:
    model = booted("Gemma 2", tokenizer_folder)
    facts = interp.Facts.from_table(CAPITALS, model.tokenizer, TEMPLATES)
    rewrites = Rewrites.of_facts(facts, NEW)
    with pytest.raises(ArgumentError, match="Give one layer"):
        interp.write_facts(model, rewrites, [0, 1], "last subject token")


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({}, "no new answer"),
        ({("Atlantis", "capital"): "Paris"}, "no fact"),
        ({("France", "capital"): "Paris"}, "no new answer"),
    ],
)
def test_answers_that_are_none(new: Any, said: str, tokenizer_folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    facts = interp.Facts.from_table(CAPITALS, tokenizer, TEMPLATES)
    with pytest.raises(ArgumentError, match=said):
        Rewrites.of_facts(facts, new)
