"""A fact as a prompt: a text that tells it, read up to the value.

A biography is one (`FactPrompt.of_person`), any text whose name and value are marked is another
(`FactPrompt.of_text`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from interp.biographies import NAME_PARTS, Corpus, Spans, TokenKind, Wordings
from interp.errors import ArgumentError, NothingToMeasureError, require_known
from interp.memory.located_fact import CONTEXTS, NAME, NAME_TOKENS, VALUE, require_one_of
from interp.torch_state import default_state

Word = Callable[[int], str]
"""From a token id to its text."""


@dataclass(frozen=True, eq=False)
class FactPrompt:
    """A text that tells a fact, with its value; a model reads all before the value.

    `individual`, `wordings`, `draw` and `context` are those of a biography (see `locate_fact`).

    Attributes:
        tokens: Token ids of one text, without padding.
        spans: What they are. The fact's sentence has a name and, after it, the value.
        start: Position of the value's first token.
        length: Tokens of the value.
        rivals: The distinct first tokens of the relation's other values.
        name: The subject's name, for people, as is `value`.
        held_out: Whether training never showed this subject.
        word: From a token id to its text; numbers by default.
        told: The relation that a sentence tells, by the sentence's number; the fact's own is known.
        parts: For each token of the text "first", "middle" or "last" in a name, else "". By default
            the first and the last token of a name and all between them; a name of one token has only
            a last part, one of two has no middle part.

    Raises:
        ArgumentError: there is padding, the value is not where it is said to be, no name precedes it in
            its sentence, there is no rival, or one of them is the true value's first token.
    """

    tokens: Int64[Tensor, "1 position"]
    spans: Spans
    start: int
    length: int
    rivals: tuple[int, ...]
    name: str
    relation: str
    value: str
    held_out: bool = False
    word: Word = str
    told: Mapping[int, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    individual: int | None = None
    wordings: str | None = None
    draw: int | None = None
    context: str | None = None

    def __post_init__(self) -> None:
        _require_text(self.tokens, self.spans)
        kind, sentence = self.spans.kind[0], self.spans.sentence[0]
        here = sentence == sentence[self.start] if 0 < self.start < len(kind) else kind < 0
        value = (here & (kind == TokenKind.VALUE)).nonzero()[:, 0].tolist()
        if not value or value != list(range(self.start, self.start + self.length)):
            raise ArgumentError(
                f"The value begins at token {self.start} and has {self.length} tokens, but the spans of "
                f"these {len(kind)} tokens do not mark it there as the value of one sentence."
            )
        before = here[: self.start]
        if not (before & (kind[: self.start] == TokenKind.NAME)).any() or not before[-1]:
            raise ArgumentError(
                f"The value at token {self.start} has no name before it in its sentence; a value can be "
                "recalled only after the name it belongs to."
            )
        rivals = self.rivals
        if len(self.parts) not in (0, len(kind)):
            raise ArgumentError(f"There are {len(kind)} tokens, but {len(self.parts)} parts.")
        if not rivals:
            raise NothingToMeasureError(
                f"All values of {self.relation} begin with the same token: there is nothing to compare "
                "the true value with. Locate another fact."
            )
        if self.target in rivals:
            raise ArgumentError(
                f"The rival {self.target} is the first token of the true value itself."
            )
        if min(rivals) < 0 or len(set(rivals)) < len(rivals):
            raise ArgumentError(f"rivals={rivals}: they are distinct token ids, from 0.")

    @classmethod
    @default_state()
    def of_text(
        cls,
        tokens: Sequence[int] | Tensor,
        spans: Spans,
        rivals: Sequence[int] | Tensor,
        *,
        relation: str,
        name: str | None = None,
        value: str | None = None,
        sentence: int | None = None,
        held_out: bool = False,
        words: Word | Sequence[str] | None = None,
        told: Mapping[int, str] | None = None,
    ) -> "FactPrompt":
        """The prompt of a fact that a text of yours tells.

        Args:
            tokens: Token ids of the text, with the value.
            spans: What they are; see `Spans.from_lists`.
            rivals: First tokens of the relation's values, which the true one is compared with. That
                of the true one, and repeats, are left out.
            relation: Which relation the fact is of.
            name: The subject's name, for people; its words by default, as of `value`.
            value: The value, for people.
            sentence: The number of the sentence that tells the fact; by default the last with a value.
            held_out: Whether training never showed this subject.
            words: From a token id to its text (a tokenizer's `decode`), or the text of each token of
                `tokens`; other tokens are then called by their number, as all are by default.
            told: The relations that other sentences tell, by the sentence's number.

        Example:
            ```python
            spans = Spans.from_lists(6, sentences=[(0, 6)], names=[(0, 2)], values=[(4, 6)])
            prompt = FactPrompt.of_text(
                [17, 3, 9, 4, 28, 5], spans, rivals=[28, 30, 31], relation="capital"
            )
            interp.locate_fact({0: model}, prompt)
            ```
        """
        ids = torch.tensor([_whole(tokens, "tokens")], dtype=torch.int64)
        rivals = _whole(rivals, "rivals")
        _require_text(ids, spans)
        starts = spans.value_start[0].tolist()
        telling = [number for number, start in enumerate(starts) if start >= 0]
        chosen = telling[-1] if sentence is None and telling else sentence
        if chosen not in telling:
            raise ArgumentError(
                "No sentence of the text tells a value; give it as a span."
                if not telling
                else f"The sentence {sentence} tells no value; those that do: {telling}."
            )
        start, here = starts[chosen], spans.sentence[0] == chosen
        word = _word(ids[0].tolist(), words)
        name_ids, value_ids = (
            ids[0, here & spans.is_kind(kind)[0]].tolist()
            for kind in (TokenKind.NAME, TokenKind.VALUE)
        )
        return cls(
            ids, spans, start, len(value_ids), tuple(sorted(set(rivals) - {int(ids[0, start])})),
            " ".join(worded(word, name_ids)) if name is None else name, relation,
            " ".join(worded(word, value_ids)) if value is None else value,
            held_out, word, dict(told or {}),
        )  # fmt: skip

    @classmethod
    @default_state()
    def of_person(
        cls,
        corpus: Corpus,
        person: SupportsIndex | str,
        attribute: str,
        wordings: str = "evaluation",
        draw: int = 0,
        context: str = "first",
    ) -> "FactPrompt":
        """The prompt of a fact of a corpus: a biography; for arguments and errors see `locate_fact`."""
        require_one_of("wordings", wordings, ("train", "evaluation"))
        require_one_of("context", context, CONTEXTS)
        if draw < 0:
            raise ArgumentError(f"draw={draw}: draw has to be at least 0.")
        index = attribute_index(attribute, corpus.attributes)
        people, relation = corpus.population, corpus.attributes[index]
        individual = people.individual(person)
        if people.values[individual, index] < 0:
            raise NothingToMeasureError(
                f"{people.name(individual)} has no {relation.replace('_', ' ')} (a missing value), so there "
                f"is nothing to locate; they have {', '.join(people.facts(individual))}."
            )
        batch = corpus.biographies(np.array([individual]), cast(Wordings, wordings), draw)
        if context == "first":
            others = [other for other in range(len(corpus.attributes)) if other != index]
            batch = corpus.assemble(
                np.array([individual]), np.array([[index, *others]]), batch.templates.numpy()
            )
        start, length = int(batch.value_start[0, index]), int(batch.value_length[0, index])
        firsts = {tokens[0] for tokens in corpus.value_tokens(relation)}
        fields = (batch.kind, batch.part, batch.sentence, batch.attribute)
        tokens = list(zip(*(field[0].tolist() for field in fields), strict=True))
        return cls(
            tokens=batch.tokens,
            spans=Spans.of(batch),
            start=start,
            length=length,
            rivals=tuple(sorted(firsts - {int(batch.tokens[0, start])})),
            name=people.name(individual),
            relation=relation,
            value=people.facts(individual)[relation],
            held_out=bool(people.is_held_out[individual]),
            word=lambda token: str(corpus.tokenizer.decode([token])),
            told={s: corpus.attributes[a] for _, _, s, a in tokens if s >= 0},
            parts=tuple(NAME_PARTS[p] if k == TokenKind.NAME else "" for k, p, _, _ in tokens),
            individual=individual,
            wordings=wordings,
            draw=draw,
            context=context,
        )

    @property
    def read(self) -> Int64[Tensor, "1 read"]:
        """The tokens that the model reads: all before the value."""
        return self.tokens[:, : self.start]

    @property
    def target(self) -> int:
        """The value's first token."""
        return int(self.tokens[0, self.start])

    @property
    def places(self) -> dict[str, int]:
        """Where each of `LOCATED_POSITIONS` is that the text has."""
        ends = {f"{part} name": i for i, part in enumerate(self._parts()) if self._is_here(i)}
        return {VALUE: self.start - 1} | {at: ends[at] for at in NAME_TOKENS if at in ends}

    def _is_here(self, position: int) -> bool:
        """Whether a token is in the sentence that tells the fact."""
        return bool(self.spans.sentence[0, position] == self.spans.sentence[0, self.start])

    def labels(self) -> dict[str, Any]:
        """What is known of the fact and the text before any model has read it."""
        return {
            "individual": self.individual,
            "name": self.name,
            "held_out": self.held_out,
            "attribute": self.relation,
            "value": self.value,
            "wordings": self.wordings,
            "draw": self.draw,
            "context": self.context,
            "told_earlier": self._told_earlier(),
            "value_position": self.start - 1,
            "name_position": self.places[NAME],
            "tokens": self.table(),
        }

    def table(self) -> pd.DataFrame:
        """The tokens that the model reads, one a row."""
        ids, sentence = self.read[0].tolist(), self.spans.sentence[0, : self.start].tolist()
        told = {**self.told, int(self.spans.sentence[0, self.start]): self.relation}
        kinds = self.spans.kind[0, : self.start].tolist()
        return pd.DataFrame(
            {
                "position": range(self.start),
                "token": worded(self.word, ids),
                "token_id": ids,
                "kind": [TokenKind(kind).name.lower() for kind in kinds],
                "part": self._parts(),
                "sentence": sentence,
                "attribute": [told.get(s, "") if s >= 0 else "" for s in sentence],
            }
        )

    def groups(self) -> list[str]:
        """Which of `GROUPS` each token that is read belongs to."""
        groups = []
        for position, part in enumerate(self._parts()):
            here = self._is_here(position)
            is_type = here and bool(self.spans.kind[0, position] == TokenKind.TYPE)
            name = f"{part}_name" if here else "earlier_names"
            groups.append(name if part else "type_words" if is_type else "other")
        return ["first_token", *groups[1:]]

    def _parts(self) -> list[str]:
        """The part of a name that each token which is read belongs to."""
        if self.parts:
            return list(self.parts[: self.start])
        names: dict[int, list[int]] = {}
        is_name = self.spans.is_kind(TokenKind.NAME)[0, : self.start]
        for position in is_name.nonzero()[:, 0].tolist():
            names.setdefault(int(self.spans.sentence[0, position]), []).append(position)
        parts = [""] * self.start
        for first, *rest in names.values():
            for position in rest:
                parts[position] = "middle"
            parts[first] = "first"
            parts[rest[-1] if rest else first] = "last"
        return parts

    def _told_earlier(self) -> tuple[str, ...]:
        """The sentences that end before this one's value and tell the same value, by their relation."""
        value = self.tokens[0, self.start : self.start + self.length].tolist()
        is_value = self.spans.is_kind(TokenKind.VALUE)[0, : self.start]
        earlier: dict[int, list[int]] = {}
        for position in is_value.nonzero()[:, 0].tolist():
            number = int(self.spans.sentence[0, position])
            earlier.setdefault(number, []).append(int(self.tokens[0, position]))
        return tuple(
            self.told.get(s, f"sentence {s}") for s, ids in earlier.items() if ids == value
        )


def worded(word: Word, ids: Sequence[int]) -> list[str]:
    """Tokens as text; a space where one has none."""
    return [str(word(token)).strip() or " " for token in ids]


def _word(tokens: Sequence[int], words: Word | Sequence[str] | None) -> Word:
    if words is None or callable(words):
        return words or str
    if isinstance(words, str) or len(words) != len(tokens):
        raise ArgumentError(
            f"There are {len(tokens)} tokens; give a list of as many words, or a function from a token id "
            "to its text (a tokenizer's decode)."
        )
    known = dict(zip(reversed(tokens), reversed(words), strict=True))
    return lambda token: known.get(token, str(token))


def _whole(numbers: Sequence[int] | Tensor, what: str) -> list[int]:
    """Token ids as whole numbers, of a list, an array or a tensor."""
    try:
        given = numbers.tolist() if isinstance(numbers, Tensor | np.ndarray) else list(numbers)
    except TypeError:
        given = [numbers]
    wrong = [n for n in given if isinstance(n, bool) or not isinstance(n, int | np.integer)]
    if wrong:
        raise ArgumentError(f"{what} hold {wrong[0]!r}; they are token ids, whole numbers from 0.")
    return [int(n) for n in given]


def _require_text(tokens: Tensor, spans: Spans) -> None:
    if tokens.shape != spans.kind.shape or len(tokens) != 1:
        raise ArgumentError(
            f"tokens have the shape {tuple(tokens.shape)}, but the spans describe "
            f"{tuple(spans.kind.shape)}; both are one text: [1, position]."
        )
    if (spans.kind == TokenKind.PADDING).any() or (tokens < 0).any():
        raise ArgumentError("A prompt is one text without padding, of token ids from 0.")


def attribute_index(attribute: str, known: Sequence[str]) -> int:
    """The place of an attribute, whichever way its words are joined; an ArgumentError if it is unknown."""
    name = "_".join(attribute.casefold().replace("-", " ").replace("_", " ").split())
    require_known([name], known, "attribute")
    return list(known).index(name)
