"""Attention knockout: what recall costs when one token may not look at another.

To cut an edge from a query to a key is to set its attention to 0 and let the rest of the row share
the whole again, as a score of -∞ before the softmax does. If the model used what the edge carries,
its attribute loss rises.

Source: Geva et al. 2023, "Dissecting recall of factual associations in auto-regressive language
models", section 5 (there the edges of a window of layers are cut; here those of one head, one layer,
or all layers).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import AnyTexts, Spans, TokenKind, spans_of
from interp.errors import ArgumentError, suggest
from interp.knowledge import ValuePositions, n_values, summed_loss
from interp.model import at_least_single, evaluating, pattern_hook, valid_indices
from interp.model.live import require_live
from interp.model.patterns import require_hooks
from interp.progress import Progress, silent
from interp.series import AnySeries, Device, informative_steps, table_over_steps, texts_of

EDGES = ("attribute_to_name", "attribute_to_any_name", "name_to_name", "control")
"""The edges that can be cut, by name (see `edge_mask`)."""


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
        ArgumentError: an unknown edge.
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
        ArgumentError: a layer or head is out of range, a hook point is missing, or (from a forward
            pass) the mask has another shape than the pattern.

    Example:
        ```python
        mask = edge_mask(texts.spans, "attribute_to_name")
        with cut_edges(model, mask, layers=[1]):
            logits = model(texts.tokens)
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
        raise ArgumentError(
            f"The mask of edges has the shape {shape}, but the pattern needs "
            f"{(batch, n_queries, n_keys)}: [batch, query, key]."
        )
    left = at_least_single(pattern[row, head, query]).masked_fill(keys, 0)  # [read head key]
    total = left.sum(-1, keepdim=True)
    pattern = pattern.clone()
    pattern[row, head, query] = (left / total.masked_fill(total == 0, 1)).to(pattern.dtype)
    return pattern


def knockout_costs(
    model: TransformerLensModel,
    texts: AnyTexts,
    edges: Sequence[str] = EDGES,
    batch_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """What cutting edges costs a model on some texts. The model is left as it was.

    Args:
        model: Any TransformerLens model.
        texts: Texts or biographies, with values.
        edges: Which edges to cut, one kind at a time (see `edge_mask`).
        batch_size: Texts per forward pass.
        seed: Of the control's draw.

    Returns:
        Columns `edge`, `layer` (NA: all layers), `head` (NA: all heads), `loss` (attribute loss with
        the cut, in nats), `intact` (without it) and `cost` (loss - intact). A row for each edge and
        each single head, whole layer, and all layers together.

    Raises:
        ArgumentError: an unknown edge, none, texts without values, or a model without the hook points.
    """
    return _costs(model, texts, _masks(texts, edges, seed), batch_size)


def knockout(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    edges: Sequence[str] = EDGES,
    n_individuals: int | None = 128,
    batch_size: int = 64,
    device: Device = None,
    seed: int = 0,
    *,
    texts: AnyTexts | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """What cutting edges costs over training; of a run, on evaluation biographies.

    A run that was trained with patched attention is measured with the attention it was trained with;
    the edges of the patterns that it was given are cut.

    Args:
        series: A run, models by step, or another series (see `interp.series`).
        steps: Which checkpoints; by default those of `informative_steps`.
        edges: Which edges to cut, one kind at a time (see `edge_mask`).
        n_individuals: Of a run, on biographies of so many people; None for all.
        batch_size: Texts per forward pass.
        device: Where to compute; where the models are by default, those of a run on the CPU.
        seed: Of the control's draw.
        texts: What is read, in place of a run's biographies.
        workers: Processes of one thread each; see `series.over_steps`.
        progress: Told after each checkpoint.

    Returns:
        Columns `step`, then those of `knockout_costs`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ArgumentError: an unknown edge, or no step or edge is named.
    """
    _require_edges(edges)
    read = texts_of(series, texts, "evaluation", n_individuals)
    masks = _masks(read, edges, seed)
    chosen = informative_steps(series) if steps is None else steps
    return table_over_steps(
        series,
        lambda model: _costs(model, read, masks, batch_size),
        chosen,
        device,
        workers=workers,
        progress=progress,
    )


def _require_edges(edges: Sequence[str]) -> None:
    unknown = [edge for edge in edges if edge not in EDGES]
    if unknown:
        raise ArgumentError(
            f"There is no edge {unknown[0]!r}.{suggest(unknown[0], EDGES)} Edges: {', '.join(EDGES)}."
        )
    if not edges:
        raise ArgumentError(f"No edge is named; edges are {', '.join(EDGES)}.")


def _masks(
    texts: AnyTexts, edges: Sequence[str], seed: int
) -> dict[str, Bool[Tensor, "batch query key"]]:
    """The masks of all texts together, so that the control's draw does not depend on the batch size."""
    _require_edges(edges)
    return {edge: edge_mask(spans_of(texts), edge, seed) for edge in edges}


def _costs(
    model: TransformerLensModel,
    texts: AnyTexts,
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
    n = n_values(texts)
    parts: Iterable[AnyTexts] = texts.split(batch_size)
    with evaluating(model):
        for number, whole_part in enumerate(parts):
            part = whole_part.to(device)
            where = ValuePositions.of(part)
            intact += summed_loss(model, part, where) / n
            rows = slice(number * batch_size, (number + 1) * batch_size)
            width = part.tokens.shape[1]
            for edge, whole in masks.items():
                mask = whole[rows, :width, :width].to(device)
                for cell in cells:
                    layers, heads = (None if index is None else [index] for index in cell)
                    with cut_edges(model, mask, layers, heads):
                        loss = summed_loss(model, part, where)
                    losses[edge, cell] += loss / n
    table = pd.DataFrame(
        [(edge, *cell, loss, intact, loss - intact) for (edge, cell), loss in losses.items()],
        columns=["edge", "layer", "head", "loss", "intact", "cost"],
    )
    return table.astype({"layer": "Int64", "head": "Int64"})
