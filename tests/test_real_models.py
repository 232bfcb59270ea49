"""The measures on real weights, against the original transformers model under plain hooks (make test-slow).

Weights are those of `tests.weights`, found below INTERP_WEIGHTS; without them all of it is skipped. The
original is loaded a second time and never wrapped. It reads one text at a time, without padding, from the
tokenizer's own ids, and is edited at positions counted from the text's end: neither spans nor padding of
ours are in what is expected.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, PreTrainedModel

import interp
from interp.attention import attention_scores, head_roles
from interp.circuits import edge_attribution, faithfulness_curve
from interp.interventions import (
    LOGIT_DIFFERENCE,
    Grid,
    Knockout,
    Pairs,
    attribution,
    causal_trace,
    cut_edges,
    patch,
)
from interp.memory import logit_lens, measure_memory, promoted_logits
from interp.memory.activations import cache_activations
from interp.memory.keys import key_measures
from interp.memory.lens import OWN_DIFFERENCE
from interp.memory.probes import probe_accuracies
from interp.memory.values import promoted_by
from interp.model import AttentionPatch
from tests.architectures import Original
from tests.interventions.test_tracing import noise_of
from tests.weights import real_weights

pytestmark = pytest.mark.slow

CAPITALS = """
    France Paris, Japan Tokyo, Germany Berlin, Italy Rome, Spain Madrid, Peru Lima, Egypt Cairo,
    Russia Moscow, China Beijing, Greece Athens, Poland Warsaw, Canada Ottawa, Cuba Havana, Austria Vienna,
    Portugal Lisbon, Ireland Dublin, Norway Oslo, South_Korea Seoul, Saudi_Arabia Riyadh, Iraq Baghdad,
    Kenya Nairobi, Argentina Buenos_Aires
"""
FACTS = [
    (country.replace("_", " "), "capital", capital.replace("_", " "))
    for country, capital in (pair.split() for pair in CAPITALS.split(","))
]
WORDING = "The [capital] of {subject} is"
LANGUAGES = [
    ("France", "language", "French"), ("Japan", "language", "Japanese"), ("Germany", "language", "German"),
    ("Italy", "language", "Italian"), ("Spain", "language", "Spanish"), ("Russia", "language", "Russian"),
    ("China", "language", "Chinese"), ("Greece", "language", "Greek"),
]  # fmt: skip
WORDINGS = {
    "capital": [
        WORDING, "{subject}, whose [capital] is", "The [capital city] of {subject} is called",
        "The [seat of government] of {subject} is",
    ],
    "language": [
        "In {subject} people [speak]", "The [language] of {subject} is", "{subject}, where people [speak]",
        "The people of {subject} [speak]",
    ],
}  # fmt: skip
LAYERS = {"smollm2": (1, 14, 28), "gemma3": (1, 8, 16)}
"""An early, a middle and a late one; of Gemma none attends to less than these short texts."""
RANKS = {"smollm2": 1, "gemma3": 100_000}
"""Facts are used whose answer has this rank. Of these weights of Gemma, in four bits, all are: four
are known, and equality with the original does not ask for knowledge."""
_KINDS = {"smollm2": "Llama", "gemma3": "Gemma 3"}
PLACES = {"last subject token": -2, "predicts answer": -1}
"""Where positions are in the prompts, from the end: "... of France is"."""


@dataclass(frozen=True)
class Real:
    """One model, wrapped by `interp.load_model`, and as transformers loads it."""

    name: str
    model: TransformerBridge
    original: Original
    facts: interp.Facts
    known: interp.Facts

    @property
    def layers(self) -> tuple[int, ...]:
        return LAYERS[self.name]

    @property
    def n_layers(self) -> int:
        return len(self.original.layers)

    @property
    def n_heads(self) -> int:
        return int(self.original.model.config.num_attention_heads)  # type: ignore[union-attr, arg-type]

    def ids(self, subject: str) -> Tensor:
        """A prompt in the tokenizer's own ids, [1, position]."""
        text = WORDING.replace("[", "").replace("]", "").format(subject=subject)
        return torch.tensor([self.model.tokenizer(text)["input_ids"]])

    def n_subject(self, subject: str) -> int:
        """How many tokens a subject has; Japan has one."""
        return self.ids(subject).shape[1] - self.ids("Japan").shape[1] + 1

    def answer(self, subject: str) -> int:
        """The first token of the capital, by the text with it."""
        (capital,) = (answer for name, _, answer in FACTS if name == subject)
        return int(self.ids(f"{subject} is {capital}")[0, self.ids(subject).shape[1]])


def loaded(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    folder = real_weights(name)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=dtype)
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=list(LAYERS))
def real(request: pytest.FixtureRequest) -> Real:
    name = request.param
    model = interp.load_model(real_weights(name))
    facts = interp.Facts.from_table(FACTS, model.tokenizer, {"capital": WORDING})
    original = Original(_KINDS[name], loaded(name))
    return Real(name, model, original, facts, facts.those_known(model, RANKS[name]))


smollm2 = pytest.mark.parametrize("real", ["smollm2"], indirect=True)


@dataclass(frozen=True)
class Prompts:
    """A pair as the original reads it: ids [1, position] without padding, and both answers."""

    base: Tensor
    source: Tensor
    answer: int
    rival: int

    def counterparts(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """Positions of base and source, both from the start."""
        return [(self.base.shape[1] + at, self.source.shape[1] + at) for at in places]

    def log_probability(self, logits: Tensor) -> float:
        return float(logits[0, -1].log_softmax(-1)[self.answer])

    def difference(self, logits: Tensor) -> Tensor:
        return logits[0, -1, self.rival] - logits[0, -1, self.answer]


def prompts_of(pairs: Pairs) -> list[Prompts]:
    return [
        Prompts(
            pairs.base[i : i + 1, : int(pairs.read[i]) + 1],
            pairs.source[i : i + 1, : int(pairs.source_read[i]) + 1],
            int(pairs.base_answer[i]),
            int(pairs.source_answer[i]),
        )
        for i in range(len(pairs))
    ]


def some_pairs(real: Real, n: int, *, alike: bool = False) -> Pairs:
    """Pairs of known facts, of subjects of unequal length too unless they are to be alike."""
    pairs = real.known.pairs()
    unequal = pairs.read != pairs.source_read
    chosen = (~unequal).nonzero()[:, 0].tolist()[: n if alike else n - 1]
    chosen += [] if alike else unequal.nonzero()[:1, 0].tolist()
    mask = torch.zeros(len(pairs), dtype=torch.bool)
    mask[chosen] = True
    return pairs[mask]


def close(found: Any, expected: Any, tolerance: float = 2e-4) -> None:
    found, expected = (np.asarray(x, dtype=np.float64) for x in (found, expected))
    error = np.abs(found - expected).max()
    assert error <= tolerance * max(1.0, np.abs(expected).max()), error


def test_the_tokens_are_the_tokenizers_own_and_padding_changes_nothing(real: Real) -> None:
    known = real.facts.known(real.model)
    assert (known["rank"] == 1).sum() >= (14 if real.name == "smollm2" else 3)
    probabilities = known["probability"]
    for index, (subject, _, _) in enumerate(FACTS):
        ids = real.ids(subject)
        assert real.facts.prompts.tokens[index, : ids.shape[1]].tolist() == ids[0].tolist()
        assert int(real.facts.read[index]) == ids.shape[1] - 1
        with torch.no_grad():
            logits, wrapped = real.original(ids), real.model(ids)
        assert torch.equal(logits, wrapped)
        expected = float(logits[0, -1].softmax(-1)[real.answer(subject)])
        assert probabilities[index] == pytest.approx(expected, abs=1e-5)


def _units(site: str, value: Tensor, n_heads: int) -> Tensor:
    """An activation as [position, unit, ...]."""
    if site == "pattern":
        return value[0].transpose(0, 1)
    return value[0].view(value.shape[1], n_heads, -1) if site == "z" else value[0, :, :, None]


@pytest.mark.parametrize("site", ["resid_pre", "z", "mlp_out", "post", "pattern"])
def test_patch(real: Real, site: str) -> None:
    """Single heads, a group of neurons, whole sites, at two positions and three layers."""
    original, n_heads = real.original, real.n_heads
    pairs = some_pairs(real, 3, alike=site == "pattern")
    groups: dict[str, list[int] | None] = {"all": None}
    if site in ("z", "pattern"):
        groups = {"first": [0], "last": [n_heads - 1], "two": [1, 2]}
    if site == "post":
        groups = {"a": list(range(0, 900, 3)), "b": [7]}
    given = (
        {"neurons": groups} if site == "post" else {"heads": groups if len(groups) > 1 else "all"}
    )
    grid = Grid(site, list(PLACES), real.layers, **given)
    table = patch(real.model, pairs, grid, metrics="log_probability", per_pair=True)
    found = iter(table.itertuples())
    moved = []
    for layer, units, (place, at) in product(real.layers, groups.values(), PLACES.items()):
        for pair, prompts in enumerate(prompts_of(pairs)):
            (source,) = original.read(prompts.source, (site, layer))
            where = prompts.counterparts([at])

            def replace(value: Tensor) -> Tensor:
                value = value.clone()
                mine, theirs = (_units(site, x, n_heads) for x in (value, source))  # noqa: B023
                chosen = slice(None) if units is None else units  # noqa: B023
                for here, there in where:  # noqa: B023
                    mine[here, chosen] = theirs[there, chosen]
                return value

            with torch.no_grad(), original.at(site, layer, replace):
                expected = prompts.log_probability(original(prompts.base))
            row = next(found)
            assert (row.layer, row.position, row.pair) == (layer, place, pair)
            close(row.value, expected, 5e-4)
            moved.append(abs(row.change))
    assert next(found, None) is None
    assert max(moved) > 0.01


@pytest.mark.parametrize("windows", [1, 3])
def test_knockout_is_attention_with_a_mask(real: Real, windows: int) -> None:
    """From where the answer is predicted to the subject's last token, in single layers and in windows."""
    original, pairs = real.original, some_pairs(real, 3)
    layers = [real.layers[1], real.n_layers - 6]
    edit = Knockout("last subject token")
    grid = Grid("pattern", "predicts answer", layers, heads="all", edit=edit, window=windows)
    table = patch(real.model, pairs, grid, metrics="log_probability", per_pair=True)
    found = iter(table["value"])

    def cut(pattern: Tensor) -> Tensor:
        pattern = pattern.clone()
        pattern[:, :, -1, -2] = 0
        return pattern / pattern.sum(-1, keepdim=True)

    for layer in layers:
        edited = range(layer - windows // 2, layer + windows // 2 + 1)
        for prompts in prompts_of(pairs):
            with torch.no_grad(), original.patterns(dict.fromkeys(edited, cut)):
                close(next(found), prompts.log_probability(original(prompts.base)), 5e-4)
    assert table["change"].abs().max() > 0.01


@torch.no_grad()
def test_an_edge_cut_everywhere_is_a_mask_given_to_transformers(real: Real) -> None:
    for subject in ("France", "South Korea"):
        ids = real.ids(subject)
        n = ids.shape[1]
        edge = torch.zeros(1, n, n, dtype=torch.bool)
        edge[0, -1, -2] = True
        seen = torch.ones(n, n).tril().bool() & ~edge[0]
        mask = torch.zeros(1, 1, n, n).masked_fill(~seen, torch.finfo(torch.float32).min)
        expected = real.original.model(ids, attention_mask=mask).logits
        with cut_edges(real.model, edge):
            close(real.model(ids)[0, -1].log_softmax(-1), expected[0, -1].log_softmax(-1))
        assert (real.original(ids)[0, -1] - expected[0, -1]).abs().max() > 0.1


def test_attention_patch(real: Real) -> None:
    """The attention of the same model with other queries."""
    other = copy.deepcopy(real.original.model)
    plain = Original(_KINDS[real.name], other)
    with torch.no_grad():
        for layer in plain.layers:
            layer.self_attn.q_proj.weight.mul_(0.5)  # type: ignore[union-attr, operator]
            if hasattr(layer.self_attn, "q_norm"):  # undoes it; its weight is what 1 is added to
                layer.self_attn.q_norm.weight.add_(1).mul_(0.5).sub_(1)  # type: ignore[union-attr, operator]
    ids, layers = real.ids("Japan"), range(real.n_layers)
    patterns = plain.read(ids, *[("pattern", layer) for layer in layers])
    reference = interp.load_model(other, tokenizer=real.model.tokenizer)  # type: ignore[arg-type]
    for chosen in (list(layers), [real.layers[1]]):
        given = {layer: lambda _, p=patterns[layer]: p for layer in chosen}
        with torch.no_grad():
            with real.original.patterns(given):
                expected = real.original(ids)
            with AttentionPatch(reference, chosen).on(real.model) as patched:
                close(patched(ids)[0, -1].log_softmax(-1), expected[0, -1].log_softmax(-1), 1e-3)
            assert (expected - real.original(ids)).abs().max() > 0.05


@pytest.mark.parametrize("site", ["resid_pre", "z", "mlp_out"])
def test_attribution_is_a_gradient_by_hand(real: Real, site: str) -> None:
    original, n_heads, pairs = real.original, real.n_heads, some_pairs(real, 2)
    heads: Any = [0, 1] if site == "z" else "all"
    grid = Grid(site, list(PLACES), real.layers, heads=heads)
    table = attribution(real.model, pairs, grid)
    expected = np.zeros((len(real.layers), len(PLACES)))
    for row, layer in enumerate(real.layers):
        for prompts in prompts_of(pairs):
            base, source = (
                original.read(text, (site, layer))[0] for text in (prompts.base, prompts.source)
            )
            zero = torch.zeros_like(base, requires_grad=True)
            with original.at(site, layer, lambda value, zero=zero: value + zero):
                difference = prompts.difference(original(prompts.base))
            (slope,) = torch.autograd.grad(difference, zero)
            for column, at in enumerate(PLACES.values()):
                ((here, there),) = prompts.counterparts([at])
                mine, theirs, slopes = (_units(site, x, n_heads) for x in (base, source, slope))
                change = slopes[here] * (theirs[there] - mine[here])
                chosen = heads if site == "z" else slice(None)
                expected[row, column] += float(change[chosen].sum()) / len(pairs)
    close(table["approximate"].to_numpy().reshape(expected.shape), expected, 1e-3)
    assert np.abs(expected).max() > 0.01


@torch.no_grad()
def test_promoted_logits_are_a_nudge_with_norms_frozen(real: Real) -> None:
    original, ids = real.original, real.ids("Germany")
    last, lengths = real.n_layers - 1, []
    for layer, neuron in product(real.layers, (3, 1200)):
        promoted = promoted_by(real.model, layer, "direct", [neuron])[0]
        (stream,) = original.read(ids, ("resid_post", layer))
        with original.frozen_norms(ids) as scales:
            plain = original(ids)

            def nudge(value: Tensor, neuron: int = neuron) -> Tensor:
                value = value.clone()
                value[0, -1, neuron] += 10.0
                return value

            with original.at("post", layer, nudge):
                (changed,) = original.read(ids, ("resid_post", layer))
            written = changed - stream
            with original.at("resid_post", last, lambda value, w=written: value + w):
                moved = (original(ids) - plain)[0, -1]
        scale = list(scales.values())[-1][0, -1]
        after = getattr(original.layers[layer], "post_feedforward_layernorm", None)
        if after is not None:
            scale = scale * scales[after][0, -1]
        moved = (moved - moved.mean()) * scale / 10
        assert torch.cosine_similarity(moved, promoted, dim=0) > 0.999
        lengths.append(float(moved.norm() / promoted.norm()))
    close(lengths, 1.0, 5e-3)
    whole = promoted_logits(real.model, real.layers[2])
    close(whole[1200], promoted, 1e-5)


def test_a_located_fact_adds_up_to_the_originals_logit_difference(real: Real) -> None:
    answers = {real.answer(subject) for subject, _, _ in FACTS}
    for subject in ("France", "Japan"):
        fact = interp.locate_fact({0: real.model}, real.facts.prompt(subject))
        target = real.answer(subject)
        with torch.no_grad():
            logits = real.original(real.ids(subject))[0, -1].double()
        whole = float(logits[target] - logits[sorted(answers - {target})].mean())
        assert fact.logit_difference == pytest.approx(whole, abs=2e-4 * abs(whole) + 2e-4)
        at = fact.components["at"] == "predicts value"
        close(fact.components.loc[at, "contribution"].sum(), whole)
        of_heads = at & (fact.components["component"] == "heads")
        each = fact.heads.loc[fact.heads["at"] == "predicts value", "contribution"]
        close(each.sum(), fact.components.loc[of_heads, "contribution"].sum())
        assert whole > 1


@torch.no_grad()
def test_attention_scores_are_shares_of_the_originals_attention(real: Real) -> None:
    """Also of prompts that end before the answer; roles set the sink aside."""
    scores = attention_scores(real.model, real.known.texts)
    prompts = attention_scores(real.model, real.known.prompts, read=real.known.read)
    of_pairs = attention_scores(real.model, real.known.pairs())
    sums: dict[str, Tensor] = {}
    n = len(real.known)
    for subject in real.known.subjects:
        attentions = real.original.model(real.ids(subject), output_attentions=True).attentions
        pattern = torch.stack(attentions)[:, 0].double()  # [layer, head, query, key]
        n_subject = real.n_subject(subject)
        of_read = pattern[:, :, -1]
        name = of_read[:, :, -1 - n_subject : -1].sum(-1)
        shares = {
            "attribute_to_name": name, "attribute_to_any_name": name,
            "attribute_to_first_token": of_read[:, :, 0],
            "name_to_first_token": pattern[:, :, -2, 0],
            "rest": of_read[:, :, 1:].sum(-1),
        }  # fmt: skip
        for metric, share in shares.items():
            sums[metric] = sums.get(metric, torch.zeros(())) + share / n
    sums["attribute_to_any_name_of_rest"] = sums["attribute_to_any_name"] / sums.pop("rest")
    for metric, expected in sums.items():
        for table in (scores, prompts):
            found = table[table["metric"] == metric].sort_values(["layer", "head"])["value"]
            close(found.to_numpy(), expected.flatten(), 1e-5)
    values = of_pairs.loc[of_pairs["metric"].str.startswith("attribute"), "value"]
    assert values.notna().any()
    pd.testing.assert_frame_equal(scores, prompts, rtol=1e-5, atol=1e-6)
    with_sink, without = head_roles(scores), head_roles(scores, sink=False)
    positional = (without["role"] == "positional").to_numpy()
    assert positional.mean() > 0.85
    # Measured: 116 sinks of 270 heads in SmolLM2; a quarter of the positional heads of Gemma.
    became_sinks = (with_sink["role"] == "sink").to_numpy()[positional].mean()
    assert became_sinks > (0.35 if real.name == "smollm2" else 0.15)
    assert (with_sink["role"] == "positional").mean() < positional.mean() - 0.15


@smollm2
def test_probes_and_keys_of_eight_subjects_are_finite_in_every_layer(real: Real) -> None:
    """576 dimensions and 8 subjects: some of the probes' systems are singular in single precision."""
    draws = _two_relations(real.model).draws()
    assert len(draws.labels.relations) == 2  # type: ignore[union-attr]
    fitted = cache_activations(real.model, draws.training, layers=[])
    tested = cache_activations(real.model, draws.evaluation)
    probes = probe_accuracies(draws.labels, fitted, tested)
    keys = key_measures(draws.labels, tested)
    assert len(probes) > 300
    assert np.isfinite(probes[["accuracy", "control", "selectivity"]]).all(axis=None)
    assert probes[["accuracy", "control"]].stack().between(0, 1).all()
    assert np.isfinite(_values_of_keys(keys)).all()


@smollm2
def test_measure_memory_on_the_first_layers(real: Real) -> None:
    """Of a model cut off after four layers, as values are looked up in all 49,152 tokens for each layer."""
    first = copy.deepcopy(real.original.model)
    first.model.layers = first.model.layers[:4]  # type: ignore[union-attr, index]
    first.config.num_hidden_layers = 4  # type: ignore[union-attr]
    first.config.layer_types = None  # type: ignore[union-attr]
    model = interp.load_model(first, tokenizer=real.model.tokenizer)  # type: ignore[arg-type]
    tables = measure_memory({0: model}, facts=_two_relations(model).draws())
    assert not tables.not_measured
    assert np.isfinite(_values_of_keys(tables.keys)).all()
    assert np.isfinite(tables.values[["value", "control"]]).all(axis=None)
    assert np.isfinite(tables.probes[["accuracy", "control", "selectivity"]]).all(axis=None)


def _values_of_keys(keys: pd.DataFrame) -> pd.Series:
    """Those that need no namesake: countries have none."""
    metrics = ["selectivity", "sparsity", "similarity_same", "similarity_other"]
    found = keys.loc[keys["metric"].isin(metrics), "value"]
    assert len(found)
    return found


def _two_relations(model: TransformerBridge) -> interp.Facts:
    subjects = [subject for subject, _, _ in LANGUAGES]
    capitals = [fact for fact in FACTS if fact[0] in subjects]
    return interp.Facts.from_table([*capitals, *LANGUAGES], model.tokenizer, WORDINGS)


@torch.no_grad()
def test_causal_trace_equals_plain_hooks(real: Real) -> None:
    original, facts, seed = real.original, real.known.select(range(3)), 5
    grid = Grid(("resid_post", "mlp_out"), list(PLACES), [real.layers[1]])
    table = causal_trace(
        real.model, facts.texts, grid, noise=3, n_samples=2, control=False, per_fact=True, seed=seed
    )
    ids = [real.ids(subject) for subject in facts.subjects]
    embed = original.model.get_input_embeddings()  # type: ignore[operator]
    n_subject = [real.n_subject(subject) for subject in facts.subjects]
    embedded = [embed(x)[0, -1 - n : -1] for x, n in zip(ids, n_subject, strict=True)]
    std = 3 * float(torch.cat(embedded).double().std())
    width = max(x.shape[1] for x in ids)
    mask = torch.zeros(3, width + 8, dtype=torch.bool)
    for row, (x, n) in enumerate(zip(ids, n_subject, strict=True)):
        mask[row, x.shape[1] - 1 - n : x.shape[1] - 1] = True
    noises = [noise_of(mask, embedded[0].shape[-1], std, seed, 0, sample) for sample in range(2)]

    def chance(fact: int, logits: Tensor) -> float:
        return float(logits[0, -1].softmax(-1)[real.answer(facts.subjects[fact])])

    for row in table.itertuples():
        fact, text, at = row.fact, ids[row.fact], PLACES[row.position]
        (state,) = original.read(text, (row.site, row.layer))
        corrupted, restored = [], []
        for noise in noises:
            added = noise[fact, : text.shape[1]]
            handle = embed.register_forward_hook(lambda _, args, out, added=added: out + added)

            def restore(value: Tensor, state: Tensor = state, at: int = at) -> Tensor:
                value = value.clone()
                value[0, at] = state[0, at]
                return value

            corrupted.append(chance(fact, original(text)))
            with original.at(row.site, row.layer, restore):
                restored.append(chance(fact, original(text)))
            handle.remove()
        assert row.clean == pytest.approx(chance(fact, original(text)), abs=1e-5)
        assert row.corrupted == pytest.approx(float(np.mean(corrupted)), abs=2e-5)
        assert row.restored == pytest.approx(float(np.mean(restored)), abs=2e-5)
    assert (table["clean"] - table["corrupted"]).max() > 0.1
    assert (table["restored"] - table["corrupted"]).max() > 0.005


@torch.no_grad()
def test_logit_lens_ends_with_the_originals_logits(real: Real) -> None:
    pairs, original = real.known.pairs(), real.original
    table = logit_lens({0: real.model}, pairs)
    inner = original.model.model
    rows = {"resid_post": real.n_layers, "resid_pre": real.layers[1]}
    expected = {site: np.zeros(3) for site in rows}
    for prompts in prompts_of(pairs):
        states = original.model(prompts.base, output_hidden_states=True)
        for site, number in rows.items():
            stream = inner.norm(states.hidden_states[number])  # type: ignore[union-attr, operator]
            logits = original.model.lm_head(stream)  # type: ignore[operator]
            if site == "resid_post":
                logits = states.logits
            logits = logits[0, -1].double()
            rank = int((logits > logits[prompts.answer]).sum()) + 1
            numbers = [logits.softmax(-1)[prompts.answer], rank]
            difference = -prompts.difference(logits[None, None])
            expected[site] += np.array([*map(float, numbers), float(difference)]) / len(pairs)
    for site, number in rows.items():
        layer = number - 1 if site == "resid_post" else number
        row = table[(table["site"] == site) & (table["layer"] == layer)].iloc[0]
        close(row["probability"], expected[site][0], 1e-5)
        close(row["rank"], expected[site][1], 1e-3)
        close(row[OWN_DIFFERENCE], expected[site][2], 1e-3)


@smollm2
def test_circuits_are_the_source_at_one_end_and_the_base_at_the_other(real: Real) -> None:
    pairs = some_pairs(real, 2, alike=True)
    scores = edge_attribution(real.model, pairs, ig_steps=2)
    n = len(scores)
    curve = faithfulness_curve(real.model, pairs, scores, [0, 2000, n], n_random=1)
    assert np.isfinite(scores["score"]).all()
    means = []
    with torch.no_grad():
        for side in ("base", "source"):
            each = [p.difference(real.original(getattr(p, side))) for p in prompts_of(pairs)]
            means.append(float(torch.stack(each).mean()))
    close(curve["clean"], means[0], 1e-3)
    close(curve["corrupted"], means[1], 1e-3)
    by_size = curve[curve["circuit"] == "scores"].set_index("size")["faithfulness"]
    assert by_size[0] == pytest.approx(0, abs=1e-3)
    assert by_size[n] == pytest.approx(1, abs=1e-3)
    random = curve[curve["circuit"] == "random"].set_index("size")["faithfulness"]
    assert by_size[2000] > random[2000] + 0.2


@smollm2
def test_where_a_capital_is_kept_and_when_it_moves(real: Real) -> None:
    """Another subject's stream: at the subject's last token up to layer 21, where it is read from 24 on."""
    pairs = real.known.pairs()
    grid = Grid("resid_pre", list(PLACES), [6, 14, 18, 21, 24, 25, 28])
    table = patch(real.model, pairs, grid, metrics="follows")
    subject, read = (
        table[table["position"] == place].set_index("layer")["value"] for place in PLACES
    )
    assert (subject.loc[:21] >= 0.6).all()
    assert (read.loc[:21] <= 0.1).all()
    assert (read.loc[24:] >= 0.6).all()
    assert (subject.loc[24:] <= 0.2).all()


@smollm2
def test_the_head_that_moves_a_capital(real: Real) -> None:
    pairs = real.known.pairs()
    grid = Grid("z", "predicts answer", range(20, 30))
    effects = patch(real.model, pairs, grid, metrics=LOGIT_DIFFERENCE)
    effects = effects.sort_values("change", ascending=False)
    assert effects[["layer", "head"]].iloc[0].tolist() == [23, 4]
    assert effects["change"].iloc[0] > 2 * effects["change"].iloc[1]
    scores = attention_scores(real.model, real.known.texts)
    shares = scores[scores["metric"] == "attribute_to_name"].sort_values("value", ascending=False)
    assert shares[["layer", "head"]].iloc[0].tolist() == [23, 4]
    assert shares["value"].iloc[0] > 0.7


def test_half_precision(real: Real) -> None:
    """bf16 keeps 8 bits: patched logit differences and attention are near those in fp32, not equal."""
    half = interp.load_model(loaded(real.name, torch.bfloat16), tokenizer=real.model.tokenizer)
    assert next(half.parameters()).dtype == torch.bfloat16
    pairs, grid = some_pairs(real, 3), Grid("resid_pre", list(PLACES), real.layers)
    models: dict[str, TransformerBridge] = {"fp32": real.model, "bf16": half}
    run: Callable[..., pd.DataFrame] = partial(
        patch, pairs=pairs, grid=grid, metrics=LOGIT_DIFFERENCE
    )
    tables = {name: run(model) for name, model in models.items()}
    single, rough = (tables[name][["value", "unpatched", "change"]] for name in models)
    worst = float((single - rough).abs().max().max())
    assert 0 < worst < 0.5, worst
    shares = [attention_scores(model, real.known.texts)["value"] for model in models.values()]
    worst = float((shares[0] - shares[1]).abs().max())
    assert 0 < worst < 0.05, worst
    whole = [attention_scores(half, some)["value"] for some in (real.known.texts, pairs)]
    assert all(values.notna().any() for values in whole)
