"""Forward passes for measuring: logits only where they are read."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge.sources.native import NativeModel
from transformer_lens.model_protocol import TransformerLensModel


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode, without gradients, and leaves it in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def logits_at(
    model: TransformerLensModel,
    tokens: Int[Tensor, "batch position"],
    rows: Int[Tensor, " read"],
    positions: Int[Tensor, " read"],
) -> Float[Tensor, "read vocab"]:
    """The logits at chosen positions, as `model(tokens)[rows, positions]` gives them.

    A model of ours unembeds only those positions, which saves about half the work of a pass; its
    unembedding hooks see [read, ...] then. Any other model runs in full.
    """
    inner = getattr(model, "original_model", None)
    if not isinstance(inner, NativeModel):
        return model(tokens)[rows, positions]  # type: ignore[operator]
    residual = inner.tok_embed(tokens)
    place = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    if inner.pos is not None:
        residual = residual + inner.pos(place)
    for block in inner.layers:
        (residual,) = block(residual, position_ids=place)
    return inner.head(inner.ln_out(residual[rows, positions]))


def training_loss(model, tokens, *, pad_token: int, precision: str):
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model.original_model(tokens)
    targets = tokens[:, 1:].reshape(-1)
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=pad_token
    )
