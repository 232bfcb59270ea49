"""The change of an output matrix that maps keys to new outputs, in closed form and in float64.

With keys k_i [in], residuals r_i [out] (what is to be added to the matrix's output at k_i) and the second
moment C = E[k kᵀ] of the keys of other text, the change is ΔW = L Rᵀ:

- one key exactly, disturbing others least (minimum of E|ΔW k|² with ΔW k_1 = r_1): L = r_1,
  R = C⁻¹ k_1 / (k_1ᵀ C⁻¹ k_1). Meng et al. 2022 (ROME, arXiv:2202.05262), equation 2.
- many keys at once, the minimum of Σ|ΔW k_i - r_i|² + λ E|ΔW k|²: L = [r_i],
  R = (λ C + Σ k_i k_iᵀ)⁻¹ [k_i]. Meng et al. 2023 (MEMIT, arXiv:2210.07229), equation 14.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Factors:
    """A change of a matrix as a product of low rank, `left @ right.T`, in float64.

    Attributes:
        left: For each rank a direction of the output.
        right: For each rank a direction of the input.
    """

    left: Float[Tensor, "out rank"]
    right: Float[Tensor, "in rank"]

    @property
    def change(self) -> Float[Tensor, "out in"]:
        """The whole change."""
        return self.left @ self.right.T


def regularised(moment: Float[Tensor, "in in"], ridge: float) -> Float[Tensor, "in in"]:
    """A second moment with `ridge` times its mean diagonal added to the diagonal: then it has an inverse.

    Raises:
        ArgumentError: it is zero, or ridge is below 0.
    """
    if not ridge >= 0:
        raise ArgumentError(f"ridge={ridge!r}: give a number from 0.")
    mean = float(moment.diagonal().mean())
    if not mean > 0:
        raise ArgumentError(
            "The inputs of the output matrix are zero in all of the background texts, so there is nothing "
            "to hold them against. Give other texts."
        )
    return moment + ridge * mean * torch.eye(len(moment), dtype=moment.dtype)


def rank_one(
    key: Float[Tensor, " in"], residual: Float[Tensor, " out"], moment: Float[Tensor, "in in"]
) -> Factors:
    """The change that adds a residual at one key exactly, and least elsewhere (ROME).

    Args:
        key: The key.
        residual: What is to be added to the output there.
        moment: C = E[k kᵀ], regularised.

    Raises:
        ArgumentError: the key is zero, or C has no inverse.
    """
    solved = _solved(moment, key[:, None])[:, 0]
    scale = float(solved @ key)
    if not scale > 0:
        raise ArgumentError("The key is zero: no neuron fires there, so nothing can be written.")
    return Factors(residual[:, None].clone(), (solved / scale)[:, None])


def in_turn(
    keys: Float[Tensor, "in n"], residuals: Float[Tensor, "out n"], moment: Float[Tensor, "in in"]
) -> Factors:
    """Rank-one changes one after the other, each exact at its key when it is made (ROME, n times)."""
    solved = _solved(moment, keys)
    scales = (solved * keys).sum(0)
    if not bool((scales > 0).all()):
        raise ArgumentError("A key is zero: no neuron fires there, so nothing can be written.")
    right = solved / scales
    left = torch.zeros_like(residuals)
    for i in range(keys.shape[1]):
        left[:, i] = residuals[:, i] - left[:, :i] @ (right[:, :i].T @ keys[:, i])
    return Factors(left, right)


def least_squares(
    keys: Float[Tensor, "in n"],
    residuals: Float[Tensor, "out n"],
    moment: Float[Tensor, "in in"],
    weight: float,
    mentions: Float[Tensor, "in in"] | None = None,
) -> Factors:
    """The change that adds residuals at many keys, as well as it can (MEMIT).

    Args:
        keys: The keys.
        residuals: What is to be added to the output at each.
        moment: C = E[k kᵀ], regularised.
        weight: λ, above 0: how much other text counts against the keys.
        mentions: Σ E[k kᵀ] over the mentions of each key, of which `keys` are the means; by default every
            mention has the mean key.

    Raises:
        ArgumentError: the weight is not above 0, or what is solved has no inverse.
    """
    if not weight > 0:
        raise ArgumentError(f"weight={weight!r}: give a number above 0.")
    asked = keys @ keys.T if mentions is None else mentions
    return Factors(residuals.clone(), _solved(weight * moment + asked, keys))


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    factor, fault = torch.linalg.cholesky_ex(matrix)
    if int(fault):
        raise ArgumentError(
            "The second moment of the keys has no inverse: the background texts have too few tokens for "
            f"{len(matrix)} neurons. Give more texts, or a larger ridge."
        )
    return torch.cholesky_solve(right, factor)
