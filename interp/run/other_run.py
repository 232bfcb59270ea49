"""Another run that takes part in a training, as a reference or a base: does it fit, is it the same?"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.biographies import Population, build_tokenizer
from interp.config import Config
from interp.errors import RunError
from interp.run.checkpoints import checkpoint_path, fingerprint

if TYPE_CHECKING:
    from interp.run.run import Run

_FREE = {"seed", "init_std"}
"""Settings of a model in which another run may differ: they change its weights, not its shape."""


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


def other_people(config: Config, other_run: "Run") -> str:
    """In what another run's people differ from those that these settings draw; empty if in nothing."""
    population = Population.draw(config.population, config.seed_of("population"))
    if other_run.population.fingerprint() == population.fingerprint():
        return ""
    return (
        "population: it was trained on other people (population.* and its seed, "
        f"{other_run.config.seed_of('population')} there and {config.seed_of('population')} here, decide)"
    )


def refuse_misfit(differing: Sequence[str], what: str, remedy: str) -> None:
    """Refuses another run that does not fit, with everything in which it differs.

    Raises:
        RunError: it differs in something.
    """
    if differing:
        raise RunError(f"{what} do not fit this run:\n  " + "\n  ".join(differing) + f"\n{remedy}")


def require_unchanged(
    other_run: "Run", known: str | None, role: str, trained: str, kind: str
) -> str:
    """The fingerprint of another run's settings, once it is known to be the one it was.

    Args:
        other_run: The other run.
        known: Its fingerprint when this run was first trained; None if it has not been yet.
        role: What it is to this run, for the message: "reference".
        trained: How this run is trained with it: "trained with".
        kind: What that makes of this run: "patched".

    Raises:
        RunError: it is another run.
    """
    found = fingerprint(other_run.config)
    if known not in (None, found):
        raise RunError(
            f"{other_run.path} is not the {role} that this run was {trained}: its settings have the "
            f"fingerprint {found[:12]}, expected {known[:12]}. Put the former {role} back, or train "
            f"the {kind} run again with --overwrite."
        )
    return found


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
