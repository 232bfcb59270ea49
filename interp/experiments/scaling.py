"""How the length of the plateau grows with the number of individuals (paper, section 3 and Fig. 2).

The paper finds 0.43 · N^0.81 for N from 4k to 256k. Here a run ends once it has left the plateau,
and the learning rate is constant, so that how long a run was meant to be does not matter.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from interp.config import Config
from interp.errors import ConfigError
from interp.experiments.grid import run_grid
from interp.files import write_json, write_text
from interp.phases import (
    DELTA,
    DELTAS,
    PAPER_COEFFICIENT,
    PAPER_EXPONENT,
    PowerLawFit,
    fit_power_law,
)
from interp.progress import Progress
from interp.run import Run

SIZES = (256, 512, 1024, 2048, 4096)
"""Numbers of individuals that fit a CPU."""
N_STEPS = 6000
"""Where a run that does not leave its plateau gives up."""
_STOP_BELOW = 0.7


def scaling_config(config: Config, n_individuals: int, seed: int) -> Config:
    """The settings of one run of the study."""
    return config.with_settings(
        seed=seed,
        **{
            "population.n_individuals": n_individuals,
            "population.n_held_out": 0,
            "optimizer.schedule": "constant",
            "training.stop_below": _STOP_BELOW,
            "training.early_checkpoints": (0,),
            "training.checkpoint_every": 500,
            "evaluation.every": 10,
            "evaluation.n_individuals": 128,
        },
    )


def scaling_table(runs: Sequence[Run], deltas: Sequence[float] = DELTAS) -> pd.DataFrame:
    """The phases of every run for every δ.

    Returns:
        Columns `n_individuals`, `seed`, `delta`, `statistics_end`, `plateau_end`,
        `plateau_length` (steps; NA where not reached).
    """
    rows = []
    for run in runs:
        for delta in deltas:
            if 1 - delta <= _STOP_BELOW:
                continue
            phases = run.phases_at(delta)
            rows.append(
                {
                    "n_individuals": run.config.population.n_individuals,
                    "seed": run.config.seed,
                    "delta": delta,
                    "statistics_end": phases.statistics_end,
                    "plateau_end": phases.plateau_end,
                    "plateau_length": phases.plateau_length,
                }
            )
    steps = dict.fromkeys(("statistics_end", "plateau_end", "plateau_length"), "Int64")
    return pd.DataFrame(rows).astype(steps)


def scaling_fits(table: pd.DataFrame) -> pd.DataFrame:
    """A power law of N for every δ, of the plateau's end and of its length.

    Returns:
        Columns `delta`, `measure` (`plateau_end` or `plateau_length`), and those of `PowerLawFit`.
    """
    rows = []
    for delta, group in table.groupby("delta"):
        for measure in ("plateau_end", "plateau_length"):
            reached = group[group[measure].notna() & (group[measure] > 0)]
            if reached["n_individuals"].nunique() < 3:
                continue
            fit = fit_power_law(reached["n_individuals"].tolist(), reached[measure].tolist())
            rows.append({"delta": delta, "measure": measure, **asdict(fit)})
    columns = ["delta", "measure", *(field.name for field in fields(PowerLawFit))]
    return pd.DataFrame(rows, columns=columns)


def fit_of(table: pd.DataFrame, measure: str = "plateau_end", delta: float = DELTA) -> PowerLawFit:
    """The power law of one measure at one δ.

    The paper's law is best held against `plateau_end`: at its sizes the statistics phase is short
    beside the plateau, so that the plateau's end and its length are nearly the same; here they are
    not.

    Raises:
        InterpError: fewer than three sizes have left the plateau.
    """
    chosen = table[(table["delta"] == delta) & (table[measure] > 0).fillna(value=False)]
    return fit_power_law(chosen["n_individuals"].tolist(), chosen[measure].tolist())


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
        The table of `scaling_table`.

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
