"""What is claimed of training on differences, and the rules by which the study's tables agree or disagree.

The claims circulate among practitioners without measurements. The rules were written down before any run
of the study had been trained.
"""

from functools import partial

from interp.studies import differences_numbers as numbers
from interp.studies import differences_rules as rules
from interp.studies import differences_said as said
from interp.studies.differences_measured import (
    ALL_WEIGHTS,
    COMMON,
    CONTRADICTED,
    CONTRADICTORY,
    CONTRAST,
    EVERYTHING,
    OTHERS,
    PLAIN,
    RANDOM,
    RARE,
    SMALLEST,
    UNEVEN,
    UNIFORM,
    WRONG,
    Seed,
    seeds_of,
)
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

_SOURCE = "claimed by practitioners, not measured"
_KNOWN = "selecting by loss is known to pick rare facts, and noise (protocol of this study)"
SHARE = 0.9
"""The share of the facts until which costs are compared."""
TIMES, MORE_ARITHMETIC, WITHIN, WORSE, RARE_MORE, NOISY_LESS = 10.0, 0.05, 0.1, 0.1, 0.1, 0.1
SOONER, FEWER_VALUES, FEWER_EXAMPLES, KEEPS_MORE, LEARNED = 0.1, 1.25, 0.05, 0.05, 0.9
HURT, HURT_KNOWN, LATER, KEPT, OLD_KNOWN = 0.05, 0.5, 0.1, 0.95, 0.8
"""Thresholds: what each is, its rule says."""
_CANNOT = " Seeds in which plain training never knows {share:.0%} cannot tell."


def _learns_and_keeps(claim: str, replay: bool) -> Statement[Seed]:
    how = "with old people replayed" if replay else "without replay"
    return Statement(
        claim,
        _SOURCE,
        Rule.each(
            f"On values predicted wrong, {how}, an adapter of some rank ends with at least "
            "{learned:.0%} of the new people's values known, and of the old people's with at least "
            "{kept:.0%} of what was known before. Seeds that know less than {known:.0%} of the old before "
            "cannot tell.",
            partial(rules.adapter, replay=replay),
            learned=LEARNED, kept=KEPT, known=OLD_KNOWN,
        ),
        said.adapters(replay),
        (
            each_seed(
                "new people's values known", numbers.adapters(replay, OLD_KNOWN, "new"), LEARNED, form=".1%",
                least=0, most=1,
            ),
            each_seed(
                "old people's values known, as a share of before",
                numbers.adapters(replay, OLD_KNOWN, "old"), KEPT, form=".1%", least=0,
            ),
        ),
    )  # fmt: skip


_EVERYTHING, _DIFFERENCES = (ALL_WEIGHTS, EVERYTHING, False), (ALL_WEIGHTS, WRONG, False)
_ADAPTER = ("rank 16", WRONG, False)

STATEMENTS: tuple[Statement[Seed], ...] = (
    Statement(
        "Selecting the largest loss needs tens of times fewer examples",
        "tens of times less data: " + _SOURCE,
        Rule.each(
            "Until {share:.0%} are known, the largest loss of k candidates, with the best k, needs at least "
            "{times:g} times fewer examples than plain training." + _CANNOT,
            rules.fewer,
            times=TIMES, share=SHARE,
        ),
        said.savings(SHARE),
        each_seed("times fewer examples, best k", numbers.saved(SHARE), TIMES, least=0),
    ),
    Statement(
        "What selecting the largest loss saves in examples, it costs in arithmetic",
        "not measured; with k candidates a step is k + 3 forward passes, a plain one 3",
        Rule.each(
            "Until {share:.0%} are known, the k that needs the fewest examples needs at least {more:.0%} "
            "more arithmetic than plain training. Seeds in which it saves less than {fewer:.0%} of plain "
            "training's examples over its own cannot tell." + _CANNOT,
            rules.costs_more,
            more=MORE_ARITHMETIC, fewer=FEWER_EXAMPLES, share=SHARE,
        ),
        said.savings(SHARE),
        each_seed(
            "times the arithmetic", numbers.arithmetic(SHARE, FEWER_EXAMPLES), 1 + MORE_ARITHMETIC, least=0
        ),
    ),
    Statement(
        "Choosing at random is plain training",
        "a control: selection by itself changes nothing",
        Rule.each(
            "Until {share:.0%} are known, random ones of 4 candidates need as many examples as plain "
            "training, within {within:.0%}." + _CANNOT,
            rules.alike,
            within=WITHIN, share=SHARE,
        ),
        said.costs(SHARE, PLAIN, RANDOM),
        each_seed(
            "times fewer examples", numbers.times(RANDOM, SHARE), 1 / (1 + WITHIN), 1 + WITHIN, least=0
        ),
    ),
    Statement(
        "Selecting the smallest loss is worse than choosing at random",
        "a control: what is known already teaches nothing",
        Rule.each(
            "Until {share:.0%} are known, the smallest loss of 4 needs at least {more:.0%} more examples "
            "than random ones of 4, or never gets there. Seeds in which random ones never do cannot tell.",
            rules.worse,
            more=WORSE, share=SHARE,
        ),
        said.costs(SHARE, RANDOM, SMALLEST),
        each_seed(
            "examples of random ones, as a share of those of the smallest loss (0: never known)",
            numbers.worse(SHARE), 1 / (1 + WORSE), least=0,
        ),
    ),
    Statement(
        "Selecting by loss helps most where some people are rare",
        _KNOWN,
        Rule.each(
            "Until {share:.0%} are known, plain training needs so many times the examples of the largest "
            "loss of 4, and at least {more:.0%} more times with uneven data than with uniform. Where plain "
            "training never gets there with uneven data, all of its examples stand for it: enough for "
            "agree, never for disagree.",
            rules.rare,
            more=RARE_MORE, share=SHARE,
        ),
        said.both(said.by_data(SHARE, UNIFORM, UNEVEN), said.known(UNEVEN, COMMON, RARE)),
        each_seed(
            "times the uniform saving", numbers.against_uniform(UNEVEN, SHARE), 1 + RARE_MORE, least=0
        ),
    ),
    Statement(
        "Selecting by loss hurts where facts contradict each other",
        _KNOWN,
        Rule.each(
            "At the end, of contradicted values at least {less:g} (a share) fewer are known with the largest "
            "loss of 4 than with plain training. Seeds that know less than {known:.0%} of them with plain "
            "training cannot tell.",
            rules.hurts,
            less=HURT, known=HURT_KNOWN,
        ),
        said.known(CONTRADICTORY, CONTRADICTED, OTHERS),
        each_seed(
            "contradicted values known with plain training less with the largest loss",
            numbers.hurt(HURT_KNOWN), HURT, form="+.1%", least=-1, most=1,
        ),
    ),
    Statement(
        "Selecting by loss saves less where facts contradict each other",
        _KNOWN,
        Rule.each(
            "Until {share:.0%} are known, plain training needs so many times the examples of the largest "
            "loss of 4, and with contradictory data at least {less:.0%} fewer times than with uniform."
            + _CANNOT,
            rules.saves_less,
            less=NOISY_LESS, share=SHARE,
        ),
        said.by_data(SHARE, UNIFORM, CONTRADICTORY),
        each_seed(
            "times the uniform saving", numbers.against_uniform(CONTRADICTORY, SHARE), 1 - NOISY_LESS, least=0
        ),
    ),
    Statement(
        "Contrast speeds up learning",
        _SOURCE,
        Rule.each(
            "Until {share:.0%} are known, training with contrast needs at least {sooner:.0%} fewer examples "
            "(and steps) than plain training." + _CANNOT,
            rules.faster,
            sooner=SOONER, share=SHARE,
        ),
        said.costs(SHARE, PLAIN, CONTRAST, WRONG, f"{WRONG}, {CONTRAST}"),
        each_seed("times fewer examples", numbers.times(CONTRAST, SHARE), 1 / (1 - SOONER), least=0),
    ),
    Statement(
        "Values that are predicted right need no training",
        _SOURCE,
        Rule.each(
            "Until {share:.0%} are known, the loss on wrong values alone is on at least {fewer:g} times "
            "fewer values than plain training, in at most {later:.0%} more steps." + _CANNOT,
            rules.enough,
            fewer=FEWER_VALUES, later=LATER, share=SHARE,
        ),
        said.both(said.costs(SHARE, PLAIN, WRONG, of="values"), said.costs(SHARE, PLAIN, WRONG, of="step")),
        (
            each_seed("times fewer values", numbers.enough(SHARE, "values"), FEWER_VALUES, least=0),
            each_seed("times fewer steps", numbers.enough(SHARE, "step"), 1 / (1 + LATER), least=0),
        ),
    ),
    _learns_and_keeps("An adapter on differences learns the new and keeps the old", False),
    _learns_and_keeps("With replay, an adapter on differences learns the new and keeps the old", True),
    Statement(
        "Training on what is wrong alone keeps more of the old than training on everything",
        _SOURCE,
        Rule.each(
            "All weights trained, without replay: accuracy on old people at the end is at least {more:g} "
            "higher with the loss on wrong values than on everything. Seeds in which either learns less than "
            "{learned:.0%} of the new cannot tell.",
            partial(rules.keeps_more, _DIFFERENCES, _EVERYTHING),
            more=KEEPS_MORE, learned=LEARNED,
        ),
        said.ends(_EVERYTHING, _DIFFERENCES),
        each_seed("more of the old", numbers.kept_more(_DIFFERENCES, _EVERYTHING, LEARNED), KEEPS_MORE),
    ),
    Statement(
        "Corrections in an adapter keep more of the old than in all weights",
        _SOURCE,
        Rule.each(
            "On values predicted wrong, without replay: accuracy on old people at the end is at least "
            "{more:g} higher with an adapter of rank 16 than with all weights. Seeds in which either learns "
            "less than {learned:.0%} of the new cannot tell.",
            partial(rules.keeps_more, _ADAPTER, _DIFFERENCES),
            more=KEEPS_MORE, learned=LEARNED,
        ),
        said.ends(_ADAPTER, _DIFFERENCES),
        each_seed("more of the old", numbers.kept_more(_ADAPTER, _DIFFERENCES, LEARNED), KEEPS_MORE),
    ),
)  # fmt: skip


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
