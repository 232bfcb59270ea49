"""Draws the gallery's figures from finished runs in artifacts/ (needs a Chrome or Chromium)."""

from pathlib import Path

import pandas as pd

import interp
from interp.experiments import fit_of
from interp.phases import DELTA

GALLERY = Path(__file__).parent


def main() -> None:
    """Writes every figure as SVG beside this file."""
    run = interp.Run.load(GALLERY.parent / "tiny_seed0")
    table = pd.read_csv(GALLERY / "scaling_table.csv")
    figures = {
        "learning_curves": interp.plots.learning_curves(run),
        "known_and_held_out": interp.plots.known_and_held_out(run),
        "scaling": interp.plots.scaling(table[table["delta"] == DELTA], fit_of(table)),
    }
    for name, figure in figures.items():
        # White paper: on a dark page a transparent figure's labels would be hard to read.
        figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
        figure.write_image(GALLERY / f"{name}.svg", width=860, height=figure.layout.height or 520)


if __name__ == "__main__":
    main()
