"""Whether an edit at a hook point can have an effect.

TransformerLens wraps many architectures without computing their attention itself, and then shows some
values (a pattern, say) only after they have been used: an edit there is thrown away. A hook point may
also never be passed. Both would give the unpatched result, and nobody would know.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.model.forward import measuring, of_this_thread
from interp.model.fused import has_fused_forward
from interp.torch_state import default_state


@default_state()
def dead_hooks(
    model: TransformerLensModel,
    names: Sequence[str],
    tokens: Int[Tensor, "batch position"],
    *,
    gradient: bool = False,
) -> list[str]:
    """The hook points on whose values the logits do not depend.

    A zero is added at every hook point, and the logits are differentiated with respect to it: where
    they have a gradient, be it one of 0, the value is used. One forward and one backward pass. Where
    they have none, as somebody may have detached the values, noise is added instead, in a pass of its
    own: the value is used if any logit changes.

    Args:
        model: Any TransformerLens model; it is left as it was.
        names: Hook points.
        tokens: Something to read.
        gradient: Only a gradient counts.
    """
    names = list(dict.fromkeys(names))
    differentiable = _differentiable(model, names, tokens)
    suspects = [name for name in names if name not in differentiable]
    if not gradient and suspects:
        with measuring(model):
            logits = cast(nn.Module, model)(tokens)
            suspects = [name for name in suspects if not _matters(model, name, tokens, logits)]
    return suspects


def _differentiable(
    model: TransformerLensModel, names: Sequence[str], tokens: Int[Tensor, "batch position"]
) -> set[str]:
    zeros: dict[str, Tensor] = {}

    def add_zero(value: Tensor, hook: Any, name: str) -> Tensor:
        zeros[name] = torch.zeros_like(value, requires_grad=True)
        return value + zeros[name]

    hooks = [(name, partial(add_zero, name=name)) for name in names]
    weights = list(cast(nn.Module, model).parameters())
    if any(weight.is_inference() for weight in weights):
        return set()  # made in inference mode: no gradient at all
    with measuring(model), torch.enable_grad():
        with cast(Any, model).hooks(fwd_hooks=of_this_thread(hooks)):
            logits: Tensor = cast(nn.Module, model)(tokens.clone())
        if not zeros or not logits.requires_grad:
            return set()
        slopes = torch.autograd.grad(logits.sum(), list(zeros.values()), allow_unused=True)
    return {name for name, slope in zip(zeros, slopes, strict=True) if slope is not None}


def _matters(
    model: TransformerLensModel, name: str, tokens: Int[Tensor, "batch position"], logits: Tensor
) -> bool:
    def disturb(value: Tensor, hook: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(value.shape, generator=generator).to(value)
        return value + noise * (1 + value.masked_fill(~(value.abs() < 1e30), 0).abs().mean())

    hooks = of_this_thread([(name, disturb)])
    with warnings.catch_warnings(), cast(Any, model).hooks(fwd_hooks=hooks):
        # TransformerLens says that it discards an edit.
        warnings.simplefilter("ignore", UserWarning)
        return not torch.equal(cast(nn.Module, model)(tokens), logits)


def require_live(
    model: TransformerLensModel,
    names: Sequence[str],
    tokens: Int[Tensor, "batch position"] | None = None,
    *,
    gradient: bool = False,
) -> None:
    """Checks that edits at some hook points have an effect; those of our own models all have.

    Args:
        model: Any TransformerLens model.
        names: Hook points.
        tokens: Something to read; a few token ids by default.
        gradient: Check that the logits have a gradient there.

    Raises:
        ArgumentError: the model has used a value before its hook point sees it, or never passes it.
    """
    if not names or has_fused_forward(model):
        return
    if tokens is None:
        device = next(cast(nn.Module, model).parameters()).device
        tokens = torch.arange(min(4, model.cfg.n_ctx, model.cfg.d_vocab), device=device)[None]
    dead = dead_hooks(model, names, tokens, gradient=gradient)
    if not dead:
        return
    kind = getattr(model.cfg, "architecture", None) or type(model).__name__
    if gradient and not dead_hooks(model, dead[:1], tokens):
        raise ArgumentError(
            f"The logits of this model ({kind}) have no gradient at {dead[0]!r}: something after it is "
            "detached, or the model was made in inference mode. Use `patch`, which needs none."
        )
    raise ArgumentError(
        f"An edit at {dead[0]!r} has no effect in this model ({kind}): TransformerLens shows the value "
        "there after the model has used it, or the model never passes that point. Edit what comes next "
        "instead: attn_out or z in place of a pattern, scores, queries or keys."
    )
