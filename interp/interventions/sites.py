"""Where a model can be intervened on: hook sites, and reading their activations.

All activations are handled as [pair, position, ...]: a head's output as [pair, position, head, d_head],
a neuron as [pair, position, neuron], an attention pattern as [pair, query, head, key], so that the
second axis is always a position and the third, where there is one, the unit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ConfigError, suggest
from interp.model import has_fused_forward
from interp.model.fused import final_residual
from interp.model.patterns import require_hooks


@dataclass(frozen=True)
class Site:
    """A kind of activation.

    Attributes:
        hook: The TransformerLens hook point, with `{}` for the layer.
        unit: What its third axis counts: "head", "neuron", or None where it has no units.
        meaning: What it is, for people.
    """

    hook: str
    unit: str | None
    meaning: str

    def hook_name(self, layer: int) -> str:
        """The name of its hook point in a layer."""
        return self.hook.format(layer)


SITES = {
    "resid_pre": Site("blocks.{}.hook_resid_pre", None, "residual stream before the layer"),
    "resid_mid": Site("blocks.{}.hook_resid_mid", None, "residual stream after attention"),
    "resid_post": Site("blocks.{}.hook_resid_post", None, "residual stream after the layer"),
    "attn_out": Site("blocks.{}.hook_attn_out", None, "attention output"),
    "z": Site("blocks.{}.attn.hook_z", "head", "output of a head, before it is projected"),
    "pattern": Site("blocks.{}.attn.hook_pattern", "head", "attention pattern of a head"),
    "mlp_out": Site("blocks.{}.hook_mlp_out", None, "MLP output"),
    "post": Site("blocks.{}.mlp.hook_post", "neuron", "activation of a neuron"),
}
"""The sites by TransformerLens' name for the activation."""

Key = tuple[str, int]
"""A site and a layer."""


def site_named(name: str) -> Site:
    """The site of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SITES:
        known = ", ".join(f"{key} ({site.meaning})" for key, site in SITES.items())
        raise ConfigError(f"There is no site {name!r}.{suggest(name, SITES)} Sites: {known}.")
    return SITES[name]


def n_units(model: TransformerLensModel, site: str) -> int | None:
    """How many heads or neurons a site has; None where it has no units."""
    counts = {"head": model.cfg.n_heads, "neuron": model.cfg.d_mlp, None: None}
    return counts[site_named(site).unit]


def by_position(activation: Tensor, site: str) -> Tensor:
    """An activation as its hook point has it, with the position second and the unit third."""
    return activation.transpose(1, 2) if site == "pattern" else activation


def read_activations(
    model: TransformerLensModel, tokens: Int[Tensor, "batch position"], keys: Iterable[Key]
) -> dict[Key, Tensor]:
    """The activations of some sites and layers, position second and unit third, without gradient.

    Models of ours are not run further than to the unembedding. Modes are the caller's (see
    `evaluating`).

    Raises:
        ConfigError: the model has no such hook point.
    """
    found: dict[Key, Tensor] = {}

    def keep(activation: Tensor, hook: Any, key: Key) -> None:
        # Hook points may show views of buffers: what is kept is a copy of its own.
        found[key] = by_position(activation.detach(), key[0]).clone()

    wanted = list(dict.fromkeys(keys))
    names = [site_named(site).hook_name(layer) for site, layer in wanted]
    require_hooks(model, names)
    hooks = [(name, partial(keep, key=key)) for name, key in zip(names, wanted, strict=True)]
    if has_fused_forward(model):
        bridge = cast(TransformerBridge, model)
        with bridge.hooks(fwd_hooks=hooks):
            final_residual(bridge, tokens, bridge.W_E.dtype)
    else:
        model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
    return found


def is_hooked(model: TransformerLensModel) -> bool:
    """Whether anybody has put a hook on the model: then nothing may be computed past its hooks."""
    points: Mapping[str, Any] = getattr(model, "hook_dict", {})
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(point, kind, None) for point in points.values() for kind in kinds)
