"""The reference of a run with patched attention: finding it, and refusing one that does not fit."""

from typing import TYPE_CHECKING

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.config import Config
from interp.errors import RunError
from interp.model import AttentionPatch, hooked_transformer
from interp.run.other_run import require_fit, with_fingerprint
from interp.torch_state import default_state

if TYPE_CHECKING:
    from interp.run.run import Run


def resolve_reference(config: Config, reference: "Run | None") -> Config:
    """The settings with the reference's fingerprint filled in, once it is known to fit.

    Args:
        config: Settings of the run to train.
        reference: The run that `config.patching.reference` names; None for "self" or no patching.

    Raises:
        RunError: the reference has another architecture, vocabulary, population or hook layout, is
            itself patched, or is not the run it was when this one was first trained.
        CheckpointError: it has no checkpoint at the step.
    """
    if reference is None:
        return config
    theirs = reference.config.patching
    if theirs.on:
        raise RunError(
            f"The reference {reference.given} is itself a run with patched attention (its patterns are "
            f"those of {theirs.reference}). Use an unpatched run."
        )
    require_fit(
        config,
        reference,
        "The attention patterns",
        "Use a reference of the same shape, vocabulary and population.",
        None if config.patching.other_people else ". If that is meant, set patching.other_people",
    )
    assert config.patching.reference_step is not None
    reference.model(config.patching.reference_step)  # raises where it is missing or damaged
    return with_fingerprint(config, "reference", reference)


def reference_patch(config: Config, reference: "Run", device: torch.device) -> AttentionPatch:
    """The patch that a run with these settings is trained with; raises as `Run.model`."""
    patching = config.patching
    model = reference.model(patching.reference_step, device)
    return AttentionPatch(model.requires_grad_(False), patching.layers, patching.heads)


@default_state()
def own_patch(config: Config, model: TransformerBridge) -> AttentionPatch:
    """The control: a patch whose reference is the model itself, at every step of its training."""
    twin = hooked_transformer(config, model.tokenizer, next(model.parameters()).device)
    for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
        theirs.data = ours.data
    layers, heads = config.patching.layers, config.patching.heads
    return AttentionPatch(twin.requires_grad_(False), layers, heads, keep_gradient=True)
