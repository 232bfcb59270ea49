"""What a study is: settings → runs → tables → figures and claims.

A study says which runs it needs; the engine trains those that are not finished. Tables are made from
the finished runs, and everything else from the tables alone: so figures and verdicts can be made again
from the committed CSV files, and no verdict depends on who looks.

A study is one module, or one file of a user's own, whose docstring begins

    \"\"\"Title.

    The question, in a sentence?

    Command: interp batch my_study.py --out my_results
    Duration: 6 runs of 80 seconds each on 2 cores

and that ends with `STUDY = Study(...)`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator, model_validator

from interp.config import Config, Settings
from interp.errors import ConfigError, short
from interp.presets import preset
from interp.studies.rules import Claim

Value = TypeVar("Value")
Tables = Mapping[str, pd.DataFrame]
"""Tidy tables by name; the name is also the CSV file's."""


class StudySettings(Settings):
    """What every study of trained transformers can be told."""

    preset: str = "tiny"
    """The preset that all runs start from."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each kind for each seed."""
    run: dict[str, Any] = Field(default_factory=dict)
    """Settings of all runs by dotted name, e.g. {"training.precision": "fp32"}; they come last."""

    varies: ClassVar[frozenset[str]] = frozenset()
    """Settings, or groups of them, that differ between the study's runs: `run` cannot fix them."""

    @field_validator("seeds")
    @classmethod
    def _seeds_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return each_once("seeds", seeds)

    @model_validator(mode="after")
    def _varied_settings_are_free(self) -> "StudySettings":
        fixed = [
            name
            for name in self.run
            for varied in ("seed", *self.varies)
            if f"{name}.".startswith(f"{varied}.") or f"{varied}.".startswith(f"{name}.")
        ]
        if fixed:
            raise ConfigError(
                f"run: {', '.join(sorted(set(fixed)))} is what this study varies or decides itself, so it "
                "cannot be the same for all runs; leave it out there."
            )
        return self

    def config(self, seed: int, **changes: Any) -> Config:
        """The settings of one run: the preset, then `changes`, then `run`.

        Raises:
            ConfigError: an unknown preset or setting, or a value that cannot work.
        """
        return preset(self.preset, seed=seed).with_settings(**(changes | self.run))


def each_once(name: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The values, if there is at least one and none twice.

    Raises:
        ConfigError: naming the setting.
    """
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"{name}={list(values)}: name at least one, and each once.")
    return values


def each_known(name: str, values: tuple[str, ...], known: Iterable[str]) -> tuple[str, ...]:
    """The values, if each is one of those known, there is at least one and none twice.

    Raises:
        ConfigError: naming the setting, and what is known.
    """
    there = list(known)
    if unknown := [value for value in values if value not in there]:
        raise ConfigError(
            f"{name}: there is no {', '.join(map(short, unknown))}. {name.capitalize()}: {', '.join(there)}."
        )
    return each_once(name, values)


@dataclass(frozen=True)
class Planned:
    """A run that a study needs.

    Attributes:
        config: Its settings; of a fine-tuned run without the base's folder, which the store knows.
        base: The run whose weights it starts from (see `interp.finetuned`), which is trained first.
    """

    config: Any
    base: "Planned | None" = None


def _no_figures(tables: Tables) -> Mapping[str, go.Figure]:
    return {}


def _no_claims(tables: Tables) -> Sequence[Claim]:
    return ()


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: Letters, digits and underscores; what files and the command line call it.
        doc: The docstring of its file, which states title, question, command and duration.
        settings: The model of its settings; the defaults are those of the committed tables.
        runs: The runs that settings ask for. The same run may be asked for by several studies.
        tables: The tables of finished runs; runs that failed are missing.
        figures: Figures by anchor, from the tables.
        claims: Statements held against the tables.

    Raises:
        ConfigError: the name cannot be a folder's, or the docstring lacks one of the four.
    """

    name: str
    doc: str | None
    settings: type[Settings]
    runs: Callable[[Any], Sequence[Planned]]
    tables: Callable[[Any, Sequence[Any]], Tables]
    figures: Callable[[Tables], Mapping[str, go.Figure]] = _no_figures
    claims: Callable[[Tables], Sequence[Claim]] = _no_claims

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").isalnum() or not self.name.isascii():
            raise ConfigError(
                f"The name {self.name!r} of a study becomes a folder's; use letters, digits and _."
            )
        missing = [
            what for what in ("title", "question", "command", "duration") if not self._read[what]
        ]
        if missing:
            raise ConfigError(
                f"The docstring of the study {self.name!r} does not state its {' and '.join(missing)}. "
                "It is a title, an empty line, the question, an empty line, and the lines "
                "'Command: interp batch ...' and 'Duration: ...'."
            )

    @property
    def title(self) -> str:
        """A few words."""
        return self._read["title"]

    @property
    def question(self) -> str:
        """What it asks, in a sentence or two, with the paper's section."""
        return self._read["question"]

    @property
    def command(self) -> str:
        """What to type to have it with its own settings."""
        return self._read["command"]

    @property
    def duration(self) -> str:
        """How long that takes."""
        return self._read["duration"]

    @property
    def _read(self) -> dict[str, str]:
        title, _, rest = (self.doc or "").partition("\n\n")
        lines = [line.strip() for line in rest.splitlines()]
        stated = dict(line.split(": ", 1) for line in lines if ": " in line)
        return {
            "title": title.strip().rstrip("."),
            "question": " ".join(rest.split("\n\n")[0].split()),
            "command": stated.get("Command", "").strip("`"),
            "duration": stated.get("Duration", ""),
        }
