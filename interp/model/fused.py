"""A fused forward pass and training loss for our own models, through all of their hooks.

A `native_model` is walked component by component: every HookPoint is called in the stock order with
the stock shapes, and the model itself is not touched. It is quicker than `model(tokens)` and
`cross_entropy` because it

- skips the wrappers' bookkeeping at every call,
- uses the fused LayerNorm kernel where the bridge spells LayerNorm out in ten elementwise passes,
- scales, masks and normalises attention scores in three passes in place of six, and
- never makes the [batch, position, vocab] logits: unembedding, softmax and their gradient run chunk
  by chunk over the positions that have a target (see `interp.model.kernels`).

On a card it also uses PyTorch's kernel for RMSNorm, and in half precision that for attention, as long as no
hook looks at scores or pattern and nobody demands deterministic kernels, as `interp.train` does.

Inside LayerNorm and at the logits there are hook points on values that the fused kernels skip. While
such a point carries hooks, the plain computation runs beside the fused one, once through the hook
and once not, and the difference is added: `fused + (hooked - plain)`. An idle hook makes a difference
of exactly zero, in value and gradient, and so moves no bit; an edit takes full effect.

Rotary attention, attention with one of TransformerLens' costly hook points switched on, and elsewhere
RMSNorm run as the model's own components. A model with other features (a gated MLP, grouped heads, ...),
one that has been changed since it was built (an adapter, a spliced-in autoencoder, ...) and one whose
modules carry PyTorch hooks runs as a whole, as the model itself does: see `has_fused_forward`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources.native import NativeMLP
from transformer_lens.model_bridge.sources.native.model import NativeRMSNorm

from interp.model.components import ATTENTION_FLAGS, HookedBridge
from interp.model.kernels import scaled_scores, softmax, unembedding_loss
from interp.model.structure import carries_hooks


class WholePattern:
    """A hook that gives a layer another attention pattern and does not look at the layer's own.

    Where it is the first hook on a pattern, and nothing else looks at queries, keys and scores, the
    fused forward pass does not compute them.
    """

    def __init__(self, pattern: Callable[[], Tensor]) -> None:
        self._pattern = pattern

    def __call__(self, own: Tensor, hook: Any) -> Tensor:
        """The other pattern, in the layer's own precision."""
        return self._pattern().to(own.dtype)


def has_fused_forward(model: object) -> bool:
    """Whether the fused forward pass computes what the model does.

    It does for models from `native_model` with the features of ours, as long as every module is the one
    the model was built with and only hook points carry hooks. Looked at anew at every call, in some
    50 µs for 2 layers.
    """
    if not isinstance(model, HookedBridge) or model.cfg.attn_only:
        return False
    if not model.built.is_intact():
        return False
    inner: Any = model.original_model
    eps = model.cfg.eps
    if inner.output_logits_soft_cap > 0:
        return False
    if getattr(model.ln_final.original_component, "eps", eps) != eps:
        return False
    return all(_is_fusible(block, eps) for block in model.blocks)


def _is_fusible(block: Any, eps: float) -> bool:
    attention, mlp = block.attn.original_component, block.mlp.original_component
    plain = attention.causal and attention.kv_repeats == 1 and attention.attn_scores_soft_cap <= 0
    norms = (block.ln1.original_component, block.ln2.original_component)
    return (
        plain
        and not block.compatibility_mode
        and type(mlp) is NativeMLP
        and mlp.ln is None
        # TransformerLens' bridge takes the configuration's.
        and all(getattr(norm, "eps", eps) == eps for norm in norms)
    )


def final_residual(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch position"],
    dtype: torch.dtype,
    read: tuple[Int[Tensor, " read"], Int[Tensor, " read"]] | None = None,
) -> Float[Tensor, "*read d_model"]:
    """The residual stream after the final norm: what the unembedding reads.

    Args:
        model: A model for which `has_fused_forward`.
        tokens: Token ids.
        dtype: What matrix products are computed in; under autocast, autocast's.
        read: Rows and positions that are read; all by default. The last MLP, on which nothing else
            depends, is computed at those only where no hook looks at it.

    Returns:
        [read, d_model], or [batch, position, d_model] if all are read.
    """
    batch, width = tokens.shape
    places = torch.arange(width, device=tokens.device).expand(batch, width)
    stream = _fire(
        model.embed.hook_out, model.embed.original_component(model.embed.hook_in(tokens))
    )
    rotary = model.original_model.rotary is not None
    if not rotary:
        positions = model.pos_embed.original_component(model.pos_embed.hook_in(places))
        stream = stream + _fire(model.pos_embed.hook_out, positions)
    # Costly hook points are switched on for all layers together.
    whole = rotary or any(getattr(model.cfg, flag, False) for flag in ATTENTION_FLAGS)
    last = model.blocks[-1]
    early = read is not None and not carries_hooks(
        *(part for of in (last.ln2, last.mlp, model.ln_final) for part in of.modules()),
        *(last.hook_mlp_in, last.hook_out),
    )
    for block in model.blocks:
        stream = _fire(block.hook_in, stream)
        normed = _norm(block.ln1, stream, dtype)
        if whole:
            extra = {"stream": stream, "norm": block.ln1} if block.attn.reads_stream else {}
            written = block.attn(normed, position_ids=places, **extra)[0]
        else:
            written = _attention(block.attn, normed)
        stream = _fire(block.hook_resid_mid, stream + written)
        if early and block is last:
            stream = stream[read]
        entry = _fire(block.hook_mlp_in, stream.clone()) if model.cfg.use_hook_mlp_in else stream
        stream = stream + _mlp(block.mlp, _norm(block.ln2, entry, dtype))
        stream = _fire(block.hook_out, stream)
    final = _norm(model.ln_final, stream, dtype)
    return final if read is None or early else final[read]


def training_loss(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch position"],
    *,
    pad_token: int,
    precision: str = "fp32",
    counted: Bool[Tensor, "batch position"] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next token over all positions followed by a token, in nats.

    Args:
        model: A `TransformerBridge`; any hooks on it take effect.
        tokens: Biographies, padded on the right.
        pad_token: Positions followed by this token do not count.
        precision: "fp32", or "bf16" for products in bfloat16 under autocast (weights, residual
            stream, norms and softmax stay in fp32).
        counted: Which tokens count where they are the next one; all by default. The loss is 0 if none does.
    """
    return TrainingPass(model, tokens, pad_token=pad_token, precision=precision).loss(counted)


class TrainingPass:
    """A forward pass of which the training loss is taken, and logits where they are read.

    Args:
        model: As of `training_loss`, like the rest.
        tokens: See there.
        pad_token: See there.
        precision: See there.
    """

    def __init__(
        self,
        model: TransformerBridge,
        tokens: Int[Tensor, "batch position"],
        *,
        pad_token: int,
        precision: str = "fp32",
    ) -> None:
        autocast = precision == "bf16"
        self._model, self._tokens, self._pad_token = model, tokens, pad_token
        self._dtype = torch.bfloat16 if autocast else model.W_E.dtype
        self._fused = has_fused_forward(model)
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=autocast):
            # The logits, or the residual stream before the unembedding.
            self._out = (
                _fire(model.unembed.hook_in, final_residual(model, tokens, self._dtype))
                if self._fused
                else model(tokens)
            )

    def logits_at(
        self, rows: Int[Tensor, " read"], positions: Int[Tensor, " read"]
    ) -> Float[Tensor, "read vocab"]:
        """The logits at some positions, with gradient; in single precision at least."""
        read: Tensor = self._out[rows, positions]
        return _wide(self._unembedded(read) if self._fused else read)

    def loss(self, counted: Bool[Tensor, "batch position"] | None = None) -> Float[Tensor, ""]:
        """The mean cross-entropy: see `training_loss`."""
        tokens, pad_token = self._tokens, self._pad_token
        targets = torch.full_like(tokens, pad_token)
        targets[:, :-1] = tokens[:, 1:]
        if counted is not None:
            targets[:, :-1].masked_fill_(~counted[:, 1:], pad_token)
        flat = targets.flatten()
        if not self._fused:
            return _cross_entropy(self._out, flat, pad_token)
        unembed = self._model.unembed
        loss = unembedding_loss(
            self._out.flatten(0, 1), unembed.weight, unembed.bias, flat, flat != pad_token
        )
        if carries_hooks(unembed.hook_out):
            hooked, plain = _twins(self._unembedded(self._out))
            edited = _cross_entropy(unembed.hook_out(hooked), flat, pad_token)
            loss = loss + (edited - _cross_entropy(plain, flat, pad_token))
        return loss

    def _unembedded(self, residual: Tensor) -> Tensor:
        unembed = self._model.unembed
        return F.linear(residual, unembed.weight.to(self._dtype), unembed.bias.to(self._dtype))


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _cross_entropy(logits: Tensor, targets: Tensor, pad_token: int) -> Tensor:
    rows = logits.flatten(0, 1).float()
    if bool((targets == pad_token).all()):
        return rows.sum() * 0.0  # the mean over no token
    return F.cross_entropy(rows, targets, ignore_index=pad_token)


def _fire(point: Any, x: Tensor) -> Tensor:
    """Runs a value through a HookPoint; an edit made in another dtype comes back in ours."""
    y: Tensor = point(x)
    return y if y.dtype == x.dtype else y.to(x.dtype)


def _twins(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two aliases with graph nodes of their own, so that two branches' gradients cancel there."""
    return x.view_as(x), x.view_as(x)


def _norm(bridge: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    layer = bridge.original_component
    if type(layer) is nn.Identity:  # a model without norms
        same: Tensor = bridge(x)
        return same.to(dtype)
    watched = carries_hooks(bridge.hook_scale, bridge.hook_normalized)
    if type(layer) is NativeRMSNorm and x.is_cuda and not watched:
        x = _fire(bridge.hook_in, x)
        out = F.rms_norm(x, layer.weight.shape, layer.weight, layer.eps)
        return _fire(bridge.hook_out, out).to(dtype)
    if not isinstance(layer, nn.LayerNorm):
        normed: Tensor = bridge(x)
        return normed.to(dtype)
    x = _fire(bridge.hook_in, x)
    out = F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
    if watched:
        # One alias for the difference as a whole, then one for each of its terms.
        shared = [_twins(part)[0] for part in (x, layer.weight, layer.bias)]
        hooked, plain = zip(*(_twins(part) for part in shared), strict=True)
        out = out + (
            _spelled_out_norm(hooked, layer.eps, bridge.hook_scale, bridge.hook_normalized)
            - _spelled_out_norm(plain, layer.eps, nn.Identity(), nn.Identity())
        )
    return _fire(bridge.hook_out, out).to(dtype)


def _spelled_out_norm(
    parts: tuple[Tensor, Tensor, Tensor],
    epsilon: float,
    scale_point: Callable[[Tensor], Tensor],
    normalized_point: Callable[[Tensor], Tensor],
) -> Tensor:
    x, weight, bias = parts
    centred = x - x.mean(-1, keepdim=True)
    scale = scale_point((centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt())
    return normalized_point(centred / scale) * weight + bias


def _linear(bridge: Any, x: Tensor) -> Tensor:
    x = _fire(bridge.hook_in, x)
    return _fire(bridge.hook_out, F.linear(x, bridge.weight, bridge.bias))


def _attention(bridge: Any, x: Tensor) -> Tensor:
    attention = bridge.original_component
    n_heads, d_head = attention.n_heads, attention.d_head
    x = _fire(bridge.hook_in, x)
    batch, width, _ = x.shape
    given = _pattern_is_given(bridge)
    sides = [
        _linear(side, x).view(batch, width, n_heads, d_head).transpose(1, 2)
        for side in ((bridge.v,) if given else (bridge.q, bridge.k, bridge.v))
    ]
    if not given and _has_attention_kernel(bridge, x):
        q, k, v = sides
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / attention.scale)
    else:
        flat = [side.flatten(0, 1) for side in sides]
        values = flat[-1]
        if given:
            pattern = values.new_empty(1).expand(batch, n_heads, width, width)  # nobody reads it
        else:
            pattern = _pattern(bridge, flat[0], flat[1], batch)
        pattern = _fire(bridge.hook_pattern, pattern)
        mixed = torch.bmm(pattern.reshape(-1, width, width), values)
        mixed = mixed.view(batch, n_heads, width, d_head)
    mixed = mixed.transpose(1, 2)
    return _fire(bridge.hook_out, _linear(bridge.o, mixed.reshape(batch, width, -1)))


def _has_attention_kernel(bridge: Any, x: Tensor) -> bool:
    """Whether PyTorch's kernel, which keeps no pattern, may take the place of scores and pattern."""
    return (
        x.is_cuda
        and x.dtype in (torch.bfloat16, torch.float16)
        and not carries_hooks(bridge.hook_attn_scores, bridge.hook_pattern)
        and not torch.are_deterministic_algorithms_enabled()  # its backward pass is not
    )


def _pattern(bridge: Any, q: Tensor, k: Tensor, batch: int) -> Tensor:
    """The pattern of queries and keys [batch x head, position, d_head], its scores hooked."""
    attention, width = bridge.original_component, q.shape[1]
    mask = torch.zeros((width, width), device=q.device, dtype=q.dtype)
    mask = mask.masked_fill_(attention.causal_mask[:width, :width], float("-inf"))
    scores = scaled_scores(q, k, mask, attention.scale)
    if not carries_hooks(bridge.hook_attn_scores):
        return softmax(scores).view(batch, attention.n_heads, width, width)
    scores = _fire(bridge.hook_attn_scores, scores.view(batch, attention.n_heads, width, width))
    nothing = torch.isneginf(scores).all(-1, keepdim=True)  # as `components.softmax`
    return softmax(scores.masked_fill(nothing, 0.0)).masked_fill(nothing, 0.0)


def _pattern_is_given(bridge: Any) -> bool:
    hooks = bridge.hook_pattern.fwd_hooks
    if not hooks or not isinstance(hooks[0].user_hook, WholePattern):
        return False
    points = [point for side in (bridge.q, bridge.k) for point in (side.hook_in, side.hook_out)]
    return not carries_hooks(*points, bridge.hook_attn_scores)


def _mlp(bridge: Any, x: Tensor) -> Tensor:
    hidden = _linear(getattr(bridge, "in"), _fire(bridge.hook_in, x))
    return _fire(bridge.hook_out, _linear(bridge.out, bridge.original_component.act(hidden)))
