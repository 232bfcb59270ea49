"""What the engine costs: against training alone, and for recognising finished runs."""

# ruff: noqa: T201 - a program that prints

import statistics
import tempfile
import time
from pathlib import Path

import torch

from interp import preset, train
from interp.engine import EngineSettings, Store, run_jobs


def engine(rounds: int) -> None:
    """A short `tiny` run by the engine and by `train`, in turn; 1,000 finished runs recognised.

    What the engine does beside training does not grow with a run, so the difference in seconds is put
    against the time of a whole run.
    """
    short = preset("tiny", **{"training.n_steps": 30, "training.early_checkpoints": ()})
    threads = torch.get_num_threads()
    settings = EngineSettings(threads=threads)
    seconds: dict[str, list[float]] = {"engine": [], "train": []}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        for round_ in range(rounds + 1):
            for name in ("engine", "train") if round_ % 2 else ("train", "engine"):
                config = short.with_settings(seed=round_)
                started = time.perf_counter()
                if name == "engine":
                    run_jobs([store.job(config)], settings, progress=False).require_all()
                else:
                    train(config, Path(folder) / f"seed{round_}", progress=False)
                if round_:  # the first warms up
                    seconds[name].append(time.perf_counter() - started)
        ours, alone = (statistics.median(seconds[name]) for name in ("engine", "train"))
        steps = preset("tiny").training.n_steps
        whole = alone * steps / short.training.n_steps
        print(
            f"\nEngine: {ours:.2f} s against {alone:.2f} s of training alone, {threads} threads, "
            f"{short.training.n_steps} steps of tiny; {100 * (ours - alone) / whole:+.2f}% of its "
            f"{steps} steps"
        )

        configs = [short.with_settings(seed=seed) for seed in range(1000)]
        for config in configs:
            checkpoints = store.folder(config) / "checkpoints"
            checkpoints.mkdir(parents=True, exist_ok=True)
            for step in range(0, 1500, 50):
                (checkpoints / f"step_{step:08d}.safetensors").touch()
            (checkpoints.parent / "finished.json").touch()
        started = time.perf_counter()
        found = run_jobs([store.job(config) for config in configs], settings, progress=False)
        print(
            f"  {len(found.finished):,} finished runs recognised in "
            f"{time.perf_counter() - started:.2f} s"
        )
