"""Batched activation patching: a grid of edits, each measured on many pairs of prompts.

    pairs = swapped_people(run.corpus, n=64)
    grid = Grid(("resid_pre", "mlp_out"), positions="each")
    table = patch(run.model(), pairs[:1], grid)
    as_array(table, "position", site="resid_pre", value="change")    # [layer, position]

Cells are put together into batches, and models of ours compute only what an edit changes (`windowed`).
That, memory that is bounded, and edits of other kinds are why this is not a loop over
`transformer_lens.patching`, which it equals.
Source: activation patching is Vig et al. 2020's causal mediation and Meng et al. 2022's causal
tracing; edits with the activation of another input are Geiger et al. 2021's interchange interventions.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel
from transformers import PreTrainedTokenizerFast

from interp.interventions.edits import Edits, cell_means, edits_by_key, in_block
from interp.interventions.grid import (
    Cell,
    Edit,
    Grid,
    Mean,
    Replace,
    given_values,
    grid_cells,
)
from interp.interventions.hooked import Hooked
from interp.interventions.memory_limit import blocks_of, budget, rows_at_a_time
from interp.interventions.metrics import (
    LOGIT_DIFFERENCE,
    Answers,
    Metric,
    Metrics,
    measured,
    resolve_metrics,
)
from interp.interventions.pairs import Pairs
from interp.interventions.positions import require_alike, single_position
from interp.interventions.sites import Key, read_activations, require_live_sites, site_named
from interp.interventions.windowed import WindowedForward, unpatched_runs
from interp.model import measuring, require_numbers
from interp.model.layout import require_wrapped
from interp.torch_state import default_state

DEFAULT_METRICS = ("log_probability", LOGIT_DIFFERENCE, "follows", "stays")


@default_state()
def patch(
    model: TransformerLensModel,
    pairs: Pairs,
    grid: Grid,
    *,
    metrics: Metrics = DEFAULT_METRICS,
    per_pair: bool = False,
    tokenizer: PreTrainedTokenizerFast | None = None,
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """Edits activations, one cell of a grid at a time, and measures what becomes of the prediction.

    An edit that leaves an activation bit for bit as it was changes no bit of the result. The model is
    left as it was: same mode, no hook. Hooks that are on it take effect.

    Args:
        model: Any TransformerLens model; ours without hooks on them go the quick way.
        pairs: What is run, and what it is patched with.
        grid: Which activations are edited, and how.
        metrics: Names out of `METRICS`, or functions by label.
        per_pair: Give a row for every pair, not their mean.
        tokenizer: Gives words for the labels of single positions.
        max_memory_gb: What activations may take, in GiB; found from the memory that is free by
            default.

    Returns:
        A row for every cell and metric. Columns `site`, `layer`; of a grid of windows, `window` (the first
        and the last layer of it, "3-12", around `layer`); `head`, `neuron` (whole numbers, NA
        unless a single one is edited), `group` (the label of several heads or neurons, else NA);
        `position` (a label; of a knockout "from → to"), `token` (the place of a single position, else
        NA); `metric`, `value` (mean over the pairs that have such a position, NaN without any),
        `unpatched` (the same mean without the edit), `change` (value - unpatched), `n` (those pairs).
        With `per_pair`, `pair` in place of `n`, and no row for pairs without such a position.

    Raises:
        ArgumentError: an unknown name, a number out of range, values missing or of a wrong shape, a
            model without the hook points, or a mean at single positions over pairs in which they hold
            unlike tokens.

    Example:
        ```python
        heads = patch(model, pairs, Grid("z", "predicts value", layers=[1]))
        cut = patch(model, pairs, Grid("pattern", "predicts value", edit=Knockout("every name")))
        ```
    """
    require_wrapped(model)
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    pairs = pairs.to(device)
    cells, edit = grid_cells(model, pairs, grid, tokenizer), grid.what
    if not (per_pair or grid.aligned) and grid.each_position:
        require_alike(pairs)
    measures = resolve_metrics(metrics)
    parts = [part for cell in cells for part in cell.parts]
    given = given_values(parts, edit, len(pairs))
    require_live_sites(model, [part.key for part in parts], pairs.base[:1])
    limit = budget(max_memory_gb, device)
    outcome = np.empty((len(measures), len(cells), len(pairs)))
    unpatched = np.empty((len(measures), len(pairs)))
    with measuring(model):
        blocks = blocks_of(model, pairs, {part.key for part in parts}, limit)
        if isinstance(edit, Mean):
            given = cell_means(model, pairs, parts, blocks)
        for block in blocks:
            part = [cell.of(block) for cell in cells], edit, in_block(given, block)
            unpatched[:, block], outcome[:, :, block] = _measure_block(
                model, pairs[block], *part, measures, limit
            )
    return _table(cells, list(measures), outcome, unpatched, per_pair=per_pair)


def _measure_block(
    model: TransformerLensModel,
    pairs: Pairs,
    cells: Sequence[Cell],
    edit: Edit,
    given: Sequence[Tensor | None],
    measures: Mapping[str, Metric],
    limit: float,
) -> tuple[Float[np.ndarray, "metric pair"], Float[np.ndarray, "metric cell pair"]]:
    """The metrics of some pairs without any edit, and with each."""
    keys = edited_keys(cells)
    several = any(len(cell.window) > 1 for cell in cells)
    runs = unpatched_runs(model, pairs.base, pairs.read, keys, several=several)
    source: dict[Key, Tensor] = {}
    if isinstance(edit, Replace) and edit.values is None:
        source = _read_sources(model, pairs, keys, runs.base)
    return measure_cells(model, pairs, cells, edit, given, runs, source, measures, limit)


def edited_keys(cells: Sequence[Cell]) -> list[Key]:
    """The sites and layers that some cells edit."""
    return list(dict.fromkeys(part.key for cell in cells for part in cell.parts))


def measure_cells(
    model: TransformerLensModel,
    pairs: Pairs,
    cells: Sequence[Cell],
    edit: Edit,
    given: Sequence[Tensor | None],
    runs: WindowedForward | Hooked,
    source: Mapping[Key, Tensor],
    measures: Mapping[str, Metric],
    limit: float,
) -> tuple[Float[np.ndarray, "metric pair"], Float[np.ndarray, "metric cell pair"]]:
    """The metrics of some pairs without any edit, and with each, from their unpatched runs."""
    windowed = isinstance(runs, WindowedForward)
    answers = Answers(pairs.base_answer, pairs.source_answer)
    unpatched = runs.unpatched()
    require_numbers(unpatched, "logits")
    plain = measured(measures, unpatched, answers)
    outcome = np.repeat(plain[:, None], len(cells), axis=1)
    for chosen, by_layer in edits_by_key(model, pairs, cells, edit, given, runs.base, source):
        key, edits = next(iter(by_layer.items()))
        number = torch.tensor(chosen, device=edits.cell.device)
        for rows in _batches(
            model, pairs, edits, limit, windowed=windowed, whole=not runs.reads_only
        ):
            # An edit that changes no bit is not run, and so changes none of the result either.
            changes = torch.zeros_like(rows, dtype=torch.bool)
            for layer in by_layer.values():
                edited = layer.edited(rows)
                changes |= (edited != layer.of_own(rows)).flatten(1).any(dim=1)
            rows = rows[changes]
            if not len(rows):
                continue
            pair, place = edits.pair[rows], edits.place[rows]
            if len(by_layer) == 1:
                logits = runs.logits(*key, pair, place, edited[changes])
            else:
                in_pass = {at: partial(layer.edited, rows) for at, layer in by_layer.items()}
                logits = runs.logits_of_window(in_pass, pair, place)
            cell = number[edits.cell[rows]].cpu().numpy()
            outcome[:, cell, pair.cpu().numpy()] = measured(measures, logits, answers[pair])
    return plain, outcome


def _read_sources(
    model: TransformerLensModel, pairs: Pairs, keys: Sequence[Key], base: Mapping[Key, Tensor]
) -> dict[Key, Tensor]:
    """The activations of the sources; of a source that is its base, those of the base.

    The bases are run no further than to the position that is read, and on some processors products of
    other widths differ in their last bits; an identity patch has to change none.
    """
    source = read_activations(model, pairs.source, keys)
    if pairs.source.shape != pairs.base.shape:
        return source
    same = (pairs.source == pairs.base).all(dim=1)
    for key, activation in source.items():
        region: tuple[Any, ...] = (same, *(slice(length) for length in base[key].shape[1:]))
        activation[region] = base[key][same].to(activation.dtype)
    return source


def _batches(
    model: TransformerLensModel,
    pairs: Pairs,
    edits: Edits,
    limit: float,
    *,
    windowed: bool,
    whole: bool,
) -> Iterator[Int64[Tensor, " row"]]:
    """Rows that go through the model together, those with the widest windows first."""
    read = pairs.read[edits.pair]
    width = read - edits.place[:, 0] + 1 if windowed else torch.full_like(read, pairs.base.shape[1])
    order = width.argsort(descending=True, stable=True)
    read_to = int(pairs.read.max()) + 1
    begin = 0
    while begin < len(order):
        widest = int(width[order[begin]])
        size = rows_at_a_time(model, widest, read_to, limit, whole=whole, site=edits.site)
        yield order[begin : begin + size]
        begin += size


def _table(
    cells: Sequence[Cell],
    measures: Sequence[str],
    outcome: Float[np.ndarray, "metric cell pair"],
    unpatched: Float[np.ndarray, "metric pair"],
    *,
    per_pair: bool,
) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for index, cell in enumerate(cells):
        counted = np.flatnonzero(cell.mask.any(dim=1).cpu().numpy())
        for number, measure in enumerate(measures):
            both = outcome[number, index, counted], unpatched[number, counted]
            if per_pair:
                values = zip(counted.tolist(), *both, strict=True)
                rows += [(index, pair, measure, *pair_values) for pair, *pair_values in values]
            else:
                means = [float(v.mean()) if len(counted) else np.nan for v in both]
                rows.append((index, measure, *means, len(counted)))
    columns = ["metric", "value", "unpatched"]
    columns = ["cell", "pair", *columns] if per_pair else ["cell", *columns, "n"]
    table = pd.DataFrame(rows, columns=columns)
    place = columns.index("unpatched") + 1
    table.insert(place, "change", table["value"] - table["unpatched"])
    return labelled(cells).merge(table, left_index=True, right_on="cell").drop(columns="cell")


def labelled(cells: Sequence[Cell]) -> pd.DataFrame:
    """The labels of some cells: the columns of `patch` up to `token`."""
    rows = []
    masks = {id(cell.mask): cell.mask for cell in cells}
    tokens = {key: single_position(mask) for key, mask in masks.items()}
    for cell in cells:
        unit = site_named(cell.site).unit
        units = [cell.unit if unit == which else None for which in ("head", "neuron")]
        place = cell.position, tokens[id(cell.mask)]
        rows.append((cell.site, cell.layer, *units, cell.group, *place))
    columns = ["site", "layer", "head", "neuron", "group", "position", "token"]
    types = {"head": "Int64", "neuron": "Int64", "group": "string", "token": "Int64"}
    table = pd.DataFrame(rows, columns=columns).astype(types)
    if any(cell.window for cell in cells):
        windows = [f"{cell.window[0]}-{cell.window[-1]}" for cell in cells]
        table.insert(2, "window", pd.Series(windows, dtype="string"))
    return table
