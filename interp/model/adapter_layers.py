"""The layers of a LoRA adapter: peft's, which show the weights that they compute with.

Imported where an adapter is attached only, since peft takes a second or more.
"""

import warnings
from typing import Any

import peft
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import pytorch_utils

NAME = "default"
"""peft's name for the one adapter of a layer."""


class _Adapted(LoraLinear):
    """peft's LoRA layer, whose `weight` is the one that it computes with, W + (alpha / rank) B A.

    TransformerLens computes some values from `weight` and not by a call (`hook_result`), and shows it
    (`W_Q`, `W_out`). The layer's state is that of the linear map inside, under the same names: what it
    adds is the adapter's.
    """

    shows_effective_weights = True

    @property
    def weight(self) -> Tensor:
        """The effective weight, laid out as the linear map's."""
        linear: Any = self.get_base_layer()
        base: Tensor = linear.weight
        return base + self.get_delta_weight(NAME).to(base.dtype)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The state of the linear map inside."""
        return self.get_base_layer().state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name, value in super().state_dict().items():
            given = state_dict.pop(prefix + name.removeprefix("base_layer."), None)
            state_dict[prefix + name] = value if given is None else given
        super()._load_from_state_dict(state_dict, prefix, *args)


class AdaptedLinear(_Adapted, nn.Linear):  # type: ignore[misc, override]
    """Around an `nn.Linear`; TransformerLens tells by the class how `weight` is laid out."""


class Conv1D(_Adapted, pytorch_utils.Conv1D):  # type: ignore[misc]
    """Around a Conv1D; in places TransformerLens goes by the class's name."""


def lora_layers(
    linears: dict[str, nn.Module], ranks: dict[str, tuple[int, float]]
) -> dict[str, AdaptedLinear | Conv1D]:
    """LoRA layers around linear maps, which are left where they are.

    Args:
        linears: By name.
        ranks: Rank and alpha, by name.
    """
    keys = {name: name.replace(".", "-") for name in linears}
    holder = nn.ModuleDict({keys[name]: linear for name, linear in linears.items()})
    flags = [(weight, weight.requires_grad) for weight in holder.parameters()]
    config = peft.LoraConfig(
        r=1,
        lora_alpha=1,
        target_modules=list(keys.values()),
        rank_pattern={keys[name]: rank for name, (rank, _) in ranks.items()},
        alpha_pattern={keys[name]: alpha for name, (_, alpha) in ranks.items()},
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft says that it finds out by itself how a Conv1D is laid out.
        warnings.simplefilter("ignore")
        peft.inject_adapter_in_model(config, holder)
    for weight, flag in flags:
        weight.requires_grad_(flag)
    layers = {}
    for name, key in keys.items():
        layer: Any = holder[key]
        around = isinstance(layer.get_base_layer(), pytorch_utils.Conv1D)
        layer.__class__ = Conv1D if around else AdaptedLinear  # they differ in methods only
        for factor in (layer.lora_A[NAME], layer.lora_B[NAME]):
            if factor.weight.dtype in (torch.float16, torch.bfloat16):  # as peft's get_peft_model
                factor.float()
        layers[name] = layer
    return layers
