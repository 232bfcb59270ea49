"""What edits make of activations, many cells at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import TokenKind
from interp.errors import ArgumentError
from interp.interventions.grid import Add, Cell, Edit, Knockout, Zero
from interp.interventions.knockout import rescaled, to_sink, without_keys
from interp.interventions.pairs import Pairs
from interp.interventions.sites import Key, read_activations, site_named
from interp.model import RunningMean, at_least_single
from interp.model.layout import has_attention_sink


@dataclass(frozen=True)
class AttentionRules:
    """Whether no query sees later keys, and whether a query may attend to nothing.

    `has_sink`: what a row of attention lacks to 1 goes to a sink beside the tokens.
    """

    is_causal: bool
    may_be_empty: bool
    has_sink: bool = False

    @classmethod
    def of(cls, model: TransformerLensModel) -> "AttentionRules":
        """Those of a model: ours attend to nothing where there is nothing to attend to."""
        sink = has_attention_sink(model)
        causal = getattr(model.cfg, "attention_dir", "causal") == "causal"
        may_be_empty = sink or bool(getattr(model, "attends_to_nothing", False))
        return cls(causal, may_be_empty, sink)


class Edits:
    """The edits of all cells of one site and layer, on some pairs.

    A *row* is a `cell` on a `pair` that it has positions in (`place`; shorter lists repeat their first).

    Args:
        cells: The cells.
        pairs: The pairs.
        edit: What is done.
        own: The site's activation in the bases.
        source: In the sources, where they are needed.
        given: For each cell the values to use in place of the source's, if any, with an axis of one
            or all pairs in front.
        attention: What the model's attention can do.
    """

    site: str
    cell: Int64[Tensor, " row"]
    pair: Int64[Tensor, " row"]
    place: Int64[Tensor, "row edited"]

    def __init__(
        self,
        cells: Sequence[Cell],
        pairs: Pairs,
        edit: Edit,
        own: Float[Tensor, "pair position *unit"],
        source: Float[Tensor, "pair source_position *source_unit"] | None,
        given: Sequence[Tensor | None],
        attention: "AttentionRules",
    ) -> None:
        self.site, self._edit, self._pairs = cells[0].site, edit, pairs
        self._own, self._source, self._attention = own, source, attention
        values = [self._fitting(value) for value in given if value is not None]
        self._given = torch.stack(torch.broadcast_tensors(*values)) if values else None
        keys = [cell.keys for cell in cells if cell.keys is not None]
        self._cut = torch.stack(keys) if keys else None
        self._units: Bool[Tensor, "cell unit"] | None = None
        if any(cell.units is not None for cell in cells):
            self._units = torch.zeros(len(cells), own.shape[2], dtype=torch.bool, device=own.device)
            for index, cell in enumerate(cells):
                self._units[index, slice(None) if cell.units is None else list(cell.units)] = True
        # Heads and groups of neurons share their positions, which are listed once.
        listed: dict[tuple[int, tuple[int, ...]], tuple[Tensor, Tensor]] = {}
        rows = []
        for cell in cells:
            same = cell.mask.data_ptr(), cell.mask.stride()
            if same not in listed:
                listed[same] = _listed(cell.mask, pairs.read)
            rows.append(listed[same])
        pairs_of_cells, places = zip(*rows, strict=True)
        counts = torch.tensor(list(map(len, pairs_of_cells)), device=own.device)
        self.cell = torch.repeat_interleave(counts)
        self.pair = torch.cat(pairs_of_cells)
        most = max(place.shape[1] for place in places)
        column = torch.arange(most, device=own.device)
        self.place = torch.cat([p[:, column.where(column < p.shape[1], 0)] for p in places])

    def __len__(self) -> int:
        return len(self.cell)

    def edited(
        self, rows: Int64[Tensor, " row"], own: Float[Tensor, "row edited *unit"] | None = None
    ) -> Float[Tensor, "row edited *unit"]:
        """What the activation becomes at the places of some rows.

        `own` is what it is there without the edit, if another layer's edit has changed it.
        """
        cell, pair, place = self.cell[rows], self.pair[rows], self.place[rows]
        own = self.of_own(rows) if own is None else own
        if isinstance(self._edit, Zero):
            new = torch.zeros_like(own)
        elif isinstance(self._edit, Knockout):
            assert self._cut is not None
            cut = self._cut[cell, pair][:, None, None, : own.shape[-1]]
            scores = self.site == "attn_scores"
            sink = self._attention.has_sink
            new = own.masked_fill(cut, -torch.inf) if scores else without_keys(own, cut, sink=sink)
        elif self._given is not None:
            given = self._given[cell, 0 if self._given.shape[1] == 1 else pair][:, None]
            new = own + given if isinstance(self._edit, Add) else given.expand_as(own)
        else:
            new = self._from_source(pair, place, own)
        if site_named(self.site).by_key:
            new = torch.where(self._unseen(own, place), own, new)
        if self._units is not None:
            chosen = self._units[cell][:, None]
            new = torch.where(chosen.view(*chosen.shape, *[1] * (own.ndim - 3)), new, own)
        if self.site == "attn_scores" and not self._attention.may_be_empty:
            self._require_keys(new, own)
        return new

    def _unseen(self, own: Tensor, place: Tensor) -> Bool[Tensor, "row edited #head key"]:
        """The keys that a query does not see, whose scores and weights stay as they are."""
        key = torch.arange(own.shape[-1], device=own.device)
        unseen = (key > place[..., None])[:, :, None] & self._attention.is_causal
        if self.site == "attn_scores":  # masks are -inf, or the lowest number there is
            unseen = unseen | (own <= torch.finfo(own.dtype).min / 2)
        return unseen

    @staticmethod
    def _require_keys(new: Tensor, own: Tensor) -> None:
        lowest = torch.finfo(own.dtype).min / 2
        lost = (new <= lowest).all(-1) & ~(own <= lowest).all(-1)
        if lost.any():
            raise ArgumentError(
                "The edit of attn_scores leaves a query with no key at all, and this model has to attend "
                'to something. Edit the site "pattern" instead, or leave it a key.'
            )

    def of_own(self, rows: Int64[Tensor, " row"]) -> Float[Tensor, "row edited *unit"]:
        """What the activation is there without an edit."""
        return self._own[self.pair[rows][:, None], self.place[rows]]

    def is_kept(
        self, rows: Int64[Tensor, " row"], own: Float[Tensor, "row edited *unit"]
    ) -> Bool[Tensor, "row edited *unit"]:
        """Which entries of the activation the edit makes from themselves, and so does not set."""
        return self.edited(rows, torch.full_like(own, torch.nan)).isnan()

    def is_repeated(self, rows: Int64[Tensor, " row"]) -> Bool[Tensor, "row edited"]:
        """Which entries of `place` repeat the first, as there are fewer positions: they count once."""
        place = self.place[rows]
        repeated = torch.zeros_like(place, dtype=torch.bool)
        repeated[:, 1:] = place[:, 1:] == place[:, :1]
        return repeated

    def _fitting(self, value: Tensor) -> Tensor:
        """Given values, in the type of the activation and no wider than it was computed."""
        shape, by_key = tuple(self._own.shape[2:]), site_named(self.site).by_key
        if by_key:
            shape = (shape[0], self._pairs.base.shape[1])
        if tuple(value.shape[1:]) != shape:
            raise ArgumentError(
                f"values have the shape {tuple(value.shape[1:])} at one position; the activation "
                f"{self.site} has {shape}."
            )
        value = value[..., : self._own.shape[-1]] if by_key else value
        return value.to(self._own)

    def _from_source(self, pair: Tensor, place: Tensor, own: Tensor) -> Tensor:
        assert self._source is not None
        counterpart = self._pairs.source_position[pair[:, None], place]
        other = self._source[pair[:, None], counterpart.clamp(min=0)]
        if site_named(self.site).by_key:
            # Attention to a token of the source goes to its counterpart in the base.
            width = own.shape[-1]
            key = self._pairs.source_position[pair, :width]
            there = (key >= 0)[:, None, None]
            index = key.clamp(min=0)[:, None, None].expand(*other.shape[:3], width)
            gathered = other.gather(3, index)
            if self.site == "attn_scores":
                other = gathered.masked_fill(~there, -torch.inf)
            else:
                kept = gathered * there
                sums = (at_least_single(part).sum(-1, keepdim=True) for part in (other, kept))
                lost = torch.sub(*sums).abs() > 1e-4
                other = rescaled(kept, lost, to_sink(other) if self._attention.has_sink else None)
        some = counterpart >= 0
        return torch.where(some.view(*some.shape, *[1] * (own.ndim - 2)), other, own)


def edits_by_key(
    model: TransformerLensModel,
    pairs: Pairs,
    cells: Sequence[Cell],
    edit: Edit,
    given: Sequence[Tensor | None],
    base: Mapping[Key, Tensor],
    source: Mapping[Key, Tensor],
) -> Iterator[tuple[list[int], dict[Key, Edits]]]:
    """The numbers of the cells of each site and layer, and their edits: in every layer of a window.

    `given` has values for each of the cells' parts, one after the other.
    """
    rules = AttentionRules.of(model)
    parts = [cell.parts for cell in cells]
    begins = [0, *accumulate(map(len, parts))]
    for key in dict.fromkeys(cell.key for cell in cells):
        chosen = [index for index, cell in enumerate(cells) if cell.key == key]
        edits: dict[Key, Edits] = {}
        for number, part in enumerate(parts[chosen[0]]):
            some = [parts[index][number] for index in chosen]
            values = [given[begins[index] + number] for index in chosen]
            at = part.key
            edits[at] = Edits(some, pairs, edit, base[at], source.get(at), values, rules)
        yield chosen, edits


def in_block(given: Sequence[Tensor | None], block: slice) -> list[Tensor | None]:
    """Given values on some of the pairs; a single one is that of all."""
    return [v if v is None or len(v) == 1 else v[block] for v in given]


def _listed(
    mask: Bool[Tensor, "pair position"], read: Int64[Tensor, " pair"]
) -> tuple[Int64[Tensor, " row"], Int64[Tensor, "row edited"]]:
    """The pairs that have positions in a mask, and those positions; short lists repeat their first.

    What comes after the position that is read cannot change what is read there, and is left out.
    """
    width = mask.shape[1]
    places = torch.arange(width, device=mask.device)
    mask = mask & (places <= read[:, None])
    pair = mask.any(dim=1).nonzero()[:, 0]
    chosen = mask[pair]
    most = int(chosen.sum(dim=1).max()) if len(pair) else 1
    listed = places.where(chosen, width).sort(dim=1).values[:, :most]
    return pair, listed.where(listed < width, listed[:, :1])


def cell_means(
    model: TransformerLensModel, pairs: Pairs, cells: Sequence[Cell], blocks: Sequence[slice]
) -> list[Tensor | None]:
    """The mean activation of the bases over the positions of each cell, [1, unit...].

    In single precision at least. Padding does not count.
    """
    real = ~pairs.spans.is_kind(TokenKind.PADDING)
    means = [RunningMean() for _ in cells]
    for block in blocks:
        base = read_activations(model, pairs.base[block], [cell.key for cell in cells])
        for cell, mean in zip(cells, means, strict=True):
            mean.add(base[cell.key][(cell.mask & real)[block]])
    return [mean.mean[None] if blocks else None for mean in means]
