"""The recurrent variant: RecurrentGemma's recurrent block in the place of attention (Hawk).

A block of `transformers`' RecurrentGemma, of the recurrent kind only: two branches from the normed
residual stream, one through a short causal convolution and a gated linear recurrence (RG-LRU), the
other through an activation function; their product is projected back into the stream. A gated MLP
follows. The recurrence, for every channel, with i and r the sigmoids of two linear gates:

    log a_t = -8 r_t softplus(Λ)
    h_t     = a_t h_{t-1} + sqrt(1 - a_t²) i_t x_t,    h_0 = i_0 x_0

TransformerLens hooks the residual stream around such a block; here its parts are hooked too, under
the names that TransformerLens gives to a transformer's where there is one.

Source: De et al. 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient
Language Models", section 2.
"""

import math
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.generalized_components import GatedMLPBridge, LinearBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedTokenizerFast, RecurrentGemmaConfig, RecurrentGemmaForCausalLM
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import (
    RecurrentGemmaDecoderLayer,
    RecurrentGemmaRglru,
)

from interp.config import Config
from interp.model.components import HookedBlockBridge, Seam, identity

_ARCHITECTURE = "RecurrentGemmaForCausalLM"
_SHORTEST_MEMORY, _LONGEST_MEMORY = 0.9, 0.999
"""The range of exp(-softplus(Λ)) at the start (De et al. 2024, section 2.4)."""


def recurrent_transformer(
    config: Config, tokenizer: PreTrainedTokenizerFast, device: torch.device | str = "cpu"
) -> TransformerBridge:
    """A randomly initialised model with recurrent blocks, with TransformerLens hooks.

    Of `config.model` it takes `n_layers`, `d_model`, `d_mlp` (the width of the gated MLP), `n_heads`
    (blocks of the block-diagonal gates), `act_fn`, `n_ctx`, `init_std` and the seed. Norms are
    RMSNorm, and there are no position embeddings. As in RecurrentGemma, token embeddings are
    multiplied by sqrt(d_model) and logits are capped at ±30 by a tanh; the unembedding is not tied.

    Returns:
        A `TransformerBridge` in train mode, with hooks on the residual stream
        (`blocks.0.hook_resid_pre`, `hook_resid_mid`, `hook_resid_post`), the recurrence
        (`blocks.0.recurrence.hook_out`, `.rg_lru.hook_out`, ...) and the MLP
        (`blocks.0.mlp.hook_post`, `hook_mlp_out`). There are no attention patterns.
    """
    settings = recurrent_config(config, tokenizer)
    with torch.random.fork_rng(devices=[]):  # the library's own weights are drawn, and thrown away
        model = RecurrentGemmaForCausalLM(settings)
        for layer in model.model.layers:
            layer.__class__ = RecurrentLayer  # they differ in a method only
            layer.temporal_block.rg_lru = Rglru(settings)
    initialize(model, config.model.init_std, config.seed_of("model"))
    bridge = build_bridge_from_module(
        cast(nn.Module, model).to(device),
        _ARCHITECTURE,
        hf_config=settings,
        tokenizer=tokenizer,
        device=device,
        model_name="recurrent",
        post_adapter_hook=_Overlay(config),
    )
    # The builder makes the plain class only; nothing but a method differs.
    bridge.__class__ = RecurrentBridge
    return bridge.train()


def recurrent_config(config: Config, tokenizer: PreTrainedTokenizerFast) -> RecurrentGemmaConfig:
    """The `transformers` configuration of a run's recurrent model."""
    model = config.model
    return RecurrentGemmaConfig(
        architectures=[_ARCHITECTURE],
        block_types=["recurrent"],
        num_hidden_layers=model.n_layers,
        hidden_size=model.d_model,
        num_attention_heads=model.n_heads,
        intermediate_size=2 * model.d_mlp,  # the library's MLP is half as wide as this says
        hidden_activation=model.act_fn,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,  # a padding index would keep that token's embedding at zero
        tie_word_embeddings=False,
        use_cache=False,
    )


@torch.no_grad()
def initialize(model: RecurrentGemmaForCausalLM, init_std: float, seed: int) -> None:
    """Draws all weights, on the CPU and in a fixed order.

    Matrices are normal with standard deviation `init_std`, those that write into the residual stream
    divided by sqrt(2 n_layers), as in the transformers with attention; biases are 0 and norms 1. The
    convolution, which sums over 4 tokens and not over the width, has the variance 1/4, and Λ is
    drawn such that exp(-softplus(Λ))² is uniform between 0.9² and 0.999².
    """
    generator = torch.Generator().manual_seed(seed)
    written = init_std / math.sqrt(2 * model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        drawn = torch.zeros(parameter.shape)  # biases; a norm multiplies by 1 + its weight
        kind, leaf = name.split(".")[-2:]
        if leaf == "recurrent_param":
            squares = drawn.uniform_(_SHORTEST_MEMORY**2, _LONGEST_MEMORY**2, generator=generator)
            drawn = squares.rsqrt().sub(1).log()  # the inverse of exp(-softplus(Λ))
        elif kind == "conv_1d" and leaf == "weight":
            drawn.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        elif leaf.endswith("weight") and parameter.ndim > 1:
            out = kind in ("linear_out", "down_proj")
            drawn.normal_(std=written if out else init_std, generator=generator)
        parameter.copy_(drawn)


class Rglru(RecurrentGemmaRglru):
    """The library's RG-LRU with a quicker scan, and without a state that outlives the pass."""

    def _rnn_scan(
        self,
        hidden_states: Tensor,
        recurrent_gate: Tensor,
        reset: Tensor,
        recurrent_states: Tensor | None,
        acc_dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Any]:
        if recurrent_states is not None:
            scanned: tuple[Tensor, Tensor] = super()._rnn_scan(
                hidden_states, recurrent_gate, reset, recurrent_states, acc_dtype
            )
            return scanned
        return scan(hidden_states, recurrent_gate * ~reset), None


def scan(
    inputs: Float[Tensor, "batch position width"], decay: Float[Tensor, "batch position width"]
) -> Float[Tensor, "batch position width"]:
    """The states h_t = decay_t h_{t-1} + inputs_t, from h_{-1} = 0, in the type of the inputs.

    States are kept in fp32. The library's loop leaves the backward pass to autograd, where every
    position's write into the result costs a pass over all of it.
    """
    states: Tensor = _Scan.apply(inputs, decay.float())
    return states


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, decay: Tensor) -> Tensor:
        # Positions first: what a step reads and writes then lies in one piece.
        x, a = (part.transpose(0, 1).float().contiguous() for part in (inputs, decay))
        states = torch.empty_like(x)
        states[0] = x[0]
        for t in range(1, len(x)):
            torch.addcmul(x[t], a[t], states[t - 1], out=states[t])
        ctx.save_for_backward(a, states)
        ctx.dtype = inputs.dtype
        return states.transpose(0, 1).to(inputs.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, states = ctx.saved_tensors
        grad_x = grad.transpose(0, 1).to(
            torch.float32, memory_format=torch.contiguous_format, copy=True
        )
        for t in range(len(a) - 1, 0, -1):
            grad_x[t - 1].addcmul_(a[t], grad_x[t])
        grad_a = torch.zeros_like(a)
        torch.mul(grad_x[1:], states[:-1], out=grad_a[1:])
        return grad_x.transpose(0, 1).to(ctx.dtype), grad_a.transpose(0, 1)


class RecurrentLayer(RecurrentGemmaDecoderLayer):
    """The library's layer, whose stream between recurrence and MLP passes through a seam."""

    def forward(
        self,
        activations: Float[Tensor, "batch position d_model"],
        position_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Any = None,
        resid_mid: Seam = identity,
        mlp_in: Seam = identity,
        **kwargs: Any,
    ) -> Float[Tensor, "batch position d_model"]:
        """The stream after the layer; see `RecurrentGemmaDecoderLayer.forward`."""
        written, _ = self.temporal_block(
            self.temporal_pre_norm(activations),
            position_ids=position_ids,
            attention_mask=attention_mask,
            use_cache=use_cache,
            past_key_values=past_key_values,
            **kwargs,
        )
        middle = resid_mid(written + activations)
        after: Tensor = self.mlp_block(self.channel_pre_norm(mlp_in(middle))) + middle
        return after


class RecurrentBridge(TransformerBridge):
    """A bridge whose `state_dict` holds all weights.

    TransformerLens takes a weight inside a component for one of its own only if it is called "weight"
    or "bias", and would leave out the RG-LRU's.
    """

    def _is_valid_bridge_path(self, hf_path: str) -> bool:
        return ".rg_lru." in hf_path or super()._is_valid_bridge_path(hf_path)


class _RecurrentBlock(HookedBlockBridge):
    """Hook names of a block: a transformer's where it has the same part."""

    hook_aliases = {  # noqa: RUF012 - as the base class has it
        "hook_resid_pre": "hook_in",
        "hook_resid_post": "hook_out",
        "hook_recurrence_out": "recurrence.hook_out",
        "hook_mlp_out": "mlp.hook_out",
    }


class _Overlay:
    """Tells TransformerLens' adapter for RecurrentGemma what the blocks are made of."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, adapter: ArchitectureAdapter) -> None:
        adapter.supports_kv_cache = False  # text is generated by reading all of it at every token
        cfg: TransformerBridgeConfig = adapter.cfg
        model = self.config.model
        cfg.n_ctx, cfg.d_mlp, cfg.act_fn = model.n_ctx, model.d_mlp, model.act_fn
        cfg.initializer_range = model.init_std
        cfg.seed = self.config.seed_of("model")
        cfg.positional_embedding_type = "none"
        cfg.default_prepend_bos = True
        cfg.default_padding_side = "right"
        recurrence = _part(
            "temporal_block",
            linear_x=LinearBridge(name="linear_x"),
            linear_y=LinearBridge(name="linear_y"),
            conv=_part("conv_1d"),
            rg_lru=_part("rg_lru"),
            linear_out=LinearBridge(name="linear_out"),
        )
        mlp: dict[str, GeneralizedComponent] = {
            "gate": LinearBridge(name="gate_proj"),
            "in": LinearBridge(name="up_proj"),
            "out": LinearBridge(name="down_proj"),
        }
        assert adapter.component_mapping is not None
        adapter.component_mapping["blocks"] = _RecurrentBlock(
            name="model.layers",
            config=cfg,
            submodules={
                "ln1": _part("temporal_pre_norm"),
                "recurrence": recurrence,
                "ln2": _part("channel_pre_norm"),
                "mlp": GatedMLPBridge(name="mlp_block", config=cfg, submodules=mlp),
            },
        )


def _part(name: str, **parts: GeneralizedComponent) -> GeneralizedComponent:
    return GeneralizedComponent(name=name, submodules=parts)
