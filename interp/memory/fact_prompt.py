"""A fact as a prompt: a biography that ends before the value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, cast

import numpy as np
import pandas as pd
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.biographies import ATTRIBUTES, NAME_PARTS, Batch, TokenKind, Wordings
from interp.errors import ArgumentError, suggest
from interp.memory.located_fact import NAME, NAME_TOKENS, VALUE
from interp.run import Run


@dataclass(frozen=True)
class FactPrompt:
    """A fact as a text: a biography of one, whose value begins at `start`."""

    individual: int
    attribute: int
    batch: Batch
    start: int
    length: int
    rivals: tuple[int, ...]
    """The distinct first tokens of the attribute's other values."""

    @classmethod
    def of(
        cls, run: Run, person: SupportsIndex | str, attribute: str, wordings: str, draw: int,
        context: str,
    ) -> "FactPrompt":  # fmt: skip
        """The prompt of a fact; see `locate_fact`."""
        index = _attribute_index(attribute)
        individual = run.population.individual(person)
        corpus = run.corpus
        batch = corpus.biographies(np.array([individual]), cast(Wordings, wordings), draw)
        if context == "first":
            others = [other for other in range(len(ATTRIBUTES)) if other != index]
            batch = corpus.assemble(
                np.array([individual]), np.array([[index, *others]]), batch.templates.numpy()
            )
        start, length = batch.value_start[0, index], batch.value_length[0, index]
        firsts = {tokens[0] for tokens in corpus.value_tokens(ATTRIBUTES[index])}
        rivals = sorted(firsts - {int(batch.tokens[0, start])})
        if not rivals:
            raise ArgumentError(
                f"All values of {ATTRIBUTES[index]} begin with the same token: there is nothing to compare "
                "the true value with. LocatedFact another attribute."
            )
        return cls(individual, index, batch, int(start), int(length), tuple(rivals))

    @property
    def read(self) -> Int[Tensor, "1 position"]:
        """The tokens that the model reads: all before the value."""
        return self.batch.tokens[:, : self.start]

    @property
    def target(self) -> int:
        """The value's first token."""
        return int(self.batch.tokens[0, self.start])

    @property
    def places(self) -> dict[str, int]:
        """Where each of `LOCATED_POSITIONS` is."""
        here = self.batch.sentence[0] == self.batch.sentence[0, self.start]
        name = here & (self.batch.kind[0] == TokenKind.NAME)
        found = {VALUE: self.start - 1}
        for index, at in enumerate(NAME_TOKENS):
            found[at] = int((name & (self.batch.part[0] == index)).nonzero()[-1, 0])
        return found

    def facts(self, run: Run) -> dict[str, Any]:
        """What is known of the text before any model has read it."""
        people, name = run.population, ATTRIBUTES[self.attribute]
        facts = people.facts(self.individual)
        starts = self.batch.value_start[0].tolist()
        same = (
            other
            for other, start in zip(ATTRIBUTES, starts, strict=True)
            if start < self.start and facts[other] == facts[name]
        )
        return {
            "individual": self.individual,
            "name": people.name(self.individual),
            "held_out": bool(people.is_held_out[self.individual]),
            "attribute": name,
            "value": facts[name],
            "told_earlier": tuple(same),
            "value_position": self.start - 1,
            "name_position": self.places[NAME],
            "tokens": self.table(run),
        }

    def table(self, run: Run) -> pd.DataFrame:
        """The tokens that the model reads, one a row."""
        batch, n = self.batch, self.start
        ids, part = batch.tokens[0, :n].tolist(), batch.part[0, :n].tolist()
        kind = [TokenKind(k) for k in batch.kind[0, :n].tolist()]
        parts = [
            _NAME_PARTS[p] if k == TokenKind.NAME else "" for k, p in zip(kind, part, strict=True)
        ]
        told = batch.attribute[0, :n].tolist()
        return pd.DataFrame(
            {
                "position": range(n),
                "token": words(run.tokenizer, ids),
                "token_id": ids,
                "kind": [k.name.lower() for k in kind],
                "part": parts,
                "sentence": batch.sentence[0, :n].tolist(),
                "attribute": [ATTRIBUTES[a] if a >= 0 else "" for a in told],
            }
        )

    def groups(self) -> list[str]:
        """Which of `GROUPS` each token that is read belongs to."""
        here = int(self.batch.sentence[0, self.start])
        found = []
        for position in range(self.start):
            kind = int(self.batch.kind[0, position])
            mine = int(self.batch.sentence[0, position]) == here
            if position == 0:
                found.append("first_token")
            elif kind == TokenKind.NAME:
                part = int(self.batch.part[0, position])
                found.append(f"{_NAME_PARTS[part]}_name" if mine else "earlier_names")
            else:
                found.append("type_words" if kind == TokenKind.TYPE and mine else "other")
        return found


def words(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    """Tokens as text; a space where one has none."""
    return [str(tokenizer.decode([token])).strip() or " " for token in ids]


def _attribute_index(attribute: str) -> int:
    """The place of an attribute, whichever way its words are joined."""
    name = "_".join(attribute.casefold().replace("-", " ").replace("_", " ").split())
    if name not in ATTRIBUTES:
        raise ArgumentError(
            f"There is no attribute {attribute!r}.{suggest(name, ATTRIBUTES)} "
            f"Attributes: {', '.join(ATTRIBUTES)}."
        )
    return ATTRIBUTES.index(name)


_NAME_PARTS = ("first", "middle", "last")
assert len(_NAME_PARTS) == len(NAME_PARTS)
