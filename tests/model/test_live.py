"""An edit that cannot have an effect is refused, on models from elsewhere."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from interp import hooked_transformer
from interp.attention import Spans, cut_edges
from interp.biographies import Corpus, load_tokenizer
from interp.config import Config
from interp.errors import ConfigError
from interp.interventions import (
    SITES,
    Grid,
    Knockout,
    Pairs,
    Replace,
    Zero,
    attribution,
    patch,
    path_patch,
    resumed,
)
from interp.model import AttentionPatch, evaluating
from interp.model.live import dead_hooks
from tests.architectures import ARCHITECTURES, boot

PATTERN_IS_SHOWN_TOO_LATE = ("OPT", "GPT-J")
NO_STREAM_BETWEEN = ("GPT-J", "NeoX", "Falcon", "Cohere")  # attention and MLP are parallel
HAVE_NO_NEURONS = ("Mixtral",)  # TransformerLens shows those of no mixture of experts
NORM_AFTER_ATTENTION = ("Gemma 2", "Gemma 3", "OLMo 2")


@pytest.fixture(scope="module")
def booted(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], TransformerBridge]:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    tokenizer = load_tokenizer(Path(folder))

    @cache
    def boot_once(kind: str) -> TransformerBridge:
        return boot(kind, tokenizer)[0]

    return boot_once


@pytest.fixture(params=ARCHITECTURES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str, booted: Callable[[str], TransformerBridge]) -> TransformerBridge:
    return booted(kind)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, 200, (2, 3, 8), generator=generator)
    spans = Spans.from_lists(8, sentences=[(1, 8)], names=[(1, 4)])
    return Pairs.of_tokens(base, source, Spans.stack([spans] * 3), 7, [5, 6, 7], [10, 11, 12])


@pytest.mark.parametrize("layer", [0, 1])
def test_every_site_has_an_effect_or_is_refused(
    model: TransformerBridge, kind: str, layer: int, pairs: Pairs
) -> None:
    everywhere = {"all": torch.ones_like(pairs.base, dtype=torch.bool)}
    refused = set()
    for site in SITES:
        try:
            table = patch(
                model,
                pairs,
                Grid(site, everywhere, [layer], heads="all"),
                metrics="log_probability",
            )
        except ConfigError:
            refused.add(site)
            continue
        assert (table["value"] - table["unpatched"]).abs().max() > 1e-4, site
    if kind in PATTERN_IS_SHOWN_TOO_LATE:
        assert {"pattern", "attn_scores"} <= refused
        assert not {"resid_pre", "resid_post", "attn_out", "z", "mlp_out"} & refused
    else:
        expected = {"resid_mid"} if kind in NO_STREAM_BETWEEN else set()
        assert refused == (expected | {"post"} if kind in HAVE_NO_NEURONS else expected)


@pytest.mark.parametrize("kind", NORM_AFTER_ATTENTION)
def test_heads_send_along_no_path_where_their_sum_is_normed(
    model: TransformerBridge, pairs: Pairs
) -> None:
    with pytest.raises(ConfigError, match="ln1_post"):
        path_patch(model, pairs)


@pytest.mark.parametrize("kind", PATTERN_IS_SHOWN_TOO_LATE)
def test_the_pattern_is_refused_by_everything_that_edits_it(
    model: TransformerBridge, pairs: Pairs
) -> None:
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    hooks = [len(point.fwd_hooks) for point in model.hook_dict.values()]
    for edit in (
        lambda: patch(model, pairs, Grid("pattern", "predicts value")),
        lambda: patch(model, pairs, Grid("pattern", "predicts value", edit=Knockout("name"))),
        lambda: attribution(model, pairs, Grid("pattern", "predicts value")),
        lambda: cut_edges(model, mask).__enter__(),
        lambda: AttentionPatch(model).on(model).__enter__(),
    ):
        with pytest.raises(ConfigError, match="has no effect"):
            edit()
    assert [len(point.fwd_hooks) for point in model.hook_dict.values()] == hooks


def test_the_whole_stream_of_the_source_gives_its_logits(
    model: TransformerBridge, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with evaluating(model):
        logits = model(pairs.source)[:, -1].log_softmax(-1)
    expected = logits[torch.arange(3), pairs.base_answer].tolist()
    everywhere = {"all": torch.ones_like(pairs.base, dtype=torch.bool)}
    sites = [
        s for s in ("resid_pre", "resid_mid", "resid_post")
        if SITES[s].hook_name(0) in model.hook_dict
    ]  # fmt: skip
    table = patch(model, pairs, Grid(sites, everywhere), metrics="log_probability", per_pair=True)
    assert len(table) == 3 * 2 * len(sites)
    for _, cell in table.groupby(["site", "layer"]):
        assert cell["value"].tolist() == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(resumed, "_is_plain", lambda model: False)  # whole passes
    table = patch(model, pairs, Grid(sites, everywhere), metrics="log_probability", per_pair=True)
    for _, cell in table.groupby(["site", "layer"]):
        assert cell["value"].tolist() == expected  # bit for bit


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
        patch(model, pairs, Grid("mlp_out", "predicts value", layers=[0]))


@pytest.mark.parametrize("kind", [k for k in ARCHITECTURES if k not in PATTERN_IS_SHOWN_TOO_LATE])
def test_edited_scores_stay_causal(model: TransformerBridge, pairs: Pairs) -> None:
    """Models from elsewhere mask with the lowest number there is, not with -inf."""
    at_2 = {"third": torch.zeros_like(pairs.base, dtype=torch.bool)}
    at_2["third"][:, 2] = True

    def by_hand(scores: torch.Tensor, hook: Any) -> torch.Tensor:
        scores = scores.clone()
        scores[:, :, 2, :3] = 0
        return scores

    with evaluating(model):
        hook = (SITES["attn_scores"].hook_name(0), by_hand)
        logits = model.run_with_hooks(pairs.base, fwd_hooks=[hook])[:, -1].log_softmax(-1)
    expected = logits[torch.arange(3), pairs.base_answer]
    for edit in (Zero(), Replace(torch.zeros(model.cfg.n_heads, 8))):
        grid = Grid("attn_scores", at_2, [0], heads="all", edit=edit)
        table = patch(model, pairs, grid, metrics="log_probability", per_pair=True)
        assert table["value"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert (table["value"] - table["unpatched"]).abs().max() > 1e-4
    early = {"early": torch.zeros_like(pairs.base, dtype=torch.bool)}
    early["early"][:, :3] = True
    with pytest.raises(ConfigError, match="no key at all"):
        patch(model, pairs, Grid("attn_scores", at_2, [0], edit=Knockout(early)))


@pytest.mark.parametrize("kind", ["OPT"])
def test_no_gradient_is_told_from_no_effect(
    model: TransformerBridge, booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    for weight in model.parameters():
        weight.requires_grad_(False)
    with pytest.raises(ConfigError, match="has no effect"):
        patch(model, pairs, Grid("pattern", "predicts value", layers=[0]))
    other = booted("Llama")
    other.add_hook("blocks.0.hook_resid_post", lambda value, hook: value.detach() * 1.2)
    try:
        table = patch(
            other, pairs, Grid("resid_pre", "name", layers=[0]), metrics="log_probability"
        )
        assert (table["value"] - table["unpatched"]).abs().max() > 1e-4
        with pytest.raises(ConfigError, match="no gradient"):
            attribution(other, pairs, Grid("resid_pre", "name", layers=[0]))
    finally:
        other.reset_hooks()
    for weight in model.parameters():
        weight.requires_grad_(True)


def test_a_model_made_in_inference_mode(corpus: Corpus, pairs: Pairs, tmp_path: Path) -> None:
    corpus.tokenizer.save_pretrained(tmp_path)
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=len(corpus.tokenizer),
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    with torch.inference_mode():
        model = TransformerBridge.boot_transformers(
            "gpt2",
            hf_model=transformers.GPT2LMHeadModel(config),
            tokenizer=load_tokenizer(tmp_path),
        )
    table = patch(model, pairs, Grid("z", "predicts value", layers=[0], heads="all"))
    assert table["value"].notna().all()
