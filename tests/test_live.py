"""An edit that cannot have an effect is refused, on models from elsewhere."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPTJConfig, GPTJForCausalLM, OPTConfig, OPTForCausalLM

from interp import hooked_transformer
from interp.attention import Spans, cut_edges
from interp.biographies import Corpus, load_tokenizer
from interp.config import Config
from interp.errors import ConfigError
from interp.interventions import SITES, Pairs, attribution, patch
from interp.model import AttentionPatch, evaluating
from interp.model.live import dead_hooks

KINDS = ("OPT", "GPT-J")


@pytest.fixture(scope="module", params=KINDS)
def model(
    request: pytest.FixtureRequest, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> TransformerBridge:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    d_vocab = len(corpus.tokenizer)
    if request.param == "OPT":
        config = OPTConfig(
            vocab_size=d_vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64,
            max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.3,
            architectures=["OPTForCausalLM"],
        )  # fmt: skip
        inner, name = OPTForCausalLM(config), "facebook/opt-125m"
    else:
        config = GPTJConfig(
            vocab_size=d_vocab, n_embd=32, n_layer=2, n_head=2, n_positions=64, rotary_dim=8,
            initializer_range=0.3, architectures=["GPTJForCausalLM"],
        )  # fmt: skip
        inner, name = GPTJForCausalLM(config), "EleutherAI/gpt-j-6B"
    return TransformerBridge.boot_transformers(
        name, hf_model=inner, tokenizer=load_tokenizer(Path(folder))
    ).eval()


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, 200, (2, 3, 8), generator=generator)
    spans = Spans.from_lists(8, sentences=[(1, 8)], names=[(1, 4)])
    return Pairs.of_tokens(base, source, Spans.stack([spans] * 3), 7, [5, 6, 7], [10, 11, 12])


def test_every_site_has_an_effect_or_is_refused(model: TransformerBridge, pairs: Pairs) -> None:
    everywhere = {"all": torch.ones_like(pairs.base, dtype=torch.bool)}
    refused = []
    for site in SITES:
        try:
            table = patch(
                model, pairs, site, everywhere, layers=[0], heads="all", metrics="log_probability"
            )
        except ConfigError:
            refused.append(site)
            continue
        assert (table["value"] - table["unpatched"]).abs().max() > 1e-4, site
    assert {"pattern", "attn_scores"} <= set(refused)
    assert not {"resid_pre", "resid_post", "attn_out", "z", "mlp_out"} & set(refused)


def test_the_pattern_is_refused_by_everything_that_edits_it(
    model: TransformerBridge, pairs: Pairs
) -> None:
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    hooks = [len(point.fwd_hooks) for point in model.hook_dict.values()]
    for edit in (
        lambda: patch(model, pairs, "pattern", "predicts value"),
        lambda: patch(model, pairs, "pattern", "predicts value", how="cut", keys="name"),
        lambda: attribution(model, pairs, "pattern", "predicts value"),
        lambda: cut_edges(model, mask).__enter__(),
        lambda: AttentionPatch(model).on(model).__enter__(),
    ):
        with pytest.raises(ConfigError, match="has no effect"):
            edit()
    assert [len(point.fwd_hooks) for point in model.hook_dict.values()] == hooks


def test_the_whole_stream_of_the_source_gives_its_logits(
    model: TransformerBridge, pairs: Pairs
) -> None:
    with evaluating(model):
        logits = model(pairs.source)[:, -1].log_softmax(-1)
        expected = logits[torch.arange(3), pairs.base_answer].mean().item()
    everywhere = {"all": torch.ones_like(pairs.base, dtype=torch.bool)}
    sites = [
        s for s in ("resid_pre", "resid_mid", "resid_post")
        if SITES[s].hook_name(0) in model.hook_dict
    ]  # fmt: skip
    table = patch(model, pairs, sites, everywhere, metrics="log_probability")
    assert table["value"].tolist() == pytest.approx([expected] * len(table), abs=1e-5)


def test_a_hook_point_that_has_been_replaced_is_refused(
    smoke: Config, corpus: Corpus, pairs: Pairs
) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer).eval()
    names = [site.hook_name(0) for site in SITES.values() if site.flag is None]
    assert dead_hooks(model, names, pairs.base) == []
    point = model.blocks[0].mlp.hook_out
    model.blocks[0].mlp.hook_out = nn.Linear(model.cfg.d_model, model.cfg.d_model)
    assert model.hook_dict["blocks.0.hook_mlp_out"] is point
    with pytest.raises(ConfigError, match="hook_mlp_out"):
        patch(model, pairs, "mlp_out", "predicts value", layers=[0])
