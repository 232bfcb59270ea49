"""Results of interventions as arrays, against TransformerLens' own and against the table."""

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from interp import hooked_transformer
from interp.biographies import Corpus
from interp.config import Config
from interp.errors import ArgumentError
from interp.interventions import (
    LOGIT_DIFFERENCE,
    Grid,
    Pairs,
    as_array,
    attribution,
    patch,
    path_patch,
    swapped_people,
)


@pytest.fixture(scope="module")
def model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    made = hooked_transformer(smoke, corpus.tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return made.eval()


@pytest.fixture(scope="module")
def pair(corpus: Corpus) -> Pairs:
    for seed in range(50):  # TransformerLens wants prompts of one length
        pair = swapped_people(corpus, n=1, place="first", seed=seed)
        if pair.base.shape == pair.source.shape:
            return pair
    raise AssertionError("no two people with biographies of one length")


@pytest.fixture(scope="module")
def table(model: TransformerBridge, pair: Pairs) -> pd.DataFrame:
    return patch(model, pair, Grid("resid_pre", "each"), metrics=LOGIT_DIFFERENCE)


def difference(logits: torch.Tensor, pair: Pairs) -> torch.Tensor:
    at = logits[0, int(pair.read[0])]
    return at[int(pair.source_answer[0])] - at[int(pair.base_answer[0])]


def test_layers_by_positions_are_those_of_transformer_lens(
    model: TransformerBridge, pair: Pairs, table: pd.DataFrame
) -> None:
    _, cache = model.run_with_cache(pair.source)
    theirs = patching.get_act_patch_resid_pre(
        model, pair.base, cache, lambda logits: difference(logits, pair)
    )
    ours = as_array(table)
    assert ours.shape == (model.cfg.n_layers, pair.base.shape[1])
    np.testing.assert_array_equal(ours, as_array(table, "token"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    with torch.no_grad():
        before = float(difference(model(pair.base), pair))
    np.testing.assert_allclose(as_array(table, value="change"), theirs - before, atol=1e-5)


def test_numbers_are_places(model: TransformerBridge, pair: Pairs, table: pd.DataFrame) -> None:
    heads = patch(model, pair, Grid("z", "predicts value", [1], heads={"b": [1]}))
    found = as_array(heads, "head", metric=LOGIT_DIFFERENCE)
    assert found.shape == (2, 2)
    assert np.isnan(found).tolist() == [[True, True], [True, False]]
    assert found[1, 1] == heads.loc[heads["metric"] == LOGIT_DIFFERENCE, "value"].item()
    few = as_array(table[table["token"].isin([2, 5])], "token")
    assert np.flatnonzero(~np.isnan(few[0])).tolist() == [2, 5]


def test_other_tables(model: TransformerBridge, pair: Pairs) -> None:
    names = ("predicts value", "last name")
    rows = attribution(model, pair, Grid(("z", "mlp_out"), names))
    by_name = as_array(rows, value="exact", site="mlp_out")
    first = rows[(rows["site"] == "mlp_out") & (rows["position"] == names[0])]
    assert by_name[:, 0].tolist() == first["exact"].tolist()
    assert as_array(rows, "head", value="approximate", site="z", position=names[1]).shape == (2, 2)
    paths = path_patch(model, pair, receivers="q_input", metrics=LOGIT_DIFFERENCE)
    found = as_array(paths, "head", value="change", sender_head=0)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": "layer"}, "layer and position"),
        ({"value": "valeu"}, r"'valeu'.*Did you mean"),
        ({"sites": "z"}, "no column 'sites'"),
        ({"site": "z"}, r"site='z'.*resid_pre"),
        ({"columns": "head"}, "has a head"),
    ],
)
def test_errors(settings: dict, message: str, table: pd.DataFrame) -> None:
    with pytest.raises(ArgumentError, match=message):
        as_array(table, **settings)


def test_several_cells_in_a_place_are_refused(model: TransformerBridge, pair: Pairs) -> None:
    rows = patch(model, pair, Grid(("resid_pre", "mlp_out"), "name"))
    with pytest.raises(ArgumentError, match=r"site=.*metric="):
        as_array(rows)


def test_a_grid_is_gone_through_more_than_once(
    model: TransformerBridge, pair: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In use nobody checks types before the function does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    once = Grid(iter(["z", "mlp_out"]), iter(["name"]), iter([0, 1]), heads=iter([1]))
    whole = Grid(("z", "mlp_out"), ("name",), (0, 1), heads=(1,))
    for _ in range(2):
        pd.testing.assert_frame_equal(patch(model, pair, once), patch(model, pair, whole))
