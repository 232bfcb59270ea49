"""What to train: the settings of one associative memory, as frozen pydantic models.

The defaults are the paper's own size (Appendix Q and R). What our summary of the paper
leaves open is decided here and said in the docstrings: the loss (`model`), biases, AdamW's β, how
many pairs are new, and that fine-tuning begins with a fresh optimizer (`training`).
"""

from pydantic import Field

from interp.config import MAX_SEED, RunConfig, Settings


class MemoryModelConfig(Settings):
    """One hidden layer between keys and values."""

    d_model: int = Field(default=64, ge=2, le=10**5)
    """Width of keys and values."""
    n_hidden: int = Field(default=256, ge=1, le=10**6)
    """Hidden ReLU units, each with a key of its own (input weights) and a value (output weights)."""
    n_values: int = Field(default=30, ge=2, le=10**6)
    """Different values; each key has one of them, uniformly drawn."""
    biases: bool = True
    """Whether the hidden units and the output have biases."""


class MemoryOptimizerConfig(Settings):
    """AdamW, in pre-training and in fine-tuning."""

    batch_size: int = Field(default=128, ge=1, le=10**7)
    """Pairs per step, drawn with replacement."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's β1."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's β2."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay, on weights (not on biases)."""


class PretrainingConfig(Settings):
    """The first phase: learning the old pairs."""

    n_pairs: int = Field(default=8192, ge=1, le=10**8)
    """Old pairs."""
    n_steps: int = Field(default=16_000, ge=1, le=10**9)
    """Optimizer steps."""
    learning_rate: float = Field(default=0.03, gt=0)
    """Learning rate at the first step; it falls to 0 as a cosine, without warm-up."""
    evaluate_every: int = Field(default=250, ge=1)
    """Steps between measurements on all pairs; the last step is measured too."""

    def measured_steps(self) -> list[int]:
        """The steps at which all pairs are measured."""
        return sorted({*range(0, self.n_steps + 1, self.evaluate_every), self.n_steps})


class MemoryFinetuningConfig(Settings):
    """The second phase: learning new pairs, from the weights of the first."""

    n_new: int = Field(default=1024, ge=1, le=10**8)
    """New pairs, with the same values."""
    n_steps: int = Field(default=4000, ge=1, le=10**9)
    """Optimizer steps."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate, constant."""
    replay_weight: float | None = Field(default=None, gt=0)
    """How likely each old pair is, against 1 for each new one; without, only new pairs are shown."""
    evaluate_every: int = Field(default=250, ge=1)
    """Steps between measurements on all pairs; the last step is measured too."""
    fine_until: int = Field(default=500, ge=0)
    """Up to this step measurements are closer, as forgetting is fastest at first."""
    fine_every: int = Field(default=25, ge=1)
    """Steps between those."""

    def measured_steps(self) -> list[int]:
        """The steps at which all pairs are measured."""
        fine = range(0, min(self.fine_until, self.n_steps) + 1, self.fine_every)
        return sorted({*fine, *range(0, self.n_steps + 1, self.evaluate_every), self.n_steps})


class AssociativeMemoryConfig(RunConfig):
    """One run: pre-training on old pairs, then fine-tuning on new ones."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of pairs, initial weights and samples."""
    model: MemoryModelConfig = MemoryModelConfig()
    """One hidden layer between keys and values."""
    optimizer: MemoryOptimizerConfig = MemoryOptimizerConfig()
    """AdamW."""
    pretraining: PretrainingConfig = PretrainingConfig()
    """Learning the old pairs."""
    finetuning: MemoryFinetuningConfig = MemoryFinetuningConfig()
    """Learning new pairs afterwards."""

    @property
    def replay_share(self) -> float:
        """Which share of fine-tuning's samples are old pairs, on average."""
        weight = self.finetuning.replay_weight or 0.0
        old = weight * self.pretraining.n_pairs
        return old / (old + self.finetuning.n_new)
