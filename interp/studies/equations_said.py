"""What the study of facts as equations measured, as text for its claims."""

from collections.abc import Callable, Iterable, Sequence

from interp.seeds import number_of, spread
from interp.studies.equations_measured import A_THEN_B, CONTROL
from interp.studies.equations_merged import BETWEEN, BOTH
from interp.studies.equations_rules import FIRST_ORDER, SECOND_ORDER, Seed

Words = Callable[[Sequence[Seed]], str]


def _spread(values: Iterable[float | None], form: str) -> str:
    return spread([value for value in values if value is not None], form)


def halfway(low: float, high: float) -> Words:
    """How many facts are halfway, where the mean of an attribute is from `low` to `high`."""

    def words(seeds: Sequence[Seed]) -> str:
        found = [of for seed in seeds if len(of := seed.halfway(low, high))]
        mean, middle, shape = (
            _spread((float(of[column].mean()) for of in found), ".2f")
            for column in ("mean", "middle", "bimodality")
        )
        return (
            f"at a mean residual of {mean} of the baseline, share of facts between: {middle}; Sarle's "
            f"coefficient: {shape} (uniform: 0.56)"
        )

    return words


def agreement(by: str) -> Words:
    """How much groups agree with themselves above the control, by phase."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = [
            f"{phase} {_spread((seed.agreement(by, phase) for seed in seeds), '.2f')}"
            for phase in ("statistics", "plateau", "knowledge")
        ]
        return (
            f"cosine of a group with itself in other wordings, less the control: {'; '.join(parts)}"
        )

    return words


def bits(exposures: int) -> Words:
    """The most bits a parameter, of all parameters and without embeddings."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for width in sorted({width for seed in seeds for width in seed.held(exposures)}):
            there = [seed for seed in seeds if width in seed.held(exposures)]
            every, inner = (
                _spread((seed.most(exposures, column)[width] for seed in there), ".2f")
                for column in ("bits_per_parameter", "bits_per_non_embedding")
            )
            last = [seed.held(exposures)[width].iloc[-1] for seed in there]
            share = _spread((1 - at["loss"] / at["baseline"] for at in last), ".0%")
            n = max(int(at["n_individuals"]) for at in last)
            parts.append(
                f"width {width}: {every} bits a parameter, {inner} without embeddings; of {n:,} people it "
                f"holds {share} of the bits"
            )
        return f"after {exposures:,} exposures, {'; '.join(parts) or 'not measured'}"

    return words


def mixtures(seeds: Sequence[Seed]) -> str:
    """The probability of both values, by the share of one's own."""
    parts = []
    for share, name in sorted({item for seed in seeds for item in seed.mixed().items()}):
        found = [both for seed in seeds if (both := seed.both_values(name)) is not None]
        a, b = (_spread((both[i] for both in found), ".2f") for i in (0, 1))
        parts.append(f"A in {share:g} of the biographies: p(A) {a}, p(B) {b}")
    return "; ".join(parts) or "not measured"


def others(share: float) -> Words:
    """Steps until a share of other facts was known, and accuracy at the end."""

    def words(seeds: Sequence[Seed]) -> str:
        names = dict.fromkeys(name for seed in seeds for name in seed.mixed().values())
        parts = []
        for name in (CONTROL, *names):
            found = [steps for seed in seeds if (steps := seed.until(name, share)) is not None]
            reached = [steps for steps in found if steps != float("inf")]
            never = len(found) - len(reached)
            said = [] if found and not reached else [_spread(reached, ",.0f")]
            said += [f"never in {number_of(never, 'seed')}"] * (never > 0)
            parts.append(f"{name} {', '.join(said)}")
        return f"steps until {share:.0%} of the other attributes known: {'; '.join(parts)}"

    return words


def last(seeds: Sequence[Seed]) -> str:
    """The probability of both values where they come one after the other."""
    found = [both for seed in seeds if (both := seed.both_values(A_THEN_B)) is not None]
    a, b = (_spread((both[i] for both in found), ".3f") for i in (0, 1))
    return f"at the end, A in the first half of training and B in the second: p(A) {a}, p(B) {b}"


def forgotten(seeds: Sequence[Seed]) -> str:
    """What is known of the first subsystem after it, and after the second."""
    parts = []
    for order, first, second, place in (
        (FIRST_ORDER, "one", "two", 0),
        (SECOND_ORDER, "two", "one", 1),
    ):
        before, after = (
            _spread((of[place] for seed in seeds if (of := seed.after(order, stage))), ".1%")
            for stage in (first, second)
        )
        parts.append(f"subsystem {first}: {before} known, then {after} once {second} was learned")
    return "; ".join(parts)


def ends(seeds: Sequence[Seed]) -> str:
    """What is known at the end of each order."""
    parts = []
    for order in (FIRST_ORDER, SECOND_ORDER, "both"):
        found = [end for seed in seeds if (end := seed.after(order, "both")) is not None]
        one, two = (_spread((end[i] for end in found), ".1%") for i in (0, 1))
        parts.append(f"{order}: one {one}, two {two}")
    return f"known at the end: {'; '.join(parts)}"


def models(*names: str, groups: Sequence[str] = ("new", "old")) -> Words:
    """Accuracy of models on groups of people; all sums of weights where none is named."""

    def words(seeds: Sequence[Seed]) -> str:
        made = dict.fromkeys(name for seed in seeds for name in seed.added())
        parts = []
        for name in names or (BOTH, *made):
            found = [of for seed in seeds if (of := seed.model(name)) is not None]
            said = [f"{group} {_spread((of[group] for of in found), '.1%')}" for group in groups]
            parts.append(f"{name}: {', '.join(said)}")
        return f"known of new and old people: {'; '.join(parts)}"

    return words


def barriers(pair: str = BETWEEN) -> Words:
    """The barrier between two models."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = [
            f"{split} people {_spread((seed.barrier(pair, split) for seed in seeds), '.3f')}"
            for split in ("old", "new")
        ]
        return f"barrier along the line (nats a value), {pair}: {'; '.join(parts)}"

    return words
