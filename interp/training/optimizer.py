"""AdamW, its learning rate over the run, and its state by parameter name."""

import math

import torch
from torch import Tensor, nn

from interp.config import Config, OptimizerConfig
from interp.errors import CheckpointError, short

Parameters = dict[str, nn.Parameter]
"""What is trained, by name."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of the update that leaves `step`: cosine to 0 without warm-up, or constant.

    A stage with a learning rate of its own has the schedule to itself, from its beginning to its end.
    """
    optimizer, n_steps = config.optimizer, config.training.n_steps
    rate = optimizer.learning_rate
    stage = config.data.stage_at(step)
    if stage is not None and stage.learning_rate is not None:
        n_steps = config.data.stage_end(stage, n_steps) - stage.start
        rate, step = stage.learning_rate, step - stage.start
    if optimizer.schedule == "constant":
        return rate
    return rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def adamw(parameters: Parameters, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over parameters by name; only matrices decay, not biases and norms."""
    # The biases of a recurrent model's gates have two axes, one for the block of the gate.
    matrices = {n: p for n, p in parameters.items() if p.ndim >= 2 and not n.endswith("bias")}
    others = [p for n, p in parameters.items() if n not in matrices]
    groups = [
        {"params": list(matrices.values()), "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    device = next(iter(parameters.values())).device
    on_card = device.type == "cuda"  # there the rate is a number of the card's, which a graph reads
    rate = torch.tensor(config.learning_rate, device=device) if on_card else config.learning_rate
    optimizer = torch.optim.AdamW(
        groups,
        lr=rate,
        betas=(config.beta1, config.beta2),
        fused=device.type in ("cpu", "cuda"),
        capturable=on_card,
    )
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def set_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Sets the learning rate of the next update."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def optimizer_tensors(parameters: Parameters, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The moments of every parameter, named `exp_avg.<parameter>` and so on."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in parameters.items()
        for moment in _MOMENTS
        if parameter in optimizer.state
    }


def load_optimizer_tensors(
    parameters: Parameters, optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`.

    Raises:
        CheckpointError: a parameter has some of its moments only, or the tensors are of others.
    """
    fused = bool(optimizer.defaults["fused"])  # only then do step counts live on the device
    left = dict(tensors)
    state: dict[Tensor, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
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
