"""Attribution patching: gradients against exact patches."""

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Corpus
from interp.config import Config
from interp.interventions import (
    LOGIT_DIFFERENCE,
    SITES,
    Add,
    Grid,
    Pairs,
    attribution,
    patch,
    swapped_people,
)
from interp.interventions.attribution import gradients_at
from interp.interventions.sites import is_hooked, shape_at_position
from interp.model import hooked_transformer


@pytest.fixture(scope="module", params=["LN", "RMS"])
def model(request: pytest.FixtureRequest, smoke: Config, corpus: Corpus) -> TransformerBridge:
    settings = {"model.init_std": 0.3, "model.normalization": request.param}
    return hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer).double()


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    return swapped_people(corpus, 6)


@pytest.mark.parametrize("site", [s for s in SITES if s != "pattern"])
def test_small_steps_go_along_the_gradient(
    model: TransformerBridge, pairs: Pairs, site: str
) -> None:
    """To first order the approximation is the result; forth and back, the second order cancels."""
    shape = shape_at_position(model, site, pairs.base.shape[1])
    step = 3e-3 * torch.randn(shape, generator=torch.Generator().manual_seed(3)).double()
    forth, back = (
        attribution(
            model, pairs, Grid(site, ["name", "predicts value"], heads="all", edit=Add(values))
        )
        for values in (step, -step)
    )
    assert len(forth) == 4
    exact = (forth["exact"] - back["exact"]) / 2
    assert exact.abs().max() > 5e-5
    assert ((forth["approximate"] - exact).abs() < 3e-3 * exact.abs().max()).all()
    assert forth["approximate"].tolist() == pytest.approx((-back["approximate"]).tolist())


def test_a_small_change_of_a_pattern(model: TransformerBridge, pairs: Pairs) -> None:
    _, gradients = gradients_at(model, pairs, [("pattern", 1)])
    gradient = gradients["pattern", 1]
    rows = torch.arange(len(pairs))
    at_read = gradient[rows, pairs.read]
    assert (at_read.abs().amax(dim=(1, 2)) > 0).all()
    # In the last layer only the position that is read matters.
    gradient = gradient.clone()
    gradient[rows, pairs.read] = 0
    assert gradient.abs().max() == 0


def test_exact_is_what_patching_gives(model: TransformerBridge, pairs: Pairs) -> None:
    table = attribution(model, pairs, Grid("mlp_out", "every name"))
    exact = patch(model, pairs, Grid("mlp_out", "every name"), metrics=LOGIT_DIFFERENCE)
    assert table["exact"].tolist() == (exact["value"] - exact["unpatched"]).tolist()
    assert table["n"].tolist() == exact["n"].tolist()
    columns = [
        "site",
        "layer",
        "head",
        "neuron",
        "group",
        "position",
        "token",
        "exact",
        "approximate",
        "error",
        "n",
    ]
    assert list(table.columns) == columns


def test_an_identity_patch_has_no_attribution(model: TransformerBridge, pairs: Pairs) -> None:
    same = Pairs.of_tokens(
        pairs.base, pairs.base, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )
    table = attribution(model, same, Grid(("resid_pre", "z"), "each", aligned=True))
    assert (table[["exact", "approximate"]] == 0).all().all()


@pytest.mark.parametrize("how", ["mean", "zero"])
def test_ablations_are_approximated_too(model: TransformerBridge, pairs: Pairs, how: str) -> None:
    """In the last layer's MLP, read at once, only the final norm is not linear."""
    table = attribution(model, pairs, Grid("mlp_out", "predicts value", [1], edit=how))
    assert abs(table["error"][0]) < 0.5 * abs(table["exact"][0])


def test_blocks_of_pairs_change_nothing(model: TransformerBridge, pairs: Pairs) -> None:
    whole = attribution(model, pairs, Grid("z", "name", edit="mean"))
    parts = attribution(model, pairs, Grid("z", "name", edit="mean"), max_memory_gb=1e-6)
    assert parts["approximate"].tolist() == pytest.approx(whole["approximate"].tolist())


def test_the_model_is_left_as_it_was(model: TransformerBridge, pairs: Pairs) -> None:
    model.train()
    attribution(model, pairs, Grid(("resid_pre", "resid_mid", "pattern"), "name"))
    assert model.training
    assert not is_hooked(model)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    model.eval()
