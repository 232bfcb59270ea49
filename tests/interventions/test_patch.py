"""Patched models against TransformerLens' own patching functions, plain loops, and themselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot_native

from interp import hooked_transformer, preset
from interp.attention import Spans, cut_edges
from interp.biographies import Corpus, TokenKind
from interp.config import Config
from interp.errors import ArgumentError, ConfigError
from interp.interventions import (
    LOGIT_DIFFERENCE,
    SITES,
    Add,
    Answers,
    Grid,
    Knockout,
    Mean,
    Pairs,
    Replace,
    Zero,
    patch,
    read_activations,
    resolve_positions,
    swapped_attributes,
    swapped_people,
)
from interp.interventions.hooked import Hooked
from interp.interventions.memory_limit import budget, pairs_at_a_time, rows_at_a_time
from interp.interventions.sites import shape_at_position
from interp.interventions.windowed import WindowedForward, can_window
from interp.model import AttentionPatch, bridge_config, evaluating

STOCK = {
    "resid_pre": patching.get_act_patch_resid_pre,
    "resid_mid": patching.get_act_patch_resid_mid,
    "attn_out": patching.get_act_patch_attn_out,
    "mlp_out": patching.get_act_patch_mlp_out,
    "z": patching.get_act_patch_attn_head_out_by_pos,
    "pattern": patching.get_act_patch_attn_head_pattern_by_pos,
}
"""TransformerLens' function for every site that it has one for."""
STD = 0.3  # attention far from uniform, and logits not so large that single precision is short
LOGITS = ("log_probability", LOGIT_DIFFERENCE)
SETTINGS: dict[str, dict[str, Any]] = {
    "LN": {},
    "RMS": {"model.normalization": "RMS", "model.n_layers": 3},
    "one layer": {"model.n_layers": 1},
    "rotary": {"model.positions": "rotary"},
}


def sharp_model(smoke: Config, corpus: Corpus, **settings: Any) -> TransformerBridge:
    """Random weights, large enough that attention is far from uniform; biases and norms that matter."""
    config = smoke.with_settings(
        **{"model.init_std": STD, "model.n_ctx": corpus.longest, **settings}
    )
    model = hooked_transformer(config, corpus.tokenizer)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def models(smoke: Config, corpus: Corpus) -> dict[str, TransformerBridge]:
    found = {name: sharp_model(smoke, corpus, **given) for name, given in SETTINGS.items()}
    gated = bridge_config(
        smoke.with_settings(**{"model.init_std": STD}), d_vocab=len(corpus.tokenizer)
    )
    gated.gated_mlp = True
    return found | {"gated": boot_native(gated, tokenizer=corpus.tokenizer)}


@pytest.fixture(scope="module")
def model(models: dict[str, TransformerBridge]) -> TransformerBridge:
    return models["LN"]


@pytest.fixture(scope="module")
def people(corpus: Corpus) -> Pairs:
    return swapped_people(corpus, n=7)


@pytest.fixture(scope="module")
def names(people: Pairs) -> Pairs:
    return only_names(people)


@pytest.fixture(scope="module")
def short(corpus: Corpus) -> Pairs:
    """Prompts of which the first sentences are left, with the name at least twice in some."""
    return shortened(only_names(swapped_people(corpus, n=40)), 34)


def shortened(pairs: Pairs, width: int) -> Pairs:
    """The pairs that are read before the last of so many positions, cut to these."""
    few = pairs[pairs.read < width - 1]
    spans = Spans(few.spans.kind[:, :width], few.spans.sentence[:, :width])
    return Pairs.of_tokens(
        few.base[:, :width], few.source[:, :width], spans, few.read, few.base_answer,
        few.source_answer,
    )  # fmt: skip


def only_names(pairs: Pairs) -> Pairs:
    """The same bases, and sources that differ from them in the name tokens only."""
    source = pairs.base.clone()
    is_name = pairs.spans.kind == TokenKind.NAME
    source[is_name] = pairs.source.gather(1, pairs.source_position.clamp(min=0))[is_name]
    return Pairs.of_tokens(
        pairs.base, source, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )


@contextmanager
def the_long_way(model: TransformerBridge) -> Iterator[None]:
    """A hook that does nothing: what is computed must pass it."""

    def idle(activation: Tensor, hook: Any) -> None:
        return None

    with model.hooks(fwd_hooks=[("blocks.0.hook_in", idle)]):
        assert not can_window(model)
        yield


def difference(logits: Tensor, pairs: Pairs) -> Tensor:
    """The logit difference of every pair, read off the logits of all positions."""
    rows = torch.arange(len(pairs))
    read = logits[rows, pairs.read]
    return read[rows, pairs.source_answer] - read[rows, pairs.base_answer]


def stock_grid(model: TransformerBridge, pairs: Pairs, site: str) -> np.ndarray:
    """TransformerLens' own grid of a site, with the layer first, then the head, then the position."""
    with evaluating(model):
        _, cache = model.run_with_cache(pairs.source)
        found = STOCK[site](model, pairs.base, cache, lambda out: difference(out, pairs).mean())
    grid: np.ndarray = found.numpy()
    if site == "z":
        grid = grid.transpose(0, 2, 1)
    if site == "pattern":  # [layer, head, position] already
        assert grid.shape[1] == model.cfg.n_heads
    return grid.reshape(-1)


@pytest.mark.parametrize("site", STOCK)
def test_equal_to_transformer_lens(site: str, model: TransformerBridge, short: Pairs) -> None:
    expected = stock_grid(model, short, site)
    table = patch(model, short, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)
    np.testing.assert_allclose(table["value"], expected, atol=1e-5)
    assert (table["value"] - table["unpatched"]).abs().max() > 0.1, "patching must matter"
    if SITES[site].unit == "head":
        rows = table[["layer", "head", "position"]].drop_duplicates()
        assert len(rows) == len(table) == 2 * 2 * short.base.shape[1]
    with the_long_way(model):
        long = patch(model, short, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)
    np.testing.assert_allclose(long["value"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["RMS", "rotary", "gated"])
@pytest.mark.parametrize("site", ["resid_mid", "z"])
def test_other_models_equal_transformer_lens(
    kind: str, site: str, models: dict[str, TransformerBridge], short: Pairs
) -> None:
    model, few = models[kind], short[:3]
    assert can_window(model) == (kind == "RMS")
    table = patch(model, few, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)
    np.testing.assert_allclose(table["value"], stock_grid(model, few, site), atol=1e-5)
    assert (table["value"] != table["unpatched"]).any()


@pytest.mark.slow
def test_a_tiny_model_equals_transformer_lens() -> None:
    config = preset("tiny", **{"training.precision": "fp32", "model.init_std": 0.1})
    corpus = Corpus.from_config(config)
    model = hooked_transformer(config, corpus.tokenizer)
    pairs = only_names(swapped_people(corpus, n=2, place="last"))
    for site in ("resid_pre", "z", "mlp_out"):
        table = patch(model, pairs, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)
        np.testing.assert_allclose(table["value"], stock_grid(model, pairs, site), atol=1e-5)
        assert (table["value"] - table["unpatched"]).abs().max() > 0.01


def random_masks(pairs: Pairs, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = {
        f"{share} at random": torch.rand(pairs.base.shape, generator=generator) < share
        for share in (0.02, 0.3)
    }
    masks["one each"] = (torch.rand(len(pairs), generator=generator) * (pairs.read + 1)).long()
    return masks | {"nowhere": torch.zeros_like(pairs.base, dtype=torch.bool)}


def given_values(
    model: TransformerBridge, sites: tuple[str, ...], n: int, width: int
) -> dict[Any, Tensor]:
    """Something to add: one for all pairs in the first layer, one for each in others."""
    generator = torch.Generator().manual_seed(0)
    return {
        (site, layer): torch.randn(
            *((n,) if layer else ()), *shape_at_position(model, site, width), generator=generator
        )
        for site in sites
        for layer in range(model.cfg.n_layers)
    }


@pytest.mark.parametrize("kind", ["LN", "RMS", "one layer"])
@pytest.mark.parametrize("how", ["replace", "add", "mean", "zero", "knockout"])
def test_both_ways_agree(
    how: Any, kind: str, models: dict[str, TransformerBridge], corpus: Corpus
) -> None:
    model = models[kind]
    pairs = swapped_people(corpus, n=5, seed=1)
    refused = {"add": ("pattern",), "mean": ("pattern", "attn_scores")}.get(how, ())
    sites = tuple(site for site in SITES if site not in refused)
    if how == "knockout":
        sites = ("pattern", "attn_scores")
    seed = len(how)
    masks = random_masks(pairs, seed) | resolve_positions(pairs, ["name", "predicts value"])
    edits = {
        "add": Add(given_values(model, sites, *pairs.base.shape)),
        "knockout": Knockout(("every name", "type words")),
    }
    grid = Grid(
        sites,
        masks,
        heads={"first": [0], "both": [0, 1]},
        neurons={"some": range(0, 20), "one": [3]},
        edit=edits.get(how, how),
    )
    quick = patch(model, pairs, grid, metrics=LOGITS, per_pair=True)
    with the_long_way(model):
        long = patch(model, pairs, grid, metrics=LOGITS, per_pair=True)
    pd.testing.assert_frame_equal(quick, long, rtol=0, atol=1e-4)
    moved = (quick["value"] - quick["unpatched"]).abs().groupby(quick["site"]).max()
    assert (moved > 1e-3).all()
    assert set(moved.index) == set(sites)


@pytest.mark.parametrize("kind", ["LN", "gated"])
def test_the_whole_stream_of_the_source_gives_its_logits(
    kind: str, models: dict[str, TransformerBridge], names: Pairs
) -> None:
    model = models[kind]
    with evaluating(model):
        expected = difference(model(names.source), names).numpy()
    everywhere = {"all": torch.ones_like(names.base, dtype=torch.bool)}
    grid = Grid(("resid_pre", "resid_mid", "resid_post"), everywhere)
    table = patch(model, names, grid, metrics=LOGIT_DIFFERENCE, per_pair=True)
    for _, rows in table.groupby(["site", "layer"]):
        np.testing.assert_allclose(rows["value"], expected, atol=2e-5)


def test_neurons_and_heads_by_themselves(model: TransformerBridge, names: Pairs) -> None:
    """Cells against hooks written out, unit by unit."""
    where = resolve_positions(names, "name")["name"]
    keys = [("post", 0), ("z", 0)]
    with evaluating(model):
        source = read_activations(model, names.source, keys)
    for site, layer in keys:
        grid = Grid(site, {"name": where}, layers=[layer], heads="each", neurons="each")
        table = patch(model, names, grid, metrics=LOGIT_DIFFERENCE)
        units = table["head" if site == "z" else "neuron"]
        assert units.tolist() == list(range(source[site, layer].shape[2]))
        for unit in (0, len(units) - 1):

            def replace(
                activation: Tensor, hook: Any, unit: int = unit, key: Any = (site, layer)
            ) -> Tensor:
                changed = activation.clone()
                changed[:, :, unit][where] = source[key][:, :, unit][where]
                return changed

            with evaluating(model):
                hooks = [(SITES[site].hook_name(layer), replace)]
                logits = model.run_with_hooks(names.base, fwd_hooks=hooks)
            expected = float(difference(logits, names).mean())
            assert table["value"][unit] == pytest.approx(expected, abs=1e-5)
            assert table["value"][unit] != table["unpatched"][unit]


@pytest.mark.parametrize("long", [False, True], ids=["quick", "long"])
def test_a_source_equal_to_the_base_changes_no_bit(
    long: bool, model: TransformerBridge, people: Pairs
) -> None:
    same = Pairs.of_tokens(
        people.base, people.base, people.spans, people.read, people.base_answer,
        people.source_answer,
    )  # fmt: skip
    with the_long_way(model) if long else evaluating(model):
        table = patch(
            model, same, Grid(tuple(SITES), ("every name", "predicts value")), per_pair=True
        )
    assert (table["value"] == table["unpatched"]).all()
    with evaluating(model):
        own = read_activations(model, people.base, [("resid_pre", 1)])["resid_pre", 1]
        logits = model(people.base)
    rows = torch.arange(len(people))
    grid = Grid("resid_pre", "predicts value", [1], edit=Replace(own[rows, people.read]))
    table = patch(model, people, grid, metrics=LOGIT_DIFFERENCE, per_pair=True)
    # Sums of another order in the last bits: the activation is read from whole passes in both.
    np.testing.assert_allclose(table["value"], difference(logits, people), atol=1e-5)
    np.testing.assert_allclose(table["unpatched"], difference(logits, people), atol=1e-5)


@pytest.mark.parametrize("way", [WindowedForward, Hooked])
@pytest.mark.parametrize("kind", ["LN", "RMS", "one layer"])
def test_the_computation_of_an_edit_that_changes_nothing(
    way: Any, kind: str, models: dict[str, TransformerBridge], people: Pairs
) -> None:
    model = models[kind]
    generator = torch.Generator().manual_seed(0)
    row = torch.tensor([0, 3, 3, 6, 5])
    with evaluating(model):
        keys = [(site, layer) for site in SITES for layer in range(model.cfg.n_layers)]
        runs = way(model, people.base, people.read, keys)
        plain = model(people.base)[torch.arange(len(people)), people.read]
        np.testing.assert_allclose(runs.unpatched(), plain, atol=1e-5)
        for site, layer in keys:
            place = (torch.rand(5, 4, generator=generator) * (people.read[row, None] + 1)).long()
            own = runs.base[site, layer][row[:, None], place]
            logits = runs.logits(site, layer, row, place, own)
            np.testing.assert_allclose(logits, plain[row], atol=1e-5)
            zeroed = own[:, :1].nan_to_num(neginf=0) * 0  # scores hold -∞ where nothing is read
            edited = runs.logits(site, layer, row, people.read[row, None], zeroed)
            assert (edited - plain[row]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["LN", "RMS", "one layer"])
def test_windows_give_what_whole_passes_give(
    kind: str, models: dict[str, TransformerBridge], people: Pairs
) -> None:
    model, generator = models[kind], torch.Generator().manual_seed(1)
    row = torch.tensor([0, 3, 3, 6, 5])
    with evaluating(model):
        keys = [(site, layer) for site in SITES for layer in range(model.cfg.n_layers)]
        windows, passes = (
            way(model, people.base, people.read, keys) for way in (WindowedForward, Hooked)
        )
        for site, layer in keys:
            place = (torch.rand(5, 4, generator=generator) * (people.read[row, None] + 1)).long()
            own = passes.base[site, layer][row[:, None], place]
            # By place and unit, so that a place given twice is edited alike.
            factor = 1 + (place % 3).view(5, 4, *[1] * (own.ndim - 2))
            edited = (
                own * factor * (1 + torch.arange(own.shape[2]) % 2).view(-1, *[1] * (own.ndim - 3))
            )
            expected = passes.logits(site, layer, row, place, edited)
            np.testing.assert_allclose(
                windows.logits(site, layer, row, place, edited), expected, atol=1e-5, err_msg=site
            )
        for layer in range(model.cfg.n_layers):
            stream = windows.base["resid_pre", layer] * 1.5
            readers = [(f"{side}_input", heads) for side in "qkv" for heads in ((0,), None)]
            expected = passes.logits_of_readers(layer, stream, readers)
            found = windows.logits_of_readers(layer, stream, readers)
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_model_is_left_as_it_was(model: TransformerBridge, people: Pairs) -> None:
    grid = Grid(tuple(SITES), ("name", "predicts value"))
    expected = patch(model.eval(), people, grid, metrics=LOGITS)
    model.train()
    model.blocks[1].eval()
    modes = [part.training for part in model.modules()]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    gradients = [weight.requires_grad for weight in model.parameters()]
    pd.testing.assert_frame_equal(patch(model, people, grid, metrics=LOGITS), expected)

    def wrong(logits: Tensor, answers: Answers) -> Tensor:
        if len(calls) == 3:
            raise RuntimeError("a metric of yours failed")
        calls.append(1)
        return logits[:, 0]

    calls: list[int] = []
    with pytest.raises(RuntimeError, match="of yours failed"), the_long_way(model):
        patch(
            model,
            people,
            Grid("z", "each", aligned=True),
            metrics={"mine": wrong},
            max_memory_gb=1e-6,
        )
    assert [part.training for part in model.modules()] == modes
    assert not any(point.fwd_hooks or point.bwd_hooks for point in model.hook_dict.values())
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
    assert [weight.requires_grad for weight in model.parameters()] == gradients
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.is_grad_enabled()
    model.train()


def test_hooks_of_others_take_effect_and_stay(model: TransformerBridge, short: Pairs) -> None:
    calls = []

    def without_mlp(activation: Tensor, hook: Any) -> Tensor:
        calls.append(len(activation))
        return torch.zeros_like(activation)

    free = patch(model, short, Grid("z", "name"), metrics=LOGIT_DIFFERENCE)
    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", without_mlp)]):
        table = patch(model, short, Grid("z", "name"), metrics=LOGIT_DIFFERENCE)
        grid = patch(model, short, Grid("z", "each", aligned=True), metrics=LOGIT_DIFFERENCE)
        assert calls
        assert len(model.hook_dict["blocks.0.hook_mlp_out"].fwd_hooks) == 1
        np.testing.assert_allclose(grid["value"], stock_grid(model, short, "z"), atol=1e-5)
    assert (table["value"] - free["value"]).abs().min() > 1e-3
    assert (table["unpatched"] - free["unpatched"]).abs().min() > 1e-3


def test_under_the_attention_of_another_model(
    models: dict[str, TransformerBridge], names: Pairs, smoke: Config, corpus: Corpus
) -> None:
    model = models["LN"]
    other = sharp_model(smoke.with_settings(**{"training.seed": 5}), corpus)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    free = patch(model, names, Grid("resid_post", "each", aligned=True), metrics=LOGIT_DIFFERENCE)
    with AttentionPatch(other).on(model):
        table = patch(
            model, names, Grid("resid_post", "each", aligned=True), metrics=LOGIT_DIFFERENCE
        )
        with evaluating(model):
            _, cache = model.run_with_cache(names.source)
            _, unpatched = model.run_with_cache(names.base)
            expected = difference(unpatched["unembed.hook_out"], names).mean()
    assert table["unpatched"][0] == pytest.approx(float(expected), abs=1e-5)
    assert (table["value"] - free["value"]).abs().max() > 1e-2
    with AttentionPatch(other).on(model), evaluating(model):
        place = int(names.read[0])

        def replace(activation: Tensor, hook: Any) -> Tensor:
            changed = activation.clone()
            changed[:, place] = cache["blocks.0.hook_out"][:, place]
            return changed

        logits = model.run_with_hooks(names.base, fwd_hooks=[("blocks.0.hook_out", replace)])
    assert table["value"][place] == pytest.approx(float(difference(logits, names).mean()), abs=1e-5)


def test_under_cut_edges(model: TransformerBridge, names: Pairs) -> None:
    """A hook that fits one batch only is served as long as the edits are of that batch."""
    masks = resolve_positions(names, ["predicts value", "every name"])
    mask = masks["predicts value"][:, :, None] & masks["every name"][:, None]
    with cut_edges(model, mask):
        table = patch(model, names, Grid("resid_pre", "name", [1]), metrics=LOGIT_DIFFERENCE)
        with evaluating(model):
            _, source = model.run_with_cache(names.source)

            def replace(activation: Tensor, hook: Any) -> Tensor:
                own = resolve_positions(names, "name")["name"][..., None]
                return torch.where(own, source["blocks.1.hook_in"], activation)

            logits = model.run_with_hooks(names.base, fwd_hooks=[("blocks.1.hook_in", replace)])
    assert table["value"][0] == pytest.approx(float(difference(logits, names).mean()), abs=1e-5)


@pytest.mark.parametrize("kind", ["LN", "gated"])
@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 0), (1, None)])
def test_knockout_equals_cut_edges(
    layer: int, head: int | None, kind: str, models: dict[str, TransformerBridge], people: Pairs
) -> None:
    model = models[kind]
    grid = Grid(
        "pattern",
        ("predicts value", "every last name"),
        [layer],
        heads="all" if head is None else [head],
        edit=Knockout(("every name", "type words")),
    )
    table = patch(model, people, grid, metrics=LOGIT_DIFFERENCE, per_pair=True)
    masks = resolve_positions(people, ["predicts value", "every last name"])
    keys = resolve_positions(people, ["every name", "type words"])
    for query, queries in masks.items():
        for key, cut in keys.items():
            mask = queries[:, :, None] & cut[:, None]
            heads = None if head is None else [head]
            with evaluating(model), cut_edges(model, mask, [layer], heads):
                expected = difference(model(people.base), people)
            rows = table[table["position"] == f"{query} → {key}"]
            np.testing.assert_allclose(rows["value"], expected, atol=1e-5)
    changed = table[table["position"] == "predicts value → every name"]
    assert (changed["value"] != changed["unpatched"]).any()


@pytest.mark.parametrize("site", ["resid_mid", "z", "post"])
def test_mean_against_a_loop(site: str, model: TransformerBridge, people: Pairs) -> None:
    hook = SITES[site].hook_name(0)
    where = resolve_positions(people, "name")["name"]
    with evaluating(model):
        _, cache = model.run_with_cache(people.base)
    found = [
        cache[hook][row, place]
        for row in range(len(people))
        for place in range(where.shape[1])
        if where[row, place]
    ]
    mean = torch.stack(found).double().mean(0).float()
    expected = torch.zeros(len(people))
    for row in range(len(people)):

        def replace(activation: Tensor, hook: Any, row: int = row) -> Tensor:
            # In place: nothing else reaches the stream at resid_mid.
            for place in where[row].nonzero()[:, 0].tolist():
                activation[0, place] = mean
            return activation

        with evaluating(model):
            logits = model.run_with_hooks(people.base[row : row + 1], fwd_hooks=[(hook, replace)])
        expected[row] = difference(logits, people[row : row + 1])[0]
    for edit in (Mean(), "mean", Replace(mean)):
        grid = Grid(site, "name", [0], heads="all", edit=edit)
        table = patch(model, people, grid, metrics=LOGIT_DIFFERENCE, per_pair=True)
        np.testing.assert_allclose(table["value"], expected, atol=2e-5)
    assert (table["value"] - table["unpatched"]).abs().min() > 1e-3


def test_zero_and_add_by_hand(model: TransformerBridge, people: Pairs) -> None:
    rows = torch.arange(len(people))
    steer = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    final = "blocks.1.hook_out"
    for edit in (Zero(), Add(steer), Add(steer.double())):
        grid = Grid("resid_post", "predicts value", [1], edit=edit)
        table = patch(model, people, grid, metrics=LOGIT_DIFFERENCE, per_pair=True)
        with evaluating(model):
            _, cache = model.run_with_cache(people.base)
            at_read = cache[final][rows, people.read]
            at_read = 0 * at_read if isinstance(edit, Zero) else at_read + steer
            logits = model.unembed(model.ln_final(at_read[:, None]))[:, 0]
        expected = logits[rows, people.source_answer] - logits[rows, people.base_answer]
        np.testing.assert_allclose(table["value"], expected, atol=2e-5)


def test_patterns_follow_the_counterparts_of_keys(model: TransformerBridge, corpus: Corpus) -> None:
    """Attention of the source to a token goes to the token of the base that it corresponds to."""
    pairs = swapped_attributes(corpus, n=6)
    grid = Grid("pattern", "predicts value", [1], heads="all")
    table = patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE, per_pair=True)
    rows = torch.arange(len(pairs))
    with evaluating(model):
        _, cache = model.run_with_cache(pairs.source)

        def replace(pattern: Tensor, hook: Any) -> Tensor:
            theirs, changed = cache["blocks.1.attn.hook_pattern"], pattern.clone()
            for row in range(len(pairs)):
                read, source_read = int(pairs.read[row]), int(pairs.source_read[row])
                given = torch.zeros_like(pattern[row, :, read])
                for key in range(read + 1):
                    counterpart = int(pairs.source_position[row, key])
                    if counterpart >= 0:
                        given[:, key] = theirs[row, :, source_read, counterpart]
                changed[row, :, read] = given / given.sum(-1, keepdim=True)
            return changed

        hooks = [("blocks.1.attn.hook_pattern", replace)]
        logits = model.run_with_hooks(pairs.base, fwd_hooks=hooks)
    expected = difference(logits, pairs)
    np.testing.assert_allclose(table["value"], expected, atol=2e-5)
    assert table["pair"].tolist() == rows.tolist()


@pytest.mark.parametrize("long", [False, True], ids=["quick", "long"])
@pytest.mark.parametrize("how", ["replace", "mean", "add"])
def test_little_memory_gives_the_same_numbers(
    how: Any, long: bool, model: TransformerBridge, corpus: Corpus
) -> None:
    pairs = swapped_people(corpus, n=12, seed=2)  # with some in the first sentence
    sites = ("resid_pre", "z", "post")
    positions = ("name", "earlier values", "predicts value")
    edit = Add(given_values(model, sites, *pairs.base.shape)) if how == "add" else how
    grid = Grid(sites, positions, neurons={"some": [0, 5]}, edit=edit)
    with the_long_way(model) if long else evaluating(model):
        plenty = patch(model, pairs, grid, max_memory_gb=2)
        little = patch(model, pairs, grid, max_memory_gb=1e-6)
        single = patch(model, pairs, grid, per_pair=True)
    pd.testing.assert_frame_equal(plenty, little, rtol=0, atol=1e-5)
    cells = ["site", "layer", "head", "group", "position", "metric"]
    means = single.groupby(cells, dropna=False, sort=False)[["value", "unpatched"]].mean()
    counts = single.groupby(cells, dropna=False, sort=False).size()
    expected = plenty.set_index(cells)
    for column in ("value", "unpatched"):
        np.testing.assert_allclose(means[column], expected[column], atol=1e-5)
    assert counts.tolist() == expected["n"].tolist()
    assert list(map(str, means.index)) == list(map(str, expected.index))
    assert (expected["n"] < 12).any(), "some are asked for in the first sentence"


def test_the_limit_of_memory(model: TransformerBridge, people: Pairs) -> None:
    keys = [("post", 0), ("pattern", 1)]
    sizes = [pairs_at_a_time(model, people, keys, limit) for limit in (1.0, 1e7, 1e9)]
    assert sizes[0] == 1
    assert sizes[0] < sizes[1] < sizes[2]
    rows = [rows_at_a_time(model, 50, 60, limit, whole=False) for limit in (1.0, 1e7, 1e8)]
    assert rows[0] == 1
    assert rows[0] < rows[1] < rows[2]
    assert rows_at_a_time(model, 50, 60, 1e8, whole=True) < rows[2]
    assert rows_at_a_time(model, 50, 60, 1e8, whole=False, site="result") < rows[2]
    assert rows_at_a_time(model, 50, 60, 1e8, whole=False, site="z") == rows[2]
    assert budget(0.5, torch.device("cpu")) == 2**29
    assert budget(None, torch.device("cpu")) > 0


def test_the_table(model: TransformerBridge, people: Pairs) -> None:
    def best(logits: Tensor, answers: Answers) -> Tensor:
        return logits.amax(dim=1)

    table = patch(model, people, Grid(("resid_pre", "z", "post"), ("name", "earlier values")))
    names = [
        "site", "layer", "head", "neuron", "group", "position", "token", "metric", "value",
        "unpatched", "change", "n",
    ]  # fmt: skip
    assert list(table.columns) == names
    assert (
        (table["change"] == table["value"] - table["unpatched"]).where(table["n"] > 0, True).all()
    )
    assert len(table) == 2 * 2 * (1 + 2 + 1) * 4
    assert table["head"].dtype == table["neuron"].dtype == table["token"].dtype == "Int64"
    assert set(table["head"].dropna()) == {0, 1}
    assert table.loc[table["site"] != "z", "head"].isna().all()
    assert table[["neuron", "group", "token"]].isna().all(axis=None)
    shares = table[table["metric"].isin(["follows", "stays"])]["value"].dropna()
    assert shares.between(0, 1).all()
    own = patch(model, people, Grid(), metrics={"best": best}, per_pair=True)
    assert list(own.columns) == [*names[:7], "pair", *names[7:11]]
    assert own["metric"].unique().tolist() == ["best"]
    assert len(own) == 2 * 2 * len(people)
    assert own["pair"].max() == len(people) - 1
    groups = patch(
        model, people, Grid("post", "name", [0], neurons={"few": [1, 2]}), metrics="stays"
    )
    assert groups["group"].tolist() == ["few"]
    some = patch(model, people, Grid("z", "name", [0], heads=[1, 0]), metrics="stays")
    assert some["group"].tolist() == ["0,1"]
    assert some["head"].isna().all()
    named = patch(model, people, Grid("z", "name", [0], heads={"second": [1]}), metrics="stays")
    assert named[["head", "group"]].to_numpy().tolist() == [[1, "second"]]
    again = patch(model, people, Grid(("resid_pre", "z", "post"), ("name", "earlier values")))
    pd.testing.assert_frame_equal(again, table)


def test_the_metrics(model: TransformerBridge, people: Pairs) -> None:
    """Against probabilities and predictions computed pair by pair."""
    all_metrics = [
        "log_probability", "source_log_probability", LOGIT_DIFFERENCE, "follows", "stays",
    ]  # fmt: skip
    table = patch(model, people, Grid("resid_post", "predicts value", [1]), metrics=all_metrics)
    by_metric = table.set_index("metric")
    with evaluating(model):
        base, source = model(people.base), model(people.source)
    read = base[torch.arange(len(people)), people.read].double().log_softmax(-1)
    source_read = source[torch.arange(len(people)), people.source_read].double().log_softmax(-1)
    for column, read_off in (("unpatched", read), ("value", source_read)):
        own, other, follows, stays = [], [], [], []
        for row in range(len(people)):
            mine, its = int(people.base_answer[row]), int(people.source_answer[row])
            own.append(float(read_off[row, mine]))
            other.append(float(read_off[row, its]))
            top = int(read_off[row].argmax())
            follows.append(top == its)
            stays.append(top == mine)
        expected = [own, other, np.subtract(other, own), follows, stays]
        for name, values in zip(all_metrics, expected, strict=True):
            assert by_metric.loc[name, column] == pytest.approx(np.mean(values), abs=1e-5)


def test_a_position_that_no_pair_has(model: TransformerBridge, corpus: Corpus) -> None:
    pairs = swapped_people(corpus, n=3, place="first")
    table = patch(
        model, pairs, Grid("resid_pre", ("earlier names", "name")), metrics=LOGIT_DIFFERENCE
    )
    empty = table["position"] == "earlier names"
    assert (table.loc[empty, "n"] == 0).all()
    assert table.loc[empty, "value"].isna().all()
    assert (table.loc[~empty, "n"] == 3).all()
    assert table.loc[~empty, "value"].notna().all()
    single = patch(model, pairs, Grid("resid_pre", "earlier names"), per_pair=True)
    assert single.empty
    assert "pair" in single.columns
    behind = patch(model, pairs, Grid("resid_pre", "first value token"))
    assert (behind["value"] == behind["unpatched"]).all(), "nobody reads what comes after"


def add_nothing(logits: Tensor, answers: Answers) -> Tensor:
    return logits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sites": "resid_pr"}, r"'resid_pr'.*'resid_pre'"),
        ({"sites": ()}, "No site is named"),
        ({"positions": "last nam"}, r"'last nam'.*'last name'"),
        ({"positions": ()}, "No position is named"),
        ({"positions": {}}, "No position is named"),
        ({"positions": {"mine": torch.ones(3, 3, dtype=torch.bool)}}, "'mine' have the shape"),
        ({"layers": [2]}, "there is no layer 2"),
        ({"layers": []}, "no layer is named"),
        ({"sites": "z", "heads": [2]}, "there is no head 2"),
        ({"sites": "z", "heads": {}}, "no group is named"),
        ({"sites": "z", "heads": "both"}, "heads='both': give"),
        ({"sites": "post", "neurons": {"a": [10_000]}}, "there is no neuron 10000"),
        ({"edit": "rplace"}, r"'rplace'.*'replace'"),
        ({"edit": "knockout"}, "or Knockout"),
        ({"edit": Knockout("name")}, "attention is knocked out at"),
        ({"sites": "pattern", "edit": Knockout("nam")}, "no position 'nam'"),
        ({"sites": "pattern", "edit": "mean"}, "site 'pattern'"),
        ({"sites": "pattern", "edit": Add(torch.ones(1))}, "not possible at the site"),
        ({"edit": Add({("z", 0): torch.ones(3)})}, "no entry for \\('resid_pre', 0\\)"),
        ({"edit": Add(torch.ones(1, 1, 1))}, "values for .* have the shape"),
        ({"edit": Add(torch.ones(3, 32))}, "values for .* have the shape"),
        ({"edit": Add(torch.ones(5))}, "activation resid_pre"),
        ({"edit": Add(torch.ones(1))}, "activation resid_pre"),
        ({"metrics": "follow"}, r"'follow'.*'follows'"),
        ({"metrics": ()}, "No metric is named"),
        ({"metrics": {}}, "No metric is named"),
        ({"metrics": {"mine": add_nothing}}, "'mine' returned the shape"),
        ({"max_memory_gb": 0}, "leaves no memory"),
        ({"max_memory_gb": -1.5}, "leaves no memory"),
    ],
)
def test_errors(
    settings: dict[str, Any],
    message: str,
    model: TransformerBridge,
    people: Pairs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In use nobody checks types before the function does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    of_grid = {field.name for field in fields(Grid)}
    with pytest.raises(ConfigError, match=message):
        patch(
            model,
            people,
            Grid(**{name: value for name, value in settings.items() if name in of_grid}),
            **{name: value for name, value in settings.items() if name not in of_grid},
        )
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_given_patterns_of_any_width(model: TransformerBridge, people: Pairs) -> None:
    """What attention is given over all positions, though only some of them are computed."""
    width = people.base.shape[1]
    pattern = torch.zeros(model.cfg.n_heads, width)
    pattern[:, 0] = 1
    grid = Grid("pattern", "predicts value", edit=Replace(pattern))
    quick = patch(model, people[:2], grid, metrics=LOGIT_DIFFERENCE)
    with the_long_way(model):
        long = patch(model, people[:2], grid, metrics=LOGIT_DIFFERENCE)
    pd.testing.assert_frame_equal(quick, long, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="activation pattern has"):
        patch(model, people[:2], Grid("pattern", "predicts value", edit=Replace(pattern[:, :-1])))


def test_the_quick_way_is_taken_where_it_can_be(
    models: dict[str, TransformerBridge], people: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"LN": True, "RMS": True, "one layer": True, "rotary": False, "gated": False}
    assert {name: can_window(model) for name, model in models.items()} == expected
    passes: list[str] = []

    def counted(way: type, name: str) -> Callable[..., Tensor]:
        original = way.logits  # type: ignore[attr-defined]

        def logits(*given: Any) -> Tensor:
            passes.append(name)
            found: Tensor = original(*given)
            return found

        return logits

    monkeypatch.setattr(WindowedForward, "logits", counted(WindowedForward, "quick"))
    monkeypatch.setattr(Hooked, "logits", counted(Hooked, "long"))
    patch(models["LN"], people[:2], Grid())
    assert set(passes) == {"quick"}
    passes.clear()
    patch(models["rotary"], people[:2], Grid())
    with the_long_way(models["LN"]):
        patch(models["LN"], people[:2], Grid())
    assert set(passes) == {"long"}


def test_a_mean_at_a_position_is_over_tokens_that_are_alike(
    model: TransformerBridge, corpus: Corpus
) -> None:
    pairs = swapped_people(corpus, n=6)
    grid = Grid("resid_pre", "each", layers=[1])
    with pytest.raises(ArgumentError, match=r"unlike tokens.*pairs\[:1\].*per_pair.*aligned=True"):
        patch(model, pairs, grid)
    cut = Grid("pattern", "predicts value", edit=Knockout("each"))
    with pytest.raises(ArgumentError, match="unlike tokens"):
        patch(model, pairs, cut)
    each = patch(model, pairs, grid, per_pair=True, metrics=LOGIT_DIFFERENCE)
    assert set(each["pair"]) == set(range(6))
    one = patch(model, pairs[:1], grid, metrics=LOGIT_DIFFERENCE)
    np.testing.assert_allclose(one["value"], each.query("pair == 0")["value"], atol=1e-5)
    # Two people in one wording: only slots differ.
    two = pairs[torch.tensor([True] + [False] * 5)]
    both = pairs[:2]
    parts = {field.name: getattr(two, field.name) for field in fields(Pairs)}
    twice = Pairs(*(
        Spans(part.kind.repeat(2, 1), part.sentence.repeat(2, 1)) if isinstance(part, Spans)
        else part.repeat(2, *[1] * (part.ndim - 1)) for part in parts.values()
    ))  # fmt: skip
    name = int((twice.spans.kind[1] == TokenKind.NAME).nonzero()[0, 0])
    twice.base[1, name] = both.base[1][both.spans.kind[1] == TokenKind.NAME][0]
    assert twice.base[0, name] != twice.base[1, name]
    assert patch(model, twice, grid, metrics=LOGIT_DIFFERENCE)["n"].eq(2).all()
    word = int((twice.spans.kind[1] == TokenKind.TEXT).nonzero()[0, 0])
    twice.base[1, word] += 1
    unlike = rf"position {word} holds unlike tokens \(token {int(twice.base[0, word])} in pair 0, "
    with pytest.raises(ArgumentError, match=rf"{unlike}{int(twice.base[1, word])} in pair 1\)"):
        patch(model, twice, grid)
