"""What is true of whom, and the texts that tell it: all that keys, values and probes need to know.

A corpus of biographies knows both. For texts of yours, `FactLabels.from_answers` takes the answers and
`FactTexts` where each is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from interp.biographies import NAME_PARTS, Corpus, Texts
from interp.errors import ArgumentError


@dataclass(frozen=True)
class FirstTokens:
    """The first tokens of a relation's values: what the measures tell apart.

    A value is looked for by its first token, the only one that nothing before it gives away. With
    word-level tokens that tells it from all others, save for birth dates, of which it is the day (whole
    dates are nearly unique to people, and nothing could be learned from one person about another).

    Attributes:
        tokens: The distinct first tokens of all values of the relation.
        of_individual: For each subject, the index of its own in `tokens`; -1 where it has no value.
        in_values: All tokens of all values, first and later, in order.
    """

    tokens: Int64[Tensor, " first_token"]
    of_individual: Int64[Tensor, " population"]
    in_values: Int64[Tensor, " token"]

    @staticmethod
    def of(corpus: Corpus) -> "dict[str, FirstTokens]":
        """Those of every attribute; read once for each corpus, as pools are long."""
        if corpus not in _first_tokens:
            values = corpus.population.values.T
            _first_tokens[corpus] = {
                attribute: FirstTokens.among(corpus.value_tokens(attribute), own)
                for attribute, own in zip(corpus.attributes, values, strict=True)
            }
        return _first_tokens[corpus]

    @staticmethod
    def among(values: Sequence[Sequence[int]], own: np.ndarray) -> "FirstTokens":
        """Those of values, given by their token ids; `own` says which is each subject's, or -1."""
        distinct, place = np.unique([value[0] for value in values], return_inverse=True)
        in_values = np.unique(np.fromiter(chain.from_iterable(values), np.int64))
        return FirstTokens(
            *map(torch.from_numpy, (distinct, np.where(own < 0, -1, place[own]), in_values))
        )


_first_tokens: WeakKeyDictionary[Corpus, dict[str, FirstTokens]] = WeakKeyDictionary()


@dataclass(frozen=True)
class FactLabels:
    """What is true of whom.

    Attributes:
        relations: The values of each relation, by name.
        namesakes: For each subject the number of its group of namesakes, subjects that share the last
            part of their name; None where nobody has namesakes.
    """

    relations: Mapping[str, FirstTokens]
    namesakes: Int64[Tensor, " population"] | None = None

    def __post_init__(self) -> None:
        sizes = {name: len(one.of_individual) for name, one in self.relations.items()}
        if self.namesakes is not None:
            sizes["namesakes"] = len(self.namesakes)
        if not self.relations or len(set(sizes.values())) > 1:
            raise ArgumentError(
                f"There must be at least one relation, and every relation has a value for each subject; "
                f"numbers of subjects: {sizes}."
            )

    @classmethod
    def of(cls, facts: "AnyFacts") -> "FactLabels":
        """Those of a corpus; labels as they are."""
        if isinstance(facts, FactLabels):
            return facts
        last_names = facts.population.names[:, NAME_PARTS.index("last")]
        return cls(FirstTokens.of(facts), torch.from_numpy(last_names.astype(np.int64)))

    @classmethod
    def from_answers(
        cls,
        answers: Mapping[str, Sequence[Sequence[int]]],
        namesakes: Sequence[int] | None = None,
    ) -> "FactLabels":
        """Labels of subjects whose answers are known: the token ids of each, for every relation."""
        relations = {}
        for relation, given in answers.items():
            of_subjects = [tuple(answer) for answer in given]
            values = sorted(set(of_subjects))
            if not values or not all(values):
                wrong = "an answer without tokens" if values else "no answers"
                raise ArgumentError(
                    f"The relation {relation!r} has {wrong}. Every subject needs an answer of at least one "
                    "token."
                )
            place = {value: index for index, value in enumerate(values)}
            own = np.array([place[answer] for answer in of_subjects])
            relations[relation] = FirstTokens.among(values, own)
        groups = None if namesakes is None else torch.tensor(namesakes, dtype=torch.int64)
        return cls(relations, groups)

    def groups(self, subjects: Int64[Tensor, " subject"]) -> Int64[Tensor, " subject"]:
        """The group of namesakes of some subjects."""
        return subjects if self.namesakes is None else self.namesakes[subjects]


AnyFacts = Corpus | FactLabels
"""Who has which answers: a corpus of biographies, or labels of yours."""


@dataclass(frozen=True)
class FactTexts:
    """Texts that tell every relation of some subjects, each in a sentence with its name and value.

    A text may tell several facts. Subjects are numbers (see `FactLabels`); each fact is told in a `row` of
    the texts, a `sentence` of it, and a wording (`templates`, numbers of yours).
    """

    texts: Texts
    subjects: Int64[Tensor, " subject"]
    row: Int64[Tensor, "subject relation"]
    sentence: Int64[Tensor, "subject relation"]
    templates: Int64[Tensor, "subject relation"]

    def __post_init__(self) -> None:
        shapes = {
            name: tuple(getattr(self, name).shape) for name in ("row", "sentence", "templates")
        }
        if len(set(shapes.values())) > 1 or len(self.row) != len(self.subjects):
            raise ArgumentError(
                f"row, sentence and templates are [subject, relation] for {len(self.subjects)} subjects, "
                f"but have the shapes {shapes}."
            )
        spans, sizes = self.texts.spans, self.texts.spans.name_end.shape
        n_sentences, told = sizes[1], torch.stack([self.row, self.sentence], dim=-1)
        if ((told < 0) | (told >= torch.tensor(sizes, device=told.device))).any():
            raise ArgumentError(
                f"A fact is told in a text or sentence that is not there; there are {len(self.texts)} texts "
                f"of at most {n_sentences} sentences."
            )
        place = (self.row, self.sentence)
        if (spans.name_end[place] < 0).any() or (spans.value_start[place] < 1).any():
            raise ArgumentError(
                "A fact is told in a sentence without a name, or without a value after it; give its name "
                "and its value as spans."
            )

    def __len__(self) -> int:
        return len(self.subjects)
