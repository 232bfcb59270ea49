"""Where a model can be intervened on: hook sites, and reading their activations.

All activations are handled as [pair, position, ...]: a head's output as [pair, position, head, d_head],
a neuron as [pair, position, neuron], an attention pattern as [pair, query, head, key], so that the
second axis is always a position and the third, where there is one, the unit.

Some hook points cost memory and are switched on by settings of TransformerLens (`use_attn_result`,
`use_split_qkv_input`): `hook_flags` sets them for as long as they are needed.
"""

import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError, suggest
from interp.model import alone_with, has_fused_forward, of_this_thread
from interp.model.fused import final_residual
from interp.model.layout import kind_of, n_neurons
from interp.model.live import require_live
from interp.model.patterns import require_hooks, require_passed
from interp.model.structure import carries_hooks


@dataclass(frozen=True)
class Site:
    """A kind of activation.

    Attributes:
        hook: The TransformerLens hook point, with `{}` for the layer.
        unit: What its third axis counts: "head", "neuron", or None where it has no units.
        meaning: For people.
        flag: The setting of TransformerLens that switches the hook point on, if it needs one.
        grouped: Whether its heads are those of keys and values, of which grouped-query attention has
            fewer.
        by_key: Whether it is [pair, head, query, key] at its hook point.
    """

    hook: str
    unit: str | None
    meaning: str
    flag: str | None = None
    grouped: bool = False
    by_key: bool = False

    def hook_name(self, layer: int) -> str:
        """The name of its hook point in a layer."""
        return self.hook.format(layer)


_FORK, _RESULT = "use_split_qkv_input", "use_attn_result"
SITES = {
    "resid_pre": Site("blocks.{}.hook_resid_pre", None, "residual stream before the layer"),
    "resid_mid": Site("blocks.{}.hook_resid_mid", None, "residual stream after attention"),
    "resid_post": Site("blocks.{}.hook_resid_post", None, "residual stream after the layer"),
    "attn_out": Site("blocks.{}.hook_attn_out", None, "attention output"),
    "q_input": Site("blocks.{}.hook_q_input", "head", "stream that a head's queries read", _FORK),
    "k_input": Site("blocks.{}.hook_k_input", "head", "stream that its keys read", _FORK, True),
    "v_input": Site("blocks.{}.hook_v_input", "head", "stream that its values read", _FORK, True),
    "q": Site("blocks.{}.attn.hook_q", "head", "queries of a head"),
    "k": Site("blocks.{}.attn.hook_k", "head", "keys of a head", grouped=True),
    "v": Site("blocks.{}.attn.hook_v", "head", "values of a head", grouped=True),
    "attn_scores": Site(
        "blocks.{}.attn.hook_attn_scores", "head", "attention scores of a head", by_key=True
    ),
    "pattern": Site(
        "blocks.{}.attn.hook_pattern", "head", "attention pattern of a head", by_key=True
    ),
    "z": Site("blocks.{}.attn.hook_z", "head", "output of a head, before it is projected"),
    "result": Site("blocks.{}.attn.hook_result", "head", "what a head writes", _RESULT),
    "mlp_out": Site("blocks.{}.hook_mlp_out", None, "MLP output"),
    "post": Site("blocks.{}.mlp.hook_post", "neuron", "activation of a neuron"),
}
"""The sites by TransformerLens' name for the activation."""

HOOK_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where PyTorch keeps the hooks of a module."""
Key = tuple[str, int]
"""A site and a layer."""


def site_named(name: str) -> Site:
    """The site of this name; an error lists those that there are."""
    if name not in SITES:
        known = ", ".join(f"{key} ({site.meaning})" for key, site in SITES.items())
        raise ArgumentError(f"There is no site {name!r}.{suggest(name, SITES)} Sites: {known}.")
    return SITES[name]


def n_units(model: TransformerLensModel, site: str) -> int | None:
    """How many heads or neurons a site has; None where it has no units."""
    kind, cfg = site_named(site), model.cfg
    heads = (getattr(cfg, "n_key_value_heads", None) if kind.grouped else None) or cfg.n_heads
    if kind.unit == "neuron" and not has_fused_forward(model):
        return n_neurons(model)
    return {"head": heads, "neuron": cfg.d_mlp, None: None}[kind.unit]


def shape_at_position(model: TransformerLensModel, site: str, n_positions: int) -> tuple[int, ...]:
    """The shape of a site's activation at one position of a prompt, units first."""
    cfg, kind, units = model.cfg, site_named(site), n_units(model, site)
    if units is None:
        return (int(cfg.d_model),)
    if kind.unit == "neuron":
        return (units,)
    return units, n_positions if kind.by_key else int(cfg.d_model if kind.flag else cfg.d_head)


@contextmanager
def hook_flags(model: TransformerLensModel, sites: Iterable[str]) -> Iterator[None]:
    """Switches on the hook points of some sites for as long as this lasts.

    There is an error where TransformerLens has none for this kind of attention.
    """
    flags = {flag for site in sites if (flag := site_named(site).flag)}
    bridge, before = cast(Any, model), {}
    try:
        for flag in sorted(flags):
            # The two kinds of copies of the stream exclude each other.
            for name in ("use_attn_in", flag) if flag == _FORK else (flag,):
                before[name] = bool(getattr(model.cfg, name, False))
            if before.get("use_attn_in") and flag == _FORK:
                bridge.set_use_attn_in(False)
            if not before[flag]:
                _switch_on(bridge, flag)
        yield
    finally:
        for name in sorted(before, reverse=True):
            if bool(getattr(model.cfg, name, False)) != before[name]:
                getattr(bridge, f"set_{name}")(before[name])


def _switch_on(bridge: Any, flag: str) -> None:
    try:
        with warnings.catch_warnings():  # layers without it are refused by name later
            warnings.simplefilter("ignore", UserWarning)
            getattr(bridge, f"set_{flag}")(True)
    except NotImplementedError as error:
        sites = ", ".join(name for name, site in SITES.items() if site.flag == flag)
        raise ArgumentError(
            f"The sites {sites} do not exist in this model: {error} Use resid_pre, attn_out or z instead."
        ) from error


def by_position(activation: Tensor, site: str) -> Tensor:
    """An activation as its hook point has it, with the position second and the unit third."""
    return activation.transpose(1, 2) if site_named(site).by_key else activation


def read_activations(
    model: TransformerLensModel, tokens: Int[Tensor, "batch position"], keys: Iterable[Key]
) -> dict[Key, Tensor]:
    """The activations of some sites and layers, position second and unit third, without gradient.

    Models of ours are not run further than to the unembedding. Modes are the caller's (see
    `evaluating`). There is an error where the model has no such hook point, or never passes it.
    """
    kept: dict[Key, Tensor] = {}

    def keep(activation: Tensor, hook: Any, key: Key) -> None:
        # Hook points may show views of buffers: what is kept is a copy of its own.
        kept[key] = by_position(activation.detach(), key[0]).clone()
        _require_shape(model, key, kept[key], tokens)

    wanted = list(dict.fromkeys(keys))
    names = [site_named(site).hook_name(layer) for site, layer in wanted]
    require_hooks(model, names)
    hooks = of_this_thread(
        (name, partial(keep, key=key)) for name, key in zip(names, wanted, strict=True)
    )
    with alone_with(model), hook_flags(model, [site for site, _ in wanted]):
        if has_fused_forward(model):
            bridge = cast(TransformerBridge, model)
            with bridge.hooks(fwd_hooks=hooks):
                final_residual(bridge, tokens, bridge.W_E.dtype)
        else:
            model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
    unseen = [name for name, key in zip(names, wanted, strict=True) if key not in kept]
    require_passed(model, unseen)
    return kept


def _require_shape(
    model: TransformerLensModel, key: Key, activation: Tensor, tokens: Tensor
) -> None:
    """Checks that an activation has the shape that the model's configuration promises."""
    site, layer = key
    promised = (*tokens.shape, *shape_at_position(model, site, tokens.shape[1]))
    if tuple(activation.shape) != promised:
        raise ArgumentError(
            f"The site {site} of layer {layer} of this model ({kind_of(model)}) has the shape "
            f"{tuple(activation.shape)}; by its configuration it would have {promised} (text, position, unit "
            "...). Use another site."
        )


def require_live_sites(
    model: TransformerLensModel,
    keys: Iterable[Key],
    tokens: Int[Tensor, "batch position"],
    *,
    gradient: bool = False,
) -> None:
    """Checks that edits at some sites and layers have an effect, and the whole of it.

    See `model.live`. With `gradient`, that the logits have a gradient there. Errors are also about hook
    points that are missing, and hooks of others where an edit of what single heads read does not pass.
    """
    wanted = list(dict.fromkeys(keys))
    direction = getattr(model.cfg, "attention_dir", "causal")
    if direction != "causal":
        raise ArgumentError(
            f"The attention of this model ({kind_of(model)}) is {direction}: what is predicted at a "
            "position depends on what comes after it, which edits leave out. Give a causal model."
        )
    require_free_forks(model, wanted)
    names = [site_named(site).hook_name(layer) for site, layer in wanted]
    require_hooks(model, names)
    with alone_with(model), hook_flags(model, [site for site, _ in wanted]):
        require_live(model, names, tokens, gradient=gradient)


def require_free_forks(model: TransformerLensModel, keys: Iterable[Key]) -> None:
    """Checks that nobody's hook is on the norm through which edited heads read the stream.

    A head's own copy of the stream does not pass the hook points of the norm that all heads share, so
    what such a hook does to a changed copy would be left out.
    """
    layers = sorted({layer for site, layer in keys if site_named(site).flag == _FORK})
    if not getattr(model, "attends_to_nothing", False):  # TransformerLens' own components
        if layers:
            require_own_captures(model)
        return
    for layer in layers:
        block = cast(Any, model).blocks[layer]
        parts = [*block.ln1.modules(), block.attn.hook_in]
        if carries_hooks(*parts) or any("forward" in part.__dict__ for part in parts):
            raise ArgumentError(
                f"There is a hook on the norm before attention of layer {layer} (blocks.{layer}.ln1 or "
                f"attn.hook_in), and what a single head reads does not pass it. Take it off, or edit "
                "queries, keys or values (q, k, v) instead."
            )


def require_own_captures(model: TransformerLensModel) -> None:
    """Checks that what blocks capture of the stream goes to their own hook points.

    TransformerLens notes what a head or an MLP reads by hooks in functions that name the block they are
    of. In a copy (`copy.deepcopy`) they still name the original's, and edits of the copy are not what
    they seem.
    """
    for layer, block in enumerate(cast(Any, model).blocks):
        own = {id(block.hook_in), id(getattr(block, "hook_mlp_in", None))}
        own.add(id(getattr(getattr(block, "attn", None), "hook_in", None)))
        parts = (getattr(block, name, None) for name in ("ln1", "ln2", "mlp"))
        hooks = (
            hook for part in parts for hook in getattr(part, "_forward_pre_hooks", {}).values()
        )
        for hook in hooks:
            if "_maybe_wire_capture_hooks" not in getattr(hook, "__qualname__", ""):
                continue
            for cell in hook.__closure__ or ():
                point = cell.cell_contents
                if isinstance(point, weakref.ProxyTypes):
                    try:
                        point = point.hook_in
                    except ReferenceError:  # the original is gone
                        point = None
                elif not isinstance(point, nn.Module):
                    continue
                if id(point) not in own:
                    raise ArgumentError(
                        f"This model is a copy, and in layer {layer} TransformerLens still notes what heads "
                        "and MLPs read for the original. Copy the transformers model inside and wrap that: "
                        "interp.load_model(copy.deepcopy(model.original_model), tokenizer=model.tokenizer)."
                    )


def is_hooked(model: TransformerLensModel) -> bool:
    """Whether anybody has put a hook on the model: then nothing may be computed past its hooks."""
    points: Mapping[str, Any] = getattr(model, "hook_dict", {})
    return any(getattr(point, kind, None) for point in points.values() for kind in HOOK_KINDS)
