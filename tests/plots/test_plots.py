"""The figures show what the run measured, at the right heights and steps."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp import plots
from interp.biographies import ATTRIBUTES
from interp.errors import InterpError, RunError
from interp.knowledge import METRICS
from interp.phases import Phases, fit_power_law
from interp.run import Run
from tests.helpers import without_digests

STEPS = [0, 5, *range(20, 101, 10)]  # as uneven as those of a real run


@pytest.fixture(scope="module")
def untrained(short_run) -> Run:
    """A dozen steps, too few to reach the baseline."""
    return short_run


def rewritten(run: Run, folder: Path, share: dict[str, list[float]]) -> Run:
    """A copy of a run with attribute losses of our own, as shares of the baseline."""
    without_digests(shutil.copytree(run.path, folder))
    rows = [
        {"step": step, "split": split, "metric": metric, "attribute": attribute,
         "value": shares[i] * run.phase_baseline if metric == "attribute_loss" else i / 20}
        for i, step in enumerate(STEPS)
        for split, shares in share.items()
        for metric in METRICS
        for attribute in ("all", *ATTRIBUTES)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Run.load(folder)


KNOWN = [2.0, 1.5, 1.2, 1.04, 1.0, 0.99, 0.97, 0.9, 0.5, 0.2, 0.1]
UNKNOWN = [2.0, 1.5, 1.2, 1.04, 1.0, 1.0, 1.1, 1.3, 1.6, 1.8, 1.9]


@pytest.fixture(scope="module")
def learned(untrained, tmp_path_factory) -> Run:
    """A run whose statistics end at step 30 and whose plateau ends at step 70."""
    folder = tmp_path_factory.mktemp("plots") / "learned"
    splits = {"train": KNOWN, "evaluation": KNOWN, "held_out": UNKNOWN}
    return rewritten(untrained, folder, splits)


def locate_fact(figure: go.Figure, name: str) -> go.Scatter:
    found = [t for t in figure.data if t.name.startswith(name)]
    assert found, f"no trace {name!r} among {[t.name for t in figure.data]}"
    return found[0]


def step_at(place: float) -> float:
    """The step that stands at a place of a square-root axis."""
    return round(place**2, 9)


def bands(figure: go.Figure) -> dict[str, tuple[float, float]]:
    return {
        s.name: (step_at(s.x0), step_at(s.x1)) for s in figure.layout.shapes if s.type == "rect"
    }


@pytest.mark.parametrize("draw", [plots.learning_curves, plots.known_and_held_out])
def test_phases_are_shaded_where_they_are(learned, draw):
    assert (learned.phases.statistics_end, learned.phases.plateau_end) == (30, 70)
    figure = draw(learned)
    assert bands(figure) == {"statistics": (0, 30), "plateau": (30, 70), "knowledge": (70, 100)}
    edges = [step_at(s.x0) for s in figure.layout.shapes if s.type == "line"]
    assert edges == [30, 70]
    named = [t.name for t in figure.data if t.legend == "legend2"]
    assert named == [
        "1 statistics, to step 30", "2 plateau, to step 70", "3 knowledge, from step 70"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("statistics_end", "plateau_end", "expected"),
    [
        (None, None, [("statistics", 0, 100, False)]),
        (20, None, [("statistics", 0, 20, True), ("plateau", 20, 100, False)]),
        (0, None, [("plateau", 0, 100, False)]),
        (20, 20, [("statistics", 0, 20, True), ("knowledge", 20, 100, True)]),
        (
            20,
            100,
            [
                ("statistics", 0, 20, True),
                ("plateau", 20, 100, True),
                ("knowledge", 100, 100, True),
            ],
        ),
    ],
)
def test_bands_for_any_boundaries(statistics_end, plateau_end, expected):
    found = plots.phase_bands(Phases(statistics_end, plateau_end, 5.0, 0.05), 0, 100)
    assert [(b.name, b.start, b.end, b.closed) for b in found] == expected


def test_baselines_are_drawn_at_their_levels(learned):
    figure = plots.learning_curves(learned)
    assert set(locate_fact(figure, "baseline of these people").y) == {learned.phase_baseline}
    assert set(locate_fact(figure, "theoretical baseline").y) == {learned.baseline}
    assert learned.baseline != learned.phase_baseline
    assert f"{learned.phase_baseline:.2f} nats" in locate_fact(figure, "baseline of the").name


def test_curves_are_the_measured_ones(learned):
    figure = plots.learning_curves(learned)
    held_out = [t for t in figure.data if t.name == "held-out people"]
    assert [t.yaxis for t in held_out] == ["y", "y2"]
    assert [step_at(x) for x in held_out[0].x] == STEPS
    np.testing.assert_allclose(held_out[0].y, np.array(UNKNOWN) * learned.phase_baseline)
    np.testing.assert_allclose(held_out[1].y, np.arange(11) / 20)


def test_every_attribute_has_its_own_baseline(untrained):
    figure = plots.attribute_curves(untrained)
    drawn = [t.y[0] for t in figure.data if t.name == "baseline of these people"]
    assert drawn == list(untrained.baselines.statistics.values())
    theory = [t.y[0] for t in figure.data if t.name == "theoretical baseline"]
    assert theory == list(untrained.baselines.theoretical.values())
    losses = [t for t in figure.data if t.legendgroup == "evaluation"][0::2]
    for attribute, line in zip(ATTRIBUTES, losses, strict=True):
        assert list(line.y) == list(untrained.curve("attribute_loss", "evaluation", attribute))


def test_sensitivity_shows_what_is_missing(learned, untrained):
    figure = plots.phase_sensitivity(learned)
    table = learned.phase_sensitivity()
    assert list(locate_fact(figure, "end of the plateau").y) == list(table["plateau_end"])
    assert figure.layout.shapes[0].x0 == 0.05
    never = plots.phase_sensitivity(untrained)
    assert locate_fact(never, "end of the plateau").name.endswith("(never reached)")


def test_without_held_out_people(untrained, tmp_path):
    run = rewritten(untrained, tmp_path / "run", {"train": KNOWN, "evaluation": KNOWN})
    assert "held-out people" not in [t.name for t in plots.learning_curves(run).data]
    with pytest.raises(RunError, match="n_held_out"):
        plots.known_and_held_out(run)


def grid() -> pd.DataFrame:
    sizes = [256, 512, 1024, 2048]
    return pd.DataFrame(
        [
            {"n_individuals": n, "seed": seed, "statistics_end": 50,
             "plateau_end": 50 + round(2 * n**0.7) + 3 * seed,
             "plateau_length": round(2 * n**0.7) + 3 * seed}
            for n in sizes for seed in (0, 1)
        ]
    ).astype({"plateau_end": "Int64", "plateau_length": "Int64"})  # fmt: skip


def test_scaling_draws_runs_fit_and_paper():
    table = grid()
    fit = fit_power_law(
        *(list(table[c].astype(float)) for c in ("n_individuals", "plateau_length"))
    )
    table.loc[7, ["plateau_end", "plateau_length"]] = pd.NA
    figure = plots.scaling(table, fit, "plateau_length")
    runs = locate_fact(figure, "a run")
    assert list(runs.y) == [float(v) for v in table["plateau_length"].dropna()]
    assert list(runs.customdata) == [f", seed {seed}" for seed in table["seed"][:7]]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    for name, coefficient, exponent in (
        ("fit", fit.coefficient, fit.exponent), ("paper", 0.43, 0.81)
    ):  # fmt: skip
        line = next(t for t in figure.data if t.name.startswith(name) and t.fill is None)
        slope = math.log(line.y[-1] / line.y[0]) / math.log(line.x[-1] / line.x[0])
        assert slope == pytest.approx(exponent)
        assert line.y[0] == pytest.approx(coefficient * line.x[0] ** exponent)
    assert f"{fit.low:.2f} to {fit.high:.2f}" in locate_fact(figure, "fit").name
    (band,) = [t for t in figure.data if t.fill == "toself"]
    half = len(band.x) // 2
    upper, lower = np.array(band.y[:half]), np.array(band.y[half:][::-1])
    assert np.all(lower <= upper)
    assert np.log(upper[-1] / lower[-1]) > 0
    assert "1 of 8 runs" in plots.caption(figure)


def test_scaling_needs_a_plateau():
    table = grid().assign(plateau_length=pd.NA)
    fit = fit_power_law([1.0, 2.0, 4.0], [1.0, 2.0, 4.1])
    with pytest.raises(InterpError, match="train for more steps"):
        plots.scaling(table, fit, "plateau_length")
    with pytest.raises(InterpError, match="plateau_end, plateau_length"):
        plots.scaling(grid(), fit, "length")


def all_figures(run: Run) -> list[go.Figure]:
    return [
        plots.learning_curves(run),
        plots.attribute_curves(run),
        plots.known_and_held_out(run),
        plots.phase_sensitivity(run),
    ]


def test_every_figure_is_explained(learned, untrained):
    for figure in [*all_figures(learned), *all_figures(untrained)]:
        assert "Look" in plots.caption(figure)
        assert "steps" in plots.caption(figure) or "share" in plots.caption(figure)
        assert plots.title(figure)
        assert figure.layout.paper_bgcolor is None
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert all(t.name for t in figure.data)
        titles = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
        assert titles
        assert all("(" in text for text in titles)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("background", ["#FFFFFF", "#14171A"])
def test_colours_are_visible_on_light_and_dark(background):
    for colour in [*plots.PALETTE.values(), plots.TEMPLATE.layout.font.color]:
        low, high = sorted([luminance(colour), luminance(background)])
        assert (high + 0.05) / (low + 0.05) > 3.4, colour
