"""Figures of circuits, and the kind of chart that they are drawn by."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from interp import plots
from interp.charts.layered import layered
from interp.circuits.edges import Graph
from interp.circuits.faithfulness import edge_order, largest_circuit
from interp.errors import InterpError
from interp.plots.circuits import circuit_graph, faithfulness


@pytest.fixture
def circuit() -> pd.DataFrame:
    """Of three layers of four heads that share keys and values in pairs."""
    graph = Graph(3, 4, 2, "heads", True, (False,) * 3, False, True)
    scores = np.random.default_rng(0).normal(size=graph.exists.shape)
    table = graph.table(
        score=scores, kept=largest_circuit(graph, edge_order(graph, scores, "greedy"), 30)
    )
    return table[table["kept"]].drop(columns="kept")


def test_a_graph_has_every_edge(circuit: pd.DataFrame) -> None:
    figure = circuit_graph(circuit, heads_per_group=2)
    told = {text for trace in figure.data if trace.name == "edges" for text in trace.customdata}
    shared = circuit["receiver_input"].isin(["k", "v"])
    assert len(circuit) <= len(told) <= len(circuit) + shared.sum()
    assert any("→ logits" in text for text in told)
    nodes = next(trace for trace in figure.data if trace.name == "nodes")
    assert {"embed", "logits"} <= set(nodes.text)
    assert min(nodes.y) == 0
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert {trace.name.split(" (")[0] for trace in lines} == {
        "score above zero",
        "score below zero",
    }
    assert plots.caption(figure)
    read = pd.read_csv(StringIO(circuit.to_csv(index=False)))
    assert len(circuit_graph(read, heads_per_group=2).data) == len(figure.data)


def test_faithfulness_has_a_band() -> None:
    rows = [
        {"circuit": kind, "seed": seed, "size": size, "faithfulness": size / 10 + (seed or 0) / 20,
         "metric": "m"}
        for kind, seeds in (("scores", [None]), ("random", [0, 1]))
        for seed in seeds for size in (0, 1, 10)
    ]  # fmt: skip
    figure = faithfulness(pd.DataFrame(rows))
    names = [trace.name for trace in figure.data]
    assert "strongest edges" in names
    assert any("range" in name for name in names)
    with pytest.raises(InterpError, match="no circuit"):
        faithfulness(pd.DataFrame(rows)[:1])


def test_what_cannot_be_drawn(circuit: pd.DataFrame) -> None:
    with pytest.raises(InterpError, match="no edge"):
        circuit_graph(circuit[:0])
    with pytest.raises(InterpError, match="score"):
        circuit_graph(circuit.drop(columns="score"))
    nodes = pd.DataFrame({"node": ["a"], "level": 0, "name": "a", "symbol": "circle", "place": 0})
    edges = pd.DataFrame({"start": ["a"], "end": ["b"], "value": 1.0})
    with pytest.raises(InterpError, match="none of the nodes"):
        layered(edges, nodes)
