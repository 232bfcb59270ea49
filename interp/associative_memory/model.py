"""The associative memory: one hidden ReLU layer, hooked like a TransformerLens MLP.

A hidden unit is a memory slot: its input weights are a key that it compares with what comes in, its
output weights a value that it adds to what goes out (Geva et al. 2021). There is no attention.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.associative_memory.config import MemoryModelConfig

_WEIGHTS = 5  # beside the numbers of what `pairs` draws


class AssociativeMemory(HookedRootModule):
    """Recalls a value for a key.

    The output is held against all values by dot products; those are the logits. (Our summary of
    the paper does not say its loss; with cross-entropy over the values chance and accuracy mean the same
    as in a language model.) Weights begin normal with variance 1 / inputs, biases at 0.

    Hooks: `hook_pre` and `hook_post`, before and after the ReLU, and `hook_out`, the output.

    Args:
        config: Its size.
        seed: Seed of its initial weights.
    """

    def __init__(self, config: MemoryModelConfig, seed: int = 0) -> None:
        super().__init__()
        generator = np.random.default_rng([seed, _WEIGHTS])

        def weights(inputs: int, outputs: int) -> nn.Parameter:
            drawn = generator.standard_normal((inputs, outputs)) / inputs**0.5
            return nn.Parameter(torch.from_numpy(drawn.astype(np.float32)))

        self.W_in = weights(config.d_model, config.n_hidden)
        self.W_out = weights(config.n_hidden, config.d_model)
        self.b_in: nn.Parameter | None = None
        self.b_out: nn.Parameter | None = None
        if config.biases:
            self.b_in = nn.Parameter(torch.zeros(config.n_hidden))
            self.b_out = nn.Parameter(torch.zeros(config.d_model))
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()
        self.hook_out = HookPoint()
        self.setup()

    @property
    def keys(self) -> Float[Tensor, "neuron d_model"]:
        """What each hidden unit fires for: its input weights."""
        return self.W_in.T

    @property
    def values(self) -> Float[Tensor, "neuron d_model"]:
        """What each hidden unit writes: its output weights."""
        return self.W_out

    def forward(self, keys: Float[Tensor, "pair d_model"]) -> Float[Tensor, "pair d_model"]:
        """The output for some keys."""
        pre = keys @ self.W_in if self.b_in is None else torch.addmm(self.b_in, keys, self.W_in)
        post = self.hook_post(torch.relu(self.hook_pre(pre)))
        out = post @ self.W_out if self.b_out is None else torch.addmm(self.b_out, post, self.W_out)
        recalled: Tensor = self.hook_out(out)
        return recalled


def recall_logits(
    model: AssociativeMemory,
    keys: Float[Tensor, "pair d_model"],
    values: Float[Tensor, "value d_model"],
) -> Float[Tensor, "pair value"]:
    """How well the output for each key agrees with each value: their dot product."""
    logits: Tensor = model(keys) @ values.T
    return logits


def recall_loss(
    model: AssociativeMemory,
    keys: Float[Tensor, "pair d_model"],
    values: Float[Tensor, "value d_model"],
    answers: Int[Tensor, " pair"],
) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) of the right value among all values."""
    return cross_entropy(recall_logits(model, keys, values), answers)
