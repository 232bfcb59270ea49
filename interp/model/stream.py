"""How the parts of a model write into its residual stream, and how they and the logits read it.

Read through weights, a path is a chain of matrices and norms, and architectures differ in it: norms
before a part, after it, or both (Gemma, OLMo 2); weights of an RMSNorm that are an offset from 1; values
that several heads share; logits that are multiplied or capped. What is read here is held against one
pass of the model itself (`require_linear_stream`), so that a model which computes otherwise is refused
and not read as if it were another.

Source: the linear view of norms and heads is Elhage et al. 2021, "A mathematical framework for
transformer circuits".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import MoEBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.model.forward import measuring, of_this_thread

Part = Literal["attn", "mlp"]
_POST_NORMS: dict[Part, str] = {"attn": "ln1_post", "mlp": "ln2_post"}
_OUT_HOOKS: dict[Part, str] = {"attn": "hook_attn_out", "mlp": "hook_mlp_out"}
_USE_EDITS = "Use patches, knockouts and swaps, which hold for any model."
_N_LOGITS = 512  # tokens whose logits are compared


@dataclass(frozen=True)
class Norm:
    """A LayerNorm or RMSNorm whose scale is held fixed: a linear map and a bias.

    Attributes:
        weight: What the normed stream is multiplied by; None for 1.
        bias: What is added in the end, if anything.
        centres: Whether the mean over d_model is subtracted.
    """

    weight: Float[Tensor, " d_model"] | None
    bias: Float[Tensor, " d_model"] | None
    centres: bool

    def linear(self, x: Float[Tensor, "*more d_model"]) -> Float[Tensor, "*more d_model"]:
        """The norm of vectors without its scale and bias."""
        if self.centres:
            x = x - x.mean(dim=-1, keepdim=True)
        return x if self.weight is None else x * self.weight.to(x.dtype)

    def before(
        self, after: Float[Tensor, " d_model"], scale: Float[Tensor, " 1"]
    ) -> tuple[Float[Tensor, " d_model"], float]:
        """The direction before the norm that equals one after it, and what the norm's bias adds."""
        before = after if self.weight is None else after * self.weight.to(after.dtype)
        before = before / scale.to(after.dtype)
        if self.centres:
            before = before - before.mean()
        return before, 0.0 if self.bias is None else float(self.bias.to(after.dtype) @ after)


def norm_at(owner: Any, name: str) -> Norm | None:
    """The norm of this name in a model (`ln_final`) or a block (`ln1`, `ln1_post`); None without one."""
    norm = getattr(owner, name, None)
    if norm is None:
        return None
    layer = getattr(norm, "original_component", norm)
    if isinstance(layer, nn.Identity):  # a model without norms has it in their places
        return Norm(None, None, centres=False)
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, Tensor):
        if next(layer.parameters(), None) is not None:
            raise ArgumentError(
                f"The norm {name} of this model has no weight where TransformerLens has it, but other "
                f"parameters: it cannot be read as a LayerNorm or RMSNorm. {_USE_EDITS}"
            )
        weight = None
    elif getattr(norm, "uses_weight_offset", False):
        weight = 1 + weight.detach().float()
    is_rms = bool(getattr(norm, "uses_rms_norm", False))
    return Norm(
        None if weight is None else weight.detach(),
        bias.detach() if isinstance(bias, Tensor) and not is_rms else None,
        centres=not is_rms,
    )


def final_norm(model: TransformerLensModel) -> Norm:
    """The norm before the unembedding."""
    norm = norm_at(model, "ln_final")
    if norm is None:
        raise ArgumentError(
            "The model has no norm with a weight as ln_final. Expected: LayerNorm or RMSNorm where "
            "TransformerLens has it."
        )
    return norm


def norm_scale(cache: Any, name: str, position: int) -> Float[Tensor, " 1"]:
    """The scale that a norm divided a position by; 1 in a model without norms, which has no such hook."""
    scale: Tensor = cache[name][0, position] if name in cache else torch.ones(1)
    return scale


def post_norm(model: TransformerLensModel, layer: int, part: Part) -> Norm | None:
    """The norm between what a part computes and the stream (Gemma 2 and 3, OLMo 2), if there is one."""
    return norm_at(cast(Any, model).blocks[layer], _POST_NORMS[part])


def post_norm_hook(layer: int, part: Part) -> str:
    """The hook point of the scale of a norm after a part."""
    return f"blocks.{layer}.{_POST_NORMS[part]}.hook_scale"


def weights_of(model: TransformerLensModel, layer: int, name: str) -> Tensor:
    """The weights that a layer computes with, by TransformerLens' name: W_V, W_O, W_out, ...

    Those of values have as many heads as there are keys and values; see `per_head`.

    Whether the model computes with them is for the caller to check (`require_own_weights`).

    Raises:
        ArgumentError: the layer is a mixture of experts, or has no such weights.
    """
    if not isinstance(model, TransformerBridge):
        try:
            stacked: Tensor = getattr(model, name)[layer]
        except (AttributeError, RuntimeError) as error:
            raise _hidden(layer, name) from error
        return stacked.detach()
    # Not of the stacked property: it leaves out layers that have no such weights.
    block = cast(Any, model).blocks[layer]
    part = block.mlp if name in ("W_in", "W_out") else block.attn
    if isinstance(part, MoEBridge):
        raise ArgumentError(
            f"Layer {layer} of this model is a mixture of experts, each with neurons and {name} of its own, "
            "and which of them write depends on the text: there is no single set of neurons to read. "
            f"{_USE_EDITS}"
        )
    weights = getattr(part, name, None)
    if not isinstance(weights, Tensor):
        raise _hidden(layer, name)
    # Laid out as in the stacked property, so that products have the same last bits.
    return weights.detach().contiguous()


def _hidden(layer: int, name: str) -> ArgumentError:
    return ArgumentError(
        f"Layer {layer} of the model does not show its weights as {name}. Expected: a TransformerLens "
        f"model with attention and an MLP of neurons in every layer. {_USE_EDITS}"
    )


def bias_of(model: TransformerLensModel, layer: int, name: str) -> Tensor | None:
    """A bias of a layer (b_V, b_O, b_out), or None in models without one."""
    block = cast(Any, model).blocks[layer]
    bias = getattr(block.mlp if name == "b_out" else block.attn, name, None)
    return bias.detach() if isinstance(bias, Tensor) else None


def per_head(grouped: Float[Tensor, "..."], n_heads: int, dim: int = 0) -> Float[Tensor, "..."]:
    """Along a dimension, what heads share in groups (grouped queries), once for every head."""
    groups = grouped.shape[dim]
    return grouped if groups == n_heads else grouped.repeat_interleave(n_heads // groups, dim=dim)


def unembedding(model: TransformerLensModel) -> Float[Tensor, "d_model vocab"]:
    """W_U; whether the model computes with it is for the caller to check."""
    try:
        weights: Tensor = cast(Any, model).W_U
    except (AttributeError, RuntimeError) as error:
        raise ArgumentError(f"The model does not show its unembedding as W_U ({error}).") from error
    return weights.detach()


def logit_scale(model: TransformerLensModel) -> float | None:
    """What logits are multiplied by after W_U (Cohere); None where they are capped (Gemma 2)."""
    transform = getattr(
        getattr(model, "adapter", None), "apply_output_logits_transform", lambda logits: logits
    )
    probe = torch.tensor([1.0, 100.0, -1000.0], dtype=torch.float64)
    scaled: Tensor = transform(probe)
    return float(scaled[0]) if torch.allclose(scaled, probe * scaled[0], rtol=1e-9) else None


def require_uncapped(model: TransformerLensModel) -> float:
    """What logits are multiplied by after W_U.

    Raises:
        ArgumentError: the model caps its logits.
    """
    scale = logit_scale(model)
    if scale is None:
        cap = float(getattr(model.cfg, "output_logits_soft_cap", None) or torch.nan)
        raise ArgumentError(
            f"This model caps its logits (at {cap:g}): by how much a logit grows depends on what it is "
            "already, so what parts of the model add to logits cannot be told apart. " + _USE_EDITS
        )
    return scale


@torch.no_grad()
def require_linear_stream(
    model: TransformerLensModel, neurons: Sequence[int] = (), heads: Sequence[int] = ()
) -> None:
    """Checks that weights, norms and scales say what the model computes, on one pass over a few tokens.

    Held against the pass are: that each layer adds its attention and its MLP to the stream; that logits
    before a cap are W_U of the final norm; that what an MLP adds is its neurons times W_out; and that
    values are W_V of the norm before attention, and what heads add their outputs times W_O; both through
    the norm after them, where there is one. Nothing is run for models of ours.

    Args:
        model: Any TransformerLens model; it is left as it was.
        neurons: Layers whose W_out is read.
        heads: Layers whose W_V and W_O are read.

    Raises:
        ArgumentError: one of them is not so.
    """
    if getattr(model, "built", None) is not None:
        return
    layers = range(model.cfg.n_layers)
    streams = [f"blocks.{layer}.{point}" for layer in layers for point in (
        "hook_resid_pre", "hook_resid_post", *_OUT_HOOKS.values())]  # fmt: skip
    points = [f"blocks.{layer}.mlp.hook_post" for layer in neurons]
    points += [f"blocks.{layer}.attn.{point}" for layer in heads for point in ("hook_v", "hook_z")]
    scales = [f"blocks.{layer}.ln1.hook_scale" for layer in heads]
    scales += [post_norm_hook(layer, "mlp") for layer in neurons]
    scales += [post_norm_hook(layer, "attn") for layer in heads]
    present = cast(Any, model).hook_dict
    names = [*streams, *points, "ln_final.hook_scale", "unembed.hook_out"]
    missing = [name for name in names if name not in present]
    if missing:
        raise _unreadable(model, f"it has no hook point {missing[0]!r}")
    seen = _seen(model, [*names, *(name for name in scales if name in present)])
    unseen = [name for name in names if name not in seen]
    if unseen:
        raise _unreadable(model, f"it never passes its hook point {unseen[0]!r}")
    check = _Check(model, seen)
    check.sums()
    check.logits()
    for layer in neurons:
        check.neurons(layer)
    for layer in heads:
        check.heads(layer)


def _seen(model: TransformerLensModel, names: Sequence[str]) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any, name: str) -> None:
        seen[name] = activation.detach().clone()

    device = next(cast(nn.Module, model).parameters()).device
    tokens = torch.arange(min(4, model.cfg.n_ctx, model.cfg.d_vocab), device=device)[None]
    with measuring(model):
        hooks = of_this_thread((name, partial(keep, name=name)) for name in names)
        model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
    return seen


class _Check:
    """Comparisons of one pass of a model with what its weights say."""

    def __init__(self, model: TransformerLensModel, seen: Mapping[str, Tensor]) -> None:
        self._model, self._seen = model, seen
        dtype = seen["unembed.hook_out"].dtype
        self._eps = torch.finfo(dtype).eps
        self._wide = torch.float64 if dtype == torch.float64 else torch.float32

    def _at(self, name: str) -> Tensor:
        return self._seen[name][0].to(self._wide)

    def _require(self, found: Tensor, expected: Tensor, what: str, size: float = 0.0) -> None:
        """Checks equality up to rounding, that of numbers of the norm `size` included."""
        allowed = max(1e-3, 16 * self._eps) * float(expected.norm()) + 4 * self._eps * size
        if not float((found - expected).norm()) <= allowed:
            raise _unreadable(self._model, what)

    def sums(self) -> None:
        for layer in range(self._model.cfg.n_layers):
            block = f"blocks.{layer}"
            before, after = (self._at(f"{block}.hook_resid_{at}") for at in ("pre", "post"))
            parts = [self._at(f"{block}.{hook}") for hook in _OUT_HOOKS.values()]
            what = f"layer {layer} does not add what its attention and its MLP write to the stream"
            size = float(before.norm() + after.norm())
            self._require(parts[0] + parts[1], after - before, what, size)
            if layer:
                last = self._at(f"blocks.{layer - 1}.hook_resid_post")
                what = (
                    f"layer {layer} does not begin with the stream that layer {layer - 1} ends with"
                )
                self._require(before, last, what)

    def logits(self) -> None:
        n_vocab = self._model.cfg.d_vocab
        chosen = torch.arange(0, n_vocab, max(1, n_vocab // _N_LOGITS))
        stream = self._at(f"blocks.{self._model.cfg.n_layers - 1}.hook_resid_post")
        normed = self._normed(final_norm(self._model), stream, "ln_final.hook_scale")
        logits = self._at("unembed.hook_out")
        chosen = chosen.to(logits.device)
        found = normed @ unembedding(self._model)[:, chosen].to(normed)
        bias = getattr(self._model, "b_U", None)
        if isinstance(bias, Tensor):
            found = found + bias.detach()[chosen].to(found)
        self._require(found, logits[:, chosen], "its logits are not W_U of the final norm")

    def neurons(self, layer: int) -> None:
        active = self._at(f"blocks.{layer}.mlp.hook_post")
        weights = weights_of(self._model, layer, "W_out").to(self._wide)
        if active.shape[-1] != len(weights):
            what = f"layer {layer} has {len(weights)} rows of W_out for {active.shape[-1]} neurons"
            raise _unreadable(self._model, what)
        written = active @ weights
        bias = bias_of(self._model, layer, "b_out")
        self._require_written(layer, "mlp", written if bias is None else written + bias.to(written))

    def heads(self, layer: int) -> None:
        block = f"blocks.{layer}"
        stream, norm = self._at(f"{block}.hook_resid_pre"), norm_at(
            cast(Any, self._model).blocks[layer], "ln1"
        )  # fmt: skip
        if norm is not None:
            stream = self._normed(norm, stream, f"{block}.ln1.hook_scale")
        weights = weights_of(self._model, layer, "W_V").to(self._wide)
        values = torch.einsum("pd,hde->phe", stream, weights)
        bias = bias_of(self._model, layer, "b_V")
        if bias is not None:
            values = values + bias.view(values.shape[1:]).to(values)
        seen = self._at(f"{block}.attn.hook_v")
        what = f"the values of layer {layer} are not W_V of the stream before it"
        if seen.numel() != values.numel():
            raise _unreadable(self._model, what)
        self._require(values, seen.view_as(values), what)
        outputs = weights_of(self._model, layer, "W_O").to(self._wide)
        mixed = self._at(f"{block}.attn.hook_z")
        written = mixed.flatten(1) @ outputs.flatten(0, 1)
        bias = bias_of(self._model, layer, "b_O")
        self._require_written(
            layer, "attn", written if bias is None else written + bias.to(written)
        )

    def _require_written(self, layer: int, part: Part, written: Tensor) -> None:
        norm = post_norm(self._model, layer, part)
        if norm is not None:
            written = self._normed(norm, written, post_norm_hook(layer, part))
        names = {"attn": "heads times W_O", "mlp": "neurons times W_out"}
        what = f"what layer {layer} adds to the stream is not the outputs of its {names[part]}"
        self._require(written, self._at(f"blocks.{layer}.{_OUT_HOOKS[part]}"), what)

    def _normed(self, norm: Norm, x: Tensor, scale: str) -> Tensor:
        if scale not in self._seen:
            raise _unreadable(self._model, f"it never shows the scale of its norm as {scale!r}")
        normed = norm.linear(x) / self._at(scale).view(*x.shape[:-1], 1)
        return normed if norm.bias is None else normed + norm.bias.to(normed)


def _unreadable(model: TransformerLensModel, what: str) -> ArgumentError:
    kind = getattr(model.cfg, "architecture", None) or type(model).__name__
    return ArgumentError(
        f"The weights of this model ({kind}) do not say what it computes: {what}. It norms, scales or "
        f"replaces something on the way, or a hook does. {_USE_EDITS}"
    )
