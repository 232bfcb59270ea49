"""The figures of keys, values, probes and emergence hold the numbers of their tables."""

import io
from math import sqrt

import numpy as np
import pandas as pd
import pytest

from interp import plots
from interp.biographies import ATTRIBUTES
from interp.charts import Line, Panel, draw
from interp.errors import InterpError
from interp.phases import Phases
from interp.plots.emergence import group_of
from interp.plots.sites import site_name, sites_of

PHASES = Phases(50, 100, 5.6, 0.05)
STEPS = [0, 20, 50, 100, 200]
POSITIONS = ("last name", "predicts value")
SITES = [(site, la) for la in (0, 1) for site in ("resid_pre", "resid_mid", "resid_post")]
MECHANISMS = ("name grouping at last name", "probe at names", "MLP swap at names", "knowledge")


def level(step: int, *places: int) -> float:
    """A number of its own for every place."""
    return step / 1000 + sum(place / 100**i for i, place in enumerate(places, start=1))


@pytest.fixture(params=["as made", "read back"])
def stored(request):
    """Tables as they are made, and as they come back from CSV."""
    if request.param == "as made":
        return lambda table: table
    return lambda table: pd.read_csv(io.StringIO(table.to_csv(index=False)))


@pytest.fixture
def keys(stored) -> pd.DataFrame:
    measures = [
        (m, s)
        for m in (
            "selectivity",
            "selectivity_within_last_name",
            "similarity_same",
            "similarity_other",
            "similarity_namesake",
        )
        for s in ("evaluation", "held_out")
    ]
    measures.append(("similarity_other", "known against held-out"))
    return stored(pd.DataFrame(
        [
            {"step": step, "layer": layer, "position": position, "split": split, "metric": metric,
             "value": level(step, layer, p, i),
             "control": 0.01}
            for step in STEPS for layer in (0, 1) for p, position in enumerate(POSITIONS)
            for i, (metric, split) in enumerate(measures)
        ]
    ))  # fmt: skip


@pytest.fixture
def values(stored) -> pd.DataFrame:
    return stored(pd.DataFrame(
        [
            {"step": step, "layer": layer, "position": position, "path": path, "metric": metric,
             "attribute": attribute, "value": level(step, layer, p, i, j) + 5 * (a > 0),
             "control": 0.5}
            for step in STEPS for layer in (0, 1) for p, position in enumerate(POSITIONS)
            for i, path in enumerate(("direct", "attention"))
            for j, metric in enumerate(("value_share", "agreement", "layer_agreement"))
            for a, attribute in enumerate(("all", "major"))
            if layer == 0 or path == "direct"  # nothing attends to what the last layer writes
        ]
    ))  # fmt: skip


@pytest.fixture
def probes(stored) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"step": step, "site": site, "layer": layer, "position": position,
             "attribute": attribute, "accuracy": level(step, i, p, a), "control": 0.02}
            for step in STEPS for i, (site, layer) in enumerate(SITES)
            for p, position in enumerate(POSITIONS)
            for a, attribute in enumerate(("all", *ATTRIBUTES))
        ]
    )  # fmt: skip
    return stored(table.assign(selectivity=table["accuracy"] - table["control"]))


@pytest.fixture
def emergence(stored) -> pd.DataFrame:
    steps = {"name grouping at last name": (30, 50), "probe at names": (120, 90), "knowledge": (160, np.nan),
             "MLP swap at names": (np.nan, np.nan)}  # fmt: skip
    return stored(pd.DataFrame(
        [
            {"mechanism": mechanism, "seed": seed, "step": step, "start": 0.0, "final": 0.5,
             "phase": None if np.isnan(step) else PHASES.at(int(step))}
            for mechanism, own in reversed(steps.items()) for seed, step in enumerate(own)
        ]
    ))  # fmt: skip


@pytest.fixture
def strengths(stored) -> pd.DataFrame:
    final = {
        "name grouping at last name": 0.5,
        "probe at names": 2.0,
        "MLP swap at names": 0.001,
        "knowledge": 1.0,
    }
    return stored(pd.DataFrame(
        [
            {"mechanism": m, "step": step, "value": 0.1 + final[m] * step / 200, "control": 0.1,
             "strength": final[m] * step / 200}
            for m in MECHANISMS for step in STEPS
        ]
    ))  # fmt: skip


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def at(line, step: int) -> float:
    """The height of a line over a square-root axis at a step."""
    places = [sqrt(s) for s in STEPS]
    np.testing.assert_allclose(line.x, places)
    return line.y[STEPS.index(step)]


def test_selectivity_has_a_line_for_each_position_and_split(keys):
    figure = plots.key_selectivity(keys, PHASES)
    known = named(figure, "predicts value, known people")
    # Columns: all people, and those who share a last name.
    assert [t.yaxis for t in known] == ["y", "y2", "y3", "y4"]
    assert at(known[2], 100) == pytest.approx(level(100, 1, 1, 0))
    assert at(known[3], 100) == pytest.approx(level(100, 1, 1, 2))
    strangers = named(figure, "predicts value, held-out people")
    assert at(strangers[0], 200) == pytest.approx(level(200, 0, 1, 1))
    assert strangers[0].line.color == known[0].line.color
    assert strangers[0].line.dash != known[0].line.dash
    control = named(figure, "predicts value, known people, control")[0]
    assert (control.line.dash, control.line.color) == ("dot", known[0].line.color)
    assert set(control.y) == {0.01}
    # The legend says colours and dashes once, not every pair of them.
    legend = [t.name for t in figure.data if t.showlegend]
    assert legend == ["last name", "predicts value", "known people", "held-out people"]
    assert "200" in figure.layout.xaxis4.ticktext


def test_similarity_has_a_panel_for_each_layer_and_position(keys):
    figure = plots.key_similarity(keys, PHASES)
    same = named(figure, "same person, known people")
    assert [t.yaxis for t in same] == ["y", "y2", "y3", "y4"]
    assert at(same[1], 50) == pytest.approx(level(50, 0, 1, 4))
    assert at(same[2], 50) == pytest.approx(level(50, 1, 0, 4))
    across = named(figure, "different people, known against held-out")[3]
    assert at(across, 0) == pytest.approx(level(0, 1, 1, 10))
    # Different people are the control, and drawn once.
    assert not [t.name for t in figure.data if "control" in t.name]
    # Every panel's scale holds its lines.
    for axis, trace in zip(("yaxis", "yaxis3"), (same[0], same[2]), strict=True):
        assert figure.layout[axis].range[1] > max(trace.y)


def test_values_on_both_paths(values):
    figure = plots.promoted_values(values, PHASES)
    direct = named(figure, "direct path")
    assert [t.yaxis for t in direct] == ["y", "y2"]
    # The mean over positions, of the rows of all attributes.
    expected = (level(20, 1, 0, 0, 0) + level(20, 1, 1, 0, 0)) / 2
    assert at(direct[1], 20) == pytest.approx(expected)
    assert [t.yaxis for t in named(figure, "through attention")] == ["y"]
    assert named(figure, "direct path, random directions")[0].line.dash == "dot"


def test_agreement_of_neurons_and_layers(values):
    figure = plots.key_value_agreement(values, PHASES)
    layer = named(figure, "the layer as a whole, through attention")
    assert [t.yaxis for t in layer] == ["y", "y2"]
    assert at(layer[1], 200) == pytest.approx(level(200, 0, 1, 1, 2))
    neurons = named(figure, "single neurons, direct path")
    assert at(neurons[3], 200) == pytest.approx(level(200, 1, 1, 0, 1))
    control = named(figure, "single neurons, direct path, control")[0]
    assert set(control.y) == {0.5}


def test_probes_of_each_site(probes):
    figure = plots.probe_curves(probes, PHASES)
    legend = [t.name for t in figure.data if t.showlegend is True]
    # What lies before layer 1 is what lies behind layer 0: one line.
    assert legend == ["before layer 0", "after attention 0", "after MLP 0", "after attention 1",
                      "after MLP 1"]  # fmt: skip
    line = named(figure, "after attention 1")[1]
    assert line.yaxis == "y2"
    assert at(line, 100) == pytest.approx(level(100, 4, 1, 0) - 0.02)
    styles = {(t.line.color, t.line.dash) for t in figure.data if t.name in legend}
    assert len(styles) == 5


def test_probes_of_each_attribute_at_one_step(probes):
    figure = plots.probe_sites(probes, step=50)
    assert "step 50" in plots.title(figure)
    second = figure.data[1]
    assert second.x[:2] == ("all", "birth place")
    assert list(second.y) == ["before layer 0", "after attention 0", "after MLP 0",
                              "after attention 1", "after MLP 1"]  # fmt: skip
    column = list(second.x).index("major")
    expected = level(50, 4, 1, 1 + ATTRIBUTES.index("major"))
    assert second.z[3][column] == pytest.approx(expected - 0.02)
    assert second.text[3][column] == f"<b>{100 * expected:.0f}</b><br>(2)"
    assert "step 200" in plots.title(plots.probe_sites(probes))


def test_probes_of_other_people(probes):
    other = {f"{c}_other_people": probes[c] / 2 for c in ("accuracy", "control", "selectivity")}
    table = probes.assign(**other)
    figure = plots.probe_curves(table, PHASES)
    lines = named(figure, "after attention 1")
    assert [t.yaxis for t in lines] == ["y", "y2", "y3", "y4"]
    assert at(lines[3], 100) == pytest.approx((level(100, 4, 1, 0) - 0.02) / 2)
    maps = plots.probe_sites(table).data
    assert [m.name for m in maps][2:] == ["predicts value, same people",
                                          "predicts value, other people"]  # fmt: skip
    np.testing.assert_allclose(np.array(maps[3].z), np.array(maps[2].z) / 2)
    # Too few people to leave some out: as if they had not been measured.
    none = table.assign(selectivity_other_people=np.nan)
    assert len(plots.probe_sites(none).data) == 2


def test_sites_are_in_the_order_of_the_computation():
    mixed = pd.DataFrame([("mlp_out", 0), ("resid_pre", 1), ("attn_out", 0), ("resid_mid", 0)],
                         columns=["site", "layer"])  # fmt: skip
    every = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
    order = [("attn_out", 0), ("resid_mid", 0), ("mlp_out", 0), ("resid_pre", 1)]
    assert sites_of(mixed, every) == order
    behind = pd.concat([mixed, pd.DataFrame({"site": ["resid_post"], "layer": [0]})])
    assert sites_of(behind, every)[-1] == ("resid_post", 0)
    assert site_name("resid_post", 3) == "after MLP 3"


def test_mechanisms_from_first_to_last(emergence):
    figure = plots.emergence(emergence, phases=[PHASES, Phases(60, 120, 5.6, 0.05)])
    labels = [text.replace("<br>", " ") for text in figure.layout.yaxis.ticktext]
    assert labels == ["name grouping at last name", "probe at names", "<b>knowledge (1 of 2)</b>",
                      "MLP swap at names"]  # fmt: skip
    attention, memory, known = (named(figure, name)[0] for name in
                                ("attention", "memory at names", "knowledge"))  # fmt: skip
    assert [attention.y, memory.y, known.y] == [(0,), (1,), (2,)]
    for mark, mean in ((attention, 40), (memory, 105), (known, 160)):
        assert mark.x[0] ** 2 == pytest.approx(mean)
    # Whiskers reach to the seeds.
    whiskers = attention.error_x
    reach = (attention.x[0] - whiskers.arrayminus[0], attention.x[0] + whiskers.array[0])
    np.testing.assert_allclose(np.square(reach), [30, 50])
    seeds = named(figure, "memory at names, a seed")[0]
    np.testing.assert_allclose(np.square(seeds.x), [120, 90])
    assert seeds.customdata[1] == (
        "memory at names, probe at names, seed 1: 90, final strength 0.500"
    )
    absent = [a for a in figure.layout.annotations if "absent" in a.text]
    assert [a.y for a in absent] == [3]
    strips = {s.name: (s.x0**2, s.x1**2) for s in figure.layout.shapes if "range" in s.name}
    assert strips["statistics_end, range of seeds"] == pytest.approx((50, 60))
    assert strips["plateau_end, range of seeds"] == pytest.approx((100, 120))
    ends = [t.name for t in figure.data if t.legend == "legend2"]
    assert ends[0] == "1 statistics, to step 55"


def test_how_long_a_mechanism_takes_to_rise(emergence, strengths):
    figure = plots.emergence(emergence, strengths, PHASES)
    bar = named(figure, "probe at names, rise")[0]
    ends = [bar.base[0], bar.base[0] + bar.x[0]]
    np.testing.assert_allclose(np.square(ends), [50, 150])  # a straight rise over 200 steps
    assert not named(figure, "MLP swap at names, rise")
    assert figure.layout.xaxis.ticktext[-1] == "200"


def test_nothing_has_emerged(emergence, strengths):
    never = emergence.assign(step=np.nan)
    figure = plots.emergence(never)
    assert sum("absent" in a.text for a in figure.layout.annotations) == 4
    assert not [t for t in figure.data if t.error_x.array is not None]
    faint = plots.strength_curves(strengths.assign(strength=0.0), PHASES)
    assert "No mechanism" in faint.layout.annotations[0].text


def test_strengths_as_shares_of_the_final_one(strengths):
    figure = plots.strength_curves(strengths, PHASES)
    selective = named(figure, "probe at names")
    assert [t.yaxis for t in selective] == ["y2"]
    assert at(selective[0], 100) == pytest.approx(0.5)
    assert [t.yaxis for t in named(figure, "knowledge")] == ["y", "y2"]
    assert not named(figure, "MLP swap at names")
    assert "Left out, as their final strength is below 0.05: MLP swap at names." in plots.caption(
        figure
    )


def test_strengths_of_several_seeds(strengths):
    doubled = [strengths.assign(seed=0), strengths.assign(seed=1)]
    doubled[1]["strength"] = doubled[1]["strength"] ** 2
    figure = plots.strength_curves(pd.concat(doubled), PHASES)
    line = named(figure, "probe at names")[0]
    assert at(line, 100) == pytest.approx((0.5 + 0.25) / 2)
    band = named(figure, "probe at names, range of seeds")[0]
    assert (max(band.y), band.y[STEPS.index(100)]) == pytest.approx((1, 0.5))


def test_mechanisms_have_groups():
    assert group_of("extraction attention") == "attention"
    assert group_of("dreaming") == "other"


@pytest.mark.parametrize("phases", [PHASES, Phases(None, None, 5.6, 0.05)])
def test_every_figure_is_explained(keys, values, probes, emergence, strengths, phases):
    for figure in (
        plots.key_selectivity(keys, phases),
        plots.key_similarity(keys, phases),
        plots.promoted_values(values, phases),
        plots.key_value_agreement(values, phases),
        plots.probe_curves(probes, phases),
        plots.probe_sites(probes),
        plots.emergence(emergence, strengths, phases),
        plots.strength_curves(strengths, phases),
    ):
        assert "Look for" in plots.caption(figure)
        assert "step" in plots.caption(figure)
        assert plots.title(figure)
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert all(t.name for t in figure.data)


def test_what_is_missing_is_named(keys, values, probes, emergence, strengths):
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.key_selectivity(keys.drop(columns="split"), PHASES)
    with pytest.raises(InterpError, match="no metric selectivity or"):
        plots.key_selectivity(keys[keys["metric"] == "similarity_same"], PHASES)
    with pytest.raises(InterpError, match="no metric similarity_same or"):
        plots.key_similarity(keys[keys["metric"] == "selectivity"], PHASES)
    with pytest.raises(InterpError, match="no attribute all; it has"):
        plots.promoted_values(values[values["attribute"] != "all"], PHASES)
    with pytest.raises(InterpError, match="probes at step 7"):
        plots.probe_sites(probes, step=7)
    with pytest.raises(InterpError, match="no rows to draw"):
        plots.probe_sites(probes[:0])
    with pytest.raises(InterpError, match="no mechanism to draw"):
        plots.emergence(emergence[:0])
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.emergence(emergence.drop(columns="seed"))
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.strength_curves(strengths.drop(columns="strength"), PHASES)


def test_panels_without_lines_are_refused():
    with pytest.raises(InterpError, match="no measured value"):
        draw([Panel("empty", [Line("none", pd.Series(dtype=float), {})])], phases=PHASES)


def test_recall_edges_shows_every_edge_and_the_control():
    edges = pd.DataFrame(
        [
            (step, layer, query, key, step * (layer + 1), 0.1)
            for step in (0, 10, 20)
            for layer in (0, 1)
            for query, key in (
                ("every middle name", "every first name"), ("predicts value", "every last name")
            )
        ],
        columns=["step", "layer", "query", "key", "cost", "control"],
    )  # fmt: skip
    figure = plots.recall_edges(edges, PHASES)
    for name in ("middle name → first name", "value → last name"):
        first, second = named(figure, name)
        assert list(first.y) == [0, 10, 20]
        assert list(second.y) == [0, 20, 40]
    assert list(named(figure, "value → text, control")[0].y) == [0.1] * 3
    with pytest.raises(InterpError, match="key"):
        plots.recall_edges(edges.drop(columns="key"), PHASES)
