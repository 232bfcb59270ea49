"""Measures with known answers in a compiled model: heads that recall, and where facts are."""

import numpy as np
import pandas as pd

from interp.attention import attention_to_names, head_roles
from interp.biographies import Spans, Texts
from interp.compiled import CompiledRecall
from interp.interventions import Grid, patch, swapped_people
from interp.trust.contract import Mark, Measure

N_PAIRS = 96
"""Pairs of people whose texts are swapped."""
POSITIONS = ("middle name", "last name", "type word", "predicts value")


def _recalling(compiled: CompiledRecall) -> set[tuple[int, int]]:
    heads = compiled.key.heads.query("role == 'recalls'")
    return set(zip(heads["layer"], heads["head"], strict=True))


def _roles(compiled: CompiledRecall) -> Mark:
    n_people = compiled.config.population.n_individuals
    batch = compiled.corpus.biographies(slice(0, n_people))
    texts = Texts(batch.tokens, Spans.of(batch))
    roles = head_roles(attention_to_names({0: compiled.model}, texts=texts))
    own = roles[roles["role"] == "extraction"]
    return Mark(_recalling(compiled), set(zip(own["layer"], own["head"], strict=True)))


def _follows(compiled: CompiledRecall, grid: Grid) -> pd.DataFrame:
    pairs = swapped_people(compiled.corpus, n=N_PAIRS)
    table = patch(compiled.model, pairs, grid)
    return table[table["metric"] == "follows"]


def _heads(compiled: CompiledRecall) -> Mark:
    table = _follows(compiled, Grid("z", "predicts value"))
    least = 0.5 / len(compiled.key.facts["attribute"].unique())
    own = table[table["change"] >= least]
    return Mark(
        _recalling(compiled),
        set(zip(own["layer"].astype(int), own["head"].astype(int), strict=True)),
    )


def _places(compiled: CompiledRecall) -> Mark:
    table = _follows(compiled, Grid("mlp_out", POSITIONS))
    built = {
        (int(layer.split()[1]), "last name")
        for layer in map(str, compiled.key.facts["layer"])
        if layer.startswith("MLP")
    }
    cells = list(zip(table["layer"].astype(int), table["position"], strict=True))
    change = table["change"].to_numpy(float)
    expected = np.array([float(cell in built) for cell in cells])
    found = {cell for cell, one in zip(cells, change, strict=True) if one >= 0.5}
    error = float(np.abs(change - expected).mean())
    return Mark(built, found, error, "share of swaps followed, absolute")


MEASURES = (
    Measure(
        "head_roles", "heads that recall", "head_roles calls the head 'extraction'", _roles
    ),
    Measure(
        "patch z", "heads that recall",
        "swapping the head where a value is predicted turns at least 1 / (2 × attributes) of predictions",
        _heads,
    ),
    Measure(
        "patch mlp_out", "layer and position of facts",
        "swapping the MLP's output there turns at least half of all predictions", _places,
    ),
)  # fmt: skip
"""The measures that are marked, in the order of the table."""
