"""What is claimed of facts written in, and the rules by which the study's tables agree or disagree.

The rules were written down before any run of the study had been edited; the settings of editing had been
chosen on another draw of facts, in one run of seed 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interp.seeds import number_of, spread
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

BEST, CONTROL = "where the value is predicted", "last name"
TUNED, TUNED_BESIDE = "fine-tuning", "fine-tuning, replay"
ALL_WEIGHTS = "all weights"
_MEMIT = "Meng et al. 2023 (arXiv:2210.07229)"
_ROME = "Meng et al. 2022 (arXiv:2202.05262)"
_KEPT = ("specificity_subject", "specificity_others")
_WHOSE = dict(zip(_KEPT, ("the same people's", "other people's"), strict=True))
ONE, MANY, N_MANY, ELSEWHERE, SPECIFIC, PLACED, LOST, TIMES = (
    0.99,
    0.9,
    64,
    0.9,
    0.95,
    0.5,
    0.05,
    1.0,
)
"""Thresholds of the rules: what each is, its rule says."""


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


def _single(seed: Seed) -> float | None:
    return seed.of("memit", BEST, "efficacy").get(1)


def _one(seed: Seed, share: float) -> bool | None:
    found = _single(seed)
    return None if found is None else found >= share


def _many(seed: Seed, share: float, n_edits: int) -> bool | None:
    found = seed.least("efficacy", n_edits)
    return None if found is None else found >= share


def _elsewhere(seed: Seed, share: float, n_edits: int) -> bool | None:
    told, asked = seed.least("efficacy", n_edits), seed.least("generalisation", n_edits)
    return None if told is None or asked is None else asked >= share * told


def _times_told(seed: Seed) -> float | None:
    told, asked = seed.least("efficacy", N_MANY), seed.least("generalisation", N_MANY)
    return asked / told if told and asked is not None else None


def _still_right(seed: Seed) -> dict[str, float]:
    return {
        f"{_WHOSE[metric]} after {_edits(n)}": value
        for metric in _KEPT
        for n, value in sorted(seed.of("memit", BEST, metric).items())
    }


def _edits(n: int) -> str:
    return number_of(n, "edit")


def _specific(seed: Seed, share: float) -> bool | None:
    found = _still_right(seed).values()
    return min(found) >= share if found else None


def _above_control(seed: Seed) -> dict[str, float]:
    best, control = (seed.of("memit", place, "efficacy") for place in (BEST, CONTROL))
    return {_edits(n): best[n] - control[n] for n in sorted(set(best) & set(control))}


def _placed(seed: Seed, lower: float) -> bool | None:
    found = _above_control(seed).values()
    return all(value >= lower for value in found) if found else None


def _above_tuned(seed: Seed) -> float | None:
    edited = seed.of("memit", BEST, "specificity_others")
    tuned = seed.of(TUNED, ALL_WEIGHTS, "specificity_others")
    both = sorted(set(edited) & set(tuned))
    return edited[both[-1]] - tuned[both[-1]] if both else None


def _against_tuning(seed: Seed, lower: float) -> bool | None:
    found = _above_tuned(seed)
    return None if found is None else found >= lower


def _costs(seed: Seed) -> dict[int, tuple[float, float]]:
    """By number of edits, the arithmetic of editing and of fine-tuning."""
    edited, tuned = (seed.of(*of, "arithmetic") for of in (("memit", BEST), (TUNED, ALL_WEIGHTS)))
    return {n: (edited[n], tuned[n]) for n in sorted(set(edited) & set(tuned))}


def _cheaper(seed: Seed, times: float) -> bool | None:
    found = _costs(seed).values()
    return all(edited * times <= tuned for edited, tuned in found) if found else None


def _times_tuning(seed: Seed) -> dict[str, float]:
    return {_edits(n): edited / tuned for n, (edited, tuned) in _costs(seed).items() if tuned}


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
            share=ONE,
        ),
        _said(("memit", BEST, "efficacy"), ("rome", BEST, "efficacy")),
        each_seed("efficacy of an edit of one fact, a share", _single, ONE, form=".3f", least=0, most=1),
    ),
    Statement(
        "Many facts are written in together",
        f"efficacy holds at 10,000 edits of GPT-J ({_MEMIT})",
        Rule.each(
            "Of edits of {n_edits} facts or more (the smallest such number) where the last layer predicts "
            "the value (MEMIT), efficacy is at least {share:g}.",
            _many,
            share=MANY, n_edits=N_MANY,
        ),
        _said(("memit", BEST, "efficacy")),
        each_seed(
            f"efficacy of {N_MANY} edits or more (the smallest such number), a share",
            lambda seed: seed.least("efficacy", N_MANY), MANY, form=".3f", least=0, most=1,
        ),
    ),
    Statement(
        "What was written is said in other wordings too",
        f"paraphrases of an edited fact are answered too, on GPT-2 XL and GPT-J ({_ROME})",
        Rule.each(
            "Of edits of {n_edits} facts or more where the last layer predicts the value (MEMIT), the share "
            "of new facts said in wordings never seen with the person is at least {share:g} times efficacy.",
            _elsewhere,
            share=ELSEWHERE, n_edits=N_MANY,
        ),
        _said(("memit", BEST, "generalisation")),
        each_seed(
            "share of new facts said in wordings never seen, as a multiple of efficacy", _times_told,
            ELSEWHERE, form=".3f", least=0,
        ),
    ),
    Statement(
        "Other facts stay",
        f"facts about neighbouring subjects are mostly kept, on GPT-2 XL and GPT-J ({_ROME})",
        Rule.each(
            "With every number of edits where the last layer predicts the value (MEMIT), of the same "
            "people's other facts and of other people's, those that were right, at least {share:g} still "
            "are.",
            _specific,
            share=SPECIFIC,
        ),
        _said(*(("memit", BEST, metric) for metric in _KEPT)),
        each_seed(
            "share of other facts that are still right", _still_right, SPECIFIC, form=".3f", least=0, most=1
        ),
    ),
    Statement(
        "It matters where facts are written",
        f"editing is best where causal tracing finds the fact, on GPT-2 XL ({_ROME})",
        Rule.each(
            "With every number of edits, efficacy of MEMIT in layer 0 at the last name, the control, is at "
            "least {lower:g} lower than where the last layer predicts the value.",
            _placed,
            lower=PLACED,
        ),
        _said(*(("memit", p, "efficacy") for p in (BEST, "middle name", "all name tokens", CONTROL))),
        each_seed(
            "efficacy where the last layer predicts the value less that of the control", _above_control,
            PLACED, form="+.2f", least=-1, most=1,
        ),
    ),
    Statement(
        "Fine-tuning on the same facts changes more of what other people are said to be",
        f"fine-tuning loses specificity where editing keeps it ({_ROME})",
        Rule.each(
            "With the largest number of edits, the share of other people's facts that are still right is at "
            "least {lower:g} higher after an edit (MEMIT, where the last layer predicts the value) than "
            "after fine-tuning of all weights without replay.",
            _against_tuning,
            lower=LOST,
        ),
        _said(
            *(("memit", BEST, metric) for metric in _KEPT[1:]),
            *((name, ALL_WEIGHTS, m) for name in (TUNED, TUNED_BESIDE) for m in ("efficacy", *_KEPT)),
        ),
        each_seed(
            "share of other people's facts still right after an edit less that after fine-tuning",
            _above_tuned, LOST, form="+.2f", least=-1, most=1,
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
            times=TIMES,
        ),
        _said(
            ("memit", BEST, "arithmetic"), (TUNED, ALL_WEIGHTS, "arithmetic"),
            (TUNED_BESIDE, ALL_WEIGHTS, "arithmetic"), (TUNED, ALL_WEIGHTS, "n_steps"), form=",.0f",
        ),
        each_seed(
            "arithmetic of an edit, as a multiple of that of fine-tuning", _times_tuning, 1 / TIMES,
            form=".1f", least=0,
        ),
    ),
)  # fmt: skip


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
