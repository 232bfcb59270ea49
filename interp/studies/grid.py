"""Many runs in folders that a study names itself; the engine trains them."""

from collections.abc import Mapping
from pathlib import Path

import joblib
import torch

from interp.config import Config
from interp.engine import EngineSettings, Job, run_jobs
from interp.errors import RunError
from interp.progress import Progress
from interp.run import Run


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
        workers: Processes at a time; the cores are divided among them. One run at a time has the
            threads that this process has.
        progress: Show progress of all runs together on standard error; or where to report it to.

    Raises:
        ConfigError: no worker.
        BatchError: runs that could not be finished, with what was wrong; the others are.
        InterruptedRunError: Ctrl-C or SIGTERM; the state of runs is saved.
    """
    divided = max(1, joblib.cpu_count() // max(workers, 1))
    threads = torch.get_num_threads() if workers == 1 else divided
    settings = EngineSettings(workers=workers, threads=threads)
    jobs = [Job(config, folder / name) for name, config in configs.items()]
    run_jobs(jobs, settings, progress=progress).require_all()
    return {name: Run.load(folder / name) for name in configs}


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
            f"{run.given} differs from {first.given} in more than its seed: {', '.join(differing)}. "
            "Runs of one study share all other settings."
        )
