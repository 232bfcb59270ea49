"""Selection: what is chosen, its loss and gradient, its costs; and the same bytes after a kill."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import interp
from interp.biographies import Batch, Corpus, TokenKind
from interp.config import Config, SelectionConfig
from interp.errors import ArgumentError, CheckpointError, ConfigError, InterruptedRunError
from interp.model import evaluating, training_loss
from interp.model.adapters import LoraSpec, attach_adapter
from interp.run import Run, finetuned
from interp.training.costs import COLUMNS, costs_until_known, training_costs
from interp.training.parallel import gather
from interp.training.selection import Costs, Selection, answer_losses, difference_loss
from tests.helpers import contents

BRIEF = {
    "training.n_steps": 8, "training.early_checkpoints": (0,), "training.checkpoint_every": 4,
    "evaluation.every": 2, "evaluation.n_individuals": 8, "evaluation.splits": ("evaluation",),
    "population.n_held_out": 0,
}  # fmt: skip
LARGEST = {"selection.kind": "largest_loss", "selection.k": 2}
TWO_ATTRIBUTES = {"form": "biography", "attributes": ("major", "company")}
ON_ADAPTER = {
    "selection.kind": "wrong_values", "selection.contrast": 1.0, "adapter.rank": 2,
    "data.stages": ({"forms": [TWO_ATTRIBUTES], "weights": "adapter"},),
}  # fmt: skip


@pytest.fixture(scope="module")
def brief(smoke: Config) -> Config:
    return smoke.with_settings(**BRIEF)


@pytest.fixture(scope="module")
def model(smoke_run: Run) -> TransformerBridge:
    return smoke_run.model()


def half_right(model: TransformerBridge, batch: Batch) -> Batch:
    """A batch in which the values of two attributes are what the model predicts there."""
    tokens = batch.tokens.clone()
    with evaluating(model):
        for position in range(1, tokens.shape[1]):
            predicted = model(tokens[:, :position])[:, -1].argmax(-1)
            here = (batch.kind[:, position] == TokenKind.VALUE) & torch.isin(
                batch.attribute[:, position], torch.tensor([0, 1])
            )
            tokens[here, position] = predicted[here]
    return Batch(**{**vars(batch), "tokens": tokens})


@pytest.fixture
def pad(corpus: Corpus) -> int:
    return corpus.tokenizer.pad_token_id


def weights_of(run: Run) -> dict[str, Tensor]:
    return run.model().state_dict()


@pytest.mark.parametrize(
    "kind", ["largest_loss", *(pytest.param(k, marks=pytest.mark.slow) for k in ("smallest_loss", "random"))]
)  # fmt: skip
def test_one_candidate_each_is_plain_training(
    kind: str, brief: Config, trained: Callable[[Config], Run], tmp_path: Path
) -> None:
    plain = trained(brief)
    config = brief.with_settings(**{"selection.kind": kind, "selection.k": 1})
    run = interp.train(config, tmp_path, progress=False)
    assert all(torch.equal(w, weights_of(plain)[name]) for name, w in weights_of(run).items())
    measured = run.metrics[run.metrics["split"] != "selection"].reset_index(drop=True)
    assert measured.equals(plain.metrics)
    assert training_costs(run).equals(training_costs(plain)), "no pass is made to choose from one"


@pytest.mark.parametrize(
    "settings",
    [LARGEST, pytest.param(ON_ADAPTER, marks=pytest.mark.slow)],
    ids=["largest loss", "wrong values, contrast, adapter"],
)
def test_killed_or_interrupted_and_resumed(
    settings: dict[str, Any], brief: Config, trained: Callable[[Config], Run], tmp_path: Path
) -> None:
    config = brief.with_settings(**settings)
    whole = trained(config)

    class KilledError(BaseException):
        pass

    def stop_at(step: int, kill: bool) -> Callable[..., None]:
        def stop(share: float | int, note: str = "") -> None:
            if note.startswith(f"step {step} "):
                if kill:  # nothing is saved: it goes on from the last checkpoint
                    raise KilledError
                os.kill(os.getpid(), signal.SIGINT)

        return stop

    with pytest.raises(InterruptedRunError):
        interp.train(config, tmp_path, progress=stop_at(3, kill=False))
    with pytest.raises(KilledError):
        interp.train(config, tmp_path, resume=True, progress=stop_at(7, kill=True))
    resumed = interp.train(config, tmp_path, resume=True, progress=False)
    assert contents(resumed.path) == contents(whole.path)


def loss_by_hand(model: TransformerBridge, batch: Batch, row: int) -> tuple[float, list[bool]]:
    """The attribute loss of a biography, and which values are predicted wrong, from whole logits."""
    with evaluating(model):
        log_probabilities = model(batch.tokens[row : row + 1])[0].double().log_softmax(-1)
    losses, wrong = [], []
    for start, length in zip(batch.value_start[row], batch.value_length[row], strict=True):
        places = range(int(start), int(start + length))
        targets = [int(batch.tokens[row, place]) for place in places]
        before = [log_probabilities[place - 1] for place in places]
        losses.append(-sum(float(p[t]) for p, t in zip(before, targets, strict=True)))
        wrong.append(any(int(p.argmax()) != t for p, t in zip(before, targets, strict=True)))
    return sum(losses) / len(losses), wrong


def test_the_largest_and_smallest_losses_are_chosen(
    brief: Config, corpus: Corpus, model: TransformerBridge
) -> None:
    candidates = corpus.batch(3, 24)
    losses = [loss_by_hand(model, candidates, row)[0] for row in range(24)]
    by_loss = sorted(range(24), key=lambda row: losses[row])
    chosen = {}
    for kind, expected in (("smallest_loss", by_loss[:8]), ("largest_loss", by_loss[-8:])):
        config = brief.with_settings(**{"selection.kind": kind, "selection.k": 3})
        selection = Selection(config, corpus, model, "fp32", torch.device("cpu"))
        assert selection.n_candidates == 24
        chosen[kind] = selection.chosen(candidates, 3)
        taken = candidates.take(torch.tensor(sorted(expected)))
        assert torch.equal(chosen[kind].tokens, taken.tokens)
        assert torch.equal(chosen[kind].value_start, taken.value_start)
        parts = sum(part.tokens.numel() for part in candidates.split(8))
        assert selection.costs == Costs(forward_tokens=parts)
    found = answer_losses(model, candidates, pad_token=corpus.tokenizer.pad_token_id)
    torch.testing.assert_close(found.tolist(), losses, rtol=1e-5, atol=1e-5)


def test_of_equal_losses_the_first_are_chosen(
    brief: Config, corpus: Corpus, model: TransformerBridge
) -> None:
    two = corpus.batch(0, 2)
    candidates = two.take(torch.tensor([0, 1] * 8))
    for kind in ("largest_loss", "smallest_loss"):
        config = brief.with_settings(
            **{"selection.kind": kind, "selection.k": 4, "training.batch_size": 4}
        )
        selection = Selection(config, corpus, model, "fp32", torch.device("cpu"))
        order = torch.arange(16)
        marked = Batch(**{**vars(candidates), "individuals": order})
        chosen = selection.chosen(marked, 0).individuals.tolist()
        assert chosen in ([0, 2, 4, 6], [1, 3, 5, 7])


def test_random_candidates_are_a_function_of_the_step(
    brief: Config, corpus: Corpus, model: TransformerBridge
) -> None:
    config = brief.with_settings(**{"selection.kind": "random", "selection.k": 4})
    selection = Selection(config, corpus, model, "fp32", torch.device("cpu"))
    candidates = corpus.batch(0, 32)
    marked = Batch(**{**vars(candidates), "individuals": torch.arange(32)})
    chosen = [selection.chosen(marked, step).individuals.tolist() for step in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] == sorted(set(chosen[0]))
    assert selection.costs == Costs()


def test_the_loss_on_wrong_values_alone(corpus: Corpus, model: TransformerBridge, pad: int) -> None:
    batch = half_right(model, corpus.batch(5, 8))
    counted = torch.zeros_like(batch.tokens, dtype=torch.bool)
    n_wrong = n_right = 0
    for row in range(len(batch)):
        for value, wrong in enumerate(loss_by_hand(model, batch, row)[1]):
            start = int(batch.value_start[row, value])
            counted[row, start : start + int(batch.value_length[row, value])] = wrong
            n_wrong, n_right = n_wrong + wrong, n_right + (not wrong)
    assert min(n_wrong, n_right) > 3, "both occur"
    loss, values = difference_loss(model, batch, pad_token=pad, only_wrong=True)
    assert values == n_wrong
    assert torch.equal(loss, training_loss(model, batch.tokens, pad_token=pad, counted=counted))
    companies = batch.attribute == corpus.attributes.index("company")
    of_them, fewer = difference_loss(
        model, batch, pad_token=pad, only_wrong=True, counted=companies
    )
    expected = training_loss(model, batch.tokens, pad_token=pad, counted=counted & companies)
    assert torch.equal(of_them, expected)
    assert 0 < fewer < n_wrong


@pytest.mark.parametrize("adapted", [False, True], ids=["fused", "whole"])
def test_contrast_equals_its_formula(
    adapted: bool, corpus: Corpus, model: TransformerBridge, pad: int
) -> None:
    """Loss and gradient, against autograd through -log σ(β (log p(true) - log p(predicted)))."""
    batch, beta = half_right(model, corpus.batch(7, 8)), 0.7
    adapter = attach_adapter(model, LoraSpec(rank=2)) if adapted else None
    parameters = [p for p in model.parameters() if p.requires_grad]
    try:
        loss, values = difference_loss(model, batch, pad_token=pad, contrast=beta)
        found = torch.autograd.grad(loss, parameters)
        log_p = model(batch.tokens).log_softmax(-1)
        terms = []
        for row in range(len(batch)):
            for start, length in zip(batch.value_start[row], batch.value_length[row], strict=True):
                places = torch.arange(int(start), int(start + length))
                before, targets = log_p[row, places - 1], batch.tokens[row, places]
                true = before.gather(1, targets[:, None]).sum()
                predicted = before.gather(1, before.argmax(1, keepdim=True)).sum()
                if bool((before.argmax(1) != targets).any()):
                    terms.append(-torch.sigmoid(beta * (true - predicted)).log())
        there = batch.kind[:, 1:] != TokenKind.PADDING
        plain = F.cross_entropy(log_p[:, :-1][there], batch.tokens[:, 1:][there])
        by_hand = plain + torch.stack(terms).sum() / there.sum()
        expected = torch.autograd.grad(by_hand, parameters)
        assert 0 < len(terms) < values == 48
    finally:
        if adapter is not None:
            adapter.detach()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_nothing_wrong_is_no_loss(corpus: Corpus, model: TransformerBridge, pad: int) -> None:
    batch = corpus.batch(0, 2)
    nothing = torch.zeros_like(batch.tokens, dtype=torch.bool)
    for only_wrong in (True, False):
        loss, values = difference_loss(
            model, batch, pad_token=pad, counted=nothing, only_wrong=only_wrong, contrast=1.0
        )
        assert (loss.item(), values) == (0, 0)
    assert answer_losses(model, batch, pad_token=pad, counted=nothing).tolist() == [0, 0]


def test_costs(brief: Config, trained: Callable[[Config], Run]) -> None:
    run = trained(brief.with_settings(**LARGEST))
    costs = training_costs(run)
    assert list(costs.columns) == [*COLUMNS, "attribute_accuracy"]
    assert costs["step"].tolist() == [0, 2, 4, 6, 8]
    assert costs.iloc[0, :6].tolist() == [0] * 6
    candidates = [run.corpus.batch(step, 16) for step in range(8)]
    scored = sum(part.tokens.numel() for of in candidates for part in of.split(8))
    last = costs.iloc[-1]
    assert last["forward_tokens"] - last["backward_tokens"] == scored
    assert last["arithmetic"] == last["forward_tokens"] + 2 * last["backward_tokens"]
    assert (last["examples"], last["values"]) == (8 * 8, 8 * 8 * 6)
    assert "selection" not in set(trained(brief).metrics["split"])
    known = costs_until_known(run, (1e-9, 1.0))
    assert known["share"].tolist() == [1e-9, 1.0]
    assert known["examples"].isna().iloc[1]
    for wrong in ((90.0,), (), (float("nan"),)):
        with pytest.raises(ArgumentError, match="above 0"):
            costs_until_known(run, wrong)


def test_fine_tuning_begins_without_the_selection_of_its_base(brief: Config) -> None:
    base = brief.with_settings(**LARGEST, **{"population.n_held_out": 8})
    assert finetuned(base).selection == SelectionConfig()
    tuned = finetuned(base, **{"selection.kind": "wrong_values"})
    assert (tuned.selection.kind, tuned.selection.k) == ("wrong_values", None)


def test_a_state_without_its_counts_is_refused() -> None:
    for wrong in ("", "1 2 3", "1 2 3 x", "-1 2 3 4"):
        with pytest.raises(CheckpointError, match="counts"):
            Costs.parse(wrong)
    assert Costs.parse(str(Costs(1, 2, 3, 4))) == Costs(1, 2, 3, 4)


def test_several_processes_are_refused(brief: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"selection: .*one process") as caught:
        gather(brief.with_settings(**LARGEST))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"selection.kind": "largest_loss"}, ["needs selection.k"]),
        ({"selection.kind": "random"}, ["needs selection.k"]),
        ({"selection.k": 2}, ["k=2", "no kind"]),
        ({"selection.kind": "wrong_values", "selection.k": 2}, ["k=2", "wrong_values"]),
        ({"selection.kind": "hardest"}, ["selection.kind='hardest'", "'largest_loss'"]),
        ({"selection.kind": "random", "selection.k": 0}, ["selection.k=0", "from 1"]),
        ({"selection.contrast": 0}, ["selection.contrast=0", "above 0"]),
        ({"selection.contrast": float("nan")}, ["selection.contrast"]),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: list[str], brief: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        brief.with_settings(**settings)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.slow
@pytest.mark.parametrize("settings", [LARGEST, {"selection.contrast": 1.0}])
def test_with_an_adaptive_schedule(settings: dict[str, Any], smoke: Config, tmp_path: Path) -> None:
    """The schedule decides who is drawn, the selection which of those are trained on."""
    adaptive = {"kind": "adaptive", "indiv_warmup": 2, "growth": "at_once"}
    config = smoke.with_settings(sampling=adaptive, **settings)
    run = interp.train(config, tmp_path / "run", progress=False)
    again = interp.train(config, tmp_path / "again", progress=False)
    assert contents(run.path) == contents(again.path)
    assert training_costs(run)["examples"].iloc[-1] == 40 * 8
