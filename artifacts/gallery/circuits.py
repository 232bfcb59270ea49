"""Finds the circuits of finished runs and writes the gallery's tables and figures of them.

    python artifacts/gallery/circuits.py artifacts/tiny_seed0 artifacts/tiny_seed1 artifacts/tiny_seed2

How attribution agrees with exact edge patching, what the strongest edges keep of the answer against random
ones, and when edges come to stay; with their figures. The runs are those of `tiny_seeds.csv`; some four
minutes a run on one thread.
"""

import argparse
from pathlib import Path

import pandas as pd

from interp.circuits import (
    KL_DIVERGENCE,
    agreement,
    circuit_edges,
    circuits_over_steps,
    edge_attribution,
    edge_emergence,
    exact_edges,
    faithfulness_curve,
)
from interp.files import write_text
from interp.interventions import LOGIT_DIFFERENCE, swapped_people
from interp.plots.circuits import circuit_graph, faithfulness
from interp.run import Run

GALLERY = Path(__file__).parent
N_PAIRS, N_RANDOM, TOP = 48, 10, 15
SIZES = (0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 110)
METHODS = {"EAP": 1, "EAP-IG-inputs": 5, "clean-corrupted": 1}


def measure(run: Run) -> dict[str, pd.DataFrame]:
    """The tables of a run: `agreement`, `faithfulness` and `emergence`."""
    model, pairs = run.model(), swapped_people(run.corpus, n=N_PAIRS)
    agreements, curves = [], []
    for metric in (LOGIT_DIFFERENCE, KL_DIVERGENCE):
        exact = exact_edges(model, pairs, metric=metric)
        for method, steps in METHODS.items():
            if metric == KL_DIVERGENCE and method == "EAP":
                continue  # it has no gradient at the base
            scores = edge_attribution(model, pairs, method, steps, metric=metric)
            agreements.append(agreement(scores, exact).assign(method=method, metric=metric))
            curve = faithfulness_curve(
                model, pairs, scores, SIZES, metric=metric, n_random=N_RANDOM
            )
            curves.append(curve.assign(method=method))
        best = exact.rename(columns={"exact": "score"})
        curve = faithfulness_curve(model, pairs, best, SIZES, metric=metric, n_random=0)
        curves.append(curve.assign(method="exact"))
    table = circuits_over_steps(run, pairs[:16])
    found = {
        "agreement": pd.concat(agreements),
        "faithfulness": pd.concat(curves).rename(columns={"seed": "draw"}),
        "emergence": edge_emergence(table, TOP),
    }
    return {name: table.assign(seed=run.config.seed) for name, table in found.items()}


def draw(run: Run, curves: pd.DataFrame) -> None:
    """The figures: the circuit of the first run, and the faithfulness of all of them."""
    model, pairs = run.model(), swapped_people(run.corpus, n=N_PAIRS)
    scores = edge_attribution(model, pairs)
    figures = {"circuit_tiny": circuit_graph(circuit_edges(model, scores, 24))}
    own = curves[(curves["method"] == "EAP-IG-inputs") & (curves["metric"] == LOGIT_DIFFERENCE)]
    own = own.rename(columns={"seed": "run", "draw": "seed"})
    figures["circuit_faithfulness_tiny"] = faithfulness(own)
    for name, figure in figures.items():
        # White paper, as the other figures of the gallery.
        figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
        figure.write_image(GALLERY / f"{name}.svg", width=860, height=figure.layout.height or 520)


def main() -> None:
    """Writes `circuits_*_tiny.csv` and two figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    runs = [Run.load(folder) for folder in parser.parse_args().runs]
    tables = [measure(run) for run in runs]
    for name in tables[0]:
        whole = pd.concat([table[name] for table in tables], ignore_index=True)
        text = whole.to_csv(index=False, float_format="%.4g")
        write_text(GALLERY / f"circuits_{name}_tiny.csv", text)
        tables[0][name] = whole
    draw(runs[0], tables[0]["faithfulness"])


if __name__ == "__main__":
    main()
