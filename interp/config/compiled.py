"""Weights that were computed from a population, not trained."""

from typing import Literal

from pydantic import Field, model_validator

from interp.config.base import Settings
from interp.errors import ConfigError

Variant = Literal["local", "distributed", "geometric"]
Control = Literal["head", "direction", "neurons"]


class CompiledConfig(Settings):
    """Weights that were computed from a population, not trained (`interp.compile_recall`)."""

    variant: Variant | None = None
    """Where the facts are: "local", a neuron a person; "distributed", random features of names and least
    squares; "geometric", the embeddings of people of one token each. None: the weights are trained."""
    n_neurons: int | None = Field(default=None, ge=1, le=10**6)
    """Random features ("distributed" only); by default twice as many as known people, at least 64."""
    d_code: int | None = Field(default=None, ge=8, le=10**5)
    """Dimensions of directions where there are more labels than that; 64 by default."""
    controls: tuple[Control, ...] | None = None
    """What is there and does nothing: "head", one that attends to names and is not read; "direction", a
    value that a probe reads and nothing else; "neurons", which fire for people and write nothing."""

    @property
    def on(self) -> bool:
        """Whether the weights were compiled."""
        return self.variant is not None

    @model_validator(mode="after")
    def _fits(self) -> "CompiledConfig":
        given = [n for n in ("n_neurons", "d_code", "controls") if getattr(self, n) is not None]
        if not self.on and given:
            raise ConfigError(
                f"compiled: {', '.join(given)} given, but no variant; interp.compile_recall fills it in."
            )
        if self.n_neurons is not None and self.variant != "distributed":
            raise ConfigError(
                f"compiled: n_neurons={self.n_neurons} is about the variant 'distributed', but variant is "
                f"{self.variant!r}; leave it out."
            )
        chosen = self.controls
        if chosen is not None and (not chosen or list(chosen) != sorted(set(chosen))):
            raise ConfigError(
                f"compiled: controls={chosen}; name each once, in alphabetical order, or leave it out."
            )
        return self
