"""The section of a report that asks in every form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import interp
from interp.config import Config
from interp.maps import map_text
from interp.plots.forms import NOT_TRAINED, TRAINED
from interp.report import LeftOut, Section, write_report
from interp.report.forms import forms_section, people_met
from interp.report.maps import maps_section
from interp.run import Run
from tests.every_form import ADAPTED


@pytest.fixture(scope="module")
def run(trained: Callable[[Config], Run]) -> Run:
    return trained(ADAPTED)


@pytest.fixture(scope="module")
def section(run: Run) -> Section:
    made = forms_section(run)
    assert isinstance(made, Section)
    return made


def test_people_are_met_in_what_a_stage_tells(run: Run) -> None:
    met = people_met(run)
    n = run.config.population.n_individuals
    assert met["mnemonic"].tolist() == [True] * n + [False] * (len(run.population) - n)
    assert np.flatnonzero(met["question"]).tolist() == list(range(n // 2))
    assert not met["triple"].any()
    assert not met["biography"].any()


def test_accuracy_is_that_of_the_groups(run: Run, section: Section) -> None:
    table = section.downloads["accuracy-by-form"]
    n = run.config.population.n_individuals
    assert set(table["step"]) == {0, 4, 8}
    for form, group, people in (
        ("question", TRAINED, np.arange(n // 2)),
        ("question", NOT_TRAINED, np.arange(n // 2, n)),
        ("mnemonic", TRAINED, np.arange(n)),
        ("triple", NOT_TRAINED, np.arange(n)),
    ):
        own = table[(table["form"] == form) & (table["group"] == group)].set_index("step")
        answers = interp.answers(run, forms=form)  # wordings are drawn for all people together
        expected = interp.accuracy_by_form(answers[answers["individual"].isin(people)])
        expected = expected[expected["attribute"] == "all"].set_index("step")
        np.testing.assert_allclose(own["accuracy"], expected["accuracy"])
        np.testing.assert_allclose(own["loss"], expected["loss"], rtol=1e-5)
        assert (own["n_people"] == len(people)).all()
    groups = {tuple(pair) for pair in table[["form", "group"]].to_numpy()}
    assert ("triple", TRAINED) not in groups
    assert ("mnemonic", NOT_TRAINED) not in groups
    for form in ("question", "triple", "mnemonic"):
        assert form in section.sentence


def test_the_figure_has_the_stage(section: Section) -> None:
    figure = section.figures["accuracy-by-form"]
    lines = [shape for shape in figure.layout.shapes if shape.name == "stage 2"]
    assert {line.x0 for line in lines} == {2.0}  # the root of step 4
    assert any("question, adapter, from step 4" in str(trace.name) for trace in figure.data)


def test_two_people_are_asked(run: Run, section: Section) -> None:
    known, other = section.tables
    assert "met in training as question, mnemonic" in known.caption
    assert "met in training as mnemonic)" in other.caption
    assert known.header[-3:] == ("step 0", "step 4", "step 8")
    asked = interp.ask(run, 0, "university", steps=[8], others=0).answers
    row = asked[asked["form"] == "question"].iloc[0]
    shown = next(cells for cells in known.rows if cells[0] == "question")
    assert shown[1] == row["question"]
    assert shown[-1] == f"{row['answer']} ({row['probability']:.3f})"


def test_left_out_where_there_are_biographies_only(smoke_run: Run) -> None:
    made = forms_section(smoke_run)
    assert isinstance(made, LeftOut)
    assert "biographies only" in made.why


def test_in_the_page(run: Run, tmp_path: Path) -> None:
    text = write_report(run, tmp_path / "page.html", [forms_section]).read_text("utf-8")
    assert 'id="forms"' in text
    assert run.population.name(0) in text


def test_maps_show_a_person_in_other_forms(run: Run) -> None:
    made = maps_section(run)
    assert isinstance(made, Section)
    names = [text["name"] for text in made.embeds[0].settings["texts"]]
    name = run.population.name(0)
    assert {f"{name} ({form})" for form in ("mnemonic", "question", "triple")} <= set(names)
    assert len({text["person"] for text in made.embeds[0].settings["texts"]}) == len(names)
    text = map_text(run, 3, form="question")
    facts = run.population.facts(3)
    assert {fact.relation.replace(" ", "_"): fact.value for fact in text.facts} == facts
    tokens = run.corpus.sequences(np.array([3]), "question").tokens[0]
    for fact in text.facts:
        said = tokens[fact.position + 1 : fact.position + 1 + fact.length].tolist()
        assert run.tokenizer.decode(said) == fact.value


def test_explore_shows_a_form(run: Run) -> None:
    widget = pytest.importorskip("interp.maps.widget")
    view = widget.explore(run, 3, steps=[8], form="question")
    (text,) = view.settings["texts"]
    assert text["name"].endswith("(question)")
    with pytest.raises(interp.InterpError, match="does not know the words"):
        widget.explore(run, 3, steps=[8], form="fused")
