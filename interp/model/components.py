"""A native TransformerLens model on which every hook point of `HookedTransformer` is live.

TransformerLens' native blocks and attention hand some values to their hook points after they have been
used: an edit of `hook_attn_scores` is discarded, one of `hook_resid_mid` reaches the MLP and not the
residual stream, and there is no `hook_result`, `hook_q_input`, `hook_k_input`, `hook_v_input` or
`hook_attn_in`. Here each of these values passes through its hook point before anything reads it.

As in TransformerLens, a native module computes and a bridge component holds the hook points. The module
takes the hook points as arguments (*seams*, the way TransformerLens passes `pattern_fn`), so it runs the
same without a bridge, and PyTorch hooks, adapters and replaced submodules inside it take effect. Weights
and their names are those of `boot_native`, as are the values where nothing is edited, bit for bit.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.exceptions import StopAtLayerException
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    BlockBridge,
    LinearBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import (
    NativeAttention,
    NativeBlock,
    NativeModel,
    initialize_native_model,
)
from transformer_lens.utilities.activation_functions import apply_softcap
from transformers import PreTrainedTokenizerFast

from interp.model.structure import Structure, carries_hooks
from interp.torch_state import default_state

_ARCHITECTURE = "TransformerLensNative"
_STREAM_COPIES = ("use_split_qkv_input", "use_attn_in")
ATTENTION_FLAGS = (*_STREAM_COPIES, "use_attn_result")
"""The settings of TransformerLens that switch attention's costly hook points on."""

Seam = Callable[[Tensor], Tensor]
Forks = tuple[Tensor, Tensor, Tensor]


def identity(x: Tensor) -> Tensor:
    """What a seam does where there is no hook point."""
    return x


@dataclass(frozen=True)
class AttentionSeams:
    """What attention passes its values through.

    Attributes:
        rot_q: Queries after the rotary embedding, [batch, head, position, d_head].
        rot_k: Keys after it.
        attn_scores: Scores before the softmax, masked with -inf, [batch, head, query, key].
        pattern: Post-softmax weights, [batch, head, query, key].
        result: Each head's part of the output, [batch, position, head, d_model]; None where the heads
            are projected together.
        forks: From what attention reads, what each head's queries, keys and values read, three times
            [batch, position, head, d_model]; None where all read the same.
    """

    rot_q: Seam = identity
    rot_k: Seam = identity
    attn_scores: Seam = identity
    pattern: Seam = identity
    result: Seam | None = None
    forks: Callable[[Tensor], Forks] | None = None


class HookedAttention(NativeAttention):
    """`NativeAttention` whose values pass through seams before they are used."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Float[Tensor, "batch position d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        seams: AttentionSeams | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "batch position d_model"], Float[Tensor, "batch head query key"]]:
        """The output and the pattern; see `NativeAttention.forward`."""
        seams = seams or AttentionSeams()
        batch, width, _ = hidden_states.shape
        sides = ((self.q, self.n_heads), (self.k, self.n_kv_heads), (self.v, self.n_kv_heads))
        if seams.forks is None:
            projected = [side(hidden_states) for side, _ in sides]
        else:
            forks = seams.forks(hidden_states)
            projected = [
                project_heads(side, fork, self.d_head)
                for (side, _), fork in zip(sides, forks, strict=True)
            ]
        q, k, v = (
            x.view(batch, width, heads, self.d_head).transpose(1, 2)
            for x, (_, heads) in zip(projected, sides, strict=True)
        )
        if self.rotary is not None:
            q, k = self.rotary.apply_rope(q, k, position_ids=position_ids)
            q, k = seams.rot_q(q), seams.rot_k(k)
        if self.kv_repeats > 1:
            k = k.repeat_interleave(self.kv_repeats, dim=1)
            v = v.repeat_interleave(self.kv_repeats, dim=1)
        scores = torch.matmul(q, k.transpose(-2, -1)) / self.scale
        scores = apply_softcap(scores, self.attn_scores_soft_cap)
        scores = scores.masked_fill(self._masked(batch, width, attention_mask), float("-inf"))
        pattern = seams.pattern(softmax(seams.attn_scores(scores)))
        z = torch.matmul(pattern, v).transpose(1, 2).contiguous().view(batch, width, -1)
        out = self.o(z) if seams.result is None else self._by_head(z, seams.result)
        return out, pattern

    def _masked(self, batch: int, width: int, mask: Tensor | None) -> Bool[Tensor, "*batch q k"]:
        masked: Tensor = self.causal_mask[:width, :width]
        if not self.causal:
            masked = torch.zeros_like(masked)
        if mask is None:
            return masked
        combined: Tensor = self._combine_attention_mask(masked, mask, batch=batch)
        return combined

    def _by_head(self, z: Tensor, result: Seam) -> Float[Tensor, "batch position d_model"]:
        """The output, its summands by head passed through a seam; the same bits if that changes nothing."""
        return _call(self.o, lambda z, linear: self._summed_by_head(z, linear, result), z)

    def _summed_by_head(self, z: Tensor, linear: Any, result: Seam) -> Tensor:
        by_head = z.unflatten(-1, (self.n_heads, self.d_head))
        if _is_linear(linear):
            weight = linear.weight.unflatten(1, (self.n_heads, self.d_head))
            each = torch.einsum("bphd,mhd->bphm", by_head, weight)
        else:  # an adapter, say: affine in z, whatever it is made of
            apart = torch.eye(self.n_heads, device=z.device, dtype=z.dtype)[..., None]
            bias = linear(torch.zeros_like(z[:1, :1]))
            each = linear((by_head[:, :, None] * apart).flatten(-2)) - bias[:, :, None]
        unchanged = each.sum(2)
        out: Tensor = linear(z) + (result(each).sum(2) - unchanged)
        return out


class HookedBlock(NativeBlock):
    """`NativeBlock` whose stream between attention and MLP passes through a seam."""

    def forward(
        self,
        hidden_states: Float[Tensor, "batch position d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        resid_mid: Seam = identity,
        mlp_in: Seam = identity,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "batch position d_model"]]:
        """The stream after the block, in a tuple; see `NativeBlock.forward`."""
        settings: dict[str, Any] = {"attention_mask": attention_mask, "position_ids": position_ids}
        if getattr(self.attn, "reads_stream", False):
            settings |= {"stream": hidden_states, "norm": self.ln1}
        written, _ = self.attn(self.ln1(hidden_states), **settings)
        middle = hidden_states + written
        if self.cfg.attn_only:
            return (middle,)
        middle = resid_mid(middle)
        return (middle + self.mlp(self.ln2(mlp_in(middle))),)


class HookedModel(NativeModel):
    """`NativeModel` of hooked blocks; `start_at_layer` and `stop_at_layer` as in `HookedTransformer`."""

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        for block in self.layers:  # the classes differ in methods only
            block.__class__ = HookedBlock
            block.attn.__class__ = HookedAttention

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch position vocab"]:
        """The logits; see `NativeModel.forward`. A pass that starts at a layer embeds nothing."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        given = input_ids if inputs_embeds is None else inputs_embeds
        batch, width = given.shape[:2]  # type: ignore[union-attr]
        if width > self.cfg.n_ctx:
            raise ValueError(
                f"The input has {width} tokens; this model has positions for n_ctx={self.cfg.n_ctx}."
            )
        if position_ids is None:
            position_ids = torch.arange(width, device=given.device).expand(batch, -1)  # type: ignore[union-attr]
        stream = self.tok_embed(input_ids) if inputs_embeds is None else inputs_embeds
        first, last = self._limits()
        if first is not None and last is not None and last <= first:
            raise StopAtLayerException(stream)
        if self.pos is not None and first is None:
            stream = stream + self.pos(position_ids)
        for block in self.layers[first or 0 :]:
            (stream,) = block(stream, attention_mask=attention_mask, position_ids=position_ids)
        if last == len(self.layers):
            raise StopAtLayerException(stream)
        return apply_softcap(self.head(self.ln_out(stream)), self.output_logits_soft_cap)

    def _limits(self) -> tuple[int | None, int | None]:
        noted = [getattr(self.layers[0], f"_{end}_at_layer_idx", None) for end in ("start", "stop")]
        return noted[0], noted[1]


class HookedAttentionBridge(AttentionBridge):
    """Attention's hook points, each on a value that is yet to be used.

    With `use_split_qkv_input` (or `use_attn_in`) every head reads copies of the residual stream of its
    own, before the norm: `hook_q_input`, `hook_k_input`, `hook_v_input` (`hook_attn_in`). Edits of the
    norm that all heads share (`ln1`, `attn.hook_in`) still reach every head: what such an edit changes
    is added to what each head reads.
    """

    supports_attn_result = True
    has_live_forks = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.hook_hidden_states  # a point that nothing passes
        self._hook_registry.pop("hook_hidden_states", None)

    @property
    def reads_stream(self) -> bool:
        """Whether heads read copies of the residual stream of their own."""
        return any(getattr(self.config, flag, False) for flag in _STREAM_COPIES)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output, hooked, and what else the module inside returns.

        Where `reads_stream`, it is also given `stream`, the stream before the norm, and `norm`.
        """
        stream, norm = kwargs.pop("stream", None), kwargs.pop("norm", None)
        x = self.hook_in(args[0] if args else kwargs.pop("hidden_states"))
        forks = None
        if stream is not None:
            forks = lambda normed: self._forks(normed, stream, norm)  # noqa: E731
        seams = AttentionSeams(
            rot_q=getattr(self, "hook_rot_q", identity),
            rot_k=getattr(self, "hook_rot_k", identity),
            attn_scores=self.hook_attn_scores,
            pattern=self.hook_pattern,
            result=self.hook_result if getattr(self.config, "use_attn_result", False) else None,
            forks=forks,
        )
        output = cast(nn.Module, self.original_component)(x, *args[1:], seams=seams, **kwargs)
        return self.hook_out(output[0]), *output[1:]

    def _forks(self, normed: Tensor, stream: Tensor, norm: nn.Module) -> Forks:
        """What each head's queries, keys and values read, [batch, position, head, d_model]."""
        config: Any = self.config
        function = norm.original_component if isinstance(norm, GeneralizedComponent) else norm
        shared = cast(nn.Module, function)(stream)[:, :, None]
        n_heads, n_groups = config.n_heads, config.n_key_value_heads or config.n_heads

        def fork(point: HookPoint, n: int) -> Any:
            copies = point(stream[:, :, None].expand(-1, -1, n, -1).contiguous())
            read: Tensor = cast(nn.Module, function)(copies)
            return normed[:, :, None] + (read - shared)

        if config.use_attn_in:
            every = fork(self.hook_attn_in, n_heads)
            return every, every[:, :, :n_groups], every[:, :, :n_groups]
        return (
            fork(self.hook_q_input, n_heads),
            fork(self.hook_k_input, n_groups),
            fork(self.hook_v_input, n_groups),
        )


class HookedBlockBridge(BlockBridge):
    """A block's hook points; `hook_resid_mid` is the stream itself, not the entrance of the MLP's norm."""

    hook_aliases = {  # noqa: RUF012 - as the base class has it
        alias: target for alias, target in BlockBridge.hook_aliases.items() if alias != "hook_resid_mid"
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if getattr(self.config, "attn_only", False):
            self.hook_aliases = {k: v for k, v in self.hook_aliases.items() if k != "hook_mlp_out"}
        else:
            self.hook_resid_mid = HookPoint()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As `BlockBridge.forward`, with the block's seams."""
        if hasattr(self, "hook_resid_mid"):
            kwargs["resid_mid"] = self.hook_resid_mid
        if self._read_use_hook_mlp_in():
            # A copy: an edit in place reaches the MLP only.
            kwargs["mlp_in"] = lambda x: self.hook_mlp_in(x.clone())
        return super().forward(*args, **kwargs)

    def _maybe_wire_capture_hooks(self) -> None:
        """Nothing is captured by PyTorch hooks: the block hands its values to the seams."""

    def _wire_ln1_module(self) -> None:
        """The block hands its norm to attention."""


class HookedBridge(TransformerBridge):
    """A bridge over a native model with every hook point live.

    Attributes:
        built: The modules of which it was built; see `interp.model.structure`.
    """

    built: Structure
    attends_to_nothing = True
    """A query of which all scores are -inf attends to nothing."""

    def _validate_attention_fork_supported(self, flag_name: str) -> None:
        if not all(getattr(block.attn, "has_live_forks", False) for block in self.blocks):
            super()._validate_attention_fork_supported(flag_name)


@default_state()
def native_model(
    config: TransformerBridgeConfig,
    tokenizer: PreTrainedTokenizerFast | None = None,
    device: torch.device | str | None = None,
) -> TransformerBridge:
    """A native model with the weights and values of `boot_native`'s, and `HookedTransformer`'s hook points.

    Args:
        config: What to build; `init_mode`, `initializer_range` and `seed` determine the weights.
        tokenizer: What `to_tokens` uses.
        device: Where the weights are.

    Raises:
        NotImplementedError, ValueError: TransformerLens cannot build such a model.

    Example:
        >>> from interp import preset
        >>> from interp.model import bridge_config
        >>> model = native_model(bridge_config(preset("smoke"), d_vocab=50))
        >>> "blocks.0.hook_resid_mid" in model.hook_dict
        True
    """
    cfg = copy.deepcopy(config)
    with torch.random.fork_rng(devices=[]):  # weights are drawn from a generator of their own
        model = HookedModel(cfg)
        initialize_native_model(model, cfg)
    bridge = build_bridge_from_module(
        model if device is None else model.to(device),
        _ARCHITECTURE,
        tl_config=cfg,
        tokenizer=tokenizer,
        device=device,
        model_name="native",
        post_adapter_hook=_use_hooked_components,
    )
    # The builder makes the plain class only; nothing but a method differs.
    bridge.__class__ = HookedBridge
    hooked = cast(HookedBridge, bridge)
    hooked.built = Structure(hooked, hooked.original_model)
    return hooked


def softmax(scores: Float[Tensor, "*rows key"]) -> Float[Tensor, "*rows key"]:
    """Attention weights; a query that may attend to nothing attends to nothing, gradient included."""
    nothing = torch.isneginf(scores).all(-1, keepdim=True)
    return F.softmax(scores.masked_fill(nothing, 0.0), dim=-1).masked_fill(nothing, 0.0)


def _use_hooked_components(adapter: ArchitectureAdapter) -> None:
    mapping = adapter.component_mapping
    assert mapping is not None
    parts = dict(mapping["blocks"].submodules)
    parts["attn"] = HookedAttentionBridge(
        name="attn", config=adapter.cfg, submodules=parts["attn"].submodules
    )
    mapping["blocks"] = HookedBlockBridge(name="layers", config=adapter.cfg, submodules=parts)


def _call(module: Any, compute: Callable[[Tensor, Any], Tensor], x: Tensor) -> Tensor:
    """Calls a projection, its hooks included, with another computation in place of its linear map."""
    if type(module) is not LinearBridge or "forward" in module.__dict__:
        return compute(x, module)

    def forward(x: Tensor) -> Tensor:
        return cast(Tensor, module.hook_out(compute(module.hook_in(x), module.original_component)))

    if not carries_hooks(module):
        return forward(x)
    module.__dict__["forward"] = forward  # PyTorch calls it between the module's hooks
    try:
        return cast(Tensor, module(x))
    finally:
        del module.__dict__["forward"]


def _is_linear(module: nn.Module) -> bool:
    watched = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return type(module) is nn.Linear and not watched


def project_heads(
    module: nn.Module, x: Float[Tensor, "batch position head d_model"], d_head: int
) -> Float[Tensor, "batch position width"]:
    """Each head's copy of the input through that head's rows of a projection."""

    def compute(x: Tensor, linear: Any) -> Tensor:
        n_heads = x.shape[2]
        if _is_linear(linear):
            weight = linear.weight.unflatten(0, (n_heads, d_head))
            out = torch.einsum("bphm,hdm->bphd", x, weight)
            if linear.bias is not None:
                out = out + linear.bias.unflatten(0, (n_heads, d_head))
        else:  # every copy through all heads, and of that its own head
            every = linear(x).unflatten(-1, (n_heads, d_head))
            out = every.diagonal(dim1=2, dim2=3).movedim(-1, 2)
        return out.flatten(2)

    return _call(module, compute, x)
