"""Training on differences.

Does a model learn facts from fewer examples, or with less arithmetic, if it is trained only on what it
gets wrong; and are corrections best kept in an adapter?

Command: interp batch differences --out artifacts/studies --workers 2
Duration: 75 runs (39 of 1,500 steps, 36 of 600; 67 minutes on two busy cores)

Trained on are, of k candidates for each biography, those with the largest loss, the smallest loss, or
random ones; or all, with the loss only on values that are predicted wrong; or with a contrast between
what is predicted and what is so. Everybody is equally likely; or some people are rare; or half of the
people have another employer in a quarter of their biographies. Then a model that was trained plainly goes
on with new people: on everything or only on what it gets wrong, with all of its weights or in an adapter,
with old people replayed or without. Every forward pass is counted.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import nan
from typing import Any, ClassVar, Literal

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.config import Config
from interp.plots import differences as plots
from interp.plots import differences_tuned as tuned_plots
from interp.run import Run, finetuned
from interp.studies.collect import collect, complete
from interp.studies.differences_claims import held_against
from interp.studies.differences_measured import COUNTS, costs, curves, groups, tuned
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Condition = Literal[
    "plain", "random of 4", "largest loss of 2", "largest loss of 4", "largest loss of 8",
    "smallest loss of 4", "wrong values", "contrast", "wrong values, contrast",
]  # fmt: skip
Data = Literal["uniform", "uneven", "contradictory"]
Told = Literal["everything", "wrong values"]
CONDITIONS: dict[Any, dict[str, Any]] = {
    "plain": {},
    "random of 4": {"kind": "random", "k": 4},
    **{f"largest loss of {k}": {"kind": "largest_loss", "k": k} for k in (2, 4, 8)},
    "smallest loss of 4": {"kind": "smallest_loss", "k": 4},
    "wrong values": {"kind": "wrong_values"},
    "contrast": {"contrast": 1.0},
    "wrong values, contrast": {"kind": "wrong_values", "contrast": 1.0},
}
"""Settings of selection (`config.selection`) by what they are called."""
_APART = ("seed", "data", "condition")
_TUNED = ("seed", "weights", "told", "replay_weight")
COLUMNS = {
    "curves": (*_APART, *COUNTS, "accuracy"),
    "costs": (*_APART, "share", *COUNTS),
    "groups": (*_APART, "group", "accuracy", "loss", "p_a", "p_b"),
    "tuned": (*_TUNED, *COUNTS, "old", "new"),
}


class DifferencesSettings(StudySettings):
    """Settings of the study of training on differences."""

    conditions: tuple[Condition, ...] = tuple(CONDITIONS)
    """What of each step is trained on, where everybody is equally likely."""
    elsewhere: tuple[Condition, ...] = ("plain", "largest loss of 4")
    """The same on the other data."""
    data: tuple[Data, ...] = ("uniform", "uneven", "contradictory")
    """"uneven": a power law, under which some people are rare. "contradictory": some people have two
    values of an attribute."""
    n_steps: int = Field(default=1500, ge=1)
    """Steps of all runs that begin untrained."""
    every: int = Field(default=20, ge=1)
    """Steps between measurements; half as many while fine-tuning."""
    exponent: float = Field(default=0.6, gt=0)
    """Exponent of the power law of uneven data."""
    attribute: str = "company"
    """The attribute that is contradicted."""
    share_of_people: float = Field(default=0.5, gt=0, le=1)
    """The share of the people who have a second value of it."""
    share_of_biographies: float = Field(default=0.75, ge=0, le=1)
    """In which share of their biographies they have their own."""
    ranks: tuple[int | None, ...] = (None, 4, 16)
    """Ranks of adapters that learn new people; None: all weights do."""
    told: tuple[Told, ...] = ("everything", "wrong values")
    """What of the new people is trained on."""
    replay_weights: tuple[float | None, ...] = (None, 0.25)
    """How likely each old person is, against 1 for a new one; None: no replay."""
    tuning_steps: int = Field(default=600, ge=1)
    """Steps of fine-tuning."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """The constant learning rate of fine-tuning all weights."""
    adapter_learning_rate: float = Field(default=3e-3, gt=0)
    """The constant learning rate of fine-tuning an adapter."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {"data", "sampling", "selection", "finetuning", "adapter", "training.n_steps"}
    )

    @field_validator("conditions", "elsewhere", "data", "ranks", "told", "replay_weights")
    @classmethod
    def _once(cls, values: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        return each_once(info.field_name, values)

    def trained(self, seed: int, data: Data, condition: Condition) -> Config:
        """The run of one condition."""
        told = {
            "attribute": self.attribute, "share_of_people": self.share_of_people,
            "share_of_biographies": self.share_of_biographies,
        }  # fmt: skip
        of_data: dict[Data, dict[str, Any]] = {
            "uniform": {},
            "uneven": {"sampling": {"kind": "power_law", "exponent": self.exponent}},
            "contradictory": {"data.contradictions": told},
        }
        steps = {
            "training.n_steps": self.n_steps,
            "training.early_checkpoints": (0,),
            "training.checkpoint_every": self.n_steps,
            "evaluation.every": self.every,
            "evaluation.splits": ("evaluation",),
        }
        return self.config(seed, **steps, **of_data[data], selection=CONDITIONS[condition])

    def tuned(self, seed: int, rank: int | None, told: Told, replay: float | None) -> Planned:
        """A run that goes on from the plain one with new people."""
        base = self.trained(seed, "uniform", "plain")
        settings: dict[str, Any] = {
            "finetuning.people": "new",
            "finetuning.replay_weight": replay,
            "optimizer.learning_rate": self.learning_rate,
            "training.n_steps": self.tuning_steps,
            "training.checkpoint_every": self.tuning_steps,
            "evaluation.every": max(1, self.every // 2),
            "evaluation.splits": ("evaluation", "finetuned"),
            "selection": CONDITIONS["wrong values" if told == "wrong values" else "plain"],
        }
        if rank is not None:
            settings["adapter.rank"] = rank
            settings["optimizer.learning_rate"] = self.adapter_learning_rate
            settings["data.stages"] = ({"start": 0, "weights": "adapter"},)
        return Planned(finetuned(base, **settings), Planned(base))


def planned(settings: DifferencesSettings) -> list[Planned]:
    """The runs that settings ask for."""
    runs = []
    for seed in settings.seeds:
        for data in settings.data:
            conditions = settings.conditions if data == "uniform" else settings.elsewhere
            runs += [Planned(settings.trained(seed, data, condition)) for condition in conditions]
        ways = product(settings.ranks, settings.told, settings.replay_weights)
        runs += [settings.tuned(seed, *way) for way in ways]
    return runs


def described(run: Run) -> dict[str, Any]:
    """What tells a run of this study apart."""
    config = run.config
    chosen = config.selection.model_dump(exclude_none=True)
    condition = next(name for name, given in CONDITIONS.items() if given == chosen)
    if run.base is not None:
        rank, weight = config.adapter.rank, config.finetuning.replay_weight
        return {
            "seed": config.seed,
            "weights": "all weights" if rank is None else f"rank {rank}",
            "told": "everything" if condition == "plain" else condition,
            "replay_weight": nan if weight is None else weight,
        }
    contradictory = config.data.contradictions.on
    uneven = "uneven" if config.sampling.kind == "power_law" else "uniform"
    data = "contradictory" if contradictory else uneven
    return {"seed": config.seed, "data": data, "condition": condition}


def tables(settings: DifferencesSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        Three tables that begin with `seed`, `data` ("uniform", "uneven", "contradictory") and `condition`,
        and one of fine-tuned runs, with `seed`, `weights` ("all weights", "rank 4", ...), `told` and
        `replay_weight` (NaN: none). Accuracy is the share of values right, in wordings never seen with
        a person; costs are `step`, `examples`, `values` and `arithmetic` (see `training_costs`).

        "curves": over training, the cost until then, and `accuracy`.
        "costs": those of the first measurement at which a `share` was known; empty where that never was.
        "groups": at the end, by `group` (`differences_measured.groups`): `accuracy`, `loss` (nats a
        value), and of contradicted values the mean probability of either, `p_a` and `p_b`.
        "tuned": over fine-tuning, the cost until then, and accuracy on `old` and on `new` people.
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        if run.base is not None:
            return described(run), {"tuned": tuned(run)}
        return described(run), {"curves": curves(run), "costs": costs(run), "groups": groups(run)}

    return {name: table.round(4) for name, table in collect(runs, of_run, COLUMNS).items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    drawn: dict[str, tuple[str, Callable[[pd.DataFrame], go.Figure]]] = {
        "differences-curves": ("curves", plots.learning_curves),
        "differences-costs": ("costs", plots.costs),
        "differences-data": ("curves", plots.other_data),
        "differences-groups": ("groups", plots.groups),
        "differences-tuned": ("tuned", tuned_plots.tuned_curves),
        "differences-kept": ("tuned", tuned_plots.kept),
    }
    there = complete(tables, COLUMNS)
    return {anchor: draw(there[n]) for anchor, (n, draw) in drawn.items() if len(there[n])}


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of training on differences, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("differences", __doc__, DifferencesSettings, planned, tables, figures, claims)
