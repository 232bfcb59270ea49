"""Whether a model's matrices are the ones it computes with."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils import parametrize
from transformer_lens.model_bridge.generalized_components import (
    EmbeddingBridge,
    LinearBridge,
    UnembeddingBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from interp.errors import ArgumentError
from interp.model.structure import carries_hooks, shows_effective_weights

_OF_WEIGHTS = (LinearBridge, EmbeddingBridge, UnembeddingBridge)


def require_own_weights(model: object, *, adapted: bool = False) -> None:
    """Checks that `W_Q`, `W_out` and the others are what a TransformerLens model computes with.

    Args:
        model: Any model.
        adapted: One with an adapter of `interp.attach_adapter` is fine, as its `W_Q`, `W_out` and the
            others are W + scaling B A; its `state_dict` is that of the base.

    Raises:
        ArgumentError: a module that holds weights is wrapped or replaced (by an adapter, say), which
            changes what the model computes and leaves these matrices as they were.
    """
    if not isinstance(model, nn.Module):
        return
    changed = next(_changed(model, adapted), None)
    if changed is not None:
        raise ArgumentError(
            f"{changed}, so this model does not compute with the weights that TransformerLens shows, "
            "which are those below it. Merge the adapter into them (adapter.merge(); peft: "
            "merge_and_unload), take the hook off, or put the module back."
        )


def require_normal_weights(model: nn.Module) -> None:
    """Checks that weights can be differentiated through and written into.

    Raises:
        ArgumentError: they were made in inference mode.
    """
    if any(weight.is_inference() for weight in model.parameters()):
        raise ArgumentError(
            "The weights of this model were made under torch.inference_mode(), so they take no gradient and "
            "cannot be changed. Build or load the model outside of it (`patch` works with this one)."
        )


def _changed(model: nn.Module, adapted: bool) -> Iterator[str]:
    for path, module in model.named_modules():
        if not isinstance(module, GeneralizedComponent):
            continue
        name = path.replace("._original_component", "")
        inside: Any = module._modules.get("_original_component")
        if adapted and shows_effective_weights(inside):
            if carries_hooks(inside, *inside.modules(), module) or _has_own_forward(inside):
                yield f"{name} carries a PyTorch hook or a forward method of its own"
            inside = inside.base_layer
        if isinstance(module, _OF_WEIGHTS) and isinstance(inside, nn.Module):
            names = {name for name, _ in inside.named_parameters(recurse=False)}
            wrapped = next(inside.children(), None) is not None or not names <= {"weight", "bias"}
            if wrapped and not parametrize.is_parametrized(inside):
                yield f"The weights of {name} are inside a {type(inside).__name__}"
            elif _has_own_forward(inside) or _has_own_forward(module):
                yield f"{name} computes with a forward method of its own"
            elif carries_hooks(inside, module):
                yield f"{name} carries a PyTorch hook"
        for part in module.submodules:
            now = module._modules.get(part)
            if now is not None and not isinstance(now, GeneralizedComponent):
                yield f"{name}.{part} has been replaced by a {type(now).__name__}"
    built = getattr(model, "built", None)
    parametrized = any(parametrize.is_parametrized(module) for module in model.modules())
    if built is not None and not parametrized and not built.has_same_modules(adapted):
        yield "Modules of this model have been replaced or wrapped"


def _has_own_forward(module: nn.Module) -> bool:
    """Whether somebody has given a module a forward method; TransformerLens does (Falcon's products)."""
    forward = module.__dict__.get("forward")
    return forward is not None and not forward.__module__.startswith("transformer_lens.")
