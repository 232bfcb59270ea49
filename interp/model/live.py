"""Whether an edit at a hook point can have an effect.

TransformerLens wraps many architectures without computing their attention itself, and then shows some
values (a pattern, say) only after they have been used: an edit there is thrown away. A hook point may
also never be passed. Both would give the unpatched result, and nobody would know.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.model.forward import evaluating
from interp.model.fused import has_fused_forward


def dead_hooks(
    model: TransformerLensModel, names: Sequence[str], tokens: Int[Tensor, "batch position"]
) -> list[str]:
    """The hook points on whose values the logits do not depend.

    A zero is added at every hook point, and the logits are differentiated with respect to it: where
    they have no gradient, not even one of 0, the value is not used. One forward and one backward pass.

    Args:
        model: Any TransformerLens model; it is left as it was.
        names: Names of hook points.
        tokens: Something to read.
    """
    zeros: dict[str, Tensor] = {}

    def add_zero(value: Tensor, hook: Any, name: str) -> Tensor:
        zeros[name] = torch.zeros_like(value, requires_grad=True)
        return value + zeros[name]

    hooks = [(name, partial(add_zero, name=name)) for name in dict.fromkeys(names)]
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        with cast(Any, model).hooks(fwd_hooks=hooks):
            logits: Tensor = cast(nn.Module, model)(tokens.clone())
        if not zeros:  # no point was passed
            return list(names)
        points = list(zeros)
        found = torch.autograd.grad(logits.sum(), [zeros[n] for n in points], allow_unused=True)
    used = {name for name, gradient in zip(points, found, strict=True) if gradient is not None}
    return [name for name in names if name not in used]


def require_live(
    model: TransformerLensModel,
    names: Sequence[str],
    tokens: Int[Tensor, "batch position"] | None = None,
) -> None:
    """Checks that edits at some hook points have an effect.

    Models of ours need no check: all of their hook points are live.

    Args:
        model: Any TransformerLens model.
        names: Names of hook points.
        tokens: Something to read; a few token ids by default.

    Raises:
        ArgumentError: the model has used a value before its hook point sees it, or never passes it.
    """
    if not names or has_fused_forward(model):
        return
    if tokens is None:
        device = next(cast(nn.Module, model).parameters()).device
        tokens = torch.arange(min(4, model.cfg.n_ctx, model.cfg.d_vocab), device=device)[None]
    dead = dead_hooks(model, names, tokens)
    if dead:
        kind = getattr(model.cfg, "architecture", None) or type(model).__name__
        raise ArgumentError(
            f"An edit at {dead[0]!r} has no effect in this model ({kind}): TransformerLens shows the value "
            "there after the model has used it, or the model never passes that point. Edit what comes "
            "next instead: attn_out or z in place of a pattern, scores, queries or keys."
        )
