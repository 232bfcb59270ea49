"""Circuits of the strongest edges, and how much of the model's behaviour they keep.

    curve = faithfulness_curve(model, pairs, scores, sizes=(10, 30, 100))

A circuit of n edges is run by letting every other edge carry what its sender writes on the source
(corrupted). Faithfulness is where the metric then is between the source's run (0) and the base's (1). The
control is circuits of as many edges that are drawn at random.

Source: Hanna et al. 2024, section 2 (faithfulness, greedy choice of edges); Wang et al. 2022.
"""

import heapq
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from transformer_lens.model_protocol import TransformerLensModel

from interp.circuits.edges import Attention, Graph, graph_of
from interp.circuits.passes import Passes, blocks_of_pairs, circuits_at_a_time, require_metric
from interp.errors import (
    ArgumentError,
    NothingToMeasureError,
    require_frame,
    require_known,
    whole_number,
)
from interp.interventions import LOGIT_DIFFERENCE, Pairs
from interp.model import measuring
from interp.torch_state import default_state

Selection = Literal["greedy", "threshold"]
"""How edges are chosen: greedily from the logits down, the strongest edge into what is already part of the
circuit first; or the strongest of all edges first."""
_N_SIZES = 12


@default_state()
def faithfulness_curve(
    model: TransformerLensModel,
    pairs: Pairs,
    scores: pd.DataFrame,
    sizes: Sequence[int] | None = None,
    *,
    selection: Selection = "greedy",
    metric: str = LOGIT_DIFFERENCE,
    attention: Attention = "heads",
    n_random: int = 5,
    seed: int = 0,
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """The faithfulness of circuits of several sizes, and of as many random edges.

    Only edges on a path from the embedding to the logits count: of the edges in their order, as many are
    taken as leave at most `size` on such paths, and the others are dropped. The random circuits are chosen
    in the same way from an order that is drawn.

    Args:
        model: As in `edge_attribution`, as are `pairs` and `attention`.
        pairs: Base (clean) and source (corrupted). Where the answer is read they have to correspond.
        scores: From `edge_attribution` of the same model, or with a column `score` of your own.
        sizes: How many edges circuits may have; by default none, all, and ten between, evenly by factors.
        selection: "greedy" or "threshold"; the order is by the magnitude of the score.
        metric: Out of `CIRCUIT_METRICS`.
        attention: See `edges`.
        n_random: How many random circuits of each size.
        seed: Of the first of them; the others follow.
        max_memory_gb: As in `patch`.

    Returns:
        A row for every size, of the circuit (`circuit` "scores") and of each random one ("random", with its
        `seed`): `size` (asked for), `edges` (on a path from embedding to logits), `share` (of all edges),
        `metric`, `value` (mean over pairs), `faithfulness` ((value - corrupted) / (clean - corrupted); below
        0 and above 1 are possible), `clean` and `corrupted` (the metric with all edges, and with none).

    Raises:
        ArgumentError: as `edges`, scores of other edges, a size that is none, or positions that do not
            correspond where the answer is read.
        NothingToMeasureError: base and source have the same metric.
    """
    require_metric(metric)
    require_known([selection], get_args(Selection), "selection")
    n_random = whole_number(n_random, "n_random", 0)
    graph = graph_of(model, attention)
    pairs = pairs.to(next(model.parameters()).device)  # type: ignore[attr-defined]
    require_read_positions(pairs)
    strength = _strength(graph, scores)
    chosen = _sizes(graph, sizes)
    seeds: list[int | None] = [None, *range(seed, seed + n_random)]
    rows, kept = [], []
    for one in seeds:
        ranked = strength
        if one is not None:
            ranked = np.random.default_rng(one).random(graph.exists.shape)
        order = edge_order(graph, ranked, selection)
        for size in chosen:
            circuit = largest_circuit(graph, order, size)
            kept.append(circuit)
            rows.append(("scores" if one is None else "random", one, size, int(circuit.sum())))
    everything = [graph.exists, np.zeros_like(graph.exists)]
    values = metric_of_circuits(
        model, graph, pairs, [*everything, *kept], metric, max_memory_gb
    ).mean(1)
    clean, corrupted, *others = values.tolist()
    if abs(clean - corrupted) <= 1e-6 * max(abs(clean), abs(corrupted)):
        raise NothingToMeasureError(
            f"The mean {metric} of base and source are both {clean:.4g}, so there is nothing for a "
            "circuit to keep; give pairs whose predictions differ."
        )
    table = pd.DataFrame(rows, columns=["circuit", "seed", "size", "edges"]).astype(
        {"seed": "Int64"}
    )
    table = table.assign(
        share=table["edges"] / int(graph.exists.sum()), metric=metric, value=others
    )
    faithfulness = (table["value"] - corrupted) / (clean - corrupted) + 0.0  # no minus zero
    return table.assign(faithfulness=faithfulness, clean=clean, corrupted=corrupted)


@default_state()
def circuit_edges(
    model: TransformerLensModel,
    scores: pd.DataFrame,
    size: int,
    *,
    selection: Selection = "greedy",
    attention: Attention = "heads",
) -> pd.DataFrame:
    """The edges of the circuit of some size: those rows of `scores`, the strongest first.

    Args:
        model: As in `edge_attribution`.
        scores: From there.
        size: How many edges it may have.
        selection: As in `faithfulness_curve`.
        attention: See `edges`.
    """
    require_known([selection], get_args(Selection), "selection")
    graph = graph_of(model, attention)
    strength = _strength(graph, scores)
    order = edge_order(graph, strength, selection)
    circuit = largest_circuit(graph, order, whole_number(size, "size", 0))
    table = graph.table(score=strength, kept=circuit)
    table = table[table["kept"]].drop(columns="kept")
    return table.sort_values("score", key=abs, ascending=False, ignore_index=True)


def metric_of_circuits(
    model: TransformerLensModel,
    graph: Graph,
    pairs: Pairs,
    circuits: Sequence[Bool[np.ndarray, "sender receiver"]],
    metric: str,
    max_memory_gb: float | int | None = None,
) -> Float[np.ndarray, "circuit pair"]:
    """The metric of each pair where only the edges of a circuit carry what is written on the base."""
    outcome = np.empty((len(circuits), len(pairs)))
    with measuring(model), graph.hooks(model):
        for block in blocks_of_pairs(model, graph, pairs, max_memory_gb):
            passes = Passes(model, graph, pairs[block], metric)
            at_once = circuits_at_a_time(model, graph, pairs[block], max_memory_gb)
            for begin in range(0, len(circuits), at_once):
                part = np.stack(circuits[begin : begin + at_once])
                removed = torch.from_numpy(graph.exists[None] & ~part)
                values = passes.patched(removed).double().cpu().numpy()
                outcome[begin : begin + at_once, block] = values
    return outcome


def require_read_positions(pairs: Pairs) -> None:
    """Checks that base and source correspond where the answer is read: all edges patched is the source."""
    rows = torch.arange(len(pairs), device=pairs.read.device)
    if not torch.equal(pairs.source_position[rows, pairs.read], pairs.source_read):
        raise ArgumentError(
            "The positions of base and source at which the answer is read do not correspond in every "
            "pair, so a base with all edges patched is not the source; give Pairs that have source_read "
            "as the source_position there."
        )


def edge_order(
    graph: Graph, scores: Float[np.ndarray, "sender receiver"], selection: Selection
) -> Int64[np.ndarray, "edge 2"]:
    """All edges (sender, receiver) in the order in which circuits take them."""
    size = np.abs(scores)
    if selection == "threshold":
        sender, receiver = graph.edge_index
        ranks = np.argsort(-size[sender, receiver], kind="stable")
        return np.stack([sender[ranks], receiver[ranks]], axis=1)
    of_sender: dict[int, list[int]] = {}
    for receiver, ends in enumerate(graph.ends_of_receivers):
        for sender in ends:
            of_sender.setdefault(sender, []).append(receiver)
    waiting: list[tuple[float, int, int]] = []
    inside: set[int] = set()
    open_receivers: set[int] = set()

    def admit(receiver: int) -> None:
        if receiver not in open_receivers:
            open_receivers.add(receiver)
            for sender in np.flatnonzero(graph.exists[:, receiver]):
                heapq.heappush(waiting, (-float(size[sender, receiver]), int(sender), receiver))

    admit(len(graph.receivers) - 1)
    order: list[tuple[int, int]] = []
    while waiting:
        _, sender, receiver = heapq.heappop(waiting)
        order.append((sender, receiver))
        if sender not in inside:
            inside.add(sender)
            for own in of_sender.get(sender, []):
                admit(own)
    return np.array(order, dtype=np.int64)


def on_paths(
    graph: Graph, circuit: Bool[np.ndarray, "sender receiver"]
) -> Bool[np.ndarray, "sender receiver"]:
    """The edges of a circuit that are on a path from the embedding to the logits along its edges."""
    n = len(graph.senders)
    # Which receivers are inputs of which senders.
    feeds = np.zeros((len(graph.receivers), n), dtype=bool)
    for receiver, ends in enumerate(graph.ends_of_receivers):
        feeds[receiver, ends] = True
    reached = np.zeros(n, dtype=bool)
    reached[0] = True  # the embedding
    for sender in range(1, n):
        # Senders are in the order of writing, so what feeds one has been settled.
        inputs = circuit[:, feeds[:, sender]]
        reached[sender] = bool((inputs & reached[:, None]).any())
    leads = np.zeros(len(graph.receivers), dtype=bool)
    leads[-1] = True  # the logits
    useful = np.zeros(n, dtype=bool)
    for sender in reversed(range(n)):
        useful[sender] = bool((circuit[sender] & leads).any())
        if useful[sender]:
            leads |= feeds[:, sender]
    found: Bool[np.ndarray, "sender receiver"] = circuit & reached[:, None] & leads[None]
    return found


def largest_circuit(
    graph: Graph, order: Int64[np.ndarray, "edge 2"], size: int
) -> Bool[np.ndarray, "sender receiver"]:
    """The first edges of an order, as many as leave at most `size` on paths; the others dropped.

    The number on paths grows with the number of edges, so this is a search by halves.
    """

    def first(n: int) -> Bool[np.ndarray, "sender receiver"]:
        circuit = np.zeros_like(graph.exists)
        circuit[order[:n, 0], order[:n, 1]] = True
        return on_paths(graph, circuit)

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if first(middle).sum() <= size:
            low = middle
        else:
            high = middle - 1
    return first(low)


def _strength(graph: Graph, scores: pd.DataFrame) -> Float[np.ndarray, "sender receiver"]:
    require_frame(scores, "scores of edges")
    strength = graph.values(scores, "score")
    if np.isnan(strength[graph.exists]).any():
        raise ArgumentError(
            "The scores lack edges of this model; give those of all its edges, as edge_attribution returns."
        )
    return strength


def _sizes(graph: Graph, sizes: Sequence[int] | None) -> list[int]:
    every = int(graph.exists.sum())
    if sizes is None:
        between = np.geomspace(1, every, _N_SIZES).round().astype(int)
        return sorted({0, *between.tolist()})
    found = [whole_number(size, "size", 0) for size in sizes]
    if not found:
        raise ArgumentError("sizes=[] names no circuit; leave it out for about a dozen.")
    return sorted(set(found))
