"""What a reader should see first: what was trained, the phases, and every stage in one sentence.

Each sentence follows the rule that its function states, from the tables of the stage alone; it says
what this run shows, also where that is not what the paper found. Sources of what is expected:
Zucchet et al. 2025, arXiv:2503.21676, sections 3 and 4.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from interp import plots
from interp.errors import InterpError
from interp.memory import MECHANISMS
from interp.model import NO_ATTENTION
from interp.phases import Phases
from interp.plots import SCORE_NAMES, site_name
from interp.report.attention import reference_changes
from interp.report.elements import Finding, Section, Table
from interp.report.memory import dated
from interp.report.summary import (
    final,
    key_results,
    meaning_of_held_out,
    measured_splits,
    phase_rows,
)
from interp.run import Run

_SMALL = 0.01
"""Changes of a share of attention that count as none."""
_MEMORY_AT_NAMES = ("MLP share at names", "key-value agreement at names", "MLP swap at names")
"""The mechanisms that say that MLPs hold people at their names."""


def overview(run: Run, sections: Sequence[Section]) -> Section:
    """The results in brief, each with the figure that supports it.

    Args:
        run: The run.
        sections: The other sections of the page; sentences link to them and show their figures.
    """
    return Section(
        "Overview",
        "overview",
        text=[
            "Each sentence below is made from this run's tables by a fixed rule: it says what this "
            "run shows, whether or not the paper found the same. One run has no error bars."
        ],
        results=key_results(run),
        findings=_findings(run, {section.anchor: section for section in sections}),
        tables=[
            Table(
                f"The phases of this run, with δ = {run.phases.delta} around the baseline of the "
                f"drawn people ({run.phases.baseline:.2f} nats).",
                ("phase", "steps", "what happens"),
                phase_rows(run),
            )
        ],
    )


def phases_sentence(phases: Phases, last: int) -> str:
    """The steps at which the phases end, and the length of the plateau; `last` was measured last."""
    baseline = f"the no-knowledge baseline of {phases.baseline:.2f} nats"
    start, end = phases.statistics_end, phases.plateau_end
    if start is None:
        return f"By step {last:,} the attribute loss has not come down to {baseline}."
    if end is None:
        return (
            f"The attribute loss comes down to {baseline} at step {start:,} and has not left it by "
            f"step {last:,}: no individual is known yet."
        )
    if end <= start:
        return (
            f"The attribute loss comes down to {baseline} and falls below it at step {end:,} for "
            f"good: there is no plateau at δ = {phases.delta}."
        )
    return (
        f"The attribute loss comes down to {baseline} by step {start:,}, stays within "
        f"{phases.delta:.0%} of it for {end - start:,} steps, and falls below it for good at step "
        f"{end:,}."
    )


def knowledge_sentence(run: Run) -> str:
    """Accuracy and loss on known people, and the loss on held-out ones against the baseline."""
    known = (
        f"At step {_last(run):,}, {final(run, 'attribute_accuracy'):.1%} of the values of known "
        f"people are predicted right in wordings never seen with them (attribute loss "
        f"{final(run, 'attribute_loss'):.2f} nats)"
    )
    if "held_out" not in measured_splits(run):
        return f"{known}."
    unknown = final(run, "attribute_loss", "held_out")
    return (
        f"{known}; on people never trained on the loss is {unknown:.2f} nats, "
        f"{unknown / run.phase_baseline:.2f} times the baseline: {meaning_of_held_out(run)}."
    )


def attention_sentence(scores: pd.DataFrame) -> str:
    """Attention from the value position to the name of its sentence: its start, lowest, end.

    The layer is that with the largest share at the last checkpoint (mean over heads). It falls first
    if the lowest share comes before the last checkpoint and is below the first by more than 0.01.
    """
    own = scores[(scores["metric"] == "attribute_to_name") & scores["value"].notna()]
    if own.empty:
        raise InterpError(
            "The table of attention scores has no value of attribute_to_name: entries are missing. Delete "
            "the run's folder results/attention and run `interp reproduce` with the same settings again."
        )
    curves = own.pivot_table("value", "step", "layer")
    layer = curves.iloc[-1].idxmax()
    curve = curves[layer].dropna()
    first, lowest, last = (int(str(s)) for s in (curve.index[0], curve.idxmin(), curve.index[-1]))
    start, bottom, end = curve[first], curve[lowest], curve[last]
    where = "Attention from where a value is predicted to the name in its sentence"
    of_layer = f"(layer {layer}, mean over heads)"
    if lowest < last and bottom < start - _SMALL:
        then = "then rises to" if end > bottom + _SMALL else "and ends at"
        return (
            f"{where} {of_layer} first falls from {start:.2f} to {bottom:.2f} at step {lowest:,}, "
            f"{then} {end:.2f} at step {last:,}."
        )
    way = "rises" if end > start + _SMALL else "falls" if end < start - _SMALL else "stays"
    before = " without falling first" if way == "rises" else ""
    return (
        f"{where} {of_layer} {way} from {start:.2f} at step {first:,} to {end:.2f} at step "
        f"{last:,}{before}."
    )


def knockout_sentence(costs: pd.DataFrame) -> str:
    """At the last checkpoint, the edge that costs most when cut in all layers, and the control."""
    last = costs[costs["step"] == costs["step"].max()]
    whole = last[last["layer"].isna()].groupby("edge")["cost"].mean()
    edges = whole.drop("control", errors="ignore")
    if edges.empty:
        raise InterpError(
            "The table of knockouts has no edge that was cut in all layers at its last checkpoint: rows "
            "are missing. Measure knockouts again."
        )
    edge = str(edges.idxmax())
    control = (
        f"; cutting as many other tokens changes it by {whole['control']:+.2f} nats"
        if "control" in whole.index
        else ""
    )
    return (
        f"At step {int(last['step'].iloc[0]):,}, of the edges that were cut in all layers, "
        f"{SCORE_NAMES.get(edge, edge)} costs most: the attribute loss changes by "
        f"{edges[edge]:+.2f} nats{control}."
    )


def memory_sentence(values: pd.DataFrame) -> str:
    """At the last checkpoint, the layer and position whose output ranks people's own values best.

    Positions at names and the position that predicts the value are given apart; at names a layer may
    act directly or through the attention of later layers, whichever ranks better.
    """
    own = values[(values["metric"] == "layer_agreement") & (values["attribute"] == "all")]
    own = own[(own["step"] == own["step"].max()) & own["value"].notna()]
    parts: list[str] = []
    at_value = own["position"] == "predicts value"
    for rows in (own[~at_value], own[at_value]):
        if rows.empty:
            continue
        best = rows.loc[rows["value"].idxmax()]
        place = "where a value is predicted"
        if best["position"] != "predicts value":
            way = ", read through attention," if best["path"] == "attention" else ""
            place = f"at the {best['position']}{way}"
        what = "" if parts else "ranks the person's own value "
        chance = f"{best['control']:.0%}" + ("" if parts else " with facts shuffled among people")
        parts.append(
            f"MLP {int(best['layer'])} {place} {what}above {best['value']:.0%} of the attribute's "
            f"values ({chance})"
        )
    return f"At step {int(own['step'].iloc[0]):,}, {' and '.join(parts)}."


def swap_sentence(swaps: pd.DataFrame) -> str:
    """At the last checkpoint, the MLP output that most predictions follow when it is swapped at names.

    Sentences are anywhere in the biography where both kinds were measured.
    """
    last = swaps[swaps["step"] == swaps["step"].max()]
    last = last[last["sentences"] == "any"] if (last["sentences"] == "any").any() else last
    mlps = last[(last["site"] == "mlp_out") & last["position"].str.contains("name")]
    best = mlps.loc[mlps["follows"].idxmax()]
    at = str(best["position"])
    place = f"at {at}" if at.startswith("every") else f"at the {at}"
    return (
        f"At step {int(best['step']):,}, swapping the {site_name('mlp_out', int(best['layer']))} "
        f"{place} between two people makes {best['follows']:.0%} of {int(best['n'])} predictions "
        f"follow to the other person's value (the same swap at text: {best['control']:.0%})."
    )


def emergence_sentence(steps: pd.DataFrame) -> str:
    """When attention to names reaches half of its final strength, against the memory at names."""
    half = "half of its final strength"
    attention = "extraction attention"
    date, _ = dated(steps, attention)
    memory = {name: dated(steps, name)[0] for name in _MEMORY_AT_NAMES if name in _names(steps)}
    listed = ", ".join(f"{name}: {when}" for name, when in memory.items())
    if date == "absent":
        return f"Attention from the value to names stays faint in this run ({listed})."
    means = steps.groupby("mechanism")["step"].mean()
    later = [name for name in memory if not pd.isna(means[name]) and means[name] > means[attention]]
    knowledge = dated(steps, "knowledge")[0]
    return (
        f"Attention from the value to names reaches {half} at {date}, before {len(later)} of "
        f"{len(memory)} measures of memory in the MLPs at names ({listed}); knowledge: {knowledge}."
    )


def patching_sentence(table: pd.DataFrame, phases: Phases) -> str:
    """The references that lower and raise the loss most, at the step that `reference_changes` chooses.

    Runs patched from step 0 in all layers and heads, against the unpatched run of the same seed.
    """
    change, step = reference_changes(table, phases)
    means = {int(str(reference)): float(change[reference].mean()) for reference in change}
    order = sorted(means, key=lambda reference: means[reference])

    def words(reference: int) -> str:
        phase = "the untrained model" if reference == 0 else phases.at(reference)
        return f"that of step {reference:,} ({phase}) by {means[reference]:+.2f} nats"

    return (
        f"Learning with a checkpoint's attention in place of the model's own changes the attribute "
        f"loss at step {step:,}: {words(order[0])}, the best of {len(means)}, and "
        f"{words(order[-1])}, the worst."
    )


def fact_sentence(table: Table) -> str:
    """The first fact of the section's table at its last step: what its logit difference consists of."""
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    row = [row for row in rows if row["fact"] == rows[0]["fact"]][-1]
    carried = {name: row[name] for name in row if name.startswith("from ")}
    most = max(carried, key=lambda name: float(carried[name]))
    person = table.caption.partition(". ")[0].removeprefix("Facts of ")
    fact, step = row["fact"].replace(": ", " ", 1), row["step"].split(" ")[0]
    return (
        f"{person}, {fact}: at step {step} the model gives it {float(row['probability']):.0%}; of a "
        f"logit difference of {row['logit difference']} nats to the attribute's other values, heads "
        f"add {row['heads']} and MLPs {row['MLPs']} where it is predicted, and heads carry over most "
        f"{most} ({carried[most]})."
    )


def _findings(run: Run, sections: dict[str, Section]) -> list[Finding]:
    found = [
        _shown(
            "Three phases",
            phases_sentence(run.phases, _last(run)),
            sections,
            "learning",
            "learning-curves",
        ),
        _shown(
            "Knowledge and hallucination",
            knowledge_sentence(run),
            sections,
            "held-out" if "held-out" in sections else "attributes",
            "known-and-held-out" if "held-out" in sections else "attribute-curves",
        ),
    ]
    stages: list[tuple[str, tuple[str, str], Callable[[pd.DataFrame], str], str, str]] = [
        (
            "Attention to names",
            ("attention", "scores"),
            attention_sentence,
            "attention",
            "attention-to-names",
        ),
        (
            "Cutting attention",
            ("knockout", "costs"),
            lambda costs: knockout_sentence(plots.knockout_rows(costs)),
            "knockout",
            "knockout-costs",
        ),
        (
            "What the MLPs write",
            ("memory", "values"),
            memory_sentence,
            "memory",
            "key-value-agreement",
        ),
        (
            "Swapping memories",
            ("interventions", "swaps"),
            swap_sentence,
            "interventions",
            "swap-success",
        ),
        (
            "The order of emergence",
            ("emergence", "steps"),
            emergence_sentence,
            "emergence",
            "emergence-order",
        ),
        (
            "Attention patching",
            ("patching", "curves"),
            lambda curves: patching_sentence(curves, run.phases),
            "patching",
            "patching-curves",
        ),
    ]
    for title, (stage, name), sentence, anchor, figure in stages:
        table = run.result(stage, name)
        if table is not None and not table.empty:
            found.append(_shown(title, sentence(table), sections, anchor, figure))
        elif (
            run.config.model.recurrence is None
            and (run.results_path / stage / "summary.json").exists()
        ):
            found.append(Finding(title, "The stage has run and has nothing to show for this run."))
        else:
            found.append(_missing(run, title, stage))
    facts = sections.get("single-facts")
    if facts is None:
        found.append(_missing(run, "One fact, located", "memory"))
    else:
        figure = list(facts.figures)[-1] if len(facts.figures) < 2 else list(facts.figures)[1]
        found.append(
            _shown(
                "One fact, located",
                fact_sentence(facts.tables[0]),
                sections,
                facts.anchor,
                figure,
            )
        )
    return found


def _shown(
    title: str, sentence: str, sections: dict[str, Section], anchor: str, figure: str
) -> Finding:
    """A finding with what the page has of its section and figure."""
    section = sections.get(anchor)
    if section is None:
        return Finding(title, sentence)
    return Finding(title, sentence, anchor, figure if figure in section.figures else None)


def _missing(run: Run, title: str, stage: str) -> Finding:
    """The command runs a stage on its own where there is one."""
    if run.config.model.recurrence is not None:
        return Finding(title, f"Not for this run: {NO_ATTENTION}.")
    if not run.finished:
        return Finding(title, "Not measured yet: training has not ended.")
    own = stage in ("attention", "memory", "interventions", "emergence")
    command = "interp memory RUN" if own else "interp reproduce PRESET --out RUN"
    how = "" if own else ", with the settings that RUN was trained with,"
    return Finding(title, f"Not measured yet; this command{how} does it:", command=command)


def _last(run: Run) -> int:
    return int(run.curve().index[-1])


def _names(steps: pd.DataFrame) -> set[str]:
    return set(steps["mechanism"]) & set(MECHANISMS)
