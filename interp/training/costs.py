"""What a training has cost, step by step, and until a share of the facts was known."""

from collections.abc import Iterable, Sequence
from numbers import Real

import pandas as pd

from interp.errors import ArgumentError
from interp.run import Run
from interp.torch_state import default_state
from interp.training.selection import SPLIT, Answers, Costs

COLUMNS = ("step", "examples", "values", "forward_tokens", "backward_tokens", "arithmetic")
"""Of `training_costs`, in front of `attribute_accuracy`."""


@default_state()
def training_costs(run: Run) -> pd.DataFrame:
    """What the updates of a run have cost until each measurement, and what was known there.

    Of a run with selection this is in its metrics; of any other, its batches are drawn again and counted.
    What a reference computes (`patching`) is not counted.

    Returns:
        A row for each step that was measured: `step` (which is the number of updates), `examples`
        (sequences trained on), `values` (that the loss was on), `forward_tokens` and `backward_tokens`
        (padding included), `arithmetic` (in tokens passing forward, one that passes backward counts as
        two: times two, and the parameters of the model, these are its FLOPs) and `attribute_accuracy`
        (share, on evaluation biographies).

    Raises:
        RunError: nothing has been measured.
    """
    accuracy = run.curve("attribute_accuracy")
    if run.config.selection.on:
        rows = run.metrics
        rows = rows[rows["split"] == SPLIT]
        table = rows.pivot_table(index="step", columns="metric", values="value").astype(int)
    else:
        table = _counted_again(run, [int(step) for step in accuracy.index])
    known = table.reset_index()[list(COLUMNS)].rename_axis(columns=None)
    return known.assign(attribute_accuracy=accuracy.loc[known["step"]].to_numpy())


def _counted_again(run: Run, steps: Sequence[int]) -> pd.DataFrame:
    costs, corpus, size = Costs(), run.corpus, run.config.training.batch_size
    rows, done = [], 0
    for step in steps:
        for update in range(done, step):
            batch = corpus.batch(update, size)
            costs.add(batch, len(Answers.of(batch, corpus.counted(batch, update)).row_of))
        done = step
        counts = {row["metric"]: int(row["value"]) for row in costs.observations(step)}
        rows.append({"step": step, **counts})
    return pd.DataFrame(rows)


def costs_until_known(run: Run, shares: Sequence[float] = (0.9, 0.99)) -> pd.DataFrame:
    """What it cost until shares of the facts were known: at the first measurement with that accuracy.

    Returns:
        A row for each share: `share`, and the columns of `training_costs`; missing where it was not reached.

    Raises:
        ArgumentError: a share that is none.
        RunError: nothing has been measured.
    """
    several = list(shares) if isinstance(shares, Iterable) else []
    if not several or not all(isinstance(share, Real) and 0 < share <= 1 for share in several):
        raise ArgumentError(f"shares={shares!r}: give shares above 0, to 1, such as [0.9, 0.99].")
    costs = training_costs(run)
    first = [costs[costs["attribute_accuracy"] >= share].head(1) for share in shares]
    rows = [row.iloc[0] if len(row) else pd.Series(dtype=float) for row in first]
    table = pd.DataFrame(rows, columns=costs.columns).reset_index(drop=True)
    counts = dict.fromkeys(COLUMNS, "Int64")
    table = table.astype(counts)
    table.insert(0, "share", list(shares))
    return table
