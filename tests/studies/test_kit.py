"""The studies' kit: rules that state themselves, tables of several runs."""

import pandas as pd
import pytest

from interp.errors import ArgumentError, ConfigError
from interp.studies import Rule, Statement, Study, collect
from interp.studies.rules import Verdict
from interp.studies.study import StudySettings

KEEPS = Rule[float].each("At least {kept:.0%} is kept.", lambda x, kept: x >= kept, kept=0.9)


def test_a_rule_says_the_numbers_that_it_decides_by() -> None:
    assert "At least 90% is kept. Agree: in every seed" in KEEPS.text
    assert "fewer than 2 of" in KEEPS.text
    assert KEEPS.decide([0.95, 0.9]) == "agree"
    stricter = Rule(KEEPS.template, KEEPS.decision, {"kept": 0.92})
    assert "92%" in stricter.text
    assert stricter.decide([0.95, 0.9]) == "cannot tell"


@pytest.mark.parametrize(
    ("values", "minimum", "expected"),
    [
        ([1.0, 1.0], 2, "agree"),
        ([0.0, 0.1], 2, "disagree"),
        ([1.0], 2, "cannot tell"),
        ([1.0], 1, "agree"),
        ([None, 1.0, 1.0], 3, "cannot tell"),
        ([None, 1.0, 1.0], 2, "agree"),
    ],
)
def test_all_seeds_that_can_tell_have_to_say_the_same(
    values: list[float | None], minimum: int, expected: Verdict
) -> None:
    rule = Rule[float | None].each(
        "It is at least {low}.",
        lambda x, low: None if x is None else x >= low,
        minimum=minimum,
        low=0.5,
    )
    assert rule.decide(values) == expected


@pytest.mark.parametrize(
    ("template", "numbers"),
    [("At least 0.9 is kept.", {"kept": 0.9}), ("At least {kept} is kept.", {}), ("{a}", {"b": 1})],
)
def test_a_text_that_leaves_out_a_number_is_refused(
    template: str, numbers: dict[str, float]
) -> None:
    with pytest.raises(ArgumentError, match="both have to be the same"):
        Rule(template, lambda cases, **given: "agree", numbers)


def test_a_statement_without_cases_measures_nothing() -> None:
    statement = Statement[float]("It is kept", "it is", KEEPS, lambda cases: f"{max(cases):.2f}")
    assert statement.against([0.95, 0.99]).measured == "0.99"
    nothing = statement.against([])
    assert (nothing.measured, nothing.verdict) == ("nothing was measured", "cannot tell")
    assert nothing.rule == KEEPS.text


def test_tables_of_runs_have_their_columns_in_order_also_when_empty() -> None:
    columns = {"a": ("seed", "value"), "b": ("seed", "step")}

    def of_run(seed: int) -> tuple[dict[str, int], dict[str, pd.DataFrame]]:
        return {"seed": seed}, {"a": pd.DataFrame({"other": [0], "value": [seed * 2]})}

    tables = collect([1, 0], of_run, columns)
    assert tables["a"].to_dict("list") == {"seed": [1, 0], "value": [2, 0]}
    assert (list(tables["b"]), len(tables["b"])) == (["seed", "step"], 0)


@pytest.mark.parametrize(
    ("doc", "missing"),
    [
        (None, "title and question and command and duration"),
        ("Title.\n\nQuestion?\n\nCommand: interp batch x", "duration"),
        ("Title.\n\nQuestion?\n\nDuration: 1 run", "command"),
    ],
)
def test_a_docstring_states_what_the_report_shows(doc: str | None, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"does not state its {missing}"):
        Study("mine", doc, StudySettings, lambda settings: [], lambda settings, runs: {})


def test_a_study_reads_its_docstring() -> None:
    doc = (
        "A title.\n\nA question\n    in two lines?\n\nCommand: `interp batch x`\nDuration: a day\n\n"
        "More: text."
    )
    study = Study("mine", doc, StudySettings, lambda settings: [], lambda settings, runs: {})
    assert (study.title, study.question) == ("A title", "A question in two lines?")
    assert (study.command, study.duration) == ("interp batch x", "a day")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.2, 0.8], "agree"),
        ([-1.0, -1.2, -0.8], "disagree"),
        ([1.0, -1.2, 0.8], "cannot tell"),
        ([1.0, 1.2, None], "cannot tell"),
        ([5.0, 1.0, 4.0, -0.1], "cannot tell"),
        ([5.0, 4.0, 4.5, -0.1, 4.4, 4.6], "agree"),
    ],
)
def test_a_rule_on_the_interval_of_the_mean(values: list[float | None], expected: Verdict) -> None:
    """One seed below 0 does not keep others from deciding."""
    rule = Rule[float | None].interval("It rises.", lambda x: x, above=0, minimum=3)
    assert rule.decide(values) == expected
    assert "lies above 0" in rule.text
    assert "fewer than 3 seeds" in rule.text
