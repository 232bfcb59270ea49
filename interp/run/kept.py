"""The text files that stay as they are once a run has been trained: environment, tokenizer, metrics, ..."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerFast

from interp.biographies import PEOPLE_FILE, TEMPLATES_FILE, load_tokenizer
from interp.biographies.tokenizer import BOS, SPECIAL_TOKENS, TOKENIZER_FILES
from interp.config import Config
from interp.ending import noted_digests, require_unchanged
from interp.errors import RunError
from interp.reading import DamageError, MissingError, read_json

_TOKENIZER = "tokenizer/"


class _Parameters(BaseModel):
    model_config = ConfigDict(strict=True)

    total: int = Field(ge=0)
    embedding: int = Field(ge=0)
    non_embedding: int = Field(ge=0)


class _OtherRun(BaseModel):
    model_config = ConfigDict(strict=True)

    step: int
    config: str
    checkpoint: str


class _Part(_OtherRun):
    run: str
    factor: float
    weights: str


class _Environment(BaseModel):
    """What `environment.json` may hold: other versions record less, or more."""

    model_config = ConfigDict(strict=True, extra="allow")

    interp: str = ""
    python: str = ""
    system: str = ""
    packages: dict[str, str] = {}
    device: str = ""
    precision: str = ""
    threads: int = 0
    processes: int = 1
    parameters: _Parameters | None = None
    population: str | None = None
    reference: _OtherRun | None = None
    base: _OtherRun | None = None
    merged: list[_Part] | None = None


def kept_files(folder: Path) -> list[str]:
    """Their names in a run's folder."""
    tokenizer = [_TOKENIZER + name for name in TOKENIZER_FILES]
    there = [name for name in tokenizer if (folder / name).exists()]
    people = [name for name in (PEOPLE_FILE, TEMPLATES_FILE) if (folder / name).exists()]
    return ["environment.json", "metrics.jsonl", *people, *there]


def with_own_people(config: Config, folder: Path) -> Config:
    """The settings of a run, which take people that a user brought from the run's own copy of them."""
    people, templates = folder / PEOPLE_FILE, folder / TEMPLATES_FILE
    if config.population.people is None or not (people.exists() and templates.exists()):
        return config
    own = {
        "people": str(people), "templates": str(templates),
        "people_digest": config.population.people_digest,
    }  # fmt: skip
    return config.with_settings(**{f"population.{name}": value for name, value in own.items()})


def require_own_people(config: Config, folder: Path) -> None:
    """Checks that a run's copy of people that a user brought is what it was when training ended.

    Raises:
        RunError: it is missing, or has been changed.
    """
    if config.population.people is None:
        return
    for name in noted_digests(folder):
        if name in (PEOPLE_FILE, TEMPLATES_FILE):
            require_unchanged(
                folder, name, "Put it back as it was, or train the run again with overwrite=True."
            )


def read_environment(folder: Path) -> dict[str, Any]:
    """What `environment.json` of a run records; empty if there is none.

    Raises:
        RunError: it is damaged.
    """
    path = folder / "environment.json"
    remedy = (
        "Delete it: the run works without, but cannot check that its population is still the same."
    )
    try:
        found = read_json(path, _Environment)
    except MissingError:
        return {}
    except DamageError as damage:
        raise RunError(f"{path} is damaged: {damage}. {remedy}") from None
    require_unchanged(folder, path.name, remedy)
    return found


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a run.

    Raises:
        RunError: it is missing, damaged, or not what it was when training ended.
    """
    remedy = "Put the folder back as it was, or train the run again with overwrite=True."
    for name in noted_digests(folder):
        if name.startswith(_TOKENIZER):
            require_unchanged(folder, name, remedy)
    tokenizer = load_tokenizer(folder / _TOKENIZER)
    ids = tokenizer.get_vocab()
    special = (tokenizer.pad_token, tokenizer.bos_token, tokenizer.unk_token)
    whole = sorted(ids.values()) == list(range(len(ids))) and set(SPECIAL_TOKENS) <= set(ids)
    if (
        not whole
        or special != SPECIAL_TOKENS
        or _probe(tokenizer) != [[ids.get(BOS), ids.get(".")]]
    ):
        raise RunError(
            f"The tokenizer in {folder / _TOKENIZER} is not a run's: tokens are missing or mean something "
            f"else. {remedy}"
        )
    return tokenizer


def _probe(tokenizer: PreTrainedTokenizerFast) -> list[list[int]] | None:
    """What it makes of a text; None if it fails."""
    try:
        found: list[list[int]] = tokenizer(["."])["input_ids"]
    except Exception:  # of the library, a bare one
        return None
    return found
