"""A command that cannot use a folder says in one line what the true cause is."""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

import interp
from interp.config import Config
from interp.errors import StorageError
from interp.run import Run
from tests.helpers import run_cli, unprivileged

SAME = ("smoke", "--training.precision", "fp32")
COMMANDS: dict[str, tuple[str, ...]] = {
    "train": ("train", *SAME, "--out", "RUN"),
    "train --resume": ("train", *SAME, "--resume", "--out", "RUN"),
    "train --overwrite": ("train", *SAME, "--overwrite", "--out", "RUN"),
    "reproduce": ("reproduce", *SAME, "--out", "RUN"),
    "batch": ("batch", "power_law", "--out", "RUN"),
    "train-patched": ("train-patched", "RUN", "--out", "patched"),
    "memory": ("memory", "RUN"),
    "report": ("report", "RUN"),
    "summary": ("summary", "RUN", "--csv", "summary.csv"),
    "phases": ("phases", "RUN"),
    "people": ("people", "RUN"),
    "locate": ("locate", "RUN", "0", "major"),
    "export": ("export", "RUN", "--out", "exported"),
    "studies": ("studies", "RUN"),
}
WRITES = ("train", "train --resume", "train --overwrite", "reproduce", "batch")
NOT_UTF8 = os.fsdecode(b"runs\xff")


def link(run: Path) -> None:
    (run / "checkpoints").rename(run.parent / "elsewhere")
    (run / "checkpoints").symlink_to(run.parent / "elsewhere")


def dangling_link(run: Path) -> None:
    link(run)
    shutil.rmtree(run.parent / "elsewhere")


def lock_folder(run: Path) -> None:
    (run / "results/emergence/summary.json").unlink()  # so that something is left to write
    (run / ".lock").mkdir()


def unreadable(path: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        for one in run.glob(path) if path else [run]:
            one.chmod(0)

    return make


KINDS: dict[str, tuple[Callable[[Path], None] | None, tuple[str, ...], str]] = {
    "checkpoints are a link": (link, ("train --overwrite",), "is a link to"),
    "checkpoints are a link that leads nowhere": (
        dangling_link,
        ("train --resume", "reproduce", "train-patched", "memory", "summary", "locate", "export"),
        "checkpoints: it cannot be read .*leads nowhere",
    ),
    "the lock is a folder": (
        lock_folder,
        ("train --overwrite", "reproduce", "memory"),
        r"\.lock is a folder, where a lock has to be",
    ),
    "the folder is gone": (
        shutil.rmtree,
        tuple(name for name in COMMANDS if name not in WRITES),
        "There is no folder",
    ),
    "checkpoints are unreadable": (
        unreadable("checkpoints/*"),
        ("locate", "export", "train-patched"),
        "checkpoints/.* cannot be read .no permission.",
    ),
    "the checkpoints' folder is unreadable": (
        unreadable("checkpoints"),
        ("train --resume", "reproduce", "summary", "locate", "export", "memory"),
        "checkpoints.* cannot be read .no permission.",
    ),
    "the folder is unreadable": (
        unreadable(""),
        tuple(COMMANDS),
        "[Nn]o permission|Permission denied",
    ),
    "a name that is no text": (None, tuple(COMMANDS), "is not UTF-8 text"),
    "a name of 256 characters": (None, tuple(COMMANDS), "[Ff]ile name too long"),
}
NAMES = {"a name that is no text": NOT_UTF8, "a name of 256 characters": "a" * 256}


@pytest.mark.parametrize(
    ("kind", "command"), [(kind, name) for kind, (_, names, _) in KINDS.items() for name in names]
)
def test_the_true_cause(
    kind: str, command: str, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    make, _, says = KINDS[kind]
    run = tmp_path / NAMES.get(kind, "run")
    if make is not None:
        shutil.copytree(finished.path, run, ignore=shutil.ignore_patterns("runs"))
        make(run)
    capsys.readouterr()
    try:
        with unprivileged(tmp_path) if "unreadable" in kind else nullcontext():
            code = run_cli(*(str(run) if word == "RUN" else word for word in COMMANDS[command]))
    finally:
        for path in (run, run / "checkpoints") if make is not None else ():
            if path.exists():
                path.chmod(0o755)
    said = capsys.readouterr().err
    said = said[said.find("error: ") :]  # after what a command says of its progress
    assert code == 2, said
    assert re.search(says, said), said
    assert said.count("\n") == 1
    assert len(said.replace(str(tmp_path), "")) <= 500
    assert "Free space" not in said


def test_a_folder_that_is_removed_while_a_run_is_trained(smoke: Config, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def remove(share: float | int, note: str = "") -> None:
        shutil.rmtree(out, ignore_errors=True)

    with pytest.raises(StorageError, match="moved or removed: put it back"):
        interp.train(smoke, out, progress=remove)


def test_a_description_of_a_batch_that_is_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "batch.yaml").write_bytes(b"\xff")
    for command in ("studies", "report"):
        assert run_cli(command, tmp_path) == 2
        assert "batch.yaml is damaged: line 1, column 1: a byte" in capsys.readouterr().err
