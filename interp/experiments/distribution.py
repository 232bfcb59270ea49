"""What the studies of the data distribution share: one length of training, one way of measuring.

Runs are as long and measured at the same steps in all of them, so that those with uniform sampling are
trained once for all.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp.config import Config
from interp.experiments.study import StudySettings
from interp.run import Run

UNIFORM: dict[str, Any] = {"kind": "uniform"}


class DistributionSettings(StudySettings):
    """Settings of a study of who comes next."""

    n_steps: int = 1000
    """Steps of each run."""

    def distribution(self, seed: int, n_individuals: int, sampling: dict[str, Any]) -> Config:
        """The settings of a run with some people and a sampling distribution.

        Measured are wordings never seen with a person; 256 people, evenly spaced over the population
        where some are likelier than others: as if all were asked about equally often.
        """
        return self.config(
            seed,
            **{
                "population.n_individuals": n_individuals,
                "sampling": sampling,
                "training.n_steps": self.n_steps,
                "training.early_checkpoints": (),
                "training.checkpoint_every": self.n_steps,
                "evaluation.splits": ("evaluation",),
            },
        )


def learned(runs: Sequence[Run]) -> pd.DataFrame:
    """What each run came to, a row a run.

    Returns:
        Columns `seed`, `n_individuals`, `n_steps`, `kind` and the settings of the sampling
        distributions (NA where a kind has none), `statistics_end` and `plateau_end` (steps; NA where
        not reached), `attribute_loss` (nats) and `attribute_accuracy` (a share) at the last step.
    """
    rows = []
    for run in runs:
        config, phases = run.config, run.phases
        rows.append(
            {
                "seed": config.seed,
                "n_individuals": config.population.n_individuals,
                "n_steps": config.training.last_step,
                **config.sampling.model_dump(),
                "statistics_end": phases.statistics_end,
                "plateau_end": phases.plateau_end,
                "attribute_loss": round(float(run.curve().iloc[-1]), 5),
                "attribute_accuracy": round(float(run.curve("attribute_accuracy").iloc[-1]), 5),
            }
        )
    table = pd.DataFrame(rows)
    whole = [
        "n_celebrities",
        "indiv_warmup",
        "n_groups",
        "n_repeats",
        "statistics_end",
        "plateau_end",
    ]
    return table.astype({name: "Int64" for name in whole if name in table})


def learning_curves(runs: Sequence[Run]) -> pd.DataFrame:
    """The curves of the runs: the columns of `learned` that tell runs apart, `step`, `metric`, `value`.

    Metrics are `attribute_loss` (nats) and `attribute_accuracy` (a share) on evaluation biographies.
    """
    parts = []
    for run in runs:
        config = run.config
        for metric in ("attribute_loss", "attribute_accuracy"):
            curve = run.curve(metric)
            part = pd.DataFrame(
                {
                    "step": curve.index.astype(int),
                    "metric": metric,
                    "value": curve.to_numpy().round(5),
                }
            )
            own = {
                "seed": config.seed,
                "n_individuals": config.population.n_individuals,
                **config.sampling.model_dump(exclude_none=True),
            }
            for place, (name, value) in enumerate(own.items()):
                part.insert(place, name, value)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)
