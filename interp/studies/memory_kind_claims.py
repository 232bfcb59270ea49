"""What is claimed of kinds of memory, and the rules by which the study's tables agree or disagree.

The rules were written down before this measure had been taken of any trained model; its thresholds were
set on compiled models. What swaps of single MLPs say of runs with ordinary names was known. The two claims
about MLPs wherever they are were added after one trained run of another study had been measured, in which
MLPs at names and at other tokens held values together, and say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from interp.memory.emergence import half_strength_step
from interp.memory.kind import ALIKE, DECIDES, RECALLED
from interp.seeds import spread
from interp.studies.power import Number, each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

THREE, ONE = "three tokens", "one token"
_ASSOCIATIVE = (
    "Nichani, Lee & Bietti 2024, arXiv:2412.06538: MLPs as associative memories, in theory and toys"
)
_GEOMETRIC = (
    "Ravfogel et al. 2026, arXiv:2605.12426: gradient descent finds embeddings that hold a person's facts "
    "in superposition, and MLPs that select; one layer, people of one token"
)
_OWN = "a question of this project, not measured before"
_MLPS, _EMBEDDINGS = "MLPs", "embeddings alone"
_OTHER, _APART, _LEAST = 0.5, 0.05, 2
"""Thresholds of several rules: what each is, they say."""
_ALIKE = {"alike_at_name": "at names", "alike_arriving": "where predicted"}
"""Where it is asked how alike people of the same value are, in words."""


@dataclass(frozen=True)
class Case:
    """What one seed measured with names of one kind.

    Attributes:
        kinds: The rows of the table "kinds", by increasing step.
        plateau_end: The step at which the plateau ends; None if it does not.
    """

    kinds: pd.DataFrame
    plateau_end: float | None

    @property
    def last(self) -> pd.Series:
        """What was measured at the last step."""
        return self.kinds.iloc[-1]

    @property
    def decides(self) -> str:
        """What has the larger part of the effect of names, in logits, at the last step."""
        embeddings = self.last["embeddings_share"]
        return _EMBEDDINGS if embeddings > 0.5 else _MLPS

    @property
    def part(self) -> pd.Series:
        """That part over the steps, as a share of the effect; NaN where names have none."""
        embeddings = self.kinds["embeddings_share"]
        return embeddings if self.decides == _EMBEDDINGS else 1 - embeddings

    @property
    def settled(self) -> float:
        """The step from which on that part is at half of its final share or above."""
        return half_strength_step(list(self.kinds["step"]), list(self.part))

    @property
    def alike(self) -> float:
        """The step from which on alikeness at names is at half of its final distance from 0.5 or above."""
        return half_strength_step(list(self.kinds["step"]), list(self.kinds["alike_at_name"] - 0.5))


def cases_of(tables: Tables, names: str) -> list[Case]:
    """What each seed measured with names of one kind."""
    table, phases = tables["kinds"], tables["phases"]
    found = []
    for seed, rows in table[table["names"] == names].groupby("seed"):
        own = phases[(phases["seed"] == seed) & (phases["names"] == names)]["plateau_end"]
        ends = [float(end) for end in own if pd.notna(end)]
        found.append(Case(rows.sort_values("step"), ends[0] if ends else None))
    return found


def _is(case: Case, kind: str, decides: float, other: float, recalled: float) -> bool | None:
    if not case.last["recalled"] >= recalled:
        return None
    share = float(case.last[kind])
    return True if share >= decides else False if share <= other else None


def _recalling(
    what: str, read: Callable[[Case], float | dict[str, float]], *against: float
) -> Number[Sequence[Case]]:
    """A share at the last step, of seeds that recall enough to tell."""
    return each_seed(
        what,
        lambda case: read(case) if case.last["recalled"] >= RECALLED else None,
        *against,
        least=0,
        most=1,
    )


def _said(cases: Sequence[Case]) -> str:
    parts = [
        f"{name} {spread([float(case.last[name]) for case in cases], '.2f')}"
        for name in ("associative", "geometric", "mlp", "late", "together", "embeddings")
    ]
    alike = [
        f"{words} {spread([float(case.last[name]) for case in cases], '.2f')}"
        for name, words in _ALIKE.items()
    ]
    return (
        f"at the last step, shares of recalled pairs: {', '.join(parts)}; alike {', '.join(alike)}"
    )


def _is_kind(names: str, kind: str, paper: str) -> Statement[Case]:
    return Statement(
        f"With names of {names}, a trained model has {'an' if kind[0] == 'a' else 'a'} {kind} memory",
        paper,
        Rule.each(
            f"At the last step at least {{decides:.0%}} of the recalled pairs are {kind} (the rule of "
            "`interp.memory_kind`). With {other:.0%} or fewer it does not hold; seeds between, and those "
            "that recall fewer than {recalled:.0%} of the pairs, cannot tell.",
            partial(_is, kind=kind),
            decides=DECIDES, other=_OTHER, recalled=RECALLED,
        ),
        _said,
        _recalling(
            f"share of recalled pairs that are {kind}", lambda case: float(case.last[kind]), DECIDES, _OTHER
        ),
    )  # fmt: skip


def _following(case: Case) -> float:
    return float(case.last[["mlp", "late", "together"]].sum())


def _alike(case: Case) -> dict[str, float]:
    return {words: float(case.last[name]) for name, words in _ALIKE.items()}


def _looked_up(
    case: Case, decides: float, other: float, alike: float, recalled: float
) -> bool | None:
    if not case.last["recalled"] >= recalled:
        return None
    share = _following(case)
    if any(one >= alike for one in _alike(case).values()) or share <= other:
        return False
    return True if share >= decides else None


def _from_mlps(names: str) -> Statement[Case]:
    return Statement(
        f"With names of {names}, values come from MLPs that look people up, wherever these are",
        f"{_OWN}; its rule was added after one trained run of another study (`forms`, seed 0) had been seen",
        Rule.each(
            "At the last step at least {decides:.0%} of the recalled pairs follow MLPs, at names, at other "
            "tokens or both together, and what MLPs read does not say the value (`alike_at_name` and "
            "`alike_arriving` below {alike:g}). With {other:.0%} or fewer, or inputs that do say it, it does "
            "not hold; seeds between, and those that recall fewer than {recalled:.0%} of the pairs, cannot "
            "tell.",
            _looked_up,
            decides=DECIDES, other=_OTHER, alike=ALIKE, recalled=RECALLED,
        ),
        _said,
        (
            _recalling("share of recalled pairs that follow MLPs", _following, DECIDES, _OTHER),
            _recalling("how alike people with the same value are in what MLPs read", _alike, ALIKE),
        ),
    )  # fmt: skip


def _before_end(case: Case, least: int = _LEAST, recalled: float = RECALLED) -> float | None:
    steps, end = case.kinds["step"], case.plateau_end
    if end is None or not case.last["recalled"] >= recalled:
        return None
    if case.part[steps < end].notna().sum() < least or np.isnan(case.settled):
        return None
    return end - case.settled


def _during(case: Case, least: int, recalled: float) -> bool | None:
    found = _before_end(case, least, recalled)
    return None if found is None else found >= 0


def _steps_said(cases: Sequence[Case], name: str) -> str:
    steps = [float(getattr(case, name)) for case in cases]
    steps = [step for step in steps if not np.isnan(step)]
    ends = [case.plateau_end for case in cases if case.plateau_end is not None]
    what = f"step {spread(steps, '.0f')}" if steps else "at no step"
    plateau = f"step {spread(ends, '.0f')}" if ends else "no step"
    deciding = (
        f" ({', '.join(sorted({case.decides for case in cases}))})" if name == "settled" else ""
    )
    return f"{what}{deciding}; plateau ends at {plateau}"


def _settles(names: str) -> Statement[Case]:
    return Statement(
        f"With names of {names}, which memory it is is settled during the plateau",
        _OWN,
        Rule.each(
            "Of what names do for the answer, in logits, the part of MLPs or that of embeddings alone, "
            "whichever is larger at the last step, is at half of its final share or above for good from the "
            "end of the plateau at the latest. Seeds without an end of the plateau, with fewer than "
            "{least} checkpoints before it at which names do anything, or that recall fewer than "
            "{recalled:.0%} of the pairs in the end, cannot tell.",
            _during,
            least=_LEAST, recalled=RECALLED,
        ),
        partial(_steps_said, name="settled"),
        each_seed("steps by which it is settled before the end of the plateau", _before_end, 0, form=".0f"),
    )  # fmt: skip


def _alike_before_end(case: Case, apart: float = _APART) -> float | None:
    final = float(case.last["alike_at_name"]) - 0.5
    if case.plateau_end is None or not final >= apart or np.isnan(case.alike):
        return None
    return case.plateau_end - case.alike


def _alike_during(case: Case, apart: float) -> bool | None:
    found = _alike_before_end(case, apart)
    return None if found is None else found >= 0


STATEMENTS: tuple[tuple[str, Statement[Case]], ...] = (
    (THREE, _is_kind(THREE, "associative", _ASSOCIATIVE)),
    (ONE, _is_kind(ONE, "geometric", _GEOMETRIC)),
    (THREE, _settles(THREE)),
    (ONE, _settles(ONE)),
    (
        ONE,
        Statement(
            "Embeddings of people with the same value become alike during the plateau",
            _OWN,
            Rule.each(
                "`alike_at_name` is at half of its final distance from 0.5 or above for good from the end of "
                "the plateau at the latest. Seeds in which that distance ends below {apart:g}, or without an "
                "end of the plateau, cannot tell.",
                _alike_during,
                apart=_APART,
            ),
            partial(_steps_said, name="alike"),
            each_seed(
                "steps by which they are alike before the end of the plateau",
                _alike_before_end,
                0,
                form=".0f",
            ),
        ),
    ),
    (THREE, _from_mlps(THREE)),
    (ONE, _from_mlps(ONE)),
)
"""The claims, each with the names that it is about."""


def held_against(tables: Tables) -> list[Claim]:
    """The claims, held against the study's tables."""
    cases: dict[str, list[Case]] = {names: cases_of(tables, names) for names in (THREE, ONE)}
    return [statement.against(cases[names]) for names, statement in STATEMENTS]
