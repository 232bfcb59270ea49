"""What several test files use: files of a run, a recording progress, the command line, tables from CSV."""

import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from interp.cli import main
from interp.stages import measures


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.notes: list[str] = []

    def __call__(self, share: float | int, note: str = "") -> None:
        self.shares.append(share)
        self.notes.append(note)

    def require_whole(self) -> None:
        assert self.shares[0] == 0, "it starts at nothing"
        assert self.shares == sorted(self.shares), "it never goes back"
        assert self.shares[-1] == pytest.approx(1), "it ends with everything"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run; hidden ones are locks and what a kill left of a file."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def without_digests(folder: Path) -> Path:
    """A finished run as a version left it that noted no digests, so that a test may change its files."""
    for path in [folder / "finished.json", *folder.glob("results/*/summary.json")]:
        note = json.loads(path.read_text())
        note.pop("digests", None)
        path.write_text(json.dumps(note))
    return folder


def wait_for(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.002)


def workers_of(parent: int) -> list[int]:
    """The worker processes that a process has started and that live."""
    return [pid for pid in _processes(str(parent)) if _is_worker(pid)]


def ended(workers: Sequence[int]) -> bool:
    """Whether processes have ended: what is left of one that nobody has waited for has no command."""
    return not any(map(_is_worker, workers))


def _processes(parent: str) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            if status.read_text().rpartition(")")[2].split()[1] == parent:
                yield int(status.parent.name)


def _is_worker(pid: int) -> bool:
    try:
        return b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def run_cli(*arguments: object) -> int:
    """Runs a command and returns its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def read_back(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables after a way through CSV."""
    return {n: pd.read_csv(io.StringIO(t.to_csv(index=False))) for n, t in tables.items()}


@contextmanager
def few_pairs(n: int = 16) -> Iterator[None]:
    """While this lasts, the stage of interventions swaps so many pairs of people, not 96."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("swaps", "recall_edges"):
            patched.setattr(measures, name, partial(getattr(measures, name), n=n))
        yield


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """While this lasts, file permissions count even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    reached = [folder, *folder.parents]
    modes = {path: path.stat().st_mode for path in reached if not path.stat().st_mode & 0o001}
    for path in modes:
        path.chmod(0o777)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
