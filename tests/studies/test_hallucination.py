"""The study of hallucination: its runs, detector, claims and figures."""

from typing import Any

import pandas as pd
import pytest

import interp
from interp.charts.style import caption
from interp.errors import ConfigError
from interp.knowledge import METRICS, split_batch, value_table
from interp.memory.confidence import SCORES, UNITS, area_under
from interp.run import Run
from interp.studies import hallucination as study
from tests.helpers import read_back

SETTINGS = study.HallucinationSettings(
    preset="smoke", seeds=(0, 1), run={"training.precision": "fp32", "training.n_steps": 20}
)


@pytest.fixture(scope="module")
def runs(trained) -> list[Run]:
    return [trained(plan.config) for plan in study.planned(SETTINGS)]


@pytest.fixture(scope="module")
def tables(runs: list[Run]) -> dict[str, pd.DataFrame]:
    return study.tables(SETTINGS, runs[::-1])


def test_runs_are_the_preset_as_it_is() -> None:
    configs = [plan.config for plan in study.planned(study.HallucinationSettings())]
    assert configs == [interp.preset("tiny", seed=seed) for seed in (0, 1, 2)]


@pytest.mark.parametrize(
    "run", [{"population.n_held_out": 0}, {"evaluation.splits": ("evaluation",)}]
)
def test_without_people_never_seen_there_is_no_study(run: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="held"):
        study.planned(study.HallucinationSettings(run=run))


def test_tables_hold_what_the_runs_measured(
    runs: list[Run], tables: dict[str, pd.DataFrame]
) -> None:
    run = runs[1]
    own = tables["curves"].query("seed == 1 and metric == 'entropy' and split == 'held_out'")
    curve = own.set_index("step")["value"]
    assert curve.to_dict() == run.curve("entropy", "held_out").round(5).to_dict()
    last = run.steps[-1]
    known, held_out = (
        value_table(run.model(last), split_batch(run.corpus, split))[METRICS.index("entropy")]
        for split in ("evaluation", "held_out")
    )
    found = tables["detector"].query(f"seed == 1 and step == {last} and score == 'entropy'")
    areas = found.set_index("unit")["value"]
    assert areas["prediction"] == pytest.approx(
        area_under(held_out.ravel(), known.ravel()), abs=1e-5
    )
    assert areas["person"] == pytest.approx(
        area_under(held_out.mean(axis=1), known.mean(axis=1)), abs=2e-3
    )
    assert list(tables["phases"]["seed"]) == [0, 1]
    assert set(tables["roc"]["moment"]) <= {"end of the plateau", "midway", "last step"}


def test_steps_are_spaced() -> None:
    steps = [0, 5, 10, 100, 105, 110, 115, 120, 200]
    assert study.spaced(steps, [115]) == [0, 5, 10, 100, 110, 115, 120, 200]


# Claims, on made-up tables

STEPS = (0, 100, 200, 250, 300, 500)


def made_up(
    held_out: tuple[float, ...] = (10, 6, 5, 5, 6, 9),
    top: tuple[float, ...] = (0.01, 0.04, 0.04, 0.04, 0.1, 0.3),
    known_top: float = 0.9,
    area: float = 0.95,
    plateau_end: int | None = 250,
    seeds: tuple[int, ...] = (0, 1),
) -> dict[str, pd.DataFrame]:
    """Tables of runs with a baseline of 5 nats whose statistics end at step 200."""
    curves, phases, detector = [], [], []
    for seed in seeds:
        phases.append((seed, 5.0, 4.9, 200, plateau_end))
        for i, step in enumerate(STEPS):
            of_split = {
                "held_out": (held_out[i], 0.01, top[i], 2.0),
                "evaluation": (1.0, 0.9, known_top, 0.2),
            }
            for split, values in of_split.items():
                for metric, value in zip(METRICS, values, strict=True):
                    curves.append((seed, step, split, metric, value))
            for unit in UNITS:
                for score in SCORES:
                    detector.append((seed, step, unit, score, area if step == 500 else 0.5))
    names = ["seed", "baseline", "phase_baseline", "statistics_end", "plateau_end"]
    of_phases = pd.DataFrame(phases, columns=names).astype({"plateau_end": "Int64"})
    return {
        "curves": pd.DataFrame(curves, columns=["seed", "step", "split", "metric", "value"]),
        "phases": of_phases,
        "detector": pd.DataFrame(detector, columns=["seed", "step", "unit", "score", "value"]),
    }


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    found = study.claims(tables)
    assert study.claims(read_back(tables)) == found
    return [claim.verdict for claim in found]


def test_verdicts_agree() -> None:
    assert verdicts(made_up()) == ["agree"] * 4


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"held_out": (10, 6, 5, 5, 5, 6)}, 0),  # at step 500, twice the plateau's end
        ({"held_out": (10, 6, 5, 4, 4, 4)}, 0),  # never
        ({"top": (0.01, 0.04, 0.04, 0.04, 0.05, 0.06)}, 1),
        ({"known_top": 0.35}, 2),
        ({"area": 0.8}, 3),
    ],
)
def test_verdicts_disagree(changes: dict[str, Any], place: int) -> None:
    expected = ["agree"] * 4
    expected[place] = "disagree"
    assert verdicts(made_up(**changes)) == expected


def test_a_loss_that_never_comes_down_to_the_baseline_rises_from_its_lowest() -> None:
    above = (10, 7, 6.2, 6.1, 6.5, 9)
    assert verdicts(made_up(held_out=above))[0] == "agree"
    assert "step 300 (plateau ends at 250)" in study.claims(made_up(held_out=above))[0].measured


def test_verdicts_cannot_be_told() -> None:
    cannot = ["cannot tell"] * 4
    assert verdicts(made_up(plateau_end=None)) == cannot
    assert verdicts(made_up(seeds=(0,))) == cannot
    one, other = made_up(seeds=(0,)), made_up(seeds=(1,), area=0.7)
    both = {name: pd.concat([one[name], other[name]]) for name in one}
    assert verdicts(both) == ["agree", "agree", "agree", "cannot tell"]
    assert [claim.verdict for claim in study.claims({})] == cannot
    empty = study.tables(SETTINGS, [])
    assert all(table.empty for table in empty.values())
    assert [claim.verdict for claim in study.claims(empty)] == cannot
    assert study.figures(empty) == study.figures({}) == {}


def test_numbers_are_those_that_the_rules_read() -> None:
    """The loss stays above 5.25 nats from step 300 on; the first seed's plateau ends at 250."""
    one, other = (
        made_up(seeds=(0,)),
        made_up(plateau_end=300, top=(0.01, 0.02, 0.1, 0.1, 0.1, 0.3), seeds=(1,)),
    )
    never = made_up(plateau_end=None, seeds=(2,))
    tables = {name: pd.concat([one[name], other[name], never[name]]) for name in one}
    numbers = [
        ((300 / 250, 300 / 300), 0.75),  # the threshold nearest to their mean
        ((0.3 / 0.04, 0.3 / 0.1), 2.0),
        ((0.9 - 0.3, 0.9 - 0.3), 0.1),
        ((0.95, 0.95), 0.8),
    ]
    for claim, (values, limit) in zip(study.claims(tables), numbers, strict=True):
        (number,) = claim.readings
        assert number.values == pytest.approx(values), claim.claim
        assert number.limit == limit
    falls = study.claims(made_up(held_out=(10, 6, 5, 4, 4, 4)))[0]
    assert falls.verdict == "disagree"
    assert falls.readings[0].values == (), "a loss that never rises has no step"


def test_figures_hold_the_numbers(tables: dict[str, pd.DataFrame]) -> None:
    given = read_back(tables | made_up())
    figures = study.figures(given)
    assert list(figures) == [
        "hallucination-curves", "hallucination-roc", "hallucination-detector",
    ]  # fmt: skip
    drawn = {
        (t.name, t.yaxis): t for t in figures["hallucination-curves"].data if t.x[0] is not None
    }
    assert drawn["held-out people", "y"].y == pytest.approx((10, 6, 5, 5, 6, 9))
    assert drawn["no-knowledge baseline (5.00 nats)", "y"].y == (5.0, 5.0)
    for figure in figures.values():
        assert len(caption(figure)) > 100
    roc = figures["hallucination-roc"]
    assert {t.name for t in roc.data} >= {"chance", "last step"}


def test_a_run_that_never_leaves_its_plateau_is_drawn(tables: dict[str, pd.DataFrame]) -> None:
    assert tables["phases"]["plateau_end"].isna().any()
    assert set(study.figures(read_back(tables))) == set(study.figures(tables))
