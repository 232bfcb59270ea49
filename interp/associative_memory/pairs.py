"""The pairs to be remembered, and which of them are shown when.

Everything is drawn by NumPy generators seeded with the run's seed and a number for what is drawn, so
that two runs of one seed share values, old pairs and samples whatever else they differ in.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.associative_memory.config import AssociativeMemoryConfig

_VALUES, _OLD, _NEW, _PRETRAINING, _FINETUNING = range(5)
BLOCK = 1000
"""Steps whose samples are drawn at once."""


@dataclass(frozen=True)
class Pairs:
    """Keys, each with one of the values; both are points on the unit sphere.

    Attributes:
        keys: The keys.
        values: The values.
        answers: Which value belongs to each key.
        n_old: So many pairs are old, the first ones; the others are new.
    """

    keys: Float[Tensor, "pair d_model"]
    values: Float[Tensor, "value d_model"]
    answers: Int[Tensor, " pair"]
    n_old: int

    @classmethod
    def draw(cls, config: AssociativeMemoryConfig) -> "Pairs":
        """The pairs of a run: old ones, then new ones; keys are drawn uniformly on the sphere."""
        model, n_old = config.model, config.pretraining.n_pairs
        parts = []
        for stream, count in ((_OLD, n_old), (_NEW, config.finetuning.n_new)):
            generator = np.random.default_rng([config.seed, stream])
            answers = generator.integers(model.n_values, size=count)
            parts.append((_on_sphere(generator, count, model.d_model), answers))
        values = _on_sphere(
            np.random.default_rng([config.seed, _VALUES]), model.n_values, model.d_model
        )
        return cls(
            torch.from_numpy(np.concatenate([keys for keys, _ in parts])),
            torch.from_numpy(values),
            torch.from_numpy(np.concatenate([answers for _, answers in parts])),
            n_old,
        )

    def split(self, name: str) -> slice:
        """Which pairs are "old", or "new"."""
        return slice(0, self.n_old) if name == "old" else slice(self.n_old, None)


def pretraining_samples(
    config: AssociativeMemoryConfig, block: int
) -> Int[np.ndarray, "step sample"]:
    """Which pairs are shown in a block of `BLOCK` pre-training steps: old ones, uniformly."""
    generator = np.random.default_rng([config.seed, _PRETRAINING, block])
    return generator.integers(config.pretraining.n_pairs, size=(BLOCK, config.optimizer.batch_size))


def finetuning_samples(
    config: AssociativeMemoryConfig, block: int
) -> Int[np.ndarray, "step sample"]:
    """Which pairs are shown in a block of `BLOCK` fine-tuning steps.

    Each sample by itself is an old pair with probability w n_pairs / (w n_pairs + n_new), where w is
    the replay weight, and else a new one; within either every pair is equally likely.
    """
    generator = np.random.default_rng([config.seed, _FINETUNING, block])
    n_old, n_new = config.pretraining.n_pairs, config.finetuning.n_new
    size = (BLOCK, config.optimizer.batch_size)
    old = generator.random(size) < config.replay_share
    return np.where(
        old, generator.integers(n_old, size=size), n_old + generator.integers(n_new, size=size)
    )


def _on_sphere(
    generator: np.random.Generator, count: int, width: int
) -> Float[np.ndarray, "point d_model"]:
    points = generator.standard_normal((count, width))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32)
