"""What the paper says of fine-tuning, and the rules by which the study's tables agree or disagree."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from typing import Any

from interp.memory.transplant import ATTENTION_MATRICES, MLP_MATRICES
from interp.seeds import number_of
from interp.studies import finetuning_measured as measured
from interp.studies import forgetting
from interp.studies.finetuning_measured import OLD, TUNED, Seed
from interp.studies.forgetting import Question, first, last, question
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

STABLE = 0.1
"""The largest change of a share of attention that counts as none."""
FORGOTTEN = 0.1
"""Accuracy on old people that has to be lost, for a question about that loss to have an answer."""


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


@question(
    "On old people, without replay, no layer's attention to names (of the last name token to the rest of "
    "the name, of the position that predicts a value to the name) and no sharpness changes by more than "
    "{stable:g} (of 1) at any of the checkpoints read, mean over heads, while at least {forgotten:g} of "
    "accuracy on old people is lost.",
    stable=STABLE,
    forgotten=FORGOTTEN,
)
def _attention_is_stable(seed: Seed, stable: float, forgotten: float) -> bool | None:
    changes = seed.attention_changes()
    if changes.empty or not seed.lost >= forgotten:
        return None
    return bool(changes["change"].max() <= stable)


def _largest_changes(seeds: Sequence[Seed]) -> list[float]:
    every = [seed.attention_changes() for seed in seeds]
    return [float(own["change"].max()) for own in every if len(own)]


@question(
    "The share of accuracy on the other people that is lost in the end is at most {harmless:g} times the "
    "share that fine-tuning on new people loses (at least {forgotten:g}) in the same seed and as many "
    "steps.",
    harmless=0.5,
    forgotten=FORGOTTEN,
)
def _rare_is_harmless(seed: Seed, harmless: float, forgotten: float) -> bool | None:
    new = seed.lost_share("new")
    return seed.lost_share("rare") <= harmless * new if new >= forgotten else None


@question(
    "Accuracy on rare people is at least {raised:g} higher in the end. Seeds where it begins above "
    "{highest:g} cannot tell.",
    raised=0.1,
    highest=0.9,
)
def _rare_rises(seed: Seed, raised: float, highest: float) -> bool | None:
    rare = seed.accuracy(TUNED, "rare")
    return None if first(rare) > highest else last(rare) - first(rare) >= raised


@question(
    "After fine-tuning on new people without replay: with its MLP layers in the model before (only they "
    "fine-tuned) accuracy on old people falls at least {twice:g} times as far as with its attention in "
    "it, and at least by {least:g}. Seeds that lose less than {forgotten:g} in all, or more by the "
    "fine-tuned embeddings alone than by MLP layers, cannot tell.",
    twice=2.0,
    least=0.05,
    forgotten=FORGOTTEN,
)
def _damage_is_in_mlps(seed: Seed, twice: float, least: float, forgotten: float) -> bool | None:
    before, after = seed.transplanted("none"), seed.transplanted("all")
    embeddings, attention, mlp = (
        seed.transplanted("only", part) for part in ("embeddings", "attention", "MLP")
    )
    if not before - after >= forgotten or isnan(attention) or isnan(mlp) or embeddings < mlp:
        return None
    return before - mlp >= twice * max(before - attention, 0) and before - mlp >= least


def _mlps_less_embeddings(seeds: Sequence[Seed]) -> list[float]:
    return [
        seed.transplanted("only", "MLP") - seed.transplanted("only", "embeddings") for seed in seeds
    ]


@question(
    "After fine-tuning on new people without replay the norm of the change, a share of the norm before, "
    "mean over W_in and W_out of all layers, against that of W_Q, W_K, W_V and W_O: agree if {further:g} "
    "times as large, disagree if as much smaller; seeds in between cannot tell.",
    further=1.25,
)
def _mlps_move_further(seed: Seed, further: float) -> bool | None:
    ratio = seed.moved(MLP_MATRICES) / seed.moved(ATTENTION_MATRICES)
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


STATEMENTS = (
    Statement[Seed](
        "Fine-tuning on new people destroys what was known within a few hundred steps",
        "it collapses so at 1,000 to 16,000 new people, learning rate 3e-5 (Fig. 5, N)",
        _rule(forgetting.forgets_soon, _old_known),
        measured.collapse,
    ),
    Statement[Seed](
        "Old knowledge is lost before the new is learned",
        "little that is new has been learned by then (Fig. 5, N)",
        _rule(forgetting.loses_first, _half_is_lost, _old_known),
        measured.order,
    ),
    Statement[Seed](
        "Replaying old people reduces the forgetting",
        "replay with weights from 1/32 to 2 helps (Fig. 5, O)",
        _rule(forgetting.replay_helps, _something_lost, _old_known),
        measured.replay,
    ),
    Statement[Seed](
        "Replay helps only in part",
        "no replay weight avoids the forgetting without a cost (Fig. 5, O)",
        _rule(forgetting.replay_is_partial, _lost_and_learned, _old_known),
        measured.replay,
    ),
    Statement[Seed](
        "Attention stays as it was while old knowledge is lost",
        "attention to names and its sharpness stay stable (Fig. P)",
        _rule(_attention_is_stable, _old_known),
        measured.attention,
        Number("largest change", _largest_changes, (STABLE,)),
    ),
    Statement[Seed](
        "Fine-tuning on rare known people does no such harm",
        "fine-tuning on rare people leaves the others known (Fig. 5)",
        _rule(_rare_is_harmless, _rare_known, _old_known),
        lambda seeds: (
            f"accuracy on the other people {measured.ends(seeds, OLD, 'rare')} by rare people, "
            f"{measured.ends(seeds, OLD, 'new')} by new ones"
        ),
    ),
    Statement[Seed](
        "Fine-tuning on rare known people makes them known",
        "accuracy on them rises from about 50% to about 70% (Fig. 5)",
        _rule(_rare_rises, _rare_known),
        lambda seeds: f"accuracy on rare people {measured.ends(seeds, TUNED, 'rare')}",
    ),
    Statement[Seed](
        "The damage is done in MLP layers, not in attention",
        "attention stays stable, so that MLP layers are suspected (section 5); not measured there",
        _rule(_damage_is_in_mlps),
        measured.transplants,
        Number(
            "accuracy with fine-tuned MLP layers less that with fine-tuned embeddings, above which no seed "
            "can tell",
            _mlps_less_embeddings,
            (0.0,),
        ),
    ),
    Statement[Seed](
        "The weights of MLP layers move further than those of attention",
        "not measured",
        _rule(_mlps_move_further),
        measured.movement,
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
