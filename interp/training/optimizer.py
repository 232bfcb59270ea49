"""AdamW, its learning rate over the run, and its state by parameter name."""

import math

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.config import OptimizerConfig
from interp.errors import CheckpointError, short

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def learning_rate(config: OptimizerConfig, step: int, n_steps: int) -> float:
    """The learning rate of the update that leaves `step`: cosine to 0 without warm-up, or constant."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def adamw(model: TransformerBridge, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over a model's parameters; only matrices decay, not biases and norms."""
    parameters = dict(model.named_parameters())
    # The biases of a recurrent model's gates have two axes, one for the block of the gate.
    matrices = {n: p for n, p in parameters.items() if p.ndim >= 2 and not n.endswith("bias")}
    others = [p for n, p in parameters.items() if n not in matrices]
    groups = [
        {"params": list(matrices.values()), "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )


def optimizer_tensors(model: TransformerBridge, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The moments of every parameter, named `exp_avg.<parameter>` and so on."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in _MOMENTS
        if parameter in optimizer.state
    }


def load_optimizer_tensors(
    model: TransformerBridge, optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`.

    Raises:
        CheckpointError: a parameter has some of its moments only, or the tensors are of another model.
    """
    fused = bool(optimizer.defaults["fused"])  # only then do step counts live on the device
    left = dict(tensors)
    state: dict[Tensor, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        moments = {m: left.pop(f"{m}.{name}") for m in _MOMENTS if f"{m}.{name}" in left}
        shapes = {"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": torch.Size()}
        if moments and {m: value.shape for m, value in moments.items()} != shapes:
            raise CheckpointError(f"the optimizer's moments of {name} do not fit")
        if moments:
            state[parameter] = {
                m: value.to(parameter.device if m != "step" or fused else "cpu")
                for m, value in moments.items()
            }
    if left:
        raise CheckpointError(f"it holds {short(min(left))}, which the model has not")
    optimizer.state.update(state)
