"""Gradients of groups of facts, and their scalar products: exact, or from a sparse random projection.

Only scalar products are needed, and those of all weights are the sum of those of the components. Where
the gradients of all groups do not fit into memory, each component's are projected to fewer numbers by a
count sketch (Charikar et al. 2002; Weinberger et al. 2009, arXiv:0902.2206): every weight is added, with a
random sign, to one of k sums. Scalar products are kept in expectation, with the variance
(|a|² |b|² + (a b)²) / k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.equations.components import Component, differentiable
from interp.equations.texts import Equations
from interp.errors import ArgumentError
from interp.interventions.memory_limit import budget
from interp.model import measuring, require_numbers

_BLOCK = 2**20  # numbers of a gradient that are projected, or multiplied, at a time
_FLOAT = 4
_FEWEST = 64  # sums, below which an error is too large to be of use
_MOST = 2**16  # sums of a component: the error of a cosine is 0.004 then


@dataclass(frozen=True)
class Products:
    """Scalar products of gradients.

    Attributes:
        components: Kind and layer of each component.
        values: The products, by component.
        dims: Of each component, to how many numbers gradients were projected; 0 where they are exact.
    """

    components: list[tuple[str, int | None]]
    values: Float[np.ndarray, "component vector vector"]
    dims: Int64[np.ndarray, " component"]

    def of(self, chosen: Sequence[int]) -> "Products":
        """Some of the components."""
        return Products(
            [self.components[i] for i in chosen], self.values[list(chosen)], self.dims[list(chosen)]
        )

    def normed(self) -> "Products":
        """Of the gradients (of all components together) at length 1; NaN where one is 0."""
        square = self.values.sum(axis=0).diagonal()
        length = np.sqrt(np.where(square > 0, square, np.nan))
        return Products(self.components, self.values / np.outer(length, length), self.dims)

    def mapped(self, matrix: Float[np.ndarray, "vector vector"]) -> "Products":
        """Of linear combinations of the gradients, one a row of the matrix."""
        return Products(self.components, matrix @ self.values @ matrix.T, self.dims)

    def cosines(
        self,
    ) -> tuple[Float[np.ndarray, "vector vector"], Float[np.ndarray, "vector vector"]]:
        """Cosines over all components together, and their standard errors (0 where they are exact).

        The error is to first order: products of a component have the covariance
        (S_ik S_jl + S_il S_jk) / k of a random projection to k numbers.
        """
        unit = self.normed().values
        cosine = unit.sum(axis=0)
        variance = np.zeros_like(cosine)
        for r, k in zip(unit, self.dims.tolist(), strict=True):
            if not k:
                continue
            p, q = r.diagonal()[:, None], r.diagonal()[None, :]
            variance += (
                p * q + r**2 + cosine**2 / 2 * (p**2 + q**2 + 2 * r**2) - 2 * cosine * r * (p + q)
            ) / k
        return cosine, np.sqrt(np.maximum(variance, 0.0))


class GradientStore:
    """Gradients as rows, by component: whole, or projected.

    Args:
        components: The weights.
        n: How many gradients.
        dims: To how many numbers a component with more is projected; None to keep all whole.
        seed: Of the projection.
    """

    def __init__(
        self, components: Sequence[Component], n: int, dims: int | None, seed: int
    ) -> None:
        self.components = list(components)
        sizes = [one.size for one in self.components]
        self.dims = [0 if dims is None or size <= dims else dims for size in sizes]
        self.rows = [torch.zeros(n, k or size) for k, size in zip(self.dims, sizes, strict=True)]
        self._seed = seed

    def put(self, number: int, gradients: Sequence[Float[Tensor, " _"]]) -> None:
        """Keeps a gradient, given flat by component."""
        for index, (gradient, k, rows) in enumerate(
            zip(gradients, self.dims, self.rows, strict=True)
        ):
            rows[number] = gradient if not k else self._projected(gradient, k, index)

    def _projected(self, gradient: Tensor, k: int, component: int) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + component) % 2**63)
        sums = torch.zeros(k, dtype=torch.float64)
        for block in gradient.split(_BLOCK):
            place = torch.randint(2 * k, block.shape, generator=generator)
            signed = torch.where(place % 2 == 0, block, -block).double()
            sums.index_add_(0, torch.div(place, 2, rounding_mode="floor"), signed)
        return sums.float()

    def products(self) -> Products:
        """The scalar products of all gradients, added up in double precision."""
        values = []
        for rows in self.rows:
            product = torch.zeros(len(rows), len(rows), dtype=torch.float64)
            for block in rows.split(max(1, _BLOCK // len(rows)), dim=1):
                wide = block.double()
                product += wide @ wide.T
            values.append(product.numpy())
        names = [(one.kind, one.layer) for one in self.components]
        return Products(names, np.stack(values), np.array(self.dims, dtype=np.int64))


def projected_dims(
    components: Sequence[Component],
    n: int,
    max_memory_gb: float | int | None,
    dims: int | None,
) -> int | None:
    """To how many numbers the components of `n` gradients are projected; None: they fit whole.

    Raises:
        ArgumentError: memory is too little for any projection.
    """
    limit = budget(max_memory_gb, torch.device("cpu"))
    total = sum(one.size for one in components)
    if dims is not None:
        return None if max(one.size for one in components) <= dims else dims
    if _FLOAT * total * n <= limit:
        return None
    fits = int(limit / (_FLOAT * n * len(components)))
    if fits < _FEWEST:
        raise ArgumentError(
            f"{n} gradients of {len(components)} components do not fit into {limit / 2**30:.3g} GiB, even "
            f"projected to {_FEWEST} numbers each. Give a larger max_memory_gb, or fewer groups."
        )
    return min(fits, _MOST)


def mean_gradients(
    model: TransformerLensModel,
    store: GradientStore,
    systems: Sequence[tuple[Equations, Int64[np.ndarray, " fact"], int]],
    batch_size: int,
) -> None:
    """Puts into the store the gradient of the mean loss of every group of facts.

    The loss of a fact is that of its tokens together, as a residual's.

    Args:
        model: The model; it is left as it was.
        store: Where they go.
        systems: Facts, the group of each (-1: none), and at which number the gradient of group 0 goes.
        batch_size: Texts computed at a time.
    """
    weights = [weight for one in store.components for weight in one.weights]
    with measuring(model), differentiable(model):
        for equations, groups, first in systems:
            for group in range(int(groups.max()) + 1):
                own = equations.select(groups == group)
                sums = [
                    torch.zeros(w.numel(), device=w.device, dtype=torch.float32) for w in weights
                ]
                for part in own.parts(batch_size):
                    losses, _ = part.token_losses(model)
                    total = losses.sum() / len(own)
                    require_numbers(total.detach(), "losses")
                    slopes = torch.autograd.grad(total, weights, allow_unused=True)
                    for kept, slope in zip(sums, slopes, strict=True):
                        if slope is not None:
                            kept += slope.flatten().float()
                store.put(first + group, _by_component(sums, store.components))


def _by_component(sums: Sequence[Tensor], components: Sequence[Component]) -> list[Tensor]:
    found, start = [], 0
    for one in components:
        stop = start + len(one.weights)
        found.append(torch.cat([part.cpu() for part in sums[start:stop]]))
        start = stop
    return found
