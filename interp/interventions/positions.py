"""Positions of pairs: by what stands there, one by one, or as masks of yours.

The names are those of `interp.biographies.POSITIONS`, relative to the position of the base whose
logits are read.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.biographies import POSITIONS, TokenKind, control_mask, position_masks
from interp.biographies.positions import PositionMask
from interp.errors import ArgumentError, listed, require_known
from interp.interventions.pairs import Pairs
from interp.torch_state import default_state

EACH = "each"
"""Every position by itself."""
Positions = str | Sequence[str] | Mapping[str, Tensor]
"""Position kinds by name, `EACH`, or masks [pair, position] (or whole positions [pair]) by label."""


@default_state()
def resolve_positions(
    pairs: Pairs, positions: Positions, tokenizer: PreTrainedTokenizerFast | None = None
) -> dict[str, PositionMask]:
    """The masks of some positions, by label, in the order in which they were asked for.

    The tokenizer gives the words for the labels of single positions.
    """
    if isinstance(positions, Mapping):
        masks = {label: _given(pairs, label, mask) for label, mask in positions.items()}
        if masks:
            return masks
    names = listed(positions, "positions")
    require_known(names, [*POSITIONS, EACH], "position", "; or give masks by label")
    places = torch.arange(pairs.base.shape[1], device=pairs.read.device)
    masks = {}
    for name in names:
        if name == EACH:
            for place, label in enumerate(position_labels(pairs, tokenizer)):
                masks[label] = (places == place).expand_as(pairs.base)
        else:
            masks |= position_masks(pairs.spans, name, pairs.read)
    return masks


@default_state()
def require_alike(pairs: Pairs) -> None:
    """Checks that pairs are of one wording, so that a mean at each position is over tokens that are alike.

    At every position up to the one that is read, all bases have the same token, or all a name, or all
    a value.

    Raises:
        ArgumentError: a position holds unlike tokens.
    """
    kinds = pairs.spans.kind
    slot = ((kinds == TokenKind.NAME) | (kinds == TokenKind.VALUE)) & (kinds == kinds[:1])
    alike = (pairs.base == pairs.base[:1]).all(dim=0) | slot.all(dim=0)
    unlike = (~alike[: int(pairs.read.max()) + 1]).nonzero()[:, 0]
    if len(unlike):
        place = int(unlike[0])
        column = pairs.base[:, place]
        other = int((column != column[0]).nonzero()[0, 0])
        raise ArgumentError(
            f"positions={EACH!r} over {len(pairs)} pairs: position {place} holds unlike tokens (token "
            f"{int(column[0])} in pair 0, {int(column[other])} in pair {other}), and their mean says "
            'nothing. Name positions by what stands there ("last name", "predicts value"), give one pair '
            "(pairs[:1]), or take a row for every pair (patch(..., per_pair=True)). If positions do "
            "correspond, as in prompts of one template, say so: Grid(..., aligned=True)."
        )


@default_state()
def control_positions(pairs: Pairs, like: PositionMask, seed: int = 0) -> PositionMask:
    """As many positions of the bases as a mask has, elsewhere; see `interp.biographies.control_mask`."""
    return control_mask(pairs.spans, like, pairs.read, seed)


def position_labels(pairs: Pairs, tokenizer: PreTrainedTokenizerFast | None = None) -> list[str]:
    """A label for every position by itself, such as "12 Smith · last name".

    The word is left out where pairs differ in it, what it is for where pairs differ in that.
    """
    names = ("first name", "last name", "middle name", "predicts value", "first value token")
    others = ("type words", "text", "earlier values", "earlier names")
    masks = position_masks(pairs.spans, [*names, *others], pairs.read)
    labels = []
    for place in range(pairs.base.shape[1]):
        parts = [str(place)]
        column = pairs.base[:, place]
        if tokenizer is not None and (column == column[0]).all():
            parts[0] += f" {tokenizer.convert_ids_to_tokens(int(column[0]))}"
        purpose = next((name for name, mask in masks.items() if mask[:, place].all()), None)
        if purpose is not None:
            parts.append(purpose.removesuffix("s"))
        labels.append(" · ".join(parts))
    return labels


def single_position(mask: PositionMask) -> int | None:
    """The one position that a mask has in every pair; None where there is none."""
    columns = mask.any(dim=0).nonzero()[:, 0]
    return int(columns[0]) if len(columns) == 1 and bool(mask[:, columns[0]].all()) else None


def _given(pairs: Pairs, label: str, mask: Tensor) -> PositionMask:
    wanted = (
        f"a mask of True and False {tuple(pairs.base.shape)}, or a whole position for each of the "
        f"{len(pairs)} pairs"
    )
    if not isinstance(mask, Tensor):
        raise ArgumentError(
            f"The positions {label!r} are {type(mask).__name__}; give a tensor: {wanted}."
        )
    mask = mask.to(pairs.read.device)
    if mask.dtype != torch.bool and mask.shape == (len(pairs),):
        width = pairs.base.shape[1]
        if ((mask < 0) | (mask >= width)).any():
            raise ArgumentError(
                f"The positions {label!r} reach from {int(mask.min())} to {int(mask.max())}; there are "
                f"positions 0 to {width - 1}. Give a mask where not every pair has one."
            )
        return torch.arange(width, device=mask.device) == mask[:, None]
    if mask.dtype != torch.bool or mask.shape != pairs.base.shape:
        raise ArgumentError(
            f"The positions {label!r} have the shape {tuple(mask.shape)} and type {mask.dtype}; give "
            f"{wanted}."
        )
    return mask
