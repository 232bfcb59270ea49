"""The command line: what it prints, and that bad input ends with one message."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp import cli
from interp.cli.printing import standard_output
from interp.report import comparison, write_report
from interp.run import Run
from tests.helpers import contents, run_cli


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
        (["phases", "nowhere"], "nowhere. Train"),
        (["report"], "at least one run"),
        (["report", "nowhere", "elsewhere"], "nowhere. Train"),
        (["people", "nowhere"], "nowhere. Train"),
        (["locate", "nowhere", "Ann", "major"], "nowhere. Train"),
        (["ask", "nowhere", "Ann", "major"], "nowhere. Train"),
        (["write", "nowhere", "Ann", "major", "law"], "nowhere. Train"),
        (["locate", "nowhere", "Ann", "major", "--out", "fact.pdf"], "ends in .html, .svg, .png"),
        (["batch", "power_lw", "--out", "x"], "Did you mean 'power_law'?"),
        (["batch", "--out", "x"], "Give names of studies"),
        (
            ["batch", "missing.yaml", "--out", "x"],
            "missing.yaml: it cannot be read (there is no such file)",
        ),
        (["batch", "power_law", "--set", "n_stepz=3", "--out", "x"], "Did you mean 'n_steps'?"),
        (["batch", "power_law", "--set", "n_steps", "--out", "x"], "give NAME=VALUE"),
        (
            ["batch", "power_law", "--set", "training.lr=3", "--out", "x"],
            "no setting 'training.lr'. A setting of all runs goes into run={optimizer.learning_rate: ...}",
        ),
        (
            ["batch", "power_law", "--out", "x", "--workers", "0"],
            "workers=0: expected a whole number from 1 on",
        ),
        (["batch", "power_law", "--out", "x", "--address", "auto"], "belongs to kind='ray'"),
        (["studies", "nowhere"], "There is no folder nowhere"),
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


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--model.layers", "3"],
            "--model.layers, 3. Did you mean --model.n-layers or --patching.layers?",
        ),
        (["--lr", "3"], "--lr, 3. Did you mean --optimizer.learning-rate?"),
        (["--training.n-layers", "3"], "Did you mean --model.n-layers?"),
        (["extra"], "Unrecognized options: extra. `interp train --help`"),
        (["--seed", "abc"], "--seed: expected a whole number, not 'abc'."),
        (["--seed", "9" * 5000], "--seed: expected a whole number of fewer digits."),
        (["--seed", "-1"], "seed=-1: expected a whole number from 0 to 9,223"),
        (["--population.seed", "x"], "--population.seed: expected {None}|INT, not ['x']."),
        (["--optimizer.beta1", "x" * 5000], "--optimizer.beta1: expected a number, not 'xxx"),
        (["--training.precision", "fp99"], "'fp99' for argument '--training.precision'"),
        (["--seed"], "Missing value for argument '--seed'."),
        (["--seed", "1"], "Missing from interp train: --out PATH"),
    ],
)
@pytest.mark.parametrize("terminal", ["UTF-8", "ASCII", "colours"])
def test_flags_that_cannot_be_read(
    flags: list[str], says: str, terminal: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: terminal != "ASCII")
    monkeypatch.setattr("tyro._fmtlib._FORCE_ANSI", terminal == "colours")
    out = [] if "--out" in says else ["--out", tmp_path / "x"]
    assert run_cli("train", "smoke", *out, *flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said
    assert said.count("\n") == 1
    assert len(said) <= 500


@pytest.mark.parametrize(
    "command", [["train-patched"], ["memory"], ["batch", "power_law"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("below", ["", "checkpoints", "results/mine"])
def test_other_files_do_not_go_among_those_of_a_run(
    command: list[str], below: str, run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run_copy)
    of_run = [] if command[0] == "batch" else [str(run_copy)]
    assert run_cli(*command, *of_run, "--out", run_copy / below) == 2
    assert "the folder of a run" in capsys.readouterr().err
    assert contents(run_copy) == before


@pytest.mark.parametrize("text", ["a: !!int abc", "a: 1\na: 2", "[", "studies: [{stdy: x}]"])
def test_a_description_of_a_batch_that_cannot_be_read_is_named(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert run_cli("batch", tmp_path / "mine.yaml", "--out", tmp_path / "x") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'mine.yaml'}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_is_closed(
    closed: str, run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as streams:
        streams.setattr(sys, closed, None)
        assert run_cli("people", run_copy) == 0
        assert run_cli("phases", "nowhere") == 2
        getattr(sys, closed).close()


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--help") == 0
    printed = capsys.readouterr().out
    for command in (
        "reproduce",
        "train",
        "phases",
        "report",
        "export",
        "studies",
        "batch",
        "people",
    ):
        assert f"interp {command}" in printed
    assert "RUN1 RUN2 ..." in printed
    assert "RUN PERSON ATTRIBUTE" in printed


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(command, "--help") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: interp {command}")
    examples = [line for line in printed.split("\n") if "Example:" in line]
    assert examples
    assert all(line.startswith(f"Example: interp {command} ") for line in examples)
    assert all(line.count("Example:") == 1 for line in examples), "one line each"
    assert "PATH" not in printed.split("\n")[0].split("--")[0], "what is meant has a name"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--help") == 0
    printed = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if f"  interp {name} " not in printed] == []


@pytest.fixture(scope="module")
def bash_completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "interp", "completion", "bash"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("completion") / "interp.bash"
    path.write_text(done.stdout, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["inter", "rep"], {"report", "reproduce"}),
        (["interp", "locate", "run", "--con"], {"--context"}),
        (["interp", "export", "run", "--format", "h"], {"huggingface"}),
        (["interp", "train", "smoke", "--model.n-l"], {"--model.n-layers"}),
        (["interp", "report", "no-command"], set()),
    ],
)
def test_bash_completes(words: list[str], completed: set[str], bash_completion: Path) -> None:
    assert subprocess.run(["bash", "-n", bash_completion], check=False).returncode == 0
    script = (
        f"source {bash_completion}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
        "_tyro_interp; printf '%s\\n' \"${COMPREPLY[@]}\"; complete -p interp"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    *found, registered = done.stdout.split("\n")[:-1]
    assert {*filter(None, found)} == completed
    assert "-o default" in registered, "what is no command and no flag is a file"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("completion", shell) == 0
    printed = capsys.readouterr().out
    assert "reproduce" in printed
    assert "--model.n-layers" in printed
    registered = {"zsh": "#compdef interp", "fish": "complete --command 'interp'"}
    assert registered[shell] in printed
    assert "--no-files" not in printed
    assert (' [[ -z "$completions" ]] ||' in printed) == (shell == "zsh")


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


def test_export_for_transformers(run_copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    assert run_cli("export", run_copy, "--out", folder, "--format", "huggingface") == 0
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        expected = Run.load(run_copy).model().eval()(tokens)
        torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-5, atol=1e-5)
    assert run_cli("export", run_copy, "--out", run_copy, "--format", "huggingface") == 2


def test_export_of_a_step_that_does_not_exist(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("export", run_copy, "--out", tmp_path / "export", "--step", 3) == 2
    assert "There is no checkpoint at step 3" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_reproduce_runs_what_is_missing_once(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # The page is about nothing: what it holds is not of interest here.
    monkeypatch.setattr("interp.stages.job.write_report", partial(write_report, sections=()))
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    command = ["reproduce", "smoke", "--out", run, "--training.precision", "fp32"]

    def stamps() -> dict[str, int]:
        files = [*run.glob("checkpoints/*"), *run.glob("results/*/summary.json")]
        return {str(f): f.stat().st_mtime_ns for f in files}

    first = stamps()
    (run / "results/knowledge/summary.json").unlink()
    (run / "report.html").unlink()
    assert run_cli(*command) == 0
    second = stamps()
    assert second.keys() == first.keys(), "a missing stage is run again"
    changed = {Path(path).parent.name for path in first if first[path] != second[path]}
    assert changed == {"knowledge"}, "a finished stage is not run again"
    assert "done before" in capsys.readouterr().err
    summary = json.loads((run / "summary.json").read_text())
    assert summary["knowledge"]["held_out"]["attribute_loss"] > 0
    assert summary["phases"]["baseline"] > 0
    assert (run / "report.html").read_text().lower().startswith("<!doctype html>")


def test_summary_of_several_runs(
    run_copy: Path, finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "seeds.csv"
    assert run_cli("summary", run_copy, "--csv", table) == 2
    assert "Finish it with" in capsys.readouterr().err
    assert run_cli("summary", finished.path, finished.path, "--csv", table) == 0
    rows = table.read_text().splitlines()
    assert len(rows) == 3
    assert "knowledge.held_out.attribute_loss" in rows[0]


def test_report_of_one_run_and_of_several(
    run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("interp.report.comparison.SECTIONS", comparison.SECTIONS[:2])
    assert run_cli("report", run_copy) == 0
    assert (run_copy / "report.html").exists()
    assert run_cli("report", run_copy, "--out", tmp_path / "elsewhere.html") == 0
    assert (tmp_path / "elsewhere.html").read_bytes() == (run_copy / "report.html").read_bytes()
    other = shutil.copytree(run_copy, tmp_path / "other")
    assert run_cli("report", run_copy, other) == 0
    page = tmp_path / "comparison.html"
    assert "2 runs compared" in page.read_text(encoding="utf-8")
    assert str(page) in capsys.readouterr().out
    assert run_cli("report", run_copy, other, "--out", tmp_path / "both.html") == 0
    assert (tmp_path / "both.html").read_bytes() == page.read_bytes()


def test_report_of_the_same_run_twice(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*.html"))
    assert run_cli("report", run_copy, run_copy) == 2
    error = capsys.readouterr().err
    assert "is given twice" in error
    assert error.count("error:") == 1
    assert sorted(tmp_path.rglob("*.html")) == before


def test_people(smoke_run, capsys: pytest.CaptureFixture[str]) -> None:
    people = smoke_run.population

    def printed(*flags: object) -> str:
        assert run_cli("people", smoke_run.path, *flags) == 0
        return capsys.readouterr().out

    everybody = printed("--limit", 0)
    assert "32 of 32 people found, of 32 in all (8 held out)" in everybody
    for i in range(len(people)):
        assert people.name(i) in everybody
        assert all(value in everybody for value in people.facts(i).values())
    assert "20 of 32" in printed()
    unseen = printed("--held-out")
    assert people.name(24) in unseen
    assert people.name(23) not in unseen
    major = people.facts(3)["major"]
    having = sum(major in (people.name(i) + str(people.facts(i))) for i in range(len(people)))
    few = printed("--search", major.upper(), "--limit", 1)
    assert f"1 of {having} people found" in few
    assert "0 of 0 people found" in printed("--search", "[nobody]")
    assert run_cli("people", smoke_run.path, "--limit", -1) == 2
    assert "give 0 for all" in capsys.readouterr().err


def test_trace(smoke_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import interp

    name = smoke_run.population.name(5)
    page = tmp_path / "fact.html"
    located = repr(interp.locate_fact(smoke_run, 5, "birth_place"))
    for person in (name.upper(), "5"):
        assert run_cli("locate", smoke_run.path, person, "birth-place") == 0
        assert capsys.readouterr().out == f"{located}\n"
    assert run_cli("locate", smoke_run.path, name, "birth-place", "--out", page) == 0
    assert capsys.readouterr().out == f"{located}\n{page}\n"
    text = page.read_text(encoding="utf-8")
    assert name in text
    assert 'id="located-fact' in text
    step, flags = smoke_run.steps[1], ["--wordings", "train", "--context", "biography"]
    assert run_cli("locate", smoke_run.path, name, "birth place", "--step", step, *flags) == 0
    found = interp.locate_fact(smoke_run, 5, "birth_place", step, "train", context="biography")
    assert capsys.readouterr().out == f"{found!r}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "major"], "'a' in their name"),
        (["Nobody At All", "major"], "Nobody in this population"),
        (["99", "major"], "There is no individual 99"),
        (["0", "birth-plac"], "Did you mean 'birth_place'"),
        (["0", "major", "--step", "41"], "no checkpoint at step 41"),
        (["0", "major", "--context", "last"], "biography"),
    ],
)
def test_trace_refuses(
    smoke_run, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fact.html"
    assert run_cli("locate", smoke_run.path, *arguments, "--out", out) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not out.exists()


def test_a_picture_without_a_browser(
    smoke_run, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import plotly.graph_objects as go

    def fail(self: go.Figure, **settings: object) -> bytes:
        raise RuntimeError("Kaleido requires Google Chrome to be installed.")

    monkeypatch.setattr(go.Figure, "to_image", fail)
    out = tmp_path / "fact.svg"
    assert run_cli("locate", smoke_run.path, 0, "major", "--out", out) == 2
    error = capsys.readouterr().err
    assert "Kaleido requires Google Chrome" in error
    assert ".html" in error
    assert not out.exists()
    monkeypatch.setattr(go.Figure, "to_image", lambda self, **settings: b"<svg/>")
    assert run_cli("locate", smoke_run.path, 0, "major", "--out", out) == 0
    assert out.read_bytes() == b"<svg/>"


@pytest.mark.parametrize(("before", "now"), [("trace", "locate"), ("patch", "train-patched")])
def test_commands_of_before_say_their_new_name(
    before: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(before, "runs/tiny", 0, "major") == 2
    assert f"now `interp {now}`" in " ".join(capsys.readouterr().err.split())


def _on_its_own(words: str, **streams: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "interp", *words.split()]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(command, text=True, check=False, **streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["--help", "train --help"])
def test_standard_output_on_a_full_disk(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        ended = _on_its_own(words, stdout=full)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: Standard output cannot be written: No space")
    assert len(ended.stderr) < 300


@pytest.mark.parametrize("words", ["--help", "train --help"])
def test_a_reader_that_goes_away(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = _on_its_own(words, stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_terminal_of_ascii_only() -> None:
    ended = _on_its_own("phäses", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 2
    assert r"There is no command 'ph\xe4ses'" in ended.stderr


def test_what_a_terminal_would_obey_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("phases", "a\x1b[31m[bold]\u202eb\x07") == 2
    said = capsys.readouterr().err
    assert "a\\x1b[31m[bold]\\u202eb\\x07" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    "error", [BrokenPipeError(errno.EPIPE, "to a worker"), OSError(errno.ECONNRESET, "of others")]
)
def test_what_is_not_standard_outputs_is_not_taken_for_it(error: OSError) -> None:
    with pytest.raises(OSError, match=re.escape(str(error))) as caught, standard_output():
        raise error
    assert caught.value is error
