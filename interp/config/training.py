"""How a run is trained: the optimizer, the loop, what is measured meanwhile and where that goes."""

from typing import Literal

from pydantic import Field, model_validator

from interp.config.base import MAX_SEED, Settings
from interp.errors import ConfigError

MAX_STEPS = 10**9
_MOST_CHECKPOINTS = 100_000


class OptimizerConfig(Settings):
    """AdamW and its learning rate."""

    learning_rate: float = Field(default=1.5e-3, gt=0)
    """Learning rate at the first step."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """"cosine": from the learning rate to 0 over the run, no warm-up. "constant": as it says."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's β1."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's β2."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW's weight decay, on weight matrices and embeddings (not on biases and norms)."""


class TrainingConfig(Settings):
    """The training loop."""

    n_steps: int = Field(default=1500, ge=1, le=MAX_STEPS)
    """Optimizer steps."""
    batch_size: int = Field(default=32, ge=1, le=10**7)
    """Biographies per step."""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """Seed of who comes when, in which wording; by default the run's seed."""
    device: str = "auto"
    """"auto" takes CUDA, then MPS, then the CPU; or "cpu", "cuda", "cuda:1", "mps"."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """"bf16" computes under autocast; "auto" does where the hardware has bf16, else fp32."""
    early_checkpoints: tuple[int, ...] = (0, 5, 10, 20, 30, 40, 75, 125, 175, 225, 275)
    """Steps with a checkpoint beside the regular ones."""
    checkpoint_every: int = Field(default=50, ge=1)
    """A checkpoint every so many steps, and at the last one."""
    stop_below: float | None = Field(default=None, gt=0, lt=1)
    """Stop once the evaluation attribute loss is below this share of the no-knowledge baseline."""
    stop_at: int | None = Field(default=None, ge=1)
    """Stop at this step; the learning rate falls as if the run went on to n_steps."""

    @model_validator(mode="after")
    def _checkpoints_inside(self) -> "TrainingConfig":
        if any(step < 0 for step in self.early_checkpoints):
            raise ConfigError(
                f"training: early_checkpoints={self.early_checkpoints} holds a negative step; "
                "steps count from 0."
            )
        if (regular := self.last_step // self.checkpoint_every) > _MOST_CHECKPOINTS:
            raise ConfigError(
                f"training: {self.last_step:,} steps with checkpoint_every={self.checkpoint_every} are "
                f"{regular:,} checkpoints, of at most {_MOST_CHECKPOINTS:,}; make checkpoint_every larger."
            )
        return self

    @property
    def last_step(self) -> int:
        """The step at which training ends: `stop_at` if that comes first, else `n_steps`."""
        return self.n_steps if self.stop_at is None else min(self.stop_at, self.n_steps)

    def checkpoint_steps(self) -> set[int]:
        """The steps with a checkpoint, if the run reaches its last step."""
        last = self.last_step
        regular = set(range(0, last + 1, self.checkpoint_every))
        return {s for s in self.early_checkpoints if s <= last} | regular | {last}


class EvaluationConfig(Settings):
    """What is measured while training."""

    every: int = Field(default=25, ge=1)
    """Steps between measurements."""
    n_individuals: int = Field(default=256, ge=1)
    """People measured per split (the first so many; all, if fewer exist). One biography each."""
    log_every: int = Field(default=5, ge=1)
    """Steps between records of the training loss."""
    splits: tuple[Literal["train", "evaluation", "held_out", "finetuned"], ...] | None = None
    """What is measured while training; all by default. "evaluation" belongs to it always. "finetuned"
    are the people of fine-tuning, in wordings never seen with them; the others are without them."""

    @model_validator(mode="after")
    def _phases_can_be_found(self) -> "EvaluationConfig":
        if self.splits is not None and "evaluation" not in self.splits:
            raise ConfigError(
                f"evaluation: splits={self.splits} leaves out 'evaluation', on which the phases are "
                "found; add it."
            )
        return self


class LoggingConfig(Settings):
    """Where else the metrics go. Does not change the run."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases: off, written into the run's folder, or sent to its server."""
    wandb_project: str = "interp"
    """The Weights & Biases project."""
