"""Circuits: the graph of the strongest edges, and how much of the answer they keep."""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import Axis, Level, Look, curves, describe, rows
from interp.charts.layered import layered
from interp.charts.style import PALETTE
from interp.circuits import EDGE_COLUMNS
from interp.errors import InterpError, whole_number

_SYMBOLS = {
    "embed": "diamond", "head": "circle", "attn": "circle", "mlp": "square", "logits": "diamond",
}  # fmt: skip
_LOOKS = {
    "scores": Look(PALETTE["blue"], name="strongest edges"),
    "random": Look(PALETTE["grey"], dash="dash", symbol="square", name="random edges"),
}

_MOST_LEVELS = 24
"""Levels of a graph that are all drawn; of more, those that have a node."""


def circuit_graph(
    edges: pd.DataFrame, *, heads_per_group: int = 1, unit: str = "logits"
) -> go.Figure:
    """A circuit as a graph in layers: the embedding at the bottom, the logits on top.

    What to look for: the ways from the embedding to the logits that carry most, and by which input of a head.

    Args:
        edges: From `circuits.circuit_edges`: the edges to draw, with their `score`.
        heads_per_group: How many heads share keys and values, with grouped queries: edges to keys and values
            are then drawn to each of these heads that is in the circuit.
        unit: Of the scores.

    Raises:
        InterpError: a column is missing, or there is no edge.
    """
    heads_per_group = whole_number(heads_per_group, "heads_per_group", 1)
    found = rows(
        edges, [*EDGE_COLUMNS, "score"], "edges",
        numbers=("sender_layer", "sender_head", "receiver_layer", "receiver_head"),
    )  # fmt: skip
    if found.empty:
        raise InterpError(
            "The circuit has no edge on a path from the embedding to the logits; give a larger one."
        )
    senders = {
        (layer, head)
        for kind, layer, head in _of(found, "sender", "sender_layer", "sender_head")
        if kind == "head"
    }
    drawn = []
    for row in found.to_dict("records"):
        start = _node(row["sender"], row["sender_layer"], row["sender_head"])
        heads = [row["receiver_head"]]
        if row["receiver_input"] in ("k", "v") and heads_per_group > 1:
            first = int(row["receiver_head"]) * heads_per_group
            group = range(first, first + heads_per_group)
            heads = [h for h in group if (row["receiver_layer"], h) in senders] or [first]
        for head in heads:
            end = _node(row["receiver"], row["receiver_layer"], head)
            drawn.append((start, end, row["receiver_input"], float(row["score"])))
    table = pd.DataFrame(drawn, columns=["start", "end", "port", "score"])
    nodes = _nodes({*table["start"], *table["end"]})
    n_layers = max((int(layer) for _, layer, _ in nodes["node"] if layer is not None), default=-1)
    levels = {0: "embedding", 2 * n_layers + 3: "logits"}
    for layer in range(n_layers + 1):
        levels |= {2 * layer + 1: f"attention {layer}", 2 * layer + 2: f"MLP {layer}"}
    left_out = ""
    if len(levels) > _MOST_LEVELS:
        rank = {level: index for index, level in enumerate(sorted(nodes["level"].unique()))}
        nodes["level"] = nodes["level"].map(rank)
        levels = {rank[level]: name for level, name in levels.items() if level in rank}
        left_out = " Layers of which nothing is in the circuit are left out."
    figure = layered(
        table, nodes, value="score", unit=unit, levels=levels, ports=("q", "k", "v"),
        signs=(f"score above zero ({unit})", f"score below zero ({unit})"), what="edges",
    )  # fmt: skip
    largest = float(found["score"].abs().max())
    return describe(
        figure,
        f"A circuit of {len(found)} edges",
        f"""Edges along which senders (embedding, heads, MLPs) write what receivers read, from the
        embedding at the bottom to the logits on top; a head is named by its layer and number. The
        wider an edge, the more it changes the metric ({unit}) when it carries what its sender writes
        on the source; the widest stands for {largest:.2g}. Blue is above zero, orange below. A
        letter below a head says by which input an edge enters it: queries, keys or values. Look for
        the ways that carry most, and by which input of a head.{left_out}""",
    )


def faithfulness(table: pd.DataFrame) -> go.Figure:
    """The faithfulness of circuits by the number of their edges, and that of as many random edges.

    What to look for: how few edges keep most of the answer, and how far that is above random edges.

    Args:
        table: From `circuits.faithfulness_curve`, or several of them one below the other by `run`.

    Raises:
        InterpError: a column is missing, or there is no circuit of any edge.
    """
    wanted = ["circuit", "seed", "size", "faithfulness", "metric"]
    found = rows(table, wanted, "faithfulness", numbers=("seed", "size"))
    found = found[found["size"] > 0]
    if found.empty:
        raise InterpError("The table of faithfulness has no circuit with an edge to draw.")
    of_seeds = found.assign(seed=found["seed"].fillna(0).astype(int))
    if "run" in found:
        of_seeds["seed"] = of_seeds.groupby(["run", "seed"]).ngroup()
    figure = curves(
        of_seeds, x="size", y="faithfulness", line="circuit", looks=_LOOKS, seeds=True, marks=True,
        x_axis=Axis("edges of the circuit (at most)", "edges", ",.0f", "log", hover="edges"),
        axis=Axis("faithfulness (0 corrupted, 1 clean)"),
        levels=[Level("clean", 1.0), Level("corrupted", 0.0, dash="dashdot")], what="faithfulness",
    )  # fmt: skip
    n = found.loc[found["circuit"] == "random", "seed"].nunique()
    return describe(
        figure,
        "Faithfulness of circuits",
        f"""Where the metric is between the source's run (0) and the base's (1) when all edges
        outside of a circuit carry what their senders write on the source, by the number of its edges
        (logarithmic axis): the strongest edges, and {n} draws of random edges chosen in the same way
        (mean, and a band from the lowest to the highest). Below 0 and above 1 are possible. Look for
        how few edges keep most of the answer, and how far that is above random edges.""",
    )


def _of(table: pd.DataFrame, *columns: str) -> zip:  # type: ignore[type-arg]
    return zip(*(table[column] for column in columns), strict=True)


_Id = tuple[str, int | None, int | None]


def _node(kind: object, layer: object, head: object) -> _Id:
    numbers = [None if pd.isna(n) else int(n) for n in (layer, head)]  # type: ignore[call-overload]
    return str(kind), numbers[0], numbers[1]


def _nodes(used: set[_Id]) -> pd.DataFrame:
    """The nodes that are drawn: of each layer of attention the heads in order, about the middle."""
    top = max((layer for _, layer, _ in used if layer is not None), default=-1)
    places = {"embed": 0, "logits": 2 * top + 3}
    by_level: dict[int, list[_Id]] = {}
    for node in {*used, ("embed", None, None), ("logits", None, None)}:
        kind, layer, _ = node
        level = places[kind] if layer is None else 2 * layer + (2 if kind == "mlp" else 1)
        by_level.setdefault(level, []).append(node)
    found = []
    for level, nodes in sorted(by_level.items()):
        nodes.sort(key=lambda node: node[2] or 0)
        for index, (kind, layer, head) in enumerate(nodes):
            name = {
                "embed": "embed",
                "logits": "logits",
                "mlp": f"MLP {layer}",
                "attn": f"attn {layer}",
            }
            found.append(
                ((kind, layer, head), level, name.get(kind, f"{layer}.{head}"), _SYMBOLS[kind],
                 index - (len(nodes) - 1) / 2)
            )  # fmt: skip
    return pd.DataFrame(found, columns=["node", "level", "name", "symbol", "place"])
