"""Contradictory facts: people who have another value of an attribute in some of their biographies.

Every fact is an equation that training solves for. Two biographies of a person with two values of one
attribute are equations that cannot both hold.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Integer

from interp.biographies.population import Population
from interp.config import ContradictionConfig
from interp.errors import ArgumentError, ConfigError, require_known

_WHO_STREAM, _WHICH_STREAM = 0x636F6E74, 0x636F6E75  # apart from those of batches and populations


@dataclass(frozen=True)
class Contradictions:
    """Who has a second value (B) of an attribute beside the own one (A), and when which is told.

    Attributes:
        settings: How they were drawn.
        seed: The seed that they were drawn with.
        attribute: The index of the attribute.
        individuals: Who they are about, increasing.
        a: Each one's own value, as an index in the attribute's pool.
        b: Each one's second value, another one of the same pool.
    """

    settings: ContradictionConfig
    seed: int
    attribute: int
    individuals: Integer[np.ndarray, " contradicted"]
    a: Integer[np.ndarray, " contradicted"]
    b: Integer[np.ndarray, " contradicted"]

    @classmethod
    def of(
        cls, population: Population, settings: ContradictionConfig, seed: int
    ) -> "Contradictions | None":
        """The contradictions about a population; None where the settings ask for none.

        With a larger share of people these are the same ones, with the same values, and more.

        Raises:
            ConfigError: there is no such attribute, nobody to contradict, or no second value.
        """
        name, share = settings.attribute, settings.share_of_people
        if name is None or share is None:
            return None
        try:
            require_known([name], population.attributes, "attribute")
        except ArgumentError as error:
            raise ConfigError(f"data.contradictions: {error}") from None
        attribute = population.attributes.index(name)
        own = population.values[population.trained, attribute]
        having, n_values = np.flatnonzero(own >= 0), len(population.lexicon.values[name])
        count = round(share * len(having))
        if not count:
            raise ConfigError(
                f"data.contradictions: share_of_people={share} of {len(having)} people with the attribute "
                f"{name!r} is nobody; make it larger."
            )
        if n_values < 2:
            raise ConfigError(
                f"data.contradictions: the attribute {name!r} has one value, so there is no second one; "
                "choose another."
            )
        generator = np.random.default_rng([_WHO_STREAM, seed])
        other = own[having] + generator.integers(1, n_values, size=len(having))
        chosen = np.sort(generator.permutation(len(having))[:count])
        people = having[chosen]
        return cls(settings, seed, attribute, people, own[people], other[chosen] % n_values)

    def population(self, population: Population) -> Population:
        """The population in which these people have their second value in place of their own."""
        values = population.values.copy()
        values[self.individuals, self.attribute] = self.b
        return replace(population, values=values)

    def table(self, population: Population) -> pd.DataFrame:
        """Who they are about: columns `individual`, `attribute`, `value_a` and `value_b`."""
        name = population.attributes[self.attribute]
        pool = population.lexicon.values[name]
        a, b = ([pool[i] for i in values] for values in (self.a, self.b))
        about = {"individual": self.individuals, "attribute": name, "value_a": a, "value_b": b}
        return pd.DataFrame(about)

    def says_b(
        self, individuals: Integer[np.ndarray, " batch"], step: int
    ) -> Bool[np.ndarray, " batch"]:
        """Which sequences of a training step's batch tell the second value: a pure function of the step."""
        about = np.isin(individuals, self.individuals)
        until, share = self.settings.until, self.settings.share_of_biographies
        if until is not None:
            return about & ((step < until) == (self.settings.order == "B then A"))
        assert share is not None
        generator = np.random.default_rng([_WHICH_STREAM, self.seed, step])
        return about & (generator.random(len(individuals)) >= share)
