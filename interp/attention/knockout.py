"""Attention knockout: what recall costs when one token may not look at another.

If the model used what a cut edge carries (`interventions.cut_edges`), its attribute loss rises.

Two costs say nothing of what an edge carries. A head that looked nowhere else is sent elsewhere: the rest
of its row shares the whole, however small it was, and what it then carries may disturb (in compiled
models a head that copies words costs nats where its look at a name is cut, and nothing where its row is
set to 0). And the control's tokens may be words that the model reads (docs/trust.md).

Source: Geva et al. 2023, "Dissecting recall of factual associations in auto-regressive language
models", section 5 (there the edges of a window of layers are cut; here those of one head, one layer, a
window of layers, or all of them).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import AnyTexts, Spans, TokenKind, position_masks, spans_of
from interp.biographies.positions import drawn
from interp.errors import require_known
from interp.interventions import cut_edges, layers_around
from interp.knowledge import ValuePositions, n_values, summed_loss
from interp.model import measuring, require_numbers
from interp.model.layout import require_wrapped
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, informative_steps, table_over_steps, texts_of
from interp.torch_state import default_state

EDGES = ("attribute_to_name", "attribute_to_any_name", "name_to_name", "control")
"""The edges that can be cut, by name (see `edge_mask`)."""


@default_state()
def edge_mask(spans: Spans, edge: str, seed: int = 0) -> Bool[Tensor, "batch query key"]:
    """The edges of a kind, one of `EDGES`, as a mask; `seed` is of the control's draw.

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
    """
    require_known([edge], EDGES, "edge")
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


@default_state()
def knockout_costs(
    model: TransformerLensModel,
    texts: AnyTexts,
    edges: Sequence[str] = EDGES,
    batch_size: int = 64,
    seed: int = 0,
    window: int = 1,
) -> pd.DataFrame:
    """What cutting edges, one kind at a time, costs a model on texts with values.

    With a `window` of several layers, edges are cut in so many layers around each (`layers_around`), in all
    heads.

    Returns:
        Columns `edge`, `layer` (NA: all layers), `head` (NA: all heads), `loss` (attribute loss with
        the cut, in nats), `intact` (without it) and `cost` (loss - intact). A row for each edge and
        each single head, whole layer, and all layers together. With windows a row for each edge and layer,
        and all layers together, and a column `window` (its first and last layer, "3-12").
    """
    return _costs(model, texts, _masks(texts, edges, seed), batch_size, window)


@default_state()
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
    window: int = 1,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """What cutting edges costs over training: columns `step`, then those of `knockout_costs`.

    Read are `texts`, or of a run the evaluation biographies of `n_individuals` (None: all). Of a run that
    was trained with patched attention, the edges of the patterns that it was given are cut. Steps are
    those of `informative_steps` by default; other arguments and errors as `series.over_steps`. A run of
    the main job holds the table of 64 people already: `run.result("knockout", "costs")`.
    """
    require_known(edges, EDGES, "edge")
    read = texts_of(series, texts, "evaluation", n_individuals)
    steps = informative_steps(series) if steps is None else steps
    masks = _masks(read, edges, seed)
    measure = partial(_costs, texts=read, masks=masks, batch_size=batch_size, window=window)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


def _masks(
    texts: AnyTexts, edges: Sequence[str], seed: int
) -> dict[str, Bool[Tensor, "batch query key"]]:
    """The masks of all texts together, so that the control's draw does not depend on the batch size."""
    require_known(edges, EDGES, "edge")
    return {edge: edge_mask(spans_of(texts), edge, seed) for edge in edges}


def _costs(
    model: TransformerLensModel,
    texts: AnyTexts,
    masks: dict[str, Bool[Tensor, "batch query key"]],
    batch_size: int,
    window: int,
) -> pd.DataFrame:
    require_wrapped(model)
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    windows = {layer: layers_around(layer, window, n_layers) for layer in range(n_layers)}
    cells: list[tuple[int | None, int | None]] = [(None, None)]
    cells += product(range(n_layers), (None, *range(n_heads)) if window == 1 else (None,))
    losses = {(edge, cell): 0.0 for edge in masks for cell in cells}
    intact = 0.0
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    n = n_values(texts)
    parts: Iterable[AnyTexts] = texts.split(batch_size)
    with measuring(model):
        for number, part in enumerate(parts):
            part = part.to(device)
            where = ValuePositions.of(part)
            intact += summed_loss(model, part, where) / n
            rows = slice(number * batch_size, (number + 1) * batch_size)
            width = part.tokens.shape[1]
            for edge, whole in masks.items():
                mask = whole[rows, :width, :width].to(device)
                for cell in cells:
                    layers = None if cell[0] is None else windows[cell[0]]
                    heads = None if cell[1] is None else [cell[1]]
                    with cut_edges(model, mask, layers, heads):
                        loss = summed_loss(model, part, where)
                    losses[edge, cell] += loss / n
    require_numbers(intact, "logits")
    table = pd.DataFrame(
        [(edge, *cell, loss, intact, loss - intact) for (edge, cell), loss in losses.items()],
        columns=["edge", "layer", "head", "loss", "intact", "cost"],
    )
    table = table.astype({"layer": "Int64", "head": "Int64"})
    if window > 1:
        ends = {layer: f"{around[0]}-{around[-1]}" for layer, around in windows.items()}
        table.insert(2, "window", table["layer"].map(ends).astype("string"))
    return table
