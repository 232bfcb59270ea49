"""The studies whose tables are committed: verdicts follow from the tables, and the findings say them."""

import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import yaml

from interp.plain_yaml import read_yaml
from interp.studies.batch import Batch, Entry, planned_runs
from interp.studies.found import (
    changed_settings,
    claims_page,
    claims_table,
    command_for,
    intervals_table,
    markdown,
    read_tables,
    study_in,
)
from interp.studies.registry import STUDIES, study_named
from interp.studies.rules import Claim
from interp.studies.study import Study

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "artifacts" / "gallery" / "studies"
NAMES = sorted(path.name for path in COMMITTED.iterdir() if path.is_dir())
"""By study, or by the name that the batch gives a second one of a study."""


_CORRECTED = "Recall attention forms before the memory: the same, as corrected by compiled models"
_NO_DATE = "compiled models say that what attention can do cannot be corrected: no seed has a date"
WITHOUT_INTERVAL: dict[str, dict[str, set[str]]] = {
    "name_tokens": {
        "whether two places are the same is no number": {"The order of names makes no difference"},
    },
    "plateau": {
        "one law through all runs, with an interval of its own": {
            "The plateau's length grows with the number of individuals as N^0.81",
            "The step at which the plateau ends grows as N^0.81",
            "The plateau's length is a power law of the number of individuals",
            "The plateau ends after a constant number of steps and a power law of the number of individuals",
        },
    },
    "recall_order": {_NO_DATE: {f"{_CORRECTED} (`tiny`)"}},
    "recall_order_demo": {_NO_DATE: {f"{_CORRECTED} (`demo`)"}},
    "robustness": {
        "one run": {"The three phases are there with a recurrence in place of attention, too"},
    },
    "explained": {
        "one law through all runs, as in `plateau`": {
            "The plateau grows faster with the number of individuals because batches are small",
        },
    },
}
"""By study and reason: claims whose rules read no number of several seeds."""


def study_of(name: str) -> Study:
    return study_named(study_in(COMMITTED / name))


@cache
def claims_of(name: str) -> Sequence[Claim]:
    """The claims of a study, from its committed tables."""
    return study_of(name).claims(read_tables(COMMITTED / name))


def test_every_study_has_committed_tables() -> None:
    assert set(STUDIES) <= set(NAMES)
    assert {study_of(name).name for name in NAMES} == set(STUDIES)


@pytest.mark.parametrize("name", NAMES)
def test_verdicts_follow_from_the_tables(name: str) -> None:
    folder = COMMITTED / name
    found = claims_table(claims_of(name))
    written = pd.read_csv(folder / "claims.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(found, written)
    assert len(found) > 0


@pytest.mark.parametrize("name", NAMES)
def test_intervals_follow_from_the_tables(name: str) -> None:
    folder = COMMITTED / name
    found = intervals_table(claims_of(name))
    written = pd.read_csv(folder / "intervals.csv", keep_default_na=False, na_values={
        one: [""] for one in found.columns if one not in ("number", "group")
    })  # fmt: skip
    pd.testing.assert_frame_equal(
        found, written.astype({"seeds_needed": "Int64"}), check_dtype=False
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_number_that_a_rule_reads_has_an_interval(name: str) -> None:
    """Or it is said why the rule reads no number of each seed."""
    claims = claims_of(name)
    without = {
        claim.claim for claim in claims if not any(len(r.values) > 1 for r in claim.readings)
    }
    reasons = WITHOUT_INTERVAL.get(name, {})
    assert without == {claim for claims in reasons.values() for claim in claims}


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_the_tables(name: str) -> None:
    figures = study_of(name).figures(read_tables(COMMITTED / name))
    assert {f"{anchor}.svg" for anchor in figures} == {
        p.name for p in COMMITTED.glob(f"{name}/*.svg")
    }


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_those_of_the_committed_batch(name: str) -> None:
    text = (ROOT / "artifacts/gallery/studies.yaml").read_text(encoding="utf-8")
    entry = next(entry for entry in Batch.from_yaml(text).studies if entry.label == name)
    written = yaml.safe_load((COMMITTED / name / "settings.yaml").read_text(encoding="utf-8"))
    assert written["settings"] == entry.study_settings().model_dump(mode="json")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_states_how_many_runs_its_command_makes(name: str) -> None:
    study = STUDIES[name]
    assert f"interp batch {name} " in study.command
    assert study.duration.split()[:2] == [str(len(planned_runs(Entry(study=name)))), "runs"]


def test_the_summary_says_what_the_tables_say() -> None:
    claims = {}
    for name in NAMES:
        study = study_of(name)
        title = study.title if name == study.name else f"{study.title} ({name})"
        claims[title] = claims_of(name)
    assert (COMMITTED / "README.md").read_text(encoding="utf-8").endswith(markdown(claims))


def test_the_findings_say_the_verdicts_of_the_tables() -> None:
    """A row of the findings: study, claim (word by word), paper, measured, verdict."""
    findings = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[`(\w+)`\]\([^)]*\) \| ([^|]+) \| [^|]+ \| [^|]+ \| \[\*\*([a-z ]+)\*\*\]"
        r"\(\.\./artifacts/gallery/studies/(\w+)/README\.md#claim-(\d+)\) \|$",
        findings,
        re.MULTILINE,
    )
    assert {name for name, *_ in rows} == set(NAMES)
    assert len(rows) == findings.count("| [`")
    for name, claim, verdict, of_page, number in rows:
        table = pd.read_csv(COMMITTED / name / "claims.csv").set_index("claim")
        assert table.loc[claim, "verdict"] == verdict
        assert of_page == name
        assert list(table.index).index(claim) == int(number) - 1


def test_the_findings_say_how_many_verdicts_do_not_rest_on_the_mean() -> None:
    """Of decided claims that read numbers of several seeds: those whose threshold lies in an interval."""
    counts = {True: [0, 0], False: [0, 0]}
    for name in NAMES:
        for claim in claims_of(name):
            known = [one for one in claim.readings if len(one.values) > 1]
            if known and claim.verdict != "cannot tell":
                of = counts[len(known) == 1]
                of[0] += 1
                of[1] += any(one.within for one in known)
    findings = " ".join((ROOT / "docs/findings.md").read_text(encoding="utf-8").split())
    (one, of_one), (several, of_several) = counts[True], counts[False]
    assert (
        f"of {one + several} decided claims with intervals {one} read one number, in {of_one} of"
        in findings
    )
    assert f"{several} read several, in {of_several} of them" in findings
    assert f"All {of_one + of_several} say so" in findings


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_a_study_has_its_claims_with_their_rules(name: str) -> None:
    study, folder = study_of(name), COMMITTED / name
    files = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    found = claims_of(name)
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page == claims_page(study, found, files, name, changed_settings(folder))
    assert all(claim.rule in page for claim in found)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_a_page_has_the_settings_of_its_tables(name: str) -> None:
    folder = COMMITTED / name
    command = command_for(study_of(name), changed_settings(folder), name)
    assert f"`{command}`" in (folder / "README.md").read_text(encoding="utf-8")
    words = shlex.split(command)
    given = words[words.index("--set") + 1 : words.index("--out")] if "--set" in words else []
    settings = {one.partition("=")[0]: read_yaml(one.partition("=")[2]) for one in given}
    written = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    entry = Entry(study=words[2], settings=settings)
    assert entry.study_settings().model_dump(mode="json") == written["settings"]
