"""The numbers that rules about training on differences read, for their intervals and power."""

from collections.abc import Callable, Sequence

from interp.studies.differences_measured import (
    LARGEST,
    RANDOM,
    SMALLEST,
    UNIFORM,
    Seed,
)
from interp.studies.power import Number

Read = Callable[[Seed], float | None]


def number(what: str, read: Read, *against: float) -> Number[Sequence[Seed]]:
    """A number of each seed; seeds that have none are left out.

    Args:
        what: What it is.
        read: From a seed to its value.
        against: The thresholds of the rule.
    """

    def values(seeds: Sequence[Seed]) -> list[float]:
        return [value for seed in seeds if (value := read(seed)) is not None]

    return Number(what, values, against)


def saved(share: float) -> Read:
    """How many times fewer examples the best k needs than plain training."""

    def read(seed: Seed) -> float | None:
        found = [one for name in seed.largest() if (one := seed.times(name, share)) is not None]
        return max(found) if found else None

    return read


def arithmetic(share: float, fewer: float) -> Read:
    """How many times the arithmetic of plain training that k needs, where it saves at least `fewer` of it."""

    def read(seed: Seed) -> float | None:
        name = seed.best(share)
        if name is None or (seed.times(name, share) or 0) < 1 + fewer:
            return None
        times = seed.times(name, share, of="arithmetic")
        return 1 / times if times else None

    return read


def times(condition: str, share: float, of: str = "examples") -> Read:
    """How many times less a condition needs than plain training."""
    return lambda seed: seed.times(condition, share, of=of)


def worse(share: float) -> Read:
    """How many times the examples of random candidates the smallest loss needs."""

    def read(seed: Seed) -> float | None:
        random, smallest = seed.cost(RANDOM, share), seed.cost(SMALLEST, share)
        return smallest / random if random and smallest is not None else None

    return read


def against_uniform(data: str, share: float) -> Read:
    """How many times as much the largest loss saves on other data as where everybody is equally likely.

    Seeds in which plain training never gets there have a bound, and no number.
    """

    def read(seed: Seed) -> float | None:
        uniform, other = seed.times(LARGEST, share, UNIFORM), seed.times(LARGEST, share, data)
        return other / uniform if uniform and other is not None else None

    return read


def kept_more(one: tuple[str, str, bool], other: tuple[str, str, bool], learned: float) -> Read:
    """By how much more of the old one way of fine-tuning keeps than another, where both learn the new."""

    def read(seed: Seed) -> float | None:
        if one not in seed.tuned or other not in seed.tuned:
            return None
        if min(seed.tuned[one][2], seed.tuned[other][2]) < learned:
            return None
        return seed.tuned[one][1] - seed.tuned[other][1]

    return read
