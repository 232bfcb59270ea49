"""The figures of attention patching hold the right numbers, also for tables read back from CSV."""

import io
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp import plots
from interp.errors import InterpError
from interp.phases import Phases

PHASES = Phases(200, 300, 5.6, 0.05)
STEPS = [0, 100, 200, 250, 300, 450, 600, 1500]
REFERENCES = [0, 100, 250, 400, 1500]


def rows(seed: int, reference: int | None, start=0, layers="all", heads="all", shift=0.0) -> list:
    return [
        {"seed": seed, "reference_step": pd.NA if reference is None else reference, "start": start,
         "layers": layers, "heads": heads, "step": step, "metric": metric,
         "value": (10 * math.exp(-step / 400) + shift + seed / 100) / scale}
        for step in STEPS
        for metric, scale in (("attribute_loss", 1), ("attribute_accuracy", 100))
    ]  # fmt: skip


def study() -> pd.DataFrame:
    found = []
    for seed in (0, 1):
        found += rows(seed, None)
        for reference in REFERENCES:
            found += rows(seed, reference, shift=1 - reference / 1000)
            found += rows(seed, reference, start=reference or 100, shift=0.5)
        found += rows(seed, 1500, start=300, shift=-0.1)
        for layers, heads in (("0", "all"), ("1", "all"), ("1", "0 2")):
            found += rows(seed, 400, layers=layers, heads=heads, shift=-0.25)
    return pd.DataFrame(found).astype({"reference_step": "Int64"})


@pytest.fixture(params=["as made", "read back"])
def table(request) -> pd.DataFrame:
    made = study()
    if request.param == "as made":
        return made
    return pd.read_csv(io.StringIO(made.to_csv(index=False)))


def locate_facts(figure: go.Figure, name: str) -> list[go.Scatter]:
    found = [t for t in figure.data if t.name == name]
    assert found, f"no trace {name!r} among {[t.name for t in figure.data]}"
    return found


def unpatched_loss(step: int) -> float:
    return 10 * math.exp(-step / 400) + 0.005  # the mean of two seeds


def test_steps_at_which_runs_are_compared(table):
    assert plots.fixed_steps(table, PHASES) == [250, 300, 450, 600, 1500]
    assert plots.fixed_steps(table, Phases(None, None, 5.6, 0.05)) == [100, 600, 1500]
    assert plots.fixed_steps(table, Phases(200, None, 5.6, 0.05)) == [200, 600, 1500]
    assert plots.fixed_steps(table, Phases(None, 300, 5.6, 0.05)) == [300, 450, 600, 1500]
    assert plots.fixed_steps(table, PHASES, [600, 100]) == [100, 600]
    with pytest.raises(InterpError, match=r"333.*450"):
        plots.fixed_steps(table, PHASES, [333, 450])
    shorter = table[(table["reference_step"] != 400) | (table["step"] < 600)]
    assert plots.fixed_steps(shorter, PHASES)[-1] == 450


def test_curves_are_means_over_seeds_with_their_range(table):
    figure = plots.patching_curves(table, PHASES)
    assert [t.name for t in figure.data if t.showlegend and t.legend is None] == [
        "0 (statistics)", "100 (statistics)", "250 (plateau)", "400 (knowledge)",
        "1,500 (knowledge)", "unpatched",
    ]  # fmt: skip
    line = locate_facts(figure, "250 (plateau)")[0]
    assert list(line.x) == STEPS
    np.testing.assert_allclose(line.y, [unpatched_loss(step) + 0.75 for step in STEPS])
    band = locate_facts(figure, "250 (plateau), range of seeds")[0]
    np.testing.assert_allclose(np.subtract(band.y[:8], band.y[8:][::-1]), 0.01)
    bare = locate_facts(figure, "unpatched")[0]
    assert bare.line.dash == "dash"
    assert bare.line.width > line.line.width
    assert {s.name: (s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect"} == {
        "statistics": (0, 200), "plateau": (200, 300), "knowledge": (300, 1500)
    }  # fmt: skip


def test_curves_of_one_seed_and_of_accuracy(table):
    figure = plots.patching_curves(table, PHASES, "attribute_accuracy", seed=1)
    assert not [t for t in figure.data if t.name.endswith("range of seeds")]
    line = locate_facts(figure, "0 (statistics)")[0]
    np.testing.assert_allclose(line.y, [(10 * math.exp(-s / 400) + 1.01) / 100 for s in STEPS])
    assert "share" in figure.layout.yaxis.title.text
    with pytest.raises(InterpError, match="no runs of seed 7"):
        plots.patching_curves(table, PHASES, seed=7)


def test_loss_by_reference_with_unpatched_levels(table):
    figure = plots.loss_by_reference(table, PHASES)
    line = locate_facts(figure, "step 450")[0]
    np.testing.assert_allclose(np.square(line.x), REFERENCES)
    np.testing.assert_allclose(line.y, [unpatched_loss(450) + 1 - r / 1000 for r in REFERENCES])
    level = locate_facts(figure, "unpatched at step 450")[0]
    np.testing.assert_allclose(level.y, unpatched_loss(450))
    assert level.line.dash == "dash"
    assert level.line.color == line.line.color
    assert len(locate_facts(figure, "step 450, a seed")[0].x) == 2 * len(REFERENCES)
    assert "0" in figure.layout.xaxis.ticktext
    assert "1,500" in figure.layout.xaxis.ticktext
    ends = [s.x1 for s in figure.layout.shapes if s.type == "rect"]
    np.testing.assert_allclose(np.square(ends), [200, 300, 1500])


def test_freezing_takes_runs_whose_start_is_their_reference(table):
    figure = plots.freezing_curve(table, PHASES, [600])
    line = locate_facts(figure, "step 600")[0]
    np.testing.assert_allclose(np.square(line.x), REFERENCES)
    shifts = [1.0, 0.5, 0.5, 0.5, 0.5]  # at step 0, frozen and patched throughout are the same
    np.testing.assert_allclose(line.y, [unpatched_loss(600) + shift for shift in shifts])


def test_start_of_patching_takes_the_reference_with_most_starts(table):
    figure = plots.start_of_patching(table, PHASES, steps=[450])
    assert "step 1,500" in plots.title(figure)
    line = locate_facts(figure, "step 450")[0]
    np.testing.assert_allclose(np.square(line.x), [0, 300, 1500])
    np.testing.assert_allclose(line.y, [unpatched_loss(450) + s for s in (-0.5, -0.1, 0.5)])
    other = plots.start_of_patching(table, PHASES, reference_step=100, steps=[450])
    np.testing.assert_allclose(np.square(locate_facts(other, "step 450")[0].x), [0, 100])


def test_parts_of_the_reference_that_has_several(table):
    figure = plots.patched_parts(table, PHASES)
    labels = list(figure.layout.yaxis.ticktext)
    assert labels == ["all layers", "layer 0", "layer 1", "layer 1,<br>heads 0 and 2"]
    points = locate_facts(figure, "400 (knowledge)")
    assert len(points) == 3  # a panel for each of the steps 300, 450 and 600
    by_part = dict(zip([labels[round(y)] for y in points[1].y], points[1].x, strict=True))
    assert by_part["all layers"] == pytest.approx(unpatched_loss(450) + 0.6)
    assert by_part["layer 0"] == pytest.approx(unpatched_loss(450) - 0.25)
    assert locate_facts(figure, "unpatched")[1].x == pytest.approx([unpatched_loss(450)] * 2)


def test_only_views_with_rows(table):
    assert list(plots.patching_figures(table, PHASES)) == [
        "patching-curves", "patching-by-reference", "patching-freezing", "patching-start",
        "patching-parts",
    ]  # fmt: skip
    throughout = table[(table["start"] == 0) & (table["layers"] == "all")]
    assert list(plots.patching_figures(throughout, PHASES)) == [
        "patching-curves", "patching-by-reference"
    ]  # fmt: skip
    frozen = table[table["reference_step"].isna() | (table["reference_step"] == table["start"])]
    figures = plots.patching_figures(frozen, PHASES)
    assert list(figures) == ["patching-curves", "patching-freezing"]


def test_views_without_rows_say_so(table):
    unpatched = table[table["reference_step"].isna()]
    throughout = table[(table["start"] == 0) & (table["layers"] == "all")]
    for draw, of, text in (
        (plots.patching_curves, unpatched, "no runs patched from step 0"),
        (plots.loss_by_reference, unpatched, "no runs patched from step 0"),
        (plots.freezing_curve, unpatched, "reference step and start of patching are equal"),
        (plots.start_of_patching, unpatched, "no reference with two or more starts"),
        (plots.start_of_patching, throughout, "fewer than two starts"),
        (plots.patched_parts, throughout, "no reference of which several parts"),
        (plots.patching_curves, table.drop(columns="heads"), r"lacks the columns \['heads'\]"),
        (plots.loss_by_reference, table.assign(metric="loss"), "no rows of metric"),
    ):
        with pytest.raises(InterpError, match=text):
            draw(of, PHASES)


def test_without_an_unpatched_run_there_are_no_levels(table):
    patched = table[table["reference_step"].notna()]
    for figure in plots.patching_figures(patched, PHASES).values():
        assert not [t.name for t in figure.data if "unpatched" in t.name]


@pytest.mark.parametrize("phases", [PHASES, Phases(None, None, 5.6, 0.05)])
def test_every_figure_is_explained(table, phases):
    for figure in plots.patching_figures(table, phases).values():
        assert "Look for" in plots.caption(figure)
        assert "nats" in plots.caption(figure)
        assert "steps" in plots.caption(figure)
        assert "2 seeds" in plots.caption(figure)
        assert plots.title(figure)
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert all(t.name for t in figure.data)


def test_the_ramp_is_readable_and_ordered():
    from interp.charts.style import ramp

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    assert ramp(1) == ["#2A6FD6"]
    colours = ramp(12)
    assert len(set(colours)) == 12
    light = [luminance(colour) for colour in colours]
    assert light[0] < light[-1]
    for value in light:
        assert 1.05 / (value + 0.05) > 3.4  # on white
        assert (value + 0.05) / (luminance("#14171A") + 0.05) > 3.4
