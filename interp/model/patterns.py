"""Attention patterns: reading them with as little computation as they need, and replacing them.

Both go through TransformerLens' own hook points (`blocks.<layer>.attn.hook_pattern`), so they see and
change what any other hook sees.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError, suggest
from interp.model.forward import alone_with, of_this_thread
from interp.model.fused import WholePattern, final_residual, has_fused_forward
from interp.model.layout import hook_fault, kind_of, missing_reason, require_wrapped
from interp.model.live import require_live

NO_ATTENTION = "the model is recurrent (model.recurrence) and has no attention"
"""Why something is not for a recurrent model."""
TOKENS_HOOK = "embed.hook_in"
"""The hook point that sees a forward pass's token ids, before anything is computed."""

Read = Callable[[int, Float[Tensor, "batch head query key"]], None]
"""Is given a layer and its post-softmax pattern."""


def pattern_hook(layer: int) -> str:
    """The name of a layer's hook point of post-softmax attention patterns."""
    return f"blocks.{layer}.attn.hook_pattern"


class _LastPatternRead(Exception):  # noqa: N818 - not an error: it ends a forward pass early
    pass


def read_patterns(
    model: TransformerLensModel,
    tokens: Int[Tensor, "batch position"],
    read: Read,
    layers: Sequence[int] | None = None,
) -> None:
    """Runs a model just far enough to hand over its attention patterns.

    The forward pass ends at the last pattern asked for: nothing after it is computed, in the last
    layer not even the mixing of the values. Modes and gradients are the caller's (see `evaluating`).

    Args:
        model: Any TransformerLens model.
        tokens: Token ids.
        read: Called once a layer, in order, with the layer and its post-softmax pattern.
        layers: Which layers; all by default.

    Raises:
        ArgumentError: a layer is out of range, or the model has no such hook point.
    """
    require_wrapped(model)
    wanted = valid_indices(layers, model.cfg.n_layers, "layer")
    require_hooks(model, [pattern_hook(layer) for layer in wanted])
    passed: set[int] = set()

    def hand_over(pattern: Tensor, hook: Any, layer: int) -> None:
        passed.add(layer)
        read(layer, pattern)
        if passed.issuperset(wanted):
            raise _LastPatternRead

    hooks = of_this_thread(
        (pattern_hook(layer), partial(hand_over, layer=layer)) for layer in wanted
    )
    try:
        with alone_with(model):
            if has_fused_forward(model):
                bridge = cast(TransformerBridge, model)
                with bridge.hooks(fwd_hooks=hooks):
                    final_residual(bridge, tokens, _product_dtype(bridge, tokens.device))
            else:
                model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
    except _LastPatternRead:
        return
    unseen = [pattern_hook(layer) for layer in wanted if layer not in passed]
    require_passed(model, unseen)


def require_passed(model: TransformerLensModel, unseen: Sequence[str]) -> None:
    """Refuses to go on where hook points that are listed (`unseen`) were not passed in a forward pass."""
    if not unseen:
        return
    remedy = "read another one"
    if ".attn." in unseen[0]:
        remedy = "it computes attention without showing it (wrap it with eager attention)"
    raise ArgumentError(
        f"The model ({kind_of(model)}) lists the hook point {unseen[0]!r} and never passes it, so there is "
        f"nothing to read or edit there; {remedy}."
    )


class AttentionPatch:
    """Makes a model attend as a reference does, on whatever tokens it reads.

    At every forward pass of the patched model the reference reads the same tokens, without
    gradient and no further than its last pattern that is needed; its post-softmax patterns then
    take the place of the model's own. Source: Zucchet et al. 2025, section 3.2 and Fig. 3.

    Args:
        reference: The model that gives the patterns; it is left as it is.
        layers: Layers to patch; all by default.
        heads: Heads to patch in each of them; all by default.
        keep_gradient: Take the values of the reference's patterns, but the gradient of the model's
            own. Only sensible where both are equal: the control in which a model is given its own
            patterns, and nothing may change.

    Raises:
        ArgumentError: a layer or head is out of range, or a hook point is missing.

    Example:
        ```python
        patch = AttentionPatch(run.model(step=1500), layers=[1])
        with patch.on(run.model(step=250)) as model:
            logits = model(tokens)
        ```
    """

    def __init__(
        self,
        reference: TransformerBridge,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        *,
        keep_gradient: bool = False,
    ) -> None:
        self.reference = reference
        self.layers = valid_indices(layers, reference.cfg.n_layers, "layer")
        self.heads = valid_indices(heads, reference.cfg.n_heads, "head")
        self.keep_gradient = keep_gradient
        self._patterns: dict[int, Tensor] = {}
        require_hooks(reference, self._hook_names())

    @contextmanager
    def on(self, model: TransformerBridge) -> Iterator[TransformerBridge]:
        """While this lasts, every forward pass of the model uses the reference's patterns.

        Raises:
            ArgumentError: the model does not fit (see `require_fit`).
        """
        self.require_fit(model)
        require_live(model, [pattern_hook(layer) for layer in self.layers])
        try:
            with model.hooks(fwd_hooks=self.hooks()):
                yield model
        finally:
            self._patterns.clear()

    def hooks(self) -> list[tuple[str, Callable[..., Any]]]:
        """The TransformerLens hooks that do it, as `(hook point's name, function)`."""
        hooks: list[tuple[str, Callable[..., Any]]] = [(TOKENS_HOOK, self._read_reference)]
        whole = len(self.heads) == self.reference.cfg.n_heads and not self.keep_gradient
        for layer in self.layers:
            replace: Callable[..., Any] = partial(self._replace_heads, layer=layer)
            if whole:
                replace = WholePattern(partial(self._patterns.pop, layer))
            hooks.append((pattern_hook(layer), replace))
        return hooks

    def require_fit(self, model: TransformerBridge) -> None:
        """Refuses a model that differs in layers, heads, vocabulary, context or hook points."""
        names = ("n_layers", "n_heads", "d_vocab", "n_ctx")
        values = [(getattr(self.reference.cfg, n), getattr(model.cfg, n)) for n in names]
        differing = [
            f"{name} is {theirs} in the reference and {ours} in the model"
            for name, (theirs, ours) in zip(names, values, strict=True)
            if theirs != ours
        ]
        if differing:
            raise ArgumentError(
                f"The reference's attention patterns do not fit this model: {'; '.join(differing)}. "
                "Use a reference of the same shape and vocabulary."
            )
        require_hooks(model, self._hook_names())

    def _hook_names(self) -> list[str]:
        return [TOKENS_HOOK, *(pattern_hook(layer) for layer in self.layers)]

    def _read_reference(self, tokens: Tensor, hook: Any) -> None:
        self._patterns.clear()
        with torch.no_grad():
            read_patterns(self.reference, tokens, self._patterns.__setitem__, self.layers)

    def _replace_heads(self, own: Tensor, hook: Any, layer: int) -> Tensor:
        given = self._patterns.pop(layer).to(own.dtype)
        if self.keep_gradient:
            given = own + (given - own).detach()
        chosen = torch.zeros(own.shape[1], dtype=torch.bool, device=own.device)
        chosen[list(self.heads)] = True
        return torch.where(chosen[:, None, None], given, own)


def valid_indices(chosen: Sequence[int] | None, count: int, what: str) -> tuple[int, ...]:
    """Chosen layers or heads, increasing and without repeats; all by default.

    Raises:
        ArgumentError: none, or one out of range.
    """
    if chosen is None:
        return tuple(range(count))
    if not isinstance(chosen, Iterable) or isinstance(chosen, str | bytes):
        raise ArgumentError(f"{what}s={chosen!r}: give numbers in a list, such as [0].")
    chosen = list(chosen)
    if any(isinstance(index, bool) or not isinstance(index, Integral) for index in chosen):
        raise ArgumentError(f"{what}s={chosen!r}: give whole numbers.")
    wrong = [index for index in chosen if not 0 <= index < count]
    if wrong or not len(chosen):
        raise ArgumentError(
            f"{what}s={list(chosen)}: "
            + (f"there is no {what} {wrong[0]}" if wrong else f"no {what} is named")
            + f"; the model has {what}s 0 to {count - 1}."
        )
    return tuple(sorted({int(index) for index in chosen}))


def require_hooks(model: TransformerLensModel, names: Sequence[str]) -> None:
    """Checks that a model has hook points, and that they are still in their places.

    Raises:
        ArgumentError: one is missing: the model's TransformerLens hook layout is another one. Or one has
            been replaced by another module, which nobody can hook. Or it shows something else than its
            name says (see `interp.model.layout`).
    """
    require_wrapped(model)
    present = getattr(model, "hook_dict", None)
    if present is None:
        return
    missing = [name for name in names if name not in present]
    if missing and is_recurrent(model):
        raise ArgumentError(
            f"{missing[0]} cannot be read or changed: {NO_ATTENTION}. Its hook points are on the "
            "residual stream (hook_resid_pre, hook_resid_mid, hook_resid_post), the recurrence "
            "(hook_recurrence_out) and the MLPs (hook_mlp_out, mlp.hook_post). Use a run with attention."
        )
    reason = missing_reason(model, missing[0]) if missing else None
    if reason:
        raise ArgumentError(
            f"The model ({kind_of(model)}) has no hook point {missing[0]!r}: {reason}. Use other sites or "
            "layers."
        )
    if missing:
        raise ArgumentError(
            f"The model has another TransformerLens hook layout: it has no hook point {missing[0]!r}."
            f"{suggest(missing[0], present)} Expected: {', '.join(names)}."
        )
    # TransformerLens goes on listing a hook point that something else has taken the place of.
    in_place = {id(module) for module in cast(nn.Module, model).modules()}
    replaced = [name for name in names if id(present[name]) not in in_place]
    if replaced:
        raise ArgumentError(
            f"The hook point {replaced[0]!r} has been replaced by another module, so nothing can be read "
            "or changed there. Put it back, or let the other module call it."
        )
    if has_fused_forward(model):
        return
    for name in names:
        if fault := hook_fault(model, name):
            raise ArgumentError(f"{name!r} cannot be read or edited: {fault}.")


def is_recurrent(model: TransformerLensModel) -> bool:
    """Whether a model has a recurrence in place of attention (see `interp.model.recurrent`)."""
    return bool(getattr(model.cfg, "architecture", None) == "RecurrentGemmaForCausalLM")


def _product_dtype(model: TransformerBridge, device: torch.device) -> torch.dtype:
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return model.W_E.dtype
