"""What a study is: settings → runs → tables → figures and claims.

A study says which runs it needs; the engine trains those that are not finished. Tables are made from
the finished runs, and everything else from the tables alone: so figures and verdicts can be made again
from the committed CSV files, and no verdict depends on who looks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator, model_validator

from interp.config import Config, Settings
from interp.errors import ConfigError
from interp.presets import preset

Value = TypeVar("Value")
Verdict = Literal["agree", "disagree", "cannot tell"]
Tables = Mapping[str, pd.DataFrame]
"""Tidy tables by name; the name is also the CSV file's."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, held against what was measured.

    Attributes:
        claim: The statement, as a sentence.
        paper: What the paper reports, with figure and scale.
        measured: What was measured here, with units, scale and number of seeds.
        verdict: Whether they agree, as the rule decides.
        rule: The rule: what has to be the case for agree, what for disagree; else it cannot be told.
    """

    claim: str
    paper: str
    measured: str
    verdict: Verdict
    rule: str


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


@dataclass(frozen=True)
class Planned:
    """A run that a study needs.

    Attributes:
        config: Its settings; of a fine-tuned run without the base's folder, which the store knows.
        base: The run whose weights it starts from (see `interp.finetuned`), which is trained first.
    """

    config: Any
    base: "Planned | None" = None


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: Letters and underscores; what files and the command line call it.
        title: A few words.
        question: What it asks, in a sentence or two, with the paper's section.
        settings: The model of its settings; the defaults are those of the committed tables.
        runs: The runs that settings ask for. The same run may be asked for by several studies.
        tables: The tables of finished runs; runs that failed are missing.
        figures: Figures by anchor, from the tables.
        claims: The paper's statements held against the tables.
    """

    name: str
    title: str
    question: str
    settings: type[Settings]
    runs: Callable[[Any], Sequence[Planned]]
    tables: Callable[[Any, Sequence[Any]], Tables]
    figures: Callable[[Tables], Mapping[str, go.Figure]]
    claims: Callable[[Tables], Sequence[Claim]]


def verdict(holds: Iterable[bool | None], minimum: int = 2) -> Verdict:
    """The verdict of seeds: all have to say the same.

    Args:
        holds: For each seed (or other repetition), whether the statement holds; None where this one
            cannot tell.
        minimum: With fewer that can tell, nothing is decided.

    Returns:
        "agree" where it holds in all, "disagree" where in none, else "cannot tell".

    Example:
        >>> verdict([True, True, False])
        'cannot tell'
    """
    known = [one for one in holds if one is not None]
    if len(known) < minimum or len(set(known)) > 1:
        return "cannot tell"
    return "agree" if known[0] else "disagree"


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """A mean with the values of the seeds behind it, as text: "0.71 (0.70, 0.72)".

    Args:
        values: A value for each seed.
        form: How numbers are written.
    """
    every = [float(value) for value in values]
    if not every:
        return "not measured"
    mean = sum(every) / len(every)
    if len(every) == 1:
        return f"{mean:{form}} (1 seed)"
    return f"{mean:{form}} ({', '.join(f'{value:{form}}' for value in every)})"
