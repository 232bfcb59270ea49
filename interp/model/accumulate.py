"""Sums and means of activations, in single precision at least.

A model in bfloat16 has 8 bits for a number. A running sum of that type stands still once it is 256
times as large as what is added, and its mean is that of the first texts. What a measure adds up over
texts, positions or people is added up in single precision; only what goes back into the model is of the
model's type.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_single(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same numbers in single precision; in double where they come in double."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RunningMean:
    """The mean over everything that is added, part by part.

    Attributes:
        count: How many were added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._total: Tensor | None = None

    def add(self, part: Float[Tensor, "n *unit"]) -> None:
        """Adds activations of one shape, [n, unit...]; a part may be empty."""
        total = part.sum(dim=0, dtype=torch.promote_types(part.dtype, torch.float32))
        self._total = total if self._total is None else self._total + total
        self.count += len(part)

    @property
    def mean(self) -> Float[Tensor, "*unit"]:
        """The mean, in single precision at least; 0 if all parts were empty."""
        assert self._total is not None, "nothing was added"
        return self._total / max(self.count, 1)
