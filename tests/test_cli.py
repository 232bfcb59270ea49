"""The command line: what it prints, and that bad input ends with one message."""

import json
import shutil
from pathlib import Path

import pytest

from interp.cli import main


def run_cli(*arguments: object) -> int:
    """Runs a command and returns its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def run_copy(smoke_run, tmp_path: Path) -> Path:
    """A finished smoke run that a test may change."""
    return Path(shutil.copytree(smoke_run.path, tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "smokee", "--out", "x"], "Did you mean 'smoke'?"),
        (["trian", "smoke"], "Did you mean 'train'?"),
        (
            ["train", "smoke", "--out", "x", "--population.n-individuals", "5000"],
            "allow only 1,000",
        ),
        (["train", "smoke", "--out", "x", "--model.n-ctx", "20"], "Set model.n_ctx to"),
        (["train", "smoke", "--out", "x", "--training.device", "abacus"], "cannot be used here"),
        (["phases", "nowhere"], "There is no folder nowhere"),
        (["scaling", "smoke", "--out", "x", "--sizes", "8", "16"], "at least 3 different sizes"),
    ],
)
def test_bad_input_ends_with_one_message(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(*arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert run_cli("train", "smoke", "--out", tmp_path / "x", "--model.layers", "3") == 2
    assert "--model.layers" in capsys.readouterr().err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--help") == 0
    printed = capsys.readouterr().out
    for command in ("reproduce", "train", "phases", "report", "export", "scaling"):
        assert command in printed


def test_help_of_a_command_teaches_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "smoke", "--help") == 0
    printed = capsys.readouterr().out
    for flag in ("--population.n-individuals", "--optimizer.learning-rate", "--model.positions"):
        assert flag in printed


def test_phases_of_a_run(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("phases", run_copy) == 0
    printed = capsys.readouterr().out
    assert "statistics" in printed
    assert "plateau" in printed


def test_export_of_a_step_that_does_not_exist(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("export", run_copy, "--out", tmp_path / "export", "--step", 3) == 2
    assert "There is no checkpoint at step 3" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_reproduce_runs_every_stage_once(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "smoke", "--out", run_copy, "--training.precision", "fp32"]

    def stamps() -> dict[str, int]:
        files = [*run_copy.glob("checkpoints/*"), *run_copy.glob("results/*/summary.json")]
        return {str(f): f.stat().st_mtime_ns for f in files}

    assert run_cli(*command) == 0
    first = stamps()
    summary = json.loads((run_copy / "summary.json").read_text())
    assert summary["knowledge"]["held_out"]["attribute_loss"] > 0
    assert summary["phases"]["baseline"] > 0
    assert (run_copy / "report.html").read_text().lower().startswith("<!doctype html>")

    assert run_cli(*command) == 0
    assert "done before" in capsys.readouterr().err
    assert stamps() == first, "a finished stage is not run again"

    (run_copy / "results/knowledge/summary.json").unlink()
    assert run_cli(*command) == 0
    assert stamps().keys() == first.keys(), "a missing stage is run again"


def test_scaling_keeps_its_table_where_no_run_left_the_plateau(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--sizes", "8", "16", "24", "--seeds", "0", "--training.n-steps", "10"]
    assert run_cli("scaling", "smoke", "--out", tmp_path, *sizes) == 2
    assert "at least 3 different x" in capsys.readouterr().err
    assert (tmp_path / "table.csv").read_text().count("\n") > 3
    assert (tmp_path / "summary.json").exists()


def test_summary_of_several_runs(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "seeds.csv"
    assert run_cli("summary", run_copy, "--csv", table) == 2
    assert "Finish it with" in capsys.readouterr().err
    assert run_cli("reproduce", "smoke", "--out", run_copy, "--training.precision", "fp32") == 0
    assert run_cli("summary", run_copy, run_copy, "--csv", table) == 0
    rows = table.read_text().splitlines()
    assert len(rows) == 3
    assert "knowledge.held_out.attribute_loss" in rows[0]
