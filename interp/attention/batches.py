"""What attention is read from: token ids, what the tokens are, and which positions are read."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.biographies import AnyTexts, Batch, Spans, Texts, TokenKind, spans_of
from interp.errors import ArgumentError
from interp.interventions import Pairs

TextsToRead = (
    AnyTexts | Pairs | Iterable[tuple[Tensor, Spans] | tuple[Tensor, Spans, Int64[Tensor, " text"]]]
)
"""Texts, biographies, both sides of pairs, or batches: token ids, spans and perhaps what is read."""


def at_read(spans: Spans, read: Int64[Tensor, " text"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries at one position a text: its sentence, row, position, and who can be attended to.

    The sentence is that of the token after it (where the text ends there, its own; -1: none). Left out is
    position 0, which attends to itself alone.
    """
    read = read.to(spans.kind.device)
    width = spans.kind.shape[1]
    if read.shape != (len(spans),):
        raise ArgumentError(
            f"read has the shape {tuple(read.shape)}; it is one position for each of {len(spans)} texts."
        )
    n_tokens = (spans.kind != TokenKind.PADDING).sum(1)
    wrong = ((read < 0) | (read >= n_tokens)).nonzero()[:, 0].tolist()
    if wrong:
        row = wrong[0]
        raise ArgumentError(
            f"read={int(read[row])} of text {row}: it has positions 0 to {int(n_tokens[row]) - 1}."
        )
    at = read[:, None]
    own = spans.sentence.gather(1, (at + 1).clamp(max=width - 1))
    own = own.where(own >= 0, spans.sentence.gather(1, at))[:, 0]
    row = (read > 0).nonzero()[:, 0]
    position = read[row]
    places = torch.arange(width, device=row.device)
    return own[row], row, position, places <= position[:, None]


def batches_of(
    texts: TextsToRead, read: Int64[Tensor, " text"] | None, size: int | None = None
) -> Iterator[tuple[Tensor, Spans, Tensor | None]]:
    """Token ids, spans and the positions that are read (None: those before values), by batch."""
    parts: list[tuple[AnyTexts, Tensor | None]]
    if isinstance(texts, Pairs) and read is None:
        parts = [
            (Texts(texts.base, texts.spans), texts.read),
            (Texts(texts.source, texts.source_spans), texts.source_read),
        ]
    elif isinstance(texts, Texts | Batch):
        parts = [(texts, read)]
    elif read is not None:
        raise ArgumentError(
            f"read is of interp.Texts(tokens, spans), not of {type(texts).__name__}: pairs have positions "
            "of their own, and batches hold them as a third: (tokens, spans, read)."
        )
    elif not isinstance(texts, Iterable) or isinstance(texts, Tensor):
        raise ArgumentError(
            f"texts are {type(texts).__name__}; give interp.Texts(tokens, spans), interp.Pairs, a batch of "
            "biographies, or several (tokens, spans)."
        )
    else:
        return ((tokens, spans, more[0] if more else None) for tokens, spans, *more in texts)
    return _split(parts, size)


def _split(
    parts: Iterable[tuple[AnyTexts, Tensor | None]], size: int | None
) -> Iterator[tuple[Tensor, Spans, Tensor | None]]:
    """Texts in batches of a size, or as they are."""
    for whole, positions in parts:
        if size is None:
            yield whole.tokens, spans_of(whole), positions
            continue
        several: Iterable[AnyTexts] = whole.split(size)
        for number, part in enumerate(several):
            rows = slice(number * size, (number + 1) * size)
            yield part.tokens, spans_of(part), None if positions is None else positions[rows]
