"""Results of interventions as arrays, against TransformerLens' own and against the table."""

import io
import sys
from types import ModuleType, SimpleNamespace

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from interp import hooked_transformer
from interp.attention import attention_scores, knockout_costs
from interp.biographies import Corpus
from interp.config import Config
from interp.errors import ArgumentError
from interp.interventions import (
    LOGIT_DIFFERENCE,
    Grid,
    Pairs,
    as_array,
    as_xarray,
    attribution,
    named_array,
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


SCORES = pd.DataFrame(
    [(step, layer, head, metric, 100 * step + 10 * layer + head + (metric == "b") / 2)
     for metric in ("b", "a") for step in (20, 5) for layer in (2, 0) for head in (1, 0)],
    columns=["step", "layer", "head", "metric", "value"],
)  # fmt: skip


@pytest.mark.parametrize("read_back", [False, True])
def test_any_columns_are_axes(read_back: bool) -> None:
    table = SCORES
    if read_back:
        table = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    array, labels = named_array(table.iloc[:-1], "metric", "step", "layer", "head")
    assert labels == {"metric": ["b", "a"], "step": [5, 20], "layer": [0, 2], "head": [0, 1]}
    assert array.shape == (2, 2, 2, 2)
    assert (array[0, 1, 1, 0], array[1, 0, 0, 1]) == (2020.5, 501)
    assert np.isnan(array[1, 0, 0, 0])
    assert np.isnan(array).sum() == 1
    one, labels = named_array(table, "layer", step=5, metric="a", head=1)
    assert (one.tolist(), labels) == ([501.0, 521.0], {"layer": [0, 2]})


def test_labels_are_whole_numbers_beside_missing_ones() -> None:
    table = pd.DataFrame({"layer": [np.nan, 1.0, 0.0], "edge": "x", "cost": [9.0, 1.0, 2.0]})
    array, labels = named_array(table, "layer", value="cost")
    assert (array.tolist(), labels) == ([2.0, 1.0], {"layer": [0, 1]})
    assert all(type(label) is int for label in labels["layer"])


def test_what_is_no_array() -> None:
    for given, message in {
        (): "axes are",
        ("layer", "layer"): "each once",
        ("layer", "hed"): "no column 'hed'.*Did you mean 'head'",
        ("layer", "head"): "several cells of one layer and head.*by, step and metric",
    }.items():
        with pytest.raises(ArgumentError, match=message):
            named_array(SCORES, *given)
    with pytest.raises(ArgumentError, match="no row with step=7"):
        named_array(SCORES, "layer", step=7)
    with pytest.raises(ArgumentError, match="holds no numbers"):
        named_array(SCORES, "layer", value="metric", step=5, head=0, metric="a")


def test_xarray_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ArgumentError, match=r"needs xarray.*named_array"):
        as_xarray(SCORES, "layer", "head", step=5, metric="a")
    stand_in = ModuleType("xarray")
    stand_in.DataArray = lambda array, **more: SimpleNamespace(array=array, **more)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xarray", stand_in)
    found = as_xarray(SCORES, "layer", "head", step=5, metric="a")
    assert (found.dims, found.coords) == (["layer", "head"], {"layer": [0, 2], "head": [0, 1]})
    assert (found.array.tolist(), found.name) == ([[500, 501], [520, 521]], "value")


def test_heads_are_whole_numbers_in_every_table(
    model: TransformerBridge, pair: Pairs, corpus: Corpus
) -> None:
    """Tables of different measures can be merged on layer and head."""
    people = corpus.biographies(np.arange(3))
    scores = attention_scores(model, people).query("metric == 'name_to_name'")
    patched = patch(model, pair, Grid("z", "last name", heads="each"), metrics=LOGIT_DIFFERENCE)
    costs = knockout_costs(model, people, ("attribute_to_name",))
    every = patch(model, pair, Grid(("z", "resid_pre"), "last name", heads="each"))
    linear = attribution(model, pair, Grid("z", "last name", heads="each"))
    n = model.cfg.n_layers * model.cfg.n_heads
    for table in (patched, costs, linear):
        for name in ("layer", "head"):
            assert pd.api.types.is_integer_dtype(table[name])
        both = scores.merge(table, on=["layer", "head"], validate="one_to_one")
        assert len(both) == n
    assert pd.api.types.is_integer_dtype(every["layer"])
    array, labels = named_array(patched, "layer", "head", value="change")
    assert labels == {"layer": [*range(model.cfg.n_layers)], "head": [*range(model.cfg.n_heads)]}
    np.testing.assert_array_equal(array, as_array(patched, "head", value="change"))
