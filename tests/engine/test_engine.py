"""The engine: the same bytes from every way of training a batch, whatever happens on the way."""

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import joblib
import pytest
import torch
from joblib.externals.loky import BrokenProcessPool

import interp
from interp.config import Config
from interp.engine import BatchError, EngineSettings, Job, Store, kinds, run_jobs, schedule
from interp.engine.local import GRACE, Worker
from interp.engine.work import Result
from interp.errors import ConfigError, InterruptedRunError, RunError, StorageError
from interp.files import folder_lock
from interp.run import Run
from tests.helpers import Recorder, contents, ended, wait_for, workers_of

TWO = EngineSettings(workers=2)


@pytest.fixture(autouse=True)
def enough_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are about other things than how many cores the machine has."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)


@pytest.fixture(scope="session")
def six(smoke: Config) -> list[Config]:
    """Six short smoke runs; the first is long enough to be killed in the middle."""
    brief = {"training.n_steps": 6, "training.checkpoint_every": 3, "evaluation.every": 3}
    long = {"training.n_steps": 60, "training.checkpoint_every": 10, "evaluation.every": 5}
    return [smoke.with_settings(seed=seed, **(brief if seed else long)) for seed in range(6)]


@pytest.fixture(scope="session")
def undisturbed(six: list[Config], made_once: Callable[..., Path]) -> Store:
    """The six, one after the other."""

    def train(folder: Path) -> None:
        run_jobs([Store(folder).job(config) for config in six], progress=False).require_all()

    return Store(made_once("undisturbed", train))


def require_same(store: Store, undisturbed: Store, configs: Sequence[Config]) -> None:
    """All files of the runs, byte for byte."""
    for config in configs:
        ours, theirs = contents(store.folder(config)), contents(undisturbed.folder(config))
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name] != theirs[name]] == []


def holder_of(folder: Path) -> int | None:
    """The process that trains the run in a folder: it has the lock open."""
    lock = str(folder / ".lock")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(file.readlink()) == lock for file in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return None


class KillsWorker:
    """Kills whoever trains a run, once it has written measurements; so many times."""

    def __init__(self, folder: Path, times: int = 1) -> None:
        self.killed: list[int] = []
        self._folder = folder
        self._times = times
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "KillsWorker":
        if not Path("/proc/self/fd").exists():
            pytest.skip("finds workers by /proc")
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while len(self.killed) < self._times and not self._over.wait(0.005):
            if kinds.last_step(self._folder) > 0 and not (self._folder / "finished.json").exists():
                pid = holder_of(self._folder)
                if pid is not None and pid not in (*self.killed, os.getpid()):
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)


# What is trained where, and what it is called


def test_an_address_follows_from_settings_and_versions(
    smoke: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    same = smoke.with_settings(**{"logging.wandb": "offline"})
    assert store.address(smoke) == Store("elsewhere").address(same)
    assert store.address(smoke) != store.address(smoke.with_settings(seed=1))
    assert store.folder(smoke).name == f"n24-seed0-{store.address(smoke)}"
    before = store.address(smoke)
    monkeypatch.setattr("interp.engine.store.code_versions", lambda: {"torch": "another"})
    assert store.address(smoke) != before


def test_a_store_opens_finished_runs_only(smoke: Config, undisturbed: Store, six) -> None:
    assert undisturbed.finished(six[1])
    assert undisturbed.run(six[1]).config == six[1]
    assert not undisturbed.finished(smoke.with_settings(seed=99))
    with pytest.raises(RunError, match="has not been trained"):
        undisturbed.run(smoke.with_settings(seed=99))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workers": 0}, "workers=0: expected a whole number from 1"),
        ({"threads": 0}, "threads=0: expected a whole number from 1"),
        ({"retry": -1}, "retry=.*: expected a whole number from 0"),
        ({"cpus_per_run": float("nan")}, "cpus_per_run=nan: expected a finite number from 0"),
        ({"threads": 100_000}, "threads=100000: expected a whole number from 1 to 1,024"),
        ({"workers": 1_000_000}, "this machine has"),
        ({"address": "auto"}, r"address='auto'.*kind='ray'"),
        ({"gpus_per_run": 1}, "gpus_per_run='1.0' with kind='local'"),
        ({"kind": "ray", "workers": 2}, "workers='2' with kind='ray'"),
        ({"kind": "ray", "cpus_per_run": -1}, "cpus_per_run=-.*: expected a number from 0"),
        ({"kind": "ray", "gpus_per_run": 1.5}, "whole GPUs"),
        ({"kind": "ray", "threads": 2}, "ask for as many CPUs"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EngineSettings(**settings)


def test_settings_of_an_unknown_kind(tmp_path: Path) -> None:
    class Strange:
        def identity(self) -> dict[str, object]:
            return {}

    with pytest.raises(ConfigError, match=r"Strange.*Config"):
        run_jobs([Job(Strange(), tmp_path)])


def test_one_folder_for_two_runs(six: list[Config], tmp_path: Path) -> None:
    jobs = [Job(config, tmp_path / "run") for config in six[:2]]
    with pytest.raises(ConfigError, match="Two jobs want the folder"):
        run_jobs(jobs)


def test_more_threads_than_cores_are_said(
    six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    jobs = [Store(tmp_path).job(config) for config in six]
    with pytest.raises(UserWarning, match=r"2 runs.*2 threads.*1 workers"):
        run_jobs(jobs, EngineSettings(workers=2, threads=2), progress=False)
    assert not list(tmp_path.iterdir())


# The same results


@pytest.mark.slow
def test_a_run_that_kills_its_worker_again_and_again_is_given_up(
    six: list[Config], undisturbed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the second time here; where three are allowed, one is forgiven (see below)."""
    lost: list[int] = []

    def attempt(worker: Worker, job: Job) -> "Future[Result]":
        if job.folder != store.folder(six[0]) or lost:
            return start(worker, job)
        lost.append(1)  # this once without a process, which takes seconds to start
        future: Future[Result] = Future()
        future.set_exception(BrokenProcessPool("a worker was killed, SIGKILL"))
        return future

    start = Worker.start
    monkeypatch.setattr(Worker, "start", attempt)
    monkeypatch.setattr(schedule, "MAX_LOST", 2)
    store = Store(tmp_path)
    with KillsWorker(store.folder(six[0])) as killer:
        outcome = run_jobs([store.job(config) for config in six[:2]], TWO, progress=False)
    assert len(killer.killed) == 1
    (failure,) = outcome.failed
    assert (failure.error, failure.attempts) == ("LostWorkerError", 2)
    assert "wants more memory" in failure.message
    assert "SIGKILL" in failure.message
    require_same(store, undisturbed, six[1:2])


def test_finished_runs_are_kept_and_nothing_is_started(
    six: list[Config], undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_pool", lambda *_: pytest.fail("nothing is left to train"))
    jobs = [undisturbed.job(config) for config in six]
    assert len(run_jobs(jobs, TWO).finished) == 6


def test_a_run_that_two_studies_need_is_trained_once(
    six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = fake_training(monkeypatch)
    store = Store(tmp_path)
    jobs = [store.job(config) for config in (six[1], six[2], six[1])]
    outcome = run_jobs(jobs, progress=False)
    assert trained == list(outcome.finished) == [store.folder(c) for c in six[1:3]]


def test_threads_are_put_back(six: list[Config], tmp_path: Path) -> None:
    store = Store(tmp_path)
    # Two threads on busy cores wait for each other: a step is enough.
    brief = six[1].with_settings(**{"training.n_steps": 1, "evaluation.splits": ("evaluation",)})
    run_jobs([store.job(brief)], EngineSettings(threads=2), progress=False)
    assert store.run(brief).environment["threads"] == 2
    assert torch.get_num_threads() == 1


# Failures


def fake_training(
    monkeypatch: pytest.MonkeyPatch, errors: Callable[[Config], Exception | None] = lambda _: None
) -> list[Path]:
    """Runs of this process are not trained: they fail as told, or are finished."""
    trained: list[Path] = []

    def train(config: Config, folder: Path, progress: object) -> None:
        trained.append(folder)
        if error := errors(config):
            raise error
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints/step_00000006.safetensors").touch()
        (folder / "finished.json").touch()

    kind = kinds.KINDS[Config]
    fake = kinds.Kind(train, kind.expected_seconds, kind.n_steps, kind.load, kind.finished)
    monkeypatch.setitem(kinds.KINDS, Config, fake)
    return trained


@pytest.mark.parametrize("workers", [1, 2])
def test_neither_failed_runs_nor_a_killed_worker_stop_the_others(
    workers: int, six: list[Config], undisturbed: Store, tmp_path: Path
) -> None:
    """One process or two give the same bytes; of two, one is killed in the middle of a run."""
    store, told = Store(tmp_path), Recorder()
    narrow = six[1].with_settings(**{"model.n_ctx": 20})
    diverging = six[2].with_settings(**{"optimizer.learning_rate": 1e30})
    after = six[3].with_settings(seed=33)
    whole = [six[0], *six[3:]]
    jobs = [
        store.job(narrow),
        store.job(after, needs=(store.folder(diverging),)),
        store.job(diverging),
        store.job(six[0]),
        store.job(six[3], needs=(store.folder(six[4]),)),
        store.job(six[4]),
        store.job(six[5]),
    ]
    settings = EngineSettings(workers=workers, retry=3)
    with KillsWorker(store.folder(six[0]), times=workers - 1) as killer:
        outcome = run_jobs(jobs, settings, progress=told)
    assert len(killer.killed) == workers - 1
    assert outcome.finished == tuple(store.folder(config) for config in whole)
    require_same(store, undisturbed, whole)
    assert [(f.job.config, f.error, f.attempts) for f in outcome.failed] == [
        (narrow, "ConfigError", 1),
        (after, "RunError", 0),
        (diverging, "DivergedError", 1),
    ]
    told.require_whole()
    assert told.notes[-1] == "4 of 7 runs finished, 3 failed"
    assert any("2 running" in note for note in told.notes) == (workers == 2)
    with pytest.raises(BatchError, match="3 of 7 runs") as error:
        outcome.require_all()
    for says in ("n_ctx to 91 or more", "diverged", f"because {store.folder(diverging)} failed"):
        assert says in str(error.value)


def test_needs_that_nobody_trains_and_circles(
    six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_training(monkeypatch)
    store = Store(tmp_path)
    a, b, c = (store.folder(config) for config in six[:3])
    jobs = [
        store.job(six[0], needs=(b,)),
        store.job(six[1], needs=(a,)),
        store.job(six[2], needs=(tmp_path / "missing",)),
        store.job(six[3], needs=(c,)),
        store.job(six[4]),
    ]
    outcome = run_jobs(jobs, progress=False)
    assert outcome.finished == (store.folder(six[4]),)
    says = ("need each other", "need each other", "no job of this batch", "failed, which it needs")
    for failure, words in zip(outcome.failed, says, strict=True):
        assert words in failure.message


@pytest.mark.parametrize(("retry", "finished"), [(1, 0), (2, 1)])
def test_retry(
    retry: int, finished: int, six, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([StorageError("disk full"), ValueError("a bug"), None])
    trained = fake_training(monkeypatch, lambda _: next(errors))
    job = Store(tmp_path).job(six[1])
    outcome = run_jobs([job], EngineSettings(retry=retry), progress=False)
    assert len(trained) == retry + 1
    assert len(outcome.finished) == finished
    for failure in outcome.failed:
        assert str(failure) == f"{job.folder} (2 attempts): ValueError: a bug"
        assert "in train" in failure.traceback


def test_a_named_folder_with_another_run(smoke_run: Run, smoke: Config) -> None:
    (failure,) = run_jobs([Job(smoke.with_settings(seed=5), smoke_run.path)]).failed
    assert "holds a run with other settings:\n  seed: 0 there, 5 asked for" in failure.message
    assert run_jobs([Job(smoke, smoke_run.path)]).failed == ()


def test_a_full_disk(
    six: list[Config], undisturbed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the first run writes its third checkpoint."""
    store, real = Store(tmp_path), os.fsync
    left = iter(range(8))

    def fsync(file: int) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        real(file)

    jobs = [store.job(config) for config in six[:2]]
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        outcome = run_jobs(jobs, progress=False)
    assert [failure.error for failure in outcome.failed] == ["StorageError"] * 2
    assert "No space left on device" in outcome.failed[0].message
    found = contents(store.folder(six[0]))
    whole = contents(undisturbed.folder(six[0]))
    checkpoints = [name for name in found if name.startswith("checkpoints")]
    assert checkpoints
    assert all(found[name] == whole[name] for name in checkpoints)
    run_jobs(jobs, progress=False).require_all()
    require_same(store, undisturbed, six[:2])


# Batches that are stopped, and two at once

BATCH = """
from pathlib import Path
from interp.config import Config
from interp.engine import EngineSettings, Store, run_jobs
folder, workers, configs = out
store = Store(folder)
jobs = [store.job(Config.from_yaml(config)) for config in configs]
told = open(Path(folder) / f"notes{workers}", "w", buffering=1)
run_jobs(
    jobs, EngineSettings(workers=workers), progress=lambda _, note="": print(note, file=told)
).require_all()
"""


def batch(configs: Sequence[Config], folder: Path, workers: int) -> tuple[str, int, list[str]]:
    return str(folder), workers, [config.to_yaml() for config in configs]


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_batch_is_stopped_and_goes_on(
    number: signal.Signals, six: list[Config], undisturbed: Store, child, tmp_path: Path
) -> None:
    """Its workers end soon, busy and idle ones; the state of their runs is saved."""
    store = Store(tmp_path)
    endless = six[0].with_settings(seed=77, **{"training.n_steps": 100_000})
    driver = child(BATCH, batch([endless, six[1]], tmp_path, 2))
    folder = store.folder(endless)
    wait_for(lambda: kinds.last_step(folder) > 0)
    wait_for(lambda: holder_of(folder) is not None)
    wait_for(lambda: store.finished(six[1]))
    workers = workers_of(driver.process.pid)
    assert len(workers) == 2
    os.kill(driver.process.pid, number)
    assert driver.wait() != 0
    if number == signal.SIGTERM:
        assert driver.error.startswith("InterruptedRunError: Stopped: ")
        assert holder_of(folder) is None
    wait_for(lambda: ended(workers), timeout=GRACE / 2)
    assert holder_of(folder) is None
    assert (folder / "training_state.safetensors").exists()
    run_jobs([store.job(six[1])], progress=False).require_all()
    require_same(store, undisturbed, six[1:2])


def test_ctrl_c_in_this_process(
    six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_training(monkeypatch, lambda config: InterruptedRunError("x") if config.seed else None)
    jobs = [Store(tmp_path).job(config) for config in six[:3]]
    with pytest.raises(InterruptedRunError, match="Stopped: 1 of 3 runs finished"):
        run_jobs(jobs, progress=False)


def test_two_batches_on_one_store_and_one_dies(
    six: list[Config], undisturbed: Store, child, tmp_path: Path
) -> None:
    """The second trains what is free, waits for the first one's run, and takes it over."""
    store = Store(tmp_path)
    folder = store.folder(six[0])
    hold = """
import time
from pathlib import Path
from interp.files import folder_lock
with folder_lock(Path(out)):
    Path(out, ".held").touch()
    time.sleep(60)
"""
    holder = child(hold, str(folder))
    wait_for((folder / ".held").exists)
    second = child(BATCH, batch(six[:3], tmp_path, 1))
    notes = tmp_path / "notes1"
    wait_for(lambda: notes.exists() and "waiting for another process with 1" in notes.read_text())
    wait_for(lambda: all(store.finished(config) for config in six[1:3]))
    assert not store.finished(six[0])
    os.kill(holder.process.pid, signal.SIGKILL)
    assert second.wait() == 0, second.error
    (folder / ".held").unlink()
    require_same(store, undisturbed, six[:3])


def test_two_batches_of_the_same_runs_at_once(
    six: list[Config], undisturbed: Store, child, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    both = [child(BATCH, batch(six[:5], tmp_path, 1)) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0], [one.error for one in both]
    require_same(store, undisturbed, six[:5])


def test_a_run_in_use_is_seen_by_the_attempt_too(
    six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock may be taken between the look at it and the training; that is no failure."""
    store = Store(tmp_path)
    looks = iter([False, True, False, False])
    monkeypatch.setattr(schedule, "_in_use", lambda _: next(looks))
    monkeypatch.setattr(schedule, "_LOOK", 0.01)
    kind = kinds.KINDS[Config]
    calls: list[int] = []

    def train(config: Config, folder: Path, progress: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            with folder_lock(folder), folder_lock(folder):
                pytest.fail("the second lock cannot be had")
        return kind.train(config, folder, False)

    fake = kinds.Kind(train, kind.expected_seconds, kind.n_steps, kind.load, kind.finished)
    monkeypatch.setitem(kinds.KINDS, Config, fake)
    outcome = run_jobs([store.job(six[1])], progress=False)
    assert outcome.finished == (store.folder(six[1]),)
    assert len(calls) == 2


def test_a_folder_that_cannot_be_locked_stops_no_other(six: list[Config], tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.folder(six[1]) / ".lock").mkdir(parents=True)
    outcome = run_jobs([store.job(config) for config in six[1:3]], progress=False)
    assert outcome.finished == (store.folder(six[2]),)
    assert ".lock is a folder" in outcome.failed[0].message


def test_progress_begins_with_what_was_done_before(
    six: list[Config], undisturbed: Store, tmp_path: Path
) -> None:
    store, told = Store(tmp_path), Recorder()
    jobs = [store.job(config) for config in six[1:4]]
    run_jobs(jobs[:1], progress=False)
    run_jobs(jobs, progress=told)
    assert told.shares[0] == pytest.approx(1 / 3)
    assert told.shares == sorted(told.shares)
    assert told.shares[-1] == pytest.approx(1)
    assert any(note.startswith("run 2 of 3, step ") for note in told.notes)
    assert json.loads((store.folder(six[1]) / "finished.json").read_text())["step"] == 6
    assert interp.Run.load(store.folder(six[1])).finished
