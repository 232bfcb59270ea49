"""Cut edges: what recall costs when attention among names, or from the value to names, is cut.

As `attention.knockout`, but between kinds of name tokens, and of the first value token alone. Source:
Geva et al. 2023, section 5.
"""

from collections.abc import Sequence

import pandas as pd
from transformer_lens.model_protocol import TransformerLensModel

from interp.interventions import (
    Grid,
    Knockout,
    Pairs,
    control_positions,
    patch,
    resolve_positions,
)
from interp.memory.swap import swap_pairs, whole_effect
from interp.progress import Progress, silent
from interp.series import AnySeries, Device, table_over_steps

RECALL_EDGES = (
    ("every middle name", "every first name"),
    ("every last name", "every first name"),
    ("every last name", "every middle name"),
    ("predicts value", "every first name"),
    ("predicts value", "every middle name"),
    ("predicts value", "every last name"),
)
"""The edges of attention between name tokens, and from where the value is predicted to them."""


def edge_costs(model: TransformerLensModel, pairs: Pairs, seed: int = 0) -> pd.DataFrame:
    """What cutting each of the `RECALL_EDGES` in one layer costs.

    The attention of all heads from the one kind of token to the other, in the sentence that tells the
    value and those before it, is set to 0, and the rest of the row shares the whole again.

    Args:
        model: Any TransformerLens model; it is left as it was.
        pairs: Of which the bases are measured.
        seed: Of the control's draw.

    Returns:
        Columns `layer`, `query`, `key`, `cost` (fall of the log-probability of the first value token,
        in nats), `kept` (share of predictions that stay right), `control` (the cost of cutting the
        query from as many text tokens as the key has in that biography), and `share` and
        `control_share` (of what swapping all names before layer 0 costs: what names do for the
        answer; NaN while that is less than two standard errors from 0).
    """
    kinds = list(dict.fromkeys(key for _, key in RECALL_EDGES))
    keys = resolve_positions(pairs, kinds)
    keys |= {f"as many as {kind}": control_positions(pairs, keys[kind], seed) for kind in kinds}
    queries = list(dict.fromkeys(query for query, _ in RECALL_EDGES))
    grid = Grid("pattern", queries, heads="all", edit=Knockout(keys))
    table = patch(model, pairs, grid, metrics=("log_probability", "stays"))
    names = zip(table["metric"], table["layer"], table["position"], strict=True)
    values = zip(table["value"].astype(float), table["unpatched"].astype(float), strict=True)
    cells = dict(zip(names, values, strict=True))
    rows: list[tuple[object, ...]] = []
    for layer in range(model.cfg.n_layers):
        for query, key in RECALL_EDGES:
            edge, control = f"{query} → {key}", f"{query} → as many as {key}"
            cost, of_control = (
                before - after
                for after, before in (
                    cells["log_probability", layer, position] for position in (edge, control)
                )
            )
            rows.append((layer, query, key, cost, cells["stays", layer, edge][0], of_control))
    found = pd.DataFrame(rows, columns=["layer", "query", "key", "cost", "kept", "control"])
    whole = -whole_effect(model, pairs, "log_probability")
    return found.assign(share=found["cost"] / whole, control_share=found["control"] / whole)


def recall_edges(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n: int = 96,
    device: Device = None,
    seed: int = 0,
    *,
    pairs: Pairs | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """What cutting attention among names, and from the value to names, costs over training.

    Args:
        series: A run, models by step, or another series (see `interp.series`).
        steps: Which checkpoints; all by default.
        n: Of a run, known people, each asked for one attribute in an evaluation wording.
        device: Where to compute; where the models are by default, those of a run on the CPU.
        seed: Of the biographies and the control.
        pairs: What is read, in place of a run's people.
        workers: Processes of one thread each; see `series.over_steps`.
        progress: Told after each checkpoint.

    Returns:
        Columns `step`, then those of `edge_costs`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ArgumentError: no step is named.
    """
    chosen = swap_pairs(series, n, seed)["any"] if pairs is None else pairs
    return table_over_steps(
        series,
        lambda model: edge_costs(model, chosen, seed),
        steps,
        device,
        workers=workers,
        progress=progress,
    )
