"""Warm-up and adaptive schedules.

Does showing few people first, and everybody later, give more knowledge in the same number of steps, and
can a schedule find by itself when to switch? (paper, Fig. 4 right, I, K, L)

Command: interp batch warm_up --out artifacts/studies --workers 2
Duration: 36 runs of 1,000 steps; about a minute each on one core

Fixed warm-ups (the first so many people for so many epochs, then everybody) and the adaptive schedule,
which decides by itself when to show more people, against uniform sampling, against power laws, and
against training on 65% of the people only. Source: paper, Fig. 4 right, Figs. I, K, L; the adaptive
schedule is only proposed there (section 6), so that nothing of the paper's can be held against it.

The paper has 128k people, warm-ups of 2k to 32k of them for 1 to 8 of 16 epochs. Here a run of the
defaults has 31 epochs of 1,024 people, and warm-ups last for 4 to 12.
"""

from collections.abc import Sequence
from typing import Any, Literal

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
from interp.studies.distribution import (
    UNIFORM,
    DistributionSettings,
    learned,
    learning_curves,
)
from interp.studies.rules import Claim, verdict
from interp.studies.study import Planned, Study, Tables, each_once

MARGIN = 0.02
"""Differences of final accuracy that count: larger than the standard error of a share of the 1,536
values (256 people) that are measured, 0.013 at most."""
LEARNED = 0.1
"""Where neither of two schedules ends with more accuracy than this, neither is as good as the other."""
_COLUMNS = {
    "learned": (
        "schedule", "family", "seed", "n_individuals", "n_everybody", "n_steps", "kind", "exponent",
        "indiv_warmup", "epochs_warmup", "growth", "statistics_end", "plateau_end", "attribute_loss",
        "attribute_accuracy", "accuracy_of_everybody",
    ),
    "curves": ("schedule", "family", "seed", "step", "metric", "value"),
    "stages": ("schedule", "family", "seed", "step", "people"),
}  # fmt: skip
"""Of each table."""


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

    @model_validator(mode="after")
    def _can_be_compared(self) -> "WarmUpSettings":
        for name in ("indiv_warmup", "epochs_warmup", "indiv_adaptive", "growth", "exponents"):
            each_once(name, getattr(self, name))
        if not 1 <= self.n_fewer < self.n_individuals:
            raise ConfigError(
                f"n_fewer={self.n_fewer}: training on fewer people only needs 1 to "
                f"{self.n_individuals - 1} of n_individuals={self.n_individuals}."
            )
        return self

    def samplings(self) -> list[dict[str, Any]]:
        """The sampling distributions over everybody."""
        return [
            UNIFORM,
            *({"kind": "power_law", "exponent": exponent} for exponent in self.exponents),
            *(
                {"kind": "warm_up", "indiv_warmup": people, "epochs_warmup": epochs}
                for people in self.indiv_warmup
                for epochs in self.epochs_warmup
            ),
            *(
                {"kind": "adaptive", "indiv_warmup": people, "growth": growth}
                for people in self.indiv_adaptive
                for growth in self.growth
            ),
        ]


def planned(settings: WarmUpSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [
        Planned(settings.distribution(seed, n, sampling))
        for seed in settings.seeds
        for n, sampling in [
            *((settings.n_individuals, sampling) for sampling in settings.samplings()),
            (settings.n_fewer, UNIFORM),
        ]
    ]


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

    Args:
        settings: Of the study.
        runs: The finished runs.

    Returns:
        "learned": a row a run, with `schedule` (its name), `family` ("uniform", "power law", "warm-up",
        "adaptive", "fewer people"), the columns of `distribution.learned`, `n_everybody` and
        `accuracy_of_everybody`: the accuracy (a share) with people left out counted as not known.
        "curves": columns `schedule`, `family`, `seed`, `step`, `metric`, `value`; of the control, whose
        people are others, as measured on its own.
        "stages": of warm-ups and adaptive runs, `people` (how many are shown) from `step` on, with
        `schedule`, `family` and `seed`; the first row of a run is step 0.
    """
    parts = {name: [pd.DataFrame(columns=columns)] for name, columns in _COLUMNS.items()}
    everybody = settings.n_individuals
    in_order = sorted(
        runs, key=lambda run: (describe_schedule(run.config, everybody), run.config.seed)
    )
    for run in in_order:
        schedule, family = describe_schedule(run.config, everybody)
        of_run: dict[str, Any] = {"schedule": schedule, "family": family, "seed": run.config.seed}
        row = learned([run]).assign(**of_run, n_everybody=everybody)
        counted = row["attribute_accuracy"] * row["n_individuals"] / everybody
        parts["learned"].append(row.assign(accuracy_of_everybody=counted.round(5)))
        parts["curves"].append(learning_curves([run], every=2).assign(**of_run))
        if family in ("warm-up", "adaptive"):
            parts["stages"].append(_stages(run).assign(**of_run))
    return {name: _joined(found, _COLUMNS[name]) for name, found in parts.items()}


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


_FAMILIES = ("uniform", "power law", "warm-up", "adaptive")


def best_of(table: pd.DataFrame, family: str) -> str | None:
    """The schedule of a family with the highest final accuracy, as a mean over seeds.

    Only schedules with as many seeds as any of the family take part. None where nothing was measured.

    Args:
        table: "learned", as `tables` returns it.
        family: See `tables`.
    """
    of_family = table[table["family"] == family]
    accuracy = of_family.groupby("schedule")["accuracy_of_everybody"].agg(["count", "mean"])
    complete = accuracy[accuracy["count"] == accuracy["count"].max()]
    return None if complete.empty else str(complete["mean"].idxmax())


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about warm-ups, and ours about the adaptive schedule, held against the tables.

    Args:
        tables: Those of `tables`, as made or read back from CSV; "learned" and "stages" are used.
    """
    table = tables["learned"]
    best = {family: best_of(table, family) for family in (*_FAMILIES, "fewer people")}
    accuracy = {family: _by_seed(table, name) for family, name in best.items()}
    warm_up = accuracy["warm-up"]

    def said(*families: str) -> str:
        names = [
            f"{_named(family, best[family])} {_numbers(accuracy[family])}" for family in families
        ]
        return f"final accuracy: {'; '.join(names)} ({_scale(table)})"

    def rule(first: str, second: str, at_least: bool) -> str:
        hindsight = (
            "The best of several is the one with the highest mean over seeds: with hindsight. "
        )
        if at_least:
            decided = (
                f"Agree: in every seed {first} ends at most {MARGIN:g} below {second}; disagree: in every "
                f"seed it ends further below. A seed where neither exceeds {LEARNED:g} cannot tell"
            )
        else:
            decided = (
                f"Agree: in all seeds that can tell {first} ends higher than {second}; disagree: in all, "
                f"lower. A seed with a difference of at most {MARGIN:g} cannot tell"
            )
        return f"{hindsight}{decided}. With fewer than 2 such seeds: cannot tell."

    return [
        Claim(
            "A warm-up on few people gives a better final accuracy than uniform sampling at the same "
            "number of steps",
            "warm-ups on 2k to 32k of 128k people for 1 to 8 of 16 epochs, the best of which ends at "
            "94.92% (Fig. 4 right, I); no number for uniform sampling at hand",
            said("warm-up", "uniform"),
            verdict(_better(warm_up, accuracy["uniform"])),
            rule("the best warm-up", "uniform sampling", at_least=False),
        ),
        Claim(
            "A warm-up does at least as well as the best power law",
            "not stated: our reading of its proposal of curricula (Fig. 4 right)",
            said("warm-up", "power law"),
            verdict(_as_good(warm_up, accuracy["power law"])),
            rule("the best warm-up", "the best power law", at_least=True),
        ),
        Claim(
            "A warm-up beats training on fewer people only, counted over everybody",
            "94.92% of 128k people with a warm-up; 97.72% of 83k people when trained on these only, "
            "which is 63.26% of the 128k",
            said("warm-up", "fewer people") + _of_its_own(table),
            verdict(_better(warm_up, accuracy["fewer people"])),
            rule("the best warm-up", "training on fewer people", at_least=False),
        ),
        Claim(
            "An adaptive schedule, with no setting for when to switch, does as well as the best fixed "
            "warm-up",
            "proposes adaptive schedules and measures none (section 6): this claim is ours",
            said("adaptive", "warm-up")
            + f"; {_tried(table)}"
            + _when(tables["stages"], best["adaptive"]),
            verdict(_as_good(accuracy["adaptive"], warm_up) if _durations(table) >= 3 else []),
            rule("the best adaptive schedule", "the best warm-up", at_least=True)
            + " So it is with fewer than 3 durations of warm-ups, as the claim is about these.",
        ),
        Claim(
            "Every adaptive schedule tried gives a better final accuracy than uniform sampling",
            "proposes adaptive schedules and measures none (section 6): this claim is ours",
            _every_adaptive(table, accuracy["uniform"]),
            verdict(_all_better(table, accuracy["uniform"])),
            "Nothing is chosen with hindsight. Agree: in every seed the worst of the adaptive schedules "
            f"ends more than {MARGIN:g} higher than uniform sampling; disagree: in every seed it ends "
            f"lower, or at most {MARGIN:g} higher. A seed where neither exceeds {LEARNED:g} cannot tell. "
            "With fewer than 2 such seeds: cannot tell.",
        ),
    ]


def _durations(table: pd.DataFrame) -> int:
    """How many durations of fixed warm-ups were tried."""
    return int(table.loc[table["family"] == "warm-up", "epochs_warmup"].nunique())


def _tried(table: pd.DataFrame) -> str:
    counts = table.groupby("family")["schedule"].nunique()
    return (
        f"the best of {counts.get('adaptive', 0)} adaptive schedules and of {counts.get('warm-up', 0)} "
        f"warm-ups of {_durations(table)} durations"
    )


def _by_seed(table: pd.DataFrame, schedule: str | None) -> pd.Series:
    """Final accuracy over everybody of a schedule, by seed."""
    own = table[table["schedule"] == schedule]
    return own.set_index("seed")["accuracy_of_everybody"].astype(float).sort_index()


def _better(ours: pd.Series, theirs: pd.Series) -> list[bool | None]:
    """For each seed that both have, whether ours is higher; None where they are too close."""
    gains = (ours - theirs).dropna()
    return [None if abs(gain) <= MARGIN else bool(gain > 0) for gain in gains]


def _as_good(ours: pd.Series, theirs: pd.Series) -> list[bool | None]:
    """For each seed that both have, whether ours is not noticeably lower; None if neither learned."""
    pairs = pd.concat([ours, theirs], axis=1, keys=["ours", "theirs"]).dropna()
    return [
        None if max(our, their) <= LEARNED else bool(our - their >= -MARGIN)
        for our, their in zip(pairs["ours"], pairs["theirs"], strict=True)
    ]


def _worst_adaptive(table: pd.DataFrame) -> pd.Series:
    """The lowest final accuracy of adaptive schedules, by seed."""
    adaptive = table[table["family"] == "adaptive"]
    return adaptive.groupby("seed")["accuracy_of_everybody"].min().astype(float)


def _all_better(table: pd.DataFrame, uniform: pd.Series) -> list[bool | None]:
    """For each seed, whether every adaptive schedule is higher; None if neither learned."""
    pairs = pd.concat([_worst_adaptive(table), uniform], axis=1, keys=["worst", "uniform"]).dropna()
    return [
        None if max(worst, other) <= LEARNED else bool(worst - other > MARGIN)
        for worst, other in zip(pairs["worst"], pairs["uniform"], strict=True)
    ]


def _every_adaptive(table: pd.DataFrame, uniform: pd.Series) -> str:
    adaptive = table[table["family"] == "adaptive"]
    names = [
        f"{name} {_numbers(_by_seed(table, str(name)))}"
        for name in sorted(adaptive["schedule"].unique())
    ]
    said = "; ".join([*names, f"uniform {_numbers(uniform)}"])
    return f"final accuracy: {said} ({_scale(table)})"


def _named(family: str, schedule: str | None) -> str:
    if schedule is None:
        return family
    if family in ("uniform", "fewer people"):
        return schedule
    return f"best {family} ({schedule.split(': ')[1]})"


def _of_its_own(table: pd.DataFrame) -> str:
    """What the control knows of the people it was trained on."""
    control = table[table["family"] == "fewer people"]
    if control.empty:
        return ""
    return f"; of the {int(control['n_individuals'].iloc[0])} people alone " + _numbers(
        control["attribute_accuracy"]
    )


def _when(stages: pd.DataFrame, schedule: str | None) -> str:
    """When the best adaptive schedule came to show everybody."""
    own = stages[(stages["schedule"] == schedule) & (stages["step"] > 0)]
    if schedule is None:
        return ""
    if own.empty:
        return "; the adaptive schedule never grew"
    last = own.groupby("seed")["step"].max().astype(int)
    return f"; the adaptive schedule grew for the last time at step {_range(last)}"


def _range(steps: pd.Series) -> str:
    low, high = int(steps.min()), int(steps.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _numbers(values: pd.Series) -> str:
    return spread(values, ".3f")


def _scale(table: pd.DataFrame) -> str:
    if table.empty:
        return "nothing was measured"
    people, steps = int(table["n_everybody"].max()), int(table["n_steps"].max())
    return f"{people:,} people, {steps:,} steps, {table['seed'].nunique()} seeds"


def _joined(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One table of several; the first of them is empty and says the columns."""
    filled = [part[list(columns)] for part in parts if len(part)] or [parts[0]]
    return pd.concat(filled, ignore_index=True)


STUDY = Study(
    name="warm_up",
    doc=__doc__,
    settings=WarmUpSettings,
    runs=planned,
    tables=tables,
    figures=figures,
    claims=claims,
)
