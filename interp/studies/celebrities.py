"""Celebrities.

Do a few people who are shown more often than all others shorten the plateau and give more knowledge, as a
power law does (paper, section 4, Fig. H)?

Command: interp batch celebrities --out artifacts/studies --workers 2
Duration: 21 runs of 1,000 steps (about a minute each on one core), some of which `power_law` trains too

Some of the people are several times as likely as all others, against uniform sampling and two power laws.
Source: paper, Fig. H: 4k, 16k and 64k celebrities with weights from 2 to 16. The celebrities here are a
sixteenth and a quarter of all people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import model_validator

from interp.config import SamplingConfig
from interp.errors import ConfigError
from interp.plots.distribution import compared_distributions, distribution_curves
from interp.run import Run
from interp.seeds import spread
from interp.studies import paired
from interp.studies.distribution import (
    ACCURACY,
    NEVER_ENDED,
    PLATEAU,
    UNIFORM,
    DistributionSettings,
    comparable,
    measured,
    planned,
)
from interp.studies.power_law import power_law
from interp.studies.rules import Claim, Rule, Statement, Verdict, differs, verdict
from interp.studies.study import Study, Tables

SIMILAR = {"similar": 2.0}
"""Gains up to so many times as large, or as small, are similar."""
_UNIFORM = "uniform"
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
            return _UNIFORM


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
    if _UNIFORM not in set(runs["distribution"]):
        return {}
    return {
        "celebrities-compared": compared_distributions(runs),
        "celebrities-curves": distribution_curves(tables["curves"]),
    }


@dataclass(frozen=True)
class _Compared:
    """A measure by seed and distribution, and what is gained in it over the uniform one."""

    values: pd.DataFrame
    celebrities: pd.DataFrame
    power_laws: pd.DataFrame

    @classmethod
    def of(cls, runs: pd.DataFrame, measure: str, sign: int) -> "_Compared":
        kinds = dict(zip(runs["distribution"], runs["kind"], strict=True))
        values = paired.by_seed(runs, "distribution", measure, list(kinds))
        gained = paired.gains(values, _UNIFORM, sign)
        celebrities, power_laws = (
            gained[[name for name in gained if kinds[str(name)] == kind]]
            for kind in ("celebrities", "power_law")
        )
        return cls(values, celebrities, power_laws)

    def each(self, what: str, form: str) -> str:
        """The uniform distribution and all celebrities, in words."""
        if self.celebrities.empty:
            return ""
        names = [_UNIFORM, *self.celebrities]
        said = [f"{name} {spread(self.values[name], form)}" for name in names]
        return f"{what}: {'; '.join(said)}"

    def largest(self, what: str, form: str) -> str:
        """The largest gains, in words."""
        if self.celebrities.empty or self.power_laws.empty:
            return ""
        kinds = [(gained, paired.best(gained)) for gained in (self.celebrities, self.power_laws)]
        said = [f"{name} {spread(gained[name], form)}" for gained, name in kinds]
        return f"largest mean gain in {what}: {'; '.join(said)}"

    def similar(self, similar: float, min_seeds: int, margin: float | int) -> Verdict:
        """Whether the best celebrities gain about as much as the best power law, if that gains at all."""
        if self.celebrities.empty or self.power_laws.empty:
            return "cannot tell"
        ours, theirs = (
            gained[paired.best(gained)] for gained in (self.celebrities, self.power_laws)
        )
        if not differs(theirs, margin, min_seeds):
            return "cannot tell"
        holds = [
            bool(their / similar <= our <= their * similar) if their > 0 else None
            for our, their in zip(ours, theirs, strict=True)
        ]
        return verdict(holds, max(min_seeds, len(holds)))


Measured = dict[str, _Compared]


def _similar(
    measure: str, margin: Mapping[str, float | int], said: str, note: str = ""
) -> Rule[Measured]:
    """The rule that gains are similar; `said` names the margin."""

    def decide(of: Measured, similar: float, min_seeds: int, **margin: float | int) -> Verdict:
        (least,) = margin.values()
        return of[measure].similar(similar, min_seeds, least)

    return Rule(
        "The gain over uniform sampling with the same seed, of the celebrities and of the power law with "
        "the largest mean gain each. Agree: in every seed that of the celebrities is at least "
        "1/{similar:g} and at most {similar:g} times that of the power law; disagree: in every seed it "
        "is less or more. Else: cannot tell; nor can it be told where the power law gains less than "
        f"{said} on average over seeds, or nothing in one of them. {paired.SEEDS_COUNT}{note}",
        decide,
        {**SIMILAR, **margin, **paired.SEEDS},
    )


_PAPER = (
    "gains similar to the power law's: 4k, 16k and 64k celebrities with weights 2 to 16 (Fig. H; 16,000 "
    "steps of 128)"
)
STATEMENTS = (
    Statement[Measured](
        "Celebrities shorten the plateau",
        _PAPER,
        paired.some_better(
            "some celebrities it ends at least {earlier} steps earlier than with uniform sampling",
            "none it ends earlier",
            lambda of: of["ends"].celebrities,
            PLATEAU,
            NEVER_ENDED,
        ),
        lambda of: of["ends"].each("plateau end in steps", ".0f"),
    ),
    Statement[Measured](
        "Celebrities give a better final accuracy than uniform sampling",
        _PAPER,
        paired.some_better(
            "some celebrities it is at least {higher:g} higher",
            "none it is higher",
            lambda of: of["accuracies"].celebrities,
            ACCURACY,
        ),
        lambda of: of["accuracies"].each("final accuracy", ".3f"),
    ),
    Statement[Measured](
        "Celebrities shorten the plateau about as much as a power law does",
        _PAPER,
        _similar("ends", PLATEAU, "{earlier} steps", f" {NEVER_ENDED.strip()}"),
        lambda of: of["ends"].largest("steps", ".0f"),
    ),
    Statement[Measured](
        "Celebrities raise the final accuracy about as much as a power law does",
        _PAPER,
        _similar("accuracies", ACCURACY, "{higher:g}"),
        lambda of: of["accuracies"].largest("final accuracy", ".3f"),
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about celebrities, held against "runs", as made or read back from CSV."""
    runs = comparable(tables["runs"])
    compared = {
        "ends": _Compared.of(runs, "plateau_end", -1),
        "accuracies": _Compared.of(runs, "attribute_accuracy", 1),
    }
    found = [statement.against(compared) for statement in STATEMENTS]
    return [paired.to_scale(claim, runs, n_individuals=True) for claim in found]


STUDY = Study("celebrities", __doc__, CelebritiesSettings, planned, tables, figures, claims)
