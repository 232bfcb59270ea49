"""What is claimed of mnemonic phrases, and the rules by which the study's tables agree or disagree.

The claims circulate among practitioners without measurements. The rules were written down before any run
of the study had been trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from interp.seeds import spread
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

_SOURCE = "claimed by practitioners, not measured"
PROSE_ONLY, FIRST, MIXED, LAST = "prose", "mnemonic, prose", "mixed", "prose, mnemonic"
BEHIND, BEFORE = "mnemonic, prose in an adapter", "mnemonic in an adapter, prose"


@dataclass(frozen=True)
class Seed:
    """What one seed measured, with as many steps in all (or, `until`, of prose).

    Attributes:
        until: By condition, the steps of prose until half of the values were known, with as many steps
            of prose; None where they never were.
        prose: By condition, the accuracy in prose at the end.
        recall: By condition and when ("boundary", "end"), the accuracy in mnemonic phrases.
        adapter: By condition, adapter ("on", "off") and form, the accuracy at the end.
    """

    until: dict[str, float | None]
    prose: dict[str, float]
    recall: dict[tuple[str, ...], float]
    adapter: dict[tuple[str, ...], float]

    def has(self, *conditions: str) -> bool:
        """Whether these conditions were measured at the end."""
        return all(condition in self.prose for condition in conditions)


def seeds_of(tables: Tables) -> list[Seed]:
    """What each seed measured."""
    curves, recalled, adapters = tables["curves"], tables["recall"], tables["adapters"]
    found = []
    for seed in sorted(map(int, curves["seed"].unique())):
        curve = curves[(curves["seed"] == seed) & (curves["budget"] == "prose")]
        until = {str(name): _half_known(of) for name, of in curve.groupby("condition")}
        own = _of(recalled, seed)
        at_end = own[(own["when"] == "end") & (own["form"] == "biography")]
        phrases = own[own["form"] == "mnemonic"]
        on = _of(adapters, seed)
        found.append(
            Seed(
                until,
                dict(zip(at_end["condition"], at_end["accuracy"], strict=True)),
                _by(phrases, ["condition", "when"]),
                _by(on, ["condition", "adapter", "form"]),
            )
        )
    return found


def _of(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    return table[(table["seed"] == seed) & (table["budget"] == "steps")]


def _by(table: pd.DataFrame, columns: list[str]) -> dict[tuple[str, ...], float]:
    keys = zip(*(table[name] for name in columns), strict=True)
    return dict(zip(keys, table["accuracy"], strict=True))


def _half_known(curve: pd.DataFrame) -> float | None:
    """The steps of prose until half of the values are known for good."""
    low = curve[curve["accuracy"] < 0.5]
    later = curve[curve["step"] > low["step"].max()] if len(low) else curve
    return float(later["prose_step"].min()) if len(later) else None


def _faster(seed: Seed, sooner: float) -> bool | None:
    prose, first = seed.until.get(PROSE_ONLY), seed.until.get(FIRST)
    if prose is None or FIRST not in seed.until:
        return None
    return first is not None and first <= (1 - sooner) * prose


def _faster_said(seeds: Sequence[Seed]) -> str:
    parts = []
    for name in (PROSE_ONLY, FIRST):
        values = [value for seed in seeds if (value := seed.until.get(name)) is not None]
        parts.append(
            f"{name}: {spread(values, '.0f')} steps of prose" if values else f"{name}: never"
        )
    return "half known after " + "; ".join(parts)


def _stable(seed: Seed, more: float, known: float) -> bool | None:
    first, mixed = seed.recall.get((FIRST, "end")), seed.recall.get((MIXED, "end"))
    before = seed.recall.get((FIRST, "boundary"))
    if first is None or mixed is None or before is None or before < known:
        return None
    return mixed - first >= more


def _weaker(seed: Seed, less: float, known: float) -> bool | None:
    before, mixed = seed.recall.get((FIRST, "boundary")), seed.recall.get((MIXED, "end"))
    if before is None or mixed is None or before < known:
        return None
    return before - mixed >= less


def _worst(seed: Seed, below: float, known: float) -> bool | None:
    if not seed.has(PROSE_ONLY, FIRST, MIXED, LAST) or seed.prose[PROSE_ONLY] < known:
        return None
    others = min(seed.prose[name] for name in (PROSE_ONLY, FIRST, MIXED))
    return seed.prose[LAST] <= others - below


def _intact(seed: Seed, kept: float, learned: float, known: float) -> bool | None:
    before = seed.recall.get((BEHIND, "boundary"))
    off = seed.adapter.get((BEHIND, "off", "mnemonic"))
    on = seed.adapter.get((BEHIND, "on", "biography"))
    whole = seed.prose.get(FIRST)
    if None in (before, off, on, whole) or before < known:  # type: ignore[operator]
        return None
    return off >= kept * before and on >= learned * whole  # type: ignore[operator]


def _recalled(*which: tuple[str, str]) -> Callable[[Sequence[Seed]], str]:
    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for condition, when in which:
            values = [s.recall[condition, when] for s in seeds if (condition, when) in s.recall]
            name = f"{condition}, at the {when}"
            parts.append(f"{name} {spread(values, '.0%')}" if values else f"{name}: not measured")
        return "mnemonic phrases recalled: " + "; ".join(parts)

    return words


def _prose_said(seeds: Sequence[Seed]) -> str:
    parts = []
    for name in (PROSE_ONLY, FIRST, MIXED, LAST):
        values = [seed.prose[name] for seed in seeds if name in seed.prose]
        parts.append(f"{name} {spread(values, '.0%')}" if values else f"{name}: not measured")
    return "prose known at the end: " + "; ".join(parts)


def _adapter_said(seeds: Sequence[Seed]) -> str:
    parts = []
    for use, form in (("off", "mnemonic"), ("on", "biography"), ("on", "mnemonic")):
        values = [s.adapter[BEHIND, use, form] for s in seeds if (BEHIND, use, form) in s.adapter]
        parts.append(f"{use}, {form} {spread(values, '.0%')}" if values else f"{use}: not measured")
    return "adapter " + "; ".join(parts)


STATEMENTS: tuple[Statement[Seed], ...] = (
    Statement(
        "After mnemonic phrases, prose is learned faster",
        _SOURCE,
        Rule.each(
            "Half of the values are known in prose (wordings never seen with a person) for good after at "
            "least {sooner:.0%} fewer steps of prose when mnemonic phrases came before than without them. "
            "Seeds in which they never are without cannot tell.",
            _faster,
            sooner=0.1,
        ),
        _faster_said,
    ),
    Statement(
        "Both mixed from the start is more stable than one after the other",
        _SOURCE,
        Rule.each(
            "At the end, with as many steps in all, recall of mnemonic phrases is at least {more:g} higher "
            "where both were mixed than where prose came after. Seeds that recalled less than {known:g} "
            "before prose cannot tell.",
            _stable,
            more=0.1, known=0.5,
        ),
        _recalled((FIRST, "boundary"), (FIRST, "end"), (MIXED, "end")),
    ),
    Statement(
        "The core of a mixture is weaker",
        _SOURCE,
        Rule.each(
            "Recall of mnemonic phrases at the end of a mixture is at least {less:g} lower than at the "
            "end of "
            "a stage of phrases alone, with as many of them. Seeds that recalled less than {known:g} there "
            "cannot tell.",
            _weaker,
            less=0.05, known=0.5,
        ),
        _recalled((FIRST, "boundary"), (MIXED, "end")),
    ),
    Statement(
        "Prose first, then mnemonic phrases, is the worst order",
        _SOURCE,
        Rule.each(
            "At the end, with as many steps in all, accuracy in prose is at least {below:g} below each of "
            "the "
            "others (prose alone, mnemonic phrases first, both mixed). Seeds that know less than {known:g} "
            "with prose alone cannot tell.",
            _worst,
            below=0.05, known=0.5,
        ),
        _prose_said,
    ),
    Statement(
        "An adapter that learns prose leaves the core intact and carries the language",
        _SOURCE,
        Rule.each(
            "With the adapter off, recall of mnemonic phrases is at least {kept:g} times that before prose; "
            "with it on, accuracy in prose is at least {learned:g} times that of training all weights after "
            "mnemonic phrases. Seeds that recalled less than {known:g} before prose cannot tell.",
            _intact,
            kept=0.99, learned=0.9, known=0.5,
        ),
        _adapter_said,
    ),
)  # fmt: skip


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
