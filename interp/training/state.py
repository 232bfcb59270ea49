"""The training state on disk: what an unfinished run needs to go on, to the same bytes."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.config import Config
from interp.errors import CheckpointError
from interp.files import read_tensors, write_tensors
from interp.run import fingerprint
from interp.training.optimizer import adamw, load_optimizer_tensors, optimizer_tensors
from interp.training.trained import TrainedWeights, is_adapter_tensor

_FORMAT = "interp training state 1"
_WEIGHTS = "weights."


def write_state(
    path: Path,
    config: Config,
    step: int,
    model: TransformerBridge,
    trained: TrainedWeights,
    optimizer: torch.optim.AdamW,
    metrics: str,
    updates: str | None = None,
) -> None:
    """Writes weights, optimizer moments, the step and the digest of the metrics so far, atomically.

    What the updates need beside that (`Updates.state`) is written where there is any.
    """
    tensors = {f"{_WEIGHTS}{name}": value for name, value in model.state_dict().items()}
    tensors |= trained.tensors() | optimizer_tensors(trained.parameters(), optimizer)
    noted = {"step": str(step), "metrics": metrics} | ({"updates": updates} if updates else {})
    write_tensors(path, tensors, _identity(config) | noted)


def load_state(
    path: Path,
    config: Config,
    model: TransformerBridge,
    trained: TrainedWeights,
    load_updates: Callable[[str | None], None],
) -> tuple[int, torch.optim.AdamW, str | None]:
    """Loads what `write_state` wrote; `load_updates` is given what the updates need.

    Returns:
        The step, the optimizer of the update before it, and the digest of the metrics; None from a version
        that noted none.

    Raises:
        CheckpointError: the file is damaged, of another run or of another model. The model is unchanged
            then.
    """
    remedy = (
        "Delete it to train the run from the start with resume=True, which gives the same bytes, or use "
        "overwrite=True."
    )
    tensors, metadata = read_tensors(path, remedy=remedy)
    step, metrics = metadata.pop("step", ""), metadata.pop("metrics", None)
    updates = metadata.pop("updates", None)
    known = step.isdecimal() and len(step) < 12 and int(step) <= config.training.last_step
    if metadata != _identity(config) or not known:
        raise CheckpointError(f"{path} is not the training state of this run. {remedy}")
    theirs = {name: tensor for name, tensor in tensors.items() if name.startswith(_WEIGHTS)}
    weights = {name.removeprefix(_WEIGHTS): tensor for name, tensor in theirs.items()}
    adapter = {name: tensor for name, tensor in tensors.items() if is_adapter_tensor(name)}
    moments = {name: t for name, t in tensors.items() if name not in theirs | adapter}
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    try:
        if {name: tensor.shape for name, tensor in weights.items()} != wanted:
            raise CheckpointError("its weights are not those of the model")
        if not moments and int(step) > 0:
            raise CheckpointError("it lacks the optimizer's moments")
        trained.begin(max(0, int(step) - 1))
        trained.load(adapter)
        optimizer = adamw(trained.parameters(), config.optimizer)
        load_optimizer_tensors(trained.parameters(), optimizer, moments)
        load_updates(updates)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is damaged: {error}. {remedy}") from None
    model.load_state_dict(weights, strict=True)
    return int(step), optimizer, metrics


def _identity(config: Config) -> dict[str, str]:
    return {"format": _FORMAT, "config": fingerprint(config)}
