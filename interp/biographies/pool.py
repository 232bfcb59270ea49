"""The token pool, and the one way in which sequences are put together of slices of it.

All token sequences that a text can be made of (template texts, name parts, values) lie behind one
another in a flat pool. A sequence is `<bos>` and a row of *pieces*, slices of the pool; a batch of them
is one gather.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.biographies.batch import Batch, TokenKind
from interp.biographies.templates import Template
from interp.biographies.tokenizer import PUNCTUATION, encode_words, set_words, words

Slices = Integer[np.ndarray, "... 2"]
"""Of texts in the pool: where each begins, and how many tokens it has."""


class TokenPool:
    """Every text that sequences are made of, token by token; `<bos>` is its first.

    Args:
        tokenizer: The population's tokenizer, which has to know every word that is added.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._size = 1
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._append([tokenizer.bos_token_id], [TokenKind.SPECIAL])
        self.nothing = np.array([0, 0])
        """The slice of a piece that is not there."""

    def _append(self, tokens: Iterable[int], kinds: Iterable[int]) -> None:
        self._parts.append((np.fromiter(tokens, np.int64), np.fromiter(kinds, np.uint8)))

    def _add(self, tokens: Sequence[Sequence[int]], kinds: Sequence[Sequence[int]]) -> Slices:
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        starts = self._size + np.cumsum(lengths) - lengths
        self._append(chain.from_iterable(tokens), chain.from_iterable(kinds))
        self._size += int(lengths.sum())
        return np.stack([starts, lengths], -1)

    def add(self, texts: Sequence[str], kind: TokenKind) -> Slices:
        """Adds texts all of whose tokens are of one kind, such as the names of a pool."""
        encoded = encode_words(self.tokenizer, texts)
        return self._add(encoded, [[kind] * len(ids) for ids in encoded])

    def add_wording(self, texts: Sequence[tuple[str, TokenKind]]) -> Slices:
        """Adds texts of some kind each, in which punctuation is told apart."""
        ids_of = self._encoded(text for text, _ in texts)
        return self._add(*zip(*(self._wording([one], ids_of) for one in texts), strict=True))

    def add_templates(self, templates: Sequence[Template]) -> Integer[np.ndarray, "template 3 2"]:
        """Adds the texts of templates: before the first of name and value, between, after the second."""
        ids_of = self._encoded(text for template in templates for _, text in template.parts)
        tokens, kinds = [], []
        for template in templates:
            places: list[list[tuple[str, TokenKind]]] = [[]]
            for kind, text in template.parts:
                if kind in ("name", "value"):
                    places.append([])
                else:
                    places[-1].append((text, TokenKind.TYPE if kind == "type" else TokenKind.TEXT))
            for place in places:
                ids, of_kind = self._wording(place, ids_of)
                tokens.append(ids)
                kinds.append(of_kind)
        return self._add(tokens, kinds).reshape(len(templates), 3, 2)

    def _encoded(self, texts: Iterable[str]) -> dict[str, list[int]]:
        known = set_words(texts)
        return dict(zip(known, encode_words(self.tokenizer, known), strict=True))

    @staticmethod
    def _wording(
        texts: Sequence[tuple[str, TokenKind]], ids_of: dict[str, list[int]]
    ) -> tuple[list[int], list[int]]:
        tokens: list[int] = []
        kinds: list[int] = []
        for text, kind in texts:
            for word in words(text):
                ids = ids_of[word]
                tokens += ids
                kinds += [TokenKind.PUNCTUATION if word in PUNCTUATION else kind] * len(ids)
        return tokens, kinds

    @property
    def tokens(self) -> Integer[np.ndarray, " token"]:
        """All token ids."""
        return self._whole()[0]

    @property
    def kinds(self) -> Integer[np.ndarray, " token"]:
        """The kind of every token."""
        return self._whole()[1]

    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self._parts) > 1:
            tokens, kinds = zip(*self._parts, strict=True)
            self._parts = [(np.concatenate(tokens), np.concatenate(kinds))]
        return self._parts[0]


@dataclass(frozen=True)
class Pieces:
    """The rows of pieces that a batch is made of, behind `<bos>`; a piece may be empty.

    What is said of a piece is one for all sequences ([piece]) or for each ([batch, piece]).

    Attributes:
        slices: Where the tokens of each piece lie in the pool.
        sentence: Which sentence it belongs to, -1 for none.
        attribute: Which attribute it is about, -1 for none.
        part: Which part of a name it is, -1 for none.
        is_value: Whether it is a value.
        answer: Which answer it belongs to, -1 for none.
        name: Of each attribute's sentence, the first and the last piece of the name; -1 for none.
        value: Of each attribute, the piece with its value; -1 for none.
        templates: Which template each attribute is told in; -1 for none.
    """

    slices: Integer[np.ndarray, "batch piece 2"]
    sentence: Integer[np.ndarray, "... piece"]
    attribute: Integer[np.ndarray, "... piece"]
    part: Integer[np.ndarray, "... piece"]
    is_value: Bool[np.ndarray, "... piece"]
    answer: Integer[np.ndarray, "... piece"]
    name: Integer[np.ndarray, "batch attribute 2"]
    value: Integer[np.ndarray, "batch attribute"]
    templates: Integer[np.ndarray, "batch attribute"]


def assembled(
    pool: TokenPool, pieces: Pieces, individuals: Integer[np.ndarray, " batch"], form: int = 0
) -> Batch:
    """The sequences that are made of pieces, about these people."""
    size, n_pieces, _ = pieces.slices.shape
    lengths = np.concatenate([np.ones((size, 1), np.int64), pieces.slices[..., 1]], axis=1)
    starts = np.concatenate([np.zeros((size, 1), np.int64), pieces.slices[..., 0]], axis=1)
    columns = np.cumsum(lengths, axis=1) - lengths  # where each piece begins in its row
    row_lengths = lengths.sum(axis=1)
    width = int(row_lengths.max())

    flat_lengths = lengths.ravel()
    total = int(flat_lengths.sum())
    flat_starts = np.cumsum(flat_lengths) - flat_lengths
    within = np.arange(total) - np.repeat(flat_starts, flat_lengths)
    source = np.repeat(starts.ravel(), flat_lengths) + within
    row_starts = np.arange(size) * width - (np.cumsum(row_lengths) - row_lengths)
    target = np.arange(total) + np.repeat(row_starts, row_lengths)

    def per_token(values: np.ndarray) -> np.ndarray:
        """A number of every piece, at every token of it; `<bos>` has -1."""
        rows = np.broadcast_to(values, (size, n_pieces))
        with_bos = np.concatenate([np.full((size, 1), -1), rows], axis=1).astype(np.int8)
        return np.repeat(with_bos.ravel(), flat_lengths)

    def padded(values: np.ndarray, fill: int) -> Tensor:
        out = np.full(size * width, fill, dtype=values.dtype)
        out[target] = values
        return torch.from_numpy(out.reshape(size, width))

    def at(values: np.ndarray, piece: np.ndarray) -> np.ndarray:
        """A number of one piece of each attribute; `<bos>` stands before the pieces."""
        return np.take_along_axis(values[:, 1:], np.maximum(piece, 0), axis=1)

    def extent(first: np.ndarray, last: np.ndarray) -> tuple[Tensor, Tensor]:
        """Where the pieces of each attribute begin, and how many tokens they have."""
        start = at(columns, first)
        length = at(columns, last) + at(lengths, last) - start
        length = np.where(first < 0, 0, length)
        start = np.where(length == 0, -1, start)
        return torch.from_numpy(start), torch.from_numpy(length)

    # A value that is not there has no sentence.
    value_start, value_length = extent(pieces.value, pieces.value)
    name_start, name_length = extent(pieces.name[..., 0], pieces.name[..., 1])
    is_value = per_token(pieces.is_value.astype(int)) == 1
    return Batch(
        individuals=torch.from_numpy(np.asarray(individuals, dtype=np.int64)),
        tokens=padded(pool.tokens[source], pool.tokenizer.pad_token_id),
        kind=padded(pool.kinds[source], TokenKind.PADDING),
        attribute=padded(per_token(pieces.attribute), -1),
        sentence=padded(per_token(pieces.sentence), -1),
        part=padded(np.where(is_value, within, per_token(pieces.part)).astype(np.int8), -1),
        answer=padded(per_token(pieces.answer), -1),
        form=torch.from_numpy(np.full(size, form)),
        templates=torch.from_numpy(pieces.templates.astype(np.int64)),
        name_start=name_start,
        name_length=name_length,
        value_start=value_start,
        value_length=value_length,
    )
