"""The report of a model whose weights were computed: what was built, and nothing over training."""

from pathlib import Path

import pytest

import interp
from interp.config import Variant
from interp.report import write_report
from interp.report.built import built_section, built_sentence
from interp.report.elements import Section
from interp.report.sections import COMPILED_SECTIONS, SECTIONS, sections_of
from interp.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("compiled") / "run"
    return interp.compile_recall(interp.preset("smoke"), "local").save(folder)


def test_sections_are_those_that_apply(run: Run, smoke_run: Run) -> None:
    assert sections_of(run) == COMPILED_SECTIONS
    assert sections_of(smoke_run) == SECTIONS


def test_page_says_what_it_is(run: Run) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "<h1>Compiled model (local), preset smoke, seed 0</h1>" in page
    assert (
        "computed from the biographies of 24 people (8 more were held out) without training" in page
    )
    assert "Left out: Learning, phases, and measures over training" in page
    assert 'id="maps"' in page
    assert "at step 0. Below, choose a head" in page
    assert "slider goes by checkpoints" not in page
    assert "not measured yet" not in page
    glossary = page.split('id="glossary"')[1].split("</section>")[0]
    assert "wording" in glossary
    assert "plateau" not in glossary


def test_what_was_built(run: Run) -> None:
    section = built_section(run)
    assert isinstance(section, Section)
    heads, neurons = section.tables
    assert len(heads.rows) == 2 * run.config.model.n_heads
    told = {row[1]: row[2] for row in neurons.rows if row[0] == "0"}
    assert told["person"] == "24"
    assert built_sentence(run) == (
        "The facts are in one neuron of MLP 0 a person: 100.0% of the values of known people are recalled in "
        "wordings of evaluation, and 0.0% of those of people held out."
    )


@pytest.mark.parametrize("variant", ["distributed", "geometric"])
def test_other_variants_and_damaged_keys(variant: Variant, tmp_path: Path) -> None:
    config = interp.preset("smoke")
    if variant == "geometric":
        config = interp.one_token_people(config, tmp_path / "people")
    run = interp.compile_recall(config, variant).save(tmp_path / "run")
    where = {"distributed": "random features", "geometric": "embeddings of people"}[variant]
    assert where in built_sentence(run)
    section = built_section(run)
    assert isinstance(section, Section)
    roles = {row[1] for row in section.tables[1].rows}
    assert ("random feature" in roles) == (variant == "distributed")
    (run.path / "key" / "heads.csv").write_text("", encoding="utf-8")
    with pytest.raises(interp.errors.RunError, match="compile it again"):
        built_section(run)


def test_phases_are_still_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(interp.errors.RunError, match="compiled and not trained"):
        _ = run.phases
