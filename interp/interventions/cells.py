"""The grid of an intervention: which edits are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel
from transformers import PreTrainedTokenizerFast

from interp.errors import ArgumentError, listed, suggest
from interp.interventions.pairs import Pairs
from interp.interventions.positions import PositionMask, Positions, resolve_positions
from interp.interventions.sites import SITES, Key, n_units, site_named
from interp.model import valid_indices

How = Literal["replace", "add", "mean", "zero", "cut"]
"""What an edit does; see `patch`."""
Units = Literal["each", "all"] | Sequence[int] | Mapping[str, Sequence[int]]
"""Heads or neurons: each by itself, all at once, some at once, or groups by label."""


@dataclass(frozen=True)
class Cell:
    """One edit of a grid.

    Attributes:
        site: Where.
        layer: In which layer.
        group: The label of the heads or neurons; None for the whole site.
        units: The heads or neurons; None for the whole site.
        position: The label of the positions.
        mask: The positions.
        keys: Of a cut, the keys that queries may not attend to.
    """

    site: str
    layer: int
    group: str | int | None
    units: tuple[int, ...] | None
    position: str
    mask: PositionMask
    keys: PositionMask | None = None

    @property
    def key(self) -> Key:
        """Its site and layer."""
        return self.site, self.layer

    def of(self, pairs: slice) -> "Cell":
        """The same cell on some of the pairs."""
        keys = None if self.keys is None else self.keys[pairs]
        return replace(self, mask=self.mask[pairs], keys=keys)


def grid_cells(
    model: TransformerLensModel,
    pairs: Pairs,
    sites: str | Sequence[str],
    positions: Positions,
    layers: Sequence[int] | None = None,
    how: How = "replace",
    heads: Units = "each",
    neurons: Units = "all",
    keys: Positions | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> list[Cell]:
    """The cells of a grid, layer by layer of each site; see `patch`.

    Raises:
        ArgumentError: something is unknown, out of range, or missing.
    """
    if not isinstance(how, str) or how not in get_args(How):
        raise ArgumentError(
            f"how={how!r} is none of {', '.join(get_args(How))}.{suggest(str(how), get_args(How))}"
        )
    names = listed(sites, "sites")
    if not names:
        raise ArgumentError("No site is named; name at least one, e.g. resid_pre.")
    if (how == "cut") != (keys is not None):
        raise ArgumentError(
            'how="cut" needs keys: the positions that cannot be attended to any more.'
            if how == "cut"
            else f'keys are of how="cut" only, but how={how!r}.'
        )
    impossible = {
        "cut": [name for name in names if not (name in SITES and SITES[name].by_key)],
        "add": [name for name in names if name == "pattern"],
        "mean": [name for name in names if name in ("pattern", "attn_scores")],
    }
    if wrong := impossible.get(how):
        raise ArgumentError(
            f'how={how!r} is not possible at the site {wrong[0]!r}: attention is cut at "pattern" or '
            '"attn_scores"; a pattern is replaced, cut or zero; scores can be added to, too.'
        )
    chosen = valid_indices(layers, model.cfg.n_layers, "layer")
    masks = resolve_positions(pairs, positions, tokenizer)
    targets: list[tuple[str, PositionMask, PositionMask | None]] = [
        (label, mask, None) for label, mask in masks.items()
    ]
    if keys is not None:
        targets = [
            (f"{label} → {key}", mask, key_mask)
            for label, mask in masks.items()
            for key, key_mask in resolve_positions(pairs, keys, tokenizer).items()
        ]
    cells = []
    for site in names:
        count, unit = n_units(model, site), site_named(site).unit
        groups = unit_groups(heads if unit == "head" else neurons, count, unit)
        for layer in chosen:
            for group, units in groups:
                cells += [
                    Cell(site, layer, group, units, label, mask, key)
                    for label, mask, key in targets
                ]
    return cells


def given_values(
    cells: Sequence[Cell],
    values: Mapping[Key, Tensor] | Tensor | None,
    how: How,
    n_pairs: int,
) -> list[Tensor | None]:
    """The given values of each cell, with an axis for pairs in front."""
    if values is None:
        if how == "add":
            raise ArgumentError('how="add" needs values: what to add to the activation.')
        return [None] * len(cells)
    if how in ("zero", "cut"):
        raise ArgumentError(f"how={how!r} takes no values; leave them out.")
    found: list[Tensor | None] = []
    for cell in cells:
        if isinstance(values, Tensor):
            value = values
        elif cell.key in values:
            value = values[cell.key]
        else:
            raise ArgumentError(
                f"values have no entry for {cell.key}, a site and layer of the grid."
            )
        n_axes = 2 if site_named(cell.site).unit == "head" else 1
        if value.ndim not in (n_axes, n_axes + 1) or (
            value.ndim > n_axes and len(value) not in (1, n_pairs)
        ):
            raise ArgumentError(
                f"values for {cell.key} have the shape {tuple(value.shape)}; give the "
                f"activation at one position ({n_axes} axes), or one for each of {n_pairs} pairs."
            )
        found.append(value[None] if value.ndim == n_axes else value)
    return found


def unit_groups(
    units: Units, count: int | None, unit: str | None, name: str | None = None
) -> list[tuple[str | int | None, tuple[int, ...] | None]]:
    """Heads or neurons as groups with their labels; `name` is what the argument is called, if not so."""
    name = name or unit
    if count is None or unit is None or (isinstance(units, str) and units == "all"):
        return [(None, None)]
    if isinstance(units, str):
        if units != "each":
            raise ArgumentError(
                f'{name}s={units!r}: give "each", "all", numbers, or groups by label.'
            )
        return [(index, (index,)) for index in range(count)]
    if isinstance(units, Mapping):
        if not units:
            raise ArgumentError(f"{name}s={{}}: no group is named; give at least one.")
        return [(str(k), valid_indices(v, count, str(name))) for k, v in units.items()]
    chosen = valid_indices(units, count, str(name))
    return [(chosen[0] if len(chosen) == 1 else ",".join(map(str, chosen)), chosen)]
