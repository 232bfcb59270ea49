"""Sums over texts, positions and people in low precision, against the same in double precision."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.attention import attention_scores, cut_edges, edge_mask
from interp.attention.names import sharpness
from interp.biographies import Batch, Corpus, TokenKind, position_masks, spans_of
from interp.interventions import Grid, Pairs, Replace, patch, read_activations, swapped_people
from interp.interventions.edits import cell_means
from interp.interventions.grid import grid_cells
from interp.knowledge import ValuePositions, n_values, summed_loss, value_table
from interp.memory.ablation import ablation_costs
from interp.memory.activations import cache_activations
from interp.memory.keys import intraclass_correlation
from interp.memory.probes import sums_of_inputs
from interp.memory.transplant import weight_changes
from interp.model import (
    RunningMean,
    at_least_single,
    evaluating,
    logits_at,
    pattern_hook,
    read_patterns,
)
from tests.model.test_fused import make_model

OFFSET = 300.0
"""Added to what is averaged: numbers of this size are 2 apart in bfloat16, sums of them 64 and more."""
LOW = (torch.bfloat16, torch.float16)


def low_model(corpus: Corpus, dtype: torch.dtype, **settings: Any) -> TransformerBridge:
    """A model whose stream and MLP outputs are far from 0, which its norms take away again."""
    model = make_model(corpus, **settings)
    with torch.no_grad():
        model.blocks[0].mlp.out.original_component.bias.add_(OFFSET)
    return model.to(dtype).eval()


@pytest.fixture(scope="module", params=LOW, ids=["bf16", "fp16"])
def model(request: pytest.FixtureRequest, corpus: Corpus) -> TransformerBridge:
    return low_model(corpus, request.param)


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    return swapped_people(corpus, n=24)


@pytest.fixture(scope="module")
def people(corpus: Corpus) -> Batch:
    return corpus.biographies(np.arange(24))


def added_in_its_own_type(parts: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=parts[0].dtype)
    for part in parts:
        total = total + part.sum(dim=0)
    return total / sum(map(len, parts))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *LOW])
def test_a_running_mean(dtype: torch.dtype) -> None:
    x = (OFFSET + torch.randn(700, 5, generator=torch.Generator().manual_seed(0))).to(dtype)
    parts, mean = [*x.split(7)], RunningMean()
    for part in (x[:0], *parts):
        mean.add(part)
    assert mean.count == 700
    assert mean.mean.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(mean.mean.double(), x.double().mean(0), rtol=1e-6, atol=0)
    if dtype in LOW:
        naive = added_in_its_own_type(parts).double()
        assert not (naive - x.double().mean(0)).abs().max() < 1
    elif dtype == torch.float32:
        assert torch.equal(mean.mean, added_in_its_own_type(parts)), "no other order, no other bit"
    assert at_least_single(x).dtype == mean.mean.dtype


def test_means_of_cells(model: TransformerBridge, pairs: Pairs) -> None:
    sites = ("resid_post", "mlp_out", "z")
    cells = grid_cells(
        model, pairs, Grid(sites, ["every name", "predicts value"], [0], edit="mean")
    )
    blocks = [slice(start, start + 2) for start in range(0, len(pairs), 2)]
    real = pairs.spans.kind != TokenKind.PADDING
    far = 0.0
    with evaluating(model):
        means = cell_means(model, pairs, cells, blocks)
        base = read_activations(model, pairs.base, [cell.key for cell in cells])
    for cell, mean in zip(cells, means, strict=True):
        assert base[cell.key].dtype == model.W_E.dtype
        chosen = base[cell.key][cell.mask & real]
        expected = chosen.double().mean(dim=0)
        size = chosen.double().abs().mean(0).clamp_min(1e-30)
        assert mean is not None
        assert ((mean[0].double() - expected).abs() <= 1e-6 * size).all()
        parts = [base[cell.key][block][(cell.mask & real)[block]] for block in blocks]
        naive = (added_in_its_own_type(parts).double() - expected).abs() / size
        far = max(far, float(naive.max()))
    assert not far < 1e-3, "sums of the activation's own type would not do"


def test_mean_patches(model: TransformerBridge, pairs: Pairs) -> None:
    """The whole table, against the same with means that were made in double precision."""
    where = pairs.spans.kind == TokenKind.NAME
    with evaluating(model):
        written = read_activations(model, pairs.base, [("mlp_out", 0)])["mlp_out", 0]
    grid = Grid("mlp_out", {"names": where}, [0], edit="mean")
    given = replace(grid, edit=Replace(written[where].double().mean(0)))
    found, expected = (patch(model, pairs, one, per_pair=True) for one in (grid, given))
    assert found["value"].tolist() == expected["value"].tolist()
    assert (found["value"] - found["unpatched"]).abs().max() > 0.1
    blocks = patch(model, pairs, grid, max_memory_gb=1e-6, per_pair=True)
    change = (blocks["value"] - blocks["unpatched"]).abs().max()
    assert (blocks["value"] - expected["value"]).abs().max() < change, "in blocks of pairs"


def replaced(x: Tensor, hook: Any, mask: Tensor, value: Tensor) -> Tensor:
    return torch.where(mask[..., None], value, x)


def test_ablations(model: TransformerBridge, people: Batch) -> None:
    table = ablation_costs(model, people, ["name"], batch_size=2).set_index("layer")
    hook = "blocks.0.hook_mlp_out"
    parts = [people[start : start + 2] for start in range(0, len(people), 2)]
    masks = [position_masks(spans_of(part), "name")["name"] for part in parts]
    with evaluating(model):
        written = [
            model.run_with_cache(part.tokens, names_filter=[hook])[1][hook][mask]
            for part, mask in zip(parts, masks, strict=True)
        ]
        mean = torch.cat(written).double().mean(0).to(model.W_E.dtype)
        expected = 0.0
        for part, mask in zip(parts, masks, strict=True):
            with model.hooks(fwd_hooks=[(hook, partial(replaced, mask=mask, value=mean))]):
                expected += summed_loss(model, part, ValuePositions.of(part)) / n_values(people)
    assert table.loc[0, "loss"] == pytest.approx(expected, rel=1e-9)
    assert abs(table.loc[0, "cost"]) > 1e-3
    naive = added_in_its_own_type(written)
    assert not torch.allclose(naive.double(), mean.double(), rtol=2e-3)


def test_attention(model: TransformerBridge, people: Batch) -> None:
    scores = attention_scores(model, people)
    wide = copy.deepcopy(model).double()
    patterns: dict[int, Tensor] = {}
    with evaluating(model):
        read_patterns(model, people.tokens, lambda layer, x: patterns.update({layer: x.clone()}))
    assert {x.dtype for x in patterns.values()} == {model.W_E.dtype}

    def given(x: Tensor, hook: Any, layer: int) -> Tensor:
        return patterns[layer].double()

    hooks = [(pattern_hook(layer), partial(given, layer=layer)) for layer in patterns]
    with wide.hooks(fwd_hooks=hooks):
        expected = attention_scores(wide, people)
    np.testing.assert_allclose(scores["value"], expected["value"], rtol=1e-9)
    assert scores["value"].std() > 0.01


def test_what_is_left_of_a_cut(model: TransformerBridge, people: Batch) -> None:
    """The rest of a row shares the whole: each weight is rounded once, and no sum is."""
    mask = edge_mask(spans_of(people), "attribute_to_name")
    name = "blocks.1.attn.hook_pattern"
    seen: list[Tensor] = []

    def keep(x: Tensor, hook: Any) -> None:
        seen.append(x.clone())

    record = [(name, keep)]
    with evaluating(model), model.hooks(record), cut_edges(model, mask, [1]), model.hooks(record):
        model(people.tokens)
    before, after = seen
    cut = before.double().masked_fill(mask[:, None], 0)
    rows = mask.any(-1)[:, None].expand(before.shape[:3])
    expected = (cut / cut.sum(-1, keepdim=True))[rows].to(before.dtype)
    torch.testing.assert_close(after[rows], expected, rtol=torch.finfo(before.dtype).eps, atol=0)
    assert (after[rows] == expected).double().mean() > 0.999
    assert torch.equal(after[~rows], before[~rows])


@pytest.mark.parametrize("dtype", LOW)
def test_sharpness(dtype: torch.dtype) -> None:
    n = 3001  # in bfloat16: 3008
    pattern = torch.rand(4, n, generator=torch.Generator().manual_seed(0)).pow(4)
    pattern = (pattern / pattern.sum(-1, keepdim=True)).to(dtype)
    expected = sharpness(pattern.double(), torch.full((4,), n))
    found = sharpness(pattern, torch.full((4,), n))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_values(model: TransformerBridge, people: Batch) -> None:
    """Loss and accuracy, from the model's logits as they are."""
    found = value_table(model, people)
    where = ValuePositions.of(people)
    with evaluating(model):
        logits = logits_at(model, people.tokens, where.row, where.position)
    assert logits.dtype == model.W_E.dtype
    losses = torch.nn.functional.cross_entropy(logits.double(), where.target, reduction="none")
    expected = torch.zeros(len(people) * 6, dtype=torch.float64)
    expected.index_add_(0, where.row * 6 + where.attribute, losses)
    np.testing.assert_allclose(found[0].flatten(), expected, rtol=1e-5)


def test_memory_is_read_in_single_precision(model: TransformerBridge, people: Batch) -> None:
    cached = cache_activations(model, [people])
    kept = [*cached.residual.values(), *cached.neurons.values()]
    assert {x.dtype for x in kept} == {torch.float32}
    assert cached.residual["resid_post", 0].mean() > OFFSET / 2


@pytest.mark.parametrize("dtype", LOW)
def test_sums_over_people(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (10 + torch.randn(2, 600, 4, generator=generator)).to(dtype)
    labels = torch.randint(3, (1, 2, 600), generator=generator)
    for found, expected in zip(
        sums_of_inputs(x, labels, 3), sums_of_inputs(x.double(), labels, 3), strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(
        intraclass_correlation(x).double(), intraclass_correlation(x.double()), rtol=0, atol=1e-4
    )


def test_weight_changes(model: TransformerBridge, corpus: Corpus) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.01)
    wide = [copy.deepcopy(one).double() for one in (model, other)]
    found, expected = weight_changes(model, other), weight_changes(*wide)
    np.testing.assert_allclose(found["value"], expected["value"], rtol=1e-5)
