"""LoRA adapters on hooked models: attached, trained, switched off, merged, saved as peft saves them.

A linear map W x + b becomes W x + b + (alpha / rank) B A x, with A of [rank, in] and B of [out, rank].
B is 0 at first, so that an adapter changes nothing until it is trained. peft's layer takes the place of
the linear map between the same two hook points, so what hooks see and edit is the adapted model. While
an adapter is off the maps themselves are back, and the model is the one it was, fused pass and all.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.errors import ArgumentError
from interp.model.adapter_merge import Merge
from interp.model.adapter_sites import SITES, LoraSpec, Place, chosen_places
from interp.model.forward import alone_with, measuring
from interp.model.weights import require_normal_weights
from interp.torch_state import default_state

__all__ = ["Adapter", "LoraSpec", "adapter_of", "attach_adapter", "load_adapter"]

_ATTRIBUTE = "attached_adapter"
_A, _B = "lora_A", "lora_B"
_DETACHED, _ON, _OFF, _MERGED = "detached", "on", "off", "merged"


class Adapter:
    """A LoRA adapter on a model; `attach_adapter` and `load_adapter` make one.

    Attributes:
        model: The model it is on.
        spec: What it is.
        places: The linear maps it is at.
    """

    def __init__(self, model: Any, spec: LoraSpec, ranks: Mapping[str, tuple[int, float]]) -> None:
        from interp.model.adapter_layers import lora_layers

        chosen = {place.name: place for place in chosen_places(model, None, None)}
        self.model, self.spec = model, spec
        self.places: list[Place] = [chosen[name] for name in ranks]
        self._linears = {place.name: place.held for place in self.places}
        self._flags: list[tuple[nn.Parameter, bool]] = []
        self._state = _DETACHED
        self._merge: Merge | None = None
        for place in self.places:
            n_out, n_in = _shape(place.held)
            rank = ranks[place.name][0]
            if rank > min(n_out, n_in):
                raise ArgumentError(
                    f"rank={rank}: {place.name} is {n_out} × {n_in}, so the rank is at most "
                    f"{min(n_out, n_in)}."
                )
        self._layers = lora_layers(self._linears, dict(ranks))
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        for name, layer in self._layers.items():
            a, b = _factors(layer)
            key = hashlib.sha256(f"{self.spec.seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
            bound = a.shape[1] ** -0.5  # as peft, and nn.Linear
            a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
            b.zero_()

    def __repr__(self) -> str:
        sites = sorted({place.site for place in self.places}, key=list(SITES).index)
        return (
            f"Adapter(rank={self.spec.rank}, alpha={self.spec.alpha:g}, sites={sites}, "
            f"{len(self.places)} matrices, {self._state})"
        )

    @property
    def state(self) -> str:
        """One of "on", "off", "merged" and "detached"."""
        return self._state

    @property
    def on(self) -> bool:
        """Whether the model computes with the adapter; set it to switch it on or off."""
        return self._state == _ON

    @on.setter
    def on(self, wanted: bool) -> None:
        self._require_attached()
        self._switch(bool(wanted))

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """While this lasts the model is its base; the adapter is then as it was before."""
        self._require_attached()
        before = self.on
        self._switch(False)
        try:
            yield
        finally:
            if self._state == _OFF:
                self._switch(before)

    def parameters(self) -> list[nn.Parameter]:
        """A and B of every matrix, for an optimizer."""
        return [factor for layer in self._layers.values() for factor in _factors(layer)]

    def named_tensors(self) -> dict[str, Tensor]:
        """A and B by name, "blocks.0.attn.q.lora_A" say: what `load_tensors` takes; not copied."""
        return {
            f"{name}.{which}": factor.detach()
            for name, layer in self._layers.items()
            for which, factor in zip((_A, _B), _factors(layer), strict=True)
        }

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Writes A and B of every matrix; the parameters stay the same objects.

        Raises:
            ArgumentError: names or shapes are not those of `named_tensors`; nothing is written then.
        """
        own = self.named_tensors()
        wrong = sorted(own.keys() ^ tensors.keys())
        if wrong:
            what = "lacks" if wrong[0] in own else "has beyond this adapter's"
            raise ArgumentError(
                f"What is loaded {what} {wrong[0]!r}: give the tensors of its like."
            )
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                raise ArgumentError(
                    f"{name} has the shape {list(tensor.shape)}, and here it is {list(own[name].shape)}."
                )
        for name, tensor in tensors.items():
            own[name].copy_(tensor)

    def scaling(self, name: str) -> float:
        """What B A is multiplied by at a linear map: alpha / rank."""
        return float(next(iter(self._layers[name].scaling.values())))

    @default_state()
    def save(self, folder: Path | str) -> Path:
        """Writes `adapter_config.json` and `adapter_model.safetensors`, as peft does.

        `peft.PeftModel.from_pretrained` puts them on the transformers model that this one wraps. Where
        TransformerLens has cut a matrix into several (queries, keys and values of GPT-2), the file has one
        product for it, of their ranks together.

        Args:
            folder: Where to; an adapter of ours there is replaced.

        Returns:
            The folder.

        Raises:
            RunError: the folder holds files of these names that interp did not write.
            StorageError: it cannot be written.
        """
        from interp.model.adapter_files import save_adapter

        return save_adapter(self, folder)

    def detach(self) -> None:
        """Takes the adapter off: the model is what it was, module for module, and as trainable."""
        if self._state == _MERGED:
            raise ArgumentError(
                "This adapter is merged into the model; take it out first: unmerge()."
            )
        self._require_attached()
        self._switch(False)
        self._release()
        self._state = _DETACHED

    @default_state()
    def merge(self) -> None:
        """Writes what the adapter adds into the weights, and takes it off.

        Logits are then those with the adapter on, up to rounding. Copies of the weights are kept for
        `unmerge`.
        """
        self._require_attached()
        require_normal_weights(self.model)
        self._switch(False)
        with alone_with(self.model):
            changes = {
                name: layer.get_delta_weight("default") for name, layer in self._layers.items()
            }
            self._merge = Merge(self.model, self.places, changes)
        self._release()
        self._state = _MERGED

    @default_state()
    def unmerge(self) -> None:
        """Puts the weights back, bit for bit, and the adapter on again.

        Raises:
            ArgumentError: the adapter is not merged, the model has another adapter by now, or its weights
                have been changed since.
        """
        if self._state != _MERGED:
            raise ArgumentError(f"This adapter is {self._state}, not merged.")
        _require_free(self.model)
        with alone_with(self.model):
            cast(Merge, self._merge).undo()
        self._merge = None
        self._claim()
        self._switch(True)

    def _claim(self) -> None:
        """Freezes the model and notes what was trainable."""
        self._flags = [(weight, weight.requires_grad) for weight in self.model.parameters()]
        for weight, _ in self._flags:
            weight.requires_grad_(False)
        self.model.__dict__[_ATTRIBUTE] = self
        self._state = _OFF

    def _release(self) -> None:
        for weight, flag in self._flags:
            weight.requires_grad_(flag)
        self._flags = []
        del self.model.__dict__[_ATTRIBUTE]

    def _switch(self, on: bool) -> None:
        with alone_with(self.model):
            for place in self.places:
                layer, linear = self._layers[place.name], self._linears[place.name]
                held, expected = place.held, layer if self._state == _ON else linear
                if held is not expected:
                    raise ArgumentError(
                        f"{place.name} holds a {type(held).__name__} that was put there after the adapter "
                        "was attached. Take it out first."
                    )
            for place in self.places:
                layer, linear = self._layers[place.name], self._linears[place.name]
                if on and self._state != _ON:
                    layer.train(linear.training)
                    for module in (layer.lora_A, layer.lora_B):
                        module.to(cast(Any, linear).weight.device)
                place.hold(layer if on else linear)
            self._state = _ON if on else _OFF

    def _require_attached(self) -> None:
        if self._state not in (_ON, _OFF):
            raise ArgumentError(
                f"This adapter is {self._state}: it is not on the model. "
                + ("unmerge() puts it back." if self._state == _MERGED else "Attach one anew.")
            )

    def _attach(self) -> None:
        """Puts it on its model, and checks that the model computes with every matrix of it."""
        self._claim()
        try:
            self._switch(True)
            unused = _unused(self)
        except BaseException:
            self.detach()
            raise
        if unused is not None:
            self.detach()
            raise ArgumentError(
                f"The model computes without calling {unused}, so an adapter there would change nothing. "
                "Leave its site out (LoraSpec(sites=...))."
            )


@default_state()
def attach_adapter(model: Any, spec: LoraSpec | None = None) -> Adapter:
    """Puts a new LoRA adapter on a model, switched on; only the adapter's parameters are trainable then.

    Logits do not change, as B is 0 at first. The caller's random numbers are neither used nor moved.

    Args:
        model: A model of `hooked_transformer` or `load_model`.
        spec: What the adapter is; `LoraSpec()` by default.

    Raises:
        ArgumentError: the model has an adapter already, lacks a site or a layer, was made in inference
            mode, or does not call a linear map that is adapted.

    Example:
        >>> from interp import hooked_transformer, preset
        >>> adapter = attach_adapter(hooked_transformer(preset("smoke")), LoraSpec(rank=2))
        >>> sum(factor.numel() for factor in adapter.parameters()) < 3000
        True
    """
    spec = LoraSpec() if spec is None else spec
    if not isinstance(spec, LoraSpec):
        raise ArgumentError(f"spec is {type(spec).__name__}; give a LoraSpec.")
    sites, layers = (None if x is None else tuple(x) for x in (spec.sites, spec.layers))
    places = chosen_places(model, cast(Any, sites), cast(Any, layers))
    return attach(model, spec, {place.name: (spec.rank, float(spec.alpha)) for place in places})


def attach(
    model: Any,
    spec: LoraSpec,
    ranks: Mapping[str, tuple[int, float]],
    tensors: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """An adapter with a rank and an alpha for each linear map, by name, and what is in it."""
    _require_free(model)
    require_normal_weights(model)
    adapter = Adapter(model, spec, ranks)
    if tensors is not None:
        adapter.load_tensors(tensors)
    adapter._attach()
    return adapter


def adapter_of(model: object) -> Adapter | None:
    """The adapter that is on a model (switched on or off), if there is one; a copy has a copy of it."""
    found = getattr(model, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, Adapter) else None


@default_state()
def load_adapter(model: Any, folder: Path | str) -> Adapter:
    """Puts a saved LoRA adapter on a model, switched on, with bits as they were saved.

    Nothing is unpickled.

    Args:
        model: The model it was trained on, or one of the same sizes.
        folder: What `Adapter.save` wrote, or peft's `save_pretrained` for a LoRA adapter.

    Raises:
        CheckpointError: the folder holds no such adapter, it is damaged, or of another model.
        ArgumentError: as `attach_adapter`, or a kind of adapter that this toolkit does not have.
    """
    from interp.model.adapter_files import read_adapter

    _require_free(model)
    spec, ranks, tensors = read_adapter(model, folder)
    return attach(model, spec, ranks, tensors)


def _require_free(model: object) -> None:
    if adapter_of(model) is not None:
        raise ArgumentError(
            "This model has an adapter already. Take it off first (adapter.detach()), or merge it "
            "(adapter.merge())."
        )
    if isinstance(model, nn.Module) and any(hasattr(m, "base_layer") for m in model.modules()):
        raise ArgumentError("This model has layers of peft already; merge or unload them first.")


def _unused(adapter: Adapter) -> str | None:
    """A linear map that the logits do not depend on by way of its adapter."""
    model = adapter.model
    device = next(model.parameters()).device
    tokens = torch.arange(min(4, model.cfg.n_ctx, model.cfg.d_vocab), device=device)[None]
    factors = [_factors(layer)[1] for layer in adapter._layers.values()]
    with measuring(model):
        with torch.enable_grad():
            logits: Tensor = model(tokens)
            if not logits.requires_grad:
                return adapter.places[0].name
            slopes = torch.autograd.grad(logits.sum(), factors, allow_unused=True)
        # TransformerLens keeps a pattern of the last pass; with its graph, no model can be copied.
        model(tokens)
    names = list(adapter._layers)
    return next((n for n, slope in zip(names, slopes, strict=True) if slope is None), None)


def _factors(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    return tuple(next(iter(getattr(layer, which).values())).weight for which in (_A, _B))


def _shape(linear: Any) -> tuple[int, int]:
    """Outputs and inputs of a linear map."""
    shape: tuple[int, ...] = tuple(linear.weight.shape)
    return (shape[1], shape[0]) if isinstance(linear, Conv1D) else (shape[0], shape[1])
