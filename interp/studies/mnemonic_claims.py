"""What is claimed of mnemonic phrases, and the rules by which the study's tables agree or disagree.

The claims circulate among practitioners without measurements. The rules were written down before any run
of the study had been trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from interp.seeds import spread
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

_SOURCE = "claimed by practitioners, not measured"
PROSE_ONLY, FIRST, MIXED, LAST = "prose", "mnemonic, prose", "mixed", "prose, mnemonic"
KNOWN = 0.5
"""Accuracy that there has to be, in phrases before prose or in prose alone, for a seed to tell."""
SOONER, MORE, LESS, BELOW, KEPT, CARRIED = 0.1, 0.1, 0.05, 0.05, 0.99, 0.9
"""Thresholds of the rules: what each is, its rule says."""
_CALLED = {PROSE_ONLY: "prose alone", FIRST: "phrases first", MIXED: "both mixed"}
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


def _times_the_steps(seed: Seed) -> float | None:
    """Of prose, until half is known; None where it never is, with phrases before or without."""
    prose, first = seed.until.get(PROSE_ONLY), seed.until.get(FIRST)
    return first / prose if prose and first is not None else None


def _faster_said(seeds: Sequence[Seed]) -> str:
    parts = []
    for name in (PROSE_ONLY, FIRST):
        values = [value for seed in seeds if (value := seed.until.get(name)) is not None]
        parts.append(
            f"{name}: {spread(values, '.0f')} steps of prose" if values else f"{name}: never"
        )
    return "half known after " + "; ".join(parts)


def _less_overwritten(seed: Seed, known: float = KNOWN) -> float | None:
    first, mixed = seed.recall.get((FIRST, "end")), seed.recall.get((MIXED, "end"))
    before = seed.recall.get((FIRST, "boundary"))
    if first is None or mixed is None or before is None or before < known:
        return None
    return mixed - first


def _stable(seed: Seed, more: float, known: float) -> bool | None:
    less = _less_overwritten(seed, known)
    return None if less is None else less >= more


def _lost_by_mixing(seed: Seed, known: float = KNOWN) -> float | None:
    before, mixed = seed.recall.get((FIRST, "boundary")), seed.recall.get((MIXED, "end"))
    if before is None or mixed is None or before < known:
        return None
    return before - mixed


def _weaker(seed: Seed, less: float, known: float) -> bool | None:
    lost = _lost_by_mixing(seed, known)
    return None if lost is None else lost >= less


def _others(seed: Seed, known: float = KNOWN) -> dict[str, float] | None:
    """Accuracy in prose by condition, without that which may be worst."""
    if not seed.has(PROSE_ONLY, FIRST, MIXED, LAST) or seed.prose[PROSE_ONLY] < known:
        return None
    return {name: seed.prose[name] for name in _CALLED}


def _worst(seed: Seed, below: float, known: float) -> bool | None:
    others = _others(seed, known)
    return None if others is None else seed.prose[LAST] <= min(others.values()) - below


def _above_last(seed: Seed) -> dict[str, float]:
    return {
        _CALLED[name]: value - seed.prose[LAST] for name, value in (_others(seed) or {}).items()
    }


def _kept_and_carried(seed: Seed, known: float = KNOWN) -> tuple[tuple[float, float], ...] | None:
    """Recall with the adapter off and before; prose with it on and with all weights trained."""
    before = seed.recall.get((BEHIND, "boundary"))
    off = seed.adapter.get((BEHIND, "off", "mnemonic"))
    on = seed.adapter.get((BEHIND, "on", "biography"))
    whole = seed.prose.get(FIRST)
    if before is None or off is None or on is None or whole is None or before < known:
        return None
    return (off, before), (on, whole)


def _intact(seed: Seed, kept: float, learned: float, known: float) -> bool | None:
    found = _kept_and_carried(seed, known)
    if found is None:
        return None
    (off, before), (on, whole) = found
    return off >= kept * before and on >= learned * whole


def _ratio(seed: Seed, which: int) -> float | None:
    found = _kept_and_carried(seed)
    return found[which][0] / found[which][1] if found and found[which][1] else None


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
            sooner=SOONER,
        ),
        _faster_said,
        each_seed(
            "steps of prose until half is known after mnemonic phrases, as a multiple of those without",
            _times_the_steps, 1 - SOONER, least=0,
        ),
    ),
    Statement(
        "Both mixed from the start is more stable than one after the other",
        _SOURCE,
        Rule.each(
            "At the end, with as many steps in all, recall of mnemonic phrases is at least {more:g} higher "
            "where both were mixed than where prose came after. Seeds that recalled less than {known:g} "
            "before prose cannot tell.",
            _stable,
            more=MORE, known=KNOWN,
        ),
        _recalled((FIRST, "boundary"), (FIRST, "end"), (MIXED, "end")),
        each_seed(
            "share of mnemonic phrases recalled at the end, mixed less prose after", _less_overwritten, MORE,
            form="+.2f", least=-1, most=1,
        ),
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
            less=LESS, known=KNOWN,
        ),
        _recalled((FIRST, "boundary"), (MIXED, "end")),
        each_seed(
            "share of mnemonic phrases recalled after phrases alone less that after a mixture",
            _lost_by_mixing, LESS, form="+.3f", least=-1, most=1,
        ),
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
            below=BELOW, known=KNOWN,
        ),
        _prose_said,
        each_seed(
            "accuracy in prose at the end less that with prose first, then phrases", _above_last, BELOW,
            form="+.2f", least=-1, most=1,
        ),
    ),
    Statement(
        "An adapter that learns prose leaves the core intact and carries the language",
        _SOURCE,
        Rule.each(
            "With the adapter off, recall of mnemonic phrases is at least {kept:g} times that before prose; "
            "with it on, accuracy in prose is at least {learned:g} times that of training all weights after "
            "mnemonic phrases. Seeds that recalled less than {known:g} before prose cannot tell.",
            _intact,
            kept=KEPT, learned=CARRIED, known=KNOWN,
        ),
        _adapter_said,
        (
            each_seed(
                "share of mnemonic phrases recalled with the adapter off, as a multiple of that before prose",
                partial(_ratio, which=0), KEPT, form=".3f", least=0,
            ),
            each_seed(
                "accuracy in prose with the adapter on, as a multiple of that with all weights trained",
                partial(_ratio, which=1), CARRIED, least=0,
            ),
        ),
    ),
)  # fmt: skip


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
