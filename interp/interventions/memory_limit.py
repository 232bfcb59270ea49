"""How many prompts and cells are in memory at a time."""

import math
import os
from collections.abc import Iterable

import torch
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.interventions.pairs import Pairs
from interp.interventions.sites import Key, shape_at_position, site_named
from interp.model import has_fused_forward

_GIB = 2**30
_SHARE = 0.25  # of the free memory: others need some too
_ON_CPU = 0.125 * _GIB  # more rows at a time gain nothing there, and leave the caches
_FLOAT = 4


def budget(max_memory_gb: float | int | None, device: torch.device) -> float:
    """What activations may take, in bytes: the limit in GiB, or else a share of what is free."""
    if max_memory_gb is not None:
        if not isinstance(max_memory_gb, float | int) or not max_memory_gb > 0:
            raise ArgumentError(
                f"max_memory_gb={max_memory_gb!r} leaves no memory; give GiB above 0, or None for a "
                "share of what is free."
            )
        return float(max_memory_gb * _GIB)
    if device.type == "cuda":
        return _SHARE * torch.cuda.mem_get_info(device)[0]
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells
        free = _GIB
    return _SHARE * free


def blocks_of(
    model: TransformerLensModel, pairs: Pairs, keys: Iterable[Key], limit: float
) -> list[slice]:
    """The pairs in blocks of `pairs_at_a_time`."""
    size = pairs_at_a_time(model, pairs, keys, limit)
    return [slice(start, start + size) for start in range(0, len(pairs), size)]


def pairs_at_a_time(
    model: TransformerLensModel, pairs: Pairs, keys: Iterable[Key], limit: float
) -> int:
    """How many pairs' unpatched activations fit into half of the limit; at least one."""
    cfg, width = model.cfg, max(pairs.base.shape[1], pairs.source.shape[1])
    # Both runs hold the sites; the base also its stream, queries, keys and values, and one pass.
    of_sites = 2 * sum(math.prod(shape_at_position(model, site, width)) for site, _ in keys)
    stream = 6 * cfg.n_layers * cfg.d_model
    passing = 8 * cfg.d_model + 2 * (cfg.d_mlp or 4 * cfg.d_model) + 2 * cfg.n_heads * width
    return max(1, int(0.5 * limit / (_FLOAT * width * (of_sites + stream + passing))))


def rows_at_a_time(
    model: TransformerLensModel,
    width: int,
    read_to: int,
    limit: float,
    *,
    whole: bool,
    site: str | None = None,
) -> int:
    """How many edited runs may go through the model together; at least one.

    Each computes `width` positions and attends to `read_to`; `limit` is in bytes. `whole`: the logits of
    all positions are made. `site`: what is edited, where that may be wider than what is counted anyway. A
    model from elsewhere keeps the keys and values of its layers.
    """
    cfg = model.cfg
    each = 10 * cfg.d_model + 2 * (cfg.d_mlp or 4 * cfg.d_model) + 2 * cfg.n_heads * read_to
    if site is not None and site_named(site).flag:  # the stream once a head: own, edited, normed
        each += 3 * math.prod(shape_at_position(model, site, read_to))
    if not has_fused_forward(model):
        heads = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
        each += 2 * cfg.n_layers * heads * cfg.d_head
    vocabulary = 4 * cfg.d_vocab * (width if whole else 1)
    row = _FLOAT * (width * each + 4 * read_to * cfg.d_model + vocabulary)
    on_cpu = next(model.parameters()).device.type == "cpu"  # type: ignore[attr-defined]
    available = min(0.5 * limit, _ON_CPU) if on_cpu else 0.5 * limit
    return max(1, int(available / row))
