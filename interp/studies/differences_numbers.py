"""The numbers that rules about training on differences read, for their intervals and power."""

from collections.abc import Callable

from interp.studies.differences_measured import (
    CONTRADICTED,
    CONTRADICTORY,
    LARGEST,
    PLAIN,
    RANDOM,
    SMALLEST,
    UNIFORM,
    WRONG,
    Seed,
)

Read = Callable[[Seed], float | None]


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


def times(condition: str, share: float) -> Read:
    """How many times fewer examples a condition needs than plain training."""
    return lambda seed: seed.times(condition, share)


def worse(share: float) -> Read:
    """The examples of random candidates, as a share of those that the smallest loss needs; 0 for never."""

    def read(seed: Seed) -> float | None:
        random, smallest = seed.cost(RANDOM, share), seed.cost(SMALLEST, share)
        if random is None or not smallest or random == float("inf"):
            return None
        return random / smallest

    return read


def enough(share: float, of: str) -> Read:
    """How many times less of something the loss on wrong values needs, where it is known of all."""

    def read(seed: Seed) -> float | None:
        counts = {one: seed.times(WRONG, share, of=one) for one in ("values", "step")}
        return None if None in counts.values() else counts[of]

    return read


def hurt(known: float) -> Read:
    """By how many contradicted values fewer the largest loss knows than plain training, as a share."""

    def read(seed: Seed) -> float | None:
        plain, largest = (
            seed.known.get((CONTRADICTORY, n, CONTRADICTED)) for n in (PLAIN, LARGEST)
        )
        return None if plain is None or largest is None or plain < known else plain - largest

    return read


def adapters(replay: bool, known: float, of: str) -> Callable[[Seed], dict[str, float]]:
    """What adapters know in the end, by rank: of the "new", or of the "old" as a share of before."""

    def read(seed: Seed) -> dict[str, float]:
        found = {name: ends for name, *ends in seed.ranks(WRONG, replay) if ends[0] >= known}
        return {
            name: new if of == "new" else old / before for name, (before, old, new) in found.items()
        }

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
