"""A batch of runs: which comes next, what became of each, and how far they are together."""

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import joblib
import torch

from interp.engine.jobs import EngineSettings, Failure, Job, Outcome
from interp.engine.kinds import kind_of, share_done
from interp.engine.local import Pool, ThisProcess, Workers
from interp.engine.store import address_of
from interp.engine.work import Result
from interp.errors import ConfigError, FolderInUseError, InterpError, InterruptedRunError
from interp.files import folder_lock
from interp.progress import Progress, showing, silent
from interp.training.interruption import StopRequest, stop_request

MAX_LOST = 3
"""So many processes may die of one run; then it is given up. Nothing else ends a run for sure."""
_LOOK = 0.5  # seconds between two looks at runs that train elsewhere


def run_jobs(
    jobs: Sequence[Job],
    settings: EngineSettings | None = None,
    *,
    progress: bool | Progress = True,
) -> Outcome:
    """Finishes runs. Those that are finished are kept; a run that fails does not stop the others.

    In this process they are trained in their order; where several train at a time, those that are expected
    to take longest are started first.

    A batch that is stopped or killed goes on when it is started again. Several batches may work on one
    store at a time: a run that another process trains is waited for, after all others, and taken over
    if that process dies.

    Args:
        jobs: The runs; one that is given twice is trained once.
        settings: Where they are trained and how many at a time; by default one after the other in this
            process, on one thread.
        progress: Show progress of all runs together on standard error; or where to report it to.

    Returns:
        What is finished and what failed, with its errors. `Outcome.require_all` raises if anything
        did.

    Raises:
        ConfigError: two jobs want one folder for different runs, or settings are of no known kind.
        InterruptedRunError: Ctrl-C or SIGTERM; the state of runs is saved.
        InterpError: the Ray cluster cannot be reached or used.
    """
    settings = settings or EngineSettings()
    jobs = _each_once(jobs)
    batch = Batch(jobs, settings.retry)
    if batch.left:
        with _pool(settings, batch) as pool:
            seconds = sum(batch.seconds.values()) / pool.size**0.8
            with showing("runs", seconds, progress) as report:
                batch.run(pool, report)
    elif jobs and not isinstance(progress, bool):
        progress(1.0, batch.in_words())
    return batch.outcome()


def _pool(settings: EngineSettings, batch: "Batch") -> Pool:
    """Where the runs of a batch are trained."""
    if settings.kind == "ray":
        from interp.engine.cluster import Cluster  # Ray is optional

        return Cluster(settings)
    workers = min(settings.workers, batch.left)
    cores = joblib.cpu_count()
    if workers * settings.threads > max(cores, torch.get_num_threads()):
        warnings.warn(
            f"{workers} runs at a time on {settings.threads} threads each want more than the "
            f"{cores} cores that there are: they will get into each other's way. Use at most "
            f"{max(1, cores // settings.threads)} workers.",
            stacklevel=3,
        )
    if workers == 1:
        return ThisProcess(settings.threads, batch.progress_of)
    return Workers(workers, settings.threads)


def _each_once(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each folder once, with folders that any process understands.

    Raises:
        ConfigError: two jobs want one folder for different runs.
    """
    by_folder: dict[Path, Job] = {}
    for job in jobs:
        kind_of(job.config)
        folder = job.folder.absolute()
        needs = tuple(dict.fromkeys(need.absolute() for need in job.needs))
        first = by_folder.setdefault(folder, Job(job.config, folder, needs))
        if address_of(first.config) != address_of(job.config):
            raise ConfigError(
                f"Two jobs want the folder {job.folder} for runs with different settings. Give each "
                "run a folder of its own (Store.folder does)."
            )
        if first.needs != needs:
            both = tuple(dict.fromkeys([*first.needs, *needs]))
            by_folder[folder] = Job(first.config, folder, both)
    return list(by_folder.values())


class Batch:
    """The runs of a batch, from the first look at their folders to the outcome.

    Args:
        jobs: The runs, each once.
        retry: How many times one that fails is tried again.
    """

    def __init__(self, jobs: Sequence[Job], retry: int = 0) -> None:
        self._jobs = {job.folder: job for job in jobs}
        self._retry = retry
        self.seconds = {
            job.folder: kind_of(job.config).expected_seconds(job.config) for job in jobs
        }
        self._waiting: list[Job] = []  # to be started, in this order
        self._running: list[Job] = []
        self._elsewhere: list[Job] = []  # those that another process trains
        self._finished: set[Path] = set()
        self._failed: dict[Path, Failure] = {}
        self._attempts: Counter[Path] = Counter()
        self._failures: Counter[Path] = Counter()
        self._lost: Counter[Path] = Counter()
        self._report: Progress = silent
        self._shares: dict[Path, float] = {}
        self._share = 0.0  # of the whole; never goes back
        for job in jobs:
            if not kind_of(job.config).finished(job.folder):
                self._waiting.append(job)
            elif changed := _in_what_else(job):
                self._fail(job, Result("failed", "RunError", changed, final=True))
            else:
                self._finished.add(job.folder)

    @property
    def left(self) -> int:
        """How many runs are neither finished nor given up."""
        return len(self._waiting) + len(self._running) + len(self._elsewhere)

    def outcome(self) -> Outcome:
        """What became of the runs, in their order."""
        return Outcome(
            tuple(folder for folder in self._jobs if folder in self._finished),
            tuple(self._failed[folder] for folder in self._jobs if folder in self._failed),
        )

    def run(self, pool: Pool, report: Progress = silent) -> None:
        """Trains until nothing is left.

        Raises:
            InterruptedRunError: somebody asked to stop.
        """
        self._report = report
        self._shares = {job.folder: share_done(job.config, job.folder) for job in self._waiting}
        self._tell()
        # A training in this process catches signals itself; between two, they end the process.
        alone = isinstance(pool, ThisProcess)
        if not alone:
            self._longest_first()
        with nullcontext(StopRequest()) if alone else stop_request() as request:
            while self.left:
                self._look_elsewhere()
                while pool.room and (job := self._next()) is not None:
                    self._running.append(job)
                    self._attempts[job.folder] += 1
                    pool.submit(job)
                if not self._running:
                    time.sleep(_LOOK if self._elsewhere else 0)
                for job, result in pool.wait(_LOOK) if self._running else []:
                    self._running.remove(job)
                    if alone and result.ended == "interrupted":
                        request.asked = True
                    else:
                        self._take(job, result)
                self._look_at_running()
                self._tell()
                if request.asked:
                    pool.stop()
                    raise InterruptedRunError(
                        f"Stopped: {self.in_words()}. The state of those that were training is saved; "
                        "the same command goes on from there."
                    )

    def _longest_first(self) -> None:
        """Of those that wait: a long one that is started last would train alone in the end.

        One that others need counts with the longest of them, which cannot start before.
        """
        after: dict[Path, float] = {}
        for job in self._waiting:
            for need in job.needs:
                after[need] = max(after.get(need, 0.0), self.seconds[job.folder])
        self._waiting.sort(
            key=lambda job: self.seconds[job.folder] + after.get(job.folder, 0.0), reverse=True
        )

    def _next(self) -> Job | None:
        """The next run that can be started now; it is taken out of those that wait."""
        looked_at = -1
        while len(self._waiting) != looked_at:  # one that is given up may be what others need
            looked_at = len(self._waiting)
            for job in list(self._waiting):
                reason = self._hopeless(job)
                if reason is None and not all(map(self._is_finished, job.needs)):
                    continue
                self._waiting.remove(job)
                if reason is not None:
                    self._fail(job, Result("failed", "RunError", reason, final=True))
                elif kind_of(job.config).finished(job.folder):  # by another batch, in the meantime
                    self._finished.add(job.folder)
                elif _in_use(job.folder):
                    self._elsewhere.append(job)
                else:
                    return job
        if self._waiting and not self._running and not self._elsewhere:
            circle = ", ".join(str(job.folder) for job in self._waiting)
            for job in self._waiting:
                reason = f"not started because these runs need each other: {circle}."
                self._fail(job, Result("failed", "ConfigError", reason, final=True))
            self._waiting.clear()
        return None

    def _is_finished(self, folder: Path) -> bool:
        return folder in self._finished or (
            folder not in self._jobs and (folder / "finished.json").exists()
        )

    def _hopeless(self, job: Job) -> str | None:
        """Why a run will never be started, if one that it needs will never be finished."""
        for need in job.needs:
            if need in self._failed:
                return f"not started because {need} failed, which it needs."
            if need not in self._jobs and not self._is_finished(need):
                return (
                    f"not started because {need} is not finished, which it needs, and no job of this "
                    "batch. Add a job for it, or train it first."
                )
        return None

    def _take(self, job: Job, result: Result) -> None:
        """Notes how an attempt ended."""
        folder = job.folder
        if result.ended == "finished":
            self._finished.add(folder)
        elif result.ended == "in use":
            self._attempts[folder] -= 1
            self._elsewhere.append(job)
        elif result.ended in ("lost", "interrupted"):  # somebody else stopped a worker
            self._lost[folder] += 1
            if self._lost[folder] < MAX_LOST:
                self._waiting.insert(0, job)
            else:
                self._fail(job, _given_up(result))
        else:
            self._failures[folder] += 1
            if result.final or self._failures[folder] > self._retry:
                self._fail(job, result)
            else:
                self._waiting.append(job)

    def _fail(self, job: Job, result: Result) -> None:
        self._failed[job.folder] = Failure(
            job, result.error, result.message, self._attempts[job.folder], result.traceback
        )

    def _look_elsewhere(self) -> None:
        """Looks whether other processes have finished their runs, or have died over them."""
        for job in list(self._elsewhere):
            if kind_of(job.config).finished(job.folder):
                self._elsewhere.remove(job)
                self._finished.add(job.folder)
            elif not _in_use(job.folder):
                self._elsewhere.remove(job)
                self._waiting.append(job)

    def _look_at_running(self) -> None:
        for job in (*self._running, *self._elsewhere):
            self._shares[job.folder] = share_done(job.config, job.folder)

    def progress_of(self, job: Job) -> Progress:
        """What a run of this process reports to: its part of the whole."""
        count = len(self._finished) + len(self._failed) + 1
        which = f"run {count} of {len(self._jobs)}"

        def report(share: float | int, note: str = "") -> None:
            self._shares[job.folder] = float(share)
            self._tell(f"{which}, {note}" if note else which)

        return report

    def _tell(self, note: str = "") -> None:
        done = sum(
            seconds
            * (1.0 if folder in self._finished or folder in self._failed else self._shares[folder])
            for folder, seconds in self.seconds.items()
        )
        self._share = max(self._share, min(done / sum(self.seconds.values()), 1.0))
        self._report(self._share, note or self.in_words())

    def in_words(self) -> str:
        """How many runs are finished, failed, being trained."""
        words = [f"{len(self._finished)} of {len(self._jobs)} runs finished"]
        if self._failed:
            words.append(f"{len(self._failed)} failed")
        if self._running:
            words.append(f"{len(self._running)} running")
        if self._elsewhere:
            words.append(f"waiting for another process with {len(self._elsewhere)}")
        return ", ".join(words)


def _in_what_else(job: Job) -> str:
    """What is wrong with taking a finished run for the one that is asked for; usually nothing.

    A folder that is named after its settings needs no look into it, and 1,000 such runs are recognised
    at once.
    """
    if job.folder.name.endswith(address_of(job.config)):
        return ""
    try:
        changed = kind_of(job.config).changed(job.config, job.folder)
    except InterpError as error:
        return str(error)
    if not changed:
        return ""
    listed = "\n  ".join(changed)
    return (
        f"{job.folder} holds a run with other settings:\n  {listed}\nAsk for those settings, choose "
        "another folder, or delete that one."
    )


def _in_use(folder: Path) -> bool:
    """Whether another process trains the run in a folder."""
    if not (folder / ".lock").exists():
        return False
    try:
        with folder_lock(folder):
            return False
    except FolderInUseError:
        return True
    except InterpError:  # it cannot be locked, which the run's own attempt says
        return False


def _given_up(result: Result) -> Result:
    return Result(
        "failed",
        "LostWorkerError",
        f"its process died {MAX_LOST} times while training it. Most likely it wants more memory than "
        "there is: train fewer runs at a time, or one with a smaller model, batch or evaluation. "
        f"What was heard last: {result.message}",
    )
