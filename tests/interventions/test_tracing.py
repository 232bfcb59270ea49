"""Causal tracing against loops of plain hooks on the original models."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from interp.biographies import Corpus, Spans, Texts, TokenKind
from interp.config import Config
from interp.errors import ArgumentError
from interp.interventions import (
    Grid,
    Pairs,
    causal_trace,
    control_positions,
    facts_of,
    layers_around,
    resolve_positions,
    swapped_people,
)
from interp.interventions.windowed import can_window
from tests.interventions.original_models import KINDS, N_LAYERS, Original, original


@pytest.fixture(scope="module")
def originals(
    smoke: Config, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Original]:
    return {
        kind: original(kind, smoke, corpus, tmp_path_factory.mktemp("tokenizer")) for kind in KINDS
    }


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, originals: dict[str, Original]) -> Original:
    return originals[request.param]


@pytest.fixture(scope="module")
def texts(corpus: Corpus) -> Texts:
    """Four texts of different lengths, with names of one, two and three tokens; one tells two facts."""
    spans = [
        Spans.from_lists(12, sentences=[(1, 12)], names=[(1, 4)], values=[(10, 12)], types=[(6, 7)]),
        Spans.from_lists(9, sentences=[(1, 9)], names=[(2, 4)], values=[(8, 9)], types=[(5, 6)]),
        Spans.from_lists(8, sentences=[(1, 8)], names=[(4, 5)], values=[(7, 8)]),
        Spans.from_lists(
            14, sentences=[(1, 7), (7, 14)], names=[(1, 3), (8, 10)], values=[(5, 6), (13, 14)]
        ),
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, len(corpus.tokenizer), (4, 14), generator=generator)
    stacked = Spans.stack(spans)
    tokens[stacked.kind == TokenKind.PADDING] = 0
    return Texts(tokens, stacked)


def test_the_facts_of_texts(texts: Texts) -> None:
    facts = facts_of(texts)
    assert facts.read.tolist() == [9, 7, 6, 4, 12]
    assert torch.equal(facts.base[4], texts.tokens[3])
    answers = [int(texts.tokens[t, p]) for t, p in ((0, 10), (1, 8), (2, 7), (3, 5), (3, 13))]
    assert facts.base_answer.tolist() == answers
    names = resolve_positions(facts, "name")["name"]
    assert names[3].nonzero()[:, 0].tolist() == [1, 2]
    assert names[4].nonzero()[:, 0].tolist() == [8, 9]


def noise_of(mask: Tensor, d_model: int, std: float, seed: int, kind: int, sample: int) -> Tensor:
    """The noise as it is documented: of the seed, the kind of tokens, the sample and the fact."""
    noise = torch.zeros(*mask.shape, d_model)
    for fact in range(len(mask)):
        draw = np.random.default_rng([0x6E6F6973, seed, kind, sample, fact])
        n = int(mask[fact].sum())
        noise[fact, mask[fact]] = torch.tensor(std * draw.standard_normal((n, d_model))).float()
    return noise


def probability(logits: Tensor, facts: Pairs) -> np.ndarray:
    rows = torch.arange(len(facts))
    chosen = logits[rows, facts.read].softmax(-1)[rows, facts.base_answer]
    return chosen.double().numpy()


POSITIONS = ("last name", "type words", "predicts value")


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "window"),
    [
        ("ours", 1),
        pytest.param("ours", 3, marks=pytest.mark.slow),
        ("GPT-2", 1),
        pytest.param("Llama", 3, marks=pytest.mark.slow),
    ],
)
def test_equal_to_a_loop_of_plain_hooks(
    kind: str, originals: dict[str, Original], texts: Texts, window: int
) -> None:
    model = originals[kind]
    sites = ("resid_post",) if window == 1 else ("attn_out", "mlp_out")
    samples, seed = 2, 5
    facts = facts_of(texts)
    assert can_window(model.bridge) == (model.kind == "ours")
    subject = resolve_positions(facts, "name")["name"]
    masks = {"subject": subject, "control": control_positions(facts, subject, seed)}
    embedded: list[Tensor] = []
    kept: dict[Any, Tensor] = {}

    def keep(value: Tensor, key: Any) -> None:
        kept[key] = value.clone()

    keys = [(site, layer) for site in sites for layer in range(N_LAYERS)]
    reading = {key: partial(keep, key=key) for key in keys}
    reading["hook_embed", 0] = lambda value: embedded.append(value[subject].double())
    with model.writing(reading):
        clean = probability(model.logits(facts.base), facts)
    std = 3 * float(embedded[0].std())
    d_model = model.bridge.cfg.d_model
    rows = []
    for number, (noised, mask) in enumerate(masks.items()):
        noises = [noise_of(mask, d_model, std, seed, number, s) for s in range(samples)]
        adding = [{("hook_embed", 0): lambda value, n=n: value + n} for n in noises]
        corrupted = []
        for add in adding:
            with model.writing(add):
                corrupted.append(probability(model.logits(facts.base), facts))
        for site, layer in keys:
            for position, where in resolve_positions(facts, POSITIONS).items():
                restored = []
                for add in adding:
                    put = {
                        (site, i): lambda value, i=i, where=where, site=site: torch.where(
                            where[..., None], kept[site, i], value
                        )
                        for i in layers_around(layer, window, N_LAYERS)
                    }
                    with model.writing(add | put):
                        restored.append(probability(model.logits(facts.base), facts))
                some = where.any(1).numpy()
                c, r = np.stack(corrupted)[:, some], np.stack(restored)[:, some]
                rows.append((
                    site, layer, position, noised, clean[some].mean(), c.mean(), r.mean(),
                    (clean[some] - c.mean(0)).mean(), (r - c).mean(),
                    (r - c).mean(0).std(ddof=1) / some.sum() ** 0.5,
                    (c.mean(0) < clean[some]).mean(), some.sum(),
                ))  # fmt: skip
    columns = [
        "site", "layer", "position", "noised", "clean", "corrupted", "restored", "total_effect",
        "indirect_effect", "standard_error", "fell", "n",
    ]  # fmt: skip
    expected = pd.DataFrame(rows, columns=columns)
    table = causal_trace(
        model.bridge, texts, Grid(sites, POSITIONS, window=window), n_samples=samples, seed=seed
    )
    assert ("window" in table) == (window > 1)
    order = ["noised", "site", "layer", "position"]
    expected, table = (t.sort_values(order, ignore_index=True) for t in (expected, table))
    pd.testing.assert_frame_equal(table[columns], expected, check_dtype=False, rtol=1e-3, atol=2e-6)
    of_subject = table[table["noised"] == "subject"]
    assert of_subject["indirect_effect"].abs().max() > 1e-4, "the noise did not reach the source"
    assert of_subject["total_effect"].abs().max() > 1e-4
    per_fact = causal_trace(
        model.bridge, texts, Grid(sites, POSITIONS, window=window), n_samples=samples, seed=seed,
        per_fact=True, max_memory_gb=1e-6,
    )  # fmt: skip
    means = per_fact.groupby(order)["restored"].mean().reset_index()
    np.testing.assert_allclose(means["restored"], table["restored"], rtol=1e-3, atol=2e-6)
    fact = per_fact[(per_fact["fact"] == 2) & (per_fact["noised"] == "subject")]
    assert set(fact["position"]) == {"last name", "predicts value"}, "this one has no type word"
    assert (fact["standard_error"] >= 0).all()


def test_the_whole_subject_restored_is_the_clean_run(model: Original, texts: Texts) -> None:
    table = causal_trace(model.bridge, texts, Grid("resid_pre", "name", [0]), n_samples=2)
    subject = table[table["noised"] == "subject"]
    np.testing.assert_allclose(subject["restored"], subject["clean"], rtol=1e-3)
    assert set(table["noised"]) == {"subject", "control"}
    alone = causal_trace(
        model.bridge, texts, Grid("resid_pre", "name", [0]), n_samples=2, control=False
    )
    pd.testing.assert_frame_equal(alone, subject, check_like=True)


def test_the_size_of_the_noise(model: Original, texts: Texts) -> None:
    trace = partial(
        causal_trace, model.bridge, texts, Grid("mlp_out", "name", [0]), n_samples=2, control=False
    )
    little = trace(noise=1e-4)
    assert little["total_effect"].abs().max() < 1e-4 < trace()["total_effect"].abs().max()
    table = model.module("hook_embed").weight.detach()
    facts = facts_of(texts)
    std = float(table[facts.base[resolve_positions(facts, "name")["name"]]].double().std())
    given, found = trace(noise_std=2 * std), trace(noise=2)
    pd.testing.assert_frame_equal(given, found, rtol=1e-4, atol=1e-7)


def test_an_answer_that_does_not_fall_is_told(model: Original, texts: Texts) -> None:
    table = causal_trace(
        model.bridge, texts, Grid("mlp_out", "name", [0]), n_samples=2, per_fact=True
    )
    for row in table.itertuples():
        assert row.fell == (row.corrupted < row.clean)
    assert set(table["fell"]) == {True, False}, "random models: not every answer falls"
    mean = causal_trace(model.bridge, texts, Grid("mlp_out", "name", [0]), n_samples=2)
    share = table[table["noised"] == "subject"]["fell"].mean()
    assert mean["fell"][0] == pytest.approx(share)


def test_the_model_is_left_as_it_was(model: Original, texts: Texts) -> None:
    bridge = model.bridge
    before = bridge(texts.tokens)
    bridge.train()
    causal_trace(bridge, texts, Grid("z", "name", [1], heads="all"), n_samples=1, control=False)
    assert bridge.training
    assert torch.equal(bridge.eval()(texts.tokens), before)
    with bridge.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda v, hook: v * 0)]):
        hooked = causal_trace(bridge, texts, Grid("mlp_out", "name", [0]), n_samples=1)
    assert (hooked["indirect_effect"] == 0).all(), "hooks of others take effect in every run"


def test_pairs_and_biographies(model: Original, corpus: Corpus) -> None:
    pairs = swapped_people(corpus, n=3)
    pairs = pairs[pairs.read < 60]
    grid = Grid("mlp_out", "last name", [1])
    if pairs.base.shape[1] > 64:
        width = int(pairs.read.max()) + 1
        pairs = Pairs.of_tokens(
            pairs.base[:, :width], pairs.base[:, :width],
            Spans(pairs.spans.kind[:, :width], pairs.spans.sentence[:, :width]),
            pairs.read, pairs.base_answer, pairs.base_answer,
        )  # fmt: skip
    table = causal_trace(model.bridge, pairs, grid, subject="every name", n_samples=1)
    assert table["n"].tolist() == [len(pairs)] * 2
    assert (table["total_effect"] != 0).all()


def test_errors(model: Original, texts: Texts, corpus: Corpus) -> None:
    trace = partial(causal_trace, model.bridge)
    silent = Texts(texts.tokens, Spans(texts.spans.kind.clone(), texts.spans.sentence))
    silent.spans.kind[1, 8] = int(TokenKind.TEXT)
    with pytest.raises(ArgumentError, match="Text 1 has no value"):
        trace(silent)
    nameless = Texts(texts.tokens, Spans(texts.spans.kind.clone(), texts.spans.sentence))
    nameless.spans.kind[2, 4] = int(TokenKind.TEXT)
    with pytest.raises(ArgumentError, match="text 2 has no subject"):
        trace(nameless)
    with pytest.raises(ArgumentError, match="Fact 1 has no subject"):
        trace(texts, subject="middle name")
    with pytest.raises(ArgumentError, match="restores states"):
        trace(texts, Grid("z", edit="zero"))
    for wrong in ({"noise": 0}, {"noise_std": float("inf")}, {"n_samples": 0}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            trace(texts, **wrong)
    with pytest.raises(ArgumentError, match="unlike tokens"):
        trace(texts, Grid("resid_pre", "each"))
