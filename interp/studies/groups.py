"""Groups one after the other: the runs of the study of changing distributions, and its tables."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies.sampling import group
from interp.config import Config
from interp.errors import ConfigError
from interp.knowledge import METRICS, chosen_evenly, mean_metric, value_table
from interp.run import Run
from interp.series import over_steps
from interp.studies.collect import collect
from interp.studies.study import Planned, StudySettings, each_once
from interp.turns import begins, turns

_COLUMNS = {
    "knowledge": (
        "n_groups", "n_repeats", "seed", "step", "active", "group", "metric", "value",
    ),
    "turns": (
        "n_groups", "n_repeats", "seed", "turn", "repeat", "group", "begin", "end", "before", "after",
        "mean_accuracy", "learn_half", "lose_half", "followed",
    ),
}  # fmt: skip


class SequentialSettings(StudySettings):
    """Which schedules are compared, and how closely they are looked at."""

    n_individuals: int = Field(default=512, ge=2)
    """People."""
    schedules: tuple[tuple[int, int], ...] = ((4, 2), (8, 2), (4, 4))
    """How many groups, and how many times all of them come: n_groups, n_repeats."""
    n_steps: int = 1600
    """Steps of each run; so that turns end at checkpoints, a multiple of the number of turns times
    checkpoint_every."""
    varies: ClassVar[frozenset[str]] = frozenset({"sampling", "population.n_individuals"})
    checkpoint_every: int = Field(default=25, ge=1)
    """Steps between checkpoints, at which every group is measured."""
    n_measured: int = Field(default=32, ge=1)
    """People measured of each group, evenly spaced."""

    @field_validator("schedules")
    @classmethod
    def _once(cls, schedules: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return each_once("schedules", schedules)

    @model_validator(mode="after")
    def _speeds_can_be_read(self) -> "SequentialSettings":
        for n_groups, n_repeats in self.schedules:
            if n_groups < 2 or n_repeats < 1:
                raise ConfigError(
                    f"schedules: {n_groups} groups, {n_repeats} times; for groups to follow each other "
                    "there have to be 2 at least, once at least."
                )
            if 2 * self.checkpoint_every * n_groups * n_repeats > self.n_steps:
                raise ConfigError(
                    f"schedules: {n_groups} groups, {n_repeats} times, in n_steps={self.n_steps} have "
                    f"less than two checkpoints a turn (checkpoint_every={self.checkpoint_every}), from "
                    "which no speed can be read; use more steps, fewer turns or closer checkpoints."
                )
        return self


def planned(settings: SequentialSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [
        Planned(
            settings.config(
                seed,
                **{
                    "population.n_individuals": settings.n_individuals,
                    "sampling": {
                        "kind": "sequential",
                        "n_groups": n_groups,
                        "n_repeats": n_repeats,
                    },
                    "optimizer.schedule": "constant",
                    "training.n_steps": settings.n_steps,
                    "training.early_checkpoints": (),
                    "training.checkpoint_every": settings.checkpoint_every,
                    "evaluation.splits": ("evaluation",),
                },
            )
        )
        for seed in settings.seeds
        for n_groups, n_repeats in settings.schedules
    ]


def tables(settings: SequentialSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What each group was known at each checkpoint, and how fast it was learned and lost.

    Args:
        settings: Of the study.
        runs: The finished runs.

    Returns:
        "knowledge": columns `n_groups`, `n_repeats`, `seed`, `step`, `active` (the group trained on in
        the step before), `group` (both counted from 1), `metric` (`attribute_loss` in nats,
        `attribute_accuracy` as a share, in wordings never seen with a person), `value`.
        "turns": a row for each turn of a run, in the columns of `interp.turns.turns`.
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        n_groups, n_repeats = _schedule(run.config)
        known = group_knowledge(run, settings.n_measured)
        accuracy = known[known["metric"] == "attribute_accuracy"]
        curves = accuracy.pivot_table("value", "step", "group")
        found = {
            "knowledge": known,
            "turns": turns(curves, n_repeats, run.config.training.n_steps),
        }
        return {"n_groups": n_groups, "n_repeats": n_repeats, "seed": run.config.seed}, found

    in_order = sorted(runs, key=lambda run: (*_schedule(run.config), run.config.seed))
    return collect(in_order, of_run, _COLUMNS)


def group_knowledge(run: Run, n_measured: int) -> pd.DataFrame:
    """What a run knows of each group, at each of its checkpoints.

    Args:
        run: A run with sequential sampling.
        n_measured: People measured of each group, evenly spaced.

    Returns:
        Columns `step`, `active`, `group`, `metric`, `value` as in `tables`.
    """
    config, (n_groups, n_repeats) = run.config, _schedule(run.config)
    everybody = np.arange(config.population.n_individuals)
    members = [
        chosen_evenly(everybody[group(len(everybody), n_groups, index)], n_measured, alike=False)
        for index in range(n_groups)
    ]
    batch = run.corpus.biographies(np.concatenate(members))
    ends = np.cumsum([len(of_group) for of_group in members])[:-1]

    def measure(model: TransformerBridge) -> Float[np.ndarray, "metric group"]:
        by_group = np.split(value_table(model, batch), ends, axis=1)
        return np.array([[mean_metric(part, metric) for part in by_group] for metric in METRICS])

    edges = begins(n_groups * n_repeats, config.training.n_steps)
    wanted = [METRICS.index(metric) for metric in ("attribute_loss", "attribute_accuracy")]
    rows = [
        {
            "step": step,
            "active": int(np.searchsorted(edges, max(step - 1, 0), side="right") - 1) % n_groups
            + 1,
            "group": index + 1,
            "metric": METRICS[metric],
            "value": round(float(table[metric, index]), 5),
        }
        for step, table in over_steps(
            run, measure, workers=1
        )  # one thread: the same bytes anywhere
        for metric in wanted
        for index in range(n_groups)
    ]
    return pd.DataFrame(rows)


def _schedule(config: Config) -> tuple[int, int]:
    """Numbers of groups and of repeats of a run."""
    n_groups, n_repeats = config.sampling.n_groups, config.sampling.n_repeats
    assert n_groups is not None  # its settings see to that
    assert n_repeats is not None
    return n_groups, n_repeats
