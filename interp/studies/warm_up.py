"""Warm-up and adaptive schedules.

Does showing few people first, and everybody later, give more knowledge in the same number of steps, and
can a schedule find by itself when to switch? (paper, Fig. 4 right, I, K, L)

Command: interp batch warm_up --out artifacts/studies --workers 2
Duration: 51 runs of 1,000 steps (about a minute each on one core), some of which `celebrities` trains too

Fixed warm-ups (the first so many people for so many epochs, then everybody) and the adaptive schedule,
which decides by itself when to show more people, against uniform sampling, against power laws, and
against training on 65% of the people only. Source: paper, Fig. 4 right, Figs. I, K, L; the adaptive
schedule is only proposed there (section 6), so that nothing of the paper's can be held against it.

The paper has 128k people, warm-ups of 2k to 32k of them for 1 to 8 of 16 epochs. Here a run of the
defaults has 31 epochs of 1,024 people, and warm-ups last for 4 to 12.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pandas as pd
import plotly.graph_objects as go
from pydantic import model_validator

from interp.biographies import sampler
from interp.biographies.sampling import Stages, Uniform
from interp.config import Config
from interp.errors import ConfigError
from interp.plots.warm_up import final_values, schedule_curves, shown_people
from interp.run import Run
from interp.studies.collect import collect
from interp.studies.distribution import (
    CURVE,
    OUTCOME,
    UNIFORM,
    DistributionSettings,
    learned,
    learning_curves,
    planned,
)
from interp.studies.study import Study, Tables
from interp.studies.warm_up_claims import best_of, claims

_APART = ("schedule", "family", "seed")
_COLUMNS = {
    "learned": (
        *_APART, "n_individuals", "n_everybody", "n_steps", "kind", "exponent", "indiv_warmup",
        "epochs_warmup", "growth", *OUTCOME[1:], "accuracy_of_everybody",
    ),
    "curves": (*_APART, *CURVE),
    "stages": (*_APART, "step", "people"),
}  # fmt: skip
_FAMILIES = ("uniform", "power law", "warm-up", "adaptive")


class WarmUpSettings(DistributionSettings):
    """Which schedules are compared."""

    n_individuals: int = 1024
    """People."""
    indiv_warmup: tuple[int, ...] = (256, 512)
    """How many of them a fixed warm-up shows at first."""
    epochs_warmup: tuple[float, ...] = (4.0, 8.0, 12.0)
    """For how many epochs (each n_individuals / batch size steps)."""
    indiv_adaptive: tuple[int, ...] = (128, 256)
    """How many people an adaptive schedule shows at first."""
    growth: tuple[Literal["at_once", "gradual"], ...] = ("at_once", "gradual")
    """How an adaptive schedule goes on."""
    exponents: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """Exponents of the power laws."""
    n_fewer: int = 664
    """The control: so many people only, uniformly, throughout (the paper: 83k of 128k)."""

    once: ClassVar[tuple[str, ...]] = (
        "indiv_warmup", "epochs_warmup", "indiv_adaptive", "growth", "exponents",
    )  # fmt: skip

    @model_validator(mode="after")
    def _fewer_people(self) -> "WarmUpSettings":
        if not 1 <= self.n_fewer < self.n_individuals:
            raise ConfigError(
                f"n_fewer={self.n_fewer}: training on fewer people only needs 1 to "
                f"{self.n_individuals - 1} of n_individuals={self.n_individuals}."
            )
        return self

    def compared(self) -> list[tuple[int, dict[str, Any]]]:
        """Uniform sampling, power laws, warm-ups and adaptive schedules; and the control."""
        power_laws = [{"kind": "power_law", "exponent": exponent} for exponent in self.exponents]
        warm_ups = [
            {"kind": "warm_up", "indiv_warmup": people, "epochs_warmup": epochs}
            for people in self.indiv_warmup
            for epochs in self.epochs_warmup
        ]
        adaptive = [
            {"kind": "adaptive", "indiv_warmup": people, "growth": growth}
            for people in self.indiv_adaptive
            for growth in self.growth
        ]
        everybody = [UNIFORM, *power_laws, *warm_ups, *adaptive]
        return [*((self.n_individuals, one) for one in everybody), (self.n_fewer, UNIFORM)]


def describe_schedule(config: Config, everybody: int) -> tuple[str, str]:
    """The name of a run's schedule, and its family.

    Args:
        config: Settings of the run.
        everybody: How many people there are when none is left out.

    Example:
        >>> describe_schedule(Config(), 512)
        ('uniform', 'uniform')
    """
    sampling, people = config.sampling, config.population.n_individuals
    match sampling.kind:
        case "power_law":
            return f"power law: α = {sampling.exponent:g}", "power law"
        case "warm_up":
            return (
                f"warm-up: {sampling.indiv_warmup}, {sampling.epochs_warmup:g} epochs",
                "warm-up",
            )
        case "adaptive":
            growth = "at once" if sampling.growth == "at_once" else "gradual"
            return f"adaptive: {sampling.indiv_warmup}, {growth}", "adaptive"
        case _ if people < everybody:
            return f"{people} people only", "fewer people"
        case _:
            return "uniform", "uniform"


def tables(settings: WarmUpSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs came to.

    Returns:
        "learned": a row a run, with `schedule` (its name), `family` ("uniform", "power law", "warm-up",
        "adaptive", "fewer people"), the columns of `distribution.learned`, `n_everybody` and
        `accuracy_of_everybody`: the accuracy (a share) with people left out counted as not known.
        "curves": those of `distribution.learning_curves`; of the control, whose people are others, as
        measured on its own.
        "stages": of warm-ups and adaptive runs, `people` (how many are shown) from `step` on; the first
        row of a run is step 0.
    """
    everybody = settings.n_individuals

    def apart(run: Run) -> dict[str, Any]:
        named = describe_schedule(run.config, everybody)
        return dict(zip(_APART, (*named, run.config.seed), strict=True))

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        row, own = learned(run), apart(run)
        known = (row["attribute_accuracy"] * row["n_individuals"] / everybody).round(5)
        row = row.assign(n_everybody=everybody, accuracy_of_everybody=known)
        found = {"learned": row, "curves": learning_curves(run)}
        if own["family"] in ("warm-up", "adaptive"):
            found["stages"] = _stages(run)
        return own, found

    return collect(sorted(runs, key=lambda run: tuple(apart(run).values())), of_run, _COLUMNS)


def _stages(run: Run) -> pd.DataFrame:
    """How many people are shown from which step on."""
    schedule = sampler(run.config, run.stages)
    found = [(0, run.config.population.n_individuals)]
    if isinstance(schedule, Stages):
        counts = [of.n for of in schedule.samplers if isinstance(of, Uniform)]
        found = list(zip(schedule.steps, counts, strict=True))
    return pd.DataFrame(found, columns=["step", "people"])


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor; those that nothing was measured for are left out."""
    table = tables["learned"]
    if table.empty:
        return {}
    best = [name for family in _FAMILIES if (name := best_of(table, family)) is not None]
    drawn = {
        "warm-up-accuracy": final_values(table, "accuracy_of_everybody"),
        "warm-up-loss": final_values(table[table["family"] != "fewer people"], "attribute_loss"),
        "warm-up-curves": schedule_curves(tables["curves"], tables["stages"], best),
    }
    if len(tables["stages"]):
        last = int(table["n_steps"].max())
        drawn["shown-people"] = shown_people(tables["stages"], last)
    return drawn


STUDY = Study("warm_up", __doc__, WarmUpSettings, planned, tables, figures, claims)
