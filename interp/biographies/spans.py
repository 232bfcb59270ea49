"""What every token of a sequence is: name, value, text; and which sentence it belongs to.

All that the analyses need to know of a sequence. `Spans.of` reads it off a batch of biographies;
`Spans.from_lists` takes it as lists of places, for models and texts from elsewhere; `Texts` are token
ids with their spans.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int8, Int64, UInt8
from torch import Tensor

from interp.biographies.batch import Batch, TokenKind
from interp.errors import ArgumentError, whole_number
from interp.torch_state import default_state

Span = tuple[int, int]
"""First token, and the one after the last."""


@dataclass(frozen=True)
class Spans:
    """What the tokens of some sequences are. Sequences are padded on the right.

    Attributes:
        kind: A `TokenKind` per token.
        sentence: Which sentence of its sequence a token belongs to, -1 outside of sentences. A
            sentence has at most one name and, after it, one value.

    Raises:
        ArgumentError: the shapes differ, or there is padding before another token.
    """

    kind: UInt8[Tensor, "batch position"]
    sentence: Int8[Tensor, "batch position"] | Int64[Tensor, "batch position"]

    def __post_init__(self) -> None:
        if self.kind.shape != self.sentence.shape:
            raise ArgumentError(
                f"kind has the shape {tuple(self.kind.shape)} and sentence {tuple(self.sentence.shape)}"
                ", but both hold one entry per token: [batch, position]."
            )
        padding = self.kind == TokenKind.PADDING
        if (padding[:, :-1] & ~padding[:, 1:]).any():
            raise ArgumentError(
                "There is padding before another token. Pad sequences on the right."
            )

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(cls, batch: Batch) -> "Spans":
        """The spans of a batch of biographies."""
        return cls(batch.kind, batch.sentence)

    @classmethod
    @default_state()
    def from_lists(
        cls,
        n_tokens: int,
        *,
        sentences: Sequence[Span],
        names: Sequence[Span],
        values: Sequence[Span] = (),
        types: Sequence[Span] = (),
        punctuation: Sequence[Span] = (),
        text: Sequence[Span] | None = None,
    ) -> "Spans":
        """The spans of one sequence, from lists of places `(first token, one after the last)`.

        Args:
            n_tokens: Tokens of the sequence, with a beginning-of-sequence token if there is one.
            sentences: The sentences; they do not overlap.
            names: At most one in a sentence.
            values: What the model is to recall: at most one in a sentence, after the name.
            types: Words that say which attribute is meant.
            punctuation: Punctuation, anywhere.
            text: Other words. By default every token of a sentence that no other list names; where
                it is given, tokens of sentences that are left over count as punctuation.

        Returns:
            Spans of a batch of one; put several together with `stack`. Tokens in no list and no
            sentence count as special.

        Raises:
            ArgumentError: a span is empty, out of range, overlaps another or crosses the end of its
                sentence; a sentence has two names or values, or a value that no name precedes.

        Example:
            >>> spans = Spans.from_lists(  # <bos> Ada Lovelace was born in London .
            ...     8, sentences=[(1, 8)], names=[(1, 3)], values=[(6, 7)], punctuation=[(7, 8)]
            ... )
            >>> spans.kind.tolist()
            [[1, 2, 2, 4, 4, 4, 3, 6]]
        """
        if n_tokens < 1:
            raise ArgumentError(f"n_tokens={n_tokens}: a sequence has at least one token.")
        kinds = [int(TokenKind.SPECIAL)] * n_tokens
        place = [-1] * n_tokens
        taken: list[str] = [""] * n_tokens
        left_over = TokenKind.TEXT if text is None else TokenKind.PUNCTUATION
        for index, (start, stop) in enumerate(sorted(sentences)):
            _require_range((start, stop), "sentence", n_tokens)
            for token in range(start, stop):
                if place[token] >= 0:
                    raise ArgumentError(
                        f"The sentence {(start, stop)} overlaps another one at token {token}; every "
                        "token belongs to at most one sentence."
                    )
                place[token], kinds[token] = index, left_over
        lists: Mapping[str, tuple[TokenKind, Sequence[Span]]] = {
            "name": (TokenKind.NAME, names),
            "value": (TokenKind.VALUE, values),
            "type word": (TokenKind.TYPE, types),
            "punctuation": (TokenKind.PUNCTUATION, punctuation),
            "text": (TokenKind.TEXT, text or ()),
        }
        for what, (kind, spans) in lists.items():
            for start, stop in spans:
                _require_range((start, stop), what, n_tokens)
                for token in range(start, stop):
                    if taken[token]:
                        raise ArgumentError(
                            f"The {what} {(start, stop)} overlaps a {taken[token]} at token {token}; "
                            "every token is one thing."
                        )
                    taken[token], kinds[token] = what, kind
        _require_sentences(place, names, values, types)
        return cls(
            torch.tensor([kinds], dtype=torch.uint8), torch.tensor([place], dtype=torch.int64)
        )

    @classmethod
    def stack(cls, parts: "Sequence[Spans]") -> "Spans":
        """Several spans (at least one) as one batch, padded on the right to the longest."""
        if not parts:
            raise ArgumentError("There are no spans to put together; give at least one.")
        width = max(part.kind.shape[1] for part in parts)
        gaps = [(0, width - part.kind.shape[1]) for part in parts]
        pairs = list(zip(parts, gaps, strict=True))
        return cls(
            torch.cat([F.pad(part.kind, gap, value=int(TokenKind.PADDING)) for part, gap in pairs]),
            torch.cat([F.pad(part.sentence.long(), gap, value=-1) for part, gap in pairs]),
        )

    def to(self, device: torch.device | str) -> "Spans":
        """The same spans on another device."""
        return Spans(self.kind.to(device), self.sentence.to(device))

    def is_kind(self, *kinds: TokenKind) -> Bool[Tensor, "batch position"]:
        """Which tokens are of one of these kinds."""
        return torch.isin(self.kind, torch.tensor(kinds, dtype=torch.uint8).to(self.kind))

    @property
    def name_start(self) -> Int64[Tensor, "batch sentence"]:
        """Position of the first name token of each sentence, -1 where there is no name."""
        return self._outermost(TokenKind.NAME, last=False)

    @property
    def name_end(self) -> Int64[Tensor, "batch sentence"]:
        """Position of the last name token of each sentence, -1 where there is no name."""
        return self._outermost(TokenKind.NAME, last=True)

    @property
    def value_start(self) -> Int64[Tensor, "batch sentence"]:
        """Position of the first value token of each sentence, -1 where there is no value."""
        return self._outermost(TokenKind.VALUE, last=False)

    @property
    def predicts_first(self) -> Int64[Tensor, "batch sentence"]:
        """The position that predicts the first value token, the one before it; else -1."""
        return (self.value_start - 1).clamp(min=-1)

    @property
    def predicts_value(self) -> Bool[Tensor, "batch position"]:
        """Which positions predict a token of a value, first or later: those before one."""
        is_value = self.is_kind(TokenKind.VALUE) & (self.sentence >= 0)
        return F.pad(is_value[:, 1:], (0, 1))

    @property
    def next_sentence(self) -> Int64[Tensor, "batch position"]:
        """The sentence of the token that each position predicts, -1 where there is none."""
        return F.pad(self.sentence[:, 1:].long(), (0, 1), value=-1)

    def _outermost(self, kind: TokenKind, *, last: bool) -> Int64[Tensor, "batch sentence"]:
        n_sentences = int(self.sentence.max()) + 1 if self.sentence.numel() else 0
        width = self.kind.shape[1]
        chosen = self.is_kind(kind) & (self.sentence >= 0)
        places = torch.arange(width, device=self.kind.device).expand_as(self.kind)
        # One more column takes the tokens that are not meant.
        column = self.sentence.long().masked_fill(~chosen, n_sentences)
        found = torch.full(
            (len(self), n_sentences + 1), -1 if last else width, device=places.device
        )
        found = found.scatter_reduce(1, column, places, "amax" if last else "amin")[:, :-1]
        return found if last else found.masked_fill(found == width, -1)


@dataclass(frozen=True)
class Texts:
    """Token ids, and what the tokens are: what a measure reads. Padded on the right.

    Attributes:
        tokens: Token ids.
        spans: What they are.

    Raises:
        ArgumentError: there is no text, or the shapes differ.

    Example:
        ```python
        spans = Spans.from_lists(5, sentences=[(0, 5)], names=[(0, 1)], values=[(4, 5)])
        texts = Texts(torch.tensor([[17, 3, 9, 4, 28]]), spans)     # Rome is in Italy
        ```
    """

    tokens: Int64[Tensor, "text position"]
    spans: Spans

    def __post_init__(self) -> None:
        if self.tokens.shape != self.spans.kind.shape:
            raise ArgumentError(
                f"tokens have the shape {tuple(self.tokens.shape)}, but the spans describe "
                f"{tuple(self.spans.kind.shape)}; both are [text, position]."
            )
        if not len(self.tokens):
            raise ArgumentError("There are no texts; give at least one.")

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str) -> "Texts":
        """The same texts on another device."""
        return Texts(self.tokens.to(device), self.spans.to(device))

    def __getitem__(self, rows: slice) -> "Texts":
        """Some of the texts, cut to the longest of them."""
        kind = self.spans.kind[rows]
        width = int((kind != TokenKind.PADDING).sum(dim=1).max()) if len(kind) else 0
        sentence = self.spans.sentence[rows, :width]
        return Texts(self.tokens[rows, :width], Spans(kind[:, :width], sentence))

    def split(self, size: int) -> Iterator["Texts"]:
        """The texts in batches of at most `size`."""
        size = whole_number(size, "batch_size", 1)
        return (self[start : start + size] for start in range(0, len(self), size))


AnyTexts = Texts | Batch
"""What a measure reads: texts of yours, or biographies."""


def spans_of(texts: AnyTexts) -> Spans:
    """What the tokens of texts or biographies are."""
    return texts.spans if isinstance(texts, Texts) else Spans.of(texts)


def _require_range(span: Span, what: str, n_tokens: int) -> None:
    start, stop = span
    if not 0 <= start < stop <= n_tokens:
        raise ArgumentError(
            f"The {what} {(start, stop)} is not a span of this sequence: it needs 0 <= start < stop "
            f"<= {n_tokens}, the number of tokens (stop is the token after the last)."
        )


def _require_sentences(
    place: Sequence[int], names: Sequence[Span], values: Sequence[Span], types: Sequence[Span]
) -> None:
    """Checks that names, values and type words lie in sentences, as they may."""
    found: dict[str, dict[int, Span]] = {"name": {}, "value": {}, "type word": {}}
    for what, spans in (("name", names), ("value", values), ("type word", types)):
        for start, stop in spans:
            inside = set(place[start:stop])
            if len(inside) > 1 or -1 in inside:
                raise ArgumentError(
                    f"The {what} {(start, stop)} does not lie within one sentence; give a sentence "
                    "that holds all of it."
                )
            sentence = inside.pop()
            if what != "type word" and sentence in found[what]:
                raise ArgumentError(
                    f"The sentence with the {what} {(start, stop)} has another {what} at "
                    f"{found[what][sentence]}; give at most one, or make it two sentences."
                )
            found[what][sentence] = (start, stop)
    for sentence, (start, stop) in found["value"].items():
        name = found["name"].get(sentence)
        if name is None or name[0] > start:
            raise ArgumentError(
                f"The value {(start, stop)} has no name before it in its sentence"
                + (f" (the name {name} follows it)" if name else "")
                + "; a value can be recalled only after the name it belongs to."
            )
