"""What tells compared runs apart, how they learned, and what they know in the end."""

from collections.abc import Mapping, Sequence

import pandas as pd
import yaml

from interp import plots
from interp.knowledge import SPLITS
from interp.phases import DELTA
from interp.report.compared_runs import Compared, common_steps, of_runs, spread
from interp.report.elements import Listing, Section, Table
from interp.report.run_labels import differing_settings
from interp.seeds import all_of, none_of

_SHARED = (
    "population.n_individuals", "population.n_held_out", "model.n_layers", "model.d_model",
    "model.n_heads", "model.d_mlp", "training.n_steps", "training.batch_size",
    "optimizer.learning_rate", "seed",
)  # fmt: skip
"""The settings that are named in the sentence on what runs share."""
_BASELINES_DIFFER = 0.01
"""Share by which baselines differ, from which on losses are drawn as a share of them too."""
_N_COMMON = 5
_NUMBERS = {
    "attribute_accuracy": ("accuracy", ".1%"),
    "attribute_loss": ("attribute loss (nats)", ".3f"),
    "top_probability": ("top probability", ".3f"),
}
_RULE = (
    "The first sentence follows a rule, the same for any runs: the earliest and the latest step at which "
    f"the plateau ends (δ = {DELTA}), with the number of runs that have left it; the lowest and the "
    "highest accuracy at the end, or, if runs end at different steps, at the last step that all have. "
    "Where all runs are seeds of one configuration, the mean is given too."
)


def headline(compared: Compared) -> str:
    """Where the plateau ends and how much is known, by the rule that the page states."""
    when, accuracies = _accuracies(compared)
    known = spread(accuracies, "{:.1%}", mean=compared.one_configuration, what=_what(compared))
    return f"{_plateau_sentence(compared)} Accuracy {when} is {known}."


def _plateau_sentence(compared: Compared) -> str:
    ends = {label: phases.plateau_end for label, phases in compared.phases.items()}
    return plateau_sentence(ends, _what(compared))


def plateau_sentence(ends: Mapping[str, int | None], what: str) -> str:
    """Where plateaus end, by label; of seeds (`what`) with their mean."""
    left = {label: float(end) for label, end in ends.items() if end is not None}
    if not left:
        return f"{_begin(none_of(len(ends), what))} has left its plateau."
    who = f"{len(left)} of the {len(ends)} {what}s {'leaves' if len(left) == 1 else 'leave'}"
    who = f"{_begin(all_of(len(ends), what))} leave" if len(left) == len(ends) else who
    when = spread(left, "step {:,.0f}", mean=what == "seed", what=None)
    return f"{who} the plateau at {when}."


def _what(compared: Compared) -> str:
    return "seed" if compared.one_configuration else "run"


def _begin(words: str) -> str:
    return words[0].upper() + words[1:]


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return f"{low} to {high}" if low != high else f"{low} in {all_of(len(values), 'seed')}"


@of_runs("What is compared", "compared")
def overview(compared: Compared) -> Section:
    """How the runs differ, and what came out in each."""
    labels, runs = compared.labels, list(compared.runs.values())
    differing = differing_settings([run.config for run in runs])
    tables = [_final_table(compared), _phase_table(compared)]
    if differing:
        tables.append(
            Table(
                "The settings in which the runs differ (a reference run: the fingerprint of its "
                "settings).",
                ("setting", *labels),
                [(name, *(_shortened(v) for v in values)) for name, values in differing.items()],
            )
        )
    first = runs[0].config.identity()
    shared = {name: value for name, value in first.items() if name not in differing}
    named = ", ".join(f"{n.split('.')[-1]} {shared[n]}" for n in _SHARED if n in shared)
    sentence = (
        f"They share {len(shared)} settings, among them {named}."
        if differing
        else f"They have the same settings, among them {named}. Whatever tells them apart is not in "
        "their configurations."
    )
    return Section(
        text=[sentence, _RULE],
        results=_results(compared),
        tables=tables,
        listings=[
            Listing("Settings that all runs share", yaml.safe_dump(shared, allow_unicode=True))
        ],
    )


@of_runs("Learning", "learning")
def learning(compared: Compared) -> Section:
    """Loss and accuracy of all runs, and the losses at common steps."""
    loss = compared.curves("attribute_loss")
    levels = {label: run.phase_baseline for label, run in compared.runs.items()}
    panels = {"attribute loss (nats)": loss}
    text = []
    if max(levels.values()) > (1 + _BASELINES_DIFFER) * min(levels.values()) > 0:
        share = loss["value"] / loss["run"].map(levels)
        panels["loss (share of baseline)"] = loss.assign(value=share)
        text.append(
            f"The baselines go from {min(levels.values()):.2f} to {max(levels.values()):.2f} nats: "
            "losses are shown as a share of each run's own as well."
        )
    panels["accuracy (share)"] = compared.curves("attribute_accuracy")
    drawn = plots.compared_curves(
        panels, compared.phases, {"attribute loss (nats)": levels}, compared.groups
    )
    common = common_steps(loss)
    if not common:
        text.append(
            "No step was measured in all runs, so there is no table of losses at common steps."
        )
    return Section(
        sentence=_plateau_sentence(compared),
        text=text,
        figures={"curves": drawn},
        tables=[_loss_table(compared, loss, common)] if common else [],
        downloads={"metrics": compared.metrics},
    )


def _accuracies(compared: Compared) -> tuple[str, dict[str, float]]:
    """Accuracies that can be held against each other, and when they were measured."""
    table = compared.curves("attribute_accuracy")
    common = common_steps(table)
    if common and table.groupby("run")["step"].max().nunique() > 1:
        at = table[table["step"] == common[-1]].groupby("run")["value"].mean()
        when = f"at step {common[-1]:,}, the last that all of them have,"
        return when, {label: float(at[label]) for label in compared.labels}
    ends = {label: compared.final(label, "attribute_accuracy") for label in compared.labels}
    return "in the end", {label: value for label, value in ends.items() if value is not None}


def _results(compared: Compared) -> list[tuple[str, str, str]]:
    """Mean and range over all runs, where they are seeds of one configuration."""
    if not compared.one_configuration:
        return []
    found = []
    ends = [p.plateau_end for p in compared.phases.values() if p.plateau_end is not None]
    if ends:
        n_runs = len(compared.runs)
        by = all_of(n_runs, "seed") if len(ends) == n_runs else f"{len(ends)} of {n_runs} seeds"
        words = (
            f"{min(ends):,} to {max(ends):,}; left by {by}"
            if min(ends) < max(ends)
            else f"left by {by}"
        )
        found.append(("End of the plateau", f"step {sum(ends) / len(ends):,.0f}", words))
    for title, metric, split, form in (
        ("Attribute accuracy", "attribute_accuracy", "evaluation", "{:.1%}"),
        ("Attribute loss", "attribute_loss", "evaluation", "{:.2f} nats"),
        ("Held-out attribute loss", "attribute_loss", "held_out", "{:.2f} nats"),
    ):
        values = [compared.final(label, metric, split) for label in compared.labels]
        known = [value for value in values if value is not None]
        if known:
            mean = form.format(sum(known) / len(known))
            words = (
                f"mean of {len(known)} seeds; {_range(known, form)}" if len(known) > 1 else "1 seed"
            )
            found.append((title, mean, words))
    return found


def _phase_table(compared: Compared) -> Table:
    rows = []
    for label, run in compared.runs.items():
        phases = compared.phases[label]
        measured = run.curve().index
        length = phases.plateau_length
        rows.append(
            (
                label,
                _reached(phases.statistics_end),
                _reached(phases.plateau_end),
                "" if length is None else f"{length:,}",
                f"{measured[-1]:,}" + ("" if run.finished else " (training has not ended)"),
                f"{phases.baseline:.3f}",
            )
        )
    return Table(
        f"Phases of each run, in steps, with δ = {DELTA} around its baseline (of its own people, in "
        "nats). An end is as exact as measurements are close.",
        ("run", "statistics end", "plateau ends", "plateau length", "last measured", "baseline"),
        rows,
    )


def _final_table(compared: Compared) -> Table:
    splits = [s for s in SPLITS if any(compared.final(n, "attribute_loss", s) is not None
                                       for n in compared.labels)]  # fmt: skip
    columns = [
        (metric, split)
        for metric in _NUMBERS
        for split in splits
        if split == "evaluation" or (split == "held_out" and metric != "attribute_accuracy")
    ]
    rows = []
    for label, run in compared.runs.items():
        cells = []
        for metric, split in columns:
            value = compared.final(label, metric, split)
            cells.append("" if value is None else f"{value:{_NUMBERS[metric][1]}}")
        counts = run.environment.get("parameters")
        parameters = f"{counts['total']:,}" if counts else "not recorded"
        without = f"{counts['non_embedding']:,}" if counts else "not recorded"
        rows.append((label, *cells, parameters, without))
    who = (
        "measured on everybody at the last checkpoint"
        if compared.measured_on_everybody
        else "measured as while training, at the last such step (not all runs have measured everybody)"
    )
    names = [
        f"{'held-out ' if split == 'held_out' else ''}{_NUMBERS[metric][0]}"
        for metric, split in columns
    ]
    return Table(
        f"What each run knows in the end, {who}; empty: not measured.",
        ("run", *names, "parameters", "without embeddings"),
        rows,
    )


def _loss_table(compared: Compared, loss: pd.DataFrame, common: Sequence[int]) -> Table:
    """Losses at steps that all runs have: the last, and some evenly spaced before."""
    size = -(-len(common) // _N_COMMON)
    chosen = list(reversed(common[::-1][::size]))
    table = loss.pivot_table("value", "run", "step")
    rows = [
        (label, *(f"{value:.3f}" for value in table.loc[label, chosen])) for label in compared.runs
    ]
    for group in compared.groups:
        own = table.loc[list(group)]
        name = (
            "mean (range)"
            if compared.one_configuration
            else f"mean of {len(group)} seeds: {group[0]} …"
        )
        cells = [f"{own[s].mean():.3f} ({own[s].min():.3f} to {own[s].max():.3f})" for s in chosen]
        rows.append((name, *cells))
    return Table(
        "Attribute loss at steps that all runs have, in nats.",
        ("run", *(f"step {step:,}" for step in chosen)),
        rows,
    )


def _reached(step: int | None) -> str:
    return "not reached" if step is None else f"{step:,}"


def _shortened(text: str) -> str:
    return text if len(text) <= 48 else text[:12] + "…"
