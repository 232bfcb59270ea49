"""Changing distributions.

When groups of people come one after the other, are new groups learned ever faster, and is forgetting
faster than learning? (paper, Figs. S to X)

Command: interp batch sequential --out artifacts/studies --workers 2
Duration: 3 runs of 1,600 steps, DUR

Are new groups learned ever faster, and is forgetting faster than learning? Source: paper, Figs. S to X
(4 to 32 groups, 2 to 8 repeats). The learning rate is constant: were it to fall, late groups would be
learned more slowly for that reason alone.

At checkpoints the knowledge of each group is measured. What is said of speeds is read from these
curves, linearly between checkpoints:

- the *mean accuracy in a turn* on its group: the higher, the sooner the group is learned. It says
  something also where a group is known from the start, or not by the end.
- *steps to learn half*: from the beginning of a turn until the accuracy first reaches half of what it is
  at the turn's end.
- *steps to lose half*: from the turn's end until it first falls to that same level, before the group's
  next turn.
"""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from statistics import median
from typing import ClassVar, cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies.sampling import group
from interp.config import Config
from interp.errors import ConfigError
from interp.knowledge import METRICS, chosen_evenly, value_table
from interp.plots.sequential import group_curves, learning_and_forgetting, new_groups
from interp.run import Run
from interp.seeds import spread
from interp.series import over_steps
from interp.studies.rules import Claim, verdict
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

LEARNED = 0.25
"""Accuracy at the end of a turn from which on there is something to measure the speed of."""
MORE = 0.05
"""A difference of mean accuracies that counts."""
TREND = 0.5
"""Rank correlation of order and speed from which on speed is said to grow."""
FASTER = 0.8
"""So many times the steps, or fewer, are faster."""
_COLUMNS = {
    "knowledge": (
        "n_groups", "n_repeats", "seed", "step", "active", "group", "metric", "value",
    ),
    "turns": (
        "n_groups", "n_repeats", "seed", "turn", "repeat", "group", "begin", "end", "before", "after",
        "mean_accuracy", "learn_half", "lose_half", "followed",
    ),
}  # fmt: skip
"""Of each table."""


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
        "turns": a row for each turn of a run: `turn`, `repeat`, `group` (from 1), `begin` and `end`
        (steps), accuracy `before` and `after` it and `mean_accuracy` in it (shares), `learn_half` and
        `lose_half` (steps, see the module; NA where half is known before, or not lost by the time the
        group comes again or the run ends), and `followed`: how many steps that time is.
    """
    parts = {name: [pd.DataFrame(columns=columns)] for name, columns in _COLUMNS.items()}
    for run in sorted(runs, key=lambda run: (*_schedule(run.config), run.config.seed)):
        n_groups, n_repeats = _schedule(run.config)
        own = {"n_groups": n_groups, "n_repeats": n_repeats, "seed": run.config.seed}
        known = group_knowledge(run, settings.n_measured)
        parts["knowledge"].append(known.assign(**own))
        accuracy = known[known["metric"] == "attribute_accuracy"]
        curves = accuracy.pivot_table("value", "step", "group")
        parts["turns"].append(turns(curves, n_repeats, run.config.training.n_steps).assign(**own))
    return {name: _joined(found, _COLUMNS[name]) for name, found in parts.items()}


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
        return np.stack([part.mean(axis=(1, 2), dtype=np.float64) for part in by_group], axis=1)

    begins = _begins(n_groups * n_repeats, config.training.n_steps)
    wanted = [METRICS.index(metric) for metric in ("attribute_loss", "attribute_accuracy")]
    rows = [
        {
            "step": step,
            "active": int(np.searchsorted(begins, max(step - 1, 0), side="right") - 1) % n_groups
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


def turns(curves: pd.DataFrame, n_repeats: int, n_steps: int) -> pd.DataFrame:
    """How fast each group was learned in each of its turns, and lost after it.

    Args:
        curves: Accuracy (a share) by step (index) and group (columns, from 1).
        n_repeats: How many times all groups came.
        n_steps: Steps of the schedule.

    Returns:
        The columns of "turns" in `tables` that are not settings of the run.
    """
    n_groups = len(curves.columns)
    begins = [*_begins(n_groups * n_repeats, n_steps), n_steps]
    rows = []
    for turn in range(n_groups * n_repeats):
        curve = curves[turn % n_groups + 1]
        begin, end = begins[turn], begins[turn + 1]
        again = begins[min(turn + n_groups, n_groups * n_repeats)]
        during, afterwards = _between(curve, begin, end), _between(curve, end, again)
        half = during.iloc[-1] / 2
        learned = half > during.iloc[0]
        rows.append(
            {
                "turn": turn + 1,
                "repeat": turn // n_groups + 1,
                "group": turn % n_groups + 1,
                "begin": begin,
                "end": end,
                "before": during.iloc[0],
                "after": during.iloc[-1],
                "mean_accuracy": np.trapezoid(during, during.index) / (end - begin),
                "learn_half": _first_at(during - half) if learned else None,
                "lose_half": _first_at(half - afterwards) if half > 0 else None,
                "followed": again - end,
            }
        )
    table = pd.DataFrame(rows).astype({"learn_half": float, "lose_half": float})
    shares = dict.fromkeys(("before", "after", "mean_accuracy"), 5)
    return table.round({**shares, "learn_half": 1, "lose_half": 1})


def _between(curve: pd.Series, begin: int, end: int) -> pd.Series:
    """A curve from one step to another, both included, linear between what was measured."""
    steps = np.asarray(curve.index, dtype=float)
    inside = steps[(steps > begin) & (steps < end)]
    chosen = np.unique([begin, *inside, end])
    return pd.Series(np.interp(chosen, steps, curve.to_numpy(dtype=float)), index=chosen)


def _first_at(above: pd.Series) -> float | None:
    """Steps from the first of a curve that begins below 0 until it is at 0; None where it never is."""
    steps, values = above.index.to_numpy(), above.to_numpy()
    reached = np.flatnonzero(values >= 0)
    if not len(reached):
        return None
    place = int(reached[0])
    if place == 0:
        return 0.0
    share = values[place - 1] / (values[place - 1] - values[place])
    return float(steps[place - 1] + share * (steps[place] - steps[place - 1]) - steps[0])


def _schedule(config: Config) -> tuple[int, int]:
    """Numbers of groups and of repeats of a run."""
    n_groups, n_repeats = config.sampling.n_groups, config.sampling.n_repeats
    assert n_groups is not None  # its settings see to that
    assert n_repeats is not None
    return n_groups, n_repeats


def _begins(n_turns: int, n_steps: int) -> list[int]:
    """Where each turn begins, as `interp.biographies.sampling.sequential` has it."""
    return [n_steps * turn // n_turns for turn in range(n_turns)]


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor; empty where nothing was measured."""
    known, of_turns = tables["knowledge"], tables["turns"]
    if known.empty or of_turns.empty:
        return {}
    cells = (
        known[["n_groups", "n_repeats"]].drop_duplicates().sort_values(["n_repeats", "n_groups"])
    )
    curves = {
        f"groups-{n_groups}x{n_repeats}": group_curves(
            known, of_turns, int(n_groups), int(n_repeats)
        )
        for n_groups, n_repeats in cells.itertuples(index=False)
    }
    return {
        "new-groups": new_groups(of_turns),
        "learning-and-forgetting": learning_and_forgetting(of_turns, LEARNED),
        **curves,
    }


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about changing distributions, held against "turns" by stated rules.

    Args:
        tables: Those of `tables`, as made or read back from CSV.
    """
    runs = _runs(tables["turns"])
    scale = "n_groups in {4, 8, 16, 32}, n_repeats in {2, 4, 8} (Figs. S to X)"
    common = " for every schedule and seed that can tell; with fewer than 2 of these: cannot tell."
    new = (
        f"Agree: the mean accuracy in its first turn of the last group is more than {MORE:g} above that of "
        f"the {{}} group, and its rank correlation with the order of groups is at least {TREND:g};"
        f" disagree: it is more than {MORE:g} below;{common} A difference in between, a run with fewer than "
        f"3 such groups, or none of them known to {LEARNED:g} at the end of its first turn, cannot tell."
    )
    return [
        Claim(
            "New groups are learned ever faster",
            f"each new group is learned faster than those before it; {scale}",
            _said(runs, _measured_new),
            verdict(_ever_faster(own) for _, own in runs),
            new.format("first"),
        ),
        Claim(
            "New groups are learned ever faster even after the first, in whose turn everything but "
            "people is learned too",
            f"as above; {scale}. Leaving out the first group is our addition",
            _said(
                runs, lambda own: _measured_new([turn.iloc[1:] for turn in map(_first_turns, own)])
            ),
            verdict(_ever_faster(own[own["group"] > 1]) for _, own in runs),
            new.format("second"),
        ),
        Claim(
            "Forgetting is faster than learning",
            f"what a turn has taught is lost faster afterwards than it was learned; {scale}",
            _said(runs, _measured_forgetting),
            verdict(_forgets_faster(own) for _, own in runs),
            "Over the turns but the first that end with an accuracy of at least "
            f"{LEARNED:g} and began below half of it, and are followed by others: median steps to lose "
            "half of that accuracy against median steps to learn half of it (half not lost before the "
            f"group comes again, or the run ends: longest). Agree: at most {FASTER:g} times as many; "
            f"disagree: at least {1 / FASTER:g} times as many;{common} A run with fewer than 2 such "
            "turns cannot tell.",
        ),
    ]


_Cell = tuple[int, int]


def _runs(table: pd.DataFrame) -> list[tuple[_Cell, pd.DataFrame]]:
    """The turns of each run, with its schedule, in the order of repeats, groups and seeds."""
    found = []
    for key, own in table.groupby(["n_repeats", "n_groups", "seed"]):
        n_repeats, n_groups, _ = cast("tuple[int, int, int]", key)
        found.append(((int(n_groups), int(n_repeats)), own.sort_values("turn")))
    return found


def _first_turns(own: pd.DataFrame) -> pd.DataFrame:
    return own[own["repeat"] == 1]


def _ever_faster(own: pd.DataFrame) -> bool | None:
    """Whether groups of a run are learned the faster the later they come for the first time."""
    first = _first_turns(own)
    speed = first["mean_accuracy"].astype(float)
    if len(first) < 3 or first["after"].max() < LEARNED:
        return None
    gain = speed.iloc[-1] - speed.iloc[0]
    if abs(gain) <= MORE:
        return None
    if gain < 0:
        return False
    return True if speed.rank().corr(first["group"].rank()) >= TREND else None


def _medians(own: pd.DataFrame) -> tuple[float, float] | None:
    """Median steps to learn and to lose half, over the turns of a run that can tell."""
    enough = (own["after"] >= LEARNED) & own["learn_half"].notna() & (own["followed"] > 0)
    enough &= own["turn"] > own["turn"].min()  # in the first, all that is not people is learned too
    told = own[enough]
    if len(told) < 2:
        return None
    lost = told["lose_half"].astype(float).fillna(inf)
    return median(told["learn_half"].astype(float)), median(lost)


def _forgets_faster(own: pd.DataFrame) -> bool | None:
    medians = _medians(own)
    if medians is None:
        return None
    learn, lose = medians
    if lose <= FASTER * learn:
        return True
    return False if lose >= learn / FASTER else None


def _said(
    runs: Sequence[tuple[_Cell, pd.DataFrame]], measured: Callable[[list[pd.DataFrame]], str]
) -> str:
    """What was measured, schedule by schedule."""
    said = []
    for cell in dict.fromkeys(cell for cell, _ in runs):
        own = [turns_of_run for other, turns_of_run in runs if other == cell]
        said.append(f"{cell[0]} groups, {cell[1]} times ({_seeds(len(own))}): {measured(own)}")
    return "; ".join(said) or "nothing was measured"


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _measured_new(own: Iterable[pd.DataFrame]) -> str:
    by_group = pd.concat([_first_turns(turn) for turn in own]).groupby("group")
    means = by_group["mean_accuracy"].mean()
    ends = by_group["after"].mean()
    return (
        f"mean accuracy in their first turns {', '.join(f'{mean:.2f}' for mean in means)}"
        f" (at their ends {', '.join(f'{end:.2f}' for end in ends)})"
    )


def _measured_forgetting(own: Sequence[pd.DataFrame]) -> str:
    medians = [found for turn in own if (found := _medians(turn)) is not None]
    if not medians:
        return "too little was learned"
    learn, lose = (spread([found[i] for found in medians], ".0f") for i in (0, 1))
    return f"median steps to learn half {learn}, to lose half {lose.replace('inf', 'never')}"


def _joined(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One table of several; the first of them is empty and says the columns."""
    filled = [part[list(columns)] for part in parts if len(part)] or [parts[0]]
    return pd.concat(filled, ignore_index=True)


STUDY = Study(
    name="sequential",
    doc=__doc__,
    settings=SequentialSettings,
    runs=planned,
    tables=tables,
    figures=figures,
    claims=claims,
)
