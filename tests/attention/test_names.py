"""Attention scores against a slow reference implementation, token by token."""

import warnings
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot_native
from transformers import GPT2Config, GPT2LMHeadModel

from interp.attention import (
    ATTENTION_METRICS,
    REST_METRICS,
    Spans,
    attention_scores,
    attention_to_names,
    attribute_queries,
    averaged,
    by_layer,
    head_roles,
    name_queries,
    sharpness,
)
from interp.biographies import Batch, Corpus, Texts, TokenKind, load_tokenizer
from interp.config import Config
from interp.errors import CheckpointError, ConfigError
from interp.interventions import Pairs
from interp.knowledge import split_batch
from interp.model import (
    bridge_config,
    evaluating,
    has_fused_forward,
    hooked_transformer,
    read_patterns,
)
from interp.model.components import HookedBridge
from interp.run import Run

NAME, VALUE, TEXT, TYPE = TokenKind.NAME, TokenKind.VALUE, TokenKind.TEXT, TokenKind.TYPE


def sharp_model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    """Random weights, large enough that attention is far from uniform."""
    settings = {"model.init_std": 0.5, "model.n_ctx": corpus.longest}
    return hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer)


@pytest.fixture(scope="module")
def model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    return sharp_model(smoke, corpus)


@pytest.fixture(scope="module")
def gpt2(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TransformerBridge:
    """A GPT-2 of the transformers library with random weights and dropout, in train mode."""
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    settings = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=32,
        n_positions=corpus.longest,
        vocab_size=len(corpus.tokenizer),
        initializer_range=0.5,
        architectures=["GPT2LMHeadModel"],
    )
    torch.manual_seed(0)
    return TransformerBridge.boot_transformers(
        "gpt2", hf_model=GPT2LMHeadModel(settings), tokenizer=load_tokenizer(Path(folder))
    ).train()


@pytest.fixture(scope="module")
def gated(smoke: Config, corpus: Corpus) -> TransformerBridge:
    """A native model that the quick forward pass does not know."""
    settings = bridge_config(
        smoke.with_settings(**{"model.init_std": 0.5}), d_vocab=len(corpus.tokenizer)
    )
    settings.gated_mlp = True
    return boot_native(settings, tokenizer=corpus.tokenizer)


def stock_patterns(model: TransformerBridge, tokens: Tensor) -> list[Tensor]:
    with evaluating(model):
        _, cache = model.run_with_cache(tokens)
    return [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(model.cfg.n_layers)]


def slow_sharpness(row: list[float]) -> float:
    return 1 + sum(p * log(p) for p in row if p > 0) / log(len(row))


def slow_keys(kinds: list[int], sentences: list[int]) -> list[tuple[str, int, list[int]]]:
    """Metric, query and keys of everything in one sequence, by loops over its tokens."""
    found: list[tuple[str, int, list[int]]] = []
    tokens = [t for t, kind in enumerate(kinds) if kind != TokenKind.PADDING]
    for sentence in sorted({s for s in sentences if s >= 0}):
        mine = [t for t in tokens if sentences[t] == sentence]
        query = max((t for t in mine if kinds[t] == NAME), default=0)
        if query > 0:
            same = [t for t in mine if kinds[t] == NAME and 0 < t < query]
            found += [("name_to_name", query, same), ("name_to_first_token", query, [0])]
            found.append(("name_sharpness", query, []))
        query = min((t for t in mine if kinds[t] == VALUE), default=0) - 1
        if query <= 0:
            continue
        keys: dict[str, list[int]] = {name: [] for name in ATTENTION_METRICS if "attribute" in name}
        keys["attribute_to_first_token"] = [0]
        for key in range(1, query + 1):
            here, kind = sentences[key] == sentence, kinds[key]
            if kind == NAME:
                keys["attribute_to_name" if here else "attribute_to_earlier_names"].append(key)
                keys["attribute_to_any_name"].append(key)
            elif kind in (TEXT, TYPE):
                keys["attribute_to_text" if here else "attribute_to_earlier_text"].append(key)
                if kind == TYPE and here:
                    keys["attribute_to_type"].append(key)
            elif kind == VALUE:
                keys["attribute_to_earlier_values"].append(key)
            else:
                keys["attribute_to_punctuation"].append(key)
        found += [(metric, query, chosen) for metric, chosen in keys.items()]
    for query in tokens[1:]:
        if kinds[query] in (TEXT, TYPE):
            found += [("previous_token", query, [query - 1]), ("self_token", query, [query])]
            found.append(("text_to_first_token", query, [0]))
    return found


def slow_rest(
    model: TransformerBridge, batches: list[tuple[Tensor, Spans]]
) -> dict[tuple[int, int, str], tuple[float, float]]:
    """Value and chance of the scores of the rest: sums over queries, without the first token."""
    sums: dict[tuple[int, int, str], list[float]] = {}
    for tokens, spans in batches:
        patterns = [pattern.double().tolist() for pattern in stock_patterns(model, tokens)]
        kinds, sentences = spans.kind.tolist(), spans.sentence.tolist()
        for row in range(len(tokens)):
            for metric, query, keys in slow_keys(kinds[row], sentences[row]):
                chosen = [key for key in keys if key > 0]
                if f"{metric}_of_rest" not in REST_METRICS or not chosen:
                    continue
                for layer, pattern in enumerate(patterns):
                    for head in range(model.cfg.n_heads):
                        attention = pattern[row][head][query][: query + 1]
                        here = sums.setdefault((layer, head, f"{metric}_of_rest"), [0.0] * 4)
                        here[0] += sum(attention[key] for key in chosen)
                        here[1] += sum(attention[1:])
                        here[2] += len(chosen) / (query + 1)
                        here[3] += query / (query + 1)
    return {key: (a / b, c / d) for key, (a, b, c, d) in sums.items()}


def slow_scores(
    model: TransformerBridge, batches: list[tuple[Tensor, Spans]]
) -> dict[tuple[int, int, str], tuple[float, float]]:
    """Value and chance by layer, head and metric."""
    values: dict[tuple[int, int, str], list[tuple[float, float]]] = {}
    for tokens, spans in batches:
        patterns = [pattern.double().tolist() for pattern in stock_patterns(model, tokens)]
        kinds, sentences = spans.kind.tolist(), spans.sentence.tolist()
        for row in range(len(tokens)):
            for metric, query, keys in slow_keys(kinds[row], sentences[row]):
                for layer, pattern in enumerate(patterns):
                    for head in range(model.cfg.n_heads):
                        attention = pattern[row][head][query][: query + 1]
                        if metric.endswith("sharpness"):
                            entry = slow_sharpness(attention), 0.0
                        elif keys:
                            share = sum(attention[key] for key in keys)
                            entry = share, len(keys) / (query + 1)
                        else:
                            continue
                        values.setdefault((layer, head, metric), []).append(entry)
    return {key: tuple(np.mean(found, axis=0)) for key, found in values.items()}


def batches_of(corpus: Corpus, *sizes: int) -> list[tuple[Tensor, Spans]]:
    batches = []
    for draw, size in enumerate(sizes):
        batch = corpus.biographies(np.arange(size), draw=draw)
        batches.append((batch.tokens, Spans.of(batch)))
    return batches


def check(model: TransformerBridge, batches: list[tuple[Tensor, Spans]]) -> None:
    table = attention_scores(model, iter(batches), sink=True)
    metrics = (*ATTENTION_METRICS, *REST_METRICS)
    assert list(table.columns) == ["layer", "head", "metric", "value", "chance"]
    assert len(table) == model.cfg.n_layers * model.cfg.n_heads * len(metrics)
    plain = attention_scores(model, iter(batches), sink=False)
    assert table[table["metric"].isin(ATTENTION_METRICS)].reset_index(drop=True).equals(plain)
    has_sink = REST_METRICS[0] in set(attention_scores(model, iter(batches))["metric"])
    assert has_sink == (not isinstance(model, HookedBridge))
    expected = slow_scores(model, batches) | slow_rest(model, batches)
    for layer, head, metric, value, chance in table.itertuples(index=False):
        if (layer, head, metric) not in expected:
            assert np.isnan(value)
            assert np.isnan(chance)
        else:
            assert (value, chance) == pytest.approx(expected[layer, head, metric], abs=1e-5)
    spread = table.groupby("metric")["value"].agg(lambda column: column.max() - column.min())
    assert (spread.dropna() > 1e-3).all()  # a comparison of different numbers


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_scores_equal_the_slow_reference(
    kind: str, smoke: Config, request: pytest.FixtureRequest
) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    model = sharp_model(smoke, corpus)
    check(model, batches_of(corpus, 3, 2))
    assert attention_scores(model, batches_of(corpus, 2)).notna().all(axis=None)


@pytest.mark.parametrize("kind", ["gpt2", "gated"])
def test_models_from_elsewhere(kind: str, corpus: Corpus, request: pytest.FixtureRequest) -> None:
    model: TransformerBridge = request.getfixturevalue(kind)
    assert not has_fused_forward(model)
    training = [part.training for part in model.modules()]
    assert any(training)
    check(model, batches_of(corpus, 2, 1))
    assert [part.training for part in model.modules()] == training
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_spans_from_lists_are_scored_too(gpt2: TransformerBridge, corpus: Corpus) -> None:
    one = Spans.from_lists(
        10,
        sentences=[(1, 9)],
        names=[(2, 4)],
        values=[(6, 8)],
        types=[(5, 6)],
        punctuation=[(8, 9)],
    )
    two = Spans.from_lists(
        7, sentences=[(4, 7), (0, 3)], names=[(0, 2), (4, 5)], values=[(5, 7), (2, 3)]
    )
    spans = Spans.stack([one, two])
    tokens = torch.arange(20).reshape(2, 10)
    check(gpt2, [(tokens, spans)])
    with pytest.warns(UserWarning, match=r"previous_token.*\(no token.*name_to_name \(no name has"):
        table = attention_scores(gpt2, [(tokens[1:, :7], Spans.stack([two]))], sink=False)
    missing = set(table.loc[table["value"].isna(), "metric"])
    assert missing == {
        "name_to_name",  # one name ends at the second token, one has a single token
        "attribute_to_text",
        "attribute_to_type",
        "attribute_to_earlier_text",
        "previous_token",
        "self_token",
        "text_to_first_token",
    }


TOLD = {"sentences": [(0, 3), (3, 11)], "names": [(0, 2), (4, 6)], "types": [(7, 8)]}
VALUES = {"values": [(2, 3), (9, 11)]}


def test_prompts_that_end_before_the_answer(gpt2: TransformerBridge) -> None:
    tokens = torch.arange(22).reshape(2, 11)
    whole = Texts(tokens, Spans.stack([Spans.from_lists(11, **TOLD, **VALUES)] * 2))
    table = attention_scores(gpt2, whole)
    kind, sentence = whole.spans.kind.clone(), whole.spans.sentence[:, :9]
    first_value = kind[:, 2] == VALUE
    assert first_value.all()
    cut = Texts(tokens[:, :9], Spans(kind[:, :9], sentence))
    read = torch.tensor([8, 8])
    # Up to the answer the texts are the same, and so is what the query before it sees; the first sentence's
    # value stands at position 2, and its query is not asked for.
    found = attention_scores(gpt2, cut, read=read)
    assert found.query("metric == 'attribute_to_earlier_values'")["value"].notna().all()
    with evaluating(gpt2):
        _, cache = gpt2.run_with_cache(cut.tokens)
    for (layer, head, metric), keys in {
        (0, 0, "attribute_to_name"): [4, 5],
        (1, 1, "attribute_to_name"): [4, 5],
        (1, 0, "attribute_to_earlier_names"): [1],
        (1, 0, "attribute_to_type"): [7],
    }.items():
        shares = cache[f"blocks.{layer}.attn.hook_pattern"][:, head, 8, keys].sum(-1)
        of = found.set_index(["layer", "head", "metric"]).loc[[(layer, head, metric)]]
        assert of["value"].item() == pytest.approx(float(shares.mean()), abs=1e-6)
        assert of["chance"].item() == pytest.approx(len(keys) / 9)
    # The same query in the whole texts, whose other value is put out of the way.
    without = whole.spans.kind.clone()
    without[:, 2] = TEXT
    told = Texts(tokens, Spans(without, whole.spans.sentence))
    same = [m for m in ATTENTION_METRICS if m.startswith("attribute")]
    for one, other in ((told, {}), (told, {"read": read})):
        scores = attention_scores(gpt2, one, **other)
        kept = scores["metric"].isin(same)
        again = attention_scores(
            gpt2, Texts(tokens[:, :9], Spans(without[:, :9], sentence)), read=read
        )
        pd.testing.assert_frame_equal(scores[kept], again[kept], rtol=1e-5, atol=1e-7)
    assert not found.equals(table)

    pairs = Pairs.of_tokens(cut.tokens, cut.tokens.flip(0), cut.spans, 8, [1, 2], [2, 1])
    pd.testing.assert_frame_equal(attention_scores(gpt2, pairs), found, rtol=1e-5, atol=1e-7)
    batches = [(cut.tokens[:1], Spans(kind[:1, :9], sentence[:1]), read[:1])]
    batches.append((cut.tokens[1:], Spans(kind[1:, :9], sentence[1:]), read[1:]))
    pd.testing.assert_frame_equal(attention_scores(gpt2, batches), found, rtol=1e-5, atol=1e-7)
    for given, more in ((cut, {"read": read}), (pairs, {})):
        over = attention_to_names({0: gpt2, 5: gpt2}, texts=given, batch_size=1, **more)
        for _, part in over.groupby("step"):
            part = part.drop(columns="step").reset_index(drop=True)
            pd.testing.assert_frame_equal(part, found, rtol=1e-5, atol=1e-7)


def test_what_is_not_read_is_said(gpt2: TransformerBridge) -> None:
    tokens = torch.arange(9)[None]
    told = {"sentences": [(0, 9)], "names": [(1, 3)], "types": [(5, 6)]}
    texts = Texts(tokens, Spans.from_lists(9, **told))
    with pytest.warns(UserWarning, match=r"attribute_to_name.*no text has a value.*give read="):
        table = attention_scores(gpt2, texts)
    with pytest.warns(UserWarning, match="no text has a value"):
        attention_to_names({0: gpt2}, texts=texts)
    missing = table.query("metric.str.startswith('attribute')")
    assert missing["value"].isna().all()
    for read, message in (
        (torch.tensor([9]), "read=9 of text 0.*0 to 8"),
        (torch.tensor([1, 1]), "one position for each of 1 texts"),
    ):
        with pytest.raises(ConfigError, match=message):
            attention_scores(gpt2, texts, read=read)
    with pytest.raises(ConfigError, match=r"not of list.*as a third"):
        attention_scores(gpt2, [(tokens, texts.spans)], read=torch.tensor([8]))


def test_the_rest_of_a_head_that_looks_at_the_first_token(gpt2: TransformerBridge) -> None:
    """All but a little of the attention goes to the first token, and of the rest all to itself."""
    tokens = torch.arange(9)[None]
    told = {"sentences": [(0, 9)], "names": [(1, 3)], "types": [(5, 6)], "values": [(7, 9)]}
    texts = Texts(tokens, Spans.from_lists(9, **told))

    def pattern(value: Tensor, hook: object, left: float) -> Tensor:
        first = torch.zeros(9, 9)
        first[:, 0] = 1
        return (left * torch.eye(9) + (1 - left) * first).expand_as(value)

    for left, role in ((0.1, "positional"), (0.04, "sink")):
        with gpt2.hooks([("blocks.1.attn.hook_pattern", partial(pattern, left=left))]):
            scores = attention_scores(gpt2, texts)
        found = head_roles(scores).query("layer == 1")
        assert (found["role"] == role).all()
        own = scores.query("layer == 1 and metric == 'self_token_of_rest'")["value"]
        np.testing.assert_allclose(own, 1, atol=1e-5)
        plain = head_roles(scores, sink=False).query("layer == 1")
        assert (plain["metric"] == "text_to_first_token").all()


def test_patterns_are_those_of_run_with_cache(model: TransformerBridge, batch: Batch) -> None:
    read: dict[int, Tensor] = {}
    with evaluating(model):
        read_patterns(model, batch.tokens, read.__setitem__)
    for layer, pattern in enumerate(stock_patterns(model, batch.tokens)):
        torch.testing.assert_close(read[layer], pattern, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_keys_partition_what_can_be_attended_to(kind: str, request: pytest.FixtureRequest) -> None:
    batch = request.getfixturevalue(kind).biographies(np.arange(6))
    queries = attribute_queries(Spans.of(batch))
    assert len(queries.row) == 6 * 6
    keys = dict(zip(queries.metrics, queries.keys.unbind(1), strict=True))
    parts = (
        "attribute_to_name",
        "attribute_to_earlier_names",
        "attribute_to_text",
        "attribute_to_earlier_text",
        "attribute_to_earlier_values",
        "attribute_to_first_token",
        "attribute_to_punctuation",
    )
    together = torch.stack([keys[part] for part in parts]).sum(0)
    places = torch.arange(batch.tokens.shape[1])
    torch.testing.assert_close(together, (places <= queries.position[:, None]).long())
    either = keys["attribute_to_name"] | keys["attribute_to_earlier_names"]
    assert (keys["attribute_to_any_name"] == either).all()
    assert not (keys["attribute_to_type"] & ~keys["attribute_to_text"]).any()


def test_a_query_on_a_name_value_or_comma_is_in_the_partition(gpt2: TransformerBridge) -> None:
    before_value = {
        "name": {"names": [(2, 4)]},
        "comma": {"names": [(2, 3)], "punctuation": [(3, 4)]},
        "special": {"names": [(2, 3)], "text": []},
    }
    for marks in before_value.values():
        spans = Spans.from_lists(6, sentences=[(1, 6)], values=[(4, 6)], **marks)  # type: ignore[arg-type]
        queries = attribute_queries(spans)
        assert queries.position.tolist() == [3]
        overlapping = ("attribute_to_any_name", "attribute_to_type")
        whole = [m not in overlapping for m in queries.metrics]
        assert queries.keys[0, whole].sum(0).tolist() == [1, 1, 1, 1, 0, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no text tells the relation, one has no text
            table = averaged(attention_scores(gpt2, [(torch.arange(6)[None], spans)]))
        shares = table.set_index("metric")["value"].fillna(0)
        total = shares[[m for m in queries.metrics if m not in overlapping]].sum()
        assert total == pytest.approx(1, abs=1e-6)


def test_sharpness_of_uniform_and_one_hot_attention() -> None:
    n = torch.tensor([2, 5, 80])
    uniform = torch.zeros(3, 80)
    for row, count in enumerate(n):
        uniform[row, :count] = 1 / count
    torch.testing.assert_close(sharpness(uniform, n), torch.zeros(3), atol=1e-6, rtol=0)
    assert sharpness(torch.eye(80)[:3], n).tolist() == [1, 1, 1]
    half = torch.tensor([[0.5, 0.5, 0, 0]])
    assert sharpness(half, torch.tensor([4])).item() == pytest.approx(0.5)


def test_attention_of_zero_weights_is_chance(smoke: Config, corpus: Corpus) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".q." in name or "q_proj" in name or "attn" in name:
                parameter.zero_()
    table = attention_scores(model, batches_of(corpus, 4))
    np.testing.assert_allclose(table["value"], table["chance"], atol=1e-6)


def test_batches_do_not_matter(model: TransformerBridge, corpus: Corpus) -> None:
    batch = corpus.biographies(np.arange(7))
    tables = [
        attention_scores(model, ((part.tokens, Spans.of(part)) for part in batch.split(size)))
        for size in (1, 3, 7)
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-5, atol=1e-7)


def test_the_spans_of_a_batch(batch: Batch, bpe_corpus: Corpus) -> None:
    for one in (batch, bpe_corpus.biographies(np.arange(4))):
        spans = Spans.of(one)
        rows = torch.arange(len(one))[:, None]
        order = one.sentence[rows, one.name_start].long().argsort(1)
        assert (spans.name_end == one.name_end.gather(1, order)).all()
        assert (spans.value_start == one.value_start.gather(1, order)).all()
        assert (spans.predicts_first == spans.value_start - 1).all()
        expected = torch.zeros_like(one.tokens, dtype=torch.bool)
        for row in range(len(one)):
            for start, length in zip(one.value_start[row], one.value_length[row], strict=True):
                expected[row, start - 1 : start + length - 1] = True
        assert (spans.predicts_value == expected).all()
        queries = name_queries(spans)
        assert (queries.keys[:, 0].sum(1) == one.name_length.gather(1, order).flatten() - 1).all()


def test_over_a_run(short_run: Run) -> None:
    table = attention_to_names(short_run, steps=[12, 0], n_individuals=5, batch_size=2)
    assert list(table.columns) == ["step", "layer", "head", "metric", "value", "chance"]
    assert table["step"].unique().tolist() == [0, 12]
    assert table.notna().all(axis=None)
    batch = split_batch(short_run.corpus, "evaluation", 5)
    alone = attention_scores(short_run.model(12), [(batch.tokens, Spans.of(batch))])
    last = table[table["step"] == 12].drop(columns="step").reset_index(drop=True)
    pd.testing.assert_frame_equal(last, alone, rtol=1e-5, atol=1e-7)
    every = attention_to_names(short_run, n_individuals=2, split="held_out")
    assert every["step"].unique().tolist() == short_run.steps

    layers = by_layer(table)
    assert list(layers.columns) == ["step", "layer", "metric", "value", "chance"]
    chosen = table.query("step == 12 and layer == 1 and metric == 'self_token'")
    found = layers.query("step == 12 and layer == 1 and metric == 'self_token'")
    assert found["value"].item() == pytest.approx(chosen["value"].mean())
    both = averaged(table)
    assert list(both.columns) == ["step", "metric", "value", "chance"]
    assert both["metric"].tolist() == [*ATTENTION_METRICS] * 2
    chosen = table.query("step == 0 and metric == 'name_to_name'")
    assert both["value"][0] == pytest.approx(chosen["value"].mean())


def test_errors_of_scores(
    model: TransformerBridge, batch: Batch, short_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no batch"):
        attention_scores(model, [])
    with pytest.raises(ConfigError, match=r"shape.*both are"):
        attention_scores(model, [(batch.tokens[:, 1:], Spans.of(batch))])
    with pytest.raises(CheckpointError, match="no checkpoint at step 7"):
        attention_to_names(short_run, steps=[0, 7], n_individuals=2)
    with pytest.raises(ConfigError, match="names no checkpoint"):
        attention_to_names(short_run, steps=[], n_individuals=2)
    table = attention_scores(model, [(batch.tokens, Spans.of(batch))])
    with pytest.raises(ConfigError, match="no column 'head'"):
        averaged(by_layer(table))
    monkeypatch.setattr(model.cfg, "attention_dir", "bidirectional")
    with pytest.raises(ConfigError, match="bidirectional"):
        attention_scores(model, [(batch.tokens, Spans.of(batch))])


GOOD = {"sentences": [(1, 6), (6, 10)], "names": [(1, 3), (6, 7)], "values": [(4, 5), (8, 10)]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": [(1, 3), (6, 11)]}, "not a span"),
        ({"types": [(3, 3)]}, "not a span"),
        ({"sentences": [(1, 7), (6, 10)]}, r"overlaps.*token 6"),
        ({"types": [(2, 4)]}, r"\(2, 4\) overlaps.*token 2"),
        ({"sentences": [(1, 2), (2, 6), (6, 10)]}, "one sentence"),
        ({"names": [(0, 3), (6, 7)]}, "one sentence"),
        ({"names": [(1, 2), (2, 3), (6, 7)]}, "has another name"),
        ({"values": [(4, 5), (5, 6)]}, "has another value"),
        ({"names": [(1, 3)]}, r"\(8, 10\).*name before"),
        ({"names": [(5, 6), (6, 7)]}, r"\(5, 6\) follows"),
    ],
)
def test_bad_spans_are_refused(changed: dict[str, list[tuple[int, int]]], message: str) -> None:
    Spans.from_lists(10, **GOOD)
    with pytest.raises(ConfigError, match=message):
        Spans.from_lists(10, **(GOOD | changed))


def test_bad_tensors_are_refused() -> None:
    kind = torch.tensor([[1, 0, 2]], dtype=torch.uint8)
    with pytest.raises(ConfigError, match="on the right"):
        Spans(kind, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="at least one"):
        Spans.stack([])
    with pytest.raises(ConfigError, match="n_tokens=0"):
        Spans.from_lists(0, sentences=[], names=[])


def test_left_over_tokens() -> None:
    spans = Spans.from_lists(10, **GOOD)
    assert spans.kind.tolist() == [[1, 2, 2, 4, 3, 4, 2, 4, 3, 3]]
    assert spans.sentence.tolist() == [[-1, 0, 0, 0, 0, 0, 1, 1, 1, 1]]
    given = Spans.from_lists(11, **GOOD, text=[(3, 4)], punctuation=[(10, 11)])
    assert given.kind.tolist() == [[1, 2, 2, 4, 3, 6, 2, 6, 3, 3, 6]]
