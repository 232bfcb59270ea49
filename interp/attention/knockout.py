"""Attention knockout: what recall costs when one token may not look at another.

To cut an edge from a query to a key is to set its attention to 0 and let the rest of the row share
the whole again, as a score of -∞ before the softmax does. If the model used what the edge carries,
its attribute loss rises.

Source: Geva et al. 2023, "Dissecting recall of factual associations in auto-regressive language
models", section 5 (there the edges of a window of layers are cut; here those of one head, one layer,
or all layers).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.attention.checkpoints import table_over_steps
from interp.attention.spans import Spans
from interp.biographies import ATTRIBUTES, Batch, TokenKind
from interp.errors import ConfigError, RunError, suggest
from interp.knowledge import ValuePositions, split_batch, summed_loss
from interp.model import evaluating, pattern_hook, valid_indices
from interp.model.live import require_live
from interp.model.patterns import require_hooks
from interp.progress import Progress, silent
from interp.run import Run

EDGES = ("attribute_to_name", "attribute_to_any_name", "name_to_name", "control")
"""The edges that can be cut, by name (see `edge_mask`)."""
_N_STEPS = 8  # how many checkpoints `informative_steps` aims at


def edge_mask(spans: Spans, edge: str, seed: int = 0) -> Bool[Tensor, "batch query key"]:
    """The edges of a name, as a mask.

    - `attribute_to_name`: from every position that predicts a token of a value to the name tokens of
      the value's sentence;
    - `attribute_to_any_name`: from the same positions to these and all earlier name tokens;
    - `name_to_name`: from the last name token of each sentence to the other tokens of that name (in
      the last layer this costs nothing unless that token itself predicts a value: nobody else can
      read what it gathers there);
    - `control`: from the positions of `attribute_to_any_name` to as many tokens as it cuts (or as
      there are), drawn from those that hold neither a name nor words that tell the attribute, and
      never the first token or the position itself.

    As in the attention scores, position 0 is the first token and not part of a name.

    Args:
        spans: What the tokens are.
        edge: One of `EDGES`.
        seed: Of the control's draw.

    Raises:
        ConfigError: an unknown edge.
    """
    _require_edges([edge])
    width = spans.kind.shape[1]
    places = torch.arange(width, device=spans.kind.device)
    is_name = spans.is_kind(TokenKind.NAME)
    name = is_name & (places > 0)
    attendable = places <= places[:, None]
    if edge == "name_to_name":
        row, sentence = (spans.name_end > 0).nonzero(as_tuple=True)
        position = spans.name_end[row, sentence]
        mine = spans.sentence[row] == sentence[:, None]
        keys = name[row] & mine & (places < position[:, None])
    else:
        row, position = spans.predicts_value.nonzero(as_tuple=True)
        keys = name[row] & attendable[position]
        if edge == "attribute_to_name":
            keys &= spans.sentence[row] == spans.next_sentence[row, position][:, None]
        if edge == "control":
            telling = is_name | spans.is_kind(TokenKind.TYPE)
            possible = attendable[position] & ~telling[row] & (places != position[:, None])
            possible[:, 0] = False
            generator = torch.Generator().manual_seed(seed)
            draw = torch.rand(keys.shape, generator=generator).to(keys.device)
            rank = draw.masked_fill(~possible, -1).argsort(1, descending=True).argsort(1)
            keys = possible & (rank < keys.sum(1, keepdim=True))
    mask = torch.zeros(len(spans), width, width, dtype=torch.bool, device=keys.device)
    mask[row, position] = keys
    return mask


@contextmanager
def cut_edges(
    model: TransformerLensModel,
    mask: Bool[Tensor, "batch query key"],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Iterator[TransformerLensModel]:
    """While this lasts, queries do not attend to the keys of a mask.

    The post-softmax pattern is set to 0 there and the row divided by what is left of it; a row of
    which nothing is left stays 0. Rows without a cut keep their bits.

    Args:
        model: Any TransformerLens model.
        mask: True where an edge is cut; forward passes have its batch and positions.
        layers: Layers to cut in; all by default.
        heads: Heads to cut in each of them; all by default.

    Raises:
        ConfigError: a layer or head is out of range, a hook point is missing, or (from a forward
            pass) the mask has another shape than the pattern.

    Example:
        ```python
        mask = edge_mask(Spans.of(batch), "attribute_to_name")
        with cut_edges(model, mask, layers=[1]):
            logits = model(batch.tokens)
        ```
    """
    chosen_layers = valid_indices(layers, model.cfg.n_layers, "layer")
    chosen_heads = valid_indices(heads, model.cfg.n_heads, "head")
    names = [pattern_hook(layer) for layer in chosen_layers]
    require_hooks(model, names)
    require_live(model, names)
    row, query = mask.any(dim=-1).nonzero(as_tuple=True)
    cut = partial(
        _cut,
        shape=tuple(mask.shape),
        row=row[:, None],
        query=query[:, None],
        head=torch.tensor(chosen_heads, device=mask.device),
        keys=mask[row, query][:, None],
    )
    with cast(Any, model).hooks(fwd_hooks=[(name, cut) for name in names]):
        yield model


def _cut(
    pattern: Float[Tensor, "batch head query key"],
    hook: Any,
    shape: tuple[int, ...],
    row: Tensor,
    query: Tensor,
    head: Tensor,
    keys: Bool[Tensor, "read 1 key_of_mask"],
) -> Float[Tensor, "batch head query key"]:
    batch, _, n_queries, n_keys = pattern.shape
    if shape != (batch, n_queries, n_keys):
        raise ConfigError(
            f"The mask of edges has the shape {shape}, but the pattern needs "
            f"{(batch, n_queries, n_keys)}: [batch, query, key]."
        )
    left = pattern[row, head, query].masked_fill(keys, 0)  # [read head key]
    total = left.sum(-1, keepdim=True)
    pattern = pattern.clone()
    pattern[row, head, query] = left / total.masked_fill(total == 0, 1)
    return pattern


def knockout_costs(
    model: TransformerLensModel,
    batch: Batch,
    edges: Sequence[str] = EDGES,
    batch_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """What cutting edges costs a model on some biographies. The model is left as it was.

    Args:
        model: Any TransformerLens model over the corpus's tokens.
        batch: The biographies.
        edges: Which edges to cut, one kind at a time (see `edge_mask`).
        batch_size: Biographies per forward pass.
        seed: Of the control's draw.

    Returns:
        Columns `edge`, `layer` (NA: all layers), `head` (NA: all heads), `loss` (attribute loss with
        the cut, in nats), `intact` (without it) and `cost` (loss - intact). A row for each edge and
        each single head, whole layer, and all layers together.

    Raises:
        ConfigError: an unknown edge, none, or a model without the hook points.
    """
    return _costs(model, batch, _masks(batch, edges, seed), batch_size)


def knockout(
    run: Run,
    steps: Sequence[int] | None = None,
    edges: Sequence[str] = EDGES,
    n_individuals: int | None = 128,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """What cutting edges costs over a run's training, on evaluation biographies.

    A run that was trained with patched attention is measured with the attention it was trained with;
    the edges of the patterns that it was given are cut.

    Args:
        run: The run.
        steps: Which checkpoints; by default those of `informative_steps`.
        edges: Which edges to cut, one kind at a time (see `edge_mask`).
        n_individuals: On biographies of so many people; None for all.
        batch_size: Biographies per forward pass.
        device: Where to compute; the CPU by default.
        seed: Of the control's draw.
        workers: Processes of one thread each; see `attention.checkpoints.over_steps`.
        progress: Told after each checkpoint.

    Returns:
        Columns `step`, then those of `knockout_costs`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ConfigError: an unknown edge, or no step or edge is named.
    """
    batch = split_batch(run.corpus, "evaluation", n_individuals)
    masks = _masks(batch, edges, seed)
    chosen = informative_steps(run) if steps is None else steps
    return table_over_steps(
        run,
        lambda model: _costs(model, batch, masks, batch_size),
        chosen,
        device,
        workers=workers,
        progress=progress,
    )


def informative_steps(run: Run) -> list[int]:
    """About eight checkpoints that show a run's course.

    The first; those nearest to the end of the statistics phase, the middle of the plateau, its end,
    one and a half times, twice and three times that; the last. Where the run has not left its
    plateau, the rest evenly spaced between the phases that it has and the last.

    Raises:
        RunError: the run has no checkpoint yet.
    """
    steps = run.steps
    if not steps:
        raise RunError(f"{run.path} has no checkpoint yet; train it with --resume.")
    statistics_end, plateau_end = None, None
    if not run.metrics.empty:
        statistics_end, plateau_end = run.phases.statistics_end, run.phases.plateau_end
    targets: list[float] = [steps[0], steps[-1]]
    begins = steps[0] if statistics_end is None else statistics_end
    if plateau_end is None:
        targets += list(np.linspace(begins, steps[-1], _N_STEPS - 1))
    else:
        targets += [begins, (begins + plateau_end) / 2]
        targets += [factor * plateau_end for factor in (1, 1.5, 2, 3)]
    return sorted({min(steps, key=lambda step: abs(step - target)) for target in targets})


def _require_edges(edges: Sequence[str]) -> None:
    unknown = [edge for edge in edges if edge not in EDGES]
    if unknown:
        raise ConfigError(
            f"There is no edge {unknown[0]!r}.{suggest(unknown[0], EDGES)} Edges: {', '.join(EDGES)}."
        )
    if not edges:
        raise ConfigError(f"No edge is named; edges are {', '.join(EDGES)}.")


def _masks(
    batch: Batch, edges: Sequence[str], seed: int
) -> dict[str, Bool[Tensor, "batch query key"]]:
    """The masks of a whole batch, so that the control's draw does not depend on the batch size."""
    _require_edges(edges)
    return {edge: edge_mask(Spans.of(batch), edge, seed) for edge in edges}


def _costs(
    model: TransformerLensModel,
    batch: Batch,
    masks: dict[str, Bool[Tensor, "batch query key"]],
    batch_size: int,
) -> pd.DataFrame:
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    cells: list[tuple[int | None, int | None]] = [(None, None)]
    for layer in range(n_layers):
        cells += [(layer, None), *((layer, head) for head in range(n_heads))]
    losses = {(edge, cell): 0.0 for edge in masks for cell in cells}
    intact = 0.0
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    n_values = len(batch) * len(ATTRIBUTES)
    with evaluating(model):
        for number, part in enumerate(batch.split(batch_size)):
            part = part.to(device)
            where = ValuePositions.of(part)
            intact += summed_loss(model, part, where) / n_values
            rows = slice(number * batch_size, (number + 1) * batch_size)
            width = part.tokens.shape[1]
            for edge, whole in masks.items():
                mask = whole[rows, :width, :width].to(device)
                for cell in cells:
                    layers, heads = (None if index is None else [index] for index in cell)
                    with cut_edges(model, mask, layers, heads):
                        loss = summed_loss(model, part, where)
                    losses[edge, cell] += loss / n_values
    table = pd.DataFrame(
        [(edge, *cell, loss, intact, loss - intact) for (edge, cell), loss in losses.items()],
        columns=["edge", "layer", "head", "loss", "intact", "cost"],
    )
    return table.astype({"layer": "Int64", "head": "Int64"})
