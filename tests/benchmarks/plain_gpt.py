"""A plain, well-written PyTorch GPT of the same size as a preset: what the hooked model is held against."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp import Config


class PlainBlock(nn.Module):
    """Pre-LN attention (one fused projection, scaled_dot_product_attention), then the MLP."""

    def __init__(self, d_model: int, n_heads: int, d_mlp: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.ln1, self.ln2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up, self.down = nn.Linear(d_model, d_mlp), nn.Linear(d_mlp, d_model)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, d_model = x.shape
        q, k, v = (
            part.view(batch, width, self.n_heads, -1).transpose(1, 2)
            for part in self.qkv(self.ln1(x)).split(d_model, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, width, d_model))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class PlainGPT(nn.Module):
    """Learned positions, LayerNorm, GELU, an unembedding of its own."""

    def __init__(self, config: Config, d_vocab: int) -> None:
        super().__init__()
        m = config.model
        self.tokens, self.places = (
            nn.Embedding(d_vocab, m.d_model),
            nn.Embedding(m.n_ctx, m.d_model),
        )
        self.blocks = nn.Sequential(
            *(PlainBlock(m.d_model, m.n_heads, m.d_mlp) for _ in range(m.n_layers))
        )
        self.norm, self.head = nn.LayerNorm(m.d_model), nn.Linear(m.d_model, d_vocab, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=m.init_std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places(places))))


def plain_loss(model: PlainGPT, tokens: Tensor, *, pad_token: int, precision: str) -> Tensor:
    """The training loss as a plain loop computes it."""
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(tokens[:, :-1])
        return F.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=pad_token
        )
