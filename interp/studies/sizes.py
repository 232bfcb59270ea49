"""The runs of the study of plateau and population, a number of individuals each, and its tables."""

from collections.abc import Sequence
from typing import ClassVar

import pandas as pd
from pydantic import Field, field_validator

from interp.config import Config
from interp.errors import ConfigError
from interp.phases import DELTAS
from interp.plateau import plateau_fits
from interp.run import Run
from interp.studies.plateau_laws import plateau_laws
from interp.studies.study import Planned, StudySettings, each_once

STOP_BELOW = 0.7
"""The share of the baseline below which a run ends: the plateau is over, for every δ below 0.3."""
STEPS = ["statistics_end", "plateau_end", "plateau_length"]
COLUMNS = ["n_individuals", "seed", "delta", *STEPS]


class PlateauSettings(StudySettings):
    """Settings of the study."""

    sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    """Numbers of individuals, at least three."""
    n_steps: int = Field(default=6000, ge=1)
    """The last step of a run that does not leave its plateau before."""

    varies: ClassVar[frozenset[str]] = frozenset({"population.n_individuals"})

    @field_validator("sizes")
    @classmethod
    def _enough_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if len(each_once("sizes", sizes)) < 3:
            raise ConfigError(
                f"sizes={list(sizes)}: a power law needs at least 3 different sizes; add some."
            )
        return sizes

    def cell(self, seed: int, n_individuals: int) -> Config:
        """The settings of one run."""
        return self.config(
            seed,
            **{
                "population.n_individuals": n_individuals,
                "population.n_held_out": 0,
                "optimizer.schedule": "constant",
                "training.n_steps": self.n_steps,
                "training.stop_below": STOP_BELOW,
                "training.early_checkpoints": (0,),
                "training.checkpoint_every": 500,
                "evaluation.every": 10,
                "evaluation.n_individuals": 128,
            },
        )


def runs(settings: PlateauSettings) -> list[Planned]:
    """The runs that the settings ask for."""
    return [
        Planned(settings.cell(seed, size)) for size in settings.sizes for seed in settings.seeds
    ]


def tables(settings: PlateauSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """The phases of every run, and laws: `runs` (of `plateau_table`), `fits`, `laws` (of `plateau_laws`).

    Args:
        settings: Those that the runs were planned with.
        runs: The finished ones, in any order.
    """
    table = plateau_table(
        sorted(runs, key=lambda run: (run.config.population.n_individuals, run.config.seed))
    )
    return {
        "runs": table,
        "fits": plateau_fits(table).round(5),
        "laws": plateau_laws(table).round(4),
    }


def plateau_table(runs: Sequence[Run], deltas: Sequence[float] = DELTAS) -> pd.DataFrame:
    """The phases of every run for every δ that it can tell about: it may have stopped early.

    Returns:
        Columns `n_individuals`, `seed`, `delta`, `statistics_end`, `plateau_end`,
        `plateau_length` (steps; NA where not reached).
    """
    rows = []
    for run in runs:
        who = (run.config.population.n_individuals, run.config.seed)
        for delta in deltas:
            if 1 - delta > (run.config.training.stop_below or 0):
                phases = run.phases_at(delta)
                rows.append((*who, delta, *(getattr(phases, name) for name in STEPS)))
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(STEPS, "Int64"))
