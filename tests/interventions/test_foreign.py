"""Models that were not trained here, and texts that are no biographies: given spans are enough."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

import interp
from interp.attention import (
    ATTENTION_METRICS,
    REST_METRICS,
    Spans,
    attention_scores,
    cut_edges,
    edge_mask,
    head_roles,
)
from interp.biographies import Corpus, Texts, load_tokenizer
from interp.errors import ArgumentError, ConfigError
from interp.interventions import (
    LOGIT_DIFFERENCE,
    SITES,
    Add,
    Grid,
    Knockout,
    Pairs,
    patch,
    resolve_positions,
)
from interp.interventions.windowed import can_window
from interp.model import evaluating

KINDS = ("gpt2", "neox", "sequential neox")
STOCK = {
    "resid_pre": patching.get_act_patch_resid_pre,
    "resid_mid": patching.get_act_patch_resid_mid,
    "attn_out": patching.get_act_patch_attn_out,
    "mlp_out": patching.get_act_patch_mlp_out,
    "z": patching.get_act_patch_attn_head_out_by_pos,
    "pattern": patching.get_act_patch_attn_head_pattern_by_pos,
}


@pytest.fixture(scope="module")
def models(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TransformerBridge]:
    """Random weights; in train mode, with dropout."""
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    tokenizer, d_vocab = load_tokenizer(Path(folder)), len(corpus.tokenizer)
    torch.manual_seed(0)
    gpt2 = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=32,
        n_positions=64,
        vocab_size=d_vocab,
        initializer_range=0.3,
        architectures=["GPT2LMHeadModel"],
    )
    assert gpt2.resid_pdrop > 0
    found = {
        "gpt2": TransformerBridge.boot_transformers(
            "gpt2", hf_model=GPT2LMHeadModel(gpt2), tokenizer=tokenizer
        ).train()
    }
    for kind in KINDS[1:]:
        neox = GPTNeoXConfig(
            vocab_size=d_vocab,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.3,
            hidden_dropout=0.1,
            use_parallel_residual=kind == "neox",
            architectures=["GPTNeoXForCausalLM"],
        )
        found[kind] = TransformerBridge.boot_transformers(
            "EleutherAI/pythia-70m", hf_model=GPTNeoXForCausalLM(neox), tokenizer=tokenizer
        ).train()
    return found


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    """Five prompts of two sentences, which end where the answer is asked for; names differ."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(5, len(corpus.tokenizer), (5, 18), generator=generator)
    base[:, 0] = corpus.tokenizer.bos_token_id
    source = base.clone()
    for start, stop in ((1, 4), (10, 13)):
        source[:, start:stop] = torch.randint(5, 60, (5, 3), generator=generator)
    spans = Spans.from_lists(
        18,
        sentences=[(1, 9), (9, 18)],
        names=[(1, 4), (10, 13)],
        values=[(6, 8)],
        types=[(5, 6), (14, 16)],
        punctuation=[(8, 9)],
    )
    return Pairs.of_tokens(
        base, source, Spans.stack([spans] * 5), 17, [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]
    )


def difference(logits: Tensor, pairs: Pairs) -> Tensor:
    rows = torch.arange(len(pairs))
    read = logits[rows, pairs.read]
    return read[rows, pairs.source_answer] - read[rows, pairs.base_answer]


def test_positions_of_a_prompt_that_ends_at_the_question(pairs: Pairs) -> None:
    names = ["first name", "last name", "type word", "earlier last names", "predicts value"]
    places = {
        name: mask.nonzero()[:, 1].unique().tolist()
        for name, mask in resolve_positions(pairs, names).items()
    }
    assert list(places.values()) == [[10], [12], [15], [3], [17]]
    wide = Pairs.of_tokens(
        torch.nn.functional.pad(pairs.base, (0, 2)),
        torch.nn.functional.pad(pairs.source, (0, 2)),
        Spans(
            torch.nn.functional.pad(pairs.spans.kind, (0, 2)),
            torch.nn.functional.pad(pairs.spans.sentence, (0, 2), value=-1),
        ),
        17, 5, 6,
    )  # fmt: skip
    for name, mask in resolve_positions(wide, names).items():
        assert mask.nonzero()[:, 1].unique().tolist() == places[name], "padding changes nothing"


@pytest.mark.parametrize(
    "kind", ["neox", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "neox")]
)
def test_every_site(kind: str, models: dict[str, TransformerBridge], pairs: Pairs) -> None:
    model = models[kind]
    assert not can_window(model)
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
    modes = [part.training for part in model.modules()]
    for site, where in SITES.items():
        if where.hook_name(0) not in model.hook_dict:
            assert (kind, site) == ("neox", "resid_mid"), "parallel layers have no such stream"
            with pytest.raises(ConfigError, match=r"has no hook point .*hook_resid_mid"):
                patch(model, pairs, Grid(site))
            continue
        table = patch(model, pairs, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)
        assert [part.training for part in model.modules()] == modes
        with evaluating(model):
            again = patch(model, pairs, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)
        assert (table["value"] == again["value"]).all(), "dropout takes no part"
        assert (table["value"] - table["unpatched"]).abs().max() > 1e-3
        if site in STOCK:
            with evaluating(model):
                _, cache = model.run_with_cache(pairs.source)
                grid = STOCK[site](
                    model, pairs.base, cache, lambda logits: difference(logits, pairs).mean()
                )
            expected = grid.numpy().transpose(0, 2, 1) if site == "z" else grid.numpy()
            np.testing.assert_allclose(table["value"], expected.reshape(-1), atol=1e-5)
        zero = patch(model, pairs, Grid(site, "last name", edit="zero"), metrics=LOGIT_DIFFERENCE)
        assert (zero["value"] - zero["unpatched"]).abs().max() > 1e-3
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert [part.training for part in model.modules()] == modes


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_stream_of_the_source_gives_its_logits(
    kind: str, models: dict[str, TransformerBridge], pairs: Pairs
) -> None:
    model = models[kind]
    sites = ["resid_pre", "resid_post"] + (["resid_mid"] if kind != "neox" else [])
    with evaluating(model):
        expected = float(difference(model(pairs.source), pairs).mean())
    everywhere = {"all": torch.ones_like(pairs.base, dtype=torch.bool)}
    table = patch(model, pairs, Grid(sites, everywhere), metrics=LOGIT_DIFFERENCE)
    np.testing.assert_allclose(table["value"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_mean_add_and_little_memory(
    kind: str, models: dict[str, TransformerBridge], pairs: Pairs
) -> None:
    model = models[kind]
    steer = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    positions = ("name", "predicts value")
    for grid in (
        Grid("post", positions, neurons={"half": range(32)}),
        Grid(("mlp_out", "z"), positions, edit="mean"),
        Grid(("resid_post", "attn_out"), positions, edit=Add(steer)),
    ):
        plenty, little = (patch(model, pairs, grid, max_memory_gb=limit) for limit in (1, 1e-6))
        np.testing.assert_allclose(plenty["value"], little["value"], atol=1e-5)
        assert (plenty["value"] != plenty["unpatched"]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_attention_measures(kind: str, models: dict[str, TransformerBridge], pairs: Pairs) -> None:
    model = models[kind]
    scores = attention_scores(model, [(pairs.base, pairs.spans)])
    assert set(scores["metric"]) == {*ATTENTION_METRICS, *REST_METRICS}
    assert len(scores) == 2 * 2 * len((*ATTENTION_METRICS, *REST_METRICS))
    assert len(head_roles(scores)) == 4
    with evaluating(model):
        _, cache = model.run_with_cache(pairs.base)
    pattern = cache["blocks.1.attn.hook_pattern"]
    grouping = [pattern[:, 0, 3, 1:3].sum(1), pattern[:, 0, 12, 10:12].sum(1)]
    of_head = scores.query("layer == 1 and head == 0 and metric == 'name_to_name'")
    assert of_head["value"].item() == pytest.approx(float(torch.cat(grouping).mean()), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_edges(kind: str, models: dict[str, TransformerBridge], pairs: Pairs) -> None:
    model = models[kind]
    grid = Grid("pattern", "predicts value", heads="all", edit=Knockout("every name"))
    table = patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE).set_index("layer")
    masks = resolve_positions(pairs, ["predicts value", "every name"])
    mask = masks["predicts value"][:, :, None] & masks["every name"][:, None]
    for layer in (0, 1):
        with evaluating(model), cut_edges(model, mask, [layer]):
            expected = float(difference(model(pairs.base), pairs).mean())
        assert table.loc[layer, "value"] == pytest.approx(expected, abs=1e-5)
        assert abs(expected - table.loc[layer, "unpatched"]) > 1e-3
    told = edge_mask(pairs.spans, "attribute_to_name")
    assert told[0].nonzero().tolist() == [[q, k] for q in (5, 6) for k in (1, 2, 3)]


def test_a_model_whose_logits_are_no_numbers(pairs: Pairs, corpus: Corpus) -> None:
    """Refused by every measure; never a share of 0 or a cost of NaN."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=len(corpus.tokenizer),
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    inner = GPT2LMHeadModel(config)
    model = interp.load_model(inner, tokenizer=corpus.tokenizer)
    with torch.no_grad():
        inner.transformer.h[0].mlp.c_fc.weight.fill_(float("nan"))
    texts = Texts(pairs.base, pairs.spans)
    measures: list[Callable[[], object]] = [
        lambda: patch(model, pairs, Grid("resid_pre", "last name")),
        lambda: interp.attribution(model, pairs, Grid("resid_pre", "last name")),
        lambda: interp.path_patch(model, pairs, "mlp_out"),
        lambda: interp.swaps(model, pairs={"any": pairs}),
        lambda: interp.knockout(model, texts=texts),
        lambda: interp.ablations(model, texts=texts),
        lambda: attention_scores(model, pairs),
    ]
    for measure in measures:
        with pytest.raises(ArgumentError, match=r"no numbers|out of range"):
            measure()


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_not_taken_for_its_original(
    kind: str, models: dict[str, TransformerBridge], pairs: Pairs
) -> None:
    """In a copy, TransformerLens still notes for the original what heads read."""
    model = models[kind]
    model(pairs.base[:1])  # without a graph: only then can it be copied
    grid = Grid("q_input", "last name", heads="each")
    with torch.no_grad():
        model(pairs.base[:1])
        copied = copy.deepcopy(model)
    with pytest.raises(ArgumentError, match=r"is a copy.*load_model\(copy\.deepcopy"):
        patch(copied, pairs, grid, metrics=LOGIT_DIFFERENCE)
    resid = patch(copied, pairs, Grid("resid_pre", "last name"), metrics=LOGIT_DIFFERENCE)
    same = patch(model, pairs, Grid("resid_pre", "last name"), metrics=LOGIT_DIFFERENCE)
    assert (resid["value"] == same["value"]).all()
    anew = interp.load_model(copy.deepcopy(model.original_model), tokenizer=model.tokenizer)
    table = patch(anew, pairs, grid, metrics=LOGIT_DIFFERENCE)
    np.testing.assert_allclose(
        table["value"], patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE)["value"], atol=1e-6
    )
