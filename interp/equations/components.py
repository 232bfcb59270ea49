"""The weights of a model by what they belong to: attention or MLP of a layer, embedding, unembedding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.model import require_normal_weights

EMBEDDING, UNEMBEDDING, ATTENTION, MLP, NORM, OTHER = (
    "embedding", "unembedding", "attention", "mlp", "norm", "other",
)  # fmt: skip


@dataclass(frozen=True)
class Component:
    """Some weights of a model.

    Attributes:
        kind: "embedding" (of tokens and positions), "unembedding", "attention", "mlp", "norm" or "other".
        layer: The layer, or None.
        weights: The parameters; one that two components share (a tied unembedding) is in the first.
    """

    kind: str
    layer: int | None
    weights: list[nn.Parameter]

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return sum(weight.numel() for weight in self.weights)


def components_of(model: TransformerLensModel) -> list[Component]:
    """All weights of a model, each in one component."""
    module = cast(nn.Module, model)
    blocks: Any = getattr(model, "blocks", ())
    taken: set[int] = set()
    found: list[Component] = []

    def take(kind: str, layer: int | None, owner: Any) -> None:
        if not isinstance(owner, nn.Module):
            return
        own = [p for p in owner.parameters() if id(p) not in taken and p.is_floating_point()]
        taken.update(map(id, own))
        if own:
            found.append(Component(kind, layer, own))

    for name in ("embed", "pos_embed"):
        take(EMBEDDING, None, getattr(module, name, None))
    for layer, block in enumerate(blocks):
        take(ATTENTION, layer, getattr(block, "attn", None))
        take(MLP, layer, getattr(block, "mlp", None))
        take(NORM if hasattr(block, "ln1") else OTHER, layer, block)
    take(NORM, None, getattr(module, "ln_final", None))
    take(UNEMBEDDING, None, getattr(module, "unembed", None))
    take(OTHER, None, module)
    return _merged(found)


def _merged(components: list[Component]) -> list[Component]:
    """Components of one kind and layer as one."""
    by: dict[tuple[str, int | None], list[nn.Parameter]] = {}
    for one in components:
        by.setdefault((one.kind, one.layer), []).extend(one.weights)
    return [Component(*key, weights) for key, weights in by.items()]


@contextmanager
def differentiable(model: TransformerLensModel) -> Iterator[None]:
    """While this lasts, gradients are recorded and every weight has one, frozen ones too."""
    module = cast(nn.Module, model)
    require_normal_weights(module)
    frozen = [p for p in module.parameters() if p.is_floating_point() and not p.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
