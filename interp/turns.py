"""Turns: how fast groups that come one after the other are learned, and lost again.

Read from curves of accuracy, linearly between what was measured. Source: paper, Figs. S to X.
"""

import numpy as np
import pandas as pd


def begins(n_turns: int, n_steps: int) -> list[int]:
    """The step at which each turn begins, as `interp.biographies.sampling.sequential` has it."""
    return [n_steps * turn // n_turns for turn in range(n_turns)]


def turns(curves: pd.DataFrame, n_repeats: int, n_steps: int) -> pd.DataFrame:
    """How fast each group was learned in each of its turns, and lost after it.

    Args:
        curves: Accuracy (a share) by step (index) and group (columns, from 1).
        n_repeats: How many times all groups came.
        n_steps: Steps of the schedule.

    Returns:
        A row a turn: `turn`, `repeat`, `group` (from 1), `begin` and `end` (steps), accuracy `before`
        and `after` it and `mean_accuracy` in it (shares), `learn_half` (steps until half of `after`
        is first reached; NaN where it is known before), `lose_half` (steps from the end until it is
        first down to that again; NaN where it is not by the time the group comes again or the
        schedule ends), and `followed`: how many steps that time is.
    """
    n_groups = len(curves.columns)
    n_turns = n_groups * n_repeats
    edges = [*begins(n_turns, n_steps), n_steps]
    rows = []
    for turn in range(n_turns):
        curve = curves[turn % n_groups + 1]
        begin, end, again = edges[turn], edges[turn + 1], edges[min(turn + n_groups, n_turns)]
        during, afterwards = _between(curve, begin, end), _between(curve, end, again)
        before, after = during.iloc[0], during.iloc[-1]
        half = after / 2
        rows.append(
            {
                "turn": turn + 1,
                "repeat": turn // n_groups + 1,
                "group": turn % n_groups + 1,
                "begin": begin,
                "end": end,
                "before": before,
                "after": after,
                "mean_accuracy": np.trapezoid(during, during.index) / (end - begin),
                "learn_half": _first_at(during - half) if half > before else None,
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
    chosen = np.unique([begin, *steps[(steps > begin) & (steps < end)], end])
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
