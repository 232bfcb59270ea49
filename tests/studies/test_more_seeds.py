"""Claims that their studies could not decide: the seeds that would, and what their mean says."""

from dataclasses import replace
from math import ceil, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from interp.charts.style import caption
from interp.errors import ConfigError
from interp.studies import more_seeds
from interp.studies.found import read_tables
from interp.studies.more_seeds import ENOUGH, MoreSeedsSettings
from interp.studies.power import seeds_needed
from interp.studies.registry import STUDIES
from interp.studies.undecided import FIRST_SEED, UNDECIDED, Undecided
from tests.helpers import read_back

COMMITTED = Path(__file__).parents[2] / "artifacts" / "gallery" / "studies"
SLOPES, ATTENTION = UNDECIDED["memory of random features"], UNDECIDED["attention in fine-tuning"]
SMALL = replace(
    UNDECIDED["fewer people"],
    settings={
        "n_individuals": 16, "n_fewer": 8, "n_steps": 20, "indiv_warmup": (4,), "indiv_adaptive": (4,),
        "epochs_warmup": (2.0,),
    },
    seeds=2,
    needed=lambda config: config.sampling.kind == "warm_up" or config.population.n_individuals == 8,
)  # fmt: skip


@pytest.mark.parametrize("case", UNDECIDED.values(), ids=lambda case: case.name)
def test_a_case_has_seeds_enough_and_none_of_its_study(case: Undecided) -> None:
    assert STUDIES[case.study.name] is case.study
    folder = COMMITTED / case.study.name
    claim = next(c for c in case.study.claims(read_tables(folder)) if c.claim == case.claim)
    (values,) = [one.values for one in claim.readings]
    assert claim.verdict == "cannot tell"
    assert case.seeds >= (seeds_needed(values, case.threshold) or np.inf)
    own = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))["settings"][
        "seeds"
    ]
    assert max(own) < FIRST_SEED == min(case.own_seeds)
    assert len(set(case.own_seeds)) == case.seeds
    said = (
        f"{abs(case.threshold):g}",
        f"{case.threshold:.0%}",
        "10%" if case.name == "rare people" else "",
    )
    assert any(one and one in claim.rule for one in said) or case.threshold == 0


def test_runs_are_those_that_the_number_is_read_of() -> None:
    def runs(name: str) -> list[more_seeds.Planned]:
        return more_seeds.planned(MoreSeedsSettings(cases=(name,), seeds=(7,)))

    assert runs("memory of random features") == []
    assert [plan.config.seed for plan in runs("groups of equations")] == [7]
    warm, few = runs("fewer people")
    assert (warm.config.sampling.indiv_warmup, warm.config.sampling.epochs_warmup) == (256, 12.0)
    assert (few.config.population.n_individuals, few.config.sampling.kind) == (664, "uniform")
    (tuned,) = runs("attention in fine-tuning")
    assert tuned.config.finetuning.people == "new"
    assert tuned.base is not None
    assert len(runs("rare people")) == 4
    assert {plan.config.sampling.kind for plan in runs("adaptive schedule")} == {
        "warm_up",
        "adaptive",
    }


def test_settings() -> None:
    own = MoreSeedsSettings(cases=("kind of memory",))
    assert [seed for _, seed, _ in own.of_seeds()] == [3, 4, 5, 6, 7]
    (plan,) = more_seeds.planned(
        MoreSeedsSettings(cases=("kind of memory",), seeds=(9,), run={"training.precision": "fp32"})
    )
    assert (plan.config.seed, plan.config.training.precision) == (9, "fp32")
    with pytest.raises(ConfigError, match=r"there is no 'kinds'\. Cases: kind of memory, "):
        MoreSeedsSettings(cases=("kinds",))
    with pytest.raises(
        ConfigError, match=r"the studies themselves have \[0, 2\]; name seeds from 3 on"
    ):
        MoreSeedsSettings(seeds=(0, 2, 4))
    with pytest.raises(ConfigError, match="each once"):
        MoreSeedsSettings(seeds=(3, 3))
    with pytest.raises(ConfigError, match="cannot be the same for all runs"):
        MoreSeedsSettings(run={"population.n_individuals": 8})


def test_numbers_are_those_of_the_study_itself(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UNDECIDED, SMALL.name, SMALL)
    settings = MoreSeedsSettings(preset="smoke", cases=(SMALL.name,))
    runs = [trained(plan.config) for plan in more_seeds.planned(settings)]
    assert [run.config.seed for run in runs] == [3, 3, 4, 4]
    found = more_seeds.tables(settings, runs[::-1])
    pd.testing.assert_frame_equal(found["numbers"], read_back(found)["numbers"], check_dtype=False)
    assert list(found["numbers"]["seed"]) == [3, 4]
    together = SMALL.study.settings(preset="smoke", seeds=(3, 4), **SMALL.settings)
    claims = SMALL.study.claims(SMALL.study.tables(together, runs))
    claim = next(one for one in claims if one.claim == SMALL.claim)
    (values,) = [one.values for one in claim.readings]
    assert list(found["numbers"]["value"].dropna()) == pytest.approx(values, abs=1e-5)
    assert len(values) == 2
    only = more_seeds.tables(settings, runs[:3])["numbers"]
    assert list(only["seed"]) == [3]
    nothing = more_seeds.tables(settings, [])
    for tables in (nothing, read_back(nothing)):
        assert more_seeds.claims(tables) == []
        assert more_seeds.figures(tables) == {}


def made(case: Undecided, values: list[float]) -> dict[str, pd.DataFrame]:
    return {
        "numbers": pd.DataFrame({"case": case.name, "seed": range(len(values)), "value": values})
    }


@pytest.mark.parametrize(
    ("case", "mean", "expected"),
    [
        (SLOPES, 0.90, "agree"), (SLOPES, 0.80, "disagree"), (SLOPES, 0.851, "cannot tell"),
        (ATTENTION, 0.05, "agree"), (ATTENTION, 0.15, "disagree"), (ATTENTION, 0.099, "cannot tell"),
    ],
)  # fmt: skip
def test_the_interval_of_the_mean_decides(case: Undecided, mean: float, expected: str) -> None:
    values = list(mean + 0.02 * np.resize([-1.0, 1.0, 0.5, -0.5], case.seeds))
    (claim,) = more_seeds.claims(made(case, values))
    assert claim.verdict == expected
    assert claim.claim == case.asked
    (reading,) = claim.readings
    assert reading.interval == pytest.approx(
        stats.t.interval(0.95, case.seeds - 1, np.mean(values), stats.sem(values))
    )
    assert f"lies {case.side} {case.threshold:g}" in claim.rule
    figure = more_seeds.figures(made(case, values))["more-seeds"]
    assert len(caption(figure)) > 100
    drawn = [float(x) for trace in figure.data if "interval" in str(trace.name) for x in trace.x]
    for end in reading.interval or ():
        assert min(abs(x - end) for x in drawn) < 1e-6


def test_with_few_seeds_nothing_is_decided() -> None:
    enough = ceil(ENOUGH * ATTENTION.seeds)
    values = list(np.linspace(0.01, 0.02, enough))
    (claim,) = more_seeds.claims(made(ATTENTION, [*values, nan]))
    assert claim.verdict == "agree"
    (claim,) = more_seeds.claims(made(ATTENTION, [*values[1:], nan, nan]))
    assert claim.verdict == "cannot tell"
    assert f"fewer than {enough} seeds" in claim.rule
    (claim,) = more_seeds.claims(made(ATTENTION, [nan, nan]))
    assert (claim.verdict, claim.measured) == ("cannot tell", "nothing was measured")
