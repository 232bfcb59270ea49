"""Marks of interventions: patches, attribution patching, swaps and cut edges of attention."""

import numpy as np
import pandas as pd

from interp.attention import knockout
from interp.biographies import Spans, Texts
from interp.compiled import CompiledRecall
from interp.interventions import (
    LOGIT_DIFFERENCE,
    Grid,
    attribution,
    patch,
    resolve_positions,
    swapped_people,
)
from interp.memory import SWAP_POSITIONS, swaps, whole_effect
from interp.trust.circuit import (
    LAST_NAME,
    VALUE,
    fact_layers,
    least_share,
    name_copying_heads,
    recalling_heads,
)
from interp.trust.contract import Mark, Measure

N_PAIRS = 12
"""Pairs of people whose texts are swapped."""
N_PEOPLE = 4
"""People on whose biographies edges are cut."""
POSITIONS = ("middle name", LAST_NAME, "type word", VALUE)
_EDGES = ("attribute_to_any_name", "name_to_name", "control")
_FOLLOWED = "share of swaps followed, absolute"


def _follows(compiled: CompiledRecall, grid: Grid) -> pd.DataFrame:
    pairs = swapped_people(compiled.corpus, n=N_PAIRS)
    table = patch(compiled.model, pairs, grid)
    return table[table["metric"] == "follows"]


def _heads(compiled: CompiledRecall) -> Mark:
    table = _follows(compiled, Grid("z", VALUE))
    own = table[table["change"] >= least_share(compiled)]
    found = set(zip(own["layer"].astype(int), own["head"].astype(int), strict=True))
    return Mark(set(recalling_heads(compiled).values()), found)


def _places(compiled: CompiledRecall) -> Mark:
    table = _follows(compiled, Grid("mlp_out", POSITIONS))
    built = {(layer, LAST_NAME) for layer in fact_layers(compiled)}
    cells = list(zip(table["layer"].astype(int), table["position"], strict=True))
    change = table["change"].to_numpy(float)
    expected = np.array([float(cell in built) for cell in cells])
    found = {cell for cell, one in zip(cells, change, strict=True) if one >= 0.5}
    return Mark(built, found, float(np.nanmean(np.abs(change - expected))), _FOLLOWED)


def _attribution(compiled: CompiledRecall) -> Mark:
    pairs = swapped_people(compiled.corpus, n=N_PAIRS)
    table = attribution(compiled.model, pairs, Grid(("z", "mlp_out"), (LAST_NAME, VALUE)))
    table = table[table["n"] > 0]
    whole = whole_effect(compiled.model, pairs, LOGIT_DIFFERENCE)
    units = table["head"].astype(object).where(table["head"].notna(), "all")
    columns = (table["site"], table["layer"].astype(int), units, table["position"])
    cells = list(zip(*columns, strict=True))
    built: set[tuple[object, ...]] = {
        ("z", *head, VALUE) for head in recalling_heads(compiled).values()
    }
    built |= {("z", *head, LAST_NAME) for head in name_copying_heads(compiled)}
    built |= {("mlp_out", layer, "all", LAST_NAME) for layer in fact_layers(compiled)}
    share = (table["approximate"] / whole).to_numpy(float)
    found = {c for c, one in zip(cells, share, strict=True) if one >= least_share(compiled)}
    error = float((table["error"] / whole).abs().mean())
    return Mark(built, found, error, "share of what names do, from exact patching, absolute")


def _swaps(compiled: CompiledRecall) -> Mark:
    pairs = swapped_people(compiled.corpus, n=N_PAIRS, place="first")
    table = swaps({0: compiled.model}, pairs={"first": pairs}, sites=("attn_out", "mlp_out"))
    table = table[table["n"] > 0]
    masks = resolve_positions(pairs, SWAP_POSITIONS)
    rows = np.arange(len(pairs))
    last = resolve_positions(pairs, LAST_NAME)[LAST_NAME].int().argmax(dim=1)
    # Kinds of positions may share a token: a type word may stand right before the value.
    at = {"mlp_out": last, "attn_out": pairs.read}
    does = {("mlp_out", layer) for layer in fact_layers(compiled)}
    does |= {("attn_out", layer) for layer, _ in recalling_heads(compiled).values()}
    cells = list(zip(table["site"], table["layer"].astype(int), table["position"], strict=True))
    expected = [
        float(masks[kind][rows, at[site]].float().mean()) if (site, layer) in does else 0.0
        for site, layer, kind in cells
    ]
    follows = table["follows"].to_numpy(float)
    built = {cell for cell, one in zip(cells, expected, strict=True) if one >= 0.5}
    found = {cell for cell, one in zip(cells, follows, strict=True) if one >= 0.5}
    return Mark(built, found, float(np.abs(follows - expected).mean()), _FOLLOWED)


def _knockout(compiled: CompiledRecall) -> Mark:
    batch = compiled.corpus.biographies(slice(0, N_PEOPLE))
    texts = Texts(batch.tokens, Spans.of(batch))
    table = knockout({0: compiled.model}, edges=_EDGES, texts=texts)
    everywhere = table[table["layer"].isna()].set_index("edge")["cost"]
    whole = float(everywhere["attribute_to_any_name"])
    single = table[table["head"].notna()]
    columns = (single["edge"], single["layer"].astype(int), single["head"].astype(int))
    share = dict(zip(zip(*columns, strict=True), single["cost"] / whole, strict=True))
    recalling = {("attribute_to_any_name", *head) for head in recalling_heads(compiled).values()}
    built = recalling | {("name_to_name", *head) for head in name_copying_heads(compiled)}
    found = {cell for cell, one in share.items() if one >= least_share(compiled)}
    error = abs(sum(share[cell] for cell in recalling) - 1)
    return Mark(
        built, found, error, "what recalling heads cost together - 1, share of the whole cost"
    )


MEASURES = (
    Measure(
        "patch z", "heads that recall",
        "swapping the head where a value is predicted turns at least 1 / (2 × attributes) of predictions",
        _heads,
    ),
    Measure(
        "patch mlp_out", "layer and position of facts",
        "swapping the MLP's output there turns at least half of all predictions", _places,
    ),
    Measure(
        "attribution", "heads that recall or put names together, layer and position of facts",
        "by its gradient, the swap changes the logit difference by at least 1 / (2 × attributes) of what "
        "swapping all name tokens does",
        _attribution,
    ),
    Measure(
        "swaps", "layers and kinds of tokens where facts are written and recalled",
        "at least half of predictions follow the swap", _swaps,
    ),
    Measure(
        "knockout", "heads that recall or put names together",
        "cutting the head's edge costs at least 1 / (2 × attributes) of cutting attention from values to "
        "names everywhere; what the control's edges cost so much is a false alarm",
        _knockout,
    ),
)  # fmt: skip
