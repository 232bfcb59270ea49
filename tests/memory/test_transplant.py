"""Transplants between two states of a model: parts cover it, and nothing of it is left changed."""

import pytest
import torch

from interp.errors import ArgumentError
from interp.knowledge import split_batch
from interp.memory import cache_activations, draw_batches, key_turns, transplants, weight_changes
from interp.memory.transplant import PARTS, parts_of
from interp.model import hooked_transformer
from interp.run import Run


def test_parts_cover_the_model_once(short_run: Run) -> None:
    model = short_run.model()
    parts = parts_of(model)
    names = [name for part in PARTS for name in parts[part]]
    assert sorted(names) == sorted(model.state_dict())
    assert sorted(parts["MLP 0"] + parts["MLP 1"]) == sorted(parts["MLP"])


def test_models_are_left_as_they_were(short_run: Run) -> None:
    before, after = short_run.model(0), short_run.model()
    batches = {"evaluation": split_batch(short_run.corpus, "evaluation", 8)}
    table = transplants(before, after, batches)
    assert list(table["transplant"][:2]) == ["none", "all"]
    assert len(table) == 2 + 2 * len(parts_of(before))
    for model, step in ((before, 0), (after, None)):
        there = short_run.model(step).state_dict()
        assert all(torch.equal(there[name], value) for name, value in model.state_dict().items())


def test_a_model_has_not_moved_from_itself(short_run: Run) -> None:
    model = short_run.model()
    assert (weight_changes(model, model)["value"] == 0).all()


def test_models_that_do_not_fit_are_refused(short_run: Run) -> None:
    model = short_run.model()
    other = short_run.config.with_settings(**{"model.d_mlp": 32})
    narrower = hooked_transformer(other, short_run.tokenizer)
    for compared in (weight_changes, lambda *models: transplants(*models, {})):
        with pytest.raises(ArgumentError, match="same weights"):
            compared(model, narrower)


def test_keys_of_other_people_are_not_compared(short_run: Run) -> None:
    one, other = (
        cache_activations(
            short_run.model(),
            draw_batches(short_run.corpus, slice(*who), "evaluation", (0,)),
            sites=[],
        )
        for who in ((0, 4), (4, 8))
    )
    assert (key_turns(one, one)["value"].abs() < 1e-6).all()
    with pytest.raises(ArgumentError, match="same people"):
        key_turns(one, other)
