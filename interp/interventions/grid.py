"""The grid of an intervention: which activations are edited, and how.

Grid("z", "predicts value", layers=[1])                  # every head of layer 1, from the source
Grid(("attn_out", "mlp_out"), "each", edit="mean")       # layers by positions, mean-ablated
Grid("pattern", "predicts value", edit=Knockout("every name"))
Grid("mlp_out", "last name", window=10)                  # ten layers at once, around each layer
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel
from transformers import PreTrainedTokenizerFast

from interp.biographies.positions import PositionMask
from interp.errors import ArgumentError, listed, suggest, whole_number
from interp.interventions.pairs import Pairs
from interp.interventions.positions import EACH, Positions, resolve_positions
from interp.interventions.sites import SITES, Key, n_units, site_named
from interp.model import valid_indices
from interp.model.layout import require_wrapped

Units = Literal["each", "all"] | Sequence[int] | Mapping[str, Sequence[int]]
"""Heads or neurons: each by itself, all at once, some at once, or groups by label."""
Values = Mapping[Key, Tensor] | Tensor
"""Activations of yours: one tensor for all sites, or by (site, layer); of the shape of the activation
at one position, [unit...], or with one entry for each pair in front."""


@dataclass(frozen=True, eq=False)  # may hold tensors
class Replace:
    """The activation of the source at the corresponding position; or values of yours.

    Positions without a counterpart in the source stay as they are.
    """

    values: Values | None = None


@dataclass(frozen=True, eq=False)  # may hold tensors
class Add:
    """The activation plus values, as in steering."""

    values: Values


@dataclass(frozen=True)
class Mean:
    """The mean over all pairs and positions of the cell (mean-ablation)."""


@dataclass(frozen=True)
class Zero:
    """Zero (zero-ablation)."""


@dataclass(frozen=True, eq=False)  # may hold tensors
class Knockout:
    """No attention from the grid's positions to these keys: attention knockout (Geva et al. 2023).

    At the site "pattern" the rest of the row shares the whole again; at "attn_scores" the scores are
    -∞, which is the same before the softmax.
    """

    keys: Positions


Edit = Replace | Add | Mean | Zero | Knockout
EDITS: dict[str, Edit] = {"replace": Replace(), "mean": Mean(), "zero": Zero()}
"""The edits that need nothing else, by name."""


@dataclass(frozen=True, eq=False)  # may hold tensors
class Grid:
    """Sites × layers × heads (or groups of neurons) × positions, and what is done to each cell.

    Attributes:
        sites: Names out of `SITES`.
        positions: Position kinds by name (`POSITIONS`), "each" for every position by itself, or masks
            by label.
        layers: Layers; all by default.
        heads: At sites with heads, "each" by itself, "all", some at once, or groups by label.
        neurons: The same for neurons.
        edit: `Replace`, `Add`, `Mean`, `Zero` or `Knockout`; or the name of one that needs nothing else.
        aligned: That positions of different pairs correspond, so that a mean over pairs at each of them
            makes sense though their tokens are unlike: prompts of one template whose slots are not marked.
        window: So many consecutive layers around the cell's layer are edited in one pass
            (`layers_around`). Each edit is of the activation as the edits before it have left it: where
            values are replaced, every layer of the window has those of the source.

    Raises:
        ArgumentError: an unknown site or edit, an edit that makes no sense at a site, or a window of no
            layer.
    """

    sites: str | Sequence[str] = "resid_pre"
    positions: Positions = ("last name", "predicts value")
    layers: Sequence[int] | None = None
    heads: Units = "each"
    neurons: Units = "all"
    edit: Edit | str = "replace"
    aligned: bool = False
    window: int = 1

    def __post_init__(self) -> None:
        whole_number(self.window, "window", 1)
        for name in ("sites", "positions", "layers", "heads", "neurons"):
            given = getattr(self, name)
            if isinstance(given, Iterator):  # to be gone through more than once
                object.__setattr__(self, name, tuple(given))
        edit, names = self.what, self.site_names
        if not names:
            raise ArgumentError("No site is named; name at least one, e.g. resid_pre.")
        for name in names:
            site_named(name)
        impossible = {
            Knockout: [name for name in names if not SITES[name].by_key],
            Add: [name for name in names if name == "pattern"],
            Mean: [name for name in names if name in ("pattern", "attn_scores")],
        }
        if wrong := impossible.get(type(edit)):
            raise ArgumentError(
                f"The edit {type(edit).__name__} is not possible at the site {wrong[0]!r}: attention is "
                'knocked out at "pattern" or "attn_scores"; a pattern is replaced, knocked out or zero; '
                "scores can be added to, too."
            )

    @property
    def site_names(self) -> list[str]:
        """The sites as a list."""
        return listed(self.sites, "sites")

    @property
    def each_position(self) -> bool:
        """Whether single positions are edited, or keys cut, one by one."""
        edit = self.what
        asked = [self.positions, *([edit.keys] if isinstance(edit, Knockout) else [])]
        return any(
            EACH in listed(one, "positions") for one in asked if not isinstance(one, Mapping)
        )

    @property
    def what(self) -> Edit:
        """The edit itself."""
        if isinstance(self.edit, Replace | Add | Mean | Zero | Knockout):
            return self.edit
        if not isinstance(self.edit, str) or self.edit not in EDITS:
            raise ArgumentError(
                f"edit={self.edit!r} is none of {', '.join(EDITS)}.{suggest(str(self.edit), EDITS)} Give "
                "one of these names, or Replace(values), Add(values) or Knockout(keys)."
            )
        return EDITS[self.edit]


@dataclass(frozen=True)
class Cell:
    """One edit of a grid.

    `units` are its heads or neurons (None: the whole site) and `group` their label (None for a single one
    too); `position` is the label of its positions, `mask`. Of a knockout, `keys` are what queries may not
    attend to. In a grid of windows, `window` are the layers that are edited together, around `layer`.
    """

    site: str
    layer: int
    group: str | None
    units: tuple[int, ...] | None
    position: str
    mask: PositionMask
    keys: PositionMask | None = None
    window: tuple[int, ...] = ()

    @property
    def parts(self) -> list["Cell"]:
        """The edits of single layers that the cell consists of, from the first layer to the last."""
        return [replace(self, layer=layer, window=()) for layer in self.window] or [self]

    @property
    def key(self) -> Key:
        """Its site and layer."""
        return self.site, self.layer

    @property
    def unit(self) -> int | None:
        """Its head or neuron, if it is a single one."""
        return self.units[0] if self.units is not None and len(self.units) == 1 else None

    def of(self, pairs: slice) -> "Cell":
        """The same cell on some of the pairs."""
        keys = None if self.keys is None else self.keys[pairs]
        return replace(self, mask=self.mask[pairs], keys=keys)


def grid_cells(
    model: TransformerLensModel,
    pairs: Pairs,
    grid: Grid,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> list[Cell]:
    """The cells of a grid on a model and pairs, layer by layer of each site."""
    if not isinstance(grid, Grid):
        raise ArgumentError(
            f"Activations to edit are described by a Grid, not by {type(grid).__name__}: "
            "patch(model, pairs, Grid(sites, positions, layers, heads=..., edit=...))."
        )
    require_wrapped(model)
    edit = grid.what
    n_layers = model.cfg.n_layers
    layers = valid_indices(grid.layers, n_layers, "layer")
    windows = {
        layer: () if grid.window == 1 else layers_around(layer, grid.window, n_layers)
        for layer in layers
    }
    masks = resolve_positions(pairs, grid.positions, tokenizer)
    targets: list[tuple[str, PositionMask, PositionMask | None]]
    targets = [(label, mask, None) for label, mask in masks.items()]
    if isinstance(edit, Knockout):
        keys = resolve_positions(pairs, edit.keys, tokenizer).items()
        targets = [(f"{a} → {b}", mask, key) for a, mask in masks.items() for b, key in keys]
    cells = []
    for site in grid.site_names:
        count, unit = n_units(model, site), site_named(site).unit
        groups = unit_groups(grid.heads if unit == "head" else grid.neurons, count, unit)
        cells += [
            Cell(site, layer, group, units, label, mask, key, windows[layer])
            for layer, (group, units), (label, mask, key) in product(layers, groups, targets)
        ]
    return cells


def layers_around(layer: int, window: int, n_layers: int) -> tuple[int, ...]:
    """The layers of a window around a layer: as many before it as after it, fewer at the ends of a model.

    A window of an even number has one layer more before it, as in Meng et al. 2022.

    Example:
        >>> layers_around(6, 4, 12), layers_around(0, 3, 12)
        ((4, 5, 6, 7), (0, 1))
    """
    whole_number(window, "window", 1)
    return tuple(range(max(0, layer - window // 2), min(n_layers, layer + (window + 1) // 2)))


def given_values(cells: Sequence[Cell], edit: Edit, n_pairs: int) -> list[Tensor | None]:
    """The given values of each cell, with an axis for pairs in front."""
    values = edit.values if isinstance(edit, Replace | Add) else None
    if values is None:
        if isinstance(edit, Add):
            raise ArgumentError("Add(None) adds nothing; give a tensor, or one by (site, layer).")
        return [None] * len(cells)
    found: list[Tensor | None] = []
    for cell in cells:
        if isinstance(values, Mapping) and cell.key not in values:
            raise ArgumentError(
                f"values have no entry for {cell.key}, a site and layer of the grid."
            )
        value = values[cell.key] if isinstance(values, Mapping) else values
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"values for {cell.key} are {type(value).__name__}; give a tensor (torch.as_tensor), or one "
                "by (site, layer)."
            )
        n_axes = 2 if site_named(cell.site).unit == "head" else 1
        fits = value.ndim == n_axes or (value.ndim == n_axes + 1 and len(value) in (1, n_pairs))
        if not fits:
            raise ArgumentError(
                f"values for {cell.key} have the shape {tuple(value.shape)}; give the "
                f"activation at one position ({n_axes} axes), or one for each of {n_pairs} pairs."
            )
        found.append(value[None] if value.ndim == n_axes else value)
    return found


def unit_groups(
    units: Units, count: int | None, unit: str | None, name: str | None = None
) -> list[tuple[str | None, tuple[int, ...] | None]]:
    """Heads or neurons as groups with their labels; `name` is what the argument is called, if not so."""
    name = str(name or unit)
    if count is None or unit is None or (isinstance(units, str) and units == "all"):
        return [(None, None)]
    if isinstance(units, str):
        if units != "each":
            raise ArgumentError(
                f'{name}s={units!r}: give "each", "all", numbers, or groups by label.'
            )
        return [(None, (index,)) for index in range(count)]
    if isinstance(units, Mapping):
        if not units:
            raise ArgumentError(f"{name}s={{}}: no group is named; give at least one.")
        return [(str(k), valid_indices(v, count, name)) for k, v in units.items()]
    chosen = valid_indices(units, count, name)
    return [(None if len(chosen) == 1 else ",".join(map(str, chosen)), chosen)]
