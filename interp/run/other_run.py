"""Another run that takes part in a training, as a reference or a base: does it fit, is it the same?"""

from typing import TYPE_CHECKING, Any

from interp.biographies import Population, build_tokenizer
from interp.config import Config, flatten
from interp.errors import RunError
from interp.reading import digest, read_bytes
from interp.run.checkpoints import checkpoint_path, fingerprint

if TYPE_CHECKING:
    from interp.run.run import Run

_CHANGE_WEIGHTS_ONLY = {"seed", "init_std"}
_ROLES = {
    "reference": ("patching.reference_run", "trained with", "patched"),
    "base": ("finetuning.base_run", "trained from", "fine-tuned"),
}
"""Of each role, the setting that holds the other run's fingerprint, and words for the error."""


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
    vocabulary = build_tokenizer(config.population, config.tokenizer).get_vocab()
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
    population = Population.draw(config.population, seed)
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
    known = flatten(config.model_dump())[setting]
    now = fingerprint(other_run.config)
    if known not in (None, now):
        raise RunError(
            f"{other_run.given} is not the {role} that this run was {trained}: its settings have the "
            f"fingerprint {now[:12]}, expected {known[:12]}. Put the former {role} back, or train "
            f"the {kind} run again with --overwrite."
        )
    return config.with_settings(**{setting: now})


def describe_other_run(role: str, other_run: "Run", step: int) -> dict[str, Any]:
    """What `environment.json` records of another run that takes part: a reference, a base."""
    checkpoint = digest(read_bytes(checkpoint_path(other_run.path, step)))
    config = fingerprint(other_run.config)
    return {role: {"step": step, "config": config, "checkpoint": checkpoint}}
