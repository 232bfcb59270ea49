"""Position kinds against a loop over tokens, with and without a position that is read; controls."""

import pytest
import torch

from interp.biographies import (
    POSITIONS,
    Corpus,
    Spans,
    TokenKind,
    control_mask,
    position_masks,
)
from interp.errors import ArgumentError

TEXTS = [
    # <bos> A x t v .  B C D y t t v v .
    Spans.from_lists(
        15, sentences=[(1, 6), (6, 15)], names=[(1, 2), (6, 9)], values=[(4, 5), (12, 14)],
        types=[(3, 4), (10, 12)], punctuation=[(5, 6), (14, 15)],
    ),
    Spans.from_lists(7, sentences=[(1, 7)], names=[(1, 3)], values=[(5, 6)], punctuation=[(6, 7)]),
]  # fmt: skip


def tokens_of(spans: Spans, row: int) -> list[tuple[int, int]]:
    return list(zip(spans.kind[row].tolist(), spans.sentence[row].tolist(), strict=True))


OF_FACTS = {
    "subject": "name", "last subject token": "last name", "relation": "type words",
    "predicts answer": "predicts value", "answer": "first value token",
}  # fmt: skip


def slow(spans: Spans, row: int, name: str, read: int | None) -> list[bool]:
    """What a kind means, token by token."""
    tokens = tokens_of(spans, row)
    n = len(tokens)
    own = {s for _, s in tokens if s >= 0}
    if read is not None:
        follows = tokens[read + 1][1] if read + 1 < n else -1
        own = {follows if follows >= 0 else tokens[read][1]} - {-1}
    found = []
    for i, (kind, sentence) in enumerate(tokens):
        seen = read is None or i <= read
        earlier = read is not None and bool(own) and 0 <= sentence < min(own)
        same = [j for j in range(n) if tokens[j] == (TokenKind.NAME, sentence)]
        is_name = kind == TokenKind.NAME and seen
        first, last = is_name and i == min(same), is_name and i == max(same)
        words = [j for j in range(n) if tokens[j] == (TokenKind.TYPE, sentence)]
        words = [j for j in words if read is None or j <= read]
        every = sentence in own or earlier
        value = [j for j in range(n) if tokens[j][0] == TokenKind.VALUE and tokens[j][1] >= 0]
        starts = [j for j in value if j - 1 not in value]
        found.append(
            {
                "first token": i == 0,
                "first name": first and sentence in own,
                "middle name": is_name and not first and not last and sentence in own,
                "last name": last and sentence in own,
                "name": is_name and sentence in own,
                "earlier last names": last and earlier,
                "earlier names": is_name and earlier,
                "every first name": first and every,
                "every middle name": is_name and not first and not last and every,
                "every last name": last and every,
                "every name": is_name and every,
                "type word": bool(words) and i == max(words) and sentence in own,
                "type words": i in words and sentence in own,
                "text": kind == TokenKind.TEXT and seen and sentence in own,
                "earlier values": kind == TokenKind.VALUE and seen and earlier,
                "predicts value": i + 1 in value if read is None else i == read,
                "first value token": i in starts if read is None else i == read + 1,
            }[OF_FACTS.get(name, name)]
        )
    return found


@pytest.mark.parametrize("name", list(POSITIONS))
def test_every_position_against_a_loop_over_tokens(name: str, corpus: Corpus) -> None:
    batch = corpus.biographies(slice(0, 4))
    for spans in (Spans.stack(TEXTS), Spans.of(batch)):
        mask = position_masks(spans, name)[name]
        assert mask.tolist() == [slow(spans, row, name, None) for row in range(len(spans))]
        width = int((spans.kind != TokenKind.PADDING).sum(1).min())
        for read in range(1, width - 1):
            at = torch.full((len(spans),), read)
            mask = position_masks(spans, name, at)[name]
            assert mask.tolist() == [slow(spans, row, name, read) for row in range(len(spans))]


@pytest.mark.parametrize("read", [None, 60])
def test_a_control_has_the_size_and_nothing_that_matters(read: int | None, corpus: Corpus) -> None:
    batch = corpus.biographies(slice(0, 4))
    spans = Spans.of(batch)
    at = None if read is None else torch.full((4,), read)
    masks = position_masks(spans, ["every name", "predicts value"], at)
    control = control_mask(spans, masks["every name"], at, seed=1)
    possible = spans.is_kind(TokenKind.TEXT, TokenKind.PUNCTUATION) & ~masks["predicts value"]
    if at is not None:
        possible &= torch.arange(spans.kind.shape[1]) <= at[:, None]
    expected = torch.minimum(possible.sum(1), masks["every name"].sum(1))
    assert control.sum(1).tolist() == expected.tolist()
    assert not (control & masks["predicts value"]).any()
    assert not (control & ~spans.is_kind(TokenKind.TEXT, TokenKind.PUNCTUATION)).any()
    if at is not None:
        assert not control[:, read:].any()
    few = position_masks(spans, "last name", at)["last name"]
    drawn = [control_mask(spans, few, at, seed) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_errors() -> None:
    with pytest.raises(ArgumentError, match=r"'last nam'.*'last name'"):
        position_masks(TEXTS[0], ["name", "last nam"])
    with pytest.raises(ArgumentError, match="No position is named"):
        position_masks(TEXTS[0], [])
