"""The study of facts written in: its runs, tables, claims and figures."""

from typing import Any

import pandas as pd
import pytest

import interp
from interp.charts.style import caption
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.run import Run
from interp.studies import fact_writing
from interp.studies.fact_writing_claims import (
    BEST,
    CONTROL,
    STATEMENTS,
    TUNED,
    TUNED_BESIDE,
    held_against,
)
from interp.studies.registry import study_named
from tests.helpers import read_back

SETTINGS = fact_writing.FactWritingSettings(
    preset="smoke",
    seeds=(0,),
    n_edits=(1, 2),
    n_facts=2,
    n_others=3,
    n_texts=1,
    most_steps=1,
    replay=2,
)


def test_runs_of_the_study() -> None:
    plans = fact_writing.planned(fact_writing.FactWritingSettings())
    assert len({address_of(plan.config) for plan in plans}) == 3
    assert fact_writing.STUDY.duration.startswith("3 runs")
    assert study_named("interp/studies/fact_writing.py").name == "fact_writing"
    with pytest.raises(ConfigError, match="n_edits"):
        fact_writing.FactWritingSettings(n_edits=())


@pytest.fixture(scope="module")
def tables(smoke_run: Run) -> dict[str, pd.DataFrame]:
    return fact_writing.tables(SETTINGS, [smoke_run])


def test_tables_of_a_run(smoke_run: Run, tables: dict[str, pd.DataFrame]) -> None:
    scores = tables["scores"]
    assert {name: tuple(table) for name, table in tables.items()} == fact_writing.COLUMNS
    methods = scores.groupby("method")["place"].unique().map(list).to_dict()
    assert methods == {
        "rome": [BEST], "memit": [BEST, *fact_writing.AT_NAMES], TUNED: ["all weights"],
        TUNED_BESIDE: ["all weights"],
    }  # fmt: skip
    alone = interp.edit_scores(
        smoke_run, [2], [(0, "last name")], methods=["memit"], n_facts=2, n_others=3, n_texts=1,
        forms="biography", seed=1,
    )  # fmt: skip
    own = scores.query("method == 'memit' and place == @CONTROL and n_edits == 2")
    assert own["value"].tolist() == pytest.approx(alone["value"].tolist(), abs=1e-4, nan_ok=True)


def test_figures_and_claims_of_a_run(tables: dict[str, pd.DataFrame]) -> None:
    figures = fact_writing.figures(tables)
    assert list(figures) == ["fact-writing-scores", "fact-writing-attributes", "fact-writing-costs"]
    assert all("Look for" in caption(figure) for figure in figures.values())
    claims = fact_writing.claims(read_back(tables))
    assert len(claims) == len(STATEMENTS)
    assert {claim.verdict for claim in claims} == {"cannot tell"}  # one seed
    assert fact_writing.figures({}) == {}
    assert {claim.measured for claim in fact_writing.claims({})} == {"nothing was measured"}


GOOD: dict[tuple[str, str, str], float] = {
    ("memit", BEST, "efficacy"): 1.0, ("memit", BEST, "generalisation"): 0.95,
    ("memit", BEST, "specificity_subject"): 0.97, ("memit", BEST, "specificity_others"): 0.99,
    ("memit", BEST, "arithmetic"): 100.0, ("memit", CONTROL, "efficacy"): 0.1,
    (TUNED, "all weights", "specificity_others"): 0.5, (TUNED, "all weights", "arithmetic"): 200.0,
}  # fmt: skip


def made(change: dict[tuple[str, str, str], float]) -> dict[str, pd.DataFrame]:
    rows = [
        (seed, method, place, n, metric, "all", value, 1.0, 48, 1)
        for (method, place, metric), value in (GOOD | change).items()
        for seed in (0, 1, 2)
        for n in (1, 64)
    ]
    return {"scores": pd.DataFrame(rows, columns=list(fact_writing.COLUMNS["scores"]))}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, []),
        ({("memit", BEST, "efficacy"): 0.95}, [0]),
        ({("memit", BEST, "efficacy"): 0.85, ("memit", CONTROL, "efficacy"): 0.5}, [0, 1, 4]),
        ({("memit", BEST, "generalisation"): 0.85}, [2]),
        ({("memit", BEST, "specificity_subject"): 0.9}, [3]),
        ({("memit", CONTROL, "efficacy"): 0.6}, [4]),
        ({(TUNED, "all weights", "specificity_others"): 0.96}, [5]),
        ({(TUNED, "all weights", "arithmetic"): 90.0}, [6]),
    ],
)
def test_verdicts(change: dict[Any, float], wrong: list[int]) -> None:
    verdicts = [claim.verdict for claim in held_against(made(change))]
    assert [place for place, one in enumerate(verdicts) if one == "disagree"] == wrong
    assert verdicts.count("agree") == len(STATEMENTS) - len(wrong)
    assert all("{" not in statement.rule.text for statement in STATEMENTS)


def test_what_was_measured_is_said() -> None:
    said = [claim.measured for claim in held_against(made({}))]
    assert "1: 1.000" in said[0]
    assert "64: 0.950" in said[2]
    assert "1: 100" in said[6]


def test_numbers_that_rules_read() -> None:
    tables = made({("memit", BEST, "efficacy"): 0.9})
    scores = tables["scores"]
    of_best = (scores["method"] == "memit") & (scores["place"] == BEST) & (scores["n_edits"] == 64)
    for metric, value in (("efficacy", 0.8), ("specificity_others", 0.6), ("arithmetic", 500.0)):
        scores.loc[of_best & (scores["metric"] == metric), "value"] = value
    found = [
        {one.group: list(one.values) for one in claim.readings} for claim in held_against(tables)
    ]
    expected: list[dict[str, float]] = [
        {"": 0.9},
        {"": 0.8},  # of many
        {"": 0.95 / 0.8},  # of those that were written
        {
            "the same people's after 1 edit": 0.97, "the same people's after 64 edits": 0.97,
            "other people's after 1 edit": 0.99, "other people's after 64 edits": 0.6,
        },
        {"1 edit": 0.9 - 0.1, "64 edits": 0.8 - 0.1},
        {"": 0.6 - 0.5},  # of as many as there were
        {"1 edit": 100 / 200, "64 edits": 500 / 200},
    ]  # fmt: skip
    assert found == [
        {group: pytest.approx([value] * 3) for group, value in one.items()} for one in expected
    ]
