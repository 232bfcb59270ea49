"""The transformer that is trained."""

from typing import Literal

from pydantic import Field, model_validator

from interp.config.base import MAX_SEED, Settings
from interp.errors import ConfigError


class ModelConfig(Settings):
    """The transformer."""

    n_layers: int = Field(default=2, ge=1, le=10_000)
    """Number of blocks, each attention then MLP."""
    d_model: int = Field(default=128, ge=1, le=10**6)
    """Width of the residual stream."""
    n_heads: int = Field(default=4, ge=1, le=10**6)
    """Attention heads per block; d_head is d_model / n_heads."""
    d_mlp: int = Field(default=512, ge=1, le=10**7)
    """Neurons per MLP."""
    n_ctx: int = Field(default=128, ge=8, le=10**6)
    """Longest sequence, in tokens. The longest biography that can be drawn must fit."""
    normalization: Literal["LN", "RMS"] | None = "LN"
    """LayerNorm or RMSNorm, before each sublayer and before the unembedding; or none."""
    positions: Literal["standard", "rotary"] = "standard"
    """Learned absolute positions ("standard") or rotary ones."""
    act_fn: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    """The MLP's activation function."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights; output projections are divided by sqrt(2 n_layers)."""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """Seed of the initial weights; by default the run's seed."""

    recurrence: Literal["rg_lru"] | None = None
    """None: attention. "rg_lru": RecurrentGemma's recurrent block in place of attention, which brings a
    gated MLP and RMSNorm and needs no positions: `normalization` and `positions` mean nothing then."""

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelConfig":
        if self.d_model % self.n_heads:
            raise ConfigError(
                f"model: d_model={self.d_model} is not a multiple of n_heads={self.n_heads}; "
                "choose values where it is."
            )
        if self.recurrence is not None and self.positions == "rotary":
            raise ConfigError(
                f"model: recurrence={self.recurrence!r} with positions='rotary'; rotary positions are a "
                "part of attention, which it replaces. Leave one of them out."
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise ConfigError(
                "model: rotary positions need an even head width, but d_model / n_heads = "
                f"{self.d_head}; change either."
            )
        return self
