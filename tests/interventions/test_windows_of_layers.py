"""Edits of several layers in one pass: against plain hooks, on models of ours and on others."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.attention import cut_edges
from interp.biographies import Corpus, Spans
from interp.config import Config
from interp.errors import ArgumentError
from interp.interventions import (
    LOGIT_DIFFERENCE,
    SITES,
    Add,
    Grid,
    Knockout,
    Pairs,
    as_array,
    attribution,
    patch,
    resolve_positions,
)
from interp.interventions.grid import layers_around
from interp.interventions.sites import by_position, hook_flags, read_activations, shape_at_position
from interp.interventions.windowed import can_window
from interp.model import evaluating
from tests.interventions.original_models import KINDS, N_LAYERS, Original, original


@pytest.fixture(scope="module")
def originals(
    smoke: Config, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Original]:
    return {
        kind: original(kind, smoke, corpus, tmp_path_factory.mktemp("tokenizer")) for kind in KINDS
    }


@pytest.fixture(scope="module")
def models(originals: dict[str, Original]) -> dict[str, TransformerBridge]:
    return {kind: one.bridge for kind, one in originals.items()}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, models: dict[str, TransformerBridge]) -> Any:
    return models[request.param]


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    """Four prompts of different lengths, in which names differ."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(5, len(corpus.tokenizer), (4, 10), generator=generator)
    source = base.clone()
    source[:, 1:4] = torch.randint(5, len(corpus.tokenizer), (4, 3), generator=generator)
    spans = Spans.from_lists(10, sentences=[(1, 10)], names=[(1, 4)], types=[(5, 6)])
    pairs = Pairs.of_tokens(
        base, source, Spans.stack([spans] * 4), [9, 7, 8, 6], [5, 6, 7, 8], [10, 11, 12, 13]
    )
    counterpart = pairs.source_position.clone()
    counterpart[0, 2] = -1  # this one stays as it is in the pass
    return replace(pairs, source_position=counterpart)


def difference(logits: Tensor, pairs: Pairs) -> Tensor:
    rows = torch.arange(len(pairs))
    read = logits[rows, pairs.read]
    return read[rows, pairs.source_answer] - read[rows, pairs.base_answer]


def test_the_layers_of_a_window() -> None:
    assert layers_around(6, 1, 12) == (6,)
    assert layers_around(6, 3, 12) == (5, 6, 7)
    assert layers_around(0, 3, 12) == (0, 1)
    for layer in range(12):  # Meng et al. 2022, causal_trace.py of their repository
        theirs = range(max(0, layer - 10 // 2), min(12, layer - (-10 // 2)))
        assert layers_around(layer, 10, 12) == tuple(theirs)
    with pytest.raises(ArgumentError, match="window"):
        Grid("z", window=0)


@torch.no_grad()
@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "resid_post"])
@pytest.mark.parametrize("kind", KINDS)
def test_against_hooks_on_the_original_model(
    kind: str, site: str, originals: dict[str, Original], pairs: Pairs
) -> None:
    model, inner = originals[kind].bridge, originals[kind]
    where = resolve_positions(pairs, "name")["name"] & (pairs.source_position >= 0)
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor, layer: int) -> None:
        kept[layer] = value.clone()

    def write(value: Tensor, layer: int) -> Tensor:
        return torch.where(where[..., None], kept[layer], value)

    with inner.writing({(site, i): partial(keep, layer=i) for i in range(N_LAYERS)}):
        inner.logits(pairs.source)
    expected = []
    for layer in range(N_LAYERS):
        around = layers_around(layer, 3, N_LAYERS)
        with inner.writing({(site, i): partial(write, layer=i) for i in around}):
            expected.append(float(difference(inner.logits(pairs.base), pairs).mean()))
    table = patch(model, pairs, Grid(site, "name", window=3), metrics=LOGIT_DIFFERENCE)
    np.testing.assert_allclose(table["value"], expected, atol=1e-4)
    assert table["layer"].tolist() == [0, 1, 2, 3]
    assert table["window"].tolist() == ["0-1", "0-2", "1-3", "2-3"]
    single = patch(model, pairs, Grid(site, "name"), metrics=LOGIT_DIFFERENCE)
    assert "window" not in single
    apart = (single["value"] - table["value"]).abs()
    assert (apart[:3] > 1e-3).all(), "a window is more than its centre"


@contextmanager
def the_long_way(model: TransformerBridge) -> Iterator[None]:
    model.add_hook("embed.hook_out", lambda value, hook: None)
    try:
        assert not can_window(model)
        yield
    finally:
        model.reset_hooks()


LOGITS = {f"logit {i}": lambda logits, answers, i=i: logits[:, i] for i in range(3)}


def edits_of(how: str, model: TransformerBridge, width: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    values = {
        (site, layer): torch.randn(*shape_at_position(model, site, width), generator=generator)
        for site in SITES
        for layer in range(N_LAYERS)
    }
    return {"add": Add(values), "knockout": Knockout("name")}.get(how, how)


@pytest.mark.parametrize(
    "how",
    [
        "replace",
        "knockout",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("add", "mean", "zero")),
    ],
)
def test_models_of_ours_both_ways(
    how: str, models: dict[str, TransformerBridge], pairs: Pairs
) -> None:
    model = models["ours"]
    refused = {"add": ("pattern",), "mean": ("pattern", "attn_scores")}.get(how, ())
    sites = [site for site in SITES if site not in refused]
    if how == "knockout":
        sites = ["pattern", "attn_scores"]
    generator = torch.Generator().manual_seed(1)
    some = torch.rand(pairs.base.shape, generator=generator) < 0.3
    grid = Grid(
        sites, {"some": some, **resolve_positions(pairs, ["name", "predicts value"])},
        heads={"one": [0], "both": [0, 1]}, neurons={"some": range(20)},
        edit=edits_of(how, model, pairs.base.shape[1]), window=3,
    )  # fmt: skip
    quick = patch(model, pairs, grid, metrics=LOGITS, per_pair=True)
    with the_long_way(model):
        long = patch(model, pairs, grid, metrics=LOGITS, per_pair=True)
    pd.testing.assert_frame_equal(quick, long, rtol=0, atol=2e-4)
    moved = quick["change"].abs().groupby(quick["site"]).max()
    assert (moved > 1e-3).all()
    assert set(moved.index) == set(sites)


@torch.no_grad()
@pytest.mark.parametrize("site", ["z", "post", "k", "pattern", "resid_mid", "resid_pre"])
def test_against_hooks_written_out(site: str, model: TransformerBridge, pairs: Pairs) -> None:
    """Some heads or neurons of three layers, from the source; everything else as it is in the pass."""
    keys = [(site, layer) for layer in range(1, 4)]
    source = read_activations(model, pairs.source, keys)
    where = resolve_positions(pairs, ["name", "predicts value"])
    both = torch.stack(list(where.values())).any(0)
    unit = SITES[site].unit

    def write(value: Tensor, hook: Any, layer: int) -> Tensor:
        changed = value if site == "resid_mid" else value.clone()
        view = by_position(changed, site)
        other = source[site, layer]
        for row in range(len(pairs)):
            for place in both[row].nonzero()[:, 0].tolist():
                if pairs.source_position[row, place] < 0:
                    continue
                new = view[row, place].clone()
                if unit is None:
                    new = other[row, place]
                elif site == "pattern":  # nothing is paid to a key without a counterpart
                    paid = other[row, place, :2] * (pairs.source_position[row] >= 0)
                    new[:2] = paid / paid.sum(-1, keepdim=True)
                else:
                    new[:2] = other[row, place, :2]
                view[row, place] = new
        return changed

    hooks = [
        (SITES[site].hook_name(layer), lambda value, hook, layer=layer: write(value, hook, layer))
        for layer in range(1, 4)
    ]
    with hook_flags(model, [site]):
        logits = model.run_with_hooks(pairs.base, fwd_hooks=hooks)
    grid = Grid(
        site, {"both": both}, layers=[2], heads={"two": [0, 1]}, neurons={"two": [0, 1]}, window=3
    )
    table = patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE, per_pair=True)
    np.testing.assert_allclose(table["value"], difference(logits, pairs), atol=1e-4)
    assert table["change"].abs().max() > 1e-3


@torch.no_grad()
def test_a_knockout_in_a_window_equals_cut_edges(model: TransformerBridge, pairs: Pairs) -> None:
    grid = Grid("pattern", "predicts value", edit=Knockout("name"), heads="all", window=2)
    table = patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE)
    name = resolve_positions(pairs, "name")["name"]
    mask = torch.zeros(*pairs.base.shape, pairs.base.shape[1], dtype=torch.bool)
    mask[torch.arange(len(pairs)), pairs.read] = name
    for layer in range(N_LAYERS):
        with cut_edges(model, mask, layers_around(layer, 2, N_LAYERS)):
            expected = difference(model(pairs.base), pairs).mean()
        assert table["value"][layer] == pytest.approx(float(expected), abs=1e-4)


def test_little_memory_gives_the_same_numbers(model: TransformerBridge, pairs: Pairs) -> None:
    grid = Grid(("z", "pattern", "mlp_out"), ("name", "predicts value"), heads="all", window=3)
    tables = [patch(model, pairs, grid, max_memory_gb=memory) for memory in (1, 1e-6)]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-4)


def test_a_source_equal_to_the_base_changes_no_bit(model: TransformerBridge, pairs: Pairs) -> None:
    same = Pairs.of_tokens(
        pairs.base, pairs.base, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )
    sites = ("resid_pre", "attn_out", "mlp_out", "z")
    table = patch(model, same, Grid(sites, ("name", "predicts value"), heads="all", window=3))
    assert (table["value"] == table["unpatched"]).all()
    array = as_array(table, "position", site="z", metric="follows")
    assert array.shape == (N_LAYERS, 2)


def test_the_model_is_left_as_it_was(model: TransformerBridge, pairs: Pairs) -> None:
    before = model(pairs.base)
    patch(model, pairs, Grid("z", "name", heads="all", window=2))
    attribution(model, pairs, Grid("mlp_out", "name", window=2))
    assert torch.equal(model(pairs.base), before)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("site", ["mlp_out", "attn_out", "z", "resid_mid", "resid_pre"])
def test_attribution_is_the_derivative(
    site: str, models: dict[str, TransformerBridge], pairs: Pairs
) -> None:
    """The approximate effect of a window against a small part of the way to the source."""
    for model in models.values():
        grid = Grid(site, ("name", "predicts value"), heads="all", window=3)
        table = attribution(model, pairs, grid)
        exact = patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE)
        np.testing.assert_array_equal(table["exact"], exact["change"])
        assert table["window"].equals(exact["window"])
        with evaluating(model):
            slope = finite_difference(model, pairs, site)
        np.testing.assert_allclose(table["approximate"], slope, rtol=0.03, atol=0.03)
        assert np.abs(slope).max() > 0.3


def finite_difference(model: TransformerBridge, pairs: Pairs, site: str) -> list[float]:
    step = 3e-3
    model.double()
    try:
        keys = [(site, layer) for layer in range(N_LAYERS)]
        base, source = (read_activations(model, t, keys) for t in (pairs.base, pairs.source))
        found = []
        for layer in range(N_LAYERS):
            for mask in resolve_positions(pairs, ["name", "predicts value"]).values():
                where = mask & (pairs.source_position >= 0)

                def write(value: Tensor, hook: Any, key: Any, where: Tensor, t: float) -> Tensor:
                    changed = value if site == "resid_mid" else value.clone()
                    changed[where] = (base[key] + t * (source[key] - base[key]))[where].to(value)
                    return changed

                ends = []
                for t in (-step, step):
                    hooks = [
                        (
                            SITES[site].hook_name(i),
                            lambda v, hook, i=i, where=where, t=t: write(
                                v, hook, (site, i), where, t
                            ),
                        )
                        for i in layers_around(layer, 3, N_LAYERS)
                    ]
                    logits = model.run_with_hooks(pairs.base, fwd_hooks=hooks)
                    ends.append(float(difference(logits, pairs).mean()))
                found.append((ends[1] - ends[0]) / (2 * step))
        return found
    finally:
        model.float()
