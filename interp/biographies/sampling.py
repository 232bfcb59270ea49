"""Sampling distributions: which individual comes next in training.

A distribution is one class with one method, so that others (celebrities, warm-up, replay, ...) join
by adding a kind to `config.SamplingConfig` and a line to `sampler`.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from interp.config import SamplingConfig


@runtime_checkable
class Sampler(Protocol):
    """Draws the individuals of a batch."""

    def draw(
        self, generator: np.random.Generator, step: int, size: int
    ) -> Integer[np.ndarray, " {size}"]:
        """The `size` individuals of training step `step`, from this generator's stream only."""


class Uniform:
    """Every one of `n` individuals is equally likely."""

    def __init__(self, n: int) -> None:
        self.n = n

    def draw(
        self, generator: np.random.Generator, step: int, size: int
    ) -> Integer[np.ndarray, " {size}"]:
        """See `Sampler.draw`."""
        return generator.integers(0, self.n, size=size)


class PowerLaw:
    """Individual i (from 1) of `n` has probability proportional to i^-exponent.

    Source: paper, section 4 and Fig. 4.
    """

    def __init__(self, n: int, exponent: float) -> None:
        weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
        self.probabilities: Float[np.ndarray, " individual"] = weights / weights.sum()
        self._cumulative = np.cumsum(self.probabilities)
        self._cumulative[-1] = 1.0

    def draw(
        self, generator: np.random.Generator, step: int, size: int
    ) -> Integer[np.ndarray, " {size}"]:
        """See `Sampler.draw`."""
        return np.searchsorted(self._cumulative, generator.random(size), side="right")


def sampler(config: SamplingConfig, n_individuals: int) -> Sampler:
    """The sampler that a configuration asks for, over the first `n_individuals` people."""
    if config.kind == "power_law":
        assert config.exponent is not None  # the settings see to that
        return PowerLaw(n_individuals, config.exponent)
    return Uniform(n_individuals)
