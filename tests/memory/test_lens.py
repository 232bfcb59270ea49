"""The logit lens and direct logit attribution over checkpoints: against weights, logits, refusals."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools import analysis

from interp import hooked_transformer
from interp.biographies import Corpus, Spans, Texts, load_tokenizer
from interp.config import Config
from interp.errors import ArgumentError
from interp.interventions import Pairs, facts_of
from interp.memory import OWN_DIFFERENCE, direct_logit_attribution, logit_lens
from interp.run import Run
from tests.model.test_live import ARCHITECTURES

EXTRA: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "GPT-2": (
        "GPT2LMHeadModel", "GPT2Config", "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3},
    ),
    "capped": (
        *ARCHITECTURES["Gemma 2"][:3],
        ARCHITECTURES["Gemma 2"][3] | {"final_logit_softcapping": 2.0},
    ),
}  # fmt: skip
KINDS = {**EXTRA, **ARCHITECTURES}
ADDITIVE = (
    "ours",
    "GPT-2",
    "NeoX",
    "Falcon",
    "Bloom",
    "Llama",
    "Qwen 2",
    "Qwen 3",
    "Phi 3",
    "GPT-J",
    "OPT",
)
FOLDED = ("ours", "GPT-2", "NeoX", "Bloom", "Llama", "Qwen 2")
"""Those whose norms TransformerLens can fold into the weights, as its own function needs."""


@pytest.fixture(scope="module")
def booted(
    smoke: Config, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], TransformerBridge]:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    tokenizer = load_tokenizer(Path(folder))

    @cache
    def boot(kind: str) -> TransformerBridge:
        torch.manual_seed(0)
        if kind == "ours":
            settings = {"model.init_std": 0.3, "model.n_ctx": 64}
            model = hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer)
        else:
            architecture, config, name, settings = KINDS[kind]
            inner = getattr(transformers, architecture)(
                getattr(transformers, config)(
                    **settings, vocab_size=len(corpus.tokenizer), architectures=[architecture]
                )
            )
            model = TransformerBridge.boot_transformers(name, hf_model=inner, tokenizer=tokenizer)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # norms and biases that matter
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return boot


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    """Five prompts, read at two positions."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(5, len(corpus.tokenizer), (5, 9), generator=generator)
    spans = Spans.from_lists(9, sentences=[(1, 9)], names=[(1, 4)])
    stacked = Spans.stack([spans] * 5)
    return Pairs.of_tokens(
        base, base, stacked, [8, 6, 8, 6, 6], [5, 6, 7, 8, 9], [20, 21, 22, 23, 24]
    )


def read(logits: Tensor, pairs: Pairs) -> Tensor:
    return logits[torch.arange(len(pairs)), pairs.read]


def difference(logits: Tensor, pairs: Pairs) -> np.ndarray:
    own, other = (
        logits.gather(1, answer[:, None])[:, 0]
        for answer in (pairs.base_answer, pairs.source_answer)
    )
    return (own - other).double().numpy()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["ours", *KINDS])
def test_the_lens_against_norm_and_unembedding(
    kind: str, booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model = booted(kind)
    before = model(pairs.base)
    try:
        table = logit_lens({0: model}, pairs)
    except ArgumentError as error:
        pytest.fail(f"{kind} is refused: {error}")
    assert torch.equal(model(pairs.base), before)
    n_layers = model.cfg.n_layers
    middle = "blocks.0.hook_resid_mid" in model.hook_dict
    assert len(table) == n_layers * (2 if middle else 1) + 1
    _, cached = model.run_with_cache(pairs.base)
    cap = KINDS.get(kind, ("", "", "", {}))[3].get(
        "final_logit_softcapping", 30.0 if kind == "Gemma 2" else None
    )
    for row in table.itertuples():
        stream = read(cached[f"blocks.{row.layer}.hook_{row.site}"], pairs)
        logits = model.unembed(model.ln_final(stream[None]))[0]
        if kind == "Cohere":
            logits = logits * model.original_model.config.logit_scale
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        if row.site == "resid_post":
            torch.testing.assert_close(logits, read(before, pairs), rtol=1e-4, atol=1e-4)
        right = logits.gather(1, pairs.base_answer[:, None])
        ranks = (logits > right).sum(1) + 1
        chance = logits.softmax(1).gather(1, pairs.base_answer[:, None]).mean()
        assert row.probability == pytest.approx(float(chance), rel=1e-3, abs=1e-6)
        assert row.rank == pytest.approx(float(ranks.double().mean()))
        assert row.first == pytest.approx(float((ranks == 1).double().mean()))
        expected = difference(logits, pairs).mean()
        assert getattr(row, OWN_DIFFERENCE) == pytest.approx(expected, abs=1e-4)
        assert row.n == 5
    assert table["layer"].iloc[-1] == n_layers - 1


@torch.no_grad()
@pytest.mark.parametrize("unit", ["component", "head"])
@pytest.mark.parametrize("kind", ["ours", *KINDS])
def test_contributions_add_up_or_are_refused(
    kind: str, unit: Any, booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model = booted(kind)
    before = model(pairs.base)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    try:
        table = direct_logit_attribution({7: model}, pairs, unit=unit)
    except ArgumentError:
        table = None
    assert torch.equal(model(pairs.base), before)
    assert all(torch.equal(model.state_dict()[name], w) for name, w in weights.items())
    if table is None:
        assert kind not in ADDITIVE
        return
    whole = difference(read(before, pairs), pairs)
    size = table["contribution"].abs().sum()
    assert table["contribution"].sum() == pytest.approx(whole.mean(), abs=3e-4 * size)
    assert kind not in ("capped", "Gemma 2"), "capped logits are no sum"
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    parts = table["component"].value_counts()
    if unit == "head":
        assert parts["head"] == n_layers * n_heads
    else:
        assert parts["attn_out"] == parts["mlp_out"] == n_layers
    assert set(table["step"]) == {7}


@torch.no_grad()
@pytest.mark.parametrize("unit", ["component", "head"])
@pytest.mark.parametrize("kind", FOLDED)
def test_equal_to_transformer_lens(
    kind: str, unit: Any, booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    """Theirs on weights that are processed, all prompts read at one position."""
    model = booted(kind)
    some = replace(pairs, read=torch.full_like(pairs.read, 8))
    processed = copy.deepcopy(model)
    processed.enable_compatibility_mode(fold_value_biases=False, disable_warnings=True)
    theirs = analysis.direct_logit_attribution(
        processed, some.base, some.base_answer, some.source_answer, unit=unit
    )
    table = direct_logit_attribution({0: model}, some, unit=unit)
    assert len(table) == len(theirs.labels) + 1
    means, errors = theirs.attribution.mean(1), theirs.attribution.std(1) / 5**0.5
    np.testing.assert_allclose(table["contribution"][:-1], means, atol=3e-4)
    np.testing.assert_allclose(table["standard_error"][:-1], errors, atol=3e-4)
    names = {"embed": "embed", "pos_embed": "pos_embed", "remainder": "remainder"}
    for row, label in zip(table.itertuples(), theirs.labels, strict=False):
        ours = f"L{row.layer}H{row.head}" if row.component == "head" else None
        ours = ours or names.get(str(row.component)) or f"{row.layer}_{row.component}"
        assert ours == label


def test_over_checkpoints_and_texts(short_run: Run, corpus: Corpus) -> None:
    table = logit_lens(short_run, n_individuals=4, steps=short_run.steps[-2:])
    assert set(table["step"]) == set(short_run.steps[-2:])
    assert OWN_DIFFERENCE not in table
    assert set(table["n"]) == {4 * 6}
    last = table[table["step"] == short_run.steps[-1]]
    people = short_run.texts("evaluation", 4)
    again = logit_lens({short_run.steps[-1]: short_run.model()}, people, batch_size=5)
    np.testing.assert_allclose(again["probability"], last["probability"], rtol=1e-4)
    facts = facts_of(people)
    with torch.no_grad():
        logits = short_run.model()(facts.base)
    chance = read(logits, facts).softmax(1).gather(1, facts.base_answer[:, None]).mean()
    assert last["probability"].iloc[-1] == pytest.approx(float(chance), rel=1e-3)


def test_errors(booted: Callable[[str], TransformerBridge], pairs: Pairs) -> None:
    model = booted("ours")
    with pytest.raises(ArgumentError, match="texts"):
        logit_lens({0: model})
    spans = Spans.from_lists(9, sentences=[(1, 9)], names=[(1, 4)])
    with pytest.raises(ArgumentError, match="has no value"):
        logit_lens({0: model}, Texts(pairs.base[:1], spans))


@torch.no_grad()
def test_a_model_that_changes_its_logits_is_refused(
    booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model = booted("GPT-2")
    twice = partial(torch.mul, other=2.0)
    handle = model.unembed.register_forward_hook(lambda module, args, out: twice(out))
    try:
        with pytest.raises(ArgumentError, match="computed in another way"):
            logit_lens({0: model}, pairs)
        with pytest.raises(ArgumentError):
            direct_logit_attribution({0: model}, pairs)
    finally:
        handle.remove()


@torch.no_grad()
def test_heads_behind_a_changed_projection_are_refused(
    booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    """As an adapter would: components still add up, what heads write is no longer told by W_O."""
    model = booted("Llama")
    handle = model.blocks[1].attn.o.register_forward_hook(lambda module, args, out: 1.5 * out)
    try:
        whole = difference(read(model(pairs.base), pairs), pairs).mean()
        table = direct_logit_attribution({0: model}, pairs)
        assert table["contribution"].sum() == pytest.approx(whole, abs=1e-3)
        with pytest.raises(ArgumentError, match="heads of layer 1"):
            direct_logit_attribution({0: model}, pairs, unit="head")
    finally:
        handle.remove()
