"""The lexicon of a population: the names, values and wordings that its texts are made of.

A drawn population has that of the package's frozen lists; people that users bring have their own
(`interp.biographies.own_people`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from interp.biographies.lists import ATTRIBUTES, name_pools, value_pools
from interp.biographies.templates import (
    N_TRAIN_TEMPLATES,
    Template,
    question_templates,
    templates,
)
from interp.config import PopulationConfig


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The names, values and wordings that the texts about a population are made of.

    Attributes:
        names: The pools of first, middle and last names. A pool of people that users bring can hold "",
            for those whose name has no such part.
        values: The pool of each attribute's values.
        templates: The wordings of each attribute's sentence, equally many of each.
        questions: The wordings of each attribute's question, equally many of each.
        n_train_templates: How many of an attribute's wordings a person has in training; the others are
            for evaluation.
        dates: Attributes whose values are days, months and years, drawn independently.
    """

    names: tuple[tuple[str, ...], ...]
    values: Mapping[str, tuple[str, ...]]
    templates: Mapping[str, tuple[Template, ...]]
    questions: Mapping[str, tuple[Template, ...]]
    n_train_templates: int
    dates: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes, in the order of every axis named `attribute`."""
        return tuple(self.values)

    @property
    def n_templates(self) -> int:
        """Wordings of an attribute's sentence."""
        return len(next(iter(self.templates.values())))

    def texts(self) -> Iterator[str]:
        """Every text that a biography can be made of, in a fixed order."""
        yield from (text for group in self.templates.values() for t in group for _, text in t.parts)
        yield from chain.from_iterable(self.names)
        for attribute, pool in self.values.items():
            if attribute not in self.dates:
                yield from pool
                continue
            # All dates are made of the words of few: each day, month and year once.
            yield from dict.fromkeys(word for date in pool for word in date.split())


def lexicon_of_lists(config: PopulationConfig) -> Lexicon:
    """The lexicon of the package's frozen lists, as far as a population uses them."""
    return Lexicon(
        name_pools(config),
        value_pools(config),
        {name: templates()[name] for name in ATTRIBUTES},
        {name: question_templates()[name] for name in ATTRIBUTES},
        N_TRAIN_TEMPLATES,
        dates=("birth_date",),
    )
