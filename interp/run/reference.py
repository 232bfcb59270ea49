"""The reference of a run with patched attention: finding it, and refusing one that does not fit."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Population, build_tokenizer
from interp.config import Config
from interp.errors import RunError
from interp.model import AttentionPatch, hooked_transformer
from interp.run.checkpoints import checkpoint_path, fingerprint

if TYPE_CHECKING:
    from interp.run.run import Run

_FREE = {"seed", "init_std"}
"""Settings of a model in which another run may differ: they change its weights, not its shape."""


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
    require_fit(config, reference)
    step = config.patching.reference_step
    assert step is not None
    reference.model(step)  # raises where it is missing or damaged
    found = fingerprint(reference.config)
    if config.patching.reference_run not in (None, found):
        raise RunError(
            f"{reference.path} is not the reference that this run was trained with: its settings "
            f"have the fingerprint {found[:12]}, expected {config.patching.reference_run[:12]}. Put "
            "the former reference back, or train the patched run again with --overwrite."
        )
    return config.with_settings(**{"patching.reference_run": found})


def require_fit(config: Config, reference: "Run") -> None:
    """Checks that a reference's attention patterns can be used by a run with these settings.

    Raises:
        RunError: naming everything in which the two differ.
    """
    theirs = reference.config
    if theirs.patching.on:
        raise RunError(
            f"The reference {reference.path} is itself a run with patched attention (its patterns are "
            f"those of {theirs.patching.reference}). Use an unpatched run."
        )
    differing = misfits(config, reference)
    if not same_people(config, reference) and not config.patching.other_people:
        differing.append(
            "population: it was trained on other people (population.* and its seed, "
            f"{theirs.seed_of('population')} there and {config.seed_of('population')} here, decide). "
            "If that is meant, set patching.other_people"
        )
    if differing:
        raise RunError(
            f"The attention patterns of {reference.path} do not fit this run:\n  "
            + "\n  ".join(differing)
            + "\nUse a reference of the same shape, vocabulary and population."
        )


def misfits(config: Config, other_run: "Run") -> list[str]:
    """In what another run's model differs that a run with these settings cannot take over.

    One line each for architecture, vocabulary and hook layout.
    """
    theirs = other_run.config
    ours, other = config.model.model_dump(), theirs.model.model_dump()
    differing = [
        f"architecture: model.{name} is {other[name]} there, {ours[name]} here"
        for name in ours
        if name not in _FREE and ours[name] != other[name]
    ]
    vocabulary = build_tokenizer(config.population, config.tokenizer).get_vocab()
    if other_run.tokenizer.get_vocab() != vocabulary:
        differing.append(
            f"vocabulary: {len(other_run.tokenizer)} tokens there, {len(vocabulary)} here, or in "
            "another order (tokenizer and list sizes of the population decide)"
        )
    packages = other_run.environment.get("packages", {})
    trained_with = str(packages.get("transformer-lens", "4")).split(".")[0]
    if trained_with != "4":
        differing.append(
            f"hook layout: it was trained with TransformerLens {trained_with}, this is 4"
        )
    return differing


def same_people(config: Config, other_run: "Run") -> bool:
    """Whether another run's population is the one that these settings draw."""
    population = Population.draw(config.population, config.seed_of("population"))
    return other_run.population.fingerprint() == population.fingerprint()


def reference_patch(config: Config, reference: "Run", device: torch.device) -> AttentionPatch:
    """The patch that a run with these settings is trained with.

    Raises:
        CheckpointError: the reference has no checkpoint at the step.
    """
    patching = config.patching
    model = reference.model(patching.reference_step, device)
    return AttentionPatch(model.requires_grad_(False), patching.layers, patching.heads)


def own_patch(config: Config, model: TransformerBridge) -> AttentionPatch:
    """The control: a patch whose reference is the model itself, at every step of its training."""
    twin = hooked_transformer(config, model.tokenizer, next(model.parameters()).device)
    for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
        theirs.data = ours.data
    patching = config.patching
    return AttentionPatch(
        twin.requires_grad_(False), patching.layers, patching.heads, keep_gradient=True
    )


def describe_other_run(role: str, other_run: "Run", step: int) -> dict[str, Any]:
    """What `environment.json` records of another run that takes part: a reference, a base."""
    path = checkpoint_path(other_run.path, step)
    return {
        role: {
            "step": step,
            "config": fingerprint(other_run.config),
            "checkpoint": digest(path),
        }
    }


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
