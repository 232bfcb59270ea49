"""Models from elsewhere: what their hook points show, how far they attend, and whether they are wrapped.

TransformerLens gives every model the same names of hook points. Where an architecture has nothing of the
kind, a name may show something else: `mlp.hook_post` of a mixture of experts is the MLP's output.
"""

import re
from typing import Any

from torch import nn
from transformer_lens.model_bridge.generalized_components import MLAAttentionBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError

_OF_LAYER = re.compile(r"blocks\.(\d+)\.(.+)")


def require_wrapped(model: object) -> None:
    """Checks that something is a TransformerLens model.

    Raises:
        ArgumentError: it is none, for example a model of transformers that has not been wrapped.
    """
    if hasattr(model, "cfg") and hasattr(model, "run_with_hooks"):
        return
    remedy = "give a TransformerLens model, such as interp.load_model returns."
    if isinstance(model, nn.Module):
        remedy = "wrap it: interp.load_model(model, tokenizer=tokenizer)."
    raise ArgumentError(f"{type(model).__name__} is no TransformerLens model; {remedy}")


def hook_fault(model: TransformerLensModel, name: str) -> str | None:
    """Why a hook point that is listed does not show what its name says; None where it does."""
    found = _OF_LAYER.fullmatch(name)
    points = getattr(model, "hook_dict", {})
    if found is None or name not in points:
        return None
    layer, what = int(found[1]), found[2]
    block = _block(model, layer)
    if what == "mlp.hook_post" and points[name] is points.get(f"blocks.{layer}.mlp.hook_out"):
        return (
            f"layer {layer} is a mixture of experts ({kind_of(model)}), whose neurons TransformerLens does "
            "not show; the point is the output of the MLP under another name. Use mlp_out"
        )
    attention = getattr(block, "attn", None)
    if isinstance(attention, MLAAttentionBridge):
        if what in ("attn.hook_q", "attn.hook_k", "attn.hook_v"):
            return (
                f"the attention of {kind_of(model)} is latent (MLA): its queries, keys and values are laid "
                "out another way than in other models. Use z, result or attn_out"
            )
        width = getattr(attention.original_component, "v_head_dim", None)
        if what == "attn.hook_z" and width != model.cfg.d_head:
            return (
                f"the heads of {kind_of(model)} write {width} numbers each where the configuration says "
                f"{model.cfg.d_head}, so TransformerLens divides them wrongly. Use result or attn_out"
            )
    if what == "hook_resid_mid" and _norms_after_adding(model, block):
        return (
            f"{kind_of(model)} norms the stream after adding to it, and the point shows the sum after the "
            "MLP. Use resid_pre or resid_post"
        )
    if what == "hook_attn_out" and not _is_causal(model):
        return (
            f"the attention module of {kind_of(model)} adds to the stream and norms it, and the point shows "
            "that. Use z"
        )
    return None


def missing_reason(model: TransformerLensModel, name: str) -> str | None:
    """Why an architecture has no such hook point, where that is known."""
    found = _OF_LAYER.fullmatch(name)
    block = None if found is None else _block(model, int(found[1]))
    if found is None or block is None:
        return None
    layer, what = found[1], found[2]
    if (what.startswith("attn.") or what.endswith(("attn_out", "_input"))) and not hasattr(
        block, "attn"
    ):
        return f"layer {layer} has no attention"
    if (what.startswith("mlp.") or what == "hook_mlp_out") and not hasattr(block, "mlp"):
        return f"layer {layer} has no MLP"
    if what == "hook_resid_mid" and hasattr(block, "attn") and hasattr(block, "mlp"):
        return "attention and MLP read the same stream side by side, with none between them"
    if what == "hook_resid_mid":
        return f"layer {layer} adds to the stream once"
    return None


def kind_of(model: object) -> str:
    """The architecture of a model, for people."""
    cfg = getattr(model, "cfg", None)
    return str(getattr(cfg, "architecture", None) or type(model).__name__)


def n_neurons(model: TransformerLensModel) -> int | None:
    """How many neurons the MLPs have: as wide as what their last matrix reads, where that is known."""
    for block in getattr(model, "blocks", ()):
        last = getattr(
            getattr(getattr(block, "mlp", None), "out", None), "original_component", None
        )
        if isinstance(last, nn.Linear):
            return last.in_features
    width: int | None = model.cfg.d_mlp
    return width


def has_attention_sink(model: TransformerLensModel, layer: int | None = None) -> bool:
    """Whether heads can attend to nothing, by a number of their own beside the scores (GPT-OSS).

    Rows of the pattern then add up to less than 1. In a layer; in any by default.
    """
    blocks = list(getattr(model, "blocks", ()))
    chosen = blocks if layer is None else blocks[layer : layer + 1]
    return any(getattr(_attention(block), "sinks", None) is not None for block in chosen)


def attention_window(model: TransformerLensModel, layer: int) -> int | None:
    """To how many tokens a layer attends at most, the query itself among them; None: to all earlier ones.

    Raises:
        ArgumentError: the layer attends within chunks.
    """
    inner = _attention(_block(model, layer))
    config: Any = getattr(getattr(model, "original_model", None), "config", None)
    config = getattr(config, "text_config", None) or config
    if inner is None or config is None:
        return None
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    kind = None if not kinds else str(kinds[layer])
    if kind is not None and "chunk" in kind:
        raise ArgumentError(
            f"Layer {layer} of {kind_of(model)} attends within chunks of the text; these scores are "
            "defined where a query attends to all earlier tokens, or to those in a window."
        )
    if kind in ("full_attention", "global"):
        return None
    window = getattr(config, "window_size" if kind == "local" else "sliding_window", None)
    if hasattr(inner, "sliding_window"):
        window = inner.sliding_window
    elif not getattr(config, "use_sliding_window", True):
        window = None
    return None if window is None else int(window)


def _block(model: TransformerLensModel, layer: int) -> Any:
    blocks = getattr(model, "blocks", ())
    return blocks[layer] if layer < len(blocks) else None


def _attention(block: Any) -> Any:
    return getattr(getattr(block, "attn", None), "original_component", None)


def _is_causal(model: TransformerLensModel) -> bool:
    return getattr(model.cfg, "attention_dir", "causal") == "causal"


def _norms_after_adding(model: TransformerLensModel, block: Any) -> bool:
    inner = getattr(block, "original_component", None)
    return not _is_causal(model) or not getattr(inner, "do_layer_norm_before", True)
