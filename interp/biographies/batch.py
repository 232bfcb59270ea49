"""Sequences about people as tensors: token ids, and what every token is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int8, Int64, UInt8
from torch import Tensor

from interp.errors import ArgumentError, whole_number


class TokenKind(IntEnum):
    """What a token is."""

    PADDING = 0
    SPECIAL = 1
    """`<bos>`."""
    NAME = 2
    VALUE = 3
    TEXT = 4
    """Template text that does not reveal the attribute."""
    TYPE = 5
    """Template text that reveals the attribute."""
    PUNCTUATION = 6


_PER_TOKEN = {
    "tokens": 0, "kind": int(TokenKind.PADDING), "attribute": -1, "sentence": -1, "part": -1, "answer": -1,
}  # fmt: skip
"""The fields with an entry per token, and what padding has there (of tokens: the padding token)."""


@dataclass(frozen=True)
class Batch:
    """Sequences of one batch, each about one person, padded on the right to the longest.

    A biography has a sentence, a name and a value of every attribute that the person has. Other forms
    may lack some of them: then the starts are -1 and the lengths 0.

    Attributes:
        individuals: Who each sequence is about.
        tokens: Token ids.
        kind: A `TokenKind` per token.
        attribute: Which attribute the token's sentence is about (index in `Population.attributes`), -1
            outside of sentences.
        sentence: Which sentence of the sequence (0 to 5), -1 outside of sentences.
        part: In a name, 0, 1, 2 for first, middle, last; in a value, 0 for its first token, then
            1, 2, ...; elsewhere -1.
        answer: Which of the things that the sequence has to recall the token is part of, counted from 0;
            -1 elsewhere. In a biography they are the values, by sentence.
        form: The form of each sequence (index in `interp.biographies.FORMS`); 0 is the biography.
        templates: Which template each attribute is told in; -1 where it is in none.
        name_start: Position of the name's first token in each attribute's sentence.
        name_length: Tokens of the name.
        value_start: Position of the value's first token in each attribute's sentence.
        value_length: Tokens of the value.
    """

    individuals: Int64[Tensor, " batch"]
    tokens: Int64[Tensor, "batch position"]
    kind: UInt8[Tensor, "batch position"]
    attribute: Int8[Tensor, "batch position"]
    sentence: Int8[Tensor, "batch position"]
    part: Int8[Tensor, "batch position"]
    answer: Int8[Tensor, "batch position"]
    form: Int64[Tensor, " batch"]
    templates: Int64[Tensor, "batch attribute"]
    name_start: Int64[Tensor, "batch attribute"]
    name_length: Int64[Tensor, "batch attribute"]
    value_start: Int64[Tensor, "batch attribute"]
    value_length: Int64[Tensor, "batch attribute"]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def name_end(self) -> Int64[Tensor, "batch attribute"]:
        """Position of the name's last token in each attribute's sentence; -1 where there is none."""
        return self.name_start + self.name_length - (self.name_length > 0).long()

    @property
    def has_value(self) -> Bool[Tensor, "batch attribute"]:
        """Which attributes have a value in which sequence."""
        return self.value_length > 0

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, rows: slice) -> "Batch":
        """Some of the sequences, at least one, cut to the longest of them."""
        if not isinstance(rows, slice) or not len(self.tokens[rows]):
            raise ArgumentError(
                f"{rows!r} names none of {len(self)} biographies; give a slice, as in batch[0:8]."
            )
        width = int((self.kind[rows] != TokenKind.PADDING).sum(dim=1).max())
        return Batch(
            *(
                getattr(self, f.name)[rows, :width]
                if f.name in _PER_TOKEN
                else getattr(self, f.name)[rows]
                for f in fields(self)
            )
        )

    def take(self, rows: Int64[Tensor, " taken"]) -> "Batch":
        """The sequences at some rows (at least one), in this order, cut to the longest of them."""
        width = int((self.kind[rows] != TokenKind.PADDING).sum(dim=1).max())
        taken = {f.name: getattr(self, f.name)[rows] for f in fields(self)}
        return Batch(**{n: v[:, :width] if n in _PER_TOKEN else v for n, v in taken.items()})

    def split(self, size: int) -> Iterable["Batch"]:
        """The sequences in batches of at most `size`."""
        size = whole_number(size, "batch_size", 1)
        return (self[start : start + size] for start in range(0, len(self), size))

    @classmethod
    def mixed(
        cls, parts: "Sequence[Batch]", rows: Sequence[Int64[Tensor, " _"]], pad_token: int
    ) -> "Batch":
        """Batches (at least one) put together, each at rows of the whole, padded to the longest."""
        order = torch.argsort(torch.cat(list(rows)))
        width = max(part.tokens.shape[1] for part in parts)
        fills = _PER_TOKEN | {"tokens": pad_token}

        def column(name: str) -> Tensor:
            values = [getattr(part, name) for part in parts]
            if name in fills:
                values = [F.pad(v, (0, width - v.shape[1]), value=fills[name]) for v in values]
            return torch.cat(values)[order]

        return cls(*(column(field.name) for field in fields(cls)))
