"""The studies of schedules: warm-up and adaptive ones, and groups one after the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp.biographies.sampling import Stages, sampler
from interp.errors import ConfigError
from interp.plots import caption, title
from interp.run import Run
from interp.studies import sequential, warm_up
from interp.studies.rules import Claim
from interp.studies.study import Study
from interp.turns import turns
from tests.helpers import read_back

Tables = Mapping[str, pd.DataFrame]


def verdicts(claims: list[Claim]) -> list[str]:
    return [claim.verdict for claim in claims]


def trained(study: Study, settings: Any, folder: Path) -> list[Run]:
    return [
        interp.train(run.config, folder / str(i), progress=False)
        for i, run in enumerate(study.runs(settings))
    ]


def assert_drawn(study: Study, tables: Tables) -> None:
    for figure in study.figures(tables).values():
        assert title(figure)
        assert len(caption(figure)) > 100


# Warm-up and adaptive schedules.

SCHEDULES = warm_up.WarmUpSettings(
    preset="smoke",
    seeds=(0, 1),
    n_steps=12,
    n_individuals=24,
    indiv_warmup=(6,),
    epochs_warmup=(2.0,),
    indiv_adaptive=(6,),
    growth=("gradual",),
    exponents=(0.6,),
    n_fewer=16,
)


@pytest.fixture(scope="module")
def schedule_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return trained(warm_up.STUDY, SCHEDULES, tmp_path_factory.mktemp("schedules"))


def test_each_schedule_is_one_run_a_seed() -> None:
    configs = [run.config for run in warm_up.planned(warm_up.WarmUpSettings())]
    assert len(configs) == 3 * (1 + 5 + 2 * 3 + 2 * 2 + 1)
    assert len({config.to_yaml() for config in configs}) == len(configs)
    fewer = [config for config in configs if config.population.n_individuals == 664]
    assert {(config.sampling.kind, config.seed) for config in fewer} == {
        ("uniform", seed) for seed in range(3)
    }


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"n_fewer": 1024}, "n_fewer=1024"),
        ({"exponents": ()}, "exponents"),
        ({"growth": ("gradual", "gradual")}, "growth"),
    ],
)
def test_warm_up_settings_that_cannot_work(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        warm_up.WarmUpSettings(**settings)


def test_schedules_of_finished_runs(schedule_runs: list[Run]) -> None:
    tables = warm_up.tables(SCHEDULES, schedule_runs)
    learned = tables["learned"]
    assert set(learned["family"]) == {
        "uniform", "power law", "warm-up", "adaptive", "fewer people",
    }  # fmt: skip
    for run in schedule_runs:
        name, _ = warm_up.describe_schedule(run.config, 24)
        row = learned[(learned["schedule"] == name) & (learned["seed"] == run.config.seed)].iloc[0]
        accuracy = run.curve("attribute_accuracy").iloc[-1]
        counted = accuracy * run.config.population.n_individuals / 24
        assert row["accuracy_of_everybody"] == pytest.approx(counted, abs=1e-5)
        assert row["attribute_loss"] == pytest.approx(run.curve().iloc[-1], abs=1e-5)
    own = tables["stages"][tables["stages"]["schedule"] == "warm-up: 6, 2 epochs"]
    assert own[["seed", "step", "people"]].to_numpy().tolist() == [
        [0, 0, 6], [0, 6, 24], [1, 0, 6], [1, 6, 24],
    ]  # fmt: skip


def test_tables_do_not_depend_on_the_order_of_runs(schedule_runs: list[Run]) -> None:
    one, other = (warm_up.tables(SCHEDULES, runs) for runs in (schedule_runs, schedule_runs[::-1]))
    assert {n: t.to_csv() for n, t in one.items()} == {n: t.to_csv() for n, t in other.items()}


@pytest.mark.parametrize("count", [0, 1, 4, 10])
def test_some_or_no_schedules(schedule_runs: list[Run], count: int) -> None:
    tables = warm_up.tables(SCHEDULES, schedule_runs[:count])
    for own in (tables, read_back(tables)):
        assert set(verdicts(warm_up.claims(own))) == {"cannot tell"}  # nothing is learned so soon
        assert_drawn(warm_up.STUDY, own)
    assert warm_up.claims(tables) == warm_up.claims(read_back(tables))
    assert bool(warm_up.figures(tables)) == bool(count)


def test_warm_up_of_no_epochs_is_for_everybody_from_the_start(tmp_path: Path) -> None:
    settings = SCHEDULES.model_copy(update={"epochs_warmup": (0.0,), "seeds": (0,)})
    config = next(
        run.config for run in warm_up.planned(settings) if run.config.sampling.kind == "warm_up"
    )
    run = interp.train(config, tmp_path / "run", progress=False)
    stages = warm_up.tables(settings, [run])["stages"]
    assert stages[["step", "people"]].to_numpy().tolist() == [[0, 24]]


def made_up(**accuracies: float | list[float]) -> dict[str, pd.DataFrame]:
    """Tables in which families of schedules end with some accuracies, one a seed."""
    names = {
        "uniform": ["uniform"],
        "power law": ["power law: α = 0.2", "power law: α = 0.6"],
        "warm-up": [f"warm-up: 256, {epochs} epochs" for epochs in (4, 8, 12)],
        "adaptive": ["adaptive: 128, at once", "adaptive: 128, gradual"],
        "fewer people": ["664 people only"],
    }
    rows = []
    for family, schedules in names.items():
        given = accuracies[family.replace(" ", "_").replace("-", "_")]
        by_seed = given if isinstance(given, list) else [given] * 3
        for i, schedule in enumerate(schedules):
            for seed, best in enumerate(by_seed):
                rows.append(
                    {
                        "schedule": schedule, "family": family, "seed": seed, "n_individuals": 1024,
                        "n_everybody": 1024, "n_steps": 1000, "attribute_loss": 6 - 5 * best,
                        "epochs_warmup": 4.0 * (i + 1) if family == "warm-up" else np.nan,
                        "attribute_accuracy": best, "accuracy_of_everybody": best - 0.01 * i,
                    }
                )  # fmt: skip
    empty = warm_up.tables(warm_up.WarmUpSettings(), [])
    return {**empty, "learned": pd.DataFrame(rows)}


GOOD = {"uniform": 0.5, "power_law": 0.6, "warm_up": 0.7, "adaptive": 0.7, "fewer_people": 0.6}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["agree"] * 5),
        (
            {"uniform": 0.8, "power_law": 0.8, "fewer_people": 0.8, "adaptive": 0.6},
            ["disagree"] * 5,
        ),
        # A seed that says the opposite, or two that are too close to say anything.
        (
            {
                "uniform": [0.5, 0.8, 0.5],
                "power_law": [0.6, 0.8, 0.6],
                "fewer_people": [0.69, 0.71, 0.6],
                "adaptive": [0.7, 0.7, 0.6],
            },
            ["cannot tell"] * 5,
        ),
        # As good within the margin; better has to be by more.
        (
            {"uniform": 0.69, "power_law": 0.71, "fewer_people": 0.69, "adaptive": 0.69},
            ["cannot tell", "agree", "cannot tell", "agree", "disagree"],
        ),
        # Where nothing is learned nothing is as good as another.
        (dict.fromkeys(GOOD, 0.01), ["cannot tell"] * 5),
        ({name: [value] for name, value in GOOD.items()}, ["cannot tell"] * 5),  # one seed
    ],
)
def test_verdicts_on_schedules(changes: dict[str, Any], expected: list[str]) -> None:
    tables = made_up(**(GOOD | changes))
    assert verdicts(warm_up.claims(tables)) == expected
    assert warm_up.claims(read_back(tables)) == warm_up.claims(tables)


def test_numbers_of_schedules_are_those_that_the_rules_read() -> None:
    """Interval of (0.2, 0.3): mean 0.25, half of their distance times 12.7."""
    tables = made_up(
        uniform=[0.5, 0.4, 0.01], power_law=[0.6, 0.6, 0.02], warm_up=[0.7, 0.7, 0.03],
        adaptive=[0.7, 0.65, 0.04], fewer_people=[0.6, 0.8, 0.05],
    )  # fmt: skip
    found = warm_up.claims(tables)
    numbers = [
        ((0.2, 0.3, 0.02), 0.02),
        ((0.1, 0.1), -0.02),  # where neither has learned anything, nothing is read
        ((0.1, -0.1, -0.02), -0.02),
        ((0.0, -0.05), -0.02),
        ((0.19, 0.24), 0.02),  # the worst adaptive schedule of each seed is 0.01 lower
    ]
    for claim, (values, limit) in zip(found, numbers, strict=True):
        (number,) = claim.readings
        assert number.values == pytest.approx(values), claim.claim
        assert number.limit == limit
    assert found[4].readings[0].interval == pytest.approx(
        (0.215 - 0.3177, 0.215 + 0.3177), abs=1e-4
    )
    few = tables["learned"]
    few = few[few["epochs_warmup"].isna() | (few["epochs_warmup"] < 12)]
    assert warm_up.claims({**tables, "learned": few})[3].readings[0].values == ()


def test_the_best_is_chosen_among_schedules_with_every_seed() -> None:
    table = made_up(**GOOD)["learned"]
    assert warm_up.best_of(table, "warm-up") == "warm-up: 256, 4 epochs"
    lucky = table.drop(table[(table["schedule"] == "warm-up: 256, 4 epochs")].index[0])
    assert warm_up.best_of(lucky, "warm-up") == "warm-up: 256, 8 epochs"
    assert warm_up.best_of(table, "no such family") is None


def test_a_missing_family_decides_nothing() -> None:
    tables = made_up(**GOOD)
    learned = tables["learned"]
    without = {**tables, "learned": learned[learned["family"] != "uniform"]}
    assert verdicts(warm_up.claims(without))[0] == "cannot tell"
    assert verdicts(warm_up.claims(without))[1] == "agree"


# Groups one after the other.

GROUPS = sequential.SequentialSettings(
    preset="smoke",
    seeds=(0, 1),
    n_steps=24,
    n_individuals=24,
    schedules=((3, 2), (2, 1)),
    checkpoint_every=2,
    n_measured=4,
)


@pytest.fixture(scope="module")
def group_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return trained(sequential.STUDY, GROUPS, tmp_path_factory.mktemp("groups"))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"schedules": ((4, 2), (4, 2))}, "schedules"),
        ({"schedules": ((1, 2),)}, "2 at least"),
        ({"schedules": ((16, 4),)}, "less than two checkpoints a turn"),
    ],
)
def test_sequential_settings_that_cannot_work(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        sequential.SequentialSettings(**settings)


def test_turns_of_the_defaults_end_at_checkpoints() -> None:
    for run in sequential.planned(sequential.SequentialSettings()):
        config = run.config
        assert config.optimizer.schedule == "constant"
        stages = sampler(config)
        assert isinstance(stages, Stages)
        assert {*stages.steps, config.training.n_steps} <= config.training.checkpoint_steps()


def test_knowledge_of_groups(group_runs: list[Run]) -> None:
    """Against one measurement of each person by itself."""
    run = group_runs[0]
    known = sequential.tables(GROUPS, [run])["knowledge"]
    assert sorted(known["step"].unique()) == list(range(0, 25, 2))
    people = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]  # four of each eight
    table = interp.knowledge.value_table(run.model(10), run.corpus.biographies(np.array(people)))
    at_10 = known[(known["step"] == 10) & (known["metric"] == "attribute_loss")]
    for index, group in enumerate((1, 2, 3)):
        value = at_10[at_10["group"] == group]["value"].item()
        assert value == pytest.approx(table[0, 4 * index : 4 * index + 4].mean(), abs=1e-4)
    batches = {step: run.corpus.batch(step - 1, 50).individuals // 8 + 1 for step in range(1, 25)}
    active = known.groupby("step")["active"].unique()
    for step in range(2, 25, 2):
        assert set(active[step]) == set(batches[step].tolist())


@pytest.mark.parametrize("count", [0, 1, 4])
def test_some_or_no_groups(group_runs: list[Run], count: int) -> None:
    tables = sequential.tables(GROUPS, group_runs[:count][::-1])
    for own in (tables, read_back(tables)):
        assert set(verdicts(sequential.claims(own))) == {"cannot tell"}
        assert_drawn(sequential.STUDY, own)
    assert sequential.claims(tables) == sequential.claims(read_back(tables))
    assert bool(sequential.figures(tables)) == bool(count)


def test_speeds_are_read_from_curves() -> None:
    """Two groups, twice, turns of 100 steps: the first is learned within 40 steps, lost within 80."""
    steps = [0, 20, 40, 100, 140, 180, 200, 260, 300, 400]
    first = [0.0, 0.4, 0.8, 0.8, 0.6, 0.2, 0.2, 0.5, 0.8, 0.8]
    second = [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.4, 0.4, 0.5]
    curves = pd.DataFrame({1: first, 2: second}, index=steps)
    found = turns(curves, n_repeats=2, n_steps=400)
    assert found["begin"].tolist() == [0, 100, 200, 300]
    assert found["group"].tolist() == [1, 2, 1, 2]
    one, two, three, four = (row for _, row in found.iterrows())
    assert (one["before"], one["after"], one["followed"]) == (0.0, 0.8, 100)
    assert one["learn_half"] == 20.0
    assert one["lose_half"] == 60.0  # half way from 0.6 at 140 to 0.2 at 180
    assert one["mean_accuracy"] == pytest.approx((4 + 12 + 48) / 100)
    assert two["learn_half"] == 20.0
    assert np.isnan(two["lose_half"])  # never below 0.25 before step 300
    assert three["learn_half"] == 40.0  # from 0.2 at 200 to 0.5 at 260
    assert np.isnan(four["learn_half"])  # half is known before
    assert four["followed"] == 0


def turns_of(
    speeds: list[float], learn: float = 40.0, lose: float | None = 20.0, seeds: int = 2
) -> dict[str, pd.DataFrame]:
    """A table of turns in which each group has a mean accuracy in its first turn."""
    rows = [
        {
            "n_groups": len(speeds), "n_repeats": 2, "seed": seed, "turn": turn + 1,
            "repeat": turn // len(speeds) + 1, "group": turn % len(speeds) + 1,
            "begin": 100 * turn, "end": 100 * turn + 100, "before": 0.0,
            "after": speeds[turn % len(speeds)],
            "mean_accuracy": speeds[turn % len(speeds)], "learn_half": learn, "lose_half": lose,
            "followed": 100 * min(len(speeds) - 1, 2 * len(speeds) - turn - 1),
        }
        for seed in range(seeds)
        for turn in range(2 * len(speeds))
    ]  # fmt: skip
    return {**sequential.tables(GROUPS, []), "turns": pd.DataFrame(rows)}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (turns_of([0.1, 0.3, 0.5, 0.7]), ["agree", "agree", "agree"]),
        (turns_of([0.1, 0.5, 0.5, 0.5]), ["agree", "cannot tell", "agree"]),  # all due to the first
        (turns_of([0.5, 0.5, 0.5, 0.5], lose=60.0), ["cannot tell", "cannot tell", "disagree"]),
        (turns_of([0.7, 0.7, 0.5, 0.3]), ["disagree", "disagree", "agree"]),
        (turns_of([0.4, 0.7, 0.1, 0.5]), ["cannot tell", "disagree", "agree"]),  # higher, no trend
        (turns_of([0.1, 0.3, 0.5, 0.7], lose=38.0), ["agree", "agree", "cannot tell"]),
        (turns_of([0.1, 0.3, 0.5, 0.7], lose=None), ["agree", "agree", "disagree"]),  # never lost
        (turns_of([0.0, 0.1, 0.15, 0.2]), ["cannot tell"] * 3),  # too little is learned
        (turns_of([0.1, 0.3, 0.5, 0.7], seeds=1), ["cannot tell"] * 3),
        (turns_of([0.1, 0.7]), ["cannot tell", "cannot tell", "cannot tell"]),  # two groups only
    ],
)
def test_verdicts_on_groups(tables: dict[str, pd.DataFrame], expected: list[str]) -> None:
    assert verdicts(sequential.claims(tables)) == expected
    assert sequential.claims(read_back(tables)) == sequential.claims(tables)


def test_runs_that_contradict_each_other_decide_nothing() -> None:
    grows, falls = turns_of([0.1, 0.3, 0.7])["turns"], turns_of([0.7, 0.3, 0.1])["turns"]
    both = {"turns": pd.concat([grows, falls.assign(n_repeats=4)])}
    assert verdicts(sequential.claims(both))[0] == "cannot tell"


def test_numbers_of_groups_are_those_that_the_rules_read() -> None:
    tables = turns_of([0.1, 0.5, 0.3, 0.7])
    tables["turns"].loc[lambda t: (t["seed"] == 1) & (t["turn"] == 4), "mean_accuracy"] = 0.6
    other = turns_of([0.7, 0.5, 0.1], lose=None)["turns"]
    both = {**tables, "turns": pd.concat([tables["turns"], other])}
    ever, even, forgets = sequential.claims(both)
    assert [one.group for one in forgets.readings] == ["3 groups, 2 times", "4 groups, 2 times"]
    falls, rises, no_trend, trend = ever.readings
    assert falls.values == pytest.approx((-0.6, -0.6))
    assert (falls.limit, rises.limit, trend.limit) == (-0.05, 0.05, 0.5)
    assert rises.values == pytest.approx((0.6, 0.5))
    assert no_trend.values == (), "of groups that are learned ever slower no trend is read"
    assert trend.values == pytest.approx((0.8, 0.8))
    assert [one.values for one in even.readings][:3] == [
        (), pytest.approx((0.2, 0.1)), (),
    ]  # fmt: skip
    assert even.readings[3].values == pytest.approx((0.5, 0.5))
    never, twice = forgets.readings
    assert (never.values, never.limit) == ((0, 0), 0.8)
    assert (twice.values, twice.limit) == ((2, 2), 1.25)


def test_a_turn_whose_half_was_never_lost_says_never() -> None:
    claim = sequential.claims(turns_of([0.3, 0.5, 0.7], lose=None))[2]
    assert "to lose half never" in claim.measured
