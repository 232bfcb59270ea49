"""Batched activation patching: a grid of edits, each measured on many pairs of prompts.

    pairs = swapped_people(run.corpus, n=64)
    table = patch(run.model(), pairs, sites=("resid_pre", "mlp_out"), positions=("last name", "name"))

Cells are put together into batches, and models of ours compute only what an edit changes (`suffix`).
Source: activation patching is Vig et al. 2020's causal mediation and Meng et al. 2022's causal
tracing; edits with the activation of another input are Geiger et al. 2021's interchange interventions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel
from transformers import PreTrainedTokenizerFast

from interp.interventions.cells import Cell, How, Units, given_values, grid_cells
from interp.interventions.edits import AttentionRules, Edits, cell_means
from interp.interventions.memory_limit import budget, pairs_at_a_time, rows_at_a_time
from interp.interventions.metrics import (
    Answers,
    Metric,
    Metrics,
    measured,
    resolve_metrics,
)
from interp.interventions.pairs import Pairs
from interp.interventions.positions import Positions
from interp.interventions.sites import (
    Key,
    read_activations,
    require_live_sites,
    site_named,
)
from interp.interventions.windowed import can_window, unpatched_runs
from interp.model import evaluating

DEFAULT_METRICS = ("log_probability", "logit_difference", "follows", "stays")


def patch(
    model: TransformerLensModel,
    pairs: Pairs,
    sites: str | Sequence[str] = "resid_pre",
    positions: Positions = ("last name", "predicts value"),
    layers: Sequence[int] | None = None,
    *,
    how: How = "replace",
    heads: Units = "each",
    neurons: Units = "all",
    keys: Positions | None = None,
    values: Mapping[Key, Tensor] | Tensor | None = None,
    metrics: Metrics = DEFAULT_METRICS,
    per_pair: bool = False,
    tokenizer: PreTrainedTokenizerFast | None = None,
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """Edits activations, one cell of a grid at a time, and measures what becomes of the prediction.

    The grid is sites x layers x heads (or groups of neurons) x positions. What an edit does (`how`):

    - "replace": the activation of the source at the corresponding position (those without one stay
      as they are); or `values`;
    - "add": the activation plus `values`, as in steering;
    - "mean": the mean over all pairs and positions of the cell; or `values`;
    - "zero": zero;
    - "cut": of attention patterns, no attention from `positions` to `keys`; the rest of the row
      shares the whole again (attention knockout).

    An edit that leaves an activation bit for bit as it was changes no bit of the result. The model is
    left as it was: same mode, no hook. Hooks that are on it take effect.

    Args:
        model: Any TransformerLens model; ours without hooks on them go the quick way.
        pairs: What is run, and what it is patched with.
        sites: Names out of `SITES`.
        positions: Position kinds by name, "each" for every position by itself, or masks by label.
        layers: Layers; all by default.
        how: What the edit does.
        heads: At sites with heads, "each" by itself, "all", some at once, or groups by label.
        neurons: The same for neurons.
        keys: Of a cut, the positions that cannot be attended to.
        values: What to use in place of the source's activations: one tensor for all sites, or by
            (site, layer); of the shape of the activation at one position, [unit...], or with one
            entry for each pair in front.
        metrics: Names out of `METRICS`, or functions by label.
        per_pair: Give a row for every pair, not their mean.
        tokenizer: Gives words for the labels of single positions.
        max_memory_gb: What activations may take, in GiB; found from the memory that is free by
            default.

    Returns:
        A row for every cell and metric. Columns `site`, `layer`, `head` and `neurons` (NA for the
        whole site), `position`, `metric`, `value` (mean over the pairs that have such a position, NaN
        without any), `unpatched` (the same mean without the edit), `n` (those pairs). With
        `per_pair`, `pair` in place of `n`, and no row for pairs without such a position.

    Raises:
        ArgumentError: an unknown site, position, metric or way of editing; a layer, head or neuron out
            of range; values missing or of a wrong shape; or a model without the hook points.

    Example:
        ```python
        heads = patch(model, pairs, "z", "predicts value", layers=[1])
        cut = patch(model, pairs, "pattern", "predicts value", how="cut", keys=["every name"])
        ```
    """
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    pairs = pairs.to(device)
    cells = grid_cells(model, pairs, sites, positions, layers, how, heads, neurons, keys, tokenizer)
    measures = resolve_metrics(metrics)
    given = given_values(cells, values, how, len(pairs))
    require_live_sites(model, [cell.key for cell in cells], pairs.base[:1])
    limit = budget(max_memory_gb, device)
    outcome = np.empty((len(measures), len(cells), len(pairs)))
    unpatched = np.empty((len(measures), len(pairs)))
    with evaluating(model):
        size = pairs_at_a_time(model, pairs, {cell.key for cell in cells}, limit)
        blocks = [slice(start, start + size) for start in range(0, len(pairs), size)]
        if how == "mean" and values is None:
            given = cell_means(model, pairs, cells, blocks)
        for block in blocks:
            part = [cell.of(block) for cell in cells]
            of_block = [v if v is None or len(v) == 1 else v[block] for v in given]
            unpatched[:, block], outcome[:, :, block] = _measure_block(
                model, pairs[block], part, how, of_block, measures, limit
            )
    return _table(cells, list(measures), outcome, unpatched, per_pair=per_pair)


def _measure_block(
    model: TransformerLensModel,
    pairs: Pairs,
    cells: Sequence[Cell],
    how: How,
    given: Sequence[Tensor | None],
    measures: Mapping[str, Metric],
    limit: float,
) -> tuple[Float[np.ndarray, "metric pair"], Float[np.ndarray, "metric cell pair"]]:
    """The metrics of some pairs without any edit, and with each."""
    keys = list(dict.fromkeys(cell.key for cell in cells))
    windowed = can_window(model)
    runs = unpatched_runs(model, pairs.base, pairs.read, keys)
    source: dict[Key, Tensor] = {}
    if how == "replace" and any(value is None for value in given):
        source = _read_sources(model, pairs, keys, runs.base)
    answers = Answers(pairs.base_answer, pairs.source_answer)
    plain = measured(measures, runs.unpatched(), answers)
    outcome = np.repeat(plain[:, None], len(cells), axis=1)
    rules = AttentionRules.of(model)
    for key in keys:
        chosen = [index for index, cell in enumerate(cells) if cell.key == key]
        edits = Edits(
            [cells[index] for index in chosen], pairs, how, runs.base[key], source.get(key),
            [given[index] for index in chosen], rules,
        )  # fmt: skip
        number = torch.tensor(chosen, device=edits.cell.device)
        for rows in _batches(model, pairs, edits, limit, windowed=windowed):
            edited = edits.edited(rows)
            # An edit that changes no bit is not run, and so changes none of the result either.
            changes = (edited != edits.of_own(rows)).flatten(1).any(dim=1)
            rows, edited = rows[changes], edited[changes]
            if not len(rows):
                continue
            pair = edits.pair[rows]
            logits = runs.logits(*key, pair, edits.place[rows], edited)
            found = measured(measures, logits, Answers(answers.base[pair], answers.source[pair]))
            outcome[:, number[edits.cell[rows]].cpu().numpy(), pair.cpu().numpy()] = found
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
    model: TransformerLensModel, pairs: Pairs, edits: Edits, limit: float, *, windowed: bool
) -> Iterator[Int64[Tensor, " row"]]:
    """Rows that go through the model together, those with the widest windows first."""
    read = pairs.read[edits.pair]
    width = read - edits.place[:, 0] + 1 if windowed else torch.full_like(read, pairs.base.shape[1])
    order = width.argsort(descending=True, stable=True)
    read_to = int(pairs.read.max()) + 1
    begin = 0
    while begin < len(order):
        widest = int(width[order[begin]])
        size = rows_at_a_time(model, widest, read_to, limit, whole=not windowed, site=edits.site)
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
            patched, plain = outcome[number, index, counted], unpatched[number, counted]
            if per_pair:
                found = zip(counted.tolist(), patched, plain, strict=True)
                rows += [(index, pair, measure, value, before) for pair, value, before in found]
            else:
                n = len(counted)
                means = [float(v.mean()) if n else np.nan for v in (patched, plain)]
                rows.append((index, measure, *means, n))
    columns = ["metric", "value", "unpatched"]
    columns = ["cell", "pair", *columns] if per_pair else ["cell", *columns, "n"]
    table = pd.DataFrame(rows, columns=columns)
    return labelled(cells).merge(table, left_index=True, right_on="cell").drop(columns="cell")


def labelled(cells: Sequence[Cell]) -> pd.DataFrame:
    """The labels of some cells: columns `site`, `layer`, `head`, `neurons`, `position`."""
    rows = []
    for cell in cells:
        unit = site_named(cell.site).unit
        group = None if cell.group is None else str(cell.group)
        of_unit = [group if unit == which else None for which in ("head", "neuron")]
        rows.append((cell.site, cell.layer, *of_unit, cell.position))
    table = pd.DataFrame(rows, columns=["site", "layer", "head", "neurons", "position"])
    return table.astype({"head": "string", "neurons": "string"})
