"""Examples in docstrings, the README and the pages of `docs` run as they stand."""

import doctest
import importlib
import pkgutil
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import interp
import interp.cli
from interp.biographies import FORMS
from interp.plain_yaml import read_yaml
from interp.report.glossary import GLOSSARY
from tests.architectures import boot, small_tokenizer
from tests.facts.capitals import ALL_TEMPLATES, CAPITALS, LANGUAGES
from tests.facts.conftest import make_tokenizer

README = Path(__file__).parents[1] / "README.md"
DOCS = README.with_name("docs")
TOUR = DOCS / "tour.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
RUN_BY = {
    "README.md": "test_docs.py::test_the_python_of_the_readme_and_the_tour_runs",
    "adapters.md": "test_docs.py::test_the_python_on_adapters_runs",
    "architecture.md": "test_docs.py::test_the_python_on_what_a_measure_takes_runs",
    "compiled.md": "test_docs.py::test_the_python_on_compiled_models_runs",
    "equations.md": "test_docs.py::test_the_python_on_equations_runs",
    "forms.md": "test_docs.py::test_the_python_on_forms_runs",
    "gpu.md": "test_docs.py::test_the_python_on_devices_runs",
    "memory_kind.md": "test_docs.py::test_the_python_on_kinds_of_memory_runs",
    "merging.md": "merging/test_merging.py::test_the_python_of_the_page_runs",
    "own_measure.md": "test_docs.py::test_the_python_on_a_measure_of_your_own_runs",
    "own_model.md": "test_docs.py::test_the_python_on_a_model_of_your_own_runs",
    "own_people.md": "test_docs.py::test_the_page_on_people_of_your_own_runs",
    "own_study.md": "studies/test_own_study.py::test_the_call_on_the_page_runs",
    "real_models.md": "test_docs.py::test_the_python_on_real_models_runs",
    "selection.md": "training/test_selection_docs.py::test_the_page_runs",
    "tour.md": "test_docs.py::test_the_python_of_the_readme_and_the_tour_runs",
    "trust.md": "test_docs.py::test_the_python_on_trust_runs",
    "writing.md": "test_docs.py::test_the_python_on_written_facts_runs",
}
"""The test that runs the Python of each page."""
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(interp.__path__, "interp.")
    if not name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [
        e for m in MODULES for t in finder.find(importlib.import_module(m)) for e in t.examples
    ]
    assert len(found) >= 5


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_relative_links_lead_somewhere() -> None:
    pages = [README, *TOUR.parent.glob("*.md"), README.with_name("CONTRIBUTING.md")]
    broken = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def blocks_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_all_python_is_run_by_a_test() -> None:
    assert [p.name for p in PAGES if blocks_of(p.read_text(encoding="utf-8"))] == list(RUN_BY)
    for place in RUN_BY.values():
        file, name = place.split("::")
        text = README.with_name("tests").joinpath(file).read_text(encoding="utf-8")
        assert f"def {name}(" in text


def commands_of(page: Path) -> list[list[str]]:
    """What follows `interp` in the shell commands of a page."""
    blocks = re.findall(r"```(?:ba)?sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = (shlex.split(line, comments=True) for line in lines)
    return [line[line.index("interp") + 1 :] for line in words if "interp" in line]


def test_the_commands_on_all_pages_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is parsed, and not run."""
    parsed, understood = interp.cli.parsed, []

    def only_parsed(*given: Any) -> Callable[[], None]:
        parsed(*given)
        return lambda: understood.append(given[2])

    shutil.copytree(DOCS / "own_people", tmp_path / "docs" / "own_people")
    (tmp_path / "stages.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interp.cli, "parsed", only_parsed)
    commands = [command for page in PAGES for command in commands_of(page)]
    for command in commands:
        interp.cli.main(command)
    assert len(understood) == len(commands) > 30


def runs(
    page: str, given: dict[str, Any] | None = None, smaller: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """The Python of a page, run at `smoke`; the names that it leaves."""
    names = dict(given or {})
    code = "\n".join(blocks_of((DOCS / page).read_text(encoding="utf-8")))
    for large, small in [('"tiny"', '"smoke"'), *smaller]:
        assert large in code or large == '"tiny"'
        code = code.replace(large, small)
    exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture
def elsewhere(smoke_run: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> interp.Run:
    """A run that every training gives, in an empty working directory where no figure is shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda figure: None)
    monkeypatch.setattr(interp, "train", lambda config, out, **how: smoke_run)
    monkeypatch.setattr(interp.Run, "load", lambda path: smoke_run)
    return smoke_run


@pytest.mark.filterwarnings("ignore:Scores are NaN")
def test_the_python_on_real_models_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny model in place of a real one; what needs the hub is left out."""
    blocks = [
        block for block in blocks_of(README.read_text(encoding="utf-8")) if "load_model" in block
    ]
    blocks += blocks_of(
        README.with_name("docs").joinpath("real_models.md").read_text(encoding="utf-8")
    )
    assert len(blocks) >= 5
    code = "\n".join(line for line in "\n".join(blocks).splitlines() if "EleutherAI" not in line)
    tokenizer = make_tokenizer("byte-level")
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=len(tokenizer),
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    hf_model = GPT2LMHeadModel(config)
    monkeypatch.chdir(tmp_path)
    for folder in ("weights/smollm2", "out/checkpoint-500", "out/checkpoint-900", "a", "b"):
        hf_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    rows = [f"{s},{r},{a},The [capital] of {{subject}} is" for s, r, a in CAPITALS]
    Path("capitals.csv").write_text("\n".join(["subject,relation,answer,text", *rows]))
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda figure: None)
    monkeypatch.setattr(interp.Facts, "those_known", lambda facts, model: facts)
    given = {"hf_model": hf_model, "tokenizer": tokenizer, "interp": interp}
    exec(compile(code, "real_models.md", "exec"), given)
    assert len(given["facts"]) == 3  # type: ignore[arg-type]
    assert set(given["scores"]["step"]) == {100, 200}  # type: ignore[index]


def test_the_python_of_the_readme_and_the_tour_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = README.read_text(encoding="utf-8") + TOUR.read_text(encoding="utf-8")
    blocks = [block for block in blocks_of(text) if "load_model" not in block]
    assert len(blocks) >= 4
    code = "\n".join(blocks)
    for tiny, smoke in {
        '"tiny"': '"smoke"',
        "step=300": "step=20",
        "step=250": "step=20",
        "1500": "40",
    }.items():
        code = code.replace(tiny, smoke)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda figure: None)
    shared: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), shared)
    pattern, to_names = shared["pattern"], shared["to_names"]
    assert to_names.shape == pattern.shape[:-1]  # type: ignore[attr-defined]


def test_the_python_on_forms_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.with_name("docs").joinpath("forms.md").read_text(encoding="utf-8")
    blocks = blocks_of(text)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FORMS, "motto", FORMS["biography"])  # taken out again afterwards
    code = "\n".join(blocks).replace('"tiny"', '"smoke"').replace('"start": 40', '"start": 20')
    given: dict[str, Any] = {}
    exec(compile(code, "forms.md", "exec"), given)
    assert given["asked"].answers["step"].nunique() == 2
    assert set(given["by_form"]) == {"mnemonic", "question", "triple"}
    person = given["corpus"].population
    name, place = person.name(0), person.facts(0)["birth_place"]
    motto = given["corpus"].tokenizer.decode(given["batch"].tokens[0])
    assert motto.startswith(f"<bos> always remember {name} {place}")
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = interp.preset("smoke").with_settings(**read_yaml(settings))
    assert [stage.start for stage in config.data.stages or ()] == [0, 40]
    assert set(re.findall(r"^\| `(\w+)` \| .* \|.*\|$", text, re.MULTILINE)) == set(FORMS) - {
        "motto"
    }


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_python_on_adapters_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(README.with_name("docs").joinpath("adapters.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)
    model, original = boot("GPT-2", small_tokenizer())
    tokens = torch.arange(5, 21).view(2, 8)
    given: dict[str, Any] = {"model": model, "hf_model": original, "tokens": tokens}
    exec(compile("\n".join(blocks), "adapters.md", "exec"), given)
    assert (given["on"] - given["base"]).abs().max() > 0.1
    with torch.no_grad():
        theirs = given["theirs"].eval()(tokens).logits
    torch.testing.assert_close(theirs, given["on"], rtol=0, atol=1e-4)


def test_the_python_on_equations_runs(
    smoke_run: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(
        README.with_name("docs").joinpath("equations.md").read_text(encoding="utf-8")
    )
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda figure: None)
    make_tokenizer("byte-level").save_pretrained(tmp_path)
    model, _ = boot("GPT-2", PreTrainedTokenizerFast.from_pretrained(tmp_path))
    facts = interp.Facts.from_table([*CAPITALS, *LANGUAGES], model.tokenizer, ALL_TEMPLATES)
    given: dict[str, Any] = {"model": model, "facts": facts}
    monkeypatch.setattr(interp, "train", lambda config, out: smoke_run)
    code = "\n".join(blocks).replace("n_individuals=48", "n_individuals=8")
    exec(compile(code, "equations.md", "exec"), given)
    assert given["losses"].shape == (24, 6)
    assert given["matrix"].shape == given["mlp"].shape == (6, 6)
    assert set(given["by_relation"]["group"]) == {"capital", "language"}


def test_the_python_on_written_facts_runs(
    smoke_run: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(README.with_name("docs").joinpath("writing.md").read_text(encoding="utf-8"))
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interp, "train", lambda config, out: smoke_run)
    given: dict[str, Any] = {}
    exec(compile("\n".join(blocks), "writing.md", "exec"), given)
    assert given["asked"].answers["step"].tolist()
    assert {"rome", "memit", "fine-tuning"} == set(given["scores"]["method"])
    for name, weight in smoke_run.model().named_parameters():
        assert torch.equal(weight, dict(given["model"].named_parameters())[name])


def test_the_page_on_people_of_your_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its Python, its preview, and what it shows of the files; its main job, test_own_people runs."""
    docs = README.with_name("docs")
    text = (docs / "own_people.md").read_text(encoding="utf-8")
    shutil.copytree(docs / "own_people", tmp_path / "docs" / "own_people")
    monkeypatch.chdir(tmp_path)
    shown = {kind: re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("csv", "yaml")}
    for kind, name in (("csv", "people.csv"), ("yaml", "templates.yaml")):
        lines = (docs / "own_people" / name).read_text(encoding="utf-8").splitlines()
        assert all(line in lines for block in shown[kind] for line in block.splitlines())
    shared: dict[str, object] = {}
    exec(compile("\n".join(blocks_of(text)), "own_people.md", "exec"), shared)
    assert set(shared["measured"]["attribute"]) >= {"boat", "all"}  # type: ignore[index]
    assert shared["fact"].value == "Marstal"  # type: ignore[attr-defined]
    (commands,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    preview, reproduce = commands.replace("\\\n", "").splitlines()
    interp.cli.main(preview.split()[1:])
    out = capsys.readouterr().out
    assert "40 people (4 held out)" in out
    assert "Answer : {Lyø By} ." in out
    assert reproduce.split()[:3] == ["interp", "reproduce", "smoke"]


def test_the_python_on_what_a_measure_takes_runs() -> None:
    model, _ = boot("GPT-2", small_tokenizer())
    names = runs("architecture.md", {"early": model, "late": model})
    assert set(names["scores"]["step"]) == {0, 1000}


def test_the_python_on_compiled_models_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = runs("compiled.md", smaller=[("[64, 256, 1024]", "[16]")])
    assert names["run"].path == tmp_path / "runs" / "compiled"
    assert set(names["held"]["n_neurons"]) == {16}


def test_the_python_on_kinds_of_memory_runs(elsewhere: interp.Run) -> None:
    table = runs("memory_kind.md")["table"]
    assert table[["mlp", "late", "embeddings", "verdict"]].values.tolist() == [
        [1, 0, 0, "associative"]
    ]


def test_the_python_on_trust_runs() -> None:
    """With the first of the measures: all of them take a minute."""
    few = ("trust_table(compiled)", "trust_table(compiled, interp.trust.MEASURES[:1])")
    assert len(runs("trust.md", smaller=[few])["table"]) == 1


def test_the_python_on_devices_runs(elsewhere: interp.Run) -> None:
    pairs = interp.swapped_people(elsewhere.corpus, n=2)
    names = runs("gpu.md", {"interp": interp, "run": elsewhere, "pairs": pairs, "device": "cpu"})
    assert len(names["table"])


def test_the_python_on_a_model_of_your_own_runs(elsewhere: interp.Run) -> None:
    names = runs("own_model.md")
    assert set(names["table"]["position"]) == {"name", "predicts value"}
    assert set(names["over_training"]["step"]) == {0, 100}
    assert names["series"].known_phases.plateau_end == 100


def test_the_python_on_a_measure_of_your_own_runs(elsewhere: interp.Run) -> None:
    table = runs("own_measure.md")["table"]
    assert table.columns.tolist() == ["step", "layer", "value", "control"]
    assert set(table["step"]) == set(elsewhere.steps)
    assert (table[["value", "control"]] > 0).all(axis=None)


def test_the_glossary_ends_with_the_terms_of_reports() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms = [f"- **{name}**: {meaning}" for name, meaning in GLOSSARY.items()]
    assert text.partition("## Terms of a report\n\n")[2] == "\n".join(terms) + "\n"
