"""Power law.

Does showing some people more often than others shorten the plateau and give more knowledge in the same
number of steps, and how uneven is best for how many people (paper, section 4, Fig. 4, G)?

Command: interp batch power_law --out artifacts/studies --workers 2
Duration: 90 runs (72 of 1,000 steps, 1 to 2 minutes each on one core; 18 of 500)

Individual i is shown with a probability proportional to i^-α; α = 0 is the uniform distribution. In the
paper 16,000 steps of 128 biographies show each of 64k people 32 times; in the defaults here 1,000 steps
of 32 show each of 1,024 people 31 times. Everybody is asked about equally often, so that what is learned
of frequent people only does not count for more than it is. Runs are measured every 5 steps, since the
plateaus of few people differ by little. Some people are learned in shorter training too.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, model_validator

from interp.errors import ConfigError
from interp.plots import distribution as plots
from interp.run import Run
from interp.studies import distribution
from interp.studies.distribution import DistributionSettings, planned
from interp.studies.power_law_claims import SPACING, claims
from interp.studies.study import Planned, Study, Tables

_APART = ("seed", "n_individuals", "exponent")


class PowerLawSettings(DistributionSettings):
    """Which exponents are tried, for how many people."""

    exponents: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """The exponents α; 0 is uniform sampling, which the others are compared with."""
    sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    """Numbers of people N."""
    every: int | None = Field(default=SPACING, ge=1)
    """Steps between measurements; None: as often as the preset says."""
    shorter: tuple[int, ...] = (500,)
    """Steps of further runs, of the middle one of `sizes` (the lower of two), on which the best exponent may
    depend; none leaves them out."""
    once: ClassVar[tuple[str, ...]] = ("exponents", "sizes")
    varies: ClassVar[frozenset[str]] = DistributionSettings.varies | {"training.n_steps"}

    @model_validator(mode="after")
    def _lengths_can_be_compared(self) -> "PowerLawSettings":
        if (
            len(set(self.shorter)) < len(self.shorter)
            or max(self.shorter, default=0) >= self.n_steps
        ):
            raise ConfigError(
                f"shorter={list(self.shorter)}: name each number of steps once, all below n_steps "
                f"({self.n_steps}), which is compared with in any case."
            )
        return self

    def compared(self) -> list[tuple[int, dict[str, Any]]]:
        """Every exponent, for every number of people."""
        return [(n, power_law(exponent)) for n in self.sizes for exponent in self.exponents]

    def lengths(self) -> Iterator["PowerLawSettings"]:
        """The settings of the runs of every length, those of all sizes first."""
        middle = sorted(self.sizes)[(len(self.sizes) - 1) // 2]
        yield self.model_copy(update={"shorter": ()})
        for n_steps in self.shorter:
            yield self.model_copy(update={"shorter": (), "n_steps": n_steps, "sizes": (middle,)})


def power_law(exponent: float) -> dict[str, Any]:
    """The sampling settings of an exponent. With 0 those of uniform sampling."""
    return {"kind": "power_law", "exponent": exponent} if exponent else distribution.UNIFORM


def runs(settings: PowerLawSettings) -> list[Planned]:
    """The runs that settings ask for: every exponent and size, then every length."""
    return [one for of_length in settings.lengths() for one in planned(of_length)]


def tables(settings: PowerLawSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """`distribution.measured` of the finished runs; `exponent` is 0 for uniform sampling.

    Returns:
        "runs" and "curves" of the runs of `n_steps`, and "shorter": the rows of the others, as in "runs".
    """

    def measured(some: Sequence[Run]) -> dict[str, pd.DataFrame]:
        found = distribution.measured(
            some,
            lambda run: {"exponent": run.config.sampling.exponent or 0.0},
            _APART,
            _APART,
            thin=max(2, 50 // (settings.every or 50)),
        )
        return {
            name: table.sort_values(list(_APART), kind="stable", ignore_index=True)
            for name, table in found.items()
        }

    whole = [run for run in runs if run.config.training.n_steps == settings.n_steps]
    others = [run for run in runs if run.config.training.n_steps != settings.n_steps]
    return {**measured(whole), "shorter": measured(others)["runs"]}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor; none where nothing was measured."""
    runs = distribution.comparable(tables["runs"], SPACING)
    if runs.empty:
        return {}
    curves = tables["curves"].sort_values(["exponent", "seed", "step"])
    named = curves["exponent"].map("α = {:g}".format)
    return {
        "power-law-plateau": plots.plateau_against_exponent(runs),
        "power-law-final": plots.final_against_exponent(runs),
        "power-law-curves": plots.distribution_curves(curves.assign(distribution=named)),
    }


STUDY = Study("power_law", __doc__, PowerLawSettings, runs, tables, figures, claims)
