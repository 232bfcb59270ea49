"""Kinds of chart hold the numbers of their tables, and say what is missing."""

import json
import re
from dataclasses import replace
from math import sqrt

import numpy as np
import pandas as pd
import pytest

from interp import charts
from interp.charts import (
    Axis,
    Level,
    Look,
    Part,
    bars,
    contributions,
    curves,
    heatmap,
    matrix,
    scatter,
    stack,
    timeline,
)
from interp.errors import InterpError
from interp.phases import Phases

STEPS = [0, 10, 40, 100]
PHASES = Phases(10, 40, 5.6, 0.05)


def table() -> pd.DataFrame:
    """Values that tell seed, layer, position and step."""
    return pd.DataFrame(
        [
            {"seed": seed, "layer": layer, "position": position, "step": step,
             "value": step / 10 + layer + seed + 100 * (position == "last name"),
             "control": -1.0}
            for seed in (0, 2) for layer in (0, 1) for position in ("value", "last name")
            for step in STEPS
        ]
    )  # fmt: skip


def drawn(figure, name: str) -> list:
    found = [trace for trace in figure.data if trace.name == name]
    assert found, f"no {name!r} among {[trace.name for trace in figure.data]}"
    return found


def test_curves_of_a_table_in_one_call():
    figure = curves(
        table(), line="position", facet="layer", axis="cost (nats)", unit="nats", phases=PHASES,
        seeds=True, level="control",
    )  # fmt: skip
    below, above = drawn(figure, "last name")
    assert (below.yaxis, above.yaxis) == ("y", "y2")
    assert list(above.x) == STEPS
    np.testing.assert_allclose(above.y, [102 + step / 10 for step in STEPS])
    band = drawn(figure, "last name, range of seeds")[1]
    np.testing.assert_allclose(np.subtract(band.y[:4], band.y[4:][::-1]), 2)
    assert set(drawn(figure, "value, control")[0].y) == {-1.0}
    assert [below.showlegend, above.showlegend] == [True, False]
    assert "nats" in above.hovertemplate
    assert above.customdata[-1] == "step 100"
    assert (figure.layout.xaxis2.tickformat, tuple(figure.layout.xaxis2.range)) == (",d", (0, 100))
    assert figure.layout.yaxis.title.text == "layer 0<br>cost (nats)"
    shaded = {s.name: (s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect"}
    assert shaded == {"statistics": (0, 10), "plateau": (10, 40), "knowledge": (40, 100)}


def test_a_seed_without_a_step_takes_it_from_the_mean_only_of_its_line():
    less = table().query("not (seed == 2 and step == 100 and position == 'value')")
    figure = curves(less, line="position", axis="cost (nats)", seeds=True)
    assert list(drawn(figure, "value")[0].x) == STEPS[:-1]
    assert list(drawn(figure, "last name")[0].x) == STEPS


@pytest.mark.parametrize(
    ("spread", "names"),
    [
        ("points", ["0, a seed", "0", "1, a seed", "1"]),
        ("each", ["0", "0", "1", "1"]),
    ],
)
def test_seeds_as_points_or_lines(spread, names):
    looks = {0: Look("#1F83C4", name="0"), 1: Look("#D55E00", name="1")}
    figure = curves(
        table(), line="layer", axis="cost (nats)", seeds=True, spread=spread, looks=looks
    )
    assert [trace.name for trace in figure.data] == names


def test_axes_of_their_own_levels_and_other_numbers_than_steps():
    both = pd.concat([table().assign(metric="loss"), table().assign(metric="share", value=0.5)])
    both = both.assign(delta=both["step"] + 1.0)
    figure = curves(
        both, x="delta", x_axis=Axis("δ", scale="log", form=",g"), facet="metric",
        axis={"share": Axis("accuracy (share)", range=(0, 1)), "loss": Axis("loss (nats)", "nats")},
        levels=[Level("baseline", 5.6, only=("loss",))],
    )  # fmt: skip
    assert [a.title.text for a in figure.select_yaxes()] == ["accuracy (share)", "loss (nats)"]
    assert tuple(figure.layout.yaxis.range) == (0, 1)
    assert figure.layout.xaxis.type == "log"
    (level,) = drawn(figure, "baseline")
    assert (level.yaxis, set(level.y), list(level.x)) == ("y2", {5.6}, [1.0, 101.0])
    root = curves(table(), axis="loss (nats)", x_axis=charts.ROOT_STEPS)
    np.testing.assert_allclose(root.data[0].x, [sqrt(step) for step in STEPS])


def test_columns_that_do_not_fit_go_on_below():
    wide = pd.concat(
        [table().assign(head=h, value=lambda t, h=h: t["value"] - 99 * (h == 2)) for h in (0, 1, 2)]
    )
    figure = curves(wide, facet="layer", column="head", n_columns=2, axis="cost (nats)")
    assert [t.yaxis or "y" for t in figure.data] == ["y", "y2", "y3", "y5", "y6", "y7"]
    titles = [a.text for a in figure.layout.annotations]
    assert titles[2:4] == ["<b>layer 0<br>head 2</b>", "<b>layer 1<br>head 0</b>"]
    # Zero has a line where curves go below it.
    assert [a.zeroline for a in list(figure.select_yaxes())[::2]] == [False, True, False, True]


def test_colours_and_dashes_in_the_legend():
    figure = curves(
        table(), line="layer", dash="position", axis="cost (nats)", column="seed",
        dashes={"value": ("at the value", "solid"), "last name": ("at the name", "dash")},
    )  # fmt: skip
    line = drawn(figure, "layer 1, at the name")[0]
    assert line.line.dash == "dash"
    keys = [t.name for t in figure.data if t.showlegend]
    assert keys == ["layer 0", "layer 1", "at the value", "at the name"]


def test_heatmaps_share_their_colours_and_cross_out_what_is_missing():
    cells = table().query("seed == 0 and step == 10")
    first = matrix(cells, row="layer", column="position")
    second = first.copy() * -2
    second.iloc[0, 1] = np.nan
    figure = heatmap(
        {"a": first, "b": second}, axis="change (nats)", unit="nats", rows="layer",
        columns="position", upward=True,
    )  # fmt: skip
    np.testing.assert_allclose(figure.data[0].z, [[1, 101], [2, 102]])
    assert figure.layout.coloraxis.cmax == -figure.layout.coloraxis.cmin == 204
    assert figure.layout.coloraxis.colorbar.title.text == "change (nats)"
    assert charts.has_missing(figure)
    (cross,) = figure.layout.shapes
    assert cross.yref == "y2"
    corners = re.findall(r"[ML](\S+) (\S+?)(?=[ML]|$)", cross.path)
    np.testing.assert_allclose(np.array(corners, dtype=float).mean(axis=0), [1, 0], atol=1e-9)
    assert [figure.layout.yaxis.autorange, figure.layout.yaxis2.autorange] == [True, True]
    read = heatmap(first, axis="change (nats)", rows="layer", columns="position", until="value")
    assert list(read.data[0].x) == ["value"]
    assert not charts.has_missing(read)


def test_bars_hold_means_ranges_and_references():
    at_end = table().query("step == 100")
    figure = bars(
        at_end, place="position", group="layer", axis="cost (nats)", unit="nats",
        levels=[Level("control", -1.0)],
    )  # fmt: skip
    mean = drawn(figure, "layer 1")[0]
    assert list(mean.x) == [12, 112]
    assert [round(y) for y in mean.y] == [0, 1]
    assert list(mean.error_x.array) == list(mean.error_x.arrayminus) == [1, 1]
    assert sorted(drawn(figure, "layer 1, a seed")[0].x) == [11, 13, 111, 113]
    assert list(drawn(figure, "control")[0].x) == [-1.0, -1.0]
    assert list(figure.layout.yaxis.ticktext) == ["value", "last name"]
    upright = bars(at_end, place="position", axis="cost (nats)", upright=True, kind="bars")
    assert upright.data[0].type == "bar"
    assert list(upright.data[0].y) == [11.5, 111.5]


def test_bars_on_a_square_root_axis_with_places_that_have_no_value():
    found = pd.DataFrame(
        [("a", "x", 0, 16, "early"), ("a", "x", 1, 36, "early"), ("b", "y", 0, 64, "late"),
         ("b", "y", 1, 64, "late"), ("gone", "y", 0, None, "")],
        columns=["what", "kind", "seed", "step", "words"],
    )  # fmt: skip
    figure = bars(
        found, place="what", y="step", group="kind", words="words",
        places={"b": "b", "gone": "not there", "a": "a"},
        axis=replace(charts.ROOT_STEPS, range=(0, 100)),
    )  # fmt: skip
    assert list(figure.layout.yaxis.ticktext) == ["b", "not there", "a"]
    first, later = drawn(figure, "x")[0], drawn(figure, "y")[0]
    # No place has points of two groups: they stand in its middle.
    assert (list(later.y), list(first.y)) == ([0], [2])
    assert first.x[0] ** 2 == pytest.approx(26)
    reach = (first.x[0] - first.error_x.arrayminus[0], first.x[0] + first.error_x.array[0])
    assert reach == pytest.approx((4, 6))
    seed = drawn(figure, "x, a seed")[0]
    assert (list(seed.x), seed.customdata[1]) == ([4, 6], "x, a, seed 1: 36, early")
    ticks = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    assert (ticks["0"], ticks["100"]) == (0, 10)
    assert all(value**2 == pytest.approx(float(text)) for text, value in ticks.items())
    assert len(ticks) > 4


@pytest.mark.parametrize("draw", [scatter, curves])
def test_logarithmic_axes_have_ticks_at_1_2_and_5(draw):
    found = pd.DataFrame({"n": [1.0, 10.0, 100.0], "value": [1.0, 30.0, 500.0]})
    log = Axis("steps (steps)", form=",.0f", scale="log")
    figure = draw(found, x="n", y="value", x_axis=log, axis=replace(log, range=(1, 1000)))
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert (axis.type, axis.dtick, axis.tickformat) == ("log", "D2", ",d")
    assert list(figure.layout.yaxis.range) == [0, 3]


@pytest.mark.parametrize(
    ("name", "lines"),
    [("short", "short"), ("name grouping at last name", "name grouping<br>at last name"),
     ("<b> and something else", "&lt;b&gt; and<br>something else")],
)  # fmt: skip
def test_long_names_take_two_lines(name, lines):
    assert charts.style.two_lines(name) == lines


def test_points_with_the_range_of_their_seeds():
    points = table().query("step == 10").assign(other=lambda t: 2 * t["value"])
    figure = scatter(
        points, x="value", y="other", x_axis="exact (nats)", axis="approximate (nats)",
        group="layer", label="position", seeds=True, identity=True,
    )  # fmt: skip
    equal, first, _ = figure.data
    assert equal.x == equal.y
    assert sorted(first.x) == [2, 102]
    assert sorted(first.y) == [4, 204]
    assert list(first.error_y.array) == [2, 2]
    assert figure.layout.xaxis.range == figure.layout.yaxis.range


def parts() -> pd.DataFrame:
    rows = [("heads", "a", 1.0), ("MLP", "a", 0.5), ("MLP", "b", -2.0), ("bias", "b", -0.001)]
    return pd.DataFrame(rows, columns=["part", "writer", "contribution"])


def test_contributions_go_to_both_sides_with_their_sum_beside_them():
    figure = contributions(parts(), part="part", by="writer")
    a, b = drawn(figure, "a")[0], drawn(figure, "b")[0]
    assert (list(a.x), list(a.y)) == ([1, 0.5], [0, 1])
    assert (list(b.x), list(b.y)) == ([-2, -0.001], [1, 2])
    assert b.customdata[0] == "MLP, b: -2.000 nats"
    (beside,) = drawn(figure, "contribution, in all")
    assert [text.strip() for text in beside.text] == ["+1.00", "-1.50", "0.00"]
    assert list(beside.x) == [1, 0.5, -0.001]
    assert beside.textposition == ("middle right", "middle right", "middle left")
    assert figure.layout.barmode == "relative"
    single = contributions(parts()[1:].drop(index=1), part="part", above=True)
    assert list(drawn(single, "contribution")[0].x) == [-2, -0.001]
    assert [a.text for a in single.layout.annotations] == ["MLP", "bias"]
    assert single.layout.yaxis.showticklabels is False


def test_a_timeline_has_a_bar_for_each_row_and_a_sign_for_each_stretch():
    held = pd.DataFrame(
        [("b", 0, 10, "on", 0), ("b", 10, 40, "on", 0), ("b", 40, 100, "off", 0),
         ("a", 0, 100, "on", 1)],
        columns=["head", "from", "to", "role", "seed"],
    )  # fmt: skip
    what = {"place": "head", "start": "from", "end": "to", "group": "role"}
    looks = {"on": Look("#1F83C4", symbol="square"), "off": Look("#D55E00", symbol="")}
    figure = timeline(
        held, **what, looks=looks, signs=True, phases=PHASES, x_axis=charts.ROOT_STEPS
    )
    (on,) = drawn(figure, "on")
    np.testing.assert_allclose(np.square(on.base), [0, 10, 0])
    np.testing.assert_allclose(np.square(np.add(on.base, on.x)), [10, 40, 100])
    assert list(on.y) == [0, 0, 1]
    assert on.customdata[1] == "b: on, 10 to 40"
    (sign,) = drawn(figure, "on, sign")
    np.testing.assert_allclose(sign.x, [sqrt(40) / 2, 5])
    assert "off, sign" not in [trace.name for trace in figure.data]
    assert list(figure.layout.yaxis.ticktext) == ["b", "a"]
    lanes = timeline(held, **what, lane="seed", places={"a": "first", "b": "second"})
    assert list(drawn(lanes, "on")[0].y) == pytest.approx([0.795, 0.795, 0.205])
    assert list(lanes.layout.yaxis.ticktext) == ["first", "second"]


def test_a_stack_keeps_every_panel_on_axes_of_its_own():
    cells = matrix(table().query("seed == 0 and step == 10"), row="layer", column="position")
    above = [
        Part(heatmap(cells * sign, axis="a (b)", rows="", columns=""), f"map {sign}", 60)
        for sign in (1, -2)
    ]
    lines = curves(table(), axis="cost (nats)", phases=PHASES)
    named = contributions(parts().drop_duplicates("part"), part="part", above=True)
    figure = stack([*above, Part(named, "parts", 90), Part(lines, "over<br>training", 150)])
    assert [t.yaxis for t in figure.data] == ["y", "y2", "y3", "y3"] + ["y4"] * 4
    assert [t.coloraxis for t in figure.data[:2]] == ["coloraxis", "coloraxis2"]
    assert (figure.layout.coloraxis.cmax, figure.layout.coloraxis2.cmax) == (102, 204)
    # What lies behind all panels of a figure lies behind its own panel.
    assert {(s.xref, s.yref) for s in figure.layout.shapes} == {("x4", "y4 domain")}
    heights = [axis.domain[1] - axis.domain[0] for axis in figure.select_yaxes()]
    np.testing.assert_allclose(np.array(heights) / heights[0], [1, 1, 1.5, 2.5])
    at_edge = [a.text for a in figure.layout.annotations if a.xref == "paper"]
    assert at_edge == ["map 1", "map -2", "heads", "MLP", "bias", "parts", "over<br>training"]
    assert tuple(figure.layout.xaxis4.range) == (0, 100)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda t: curves(t, axis="a (b)", line="site"), r"lacks the columns \['site'\]"),
        (lambda t: curves(t, axis="", line="layer"), "needs a title"),
        (
            lambda t: curves(t, axis={0: "a"}, facet="layer"),
            r"No axis is given for the panel \[1\]",
        ),
        (lambda t: curves(t[:0], axis="a (b)"), "no measured value"),
        (lambda t: bars(t, axis="a (b)", place="site"), r"lacks the columns \['site'\]"),
        (lambda t: bars(t[:0], axis="a (b)", place="layer"), "no value to draw"),
        (lambda t: scatter(t, x="x", y="y", x_axis="x", axis="y"), r"columns \['x', 'y'\]"),
        (lambda t: matrix(t, row="layer", column="position"), "more than once"),
        (lambda t: contributions(t, part="layer"), r"lacks the columns \['contribution'\]"),
        (lambda t: contributions(t[:0], part="layer", y="value"), "no row to draw"),
        (
            lambda t: timeline(t[:0], place="layer", start="step", end="value", group="seed"),
            "no row",
        ),
        (lambda t: heatmap({}, axis="a", rows="r", columns="c"), "at least one map"),
    ],
)
def test_what_cannot_be_drawn_says_why(draw, words):
    with pytest.raises(InterpError, match=words):
        draw(table())


def test_every_figure_can_be_written():
    figure = charts.describe(curves(table(), axis="cost (nats)"), "Costs", "Cost in  nats.")
    assert charts.caption(figure) == "Cost in nats."
    assert json.loads(figure.to_json())["layout"]["title"]["text"] == "Costs"


def test_stages_are_drawn_where_phases_are() -> None:
    table = pd.DataFrame({"step": [0, 20, 60], "value": [1.0, 2.0, 3.0]})
    phases = replace(PHASES, stages=((20, "question, adapter"), (60, "triple"), (99, "fused")))
    figure = curves(table, axis=Axis("x"), x_axis=charts.ROOT_STEPS, phases=phases)
    lines = {s.name: s.x0 for s in figure.layout.shapes if s.name.startswith("stage")}
    assert lines == pytest.approx({"stage 2": 20**0.5, "stage 3": 60**0.5})
    assert [a.text for a in figure.layout.annotations if "stage" in a.text] == [
        "stage 2",
        "stage 3",
    ]
    listed = [trace.name for trace in figure.data if trace.legend == "legend2"]
    assert "stage 2, question, adapter, from step 20" in listed
    plain = curves(table, axis=Axis("x"), x_axis=charts.ROOT_STEPS, phases=PHASES)
    assert not [s for s in plain.layout.shapes if s.name.startswith("stage")]
