"""Model-FLOPs utilisation: the arithmetic that a model needs, against what its card can do.

A step of training needs, for every token, 6 operations for each weight of a matrix product (2 forward, 4
backward; the unembedding counts, the looked-up embeddings do not), and 12 n_layers d_model width for the
products of queries with keys and of patterns with values, as if all positions were attended to. What an
implementation computes beyond that does not count. Source: Chowdhery et al. 2022 (PaLM), appendix B.
"""

import re

from interp import Config

PEAKS = {
    r"\bB200\b": 2250.0,
    r"\bH200\b.*\bNVL\b": 835.0,
    r"\bH200\b": 989.0,
    r"\bGH200\b": 989.0,
    r"\bH100\b.*\bPCIe\b": 756.0,
    r"\bH100\b.*\bNVL\b": 835.0,
    r"\bH100\b": 989.0,
    r"\bA100\b": 312.0,
    r"\bL40S\b": 362.0,
    r"\bL4\b": 121.0,
}
"""Peak of dense bf16 products with sums in fp32, in TFLOP/s, by a pattern of the card's name; the first
that fits. Source: NVIDIA's data sheets, without the doubling for sparse matrices."""


def peak_tflops(card: str) -> float | None:
    """A card's peak; None if the table does not have it, or for a slice of a card (MIG)."""
    if "MIG" in card:
        return None
    return next((peak for name, peak in PEAKS.items() if re.search(name, card)), None)


def flops_per_token(config: Config, d_vocab: int, width: float) -> float:
    """Operations for a token of training, in sequences of `width` tokens."""
    m = config.model
    weights = m.n_layers * (4 * m.d_model**2 + 2 * m.d_model * m.d_mlp) + m.d_model * d_vocab
    return 6 * weights + 12 * m.n_layers * m.d_model * width
