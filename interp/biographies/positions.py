"""Positions by what stands there: "last name", "type words", "predicts value", as masks of tokens.

A *position kind* is a set of tokens of every text, read off its `Spans`. It is meant relative to a
position whose prediction is read: then a kind is of the sentence that tells the answer (the *own*
sentence: that of the token after the position, or of the position where the text ends with it), kinds
that begin with "earlier" are of sentences before it, "every" takes both, and nothing after the position
that is read is in a set. Without such a position, every sentence is its own.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor

from interp.biographies.batch import TokenKind
from interp.biographies.spans import Spans
from interp.errors import ArgumentError, listed, suggest
from interp.torch_state import default_state

PositionMask = Bool[Tensor, "text position"]


class _View:
    """The sets that position kinds are made of."""

    def __init__(self, spans: Spans, read: Int64[Tensor, " text"] | None) -> None:
        self.spans, self.n = spans, spans.kind.shape[1]
        self.places = torch.arange(self.n, device=spans.kind.device)[None]
        if read is None:
            self.attendable = torch.ones_like(spans.kind, dtype=torch.bool)
            self.own = spans.sentence >= 0
            self.earlier = torch.zeros_like(self.own)
            self.predicting = spans.predicts_value
            starts = spans.value_start
            self.answer = (self.places[:, :, None] == starts[:, None]).any(-1)
            return
        at = read[:, None]
        own = spans.sentence.gather(1, (at + 1).clamp(max=self.n - 1))
        # Where the text ends with the position that is read, the sentence is the one it ends in.
        own = own.where(own >= 0, spans.sentence.gather(1, at))
        self.attendable = self.places <= at
        self.own = (spans.sentence == own) & (own >= 0)
        self.earlier = (spans.sentence >= 0) & (spans.sentence < own)
        self.predicting = self.places == at
        self.answer = self.places == at + 1

    def kind(self, *kinds: TokenKind) -> PositionMask:
        return self.spans.is_kind(*kinds) & self.attendable

    def ends(self, *, last: bool) -> PositionMask:
        """The first or last token of every name."""
        name = self.kind(TokenKind.NAME)
        same = self.spans.sentence[:, 1:] == self.spans.sentence[:, :-1]
        if last:
            return name & ~F.pad(self.spans.is_kind(TokenKind.NAME)[:, 1:] & same, (0, 1))
        return name & ~F.pad(name[:, :-1] & same, (1, 0))

    def inner(self) -> PositionMask:
        """Name tokens that are neither the first nor the last of their name."""
        return self.kind(TokenKind.NAME) & ~self.ends(last=True) & ~self.ends(last=False)

    def last_of_own(self, kind: TokenKind) -> PositionMask:
        """The last token of a kind in each own sentence."""
        chosen = self.kind(kind) & self.own
        later = torch.zeros_like(chosen)
        for sentence in range(int(self.spans.sentence.max()) + 1):
            here = chosen & (self.spans.sentence == sentence)
            place = self.places.where(here, -1).amax(dim=1, keepdim=True)
            later |= here & (self.places < place)
        return chosen & ~later


POSITIONS: dict[str, Callable[[_View], PositionMask]] = {
    "first token": lambda v: (v.places == 0).expand_as(v.own),
    "first name": lambda v: v.ends(last=False) & v.own,
    "middle name": lambda v: v.inner() & v.own,
    "last name": lambda v: v.ends(last=True) & v.own,
    "name": lambda v: v.kind(TokenKind.NAME) & v.own,
    "earlier last names": lambda v: v.ends(last=True) & v.earlier,
    "earlier names": lambda v: v.kind(TokenKind.NAME) & v.earlier,
    "every first name": lambda v: v.ends(last=False) & (v.own | v.earlier),
    "every middle name": lambda v: v.inner() & (v.own | v.earlier),
    "every last name": lambda v: v.ends(last=True) & (v.own | v.earlier),
    "every name": lambda v: v.kind(TokenKind.NAME) & (v.own | v.earlier),
    "type word": lambda v: v.last_of_own(TokenKind.TYPE),
    "type words": lambda v: v.kind(TokenKind.TYPE) & v.own,
    "text": lambda v: v.kind(TokenKind.TEXT) & v.own,
    "earlier values": lambda v: v.kind(TokenKind.VALUE) & v.earlier,
    "predicts value": lambda v: v.predicting,
    "first value token": lambda v: v.answer,
}
POSITIONS |= {
    name: POSITIONS[same]
    for name, same in {
        "subject": "name", "last subject token": "last name", "relation": "type words",
        "predicts answer": "predicts value", "answer": "first value token",
    }.items()
}  # fmt: skip
"""The position kinds. Of the first, inner and last tokens of names ("first name", "middle name", "last
name"; a name of one token is first and last) and of whole names: those of the own sentence, of earlier
ones, of both. Of the own sentence, the words that tell the relation ("type words", of which "type word"
is the last) and other words ("text"). Values told before. The position that is read, and the token after
it; without one, all positions that predict a token of a value, and the first tokens of values. For facts
(`interp.Facts`) the same by other names: "subject" (name), "last subject token" (last name), "relation"
(type words), "predicts answer" (predicts value), "answer" (first value token)."""


@default_state()
def position_masks(
    spans: Spans, names: str | Sequence[str], read: Int64[Tensor, " text"] | None = None
) -> dict[str, PositionMask]:
    """The tokens of some position kinds, by name, in the order in which they were asked for.

    Args:
        spans: What the tokens are.
        names: Names out of `POSITIONS`.
        read: The position of each text whose prediction is read; without, every sentence counts.

    Raises:
        ArgumentError: an unknown position, or none.

    Example:
        >>> spans = Spans.from_lists(5, sentences=[(0, 5)], names=[(0, 2)], values=[(4, 5)])
        >>> position_masks(spans, "last name")["last name"].int().tolist()
        [[0, 1, 0, 0, 0]]
    """
    asked = listed(names, "positions")
    unknown = [name for name in asked if name not in POSITIONS]
    if unknown:
        raise ArgumentError(
            f"There is no position {unknown[0]!r}.{suggest(unknown[0], POSITIONS)} Positions: "
            f"{', '.join(POSITIONS)}."
        )
    if not asked:
        raise ArgumentError(f"No position is named; positions are {', '.join(POSITIONS)}.")
    view = _View(spans, read)
    return {name: POSITIONS[name](view) for name in asked}


@default_state()
def control_mask(
    spans: Spans, like: PositionMask, read: Int64[Tensor, " text"] | None = None, seed: int = 0
) -> PositionMask:
    """As many tokens as a mask has, drawn among words and punctuation: the control of a position.

    They hold neither name nor value nor type word, are not in the mask, and predict no value (are not
    the position that is read). Where a text has fewer of them, all are taken.

    Args:
        spans: What the tokens are.
        like: The mask whose size is matched, text by text.
        read: As in `position_masks`.
        seed: Of the draw.
    """
    if like.shape != spans.kind.shape:
        raise ArgumentError(
            f"The mask has the shape {tuple(like.shape)}, but the spans describe {tuple(spans.kind.shape)}; "
            "both are [text, position]."
        )
    view = _View(spans, read)
    possible = view.kind(TokenKind.TEXT, TokenKind.PUNCTUATION) & (view.own | view.earlier)
    return drawn(possible & ~view.predicting & ~like, like.sum(1), seed)


def drawn(
    possible: Bool[Tensor, "row position"], size: Int64[Tensor, " row"], seed: int
) -> Bool[Tensor, "row position"]:
    """So many positions of each row, drawn among the possible ones; all where there are fewer.

    The draw depends on the seed and the shape alone, not on the device.
    """
    draw = torch.rand(possible.shape, generator=torch.Generator().manual_seed(seed))
    rank = draw.to(possible.device).masked_fill(~possible, -1).argsort(1, descending=True)
    return possible & (rank.argsort(1) < size[:, None])
