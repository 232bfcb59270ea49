"""What other people's hooks, masks and modes do to patching: they take effect, or are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from interp import hooked_transformer
from interp.attention import Spans
from interp.biographies import Corpus
from interp.config import Config
from interp.errors import ConfigError
from interp.interventions import (
    Grid,
    Pairs,
    Replace,
    patch,
    path_patch,
)
from interp.interventions.windowed import can_window
from interp.memory import promoted_logits

ALL: dict[str, Any] = {"metrics": "log_probability", "per_pair": True}


def make_model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    model = hooked_transformer(smoke, corpus.tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture
def model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    return make_model(smoke, corpus)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Of different lengths, so that blocks of pairs differ in how far they are read."""
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, 200, (2, 3, 8), generator=generator)
    spans = Spans.from_lists(8, sentences=[(1, 8)], names=[(1, 4)])
    return Pairs.of_tokens(
        base, source, Spans.stack([spans] * 3), [7, 5, 6], [5, 6, 7], [10, 11, 12]
    )


@pytest.fixture(scope="module")
def same(pairs: Pairs) -> Pairs:
    return Pairs.of_tokens(
        pairs.base, pairs.base, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )


def at(pairs: Pairs, place: int) -> dict[str, torch.Tensor]:
    mask = torch.zeros_like(pairs.base, dtype=torch.bool)
    mask[:, place] = True
    return {"one": mask}


@pytest.mark.parametrize("site", ["attn_scores", "pattern"])
def test_values_reach_no_later_key(model: TransformerBridge, pairs: Pairs, site: str) -> None:
    values = torch.full((model.cfg.n_heads, 8), 0.0 if site == "attn_scores" else 0.3)
    tables = [
        patch(
            model,
            pairs,
            Grid(site, at(pairs, 2), [0], edit=Replace(values), heads="all"),
            max_memory_gb=memory,
            **ALL,
        )
        for memory in (1, 1e-6)
    ]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-6)
    causal = values.masked_fill(torch.arange(8) > 2, -torch.inf if site == "attn_scores" else 0)
    expected = patch(
        model, pairs, Grid(site, at(pairs, 2), [0], edit=Replace(causal), heads="all"), **ALL
    )
    pd.testing.assert_frame_equal(tables[0], expected, rtol=0, atol=1e-6)
    if site == "attn_scores":
        zero = patch(model, pairs, Grid(site, at(pairs, 2), [0], edit="zero", heads="all"), **ALL)
        pd.testing.assert_frame_equal(tables[0], zero, rtol=0, atol=1e-6)
    model.add_hook("embed.hook_out", lambda value, hook: value)  # no windows
    slow = patch(
        model, pairs, Grid(site, at(pairs, 2), [0], edit=Replace(values), heads="all"), **ALL
    )
    pd.testing.assert_frame_equal(tables[0], slow, rtol=0, atol=1e-5)


FLAGS = ("use_attn_result", "use_split_qkv_input", "use_attn_in")


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("side", ["q", "k", "v", "o"])
@pytest.mark.parametrize("how", ["hook", "pre-hook", "forward", "inner hook"])
def test_pytorch_hooks_of_projections_take_effect_with_copies(
    model: TransformerBridge, pairs: Pairs, flag: str, side: str, how: str
) -> None:
    bridge = getattr(model.blocks[1].attn, side)
    before = model(pairs.base)
    if how == "hook":
        bridge.register_forward_hook(lambda module, args, out: out * 1.4)
    elif how == "inner hook":
        bridge.original_component.register_forward_hook(lambda module, args, out: out * 1.4)
    elif how == "pre-hook":
        bridge.register_forward_pre_hook(lambda module, args: (args[0] * 1.4,))
    else:
        own = bridge.forward
        bridge.__dict__["forward"] = lambda x: own(x) * 1.4
    plain = model(pairs.base)
    assert (plain - before).abs().max() > 1e-2
    getattr(model, f"set_{flag}")(True)
    torch.testing.assert_close(model(pairs.base), plain, rtol=0, atol=2e-5)


def test_a_source_like_the_base_changes_nothing_whatever_hooks_there_are(
    model: TransformerBridge, same: Pairs
) -> None:
    model.blocks[1].attn.q.register_forward_hook(lambda module, args, out: out * 3)
    model.set_use_split_qkv_input(True)

    def without_head_0(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        value[:, :, 0] = 0
        return value

    model.add_hook("blocks.1.hook_q_input", without_head_0)
    table = path_patch(model, same, receivers="q_input", metrics="log_probability")
    assert table["value"].tolist() == pytest.approx(table["unpatched"].tolist(), abs=1e-5)


@pytest.mark.parametrize("how", ["point", "bridge", "entrance"])
def test_hooks_on_the_norm_that_heads_share_are_refused(
    model: TransformerBridge, pairs: Pairs, how: str
) -> None:
    if how == "point":
        model.add_hook("blocks.1.ln1.hook_normalized", lambda value, hook: value * 0)
    elif how == "entrance":
        model.add_hook("blocks.1.attn.hook_in", lambda value, hook: value * 0)
    else:
        model.blocks[1].ln1.register_forward_hook(lambda module, args, out: out * 1.4)
    with pytest.raises(ConfigError, match="attention of layer 1"):
        path_patch(model, pairs)
    with pytest.raises(ConfigError, match="attention of layer 1"):
        patch(model, pairs, Grid("v_input", "predicts value", layers=[1]))
    assert len(patch(model, pairs, Grid("v_input", "predicts value", layers=[0], heads="all"))) > 0
    assert len(patch(model, pairs, Grid("v", "predicts value", layers=[1], heads="all"))) > 0


def test_another_mask_is_obeyed(model: TransformerBridge, pairs: Pairs) -> None:
    for block in model.blocks:
        block.attn.original_component.causal_mask[4:, 1:3] = True
    assert not can_window(model)
    table = patch(model, pairs, Grid(("resid_pre", "q"), at(pairs, 2), heads="all"), **ALL)
    model.add_hook("embed.hook_out", lambda value, hook: value)
    slow = patch(model, pairs, Grid(("resid_pre", "q"), at(pairs, 2), heads="all"), **ALL)
    pd.testing.assert_frame_equal(table, slow, rtol=0, atol=1e-5)


def test_a_pass_that_stops_before_it_starts(model: TransformerBridge, pairs: Pairs) -> None:
    stream = model(pairs.base, stop_at_layer=1)
    assert torch.equal(model(stream, start_at_layer=1, stop_at_layer=0), stream)
    assert torch.equal(model(stream, start_at_layer=1, stop_at_layer=1), stream)


class LoraLinear(nn.Linear):
    """A linear map with a low-rank addition as parameters of its own."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features)
        self.weight, self.bias = base.weight, base.bias
        self.lora_A = nn.Parameter(torch.randn(2, base.in_features))
        self.lora_B = nn.Parameter(torch.randn(base.out_features, 2))


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.parametrize("how", ["subclass", "hook", "inner hook"])
def test_weights_beside_which_something_computes_are_refused(
    model: TransformerBridge, how: str
) -> None:
    bridge = model.blocks[0].mlp.out
    if how == "subclass":
        bridge._modules["_original_component"] = LoraLinear(bridge.original_component)
    else:
        part = bridge if how == "hook" else bridge.original_component
        part.register_forward_hook(lambda module, args, out: out * 2)
    with pytest.raises(ConfigError, match=r"not compute.*weights"):
        promoted_logits(model, 0)


def test_parametrized_weights_are_read_as_they_are(model: TransformerBridge) -> None:
    before = promoted_logits(model, 0)
    linear = model.blocks[0].mlp.out.original_component
    nn.utils.parametrize.register_parametrization(linear, "weight", Doubled())
    torch.testing.assert_close(promoted_logits(model, 0), 2 * before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": 0}, "layers=0"),
        ({"layers": ["0"]}, "whole numbers"),
        ({"layers": [True]}, "whole numbers"),
        ({"layers": [1.0]}, "whole numbers"),
    ],
)
def test_layers_that_are_none(
    model: TransformerBridge, settings: dict[str, Any], words: str
) -> None:
    from interp.model import valid_indices

    with pytest.raises(ConfigError, match=words):
        valid_indices.__wrapped__(settings["layers"], 2, "layer")  # type: ignore[attr-defined]


def test_errors_of_paths_name_their_argument(model: TransformerBridge, pairs: Pairs) -> None:
    with pytest.raises(ConfigError, match="sender_layers="):
        path_patch(model, pairs, sender_layers=[5])
    with pytest.raises(ConfigError, match="receiver_heads="):
        path_patch(model, pairs, receiver_heads=[7])
    twice = path_patch(model, pairs, senders=["result", "result"])
    assert len(twice) == len(path_patch(model, pairs))


WRONG_KINDS: list[tuple[dict[str, Any], str]] = [
    ({"sites": None}, "sites=None"),
    ({"positions": 3}, "positions=3"),
    ({"metrics": None}, "metrics=None"),
    ({"metrics": {"mine": 3}}, "'mine' is 3"),
    ({"edit": None}, "edit=None"),
    ({"grid": "resid_pre"}, "described by a Grid, not by str"),
    ({"edit": ["zero"]}, "is none of"),
    ({"positions": {"mine": [1, 2]}}, "'mine' are list"),
    ({"max_memory_gb": "1"}, "max_memory_gb='1'"),
    ({"heads": 0}, "heads=0"),
    ({"heads": {"a": 0}}, "heads=0"),
    ({"layers": 0}, "layers=0"),
]


def test_arguments_of_the_wrong_kind(child: Callable[..., Any], tmp_path: Path) -> None:
    """In a process of its own, as types are checked under pytest before the functions see them."""
    code = """
from interp import Corpus, Grid, hooked_transformer, patch, preset, swapped_people
from interp.errors import ArgumentError
corpus = Corpus.from_config(preset("smoke"))
model, pairs = hooked_transformer(preset("smoke"), corpus.tokenizer), swapped_people(corpus, n=2)
said, wrong_kinds = out
for settings in wrong_kinds:
    try:
        grid = dict(sites="z", positions="predicts value") | settings
        others = {name: grid.pop(name) for name in ("metrics", "max_memory_gb") if name in grid}
        patch(model, pairs, grid.pop("grid") if "grid" in grid else Grid(**grid), **others)
    except ArgumentError as error:
        with open(said, "a") as file:
            print(" ".join(str(error).split()), file=file)
"""
    said = tmp_path / "said"
    process = child(code, (str(said), [settings for settings, _ in WRONG_KINDS]))
    assert process.wait() == 0, process.error
    lines = said.read_text().splitlines()
    assert len(lines) == len(WRONG_KINDS)
    for line, (_, words) in zip(lines, WRONG_KINDS, strict=True):
        assert words in line
