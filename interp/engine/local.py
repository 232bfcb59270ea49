"""Runs on this machine: in this process, or in several that take one run after the other."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor
from joblib.externals.loky.backend import get_context

from interp.engine.jobs import Job
from interp.engine.work import Result, attempt
from interp.progress import Progress
from interp.workers import LOOK, parent_gone

GRACE = 30.0
"""Seconds that runs have for saving their state when a batch is stopped, or its driver is gone."""

_training = threading.Event()  # whether this process, a worker, has a run


@runtime_checkable
class Pool(Protocol):
    """Where runs are trained. Used as a context: what it started is gone when that ends."""

    @property
    def size(self) -> float:
        """How many runs train at a time, about."""

    @property
    def room(self) -> bool:
        """Whether it takes another run now."""

    def submit(self, job: Job) -> None:
        """Takes a run."""

    def wait(self, seconds: float) -> list[tuple[Job, Result]]:
        """Those that ended, at the latest after so many seconds."""

    def stop(self) -> None:
        """Asks the runs that train to save their state, and gives them the time for it."""

    def __enter__(self) -> "Pool": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ThisProcess:
    """One run after the other, in this process.

    Args:
        threads: Threads of each run.
        progress_of: Where a run reports to.
    """

    size = 1.0

    def __init__(self, threads: int, progress_of: Callable[[Job], Progress]) -> None:
        self._threads = threads
        self._progress_of = progress_of
        self._job: Job | None = None

    @property
    def room(self) -> bool:
        """Whether it takes another run now."""
        return self._job is None

    def submit(self, job: Job) -> None:
        """Takes a run, which starts with `wait`."""
        self._job = job

    def wait(self, seconds: float) -> list[tuple[Job, Result]]:
        """Trains the run that was submitted, however long that takes."""
        job, self._job = self._job, None
        return [(job, attempt(job, self._threads, self._progress_of(job)))] if job else []

    def stop(self) -> None:
        """Nothing trains beside this."""

    def __enter__(self) -> "ThisProcess":
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Worker:
    """A process that trains one run after the other (a loky executor of one process).

    An executor whose process is killed is broken for good, with all that it had been given. With one
    for each process, the others do not notice, and it is known which run was being trained.
    """

    def __init__(self, threads: int) -> None:
        context = get_context("loky")
        self._please_stop = context.Semaphore(0)
        self._executor = ProcessPoolExecutor(
            1,
            context=context,
            initializer=_prepare,
            initargs=(os.getpid(), self._please_stop),
            env={
                "OMP_NUM_THREADS": str(threads),
                "MKL_NUM_THREADS": str(threads),
                "OPENBLAS_NUM_THREADS": str(threads),
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        self._threads = threads

    def start(self, job: Job) -> "Future[Result]":
        """Trains a run."""
        started: Future[Result] = self._executor.submit(_attempt, job, self._threads)
        return started

    def ask_to_stop(self) -> None:
        """Asks the run that trains to save its state and end."""
        self._please_stop.release()

    def close(self, *, kill: bool) -> None:
        """Ends the process: once it is idle, or at once."""
        self._executor.shutdown(wait=True, kill_workers=kill)


class Workers:
    """Runs in several processes of this machine.

    Args:
        count: How many processes.
        threads: Threads of each.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.size = float(count)
        self._threads = threads
        self._idle: list[Worker | None] = [None] * count  # a process starts with its first run
        self._busy: dict[Future[Result], tuple[Job, Worker]] = {}

    @property
    def room(self) -> bool:
        """Whether a process is idle."""
        return bool(self._idle)

    def submit(self, job: Job) -> None:
        """Gives a run to an idle process; one that has worked before is ready at once."""
        place = next((i for i, worker in enumerate(self._idle) if worker), 0)
        worker = self._idle.pop(place) or Worker(self._threads)
        self._busy[worker.start(job)] = job, worker

    def wait(self, seconds: float) -> list[tuple[Job, Result]]:
        """Those that ended, at the latest after so many seconds."""
        ended, _ = wait(self._busy, seconds, FIRST_COMPLETED)
        results = []
        for future in ended:
            job, worker = self._busy.pop(future)
            result = _result(future)
            if result.ended == "lost":
                worker.close(kill=True)
            self._idle.append(None if result.ended == "lost" else worker)
            results.append((job, result))
        return results

    def stop(self) -> None:
        """Asks the runs that train to save their state, and gives them the time for it."""
        for _, worker in self._busy.values():
            worker.ask_to_stop()
        wait(self._busy, GRACE)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in filter(None, self._idle):
            worker.close(kill=error[0] is not None)
        for _, worker in self._busy.values():
            worker.close(kill=True)


def _result(future: "Future[Result]") -> Result:
    """What an attempt returned, or what became of it and its process."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        return Result("lost", type(error).__name__, str(error))
    except Exception as error:  # settings that cannot be sent to a process, say
        return Result("failed", type(error).__name__, str(error), final=True)


def _prepare(driver: int, please_stop: Any) -> None:
    """Makes a new process ready: it stops when it is asked to, or when nobody waits for it any more.

    It leaves the group of its driver, so that Ctrl-C reaches the driver alone, which then asks its
    workers once. (A second signal would make a training end without saving its state.)
    """
    os.setpgrp()
    threading.Thread(target=_stop_in_time, args=(driver, please_stop), daemon=True).start()


def _attempt(job: Job, threads: int) -> Result:
    _training.set()
    try:
        return attempt(job, threads)
    finally:
        _training.clear()


def _stop_in_time(driver: int, please_stop: Any) -> None:
    while not please_stop.acquire(timeout=LOOK) and not parent_gone(driver):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # a training saves its state; idle, this is the end
    last = time.monotonic() + GRACE
    while time.monotonic() < last and (_training.is_set() or not parent_gone(driver)):
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGKILL)
