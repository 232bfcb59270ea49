"""A study of one's own: one Python file outside the package, with the same engine, verdicts and report."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

import interp
from interp.cli import main
from interp.errors import ConfigError, RunError
from interp.studies.batch import Batch, batch_in

EXAMPLE = Path(__file__).parents[2] / "docs" / "my_study.py"
SHORT = [
    "--seeds", "0", "1", "--set", "preset=smoke", "batch_sizes=[4, 8]",
    "run={training.n_steps: 8, evaluation.every: 4}",
]  # fmt: skip


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documented example, in a folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(EXAMPLE, tmp_path))


def test_the_example_is_short_and_the_documented_one() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert text in EXAMPLE.with_name("own_study.md").read_text(encoding="utf-8")


def test_the_call_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the example's settings made small."""
    monkeypatch.chdir(tmp_path)
    small = """
    preset: str = "smoke"
    run: dict[str, object] = {"training.n_steps": 8, "evaluation.every": 4}
    batch_sizes: tuple[int, int] = (4, 8)"""
    whole = EXAMPLE.read_text(encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "my_study.py").write_text(
        whole.replace("\n    batch_sizes: tuple[int, int] = (32, 64)", small)
    )
    text = EXAMPLE.with_name("own_study.md").read_text(encoding="utf-8")
    (call,) = re.findall(r"```python\n(found = .*?)```", text, re.DOTALL)
    names: dict[str, object] = {"interp": interp}
    exec(compile(call, "own_study.md", "exec"), names)
    assert len(names["found"][0].tables["ends"]) == 6  # type: ignore[index]


def test_it_is_run_reported_and_gone_on_with(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["batch", "my_study.py", "--out", "results", *SHORT])
    out = study.parent / "results"
    ends = pd.read_csv(out / "my_study" / "ends.csv")
    assert sorted(zip(ends["batch_size"], ends["seed"], strict=True)) == [
        (4, 0),
        (4, 1),
        (8, 0),
        (8, 1),
    ]
    claims = pd.read_csv(out / "my_study" / "claims.csv")
    assert claims["rule"].item().startswith("It ends at least 25 steps earlier.")
    assert claims["verdict"].item() in ("agree", "disagree", "cannot tell")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Larger batches" in page
    assert "Does a batch twice as large" in page
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/finished.json")}
    assert len(stamps) == 4

    (out / "report.html").unlink()
    main(["report", "results"])
    again = (out / "report.html").read_text(encoding="utf-8")
    assert claims["measured"].item() in again
    assert "Does a batch twice as large" in again
    settings = yaml.safe_load((out / "batch.yaml").read_text())["studies"][0]["settings"]
    described = Batch.parse(
        {"studies": [{"study": "my_study.py", "settings": settings, "seeds": [0, 1]}]}
    )
    found = interp.run_batch(described, out, progress=False)
    assert found[0].n_finished == 4
    assert {p: p.stat().st_mtime_ns for p in out.glob("runs/*/finished.json")} == stamps

    entry = yaml.safe_load((out / "batch.yaml").read_text())["studies"][0]
    assert (entry["study"], entry["name"]) == (str(study), "my_study")
    study.unlink()
    with pytest.raises(ConfigError, match=r"no file.*my_study\.py.*lies now"):
        batch_in(out)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("STUDY = ", "OTHER = ", r"holds no study.*STUDY = Study"),
        ("import pandas as pd", "import pandas as", r"could not be run: SyntaxError"),
        ("class Settings", "1 / 0\nclass Settings", r"could not be run: ZeroDivisionError"),
        ("\nDuration: ", "\nTakes: ", r"my_study.*does not state its duration"),
        ('"my_study", __doc__', '"my study", __doc__', r"'my study'.*letters, digits"),
        ("{margin} steps", "25 steps", r"names the numbers \[\].*'margin'"),
    ],
)
def test_a_file_that_is_no_study_is_refused(study: Path, old: str, new: str, words: str) -> None:
    text = study.read_text(encoding="utf-8")
    assert old in text
    study.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        interp.run_batch("my_study.py", study.parent / "results")
    assert not (study.parent / "results").exists()


def test_a_slip_in_its_tables_loses_no_run_and_no_other_study(study: Path) -> None:
    text = study.read_text(encoding="utf-8")
    study.write_text(text.replace("rows = [", "rows = [][0] or ["), encoding="utf-8")
    other = study.with_name("other_study.py")
    other.write_text(text.replace('"my_study", __doc__', '"other", __doc__'), encoding="utf-8")
    settings = {"preset": "smoke", "batch_sizes": [4, 8], "run": {"training.n_steps": 4}}
    entries = [
        {"study": s, "seeds": [0], "settings": settings} for s in ("my_study.py", "other_study.py")
    ]
    mine, theirs = interp.run_batch(Batch.parse({"studies": entries}), "results", progress=False)
    assert re.search(r"IndexError in my_study\.py, line \d+", mine.error)
    assert mine.n_finished == 2
    assert len(theirs.tables["ends"]) == 2
    assert "IndexError" in (study.parent / "results/report.html").read_text(encoding="utf-8")


def test_a_slip_in_its_figures_leaves_them_out(study: Path) -> None:
    text = study.read_text(encoding="utf-8")
    study.write_text(text.replace("figure = go.Figure(", "figure = go.Figur("), encoding="utf-8")
    main(["batch", "my_study.py", "--out", "results", *SHORT])
    page = (study.parent / "results/report.html").read_text(encoding="utf-8")
    assert re.search(r"figures could not be drawn: AttributeError in my_study\.py, line \d+", page)
    assert len(pd.read_csv(study.parent / "results/my_study/claims.csv")) == 1


def test_yaml_names_a_file_beside_itself(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    batch = Batch.from_yaml("studies: [{study: my_study.py}]", study.parent)
    assert batch.studies[0].study == str(study)
    assert batch.studies[0].label == "my_study"


@pytest.mark.parametrize("text", ["", "[1]", "studies: 3", "studies: [{name: a}]", "{"])
def test_a_damaged_description_of_the_folder_is_said(study: Path, text: str) -> None:
    out = study.parent / "results"
    out.mkdir()
    (out / "batch.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"batch\.yaml does not describe a batch|missing|study"):
        interp.run_batch("my_study.py", out)
    assert (out / "batch.yaml").read_text(encoding="utf-8") == text


def test_a_folder_without_a_batch_has_no_page(tmp_path: Path) -> None:
    from interp.batch import report_batch

    with pytest.raises(RunError, match=r"no batch.*batch\.yaml"):
        report_batch(tmp_path)
