"""Checkpoints: a model's weights at a step, as safetensors, tied to the run they belong to."""

import hashlib
import json
import re
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from interp.config import Config
from interp.errors import CheckpointError
from interp.files import read_tensors, write_tensors
from interp.reading import DamageError, names_in
from interp.torch_state import default_state

_FORMAT = "interp checkpoint 1"
_NAME = re.compile(r"step_(\d{8})\.safetensors")


def fingerprint(config: Config) -> str:
    """A hash of all settings that determine a run's bytes."""
    return hashlib.sha256(json.dumps(config.identity(), sort_keys=True).encode()).hexdigest()


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, in a run's folder."""
    return folder / "checkpoints" / f"step_{step:08d}.safetensors"


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, increasing; a CheckpointError if the folder cannot be read."""
    try:
        names = map(_NAME.fullmatch, names_in(folder / "checkpoints"))
    except DamageError as damage:
        raise CheckpointError(
            f"{folder / 'checkpoints'}: {damage}. Put the run's own folder back."
        ) from None
    return sorted(int(match[1]) for match in names if match)


def write_checkpoint(folder: Path, step: int, model: TransformerBridge, config: Config) -> None:
    """Writes the model's weights as the checkpoint of a step, atomically."""
    metadata = {"format": _FORMAT, "step": str(step), "config": fingerprint(config)}
    write_tensors(checkpoint_path(folder, step), model.state_dict(), metadata)


@default_state()
def load_checkpoint(folder: Path, step: int, model: TransformerBridge, config: Config) -> None:
    """Loads the checkpoint of a step into a model.

    Raises:
        CheckpointError: there is none at that step, or the file is truncated, of another run or of
            another model. The model is unchanged then.
    """
    path = checkpoint_path(folder, step)
    if step not in checkpoint_steps(folder):
        steps = ", ".join(map(str, checkpoint_steps(folder))) or "none"
        raise CheckpointError(f"There is no checkpoint at step {step} in {folder}. Steps: {steps}.")
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file but not a checkpoint of this toolkit (format "
            f"{metadata.get('format')!r}, expected {_FORMAT!r}). Remove it from the run's folder."
        )
    if metadata != {"format": _FORMAT, "step": str(step), "config": fingerprint(config)}:
        raise CheckpointError(
            f"{path} belongs to another run or step: it says step {metadata.get('step')} of a run "
            f"with other settings than config.yaml beside it. Put back the run's own file, or train "
            "it again with overwrite=True."
        )
    ours = model.state_dict()
    wrong = list(ours.keys() ^ tensors.keys())
    wrong += [n for n in ours.keys() & tensors.keys() if ours[n].shape != tensors[n].shape]
    if wrong:
        raise CheckpointError(
            f"The weights in {path} are not those of this model; they differ in: "
            f"{', '.join(sorted(wrong)[:6])}."
        )
    model.load_state_dict(tensors, strict=True)
