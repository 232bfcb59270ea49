"""Edits on disk: one small safetensors file with the factors, and a note that says what they are."""

import re
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from interp.errors import CheckpointError
from interp.files import read_tensors, replaceable, with_ending, write_tensors
from interp.reading import DamageError, parse_json
from interp.torch_state import default_state
from interp.writing.closed_form import Factors
from interp.writing.costs import Arithmetic
from interp.writing.edit import WeightEdit
from interp.writing.rewrites import Rewrite

_OURS = re.compile(rb'.{8}\{"__metadata__":\{"interp":"\{.{0,100}\\"edit\\"', re.DOTALL)
_NAME = re.compile(r"blocks\.(\d+)\.mlp\.out\.(left|right)")
_REMEDY = "Write the facts again (interp.write_facts), or choose another file."


class _Note(BaseModel):
    """What a file says of its factors."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field(pattern="^[0-9a-f]{64}$")
    method: str
    position: str
    facts: list[Rewrite]
    losses: list[float]
    costs: Arithmetic


def edit_file(path: Path | str) -> Path:
    """Where an edit is saved, once it is known that nothing else lies there.

    Raises:
        RunError: the file is something else's.
    """
    return replaceable(with_ending(path, ".safetensors"), _OURS, "an edit of weights")


@default_state()
def save_edit(edit: WeightEdit, path: Path | str) -> Path:
    """Writes an edit; see `WeightEdit.save`."""
    path = edit_file(path)
    tensors = {}
    for layer, factors in sorted(edit.factors.items()):
        tensors[f"blocks.{layer}.mlp.out.left"] = factors.left
        tensors[f"blocks.{layer}.mlp.out.right"] = factors.right
    note = _Note(
        base=edit.base, method=edit.method, position=edit.position, facts=list(edit.facts),
        losses=list(edit.losses), costs=Arithmetic(**asdict(edit.costs)),
    )  # fmt: skip
    write_tensors(path, tensors, {"edit": note.model_dump_json()})
    return path


@default_state()
def load_edit(path: Path | str) -> WeightEdit:
    """Reads a saved edit; it goes on the model it was made for only (`WeightEdit.attach`).

    Raises:
        CheckpointError: the file is missing, damaged, or no edit.
    """
    path = Path(path).expanduser()
    tensors, metadata = read_tensors(path, remedy=_REMEDY)
    if "edit" not in metadata:
        raise CheckpointError(f"{path} holds no edit of weights. {_REMEDY}")
    try:
        note = _Note.model_validate(parse_json(metadata["edit"]))
        factors = _factors(tensors)
    except (ValueError, DamageError):  # of pydantic's, or ours
        raise CheckpointError(f"{path} is damaged: it is no edit's. {_REMEDY}") from None
    return WeightEdit(
        factors,
        tuple(note.facts),
        note.method,
        note.position,
        note.base,
        tuple(note.losses),
        note.costs,
    )


def _factors(tensors: dict[str, Tensor]) -> dict[int, Factors]:
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or tensor.ndim != 2 or tensor.dtype != torch.float64:
            raise ValueError(name)
        found.setdefault(int(match[1]), {})[match[2]] = tensor
    if not found or any(
        len(pair) < 2 or pair["left"].shape[1] != pair["right"].shape[1] for pair in found.values()
    ):
        raise ValueError("factors")
    return {layer: Factors(pair["left"], pair["right"]) for layer, pair in sorted(found.items())}
