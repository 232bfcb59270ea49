"""Many runs: each is trained once, in a folder of its own, and kept when it is finished."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from joblib import Parallel, delayed

from interp.config import Config
from interp.errors import ConfigError, RunError
from interp.progress import Progress, parts, showing
from interp.run import Run
from interp.training import train
from interp.training.loop import expected_seconds


def run_grid(
    configs: Mapping[str, Config],
    folder: Path,
    workers: int = 1,
    *,
    progress: bool | Progress = True,
) -> dict[str, Run]:
    """Trains the runs that are not finished yet, and returns all by name.

    Args:
        configs: A name, which becomes the folder's, and the settings of each run.
        folder: Where the runs' folders lie.
        workers: Processes at a time; the cores are divided among them.
        progress: Show progress of all runs together on standard error; or where to report it to.

    Raises:
        ConfigError: no worker.
        InterpError: as `train` does, from the first run that fails.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers}: at least one process has to work.")
    if not configs:
        return {}
    seconds = [expected_seconds(config) for config in configs.values()]
    with showing("runs", sum(seconds) / workers**0.8, progress) as report:
        if workers == 1:
            of_runs = zip(configs.items(), parts(report, seconds), strict=True)
            for count, ((name, config), of_run) in enumerate(of_runs, 1):
                of_run = _numbered(of_run, f"run {count} of {len(configs)}")
                train(config, folder / name, resume=True, progress=of_run)
                of_run(1.0)
        else:
            threads = max(1, (os.cpu_count() or 1) // workers)
            jobs = (
                delayed(_train_one)(config, folder / name, threads)
                for name, config in configs.items()
            )
            with _watched({folder / name: config for name, config in configs.items()}, report):
                Parallel(n_jobs=workers)(jobs)
    return {name: Run.load(folder / name) for name in configs}


def _train_one(config: Config, out: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    train(config, out, resume=True, progress=False)


def _numbered(progress: Progress, which: str) -> Progress:
    """A progress whose notes say which run they are about."""

    def report(share: float | int, note: str = "") -> None:
        progress(share, f"{which}, {note}" if note else which)

    return report


@contextmanager
def _watched(runs: Mapping[Path, Config], progress: Progress, every: float = 1.0) -> Iterator[None]:
    """While this lasts, reports how far runs are that train in other processes.

    It reads their metrics files, to which each run adds at every measurement.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            progress(*far(runs))

    progress(*far(runs))
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    progress(*far(runs))


def far(runs: Mapping[Path, Config]) -> tuple[float, str]:
    """How far some runs are, by their folders and settings: the share of all steps, and in words."""
    done, total, finished = 0.0, 0.0, 0
    for folder, config in runs.items():
        seconds, n_steps = expected_seconds(config), config.training.last_step
        share = 1.0
        if (folder / "finished.json").exists():
            finished += 1
        else:
            share = min(_last_step(folder / "metrics.jsonl") / n_steps, 1.0)
        done, total = done + share * seconds, total + seconds
    return done / total, f"{finished} of {len(runs)} runs finished"


def _last_step(path: Path) -> int:
    """The step of the last whole line of a metrics file that is being written; 0 without one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            if line.endswith(b"\n"):
                return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


def require_same_but_seed(run: Run, first: Run) -> None:
    """Checks that two runs of one study differ in their seed only.

    Raises:
        RunError: they differ in more.
    """
    ours, theirs = run.config.identity(), first.config.identity()
    differing = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name != "seed" and ours.get(name) != theirs.get(name)
    )
    if differing:
        raise RunError(
            f"{run.path} differs from {first.path} in more than its seed: {', '.join(differing)}. "
            "Runs of one study share all other settings."
        )
