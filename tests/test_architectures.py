"""The page of verdicts is what the measures do today; what is read of weights that cannot be read right."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import interp
from interp.errors import ArgumentError
from interp.memory import output_weights, promoted_logits
from interp.model.stream import require_linear_stream
from tests.architectures import (
    ARCHITECTURES,
    EQUAL,
    GROUPED,
    MEASURES,
    N_LAYERS,
    Original,
    boot,
    rows_of,
    small_tokenizer,
    verdicts,
)

PAGE = Path(__file__).parents[1] / "docs/models.md"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_page_says_what_the_measures_do(kind: str) -> None:
    told, found = rows_of(PAGE.read_text(encoding="utf-8"))[kind], verdicts(kind)
    assert told == found, "write the page anew: python -m tests.architectures --page docs/models.md"
    assert not [name for name, verdict in found.items() if verdict.startswith("WRONG")]


def test_the_page_has_every_architecture_and_most_measures_are_equal() -> None:
    told = rows_of(PAGE.read_text(encoding="utf-8"))
    assert list(told) == list(ARCHITECTURES)
    for kind in ("GPT-2", "NeoX", "Llama", "Qwen 2", "Qwen 3", "Gemma 3", "OLMo 2", "Phi 3"):
        assert told[kind] == dict.fromkeys(MEASURES, EQUAL), kind


@torch.no_grad()
def test_what_neurons_add_before_a_cap() -> None:
    """Of Gemma 2: refused, or asked for by name and then equal to hooks before the cap."""
    model, whole = boot("Gemma 2", small_tokenizer())
    for path in ("direct", "attention"):
        with pytest.raises(ArgumentError, match="caps its logits"):
            promoted_logits(model, 0, path)
    promoted = promoted_logits(model, 1, before_cap=True)
    original, tokens = Original("Gemma 2", whole), torch.arange(5, 11)[None]
    kept: list[Tensor] = []
    whole.lm_head.register_forward_hook(lambda module, args, result: kept.append(result))
    with original.frozen_norms(tokens) as scales:
        original(tokens)

        def fire(value: Tensor) -> Tensor:
            value = value.clone()
            value[..., 7] += 1
            return value

        with original.at("post", 1, fire):
            original(tokens)
    moved = (kept[-1] - kept[-2]) * list(scales.values())[-1]
    moved = (moved * scales[original.layers[1].post_feedforward_layernorm])[0, -1]
    torch.testing.assert_close(moved - moved.mean(), promoted[7], rtol=1e-3, atol=1e-3)
    plain = boot("Llama", small_tokenizer())[0]
    assert torch.equal(promoted_logits(plain, 0, before_cap=True), promoted_logits(plain, 0))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["Gemma 3", "OLMo 2", "Falcon"])
def test_promotion_through_attention(kind: str) -> None:
    """All heads of the last layer attend to one token alone, which a neuron of layer 0 writes at."""
    model, whole = boot(kind, small_tokenizer())
    promoted = promoted_logits(model, 0, "attention")
    original, tokens, source, reader = Original(kind, whole), torch.arange(5, 13)[None], 2, 6

    def to_source(pattern: Tensor) -> Tensor:
        pattern = torch.zeros_like(pattern)
        pattern[..., source] = 1
        return pattern

    def fire(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, source, 7] += 1
        return value

    norms = {
        "Gemma 3": ("input_layernorm", "post_attention_layernorm"),
        "OLMo 2": ("", "post_attention_layernorm"),
        "Falcon": ("input_layernorm", ""),
    }[kind]
    with original.patterns({1: to_source}):
        (mlp,) = original.read(tokens, ("mlp_out", 1))
        with (
            original.frozen_norms(tokens) as scales,
            original.at("mlp_out", 1, lambda _: mlp.clone()),
        ):
            plain = original(tokens)
            with original.at("post", 0, fire):
                moved = (original(tokens) - plain)[0, reader]
    moved = moved * list(scales.values())[-1][0, reader]
    for name, position in zip(norms, (source, reader), strict=True):
        if name:
            moved = moved * scales[getattr(original.layers[1], name)][0, position]
    after = getattr(original.layers[0], "post_feedforward_layernorm", None)
    if after is not None:
        moved = moved * scales[after][0, source]
    assert moved.abs().max() > 0.5
    torch.testing.assert_close(moved - moved.mean(), promoted[7], rtol=1e-3, atol=1e-2)


def test_a_model_that_scales_what_it_writes_is_refused() -> None:
    """Granite multiplies what attention and MLP write: a layout that nothing here knows of."""
    settings = {"residual_multiplier": 0.3, "logits_scaling": 2.0, "embedding_multiplier": 3.0}
    config = transformers.GraniteConfig(
        **GROUPED,
        **settings,
        vocab_size=len(small_tokenizer()),
        architectures=["GraniteForCausalLM"],
    )
    model = TransformerBridge.boot_transformers(
        "ibm-granite/granite-3.0-2b-base", hf_model=transformers.GraniteForCausalLM(config),
        tokenizer=small_tokenizer(),
    )  # fmt: skip
    with pytest.raises(ArgumentError, match="do not say what it computes"):
        promoted_logits(model, 0)


def test_what_is_held_against_a_pass() -> None:
    model, _ = boot("OLMo 2", small_tokenizer())
    layers = range(N_LAYERS)
    require_linear_stream(model, layers, layers)
    for point, words in {
        "blocks.1.hook_mlp_out": "layer 1",
        "blocks.1.attn.hook_v": "values of layer 1",
        "blocks.0.attn.hook_out": "layer 0",
        "ln_final.hook_out": "logits",
    }.items():
        model.add_hook(point, lambda value, hook: value * 1.5)
        try:
            with pytest.raises(ArgumentError, match=words):
                require_linear_stream(model, layers, layers)
        finally:
            model.reset_hooks()
    require_linear_stream(model, layers, layers)
    half, _ = boot("OLMo 2", small_tokenizer())
    half.to(torch.bfloat16)
    assert promoted_logits(half, 0).dtype == torch.float32
    assert output_weights(half, 0).shape == (64, 32)


def test_a_fact_in_a_model_with_experts_or_a_cap_is_refused() -> None:
    spans = interp.Spans.from_lists(8, sentences=[(1, 8)], names=[(1, 3)], values=[(6, 8)])
    prompt = interp.FactPrompt.of_text(list(range(5, 13)), spans, [20, 30], relation="relation")
    for kind, words in {"Mixtral": "mixture of experts", "Gemma 2": "caps its logits"}.items():
        with pytest.raises(ArgumentError, match=words):
            interp.locate_fact({0: boot(kind, small_tokenizer())[0]}, prompt)
