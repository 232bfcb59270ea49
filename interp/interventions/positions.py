"""Positions by what stands there: "last name", "type word", "predicts value", or one by one.

A *position kind* is a set of positions in every pair, relative to the sentence that tells the answer
(the *own* sentence, that of the token after the position whose logits are read, or of that position
where the prompt ends with it). What comes after the position that is read is left out where it cannot
matter.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.biographies import TokenKind
from interp.errors import ArgumentError, listed, suggest
from interp.interventions.pairs import Pairs

EACH = "each"
"""Every position by itself."""
PositionMask = Bool[Tensor, "pair position"]
Positions = str | Sequence[str] | Mapping[str, Tensor]
"""Position kinds by name, `EACH`, or masks [pair, position] (or whole positions [pair]) by label."""


class _View:
    """The sets that position kinds are made of."""

    def __init__(self, pairs: Pairs) -> None:
        spans = pairs.spans
        self.places = torch.arange(pairs.base.shape[1], device=pairs.read.device)[None]
        self.read = pairs.read[:, None]
        answer = (self.read + 1).clamp(max=pairs.base.shape[1] - 1)
        own = spans.sentence.gather(1, answer)
        # Where the prompt ends with the position that is read, the sentence is the one it ends in.
        own = own.where(own >= 0, spans.sentence.gather(1, self.read))
        self.attendable = self.places <= self.read
        self.own = (spans.sentence == own) & (own >= 0)
        self.earlier = (spans.sentence >= 0) & (spans.sentence < own)
        self.is_kind = spans.is_kind
        self.spans = spans

    def kind(self, *kinds: TokenKind) -> PositionMask:
        return self.is_kind(*kinds) & self.attendable

    def ends(self, *, last: bool) -> PositionMask:
        """The first or last name token of every sentence up to the read position."""
        name = self.kind(TokenKind.NAME)
        neighbour = torch.zeros_like(name)
        same = self.spans.sentence[:, 1:] == self.spans.sentence[:, :-1]
        if last:
            neighbour[:, :-1] = self.spans.is_kind(TokenKind.NAME)[:, 1:] & same
        else:
            neighbour[:, 1:] = name[:, :-1] & same
        return name & ~neighbour

    def inner(self) -> PositionMask:
        """Name tokens that are neither the first nor the last of their name."""
        return self.kind(TokenKind.NAME) & ~self.ends(last=True) & ~self.ends(last=False)

    def outermost(self, mask: PositionMask) -> PositionMask:
        """The last position of a mask."""
        place = self.places.where(mask, -1).amax(dim=1, keepdim=True)
        return mask & (self.places == place)


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
    "type word": lambda v: v.outermost(v.kind(TokenKind.TYPE) & v.own),
    "type words": lambda v: v.kind(TokenKind.TYPE) & v.own,
    "text": lambda v: v.kind(TokenKind.TEXT) & v.own,
    "earlier values": lambda v: v.kind(TokenKind.VALUE) & v.earlier,
    "predicts value": lambda v: v.places == v.read,
    "first value token": lambda v: v.places == v.read + 1,
}
"""The position kinds: name tokens of the sentence that tells the answer, of earlier ones, of both;
words of that sentence that tell the type of attribute, or nothing; values told before; the position
that predicts the first value token, and that token itself."""


def resolve_positions(
    pairs: Pairs, positions: Positions, tokenizer: PreTrainedTokenizerFast | None = None
) -> dict[str, PositionMask]:
    """The masks of some positions, by label, in the order in which they were asked for.

    Args:
        pairs: The pairs.
        positions: Names out of `POSITIONS`, `"each"` for every position by itself, or masks.
        tokenizer: Gives the words for the labels of single positions.

    Raises:
        ArgumentError: an unknown position, or a mask of another shape.
    """
    if isinstance(positions, Mapping):
        masks = {label: _given(pairs, label, mask) for label, mask in positions.items()}
        if masks:
            return masks
    names = listed(positions, "positions")
    if not names:
        raise ArgumentError(f"No position is named; positions are {', '.join([*POSITIONS, EACH])}.")
    view = _View(pairs)
    found: dict[str, PositionMask] = {}
    for name in names:
        if name == EACH:
            for place, label in enumerate(position_labels(pairs, tokenizer)):
                found[label] = (view.places == place).expand_as(view.own)
        elif name in POSITIONS:
            found[name] = POSITIONS[name](view)
        else:
            raise ArgumentError(
                f"There is no position {name!r}.{suggest(name, POSITIONS)} Positions: "
                f"{', '.join([*POSITIONS, EACH])}; or give masks by label."
            )
    return found


def control_positions(pairs: Pairs, like: PositionMask, seed: int = 0) -> PositionMask:
    """As many positions as a mask has, drawn among template text and punctuation before the read.

    They hold neither name nor value nor type word, and are not the position that is read. Where a
    prompt has fewer of them, all are taken.

    Args:
        pairs: The pairs.
        like: The mask whose size is matched, pair by pair.
        seed: Of the draw.
    """
    view = _View(pairs)
    possible = view.kind(TokenKind.TEXT, TokenKind.PUNCTUATION) & (view.places < view.read)
    possible &= (view.own | view.earlier) & ~like
    draw = torch.rand(possible.shape, generator=torch.Generator().manual_seed(seed))
    rank = draw.to(possible.device).masked_fill(~possible, -1).argsort(1, descending=True)
    return possible & (rank.argsort(1) < like.sum(1, keepdim=True))


def position_labels(pairs: Pairs, tokenizer: PreTrainedTokenizerFast | None = None) -> list[str]:
    """A label for every position by itself, such as "12 Smith · last name".

    The word is left out where pairs differ in it, what it is for where pairs differ in that.
    """
    view = _View(pairs)
    names = ("first name", "last name", "middle name", "predicts value", "first value token")
    others = ("type words", "text", "earlier values", "earlier names")
    masks = {name: POSITIONS[name](view) for name in (*names, *others)}
    labels = []
    for place in range(pairs.base.shape[1]):
        parts = [str(place)]
        column = pairs.base[:, place]
        if tokenizer is not None and (column == column[0]).all():
            parts[0] += f" {tokenizer.convert_ids_to_tokens(int(column[0]))}"
        purpose = next((name for name, mask in masks.items() if mask[:, place].all()), None)
        if purpose is not None:
            parts.append({"type words": "type word", "earlier names": "earlier name",
                          "earlier values": "earlier value"}.get(purpose, purpose))  # fmt: skip
        labels.append(" · ".join(parts))
    return labels


def _given(pairs: Pairs, label: str, mask: Tensor) -> PositionMask:
    mask = mask.to(pairs.read.device)
    if mask.dtype != torch.bool and mask.shape == (len(pairs),):
        places = torch.arange(pairs.base.shape[1], device=mask.device)
        return places == mask[:, None]
    if mask.dtype != torch.bool or mask.shape != pairs.base.shape:
        raise ArgumentError(
            f"The positions {label!r} have the shape {tuple(mask.shape)} and type {mask.dtype}; give "
            f"a mask of True and False {tuple(pairs.base.shape)} or a whole position for each of the "
            f"{len(pairs)} pairs."
        )
    return mask
