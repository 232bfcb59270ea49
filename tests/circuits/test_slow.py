"""Circuits of trained models: what the gallery's tables say, on one seed (make test-slow)."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import interp
from interp.circuits import agreement, edge_attribution, exact_edges, faithfulness_curve
from interp.interventions import swapped_people
from interp.run import Run

GALLERY = Path(__file__).parents[2] / "artifacts" / "gallery"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("tiny") / "run"
    run = interp.train(interp.preset("tiny"), folder, progress=False)
    torch.set_num_threads(1)
    return run


@pytest.mark.slow
def test_attribution_finds_the_edges_of_a_trained_model(run: Run) -> None:
    model, pairs = run.model(), swapped_people(run.corpus, n=32)
    scores, exact = edge_attribution(model, pairs), exact_edges(model, pairs)
    found = agreement(scores, exact).iloc[0]
    assert found["spearman"] > 0.85
    assert found["pearson"] > 0.95
    curve = faithfulness_curve(model, pairs, scores, (0, 24, 110), n_random=5)
    by_circuit = curve[curve["size"] == 24].groupby("circuit")["faithfulness"]
    assert by_circuit.min()["scores"] > 0.6
    assert by_circuit.max()["random"] < 0.4


def test_the_committed_tables() -> None:
    """In every seed and by every metric: ranks agree, and the strongest edges keep more than random ones."""
    table = pd.read_csv(GALLERY / "circuits_agreement_tiny.csv")
    assert (table["spearman"] > 0.85).all()
    curves = pd.read_csv(GALLERY / "circuits_faithfulness_tiny.csv")
    own = curves[(curves["size"] == 32) & (curves["method"] == "EAP-IG-inputs")]
    for _, part in own.groupby(["seed", "metric"]):
        by_circuit = part.groupby("circuit")["faithfulness"]
        assert by_circuit.min()["scores"] > 0.85
        assert by_circuit.max()["random"] < 0.5
