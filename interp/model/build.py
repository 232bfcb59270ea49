"""Hooked transformers, built by TransformerLens with random weights."""

import torch
from torch import nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

from interp.biographies import Population, tokenizer_of
from interp.config import Config
from interp.model.components import native_model
from interp.torch_state import default_state


def bridge_config(config: Config, d_vocab: int) -> TransformerBridgeConfig:
    """The TransformerLens configuration of a run's model, with `d_vocab` tokens."""
    model = config.model
    return TransformerBridgeConfig(
        n_layers=model.n_layers,
        d_model=model.d_model,
        n_heads=model.n_heads,
        d_head=model.d_head,
        d_mlp=model.d_mlp,
        n_ctx=model.n_ctx,
        d_vocab=d_vocab,
        act_fn=model.act_fn,
        normalization_type=model.normalization,
        positional_embedding_type=model.positions,
        rotary_adjacent_pairs=model.positions == "rotary",
        rotary_dim=model.d_head if model.positions == "rotary" else None,
        init_mode="gpt2",
        initializer_range=model.init_std,
        seed=config.seed_of("model"),
        default_padding_side="right",
    )


@default_state()
def hooked_transformer(
    config: Config,
    tokenizer: PreTrainedTokenizerFast | None = None,
    device: torch.device | str = "cpu",
) -> TransformerBridge:
    """A randomly initialised transformer with TransformerLens hooks.

    Args:
        config: The run's settings; `config.model` and the model seed determine the weights.
        tokenizer: The population's tokenizer, made from the settings by default. The model uses it
            in `to_tokens` and `to_str_tokens`.
        device: Where the weights are.

    Returns:
        A `TransformerBridge` with every hook point of `HookedTransformer` (`blocks.0.attn.hook_pattern`,
        `blocks.0.mlp.hook_post`, ...) and its weights (`W_Q`, `W_out`, ...), in train mode. With
        `config.model.recurrence` it is a recurrent model (see `interp.model.recurrent`), which has the
        hooks on the residual stream and the MLPs, and none on attention.

    Example:
        >>> from interp import hooked_transformer, preset
        >>> model = hooked_transformer(preset("smoke"))
        >>> model.cfg.n_layers
        2
    """
    if tokenizer is None:
        tokenizer = tokenizer_of(config, Population.of(config).lexicon)
    if config.model.recurrence is not None:
        from interp.model.recurrent import recurrent_transformer  # the one user of these imports

        return recurrent_transformer(config, tokenizer, device)
    model = native_model(bridge_config(config, len(tokenizer)), tokenizer, device)
    return model.train()


_EMBEDDINGS = {
    "embed", "pos_embed", "unembed", "tok_embed", "pos", "head", "embed_tokens", "lm_head",
}  # fmt: skip
"""What holds the embeddings, by TransformerLens' names or by those of the model inside."""


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Number of parameters: `total`, `embedding` (tokens, positions, unembedding), `non_embedding`."""
    total = embedding = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        if _EMBEDDINGS & set(name.split(".")[:2]):
            embedding += parameter.numel()
    return {"total": total, "embedding": embedding, "non_embedding": total - embedding}
