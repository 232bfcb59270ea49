"""The linear maps of a model that an adapter can be attached to, by site, layer and the name that peft knows.

TransformerLens holds every linear map in a bridge component with hook points before and after it. Where
a model has queries, keys and values in one matrix (GPT-2, GPT-NeoX, Phi 3), TransformerLens computes
with three maps that it has cut out of it: these are the sites, and files name the one matrix.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from types import SimpleNamespace
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import LinearBridge
from transformers.pytorch_utils import Conv1D

from interp.errors import ArgumentError, listed, require_known, whole_number
from interp.model.layout import kind_of, require_wrapped

SITES = {
    "q": ("attn", "q"),
    "k": ("attn", "k"),
    "v": ("attn", "v"),
    "o": ("attn", "o"),
    "mlp_in": ("mlp", "in"),
    "gate": ("mlp", "gate"),
    "mlp_out": ("mlp", "out"),
}
"""Where an adapter can be: the part of a block and the linear map in it, by TransformerLens' names."""


@dataclass(frozen=True)
class LoraSpec:
    """What an adapter is.

    Attributes:
        rank: Of the product that is added to each matrix, at least 1.
        alpha: What is added is B A times alpha / rank; above 0.
        sites: Which linear maps: of "q", "k", "v", "o" (attention), "mlp_in", "mlp_out" and "gate" (the
            other matrix of a gated MLP); all that the model has by default.
        layers: In which layers; in all by default.
        seed: Determines A at the start, site by site: a site has the same whichever others there are.
    """

    rank: int = 8
    alpha: float | int = 16.0
    sites: Sequence[str] | None = None
    layers: Sequence[int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "rank", whole_number(self.rank, "rank", 1))
        put(self, "seed", whole_number(self.seed, "seed", 0))
        number = isinstance(self.alpha, Real) and not isinstance(self.alpha, bool)
        if not number or not math.isfinite(self.alpha) or self.alpha <= 0:
            raise ArgumentError(f"alpha={self.alpha!r}: give a number above 0.")
        put(self, "alpha", float(self.alpha))
        if self.sites is not None:
            sites = listed(self.sites, "sites")
            require_known(sites, SITES, "site")
            put(self, "sites", tuple(site for site in SITES if site in sites))
        if self.layers is not None:
            given = self.layers if isinstance(self.layers, Sequence) else [self.layers]
            layers = sorted({whole_number(layer, "layers", 0) for layer in given})
            if not layers:
                raise ArgumentError("layers is empty: name layers, or give None for all.")
            put(self, "layers", tuple(layers))


@dataclass(frozen=True)
class Place:
    """A linear map of a model.

    Attributes:
        name: Its name in TransformerLens, e.g. "blocks.0.attn.q".
        layer: Its layer.
        site: Its site, one of `SITES`.
        bridge: The component that holds it and its hook points.
    """

    name: str
    layer: int
    site: str
    bridge: LinearBridge

    @property
    def held(self) -> nn.Module:
        """What the component holds now: the linear map, or what is around it."""
        return cast(nn.Module, self.bridge._modules["_original_component"])

    def hold(self, module: nn.Module) -> None:
        """Has the component compute with another module."""
        self.bridge._modules["_original_component"] = module


@dataclass(frozen=True)
class Joint:
    """The one matrix of which TransformerLens has cut several linear maps.

    Attributes:
        linear: It, as it is in the transformers model. TransformerLens does not compute with it.
        rows: Which of its outputs each map has, by site.
    """

    linear: nn.Module
    rows: dict[str, Int[Tensor, " out"]]


def places_of(model: object) -> list[Place]:
    """All linear maps of a model that an adapter can be attached to, layer by layer.

    Raises:
        ArgumentError: it is no TransformerLens model with blocks.
    """
    require_wrapped(model)
    blocks = getattr(model, "blocks", None)
    if not isinstance(model, TransformerBridge) or blocks is None:
        raise ArgumentError(
            f"A {type(model).__name__} has no blocks of linear maps that an adapter could be attached to; "
            "give a model of interp.hooked_transformer or interp.load_model."
        )
    found = []
    for layer, block in enumerate(blocks):
        for site, (part, name) in SITES.items():
            bridge = _part(_part(block, part), name)
            held = None if bridge is None else bridge._modules.get("_original_component")
            inside = getattr(held, "base_layer", held)
            if isinstance(bridge, LinearBridge) and isinstance(inside, nn.Linear | Conv1D):
                found.append(Place(f"blocks.{layer}.{part}.{name}", layer, site, bridge))
    return found


def chosen_places(
    model: object, sites: tuple[str, ...] | None, layers: tuple[int, ...] | None
) -> list[Place]:
    """The linear maps at some sites of some layers; all by default.

    Raises:
        ArgumentError: the model has no such layer, or a site in none of the layers (in one of them, where
            layers are named). What it has is said.
    """
    every = places_of(model)
    n_layers = len(cast(Any, model).blocks)
    for layer in layers or ():
        if layer >= n_layers:
            raise ArgumentError(f"layers: {layer} is none of the model's, 0 to {n_layers - 1}.")
    within = [p for p in every if layers is None or p.layer in layers]
    if not within:
        raise ArgumentError(f"{_has(model, within)}: there is nothing to attach an adapter to.")
    for site in sites or ():
        having = {p.layer for p in within if p.site == site}
        lacking = sorted(set(layers or ()) - having)
        if not having or lacking:
            where = f" in layer {lacking[0]}" if layers and lacking else ""
            there = [p for p in within if not (layers and lacking) or p.layer == lacking[0]]
            raise ArgumentError(f"There is no site {site!r}{where}: {_has(model, there)}.")
    return [p for p in within if sites is None or p.site in sites]


def _has(model: Any, places: list[Place]) -> str:
    sites = [site for site in SITES if any(p.site == site for p in places)]
    return f"{kind_of(model)} has {', '.join(sites) or 'no linear maps'} for adapters"


def _part(component: Any, name: str) -> nn.Module | None:
    if component is None:
        return None
    found = component._modules.get(name)
    if found is None:
        found = getattr(component, "submodules", {}).get(name)
    return found if isinstance(found, nn.Module) else None


def joint_of(model: Any, place: Place) -> Joint | None:
    """The matrix of which a linear map has been cut, if it has been."""
    part = _part(model.blocks[place.layer], SITES[place.site][0])
    sites: tuple[str, ...]
    if place.site in ("q", "k", "v"):
        split, name = getattr(part, "split_qkv_matrix", None), _name(_part(part, "qkv"))
        sites = ("q", "k", "v")
    elif place.site in ("gate", "mlp_in"):
        split, name = getattr(part, "split_gate_up_matrix", None), getattr(part, "fused_attr", None)
        sites = ("gate", "mlp_in")
    else:
        return None
    if not callable(split) or name is None:
        return None
    original: Any = cast(Any, part)._modules["_original_component"]
    linear = getattr(original, name)
    linear = getattr(linear, "_modules", {}).get("_original_component", linear)
    return Joint(linear, dict(zip(sites, _rows(original, name, linear, split), strict=True)))


def _name(component: nn.Module | None) -> str | None:
    return None if component is None else cast(str, cast(Any, component).name)


def _rows(original: Any, name: str, linear: Any, split: Callable[[Any], Any]) -> Iterator[Tensor]:
    """Which outputs of a joint matrix its parts have: a matrix of their numbers is cut as it was cut."""
    numbered = copy.copy(linear)
    numbered._parameters = dict(linear._parameters)
    n_out = linear.weight.shape[1 if isinstance(linear, Conv1D) else 0]
    numbers = torch.arange(n_out, dtype=torch.float64)
    across = numbers[None] if isinstance(linear, Conv1D) else numbers[:, None]
    numbered._parameters["weight"] = nn.Parameter(across.expand(linear.weight.shape).contiguous())
    if linear.bias is not None:
        numbered._parameters["bias"] = nn.Parameter(numbers.clone())

    class StandIn(SimpleNamespace):
        def __getattr__(self, other: str) -> Any:
            return getattr(original, other)

    with torch.random.fork_rng(devices=[]):  # the parts are made with random weights first
        parts = split(StandIn(**{name: numbered}))
    for part in parts:
        yield part.weight.detach()[:, 0].round().long()


def path_of(model: Any, place: Place) -> str:
    """The name by which peft knows a linear map, or the joint matrix it is cut of: that of transformers.

    Raises:
        ArgumentError: TransformerLens has no such name.
    """
    part = SITES[place.site][0]
    component: Any = _part(model.blocks[place.layer], part)
    name, end = place.name, ""
    if place.site in ("q", "k", "v") and callable(getattr(component, "split_qkv_matrix", None)):
        name = f"blocks.{place.layer}.{part}.qkv"
    elif place.site in ("gate", "mlp_in") and hasattr(component, "split_gate_up_matrix"):
        name, end = f"blocks.{place.layer}.{part}", f".{component.fused_attr}"
    try:
        return str(model.adapter.translate_transformer_lens_path(name)) + end
    except ValueError as error:
        raise ArgumentError(
            f"TransformerLens does not say what {place.name} is called in transformers ({error}), so an "
            "adapter of this model cannot be a file of peft."
        ) from error
