"""Examples in docstrings, the README and the tour run as they stand."""

import doctest
import importlib
import pkgutil
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import interp
import interp.cli
from interp.biographies import FORMS
from interp.plain_yaml import read_yaml
from tests.architectures import boot, small_tokenizer
from tests.facts.capitals import ALL_TEMPLATES, CAPITALS, LANGUAGES
from tests.facts.conftest import make_tokenizer

README = Path(__file__).parents[1] / "README.md"
TOUR = README.with_name("docs") / "tour.md"
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
