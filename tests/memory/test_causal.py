"""Swaps between people and mean-ablated MLPs."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.attention import Spans, cut_edges
from interp.biographies import ATTRIBUTES, Batch, Corpus, TokenKind, control_mask, position_masks
from interp.config import Config
from interp.errors import CheckpointError, ConfigError
from interp.interventions import LOGIT_DIFFERENCE, Grid, patch, resolve_positions, swapped_people
from interp.interventions.sites import is_hooked
from interp.knowledge import value_table
from interp.memory import (
    ABLATION_POSITIONS,
    RECALL_EDGES,
    SWAP_COLUMNS,
    SWAP_POSITIONS,
    ablation_costs,
    ablations,
    edge_costs,
    recall_edges,
    swap_success,
    swaps,
    whole_effect,
)
from interp.model import hooked_transformer
from interp.run import Run


@pytest.fixture(scope="module")
def model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    """Random weights, large enough that positions matter."""
    return hooked_transformer(smoke.with_settings(**{"model.init_std": 0.5}), corpus.tokenizer)


def test_swapping_the_whole_input_is_followed(model: TransformerBridge, corpus: Corpus) -> None:
    """At the position that is read, after the last layer, everything that is read is swapped."""
    pairs = swapped_people(corpus, 24, place="first")
    table = swap_success(model, pairs, ("resid_pre", "resid_post"))
    last = table[(table["layer"] == 1) & (table["site"] == "resid_post")].set_index("position")
    logits = model(pairs.source)[torch.arange(24), pairs.source_read]
    own = (logits.argmax(1) == pairs.source_answer).float().mean()
    assert last.loc["predicts value", "follows"] == pytest.approx(float(own))
    assert last.loc["last name", "follows"] == last["control"].iloc[0]
    assert set(table["position"]) == set(SWAP_POSITIONS)
    assert not is_hooked(model)


def test_swaps_of_a_run(smoke_run: Run) -> None:
    table = swaps(smoke_run, steps=[0, 40], n=6, sites=("mlp_out",))
    assert table["step"].unique().tolist() == [0, 40]
    assert table["sentences"].unique().tolist() == ["first", "any"]
    # 2 steps, 2 contexts, 2 layers, all positions
    assert len(table) == 2 * 2 * 2 * len(SWAP_POSITIONS)
    assert table[["follows", "kept", "unpatched", "control"]].stack().between(0, 1).all()
    assert list(table.columns) == ["step", "sentences", *SWAP_COLUMNS]
    again = swaps(smoke_run, steps=[0, 40], n=6, sites=("mlp_out",))
    assert table.equals(again)


def test_in_the_first_sentence_there_is_one_name(smoke_run: Run) -> None:
    table = swaps(smoke_run, steps=[40], n=12, sites=("resid_pre",))
    first = table[table["sentences"] == "first"].set_index(["layer", "position"])
    for layer in (0, 1):
        one, every = (first.loc[(layer, p)] for p in ("name", "every name"))
        assert one["follows"] == every["follows"]
        assert one["kept"] == every["kept"]


def slow_mask(batch: Batch, row: int, position: str) -> list[bool]:
    kinds, sentences = batch.kind[row].tolist(), batch.sentence[row].tolist()
    found = []
    for place, kind in enumerate(kinds):
        before = place > 0 and kinds[place - 1] == TokenKind.NAME
        after = place + 1 < len(kinds) and kinds[place + 1] == TokenKind.NAME
        after_value = (
            place + 1 < len(kinds)
            and kinds[place + 1] == TokenKind.VALUE
            and sentences[place + 1] >= 0
        )
        name = kind == TokenKind.NAME
        found.append(
            {
                "name": name,
                "first name": name and not before,
                "middle name": name and before and after,
                "last name": name and not after,
                "predicts value": after_value,
            }[position]
        )
    return found


@pytest.mark.parametrize("position", [p for p in ABLATION_POSITIONS if p != "control"])
def test_masks_against_a_loop_over_tokens(batch: Batch, position: str) -> None:
    mask = position_masks(Spans.of(batch), position)[position]
    for row in range(len(batch)):
        assert mask[row].tolist() == slow_mask(batch, row, position)


def test_the_control_holds_as_many_tokens_and_none_that_matter(batch: Batch) -> None:
    spans = Spans.of(batch)
    names = position_masks(spans, "name")["name"]
    control = control_mask(spans, names)
    kinds = (TokenKind.TEXT, TokenKind.PUNCTUATION)
    assert (control & ~spans.is_kind(*kinds)).sum() == 0
    assert (control & spans.predicts_value).sum() == 0
    assert (control.sum(1) == names.sum(1)).all()


def test_costs_against_plain_hooks(model: TransformerBridge, batch: Batch) -> None:
    """One cell by hand: the mean over name tokens, put there by a hook, batch by batch."""
    found = ablation_costs(model, batch, batch_size=4).set_index(["layer", "position"])
    mask = position_masks(Spans.of(batch), "name")["name"]
    _, cache = model.run_with_cache(batch.tokens)
    mean = cache["blocks.0.hook_mlp_out"][mask].mean(0)

    def replace(activation: Tensor, hook: object) -> Tensor:
        return torch.where(mask[..., None], mean, activation)

    intact = value_table(model, batch)[0].mean()
    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", replace)]):
        ablated = value_table(model, batch)[0].mean()
    row = found.loc[(0, "name")]
    assert row["intact"] == pytest.approx(intact, abs=1e-4)
    assert row["loss"] == pytest.approx(ablated, abs=1e-4)
    assert row["cost"] == pytest.approx(row["loss"] - row["intact"])
    assert abs(row["cost"]) > 1e-3
    assert len(found) == 3 * len(ABLATION_POSITIONS)
    assert len(ATTRIBUTES) == 6
    assert not is_hooked(model)


def test_an_output_that_is_the_same_everywhere_costs_nothing(
    smoke: Config, corpus: Corpus, batch: Batch
) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.out.weight.zero_()
    assert ablation_costs(model, batch)["cost"].abs().max() == 0


def test_the_model_is_left_in_its_mode(model: TransformerBridge, batch: Batch) -> None:
    model.train()
    ablation_costs(model, batch, ["name"])
    assert model.training
    model.eval()


def test_ablations_of_a_run(smoke_run: Run) -> None:
    table = ablations(smoke_run, steps=[0, 40], n_individuals=8)
    assert table["step"].unique().tolist() == [0, 40]
    assert np.isfinite(table[["loss", "intact", "cost"]].to_numpy()).all()


def test_bad_input(smoke_run: Run, batch: Batch, model: TransformerBridge) -> None:
    with pytest.raises(ConfigError, match=r"'nmae'.*Did you mean"):
        ablation_costs(model, batch, ["nmae"])
    with pytest.raises(CheckpointError, match="3"):
        swaps(smoke_run, steps=[3])
    with pytest.raises(ConfigError, match="names no checkpoint"):
        ablations(smoke_run, steps=[])


def test_edges_against_cut_edges(model: TransformerBridge, corpus: Corpus) -> None:
    """One edge by hand, as an attention knockout of the same queries and keys."""
    pairs = swapped_people(corpus, 8)
    found = edge_costs(model, pairs).set_index(["layer", "query", "key"])
    masks = resolve_positions(pairs, ["predicts value", "every middle name"])
    mask = masks["predicts value"][:, :, None] & masks["every middle name"][:, None, :]
    rows = torch.arange(8)

    def log_probability() -> Tensor:
        with torch.no_grad():
            logits = model(pairs.base)[rows, pairs.read].log_softmax(1)
        return logits[rows, pairs.base_answer].mean()

    intact = log_probability()
    with cut_edges(model, mask, layers=[1]):
        cut = log_probability()
    cost = found.loc[(1, "predicts value", "every middle name"), "cost"]
    assert cost == pytest.approx(float(intact - cut), abs=1e-5)
    assert abs(cost) > 1e-3
    # In the last layer nobody reads what name tokens gather.
    assert (found.loc[1].loc[["every middle name", "every last name"], "cost"] == 0).all()
    assert len(found) == 2 * len(RECALL_EDGES)


def test_edges_of_a_run(smoke_run: Run) -> None:
    table = recall_edges(smoke_run, steps=[0, 40], n=6)
    assert table["step"].unique().tolist() == [0, 40]
    assert np.isfinite(table[["cost", "kept", "control"]].to_numpy()).all()


def test_shares_are_of_what_all_names_do(model: TransformerBridge, corpus: Corpus) -> None:
    pairs = swapped_people(corpus, 24, seed=4)  # of these the effect is beyond its error
    table = swap_success(model, pairs, ("resid_pre", "mlp_out")).set_index(
        ["site", "layer", "position"]
    )
    own = patch(model, pairs, Grid("resid_pre", "every name", [0]), metrics=LOGIT_DIFFERENCE)
    whole = float((own["value"] - own["unpatched"])[0])
    assert whole_effect(model, pairs, LOGIT_DIFFERENCE) == pytest.approx(whole, abs=1e-6)
    assert table.loc[("resid_pre", 0, "every name"), "share"] == pytest.approx(1, abs=1e-5)
    assert table["share"].to_numpy() == pytest.approx(table["effect"].to_numpy() / whole, rel=1e-5)
    changes = patch(
        model, pairs, Grid("resid_pre", "every name", [0]), metrics=LOGIT_DIFFERENCE, per_pair=True
    )
    change = changes["value"] - changes["unpatched"]
    assert abs(change.mean()) > 2 * change.std() / np.sqrt(len(change))


def test_an_effect_within_its_error_is_none(smoke: Config, corpus: Corpus) -> None:
    """Of a model that ignores what it reads."""
    model = hooked_transformer(smoke, corpus.tokenizer)
    with torch.no_grad():
        model.embed.weight.zero_()
    pairs = swapped_people(corpus, 12)
    assert np.isnan(whole_effect(model, pairs, LOGIT_DIFFERENCE))
    assert swap_success(model, pairs, ("mlp_out",))["share"].isna().all()
