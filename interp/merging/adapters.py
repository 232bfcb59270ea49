"""Several LoRA adapters on one model: added up with weights, and switched.

The sum of products of ranks r_1, r_2, ... is one product of rank r_1 + r_2 + ...: rows of A and columns of
B beside each other, each B multiplied by its weight and its scaling. So a sum is an ordinary adapter,
which is switched off, merged and saved as any other. As peft's `add_weighted_adapter` with "cat".
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ArgumentError, listed, require_known
from interp.merging.combine import numbers
from interp.model.adapter_files import read_adapter
from interp.model.adapter_sites import places_of
from interp.model.adapters import Adapter, LoraSpec, adapter_of, attach
from interp.run import Run
from interp.run.adapters import adapter_folder, adapter_steps
from interp.torch_state import default_state

AnyAdapter = Adapter | Run | str | Path
"""An adapter of a model of the same sizes, the folder of a saved one, or a run (its last adapter)."""


@dataclass(frozen=True)
class _Product:
    """A and B at one linear map; what is added is B A."""

    a: Tensor
    b: Tensor


def _products(model: TransformerBridge, given: object, what: str) -> dict[str, _Product]:
    """What an adapter adds at each linear map of a model, by name; copied."""
    if isinstance(given, Run):
        steps = adapter_steps(given.path)
        if not steps:
            raise ArgumentError(f"{what}: the run {given.given} has no adapter.")
        given = adapter_folder(given.path, steps[-1])
    if isinstance(given, Adapter):
        names = [place.name for place in given.places]
        tensors = {name: tensor.clone() for name, tensor in given.named_tensors().items()}
        scaling = {name: given.scaling(name) for name in names}
    elif isinstance(given, str | Path):
        _, ranks, tensors = read_adapter(model, given)
        scaling = {name: alpha / rank for name, (rank, alpha) in ranks.items()}
    else:
        raise ArgumentError(
            f"{what} is {type(given).__name__}: give an adapter, the folder of a saved one, or a run."
        )
    found = {}
    shapes = {place.name: _shape(place.held) for place in places_of(model)}
    for name, scale in scaling.items():
        a, b = tensors[f"{name}.lora_A"].float().cpu(), tensors[f"{name}.lora_B"].float().cpu()
        if shapes.get(name) != (len(b), a.shape[1]):
            raise ArgumentError(
                f"{what} is of another model: at {name} it is {len(b)} × {a.shape[1]}, and this model has "
                f"{' × '.join(map(str, shapes[name])) if name in shapes else 'no such matrix'}."
            )
        if not (a.isfinite().all() and b.isfinite().all()):
            raise ArgumentError(f"{what} holds NaN or infinite numbers, at {name}.")
        found[name] = _Product(a, scale * b)
    return found


def _shape(linear: Any) -> tuple[int, int]:
    from transformers.pytorch_utils import Conv1D

    linear = getattr(linear, "base_layer", linear)
    n_out, n_in = linear.weight.shape
    return (n_in, n_out) if isinstance(linear, Conv1D) else (n_out, n_in)


def _attach_sum(
    model: TransformerBridge, terms: Sequence[tuple[Mapping[str, _Product], float]]
) -> Adapter:
    terms = [(products, weight) for products, weight in terms if weight != 0]
    if not terms:
        raise ArgumentError("All weights of the adapters are 0, so there is nothing to add.")
    order = [place for place in places_of(model) if any(place.name in of for of, _ in terms)]
    stacks = {}
    for place in order:
        own = [(of[place.name], weight) for of, weight in terms if place.name in of]
        a = torch.cat([product.a for product, _ in own])
        b = torch.cat([weight * product.b for product, weight in own], dim=1)
        stacks[place.name] = a, b
    # One rank everywhere: a file of peft has queries, keys and values of one matrix in equal blocks.
    rank = max(len(a) for a, _ in stacks.values())
    narrow = min(order, key=lambda place: min(_shape(place.held)))
    if rank > min(_shape(narrow.held)):
        raise ArgumentError(
            f"The ranks of the adapters add up to {rank}, and {narrow.name} is "
            f"{' × '.join(map(str, _shape(narrow.held)))}: write them into the weights one after the other "
            "(adapter.merge()), or add task vectors."
        )
    tensors = {}
    for name, (a, b) in stacks.items():
        missing = rank - len(a)
        tensors[f"{name}.lora_A"] = torch.cat([a, a.new_zeros(missing, a.shape[1])])
        tensors[f"{name}.lora_B"] = torch.cat([b, b.new_zeros(len(b), missing)], dim=1)
    spec = LoraSpec(
        rank, float(rank), sorted({p.site for p in order}), sorted({p.layer for p in order})
    )
    return attach(model, spec, {name: (rank, float(rank)) for name in stacks}, tensors)


@default_state()
def add_adapters(
    model: TransformerBridge,
    adapters: Sequence[AnyAdapter],
    weights: Sequence[float | int] | None = None,
) -> Adapter:
    """Puts the weighted sum of several LoRA adapters on a model, as one adapter, switched on.

    Each weight of the model becomes W + Σ w_i (alpha_i / rank_i) B_i A_i; the ranks add up. `merge`, `on`,
    `save` and `detach` of what is returned do what they do for any adapter. The given adapters are copied.

    Args:
        model: A model without an adapter.
        adapters: Adapters of models of the same sizes, folders of saved ones, or runs that trained one; at
            least one.
        weights: Of each one; 1 by default. One may be negative: what it learned is taken away.

    Raises:
        ArgumentError: no adapter; weights that do not match in number; another model's adapter; ranks that
            add up to more than a matrix has; an adapter on the model.
        CheckpointError: a folder holds no adapter.

    Example:
        ```python
        both = interp.add_adapters(model, ["adapters/first", "adapters/second"], [1, 0.5])
        both.merge()
        ```
    """
    several = (
        list(adapters) if isinstance(adapters, Sequence) and not isinstance(adapters, str) else []
    )
    if not several:
        raise ArgumentError("adapters: give at least one, in a list.")
    factors = numbers(weights, len(several), "weights", 1.0)
    read = [_products(model, one, f"adapters[{i}]") for i, one in enumerate(several)]
    return _attach_sum(model, list(zip(read, factors, strict=True)))


class AdapterSwitch:
    """Several named adapters beside one model, of which one, some or none are on.

    Example:
        ```python
        switch = interp.AdapterSwitch(model, {"first": "adapters/first", "second": "adapters/second"})
        switch.use("first")
        switch.use({"first": 1, "second": 0.5})
        with switch.using(None):
            base = model(tokens)
        switch.use(None)  # the model is what it was, module for module
        ```

    Args:
        model: A model without an adapter.
        adapters: By name: as for `add_adapters`. They are read once, here.

    Raises:
        ArgumentError, CheckpointError: as `add_adapters`.
    """

    @default_state()
    def __init__(self, model: TransformerBridge, adapters: Mapping[str, AnyAdapter]) -> None:
        if not isinstance(adapters, Mapping) or not adapters:
            raise ArgumentError("adapters: give at least one by its name, in a dictionary.")
        if adapter_of(model) is not None:
            raise ArgumentError(
                "This model has an adapter already. Take it off first (adapter.detach())."
            )
        self.model = model
        self._read = {str(name): _products(model, one, str(name)) for name, one in adapters.items()}
        self._weights: dict[str, float] = {}
        self._adapter: Adapter | None = None

    def __repr__(self) -> str:
        on = ", ".join(f"{w:g} × {name}" for name, w in self._weights.items())
        return f"AdapterSwitch({list(self._read)}, on: {on or 'none'})"

    @property
    def weights(self) -> dict[str, float]:
        """The weights of those that are on, by name."""
        return dict(self._weights)

    @default_state()
    def use(self, names: str | Sequence[str] | Mapping[str, float | int] | None) -> Adapter | None:
        """Switches to one adapter, the sum of several, or a sum with weights; None: to none.

        Returns:
            The adapter that is on the model now.

        Raises:
            ArgumentError: an unknown name, or a weight that is no number; nothing is switched then.
        """
        if names is None:
            wanted: dict[str, float] = {}
        else:
            named = listed(names, "names")
            if len(set(named)) < len(named):
                raise ArgumentError(
                    f"names={named}: name an adapter once; to add it twice give its weight, as in "
                    f'{{"{named[0]}": 2}}.'
                )
            require_known(named, self._read, "adapter")
            given = list(names.values()) if isinstance(names, Mapping) else None
            factors = numbers(given, len(named), "weights", 1.0)
            wanted = {n: f for n, f in zip(named, factors, strict=True) if f != 0}
        before = self._weights
        self._take_off()
        try:
            self._put_on(wanted)
        except BaseException:
            self._put_on(before)
            raise
        return self._adapter

    @contextmanager
    def using(
        self, names: str | Sequence[str] | Mapping[str, float | int] | None
    ) -> Iterator[TransformerBridge]:
        """While this lasts others are on (see `use`); then those that were."""
        before = self.weights
        self.use(names)
        try:
            yield self.model
        finally:
            self.use(before or None)

    def _put_on(self, wanted: dict[str, float]) -> None:
        if wanted:
            self._adapter = _attach_sum(self.model, [(self._read[n], f) for n, f in wanted.items()])
        self._weights = wanted

    def _take_off(self) -> None:
        if self._adapter is not None:
            self._adapter.detach()
        self._adapter, self._weights = None, {}
