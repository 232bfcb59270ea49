"""The population: unique people, their facts, and the wordings in which each is met."""

import hashlib
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import SupportsIndex

import numpy as np
import pandas as pd
from jaxtyping import Bool, Integer, UInt8

from interp.biographies.lexicon import Lexicon, lexicon_of_lists
from interp.config import Config, PopulationConfig
from interp.errors import ArgumentError, RunError, whole_number
from interp.people_files import PeopleFiles

_POPULATION_STREAM = 0x706F70  # keeps this random stream apart from those of batches
_N_LISTED = 8  # people that an error names


@dataclass(frozen=True)
class Population:
    """People with unique names and a fact of each attribute; those held out come last.

    Birth dates of drawn people are a day from 1 to 31, a month and a year, drawn independently: some,
    such as 31 September, are in no calendar (`DATES_ARE_DRAWN`).

    Attributes:
        config: How it was drawn.
        names: Index of each name part in its pool.
        values: Index of each attribute's value in the attribute's pool; -1 where a person has none.
        wordings: For each person and attribute, all templates in an order of their own: the first
            (20 of 25 for drawn people) are for training, the last for evaluation.
        lexicon: The pools of names and values, and the templates.
        files: What was read of people that a user brings; None of drawn people.
    """

    config: PopulationConfig
    names: Integer[np.ndarray, "individual part"]
    values: Integer[np.ndarray, "individual attribute"]
    wordings: UInt8[np.ndarray, "individual attribute template"]
    lexicon: Lexicon
    files: PeopleFiles | None = None

    @classmethod
    def of(cls, config: Config) -> "Population":
        """The population of a run's settings: drawn, or of the files that they name.

        Raises:
            ArgumentError: something in the files cannot work.
            RunError: they are not those that the settings were made from.
        """
        if config.population.people is not None:
            from interp.biographies.own_people import population_of_files  # which imports this

            return population_of_files(config)
        return cls.draw(config.population, config.seed_of("population"))

    @classmethod
    def draw(cls, config: PopulationConfig, seed: int) -> "Population":
        """Draws a population; the same config and seed give the same people.

        Values are independent and uniform, so that nothing but the person tells a value.
        """
        generator = np.random.default_rng([_POPULATION_STREAM, whole_number(seed, "seed", 0)])
        n = config.n_individuals + config.n_held_out
        lexicon = lexicon_of_lists(config)
        sizes = tuple(len(pool) for pool in lexicon.names)
        codes = generator.choice(int(np.prod(sizes)), size=n, replace=False)
        names = np.stack(np.unravel_index(codes, sizes), axis=1).astype(np.int32)
        value_counts = [len(pool) for pool in lexicon.values.values()]
        shape = n, len(value_counts)
        values = generator.integers(0, value_counts, size=shape, dtype=np.int32)
        wordings = np.tile(np.arange(lexicon.n_templates, dtype=np.uint8), (*shape, 1))
        generator.permuted(wordings, axis=-1, out=wordings)
        return cls(config, names, values, wordings, lexicon)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes, in the order of every axis named `attribute`."""
        return self.lexicon.attributes

    @property
    def trained(self) -> slice:
        """The individuals that training draws from."""
        return slice(0, self.config.n_individuals)

    @property
    def held_out(self) -> slice:
        """The individuals that training never shows."""
        return slice(self.config.n_individuals, len(self))

    @property
    def is_held_out(self) -> Bool[np.ndarray, " individual"]:
        """Which individuals training never shows."""
        return np.arange(len(self)) >= self.config.n_individuals

    @property
    def train_wordings(self) -> UInt8[np.ndarray, "individual attribute train_template"]:
        """The templates of each person and attribute that training uses (20 for drawn people)."""
        return self.wordings[..., : self.lexicon.n_train_templates]

    @property
    def evaluation_wordings(self) -> UInt8[np.ndarray, "individual attribute eval_template"]:
        """The templates of each person and attribute that training never shows with them."""
        return self.wordings[..., self.lexicon.n_train_templates :]

    def name(self, individual: int) -> str:
        """A person's full name; errors as `individual`."""
        parts = zip(self.lexicon.names, self.names[self.individual(individual)], strict=True)
        return " ".join(part for pool, i in parts if (part := pool[i]))

    @cached_property
    def full_names(self) -> list[str]:
        """Everybody's full name, by individual."""
        pools = enumerate(self.lexicon.names)
        parts = [np.array(pool, dtype=object)[self.names[:, i]] for i, pool in pools]
        return [" ".join(filter(None, name)) for name in zip(*parts, strict=True)]

    def facts(self, individual: int) -> dict[str, str]:
        """The values that a person has, by attribute; errors as `individual`."""
        own = self.values[self.individual(individual)]
        pools = self.lexicon.values.items()
        return {name: pool[i] for (name, pool), i in zip(pools, own, strict=True) if i >= 0}

    def individual(self, person: SupportsIndex | str) -> int:
        """The individual that is meant: by index (also as text, "12"), or by name (see `find`).

        Raises:
            ArgumentError: there is no such index, or this is neither an index nor a name.
            RunError: nobody has that name, or several people have.
        """
        if isinstance(person, str) and not (person.isdecimal() and len(person) <= 12):
            return self.find(person)
        try:
            if isinstance(person, bool):
                raise TypeError
            index = int(person) if isinstance(person, str) else operator.index(person)
        except TypeError as error:
            raise ArgumentError(f"person={person!r}: give an index or a name.") from error
        if not 0 <= index < len(self):
            raise ArgumentError(
                f"There is no individual {index}; this population has individuals 0 to "
                f"{len(self) - 1} (from {self.config.n_individuals} on, held out)."
            )
        return index

    def chosen(
        self, individuals: Integer[np.ndarray, " chosen"] | slice
    ) -> Integer[np.ndarray, " chosen"]:
        """Some people by their numbers, at least one; negative indices count from the end.

        Raises:
            ArgumentError: nobody, somebody who does not exist, or neither indices nor a slice.
        """
        given = f"individuals={str(individuals)[:80]}"
        try:
            found: Integer[np.ndarray, " chosen"] = np.arange(len(self))[individuals]
        except (IndexError, TypeError, ValueError) as error:
            raise ArgumentError(
                f"{given}: give indices from 0 to {len(self) - 1} in an array, or a slice."
            ) from error
        if found.ndim != 1 or not len(found):
            raise ArgumentError(
                f"{given} names nobody of {len(self)} people, or is no list; give indices in an array, or a "
                "slice, of at least one person."
            )
        return np.ascontiguousarray(found)  # PyTorch takes nothing that runs backwards

    def find(self, name: str) -> int:
        """The individual with this name.

        A full name, or any part of one that nobody else has: single names in their order ("Wim
        Vasiliev"), or some letters. Upper and lower case are alike; whole names go before letters.

        Raises:
            RunError: nobody has that name, or several people have; the message names them.
            ArgumentError: it is no text.
        """
        matches = self.matches(name)
        if len(matches) == 1:
            return matches[0]
        everybody = self.full_names
        if matches:
            listed = "; ".join(f"{everybody[i]} ({i})" for i in matches[:_N_LISTED])
            n_more = len(matches) - _N_LISTED
            more = f"; and {n_more:,} more" if n_more > 0 else ""
            raise RunError(
                f"{len(matches):,} people of this population have {name!r} in their name: "
                f"{listed}{more}. Give more of the name, or the index in brackets."
            )
        raise RunError(
            f"Nobody in this population is called {name!r}.{_nearest(name.casefold().split(), everybody)} "
            "population.table() (`interp people RUN`) lists everybody."
        )

    def matches(self, name: str) -> list[int]:
        """All individuals that a name can mean, in order; how names are compared, `find` says.

        Raises:
            ArgumentError: it is no text.
        """
        if not isinstance(name, str):
            raise ArgumentError(f"name={name!r}: give a name as text; `name` has that of an index.")
        wanted = name.casefold().split()
        text = " ".join(wanted)
        lowered = [other.casefold() for other in self.full_names]
        for fits in (
            lambda other: other == text,
            lambda other: _in_order(wanted, other.split()),
            lambda other: text in other,
        ):
            found = [individual for individual, other in enumerate(lowered) if fits(other)]
            if found:
                return found
        return []

    def table(self) -> pd.DataFrame:
        """Everybody, one row each: `individual`, `name`, `held_out` and the attributes (None: has none)."""
        columns: dict[str, object] = {
            "individual": np.arange(len(self)),
            "name": self.full_names,
            "held_out": self.is_held_out,
        }
        for index, (attribute, pool) in enumerate(self.lexicon.values.items()):
            columns[attribute] = np.array([*pool, None], dtype=object)[self.values[:, index]]
        return pd.DataFrame(columns)

    def fingerprint(self) -> str:
        """A hash of everybody's names, facts and wordings: equal only for equal populations."""
        pools = [*self.lexicon.names, *self.lexicon.values.values()]
        wordings = [[t.source for t in group] for group in self.lexicon.templates.values()]
        told = json.dumps([self.config.n_individuals, pools, wordings])
        digest = hashlib.sha256(told.encode())
        for array in (self.names, self.values, self.wordings):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _in_order(parts: Sequence[str], of_name: Sequence[str]) -> bool:
    """Whether these names stand in a full name, in this order, maybe with others between them."""
    rest = iter(of_name)
    return all(part in rest for part in parts)


def _nearest(wanted: Sequence[str], names: Sequence[str]) -> str:
    """A question that names the full names, or else the single names, most like the one wanted."""
    full = {name.casefold(): name for name in names}
    single = {part.casefold(): part for part in sorted({p for name in names for p in name.split()})}
    near = [full[found] for found in get_close_matches(" ".join(wanted), full, n=3, cutoff=0.7)]
    for word in wanted if not near else ():
        near += [single[found] for found in get_close_matches(word, single, n=2)]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
