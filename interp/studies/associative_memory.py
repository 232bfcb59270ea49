"""Toy associative memory.

Does fine-tuning on new facts destroy old ones with no attention at all, in a single hidden layer between
keys and values (paper, Appendix Q and R)?

Command: interp batch associative_memory --out artifacts/studies --workers 2
Duration: 50 runs of the toy model (about 40 seconds each on one core)

A hidden ReLU layer learns pairs of keys and values, and is fine-tuned on new pairs, without replay and
with several replay weights. Source: paper, Appendix Q and R; the claims about forgetting are those of
its section on fine-tuning (Fig. 5), which the toy is there to reproduce.

Our summary of the paper does not say how many pairs are new. So the study takes a few (an eighth of
the old ones) and as many as there are old ones, and a claim has to hold for both.
"""

from collections.abc import Sequence
from math import nan
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, model_validator

from interp.associative_memory import AssociativeMemoryConfig, AssociativeMemoryRun
from interp.config import Settings
from interp.errors import ConfigError
from interp.plots import associative_memory as plots
from interp.studies.associative_memory_claims import claims
from interp.studies.collect import collect
from interp.studies.study import Planned, Study, Tables, each_once

_COLUMNS = {
    "pretraining": ("seed", "step", "split", "metric", "value"),
    "finetuning": ("seed", "n_new", "replay_weight", "step", "split", "metric", "value"),
    "movement": ("seed", "n_new", "replay_weight", "part", "metric", "value"),
}


class AssociativeMemorySettings(Settings):
    """Which runs are trained: one for each number of new pairs, replay weight and seed."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of pairs, initial weights and samples."""
    replay_weights: tuple[float | None, ...] = (None, 1 / 32, 1 / 8, 1 / 2, 2.0)
    """How likely each old pair is in fine-tuning, against 1 for a new one; None: no replay."""
    n_new: tuple[int, ...] = (1024, 8192)
    """Numbers of new pairs."""
    run: dict[str, Any] = Field(default_factory=dict)
    """Settings of all runs by dotted name, e.g. {"model.biases": False}."""

    @model_validator(mode="after")
    def _can_be_compared(self) -> "AssociativeMemorySettings":
        for name in ("seeds", "replay_weights", "n_new"):
            each_once(name, getattr(self, name))
        if None not in self.replay_weights:
            raise ConfigError(
                f"replay_weights={list(self.replay_weights)}: fine-tuning without replay (None) is what "
                "all others are compared with; add it."
            )
        varied = sorted({"seed", "finetuning.n_new", "finetuning.replay_weight"} & set(self.run))
        if varied:
            raise ConfigError(
                f"run: {', '.join(varied)} is what the study varies; use seeds, n_new and replay_weights."
            )
        return self


def planned(settings: AssociativeMemorySettings) -> list[Planned]:
    """The runs that settings ask for."""
    every = AssociativeMemoryConfig()
    return [
        Planned(
            every.with_settings(
                **settings.run,
                **{"seed": seed, "finetuning.n_new": n_new, "finetuning.replay_weight": weight},
            )
        )
        for n_new in settings.n_new
        for weight in settings.replay_weights
        for seed in settings.seeds
    ]


def tables(
    settings: AssociativeMemorySettings, runs: Sequence[AssociativeMemoryRun]
) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        "pretraining": columns `seed`, `step`, `split`, `metric` ("accuracy", a share), `value`. All runs
        of a seed share their pre-training but for the new pairs, which nothing has been learned of yet;
        taken are those with the fewest.
        "finetuning": in addition `n_new` and `replay_weight` (NaN: no replay).
        "movement": columns `seed`, `n_new`, `replay_weight`, `part` ("key": input weights, "value":
        output weights), `metric` ("mean movement", "largest movement" over hidden units), `value`: a
        share of the norm before fine-tuning.
    """
    fewest = min((run.config.finetuning.n_new for run in runs), default=0)
    seen: set[int] = set()

    def of_run(run: AssociativeMemoryRun) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        seed, n_new = run.config.seed, run.config.finetuning.n_new
        weight = run.config.finetuning.replay_weight
        accuracy = run.metrics.query("metric == 'accuracy'")
        by_phase = {
            phase: accuracy[accuracy["phase"] == phase] for phase in ("pretraining", "finetuning")
        }
        if n_new != fewest or seed in seen:
            del by_phase["pretraining"]
        seen.add(seed)
        rows = [
            {"part": part, "metric": f"{name} movement", "value": value}
            for part, of_units in run.movement().groupby("part")["value"]
            for name, value in (("mean", of_units.mean()), ("largest", of_units.max()))
        ]
        apart = {"seed": seed, "n_new": n_new, "replay_weight": nan if weight is None else weight}
        return apart, by_phase | {"movement": pd.DataFrame(rows)}

    found = collect(runs, of_run, _COLUMNS)
    return {name: table.round({"value": 5}) for name, table in found.items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    finetuning = tables["finetuning"]
    sizes = sorted(int(n) for n in finetuning["n_new"].unique())
    curves = {f"forgetting-{n_new}": plots.forgetting_curves(finetuning, n_new) for n_new in sizes}
    return {
        **curves,
        "replay-tradeoff": plots.replay_tradeoff(finetuning),
        "weight-movement": plots.weight_movement(tables["movement"]),
    }


STUDY = Study(
    "associative_memory", __doc__, AssociativeMemorySettings, planned, tables, figures, claims
)
