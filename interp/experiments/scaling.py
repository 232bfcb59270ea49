"""The command `interp scaling`; the study itself is in `plateau`."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from interp.config import Config
from interp.errors import ConfigError
from interp.experiments.grid import run_grid
from interp.experiments.plateau import N_STEPS, SIZES, STOP_BELOW, fit_of
from interp.experiments.plateau import plateau_fits as scaling_fits
from interp.experiments.plateau import plateau_table as scaling_table
from interp.files import write_json, write_text
from interp.phases import DELTA, PAPER_COEFFICIENT, PAPER_EXPONENT
from interp.progress import Progress

__all__ = ["N_STEPS", "SIZES", "fit_of", "scaling", "scaling_fits", "scaling_table"]


def scaling_config(config: Config, n_individuals: int, seed: int) -> Config:
    """The settings of one run of the study."""
    return config.with_settings(
        seed=seed,
        **{
            "population.n_individuals": n_individuals,
            "population.n_held_out": 0,
            "optimizer.schedule": "constant",
            "training.stop_below": STOP_BELOW,
            "training.early_checkpoints": (0,),
            "training.checkpoint_every": 500,
            "evaluation.every": 10,
            "evaluation.n_individuals": 128,
        },
    )


def scaling(
    config: Config,
    out: Path | str,
    sizes: Sequence[int] = SIZES,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int = 1,
    *,
    progress: bool | Progress = True,
) -> pd.DataFrame:
    """Runs the study; finished runs are kept.

    Args:
        config: Base settings, e.g. `preset("tiny", **{"training.n_steps": 6000})`.
        out: Folder for `runs/`, `table.csv`, `fits.csv` and `summary.json`.
        sizes: Numbers of individuals, at least three.
        seeds: One run for each size and seed.
        workers: Runs at a time.
        progress: Show progress on standard error; or where to report it to.

    Returns:
        The table of `plateau_table`.

    Raises:
        ConfigError: fewer than three sizes, no seed, or no worker.
    """
    if len(set(sizes)) < 3:
        raise ConfigError(f"sizes={list(sizes)}: a power law needs at least 3 different sizes.")
    if not seeds:
        raise ConfigError("seeds is empty: name at least one seed.")
    out = Path(out)
    configs = {
        f"n{size:06d}_seed{seed}": scaling_config(config, size, seed)
        for size in sizes
        for seed in seeds
    }
    runs = run_grid(configs, out / "runs", workers, progress=progress)
    table = scaling_table(list(runs.values()))
    fits = scaling_fits(table)
    write_text(out / "table.csv", table.to_csv(index=False))
    write_text(out / "fits.csv", fits.to_csv(index=False))
    write_json(
        out / "summary.json",
        {
            "paper": {"coefficient": PAPER_COEFFICIENT, "exponent": PAPER_EXPONENT},
            "delta": DELTA,
            "fits": fits[fits["delta"] == DELTA].drop(columns="delta").to_dict("records"),
        },
    )
    return table
