"""What is claimed of facts written in, and the rules by which the study's tables agree or disagree.

The rules were written down before any run of the study had been edited; the settings of editing had been
chosen on another draw of facts, in one run of seed 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interp.seeds import spread
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

BEST, CONTROL = "where the value is predicted", "last name"
TUNED, TUNED_BESIDE = "fine-tuning", "fine-tuning, replay"
ALL_WEIGHTS = "all weights"
_MEMIT = "Meng et al. 2023 (arXiv:2210.07229)"
_ROME = "Meng et al. 2022 (arXiv:2202.05262)"
_KEPT = ("specificity_subject", "specificity_others")


@dataclass(frozen=True)
class Seed:
    """What one seed measured, of all attributes together.

    Attributes:
        score: By method, place, number of edits and metric, the value.
    """

    score: dict[tuple[str, str, int, str], float]

    def of(self, method: str, place: str, metric: str) -> dict[int, float]:
        """By number of edits."""
        return {n: value for (m, p, n, what), value in self.score.items()
                if (m, p, what) == (method, place, metric)}  # fmt: skip

    def least(self, metric: str, n_edits: int) -> float | None:
        """Of MEMIT at the best place: the value at the smallest number of edits that is at least so large."""
        found = {n: value for n, value in self.of("memit", BEST, metric).items() if n >= n_edits}
        return found[min(found)] if found else None


def seeds_of(tables: Tables) -> list[Seed]:
    """What each seed measured."""
    scores = tables["scores"]
    whole = scores[(scores["attribute"] == "all") & scores["value"].notna()]
    found = []
    for _, own in whole.groupby("seed"):
        keys = zip(
            own["method"], own["place"], own["n_edits"].astype(int), own["metric"], strict=True
        )
        found.append(Seed(dict(zip(keys, own["value"].astype(float), strict=True))))
    return found


def _one(seed: Seed, share: float) -> bool | None:
    found = seed.of("memit", BEST, "efficacy").get(1)
    return None if found is None else found >= share


def _many(seed: Seed, share: float, n_edits: int) -> bool | None:
    found = seed.least("efficacy", n_edits)
    return None if found is None else found >= share


def _elsewhere(seed: Seed, share: float, n_edits: int) -> bool | None:
    told, asked = seed.least("efficacy", n_edits), seed.least("generalisation", n_edits)
    return None if told is None or asked is None else asked >= share * told


def _specific(seed: Seed, share: float) -> bool | None:
    found = [value for metric in _KEPT for value in seed.of("memit", BEST, metric).values()]
    return min(found) >= share if found else None


def _placed(seed: Seed, lower: float) -> bool | None:
    best, control = (seed.of("memit", place, "efficacy") for place in (BEST, CONTROL))
    both = sorted(set(best) & set(control))
    return all(best[n] - control[n] >= lower for n in both) if both else None


def _against_tuning(seed: Seed, lower: float) -> bool | None:
    edited = seed.of("memit", BEST, "specificity_others")
    tuned = seed.of(TUNED, ALL_WEIGHTS, "specificity_others")
    both = sorted(set(edited) & set(tuned))
    return edited[both[-1]] - tuned[both[-1]] >= lower if both else None


def _cheaper(seed: Seed, times: float) -> bool | None:
    edited, tuned = (seed.of(*of, "arithmetic") for of in (("memit", BEST), (TUNED, ALL_WEIGHTS)))
    both = sorted(set(edited) & set(tuned))
    return all(edited[n] * times <= tuned[n] for n in both) if both else None


def _said(*which: tuple[str, str, str], form: str = ".3f") -> Callable[[Sequence[Seed]], str]:
    """By number of edits, the mean over seeds and its range."""

    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for method, place, metric in which:
            numbers = sorted({n for seed in seeds for n in seed.of(method, place, metric)})
            values = [
                f"{n}: " + spread([s.of(method, place, metric)[n] for s in seeds
                                   if n in s.of(method, place, metric)], form)
                for n in numbers
            ]  # fmt: skip
            name = f"{metric.replace('_', ', ')} of {method}, {place}"
            parts.append(f"{name}, by edits: {'; '.join(values) or 'not measured'}")
        return ". ".join(parts)

    return words


STATEMENTS: tuple[Statement[Seed], ...] = (
    Statement(
        "A single fact is written in",
        f"efficacy of more than 99% on GPT-J ({_ROME})",
        Rule.each(
            "Of edits of one fact where the last layer predicts the value (MEMIT), efficacy, the share of "
            "new facts said in training wordings, is at least {share:g}.",
            _one,
            share=0.99,
        ),
        _said(("memit", BEST, "efficacy"), ("rome", BEST, "efficacy")),
    ),
    Statement(
        "Many facts are written in together",
        f"efficacy holds at 10,000 edits of GPT-J ({_MEMIT})",
        Rule.each(
            "Of edits of {n_edits} facts or more (the smallest such number) where the last layer predicts "
            "the value (MEMIT), efficacy is at least {share:g}.",
            _many,
            share=0.9, n_edits=64,
        ),
        _said(("memit", BEST, "efficacy")),
    ),
    Statement(
        "What was written is said in other wordings too",
        f"paraphrases of an edited fact are answered too, on GPT-2 XL and GPT-J ({_ROME})",
        Rule.each(
            "Of edits of {n_edits} facts or more where the last layer predicts the value (MEMIT), the share "
            "of new facts said in wordings never seen with the person is at least {share:g} times efficacy.",
            _elsewhere,
            share=0.9, n_edits=64,
        ),
        _said(("memit", BEST, "generalisation")),
    ),
    Statement(
        "Other facts stay",
        f"facts about neighbouring subjects are mostly kept, on GPT-2 XL and GPT-J ({_ROME})",
        Rule.each(
            "With every number of edits where the last layer predicts the value (MEMIT), of the same "
            "people's other facts and of other people's, those that were right, at least {share:g} still "
            "are.",
            _specific,
            share=0.95,
        ),
        _said(*(("memit", BEST, metric) for metric in _KEPT)),
    ),
    Statement(
        "It matters where facts are written",
        f"editing is best where causal tracing finds the fact, on GPT-2 XL ({_ROME})",
        Rule.each(
            "With every number of edits, efficacy of MEMIT in layer 0 at the last name, the control, is at "
            "least {lower:g} lower than where the last layer predicts the value.",
            _placed,
            lower=0.5,
        ),
        _said(*(("memit", p, "efficacy") for p in (BEST, "middle name", "all name tokens", CONTROL))),
    ),
    Statement(
        "Fine-tuning on the same facts changes more of what other people are said to be",
        f"fine-tuning loses specificity where editing keeps it ({_ROME})",
        Rule.each(
            "With the largest number of edits, the share of other people's facts that are still right is at "
            "least {lower:g} higher after an edit (MEMIT, where the last layer predicts the value) than "
            "after fine-tuning of all weights without replay.",
            _against_tuning,
            lower=0.05,
        ),
        _said(
            *(("memit", BEST, metric) for metric in _KEPT[1:]),
            *((name, ALL_WEIGHTS, m) for name in (TUNED, TUNED_BESIDE) for m in ("efficacy", *_KEPT)),
        ),
    ),
    Statement(
        "An edit costs less arithmetic than fine-tuning on the same facts",
        "claimed by practitioners, not measured",
        Rule.each(
            "With every number of edits, arithmetic (in tokens passing forward, the covariance counted once "
            "an edit) of MEMIT where the last layer predicts the value, times {times:g}, is at most that of "
            "fine-tuning without replay.",
            _cheaper,
            times=1.0,
        ),
        _said(
            ("memit", BEST, "arithmetic"), (TUNED, ALL_WEIGHTS, "arithmetic"),
            (TUNED_BESIDE, ALL_WEIGHTS, "arithmetic"), (TUNED, ALL_WEIGHTS, "n_steps"), form=",.0f",
        ),
    ),
)  # fmt: skip


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
