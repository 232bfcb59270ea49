"""The figures of swaps, ablations and patched cells hold the numbers of their tables."""

import io
from math import sqrt

import numpy as np
import pandas as pd
import pytest

from interp import plots
from interp.errors import InterpError
from interp.interventions import LOGIT_DIFFERENCE
from interp.phases import Phases

PHASES = Phases(50, 100, 5.6, 0.05)
STEPS = [0, 50, 100, 200]
SITES = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
TOLD = [("last name", "first"), ("last name", "any"), ("every name", "any"),
        ("predicts value", "any"), ("predicts value", "first")]  # fmt: skip


def follows(step: int, site: str, layer: int, place: int) -> float:
    return step / 1000 + SITES.index(site) / 10 + layer / 100 + place / 10_000


@pytest.fixture(params=["as made", "read back"])
def stored(request):
    """Tables as they are made, and as they come back from CSV."""
    if request.param == "as made":
        return lambda table: table
    return lambda table: pd.read_csv(io.StringIO(table.to_csv(index=False)))


@pytest.fixture
def swaps(stored) -> pd.DataFrame:
    return stored(pd.DataFrame(
        [
            {"step": step, "site": site, "layer": layer, "position": position,
             "sentences": sentences, "n": 10, "follows": (f := follows(step, site, layer, i)),
             "kept": 1 - f, "control": 0.01}
            for step in STEPS for site in SITES for layer in (0, 1)
            for i, (position, sentences) in enumerate(TOLD)
        ]
    ))  # fmt: skip


@pytest.fixture
def ablations(stored) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"step": step, "layer": layer, "position": position, "loss": 3.0, "intact": 1.0,
             "cost": step / 100 + i + j / 10}
            for step in STEPS for i, layer in enumerate((pd.NA, 0, 1))
            for j, position in enumerate(("control", "name", "predicts value"))
        ]
    )  # fmt: skip
    return stored(table.astype({"layer": "Int64"}))


def cells(sites, positions, head=False) -> pd.DataFrame:
    """A grid whose values tell layer, head and position."""
    table = pd.DataFrame(
        [
            {"site": site, "layer": layer, "head": number, "neuron": pd.NA, "group": pd.NA,
             "position": position, "metric": metric, "unpatched": -2.0, "n": 4,
             "value": layer + p / 100 + (0 if pd.isna(number) else number / 10) - 2.0
             + 7 * (metric == "follows")}
            for site in sites for layer in (0, 1) for number in ((0, 1) if head else (pd.NA,))
            for p, position in enumerate(positions) for metric in (LOGIT_DIFFERENCE, "follows")
        ]
    )  # fmt: skip
    return table.astype({"head": "Int64", "neuron": "Int64", "group": "string"})


def test_each_position_in_the_sentences_that_test_it(swaps):
    shown = plots.swap_rows(swaps)
    pairs = shown[["position", "sentences"]].drop_duplicates()
    assert sorted(pairs.itertuples(index=False, name=None)) == [
        ("every name", "any"), ("last name", "first"), ("predicts value", "any")
    ]  # fmt: skip
    assert set(plots.swap_rows(swaps, "first")["position"]) == {"last name", "predicts value"}
    # A position that was not measured where it should be is shown where it was.
    late = swaps[(swaps["position"] != "last name") | (swaps["sentences"] == "any")]
    assert "last name" in set(plots.swap_rows(late)["position"])
    with pytest.raises(InterpError, match="sentences 'second'"):
        plots.swap_rows(swaps, "second")


def test_swaps_over_training(swaps):
    figure = plots.swap_success(swaps, PHASES)
    titles = [a.text for a in figure.layout.annotations if "<br>" in a.text]
    assert titles[0] == "<b>last name<br>residual stream</b>"
    assert titles[3] == "<b>every name<br>what a block adds</b>"
    line = next(t for t in figure.data if t.name == "output of MLP 1" and t.yaxis == "y4")
    np.testing.assert_allclose(line.x, [sqrt(step) for step in STEPS])
    np.testing.assert_allclose(line.y, [follows(step, "mlp_out", 1, 2) for step in STEPS])
    single = next(t for t in figure.data if t.name == "after attention 0")
    np.testing.assert_allclose(single.y, [follows(step, "resid_mid", 0, 0) for step in STEPS])
    control = next(t for t in figure.data if t.name == "output of MLP 1, control")
    assert (control.line.dash, control.line.color) == ("dot", line.line.color)
    assert "where the name was mentioned once: last name." in plots.caption(figure)


def test_swaps_at_one_step(swaps):
    figure = plots.swap_sites(swaps, step=100)
    stream, added = figure.data
    assert list(stream.y) == ["before layer 0", "after attention 0", "after MLP 0",
                              "after attention 1", "after MLP 1"]  # fmt: skip
    assert list(added.y)[:2] == ["output of attention 0", "output of MLP 0"]
    assert list(added.x) == ["last name", "every name", "predicts value"]
    expected = follows(100, "mlp_out", 1, 3)
    assert added.z[3][2] == pytest.approx(expected - 0.01)
    assert added.text[3][2] == f"<b>{100 * expected:.0f}</b><br>(1)"
    with pytest.raises(InterpError, match="no row of swaps at step 7"):
        plots.swap_sites(swaps, step=7)


def test_positions_that_were_not_swapped_stay_empty(swaps):
    less = swaps[(swaps["position"] != "every name") | (swaps["site"] != "mlp_out")]
    added = plots.swap_sites(less).data[1]
    assert added.text[1][1] == ""
    assert np.isnan(added.z[1][1])


def test_ablations_of_all_and_of_each(ablations):
    figure = plots.mlp_ablation(ablations, PHASES)
    names = [t for t in figure.data if t.name == "at names"]
    assert [t.yaxis for t in names] == ["y", "y2", "y3"]
    np.testing.assert_allclose(names[0].y, [0.1, 0.6, 1.1, 2.1])
    np.testing.assert_allclose(names[2].y, [2.1, 2.6, 3.1, 4.1])
    control = next(t for t in figure.data if t.name == "control")
    assert (control.line.dash, control.line.color) == ("dot", plots.PALETTE["grey"])
    assert figure.layout.yaxis.title.text == "all MLPs<br>cost (nats)"
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.mlp_ablation(ablations.drop(columns="cost"), PHASES)


def test_patched_cells_against_the_unpatched_model(stored):
    table = stored(cells(["resid_pre", "mlp_out"], ["last name", "type word"]))
    figure = plots.patch_heatmap(table)
    first, second = figure.data
    assert (first.yaxis, second.yaxis) == ("y", "y2")
    assert (list(second.y), list(second.x)) == (["0", "1"], ["last name", "type word"])
    np.testing.assert_allclose(second.z, [[0, 0.01], [1, 1.01]], atol=1e-12)
    scale = figure.layout.coloraxis
    assert scale.cmin == -scale.cmax == pytest.approx(-1.01)
    assert scale.colorbar.title.text == "logits"
    assert figure.layout.yaxis.autorange is True, "layers go upward"
    assert "Change of the logit difference" in plots.caption(figure)
    following = plots.patch_heatmap(table, "follows")
    np.testing.assert_allclose(following.data[0].z, [[7, 7.01], [8, 8.01]])
    bare = plots.patch_heatmap(table.drop(columns="unpatched"))
    np.testing.assert_allclose(bare.data[0].z, [[-2, -1.99], [-1, -0.99]])


def test_patched_heads_and_neurons(stored):
    heads = stored(cells(["z"], ["last name", "type word"], head=True))
    grid = plots.patch_heatmap(heads).data[0]
    assert list(grid.y) == ["0.0", "0.1", "1.0", "1.1"]
    np.testing.assert_allclose(np.array(grid.z)[3], [1.1, 1.11])
    groups = heads.assign(site="post", group=heads["head"].map({0: "low", 1: "high"}), head=pd.NA)
    single = heads.assign(site="post", neuron=heads["head"], head=pd.NA)
    of_a_run = single.rename(columns={"neuron": "neurons"}).drop(columns="group")
    for table, labels in ((groups, ("low", "high")), (single, "01"), (of_a_run, "01")):
        figure = plots.patch_heatmap(table)
        expected = [f"{layer} · {label}" for layer in (0, 1) for label in labels]
        assert list(figure.data[0].y) == expected
        assert figure.layout.yaxis.title.text == "layer · neurons"
    both = heads.assign(group="both", head=pd.NA).drop_duplicates(["layer", "position", "metric"])
    assert list(plots.patch_heatmap(both).data[0].y) == ["0.both", "1.both"]


def test_layers_are_rows_and_positions_end_with_the_one_that_is_read(stored):
    words = [f"{i} word · text" for i in range(20)]
    table = cells(["resid_pre", "mlp_out"], words)
    behind = table["position"].isin(words[16:])
    table.loc[behind, "value"] = table.loc[behind, "unpatched"]
    figure = plots.patch_heatmap(stored(table))
    for drawn in figure.data:
        assert (list(drawn.y), list(drawn.x)) == (["0", "1"], words[:16])
    np.testing.assert_allclose(np.array(figure.data[1].z)[:, 7], [0.07, 1.07])
    assert "up to the one that is read" in plots.caption(figure)


def test_grids_that_cannot_be_drawn():
    table = cells(["z"], ["last name"])
    with pytest.raises(InterpError, match="0, last name more than once"):
        plots.patch_heatmap(pd.concat([table, table]))
    with pytest.raises(InterpError, match="no metric loudness; it has"):
        plots.patch_heatmap(table, "loudness")
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.patch_heatmap(table.drop(columns="position"))
    with pytest.raises(InterpError, match="no value of follows"):
        plots.patch_heatmap(table.assign(value=np.nan), "follows")


def test_approximation_against_the_exact_result(stored):
    table = stored(cells(["resid_pre", "z"], ["last name", "type word"]))
    table = table[table["metric"] == LOGIT_DIFFERENCE].rename(columns={"value": "exact"})
    table["approximate"] = 2 * table["exact"] + 0.5
    figure = plots.attribution_error(table)
    line, stream, heads = figure.data
    assert line.x == line.y
    np.testing.assert_allclose(heads.x, [-2, -1.99, -1, -0.99])
    np.testing.assert_allclose(heads.y, [-3.5, -3.48, -1.5, -1.48])
    assert stream.name == "residual stream before the layer"
    assert stream.text[2] == "1, last name"
    assert "correlation is 1.000; the mean absolute error is 0.995" in plots.caption(figure)
    assert figure.layout.xaxis.range == figure.layout.yaxis.range
    with pytest.raises(InterpError, match="no cell to draw"):
        plots.attribution_error(table.assign(exact=np.nan))


def test_one_cell_has_no_correlation():
    table = cells(["z"], ["last name"]).iloc[:1].assign(exact=1.0, approximate=1.5)
    assert "mean absolute error is 0.500" in plots.caption(plots.attribution_error(table))
    assert "correlation" not in plots.caption(plots.attribution_error(table))


@pytest.mark.parametrize("phases", [PHASES, Phases(None, None, 5.6, 0.05)])
def test_every_figure_is_explained(swaps, ablations, phases):
    grid = cells(["z"], ["last name"], head=True)
    for figure in (
        plots.swap_success(swaps, phases),
        plots.swap_sites(swaps),
        plots.mlp_ablation(ablations, phases),
        plots.patch_heatmap(grid),
        plots.attribution_error(grid.assign(exact=grid["value"], approximate=0.0)),
    ):
        assert "Look for" in plots.caption(figure)
        assert plots.title(figure)
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert all(t.name for t in figure.data)


def paths() -> pd.DataFrame:
    """Paths whose change tells sender, receiver and input."""
    return pd.DataFrame(
        [
            {"sender": sender, "sender_layer": 0, "sender_head": head, "receiver": receiver,
             "layer": layer, "head": to, "metric": metric, "unpatched": -1.0, "n": 4,
             "value": -1 + row + to / 10 + layer / 100 - 3 * (receiver == "k_input")
             + 50 * (metric == "follows")}
            for row, (sender, head) in enumerate([("result", 0), ("result", 1), ("mlp_out", pd.NA)])
            for receiver in ("q_input", "k_input") for layer in (1, 2) for to in (0, 1)
            for metric in (LOGIT_DIFFERENCE, "follows")
        ]
    ).astype({"sender_head": "Int64", "head": "Int64"})  # fmt: skip


def test_a_map_of_paths_for_each_input(stored):
    figure = plots.path_heatmap(stored(paths()))
    queries, keys = figure.data
    assert list(queries.y) == list(keys.y) == ["0.0", "0.1", "MLP 0"]
    assert list(queries.x) == ["1.0", "1.1", "2.0", "2.1"]
    expected = [
        [row + to / 10 + layer / 100 for layer in (1, 2) for to in (0, 1)] for row in range(3)
    ]
    np.testing.assert_allclose(np.array(queries.z), expected)
    np.testing.assert_allclose(np.array(keys.z), np.array(expected) - 3)
    assert figure.layout.coloraxis.cmax == pytest.approx(2.99)
    assert "Crossed" not in plots.caption(figure)
    later = plots.path_heatmap(stored(paths().query("sender_head != 1 or layer == 2")))
    assert np.isnan(np.array(later.data[0].z, dtype=float)[1, :2]).all()
    assert "Crossed cells: not measured, or no path" in plots.caption(later)
    assert "logits" in plots.caption(figure)
    assert {a.text for a in figure.layout.annotations} == {"<b>queries</b>", "<b>keys</b>"}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (lambda: pd.concat([paths(), paths()]), "more than once"),
        (lambda: paths().drop(columns="receiver"), "receiver"),
        (lambda: paths().query("metric == 'follows'"), "logit_difference"),
        (lambda: paths().assign(value=float("nan")), "no value"),
        (lambda: paths().assign(value=float("inf")), "no value"),
        (lambda: paths().assign(receiver=pd.NA), "without its sender"),
        (lambda: paths().assign(layer="a"), "whole numbers"),
    ],
)
def test_paths_that_cannot_be_drawn(table, words):
    with pytest.raises(InterpError, match=words):
        plots.path_heatmap(table())
