"""Rules: how a claim is decided, and how that is said, in one object.

A rule holds its numbers once. Its text is a template that has to name each of them, and they are the
only ones that its decision is given, so that what a report says and what is computed cannot drift
apart. A rule is written down before anybody looks at what was measured.

    steady = Rule.each(
        "Accuracy on old people at the last step is at least {kept:.0%} of what it was.",
        lambda seed, kept: seed.last >= kept * seed.first,
        kept=0.9,
    )
    steady.text                 # "... at least 90% of what it was. Agree: in every seed ..."
    steady.decide(seeds)        # "agree", "disagree" or "cannot tell"
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from string import Formatter
from typing import Any, Generic, Literal, TypeVar

from interp.errors import ArgumentError
from interp.seeds import OverSeeds
from interp.studies.power import Number, Reading, in_words

Case = TypeVar("Case")
Verdict = Literal["agree", "disagree", "cannot tell"]
VERDICTS: tuple[Verdict, ...] = ("agree", "disagree", "cannot tell")

EVERY_SEED = (
    " Agree: in every seed that can tell; disagree: in none; else, or with fewer than {minimum} of "
    "them: cannot tell."
)
"""How `Rule.each` decides, as the end of its text."""
INTERVAL = (
    " Agree: the 95% interval of the mean over seeds (Student's t) lies {side} {{{side}:g}}; disagree: "
    "{other} it; else, or with fewer than {minimum} seeds that have a value: cannot tell."
)
"""How `Rule.interval` decides."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, held against what was measured.

    Attributes:
        claim: The statement, as a sentence.
        paper: What the paper reports, with figure and scale.
        measured: What was measured here, with units, scale and number of seeds.
        verdict: Whether they agree, as the rule decides.
        rule: The rule: what has to be the case for agree, what for disagree; else it cannot be told.
        power: The numbers that the rule reads, with their intervals; of a verdict "cannot tell" also how many
            seeds would tell them apart from the threshold. "" where the rule reads no number of each seed.
        readings: The same numbers, seed by seed.
    """

    claim: str
    paper: str
    measured: str
    verdict: Verdict
    rule: str
    power: str = ""
    readings: tuple[Reading, ...] = ()

    @property
    def said(self) -> str:
        """What was measured, with its power."""
        return f"{self.measured}. {self.power}" if self.power else self.measured


@dataclass(frozen=True)
class Rule(Generic[Case]):
    """Decides a claim and states itself.

    Attributes:
        template: The text, with every number as a placeholder, e.g. "at least {margin:g} higher".
        decision: From the cases (one a seed, say) and the numbers, by name, to a verdict.
        numbers: The thresholds, by name.

    Raises:
        ArgumentError: the template leaves a number out, or names one that there is not.
    """

    template: str
    decision: Callable[..., Verdict]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = {name for _, name, _, _ in Formatter().parse(self.template) if name is not None}
        if named != set(self.numbers):
            raise ArgumentError(
                f"The text of a rule names the numbers {sorted(named)}, and it decides with "
                f"{sorted(self.numbers)}: both have to be the same. Text: {self.template!r}"
            )

    @classmethod
    def each(
        cls,
        template: str,
        holds: Callable[..., bool | None],
        *,
        minimum: int = 2,
        ending: str = EVERY_SEED,
        **numbers: Any,
    ) -> "Rule[Case]":
        """A rule about each case by itself, on which all have to say the same (`verdict`).

        Args:
            template: What has to hold in a case.
            holds: From a case and the numbers to whether it holds; None where it cannot tell.
            minimum: With fewer cases that can tell, nothing is decided.
            ending: What is made of the cases, in words; may name {minimum}.
            numbers: The thresholds.
        """

        def decision(cases: Iterable[Case], **given: Any) -> Verdict:
            return verdict((holds(case, **given) for case in cases), minimum)

        return cls(template + ending.replace("{minimum}", str(minimum)), decision, numbers)

    @classmethod
    def interval(
        cls,
        template: str,
        number: Callable[..., float | int | None],
        *,
        above: float | int | None = None,
        below: float | int | None = None,
        minimum: int = 5,
        **numbers: Any,
    ) -> "Rule[Case]":
        """A rule about the mean over seeds, which one seed on the other side does not leave undecided.

        Every seed draws people of its own, so that the spread between seeds has that between people in it.
        How many seeds there are has to be settled before looking: adding some until the interval is on one
        side would decide anything.

        Args:
            template: What the mean of which number has to be.
            number: From a case and the numbers to its value; None where it has none.
            above: What the interval has to lie above; or
            below: What it has to lie below.
            minimum: With fewer values nothing is decided.
            numbers: Other thresholds.

        Raises:
            ArgumentError: the template leaves a number out, or names one that there is not; or not one of
                `above` and `below` is given.
        """
        sides = {"above": above, "below": below}
        limits = {side: limit for side, limit in sides.items() if limit is not None}
        if len(limits) != 1:
            raise ArgumentError(
                f"A rule on an interval has one limit, above or below; given: {limits}."
            )
        ((side, limit),) = limits.items()

        def decision(cases: Iterable[Case], **given: Any) -> Verdict:
            of_number = {name: value for name, value in given.items() if name != side}
            found_of = (number(case, **of_number) for case in cases)
            values = [value for value in found_of if value is not None and isfinite(value)]
            found = OverSeeds.of(values).interval
            if found is None or len(values) < minimum:
                return "cannot tell"
            low, high = found
            if low <= given[side] <= high:
                return "cannot tell"
            return "agree" if (low > given[side]) == (side == "above") else "disagree"

        other = next(name for name in sides if name != side)
        ending = INTERVAL.format(side=side, other=other, minimum=minimum)
        return cls(template + ending, decision, {side: limit, **numbers})

    @property
    def text(self) -> str:
        """The rule in words."""
        return self.template.format(**self.numbers)

    def decide(self, cases: Any) -> Verdict:
        """The verdict on what was measured."""
        return self.decision(cases, **self.numbers)


@dataclass(frozen=True)
class Statement(Generic[Case]):
    """A claim before anything is measured.

    Attributes:
        claim: A sentence.
        paper: What the paper reports, with figure and scale.
        rule: What decides.
        measured: What was measured, in words, with units; not asked where there are no cases.
        numbers: What the rule reads of each seed: one number, or several.
    """

    claim: str
    paper: str
    rule: Rule[Case]
    measured: Callable[[Any], str]
    numbers: Number[Any] | tuple[Number[Any], ...] = ()

    def against(self, cases: Any) -> Claim:
        """The claim, held against what was measured."""
        said = self.measured(cases) if cases else "nothing was measured"
        found = self.rule.decide(cases)
        numbers = self.numbers if isinstance(self.numbers, tuple) else (self.numbers,)
        read = [number.read(cases) for number in numbers] if cases else []
        spread = [one for one in read if any(len(reading.values) > 1 for reading in one)]
        words = [in_words(one, decided=found != "cannot tell") for one in spread or read[:1]]
        power = ". ".join(filter(None, words))
        readings = tuple(one for readings in read for one in readings)
        return Claim(self.claim, self.paper, said, found, self.rule.text, power, readings)


def verdict(holds: Iterable[bool | None], minimum: int = 2) -> Verdict:
    """The verdict of seeds: all have to say the same.

    Args:
        holds: For each seed (or other repetition), whether the statement holds; None where this one
            cannot tell.
        minimum: With fewer that can tell, nothing is decided.

    Returns:
        "agree" where it holds in all, "disagree" where in none, else "cannot tell".

    Example:
        >>> verdict([True, True, False])
        'cannot tell'
    """
    known = [one for one in holds if one is not None]
    if len(known) < minimum or len(set(known)) > 1:
        return "cannot tell"
    return "agree" if known[0] else "disagree"


def differs(
    differences: Iterable[float | int], margin: float | int, minimum: int = 3
) -> bool | None:
    """Whether something is larger in what seeds say together.

    Args:
        differences: One for each seed.
        margin: What their mean has to be at least.
        minimum: With fewer seeds nothing is decided.

    Returns:
        True where the mean is at least the margin and no seed is below 0; False where that is so the
        other way round; else None.

    Example:
        >>> [differs(gains, 25) for gains in ([50, 25, 0], [-25, -50, -25], [75, 50, -25])]
        [True, False, None]
    """
    values = [float(value) for value in differences]
    if len(values) < minimum:
        return None
    mean = sum(values) / len(values)
    if mean >= margin and min(values) >= 0:
        return True
    return False if mean <= -margin and max(values) <= 0 else None
