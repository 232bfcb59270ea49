"""Where commands write: nothing of somebody else is replaced, and the same command can be given again."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from interp.batch import run_batch
from interp.errors import RunError
from interp.report import write_comparison, write_report
from interp.report.one_fact import FORMATS, _marked, require_format
from interp.run import Run
from interp.stages import reproduce, summary_table
from tests.helpers import contents, run_cli

WRITERS: dict[str, tuple[list[Any], str]] = {
    "summary": (["summary", "{run}", "--csv", "{out}"], "x.csv"),
    "report": (["report", "{run}", "--out", "{out}"], "x.html"),
    "memory": (["memory", "{run}", "--out", "{folder}"], "keys.csv"),
    "export": (["export", "{run}", "--out", "{folder}"], "model.safetensors"),
    "locate": (["locate", "{run}", "0", "company", "--out", "{out}"], "x.html"),
    "ask": (["ask", "{run}", "0", "company", "--others", "0", "--csv", "{out}"], "x.csv"),
    "train-patched": (["train-patched", "{run}", "--out", "{folder}"], "comparison.csv"),
    "batch": (
        ["batch", "associative_memory", "--out", "{folder}"],
        "associative_memory/settings.yaml",
    ),
}
TRAIN_NOTHING = ("train-patched", "batch")


def command(name: str, run: Run, folder: Path) -> list[str]:
    words, file = WRITERS[name]
    return [str(w).format(run=run.path, folder=folder, out=folder / file) for w in words]


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_somebody_elses_is_refused_before_anything_is_written(
    name: str, finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / WRITERS[name][1]
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("mine: 1\n")
    assert run_cli(*command(name, finished, tmp_path)) == 2
    assert len(capsys.readouterr().err.strip()) < 500
    assert contents(tmp_path) == {WRITERS[name][1]: b"mine: 1\n"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "memory" else name
        for name in WRITERS
        if name not in TRAIN_NOTHING
    ],
)
def test_the_same_command_can_be_given_again(name: str, finished: Run, tmp_path: Path) -> None:
    words = command(name, finished, tmp_path)
    if name == "report":  # it was written once, with the run
        shutil.copy(finished.path / "report.html", tmp_path / WRITERS[name][1])
    else:
        assert run_cli(*words) == 0
    first = contents(tmp_path)
    assert run_cli(*words) == 0
    assert contents(tmp_path) == first


@pytest.mark.parametrize("name", ["memory", "export", "train-patched", "batch"])
def test_a_runs_folder_is_not_written_into(name: str, finished: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    before = contents(run.path)
    assert run_cli(*command(name, finished, run.path)) == 2
    assert contents(run.path) == before


@pytest.mark.parametrize("table", ["config.yaml", "summary.json", "results/knowledge/final.csv"])
def test_a_runs_own_files_are_no_place_for_a_table(
    table: str, finished: Run, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    before = contents(run.path)
    assert run_cli("summary", run.path, "--csv", run.path / table) == 2
    assert run_cli("report", run.path, "--out", run.path / table) == 2
    assert contents(run.path) == before


def test_no_run_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keep.csv").touch()
    assert run_cli("summary", "--csv", tmp_path / "keep.csv") == 2
    assert "No run is given" in capsys.readouterr().err
    assert contents(tmp_path) == {"keep.csv": b""}
    with pytest.raises(RunError, match="No run is given"):
        summary_table([])


def test_functions_refuse_as_commands_do(finished: Run, tmp_path: Path) -> None:
    theirs = tmp_path / "thesis.html"
    theirs.write_text("<!doctype html><title>Mine</title>")
    runs = [finished, Run(shutil.copytree(finished.path, tmp_path / "copy"))]
    for write in (lambda: write_report(finished, theirs), lambda: write_comparison(runs, theirs)):
        with pytest.raises(RunError, match="not a page that interp wrote"):
            write()
    for suffix in FORMATS:
        picture = theirs.with_suffix(suffix)
        picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(60))
        with pytest.raises(RunError, match="that interp wrote"):
            require_format(picture)
    theirs.with_suffix(".png").write_bytes(_marked(b"\x89PNG\r\n\x1a\n" + bytes(60)))
    require_format(theirs.with_suffix(".png"))
    with pytest.raises(RunError, match="folder of a run"):
        run_batch("associative_memory", finished.path)


@pytest.mark.parametrize(
    ("words", "name", "ending"),
    [
        ("report RUN --out", "cmp", ".html"),
        ("report RUN --out", "seeds.html", ""),
        ("report RUN COPY --out", "cmp", ".html"),
        ("locate RUN 0 major --out", "fact", ".html"),
        ("ask RUN 0 major --others 0 --csv", "answers", ".csv"),
        ("summary RUN --csv", "seeds", ".csv"),
        ("summary RUN --csv", "seeds.txt", ""),
    ],
)
def test_a_file_without_an_ending_gets_that_of_its_kind(
    finished: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: str,
    name: str,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The page is about nothing: how it is called does not depend on what it holds.
    monkeypatch.setattr("interp.report.write_report", partial(write_report, sections=()))
    folders = {"RUN": finished.path, "COPY": tmp_path / "copy"}
    if "COPY" in words:
        shutil.copytree(finished.path, folders["COPY"])
    command = [folders.get(word, word) for word in words.split()]
    assert run_cli(*command, tmp_path / name) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / name}{ending}"
    assert (tmp_path / f"{name}{ending}").is_file()
    assert (tmp_path / name).exists() is not bool(ending)
    (tmp_path / "folder").mkdir()
    assert run_cli(*command, tmp_path / "folder") == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--out=~/x"], ["--out", "~/x"]])
def test_home_is_no_folder_called_tilde(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small = ["--training.n-steps", "2", "--population.n-individuals", "4"]
    assert run_cli("train", "smoke", *words, *small) == 0
    assert Run.load(tmp_path / "home" / "x").finished
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("name", ["x\udcff", "a" * 256, "file/x", ".lock"])
def test_names_that_no_folder_can_have(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    out = tmp_path / "run" if name == ".lock" else tmp_path / name
    assert run_cli("train", "smoke", "--out", out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip()) < 500
    assert "Free space" not in error


def test_a_finished_run_needs_no_lock(finished: Run, tmp_path: Path, monkeypatch: Any) -> None:
    """Where nothing can be written, or a lock was copied, what is finished is taken as it is."""
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    before = contents(run.path)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("interp.files.FileLock.acquire", forbidden)
    said: list[str] = []
    reproduce(run.config, run.path, announce=said.append, progress=False)
    assert "was done before and is kept" in said[-1]
    assert run_cli("memory", run.path) == 0
    assert contents(run.path) == before
    (run.path / "report.html").unlink()
    with pytest.raises(Exception, match="Fix the permissions"):
        reproduce(run.config, run.path, progress=False)
