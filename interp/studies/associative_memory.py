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

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, model_validator

from interp.associative_memory import AssociativeMemoryConfig, AssociativeMemoryRun
from interp.config import Settings
from interp.errors import ConfigError
from interp.plots import associative_memory as plots
from interp.studies import forgetting
from interp.studies.collect import collect
from interp.studies.forgetting import Forgetting, Question, first, last
from interp.studies.rules import Claim, Rule, Statement, Verdict, verdict
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


@dataclass(frozen=True)
class _Setting(Forgetting):
    """The runs of one number of new pairs and one seed.

    Attributes:
        n_new: The number of new pairs.
    """

    n_new: int = 0


def _by_size(words: Callable[[Sequence[_Setting]], str]) -> Callable[[Sequence[_Setting]], str]:
    """What was measured, for each number of new pairs."""

    def measured(settings: Sequence[_Setting]) -> str:
        sizes = sorted({one.n_new for one in settings})
        alike = {n: [one for one in settings if one.n_new == n] for n in sizes}
        return "; ".join(f"{n:,} new pairs: {words(those)}" for n, those in alike.items())

    return measured


def _measured_loss(own: Sequence[_Setting]) -> str:
    return (
        f"accuracy on old pairs {_mean(first(one.old) for one in own):.2f} before, "
        f"{_mean(last(one.old) for one in own):.2f} after {own[0].old.index[-1]:,} steps"
    )


def _measured_soon(own: Sequence[_Setting]) -> str:
    soon = forgetting.forgets_soon.numbers["soon"]
    reached = sorted(one.half_lost for one in own if one.half_lost is not None)
    at = _mean(last(one.old[one.old.index <= soon]) for one in own)
    when = f"half of it is lost in {len(reached)} of {len(own)} seeds"
    if reached:
        when += f", first measured at step {reached[0]:,}"
        when += f" to {reached[-1]:,}" if reached[-1] > reached[0] else ""
    return f"accuracy on old pairs at step {soon} {at:.2f}; {when}"


def _measured_order(own: Sequence[_Setting]) -> str:
    learned = [one.new[one.half_lost] for one in own if one.half_lost is not None]
    if not learned:
        return "half of the old pairs is never lost"
    return f"accuracy on new pairs when half of the old ones is lost {_mean(learned):.2f}"


def _measured_ends(own: Sequence[_Setting], which: str) -> str:
    """Final accuracies by replay weight."""
    ends = [{0.0: (last(one.old), last(one.new)), **one.replayed} for one in own]
    words = []
    for weight in sorted(set.intersection(*map(set, ends))):
        old, new = (_mean(of_run[weight][i] for of_run in ends) for i in (0, 1))
        numbers = f"{old:.2f}" if which == "old" else f"{old:.2f} and {new:.2f}"
        words.append(f"{numbers} ({plots.weight_name(weight or nan)})")
    return f"final accuracy on {which} pairs by replay weight {', '.join(words)}"


def _mean(values: Iterable[float]) -> float:
    return fmean(float(value) for value in values)


def _rule(asked: Question, otherwise: str = "") -> Rule[_Setting]:
    """A rule that has to say the same for every number of new pairs and every seed."""

    def decide(
        settings: Sequence[_Setting], min_seeds: int, known: float, **numbers: float | int
    ) -> Verdict:
        n_seeds = Counter(one.n_new for one in settings)
        outcomes = [
            asked.holds(one, **numbers) if first(one.old) >= known else None for one in settings
        ]
        if None in outcomes or any(n < min_seeds for n in n_seeds.values()):
            return "cannot tell"
        return verdict(outcomes)

    ending = (
        " Agree: so for every number of new pairs and every seed; disagree: for none; else, or with "
        "fewer than {min_seeds} seeds, or where accuracy on old pairs began below {known:g}: cannot tell."
    )
    numbers = {**asked.numbers, "known": forgetting.KNOWN, "min_seeds": 3}
    return Rule(asked.about("pairs") + otherwise + ending, decide, numbers)


STATEMENTS = (
    Statement[_Setting](
        "Fine-tuning on new pairs alone destroys old ones, with no attention at all",
        "the same forgetting as in language models (Appendix Q and R)",
        _rule(forgetting.forgets),
        _by_size(_measured_loss),
    ),
    Statement[_Setting](
        "Old pairs are lost within a few hundred steps",
        "old knowledge of language models collapses within a few hundred steps (Fig. 5)",
        _rule(forgetting.forgets_soon),
        _by_size(_measured_soon),
    ),
    Statement[_Setting](
        "Old pairs are lost before new ones are learned",
        "language models have learned little that is new by then (Fig. 5)",
        _rule(forgetting.loses_first, "; where it never falls so far, it cannot be told."),
        _by_size(_measured_order),
    ),
    Statement[_Setting](
        "Replay reduces the forgetting",
        "replay with weights from 1/32 to 2 helps (Fig. 5)",
        _rule(forgetting.replay_helps, "."),
        _by_size(lambda own: _measured_ends(own, "old")),
    ),
    Statement[_Setting](
        "Replay helps only in part",
        "no replay weight avoids the forgetting without a cost (Fig. 5)",
        _rule(forgetting.replay_is_partial),
        _by_size(lambda own: _measured_ends(own, "old and new")),
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about forgetting, held against "finetuning", as made or read back from CSV."""
    table = tables["finetuning"]
    groups = table[table["metric"] == "accuracy"].groupby(["n_new", "seed"])
    settings = [
        _Setting.of(rows, "old", "new", n_new=int(rows["n_new"].iloc[0])) for _, rows in groups
    ]
    without_replay = [one for one in settings if len(one.old)]
    return [statement.against(without_replay) for statement in STATEMENTS]


STUDY = Study(
    "associative_memory", __doc__, AssociativeMemorySettings, planned, tables, figures, claims
)
