"""What a hook point shows is what its name and the configuration say, or it is refused with the reason."""

from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jaxtyping
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers.models.gpt_oss import modeling_gpt_oss

from interp import series
from interp.attention import (
    ATTENTION_METRICS,
    Spans,
    attention_scores,
    attention_to_names,
    attribute_queries,
    cut_edges,
    knockout_costs,
    name_queries,
)
from interp.biographies import Corpus, Texts, TokenKind, load_tokenizer
from interp.errors import ArgumentError
from interp.interventions import SITES, Grid, Knockout, Pairs, Zero, attribution, patch, path_patch
from interp.maps import record_maps
from interp.maps.texts import MapText
from interp.memory import FactTexts, ablation_costs, cache_activations
from interp.memory.activations import residual_sites
from interp.model import evaluating, read_patterns
from interp.model.layout import attention_window, has_attention_sink, require_wrapped
from tests.unusual_architectures import DENSE_FIRST_LAYER, MIXTURES, boot, original

Boot = Callable[..., TransformerBridge]


@pytest.fixture(scope="module")
def booted(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Boot:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    tokenizer = load_tokenizer(Path(folder))
    return cache(lambda kind, dtype=torch.float32: boot(kind, tokenizer, dtype))


@pytest.fixture(scope="module")
def n_vocab(corpus: Corpus) -> int:
    return len(corpus.tokenizer)


@pytest.fixture(scope="module")
def texts() -> Texts:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 200, (3, 14), generator=generator)
    spans = [
        Spans.from_lists(
            14, sentences=[(1, 7), (7, 14)], names=[(1, 3), (8, 8 + size)],
            values=[(5, 6), (12, 14)], types=[(4, 5)], punctuation=[(6, 7)],
        )
        for size in (2, 3, 1)
    ]  # fmt: skip
    return Texts(tokens, Spans.stack(spans))


@pytest.fixture(scope="module")
def facts(texts: Texts) -> FactTexts:
    place = torch.tensor([[0, 1]]).expand(3, 2)
    row = torch.arange(3)[:, None].expand(3, 2)
    return FactTexts(texts, torch.arange(3), row, place, torch.zeros_like(place))


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, 200, (2, 3, 9), generator=generator)
    spans = Spans.from_lists(9, sentences=[(1, 9)], names=[(1, 4)])
    return Pairs.of_tokens(base, source, Spans.stack([spans] * 3), 8, [5, 6, 7], [10, 11, 12])


def log_probabilities(logits: Tensor, pairs: Pairs) -> list[float]:
    read = logits[torch.arange(len(pairs)), pairs.read].log_softmax(-1)
    found: list[float] = read[torch.arange(len(pairs)), pairs.base_answer].tolist()
    return found


@contextmanager
def hooked(module: nn.Module, before: Callable[..., Any]) -> Any:
    handle = module.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", MIXTURES)
def test_a_mixture_of_experts_shows_no_neurons(
    kind: str, booted: Boot, pairs: Pairs, facts: FactTexts
) -> None:
    model = booted(kind)
    for call in (
        lambda: patch(model, pairs, Grid("post", "name", [1])),
        lambda: patch(model, pairs, Grid("post", "name", [1], neurons="each")),
        lambda: patch(model, pairs, Grid("post", "name", [1], edit="mean")),
        lambda: attribution(model, pairs, Grid("post", "name", [1])),
        lambda: cache_activations(model, [facts]),
    ):
        with pytest.raises(ArgumentError, match="mixture of experts") as error:
            call()
        assert "\n" not in str(error.value)
    kept = cache_activations(model, [facts], layers=[])
    assert kept.residual
    assert not kept.neurons
    written = patch(model, pairs, Grid("mlp_out", "predicts value", [1]), metrics="log_probability")
    assert (written["change"].abs() > 1e-5).any()
    if kind in DENSE_FIRST_LAYER:
        grid = Grid("post", "name", [0], neurons="each", edit="zero")
        table = patch(model, pairs, grid, metrics="log_probability")
        assert sorted(table["neuron"]) == list(range(64))


@pytest.mark.parametrize("kind", ["DeepSeek 2", "DeepSeek 3"])
def test_heads_of_latent_attention(kind: str, booted: Boot, n_vocab: int, pairs: Pairs) -> None:
    model, plain = booted(kind), original(kind, n_vocab)
    for site in ("q", "k", "v"):
        with pytest.raises(ArgumentError, match="latent"):
            patch(model, pairs, Grid(site, "name", [1]))
    expected = {}
    for head in range(4):

        def without(module: nn.Module, args: tuple[Tensor], head: int = head) -> tuple[Tensor]:
            z = args[0].clone().unflatten(-1, (4, 8))
            z[:, 8, head] = 0
            return (z.flatten(-2),)

        with torch.no_grad(), hooked(plain.model.layers[1].self_attn.o_proj, without):
            expected[head] = log_probabilities(plain(pairs.base).logits, pairs)
    sites = ["result"] if kind == "DeepSeek 3" else ["result", "z"]
    for site in sites:
        grid = Grid(site, "predicts value", [1], edit="zero")
        table = patch(model, pairs, grid, metrics="log_probability", per_pair=True)
        for head, cell in table.groupby("head"):
            assert cell["value"].tolist() == pytest.approx(expected[head], abs=1e-5)
            assert (cell["change"].abs() > 1e-4).any()
    if kind == "DeepSeek 3":
        with pytest.raises(ArgumentError, match="8 numbers each where the configuration says 4"):
            patch(model, pairs, Grid("z", "name", [1]))


def test_a_site_of_another_shape_than_the_configuration_promises(
    booted: Boot, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = booted("Llama")
    monkeypatch.setattr(model.cfg, "n_key_value_heads", 4)
    with pytest.raises(ArgumentError, match="by its configuration"):
        patch(model, pairs, Grid("v", "name", [1], heads="all"))


@pytest.mark.parametrize("cut", ["heads", "scores", "edges", "everything"])
def test_a_knockout_leaves_the_sink_its_part(
    cut: str, booted: Boot, n_vocab: int, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference sets scores to -inf before the softmax, which the sink is in."""
    model, plain = booted("GPT-OSS"), original("GPT-OSS", n_vocab)
    assert [has_attention_sink(model, layer) for layer in (0, 1)] == [True, True]
    eager = modeling_gpt_oss.eager_attention_forward
    keys = range(9) if cut == "everything" else range(1, 4)
    heads = [2] if cut in ("heads", "scores") else range(4)

    def without(module: Any, query: Tensor, key: Any, value: Any, mask: Tensor, **more: Any) -> Any:
        mask = mask.expand(-1, query.shape[1], -1, -1).clone()
        if module.layer_idx == 1:
            mask[:, heads, 8, keys[0] : keys[-1] + 1] = -torch.inf
        return eager(module, query, key, value, mask, **more)

    with torch.no_grad():
        intact = log_probabilities(plain(pairs.base).logits, pairs)
        monkeypatch.setattr(modeling_gpt_oss, "eager_attention_forward", without)
        expected = log_probabilities(plain(pairs.base).logits, pairs)
    mask = torch.zeros(3, 9, 9, dtype=torch.bool)
    mask[:, 8, keys[0] : keys[-1] + 1] = True
    if cut == "edges":
        with evaluating(model), cut_edges(model, mask, [1]):
            found = log_probabilities(model(pairs.base), pairs)
    else:
        site = "attn_scores" if cut == "scores" else "pattern"
        grid = Grid(
            site, "predicts value", [1], heads=list(heads), edit=Knockout({"keys": mask[:, 8]})
        )
        table = patch(model, pairs, grid, metrics="log_probability", per_pair=True)
        found = table["value"].tolist()
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(intact, expected, strict=True)) > 1e-3


def test_a_pattern_of_another_prompt_keeps_what_goes_to_the_sink(
    booted: Boot, pairs: Pairs
) -> None:
    model = booted("GPT-OSS")
    patterns: dict[int, Tensor] = {}
    with evaluating(model):
        read_patterns(model, pairs.source, patterns.__setitem__)
    assert patterns[1].sum(-1).min() < 0.9

    def replace(pattern: Tensor, hook: Any) -> Tensor:
        changed = pattern.clone()
        changed[:, 1, 8] = patterns[1][:, 1, 8]
        return changed

    with evaluating(model):
        logits = model.run_with_hooks(
            pairs.base, fwd_hooks=[(SITES["pattern"].hook_name(1), replace)]
        )
    grid = Grid("pattern", "predicts value", [1], heads=[1])
    table = patch(model, pairs, grid, metrics="log_probability", per_pair=True)
    assert table["value"].tolist() == pytest.approx(log_probabilities(logits, pairs), abs=1e-5)


def test_a_pattern_that_is_never_shown_is_refused_everywhere(
    corpus: Corpus, booted: Boot, texts: Texts, pairs: Pairs, tmp_path: Path
) -> None:
    corpus.tokenizer.save_pretrained(tmp_path)
    model = boot("OPT", load_tokenizer(tmp_path))
    model.original_model.set_attn_implementation("sdpa")
    mask = torch.zeros(3, 14, 14, dtype=torch.bool)
    words = tuple(str(token) for token in texts.tokens[0].tolist())
    shown = MapText(0, "text", texts.tokens[0], texts[:1].spans, words, ("",) * 14)
    for call in (
        lambda: attention_scores(model, texts),
        lambda: attention_to_names({0: model}, texts=texts),
        lambda: knockout_costs(model, texts),
        lambda: cut_edges(model, mask).__enter__(),
        lambda: patch(model, pairs, Grid("pattern", "predicts value")),
        lambda: record_maps({0: model}, [shown]),
    ):
        with pytest.raises(ArgumentError, match="never passes"):
            call()


@pytest.mark.parametrize(
    ("kind", "site", "words"),
    [
        ("GPT-1", "resid_post", "never passes"),
        ("post-norm OPT", "resid_mid", "norms the stream after adding"),
        ("Mamba", "resid_mid", "adds to the stream once"),
        ("Mamba", "z", "has no attention"),
        ("Mamba", "post", "has no MLP"),
        ("Jamba", "pattern", "layer 0 has no attention"),
        ("BERT", "resid_pre", "bidirectional"),
        ("BERT", "z", "bidirectional"),
    ],
)
def test_what_an_architecture_does_not_have(
    kind: str, site: str, words: str, booted: Boot, pairs: Pairs
) -> None:
    model = booted(kind)
    for call in (patch, attribution):
        with pytest.raises(ArgumentError, match=words) as error:
            call(model, pairs, Grid(site, "name"))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "words"), [("GPT-1", "never passes"), ("Mamba", "has no MLP"), ("BERT", None)]
)
def test_activations_are_read_or_the_reason_is_named(
    kind: str, words: str | None, booted: Boot, facts: FactTexts
) -> None:
    model = booted(kind)
    if words is None:
        kept = cache_activations(model, [facts])
        assert {site for site, _ in kept.residual} == {"resid_pre", "resid_post"}
        return
    with pytest.raises(ArgumentError, match=words):
        cache_activations(model, [facts])
    sites = [site for site in residual_sites(model) if kind == "Mamba" or site[0] != "resid_post"]
    assert cache_activations(model, [facts], sites=sites, layers=[]).residual


def test_a_model_that_is_not_wrapped(
    n_vocab: int, texts: Texts, pairs: Pairs, facts: FactTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model: Any = original("Llama", n_vocab)
    mask = torch.zeros(3, 14, 14, dtype=torch.bool)
    for call in (
        lambda: patch(model, pairs, Grid("z", "name")),
        lambda: path_patch(model, pairs),
        lambda: attribution(model, pairs, Grid("z", "name")),
        lambda: attention_scores(model, texts),
        lambda: attention_to_names({0: model}, texts=texts),
        lambda: knockout_costs(model, texts),
        lambda: cut_edges(model, mask).__enter__(),
        lambda: cache_activations(model, [facts]),
        lambda: ablation_costs(model, texts),
        lambda: series.as_series({0: model}),
        lambda: series.as_series(model),
    ):
        with pytest.raises(ArgumentError, match=r"LlamaForCausalLM .* wrap it: interp.load_model"):
            call()
    with pytest.raises(ArgumentError, match="str is no TransformerLens model"):
        require_wrapped("gpt2")


def slow_scores(pattern: Tensor, spans: Spans, window: int | None, row: list[Any]) -> None:
    """Adds to `row` every metric's values and chances, query by query."""
    for queries, sharp in (
        (name_queries(spans), "name_sharpness"),
        (attribute_queries(spans), "attribute_sharpness"),
    ):
        for q in range(len(queries.row)):
            text, position = int(queries.row[q]), int(queries.position[q])
            first = 0 if window is None else max(0, position - window + 1)
            n = position + 1 - first
            weights = pattern[text, :, position].double()
            assert weights[:, :first].sum() == 0
            own = weights[:, first : position + 1]
            entropy = -(own * own.clamp(min=1e-45).log()).sum(-1)
            row.append((sharp, 1 - entropy / torch.tensor(n).double().log(), 0.0))
            for metric, keys in zip(queries.metrics, queries.keys[q], strict=True):
                chosen = [k for k in range(first, position + 1) if keys[k]]
                if chosen:
                    row.append((metric, weights[:, chosen].sum(-1), len(chosen) / n))
    words = spans.is_kind(TokenKind.TEXT, TokenKind.TYPE)
    for text, position in words.nonzero().tolist():
        if position == 0:
            continue
        n = position + 1 if window is None else min(position + 1, window)
        keys = {"previous_token": position - 1, "self_token": position, "text_to_first_token": 0}
        for metric, key in keys.items():
            if position - key < n:
                row.append((metric, pattern[text, :, position, key].double(), 1 / n))


@pytest.mark.parametrize(
    ("kind", "windows"),
    [("Mistral", [3, 3]), ("Gemma 3", [4, None]), ("GPT-Neo", [None, 4]), ("Llama", [None, None])],
)
def test_attention_scores_count_what_a_layer_can_attend_to(
    kind: str, windows: list[int | None], booted: Boot, texts: Texts
) -> None:
    model = booted(kind)
    assert [attention_window(model, layer) for layer in (0, 1)] == windows
    patterns: dict[int, Tensor] = {}
    with evaluating(model):
        read_patterns(model, texts.tokens, patterns.__setitem__)
    found = attention_scores(model, texts).set_index(["layer", "head", "metric"])
    for layer, window in enumerate(windows):
        seen = (patterns[layer] > 0).any(0).any(0)
        assert int(seen.sum(-1).max()) == (window or texts.tokens.shape[1])
        rows: list[Any] = []
        slow_scores(patterns[layer], texts.spans, window, rows)
        for metric in ATTENTION_METRICS:
            mine = [(value, chance) for name, value, chance in rows if name == metric]
            for head in range(model.cfg.n_heads):
                cell = found.loc[(layer, head, metric)]
                if not mine:
                    assert cell.isna().all()
                    continue
                values = pd.Series([float(value[head]) for value, _ in mine])
                assert cell["value"] == pytest.approx(values.mean(), abs=1e-6), metric
                chances = pd.Series([chance for _, chance in mine])
                assert cell["chance"] == pytest.approx(chances.mean(), abs=1e-9), metric


def test_a_window_that_is_not_the_configurations_is_refused(
    booted: Boot, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = booted("Mistral")
    monkeypatch.setattr("interp.attention.names.attention_window", lambda *_: 2)
    with pytest.raises(ArgumentError, match="further back"):
        attention_scores(model, texts)


def test_sharpness_beside_a_sink_is_that_of_what_goes_to_tokens(booted: Boot, texts: Texts) -> None:
    model = booted("GPT-OSS")
    patterns: dict[int, Tensor] = {}
    with evaluating(model):
        read_patterns(model, texts.tokens, patterns.__setitem__)
    found = attention_scores(model, texts).set_index(["layer", "head", "metric"])["value"]
    queries = name_queries(texts.spans)
    rows = patterns[1][queries.row, :, queries.position].double()
    tokens_only = rows / rows.sum(-1, keepdim=True)
    n = (queries.position + 1).double()[:, None]
    expected = (1 - torch.special.entr(tokens_only).sum(-1) / n.log()).mean(0)
    for head in range(4):
        assert found[1, head, "name_sharpness"] == pytest.approx(float(expected[head]), abs=1e-6)
        assert 0 <= found[1, head, "name_sharpness"] <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["Llama", "GPT-2", "Gemma 3", "GPT-OSS"])
def test_half_precision(
    kind: str, dtype: torch.dtype, booted: Boot, texts: Texts, pairs: Pairs
) -> None:
    """Close to single precision: 8 bits of bfloat16, 11 of float16, through two layers.

    A mixture may choose another expert where two are nearly as good, which changes more.
    """
    single, half = booted(kind), booted(kind, dtype)
    near = 0.5 if dtype == torch.bfloat16 or kind == "GPT-OSS" else 0.1
    grid = Grid(("resid_pre", "z", "pattern", "mlp_out"), "name", [1], heads="all", edit=Zero())
    cut = Grid("pattern", "predicts value", [1], heads="all", edit=Knockout("name"))
    for chosen in (grid, cut):
        of_single, of_half = (
            patch(model, pairs, chosen, metrics="log_probability") for model in (single, half)
        )
        assert of_half["value"].notna().all()
        assert (of_half["value"] - of_single["value"]).abs().max() < near
    shares = [attention_scores(model, texts)["value"] for model in (single, half)]
    assert (shares[0] - shares[1]).abs().max() < near / 4
    costs = [
        knockout_costs(model, texts, ["attribute_to_name"])["cost"] for model in (single, half)
    ]
    assert costs[1].notna().all()
    assert (costs[0] - costs[1]).abs().max() < near
