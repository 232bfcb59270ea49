"""What a compiled model has to know of a population: its names, values and wordings as token ids."""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from interp.biographies import Corpus
from interp.biographies.tokenizer import encode_words
from interp.errors import ArgumentError

NAME = "name"
Symbols = tuple[int | str, ...]
"""Token ids of a wording, and `NAME` in the place of the name."""
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Wording:
    """One sentence of an attribute: what stands before its value, and what after."""

    attribute: int
    before: Symbols
    after: Tokens


@dataclass(frozen=True)
class Knowledge:
    """A population as token ids.

    Attributes:
        attributes: Their names.
        names: Everybody's name, held-out people included.
        known: How many people, the first ones, have facts in the model.
        values: Everybody's value of each attribute; () where somebody has none.
        pools: Every value of each attribute.
        wordings: Every wording of every attribute.
        bos: The token that begins a text.
        token_text: The text of every token.
    """

    attributes: tuple[str, ...]
    names: tuple[Tokens, ...]
    known: int
    values: tuple[tuple[Tokens, ...], ...]
    pools: tuple[tuple[Tokens, ...], ...]
    wordings: tuple[Wording, ...]
    bos: int
    token_text: tuple[str, ...]

    @classmethod
    def of(cls, corpus: Corpus) -> "Knowledge":
        """What the texts of a corpus need.

        Raises:
            ArgumentError: two people have the same tokens, or a value begins like a longer one.
        """
        people, tokenizer = corpus.population, corpus.tokenizer
        lexicon = people.lexicon

        def encoded(texts: list[str]) -> tuple[Tokens, ...]:
            return tuple(map(tuple, encode_words(tokenizer, texts)))

        names = encoded(people.full_names)
        pools = tuple(encoded(list(pool)) for pool in lexicon.values.values())
        values = tuple(
            tuple(pool[i] if i >= 0 else () for pool, i in zip(pools, own, strict=True))
            for own in people.values
        )
        wordings = []
        for index, group in enumerate(lexicon.templates.values()):
            for template in dict.fromkeys(group):
                symbols: list[int | str] = []
                for kind, text in template.parts:
                    symbols += (kind,) if kind in ("name", "value") else encoded([text])[0]
                at = symbols.index("value")
                after = tuple(int(one) for one in symbols[at + 1 :])
                wordings.append(Wording(index, tuple(symbols[:at]), after))
        if len(set(names)) < len(names):
            raise ArgumentError(
                "Two people of this population have names of the same tokens, which no model can tell "
                "apart. Change one."
            )
        return cls(
            corpus.attributes, names, people.config.n_individuals, values, pools, tuple(wordings),
            tokenizer.bos_token_id, tuple(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))),
        )  # fmt: skip

    @cached_property
    def name_lengths(self) -> tuple[int, ...]:
        """In how many tokens names come, increasing."""
        return tuple(sorted({len(name) for name in self.names}))

    @cached_property
    def name_places(self) -> dict[tuple[int, int], frozenset[int]]:
        """By length of the name and distance to its last token: the tokens that stand there."""
        places: dict[tuple[int, int], set[int]] = {}
        for name in self.names:
            for back, token in enumerate(reversed(name)):
                places.setdefault((len(name), back), set()).add(token)
        return {place: frozenset(tokens) for place, tokens in places.items()}

    @cached_property
    def name_tokens(self) -> tuple[int, ...]:
        """Every token of every name, increasing."""
        return tuple(sorted(set(chain.from_iterable(self.names))))

    def longest(self, attribute: int) -> int:
        """Tokens of the longest value of an attribute that somebody known has; at least 1."""
        return max((len(own[attribute]) for own in self.values[: self.known]), default=1) or 1

    @cached_property
    def n_steps(self) -> int:
        """Tokens of the longest value."""
        return max(self.longest(a) for a in range(len(self.attributes)))

    def tokens_at(self, attribute: int, step: int) -> tuple[int, ...]:
        """The tokens that stand at some place, from 0, in values that known people have, increasing."""
        own = (values[attribute] for values in self.values[: self.known])
        return tuple(sorted({value[step] for value in own if len(value) > step}))

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end a sentence, `<bos>` included; none where a sentence can end in a value."""
        if any(not wording.after for wording in self.wordings):
            return frozenset()
        return frozenset({self.bos, *(wording.after[-1] for wording in self.wordings)})

    def facts(self) -> np.ndarray:
        """Which known person has which attribute, [individual, attribute]."""
        return np.array([[bool(v) for v in own] for own in self.values[: self.known]])
