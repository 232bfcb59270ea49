"""The training state on disk: what an unfinished run needs to go on, to the same bytes."""

from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.config import Config
from interp.errors import CheckpointError
from interp.files import read_tensors, write_tensors
from interp.run import fingerprint
from interp.training.optimizer import load_optimizer_tensors, optimizer_tensors

_FORMAT = "interp training state 1"
_WEIGHTS = "weights."


def write_state(
    path: Path, config: Config, step: int, model: TransformerBridge, optimizer: torch.optim.AdamW
) -> None:
    """Writes weights, optimizer moments and the step as one file, atomically."""
    tensors = {f"{_WEIGHTS}{name}": value for name, value in model.state_dict().items()}
    tensors |= optimizer_tensors(model, optimizer)
    write_tensors(path, tensors, {**_identity(config), "step": str(step)})


def load_state(
    path: Path, config: Config, model: TransformerBridge, optimizer: torch.optim.AdamW
) -> int:
    """Loads what `write_state` wrote and returns the step; a CheckpointError if damaged or foreign."""
    remedy = "Delete it to train the run from the start with --resume, or use --overwrite."
    try:
        tensors, metadata = read_tensors(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is truncated or damaged. {remedy}") from error
    if any(metadata.get(name) != value for name, value in _identity(config).items()):
        raise CheckpointError(f"{path} is not the training state of this run. {remedy}")
    weights = {
        name.removeprefix(_WEIGHTS): tensor
        for name, tensor in tensors.items()
        if name.startswith(_WEIGHTS)
    }
    model.load_state_dict(weights, strict=True)
    load_optimizer_tensors(model, optimizer, tensors)
    return int(metadata["step"])


def _identity(config: Config) -> dict[str, str]:
    return {"format": _FORMAT, "config": fingerprint(config)}
