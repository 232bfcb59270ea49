"""The study of disagreements: one setting changed alone, and the same rule asked again."""

from dataclasses import replace

import pandas as pd
import pytest

from interp.charts.style import caption
from interp.errors import ConfigError
from interp.studies import changes, explained
from interp.studies.changes import AFTER, BEFORE, CASES, CHANGES, Change
from interp.studies.registry import STUDIES
from interp.studies.rules import Claim
from interp.studies.study import Study
from tests.helpers import read_back
from tests.studies.test_robustness import curve, tables_of

SMALL = replace(
    CHANGES["rank"],
    shared={
        "conditions": ("mnemonic, prose", "mnemonic, prose in an adapter"),
        "budgets": ("steps",),
    },
    changed={"adapter_rank": 2},
)
PEOPLE = CHANGES["people"]
SLOW, _ = PEOPLE.claims


@pytest.mark.parametrize("change", CHANGES.values(), ids=lambda change: change.name)
def test_a_change_names_claims_and_tables_that_there_are_and_changes_something(change: Change):
    study = change.study
    assert STUDIES[study.name] is study
    assert set(change.claims) <= {claim.claim for claim in study.claims(_nothing(study))}
    before, after = (study.settings(**change.settings(case)) for case in CASES)
    differing = [n for n, value in before if value != getattr(after, n)]
    assert len(differing) == 1
    runs = [{str(p.config.identity()) for p in study.runs(s)} for s in (before, after)]
    assert runs[0] != runs[1]
    assert set(change.tables) <= set(_nothing(study))


def _nothing(study: Study) -> dict[str, pd.DataFrame]:
    return dict(study.tables(study.settings(), []))


def test_settings_reach_the_studies_of_the_cases():
    settings = explained.ExplainedSettings(
        seeds=(3,), changes=("people",), run={"training.precision": "fp32"}
    )
    configs = [p.config for p in explained.planned(settings)]
    assert {c.seed for c in configs} == {3}
    assert {c.training.precision for c in configs} == {"fp32"}
    assert sorted(c.population.n_individuals for c in configs)[-3:] == [2048] * 3
    with pytest.raises(ConfigError, match="there is no 'pepole'"):
        explained.ExplainedSettings(changes=("pepole",))
    with pytest.raises(ConfigError, match="cannot be the same for all runs"):
        explained.ExplainedSettings(run={"population.n_individuals": 8})
    with pytest.raises(ConfigError, match="cannot be the same for all runs"):
        explained.ExplainedSettings(run={"training.n_steps": 300})
    with pytest.raises(ConfigError, match="the words would be wrong"):
        explained.ExplainedSettings(preset="demo")


def test_tables_are_those_of_the_cases_own_studies(trained, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(changes, "CHANGES", {"rank": SMALL})
    monkeypatch.setattr(explained, "CHANGES", {"rank": SMALL})
    monkeypatch.setattr(explained, "PRESETS", ("smoke",))
    settings = explained.ExplainedSettings(preset="smoke", seeds=(0,), changes=("rank",))
    runs = [trained(plan.config) for plan in explained.planned(settings)]
    found = explained.tables(settings, runs[::-1])
    assert set(found) == {"mnemonic_curves", "mnemonic_recall", "mnemonic_adapters"}
    own = SMALL.study
    for _, case, of_case in settings.cases():
        wanted = own.tables(of_case, [trained(plan.config) for plan in own.runs(of_case)])
        for name, table in explained.of_case(read_back(found), SMALL, case).items():
            pd.testing.assert_frame_equal(table, wanted[name], check_dtype=False)
    assert explained.claims(read_back(found)) == explained.claims(found)
    # Barely trained: the claim cannot be told before, so that there is nothing to explain.
    assert [claim.verdict for claim in explained.claims(found)] == ["cannot tell"]
    figures = explained.figures(found)
    assert list(figures) == ["explained-rank-before", "explained-rank-after"]
    assert "rank 64" in figures["explained-rank-after"].layout.title.text
    assert len(caption(figures["explained-rank-before"])) > 100
    empty = explained.tables(settings, [])
    for tables in (empty, read_back(empty)):
        assert {c.measured for c in explained.claims(tables)} == {"nothing was measured"}
        assert explained.figures(tables) == {}


def made(before: float, after: float) -> dict[str, pd.DataFrame]:
    """Tables of robustness for both cases; the pace of a curve decides whether there is a plateau."""
    kept = ["default", "learning rate 0.003", "width 256"]
    parts: dict[str, list[pd.DataFrame]] = {}
    for case, pace in zip(CASES, (before, after), strict=True):
        flat = curve(plateau=pace > 0)
        own = tables_of({"learning rate 0.003": flat, "width 256": curve()})
        for name, table in own.items():
            some = table[table["variant"].isin(kept)].assign(change="people", case=case)
            parts.setdefault(f"robustness_{name}", []).append(some)
    return {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}


def of(tables: dict[str, pd.DataFrame]) -> dict[str, Claim]:
    return {claim.claim: claim for claim in explained.claims(tables)}


def test_a_disagreement_is_explained_if_the_change_makes_the_claim_hold():
    rate, width = PEOPLE.claims.values()
    found = of(made(0.0, 1.0))
    assert found[rate].verdict == "agree"
    assert found[rate].measured.startswith("512 people: disagree (learning rate 0.003: ")
    assert "; 2,048 people: agree (" in found[rate].measured
    assert found[width].verdict == "cannot tell", "it holds before: there is nothing to explain"
    assert of(made(0.0, 0.0))[rate].verdict == "disagree"
    assert of(made(1.0, 0.0))[rate].verdict == "cannot tell"
    some = made(0.0, 1.0)
    runs = some["robustness_runs"]
    some["robustness_runs"] = runs[runs["case"] == BEFORE]
    assert of(some)[rate].measured == "nothing was measured"
    assert f"“{SLOW}”" in found[rate].rule
    assert "512 people and to 2,048 people" in found[rate].rule
    assert list(explained.figures(made(0.0, 1.0))) == [
        "explained-people-before", f"explained-people-{AFTER}",
    ]  # fmt: skip
