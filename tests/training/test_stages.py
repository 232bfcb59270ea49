"""Stages of training: what is shown, on which tokens the loss is, and which weights are trained."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp import preset
from interp.biographies import Corpus, TokenKind
from interp.config import Config
from interp.errors import CheckpointError, InterruptedRunError, RunError
from interp.model import hooked_transformer, training_loss
from interp.model.adapters import adapter_of
from interp.run import Run, fingerprint
from interp.run.adapters import adapter_steps
from interp.run.base import finetuned
from interp.training.optimizer import learning_rate
from tests.helpers import contents

ADAPTER = {"adapter.rank": 2, "adapter.alpha": 8.0}


def staged(*stages: dict[str, Any], **settings: Any) -> Config:
    small = {
        "training.n_steps": 12, "training.checkpoint_every": 4, "training.early_checkpoints": (0,),
        "training.batch_size": 8, "evaluation.every": 4, "evaluation.n_individuals": 8,
    }  # fmt: skip
    return preset("smoke", **(small | settings), **{"data.stages": stages})


@pytest.fixture(scope="module")
def with_adapter() -> Config:
    return staged(
        {"start": 0, "forms": [{"form": "mnemonic"}]},
        {"start": 4, "forms": [{"form": "biography", "loss": "values"}], "weights": "adapter",
         "learning_rate": 0.02},
        {"start": 8, "forms": [{"form": "biography"}]},
        **ADAPTER,
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapted(with_adapter: Config, trained: Callable[[Config], Run]) -> Run:
    return trained(with_adapter)


def weights(run: Run, step: int, use: Any = "off") -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in run.model(step, adapter=use).state_dict().items()}


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_adapter_is_trained_in_its_stage_alone(adapted: Run) -> None:
    assert adapted.steps == [0, 4, 8, 12]
    assert adapter_steps(adapted.path) == [8]
    assert alike(
        weights(adapted, 4), weights(adapted, 8)
    )  # the model's own weights stay as they are
    assert not alike(weights(adapted, 0), weights(adapted, 4))
    assert not alike(weights(adapted, 8), weights(adapted, 12))


def test_the_adapter_off_on_merged(adapted: Run) -> None:
    tokens = adapted.texts(n_individuals=4).tokens
    off, on, merged = (adapted.model(8, adapter=use) for use in ("off", "on", "merged"))
    before = adapted.model(4)
    assert torch.equal(off(tokens), before(tokens))
    assert not torch.allclose(on(tokens), off(tokens), atol=1e-4)
    torch.testing.assert_close(merged(tokens), on(tokens), atol=1e-5, rtol=0)
    adapter = adapter_of(on)
    assert adapter is not None
    with adapter.disabled():
        assert torch.equal(on(tokens), before(tokens))
    adapter.detach()
    assert torch.equal(on(tokens), before(tokens))


def test_by_default_a_model_is_what_it_was_in_training(adapted: Run) -> None:
    recorded = adapted.curve()
    for step in adapted.steps:
        measured = adapted.measure(step, n_individuals=8).set_index(["metric", "attribute"])[
            "value"
        ]
        assert measured["attribute_loss", "all"] == pytest.approx(recorded[step], rel=1e-4)
    tokens = adapted.texts(n_individuals=4).tokens
    together = {step: model(tokens).clone() for step, model in adapted.models([12, 8, 4, 8])}
    for step, logits in together.items():
        assert torch.equal(logits, adapted.model(step)(tokens)), step


def test_the_last_adapter_can_be_put_on_a_later_checkpoint(adapted: Run) -> None:
    tokens = adapted.texts(n_individuals=2).tokens
    assert not torch.equal(adapted.model(12, adapter="on")(tokens), adapted.model(12)(tokens))
    with pytest.raises(RunError, match="no adapter at step 4"):
        adapted.model(4, adapter="on")


def test_a_damaged_adapter_is_refused(adapted: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(adapted.path, tmp_path / "run"))
    path = run.path / "adapters" / "step_00000008" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError):
        run.model(8)


@pytest.mark.parametrize("at", [2, 4, 6, 8, 10])
def test_interrupted_and_resumed(
    at: int, with_adapter: Config, adapted: Run, tmp_path: Path
) -> None:
    stopped = []

    def stop(share: float | int, note: str = "") -> None:
        if note.startswith(f"step {at} ") and not stopped:
            stopped.append(at)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        interp.train(with_adapter, tmp_path / "run", progress=stop)
    resumed = interp.train(with_adapter, tmp_path / "run", resume=True, progress=False)
    assert contents(resumed.path) == contents(adapted.path)


def test_overwriting_removes_the_adapters(adapted: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(adapted.path, tmp_path / "run"))
    plain = staged({"start": 0, "forms": [{"form": "mnemonic"}]})
    again = interp.train(plain, run.path, overwrite=True, progress=False)
    assert not (again.path / "adapters").exists()


def test_the_loss_is_on_what_the_stage_says(with_adapter: Config) -> None:
    corpus = Corpus.from_config(with_adapter)
    model = hooked_transformer(with_adapter, corpus.tokenizer)
    batch = corpus.batch(5, 8)
    counted = corpus.counted(batch, 5)
    pad = corpus.tokenizer.pad_token_id
    loss = training_loss(model, batch.tokens, pad_token=pad, counted=counted)
    log_probabilities = model(batch.tokens).log_softmax(-1)
    own = [
        -log_probabilities[row, place - 1, batch.tokens[row, place]]
        for row, place in (batch.kind == TokenKind.VALUE).nonzero().tolist()
    ]
    assert loss.item() == pytest.approx(torch.stack(own).mean().item(), rel=1e-5)
    none = torch.zeros_like(batch.kind, dtype=torch.bool)
    assert training_loss(model, batch.tokens, pad_token=pad, counted=none).item() == 0


def test_a_stage_has_a_learning_rate_of_its_own(with_adapter: Config) -> None:
    rates = [learning_rate(with_adapter, step) for step in range(12)]
    own = with_adapter.with_settings(
        **{"data.stages": None, "adapter.rank": None, "adapter.alpha": None}
    )
    plain = [learning_rate(own, step) for step in range(12)]
    assert rates[:4] == plain[:4]
    assert rates[4] == 0.02
    assert rates[6] == pytest.approx(0.01)
    assert rates[8:] == plain[8:]


def test_settings_that_are_off_change_no_address() -> None:
    config = preset("tiny")
    assert not any(name.startswith(("data.", "adapter.")) for name in config.identity())
    one = staged({"start": 0, "forms": [{"form": "biography"}]})
    assert fingerprint(one) != fingerprint(one.with_settings(**{"data.stages": None}))
    assert Config.from_yaml(one.to_yaml()) == one


def test_the_same_people_in_another_form(smoke_run: Run, tmp_path: Path) -> None:
    """Questions after biographies, on half of the people, with an adapter; the vocabulary is the base's."""
    config = preset("smoke", **{
        "data.vocabulary": ("question",), "training.n_steps": 4, "training.checkpoint_every": 4,
        "training.early_checkpoints": (0,),
    })  # fmt: skip
    base = interp.train(config, tmp_path / "base", progress=False)
    asked = [{"form": "question", "people": (0, 0.5), "loss": "answers"}]
    settings = {
        "finetuning.base": str(base.path), "finetuning.people": "same", "training.n_steps": 4,
        "data.stages": ({"start": 0, "forms": asked, "weights": "adapter"},), **ADAPTER,
    }  # fmt: skip
    run = interp.train(finetuned(base.config, **settings), tmp_path / "tuned", progress=False)
    assert alike(weights(run, 4), weights(base, 4))
    assert set(run.corpus.batch(0, 200).individuals.tolist()) == set(range(12))
    assert "finetuned" not in set(run.metrics["split"])
    with pytest.raises(RunError, match="has an adapter at step 4"):
        interp.train(
            finetuned(run.config, **{"finetuning.base": str(run.path)}),
            tmp_path / "again",
            progress=False,
        )


def test_one_stage_of_biographies_trains_the_same_weights(tmp_path: Path) -> None:
    """Stages draw the form of each sequence first, so batches are others; the loop is the same."""
    config = staged({"start": 0, "forms": [{"form": "biography"}]})
    run = interp.train(config, tmp_path / "run", progress=False)
    assert run.finished
    assert run.steps == [0, 4, 8, 12]
