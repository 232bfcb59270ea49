"""What the studies of the data distribution share: one length of training, one way of measuring.

Runs are as long and measured at the same steps in all of them, so that those with uniform sampling are
trained once for all. Distributions are compared seed by seed, by one rule (`rules.differs`).
"""

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import pandas as pd

from interp.config import Config, SamplingConfig
from interp.run import Run
from interp.studies.rules import Verdict, differs
from interp.studies.study import StudySettings

NOTHING = "nothing to compare"
UNIFORM: dict[str, Any] = {"kind": "uniform"}
MIN_SEEDS = 3
"""Seeds below which distributions are not compared."""
EARLIER = 25
"""By how many steps a plateau has to end earlier, on average: runs are measured that often."""
HIGHER = 0.02
"""By how much a final accuracy has to be higher, on average: more than the standard error of a share of
the 1,536 values (256 people) that are measured, 0.013 at most."""
_WHOLE = ("n_celebrities", "indiv_warmup", "n_groups", "n_repeats", "statistics_end", "plateau_end")
_RUN = (
    "seed", "n_individuals", "n_steps", *SamplingConfig.model_fields, "statistics_end", "plateau_end",
    "attribute_loss", "attribute_accuracy",
)  # fmt: skip


class DistributionSettings(StudySettings):
    """Settings of a study of who comes next."""

    n_steps: int = 1000
    """Steps of each run."""
    varies: ClassVar[frozenset[str]] = frozenset({"sampling", "population.n_individuals"})

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
    return pd.DataFrame(rows, columns=list(_RUN)).astype(dict.fromkeys(_WHOLE, "Int64"))


def learning_curves(runs: Sequence[Run], every: int = 1) -> pd.DataFrame:
    """The curves of the runs: the columns of `learned` that tell runs apart, `step`, `metric`, `value`.

    Metrics are `attribute_loss` (nats) and `attribute_accuracy` (a share) on evaluation biographies.

    Args:
        runs: Finished runs.
        every: Keep one of so many measurements, the first of all among them, and the last.
    """
    parts = [pd.DataFrame(columns=["seed", "n_individuals", "kind", "step", "metric", "value"])]
    for run in runs:
        config = run.config
        for metric in ("attribute_loss", "attribute_accuracy"):
            curve = run.curve(metric)
            kept = [i % every == 0 or i == len(curve) - 1 for i in range(len(curve))]
            curve = curve[kept]
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
    return pd.concat(parts[1:] or parts, ignore_index=True)


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `learned`, as made or read back from CSV, with numbers that can be compared.

    A plateau that has not ended counts as ending `EARLIER` steps after the last, as if the run had just
    missed it; the column `ended` says whether it has.
    """

    def numbers(column: str) -> pd.Series:
        return pd.to_numeric(table[column]).astype("Float64").astype(float)

    measures = ("n_steps", "attribute_loss", "attribute_accuracy", "exponent")
    ends = numbers("plateau_end")
    return table.assign(
        **{name: numbers(name) for name in measures},
        ended=ends.notna(),
        plateau_end=ends.fillna(numbers("n_steps") + EARLIER),
    )


def by_seed(table: pd.DataFrame, distribution: str, measure: str) -> pd.DataFrame:
    """A measure of runs on equally many people: a row a seed, a column a distribution.

    Args:
        table: As `comparable` returns it.
        distribution: The column that tells distributions apart.
        measure: A column, e.g. "plateau_end".

    Returns:
        Only seeds of which all distributions of the table are there.
    """
    return table.pivot_table(measure, "seed", distribution).dropna()


def gains(values: pd.DataFrame, uniform: Hashable, sign: int) -> pd.DataFrame:
    """What every other distribution gains over the uniform one, a row a seed.

    Args:
        values: As `by_seed` returns it.
        uniform: The column of the uniform distribution; without it there are no gains.
        sign: 1 where more is better, -1 where less is.
    """
    if uniform not in values:
        return pd.DataFrame()
    difference = values.drop(columns=uniform).sub(values[uniform], axis=0)
    return difference * sign + 0.0  # no negative zero, which would be written as one


def some_gain(gained: pd.DataFrame, margin: float | int) -> Verdict:
    """Whether some distribution is better than the uniform one.

    Args:
        gained: As `gains` returns it.
        margin: See `rules.differs`.

    Returns:
        "agree" where one is, consistently; "disagree" where none is better even on average; else, or
        with fewer than `MIN_SEEDS` seeds, "cannot tell".
    """
    if gained.empty or len(gained) < MIN_SEEDS:
        return "cannot tell"
    if any(differs(gained[name], margin) for name in gained):
        return "agree"
    return "disagree" if (gained.mean() <= 0).all() else "cannot tell"


def scale(table: pd.DataFrame) -> str:
    """Length and number of runs, to stand behind what was measured; empty where nothing was.

    Args:
        table: As `comparable` returns it.
    """
    if table.empty:
        return ""
    n_seeds = table["seed"].nunique()
    return f" ({int(table['n_steps'].max()):,} steps, {n_seeds} seed{'s' if n_seeds > 1 else ''})"


CONSISTENT = "on average over seeds, and in no seed the other way round"
"""What the template of a rule says of `rules.differs`, after the margin."""
SEEDS_COUNT = "Only seeds count of which every run is there; fewer than {min_seeds} decide nothing."
"""What the template of a rule says of `by_seed`."""
NEVER_ENDED = (
    "A plateau that did not end counts as ending {earlier} steps after the last step of the run."
)
"""What the template of a rule says of `comparable`."""
SEEDS = {"min_seeds": MIN_SEEDS}
PLATEAU = {"earlier": EARLIER, "min_seeds": MIN_SEEDS}
"""The numbers of these templates."""
