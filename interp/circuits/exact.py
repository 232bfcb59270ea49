"""Exact edge patching: what an edge does when it alone carries what its sender writes on the source.

A pass for every edge and pair, so it is the check of attribution and not the way to find a circuit.
`interventions.path_patch` is the same for what heads and MLPs tell heads, by windows, and equals it in a
test; here are also the embedding, what MLPs read, and the logits.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau, pearsonr, spearmanr
from transformer_lens.model_protocol import TransformerLensModel

from interp.circuits.edges import EDGE_COLUMNS, Attention, graph_of
from interp.circuits.passes import Passes, blocks_of_pairs, circuits_at_a_time, require_metric
from interp.errors import ArgumentError, NothingToMeasureError, require_frame, whole_number
from interp.interventions import LOGIT_DIFFERENCE, Pairs
from interp.model import measuring
from interp.torch_state import default_state


@default_state()
def exact_edges(
    model: TransformerLensModel,
    pairs: Pairs,
    n: int | None = None,
    seed: int = 0,
    *,
    metric: str = LOGIT_DIFFERENCE,
    attention: Attention = "heads",
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """The change of a metric by each edge, by a pass with that edge patched and no other.

    Args:
        model: As in `edge_attribution`, as are `pairs`, `metric`, `attention` and `max_memory_gb`.
        pairs: Base and source.
        n: How many edges, drawn without preference; all by default.
        seed: Of the draw.
        metric: Also "follows" and "stays".
        attention: See `edges`.
        max_memory_gb: As in `patch`.

    Returns:
        The columns of `edges`, and `exact`: the mean over pairs of what the edge changes.

    Raises:
        ArgumentError: as `edges`.
    """
    require_metric(metric)
    graph = graph_of(model, attention)
    pairs = pairs.to(next(model.parameters()).device)  # type: ignore[attr-defined]
    sender, receiver = graph.edge_index
    chosen = np.arange(len(sender))
    if n is not None:
        most = min(whole_number(n, "n", 1), len(sender))
        chosen = np.sort(np.random.default_rng(seed).choice(len(sender), most, replace=False))
    total = np.zeros(len(chosen))
    with measuring(model), graph.hooks(model):
        for block in blocks_of_pairs(model, graph, pairs, max_memory_gb):
            passes = Passes(model, graph, pairs[block], metric)
            at_once = circuits_at_a_time(model, graph, pairs[block], max_memory_gb)
            none = torch.zeros((1, *graph.exists.shape), dtype=torch.bool)
            unpatched = passes.patched(none).double().sum().item()
            for begin in range(0, len(chosen), at_once):
                part = chosen[begin : begin + at_once]
                removed = none.repeat(len(part), 1, 1)
                removed[torch.arange(len(part)), sender[part], receiver[part]] = True
                values = passes.patched(removed).double().sum(1).cpu().numpy()
                total[begin : begin + at_once] += values - unpatched
    table = graph.table()
    return table.iloc[chosen].reset_index(drop=True).assign(exact=total / len(pairs))


def agreement(
    scores: pd.DataFrame, exact: pd.DataFrame, by: Sequence[str] = (), least: int = 3
) -> pd.DataFrame:
    """How well scores of edges agree with what the edges do.

    Args:
        scores: From `edge_attribution`.
        exact: From `exact_edges`, of the same model and pairs; of all edges or some.
        by: Columns of both to compare separately by, such as `step` or `seed`.
        least: Of how many edges a correlation is told.

    Returns:
        A row for each value of `by`: `spearman` and `kendall` (rank correlations of the magnitudes, which
        circuits are chosen by), `signed_spearman` and `pearson` (of the values themselves), `same_sign`
        (the share of the summed magnitude of `exact` on edges whose score has its sign), `sum_of_exact` and
        `sum_of_scores` (of these edges, in units of the metric), and `n` edges.

    Raises:
        NothingToMeasureError: fewer than `least` edges are in both tables, or no value differs.
    """
    for table, column, what in ((scores, "score", "scores"), (exact, "exact", "exact effects")):
        require_frame(table, what)
        missing = [name for name in (*EDGE_COLUMNS, *by, column) if name not in table]
        if missing:
            raise ArgumentError(f"The table of {what} has no column {missing[0]!r}.")
    keys = [*by, *EDGE_COLUMNS]
    both = exact.merge(scores[[*keys, "score"]], on=keys, validate="one_to_one")
    rows = []
    parts = both.groupby(list(by), sort=False) if by else [((), both)]
    for values, part in parts:
        score, effect = part["score"].to_numpy(), part["exact"].to_numpy()
        if len(part) < least or np.ptp(np.abs(score)) == 0 or np.ptp(np.abs(effect)) == 0:
            raise NothingToMeasureError(
                f"There are {len(part)} edges in both tables, of which a correlation is not known; give at "
                f"least {least} that differ."
            )
        size = np.abs(effect)
        rows.append(
            (
                *values,
                float(spearmanr(np.abs(score), size).statistic),
                float(kendalltau(np.abs(score), size).statistic),
                float(spearmanr(score, effect).statistic),
                float(pearsonr(score, effect).statistic),
                float(size[np.sign(score) == np.sign(effect)].sum() / size.sum()),
                float(effect.sum()),
                float(score.sum()),
                len(part),
            )
        )
    names = ["spearman", "kendall", "signed_spearman", "pearson", "same_sign"]
    return pd.DataFrame(rows, columns=[*by, *names, "sum_of_exact", "sum_of_scores", "n"])
