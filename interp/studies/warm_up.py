"""Warm-up and adaptive schedules.

Does showing few people first, and everybody later, give more knowledge in the same number of steps, and
can a schedule find by itself when to switch? (paper, Fig. 4 right, I, K, L)

Command: interp batch warm_up --out artifacts/studies --workers 2
Duration: 51 runs of 1,000 steps (about a minute each on one core), some of which `power_law` trains too

Fixed warm-ups (the first so many people for so many epochs, then everybody) and the adaptive schedule,
which decides by itself when to show more people, against uniform sampling, against power laws, and
against training on 65% of the people only. Source: paper, Fig. 4 right, Figs. I, K, L; the adaptive
schedule is only proposed there (section 6), so that nothing of the paper's can be held against it.

The paper has 128k people, warm-ups of 2k to 32k of them for 1 to 8 of 16 epochs. Here a run of the
defaults has 31 epochs of 1,024 people, and warm-ups last for 4 to 12.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from interp.seeds import spread
from interp.studies import paired
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
from interp.studies.rules import Claim, Rule, Statement, Verdict, verdict
from interp.studies.study import Study, Tables

MARGIN = {"margin": 0.02}
"""Differences of final accuracy that count: larger than the standard error of a share of the 1,536
values (256 people) that are measured, 0.013 at most."""
LEARNED = {"learned": 0.1}
"""Where neither of two schedules ends with more accuracy than this, neither is as good as the other."""
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


def best_of(table: pd.DataFrame, family: str) -> str | None:
    """The schedule of a family with the highest final accuracy, as a mean over seeds.

    Only schedules with as many seeds as any of the family take part. None where nothing was measured.

    Args:
        table: "learned", as `tables` returns it.
        family: See `tables`.
    """
    name = paired.best(_accuracies(table[table["family"] == family]))
    return None if name is None else str(name)


def _accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Final accuracy over everybody: a row a seed, a column a schedule."""
    return table.pivot(index="seed", columns="schedule", values="accuracy_of_everybody").astype(
        float
    )


@dataclass(frozen=True)
class _Measured:
    """The tables that the claims are held against."""

    learned: pd.DataFrame
    stages: pd.DataFrame

    def family(self, family: str) -> pd.DataFrame:
        return self.learned[self.learned["family"] == family]

    def accuracy(self, family: str) -> pd.Series:
        """By seed, of the best schedule of a family; or of "the worst adaptive" in each seed."""
        if family == "the worst adaptive":
            return _accuracies(self.family("adaptive")).min(axis=1)
        values, best = _accuracies(self.family(family)), best_of(self.learned, family)
        return pd.Series(dtype=float) if best is None else values[best].dropna()

    @property
    def durations(self) -> int:
        """How many durations of fixed warm-ups were tried."""
        return int(self.family("warm-up")["epochs_warmup"].nunique())

    def named(self, family: str) -> str:
        best = best_of(self.learned, family)
        if best is None or family in ("uniform", "fewer people"):
            return best or family
        return f"best {family} ({best.split(': ')[1]})"

    def said(self, values: dict[str, pd.Series]) -> str:
        accuracies = "; ".join(f"{name} {spread(own, '.3f')}" for name, own in values.items())
        table, scale = self.learned, "nothing was measured"
        if len(table):
            people, steps = int(table["n_everybody"].max()), int(table["n_steps"].max())
            scale = f"{people:,} people, {steps:,} steps, {table['seed'].nunique()} seeds"
        return f"final accuracy: {accuracies} ({scale})"


def _say(*families: str) -> Callable[[_Measured], str]:
    return lambda of: of.said({of.named(family): of.accuracy(family) for family in families})


def _say_fewer(of: _Measured) -> str:
    said, control = _say("warm-up", "fewer people")(of), of.family("fewer people")
    if control.empty:
        return said
    alone = spread(control["attribute_accuracy"], ".3f")
    return f"{said}; of the {int(control['n_individuals'].iloc[0])} people alone {alone}"


def _say_adaptive(of: _Measured) -> str:
    tried = [of.family(family)["schedule"].nunique() for family in ("adaptive", "warm-up")]
    said = (
        f"{_say('adaptive', 'warm-up')(of)}; the best of {tried[0]} adaptive schedules and of {tried[1]} "
        f"warm-ups of {of.durations} durations"
    )
    schedule = best_of(of.learned, "adaptive")
    if schedule is None:
        return said
    own = of.stages[(of.stages["schedule"] == schedule) & (of.stages["step"] > 0)]
    if own.empty:
        return f"{said}; the adaptive schedule never grew"
    last = own.groupby("seed")["step"].max().astype(int)
    steps = " to ".join(f"{step:,}" for step in sorted({last.min(), last.max()}))
    return f"{said}; the adaptive schedule grew for the last time at step {steps}"


def _say_every_adaptive(of: _Measured) -> str:
    adaptive = _accuracies(of.family("adaptive"))
    each = {str(name): adaptive[name].dropna() for name in adaptive}
    return of.said({**each, "uniform": of.accuracy("uniform")})


def _compared(
    template: str, ours: str, theirs: str, holds: Callable[..., bool | None], **numbers: float | int
) -> Rule[_Measured]:
    """A rule about the accuracies of two families in each seed that both have."""

    def decide(of: _Measured, min_seeds: int, durations: int = 0, **given: float | int) -> Verdict:
        pairs = pd.concat([of.accuracy(ours), of.accuracy(theirs)], axis=1).dropna()
        known = pairs.to_numpy().tolist() if of.durations >= durations else []
        return verdict((holds(our, their, **given) for our, their in known), min_seeds)

    return Rule(template, decide, {**numbers, "min_seeds": 2})


_HINDSIGHT = "The best of several is the one with the highest mean over seeds: with hindsight. "
_FEWER = ". With fewer than {min_seeds} such seeds: cannot tell."
_NEITHER = "A seed where neither exceeds {learned:g} cannot tell"
_CALLED = {
    "uniform": "uniform sampling",
    "power law": "the best power law",
    "warm-up": "the best warm-up",
    "adaptive": "the best adaptive schedule",
    "fewer people": "training on fewer people",
}


def _better(ours: str, theirs: str) -> Rule[_Measured]:
    return _compared(
        f"{_HINDSIGHT}Agree: in all seeds that can tell {_CALLED[ours]} ends higher than {_CALLED[theirs]}; "
        f"disagree: in all, lower. A seed with a difference of at most {{margin:g}} cannot tell{_FEWER}",
        ours,
        theirs,
        lambda our, their, margin: None if abs(our - their) <= margin else our > their,
        **MARGIN,
    )


def _as_good(ours: str, theirs: str, also: str = "", **numbers: float | int) -> Rule[_Measured]:
    return _compared(
        f"{_HINDSIGHT}Agree: in every seed {_CALLED[ours]} ends at most {{margin:g}} below "
        f"{_CALLED[theirs]}; disagree: in every seed it ends further below. {_NEITHER}{_FEWER}{also}",
        ours,
        theirs,
        lambda our, their, margin, learned: (
            None if max(our, their) <= learned else our - their >= -margin
        ),
        **MARGIN,
        **LEARNED,
        **numbers,
    )


STATEMENTS = (
    Statement(
        "A warm-up on few people gives a better final accuracy than uniform sampling at the same "
        "number of steps",
        "warm-ups on 2k to 32k of 128k people for 1 to 8 of 16 epochs, the best of which ends at "
        "94.92% (Fig. 4 right, I); no number for uniform sampling at hand",
        _better("warm-up", "uniform"),
        _say("warm-up", "uniform"),
    ),
    Statement(
        "A warm-up does at least as well as the best power law",
        "not stated: our reading of its proposal of curricula (Fig. 4 right)",
        _as_good("warm-up", "power law"),
        _say("warm-up", "power law"),
    ),
    Statement(
        "A warm-up beats training on fewer people only, counted over everybody",
        "94.92% of 128k people with a warm-up; 97.72% of 83k people when trained on these only, "
        "which is 63.26% of the 128k",
        _better("warm-up", "fewer people"),
        _say_fewer,
    ),
    Statement(
        "An adaptive schedule, with no setting for when to switch, does as well as the best fixed "
        "warm-up",
        "proposes adaptive schedules and measures none (section 6): this claim is ours",
        _as_good(
            "adaptive",
            "warm-up",
            " So it is with fewer than {durations} durations of warm-ups, as the claim is about these.",
            durations=3,
        ),
        _say_adaptive,
    ),
    Statement(
        "Every adaptive schedule tried gives a better final accuracy than uniform sampling",
        "proposes adaptive schedules and measures none (section 6): this claim is ours",
        _compared(
            "Nothing is chosen with hindsight. Agree: in every seed the worst of the adaptive schedules "
            "ends more than {margin:g} higher than uniform sampling; disagree: in every seed it ends "
            f"lower, or at most {{margin:g}} higher. {_NEITHER}{_FEWER}",
            "the worst adaptive",
            "uniform",
            lambda our, their, margin, learned: (
                None if max(our, their) <= learned else our - their > margin
            ),
            **MARGIN,
            **LEARNED,
        ),
        _say_every_adaptive,
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about warm-ups, and ours about the adaptive schedule, held against the tables.

    Args:
        tables: Those of `tables`, as made or read back from CSV; "learned" and "stages" are used.
    """
    measured = _Measured(tables["learned"], tables["stages"])
    return [statement.against(measured) for statement in STATEMENTS]


STUDY = Study("warm_up", __doc__, WarmUpSettings, planned, tables, figures, claims)
