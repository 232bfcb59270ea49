"""What is claimed of facts as equations, and the rules by which the study's tables agree or disagree.

The rules were written down before any run of the study had been trained. Width, lists and learning rate of
small models were chosen later, as models of width 8 learned nothing: on 512 people of seed 7, for most facts.
"""

from functools import partial

from interp.studies import equations_rules as rules
from interp.studies import equations_said as said
from interp.studies.equations_merged import ADAPTER, ADDED_ADAPTERS, BOTH, HALVES, ITSELF, SWITCHED
from interp.studies.equations_rules import Seed, seeds_of
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

_OWN = "a question of this project, not measured before"
_CAPACITY = "Allen-Zhu & Li 2024, arXiv:2404.05405: GPT-2 on biographies, names counted too"
_TASKS = (
    "Ilharco et al. 2023, arXiv:2212.04089: sums of task vectors keep most of what each learned, image "
    "classifiers and T5"
)
SHARE = 0.9
"""The share of other facts until which steps are compared."""
LEARNED = 0.8
"""The share of facts that a run has to know for others to be held against it."""
LOW, HIGH = 0.35, 0.65
"""Mean residuals that are about half the baseline."""
FULL = 0.9
"""The share of what it was told that a model of the most people holds less of, if they are too many."""
FEW, MANY, LATER, KEPT, WITHIN, SURE, SLOWER = 0.3, 0.6, 0.1, 0.9, 0.1, 0.8, 0.1
LAST, LAST_SURE, LOST, ENDS_WITHIN, LESS, RISES, OWN_RISES = 0.9, 0.5, 0.5, 0.05, 0.02, 0.1, 1e-3
"""Thresholds: what each is, its rule says."""
_FULL = (
    " Widths whose model of the most people holds {full:.0%} or more of the bits it was told do not count, "
    "and seeds without another cannot tell."
)


def _bits(exposures: int, known: str, low: float, high: float) -> Statement[Seed]:
    return Statement(
        f"After {exposures:,} exposures a model holds about {known} a parameter",
        f"{_CAPACITY}: {known} a parameter",
        Rule.each(
            f"After {exposures:,} exposures, with the number of people with which it is most, models of "
            "every width hold {low:g} to {high:g} bits for each of all their parameters." + _FULL,
            partial(rules.holds, exposures=exposures),
            low=low, high=high, full=FULL,
        ),
        said.bits(exposures),
        each_seed(
            "most bits a parameter", partial(rules.most_bits, exposures=exposures, full=FULL), low, high,
            least=0,
        ),
    )  # fmt: skip


STATEMENTS: tuple[Statement[Seed], ...] = (
    Statement(
        "Facts are learned all or nothing",
        _OWN,
        Rule.each(
            "Of each attribute, at the checkpoint whose mean residual is nearest to half the baseline: at "
            "most {few:.0%} of the facts are from 0.2 to 0.8 of the baseline, on average over attributes "
            "(60% would be if residuals were uniform). With {many:.0%} or more it does not hold: all are "
            "learned a little. Seeds between, and attributes with no mean from {low:g} to {high:g}, cannot "
            "tell.",
            rules.all_or_nothing,
            few=FEW, many=MANY, low=LOW, high=HIGH,
        ),
        said.halfway(LOW, HIGH),
        each_seed(
            "share of facts from 0.2 to 0.8 of the baseline, mean over attributes",
            partial(rules.middle, low=LOW, high=HIGH), FEW, MANY, least=0, most=1,
        ),
    ),
    Statement(
        "Groups of people become subsystems of their own only after the plateau",
        _OWN,
        Rule.each(
            "What is specific to the gradient of a group of people agrees with that in other wordings "
            "(cosine, less that with people dealt at random) by at least {more:g} more at the checkpoint of "
            "the third phase than at that of the plateau.",
            partial(rules.later, by="people"),
            more=LATER,
        ),
        said.agreement("people"),
        each_seed(
            "agreement (cosine) in the third phase less that in the plateau",
            partial(rules.how_much_later, by="people"), LATER, form="+.3f",
        ),
    ),
    _bits(1000, "2 bits", 1.5, 2.5),
    _bits(100, "1 bit", 0.75, 1.25),
    Statement(
        "With more equations than it can hold, a model holds as much",
        _CAPACITY + ": bits stay at the most that fit, however many people there are",
        Rule.each(
            "After 1,000 exposures, models of every width hold at least {kept:.0%} as many bits of the most "
            "people as they do with the number with which it is most." + _FULL,
            partial(rules.keeps, exposures=1000),
            kept=KEPT, full=FULL,
        ),
        said.bits(1000),
        each_seed(
            "bits held of the most people, as a share of the most bits",
            partial(rules.kept_bits, exposures=1000, full=FULL), KEPT, form=".0%", least=0, most=1,
        ),
    ),
    Statement(
        "Of contradictory facts a model believes the average",
        "a model of frequencies, which the cross-entropy asks for",
        Rule.each(
            "At the end, in wordings never seen with a person, the mean p(A) is the share of A in the "
            "biographies within {within:g}, for every share. Seeds in which p(A) + p(B) is below {sure:g} "
            "for some share cannot tell.",
            rules.averages,
            within=WITHIN, sure=SURE,
        ),
        said.mixtures,
        (
            each_seed(
                "difference between p(A) and the share of A, in seeds that can tell",
                partial(rules.off_share, sure=SURE), WITHIN, least=0, most=1,
            ),
            each_seed(
                "smallest p(A) + p(B), without which no seed can tell", rules.least_sure, SURE, least=0,
                most=1,
            ),
        ),
    ),
    Statement(
        "Contradictory facts slow down the others",
        _OWN,
        Rule.each(
            "{share:.0%} of the facts of other attributes are known after at least {more:.0%} more steps "
            "with the most even mixture than without contradictions, or never. Seeds in which the control "
            "never gets there cannot tell.",
            rules.slows,
            share=SHARE, more=SLOWER,
        ),
        said.others(SHARE),
        each_seed(
            "steps without contradictions, as a share of those with the most even mixture (0: never known)",
            partial(rules.as_soon, share=SHARE), 1 / (1 + SLOWER), least=0,
        ),
    ),
    Statement(
        "Of contradictory facts the last seen wins",
        _OWN,
        Rule.each(
            "With A in the first half of training and B in the second, p(B) is at least {most:.0%} of p(A) + "
            "p(B) at the end. Seeds in which that sum is below {sure:g} cannot tell.",
            rules.last_wins,
            most=LAST, sure=LAST_SURE,
        ),
        said.last,
        each_seed(
            "p(B) as a share of p(A) + p(B)", partial(rules.share_of_last, sure=LAST_SURE), LAST, form=".3f",
            least=0, most=1,
        ),
    ),
    Statement(
        "What was solved first is lost while the second is learned",
        "catastrophic interference: McCloskey & Cohen 1989",
        Rule.each(
            "In both orders, at least {less:.0%} of what was known of the first subsystem at the end of its "
            "stage is not at the end of the second's. Seeds that know less than {known:.0%} of a first one, "
            "or whose orders differ, cannot tell.",
            rules.lost,
            less=LOST, known=LEARNED,
        ),
        said.forgotten,
        each_seed(
            "share of what was known of the first subsystem that is lost",
            partial(rules.share_lost, known=LEARNED), LOST, form=".1%", most=1,
        ),
    ),
    Statement(
        "The end is the same whatever the order",
        _OWN,
        Rule.each(
            "At the end, after equally many steps, accuracy on each subsystem differs by at most {within:g} "
            "between the three orders. Seeds in which no order ends with {known:.0%} known cannot tell.",
            rules.same_end,
            within=ENDS_WITHIN, known=LEARNED,
        ),
        said.ends,
        each_seed(
            "difference in accuracy between the best and the worst order at the end",
            partial(rules.spans, known=LEARNED), ENDS_WITHIN, form=".1%", least=0, most=1,
        ),
    ),
    Statement(
        "What two runs learned apart adds up",
        _TASKS,
        Rule.each(
            "Of new people, the average of two runs, or base and task vectors at the best scale, knows at "
            "least {kept:.0%} of what a run trained on both halves knows. Seeds in which one of these runs "
            "learns less than {known:.0%} cannot tell.",
            rules.adds_up,
            kept=KEPT, known=LEARNED,
        ),
        said.models(),
        each_seed(
            "known of new people by the best sum, as a share of what a run on both halves knows",
            partial(rules.share_added, known=LEARNED), KEPT, form=".1%", least=0,
        ),
    ),
    Statement(
        "Adapters that learned apart add up",
        "peft's sums of adapters; for facts " + _OWN,
        Rule.each(
            "The sum of two adapters knows, of each half of the new people, at least {kept:.0%} of what that "
            "half's own does. Seeds in which one of them learns less than {known:.0%} cannot tell.",
            rules.adapters_add_up,
            kept=KEPT, known=LEARNED,
        ),
        said.models(
            *(f"{ADAPTER}, {half}" for half in HALVES), ADDED_ADAPTERS, groups=(*HALVES, "old")
        ),
        each_seed(
            "known by the sum of adapters, as a share of what that half's own adapter knows",
            partial(rules.adapters_keep, known=LEARNED), KEPT, form=".1%", least=0,
        ),
    ),
    Statement(
        "Switched, models that learned apart know no less than one that learned both",
        "a control: nothing is added that could interfere",
        Rule.each(
            "With the model that learned them for each half of the new people and the base for the old ones, "
            "accuracy on each group is at most {less:g} below that of a run trained on both halves. Seeds in "
            "which that one learns less than {known:.0%} cannot tell.",
            rules.switches,
            less=LESS, known=LEARNED,
        ),
        said.models(SWITCHED, BOTH),
        each_seed(
            "accuracy of the run trained on both halves less that of switched models",
            partial(rules.lost_by_switching, known=LEARNED), LESS, form="+.1%", least=-1, most=1,
        ),
    ),
    Statement(
        "Runs from one base lie in one basin",
        "Frankle et al. 2020, arXiv:1912.05671: runs that share their beginning are connected without a "
        "barrier",
        Rule.each(
            "Along the line between two runs that learned different people from one base, the loss on old "
            "people and on new ones rises by at most {most:g} nats above the straight line between the ends. "
            "Seeds in which one of them learns less than {known:.0%} cannot tell.",
            rules.no_barrier,
            most=RISES, known=LEARNED,
        ),
        said.barriers(),
        each_seed(
            "barrier (nats a value)", partial(rules.barriers_between, known=LEARNED), RISES, form=".3f",
            least=0,
        ),
    ),
    Statement(
        "A run has no barrier with itself",
        "a control, by definition",
        Rule.each("It is at most {most:g} nats.", rules.no_own_barrier, most=OWN_RISES),
        said.barriers(ITSELF),
        each_seed("barrier (nats a value)", rules.barriers, OWN_RISES, form=".3f", least=0),
    ),
)  # fmt: skip


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
