"""The study of forms made for the model: its runs, measures, figures and rules."""

from collections.abc import Callable

import pandas as pd
import pytest

from interp.biographies import FORMS
from interp.charts.style import caption
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.run import Run
from interp.studies import model_centric as study
from interp.studies.model_centric_claims import STATEMENTS, first_at
from tests.helpers import read_back

SMOKE = {"preset": "smoke", "seeds": (0,), "every": 4, "n_asked": 6, "run": {"training.n_steps": 8}}


def test_runs_of_the_study() -> None:
    plans = study.planned(study.ModelCentricSettings())
    assert f"{len(plans)} runs of `tiny`" in study.STUDY.duration
    assert len({address_of(plan.config) for plan in plans}) == len(plans) == 9
    for wrong, word in (({"forms": ("triple", "triple")}, "each once"),
                        ({"run": {"data.vocabulary": ("triple",)}}, "data")):  # fmt: skip
        with pytest.raises(ConfigError, match=word):
            study.ModelCentricSettings(**wrong)


@pytest.fixture(scope="module")
def runs(trained: Callable[..., Run]) -> list[Run]:
    return [trained(plan.config) for plan in study.planned(study.ModelCentricSettings(**SMOKE))]


def test_tables_and_figures(runs: list[Run]) -> None:
    tables = study.tables(study.ModelCentricSettings(**SMOKE), runs)
    assert {name: tuple(table) for name, table in tables.items()} == study.COLUMNS
    curves, carried = tables["curves"], tables["carried"]
    assert curves["step"].unique().tolist() == [0, 4, 8]
    # Half of 8 sequences a step are about 12 of 24 people.
    assert curves.query("step == 8")["exposures"].unique() == pytest.approx(8 * 8 / 24, abs=1e-4)
    asked = curves.groupby("form")["asked_in"].unique().map(set)
    assert asked.to_dict() == {
        "biography": {"biography"}, "triple": {"triple", "biography"},
        "mnemonic": {"mnemonic", "biography"},
    }  # fmt: skip
    per_exposure = (curves["tokens"] / curves["exposures"]).groupby(curves["form"]).max()
    assert per_exposure["mnemonic"] < per_exposure["triple"] < per_exposure["biography"]
    assert set(carried["people"]) == {"in prose", "in the form"}
    figures = study.figures(read_back(tables))
    assert list(figures) == ["model-centric-exposures", "model-centric-carried"]
    assert all("Look for" in caption(figure) for figure in figures.values())
    assert study.figures({}) == {}


def test_half_of_the_people_are_met_in_the_form_alone(runs: list[Run]) -> None:
    run = next(run for run in runs if study.form_of(run) == "mnemonic")
    told: dict[bool, set[str]] = {False: set(), True: set()}
    for step in range(6):
        batch = run.corpus.batch(step, 8)
        for individual, form in zip(batch.individuals.tolist(), batch.form.tolist(), strict=True):
            told[individual >= 12].add(list(FORMS)[form])
    assert told == {False: {"biography"}, True: {"mnemonic"}}


def test_first_at() -> None:
    rows = pd.DataFrame({"exposures": [0, 10, 20], "accuracy": [0.0, 0.8, 1.0]})
    assert first_at(rows, "exposures") == pytest.approx(15.0)
    assert first_at(rows.head(2), "exposures") == float("inf")


def made_up(seed: int, speed: float, kept: float) -> dict[str, pd.DataFrame]:
    """Everything is known after 100 exposures in prose, and `speed` times as many in the other forms."""
    curves, carried = [], []
    for form, at in (("biography", 100), ("triple", 100 * speed), ("mnemonic", 100 * speed)):
        for step, share, known in ((0, 0.0, 0.0), (10, 1.0, 1.0)):
            curves.append((seed, form, step, share * at, share * at * 40, form, known))
        for asked_in, accuracy in {
            form: 1.0,
            "biography": 1.0 if form == "biography" else kept,
        }.items():
            carried.append((seed, form, "in the form", asked_in, "all", accuracy, 0.1))
    rows = {"curves": curves, "carried": carried}
    return {name: pd.DataFrame(rows[name], columns=list(study.COLUMNS[name])) for name in rows}


@pytest.mark.parametrize(
    ("speed", "kept", "verdict"), [(0.5, 0.9, "agree"), (1.0, 0.1, "disagree")]
)
def test_rules_decide(speed: float, kept: float, verdict: str) -> None:
    several = [made_up(seed, speed, kept) for seed in (0, 1, 2)]
    together = {name: pd.concat([one[name] for one in several]) for name in several[0]}
    found = study.claims(read_back(together))
    assert [claim.verdict for claim in found] == [verdict] * len(STATEMENTS)
    assert [claim.rule.split()[0] for claim in found[:4]] == ["Exposures"] * 2 + ["Tokens"] * 2


def test_numbers_that_rules_read() -> None:
    several = [made_up(seed, speed, 0.1 * seed) for seed, speed in ((0, 0.5), (1, 0.9), (2, 0.7))]
    several[2]["curves"]["accuracy"] *= several[2]["curves"]["form"] != "triple"
    together = {name: pd.concat([one[name] for one in several]) for name in several[0]}
    together["carried"].loc[together["carried"]["accuracy"] == 1.0, "accuracy"] = 0.8
    found = [[list(one.values) for one in claim.readings] for claim in study.claims(together)]
    assert found[0] == found[2] == [pytest.approx([0.5, 0.9])]  # never known in the last seed
    assert found[1] == found[3] == [pytest.approx([0.5, 0.9, 0.7])]
    assert found[4] == found[5] == [pytest.approx([0.0, 0.1 / 0.8, 0.2 / 0.8])]


def test_seeds_in_which_nothing_is_known_cannot_tell() -> None:
    tables = made_up(0, 0.5, 0.9)
    tables["curves"]["accuracy"] = 0.1
    assert {claim.verdict for claim in study.claims(tables)[:4]} == {"cannot tell"}
    assert {claim.verdict for claim in study.claims({})} == {"cannot tell"}
