"""Cutting attention edges, against loops over tokens and a softmax from scratch."""

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot_native

from interp.attention import (
    EDGES,
    Spans,
    cut_edges,
    edge_mask,
    informative_steps,
    knockout,
    knockout_costs,
)
from interp.biographies import Batch, Corpus, TokenKind
from interp.config import Config
from interp.errors import CheckpointError, ConfigError
from interp.knowledge import (
    ValuePositions,
    n_values,
    split_batch,
    summed_loss,
    value_table,
)
from interp.model import bridge_config, evaluating, hooked_transformer
from interp.phases import Phases
from interp.run import Run

SHARP = {"model.init_std": 0.3}


@pytest.fixture(scope="module")
def model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    return hooked_transformer(smoke.with_settings(**SHARP), corpus.tokenizer)


@pytest.fixture(scope="module")
def gated(smoke: Config, corpus: Corpus) -> TransformerBridge:
    """A native model that the quick forward pass does not know."""
    settings = bridge_config(smoke.with_settings(**SHARP), d_vocab=len(corpus.tokenizer))
    settings.gated_mlp = True
    return boot_native(settings, tokenizer=corpus.tokenizer)


def slow_edges(batch: Batch, row: int) -> dict[str, dict[int, set[int]]]:
    """Per edge, the keys that each query of a biography is cut from."""
    kind, sentence = batch.kind[row].tolist(), batch.sentence[row].tolist()
    edges: dict[str, dict[int, set[int]]] = {edge: {} for edge in EDGES}
    for query in range(len(kind)):
        names = {key for key in range(query + 1) if kind[key] == TokenKind.NAME}
        if query + 1 < len(kind) and kind[query + 1] == TokenKind.VALUE:
            own = {key for key in names if sentence[key] == sentence[query + 1]}
            edges["attribute_to_name"][query] = own
            edges["attribute_to_any_name"][query] = names
        if kind[query] == TokenKind.NAME and kind[query + 1] != TokenKind.NAME:
            mine = {key for key in names if sentence[key] == sentence[query]}
            edges["name_to_name"][query] = mine - {query}
    return edges


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_edges_equal_the_slow_reference(kind: str, request: pytest.FixtureRequest) -> None:
    batch = request.getfixturevalue(kind).biographies(np.arange(5))
    spans = Spans.of(batch)
    for edge in EDGES[:-1]:
        mask = edge_mask(spans, edge)
        for row in range(len(batch)):
            slow = slow_edges(batch, row)[edge]
            for query in range(batch.tokens.shape[1]):
                assert set(mask[row, query].nonzero()[:, 0].tolist()) == slow.get(query, set())


def test_the_control_cuts_as_many_tokens_that_tell_nothing(batch: Batch) -> None:
    spans = Spans.of(batch)
    control, names = edge_mask(spans, "control"), edge_mask(spans, "attribute_to_any_name")
    telling = spans.is_kind(TokenKind.NAME, TokenKind.TYPE)
    causal = torch.ones_like(control).tril()
    possible = causal & ~telling[:, None] & ~torch.eye(control.shape[1], dtype=torch.bool)
    possible[:, :, 0] = False
    assert not (control & ~possible).any()
    wanted = torch.minimum(names.sum(-1), possible.sum(-1))
    assert (control.sum(-1) == wanted).all()
    assert (control == edge_mask(spans, "control")).all()
    assert (control != edge_mask(spans, "control", seed=1)).any()
    few = Spans.from_lists(6, sentences=[(0, 6)], names=[(2, 5)], values=[(5, 6)])
    one = [False, True, *[False] * 4]
    assert edge_mask(few, "control")[0, 4].tolist() == one, "there is one to choose from"


def masked_scores(model: TransformerBridge, mask: Tensor, cells: set[tuple[int, int]]) -> list[Any]:
    """Hooks that compute each chosen head's pattern anew, with masked scores at -infinity."""
    hooks = []
    queries_keys: dict[tuple[int, str], Tensor] = {}
    d_head = model.cfg.d_head
    for layer in range(model.cfg.n_layers):

        def keep(x: Tensor, hook: Any, layer: int = layer, side: str = "") -> None:
            queries_keys[layer, side] = x.reshape(*x.shape[:2], -1, d_head).transpose(1, 2)

        def keep_q(x: Tensor, hook: Any, layer: int = layer) -> None:
            keep(x, hook, layer, "q")

        def keep_k(x: Tensor, hook: Any, layer: int = layer) -> None:
            keep(x, hook, layer, "k")

        def replace(pattern: Tensor, hook: Any, layer: int = layer) -> Tensor:
            scores = queries_keys[layer, "q"] @ queries_keys[layer, "k"].transpose(2, 3)
            scores = scores / d_head**0.5
            future = torch.ones(mask.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
            pattern = pattern.clone()
            for head in range(model.cfg.n_heads):
                if (layer, head) in cells:
                    row = scores[:, head].masked_fill(mask, float("-inf"))
                    pattern[:, head] = row.softmax(-1).nan_to_num(0)
            return pattern

        block = f"blocks.{layer}.attn"
        hooks += [(f"{block}.hook_q", keep_q), (f"{block}.hook_k", keep_k)]
        hooks.append((f"{block}.hook_pattern", replace))
    return hooks


@pytest.mark.parametrize("kind", ["model", "gated"])
@pytest.mark.parametrize(
    ("layers", "heads"), [(None, None), ([1], None), ([0], [1]), ([1, 0], [0])]
)
def test_a_cut_is_a_score_of_minus_infinity(
    kind: str,
    layers: list[int] | None,
    heads: list[int] | None,
    batch: Batch,
    request: pytest.FixtureRequest,
) -> None:
    model: TransformerBridge = request.getfixturevalue(kind)
    mask = edge_mask(Spans.of(batch), "attribute_to_any_name")
    mask[0, 5] = torch.arange(mask.shape[1]) <= 5  # a query that may look at nothing at all
    cells = {(layer, head) for layer in layers or [0, 1] for head in heads or [0, 1]}
    with evaluating(model):
        intact = model(batch.tokens)
        expected = model.run_with_hooks(batch.tokens, fwd_hooks=masked_scores(model, mask, cells))
        with cut_edges(model, mask, layers, heads):
            cut = model(batch.tokens)
    torch.testing.assert_close(cut, expected, rtol=1e-4, atol=1e-4)
    assert (cut - intact).abs().max() > 1e-2


def test_cutting_nothing_changes_no_bit(model: TransformerBridge, batch: Batch) -> None:
    nothing = torch.zeros(*batch.tokens.shape, batch.tokens.shape[1], dtype=torch.bool)
    with evaluating(model):
        intact = model(batch.tokens)
        with cut_edges(model, nothing):
            assert torch.equal(model(batch.tokens), intact)


def test_nothing_to_cut_costs_exactly_nothing(
    model: TransformerBridge, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        import_module("interp.attention.knockout"),
        "edge_mask",
        lambda spans, edge, seed: torch.zeros(
            *spans.kind.shape, spans.kind.shape[1], dtype=torch.bool
        ),
    )
    assert (knockout_costs(model, batch)["cost"] == 0).all()


@pytest.mark.parametrize("kind", ["model", "gated"])
def test_costs(kind: str, batch: Batch, request: pytest.FixtureRequest) -> None:
    model: TransformerBridge = request.getfixturevalue(kind)
    table = knockout_costs(model, batch)
    assert list(table.columns) == ["edge", "layer", "head", "loss", "intact", "cost"]
    assert len(table) == len(EDGES) * (1 + 2 + 2 * 2)
    assert table["layer"].dtype == table["head"].dtype == "Int64"
    # What the last name token gathers in the last layer, no position that predicts a value can read.
    unread = (table["edge"] == "name_to_name") & (table["layer"] == 1).fillna(False)
    assert (table.loc[~unread, "cost"].abs() > 1e-6).all()
    np.testing.assert_allclose(table.loc[unread, "cost"], 0, atol=1e-6)
    np.testing.assert_allclose(table["cost"], table["loss"] - table["intact"])
    loss = value_table(model, batch)[0].mean()
    np.testing.assert_allclose(table["intact"], loss, rtol=1e-5)
    for row in table.itertuples():
        mask = edge_mask(Spans.of(batch), row.edge)
        layers = None if pd.isna(row.layer) else [int(row.layer)]
        heads = None if pd.isna(row.head) else [int(row.head)]
        with cut_edges(model, mask, layers, heads):
            expected = value_table(model, batch)[0].mean()
        assert row.loss == pytest.approx(expected, rel=1e-5)
    parts = knockout_costs(model, batch, batch_size=4)
    pd.testing.assert_frame_equal(parts, table, rtol=1e-4, atol=1e-5)


def test_windows_of_layers(smoke: Config, corpus: Corpus, batch: Batch) -> None:
    model = hooked_transformer(
        smoke.with_settings(**SHARP, **{"model.n_layers": 3}), corpus.tokenizer
    )
    table = knockout_costs(model, batch, ["attribute_to_name"], window=2)
    assert table["layer"].isna().tolist() == [True, False, False, False]
    assert table["window"].tolist()[1:] == ["0-0", "0-1", "1-2"]
    assert table["head"].isna().all()
    single = knockout_costs(model, batch, ["attribute_to_name"])
    whole = single[single["layer"].notna() & single["head"].isna()]
    assert table["loss"][1] == whole["loss"].iloc[0]
    assert "window" not in single
    mask = edge_mask(Spans.of(batch), "attribute_to_name")
    where = ValuePositions.of(batch)
    for row, layers in ((2, [0, 1]), (3, [1, 2])):
        with evaluating(model), cut_edges(model, mask, layers):
            expected = summed_loss(model, batch, where) / n_values(batch)
        assert table["loss"][row] == pytest.approx(expected, rel=1e-6)
        assert abs(table["loss"][row] - whole["loss"].iloc[row - 1]) > 1e-4


def test_the_model_is_left_as_it_was(model: TransformerBridge, batch: Batch) -> None:
    model.train()
    model.blocks[1].eval()
    modes = [part.training for part in model.modules()]
    knockout_costs(model, batch, edges=["control"])
    mask = edge_mask(Spans.of(batch), "control")
    with pytest.raises(ConfigError, match="mask of edges has the shape"), cut_edges(model, mask):
        model(batch.tokens[:, :10])
    assert [part.training for part in model.modules()] == modes
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    model.train()


def test_over_a_run(short_run: Run) -> None:
    table = knockout(short_run, steps=[12, 4], edges=["attribute_to_name"], n_individuals=5)
    assert list(table.columns) == ["step", "edge", "layer", "head", "loss", "intact", "cost"]
    assert table["step"].unique().tolist() == [4, 12]
    batch = split_batch(short_run.corpus, "evaluation", 5)
    alone = knockout_costs(short_run.model(12), batch, ["attribute_to_name"])
    last = table[table["step"] == 12].drop(columns="step").reset_index(drop=True)
    pd.testing.assert_frame_equal(last, alone)
    chosen = knockout(short_run, edges=["control"], n_individuals=2)
    assert chosen["step"].unique().tolist() == informative_steps(short_run)


@pytest.mark.parametrize(
    ("statistics_end", "plateau_end", "expected"),
    [
        (100, 300, [0, 100, 200, 300, 450, 600, 900, 1500]),
        (None, 300, [0, 150, 300, 450, 600, 900, 1500]),
        (300, None, [0, 300, 500, 700, 900, 1100, 1300, 1500]),
        (None, None, [0, 250, 500, 750, 1000, 1250, 1500]),
        (1400, 1450, [0, 1400, 1450, 1500]),
    ],
)
def test_informative_steps(
    statistics_end: int | None,
    plateau_end: int | None,
    expected: list[int],
    short_run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Run, "steps", list(range(0, 1501, 50)))
    monkeypatch.setattr(Run, "phases", Phases(statistics_end, plateau_end, 5.0, 0.05))
    found = informative_steps(short_run)
    assert found == expected


def test_errors_of_knockout(model: TransformerBridge, batch: Batch, short_run: Run) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'name_to_name'"):
        knockout_costs(model, batch, edges=["name_to_nam"])
    with pytest.raises(ConfigError, match="No edge is named"):
        knockout(short_run, edges=[])
    with pytest.raises(CheckpointError, match="no checkpoint at step 7"):
        knockout(short_run, steps=[7], n_individuals=2)
    mask = edge_mask(Spans.of(batch), "control")
    for layers, heads in [([2], None), (None, [5]), ([], None)]:
        with pytest.raises(ConfigError), cut_edges(model, mask, layers, heads):
            pass
