"""The section on single facts: the same person and attributes in every report."""

from collections.abc import Mapping, Sequence

from interp.errors import RunError
from interp.memory.locate import locate_facts
from interp.memory.located_fact import NAME_TOKENS, VALUE, LocatedFact
from interp.plots.fact import located_fact
from interp.report.elements import Section, Table
from interp.run import Run
from interp.series import nearest_step

_INDIVIDUAL = 0
_ATTRIBUTES = ("birth_place", "university", "birth_date")
_N_HISTORY = (
    20  # checkpoints that the probability is drawn from, besides those at which it is located
)


def located_facts_section(run: Run) -> Section | None:
    """Where a few facts of the first person sit, phase by phase; None if memory was not measured.

    None also where the run was trained with the attention of a reference that is no longer where it
    was: it cannot be read with the attention it was trained with.
    """
    if run.result("memory", "probes") is None or not run.steps or run.metrics.empty:
        return None
    try:
        _ = run.reference
    except RunError:
        return None
    moments = _moments(run)
    every = run.steps
    spread = every[:: -(-len(every) // _N_HISTORY)]
    facts = [(_INDIVIDUAL, attribute) for attribute in _ATTRIBUTES]
    found = locate_facts(run, facts, list(moments), history=[*spread, every[-1]])
    plateau_end = [step for step, name in moments.items() if name == "end of plateau"]
    shown = [t for t in found if t.attribute == _ATTRIBUTES[0] and t.step in plateau_end]
    shown += [t for t in found if t.step == every[-1] and t not in shown]
    return Section(
        "Single facts",
        "single-facts",
        text=[
            "Where a few facts of one person sit: which heads look at the name where the value is "
            "predicted, what they carry over from there and who had written it, and what the MLPs "
            "at the predicting position add. Contributions are to the logit of the true value "
            "against the mean of the attribute's other values, with norms and attention held at "
            "what they were; what an MLP makes of what heads bring it counts as the MLP's. One "
            "person shows how facts can be stored, not how they are stored on average."
        ],
        figures={f"fact-{t.attribute.replace('_', '-')}-{t.step}": located_fact(t) for t in shown},
        tables=[_fact_table(found, moments)],
    )


def _moments(run: Run) -> Mapping[int, str]:
    """The checkpoints to locate it at, with what they are; the last one is always among them."""
    phases, every = run.phases, run.steps
    found: dict[int, str] = {}
    for name, step in (
        ("end of statistics", phases.statistics_end),
        ("end of plateau", phases.plateau_end),
    ):
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
                *(f"{carried[at]:+.2f}" for at in NAME_TOKENS),
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
