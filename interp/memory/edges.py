"""Cut edges: what recall costs when attention among names, or from the value to names, is cut.

As `attention.knockout`, but between kinds of name tokens, and of the first value token alone. Source:
Geva et al. 2023, section 5.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd
from transformer_lens.model_protocol import TransformerLensModel

from interp.interventions import Grid, Knockout, Pairs, control_positions, patch, resolve_positions
from interp.memory.swap import swap_pairs, whole_effect
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, table_over_steps
from interp.torch_state import default_state

RECALL_EDGES = (
    ("every middle name", "every first name"),
    ("every last name", "every first name"),
    ("every last name", "every middle name"),
    ("predicts value", "every first name"),
    ("predicts value", "every middle name"),
    ("predicts value", "every last name"),
)
"""The edges of attention between name tokens, and from where the value is predicted to them."""


@default_state()
def edge_costs(model: TransformerLensModel, pairs: Pairs, seed: int = 0) -> pd.DataFrame:
    """What cutting each of the `RECALL_EDGES` in one layer costs.

    Cut is the attention of all heads from the one kind of token to the other, in the sentence that tells
    the value and those before it, on the bases of the pairs; `seed` is of the control's draw.

    Returns:
        Columns `layer`, `query`, `key`, `cost` (fall of the log-probability of the first value token,
        in nats), `kept` (share of predictions that stay right), `control` (the cost of cutting the
        query from as many text tokens as the key has in that biography), and `share` and
        `control_share` (of `whole_effect`: what names do for the answer).
    """
    kinds = list(dict.fromkeys(key for _, key in RECALL_EDGES))
    keys = resolve_positions(pairs, kinds)
    keys |= {f"as many as {kind}": control_positions(pairs, keys[kind], seed) for kind in kinds}
    queries = list(dict.fromkeys(query for query, _ in RECALL_EDGES))
    grid = Grid("pattern", queries, heads="all", edit=Knockout(keys))
    table = patch(model, pairs, grid, metrics=("log_probability", "stays"))
    cells = table.set_index(["metric", "layer", "position"])

    def cost(layer: int, edge: str) -> float:
        cell = "log_probability", layer, edge
        return float(cells["unpatched"][cell]) - float(cells["value"][cell])

    rows = []
    for layer in range(model.cfg.n_layers):
        for query, key in RECALL_EDGES:
            edge, control = f"{query} → {key}", f"{query} → as many as {key}"
            kept = float(cells["value"]["stays", layer, edge])
            rows.append((layer, query, key, cost(layer, edge), kept, cost(layer, control)))
    costs = pd.DataFrame(rows, columns=["layer", "query", "key", "cost", "kept", "control"])
    whole = -whole_effect(model, pairs, "log_probability")
    return costs.assign(share=costs["cost"] / whole, control_share=costs["control"] / whole)


@default_state()
def recall_edges(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n: int = 96,
    device: Device = None,
    seed: int = 0,
    *,
    pairs: Pairs | None = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """What cutting the `RECALL_EDGES` costs over training: columns `step`, then those of `edge_costs`.

    Read are `pairs`, or of a run `n` known people, each asked for one attribute in an evaluation wording.
    Other arguments and errors as `series.over_steps`.
    """
    pairs = swap_pairs(series, n, seed)["any"] if pairs is None else pairs
    measure = partial(edge_costs, pairs=pairs, seed=seed)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)
