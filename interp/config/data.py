"""What a run is trained on: who exists, who comes next, and how text becomes tokens."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, model_validator

from interp.config.base import MAX_SEED, Settings
from interp.errors import ConfigError
from interp.people_files import read_people

LIST_SIZES = {
    "first_names": 900,
    "middle_names": 900,
    "last_names": 1000,
    "cities": 800,
    "universities": 200,
    "majors": 100,
    "companies": 500,
    "years": 201,
}
"""How many entries each frozen list of the package has; birth years go from 1900 to 2100."""


class PopulationConfig(Settings):
    """Who exists: how many people, and how much of each list their facts are drawn from; or your own."""

    n_individuals: int = Field(default=512, ge=1)
    """People the model is trained on."""
    n_held_out: int = Field(default=128, ge=0)
    """People drawn from the same lists who never appear in training."""
    first_names: int = Field(default=100, ge=1, le=LIST_SIZES["first_names"])
    """How many first names are in use (the first so many of the frozen list; so for all below)."""
    middle_names: int = Field(default=100, ge=1, le=LIST_SIZES["middle_names"])
    """How many middle names are in use."""
    last_names: int = Field(default=200, ge=1, le=LIST_SIZES["last_names"])
    """How many last names are in use."""
    cities: int = Field(default=200, ge=1, le=LIST_SIZES["cities"])
    """How many cities are in use, for birth places and current locations."""
    universities: int = Field(default=100, ge=1, le=LIST_SIZES["universities"])
    """How many universities are in use."""
    majors: int = Field(default=50, ge=1, le=LIST_SIZES["majors"])
    """How many majors are in use."""
    companies: int = Field(default=150, ge=1, le=LIST_SIZES["companies"])
    """How many companies are in use."""
    years: int = Field(default=100, ge=1, le=LIST_SIZES["years"])
    """How many birth years are in use, from 1900 on."""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """Seed of the population; by default the run's seed."""
    people: str | None = None
    """A CSV of people of your own, who take the place of drawn ones: a column name, maybe held_out, and an
    attribute a column. How many there are is then taken from it."""
    templates: str | None = None
    """YAML with the wordings of their attributes; needed with people."""
    people_digest: Annotated[str | None, tyro.conf.Suppress] = None
    """SHA-256 of what both files say, which is what a run is known by; filled in when they are named."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        """Settings that name people say how many there are, and what they were."""
        if not isinstance(values, dict):
            return values
        named = {n: values[n] for n in ("people", "templates") if values.get(n) is not None}
        for name, given in named.items():
            if not isinstance(given, str | Path) or not str(given):
                raise ConfigError(f"population: {name}={given!r}; give the path of a file.")
        values = values | {n: str(Path(p).expanduser().absolute()) for n, p in named.items()}
        if len(named) == 1:
            lacking = "templates" if "people" in named else "people"
            raise ConfigError(
                f"population: {lacking} is missing; people of your own need population.people (a CSV) and "
                "population.templates (YAML)."
            )
        if not named:
            if values.get("people_digest") is not None:
                raise ConfigError(
                    "population: people_digest without people; name both files, and leave it out."
                )
            return values
        if values.get("people_digest") is None:
            content = read_people(values["people"], values["templates"])
            n_held_out = content.n_held_out
            values |= {
                "people_digest": content.digest, "n_held_out": n_held_out,
                "n_individuals": len(content.names) - n_held_out,
            }  # fmt: skip
        return values

    @model_validator(mode="after")
    def _enough_names(self) -> "PopulationConfig":
        if self.people is not None:
            return self
        possible = self.first_names * self.middle_names * self.last_names
        wanted = self.n_individuals + self.n_held_out
        if wanted > possible:
            raise ConfigError(
                f"population: {wanted:,} people (n_individuals + n_held_out) need unique full names, but "
                f"{self.first_names} first x {self.middle_names} middle x {self.last_names} last "
                f"names allow only {possible:,}; ask for fewer people or use more of the lists "
                f"(at most {LIST_SIZES['first_names']}, {LIST_SIZES['middle_names']} and "
                f"{LIST_SIZES['last_names']})."
            )
        return self


class SamplingConfig(Settings):
    """Who comes next in training. Individuals are counted in the order of the population."""

    kind: Literal["uniform", "power_law", "celebrities", "warm_up", "sequential", "adaptive"] = (
        "uniform"
    )
    """"uniform": everybody equally likely. "power_law": individual i (from 1) has probability
    proportional to i^-exponent. "celebrities": the first few are more likely than the rest. "warm_up":
    only the first few for some epochs, then everybody. "sequential": one group after the other.
    "adaptive": few people until the run itself shows that its plateau has ended, then more."""
    exponent: float | None = Field(default=None, ge=0.0, le=10.0)
    """The exponent α of the power law: 0 is uniform, 1 is Zipf ("power_law" only)."""
    n_celebrities: int | None = Field(default=None, ge=1)
    """How many people are celebrities ("celebrities" only)."""
    weight_celebrities: float | None = Field(default=None, gt=0)
    """How many times likelier a celebrity is than anybody else ("celebrities" only)."""
    indiv_warmup: int | None = Field(default=None, ge=1)
    """How many people are shown at first ("warm_up" and "adaptive" only)."""
    epochs_warmup: float | None = Field(default=None, ge=0)
    """For how many epochs only they are shown; an epoch has n_individuals / batch_size steps
    ("warm_up" only)."""
    n_groups: int | None = Field(default=None, ge=1)
    """Into how many groups the people are divided ("sequential" only)."""
    n_repeats: int | None = Field(default=None, ge=1)
    """How many times all groups come one after the other ("sequential" only)."""
    growth: Literal["at_once", "gradual"] | None = None
    """What follows the plateau: "at_once" everybody; "gradual" twice as many people each time that
    those shown are known ("adaptive" only)."""

    @model_validator(mode="after")
    def _settings_of_kind(self) -> "SamplingConfig":
        wanted = SAMPLING_SETTINGS[self.kind]
        given = {n for n in type(self).model_fields if n != "kind" and getattr(self, n) is not None}
        wrong = []
        for name in sorted(given - set(wanted)):
            kinds = " and ".join(k for k, names in SAMPLING_SETTINGS.items() if name in names)
            wrong.append(f"{name}={getattr(self, name)}, which belongs to {kinds} only")
        if wrong:
            raise ConfigError(
                f"sampling: kind={self.kind!r} with {'; '.join(wrong)}. {self.kind!r} has "
                f"{', '.join(wanted) or 'no settings'}."
            )
        if missing := [f"sampling.{n}" for n in wanted if n not in given]:
            raise ConfigError(f"sampling: kind={self.kind!r} needs {', '.join(missing)}; set it.")
        return self


SAMPLING_SETTINGS: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "power_law": ("exponent",),
    "celebrities": ("n_celebrities", "weight_celebrities"),
    "warm_up": ("indiv_warmup", "epochs_warmup"),
    "sequential": ("n_groups", "n_repeats"),
    "adaptive": ("indiv_warmup", "growth"),
}
"""The settings that each kind of sampling has; all of them have to be given."""


class TokenizerConfig(Settings):
    """How text becomes tokens."""

    kind: Literal["word", "bpe"] = "word"
    """"word": a token per word. "bpe": subwords learned from the population's own vocabulary."""
    bpe_vocabulary: int = Field(default=1024, ge=128, le=1_000_000)
    """Number of tokens the subword tokenizer learns ("bpe" only)."""
