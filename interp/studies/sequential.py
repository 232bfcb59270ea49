"""Changing distributions.

When groups of people come one after the other, are new groups learned ever faster, and is forgetting
faster than learning? (paper, Figs. S to X)

Command: interp batch sequential --out artifacts/studies --workers 2
Duration: 9 runs of 1,600 steps (about 90 seconds each on one core)

The paper has 4 to 32 groups and 2 to 8 repeats. The learning rate is constant: were it to fall, late
groups would be learned more slowly for that reason alone.

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
from math import inf, isnan, nan
from statistics import median
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.plots.sequential import group_curves, learning_and_forgetting, new_groups
from interp.seeds import number_of, spread
from interp.studies.groups import SequentialSettings, planned, tables
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Study, Tables

LEAST = 2
"""Turns of a run below which no median is taken."""
LEARNED = 0.25
"""Accuracy at the end of a turn from which on there is something to measure the speed of."""
MORE, TREND, GROUPS = 0.05, 0.5, 3
FASTER, SLOWER = 0.8, 1 / 0.8
"""Thresholds of the rules: what each is, its rule says."""


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


_Runs = Sequence[pd.DataFrame]


def _schedules(runs: _Runs) -> dict[str, list[pd.DataFrame]]:
    """The runs of each schedule, by its name."""
    found: dict[str, list[pd.DataFrame]] = {}
    for own in runs:
        first = own.iloc[0]
        name = f"{int(first['n_groups'])} groups, {int(first['n_repeats'])} times"
        found.setdefault(name, []).append(own)
    return found


def _number(
    what: str, read: Callable[[pd.DataFrame], float], *against: float, **shown: Any
) -> Number[_Runs]:
    """A number of each run, for each schedule."""

    def values(runs: _Runs) -> dict[str, list[float]]:
        return {name: [float(read(run)) for run in own] for name, own in _schedules(runs).items()}

    return Number(what, values, against, **shown)


def _first_turns(own: pd.DataFrame) -> pd.DataFrame:
    return own[own["repeat"] == 1]


def _gain(own: pd.DataFrame, learned: float, groups: int) -> float:
    """Mean accuracy in its first turn, of the last group less the first; NaN where too little is learned."""
    first = _first_turns(own)
    if len(first) < groups or first["after"].max() < learned:
        return nan
    speed = first["mean_accuracy"].astype(float)
    return float(speed.iloc[-1] - speed.iloc[0])


def _trend(own: pd.DataFrame) -> float:
    """The rank correlation of that accuracy with the order of groups."""
    first = _first_turns(own)
    return float(first["mean_accuracy"].astype(float).rank().corr(first["group"].rank()))


def _ever_faster(
    own: pd.DataFrame, more: float, trend: float, learned: float, groups: int
) -> bool | None:
    """Whether groups of a run are learned the faster the later they come for the first time."""
    gain = _gain(own, learned, groups)
    if isnan(gain) or abs(gain) <= more:
        return None
    if gain < 0:
        return False
    return True if _trend(own) >= trend else None


def _all_groups(own: pd.DataFrame) -> pd.DataFrame:
    return own


def _without_first(own: pd.DataFrame) -> pd.DataFrame:
    return own[own["group"] > 1]


def _medians(own: pd.DataFrame, learned: float, least: int) -> tuple[float, float] | None:
    """Median steps to learn and to lose half, over the turns of a run that can tell."""
    enough = (own["after"] >= learned) & own["learn_half"].notna() & (own["followed"] > 0)
    enough &= own["turn"] > own["turn"].min()  # in the first, all that is not people is learned too
    chosen = own[enough]
    if len(chosen) < least:
        return None
    lost = chosen["lose_half"].astype(float).fillna(inf)
    return median(chosen["learn_half"].astype(float)), median(lost)


def _forgets_faster(
    own: pd.DataFrame, faster: float, slower: float, learned: float, least: int
) -> bool | None:
    medians = _medians(own, learned, least)
    if medians is None:
        return None
    learn, lose = medians
    if lose <= faster * learn:
        return True
    return False if lose >= slower * learn else None


def _times_as_fast(own: pd.DataFrame) -> float:
    """Steps to learn half over steps to lose it: 0 where it is never lost."""
    medians = _medians(own, LEARNED, LEAST)
    return nan if medians is None else medians[0] / medians[1]


def _by_schedule(measured: Callable[[list[pd.DataFrame]], str]) -> Callable[[_Runs], str]:
    """What was measured, in words, schedule by schedule."""

    def words(runs: _Runs) -> str:
        return "; ".join(
            f"{name} ({number_of(len(own), 'seed')}): {measured(own)}"
            for name, own in _schedules(runs).items()
        )

    return words


def _measured_new(own: Iterable[pd.DataFrame]) -> str:
    by_group = pd.concat(map(_first_turns, own)).groupby("group")
    means, ends = (
        ", ".join(f"{mean:.2f}" for mean in by_group[name].mean())
        for name in ("mean_accuracy", "after")
    )
    return f"mean accuracy in their first turns {means} (at their ends {ends})"


def _measured_forgetting(own: Sequence[pd.DataFrame]) -> str:
    medians = [found for turn in own if (found := _medians(turn, LEARNED, LEAST)) is not None]
    if not medians:
        return "too little was learned"
    learn, lose = (spread([found[i] for found in medians], ".0f") for i in (0, 1))
    return f"median steps to learn half {learn}, to lose half {lose.replace('inf', 'never')}"


_SCALE = "n_groups in {4, 8, 16, 32}, n_repeats in {2, 4, 8} (Figs. S to X)"
_ENDING = (
    "; for every schedule and seed that can tell; with fewer than {minimum} of these: cannot tell."
)


_Part = Callable[[pd.DataFrame], pd.DataFrame]


def _faster_rule(than: str, part: _Part) -> Rule[pd.DataFrame]:
    return Rule.each(
        "Agree: the mean accuracy in its first turn of the last group is more than {more:g} above that of "
        f"the {than} group, and its rank correlation with the order of groups is at least {{trend:g}}; "
        f"disagree: it is more than {{more:g}} below{_ENDING.replace('{minimum}', '2')} A difference in "
        "between, a run with fewer than {groups} such groups, or none of them known to {learned:g} at the "
        "end of its first turn, cannot tell.",
        lambda own, **numbers: _ever_faster(part(own), **numbers),
        ending="",
        more=MORE,
        trend=TREND,
        learned=LEARNED,
        groups=GROUPS,
    )


def _faster_numbers(than: str, part: _Part) -> tuple[Number[_Runs], Number[_Runs]]:
    """What that rule reads; the trend only of runs whose last group is learned faster by enough."""

    def gain(own: pd.DataFrame) -> float:
        return _gain(part(own), LEARNED, GROUPS)

    return (
        _number(
            f"mean accuracy in its first turn, of the last group less that of the {than}",
            gain,
            MORE,
            -MORE,
            form="+.2f",
        ),
        _number(
            "rank correlation of mean accuracy in first turns with the order of groups",
            lambda own: _trend(part(own)) if gain(own) > MORE else nan,
            TREND,
            least=-1.0,
            most=1.0,
        ),
    )


STATEMENTS = (
    Statement[pd.DataFrame](
        "New groups are learned ever faster",
        f"each new group is learned faster than those before it; {_SCALE}",
        _faster_rule("first", _all_groups),
        _by_schedule(_measured_new),
        _faster_numbers("first", _all_groups),
    ),
    Statement[pd.DataFrame](
        "New groups are learned ever faster even after the first, in whose turn everything but "
        "people is learned too",
        f"as above; {_SCALE}. Leaving out the first group is our addition",
        _faster_rule("second", _without_first),
        _by_schedule(lambda own: _measured_new(map(_without_first, own))),
        _faster_numbers("second", _without_first),
    ),
    Statement[pd.DataFrame](
        "Forgetting is faster than learning",
        f"what a turn has taught is lost faster afterwards than it was learned; {_SCALE}",
        Rule.each(
            "Over the turns but the first that end with an accuracy of at least {learned:g} and began "
            "below half of it, and are followed by others: median steps to lose half of that accuracy "
            "against median steps to learn half of it (half not lost before the group comes again, or the "
            "run ends: longest). Agree: at most {faster:g} times as many; disagree: at least {slower:g} "
            f"times as many{_ENDING.replace('{minimum}', '2')} A run with fewer than {{least}} such turns "
            "cannot tell.",
            _forgets_faster,
            ending="",
            faster=FASTER,
            slower=SLOWER,
            learned=LEARNED,
            least=LEAST,
        ),
        _by_schedule(_measured_forgetting),
        _number(
            "steps to learn half over steps to lose it, medians of turns (0: never lost)",
            _times_as_fast,
            1 / FASTER,
            1 / SLOWER,
            least=0.0,
        ),
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about changing distributions, held against "turns", made or read back from CSV."""
    by_run = tables["turns"].groupby(["n_repeats", "n_groups", "seed"])
    runs = [own.sort_values("turn") for _, own in by_run]
    return [statement.against(runs) for statement in STATEMENTS]


STUDY = Study("sequential", __doc__, SequentialSettings, planned, tables, figures, claims)
