"""The sentences that a report begins with: each stage's result, by a stated rule.

Each sentence follows the rule that its function states, from the tables of the stage alone; it says
what this run shows, also where that is not what the paper found. Sources of what is expected:
Zucchet et al. 2025, arXiv:2503.21676, sections 3 and 4.
"""

import pandas as pd

from interp import plots
from interp.errors import InterpError
from interp.phases import Phases
from interp.plots import SCORE_NAMES, site_name
from interp.report.elements import Table
from interp.report.summary import NO_PHASES, against_baseline, final, measured_splits
from interp.run import Run
from interp.series import nearest_step

_SMALL = 0.01
"""Changes of a share of attention that count as none."""
NOT_MEASURED = "not measured"
"""The date of a mechanism whose final strength is unknown."""
_MEMORY_AT_NAMES = ("MLP share at names", "key-value agreement at names", "MLP swap at names")
"""The mechanisms that say that MLPs hold people at their names."""


def phases_sentence(phases: Phases, last: int) -> str:
    """The steps at which the phases end, and the length of the plateau; `last` was measured last."""
    baseline = f"the no-knowledge baseline of {phases.baseline:.2f} nats"
    start, end = phases.statistics_end, phases.plateau_end
    if not phases.baseline:
        return f"{NO_PHASES[0].upper()}{NO_PHASES[1:]}."
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
        f"{against_baseline(run, unknown)}."
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
    if own.empty:
        return ""
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
    if not mlps["follows"].notna().any():
        return ""
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
    memory = {
        name: dated(steps, name)[0] for name in _MEMORY_AT_NAMES if name in set(steps["mechanism"])
    }
    listed = ", ".join(f"{name}: {when}" for name, when in memory.items())
    if date == NOT_MEASURED:
        return f"Attention from the value to names was not measured ({listed})."
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


def dated(steps: pd.DataFrame, mechanism: str) -> tuple[str, str]:
    """When a mechanism emerges and in which phase, in words; of several seeds the mean."""
    every = steps[steps["mechanism"] == mechanism]
    own = every[every["step"].notna()]
    if own.empty:
        unknown = "final" in every and len(every) and every["final"].isna().all()
        return NOT_MEASURED if unknown else "absent", ""
    phases = dict.fromkeys(str(phase) for phase in own["phase"].dropna())
    return f"step {own['step'].mean():,.0f}", " or ".join(phases)


def reference_changes(table: pd.DataFrame, phases: Phases) -> tuple[pd.DataFrame, int]:
    """Loss minus the unpatched loss of the same seed (seeds by references), and the step of that.

    Counted are runs patched from step 0 in all layers and heads. The step is the measured one nearest
    to 1.5 times the end of the plateau; the last common one if the plateau does not end.

    Raises:
        InterpError: no seed has an unpatched run and one that is patched throughout.
    """
    steps = plots.fixed_steps(table, phases)
    end = phases.plateau_end
    step = steps[-1] if end is None else nearest_step(steps, 1.5 * end)
    rows = plots.patching_rows(table)
    rows = rows[rows["step"] == step]
    unpatched = rows[rows["reference_step"].isna()].groupby("seed")["value"].mean()
    throughout = rows[
        rows["reference_step"].notna()
        & (rows["start"] == 0)
        & (rows["layers"] == "all")
        & (rows["heads"] == "all")
    ]
    losses = throughout.pivot_table("value", "seed", "reference_step")
    changes = losses.sub(unpatched, axis=0).dropna(how="all")
    if changes.empty:
        raise InterpError(
            "The study needs, for at least one seed, the unpatched run and a run patched from "
            "step 0 in all layers and heads; the table has no such pair."
        )
    return changes, step


def _last(run: Run) -> int:
    return int(run.curve().index[-1])
