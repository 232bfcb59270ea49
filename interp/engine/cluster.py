"""Runs on a Ray cluster.

Runs are Ray tasks, and not joblib's Ray backend: that one hands out batches of calls to a pool of
actors, fails as a whole when a worker is lost, and takes no request for CPUs and GPUs of a single run.
A task that loses its worker is started again by the same rules as a run of a local process.

Runs' files are reached through a shared path and never sent: every machine of the cluster, and the one
that asks for the runs, has to see their folders under the same name (NFS, a cluster's own file system).
Checkpoints, states to go on from and locks are then the same for all, so that a run goes on on any machine.
Before an attempt its machine looks for a file that the driver has put beside the runs; where it is not to
be seen, nothing is trained, and the batch ends with an error that names the machine.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import joblib

from interp.engine.jobs import EngineSettings, Job
from interp.engine.kinds import kind_of
from interp.engine.local import GRACE
from interp.engine.store import code_versions
from interp.engine.work import Result, attempt
from interp.errors import ConfigError, InterpError
from interp.files import write_bytes

CONNECTING = 5.0
"""Seconds in which a machine has to answer at all."""
JOINING = 60.0
"""Seconds in which what answers has to prove to be a Ray cluster. Ray itself tries for minutes."""
SHARED = 30.0
"""Seconds in which a file has to appear that another machine has written: network folders are late."""
_OBJECT_STORE = 80 * 2**20  # bytes, about the least that Ray takes; all data go through files


class ClusterError(InterpError):
    """A Ray cluster cannot be reached or used."""


class Cluster:
    """Runs on a Ray cluster.

    Args:
        settings: Which cluster, and what each run asks it for.

    Raises:
        ClusterError: on entering: Ray is not installed, or the cluster cannot be reached.
        ConfigError: on entering: no machine of a local cluster has what a run asks for.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self._busy: dict[Any, Job] = {}  # by the reference to the result
        self._marks: dict[Path, Path] = {}  # by the folder that holds runs
        self.size = 1.0

    @property
    def room(self) -> bool:
        """A cluster queues what it cannot start yet, and may grow by what is queued."""
        return True

    def submit(self, job: Job) -> None:
        """Gives a run to the cluster.

        Raises:
            StorageError: nothing can be written where runs are to lie.
        """
        mark = self._mark(job.folder.parent)
        self._busy[
            self._remote.remote(
                job, self._settings.threads, code_versions(), str(Path.cwd()), mark, SHARED
            )
        ] = job

    def _mark(self, folder: Path) -> Path:
        """A file of this batch beside the runs of a folder, for as long as the batch takes.

        A driver that is killed leaves it: empty, hidden, and in nobody's way.
        """
        if folder not in self._marks:
            mark = folder / f".batch-{uuid.uuid4().hex}"
            write_bytes(mark, b"")
            self._marks[folder] = mark
            self._stack.callback(mark.unlink, missing_ok=True)
        return self._marks[folder]

    def wait(self, seconds: float) -> list[tuple[Job, Result]]:
        """Those that ended, at the latest after so many seconds.

        Raises:
            ClusterError: a machine does not see the runs' folder, or has other versions of packages. It
                would be the first to be free again, and take one run after the other.
        """
        import ray

        references = list(self._busy)
        if not ray.wait(references, timeout=seconds)[0]:
            return []
        ended, _ = ray.wait(references, num_returns=len(references), timeout=0)
        results = [_visible(self._busy.pop(r), _result(r)) for r in ended]
        for _, result in results:
            if result.error == ClusterError.__name__:
                self.stop()
                raise ClusterError(
                    f"{result.message} Finished runs are kept; the same command goes on with the others."
                )
        return results

    def stop(self) -> None:
        """Asks the runs that train to save their state, and gives them the time for it."""
        self._cancel(force=False)  # SIGINT, as far as the task can tell
        self._still_open(GRACE)

    def _still_open(self, seconds: float = 0.0) -> list[Any]:
        """The references whose tasks have not ended, at the latest after so many seconds."""
        import ray

        references = list(self._busy)
        if not references:
            return []
        open_: list[Any] = ray.wait(references, num_returns=len(references), timeout=seconds)[1]
        return open_

    def _cancel(self, *, force: bool) -> None:
        """Cancels what has not ended.

        Never what has: Ray (2.60 still) ends this process with "Tried to complete task that was not
        pending" when a task is cancelled in the moment in which its result is taken in.
        """
        import ray

        for reference in self._still_open():
            ray.cancel(reference, force=force)

    def __enter__(self) -> "Cluster":
        self._own = own = self._stack.enter_context(connected(self._settings.address))
        import ray

        try:
            asked = {"CPU": self._settings.cpus_per_run, "GPU": self._settings.gpus_per_run}
            _require_possible(asked, [node["Resources"] for node in ray.nodes()], own=own)
            there = ray.cluster_resources()
            self.size = max(1.0, min(there.get(n, 0.0) / w for n, w in asked.items() if w))
            self._remote = ray.remote(num_cpus=asked["CPU"], num_gpus=asked["GPU"], max_retries=0)(
                _attempt
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if not self._own:  # otherwise the cluster ends, and its tasks with it
            self._cancel(force=True)
        self._busy.clear()
        self._stack.close()


@contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """While this lasts, this process is connected to a Ray cluster; one that was before stays so.

    No usage statistics are sent, and no dashboard is opened by a cluster that is started here.

    Args:
        address: Of a cluster; None starts one on this machine.

    Yields:
        Whether the cluster was started here.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(
            "kind='ray' needs Ray, which is not installed. Install it, on every machine of the "
            "cluster: pip install 'interp[ray]' (or pip install 'ray>=2.40')."
        )
    if address is not None:
        _require_reachable(address)
    with _environment({"RAY_USAGE_STATS_ENABLED": "0"}):
        import ray

        if ray.is_initialized():
            yield False
            return
        folder = tempfile.mkdtemp(prefix="interp-ray-") if address is None else None
        try:
            try:
                with _signal_handlers_kept():
                    ray.init(**_how_to_connect(address, folder))
            except Exception as error:  # of no common type
                if address is not None:
                    raise _unreachable(address, str(error)) from error
                raise ClusterError(
                    f"Ray could not be started on this machine ({error}). A machine that is busy may "
                    "need a second attempt; or use kind='local'."
                ) from error
            yield address is None
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _how_to_connect(address: str | None, folder: str | None) -> dict[str, Any]:
    """The arguments of `ray.init`."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is not None:
        return {"address": address, **quiet}
    return {
        "address": "local",
        "num_cpus": joblib.cpu_count(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE,
        "_temp_dir": folder,
        **quiet,
    }


def _require_reachable(address: str) -> None:
    """Finds out within seconds whether there is a Ray cluster; Ray itself would try for minutes.

    First whether anything answers, then, in a process that can be ended, whether Ray can connect.

    Raises:
        ClusterError: there is none.
        ConfigError: that is no address.
    """
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise ClusterError(
            f"address={address!r} needs Ray's client, which is not installed. Install it with pip "
            "install 'ray[client]', or give the cluster's own host:port."
        )
    if address != "auto":
        place = urlsplit(address if "://" in address else f"//{address}")
        try:
            if place.scheme not in ("", "ray") or not place.hostname or not place.port:
                raise ValueError
            where = (place.hostname, place.port)
        except ValueError:
            raise ConfigError(
                f"address={address!r}: expected auto, ray://host:port or host:port."
            ) from None
        try:
            socket.create_connection(where, timeout=CONNECTING).close()
        except OSError as error:
            raise _unreachable(address, str(error)) from error
    code = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        subprocess.run(
            [sys.executable, "-c", code, address],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            check=True,
            text=True,
            timeout=JOINING,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no answer of a cluster in {JOINING:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise _unreachable(address, said[-1]) from error


def _unreachable(address: str, why: str) -> ClusterError:
    return ClusterError(
        f"No Ray cluster can be reached at address={address!r} ({why}). Start one with `ray start "
        "--head`, correct the address (`ray status` on its machine shows it), or leave it out to use "
        "this machine. Finished runs are kept."
    )


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM for good; here a training or a batch has its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _require_possible(
    asked: Mapping[str, float], machines: list[dict[str, float]], *, own: bool
) -> None:
    """Says so if no machine has what a run asks for: Ray would wait without a word.

    Raises:
        ConfigError: and this machine is all there is.
    """
    if any(all(m.get(name, 0.0) >= wanted for name, wanted in asked.items()) for m in machines):
        return
    most = {name: max((m.get(name, 0.0) for m in machines), default=0.0) for name in asked}
    said = (
        f"No machine of the cluster has what each run asks for: {asked['CPU']:g} CPUs and "
        f"{asked['GPU']:g} GPUs; the most there are on one: {most['CPU']:g} and {most['GPU']:g}."
    )
    if own:
        raise ConfigError(f"{said} Ask for less (cpus_per_run, gpus_per_run).")
    warnings.warn(f"{said} The batch waits for one to join; ask for less.", stacklevel=4)


def _attempt(
    job: Job, threads: int, versions: dict[str, str], folder: str, mark: Path, patience: float
) -> Result:
    """What a machine of the cluster does: one attempt, in the folder that the driver is in.

    Args:
        job: The run.
        threads: Its threads.
        versions: `code_versions` of the driver.
        folder: The driver's working folder.
        mark: A file that the driver has put beside the run's folder.
        patience: Seconds in which the file has to appear.
    """
    if (ours := code_versions()) != versions:
        differing = ", ".join(
            f"{name} {ours.get(name)} and not {wanted}"
            for name, wanted in versions.items()
            if ours.get(name) != wanted
        )
        return _unfit(
            f"has {differing}, which the machine that asks for the run has. "
            "Install the same versions everywhere."
        )
    if not _appears(mark, patience):
        return _unfit(
            f"does not see {mark.parent} as the machine that asks for the runs does, so that {job.folder} "
            "would be missing there. Runs are not sent back: keep them in a folder that all machines "
            "share under the same name (NFS, say)."
        )
    if Path(folder).is_dir():  # settings may name other runs from here
        os.chdir(folder)
    return attempt(job, threads)


def _unfit(why: str) -> Result:
    """Of an attempt that this machine cannot make."""
    return Result("failed", ClusterError.__name__, f"{socket.gethostname()} {why}", final=True)


def _appears(path: Path, patience: float) -> bool:
    """Whether a file that another machine has written is here, at the latest after so many seconds."""
    deadline = time.monotonic() + patience
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _result(reference: Any) -> Result:
    """What an attempt returned, or what became of it and its worker."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        result: Result = ray.get(reference)
    except (
        RayTaskError
    ) as error:  # not from training: settings or package that cannot be loaded there
        return Result("failed", type(error).__name__, str(error), final=True)
    except RayError as error:
        return Result("lost", type(error).__name__, str(error))
    return result


def _visible(job: Job, result: Result) -> tuple[Job, Result]:
    """The same, but a run that is finished elsewhere has to be finished here too."""
    deadline = time.monotonic() + SHARED
    while result.ended == "finished" and not kind_of(job.config).finished(job.folder):
        if time.monotonic() > deadline:
            return job, Result(
                "failed",
                ClusterError.__name__,
                f"A machine of the cluster has finished {job.folder}, but its files are not here. Keep "
                "runs in a folder that all machines share under the same name.",
                final=True,
            )
        time.sleep(0.1)
    return job, result
