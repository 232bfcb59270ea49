"""Attribution patching: the whole grid from one backward pass, and how far off it is.

To first order an edit changes the logit difference by the gradient of that difference with respect
to the activation, times the change of the activation. One forward and one backward pass give all
cells; how good the approximation is, only exact patching tells, so both stand side by side here. That,
batches of pairs and edits of other kinds are why it exists beside TransformerLens'
`tools.analysis.attribution_patching`, which it equals.
Source: Nanda 2023, "Attribution patching: activation patching at industrial scale"; Syed et al. 2023.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.interventions.edits import cell_means, edits_by_key, in_block
from interp.interventions.grid import Cell, Edit, Grid, Mean, Replace, given_values, grid_cells
from interp.interventions.memory_limit import blocks_of, budget
from interp.interventions.metrics import LOGIT_DIFFERENCE, METRICS, Answers
from interp.interventions.pairs import Pairs
from interp.interventions.patch import labelled, patch
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
    given = given_values(cells, edit, len(pairs))
    # A backward pass keeps what a forward pass does not.
    limit = budget(max_memory_gb, device) / 3
    blocks = blocks_of(model, pairs, {cell.key for cell in cells}, limit)
    changes = np.zeros((len(cells), len(pairs)))
    require_live_sites(model, [cell.key for cell in cells], pairs.base[:1], gradient=True)
    with measuring(model):
        if isinstance(edit, Mean):
            given = cell_means(model, pairs, cells, blocks)
        for block in blocks:
            part = [cell.of(block) for cell in cells], edit, in_block(given, block)
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
    keys = list(dict.fromkeys(cell.key for cell in cells))
    base, gradients = gradients_at(model, pairs, keys)
    source: dict[Key, Tensor] = {}
    if isinstance(edit, Replace) and edit.values is None:
        source = read_activations(model, pairs.source, keys)
    changes = np.zeros((len(cells), len(pairs)))
    for key, chosen, edits in edits_by_key(model, pairs, cells, edit, given, base, source):
        for number, index in enumerate(chosen):
            rows = (edits.cell == number).nonzero()[:, 0]
            if not len(rows):
                continue
            pair, place = edits.pair[rows], edits.place[rows]
            edited, unedited = edits.edited(rows), edits.of_own(rows)
            step = torch.where(edited == unedited, 0, edited - unedited)
            if not step.isfinite().all():
                raise ArgumentError(
                    f"The edit of {key[0]} sets scores to -∞, and a gradient says nothing about so large "
                    'a change. Use `patch`, or the site "pattern".'
                )
            moved = at_least_single(step) * gradients[key][pair[:, None], place]
            by_place = moved.flatten(2).sum(dim=2) if moved.ndim > 2 else moved
            # Shorter lists of positions repeat their first: it counts once.
            repeated = torch.zeros_like(place, dtype=torch.bool)
            repeated[:, 1:] = place[:, 1:] == place[:, :1]
            total = by_place.masked_fill(repeated, 0).sum(dim=1)
            changes[index, pair.cpu().numpy()] = total.double().cpu().numpy()
    return changes


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
    weights = [w for w in _module(model).parameters() if w.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with (
            torch.enable_grad(),
            hook_flags(model, [site for site, _ in keys]),
            _module(model).hooks(fwd_hooks=hooks),  # type: ignore[operator]
        ):
            logits = logits_at(model, pairs.base.clone(), rows.clone(), pairs.read.clone())
            answers = Answers(pairs.base_answer.clone(), pairs.source_answer.clone())
            total = METRICS[LOGIT_DIFFERENCE](at_least_single(logits), answers).sum()
            found = torch.autograd.grad(total, list(zeros.values()), allow_unused=True)
    finally:
        for weight in weights:
            weight.requires_grad_(True)
    gradients = {
        key: torch.zeros_like(zeros[key]) if gradient is None else gradient
        for key, gradient in zip(zeros, found, strict=True)
    }
    base, slopes = (
        {key: by_position(value, key[0]) for key, value in values.items()}
        for values in (activations, gradients)
    )
    return base, slopes


def _module(model: TransformerLensModel) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model
