"""What a measure is, and how what it finds is marked against what was built in."""

from collections.abc import Callable, Hashable, Set
from dataclasses import dataclass

from interp.compiled import CompiledRecall


@dataclass(frozen=True)
class Mark:
    """What a measure found in one compiled model, beside what the key says.

    Attributes:
        built: What the key says is there.
        found: What the measure found by its rule.
        error: Mean absolute distance between the measured and the built-in magnitude; None where the key
            says no magnitude.
        unit: Unit of the error.
    """

    built: Set[Hashable]
    found: Set[Hashable]
    error: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Measure:
    """A measure under test.

    Attributes:
        name: The public function that measures.
        what: What the key says is there.
        rule: In words, what counts as found; set before looking at results.
        mark: Runs the measure on a compiled model and marks it; None where the key says nothing of what the
            measure is about.
    """

    name: str
    what: str
    rule: str
    mark: Callable[[CompiledRecall], Mark | None]
