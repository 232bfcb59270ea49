"""What an adapter adds, written into the weights of a model, and taken out again bit for bit."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from interp.errors import ArgumentError
from interp.model.adapter_sites import Joint, Place, joint_of


class Merge:
    """Changes that are in the weights of linear maps, with copies of what these were before.

    Args:
        model: Whose maps they are.
        places: The maps, without an adapter.
        changes: What is added to each weight, by the map's name.
    """

    @torch.no_grad()
    def __init__(self, model: Any, places: Sequence[Place], changes: Mapping[str, Tensor]) -> None:
        self._kept: list[tuple[Tensor, Tensor, str]] = []
        for place in places:
            self._add(place, joint_of(model, place), changes[place.name])

    def _add(self, place: Place, joint: Joint | None, change: Tensor) -> None:
        weight: Tensor = cast(Any, place.held).weight
        whole: Tensor | None = None if joint is None else cast(Any, joint.linear).weight
        if whole is not None and _same_storage(whole, weight):
            whole = None  # it is written with its parts
        written = [weight] if whole is None else [weight, whole]
        copies = [each.detach().clone() for each in written]
        weight.add_(change.to(weight))
        if whole is not None:
            _write_rows(cast(Joint, joint), place.site, weight)
        self._kept += [
            (each, copy, _digest(each)) for each, copy in zip(written, copies, strict=True)
        ]

    @torch.no_grad()
    def undo(self) -> None:
        """Puts the weights back.

        Raises:
            ArgumentError: they have been changed since; nothing is written then.
        """
        last = {id(weight): (weight, digest) for weight, _, digest in self._kept}
        if any(_digest(weight) != digest for weight, digest in last.values()):
            raise ArgumentError(
                "The weights of this model have changed since the adapter was merged (it was trained on, or "
                "given another type), so what they were before cannot be put back."
            )
        for weight, copy, _ in reversed(self._kept):
            weight.copy_(copy)


def _same_storage(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _write_rows(joint: Joint, site: str, weight: Float[Tensor, "out in"]) -> None:
    whole: Tensor = cast(Any, joint.linear).weight
    across = whole.T if isinstance(joint.linear, Conv1D) else whole
    across[joint.rows[site].to(whole.device)] = weight.to(whole)


def _digest(weight: Tensor) -> str:
    plain = weight.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(f"{weight.dtype} ".encode() + plain.numpy().tobytes()).hexdigest()
