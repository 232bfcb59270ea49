"""Celebrities.

Do a few people who are shown more often than all others shorten the plateau and give more knowledge, as a
power law does (paper, section 4, Fig. H)?

Command: interp batch celebrities --out artifacts/studies --workers 2
Duration: 21 runs of 1,000 steps (about a minute each on one core), some of which `warm_up` trains too

Some of the people are several times as likely as all others, against uniform sampling and two power laws.
Source: paper, Fig. H: 4k, 16k and 64k celebrities with weights from 2 to 16. The celebrities here are a
sixteenth and a quarter of all people.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import model_validator

from interp.config import SamplingConfig
from interp.errors import ConfigError
from interp.plots.distribution import compared_distributions, distribution_curves
from interp.run import Run
from interp.studies.celebrities_claims import UNIFORM as NAME_OF_UNIFORM
from interp.studies.celebrities_claims import claims
from interp.studies.distribution import (
    UNIFORM,
    DistributionSettings,
    comparable,
    measured,
    planned,
)
from interp.studies.power_law import power_law
from interp.studies.study import Study, Tables

_OF_RUNS = (
    "distribution", "kind", "seed", "n_individuals", "n_celebrities", "weight_celebrities", "exponent",
)  # fmt: skip
_OF_CURVES = ("distribution", "seed", "n_individuals")


class CelebritiesSettings(DistributionSettings):
    """Which celebrities are tried, and what they are compared with beside uniform sampling."""

    n_individuals: int = 1024
    """People."""
    n_celebrities: tuple[int, ...] = (64, 256)
    """How many of them are celebrities."""
    weights: tuple[float, ...] = (4.0, 16.0)
    """How many times as likely a celebrity is as anybody else."""
    exponents: tuple[float, ...] = (0.6, 0.8)
    """The exponents of the power laws to compare with."""
    once: ClassVar[tuple[str, ...]] = ("n_celebrities", "weights", "exponents")

    @model_validator(mode="after")
    def _uneven(self) -> "CelebritiesSettings":
        if 1 in self.weights or 0 in self.exponents:
            raise ConfigError(
                f"weights={list(self.weights)}, exponents={list(self.exponents)}: a weight of 1 and an "
                "exponent of 0 are uniform sampling, which is compared with in any case; leave them out."
            )
        return self

    def samplings(self) -> list[dict[str, Any]]:
        """The sampling distributions, the uniform one first."""
        celebrities = [
            {"kind": "celebrities", "n_celebrities": n, "weight_celebrities": weight}
            for n in self.n_celebrities
            for weight in self.weights
        ]
        return [UNIFORM, *celebrities, *(power_law(exponent) for exponent in self.exponents)]

    def compared(self) -> list[tuple[int, dict[str, Any]]]:
        """Every sampling distribution, for equally many people."""
        return [(self.n_individuals, sampling) for sampling in self.samplings()]


def distribution_name(sampling: SamplingConfig) -> str:
    """What tables and figures call a distribution.

    Example:
        >>> distribution_name(SamplingConfig())
        'uniform'
    """
    match sampling.kind:
        case "celebrities":
            return f"{sampling.n_celebrities:,} people × {sampling.weight_celebrities:g}"
        case "power_law":
            return f"power law α = {sampling.exponent:g}"
        case _:
            return NAME_OF_UNIFORM


def tables(settings: CelebritiesSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """`distribution.measured` of the finished runs, with the name of the `distribution`.

    They are in the order of the settings: uniform, celebrities, power laws.
    """
    order = [distribution_name(SamplingConfig(**sampling)) for sampling in settings.samplings()]

    def name(run: Run) -> str:
        return distribution_name(run.config.sampling)

    in_order = sorted(runs, key=lambda run: (order.index(name(run)), run.config.seed))
    return measured(in_order, lambda run: {"distribution": name(run)}, _OF_RUNS, _OF_CURVES)


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor; none without a finished run of uniform sampling."""
    runs = comparable(tables["runs"])
    if NAME_OF_UNIFORM not in set(runs["distribution"]):
        return {}
    return {
        "celebrities-compared": compared_distributions(runs),
        "celebrities-curves": distribution_curves(tables["curves"]),
    }


STUDY = Study("celebrities", __doc__, CelebritiesSettings, planned, tables, figures, claims)
