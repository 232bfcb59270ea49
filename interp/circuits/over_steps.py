"""Circuits over training: which edges matter at each checkpoint, and when they come to stay."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.circuits.attribution import Method, edge_attribution
from interp.circuits.edges import EDGE_COLUMNS, Attention
from interp.errors import ArgumentError, NothingToMeasureError, require_frame, whole_number
from interp.interventions import LOGIT_DIFFERENCE, Pairs
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, table_over_steps
from interp.torch_state import default_state


@default_state()
def circuits_over_steps(
    series: AnySeries,
    pairs: Pairs,
    steps: Sequence[int] | None = None,
    device: Device = None,
    *,
    method: Method = "EAP-IG-inputs",
    ig_steps: int = 5,
    metric: str = LOGIT_DIFFERENCE,
    attention: Attention = "heads",
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """`edge_attribution` at the checkpoints of a series; its columns, with `step` in front.

    Args:
        series: A run, models by step, or another series.
        pairs: The same for all checkpoints.
        steps: Which checkpoints; all by default.
        device: As in `series.over_steps`, as are `workers` and `progress`.
        method: As in `edge_attribution`, as are `ig_steps`, `metric` and `attention`.
        ig_steps: Backward passes.
        metric: What is attributed.
        attention: See `edges`.
        workers: Processes.
        progress: Told after each checkpoint.
    """
    measure = partial(
        _scores, pairs=pairs, method=method, ig_steps=ig_steps, metric=metric, attention=attention
    )
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


def _scores(
    model: TransformerBridge,
    pairs: Pairs,
    method: Method,
    ig_steps: int,
    metric: str,
    attention: Attention,
) -> pd.DataFrame:
    return edge_attribution(model, pairs, method, ig_steps, metric=metric, attention=attention)


def edge_emergence(table: pd.DataFrame, top: int) -> pd.DataFrame:
    """When each of the strongest edges of the last checkpoint came among the strongest, and stayed.

    Args:
        table: From `circuits_over_steps`, or more of it side by side by `seed`.
        top: How many edges count as the strongest of a checkpoint, by the magnitude of their scores. Of equal
            scores the first in the table count.

    Returns:
        A row for each of the strongest edges at the last step (and `seed`): the columns of `edges`,
        `first_step` (since when it has been among the strongest at every step), `ever_step` (when it first
        was), `rank` (1 for the strongest) and `score` at the last step; by `first_step` and `rank`.

    Raises:
        ArgumentError: a column is missing, or `top` is none.
        NothingToMeasureError: there is only one step.
    """
    require_frame(table, "edges over training")
    missing = [name for name in ("step", *EDGE_COLUMNS, "score") if name not in table]
    if missing:
        raise ArgumentError(f"The table of edges over training has no column {missing[0]!r}.")
    top = whole_number(top, "top", 1)
    if table["step"].nunique() < 2:
        raise NothingToMeasureError(
            "When edges came to stay is not known from one checkpoint; give the scores of several."
        )
    of_seed = ["seed"] if "seed" in table else []
    size = table.assign(size=table["score"].abs())
    ranks = size.groupby([*of_seed, "step"])["size"].rank(method="first", ascending=False)
    ranked = table.assign(rank=ranks.astype("int64"))
    rows = []
    keys = [*of_seed, *EDGE_COLUMNS]
    for _, one in ranked.groupby(keys, sort=False, dropna=False):
        one = one.sort_values("step")
        within = (one["rank"] <= top).to_numpy()
        if not within[-1]:
            continue
        stays = len(within) - 1
        while stays > 0 and within[stays - 1]:
            stays -= 1
        steps = one["step"].to_numpy()
        last = one.iloc[-1]
        when = int(steps[stays]), int(steps[within.argmax()])
        rows.append([*last[keys], *when, int(last["rank"]), float(last["score"])])
    names = [*keys, "first_step", "ever_step", "rank", "score"]
    found = pd.DataFrame(rows, columns=names).astype({key: table[key].dtype for key in keys})
    return found.sort_values([*of_seed, "first_step", "rank"], ignore_index=True)
