"""What the paper says of fine-tuning, and the rules by which the study's tables agree or disagree."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

from interp.memory.transplant import ATTENTION_MATRICES, MLP_MATRICES
from interp.seeds import number_of
from interp.studies import finetuning_measured as measured
from interp.studies import forgetting
from interp.studies.finetuning_measured import OLD, TUNED, Seed
from interp.studies.forgetting import Question, first, last, question
from interp.studies.power import Number, each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

STABLE = 0.1
"""The largest change of a share of attention that counts as none."""
FORGOTTEN = 0.1
"""Accuracy on old people that has to be lost, for a question about that loss to have an answer."""
HARMLESS, RAISED, HIGHEST, TWICE, LEAST, FURTHER = 0.5, 0.1, 0.9, 2.0, 0.05, 1.25
"""Thresholds of the questions below: what each is, its question says."""
_SOON = forgetting.forgets_soon.numbers["soon"]


@question(
    " Seeds with less than {known:g} accuracy on old people at the beginning cannot tell.",
    known=forgetting.KNOWN,
)
def _old_known(seed: Seed, known: float) -> bool | None:
    return first(seed.old) >= known


@question(
    " A model that starts with less than {rarely:g} accuracy on the rare people or {others:g} on the "
    "others does not know them and cannot tell.",
    rarely=0.2,
    others=0.5,
)
def _rare_known(seed: Seed, rarely: float, others: float) -> bool | None:
    rare, old = (first(seed.accuracy(split, "rare")) for split in (TUNED, OLD))
    return rare >= rarely and old >= others


@question(". A seed where it never is cannot tell.")
def _half_is_lost(seed: Seed) -> bool | None:
    return seed.half_lost is not None


@question(", which lost at least {forgotten:g}.", forgotten=FORGOTTEN)
def _something_lost(seed: Seed, forgotten: float) -> bool | None:
    return seed.lost >= forgotten


@question(
    " Without replay at least {forgotten:g} has to be lost and {both:g} accuracy on new people to be "
    "reached.",
    forgotten=FORGOTTEN,
    both=forgetting.BOTH,
)
def _lost_and_learned(seed: Seed, forgotten: float, both: float) -> bool | None:
    return seed.lost >= forgotten and last(seed.new) >= both


def _largest_change(seed: Seed, forgotten: float = FORGOTTEN) -> float | None:
    changes = seed.attention_changes()
    if changes.empty or not seed.lost >= forgotten:
        return None
    return float(changes["change"].max())


@question(
    "On old people, without replay, no layer's attention to names (of the last name token to the rest of "
    "the name, of the position that predicts a value to the name) and no sharpness changes by more than "
    "{stable:g} (of 1) at any of the checkpoints read, mean over heads, while at least {forgotten:g} of "
    "accuracy on old people is lost.",
    stable=STABLE,
    forgotten=FORGOTTEN,
)
def _attention_is_stable(seed: Seed, stable: float, forgotten: float) -> bool | None:
    largest = _largest_change(seed, forgotten)
    return None if largest is None else largest <= stable


def _rare_against_new(seed: Seed, forgotten: float = FORGOTTEN) -> float | None:
    new = seed.lost_share("new")
    return seed.lost_share("rare") / new if new >= forgotten else None


@question(
    "The share of accuracy on the other people that is lost in the end is at most {harmless:g} times the "
    "share that fine-tuning on new people loses (at least {forgotten:g}) in the same seed and as many "
    "steps.",
    harmless=HARMLESS,
    forgotten=FORGOTTEN,
)
def _rare_is_harmless(seed: Seed, harmless: float, forgotten: float) -> bool | None:
    new = seed.lost_share("new")
    return seed.lost_share("rare") <= harmless * new if new >= forgotten else None


def _rare_gain(seed: Seed, highest: float = HIGHEST) -> float | None:
    rare = seed.accuracy(TUNED, "rare")
    return None if first(rare) > highest else last(rare) - first(rare)


@question(
    "Accuracy on rare people is at least {raised:g} higher in the end. Seeds where it begins above "
    "{highest:g} cannot tell.",
    raised=RAISED,
    highest=HIGHEST,
)
def _rare_rises(seed: Seed, raised: float, highest: float) -> bool | None:
    gain = _rare_gain(seed, highest)
    return None if gain is None else gain >= raised


def _falls(seed: Seed, forgotten: float = FORGOTTEN) -> tuple[float, float] | None:
    """How far accuracy on old people falls by MLP layers and by attention; None where no seed can tell."""
    before, after = seed.transplanted("none"), seed.transplanted("all")
    embeddings, attention, mlp = (
        seed.transplanted("only", part) for part in ("embeddings", "attention", "MLP")
    )
    if not before - after >= forgotten or isnan(attention) or isnan(mlp) or embeddings < mlp:
        return None
    return before - mlp, max(before - attention, 0.0)


@question(
    "After fine-tuning on new people without replay: with its MLP layers in the model before (only they "
    "fine-tuned) accuracy on old people falls at least {twice:g} times as far as with its attention in "
    "it, and at least by {least:g}. Seeds that lose less than {forgotten:g} in all, or more by the "
    "fine-tuned embeddings alone than by MLP layers, cannot tell.",
    twice=TWICE,
    least=LEAST,
    forgotten=FORGOTTEN,
)
def _damage_is_in_mlps(seed: Seed, twice: float, least: float, forgotten: float) -> bool | None:
    falls = _falls(seed, forgotten)
    return None if falls is None else falls[0] >= twice * falls[1] and falls[0] >= least


def _mlps_against_attention(seed: Seed) -> float:
    return seed.moved(MLP_MATRICES) / seed.moved(ATTENTION_MATRICES)


@question(
    "After fine-tuning on new people without replay the norm of the change, a share of the norm before, "
    "mean over W_in and W_out of all layers, against that of W_Q, W_K, W_V and W_O: agree if {further:g} "
    "times as large, disagree if as much smaller; seeds in between cannot tell.",
    further=FURTHER,
)
def _mlps_move_further(seed: Seed, further: float) -> bool | None:
    ratio = _mlps_against_attention(seed)
    return True if ratio >= further else False if ratio <= 1 / further else None


def _rule(asked: Question, *conditions: Question) -> Rule[Seed]:
    """A rule about each seed that fulfils the conditions; the others cannot tell."""
    questions = (asked, *conditions)

    def holds(seed: Seed, **numbers: Any) -> bool | None:
        def answer(question: Question) -> bool | None:
            return question.holds(seed, **{name: numbers[name] for name in question.numbers})

        return answer(asked) if all(map(answer, conditions)) else None

    numbers: dict[str, Any] = {
        name: value for one in questions for name, value in one.numbers.items()
    }
    return Rule.each("".join(one.about("people") for one in questions), holds, **numbers)


def _statement(
    claim: str,
    paper: str,
    questions: tuple[Question, ...],
    words: Callable[[Sequence[Seed]], str],
    *numbers: Number[Sequence[Seed]],
) -> Statement[Seed]:
    """A statement that asks the first question, and reads numbers, of the seeds that fulfil the others."""

    def fulfils(seed: Seed) -> bool:
        return all(one.holds(seed, **one.numbers) for one in questions[1:])

    def of_those(number: Number[Sequence[Seed]]) -> Number[Sequence[Seed]]:
        return replace(number, values=lambda seeds: number.values(list(filter(fulfils, seeds))))

    return Statement(claim, paper, _rule(*questions), words, tuple(map(of_those, numbers)))


STATEMENTS = (
    _statement(
        "Fine-tuning on new people destroys what was known within a few hundred steps",
        "it collapses so at 1,000 to 16,000 new people, learning rate 3e-5 (Fig. 5, N)",
        (forgetting.forgets_soon, _old_known),
        measured.collapse,
        each_seed(
            f"lowest accuracy on old people by step {_SOON}, as a share of what it was",
            lambda seed: seed.lowest_kept(by=_SOON),
            forgetting.HALF,
            least=0.0,
        ),
    ),
    _statement(
        "Old knowledge is lost before the new is learned",
        "little that is new has been learned by then (Fig. 5, N)",
        (forgetting.loses_first, _half_is_lost, _old_known),
        measured.order,
        each_seed(
            "accuracy on new people when half of the old is lost",
            lambda seed: seed.learned_at_half_lost,
            forgetting.loses_first.numbers["learned"],
            least=0.0,
            most=1.0,
        ),
    ),
    _statement(
        "Replaying old people reduces the forgetting",
        "replay with weights from 1/32 to 2 helps (Fig. 5, O)",
        (forgetting.replay_helps, _something_lost, _old_known),
        measured.replay,
        each_seed(
            "final accuracy on old people with the heaviest replay, less that without",
            lambda seed: seed.gained_by_replay,
            forgetting.replay_helps.numbers["helps"],
            form="+.2f",
        ),
    ),
    _statement(
        "Replay helps only in part",
        "no replay weight avoids the forgetting without a cost (Fig. 5, O)",
        (forgetting.replay_is_partial, _lost_and_learned, _old_known),
        measured.replay,
        each_seed(
            "the smaller of two shares, old accuracy kept and new people known, at the replay weight where "
            "it is largest",
            lambda seed: seed.best_of_both,
            forgetting.BOTH,
            least=0.0,
            most=1.0,
        ),
    ),
    _statement(
        "Attention stays as it was while old knowledge is lost",
        "attention to names and its sharpness stay stable (Fig. P)",
        (_attention_is_stable, _old_known),
        measured.attention,
        each_seed("largest change of an attention measure (of 1)", _largest_change, STABLE),
    ),
    _statement(
        "Fine-tuning on rare known people does no such harm",
        "fine-tuning on rare people leaves the others known (Fig. 5)",
        (_rare_is_harmless, _rare_known, _old_known),
        lambda seeds: (
            f"accuracy on the other people {measured.ends(seeds, OLD, 'rare')} by rare people, "
            f"{measured.ends(seeds, OLD, 'new')} by new ones"
        ),
        each_seed(
            "share of accuracy on the others lost to rare people, as a multiple of that lost to new ones",
            _rare_against_new,
            HARMLESS,
        ),
    ),
    _statement(
        "Fine-tuning on rare known people makes them known",
        "accuracy on them rises from about 50% to about 70% (Fig. 5)",
        (_rare_rises, _rare_known),
        lambda seeds: f"accuracy on rare people {measured.ends(seeds, TUNED, 'rare')}",
        each_seed("accuracy on rare people, last less first", _rare_gain, RAISED, form="+.2f"),
    ),
    _statement(
        "The damage is done in MLP layers, not in attention",
        "attention stays stable, so that MLP layers are suspected (section 5); not measured there",
        (_damage_is_in_mlps,),
        measured.transplants,
        each_seed(
            "accuracy with fine-tuned MLP layers less that with fine-tuned embeddings, above which no seed "
            "can tell",
            lambda seed: seed.transplanted("only", "MLP") - seed.transplanted("only", "embeddings"),
            0.0,
        ),
        each_seed(
            f"accuracy on old people lost by MLP layers less {TWICE:g} times that lost by attention",
            lambda seed: falls[0] - TWICE * falls[1] if (falls := _falls(seed)) else None,
            0.0,
            form="+.2f",
        ),
        each_seed(
            "accuracy on old people lost by MLP layers",
            lambda seed: falls[0] if (falls := _falls(seed)) else None,
            LEAST,
            form="+.2f",
        ),
    ),
    _statement(
        "The weights of MLP layers move further than those of attention",
        "not measured",
        (_mlps_move_further,),
        measured.movement,
        each_seed(
            "change of MLP weights, as a multiple of that of attention weights",
            _mlps_against_attention,
            FURTHER,
            1 / FURTHER,
            least=0.0,
        ),
    ),
)


def held_against(tables: Tables) -> list[Claim]:
    """The paper's statements about fine-tuning, held against all of the study's tables."""
    numbers = sorted({int(seed) for table in tables.values() for seed in table["seed"]})
    seeds = [Seed.among(tables, seed) for seed in numbers]
    found = [statement.against(seeds) for statement in STATEMENTS]
    if not seeds:
        return found
    n_seeds, scale = f"{number_of(len(seeds), 'seed')}: ", measured.scale(tables["scale"])
    return [replace(claim, measured=n_seeds + claim.measured + scale) for claim in found]
