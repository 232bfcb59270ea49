"""A change of weights that holds new facts: put on a model, taken off again, byte for byte."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers.pytorch_utils import Conv1D

from interp.errors import ArgumentError, CheckpointError
from interp.model import alone_with, require_normal_weights, require_own_weights
from interp.model.adapter_merge import Merge
from interp.model.layout import require_wrapped
from interp.torch_state import default_state
from interp.writing.closed_form import Factors
from interp.writing.costs import Arithmetic
from interp.writing.keys import output_place
from interp.writing.rewrites import Rewrite


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a model's parameters."""
    state = hashlib.sha256()
    for name, weight in sorted(model.named_parameters(), key=lambda one: one[0]):
        plain = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        state.update(f"\n{name} {weight.dtype} {list(weight.shape)}\n".encode())
        state.update(plain.numpy().data)
    return state.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class WeightEdit:
    """New facts as low-rank changes of MLP output matrices; `interp.write_facts` makes one.

    Attributes:
        factors: The change of each layer's output matrix, by layer.
        facts: The new facts.
        method: "rome" or "memit".
        position: The kind of token whose keys they are written at.
        base: `weights_digest` of the model it was made for.
        losses: Of each subject, -log p(new values) in nats, with the value vector put in (not the weights).
        costs: What making it has cost.
    """

    factors: Mapping[int, Factors]
    facts: tuple[Rewrite, ...]
    method: str
    position: str
    base: str
    losses: tuple[float, ...] = ()
    costs: Arithmetic = field(default_factory=Arithmetic)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose matrices are changed."""
        return tuple(sorted(self.factors))

    @property
    def rank(self) -> int:
        """The largest rank of a change: the number of subjects."""
        return max(one.left.shape[1] for one in self.factors.values())

    @property
    def table(self) -> pd.DataFrame:
        """The new facts: `subject`, `relation`, `before`, `value`."""
        rows = [(fact.subject, fact.relation, fact.before, fact.value) for fact in self.facts]
        return pd.DataFrame(rows, columns=["subject", "relation", "before", "value"])

    def __repr__(self) -> str:
        return (
            f"WeightEdit({len(self.facts)} facts, {self.method}, layers {list(self.layers)}, "
            f"{self.position!r}, rank {self.rank}, base {self.base[:12]})"
        )

    @default_state()
    def attach(self, model: TransformerBridge) -> "AttachedEdit":
        """Writes the changes into a model's weights; `undo()` of what is returned takes them out.

        Raises:
            CheckpointError: it is not the model that the edit was made for, bit for bit.
            ArgumentError: the model has an adapter, or is no TransformerLens model.
        """
        require_wrapped(model)
        require_own_weights(model)
        require_normal_weights(model)
        with alone_with(model):
            found = weights_digest(model)
            if found != self.base:
                raise CheckpointError(
                    f"This edit was made for weights {self.base[:12]}, and those of this model are "
                    f"{found[:12]}; give that model, without another edit, or write the facts anew."
                )
            return AttachedEdit(model, self.factors)

    @contextmanager
    def applied(self, model: TransformerBridge) -> Iterator[TransformerBridge]:
        """While this lasts the model has the new facts; errors as `attach` and `AttachedEdit.undo`."""
        attached = self.attach(model)
        try:
            yield model
        finally:
            attached.undo()

    def save(self, path: Path | str) -> Path:
        """Writes the factors and what they are to one safetensors file.

        Raises:
            RunError: the file is something else's.
            StorageError: it cannot be written.
        """
        from interp.writing.edit_files import save_edit

        return save_edit(self, path)


class AttachedEdit:
    """Changes that are in a model's weights, with copies of what was there before.

    Attributes:
        model: Whose weights.
        on: Whether the changes are in them.
    """

    def __init__(self, model: TransformerBridge, factors: Mapping[int, Factors]) -> None:
        self.model, self.on = model, False
        places = {layer: output_place(model, layer) for layer in factors}
        changes: dict[str, Tensor] = {}
        for layer, place in places.items():
            change = factors[layer].change
            change = change.T if isinstance(place.held, Conv1D) else change
            weight: Tensor = cast(Any, place.held).weight
            if change.shape != weight.shape:
                raise CheckpointError(
                    f"The edit of layer {layer} is {list(change.shape)}, and {place.name} is "
                    f"{list(weight.shape)}; the edit is of another model."
                )
            changes[place.name] = change
        self._merge = Merge(model, list(places.values()), changes)
        self.on = True

    @default_state()
    def undo(self) -> None:
        """Puts the original matrices back, byte for byte.

        Raises:
            ArgumentError: that was done already, or the weights have been changed since.
        """
        if not self.on:
            raise ArgumentError("This edit is not in the model's weights any more; attach it anew.")
        with alone_with(self.model):
            try:
                self._merge.undo()
            except ArgumentError:
                raise ArgumentError(
                    "The weights of this model have changed since the edit was attached (by training, "
                    "another type or another edit), so what they were before cannot be put back."
                ) from None
        self.on = False
