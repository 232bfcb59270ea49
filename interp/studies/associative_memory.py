"""Toy associative memory.

Does fine-tuning on new facts destroy old ones with no attention at all, in a single hidden layer between
keys and values (paper, Appendix Q and R)?

Command: interp batch associative_memory --out artifacts/studies --workers 2
Duration: 50 runs of the toy model; about 40 seconds each on one core

A hidden ReLU layer learns pairs of keys and values, and is fine-tuned on new pairs, without replay and
with several replay weights. Source: paper, Appendix Q and R; the claims about forgetting are those of
its section on fine-tuning (Fig. 5), which the toy is there to reproduce.

Our summary of the paper does not say how many pairs are new. So the study takes a few (an eighth of
the old ones) and as many as there are old ones, and a claim has to hold for both.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, model_validator

from interp.associative_memory import AssociativeMemoryConfig, AssociativeMemoryRun
from interp.config import Settings
from interp.errors import ConfigError
from interp.plots.associative_memory import (
    forgetting_curves,
    replay_tradeoff,
    weight_movement,
    weight_name,
)
from interp.studies.rules import Claim, verdict
from interp.studies.study import Planned, Study, Tables, each_once

KNOWN = 0.9
"""Accuracy on old pairs that there has to be before fine-tuning: else there is nothing to forget."""
SOON = 500
"""What "within a few hundred steps" means, in steps of fine-tuning."""
HELP = 0.1
"""By how much replay has to raise the final accuracy on old pairs to be a help."""
BOTH = 0.9
"""Share of the old pairs kept, and of the new ones learned, that is as good as all."""
MIN_SEEDS = 3
"""Seeds below which nothing is decided."""
_COLUMNS = {
    "pretraining": ("seed", "step", "split", "metric", "value"),
    "finetuning": ("seed", "n_new", "replay_weight", "step", "split", "metric", "value"),
    "movement": ("seed", "n_new", "replay_weight", "part", "metric", "value"),
}
"""Of each table."""


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

    Args:
        settings: Of the study.
        runs: The finished runs.

    Returns:
        "pretraining": columns `seed`, `step`, `split`, `metric` ("accuracy", a share), `value`. All runs
        of a seed share their pre-training but for the new pairs, which nothing has been learned of yet;
        taken are those with the fewest.
        "finetuning": in addition `n_new` and `replay_weight` (NaN: no replay).
        "movement": columns `seed`, `n_new`, `replay_weight`, `part` ("key": input weights, "value":
        output weights), `metric` ("mean movement", "largest movement" over hidden units), `value`: a
        share of the norm before fine-tuning.
    """
    parts = {name: [pd.DataFrame(columns=columns)] for name, columns in _COLUMNS.items()}
    fewest = min((run.config.finetuning.n_new for run in runs), default=0)
    seen: set[int] = set()
    for run in runs:
        seed, finetuning = run.config.seed, run.config.finetuning
        weight = nan if finetuning.replay_weight is None else finetuning.replay_weight
        own = {"seed": seed, "n_new": finetuning.n_new, "replay_weight": weight}
        accuracy = run.metrics.query("metric == 'accuracy'")
        if finetuning.n_new == fewest and seed not in seen:
            seen.add(seed)
            before = accuracy[accuracy["phase"] == "pretraining"]
            parts["pretraining"].append(before.assign(seed=seed))
        after = accuracy[accuracy["phase"] == "finetuning"]
        parts["finetuning"].append(after.assign(**own))
        for part, of_units in run.movement().groupby("part")["value"]:
            moved = {"mean movement": of_units.mean(), "largest movement": of_units.max()}
            rows = [{**own, "part": part, "metric": m, "value": v} for m, v in moved.items()]
            parts["movement"].append(pd.DataFrame(rows))
    return {name: _joined(found, _COLUMNS[name]) for name, found in parts.items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    finetuning = tables["finetuning"]
    sizes = sorted(int(n) for n in finetuning["n_new"].unique())
    curves = {f"forgetting-{n_new}": forgetting_curves(finetuning, n_new) for n_new in sizes}
    return {
        **curves,
        "replay-tradeoff": replay_tradeoff(finetuning),
        "weight-movement": weight_movement(tables["movement"]),
    }


@dataclass(frozen=True)
class _Setting:
    """The runs of one number of new pairs and one seed.

    Attributes:
        old: Accuracy on old pairs over fine-tuning without replay, by step.
        new: Accuracy on new pairs.
        ends: Final accuracies on old and on new pairs, by replay weight (0: no replay).
    """

    n_new: int
    old: pd.Series
    new: pd.Series
    ends: dict[float, tuple[float, float]]

    @property
    def half_lost(self) -> int | None:
        """The first measured step with less than half of the accuracy before; None if there is none."""
        lost = self.old.index[self.old < self.old.iloc[0] / 2]
        return int(lost[0]) if len(lost) else None

    def known(self) -> bool:
        """Whether there is something to forget."""
        return bool(self.old.iloc[0] >= KNOWN)

    def forgets(self) -> bool | None:
        """Whether half of the old pairs are lost."""
        return self.half_lost is not None

    def forgets_soon(self) -> bool | None:
        """Whether half of the old pairs are lost within `SOON` steps; None if it ended before."""
        if self.half_lost is None and self.old.index[-1] < SOON:
            return None
        return self.half_lost is not None and self.half_lost <= SOON

    def loses_first(self) -> bool | None:
        """Whether half of the old pairs are lost before half of the new ones are known."""
        step = self.half_lost
        return None if step is None else bool(self.new[step] < 0.5)

    @property
    def replayed(self) -> dict[float, tuple[float, float]]:
        """`ends` with replay."""
        return {weight: ends for weight, ends in self.ends.items() if weight > 0}

    def replay_helps(self) -> bool | None:
        """Whether the heaviest replay keeps noticeably more; None without replay."""
        if not self.replayed:
            return None
        heaviest = self.replayed[max(self.replayed)]
        return bool(heaviest[0] - self.old.iloc[-1] >= HELP)

    def replay_is_partial(self) -> bool | None:
        """Whether no replay weight keeps the old pairs and learns the new; None without replay."""
        if not self.replayed:
            return None
        start = self.old.iloc[0]
        return not any(old >= BOTH * start and new >= BOTH for old, new in self.replayed.values())


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about forgetting, held against the tables by stated rules.

    Args:
        tables: Those of `tables`, as made or read back from CSV; "finetuning" is used.
    """
    runs = _settings(tables["finetuning"])

    def claim(
        statement: str, paper: str, rule: str, holds: Callable[[_Setting], bool | None],
        measured: Callable[[list[_Setting]], str],
    ) -> Claim:  # fmt: skip
        sizes = sorted({run.n_new for run in runs})
        said = [
            f"{size:,} new pairs: {measured([run for run in runs if run.n_new == size])}"
            for size in sizes
        ]
        outcomes = [holds(run) if run.known() else None for run in runs]
        enough = all(sum(run.n_new == size for run in runs) >= MIN_SEEDS for size in sizes)
        decided = verdict(outcomes) if enough and None not in outcomes else "cannot tell"
        common = (
            " Agree: so for every number of new pairs and every seed; disagree: for none; else, or with "
            f"fewer than {MIN_SEEDS} seeds, or where accuracy on old pairs began below {KNOWN:g}: cannot "
            "tell."
        )
        found = "; ".join(said) or "nothing was measured"
        return Claim(statement, paper, found, decided, rule + common)

    return [
        claim(
            "Fine-tuning on new pairs alone destroys old ones, with no attention at all",
            "the same forgetting as in language models (Appendix Q and R)",
            "Without replay accuracy on old pairs falls below half of what it was.",
            _Setting.forgets,
            lambda own: (
                f"accuracy on old pairs {_mean(r.old.iloc[0] for r in own):.2f} before, "
                f"{_mean(r.old.iloc[-1] for r in own):.2f} after {own[0].old.index[-1]:,} steps"
            ),
        ),
        claim(
            "Old pairs are lost within a few hundred steps",
            "old knowledge of language models collapses within a few hundred steps (Fig. 5)",
            f"Without replay accuracy on old pairs is below half of what it was by step {SOON}.",
            _Setting.forgets_soon,
            _measured_soon,
        ),
        claim(
            "Old pairs are lost before new ones are learned",
            "language models have learned little that is new by then (Fig. 5)",
            "Without replay, at the first measured step where accuracy on old pairs is below half of what "
            "it was, accuracy on new ones is below 0.5; where it never falls so far, it cannot be told.",
            _Setting.loses_first,
            _measured_order,
        ),
        claim(
            "Replay reduces the forgetting",
            "replay with weights from 1/32 to 2 helps (Fig. 5)",
            f"With the heaviest replay the final accuracy on old pairs is at least {HELP:g} above that "
            "without.",
            _Setting.replay_helps,
            lambda own: _measured_ends(own, "old"),
        ),
        claim(
            "Replay helps only in part",
            "no replay weight avoids the forgetting without a cost (Fig. 5)",
            f"No replay weight ends with {BOTH:.0%} of the old accuracy kept and {BOTH:g} accuracy on new "
            "pairs.",
            _Setting.replay_is_partial,
            lambda own: _measured_ends(own, "old and new"),
        ),
    ]


def _settings(finetuning: pd.DataFrame) -> list[_Setting]:
    """The runs of each number of new pairs and seed that was fine-tuned without replay."""
    table = finetuning[finetuning["metric"] == "accuracy"]
    weights = pd.to_numeric(table["replay_weight"]).astype(float).fillna(0.0)
    curves: dict[tuple[int, int], dict[float, pd.DataFrame]] = {}
    for key, rows in table.assign(replay_weight=weights).groupby(
        ["n_new", "seed", "replay_weight"]
    ):
        n_new, seed, weight = cast("tuple[int, int, float]", key)
        of_run = curves.setdefault((int(n_new), int(seed)), {})
        of_run[weight] = rows.pivot_table("value", "step", "split").sort_index()
    return [
        _Setting(
            n_new,
            of_run[0.0]["old"],
            of_run[0.0]["new"],
            {w: (float(c["old"].iloc[-1]), float(c["new"].iloc[-1])) for w, c in of_run.items()},
        )
        for (n_new, _), of_run in curves.items()
        if 0.0 in of_run
    ]


def _measured_soon(own: list[_Setting]) -> str:
    steps = [run.half_lost for run in own]
    reached = sorted(step for step in steps if step is not None)
    at = [run.old[run.old.index <= SOON].iloc[-1] for run in own]
    when = f"half of it is lost in {len(reached)} of {len(own)} seeds"
    if reached:
        when += f", first measured at step {reached[0]:,}"
        when += f" to {reached[-1]:,}" if reached[-1] > reached[0] else ""
    return f"accuracy on old pairs at step {SOON} {_mean(at):.2f}; {when}"


def _measured_order(own: list[_Setting]) -> str:
    learned = [run.new[run.half_lost] for run in own if run.half_lost is not None]
    if not learned:
        return "half of the old pairs is never lost"
    return f"accuracy on new pairs when half of the old ones is lost {_mean(learned):.2f}"


def _measured_ends(own: list[_Setting], which: str) -> str:
    """Final accuracies by replay weight."""
    said = []
    for weight in sorted(set.intersection(*(set(run.ends) for run in own))):
        old, new = (_mean(run.ends[weight][i] for run in own) for i in (0, 1))
        numbers = f"{old:.2f}" if which == "old" else f"{old:.2f} and {new:.2f}"
        said.append(f"{numbers} ({weight_name(weight or nan)})")
    return f"final accuracy on {which} pairs by replay weight {', '.join(said)}"


def _mean(values: Iterable[float]) -> float:
    return fmean(float(value) for value in values)


def _joined(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One table of several; the first of them is empty and says the columns."""
    filled = [part[list(columns)] for part in parts if len(part)] or [parts[0]]
    return pd.concat(filled, ignore_index=True).round({"value": 5})


STUDY = Study(
    name="associative_memory",
    doc=__doc__,
    settings=AssociativeMemorySettings,
    runs=planned,
    tables=tables,
    figures=figures,
    claims=claims,
)
