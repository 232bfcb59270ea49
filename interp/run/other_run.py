"""Another run that takes part in a training, as a reference or a base: does it fit, is it the same?"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.biographies import Population, tokenizer_of
from interp.config import OWN_PATTERNS, Config, flatten
from interp.errors import ConfigError, InterpError, RunError
from interp.reading import DamageError, digest, read_bytes
from interp.run.checkpoints import checkpoint_path, fingerprint

if TYPE_CHECKING:
    from interp.run.run import Run

_CHANGE_WEIGHTS_ONLY = {"seed", "init_std"}
_ROLES = {
    "reference": ("patching.reference", "trained with", "patched"),
    "base": ("finetuning.base", "trained from", "fine-tuned"),
}
"""Of each role, the setting that holds the other run's folder (with `_run` behind it, its fingerprint),
and words for the error."""


def find_other_run(config: Config, role: str, near: Path) -> "Run | None":
    """The other run that settings name, also where both have been moved as parts of one folder.

    The path in the settings comes first. Where it leads to no such run, its ends ("a/b/run", "b/run",
    "run", "") are looked for below the folder of the run with these settings and those above it, the
    nearest first. Only the run that training took part of is taken: by its fingerprint, and by the
    digest of its checkpoint where `environment.json` has it.

    Args:
        config: Settings of a run, trained or not.
        role: "reference" or "base".
        near: Absolute path of that run's folder.

    Returns:
        The run; None if the settings name none.

    Raises:
        RunError: it is not there, or another run is.
        ConfigError: its settings cannot be read.
    """
    from interp.run.run import Run  # which imports this module

    setting = _ROLES[role][0]
    settings = flatten(config.model_dump())
    named = settings[setting]
    if named is None or (role == "reference" and named == OWN_PATTERNS):
        return None
    try:
        there = Run.load(named)
        with_fingerprint(config, role, there)
        return there
    except (RunError, ConfigError) as error:
        known = settings[f"{setting}_run"]
        if known is None:
            raise
        recorded = Run(near).environment.get(role, {})
        for folder in _moved_places(Path(named), near):
            with suppress(InterpError, DamageError):
                other_run = Run.load(folder)
                with_fingerprint(config, role, other_run)
                if recorded.get("config") != known or (  # of a run that is to be overwritten
                    recorded == describe_other_run(role, other_run, recorded["step"])[role]
                ):
                    return other_run
        raise type(error)(
            f"{error} The {role} is not below {near} or a folder above it either, at an end of the path "
            f"that the settings name ({named})."
        ) from error


def _moved_places(named: Path, near: Path) -> Iterator[Path]:
    parts = [part for part in named.parts if part not in (named.anchor, "..")]
    for above in (near, *near.parents):
        for start in range(len(parts) + 1):
            yield above.joinpath(*parts[start:])


def require_fit(
    config: Config, other_run: "Run", what: str, remedy: str, of_people: str | None
) -> None:
    """Checks that a run with these settings can take something over from another run.

    Args:
        config: Settings of the run to train.
        other_run: The other run.
        what: What is taken over, for the error.
        remedy: What to do, for the error.
        of_people: What to say where it was trained on other people; None: they are allowed.

    Raises:
        RunError: naming everything in which the two differ: architecture, vocabulary, hook layout,
            population.
    """
    theirs = other_run.config
    ours, other = config.model.model_dump(), theirs.model.model_dump()
    differing = [
        f"architecture: model.{name} is {other[name]} there, {ours[name]} here"
        for name in ours
        if name not in _CHANGE_WEIGHTS_ONLY and ours[name] != other[name]
    ]
    population = Population.of(config)
    vocabulary = tokenizer_of(config, population.lexicon).get_vocab()
    if other_run.tokenizer.get_vocab() != vocabulary:
        differing.append(
            f"vocabulary: {len(other_run.tokenizer)} tokens there, {len(vocabulary)} here, or in "
            "another order (tokenizer and list sizes of the population decide)"
        )
    packages = other_run.environment.get("packages", {})
    version = str(packages.get("transformer-lens", "4")).split(".")[0]
    if version != "4":
        differing.append(f"hook layout: it was trained with TransformerLens {version}, this is 4")
    seed = config.seed_of("population")
    same_people = other_run.population.fingerprint() == population.fingerprint()
    if not same_people and of_people is not None:
        differing.append(
            "population: it was trained on other people (population.* and its seed, "
            f"{theirs.seed_of('population')} there and {seed} here, decide){of_people}"
        )
    if differing:
        lines = "\n  ".join(differing)
        raise RunError(f"{what} of {other_run.given} do not fit this run:\n  {lines}\n{remedy}")


def with_fingerprint(config: Config, role: str, other_run: "Run") -> Config:
    """The settings with the fingerprint of another run's, once it is known to be the one it was.

    Args:
        config: Settings of the run to train; a fingerprint that they hold is the one it had.
        role: "reference" or "base".
        other_run: The other run.

    Raises:
        RunError: it is another run.
    """
    setting, trained, kind = _ROLES[role]
    known = flatten(config.model_dump())[f"{setting}_run"]
    now = fingerprint(other_run.config)
    if known not in (None, now):
        raise RunError(
            f"{other_run.given} is not the {role} that this run was {trained}: its settings have the "
            f"fingerprint {now[:12]}, expected {known[:12]}. Put the former {role} back, or train "
            f"the {kind} run again with overwrite=True."
        )
    return config.with_settings(**{f"{setting}_run": now})


def describe_other_run(role: str, other_run: "Run", step: int) -> dict[str, Any]:
    """What `environment.json` records of another run that takes part: a reference, a base."""
    return {role: describe_checkpoint(other_run, step)}


def describe_checkpoint(run: "Run", step: int) -> dict[str, Any]:
    """By what a checkpoint of a run is known: `step`, `config` (fingerprint) and `checkpoint` (SHA-256)."""
    checkpoint = digest(read_bytes(checkpoint_path(run.path, step)))
    return {"step": step, "config": fingerprint(run.config), "checkpoint": checkpoint}
