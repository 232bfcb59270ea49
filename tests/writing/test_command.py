"""`interp write`: a fact written into a run, and what else that changes."""

from pathlib import Path

import pytest

import interp
from interp.biographies import Corpus
from interp.errors import ArgumentError
from interp.run import Run
from interp.writing import TargetSettings, edit_effect, weights_digest
from tests.helpers import run_cli


@pytest.fixture(scope="module")
def new(corpus: Corpus) -> str:
    own = corpus.population.facts(2)["major"]
    return next(value for value in corpus.population.lexicon.values["major"] if value != own)


def test_the_command(
    smoke_run: Run, corpus: Corpus, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, file = corpus.population.name(2), tmp_path / "edit"
    words = ["write", smoke_run.path, name, "Major", new.upper(), "--texts", 2, "--others", 3]
    assert run_cli(*words, "--out", file) == 0
    lines = capsys.readouterr().out.splitlines()
    old = corpus.population.facts(2)["major"]
    assert lines[0] == (
        f"{name} (individual 2): major, {old} → {new} (rome, layer 1, predicts value)"
    )
    assert any("other people: " in line for line in lines)
    assert lines[-1] == f"{file}.safetensors"
    edit = interp.load_edit(lines[-1])
    model = smoke_run.model()
    before = weights_digest(model)
    found = edit_effect(model, edit, corpus, n_others=3)
    assert weights_digest(model) == before
    for question in found.asked.loc[found.asked["new"], "question"]:
        assert any(str(question) in line for line in lines)
    assert (
        run_cli(*words, "--layers", 0, "--position", "first name", "last name", "--out", file) == 0
    )
    assert "layer 0, first name, last name" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Nobody At All", "major", "x"], "Nobody in this population"),
        (["99", "major", "x"], "There is no individual 99"),
        (["0", "majr", "x"], "Did you mean 'major'"),
        (["0", "major", "Phrenology"], "is no major of this corpus"),
        (["0", "major", "x", "--layers", "7"], "is no major"),
        (["0", "major", "OWN"], "is that already"),
        (["0", "major", "NEW", "--layers", "7"], "none of the model's"),
        (["0", "major", "NEW", "--position", "ear"], "no position 'ear'"),
        (["0", "major", "NEW", "--step", "41"], "no checkpoint at step 41"),
        (["0", "major", "NEW", "--texts", "0"], "n_texts"),
    ],
)
def test_what_the_command_refuses(
    arguments: list[str], says: str, smoke_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    own = smoke_run.population.facts(0)["major"]
    other = next(v for v in smoke_run.population.lexicon.values["major"] if v != own)
    words = [{"OWN": own, "NEW": other}.get(word, word) for word in arguments]
    assert run_cli("write", smoke_run.path, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1


def test_a_file_of_another_kind_is_kept(
    smoke_run: Run, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_text("something else")
    assert run_cli("write", smoke_run.path, "2", "major", new, "--out", mine) == 2
    assert "is not replaced" in capsys.readouterr().err
    assert mine.read_text() == "something else"


def test_the_effect_against_asking(smoke_run: Run, corpus: Corpus, new: str) -> None:
    model = smoke_run.model()
    edit = interp.write_facts(
        model, [(2, "major", new)], corpus=corpus, n_texts=2, weight=0.1,
        targets=TargetSettings(n_steps=30, lr=0.2, largest=40.0),
    )  # fmt: skip
    found = edit_effect(model, edit, corpus, n_others=4)
    rows = found.asked[found.asked["new"]]
    assert set(rows["attribute"]) == {"major"}
    assert set(rows["value"]) == {new}
    assert (rows["probability"] > rows["probability_before"]).all()
    with edit.applied(model):
        asked = interp.ask(model, 2, corpus=corpus, forms="biography", others=0).answers
    assert found.asked["answer"].tolist() == asked["answer"].tolist()
    assert found.asked["old_probability"].tolist() == asked["probability"].tolist()
    assert set(found.others["individual"]).isdisjoint({2})
    assert found.others["individual"].nunique() == 4
    assert found.others["probability"].between(0, 1).all()
    assert edit_effect(model, edit, corpus, n_others=0).others.empty
    with pytest.raises(ArgumentError, match="n_others"):
        edit_effect(model, edit, corpus, n_others=-1)
