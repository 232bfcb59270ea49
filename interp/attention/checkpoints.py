"""One model, moved from checkpoint to checkpoint of its run."""

from collections.abc import Iterator, Sequence

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ConfigError
from interp.run import Run, load_checkpoint


def models_at(
    run: Run, steps: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[int, TransformerBridge]]:
    """The model of a run at some steps, increasing: built once, then only its weights change.

    Args:
        run: The run.
        steps: Which checkpoints; all by default.
        device: Where the weights go.

    Raises:
        CheckpointError: there is no checkpoint at a step; known before the first is handed out.
        ConfigError: no step is named.
        RunError: the run has no checkpoint at all.
    """
    chosen = run.steps if steps is None else sorted(set(steps))
    if steps is not None and not chosen:
        raise ConfigError("steps=[] names no checkpoint; leave it out to read all of them.")
    unknown = [step for step in chosen if step not in run.steps]
    model = run.model(unknown[0] if unknown else chosen[0] if chosen else None, device)
    for index, step in enumerate(chosen):
        if index:
            load_checkpoint(run.path, step, model, run.config)
        yield step, model
