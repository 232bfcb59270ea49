"""Harvests against `run_with_cache`, promoted tokens against forward passes, measures against loops."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot_native
from transformers import GPT2Config, GPT2LMHeadModel

from interp.biographies import ATTRIBUTES, Corpus, load_tokenizer
from interp.config import Config
from interp.errors import ConfigError, NothingToMeasureError
from interp.memory import (
    POSITIONS,
    READINGS,
    VALUE_METRICS,
    CachedActivations,
    FactLabels,
    FirstTokens,
    cache_activations,
    draw_batches,
    neuron_hook,
    output_weights,
    promoted_logits,
    residual_sites,
    top_tokens,
    value_measures,
)
from interp.model import bridge_config, evaluating, hooked_transformer

SHARP = {"model.init_std": 0.3}
N_PEOPLE = 7


def unequal_norms(model: TransformerBridge) -> TransformerBridge:
    """Norms have the weight 1 and the bias 0 before training; here they matter."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "ln" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.5)
    return model


@pytest.fixture(scope="module")
def layer_norm(smoke: Config, corpus: Corpus) -> TransformerBridge:
    return unequal_norms(hooked_transformer(smoke.with_settings(**SHARP), corpus.tokenizer))


@pytest.fixture(scope="module")
def rms_norm(smoke: Config, corpus: Corpus) -> TransformerBridge:
    settings = {**SHARP, "model.normalization": "RMS", "model.positions": "rotary"}
    return unequal_norms(hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer))


@pytest.fixture(scope="module")
def gpt2(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TransformerBridge:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    settings = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=32,
        n_positions=corpus.longest,
        vocab_size=len(corpus.tokenizer),
        initializer_range=0.3,
        architectures=["GPT2LMHeadModel"],
    )
    torch.manual_seed(0)
    model = TransformerBridge.boot_transformers(
        "gpt2", hf_model=GPT2LMHeadModel(settings), tokenizer=load_tokenizer(Path(folder))
    )
    return unequal_norms(model).train()


@pytest.fixture(scope="module")
def gated(smoke: Config, corpus: Corpus) -> TransformerBridge:
    settings = bridge_config(smoke.with_settings(**SHARP), d_vocab=len(corpus.tokenizer))
    settings.gated_mlp = True
    return boot_native(settings, tokenizer=corpus.tokenizer)


MODELS = ("layer_norm", "rms_norm", "gpt2")


@pytest.mark.parametrize("kind", [*MODELS, "gated"])
def test_a_harvest_equals_the_cache(
    kind: str, corpus: Corpus, request: pytest.FixtureRequest
) -> None:
    model: TransformerBridge = request.getfixturevalue(kind)
    batches = draw_batches(corpus, slice(0, N_PEOPLE), "train", [3, 1])
    found = cache_activations(model, batches, batch_size=3)
    assert list(found.residual) == residual_sites(model)
    assert len(found.residual) == 5
    assert found.individuals.tolist() == list(range(N_PEOPLE))
    for draw, batch in enumerate(batches):
        assert torch.equal(found.templates[draw], batch.templates)
        with evaluating(model):
            _, cache = model.run_with_cache(batch.tokens)
        for (site, layer), stream in found.residual.items():
            stock = cache[f"blocks.{layer}.hook_{site}"]
            for position in range(len(POSITIONS)):
                for attribute in range(len(ATTRIBUTES)):
                    for row in range(N_PEOPLE):
                        last = int(batch.name_end[row, attribute])
                        # Names of this corpus have three tokens.
                        places = (last - 1, last, int(batch.value_start[row, attribute]) - 1)
                        where = places[position]
                        torch.testing.assert_close(
                            stream[position, attribute, draw, row],
                            stock[row, where],
                            rtol=1e-4,
                            atol=1e-4,
                        )
        for layer, neurons in found.neurons.items():
            stock = cache[neuron_hook(layer)]
            own = stock[torch.arange(N_PEOPLE)[:, None], batch.value_start - 1].transpose(0, 1)
            torch.testing.assert_close(neurons[-1, :, draw], own, rtol=1e-4, atol=1e-4)


def test_a_harvest_leaves_the_model_and_sees_its_hooks(
    layer_norm: TransformerBridge, corpus: Corpus
) -> None:
    layer_norm.train()
    batches = draw_batches(corpus, slice(0, 3), "evaluation", [0])
    found = cache_activations(layer_norm, batches, sites=[("resid_post", 1)], layers=[1])
    assert list(found.residual) == [("resid_post", 1)]
    assert list(found.neurons) == [1]
    assert layer_norm.training
    assert not any(point.fwd_hooks for point in layer_norm.hook_dict.values())

    def zero(x: Tensor, hook: Any) -> Tensor:
        return torch.zeros_like(x)

    with layer_norm.hooks(fwd_hooks=[(neuron_hook(1), zero)]):
        edited = cache_activations(layer_norm, batches)
    assert not edited.neurons[1].any()
    middle, end = edited.residual["resid_mid", 1], edited.residual["resid_post", 1]
    bias = layer_norm.blocks[1].mlp.b_out.detach()
    torch.testing.assert_close(end, middle + bias, rtol=1e-4, atol=1e-5)
    assert (end - found.residual["resid_post", 1]).abs().max() > 1e-2


def test_errors_of_a_harvest(layer_norm: TransformerBridge, corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="nobody"):
        draw_batches(corpus, np.array([], dtype=int), "train", [0])
    with pytest.raises(ConfigError, match="at least one draw"):
        draw_batches(corpus, slice(0, 2), "train", [])
    batches = [corpus.biographies(slice(0, 2)), corpus.biographies(slice(1, 3))]
    with pytest.raises(ConfigError, match="same people"):
        cache_activations(layer_norm, batches)
    with pytest.raises(ConfigError, match=r"no hook point 'blocks\.7"):
        cache_activations(layer_norm, batches[:1], layers=[7])


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("layer", [0, 1])
def test_direct_promotion_is_a_difference_of_forward_passes(
    kind: str, layer: int, corpus: Corpus, request: pytest.FixtureRequest
) -> None:
    """A neuron's write reaches the logits as promised, the final norm's scale frozen."""
    model: TransformerBridge = request.getfixturevalue(kind)
    tokens = corpus.biographies(slice(0, 2)).tokens
    promoted = promoted_logits(model, layer)
    assert promoted.shape == (model.cfg.d_mlp, len(corpus.tokenizer))
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        kept["scale"] = x.clone()

    def freeze(x: Tensor, hook: Any) -> Tensor:
        return kept["scale"]

    with evaluating(model):
        plain = model.run_with_hooks(tokens, fwd_hooks=[("ln_final.hook_scale", keep)])
        for neuron in (0, 5, 30):

            def write(x: Tensor, hook: Any, neuron: int = neuron) -> Tensor:
                return x + output_weights(model, layer)[neuron]

            hooks = [
                (f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", write),
                ("ln_final.hook_scale", freeze),
            ]
            changed = model.run_with_hooks(tokens, fwd_hooks=hooks)
            added = (changed - plain) * kept["scale"]
            added = added - added.mean(-1, keepdim=True)
            expected = promoted[neuron].expand_as(added)
            torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-3)
            assert added.abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
@pytest.mark.parametrize("kind", MODELS)
def test_promotion_through_attention_is_a_difference_of_forward_passes(
    kind: str, corpus: Corpus, request: pytest.FixtureRequest
) -> None:
    """All heads of the last layer attend to one token alone, which a neuron then writes at."""
    model: TransformerBridge = request.getfixturevalue(kind)
    tokens = corpus.biographies(slice(0, 2)).tokens
    promoted = promoted_logits(model, 0, "attention")
    last, source, reader = model.cfg.n_layers - 1, 4, 9
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        kept[hook.name] = x.clone()

    def freeze(x: Tensor, hook: Any) -> Tensor:
        return kept[hook.name]

    def to_source(pattern: Tensor, hook: Any) -> Tensor:
        only = torch.zeros_like(pattern)
        only[..., source] = 1
        return only

    def no_mlp(x: Tensor, hook: Any) -> Tensor:
        return torch.zeros_like(x)

    always = [
        (f"blocks.{last}.attn.hook_pattern", to_source),
        (f"blocks.{last}.hook_mlp_out", no_mlp),
    ]
    scales = [f"blocks.{last}.ln1.hook_scale", "ln_final.hook_scale"]
    with evaluating(model):
        plain = model.run_with_hooks(tokens, fwd_hooks=[*always, *((s, keep) for s in scales)])
        for neuron in (1, 20):

            def write(x: Tensor, hook: Any, neuron: int = neuron) -> Tensor:
                x = x.clone()
                x[:, source] += output_weights(model, 0)[neuron]
                return x

            hooks = [(f"blocks.{last}.hook_resid_pre", write), *((s, freeze) for s in scales)]
            changed = model.run_with_hooks(tokens, fwd_hooks=[*always, *hooks])
            added = (changed - plain)[:, reader]
            added = added * kept[scales[0]][:, source] * kept[scales[1]][:, reader]
            added = added - added.mean(-1, keepdim=True)
            expected = promoted[neuron].expand_as(added)
            torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-2)
            assert added.abs().max() > 0.5


def test_errors_of_promotion(layer_norm: TransformerBridge, corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'direct'"):
        promoted_logits(layer_norm, 0, "dirct")
    with pytest.raises(ConfigError, match="there is no layer 2"):
        promoted_logits(layer_norm, 2)
    with pytest.raises(ConfigError, match="reads what layer 1"):
        promoted_logits(layer_norm, 1, "attention")
    with pytest.raises(ConfigError, match="k=0"):
        top_tokens(promoted_logits(layer_norm, 0), corpus.tokenizer, k=0)


def test_top_tokens(corpus: Corpus) -> None:
    promoted = torch.zeros(2, len(corpus.tokenizer))
    ids = [corpus.value_tokens("major")[index][0] for index in (0, 3)]
    promoted[1, ids] = torch.tensor([2.0, 5.0])
    table = top_tokens(promoted, corpus.tokenizer, k=2)
    assert list(table.columns) == ["neuron", "rank", "token", "logit"]
    assert table["neuron"].tolist() == [0, 0, 1, 1]
    assert table["rank"].tolist() == [1, 2, 1, 2]
    expected = [corpus.tokenizer.convert_ids_to_tokens(index) for index in reversed(ids)]
    assert table["token"].tolist()[2:] == expected
    assert table["logit"].tolist()[2:] == [5.0, 2.0]


def test_first_tokens(corpus: Corpus, bpe_corpus: Corpus) -> None:
    for one in (corpus, bpe_corpus):
        batch = one.biographies(np.arange(len(one.population)))
        for index, (attribute, first) in enumerate(FirstTokens.of(one).items()):
            assert attribute == ATTRIBUTES[index]
            rows = torch.arange(len(batch))
            told = batch.tokens[rows, batch.value_start[:, index]]
            assert torch.equal(first.tokens[first.of_individual], told)
            every = {token for value in one.value_tokens(attribute) for token in value}
            assert set(first.in_values.tolist()) == every


def fake_harvest(neurons: dict[int, Tensor]) -> CachedActivations:
    n_draws, n_people = neurons[0].shape[2:4]
    templates = torch.arange(n_draws)[:, None, None].expand(-1, n_people, len(ATTRIBUTES))
    return CachedActivations(torch.arange(n_people), templates, {}, neurons)


def slow_rank(logits: Tensor, index: int) -> float:
    return float((logits < logits[index]).sum()) / (len(logits) - 1)


def test_measures_equal_loops(layer_norm: TransformerBridge, corpus: Corpus) -> None:
    torch.manual_seed(1)
    shape = (len(POSITIONS), len(ATTRIBUTES), 2, 24, layer_norm.cfg.d_mlp)
    known = fake_harvest({layer: torch.randn(shape) for layer in (0, 1)})
    table = value_measures(layer_norm, corpus, known)
    columns = ["layer", "position", "path", "metric", "attribute", "value", "control"]
    assert list(table.columns) == columns
    assert len(table) == (2 * len(READINGS) - 2) * len(VALUE_METRICS) * 7
    assert not table.isna().any().any()
    indexed = table.set_index(columns[:5])
    for (layer, position, path), _ in table.groupby(["layer", "position", "path"]):
        assert (position, path) in READINGS
        promoted = promoted_logits(layer_norm, layer, path)
        tops = promoted.topk(10).indices.tolist()
        values = {
            a: {token for value in corpus.value_tokens(a) for token in value} for a in ATTRIBUTES
        }
        values["all"] = set().union(*values.values())
        agreements, of_layer = [], []
        for index, attribute in enumerate(ATTRIBUTES):
            tokens = sorted({value[0] for value in corpus.value_tokens(attribute)})
            people = corpus.population.values[:24, index]
            own = [tokens.index(corpus.value_tokens(attribute)[value][0]) for value in people]
            fired = known.neurons[layer][POSITIONS.index(position), index].mean(dim=0)
            ranks = [
                slow_rank(promoted[neuron, tokens], own[int(fired[:, neuron].argmax())])
                for neuron in range(layer_norm.cfg.d_mlp)
            ]  # 5% of 24 people is one
            agreements.append(np.mean(ranks))
            written = (fired - fired.mean(dim=0)) @ promoted[:, tokens]
            of_layer.append(np.mean([slow_rank(written[i], own[i]) for i in range(24)]))
        expected = {
            "value_share": {
                a: np.mean([token in values[a] for top in tops for token in top]) for a in values
            },
            "agreement": dict(zip(ATTRIBUTES, agreements, strict=True)),
            "layer_agreement": dict(zip(ATTRIBUTES, of_layer, strict=True)),
        }
        for metric in VALUE_METRICS[1:]:
            expected[metric]["all"] = np.mean(list(expected[metric].values()))
        for metric, by_attribute in expected.items():
            for attribute, value in by_attribute.items():
                found = indexed.loc[(layer, position, path, metric, attribute), "value"]
                assert found == pytest.approx(value, abs=1e-6)
    shares = table[table["metric"] == "value_share"].drop(columns="position")
    direct = shares[(shares["path"] == "direct") & (shares["layer"] == 0)]
    assert len(direct.drop_duplicates()) == len(direct) / len(POSITIONS), "of weights alone"
    pd.testing.assert_frame_equal(value_measures(layer_norm, corpus, known), table)


def test_a_perfect_memory_agrees_and_a_shuffled_one_does_not(
    layer_norm: TransformerBridge, corpus: Corpus
) -> None:
    """Neuron i fires for person i alone, and the layer promotes what that person's values are."""
    wanted = torch.zeros(24, len(corpus.tokenizer))
    for first in FirstTokens.of(corpus).values():
        wanted[torch.arange(24), first.tokens[first.of_individual[:24]]] += 1
    weight = layer_norm.ln_final.weight.detach()
    unembed = layer_norm.W_U.detach()
    written = (wanted @ torch.linalg.pinv(unembed)) / weight
    model = hooked_like(layer_norm, 0, written)
    neurons = torch.zeros(len(POSITIONS), len(ATTRIBUTES), 2, 24, model.cfg.d_mlp)
    neurons[..., torch.arange(24), torch.arange(24)] = 1
    table = value_measures(model, corpus, fake_harvest({0: neurons}))
    rows = table[(table["attribute"] == "all") & (table["position"] == "predicts value")]
    layer = rows[rows["metric"] == "layer_agreement"].iloc[0]
    assert layer["value"] > 0.8
    assert abs(layer["control"] - 0.5) < 0.1
    assert layer["value"] - layer["control"] > 0.25
    # The neurons that fire for nobody say nothing of anybody, and are not in the mean.
    single = rows[rows["metric"] == "agreement"].iloc[0]
    assert single["value"] > 0.8
    neurons[..., :24] = 0
    silent = value_measures(model, corpus, fake_harvest({0: neurons}))
    assert silent[silent["metric"] == "agreement"]["value"].isna().all()


def test_values_that_begin_alike_have_no_rank(
    layer_norm: TransformerBridge, corpus: Corpus
) -> None:
    labels = FactLabels.of(corpus)
    name, *others = labels.relations
    own = labels.relations[name]
    one = replace(own, tokens=own.tokens[:1], of_individual=own.of_individual * 0)
    known = fake_harvest({0: torch.randn(len(POSITIONS), 6, 2, 24, layer_norm.cfg.d_mlp)})
    table = value_measures(layer_norm, FactLabels(labels.relations | {name: one}), known)
    ranks = table[table["metric"] == "layer_agreement"].set_index("attribute")
    assert ranks.loc[name, ["value", "control"]].isna().all(axis=None)
    expected = ranks.loc[others].groupby(["position", "path"])["value"].mean()
    found = ranks.loc["all"].groupby(["position", "path"])["value"].mean()
    pd.testing.assert_series_equal(found, expected)
    with pytest.raises(NothingToMeasureError, match="one person"):
        value_measures(layer_norm, corpus, fake_harvest({0: known.neurons[0][:, :, :, :1]}))


def hooked_like(model: TransformerBridge, layer: int, written: Tensor) -> Any:
    """The model's weights, but for some neurons of a layer."""

    class Edited:
        def __getattr__(self, name: str) -> Any:
            if name == "W_out":
                weights = model.W_out.detach().clone()
                weights[layer, : len(written)] = written
                return weights
            return getattr(model, name)

    return Edited()
