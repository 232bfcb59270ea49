"""Attention knockout: what recall costs when one token may not look at another.

If the model used what a cut edge carries (`interventions.cut_edges`), its attribute loss rises.

Source: Geva et al. 2023, "Dissecting recall of factual associations in auto-regressive language
models", section 5 (there the edges of a window of layers are cut; here those of one head, one layer,
or all layers).
"""

from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import AnyTexts, Spans, TokenKind, position_masks, spans_of
from interp.biographies.positions import drawn
from interp.errors import ArgumentError, suggest
from interp.interventions import cut_edges
from interp.knowledge import ValuePositions, n_values, summed_loss
from interp.model import evaluating
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
    if edge == "name_to_name":
        row, sentence = (spans.name_end > 0).nonzero(as_tuple=True)
        position = spans.name_end[row, sentence]
        mine = spans.sentence[row] == sentence[:, None]
        keys = spans.is_kind(TokenKind.NAME)[row] & mine & (places < position[:, None])
    else:
        row, position = spans.predicts_value.nonzero(as_tuple=True)
        read = Spans(spans.kind[row], spans.sentence[row])
        kind = "name" if edge == "attribute_to_name" else "every name"
        keys = position_masks(read, kind, position)[kind]
    keys[:, 0] = False
    if edge == "control":
        possible = ~read.is_kind(TokenKind.NAME, TokenKind.TYPE) & (places < position[:, None])
        possible[:, 0] = False
        keys = drawn(possible, keys.sum(1), seed)
    mask = torch.zeros(len(spans), width, width, dtype=torch.bool, device=keys.device)
    mask[row, position] = keys
    return mask


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
