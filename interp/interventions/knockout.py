"""Attention knockout: queries that may not look at some keys.

To knock out an edge from a query to a key is to set its attention to 0 and let the rest of the row
share the whole again, as a score of -∞ before the softmax does. Where heads can also attend to nothing
(an attention sink beside the tokens, as in GPT-OSS), the sink shares it too.

Source: Geva et al. 2023, "Dissecting recall of factual associations in auto-regressive language
models", section 5.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.model import at_least_single, pattern_hook, valid_indices
from interp.model.layout import has_attention_sink, require_wrapped
from interp.model.live import require_live
from interp.model.patterns import require_hooks


def without_keys(
    pattern: Float[Tensor, "*rows key"], keys: Bool[Tensor, "*#rows key"], *, sink: bool = False
) -> Float[Tensor, "*rows key"]:
    """Rows of attention without some keys; rows that paid them nothing keep their bits.

    With `sink`, what a row lacks to 1 goes to a sink, which keeps its part.
    """
    lost = (pattern * keys).sum(-1, keepdim=True) > 0
    return rescaled(pattern.masked_fill(keys, 0), lost, to_sink(pattern) if sink else None)


def to_sink(pattern: Float[Tensor, "*rows key"]) -> Float[Tensor, "*rows 1"]:
    """What rows of attention lack to 1: what goes to no token, but to the sink."""
    return (1 - at_least_single(pattern).sum(-1, keepdim=True)).clamp(min=0)


def rescaled(
    pattern: Float[Tensor, "*rows key"],
    where: Bool[Tensor, "*rows 1"],
    beside: Float[Tensor, "*rows 1"] | None = None,
) -> Float[Tensor, "*rows key"]:
    """Rows of attention that lost some, so that they add up to 1 again; empty ones stay 0.

    What is left is added up and divided in single precision at least. `beside` is what goes to a sink
    before, and shares the whole too.
    """
    exact = at_least_single(pattern)
    total = exact.sum(-1, keepdim=True)
    total = total if beside is None else total + beside
    return torch.where(where, (exact / total.masked_fill(total == 0, 1)).to(pattern.dtype), pattern)


@contextmanager
def cut_edges(
    model: TransformerLensModel,
    mask: Bool[Tensor, "batch query key"],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Iterator[TransformerLensModel]:
    """While this lasts, queries do not attend to the keys of a mask.

    The post-softmax pattern is set to 0 there (in all layers and heads by default) and the row divided by
    what is left of it; a row of which nothing is left stays 0. Rows that lose nothing keep their bits.

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
    require_wrapped(model)
    chosen_layers = valid_indices(layers, model.cfg.n_layers, "layer")
    chosen_heads = valid_indices(heads, model.cfg.n_heads, "head")
    names = {layer: pattern_hook(layer) for layer in chosen_layers}
    require_hooks(model, list(names.values()))
    require_live(model, list(names.values()))
    row, query = mask.any(dim=-1).nonzero(as_tuple=True)
    cut = partial(
        _cut,
        shape=tuple(mask.shape),
        row=row[:, None],
        query=query[:, None],
        head=torch.tensor(chosen_heads, device=mask.device),
        keys=mask[row, query][:, None],
    )
    hooks = [
        (name, partial(cut, sink=has_attention_sink(model, layer))) for layer, name in names.items()
    ]
    with cast(Any, model).hooks(fwd_hooks=hooks):
        yield model


def _cut(
    pattern: Float[Tensor, "batch head query key"],
    hook: Any,
    shape: tuple[int, ...],
    row: Tensor,
    query: Tensor,
    head: Tensor,
    keys: Bool[Tensor, "read 1 key_of_mask"],
    *,
    sink: bool,
) -> Float[Tensor, "batch head query key"]:
    needed = (len(pattern), *pattern.shape[2:])
    if shape != needed:
        raise ArgumentError(
            f"The mask of edges has the shape {shape}, but the pattern needs {needed}: [batch, query, key]."
        )
    left = without_keys(pattern[row, head, query], keys, sink=sink)  # [read head key]
    pattern = pattern.clone()
    pattern[row, head, query] = left
    return pattern
