"""What the studies of the data distribution share: one length of training, one way of measuring.

Runs are as long in all of them, and in those that are measured at the same steps one with uniform sampling is
trained once for all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd
from pydantic import Field, model_validator

from interp.config import Config
from interp.run import Run
from interp.studies.collect import collect
from interp.studies.study import Planned, StudySettings, each_once

UNIFORM: dict[str, Any] = {"kind": "uniform"}
EARLIER = 25
"""By how many steps a plateau has to end earlier, on average: runs of `tiny` are measured that often."""
PLATEAU = {"earlier": EARLIER}
ACCURACY = {"higher": 0.02}
"""By how much a final accuracy has to be higher, on average: more than the standard error of a share of
the 1,536 values (256 people) that are measured, 0.013 at most."""
NEVER_ENDED = (
    "A plateau that did not end counts as ending {earlier} steps after the last step of the run. "
)
"""What the template of a rule says of `comparable`."""
OUTCOME = (
    "n_steps", "statistics_end", "plateau_end", "attribute_loss", "attribute_accuracy",
)  # fmt: skip
CURVE = ("step", "metric", "value")
_WHOLE = ("n_celebrities", "indiv_warmup", "n_groups", "n_repeats", "statistics_end", "plateau_end")


class DistributionSettings(StudySettings):
    """Settings of a study of who comes next."""

    n_steps: int = 1000
    """Steps of each run."""
    every: int | None = Field(default=None, ge=1)
    """Steps between measurements; None: as often as the preset says."""
    varies: ClassVar[frozenset[str]] = frozenset({"sampling", "population.n_individuals"})
    once: ClassVar[tuple[str, ...]] = ()
    """Settings of several values: there has to be at least one, and none twice."""

    @model_validator(mode="after")
    def _each_once(self) -> "DistributionSettings":
        for name in self.once:
            each_once(name, getattr(self, name))
        return self

    def compared(self) -> Sequence[tuple[int, dict[str, Any]]]:
        """What is compared: numbers of people, each with a sampling distribution."""
        return ()

    def distribution(self, seed: int, n_individuals: int, sampling: dict[str, Any]) -> Config:
        """The settings of a run with some people and a sampling distribution.

        Measured are wordings never seen with a person; 256 people, evenly spaced over the population
        where some are likelier than others: as if all were asked about equally often.
        """
        measured = {} if self.every is None else {"evaluation.every": self.every}
        return self.config(
            seed,
            **{
                **measured,
                "population.n_individuals": n_individuals,
                "sampling": sampling,
                "training.n_steps": self.n_steps,
                "training.early_checkpoints": (),
                "training.checkpoint_every": self.n_steps,
                "evaluation.splits": ("evaluation",),
            },
        )


def planned(settings: DistributionSettings) -> list[Planned]:
    """The runs that settings ask for: what is compared, for each seed."""
    return [
        Planned(settings.distribution(seed, n_individuals, sampling))
        for seed in settings.seeds
        for n_individuals, sampling in settings.compared()
    ]


def learned(run: Run) -> pd.DataFrame:
    """What a run came to, in one row.

    Returns:
        Columns `seed`, `n_individuals`, `n_steps`, `kind` and the settings of the sampling
        distributions (NA where a kind has none), `statistics_end` and `plateau_end` (steps; NA where
        not reached), `attribute_loss` (nats) and `attribute_accuracy` (a share) at the last step.
    """
    config, phases = run.config, run.phases
    row = {
        "seed": config.seed,
        "n_individuals": config.population.n_individuals,
        "n_steps": config.training.last_step,
        **config.sampling.model_dump(),
        "statistics_end": phases.statistics_end,
        "plateau_end": phases.plateau_end,
        "attribute_loss": round(float(run.curve().iloc[-1]), 5),
        "attribute_accuracy": round(float(run.curve("attribute_accuracy").iloc[-1]), 5),
    }
    return pd.DataFrame([row]).astype(dict.fromkeys(_WHOLE, "Int64"))


def learning_curves(run: Run, every: int = 2) -> pd.DataFrame:
    """The curves of a run on evaluation biographies.

    Args:
        run: A finished run.
        every: Keep one of so many measurements, the first of all among them, and the last.

    Returns:
        Columns `seed`, `n_individuals`, `step`, `metric` ("attribute_loss" in nats, or
        "attribute_accuracy", a share) and `value`.
    """
    curves: dict[str, pd.Series] = {}
    for metric in ("attribute_loss", "attribute_accuracy"):
        curve = run.curve(metric)
        curves[metric] = curve[
            [i % every == 0 or i == len(curve) - 1 for i in range(len(curve))]
        ].round(5)
    table: pd.DataFrame = (
        pd.concat(curves, names=["metric", "step"]).to_frame("value").reset_index()
    )
    return table.assign(seed=run.config.seed, n_individuals=run.config.population.n_individuals)


def measured(
    runs: Iterable[Run],
    apart: Callable[[Run], Mapping[str, Any]],
    of_runs: Sequence[str],
    of_curves: Sequence[str],
    thin: int = 2,
) -> dict[str, pd.DataFrame]:
    """The tables of several runs.

    Args:
        runs: Finished runs, in the order of the rows.
        apart: What tells a run apart in its study, a value a column.
        of_runs: Columns that are to be before `OUTCOME` in the table of runs.
        of_curves: Columns that are to be before `CURVE` in the table of curves.
        thin: Of curves, one of so many measurements is kept.

    Returns:
        "runs" with a row a run (`learned`), and "curves" (`learning_curves`).
    """
    return collect(
        runs,
        lambda run: (apart(run), {"runs": learned(run), "curves": learning_curves(run, thin)}),
        {"runs": (*of_runs, *OUTCOME), "curves": (*of_curves, *CURVE)},
    )


def comparable(table: pd.DataFrame, spacing: int = EARLIER) -> pd.DataFrame:
    """The rows of `learned`, as made or read back from CSV, with numbers that can be compared.

    A plateau that has not ended counts as ending `spacing` steps after the last, as if the run had just
    missed it; the column `ended` says whether it has.
    """

    def numbers(column: str) -> pd.Series:
        return pd.to_numeric(table[column]).astype("Float64").astype(float)

    measures = ("n_steps", "attribute_loss", "attribute_accuracy", "exponent")
    ends = numbers("plateau_end")
    return table.assign(
        **{name: numbers(name) for name in measures},
        ended=ends.notna(),
        plateau_end=ends.fillna(numbers("n_steps") + spacing),
    )
