"""What the study of training on differences measured, as text for its claims."""

from collections.abc import Callable, Iterable, Sequence

from interp.seeds import number_of, spread
from interp.studies.differences_measured import ALL_WEIGHTS, LARGEST, PLAIN, WRONG, Seed

Words = Callable[[Sequence[Seed]], str]


def _spread(values: Iterable[float | None], form: str) -> str:
    return spread([value for value in values if value is not None], form)


def costs(share: float, *conditions: str, of: str = "examples") -> Words:
    """What it cost until a share was known; seeds that never got there are counted."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for condition in conditions:
            found = [
                cost for seed in seeds if (cost := seed.cost(condition, share, of=of)) is not None
            ]
            reached = [cost for cost in found if cost != float("inf")]
            said = [] if found and not reached else [_spread(reached, ",.0f")]
            if len(reached) < len(found):
                said.append(f"never in {len(found) - len(reached)} of {len(found)} seeds")
            parts.append(f"{condition}: {', '.join(said)}")
        return f"{of} until {share:.0%} known: {'; '.join(parts)}"

    return words


def savings(share: float) -> Words:
    """How many times fewer examples, and how much arithmetic, selecting the largest loss takes."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for name in dict.fromkeys(name for seed in seeds for name in seed.largest()):
            fewer, less = (
                [times for seed in seeds if (times := seed.times(name, share, of=of)) is not None]
                for of in ("examples", "arithmetic")
            )
            if not fewer or min(fewer) == 0:
                parts.append(f"{name}: not known in every seed, or not with plain training")
                continue
            more = [1 / times for times in less]
            said = (
                f"{name}: {_spread(fewer, '.2f')} times fewer examples at {_spread(more, '.2f')} times "
                "the arithmetic"
            )
            if min(fewer) > 1 and min(more) > 1:
                said += ", a saving in examples that costs more arithmetic"
            parts.append(said)
        return f"until {share:.0%} known, against plain: {'; '.join(parts) or 'not measured'}"

    return words


def by_data(share: float, *data: str) -> Words:
    """How many times fewer examples the largest loss of 4 takes, by data."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for name in data:
            found = [seed.at_least(LARGEST, share, name) for seed in seeds]
            never = [seed for seed in seeds if seed.cost(PLAIN, share, name) == float("inf")]
            said = f"{name}: {_spread(found, '.2f')}"
            if never:
                said += f", never known with plain training in {number_of(len(never), 'seed')}"
                said += " (at least, there)" * (found != [None] * len(seeds))
            parts.append(said)
        return f"times fewer examples until {share:.0%} known, {LARGEST}: {'; '.join(parts)}"

    return words


def known(data: str, *groups: str) -> Words:
    """Accuracy of groups at the end, of plain training and of the largest loss of 4."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = [
            f"{group}, {name} {_spread((seed.known.get((data, name, group)) for seed in seeds), '.1%')}"
            for group in groups
            for name in (PLAIN, LARGEST)
        ]
        return f"known at the end: {'; '.join(parts)}"

    return words


def both(*said: Words) -> Words:
    """One after the other."""
    return lambda seeds: ". ".join(words(seeds) for words in said)


def ends(*which: tuple[str, str, bool]) -> Words:
    """Accuracy on new and old people at the end of fine-tuning (see `Seed.tuned`)."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for key in which:
            found = [seed.tuned[key] for seed in seeds if key in seed.tuned]
            old, new = (_spread([of[i] for of in found], ".1%") for i in (1, 2))
            parts.append(f"{key[0]}, {key[1]}{', replay' * key[2]}: new {new}, old {old}")
        return "; ".join(parts)

    return words


def adapters(replay: bool) -> Words:
    """The same of adapters of each rank and of all weights, trained on values predicted wrong."""

    def words(seeds: Sequence[Seed]) -> str:
        names = dict.fromkeys(of[0] for seed in seeds for of in seed.ranks(WRONG, replay))
        return ends(*((name, WRONG, replay) for name in (*names, ALL_WEIGHTS)))(seeds)

    return words
