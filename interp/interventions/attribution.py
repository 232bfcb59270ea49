"""Attribution patching: the whole grid from one backward pass, and how far off it is.

To first order an edit changes the logit difference by the gradient of that difference with respect
to the activation, times the change of the activation. One forward and one backward pass give all
cells; how good the approximation is, only exact patching tells, so both stand side by side here. That,
batches of pairs and edits of other kinds are why it exists beside TransformerLens'
`tools.analysis.attribution_patching`, which it equals.
Source: Nanda 2023, "Attribution patching: activation patching at industrial scale"; Syed et al. 2023.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.interventions.edits import Edits, cell_means, edits_by_key, in_block
from interp.interventions.grid import Cell, Edit, Grid, Mean, Replace, given_values, grid_cells
from interp.interventions.hooked import Hooked
from interp.interventions.memory_limit import blocks_of, budget, rows_at_a_time
from interp.interventions.metrics import LOGIT_DIFFERENCE, METRICS, Answers
from interp.interventions.pairs import Pairs
from interp.interventions.patch import edited_keys, labelled, patch
from interp.interventions.sites import (
    Key,
    by_position,
    hook_flags,
    read_activations,
    require_live_sites,
    site_named,
)
from interp.model import (
    at_least_single,
    logits_at,
    measuring,
    of_this_thread,
    require_normal_weights,
)
from interp.model.layout import require_wrapped
from interp.model.patterns import require_hooks
from interp.torch_state import default_state


@default_state()
def attribution(
    model: TransformerLensModel,
    pairs: Pairs,
    grid: Grid,
    *,
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """The change of the logit difference by each cell of a grid: exact, and by its gradient.

    Of a grid of windows, the layers' values go to the edited ones together, and what a layer would have
    passed on of earlier changes is left out where its values are set, as in the exact edit. That takes a
    backward pass for each cell.

    The logit difference is that of the source's answer minus that of the base's. Arguments and errors are
    those of `patch`; the model is left as it was, without gradients on its weights.

    Returns:
        A row for every cell. The columns of `patch` up to `token`, then `exact` (the change of the
        mean logit difference, in logits), `approximate` (by the gradient), `error` (approximate -
        exact) and `n` (pairs that have such a position).

    Example:
        ```python
        table = attribution(model, pairs[:1], Grid(("z", "mlp_out"), positions="each"))
        table[["exact", "approximate"]].corr()
        ```
    """
    require_wrapped(model)
    require_normal_weights(_module(model))
    exact = patch(model, pairs, grid, metrics=LOGIT_DIFFERENCE, max_memory_gb=max_memory_gb)
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    pairs = pairs.to(device)
    cells, edit = grid_cells(model, pairs, grid), grid.what
    parts = [part for cell in cells for part in cell.parts]
    given = given_values(parts, edit, len(pairs))
    # A backward pass keeps what a forward pass does not.
    limit = budget(max_memory_gb, device) / 3
    blocks = blocks_of(model, pairs, edited_keys(cells), limit)
    changes = np.zeros((len(cells), len(pairs)))
    require_live_sites(model, edited_keys(cells), pairs.base[:1], gradient=True)
    with measuring(model):
        if isinstance(edit, Mean):
            given = cell_means(model, pairs, parts, blocks)
        for block in blocks:
            part = [cell.of(block) for cell in cells], edit, in_block(given, block)
            if any(len(cell.window) > 1 for cell in cells):
                changes[:, block] = _changes_of_windows(model, pairs[block], *part, limit)
            else:
                changes[:, block] = _changes(model, pairs[block], *part)
    counted = [cell.mask.any(dim=1).cpu().numpy() for cell in cells]
    approximate = [
        float(change[rows].mean()) if rows.any() else np.nan
        for change, rows in zip(changes, counted, strict=True)
    ]
    table = labelled(cells).assign(exact=exact["change"], approximate=approximate)
    return table.assign(error=table["approximate"] - table["exact"], n=exact["n"])


def _changes(
    model: TransformerLensModel,
    pairs: Pairs,
    cells: Sequence[Cell],
    edit: Edit,
    given: Sequence[Tensor | None],
) -> Float[np.ndarray, "cell pair"]:
    """The change of each pair's logit difference by each cell, to first order."""
    keys = edited_keys(cells)
    base, gradients = gradients_at(model, pairs, keys)
    source: dict[Key, Tensor] = {}
    if isinstance(edit, Replace) and edit.values is None:
        source = read_activations(model, pairs.source, keys)
    changes = np.zeros((len(cells), len(pairs)))
    for chosen, by_layer in edits_by_key(model, pairs, cells, edit, given, base, source):
        key, edits = next(iter(by_layer.items()))
        for number, index in enumerate(chosen):
            rows = (edits.cell == number).nonzero()[:, 0]
            if not len(rows):
                continue
            pair, place = edits.pair[rows], edits.place[rows]
            moved = at_least_single(_step(edits, rows)) * gradients[key][pair[:, None], place]
            by_place = moved.flatten(2).sum(dim=2) if moved.ndim > 2 else moved
            total = by_place.masked_fill(edits.is_repeated(rows), 0).sum(dim=1)
            changes[index, pair.cpu().numpy()] = total.double().cpu().numpy()
    return changes


def _changes_of_windows(
    model: TransformerLensModel,
    pairs: Pairs,
    cells: Sequence[Cell],
    edit: Edit,
    given: Sequence[Tensor | None],
    limit: float,
) -> Float[np.ndarray, "cell pair"]:
    """`_changes` of cells that edit several layers: by the derivative on the way from base to edit.

    A layer whose values are set passes on nothing of what earlier edits have changed, so the gradients of
    single layers do not add up. Each cell is run in the base with its values `t` of the way to the
    edited ones, and differentiated at `t` = 0.
    """
    runs = Hooked(model, pairs.base.clone(), pairs.read.clone(), edited_keys(cells))
    source: dict[Key, Tensor] = {}
    if isinstance(edit, Replace) and edit.values is None:
        source = read_activations(model, pairs.source, edited_keys(cells))
    answers = Answers(pairs.base_answer.clone(), pairs.source_answer.clone())
    width = pairs.base.shape[1]
    changes = np.zeros((len(cells), len(pairs)))
    for chosen, by_layer in edits_by_key(model, pairs, cells, edit, given, runs.base, source):
        (site, _), edits = next(iter(by_layer.items()))
        size = rows_at_a_time(model, width, width, limit, whole=True, site=site)
        for rows in torch.arange(len(edits), device=edits.cell.device).split(size):
            pair, place = edits.pair[rows], edits.place[rows]
            with _frozen(model), torch.enable_grad():
                t = torch.zeros(len(rows), device=rows.device, requires_grad=True)
                on_the_way = {
                    key: partial(_part_of_the_way, edits=layer, rows=rows, t=t)
                    for key, layer in by_layer.items()
                }
                logits = runs.logits_of_window(on_the_way, pair, place)
                total = METRICS[LOGIT_DIFFERENCE](at_least_single(logits), answers[pair]).sum()
                slopes = torch.autograd.grad(total, t)[0].double().cpu().numpy()
            cell = torch.tensor(chosen, device=rows.device)[edits.cell[rows]]
            changes[cell.cpu().numpy(), pair.cpu().numpy()] = slopes
    return changes


def _part_of_the_way(
    now: Float[Tensor, "row edited *unit"], edits: Edits, rows: Tensor, t: Float[Tensor, " row"]
) -> Float[Tensor, "row edited *unit"]:
    """An activation that has gone the part `t` from what it is in the base to what an edit makes of it."""
    own = edits.of_own(rows)
    start = torch.where(edits.is_kept(rows, own), now, own)
    aside = [1] * (own.ndim - 1)
    moved = start + t.to(own.dtype).view(-1, *aside) * _step(edits, rows)
    repeated = edits.is_repeated(rows)
    return torch.where(repeated.view(*repeated.shape, *aside[1:]), moved.detach(), moved)


def _step(edits: Edits, rows: Tensor) -> Float[Tensor, "row edited *unit"]:
    """What an edit adds to the activation of the base."""
    edited, own = edits.edited(rows), edits.of_own(rows)
    step = torch.where(edited == own, 0, edited - own)
    if not step.isfinite().all():
        raise ArgumentError(
            f"The edit of {edits.site} sets scores to -∞, and a gradient says nothing about so large "
            'a change. Use `patch`, or the site "pattern".'
        )
    return step


def gradients_at(
    model: TransformerLensModel, pairs: Pairs, keys: Sequence[Key]
) -> tuple[dict[Key, Tensor], dict[Key, Tensor]]:
    """Activations of the bases, and the gradient of the logit difference with respect to them.

    Position second and unit third, as everywhere here. In logits per unit of activation.
    """
    activations: dict[Key, Tensor] = {}
    zeros: dict[Key, Tensor] = {}

    def add_zero(activation: Tensor, hook: Any, key: Key) -> Tensor:
        # Hook points may show views, which keep no gradient: that of an added zero is the same. At
        # resid_mid it is added in place, as the stream may go past its hook point (see `Hooked`).
        activations[key] = activation.detach().clone()
        zeros[key] = torch.zeros_like(activation, requires_grad=True)
        if key[0] == "resid_mid":
            return activation.add_(zeros[key])
        return activation + zeros[key]

    names = [site_named(site).hook_name(layer) for site, layer in keys]
    require_hooks(model, names)
    hooks = of_this_thread(
        (name, partial(add_zero, key=key)) for name, key in zip(names, keys, strict=True)
    )
    rows = torch.arange(len(pairs), device=pairs.read.device)
    with (
        _frozen(model),
        torch.enable_grad(),
        hook_flags(model, [site for site, _ in keys]),
        _module(model).hooks(fwd_hooks=hooks),  # type: ignore[operator]
    ):
        logits = logits_at(model, pairs.base.clone(), rows.clone(), pairs.read.clone())
        answers = Answers(pairs.base_answer.clone(), pairs.source_answer.clone())
        total = METRICS[LOGIT_DIFFERENCE](at_least_single(logits), answers).sum()
        found = torch.autograd.grad(total, list(zeros.values()), allow_unused=True)
    gradients = {
        key: torch.zeros_like(zeros[key]) if gradient is None else gradient
        for key, gradient in zip(zeros, found, strict=True)
    }
    base, slopes = (
        {key: by_position(value, key[0]) for key, value in values.items()}
        for values in (activations, gradients)
    )
    return base, slopes


@contextmanager
def _frozen(model: TransformerLensModel) -> Iterator[None]:
    """While this lasts, no weight takes a gradient."""
    weights = [w for w in _module(model).parameters() if w.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _module(model: TransformerLensModel) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model
