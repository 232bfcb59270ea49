"""What is claimed of facts in many forms, and the rules by which the study's tables agree or disagree.

The rules were written down after pilot runs of seed 0 with k = 1 in fixed order and k = 20 shuffled, of
which accuracies had been seen, and before any other run of the study. Two things were changed once its
tables had been seen. Whether people are known is asked before fine-tuning, not after, which forgets
biographies: otherwise no seed could tell. And swaps are made at all tokens of names: facts sit at the
middle name here, and at last names nothing follows in either form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.seeds import spread
from interp.studies.forms_measured import BEFORE, TRAINED
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

KNOWN = 0.8
"""Accuracy in the wordings of training from which a model knows the people: else it cannot tell."""
INVERSE, MORE, LESS, AS_MUCH = 0.05, 0.3, 0.1, 0.8
"""Thresholds of the rules that compare: what each is, its rule says."""
FEW, MANY = "few", "many"
_MOVED = 0.5
"""The share of answers in biographies that have to follow a swap for a seed to tell."""


@dataclass(frozen=True)
class Seed:
    """What one seed measured of the people of whom no question was ever seen.

    Attributes:
        accuracies: Accuracy by kind of run ("few": the fewest wordings in fixed order, "many": the most,
            shuffled), when questions were seen, and form.
        follow: Share of predictions that follow a swap at name tokens, the best layer's, by kind of run
            and form; questions mixed in.
    """

    accuracies: dict[tuple[str, str, str], float]
    follow: dict[tuple[str, str], float]

    def of(
        self, kind: str, questions: str, form: str = "question", known: float = KNOWN
    ) -> float | None:
        """Accuracy on the others in a form; None where it was not measured, or people are not known."""
        seen = self.accuracies.get((kind, questions, TRAINED), 0.0)
        if self.accuracies.get((kind, questions, BEFORE), seen) < known:
            return None
        return self.accuracies.get((kind, questions, form))


def seeds_of(tables: Tables) -> list[Seed]:
    """What each seed measured, of the smallest population and the fewest steps of the tables."""
    table, inner = tables["accuracy"], tables["inside"]
    if table.empty:
        return []
    scale = table[["people", "steps"]].min()
    found = []
    for seed in sorted(map(int, table["seed"].unique())):
        where = f"seed == {seed} and people == {scale['people']} and steps == {scale['steps']}"
        own, within = table.query(where), inner.query(where) if len(inner) else inner
        accuracies, follow = {}, {}
        for kind, (wordings, order) in _kinds(table).items():
            of = own[(own["wordings"] == wordings) & (own["order"] == order)]
            of = of[(of["group"] == "others") & (of["attribute"] == "all")]
            for row in of.itertuples():
                accuracies[kind, str(row.questions), str(row.form)] = float(str(row.accuracy))
            if within.empty:
                continue
            swaps = within[(within["wordings"] == wordings) & (within["order"] == order)]
            swaps = swaps[(swaps["measure"] == "swap") & (swaps["questions"] == "mixed")]
            for form, values in swaps.groupby("form")["value"]:
                follow[kind, str(form)] = float(values.max())
        found.append(Seed(accuracies, follow))
    return found


def _kinds(table: pd.DataFrame) -> dict[str, tuple[int, str]]:
    return {
        FEW: (int(table["wordings"].min()), "fixed"),
        MANY: (int(table["wordings"].max()), "shuffled"),
    }


def _said(kind: str, questions: str, form: str = "question") -> Callable[[Sequence[Seed]], str]:
    def words(seeds: Sequence[Seed]) -> str:
        values = [value for seed in seeds if (value := seed.of(kind, questions, form)) is not None]
        if not values:
            return "no seed knows its people"
        return f"{form} about the others answered: {spread(values, '.1%')} (k = {kind})"

    return words


_CANNOT = (
    " Seeds with less than {known:.0%} accuracy in the wordings of training, before fine-tuning if there is "
    "one, cannot tell."
)


def _answered(
    claim: str, paper: str, rule: str, kind: str, questions: str, **limit: Any
) -> Statement[Seed]:
    """A statement about how many questions are answered, at least or at most."""
    ((side, share),) = limit.items()

    def holds(seed: Seed, known: float, **given: float) -> bool | None:
        value = seed.of(kind, questions, known=known)
        if value is None:
            return None
        return value >= given["least"] if side == "least" else value <= given["most"]

    return Statement(
        claim,
        paper,
        Rule.each(rule + _CANNOT, holds, **limit, known=KNOWN),
        _said(kind, questions),
        each_seed(
            "share of questions about the others answered", lambda seed: seed.of(kind, questions), share,
            form=".1%", least=0, most=1,
        ),
    )  # fmt: skip


STATEMENTS: tuple[Statement[Seed], ...] = (
    _answered(
        "With few wordings in fixed order, fine-tuned questions are not answered about other people",
        "9.7% of the other half with one wording in fixed order (Allen-Zhu & Li 2023, 3.1)",
        "With the fewest wordings in fixed order and all weights fine-tuned on questions, at most "
        "{most:.0%} of the questions about the others are answered.",
        FEW, "all weights", most=0.3,
    ),
    _answered(
        "With many shuffled wordings, fine-tuned questions are answered about other people",
        "96.6% of the other half with 5 wordings and shuffled order (3.1)",
        "With the most wordings, shuffled, and all weights fine-tuned on questions, at least "
        "{least:.0%} of the questions about the others are answered.",
        MANY, "all weights", least=0.8,
    ),
    _answered(
        "Questions mixed in from the start are answered about other people even with one wording",
        "86.6% of the other half with one wording (3.1)",
        "With the fewest wordings in fixed order and questions mixed in, at least {least:.0%} of the "
        "questions about the others are answered.",
        FEW, "mixed", least=0.7,
    ),
    Statement(
        "Inverse questions are not answered, however the model was trained",
        "near 0 however trained (3.2)",
        Rule.each(
            "In every run that knows its people (at least {known:.0%} in the wordings of training), at most "
            "{most:.0%} of the inverse questions about the others are answered.",
            lambda seed, most, known: _inverse(seed, most, known),
            most=INVERSE, known=KNOWN,
        ),
        lambda seeds: _inverse_said(seeds),
        each_seed(
            "share of inverse questions about the others answered", lambda seed: _inverse_of(seed), INVERSE,
            form=".1%", least=0, most=1,
        ),
    ),
    Statement(
        "Many wordings make knowledge independent of its form",
        "knowledge can be extracted only where it was augmented (3.1)",
        Rule.each(
            "With questions mixed in, form independence (mean accuracy over wordings unseen, questions "
            "and the reordered name, divided by that in wordings seen, of the others) is at least {more:g} "
            "higher with the most wordings, shuffled, than with the fewest in fixed order." + _CANNOT,
            lambda seed, more, known: _more_independent(seed, more, known),
            more=MORE, known=KNOWN,
        ),
        lambda seeds: _independence_said(seeds),
        each_seed(
            "form independence with the most wordings less that with the fewest",
            lambda seed: _independence_gained(seed), MORE, form="+.2f",
        ),
    ),
    Statement(
        "An adapter answers about other people as all weights do",
        "LoRA and full fine-tuning extract alike where knowledge was augmented (3.1)",
        Rule.each(
            "With the most wordings, shuffled, an adapter answers at most {less:g} less of the questions "
            "about the others than all weights." + _CANNOT,
            lambda seed, less, known: _adapter(seed, less, known),
            less=LESS, known=KNOWN,
        ),
        _said(MANY, "adapter"),
        each_seed(
            "share of questions about the others answered with all weights less that with an adapter",
            lambda seed: _adapter_lacks(seed), LESS, form="+.3f", least=-1, most=1,
        ),
    ),
    Statement(
        "The memory at a name carries the answer to a question as it does in a biography",
        "not measured there; follows from one memory behind both forms",
        Rule.each(
            "With the most wordings, shuffled, and questions mixed in, the share of answers to questions "
            "about the others that follow a swap at name tokens (best layer) is at least {as_much:g} "
            "times that in "
            "biographies, which has to be {moved:g} or more for a seed to tell.",
            lambda seed, as_much, moved: _carried(seed, MANY, as_much, moved),
            as_much=AS_MUCH, moved=_MOVED,
        ),
        lambda seeds: _follow_said(seeds, MANY),
        (
            each_seed(
                "share that follows in biographies, without which no seed can tell",
                lambda seed: seed.follow.get((MANY, "biography")), _MOVED, form=".0%", least=0, most=1,
            ),
            each_seed(
                "share that follows in questions, as a multiple of that in biographies",
                lambda seed: _as_much(seed), AS_MUCH, least=0,
            ),
        ),
    ),
)  # fmt: skip


def _inverse_of(seed: Seed, known: float = KNOWN) -> dict[str, float]:
    return {
        f"{questions} with {kind} wordings": value
        for kind, questions, form in seed.accuracies
        if form == "inverse" and (value := seed.of(kind, questions, form, known)) is not None
    }


def _inverse(seed: Seed, most: float, known: float) -> bool | None:
    values = _inverse_of(seed, known).values()
    return max(values) <= most if values else None


def _inverse_said(seeds: Sequence[Seed]) -> str:
    values = [max(of.values()) for seed in seeds if (of := _inverse_of(seed))]
    return f"at most {spread(values, '.1%')}" if values else "no seed knows its people"


def _independence(seed: Seed, kind: str, known: float = KNOWN) -> float | None:
    forms = ("wording unseen", "question", "reordered name")
    values = [seed.of(kind, "mixed", form, known) for form in forms]
    there = [value for value in values if value is not None]
    if len(there) < len(forms):
        return None
    return sum(there) / len(there) / seed.accuracies[kind, "mixed", TRAINED]


def _independence_gained(seed: Seed, known: float = KNOWN) -> float | None:
    few, many = _independence(seed, FEW, known), _independence(seed, MANY, known)
    return None if few is None or many is None else many - few


def _more_independent(seed: Seed, more: float, known: float) -> bool | None:
    gained = _independence_gained(seed, known)
    return None if gained is None else gained >= more


def _independence_said(seeds: Sequence[Seed]) -> str:
    parts = []
    for kind in (FEW, MANY):
        values = [value for seed in seeds if (value := _independence(seed, kind)) is not None]
        parts.append(f"{kind} wordings {spread(values, '.2f')}" if values else f"{kind}: not known")
    return "; ".join(parts)


def _adapter_lacks(seed: Seed, known: float = KNOWN) -> float | None:
    whole, adapter = (seed.of(MANY, how, known=known) for how in ("all weights", "adapter"))
    return None if whole is None or adapter is None else whole - adapter


def _adapter(seed: Seed, less: float, known: float) -> bool | None:
    lacks = _adapter_lacks(seed, known)
    return None if lacks is None else lacks <= less


def _follows(seed: Seed, kind: str, moved: float) -> tuple[float, float] | None:
    """Of answers in biographies and to questions; None where too few move in biographies."""
    prose, question = (seed.follow.get((kind, form)) for form in ("biography", "question"))
    if prose is None or question is None or prose < moved:
        return None
    return prose, question


def _carried(seed: Seed, kind: str, as_much: float, moved: float) -> bool | None:
    both = _follows(seed, kind, moved)
    return None if both is None else both[1] >= as_much * both[0]


def _as_much(seed: Seed) -> float | None:
    both = _follows(seed, MANY, _MOVED)
    return None if both is None else both[1] / both[0]


def _follow_said(seeds: Sequence[Seed], kind: str) -> str:
    parts = []
    for form in ("biography", "question"):
        values = [seed.follow[kind, form] for seed in seeds if (kind, form) in seed.follow]
        parts.append(f"{form} {spread(values, '.0%')}" if values else f"{form}: not measured")
    return "answers that follow: " + "; ".join(parts)


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
