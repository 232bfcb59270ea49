"""Celebrities.

Do a few people who are shown more often than all others shorten the plateau and give more knowledge, as a
power law does (paper, section 4, Fig. H)?

Command: interp batch celebrities --out artifacts/studies --workers 2
Duration: 15 runs of 1,000 steps, 6 of which another study trains too; about a minute each on one core

Some of the people are several times as likely as all others, against uniform sampling and two power laws.
Source: paper, Fig. H: 4k, 16k and 64k celebrities with weights from 2 to 16. The celebrities here are a
sixteenth and a quarter of all people.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pydantic import model_validator

from interp.config import SamplingConfig
from interp.errors import ConfigError
from interp.plots.distribution import compared_distributions, distribution_curves
from interp.run import Run
from interp.seeds import spread
from interp.studies.distribution import (
    CONSISTENT,
    EARLIER,
    HIGHER,
    MIN_SEEDS,
    NEVER_ENDED,
    PLATEAU,
    SEEDS,
    SEEDS_COUNT,
    UNIFORM,
    DistributionSettings,
    by_seed,
    comparable,
    gains,
    learned,
    learning_curves,
    scale,
    some_gain,
)
from interp.studies.power_law import power_law
from interp.studies.rules import Claim, Verdict, differs, verdict
from interp.studies.study import Planned, Study, Tables, each_once

SIMILAR = 2.0
"""Gains up to so many times as large, or as small, are similar."""
_UNIFORM = "uniform"
_RUNS = (
    "distribution", "kind", "seed", "n_individuals", "n_celebrities", "weight_celebrities", "exponent",
    "n_steps", "statistics_end", "plateau_end", "attribute_loss", "attribute_accuracy",
)  # fmt: skip
_CURVES = ("distribution", "seed", "n_individuals", "step", "metric", "value")


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

    @model_validator(mode="after")
    def _uneven_and_each_once(self) -> "CelebritiesSettings":
        each_once("n_celebrities", self.n_celebrities)
        each_once("weights", self.weights)
        each_once("exponents", self.exponents)
        if 1 in self.weights or 0 in self.exponents:
            raise ConfigError(
                f"weights={list(self.weights)}, exponents={list(self.exponents)}: a weight of 1 and an "
                "exponent of 0 are uniform sampling, which is compared with in any case; leave them out."
            )
        return self

    def samplings(self) -> list[dict[str, Any]]:
        """The sampling distributions, the uniform one first."""
        return [
            UNIFORM,
            *(
                {"kind": "celebrities", "n_celebrities": n, "weight_celebrities": weight}
                for n in self.n_celebrities
                for weight in self.weights
            ),
            *(power_law(exponent) for exponent in self.exponents),
        ]


def planned(settings: CelebritiesSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [
        Planned(settings.distribution(seed, settings.n_individuals, sampling))
        for seed in settings.seeds
        for sampling in settings.samplings()
    ]


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
    """What the finished runs came to.

    Args:
        settings: Of the study.
        runs: The finished runs.

    Returns:
        "runs": a row a run, `distribution` (its name) and some columns of `distribution.learned`.
        "curves": columns `distribution`, `seed`, `n_individuals`, `step`, `metric`, `value` of every
        second measurement. Both in the order of the settings: uniform, celebrities, power laws.
    """
    order = [distribution_name(SamplingConfig(**sampling)) for sampling in settings.samplings()]
    of_run: dict[str, list[pd.DataFrame]] = {"runs": [], "curves": []}
    for run in sorted(
        runs, key=lambda run: (order.index(distribution_name(run.config.sampling)), run.config.seed)
    ):
        name = distribution_name(run.config.sampling)
        of_run["runs"].append(learned([run]).assign(distribution=name)[list(_RUNS)])
        curves = learning_curves([run], every=2).assign(distribution=name)
        of_run["curves"].append(curves[list(_CURVES)])
    empty = {"runs": pd.DataFrame(columns=_RUNS), "curves": pd.DataFrame(columns=_CURVES)}
    return {
        name: pd.concat(parts, ignore_index=True) if parts else empty[name]
        for name, parts in of_run.items()
    }


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor; none without a finished run of uniform sampling."""
    runs = comparable(tables["runs"])
    if _UNIFORM not in set(runs["distribution"]):
        return {}
    return {
        "celebrities-compared": compared_distributions(runs),
        "celebrities-curves": distribution_curves(tables["curves"]),
    }


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about celebrities, held against the tables.

    Args:
        tables: Those of `tables`, as made or read back from CSV; "runs" is used.
    """
    runs = comparable(tables["runs"])
    kinds = dict(zip(runs["distribution"], runs["kind"], strict=True))
    ends, accuracies = (
        by_seed(runs, "distribution", measure)[list(kinds)] if kinds else pd.DataFrame()
        for measure in ("plateau_end", "attribute_accuracy")
    )
    sooner = _by_kind(gains(ends, _UNIFORM, -1), kinds)
    better = _by_kind(gains(accuracies, _UNIFORM, 1), kinds)
    paper = "4k, 16k and 64k celebrities with weights 2 to 16 (Fig. H; 16,000 steps of 128)"
    people = f"; {int(runs['n_individuals'].max()):,} people" if len(runs) else ""
    length = people + scale(runs)
    return [
        Claim(
            "Celebrities shorten the plateau",
            f"gains similar to the power law's: {paper}",
            _measured(ends, sooner, "plateau end in steps", ".0f") + length,
            some_gain(sooner["celebrities"], EARLIER),
            f"Agree: with some celebrities it ends at least {EARLIER} steps earlier than with uniform "
            f"sampling {CONSISTENT}. Disagree: with none it ends earlier on "
            f"average. Else: cannot tell. {NEVER_ENDED.format(**PLATEAU)} {SEEDS_COUNT.format(**SEEDS)}",
        ),
        Claim(
            "Celebrities give a better final accuracy than uniform sampling",
            f"gains similar to the power law's: {paper}",
            _measured(accuracies, better, "final accuracy", ".3f") + length,
            some_gain(better["celebrities"], HIGHER),
            f"Agree: with some celebrities it is at least {HIGHER:g} higher "
            f"{CONSISTENT}. Disagree: with none it is higher on average. Else: cannot tell. "
            f"{SEEDS_COUNT.format(**SEEDS)}",
        ),
        Claim(
            "Celebrities shorten the plateau about as much as a power law does",
            f"gains similar to the power law's: {paper}",
            _measured_similar(sooner, "steps", ".0f") + length,
            _similar(sooner, EARLIER),
            _similar_rule(f"{EARLIER} steps") + f" {NEVER_ENDED.format(**PLATEAU)}",
        ),
        Claim(
            "Celebrities raise the final accuracy about as much as a power law does",
            f"gains similar to the power law's: {paper}",
            _measured_similar(better, "final accuracy", ".3f") + length,
            _similar(better, HIGHER),
            _similar_rule(f"{HIGHER:g}"),
        ),
    ]


def _by_kind(gained: pd.DataFrame, kinds: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Gains over uniform sampling, by kind of distribution."""
    return {
        kind: gained[[name for name in gained if kinds[str(name)] == kind]]
        for kind in ("celebrities", "power_law")
    }


def _best(gained: pd.DataFrame) -> str | None:
    """The distribution with the largest mean gain."""
    return None if gained.empty else str(gained.mean().idxmax())


def _similar(gained: dict[str, pd.DataFrame], margin: float | int) -> Verdict:
    """Whether the best celebrities gain about as much as the best power law, where that gains at all."""
    names = {kind: _best(of_kind) for kind, of_kind in gained.items()}
    if None in names.values():
        return "cannot tell"
    ours, theirs = (gained[kind][names[kind]] for kind in ("celebrities", "power_law"))
    if not differs(theirs, margin):
        return "cannot tell"
    pairs = zip(ours, theirs, strict=True)
    similar = [
        bool(their / SIMILAR <= our <= their * SIMILAR) if their > 0 else None
        for our, their in pairs
    ]
    return verdict(similar, max(MIN_SEEDS, len(similar)))


def _similar_rule(margin: str) -> str:
    return (
        "The gain over uniform sampling with the same seed, of the celebrities and of the power law with "
        "the largest mean gain each. Agree: in every seed that of the celebrities is at least "
        f"1/{SIMILAR:g} and at most {SIMILAR:g} times that of the power law; disagree: in every seed it "
        "is less or more. Else: cannot tell; nor can it be told where the power law gains less than "
        f"{margin} on average over seeds, or nothing in one of them. {SEEDS_COUNT.format(**SEEDS)}"
    )


def _measured(
    values: pd.DataFrame, gained: dict[str, pd.DataFrame], what: str, form: str
) -> str:  # fmt: skip
    best = _best(gained["celebrities"])
    if best is None:
        return "nothing to compare"
    said = [f"{_UNIFORM} {spread(values[_UNIFORM], form)}"]
    said += [f"{name} {spread(values[name], form)}" for name in gained["celebrities"]]
    return f"{what}: {'; '.join(said)}"


def _measured_similar(gained: dict[str, pd.DataFrame], what: str, form: str) -> str:
    said = []
    for kind in ("celebrities", "power_law"):
        best = _best(gained[kind])
        if best is None:
            return "nothing to compare"
        said.append(f"{best} {spread(gained[kind][best], form)}")
    return f"largest mean gain in {what}: {'; '.join(said)}"


STUDY = Study(
    name="celebrities",
    doc=__doc__,
    settings=CelebritiesSettings,
    runs=planned,
    tables=tables,
    figures=figures,
    claims=claims,
)
