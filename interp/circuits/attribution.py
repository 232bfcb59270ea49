"""Edge attribution patching: what each edge does for an answer, to first order, from a few passes.

    scores = edge_attribution(model, pairs, "EAP-IG-inputs", ig_steps=5)
    scores.sort_values("score", key=abs).tail()

To first order a metric changes by (what the sender writes on the source minus what it writes on the base)
times (the gradient of the metric with respect to what the receiver reads): two forward passes and one
backward pass for all edges. Where the metric has saturated the gradient at the base misleads, so it is
averaged along a path from base to source (integrated gradients).

TransformerLens' `attribution_patch` is the first of these for one pair at a time, and equals it in a test.
Source: Syed et al. 2023, "Attribution patching outperforms automated circuit discovery" (EAP); Hanna et al.
2024, "Have faith in faithfulness: going beyond circuit overlap when finding model mechanisms" (EAP-IG).
"""

from typing import Literal, get_args

import numpy as np
import pandas as pd
from transformer_lens.model_protocol import TransformerLensModel

from interp.circuits.edges import Attention, graph_of
from interp.circuits.passes import KL_DIVERGENCE, Passes, blocks_of_pairs, require_metric
from interp.errors import ArgumentError, require_known, whole_number
from interp.interventions import LOGIT_DIFFERENCE, Pairs
from interp.model import measuring, require_normal_weights
from interp.torch_state import default_state

Method = Literal["EAP", "EAP-IG-inputs", "clean-corrupted"]
"""Where gradients are taken: at the base; along the way from the embeddings of the base to those of the
source; at both ends."""


@default_state()
def edge_attribution(
    model: TransformerLensModel,
    pairs: Pairs,
    method: Method = "EAP-IG-inputs",
    ig_steps: int = 5,
    *,
    metric: str = LOGIT_DIFFERENCE,
    attention: Attention = "heads",
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """The change of a metric, to first order, by each edge that carries what its sender writes on the source.

    The base is the clean run and the source the corrupted one, as in `patch`: a large score is of an edge
    that the answer depends on. Gradients of "EAP-IG-inputs" are means over the midpoints of `ig_steps`
    equal parts of the way, whose error falls with the square of their number (the paper takes the ends of
    the parts); the scores of all edges out of the embedding then add up to what patching the embedding does.
    They do not in a mixture of experts: no gradient sees where routing jumps to another expert, so hold such
    scores against `exact_edges`.

    Args:
        model: One of ours, or a `TransformerBridge` of a transformers model.
        pairs: Base and source; a position of the base without a counterpart keeps what it has.
        method: "EAP", "EAP-IG-inputs" or "clean-corrupted".
        ig_steps: Backward passes for each block of pairs, for "EAP-IG-inputs".
        metric: Out of `CIRCUIT_METRICS`: the logit difference (source minus base), the KL divergence from the
            base, or a log-probability.
        attention: See `edges`.
        max_memory_gb: As in `patch`.

    Returns:
        The columns of `edges`, and `score`: the mean over the pairs, in units of the metric.

    Raises:
        ArgumentError: as `edges`; a metric without a gradient, as the KL divergence has none at the base.

    Example:
        ```python
        scores = edge_attribution(run.model(), swapped_people(run.corpus, n=64))
        scores[scores["receiver"] == "logits"]
        ```
    """
    require_known([method], get_args(Method), "method")
    points, weights = points_of(method, whole_number(ig_steps, "ig_steps", 1))
    require_metric(metric, gradient=True)
    if metric == KL_DIVERGENCE and method == "EAP":
        raise ArgumentError(
            "At the base the divergence from the base has its minimum, and its gradient is 0 for every edge; "
            'take method="EAP-IG-inputs", or the logit difference.'
        )
    require_normal_weights(model)  # type: ignore[arg-type]
    graph = graph_of(model, attention)
    pairs = pairs.to(next(model.parameters()).device)  # type: ignore[attr-defined]
    total = np.zeros(graph.exists.shape)
    with measuring(model), graph.hooks(model):
        for block in blocks_of_pairs(model, graph, pairs, max_memory_gb):
            passes = Passes(model, graph, pairs[block], metric)
            for share, weight in zip(points, weights, strict=True):
                total += weight * passes.attribution(share)[0]
    return graph.table(score=total / len(pairs))


def points_of(method: Method, ig_steps: int) -> tuple[list[float], list[float]]:
    """Where between base (0) and source (1) gradients are taken, and their weights."""
    if method == "EAP":
        return [0.0], [1.0]
    if method == "clean-corrupted":
        return [0.0, 1.0], [0.5, 0.5]
    return [(k + 0.5) / ig_steps for k in range(ig_steps)], [1 / ig_steps] * ig_steps
