"""The section on single facts: the same person and attributes in every report."""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp.errors import RunError
from interp.memory import FirstTokens
from interp.memory.locate import locate_facts
from interp.memory.located_fact import NAME_TOKENS, VALUE, LocatedFact
from interp.plots.fact import located_fact
from interp.report.elements import LeftOut, Section, Table
from interp.report.overview import fact_sentence
from interp.report.run_tables import of_run
from interp.run import Run
from interp.series import nearest_step

_INDIVIDUAL = 0
_MOST_FACTS = 3
_ATTRIBUTES = ("birth_place", "university", "birth_date")  # of drawn people; else the first three
_N_HISTORY = (
    20  # checkpoints that the probability is drawn from, besides those at which it is located
)


@of_run("Single facts", "single-facts", ["memory/probes"], folded=True)
def located_facts_section(run: Run, probes: pd.DataFrame) -> Section | LeftOut:
    """Where a few facts of the first person sit, phase by phase.

    Left out where the run was trained with the attention of a reference that is no longer where it was:
    it cannot be read with the attention it was trained with.
    """
    return _located(run)


@of_run("Single facts", "single-facts", folded=True)
def facts_of_compiled(run: Run) -> Section | LeftOut:
    """The same of a compiled run, which has no probes over training beside them."""
    return _located(run)


def _located(run: Run) -> Section | LeftOut:
    if not run.steps or run.metrics.empty:
        return LeftOut("the run has no checkpoint")
    try:
        _ = run.reference
    except RunError:
        return LeftOut("the reference whose attention the run was trained with is not where it was")
    moments = _moments(run)
    every = run.steps
    spread = every[:: -(-len(every) // _N_HISTORY)]
    first = FirstTokens.of(run.corpus)
    told = run.population.facts(_INDIVIDUAL)
    named = _ATTRIBUTES if set(_ATTRIBUTES) <= set(told) else tuple(told)
    facts = [(_INDIVIDUAL, a) for a in named if len(first[a].tokens) > 1][:_MOST_FACTS]
    if not facts:
        return LeftOut(
            f"of {', '.join(named).replace('_', ' ')} there is one value each, or all begin with the "
            "same token, so there is no other to compare the true one with"
        )
    found = locate_facts(run, facts, list(moments), history=[*spread, every[-1]])
    # First the fact that the sentence is about, as it is in the end.
    shown = [t for t in found if t.step == every[-1]]
    plateau_end = [step for step, name in moments.items() if name == "end of plateau"]
    shown += [
        t
        for t in found
        if t.attribute == found[0].attribute and t.step in plateau_end and t not in shown
    ]
    table = _fact_table(found, moments)
    return Section(
        sentence=fact_sentence(table),
        text=[
            "Where a few facts of one person sit: which heads look at the name where the value is "
            "predicted, what they carry over from there and who had written it, and what the MLPs "
            "at the predicting position add. Contributions are to the logit of the true value "
            "against the mean of the attribute's other values, with norms and attention held at "
            "what they were; what an MLP makes of what heads bring it counts as the MLP's. One "
            "person shows how facts can be stored, not how they are stored on average."
        ],
        figures={f"fact-{t.attribute.replace('_', '-')}-{t.step}": located_fact(t) for t in shown},
        tables=[table],
        downloads={
            "located-facts": pd.concat(
                [
                    t.components.assign(attribute=t.attribute, value=t.value, step=t.step)
                    for t in found
                ],
                ignore_index=True,
            )
        },
    )


def _moments(run: Run) -> Mapping[int, str]:
    """The checkpoints to locate it at, with what they are; the last one is always among them."""
    phases, every = run.known_phases, run.steps
    found: dict[int, str] = {}
    ends = {} if phases is None else {
        "end of statistics": phases.statistics_end, "end of plateau": phases.plateau_end,
    }  # fmt: skip
    for name, step in ends.items():
        if step is not None:
            found.setdefault(nearest_step(every, step), name)
    found.setdefault(every[-1], "last")
    return dict(sorted(found.items()))


def _fact_table(found: Sequence[LocatedFact], moments: Mapping[int, str]) -> Table:
    rows = []
    for one in found:
        direct = one.components[one.components["at"] == VALUE]
        by_part = direct.groupby("component")["contribution"].sum()
        carried = one.components.groupby("at")["contribution"].sum()
        head = one.strongest_heads(n=1).iloc[0]
        rows.append(
            (
                f"{one.attribute.replace('_', ' ')}: {one.value}",
                f"{one.step:,} ({moments[one.step]})",
                f"{one.value_probability:.3f}",
                f"{one.rank:,}",
                f"{one.logit_difference:+.2f}",
                f"{by_part['heads']:+.2f}",
                f"{by_part['mlp']:+.2f}",
                *(f"{carried[at]:+.2f}" if at in carried else "–" for at in NAME_TOKENS),
                f"{head['layer']}.{head['head']} ({head['contribution']:+.2f})",
            )
        )
    return Table(
        f"Facts of {found[0].name}. Probability of the whole value, rank of its first token, and the "
        "logit difference (nats) with what heads and MLPs add to it directly; then how much of it "
        "heads carry over from each name token, and the head that adds most.",
        (
            "fact",
            "step",
            "probability",
            "rank",
            "logit difference",
            "heads",
            "MLPs",
            *(f"from {at}" for at in NAME_TOKENS),
            "strongest head",
        ),
        rows,
    )
