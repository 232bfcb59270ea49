"""How the claims about training on differences are decided, seed by seed; None where a seed cannot tell."""

from interp.studies.differences_measured import (
    CONTRADICTED,
    CONTRADICTORY,
    CONTRAST,
    LARGEST,
    PLAIN,
    RANDOM,
    SMALLEST,
    UNEVEN,
    UNIFORM,
    WRONG,
    Seed,
)


def fewer(seed: Seed, times: float, share: float) -> bool | None:
    """Whether the best k needs so many times fewer examples than plain training."""
    found = [one for name in seed.largest() if (one := seed.times(name, share)) is not None]
    return max(found) >= times if found else None


def costs_more(seed: Seed, fewer: float, more: float, share: float) -> bool | None:
    """Whether the k that needs the fewest examples needs more arithmetic than plain training."""
    name = seed.best(share)
    if name is None:
        return None
    saved, arithmetic = seed.times(name, share), seed.times(name, share, of="arithmetic")
    if saved is None or not arithmetic or saved < 1 + fewer:
        return None
    return 1 / arithmetic >= 1 + more


def alike(seed: Seed, within: float, share: float) -> bool | None:
    """Whether random candidates need as many examples as plain training."""
    times = seed.times(RANDOM, share)
    return None if times is None else 1 / (1 + within) <= times <= 1 + within


def worse(seed: Seed, more: float, share: float) -> bool | None:
    """Whether the smallest loss needs more examples than random candidates."""
    random, smallest = seed.cost(RANDOM, share), seed.cost(SMALLEST, share)
    if random is None or smallest is None or random == float("inf"):
        return None
    return smallest >= (1 + more) * random


def faster(seed: Seed, sooner: float, share: float) -> bool | None:
    """Whether contrast needs fewer examples than plain training."""
    times = seed.times(CONTRAST, share)
    return None if times is None else times * (1 - sooner) >= 1


def enough(seed: Seed, fewer: float, later: float, share: float) -> bool | None:
    """Whether wrong values alone are fewer values, in about as many steps."""
    values, steps = (seed.times(WRONG, share, of=of) for of in ("values", "step"))
    if values is None or steps is None:
        return None
    return values >= fewer and steps * (1 + later) >= 1


def rare(seed: Seed, more: float, share: float) -> bool | None:
    """Whether the largest loss saves more with uneven data than with uniform."""
    uniform, uneven = seed.times(LARGEST, share), seed.at_least(LARGEST, share, UNEVEN)
    if not uniform or uneven is None:
        return None
    exact = seed.times(LARGEST, share, UNEVEN) is not None
    return True if uneven >= (1 + more) * uniform else False if exact else None


def hurts(seed: Seed, less: float, known: float) -> bool | None:
    """Whether fewer contradicted values are known with the largest loss."""
    plain, largest = (seed.known.get((CONTRADICTORY, n, CONTRADICTED)) for n in (PLAIN, LARGEST))
    if plain is None or largest is None or plain < known:
        return None
    return plain - largest >= less


def saves_less(seed: Seed, less: float, share: float) -> bool | None:
    """Whether the largest loss saves less with contradictory data than with uniform."""
    clean, noisy = (seed.times(LARGEST, share, data) for data in (UNIFORM, CONTRADICTORY))
    return None if not clean or noisy is None else noisy <= (1 - less) * clean


def adapter(
    seed: Seed, learned: float, kept: float, known: float, replay: bool = False
) -> bool | None:
    """Whether an adapter of some rank learns the new and keeps the old."""
    found = [of for of in seed.ranks(WRONG, replay) if of[1] >= known]
    if not found:
        return None
    return any(new >= learned and old >= kept * before for _, before, old, new in found)


def keeps_more(
    one: tuple[str, str, bool],
    other: tuple[str, str, bool],
    seed: Seed,
    more: float,
    learned: float,
) -> bool | None:
    """Whether one way of fine-tuning keeps more of the old than another, if both learn the new."""
    ends = [seed.tuned.get(key) for key in (one, other)]
    if ends[0] is None or ends[1] is None or min(end[2] for end in ends if end) < learned:
        return None
    return ends[0][1] - ends[1][1] >= more
