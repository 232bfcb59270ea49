"""What the tests share: a small trained run, its corpus, and child processes that may be killed."""

import hashlib
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

import interp
from interp.biographies import Batch, Corpus
from interp.config import Config
from interp.run import Run
from interp.stages import reproduce
from interp.tables import Table
from tests.helpers import Recorder

PROCESSES = multiprocessing.get_context("forkserver")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts the server of child processes, so that its imports run beside the first tests."""
    if any("child" in getattr(item, "fixturenames", ()) for item in session.items):
        PROCESSES.set_forkserver_preload(["interp.training"])
        forkserver.ensure_running()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def smoke() -> Config:
    """The smoke preset in single precision, which every machine has."""
    return interp.preset("smoke", **{"training.precision": "fp32"})


@pytest.fixture(scope="session")
def short(smoke: Config) -> Config:
    """A dozen steps, in the precision of the machine, with a checkpoint at 0, 4, 8 and 12."""
    return smoke.with_settings(
        **{
            "training.precision": "auto",
            "training.n_steps": 12,
            "training.early_checkpoints": (0,),
            "training.checkpoint_every": 4,
            "evaluation.every": 2,
        }
    )


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder that one test process makes and all of them read: `made_once(name, make)`.

    `make(folder)` is called with a path that does not exist yet.
    """
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / "made_once" / name, shared / "made_once" / f"{name}.done"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def trained(made_once: Callable[..., Path]) -> Callable[[Config], Run]:
    """The trained run of a config, the same for all who ask; copy its folder before changing it."""

    def of(config: Config) -> Run:
        name = hashlib.sha256(config.to_yaml().encode()).hexdigest()[:16]
        return Run.load(made_once(name, lambda out: interp.train(config, out, progress=False)))

    return of


@pytest.fixture(scope="session")
def smoke_run(smoke: Config, trained: Callable[[Config], Run]) -> Run:
    """A trained run; read it, and copy its folder before changing anything."""
    return trained(smoke)


@pytest.fixture(scope="session")
def short_run(short: Config, trained: Callable[[Config], Run]) -> Run:
    """The `short` run, never interrupted; read-only like `smoke_run`."""
    return trained(short)


@dataclass
class MainJob:
    """What `reproduce` did: its progress, the titles it announced, the tables it wrote, by name."""

    told: Recorder = field(default_factory=Recorder)
    titles: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def make(self, config: Config, folder: Path) -> None:
        """Runs all stages, and writes itself beside the folder."""
        write = Table.write

        def recorded(table: Table, path: Path, frame: pd.DataFrame) -> None:
            self.tables[table.name] = frame
            write(table, path, frame)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Table, "write", recorded)
            reproduce(config, folder, announce=self.titles.append, progress=self.told)
        folder.with_suffix(".job").write_bytes(pickle.dumps(vars(self)))


@pytest.fixture(scope="session")
def finished(smoke: Config, made_once: Callable[..., Path]) -> Run:
    """The smoke preset with all stages and its report; copy its folder before changing it."""
    return Run.load(made_once("finished", partial(MainJob().make, smoke)))


@pytest.fixture(scope="session")
def main_job(finished: Run) -> MainJob:
    """How `finished` was made."""
    return MainJob(**pickle.loads(finished.path.with_suffix(".job").read_bytes()))


@pytest.fixture(scope="session")
def corpus(smoke: Config) -> Corpus:
    return Corpus.from_config(smoke)


@pytest.fixture(scope="session")
def bpe_corpus(smoke: Config) -> Corpus:
    """The same people in subwords, few enough that most words are cut."""
    bpe = {"tokenizer.kind": "bpe", "tokenizer.bpe_vocabulary": 200, "model.n_ctx": 512}
    return Corpus.from_config(smoke.with_settings(**bpe))


@pytest.fixture(scope="session")
def batch(corpus: Corpus) -> Batch:
    return corpus.biographies(np.arange(6))


class Child:
    """A process that runs some code, and may be killed.

    Attributes:
        process: The process.
        report: Where it writes the type and text of the exception that ended it.
    """

    _BODY = """
try:
    exec(compile(code, "child", "exec"), {"out": out})
except BaseException as error:
    with open(report, "w") as file:
        file.write(f"{type(error).__name__}: {error}")
    raise SystemExit(1)
"""

    def __init__(self, code: str, out: Any, report: Path) -> None:
        values = {"code": code, "out": out, "report": str(report)}
        self.report = report
        self.process = PROCESSES.Process(target=exec, args=(self._BODY, values))
        self.process.start()

    def wait(self, timeout: float = 60) -> int:
        """Waits for the end; the exit code, which is minus the signal that killed it."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            pytest.fail(f"the child process did not end within {timeout} s")
        return code

    @property
    def error(self) -> str:
        """The exception that ended it, or an empty string."""
        return self.report.read_text() if self.report.exists() else ""


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Child]]:
    """Starts code in a process of its own, which sees one variable, `out`.

    The process is forked from a server that has imported the package, so it starts at once; it has
    no other state of the tests.
    """
    folder = tmp_path_factory.mktemp("child")
    started: list[Child] = []

    def start(code: str, out: Any) -> Child:
        started.append(Child(code, out, folder / f"report_{len(started)}"))
        return started[-1]

    yield start
    for one in started:
        if one.process.is_alive():
            one.process.kill()
        one.process.join()
        one.process.close()
