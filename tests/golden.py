"""The losses of the smoke run that are on file: which they are, and how far a run is from them."""

import json
from pathlib import Path

from interp.biographies import ATTRIBUTES
from interp.run import Run

GOLDEN = Path(__file__).parent / "golden_losses.json"
N_STEPS = 20
TOLERANCE = 1e-4  # relative; other processors add up in another order
CUDA_TOLERANCE = 1e-3  # a GPU's kernels do so in every product, and 20 updates let it grow


def golden_losses(run: Run) -> dict[str, list[float]]:
    """Training losses of the first steps (nats per token); attribute losses (nats) by step."""
    found = {"training loss": run.curve("loss", "train").iloc[:N_STEPS].tolist()}
    for split in ("train", "evaluation", "held_out"):
        for attribute in ("all", *ATTRIBUTES):
            curve = run.curve("attribute_loss", split, attribute)
            found[f"{split} {attribute}"] = curve[curve.index <= N_STEPS].tolist()
    return found


def largest_difference(losses: dict[str, list[float]]) -> float:
    """How far losses are from those on file, at most; relative to these."""
    golden = json.loads(GOLDEN.read_text())
    return max(
        abs(one - other) / abs(other)
        for name, values in golden.items()
        for one, other in zip(losses[name], values, strict=True)
    )
