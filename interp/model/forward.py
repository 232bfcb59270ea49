"""Forward passes for measuring: logits only where they are read, and the model left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.model.fused import final_residual, has_fused_forward


@contextmanager
def evaluating(model: TransformerLensModel) -> Iterator[None]:
    """Puts a model into eval mode, without gradients, and leaves it in the mode it was in."""
    module = cast(nn.Module, model)
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


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
    if not has_fused_forward(model):
        logits: Tensor = cast(nn.Module, model)(tokens)
        return logits[rows, positions]
    bridge = cast(TransformerBridge, model)
    residual = final_residual(bridge, tokens, bridge.W_E.dtype)
    read: Tensor = bridge.unembed(residual[rows, positions])
    return read
