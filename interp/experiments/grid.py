"""Many runs: each is trained once, in a folder of its own, and kept when it is finished."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from joblib import Parallel, delayed

from interp.config import Config
from interp.errors import ConfigError, RunError
from interp.run import Run
from interp.training import train


def run_grid(
    configs: Mapping[str, Config], folder: Path, workers: int = 1, *, progress: bool = True
) -> dict[str, Run]:
    """Trains the runs that are not finished yet, and returns all by name.

    Args:
        configs: A name, which becomes the folder's, and the settings of each run.
        folder: Where the runs' folders lie.
        workers: Processes at a time; the cores are divided among them.
        progress: Show a progress bar for every run.

    Raises:
        ConfigError: no worker.
        InterpError: as `train` does, from the first run that fails.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers}: at least one process has to work.")
    threads = max(1, (os.cpu_count() or 1) // workers)
    jobs = (
        delayed(_train_one)(config, folder / name, threads if workers > 1 else None, progress)
        for name, config in configs.items()
    )
    Parallel(n_jobs=workers)(jobs)
    return {name: Run.load(folder / name) for name in configs}


def _train_one(config: Config, out: Path, threads: int | None, progress: bool) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    train(config, out, resume=True, progress=progress)


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
