"""Studies of the data distribution: shared runs, tables that survive CSV, figures, verdicts by rule."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.charts.style import caption
from interp.config import SamplingConfig
from interp.errors import ConfigError, InterpError
from interp.plots import distribution as plots
from interp.run import Run
from interp.studies import celebrities, power_law
from interp.studies.celebrities import CelebritiesSettings, distribution_name
from interp.studies.distribution import UNIFORM, comparable, learning_curves
from interp.studies.paired import by_seed, everywhere, gains, lowest_grows, some_gain
from interp.studies.power_law import PowerLawSettings
from interp.studies.rules import differs
from interp.studies.study import Tables
from tests.helpers import read_back

BRIEF = {"preset": "smoke", "n_steps": 10, "seeds": (0,)}
POWER_LAW = PowerLawSettings(
    **BRIEF, exponents=(0.0, 1.0), sizes=(16, 24), every=None, shorter=(5,)
)
CELEBRITIES = CelebritiesSettings(
    **BRIEF, n_individuals=16, n_celebrities=(4,), weights=(8.0,), exponents=(1.0,)
)
EXPONENTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SIZES = (256, 512, 1024)
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def runs(trained) -> dict[str, Run]:
    """All runs of both studies, each trained once, by settings."""
    planned = (*power_law.runs(POWER_LAW), *celebrities.planned(CELEBRITIES))
    return {one.config.to_yaml(): trained(one.config) for one in planned}


@pytest.fixture(scope="module")
def of_power_law(runs) -> Tables:
    planned = [runs[one.config.to_yaml()] for one in power_law.runs(POWER_LAW)]
    return power_law.tables(POWER_LAW, planned[::-1])


@pytest.fixture(scope="module")
def of_celebrities(runs) -> Tables:
    planned = [runs[one.config.to_yaml()] for one in celebrities.planned(CELEBRITIES)]
    return celebrities.tables(CELEBRITIES, planned[::-1])


# Runs and tables


def test_studies_share_their_runs(runs):
    """Exponent 0 is uniform sampling, which celebrities are compared with too, as are power laws."""
    assert len(power_law.runs(POWER_LAW)) + len(celebrities.planned(CELEBRITIES)) == 6 + 3
    assert len(runs) == 6 + 1
    uniform = power_law.runs(POWER_LAW)[0].config
    assert uniform == POWER_LAW.distribution(0, 16, UNIFORM)
    assert uniform == celebrities.planned(CELEBRITIES)[0].config


def test_default_runs_are_one_for_each_cell_and_seed():
    configs = [run.config for run in power_law.runs(PowerLawSettings())]
    cells = {
        (c.seed, c.population.n_individuals, c.sampling.exponent or 0.0, c.training.n_steps)
        for c in configs
    }
    assert len(configs) == len(cells) == 3 * (4 + 1) * 6
    assert {c.evaluation.every for c in configs} == {power_law.SPACING}
    planned = celebrities.planned(CelebritiesSettings())
    assert len({run.config.to_yaml() for run in planned}) == len(planned) == 3 * (1 + 4 + 2)
    as_often = PowerLawSettings(every=None)
    unshared = {r.config.to_yaml() for r in planned} - {
        r.config.to_yaml() for r in power_law.runs(as_often)
    }
    assert len(unshared) == 3 * 4, "measured as often, only celebrities are trained anew"


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (PowerLawSettings, {"exponents": (0.5, 0.5)}, "exponents"),
        (PowerLawSettings, {"sizes": ()}, "sizes"),
        (PowerLawSettings, {"shorter": (500, 500)}, "each number of steps once"),
        (PowerLawSettings, {"shorter": (1000,)}, "all below n_steps"),
        (CelebritiesSettings, {"weights": (4.0, 4.0)}, "weights"),
        (CelebritiesSettings, {"weights": (1.0, 4.0)}, "are uniform sampling"),
        (CelebritiesSettings, {"exponents": (0.0,)}, "are uniform sampling"),
    ],
)
def test_settings_that_would_train_a_run_twice_are_refused(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        model(**settings)


def test_tables_hold_what_the_runs_measured(runs, of_power_law, of_celebrities):
    table = of_power_law["runs"]
    assert list(zip(table["n_individuals"], table["exponent"], strict=True)) == [
        (16, 0.0), (16, 1.0), (24, 0.0), (24, 1.0),
    ]  # fmt: skip
    uniform = runs[power_law.runs(POWER_LAW)[0].config.to_yaml()]
    assert table["attribute_loss"][0] == pytest.approx(uniform.curve().iloc[-1], abs=1e-5)
    assert table["n_steps"].unique().tolist() == [10]
    shorter = of_power_law["shorter"]
    assert shorter[["n_individuals", "exponent", "n_steps"]].to_numpy().tolist() == [
        [16, 0, 5], [16, 1, 5],
    ]  # fmt: skip
    assert set(of_power_law["curves"]["step"]) == {0, 10}, "of the longest runs"
    table = of_celebrities["runs"]
    assert list(table["distribution"]) == ["uniform", "4 people × 8", "power law α = 1"]
    assert table["attribute_loss"][0] == of_power_law["runs"]["attribute_loss"][0]


def test_curves_keep_every_second_measurement_and_the_last(runs):
    run = next(iter(runs.values()))
    steps = list(run.curve().index)
    assert len(steps) >= 3
    for every in (1, 2, 3, 100):
        curves = learning_curves(run, every)
        loss = curves[curves["metric"] == "attribute_loss"].set_index("step")["value"]
        assert list(loss.index) == sorted({*steps[::every], steps[-1]})
        assert loss.iloc[-1] == pytest.approx(run.curve().iloc[-1], abs=1e-5)


def test_studies_survive_csv(of_power_law, of_celebrities):
    for study, made in ((power_law.STUDY, of_power_law), (celebrities.STUDY, of_celebrities)):
        again = read_back(made)
        assert study.claims(again) == study.claims(made)
        figures, from_csv = study.figures(made), study.figures(again)
        assert figures
        for anchor, figure in figures.items():
            assert figure.to_json() == from_csv[anchor].to_json()
        # One seed that was barely trained decides nothing.
        assert {claim.verdict for claim in study.claims(made)} == {"cannot tell"}


def test_a_study_without_any_finished_run_says_so():
    for study in (power_law.STUDY, celebrities.STUDY):
        empty = study.tables(study.settings(), [])
        for tables in (empty, read_back(empty)):
            assert study.figures(tables) == {}
            found = study.claims(tables)
            assert len(found) == (5 if study is power_law.STUDY else 4)
            assert {claim.verdict for claim in found} == {"cannot tell"}
            assert {claim.measured for claim in found} <= {
                "nothing was measured",
                "nothing to compare",
            }


# The rule of comparison


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ([25, 25, 25], True),
        ([50, 25, 0], True),
        ([24, 24, 24], None),
        ([100, 100, -1], None),
        ([0, 0, 0], None),
        ([-50, -25, 0], False),
        ([100, 100], None),
        ([], None),
    ],
)
def test_a_difference_counts_where_it_is_large_and_in_no_seed_reversed(differences, outcome):
    assert differs(differences, 25) is outcome


def test_plateaus_that_did_not_end_count_as_just_missed():
    table = power_laws(plateau=lambda n, a: 300)["runs"]
    table.loc[[0, 1], "plateau_end"] = pd.NA
    found = comparable(table)
    assert found["plateau_end"].tolist()[:3] == [1025, 1025, 300]
    assert found["ended"].tolist()[:3] == [False, False, True]


def test_only_seeds_with_every_run_are_compared():
    table = comparable(power_laws()["runs"])
    table = table[(table["n_individuals"] == 256)]
    missing = table[~((table["seed"] == 1) & (table["exponent"] == 0.8))]
    assert list(by_seed(missing, "exponent", "plateau_end", list(EXPONENTS)).index) == [0, 2]
    never = table[table["exponent"] != 0.8]
    assert by_seed(never, "exponent", "plateau_end", list(EXPONENTS)).empty


def test_gains_count_what_is_better_as_positive():
    values = pd.DataFrame({0.0: [400.0, 425.0], 0.6: [300.0, 450.0]})
    assert gains(values, 0.0, -1)[0.6].tolist() == [100, -25]
    assert gains(values, 0.0, 1)[0.6].tolist() == [-100, 25]
    assert gains(values, "uniform", 1).empty


@pytest.mark.parametrize(
    ("gained", "expected"),
    [
        ([[-0.1, -0.1, -0.1], [0.03, 0.02, 0.02]], "agree"),
        ([[-0.1, -0.1, -0.1], [0.0, 0.0, 0.0]], "disagree"),
        ([[-0.1, -0.1, -0.1], [0.01, 0.0, 0.0]], "cannot tell"),
        ([[0.2, 0.2, -0.01]], "cannot tell"),
        ([[0.2, 0.2]], "cannot tell"),
        ([], "cannot tell"),
    ],
)
def test_some_gain_needs_one_that_is_better_in_all_seeds(gained, expected):
    assert some_gain(pd.DataFrame(dict(enumerate(gained))), 0.02, 3) == expected


def test_one_counterexample_is_enough():
    assert everywhere([True, True], 2) == "agree"
    assert everywhere([None, False], 2) == "disagree"
    assert everywhere([None, True], 2) == everywhere([False], 2) == "cannot tell"


def test_the_lowest_point_has_to_grow_in_every_seed():
    def at(*points: float) -> pd.DataFrame:
        """A table in which each seed is lowest at one point of a scale."""
        return pd.DataFrame([{x: abs(x - point) for x in EXPONENTS} for point in points])

    assert lowest_grows([at(0.0, 0.2), at(0.0, 0.4), at(0.2, 0.4)], 2, 2) == "agree"
    assert lowest_grows([at(0.6, 0.4), at(0.2, 0.2)], 2, 2) == "disagree"
    assert lowest_grows([at(0.0, 0.2), at(0.4, 0.2)], 2, 2) == "cannot tell"
    assert lowest_grows([at(0.0, 0.2), at(0.4, 0.4)], 2, 3) == "cannot tell"


# Power law: verdicts of made-up tables


def power_laws(
    plateau: Callable[[int, float], float] = lambda n, a: n / 2 + 200 * (a - 0.7) ** 2,
    loss: Callable[[int, float], float] = lambda n, a: (a - (n - 256) / 1000) ** 2,
    accuracy: Callable[[int, float], float] = lambda n, a: 0.2 + 0.1 * a,
    shortest: float = 0.8,
) -> dict[str, pd.DataFrame]:
    """Tables in which plateau end, loss and accuracy are functions of N and α, alike in all seeds.

    In runs of half the steps of 512 people the loss is lowest at `shortest`.
    """
    table = pd.DataFrame(
        [
            {
                "seed": seed,
                "n_individuals": n,
                "exponent": a,
                "n_steps": 1000,
                "statistics_end": 100,
                "plateau_end": round(plateau(n, a)),
                "attribute_loss": loss(n, a) + 0.001 * seed,
                "attribute_accuracy": accuracy(n, a) + 0.001 * seed,
            }
            for n in SIZES
            for a in EXPONENTS
            for seed in SEEDS
        ]
    )
    curves = ends_of_curves(table)
    columns = ["seed", "n_individuals", "exponent", "step", "metric", "value"]
    table = table.astype({"plateau_end": "Int64"})
    shorter = table[table["n_individuals"] == 512].assign(n_steps=500)
    shorter["attribute_loss"] = (shorter["exponent"] - shortest) ** 2
    return {"runs": table, "curves": curves[columns], "shorter": shorter}


def ends_of_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Curves that hold the last step only."""
    return pd.concat(
        [
            runs.assign(step=1000, metric=metric, value=runs[metric])
            for metric in ("attribute_loss", "attribute_accuracy")
        ],
        ignore_index=True,
    )


def verdicts(tables: Tables) -> list[str]:
    found = power_law.claims(tables)
    assert power_law.claims(read_back(tables)) == found
    return [claim.verdict for claim in found]


def shortest_at(*shortest: float) -> Callable[[int, float], float]:
    return lambda n, a: 200 if a in shortest else 300


def test_power_laws_as_in_the_paper_agree():
    tables = power_laws(plateau=shortest_at(0.6))
    assert verdicts(tables) == ["agree"] * 5
    shorter, shortest, grows, lengths, better = power_law.claims(tables)
    assert "N = 256: step 300 (300, 300, 300) uniform, 250 (250, 250, 250) at α 0.6 and 0.8" in (
        shorter.measured
    )
    assert "300 (0), 300 (0.2), 300 (0.4), 200 (0.6), 300 (0.8)" in shortest.measured
    assert "N = 1,024: 0.8, 0.8, 0.8" in grows.measured
    assert "N = 512: best α of each seed: 1,000 steps: 0.2, 0.2, 0.2" in lengths.measured
    assert "; 500 steps: 0.8, 0.8, 0.8 (best mean loss 0.00 nats)" in lengths.measured
    assert "0.201 (0.200, 0.201, 0.202) uniform, 0.301 (0.300, 0.301, 0.302) at α = 1" in (
        better.measured
    )
    assert all("(1,000 steps, 3 seeds)" in claim.measured for claim in (shorter, grows, better))


def test_the_numbers_of_power_laws_are_those_that_the_rules_read():
    tables = power_laws(plateau=shortest_at(0.6))
    tables["runs"].loc[0, "plateau_end"] = 330  # seed 0, N = 256, α = 0
    earlier, shortest, grows, lengths, _ = (
        {one.group: one.values for one in claim.readings} for claim in power_law.claims(tables)
    )
    assert earlier == {"N = 256": (80, 50, 50), "N = 512": (50,) * 3, "N = 1,024": (50,) * 3}
    assert shortest == {f"N = {n:,}": (100,) * 3 for n in SIZES}
    assert grows[""] == pytest.approx([0.8] * 3)
    assert lengths[""] == pytest.approx([0.6] * 3)


def test_the_opposite_disagrees():
    tables = power_laws(
        plateau=lambda n, a: 200 + 300 * a,
        loss=lambda n, a: (a - (1024 - n) / 1000) ** 2,
        accuracy=lambda n, a: 0.2 - 0.1 * a,
        shortest=0.2,
    )
    assert verdicts(tables) == ["disagree"] * 5


@pytest.mark.parametrize("exponent", [0.2, 0.4, 1.0])
def test_one_size_with_another_shortest_plateau_is_a_counterexample(exponent):
    def plateau(n: int, a: float) -> float:
        return shortest_at(exponent if n == 512 else 0.8)(n, a)

    assert verdicts(power_laws(plateau=plateau))[1] == "disagree"


def test_ties_are_no_evidence():
    for shortest in ((), EXPONENTS, (0.4, 0.6), (0.6, 0.8, 1.0)):
        assert verdicts(power_laws(plateau=shortest_at(*shortest)))[1] == "cannot tell"
    assert verdicts(power_laws(plateau=shortest_at(0.6, 0.8)))[1] == "agree"
    same = power_laws(loss=lambda n, a: (a - 0.4) ** 2, accuracy=lambda n, a: 0.2 + 0.01 * a)
    assert verdicts(same)[2::2] == ["cannot tell", "cannot tell"]
    no_shorter = power_laws(shortest=0.2)
    assert verdicts(no_shorter)[3] == "cannot tell"
    del no_shorter["shorter"]
    assert verdicts(no_shorter)[3] == "cannot tell"


def test_seeds_that_contradict_one_another_decide_nothing():
    tables = power_laws(plateau=shortest_at(0.6))
    table = tables["runs"]
    seed = table["seed"] == 2
    table.loc[seed & (table["exponent"] == 0.6), "plateau_end"] = 325
    table.loc[seed & (table["exponent"] > 0), "attribute_accuracy"] = 0.19
    table.loc[seed, "attribute_loss"] = table.loc[seed, "exponent"]
    assert verdicts(tables) == ["cannot tell"] * 3 + ["agree", "cannot tell"]


def test_a_best_exponent_that_falls_in_between_does_not_grow():
    tables = power_laws(loss=lambda n, a: (a - {256: 0.2, 512: 0.0, 1024: 0.8}[n]) ** 2)
    assert verdicts(tables)[2] == "cannot tell"


@pytest.mark.parametrize(
    "kept",
    [
        lambda t: t["seed"] < 2,
        lambda t: t["n_individuals"] == 1024,
        lambda t: t["exponent"] == 0.0,
        lambda t: (t["exponent"] == 0.0) | (t["seed"] == 0),
        lambda t: (t["exponent"] == 0.0) != (t["seed"] == 0),
        lambda t: ~((t["n_individuals"] == 256) & (t["exponent"] == 0.4)),
        lambda t: ~((t["n_individuals"] == 1024) & (t["seed"] == 1) & (t["exponent"] == 1.0)),
        lambda t: t["exponent"] > 0,
        lambda t: t["exponent"] <= 0.8,
    ],
)
def test_incomplete_tables_cannot_tell_and_can_be_drawn(kept):
    tables = power_laws(plateau=shortest_at(0.6))
    some = {name: table[kept(table)] for name, table in tables.items()}
    found = verdicts(some)
    assert set(found) <= {"agree", "cannot tell"}
    assert "cannot tell" in found
    assert power_law.figures(some)


def test_without_exponents_on_both_sides_none_is_the_shortest():
    tables = power_laws(plateau=shortest_at(0.6))
    for below_or_above in (lambda a: a <= 0.8, lambda a: a >= 0.6):
        some = {name: t[below_or_above(t["exponent"])] for name, t in tables.items()}
        assert verdicts(some)[1] == "cannot tell"


def test_the_figures_of_power_laws_hold_the_numbers():
    tables = power_laws()
    table = tables["runs"]
    never = (table["n_individuals"] == 1024) & (table["exponent"] == 0.0)
    table.loc[never, "plateau_end"] = pd.NA
    figures = power_law.figures(read_back(tables))
    assert list(figures) == ["power-law-plateau", "power-law-final", "power-law-curves"]
    plateau = figures["power-law-plateau"]
    traces = {trace.name: trace for trace in plateau.data}
    assert [name for name in traces if "," not in name.replace("1,024", "")] == [
        "N = 256", "N = 512", "N = 1,024",
    ]  # fmt: skip
    line = traces["N = 512"]
    assert list(line.x) == list(EXPONENTS)
    assert line.y[0] == pytest.approx(256 + 98)
    assert len(traces["N = 512, a seed"].x) == len(EXPONENTS) * len(SEEDS), "every seed is a point"
    symbols = traces["N = 1,024, a seed"].marker.symbol
    assert [s == "triangle-right" for s in symbols] == list(never[table["n_individuals"] == 1024])
    assert traces["N = 1,024"].y[0] == 1005
    assert "Triangles (3 of 54 runs)" in caption(plateau)
    stars = {
        (trace.name, trace.yaxis or "y"): trace.x[0]
        for trace in figures["power-law-final"].data
        if "best" in trace.name
    }
    assert stars["N = 256, best mean", "y"] == 0.0
    assert stars["N = 1,024, best mean", "y"] == 0.8
    assert stars["N = 1,024, best mean", "y2"] == 1.0, "the highest accuracy, the lowest loss"
    check_axes_and_captions(figures)


def test_every_tied_best_mean_is_a_star():
    figure = power_law.figures(power_laws(plateau=shortest_at(0.4, 0.8)))["power-law-plateau"]
    stars = [list(trace.x) for trace in figure.data if "best" in trace.name]
    assert stars == [[0.4, 0.8]] * len(SIZES)


def test_learning_curves_are_of_the_largest_population_and_start_with_the_uniform_one(
    of_power_law,
):
    figure = power_law.figures(of_power_law)["power-law-curves"]
    drawn = [trace.name for trace in figure.data if trace.showlegend]
    assert drawn == ["α = 0", "α = 1"]
    table = of_power_law["curves"]
    wanted = table[
        (table["n_individuals"] == 24)
        & (table["exponent"] == 0)
        & (table["metric"] == "attribute_loss")
    ]
    line = next(trace for trace in figure.data if trace.name == "α = 0")
    assert np.allclose(line.y, wanted["value"])
    assert figure.layout.title.text == "Learning with 24 people"


def check_axes_and_captions(figures) -> None:
    for figure in figures.values():
        assert len(caption(figure)) > 100
        assert all(axis.title.text for axis in figure.select_yaxes())
        assert any(axis.title.text for axis in figure.select_xaxes())
        assert figure.layout.height <= 1000


# Celebrities: verdicts of made-up tables


def made_celebrities(
    plateau: dict[str, float | list[float]], accuracy: dict[str, float | list[float]]
) -> dict[str, pd.DataFrame]:
    """Tables of the default distributions with these values; others are as good as uniform sampling."""
    rows = []
    for sampling in (SamplingConfig(**s) for s in CelebritiesSettings().samplings()):
        name = distribution_name(sampling)
        ends = np.broadcast_to(plateau.get(name, 400), len(SEEDS))
        shares = np.broadcast_to(accuracy.get(name, 0.2), len(SEEDS))
        rows += [
            {
                "distribution": name,
                "seed": seed,
                "n_individuals": 1024,
                **sampling.model_dump(
                    include={"kind", "n_celebrities", "weight_celebrities", "exponent"}
                ),
                "n_steps": 1000,
                "statistics_end": 200,
                "plateau_end": int(ends[seed]),
                "attribute_loss": 4.0,
                "attribute_accuracy": float(shares[seed]),
            }
            for seed in SEEDS
        ]
    table = pd.DataFrame(rows)
    curves = ends_of_curves(table)
    columns = ["distribution", "seed", "n_individuals", "step", "metric", "value"]
    return {"runs": table, "curves": curves[columns]}


SOME, LAW = "64 people × 16", "power law α = 0.8"


@pytest.mark.parametrize(
    ("plateau", "accuracy", "expected"),
    [
        ({SOME: 300, LAW: 300}, {SOME: 0.3, LAW: 0.3}, ["agree"] * 4),
        # Exactly half, exactly twice as much; then just outside.
        ({SOME: 350, LAW: 300}, {SOME: 0.35, LAW: 0.275}, ["agree"] * 4),
        ({SOME: 351, LAW: 300}, {SOME: 0.36, LAW: 0.275}, ["agree", "agree"] + ["disagree"] * 2),
        # Celebrities are worse than nothing; power laws are not.
        (
            dict.fromkeys(("64 people × 4", SOME, "256 people × 4", "256 people × 16"), 450)
            | {LAW: 300},
            dict.fromkeys(("64 people × 4", SOME, "256 people × 4", "256 people × 16"), 0.1)
            | {LAW: 0.3},
            ["disagree"] * 4,
        ),
        # Power laws gain nothing, so that there is nothing to be similar to.
        ({SOME: 300}, {SOME: 0.3}, ["agree", "agree", "cannot tell", "cannot tell"]),
        # Seeds contradict one another.
        (
            {SOME: [300, 300, 425], LAW: 300},
            {SOME: [0.3, 0.3, 0.19], LAW: 0.3},
            ["cannot tell"] * 4,
        ),
        # Better, but by too little.
        (
            {SOME: 390, LAW: 390},
            {SOME: 0.21, LAW: 0.21},
            ["cannot tell"] * 4,
        ),
    ],
)
def test_celebrities_are_judged_by_rule(plateau, accuracy, expected):
    tables = made_celebrities(plateau, accuracy)
    found = celebrities.claims(tables)
    assert [claim.verdict for claim in found] == expected
    assert celebrities.claims(read_back(tables)) == found


def test_celebrities_say_what_was_measured():
    tables = made_celebrities({SOME: [300, 300, 325], LAW: 300}, {SOME: 0.3, LAW: 0.3})
    shorter, better, _, similar = celebrities.claims(tables)
    assert "uniform 400 (400, 400, 400); 64 people × 4 400" in shorter.measured
    assert "64 people × 16 308 (300, 300, 325)" in shorter.measured
    assert shorter.measured.endswith("1,024 people (1,000 steps, 3 seeds)")
    assert "64 people × 16 0.300" in better.measured
    assert f"{SOME} 0.100 (0.100, 0.100, 0.100); {LAW} 0.100" in similar.measured


def test_numbers_of_celebrities_are_those_that_the_rules_read():
    """Interval of (100, 100, 75): mean 91.7, s 14.4, times 4.303 over the root of 3."""
    tables = made_celebrities({SOME: [300, 300, 325], LAW: 350}, {SOME: 0.3, LAW: [0.3, 0.25, 0.3]})
    shorter, better, ends, accuracies = celebrities.claims(tables)
    gains_of = {one.group: one for one in shorter.readings}
    assert set(gains_of) == {"64 people × 4", SOME, "256 people × 4", "256 people × 16"}
    assert gains_of[SOME].values == (100, 100, 75)
    assert gains_of[SOME].limit == 25
    assert gains_of[SOME].interval == pytest.approx((55.8, 127.5), abs=0.1)
    assert gains_of["64 people × 4"].limit == 0
    assert next(one for one in better.readings if one.group == SOME).values == pytest.approx(
        [0.1] * 3
    )
    assert [one.values for one in ends.readings] == [(50, 50, 50), (2, 2, 1.5)]
    assert [one.limit for one in ends.readings] == [25, 2]
    law, times = accuracies.readings
    assert law.values == pytest.approx((0.1, 0.05, 0.1))
    assert times.values == pytest.approx((1, 2, 1))
    # Where the power law gains too little nothing is compared with it.
    little = made_celebrities({SOME: 300, LAW: 390}, {SOME: 0.3, LAW: 0.3})
    assert [one.values for one in celebrities.claims(little)[2].readings] == [(10, 10, 10), ()]


@pytest.mark.parametrize("left_out", ["uniform", "celebrities", "power_law", "seed"])
def test_celebrities_with_missing_runs_cannot_tell_and_can_be_drawn(left_out):
    tables = made_celebrities({SOME: 300, LAW: 300}, {SOME: 0.3, LAW: 0.3})
    table = tables["runs"]
    names = set(table.loc[table["kind"] != left_out, "distribution"])
    some = {
        name: t[t["distribution"].isin(names) & ((left_out != "seed") | (t["seed"] != 1))]
        for name, t in tables.items()
    }
    expected = ["cannot tell"] * 4
    if left_out == "power_law":
        expected[:2] = ["agree", "agree"]
    assert [claim.verdict for claim in celebrities.claims(some)] == expected
    assert bool(celebrities.figures(read_back(some))) == (left_out != "uniform")


def test_the_figures_of_celebrities_hold_the_numbers():
    tables = made_celebrities({SOME: [300, 300, 325], LAW: 300}, {SOME: 0.3, LAW: 0.3})
    tables["runs"].loc[0, "plateau_end"] = None
    figures = celebrities.figures(read_back(tables))
    assert list(figures) == ["celebrities-compared", "celebrities-curves"]
    compared = figures["celebrities-compared"]
    first = {trace.name: trace for trace in compared.data if trace.yaxis == "y"}
    assert list(first[f"{SOME}, a seed"].x) == [300, 300, 325]
    assert first[SOME].x[0] == pytest.approx(308.333, abs=0.01)
    assert list(first["uniform, a seed"].x) == [1025, 400, 400]
    assert first["uniform, a seed"].marker.symbol[0] == "triangle-right"
    assert "Triangles (1 of 21 runs)" in caption(compared)
    assert (compared.layout.yaxis.ticktext[0], compared.layout.yaxis.range[1]) == ("uniform", -0.5)
    check_axes_and_captions(figures)


def test_figures_of_nothing_or_of_other_tables_are_refused():
    table = comparable(power_laws()["runs"])
    for draw in (plots.plateau_against_exponent, plots.final_against_exponent):
        with pytest.raises(InterpError, match="No run is finished"):
            draw(table.iloc[:0])
        with pytest.raises(InterpError, match="lacks the columns"):
            draw(table.drop(columns="exponent"))
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.compared_distributions(table)
    with pytest.raises(InterpError, match="lacks the columns"):
        plots.distribution_curves(table)


def test_figures_are_written_as_files(tmp_path: Path):
    for anchor, figure in power_law.figures(power_laws()).items():
        figure.write_html(tmp_path / f"{anchor}.html", include_plotlyjs=False)
        assert (tmp_path / f"{anchor}.html").stat().st_size > 1000
