"""Path patching against TransformerLens' exact direct paths, and against what it means."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

from interp import hooked_transformer
from interp.biographies import Corpus, Spans, load_tokenizer
from interp.config import Config
from interp.errors import ConfigError
from interp.interventions import LOGIT_DIFFERENCE, Pairs, path_patch
from interp.model import evaluating


@pytest.fixture(scope="module", params=["LN", "RMS", "rotary"])
def model(request: pytest.FixtureRequest, smoke: Config, corpus: Corpus) -> TransformerBridge:
    settings = {
        "LN": {"model.n_layers": 3},
        "RMS": {"model.normalization": "RMS"},
        "rotary": {"model.positions": "rotary"},
    }[request.param]
    model = hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, len(corpus.tokenizer), (2, 5, 12), generator=generator)
    spans = Spans.from_lists(12, sentences=[(1, 12)], names=[(1, 4)])
    return Pairs.of_tokens(
        base, source, Spans.stack([spans] * 5), [11, 9, 11, 10, 8], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]
    )  # fmt: skip


def difference(logits: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    rows = torch.arange(len(pairs))
    read = logits[rows, pairs.read]
    return (read[rows, pairs.source_answer] - read[rows, pairs.base_answer]).mean()


@pytest.mark.parametrize("component", ["q", "k", "v"])
def test_equal_to_transformer_lens(model: TransformerBridge, pairs: Pairs, component: str) -> None:
    table = path_patch(
        model, pairs, receivers=f"{component}_input", metrics=LOGIT_DIFFERENCE
    ).set_index(["sender_layer", "sender_head", "layer", "head"])  # fmt: skip
    with evaluating(model):
        _, clean = model.run_with_cache(pairs.source)
        _, corrupted = model.run_with_cache(pairs.base)
        expected = patching.get_act_patch_direct_path_all_sources(
            model, pairs.base, clean, corrupted, lambda logits: difference(logits, pairs),
            component=component, verbose=False,
        )  # fmt: skip
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    assert len(table) == n_heads**2 * n_layers * (n_layers - 1) // 2
    for (from_layer, from_head, layer, head), row in table.iterrows():
        there = expected[from_layer, int(from_head), layer, int(head)].item()
        assert row["value"] == pytest.approx(there, abs=1e-5)
    assert (table["value"] - table["unpatched"]).abs().max() > 1e-2


def test_all_receivers_of_all_heads_read_what_the_layer_reads(
    model: TransformerBridge, pairs: Pairs
) -> None:
    """A sender's change of the stream before a layer, in all of its queries, is that of the layer's."""
    table = path_patch(
        model, pairs, "mlp_out", "v_input", [0], [1], receiver_heads="all", metrics=LOGIT_DIFFERENCE
    )  # fmt: skip
    with evaluating(model):
        _, clean = model.run_with_cache(pairs.source)
        _, plain = model.run_with_cache(pairs.base)
        change = clean["blocks.0.hook_mlp_out"] - plain["blocks.0.hook_mlp_out"]
        changed = model.blocks[1].ln1.original_component(plain["resid_pre", 1] + change)
        values = model.blocks[1].attn.v.original_component(changed)
        hook = lambda value, hook: values.view_as(value)  # noqa: E731
        logits = model.run_with_hooks(pairs.base, fwd_hooks=[("blocks.1.attn.hook_v", hook)])
    assert len(table) == 1
    assert table["sender_head"].isna().all()
    assert table["value"].item() == pytest.approx(difference(logits, pairs).item(), abs=1e-5)


def test_little_memory_and_the_model_left_alone(model: TransformerBridge, pairs: Pairs) -> None:
    model.train()
    plenty, little = (
        path_patch(model, pairs, ("result", "mlp_out"), max_memory_gb=m) for m in (1, 1e-6)
    )
    np.testing.assert_allclose(plenty["value"], little["value"], atol=1e-5)
    assert model.training
    assert not model.cfg.use_split_qkv_input
    assert not model.cfg.use_attn_result
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_a_source_equal_to_the_base_changes_nothing(model: TransformerBridge, pairs: Pairs) -> None:
    same = Pairs.of_tokens(
        pairs.base, pairs.base, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )
    table = path_patch(model, same)
    np.testing.assert_allclose(table["value"], table["unpatched"], atol=1e-5)


def test_a_model_from_elsewhere(pairs: Pairs, corpus: Corpus, tmp_path: Path) -> None:
    corpus.tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=3000, initializer_range=0.3,
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    model = TransformerBridge.boot_transformers(
        "gpt2", hf_model=GPT2LMHeadModel(config), tokenizer=load_tokenizer(tmp_path)
    )
    table = path_patch(model, pairs, receivers="q_input", metrics=LOGIT_DIFFERENCE)
    with evaluating(model):
        _, clean = model.run_with_cache(pairs.source)
        _, corrupted = model.run_with_cache(pairs.base)
        expected = patching.get_act_patch_direct_path(
            model, pairs.base, clean, corrupted, lambda logits: difference(logits, pairs), 0, 1,
            verbose=False,
        )  # fmt: skip
    found = table.query("sender_head == 1").set_index("head")["value"]
    assert found[0] == pytest.approx(expected[1, 0].item(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"senders": "z"}, "result"),
        ({"receivers": ()}, "receiver"),
        ({"sender_layers": [1], "receiver_layers": [1]}, "later"),
        ({"receiver_heads": [7]}, "head"),
        ({"metrics": "loss"}, "metric"),
    ],
)
def test_bad_input(model: TransformerBridge, pairs: Pairs, settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        path_patch(model, pairs, **settings)
