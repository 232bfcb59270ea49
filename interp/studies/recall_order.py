"""What forms first, recall attention or the memory.

Does a model know where to look before it knows what is there, and does the answer depend on how one looks?

Command: interp batch recall_order --out artifacts/studies --workers 2
Duration: 10 runs of `tiny`, 1 to 2 minutes each on one thread, then 20 minutes of measuring

Every measure is dated by the step from which it stays at half of its final strength, and held against
compiled models of which a part is there to a dose: does the measure say how much of its own part there is,
whatever the other one is? Where it does, its date can be corrected to the step at which it says what it says
of half a dose. Where it does not, its date is of something else.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.config import Config, Variant
from interp.plots import recall_order as plots
from interp.presets import preset
from interp.run import Run
from interp.studies.collect import collect, complete
from interp.studies.recall_order_claims import held_against
from interp.studies.recall_order_doses import corrections, dose_table, reached
from interp.studies.recall_order_measured import PARTS, Read, strengths
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

COLUMNS = {
    "dates": ("size", "seed", "measure", "part", "step", "corrected", "start", "final"),
    "strengths": ("size", "seed", "measure", "step", "value", "control", "strength"),
    "phases": ("size", "seed", "statistics_end", "plateau_end", "accuracy"),
    "doses": ("variant", "seed", "dosed", "dose", "measure", "strength"),
    "corrections": ("measure", "part", "half_dose", "at_half", "without", "usable"),
}
_AT = "middle name"
"""Where people with ordinary names are known (see the study `name_tokens`)."""


class RecallOrderSettings(StudySettings):
    """Settings of the study of the order in which recall forms."""

    seeds: tuple[int, ...] = tuple(range(10))
    """One run for each seed."""
    checkpoints: tuple[int, ...] = (
        0, 50, 100, 150, 200, 225, 250, 275, 300, 325, 350, 400, 450, 500, 550, 600, 700, 800, 900, 1000,
        1200, 1400, 1600, 1800, 2000, 2250, 2500, 3000, 3500, 4000,
    )  # fmt: skip
    """Checkpoints beside the last one; dense where plateaus of `tiny` and `small` are."""
    n_people: int = Field(default=128, ge=2)
    """Known people, and as many held out, on whom attention, keys, values and knowledge are read."""
    n_pairs: int = Field(default=96, ge=12)
    """Pairs of people that are swapped."""
    compiled: str = "smoke"
    """The preset whose people are compiled."""
    variants: tuple[Variant, ...] = ("local", "distributed")
    """Where facts are in compiled models."""
    compiled_seeds: tuple[int, ...] = (0, 1, 2)
    """Their populations."""
    doses: tuple[float, ...] = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)
    """How much of a part is there, from 0 to 1."""
    dosed_pairs: int = Field(default=12, ge=12)
    """Pairs of people that are swapped in compiled models."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {"training.early_checkpoints", "training.checkpoint_every"}
    )

    @field_validator("variants", "doses")
    @classmethod
    def _once(cls, values: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        return each_once(info.field_name, values)

    def of(self, seed: int) -> Config:
        """The run of a seed."""
        n_steps = self.config(seed).training.n_steps
        settings = {
            "training.early_checkpoints": tuple(s for s in self.checkpoints if s < n_steps),
            "training.checkpoint_every": n_steps,
            "evaluation.splits": ("evaluation",),
        }
        return self.config(seed, **settings)


def planned(settings: RecallOrderSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [Planned(settings.of(seed)) for seed in settings.seeds]


def tables(settings: RecallOrderSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What compiled models and the finished runs measured.

    Returns:
        "dates": by `size`, `seed` and `measure`, of which `part` it is; the `step` from which it stays at
        half of its final strength, and `corrected`, the one from which it stays at what it says at half a
        dose (missing where it is not usable); NaN: absent in the end, or at half already when it is first
        known, after the first step. `start` and `final`: strengths at the first and last step.
        "strengths": the curves: value, control, and their difference.
        "phases": where phases end (steps), and the attribute `accuracy` at the last step.
        "doses": of compiled models, the strength of each measure at each dose of what is `dosed`.
        "corrections": see `recall_order_doses.corrections`.
    """
    doses = pd.concat(_doses(settings), ignore_index=True)
    known = corrections(doses)

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        read = Read.of(run.corpus, settings.n_people, settings.n_pairs)
        found = strengths(run, run.model(), read, _AT)
        ends = {"statistics_end": run.phases.statistics_end, "plateau_end": run.phases.plateau_end}
        accuracy = float(run.curve("attribute_accuracy").iloc[-1])
        apart = {"size": settings.preset, "seed": run.config.seed}
        return apart, {
            "dates": dates(found, known),
            "strengths": found,
            "phases": pd.DataFrame([ends | {"accuracy": accuracy}]).astype(float),
        }

    own = {name: columns for name, columns in COLUMNS.items() if "size" in columns}
    made = collect(runs, of_run, own)
    made |= {"doses": doses, "corrections": known}
    return {name: table.round(4) for name, table in made.items()}


def _doses(settings: RecallOrderSettings) -> Iterator[pd.DataFrame]:
    for variant in settings.variants:
        for seed in settings.compiled_seeds:
            config = preset(settings.compiled, seed=seed)
            found = dose_table(config, variant, settings.doses, settings.dosed_pairs)
            yield found.assign(variant=variant, seed=seed)[list(COLUMNS["doses"])]


def dates(strengths: pd.DataFrame, corrections: pd.DataFrame) -> pd.DataFrame:
    """When each measure is at half of its final strength, and at what it says at half a dose."""
    known = corrections[corrections["usable"].astype(bool)].set_index("measure")["at_half"]
    rows = []
    every = sorted(set(strengths["step"]))
    for measure, curve in strengths.groupby("measure", sort=False):
        # A strength that is not known at a step, as a share of next to nothing, has no row there.
        by_step = curve.set_index("step")["strength"].reindex(every)
        steps, values = every, list(by_step)
        step, corrected = reached(steps, values), np.nan
        if measure in known:
            corrected = reached(steps, values, float(known[measure]))
        rows.append((measure, PARTS[str(measure)], step, corrected, values[0], values[-1]))
    columns = ["measure", "part", "step", "corrected", "start", "final"]
    return pd.DataFrame(rows, columns=columns)


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    there = complete(tables, COLUMNS)
    found = {}
    if there["dates"]["step"].notna().any():
        found["recall-order-dates"] = plots.dates(there["dates"])
    if len(there["doses"]):
        found["recall-order-doses"] = plots.doses(there["doses"])
    return found


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of the order, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("recall_order", __doc__, RecallOrderSettings, planned, tables, figures, claims)
