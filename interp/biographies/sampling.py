"""Sampling distributions: which individual comes next in training.

A distribution is one class with one method, so that others join by adding a kind to
`config.SamplingConfig` and a line to `sampler`. Each is a function of the step and of a generator that
is seeded with it, so that a batch needs no saved state. What the adaptive schedule shows depends on
the run: its `Stages` are written down in the run's metrics, and read from there.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from interp.config import Config
from interp.errors import ArgumentError, whole_number

Individuals = Integer[np.ndarray, " individual"]
Drawn = Integer[np.ndarray, " {size}"]


@runtime_checkable
class Sampler(Protocol):
    """Draws the individuals of a batch."""

    def draw(self, generator: np.random.Generator, step: int, size: int) -> Drawn:
        """The `size` individuals of training step `step`, from this generator's stream only."""


class Uniform:
    """Everyone from individual `start` on, `n` in all, is equally likely."""

    def __init__(self, n: int, start: int = 0) -> None:
        self.n = whole_number(n, "n", 1)
        self.start = whole_number(start, "start", 0)

    def draw(self, generator: np.random.Generator, step: int, size: int) -> Drawn:
        """See `Sampler.draw`."""
        return generator.integers(self.start, self.start + self.n, size=size)


class Weighted:
    """Each individual is as likely as its weight says."""

    def __init__(self, weights: Float[np.ndarray, " individual"]) -> None:
        if not len(weights) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise ArgumentError(
                f"The weights {weights[:8].tolist()} of {len(weights)} people make no probabilities; give "
                "numbers from 0, not all of them 0, for at least one person."
            )
        self.probabilities: Float[np.ndarray, " individual"] = weights / weights.sum()
        self._cumulative = np.cumsum(self.probabilities)
        self._cumulative[-1] = 1.0

    def draw(self, generator: np.random.Generator, step: int, size: int) -> Drawn:
        """See `Sampler.draw`."""
        return np.searchsorted(self._cumulative, generator.random(size), side="right")


def power_law(n: int, exponent: float) -> Weighted:
    """Individual i (from 1) of `n` has probability proportional to i^-exponent (paper, Fig. 4)."""
    return Weighted(np.arange(1, n + 1, dtype=np.float64) ** -exponent)


def celebrities(n: int, n_celebrities: int, weight: float) -> Weighted:
    """The first `n_celebrities` of `n` are `weight` times likelier than the rest (paper, Fig. H)."""
    weights = np.ones(n)
    weights[:n_celebrities] = weight
    return Weighted(weights)


class Replay:
    """Fine-tuning on some people (weight 1 each) while others are replayed (`weight` each, if any)."""

    def __init__(
        self,
        people: Individuals,
        others: Integer[np.ndarray, " others"],
        weight: float | None,
    ) -> None:
        self.people = people
        self.others = others
        replayed = (weight or 0.0) * len(others)
        self.share = replayed / (replayed + len(people))
        """Of the biographies, how many are about others."""

    def draw(self, generator: np.random.Generator, step: int, size: int) -> Drawn:
        """See `Sampler.draw`."""
        replayed = generator.random(size) < self.share
        place = generator.random(size)
        drawn = self.people[(place * len(self.people)).astype(np.int64)]
        if self.share:
            others = self.others[(place * len(self.others)).astype(np.int64)]
            drawn = np.where(replayed, others, drawn)
        return drawn


class Stages:
    """A schedule: one sampler from each of some steps on (the first is 0), until the next begins."""

    def __init__(self, steps: Sequence[int], samplers: Sequence[Sampler]) -> None:
        if not steps or steps[0] != 0 or len(steps) != len(samplers):
            raise ArgumentError(
                f"{len(samplers)} stages beginning at steps {steps}; the first is 0"
            )
        self.steps = list(steps)
        self.samplers = list(samplers)

    def at(self, step: int) -> Sampler:
        """The sampler of a step."""
        return self.samplers[bisect_right(self.steps, step) - 1]

    def begin(self, step: int, sampler: Sampler) -> None:
        """Adds a stage that begins at a step, after all others."""
        self.steps.append(step)
        self.samplers.append(sampler)

    def draw(self, generator: np.random.Generator, step: int, size: int) -> Drawn:
        """See `Sampler.draw`."""
        return self.at(step).draw(generator, step, size)


def group(n: int, n_groups: int, index: int) -> slice:
    """The individuals of one of `n_groups` groups of nearly equal size, in order."""
    n_groups = whole_number(n_groups, "n_groups", 1)
    return slice(n * index // n_groups, n * (index + 1) // n_groups)


def sequential(n: int, n_groups: int, n_repeats: int, n_steps: int) -> Stages:
    """Groups one after the other, `n_repeats` times, each for an equal share of `n_steps`.

    Source: paper, Figs. S to X.
    """
    turns = whole_number(n_groups, "n_groups", 1) * whole_number(n_repeats, "n_repeats", 1)
    stages = {}
    for turn in range(turns):  # with more turns than steps, the last that begins at a step counts
        of_turn = group(n, n_groups, turn % n_groups)
        begin = n_steps * turn // turns
        stages[begin] = Uniform(of_turn.stop - of_turn.start, of_turn.start)
    return Stages(list(stages), list(stages.values()))


def finetuned_individuals(config: Config) -> Individuals:
    """Whom fine-tuning is on: nobody without fine-tuning, or where it is on the same people."""
    count, n = config.n_finetuned, config.population.n_individuals
    first = n if config.finetuning.people == "new" else n - count
    return np.arange(first, first + count)


def sampler(config: Config, stages: Sequence[tuple[int, int]] = ()) -> Sampler:
    """The sampler of a run; `stages`: when an adaptive schedule showed more people, and how many."""
    n = config.population.n_individuals
    if config.finetuning.on and config.finetuning.people != "same":
        people = finetuned_individuals(config)
        others = np.setdiff1d(np.arange(n), people)
        return Replay(people, others, config.finetuning.replay_weight)
    sampling: Any = config.sampling  # each kind has the settings that it needs
    match sampling.kind:
        case "power_law":
            return power_law(n, sampling.exponent)
        case "celebrities":
            return celebrities(n, sampling.n_celebrities, sampling.weight_celebrities)
        case "warm_up":
            until = round(sampling.epochs_warmup * n / config.training.batch_size)
            if until == 0:
                return Uniform(n)
            return Stages([0, until], [Uniform(sampling.indiv_warmup), Uniform(n)])
        case "sequential":
            n_steps = config.training.n_steps
            return sequential(n, sampling.n_groups, sampling.n_repeats, n_steps)
        case "adaptive":
            begun = [(0, sampling.indiv_warmup), *stages]
            return Stages([step for step, _ in begun], [Uniform(count) for _, count in begun])
    return Uniform(n)
