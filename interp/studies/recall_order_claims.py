"""What is claimed of the order in which recall forms, and the rules by which tables agree or disagree.

The rules were written down before any run of the study. Known were dates of three seeds of `tiny` and one
of `small` by measures of other checkpoints (`artifacts/gallery/memory_tiny`, `memory_small`): attention to
names 265 to 274, followed swaps of MLPs 563 to 584, written values 303 to 327; and the doses of one
compiled population (seed 0), at which the numbers were chosen beyond which a measure is not usable. One
thing was changed after the tables had been seen: a strength that is at half when it is first known, later
than at the first step, has no date. One share through attention of ten had been dated by noise, at step 150
(by that, the memory was 38 steps later, 95%: -7 to 83: cannot tell).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import pandas as pd

from interp.memory.emergence import half_strength_step
from interp.seeds import OverSeeds, spread
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

_PAPER = "attention patching suggests that attention comes first (Zucchet et al. 2025)"
_OWN = "a question of this project, not measured before"
_KNOWN = "a question of this project; dates of three seeds of `tiny` were known when the rule was written"
_SHARES = (
    "share through attention", "share through MLP", "answers follow attention", "answers follow MLP",
)  # fmt: skip
AFTER, HALF_OF_MEMORY = 0, 0.25
"""Steps by which one is later than another; the dose by which a share is not yet at half."""


@dataclass(frozen=True)
class Seed:
    """What one seed of a size measured.

    Attributes:
        dates: Rows of the table "dates", by measure.
    """

    dates: pd.DataFrame

    def later(self, memory: str, attention: str, column: str) -> float | None:
        """By how many steps the memory comes later than attention; None where one has no date."""
        if memory not in self.dates.index or attention not in self.dates.index:
            return None
        steps = self.dates[column].astype(float)
        found = float(steps[memory]) - float(steps[attention])
        return None if isnan(found) else found


@dataclass(frozen=True)
class Pair:
    """Two measures whose dates are compared, and how the claim says it."""

    claim: str
    attention: str
    memory: str
    column: str = "step"
    source: str = _OWN

    @property
    def rule(self) -> Rule[Seed]:
        """What decides."""
        dated = "stays at half of its final strength"
        if self.column == "corrected":
            dated = "stays at what it says of half a dose in compiled models"
        return Rule.interval(
            f'"{self.memory}" {dated} from a later step on than "{self.attention}" does; seeds in which '
            "one of both has no date are left out.",
            self.later,
            above=AFTER,
        )

    def later(self, seed: Seed) -> float | None:
        """By how many steps the memory comes later; None where one has no date."""
        return seed.later(self.memory, self.attention, self.column)

    def said(self, seeds: Sequence[Seed]) -> str:
        """Both dates, and their difference."""
        parts = []
        for name in (self.attention, self.memory):
            column = [seed.dates[self.column].get(name) for seed in seeds]
            steps = [float(step) for step in column if step is not None and not pd.isna(step)]
            parts.append(f"{name}: step {OverSeeds.of(steps).with_interval('.0f')}")
        both = [by for seed in seeds if (by := self.later(seed)) is not None]
        later = OverSeeds.of(both).with_interval(".0f")
        return f"{'; '.join(parts)}; memory later by {later} steps"


PAIRS = (
    Pair(
        "Recall attention forms before the memory: attention patterns against followed swaps",
        "attention to names", "answers follow MLP",
        source=f"{_PAPER}; dates of three seeds of `tiny` were known when the rule was written",
    ),
    Pair(
        "Recall attention forms before the memory: attention patterns against values that MLPs write",
        "attention to names", "values promoted", source=_KNOWN,
    ),
    Pair(
        "Recall attention forms before the memory: shares of what names do",
        "share through attention", "share through MLP",
    ),
    Pair(
        "Recall attention forms before the memory: followed swaps of both",
        "answers follow attention", "answers follow MLP",
    ),
    Pair(
        "Recall attention forms before the memory: what each can do with the other finished",
        "attention alone", "memory alone",
    ),
    Pair(
        "Recall attention forms before the memory: the same, as corrected by compiled models",
        "attention alone", "memory alone", "corrected",
    ),
    Pair(
        "Recall attention forms before the memory: attention of the heads that recall, as corrected, against "
        "the memory alone, as corrected",
        "attention of recalling heads", "memory alone", "corrected",
    ),
)  # fmt: skip


def statements(size: str) -> tuple[Statement[Seed], ...]:
    """The statements of a size."""
    return tuple(
        Statement(
            f"{pair.claim} (`{size}`)", pair.source, pair.rule, pair.said,
            each_seed("steps by which the memory is later", pair.later, AFTER, form=".0f"),
        )
        for pair in PAIRS
    )  # fmt: skip


@dataclass(frozen=True)
class Compiled:
    """The dose of the memory by which each measure is at half of its full strength, in compiled models."""

    half: dict[str, float]


def _half_shares(found: Compiled) -> dict[str, float] | None:
    own = {name: found.half[name] for name in _SHARES if name in found.half}
    return own if len(own) == len(_SHARES) else None


def _tells_strength(found: Compiled, least: float) -> bool | None:
    own = _half_shares(found)
    return None if own is None else all(dose >= least for dose in own.values())


def _said_doses(cases: Sequence[Compiled]) -> str:
    parts = [
        f"{name} {spread([case.half[name] for case in cases if name in case.half])}"
        for name in _SHARES
    ]
    return f"dose of the memory by which half of the full strength is there: {'; '.join(parts)}"


STRENGTH: Statement[Compiled] = Statement(
    "Shares and followed swaps say how much of a memory there is",
    "a question of this project; the rule was written after one compiled population (seed 0) was seen",
    Rule.each(
        "In compiled models whose memory is there to a dose, shares through attention and MLP, and answers "
        "that follow either, are below half of their full strength up to a dose of {least:g}.",
        _tells_strength,
        least=HALF_OF_MEMORY,
    ),
    _said_doses,
    each_seed(
        "dose by which half of the full strength is there",
        _half_shares,
        HALF_OF_MEMORY,
        form=".3f",
        least=0,
        most=1,
        case="compiled model",
    ),
)


def seeds_of(dates: pd.DataFrame) -> list[Seed]:
    """What each seed measured, of one size."""
    return [Seed(rows.set_index("measure")) for _, rows in dates.groupby("seed")]


def compiled_of(doses: pd.DataFrame) -> list[Compiled]:
    """What each compiled model measured."""
    found = []
    memory = doses[doses["dosed"] == "memory"]
    for _, rows in memory.groupby(["variant", "seed"]):
        half = {}
        for measure, curve in rows.groupby("measure"):
            ordered = curve.sort_values("dose")
            dose = half_strength_step(list(ordered["dose"]), list(ordered["strength"]))
            if dose == dose:
                half[str(measure)] = dose
        found.append(Compiled(half))
    return found


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    dates = tables["dates"]
    found = []
    for size in dict.fromkeys(dates["size"]):
        seeds = seeds_of(dates[dates["size"] == size])
        found += [statement.against(seeds) for statement in statements(str(size))]
    return [*found, STRENGTH.against(compiled_of(tables["doses"]))]
