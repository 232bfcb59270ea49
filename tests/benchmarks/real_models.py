"""Patching a real model: `patch` against whole passes by plain hooks on the original, on the same cells.

    INTERP_WEIGHTS=FOLDER python -m tests.benchmarks.real_models

16 pairs of capitals on SmolLM2-135M, 30 layers by 6 positions by 3 sites. The whole passes are made for one
cell of ten and scaled up; their results are compared. Times are of the processor, on one thread.
"""

# ruff: noqa: T201 - a program that prints

import time

import pandas as pd
import torch
from torch import Tensor

import interp
from interp.interventions import LOGIT_DIFFERENCE, Grid, Pairs, patch
from tests.architectures import Original
from tests.benchmarks.memory import peak_mb
from tests.test_real_models import FACTS, WORDING, loaded
from tests.weights import real_weights

SITES = ("resid_pre", "z", "mlp_out")
EVERY = 10
MAX_MEMORY_GB = 2


def real_models(n_pairs: int = 16) -> None:
    """Processor seconds and peak memory of the grid, and of whole passes on every tenth cell."""
    torch.set_num_threads(1)
    model = interp.load_model(real_weights("smollm2"))
    facts = interp.Facts.from_table(FACTS, model.tokenizer, {"capital": WORDING})
    pairs = facts.those_known(model).pairs()[:n_pairs]
    grid = Grid(SITES, "each", heads="all", aligned=True)
    before, started = peak_mb(), time.process_time()
    table = patch(
        model, pairs, grid, metrics=LOGIT_DIFFERENCE, per_pair=True, max_memory_gb=MAX_MEMORY_GB
    )
    ours, peak = time.process_time() - started, peak_mb()
    n_cells = len(SITES) * model.cfg.n_layers * pairs.base.shape[1]
    print(
        f"{len(pairs)} pairs, {n_cells} cells: patch {ours:.1f} s of the processor; peak {peak:.0f} MB, "
        f"{peak - before:.0f} MB above that with the model loaded (max_memory_gb={MAX_MEMORY_GB})",
        flush=True,
    )
    keys = ["site", "layer", "position"]
    by_cell = dict(list(table.groupby(keys, sort=False)))
    chosen = list(by_cell)[::EVERY]
    original = Original("Llama", loaded("smollm2"))
    started = time.process_time()
    streams = {
        (site, layer): original.read(pairs.source, (site, layer))[0]
        for site, layer in dict.fromkeys(key[:2] for key in chosen)
    }
    of_sources = time.process_time() - started
    started, worst = time.process_time(), 0.0
    for site, layer, position in chosen:
        found = by_cell[site, layer, position]
        expected = _whole_pass(original, pairs, site, layer, _place(position), streams[site, layer])
        worst = max(worst, _apart(found, expected))
    plain = (time.process_time() - started) * len(by_cell) / len(chosen)
    print(
        f"whole passes by plain hooks: {len(chosen)} cells, scaled {plain:.1f} s (sources {of_sources:.1f} s "
        f"aside), {plain / ours:.1f} times; largest difference {worst:.1e} logits"
    )


def _place(position: str) -> int:
    return int(position.split(" ")[0])


@torch.no_grad()
def _whole_pass(
    original: Original, pairs: Pairs, site: str, layer: int, place: int, source: Tensor
) -> Tensor:
    """The logit difference of each pair with one position of one site replaced."""
    there = pairs.source_position[:, place]
    rows = torch.arange(len(pairs))

    def replace(value: Tensor) -> Tensor:
        value = value.clone()
        value[there >= 0, place] = source[rows, there][there >= 0]
        return value

    with original.at(site, layer, replace):
        logits = original(pairs.base)[rows, pairs.read]
    difference: Tensor = logits[rows, pairs.source_answer] - logits[rows, pairs.base_answer]
    return difference


def _apart(found: pd.DataFrame, expected: Tensor) -> float:
    values = expected.double().numpy()[found["pair"].to_numpy()]
    return float(abs(found["value"].to_numpy() - values).max())


if __name__ == "__main__":
    real_models()
