"""Edges of a model: attributed as TransformerLens does, exact as a pass written out edge by edge."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import attribution_patching
from transformers import GPT2LMHeadModel

from interp import hooked_transformer
from interp.biographies import Corpus, load_tokenizer
from interp.circuits import (
    EDGE_COLUMNS,
    KL_DIVERGENCE,
    agreement,
    circuit_edges,
    circuits_over_steps,
    edge_attribution,
    edge_emergence,
    edges,
    exact_edges,
    faithfulness_curve,
)
from interp.circuits.edges import graph_of
from interp.circuits.faithfulness import edge_order, largest_circuit, metric_of_circuits, on_paths
from interp.config import Config
from interp.errors import ArgumentError, NothingToMeasureError
from interp.interventions import LOGIT_DIFFERENCE, Grid, Pairs, patch, path_patch, swapped_people
from interp.model import evaluating
from tests.circuits.models import difference, edge_name, gpt2, parts_of, some_pairs

D_VOCAB = 60


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
def small(smoke: Config, corpus: Corpus) -> TransformerBridge:
    return hooked_transformer(smoke.with_settings(**{"model.init_std": 0.2}), corpus.tokenizer)


@pytest.fixture(scope="module")
def plain() -> GPT2LMHeadModel:
    return gpt2(D_VOCAB)


@pytest.fixture(scope="module")
def foreign(
    plain: GPT2LMHeadModel, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> TransformerBridge:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    return TransformerBridge.boot_transformers(
        "gpt2", hf_model=plain, tokenizer=load_tokenizer(Path(folder))
    )


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return some_pairs(D_VOCAB)


def test_the_edges_of_two_layers(small: TransformerBridge) -> None:
    table = edges(small)
    assert small.cfg.n_layers == 2
    assert small.cfg.n_heads == 2
    # 6 inputs of heads from 1 sender; an MLP from 3; 6 from 4; an MLP from 6; the logits from 7.
    assert len(table) == 6 * 1 + 3 + 6 * 4 + 6 + 7
    assert not table.duplicated(EDGE_COLUMNS).any()
    within = table[(table["sender_layer"] == table["receiver_layer"]).fillna(False)]
    assert set(zip(within["sender"], within["receiver"], strict=True)) == {("head", "mlp")}
    layers = edges(small, "layers")
    assert len(layers) == 1 + 2 + 3 + 4 + 5
    assert set(layers["receiver"]) == {"attn", "mlp", "logits"}


def test_equal_to_transformer_lens(model: TransformerBridge) -> None:
    pair = some_pairs(D_VOCAB)[:1]
    table = edge_attribution(model, pair, "EAP")
    settings = attribution_patching.EdgeAttributionConfig(granularity="edge")
    with evaluating(model), torch.enable_grad():
        found = attribution_patching.attribution_patch(
            model, pair.source, pair.base, lambda logits: difference(logits, pair)[0], settings
        )  # fmt: skip
    expected: dict[tuple[object, ...], float] = {}
    kinds = {"attn_head_out": "head", "mlp_out": "mlp", "mlp_in": "mlp"}
    kinds |= {f"{which}_input": "head" for which in "qkv"}
    for (sender, receiver), score in found.edge_scores.items():
        layer = None if receiver.kind == "logits" else receiver.layer
        by = receiver.kind[0] if receiver.kind.endswith("_input") else None
        start = kinds.get(sender.kind, sender.kind), sender.layer, sender.head
        key = (*start, kinds.get(receiver.kind, receiver.kind), layer, receiver.head, by)
        expected[key] = expected.get(key, 0.0) + score
    own = {
        tuple(None if pd.isna(part) else part for part in row): score
        for *row, score in table[[*EDGE_COLUMNS, "score"]].itertuples(index=False)
    }
    assert own.keys() == expected.keys()
    largest = max(map(abs, expected.values()))
    assert largest > 0.1
    for key, score in own.items():
        assert score == pytest.approx(expected[key], abs=1e-4 * max(1, largest)), key


def test_a_score_is_the_mean_over_pairs(small: TransformerBridge, pairs: Pairs) -> None:
    together = edge_attribution(small, pairs)["score"]
    alone = [edge_attribution(small, pairs[i : i + 1])["score"] for i in range(len(pairs))]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)
    little = edge_attribution(small, pairs, max_memory_gb=1e-6)["score"]
    np.testing.assert_allclose(together, little, atol=1e-5)


def test_edges_into_the_logits_add_up(model: TransformerBridge, pairs: Pairs) -> None:
    """To the first-order change by all of the final stream, norm included."""
    table = edge_attribution(model, pairs, "EAP")
    with evaluating(model):
        last = ("resid_post", model.cfg.n_layers - 1)
        base, source = (model.run_with_cache(t)[1][last] for t in (pairs.base, pairs.source))
        with torch.enable_grad():
            stream = base.clone().requires_grad_(True)
            total = difference(model.unembed(model.ln_final(stream)), pairs).sum()
            (gradient,) = torch.autograd.grad(total, stream)
    change = (gradient * (source - base)).sum().item() / len(pairs)
    into = table.loc[table["receiver"] == "logits", "score"].sum()
    assert abs(change) > 1e-2
    assert into == pytest.approx(change, abs=1e-4)


def test_integrated_gradients_are_complete(model: TransformerBridge, pairs: Pairs) -> None:
    """Edges out of the embedding add up to what patching the embedding does, to 2% with 100 points."""
    everywhere = {"all": torch.ones_like(pairs.base, dtype=torch.bool)}
    grid = Grid("resid_pre", everywhere, [0])
    exact = patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE)["change"].item()
    errors = []
    for steps in (1, 4, 100):
        table = edge_attribution(model, pairs, "EAP-IG-inputs", steps)
        total = table.loc[table["sender"] == "embed", "score"].sum()
        errors.append(abs(total - exact))
    assert errors[2] < 0.02 * abs(exact) + 2e-3
    assert errors[2] < errors[0]


def test_points_on_the_way(small: TransformerBridge, pairs: Pairs) -> None:
    """Both ends: the mean of the base's gradients and of those where the embedding is the source's."""
    ends = edge_attribution(small, pairs, "clean-corrupted")["score"]
    base = edge_attribution(small, pairs, "EAP")["score"]
    back = edge_attribution(small, pairs.flipped(), "EAP")["score"]
    # Backwards, differences and the metric both change their sign.
    np.testing.assert_allclose(ends, (base + back) / 2, atol=1e-5)


def test_divergence_from_the_base(small: TransformerBridge, pairs: Pairs) -> None:
    with pytest.raises(ArgumentError, match="gradient is 0"):
        edge_attribution(small, pairs, "EAP", metric=KL_DIVERGENCE)
    table = edge_attribution(small, pairs, ig_steps=50, metric=KL_DIVERGENCE)
    with evaluating(small):
        rows = torch.arange(len(pairs))
        base, source = (
            small(t)[rows, pairs.read].log_softmax(1) for t in (pairs.base, pairs.source)
        )
    expected = (base.exp() * (base - source)).sum(1).mean().item()
    total = table.loc[table["sender"] == "embed", "score"].sum()
    assert total == pytest.approx(expected, rel=0.02)
    curve = faithfulness_curve(small, pairs, table, (0, 10, 46), metric=KL_DIVERGENCE, n_random=0)
    assert curve["faithfulness"].tolist()[::2] == [0.0, 1.0]
    assert curve["clean"][0] == pytest.approx(0, abs=1e-6)
    assert curve["corrupted"][0] == pytest.approx(expected, rel=1e-4)


def test_every_exact_edge_equals_a_pass_written_out(
    foreign: TransformerBridge, plain: GPT2LMHeadModel, pairs: Pairs
) -> None:
    table = exact_edges(foreign, pairs)
    source, _ = parts_of(plain, pairs.source)
    _, logits = parts_of(plain, pairs.base)
    torch.testing.assert_close(logits, plain(pairs.base).logits, atol=1e-4, rtol=1e-4)
    before = difference(logits, pairs).mean().item()
    for row in table.to_dict("records"):
        edge = frozenset([edge_name(row)])
        _, logits = parts_of(plain, pairs.base, source, edge)
        after = difference(logits, pairs).mean().item()
        assert row["exact"] == pytest.approx(after - before, abs=2e-4), edge
    assert table["exact"].abs().median() > 1e-2
    assert len(exact_edges(foreign, pairs, 5)) == 5


def test_circuits_equal_a_pass_written_out(
    foreign: TransformerBridge, plain: GPT2LMHeadModel, pairs: Pairs
) -> None:
    graph = graph_of(foreign)
    generator = np.random.default_rng(0)
    circuits = [graph.exists & (generator.random(graph.exists.shape) < p) for p in (0.2, 0.5, 0.9)]
    values = metric_of_circuits(foreign, graph, pairs, circuits, LOGIT_DIFFERENCE)
    source, _ = parts_of(plain, pairs.source)
    for circuit, value in zip(circuits, values, strict=True):
        table = graph.table(kept=circuit)
        removed = frozenset(map(edge_name, table[~table["kept"]].to_dict("records")))
        _, logits = parts_of(plain, pairs.base, source, removed)
        np.testing.assert_allclose(value, difference(logits, pairs).detach(), atol=2e-4)


def test_exact_edges_between_heads_are_path_patches(model: TransformerBridge, pairs: Pairs) -> None:
    paths = path_patch(model, pairs, ("result", "mlp_out"), metrics=LOGIT_DIFFERENCE)
    paths = paths.assign(
        receiver_input=paths["receiver"].str[0],
        sender=paths["sender"].map({"result": "head", "mlp_out": "mlp"}),
    )
    paths = paths.rename(columns={"layer": "receiver_layer", "head": "receiver_head"})
    keys = [name for name in EDGE_COLUMNS if name != "receiver"]
    both = exact_edges(model, pairs).merge(paths[[*keys, "change"]], on=keys)
    assert len(both) == len(paths)
    np.testing.assert_allclose(both["exact"], both["change"], atol=2e-5)


def test_all_edges_and_none(model: TransformerBridge, pairs: Pairs) -> None:
    table = edge_attribution(model, pairs)
    curve = faithfulness_curve(model, pairs, table, n_random=2)
    own = curve[curve["circuit"] == "scores"]
    assert own["edges"].iloc[[0, -1]].tolist() == [0, len(table)]
    assert own["faithfulness"].iloc[[0, -1]].tolist() == [0.0, 1.0]
    with evaluating(model):
        clean, corrupted = (
            difference(model(tokens), pairs).mean().item() for tokens in (pairs.base, pairs.source)
        )
    assert own["clean"].iloc[0] == pytest.approx(clean, abs=1e-5)
    assert own["corrupted"].iloc[0] == pytest.approx(corrupted, abs=1e-5)
    assert (curve["edges"] <= curve["size"]).all()
    random = curve[curve["circuit"] == "random"]
    assert random.groupby("size")["seed"].nunique().eq(2).all()
    assert random["faithfulness"].groupby(random["size"]).nunique().max() == 2
    assert own["seed"].isna().all()


def test_only_edges_on_a_path_count(small: TransformerBridge) -> None:
    graph = graph_of(small)
    generator = np.random.default_rng(0)
    ends = {(s.kind, s.layer, s.head): i for i, s in enumerate(graph.senders)}

    def onward(receiver: int) -> int | None:
        node = graph.receivers[receiver]
        return ends.get((node.kind, node.layer, node.head))

    for share in (0.1, 0.3, 0.6):
        circuit = graph.exists & (generator.random(graph.exists.shape) < share)
        expected = np.zeros_like(circuit)

        def walk(sender: int, path: list[tuple[int, int]]) -> None:
            for receiver in np.flatnonzero(circuit[sender]):  # noqa: B023
                way = [*path, (sender, int(receiver))]
                if graph.receivers[receiver].kind == "logits":
                    for edge in way:
                        expected[edge] = True  # noqa: B023
                else:
                    after = onward(int(receiver))
                    assert after is not None
                    walk(after, way)

        walk(0, [])
        np.testing.assert_array_equal(on_paths(graph, circuit), expected)


@pytest.mark.parametrize("selection", ["greedy", "threshold"])
def test_the_strongest_edges(small: TransformerBridge, selection: str) -> None:
    graph = graph_of(small)
    scores = np.random.default_rng(0).normal(size=graph.exists.shape)
    order = edge_order(graph, scores, selection)
    assert len({tuple(edge) for edge in order.tolist()}) == int(graph.exists.sum())
    sizes = [int(largest_circuit(graph, order, n).sum()) for n in range(len(order) + 1)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(order)
    assert all(size <= n for n, size in enumerate(sizes))
    if selection == "greedy":
        assert graph.receivers[order[0, 1]].kind == "logits"
        into = np.abs(scores[:, -1])
        assert order[0, 0] == into.argmax()
    table = circuit_edges(small, graph.table(score=scores), 12, selection=selection)
    assert len(table) == sizes[12]
    assert table["score"].abs().is_monotonic_decreasing


def test_pairs_of_biographies(small: TransformerBridge, corpus: Corpus) -> None:
    """Whose positions do not correspond one by one."""
    pairs = swapped_people(corpus, 6)
    table = edge_attribution(small, pairs)
    curve = faithfulness_curve(small, pairs, table, (0, 10, 46), n_random=0)
    assert curve["faithfulness"].tolist()[::2] == [0.0, 1.0]
    with evaluating(small):
        rows = torch.arange(len(pairs))
        read = small(pairs.source)[rows, pairs.source_read]
    expected = read[rows, pairs.source_answer] - read[rows, pairs.base_answer]
    assert curve["corrupted"][0] == pytest.approx(expected.mean().item(), abs=1e-5)


def test_the_model_is_left_alone(small: TransformerBridge, pairs: Pairs) -> None:
    small.train()
    gradients = [weight.requires_grad for weight in small.parameters()]
    before = small(pairs.base)
    scores = edge_attribution(small, pairs)
    exact_edges(small, pairs, 3)
    faithfulness_curve(small, pairs, scores, (5,), n_random=1)
    assert small.training
    assert [weight.requires_grad for weight in small.parameters()] == gradients
    assert all(weight.grad is None for weight in small.parameters())
    assert not any(
        getattr(small.cfg, flag)
        for flag in ("use_split_qkv_input", "use_attn_result", "use_hook_mlp_in")
    )
    assert not any(point.fwd_hooks for point in small.hook_dict.values())
    assert torch.equal(small(pairs.base), before)
    small.eval()


def test_what_is_refused(small: TransformerBridge, pairs: Pairs) -> None:
    scores = edge_attribution(small, pairs)
    refused = (
        (partial(edge_attribution, small, pairs, ig_steps=0), "ig_steps"),
        (partial(edge_attribution, small, pairs, metric="follows"), "no gradient"),
        (partial(edge_attribution, small, pairs, metric="loss"), "metric"),
        (partial(faithfulness_curve, small, pairs, scores[:-1]), "lack edges"),
        (partial(faithfulness_curve, small, pairs, pd.concat([scores, scores])), "twice"),
        (partial(faithfulness_curve, small, pairs, scores.drop(columns="score")), "score"),
        (partial(faithfulness_curve, small, pairs, scores, attention="layers"), "same model"),
        (partial(faithfulness_curve, small, pairs, scores, (-1,)), "size"),
        (partial(faithfulness_curve, small, pairs, scores, ()), "sizes"),
        (partial(exact_edges, small, pairs, 0), "n=0"),
    )
    for call, word in refused:
        with pytest.raises(ArgumentError, match=word):
            call()
    same = Pairs.of_tokens(
        pairs.base, pairs.base, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )
    with pytest.raises(NothingToMeasureError, match="both"):
        faithfulness_curve(small, same, scores)
    shifted = Pairs(
        pairs.base, pairs.source, pairs.spans, pairs.spans, pairs.source_position,
        pairs.read, pairs.read - 1, pairs.base_answer, pairs.source_answer,
    )  # fmt: skip
    with pytest.raises(ArgumentError, match="source_read"):
        faithfulness_curve(small, shifted, scores)


def test_agreement(small: TransformerBridge, pairs: Pairs) -> None:
    scores, exact = edge_attribution(small, pairs), exact_edges(small, pairs)
    row = agreement(scores, exact).iloc[0]
    assert row["n"] == len(exact)
    assert row["spearman"] > 0.5
    perfect = agreement(exact.rename(columns={"exact": "score"}), exact).iloc[0]
    names = ["spearman", "kendall", "signed_spearman", "pearson", "same_sign"]
    assert perfect[names].tolist() == pytest.approx([1] * 5)
    with pytest.raises(NothingToMeasureError):
        agreement(scores, exact[:2])
    by_step = [t.assign(step=s) for t, s in ((scores, 0), (scores.assign(score=1.0), 1))]
    with pytest.raises(NothingToMeasureError):
        agreement(pd.concat(by_step), pd.concat([exact.assign(step=s) for s in (0, 1)]), ["step"])


def test_over_steps(small: TransformerBridge, foreign: TransformerBridge, pairs: Pairs) -> None:
    table = circuits_over_steps({0: small, 7: small, 9: small}, pairs, [0, 9], ig_steps=2)
    assert table["step"].unique().tolist() == [0, 9]
    alone = edge_attribution(small, pairs, ig_steps=2)
    pd.testing.assert_frame_equal(
        table[table["step"] == 9].drop(columns="step").reset_index(drop=True), alone
    )


def test_when_edges_come_to_stay() -> None:
    scores = {0: (9, 0, 1, 2), 1: (1, 3, 2, 0), 2: (9, 8, 1, 2), 3: (0, -7, 5, 1), 4: (2, -5, 9, 0)}
    ends = {"receiver_layer": 1, "receiver_head": pd.NA, "receiver": "mlp", "receiver_input": pd.NA}
    rows = [
        {"step": step, "sender": "head", "sender_layer": 0, "sender_head": head, **ends, "score": score}
        for step, of_step in scores.items()
        for head, score in enumerate(of_step)
    ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"receiver_head": "Int64", "receiver_input": "string"})
    found = edge_emergence(table, 2)
    assert found["sender_head"].tolist() == [1, 2]
    assert found["first_step"].tolist() == [1, 3]
    assert found["ever_step"].tolist() == [1, 1]
    assert found["rank"].tolist() == [2, 1]
    assert found["score"].tolist() == [-5, 9]
    both = edge_emergence(pd.concat([table.assign(seed=s) for s in (0, 1)]), 2)
    assert both["seed"].tolist() == [0, 0, 1, 1]
    with pytest.raises(NothingToMeasureError):
        edge_emergence(table[table["step"] == 0], 2)
    with pytest.raises(ArgumentError, match="top"):
        edge_emergence(table, 0)
