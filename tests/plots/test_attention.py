"""The figures of attention, roles and knockouts hold the numbers of their tables."""

import io

import numpy as np
import pandas as pd
import pytest

from interp import plots
from interp.errors import InterpError
from interp.phases import Phases

PHASES = Phases(50, 100, 5.6, 0.05)
STEPS = [0, 20, 50, 100, 200]
METRICS = [
    "name_to_name", "attribute_to_name", "attribute_to_earlier_names", "attribute_to_any_name",
    "attribute_to_text", "attribute_to_type", "name_sharpness", "attribute_sharpness",
]  # fmt: skip


def value(step: int, layer: int, head: int, metric: str) -> float:
    return 0.001 * step + 0.1 * layer + 0.02 * head + 0.01 * METRICS.index(metric)


@pytest.fixture
def scores() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"step": s, "layer": la, "head": h, "metric": m, "value": value(s, la, h, m),
             "chance": np.nan if "sharp" in m else 0.03}
            for s in STEPS for la in (0, 1, 2) for h in (0, 1) for m in METRICS
        ]
    )  # fmt: skip


@pytest.fixture
def roles() -> pd.DataFrame:
    held = {
        (0, 0): ["none", "none", "name grouping", "name grouping", "name grouping"],
        (0, 1): ["positional", "none", "positional", "none", "none"],
        (1, 0): ["none", "none", "none", "extraction", "type propagation"],
    }
    return pd.DataFrame(
        [
            {"step": step, "layer": layer, "head": head, "role": role, "metric": "name_to_name",
             "value": 0.4, "chance": 0.05, "excess": 0.35}
            for (layer, head), own in held.items() for step, role in zip(STEPS, own, strict=True)
        ]
    )  # fmt: skip


@pytest.fixture(params=["as made", "read back"])
def knockout(request) -> pd.DataFrame:
    parts = [(pd.NA, pd.NA), *((la, h) for la in (0, 1) for h in (pd.NA, 0, 1))]
    edges = ["attribute_to_name", "attribute_to_any_name", "name_to_name", "control"]
    table = pd.DataFrame(
        [
            {"step": step, "edge": edge, "layer": layer, "head": head, "loss": 3.0, "intact": 1.0,
             "cost": step / 100 + i + 0.1 * j}
            for step in (0, 100, 200) for i, edge in enumerate(edges)
            for j, (layer, head) in enumerate(parts)
        ]
    ).astype({"layer": "Int64", "head": "Int64"})  # fmt: skip
    if request.param == "as made":
        return table
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


def test_attention_to_names_is_the_mean_over_heads(scores):
    figure = plots.attention_to_names(scores, PHASES)
    lines = [t for t in figure.data if t.name == "attribute → name"]
    assert [t.yaxis for t in lines] == ["y", "y2", "y3"]
    assert list(lines[2].x) == STEPS
    expected = [value(s, 2, 0, "attribute_to_name") + 0.01 for s in STEPS]
    np.testing.assert_allclose(lines[2].y, expected)
    band = next(t for t in figure.data if t.name == "attribute → name, range of heads")
    np.testing.assert_allclose(np.subtract(band.y[:5], band.y[5:][::-1]), 0.02)
    chance = next(t for t in figure.data if t.name == "attribute → name, chance")
    assert (chance.line.dash, chance.line.color) == ("dot", lines[0].line.color)
    assert set(chance.y) == {0.03}
    assert "layer 2" in figure.layout.yaxis3.title.text


def test_sharpness_without_chance(scores):
    figure = plots.sharpness(scores, PHASES)
    assert not [t.name for t in figure.data if "chance" in t.name]
    line = next(t for t in figure.data if t.name == plots.SCORE_NAMES["attribute_sharpness"])
    np.testing.assert_allclose(
        line.y, [value(s, 0, 0, "attribute_sharpness") + 0.01 for s in STEPS]
    )


def test_every_head_has_its_line(scores):
    figure = plots.attention_by_head(scores, PHASES, ("name_to_name", "attribute_to_type"))
    heads = [t for t in figure.data if t.name == "head 1"]
    assert len(heads) == 6  # 3 layers, 2 scores
    np.testing.assert_allclose(heads[4].y, [value(s, 1, 1, "attribute_to_type") for s in STEPS])
    assert sum(bool(t.showlegend) for t in heads) == 1
    assert len({(t.line.color, t.line.dash) for t in figure.data if t.name[:4] == "head"}) == 2
    titles = [a.text for a in figure.layout.annotations if a.text.startswith("<b>layer")]
    assert titles[4] == "<b>layer 1<br>attribute → type (share)</b>"
    # Panels of one score share a scale that holds all of their lines.
    tops = {axis.range[1] for axis in list(figure.select_yaxes())[:3]}
    assert len(tops) == 1
    assert tops.pop() > value(200, 2, 1, "name_to_name")


def test_missing_scores_are_named(scores):
    less = scores[scores["metric"] != "attribute_to_text"]
    with pytest.raises(InterpError, match="no attribute_to_text; it has"):
        plots.attention_to_names(less, PHASES)
    with pytest.raises(InterpError, match="no loudness"):
        plots.attention_by_head(scores, PHASES, ["loudness"])


def test_cells_of_roles_reach_to_the_next_checkpoint(roles):
    figure = plots.head_roles(roles, PHASES)
    bars = {t.name: t for t in figure.data if t.type == "bar"}
    assert list(figure.layout.yaxis.ticktext) == ["0.0", "0.1", "1.0"]
    grouping = bars["● name grouping"]
    np.testing.assert_allclose(np.square(grouping.base), [50, 100, 200])
    np.testing.assert_allclose(np.square(np.add(grouping.base, grouping.x))[:2], [100, 200])
    assert set(grouping.y) == {0}
    assert grouping.customdata[0] == (
        "head 0.0, step 50: name grouping<br>name → name 0.400, chance 0.050"
    )
    assert sum(len(t.x) for t in bars.values()) == len(roles)
    # One sign for each unbroken stretch, so that colour is not the only channel.
    signs = {t.name: t for t in figure.data if t.type == "scatter" and t.name.endswith("sign")}
    assert len(signs["● name grouping, sign"].x) == 1
    assert list(signs["▲ positional, sign"].y) == [1, 1]
    assert len({t.marker.symbol for t in signs.values()}) == 4


def test_roles_that_are_not_known(roles):
    with pytest.raises(InterpError, match="no roles"):
        plots.head_roles(roles.assign(role="dreaming"), PHASES)
    with pytest.raises(InterpError, match="empty"):
        plots.head_roles(roles.iloc[:0], PHASES)


def many_roles(n_layers: int, n_heads: int) -> pd.DataFrame:
    names = ["name grouping", "extraction", "type propagation", "positional", "sink", "none"]
    return pd.DataFrame(
        [
            {"layer": layer, "head": head, "role": names[(layer * n_heads + head) % 6],
             "metric": "self_token_of_rest", "value": 0.4, "chance": 0.05, "excess": 0.35}
            for layer in range(n_layers) for head in range(n_heads)
        ]
    )  # fmt: skip


def test_many_heads_are_drawn_at_one_checkpoint():
    roles = many_roles(30, 9)
    for table in (roles, pd.concat([roles.assign(step=0), roles[::-1].assign(step=70)])):
        figure = plots.head_roles(table)
        assert figure.layout.height <= 1200
        bars = {t.name: t for t in figure.data if t.type == "bar"}
        drawn = {
            (int(y), round(base + width / 2)): name
            for name, bar in bars.items()
            for y, base, width in zip(bar.y, bar.base, bar.x, strict=True)
        }
        assert len(drawn) == 270
        assert (drawn[0, 1], drawn[29, 8]) == ("■ extraction", "none")
        assert drawn[2, 4] == "✕ sink"
        assert sum(len(t.x) for t in figure.data if t.type == "scatter") == 270 * 5 / 6
    assert "step 70" in figure.layout.title.text or "step 70" in str(figure.layout.meta)
    assert "own token, of the rest 0.400" in bars["✕ sink"].customdata[0]
    assert plots.head_roles(many_roles(80, 64)).layout.height == 1200
    few = many_roles(2, 3)
    one = plots.head_roles(pd.concat([few.assign(step=0), few.assign(step=5)]), step=5)
    assert list(one.layout.yaxis.ticktext) == ["0", "1"]
    with pytest.raises(InterpError, match="no steps to find step=3"):
        plots.head_roles(few, step=3)


def test_scores_of_one_model_are_drawn_over_layers(scores):
    one = scores.query("step == 20").drop(columns="step")
    for table in (one, scores.query("step == 20")):
        figure = plots.attention_to_names(table)
        line = next(t for t in figure.data if t.name == "attribute → name")
        assert list(line.x) == [0, 1, 2]
        expected = [value(20, la, 0, "attribute_to_name") + 0.01 for la in (0, 1, 2)]
        np.testing.assert_allclose(line.y, expected)
        assert plots.sharpness(table).layout.xaxis.title.text == "layer"
    many = pd.concat([scores.assign(layer=layer) for layer in range(30)])
    assert (
        plots.attention_to_names(
            many.drop_duplicates(["step", "layer", "head", "metric"])
        ).layout.height
        < 1200
    )


def test_phases_need_not_be_known(scores, roles, knockout):
    for figure in (
        plots.attention_to_names(scores),
        plots.sharpness(scores),
        plots.attention_by_head(scores, metrics=("name_to_name",)),
        plots.head_roles(roles),
        plots.knockout_costs(knockout),
    ):
        assert not figure.layout.shapes


def test_costs_in_all_layers_and_in_each(knockout):
    figure = plots.knockout_costs(knockout, PHASES)
    names = [t for t in figure.data if t.name == "attribute → any name"]
    assert [t.yaxis for t in names] == ["y", "y2", "y3"]
    np.testing.assert_allclose(names[0].y, [1, 2, 3])
    np.testing.assert_allclose(names[2].y, [1.4, 2.4, 3.4])
    controls = [t for t in figure.data if t.name == "control"]
    assert {t.line.dash for t in controls} == {"dash"}
    assert {t.line.color for t in controls} == {plots.PALETTE["grey"]}
    assert "all layers" in figure.layout.yaxis.title.text


def test_costs_of_heads_at_one_step(knockout):
    figure = plots.knockout_by_head(knockout)
    assert "step 200" in plots.title(figure)
    grid = figure.data[0]
    assert list(grid.y) == ["0.0", "0.1", "1.0", "1.1"]
    assert [name.replace("<br>", " ") for name in grid.x] == [
        "name → name", "attribute → name", "attribute → any name", "control"
    ]  # fmt: skip
    np.testing.assert_allclose(np.array(grid.z)[3], [4.6, 2.6, 3.6, 5.6])
    earlier = plots.knockout_by_head(knockout, step=100)
    np.testing.assert_allclose(np.array(earlier.data[0].z)[0, 0], 3.2)


def test_missing_knockouts_are_named(knockout):
    whole = knockout[knockout["head"].isna()]
    with pytest.raises(InterpError, match="single heads has no rows"):
        plots.knockout_by_head(whole)
    with pytest.raises(InterpError, match="step 7; there is"):
        plots.knockout_by_head(knockout, step=7)
    with pytest.raises(InterpError, match="no rows of whole layers"):
        plots.knockout_costs(knockout[knockout["head"].notna()], PHASES)
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.knockout_costs(knockout.drop(columns="cost"), PHASES)
    with pytest.raises(InterpError, match="no edges"):
        plots.knockout_costs(knockout.assign(edge="x"), PHASES)


@pytest.mark.parametrize("phases", [PHASES, Phases(None, None, 5.6, 0.05)])
def test_every_figure_is_explained(scores, roles, knockout, phases):
    for figure in (
        plots.attention_to_names(scores, phases),
        plots.attention_by_head(scores, phases),
        plots.sharpness(scores, phases),
        plots.head_roles(roles, phases),
        plots.knockout_costs(knockout, phases),
        plots.knockout_by_head(knockout),
    ):
        assert "Look for" in plots.caption(figure)
        assert "step" in plots.caption(figure)
        assert plots.title(figure)
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert all(t.name for t in figure.data)


def test_all_columns_of_panels_are_shaded(scores):
    figure = plots.attention_by_head(scores, PHASES)
    rectangles = [s for s in figure.layout.shapes if s.type == "rect"]
    assert {(s.xref, s.name) for s in rectangles} == {
        (x, name) for x in ("x", "x2") for name in ("statistics", "plateau", "knowledge")
    }
