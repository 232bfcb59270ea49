"""The base of a fine-tuned run: the run whose weights its training starts from."""

from typing import TYPE_CHECKING

from transformer_lens.model_bridge import TransformerBridge

from interp.config import CompiledConfig, Config, ContradictionConfig, SelectionConfig
from interp.errors import RunError
from interp.run.adapters import adapter_steps
from interp.run.checkpoints import fingerprint, load_checkpoint
from interp.run.other_run import require_fit, with_fingerprint

if TYPE_CHECKING:
    from interp.run.run import Run


def resolve_base(config: Config, base: "Run | None") -> Config:
    """The settings with the base's fingerprint filled in, once it is known to fit.

    Args:
        config: Settings of the run to train.
        base: The run that `config.finetuning.base` names; None without fine-tuning.

    Raises:
        RunError: the base is not finished, has another architecture, vocabulary or population, or is
            not the run it was when this one was first trained.
    """
    if base is None:
        return config
    if not base.finished:
        raise RunError(
            f"The base {base.given} has not been trained to its end; `interp train --resume` does."
        )
    require_fit(
        config,
        base,
        "The weights",
        "Start from the base's own settings (`interp.finetuned(run.config, ...)` does).",
        "; new people are those that its population holds out",
    )
    step = config.finetuning.base_step
    if step is not None and step not in base.steps:
        raise RunError(
            f"The base {base.given} has no checkpoint at step {step}; it has {base.steps}. Choose one "
            "of them as finetuning.base_step."
        )
    begin = base_step(config, base)
    if begin in adapter_steps(base.path):
        raise RunError(
            f"The base {base.given} has an adapter at step {begin}, beside weights that do not have what was "
            "learned meanwhile. Choose a step before or after that stage as finetuning.base_step."
        )
    return with_fingerprint(config, "base", base)


def base_step(config: Config, base: "Run") -> int:
    """The checkpoint of the base that training starts from."""
    step = config.finetuning.base_step
    return base.steps[-1] if step is None else step


def load_base(config: Config, base: "Run", model: TransformerBridge) -> None:
    """Gives a model the weights that fine-tuning starts from; raises as `load_checkpoint`."""
    load_checkpoint(base.path, base_step(config, base), model, base.config)


def finetuned(base: Config, **settings: object) -> Config:
    """The settings of a run that goes on from a finished one: the base's own, then fine-tuning.

    The learning rate is constant, a fifth of the base's by default (the paper: 3e-5 after 4e-4), for a
    third of its steps.

    Args:
        base: Settings of the base run, e.g. `run.config`.
        settings: Changes by dotted name, e.g. `**{"finetuning.base": str(run.path),
            "finetuning.replay_weight": 0.5}`; `finetuning.base` is the base's folder.

    Raises:
        ConfigError: a name is unknown, or a value cannot work.
    """
    n_steps = max(1, base.training.n_steps // 3)
    defaults = {
        "sampling": {"kind": "uniform"},
        "finetuning.base_run": fingerprint(base),
        "merging": {"of": None, "factors": None},
        "compiled": CompiledConfig(),
        "optimizer.schedule": "constant",
        "optimizer.learning_rate": base.optimizer.learning_rate / 5,
        "training.n_steps": n_steps,
        "training.stop_at": None,
        "training.stop_below": None,
        "training.early_checkpoints": (0,),
        "training.checkpoint_every": max(1, n_steps // 5),
        "evaluation.splits": None,
        "data.stages": None,
        "data.vocabulary": base.data.forms or None,
        "data.contradictions": ContradictionConfig(),
        "adapter": {"rank": None, "alpha": None, "sites": None},
        "selection": SelectionConfig(),
    }
    return base.with_settings(**(defaults | settings))
