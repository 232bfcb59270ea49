"""One page that compares several runs: seeds, patched runs, other settings.

What at least two runs have is put on common axes; what is missing is said, with the command that makes
it. Runs may differ in anything: in size, in length, in the steps at which they were measured.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import yaml

from interp import plots
from interp.errors import ConfigError, RunError
from interp.files import write_text
from interp.knowledge import SPLITS
from interp.maps import BUDGET
from interp.phases import DELTA, Phases
from interp.plots import SCORE_NAMES
from interp.plots.sites import OUTPUTS
from interp.presets import PRESETS
from interp.report.elements import Listing, Section, Table
from interp.report.html import render
from interp.report.maps import has_maps, maps_embed
from interp.report.run_labels import differing_settings, run_labels, seed_groups
from interp.run import Run
from interp.studies.patching import comparison

_SHARED = (
    "population.n_individuals", "population.n_held_out", "model.n_layers", "model.d_model",
    "model.n_heads", "model.d_mlp", "training.n_steps", "training.batch_size",
    "optimizer.learning_rate", "seed",
)  # fmt: skip
"""The settings that are named in the sentence on what runs share."""
_BASELINES_DIFFER = 0.01
"""Share by which baselines differ, from which on losses are drawn as a share of them too."""
_ATTENTION = (
    "name_to_name",
    "attribute_to_name",
    "attribute_to_any_name",
    "attribute_to_type",
    "attribute_sharpness",
)
_SIGNS = {"name grouping": "●", "extraction": "■", "type propagation": "◆", "positional": "▲"}
_SWAPPED = ("every middle name", "every name", "predicts value")
_N_COMMON = 5
_N_MAPPED = 6
"""Runs whose attention maps are shown."""
_MEMORY_STAGES = ("attention", "memory", "interventions", "emergence")
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


@dataclass(frozen=True)
class Compared:
    """The runs of a page by their labels, in order.

    Attributes:
        runs: By label.
        groups: Labels of runs that are seeds of one configuration; each of two or more.
    """

    runs: Mapping[str, Run]
    groups: Sequence[Sequence[str]]

    @property
    def labels(self) -> list[str]:
        """The labels, in order."""
        return list(self.runs)

    @cached_property
    def phases(self) -> dict[str, Phases]:
        """The phases of each run."""
        return {label: run.phases for label, run in self.runs.items()}

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The metrics of all runs, with the column `run`."""
        return pd.concat(
            [run.metrics.assign(run=label) for label, run in self.runs.items()], ignore_index=True
        )

    @cached_property
    def measured_on_everybody(self) -> bool:
        """Whether all runs have final numbers of everybody, so that they can be compared."""
        return all(run.result("knowledge", "final") is not None for run in self.runs.values())

    @property
    def one_configuration(self) -> bool:
        """Whether all runs are seeds of one configuration."""
        return len(self.groups) == 1 and len(self.groups[0]) == len(self.runs)

    def curves(self, metric: str, split: str = "evaluation") -> pd.DataFrame:
        """One metric of all runs that have it: `run`, `step`, `value`."""
        table = self.metrics
        chosen = (table["metric"] == metric) & (table["split"] == split)
        return table.loc[chosen & (table["attribute"] == "all"), ["run", "step", "value"]]

    def final(self, label: str, metric: str, split: str = "evaluation") -> float | None:
        """A run's last value of a metric; None where it was not measured."""
        table = self.runs[label].result("knowledge", "final")
        if not self.measured_on_everybody or table is None:
            table = self.runs[label].metrics
        chosen = (table["metric"] == metric) & (table["split"] == split)
        values = table.loc[chosen & (table["attribute"] == "all"), "value"]
        return float(values.iloc[-1]) if len(values) else None

    def results(self, stage: str, name: str) -> dict[str, pd.DataFrame]:
        """A stage's table of every run that has it and it is not empty."""
        found = {label: run.result(stage, name) for label, run in self.runs.items()}
        return {label: table for label, table in found.items() if table is not None and len(table)}


def write_comparison(runs: Sequence[Run | Path | str], path: Path | str) -> Path:
    """Writes one self-contained page that compares runs.

    Args:
        runs: Two or more runs, or their folders; training need not have ended. Up to a dozen stay
            readable.
        path: The HTML file.

    Returns:
        The path of the file.

    Raises:
        ConfigError: fewer than two runs, or the same one twice.
        RunError: a folder holds no run, or nothing has been measured there yet.
        StorageError: the file cannot be written.
    """
    compared = compare(runs)
    built = [section for build in SECTIONS if (section := build(compared)) is not None]
    title = f"{len(compared.runs)} {'seeds' if compared.one_configuration else 'runs'} compared"
    write_text(Path(path), render(title, _headline(compared), built))
    return Path(path)


def compare(runs: Sequence[Run | Path | str]) -> Compared:
    """Opens and labels the runs of a comparison; raises what `write_comparison` does."""
    opened = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if len(opened) < 2:
        raise ConfigError("A comparison needs two runs or more; give their folders.")
    folders = [run.path.resolve() for run in opened]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise ConfigError(
                f"{opened[i].path} is given twice; name every run once, so that none counts double."
            )
    for run in opened:
        table = run.metrics
        if table[table["metric"] == "attribute_loss"].empty:
            raise RunError(
                f"{run.path} has no measurements yet: there is nothing to compare. Train it with "
                "`interp train --resume`, or leave it out."
            )
    configs = [run.config for run in opened]
    labels = run_labels(configs, folders)
    groups = [[labels[place] for place in group] for group in seed_groups(configs)]
    return Compared(dict(zip(labels, opened, strict=True)), groups)


def overview(compared: Compared) -> Section:
    """How the runs differ, and what came out in each."""
    labels, runs = compared.labels, list(compared.runs.values())
    differing = differing_settings([run.config for run in runs])
    tables = []
    if differing:
        tables.append(
            Table(
                "The settings in which the runs differ (a reference run: the fingerprint of its "
                "settings).",
                ("setting", *labels),
                [(name, *(_shortened(v) for v in values)) for name, values in differing.items()],
            )
        )
    tables.append(_phase_table(compared))
    tables.append(_final_table(compared))
    first = runs[0].config.identity()
    shared = {name: value for name, value in first.items() if name not in differing}
    named = [f"{name.split('.')[-1]} {shared[name]}" for name in _SHARED if name in shared]
    sentence = (
        f"They share {len(shared)} settings, among them {', '.join(named)}."
        if differing
        else f"They have the same settings, among them {', '.join(named)}."
    )
    if not differing:
        sentence += " Whatever tells them apart is not in their configurations."
    return Section(
        "What is compared",
        "overview",
        text=[sentence, _RULE],
        results=_results(compared),
        tables=tables,
        listings=[
            Listing("Settings that all runs share", yaml.safe_dump(shared, allow_unicode=True))
        ],
    )


def learning(compared: Compared) -> Section:
    """Loss and accuracy of all runs, and the losses at common steps."""
    loss = compared.curves("attribute_loss")
    levels = {label: run.phase_baseline for label, run in compared.runs.items()}
    panels = {"attribute loss (nats)": loss}
    text = []
    if max(levels.values()) > (1 + _BASELINES_DIFFER) * min(levels.values()):
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
    tables = []
    common = _common_steps(loss)
    if common:
        tables.append(_loss_table(compared, loss, common))
    else:
        text.append(
            "No step was measured in all runs, so there is no table of losses at common steps."
        )
    return Section("Learning", "learning", text=text, figures={"curves": drawn}, tables=tables)


def held_out(compared: Compared) -> Section | None:
    """Known against held-out people, of the runs in which both were measured while training."""
    has = compared.curves("attribute_loss", "held_out")["run"].drop_duplicates().tolist()
    missing = [label for label in compared.labels if label not in has]
    if len(has) < 2:
        return None
    panels = {}
    for metric, words in (("attribute_loss", "loss (nats)"), ("top_probability", "probability")):
        for split, who in (("evaluation", "known"), ("held_out", "held-out")):
            table = compared.curves(metric, split)
            panels[f"{who}<br>{words}"] = table[table["run"].isin(has)]
    figure = plots.compared_panels(
        panels,
        compared.labels,
        "nats or share",
        "Known and held-out people",
        """Left: known people in new wordings, right: people who were never trained on; above the
        attribute loss, in nats, below the mean probability of the top prediction, a share, against
        training steps, a line for each run. Look for the run whose loss on held-out people rises
        most after its plateau, which is hallucination, and for whether its confidence in them does
        too.""",
    )
    for row, words in enumerate(("attribute loss (nats)", "top probability"), start=1):
        figure.update_yaxes(title_text=words, row=row, col=1)
    text = []
    if missing:
        text.append(f"Held-out people were not measured while training in {_listed(missing)}.")
    return Section(
        "Held-out people",
        "held-out",
        text=text,
        figures={"held-out-curves": figure},
    )


def attention(compared: Compared) -> Section | None:
    """Attention to names over training, and the roles of heads in the end."""
    scores = compared.results("attention", "scores")
    if len(scores) < 2:
        return None
    table = _together(scores)
    last_layer = table.groupby("run")["layer"].transform("max")
    of_layer = {"first layer": table[table["layer"] == 0]}
    if (last_layer > 0).any():
        of_layer["last layer"] = table[table["layer"] == last_layer]
    panels: dict[str, pd.DataFrame] = {}
    levels: dict[str, pd.Series] = {}
    for metric in _ATTENTION:
        for where, own in of_layer.items():
            name = f"{where}<br>{SCORE_NAMES[metric]}".replace(" where a value is predicted", "")
            rows = own[own["metric"] == metric]
            panels[name] = rows.groupby(["run", "step"])["value"].mean().reset_index()
            if not metric.endswith("sharpness"):
                levels[name] = rows.groupby("step")["chance"].mean().dropna()
    depths = sorted({run.config.model.n_layers for run in compared.runs.values()})
    text, listings = _missing(compared, scores, "attention")
    if depths[-1] > 2:
        text.append(
            "Of models with more than two layers, only the first and the last are drawn: those "
            "between have no counterpart in the others. Each run's own report has them."
        )
    figure = plots.compared_panels(
        panels,
        compared.labels,
        "share",
        "Attention to names in all runs",
        """Attention, as a share, against training steps, mean over the heads of a layer, a line for
        each run: from the last name token to the rest of that name; from the position that predicts a
        value to the name of its sentence, to names in any sentence, and to words that tell the
        attribute; at the bottom the sharpness of attention there (0: uniform, 1: one token). Dotted:
        chance. Look for whether runs that leave the plateau earlier attend to names earlier.""",
        n_columns=len(of_layer),
        levels=levels,
    )
    roles = compared.results("attention", "roles")
    return Section(
        "Attention to names",
        "attention",
        text=text,
        figures={"attention-curves": figure},
        tables=_role_tables(roles) if len(roles) > 1 else [],
        listings=listings,
    )


def attention_maps(compared: Compared) -> Section | None:
    """The attention maps of the first person of each run, each at its own checkpoints."""
    shown = {label: run for label, run in compared.runs.items() if has_maps(run)}
    shown = dict(list(shown.items())[:_N_MAPPED])
    if not shown:
        return None
    views = [
        maps_embed(run, [0], f"attention-maps-{number}", label, BUDGET // len(shown))
        for number, (label, run) in enumerate(shown.items(), 1)
    ]
    text = [
        "What the heads of each run look at in a biography of its first person. Runs of one "
        "population read the same sentences; runs with other seeds have other people."
    ]
    left_out = [
        label
        for label, run in compared.runs.items()
        if label not in shown and run.config.model.recurrence is None
    ]
    if left_out:
        text.append(
            f"Not shown: {', '.join(left_out)} (the maps of at most {_N_MAPPED} runs with checkpoints "
            "fit here; each run's own report has its maps)."
        )
    recurrent = [n for n, run in compared.runs.items() if run.config.model.recurrence is not None]
    if recurrent:
        text.append(f"Without attention, as they are recurrent: {', '.join(recurrent)}.")
    return Section("Attention maps", "maps", text=text, embeds=views)


def knockout(compared: Compared) -> Section | None:
    """What cutting attention costs in each run, at the last step that all of them have."""
    costs = compared.results("knockout", "costs")
    if len(costs) < 2:
        return None
    table = plots.knockout_rows(_together(costs)).assign(run=_together(costs)["run"])
    whole = table[table["layer"].isna() & table["head"].isna()]
    text, listings = _missing(compared, costs, "knockout")
    common = _common_steps(whole)
    if not common:
        text.append("No step was measured in all of these runs: their costs have no common axis.")
        return Section("Attention knockout", "knockout", text=text, listings=listings)
    last = common[-1]
    at = whole[whole["step"] == last].assign(row=lambda rows: rows["edge"].map(SCORE_NAMES))
    at = at.rename(columns={"cost": "cost_in_nats"}).assign(value=lambda rows: rows["cost_in_nats"])
    figure = plots.compared_rows(
        at,
        compared.labels,
        "cost (nats)",
        f"The cost of cutting attention, step {last:,}",
        f"""How much the attribute loss rises, in nats, when attention edges are cut in all layers, at
        training step {last:,}, the last that all these runs have; a mark for each run, a row for each
        edge; the control cuts as many other tokens. Look for edges whose cost differs between runs
        by more than their controls do.""",
        unit=" nats",
    )
    return Section(
        "Attention knockout",
        "knockout",
        text=text,
        figures={"knockout-rows": figure},
        listings=listings,
        tables=[
            _pivot(
                f"Cost of cutting edges in all layers at step {last:,}, in nats.", at, costs, "edge"
            )
        ],
    )


def emergence(compared: Compared) -> Section | None:
    """When each mechanism emerges in each run."""
    steps = compared.results("emergence", "steps")
    if len(steps) < 2:
        return None
    table = _together(steps)
    strengths = compared.results("emergence", "strengths")
    phases = [compared.phases[label] for label in steps]
    seeds = any(set(steps) <= set(group) for group in compared.groups)
    if seeds and set(strengths) == set(steps):
        figure = plots.emergence(
            table.drop(columns="run"), _together(strengths).drop(columns="run"), phases
        )
    elif table["step"].notna().any():
        order = table.groupby("mechanism", sort=False)["step"].mean().sort_values()
        named = table.set_index("mechanism").loc[order.index].reset_index()
        figure = plots.compared_rows(
            named.rename(columns={"mechanism": "row", "step": "value"}),
            compared.labels,
            "training (steps, square-root scale)",
            "The order of emergence in all runs",
            """The training step at which each mechanism reaches half of its final strength, a mark for
            each run, from first to last by the mean of the runs; a missing mark: no stronger than
            its control in the end. The axis goes with the square root of steps. A run that ended
            early dates its mechanisms by what they had become by then. Look for mechanisms whose
            order changes from run to run.""",
            of_steps=True,
        )
    else:
        figure = None
    rows = [
        (
            mechanism,
            *(_step_of(own.loc[own["mechanism"] == mechanism, "step"]) for own in steps.values()),
        )
        for mechanism in dict.fromkeys(table["mechanism"])
    ]
    text, listings = _missing(compared, steps, "emergence")
    return Section(
        "The order of emergence",
        "emergence",
        text=text,
        listings=listings,
        figures={} if figure is None else {"emergence-rows": figure},
        tables=[
            Table(
                "The step at which each mechanism reaches half of its final strength.",
                ("mechanism", *steps),
                rows,
            )
        ],
    )


def swaps(compared: Compared) -> Section | None:
    """How many predictions follow swapped activations, in each run."""
    found = compared.results("interventions", "swaps")
    if len(found) < 2:
        return None
    best = {label: _best_swaps(table) for label, table in found.items()}
    panels = {}
    for position in _SWAPPED:
        curves = [
            own[position][1].assign(run=label) for label, own in best.items() if position in own
        ]
        if curves:
            panels[position] = pd.concat(curves, ignore_index=True)
    text, listings = _missing(compared, found, "interventions")
    if not panels:
        return None
    figure = plots.compared_panels(
        panels,
        compared.labels,
        "share",
        "Predictions that follow a swap, in all runs",
        """The share of predictions that change to the other person's value when an activation is
        swapped between two people in the same sentences, against training steps, a panel for each
        position, a line for each run: of the attention or MLP output that most predictions of that
        run follow in the end. The table names it, with the control: as many tokens of text swapped.
        Look for runs in which the fact sits elsewhere.""",
        n_columns=1,
        marks=True,
    )
    rows = []
    for position in panels:
        cells = []
        for own in best.values():
            if position not in own:
                cells.append("")
                continue
            site, curve = own[position]
            end = curve.iloc[-1]
            cells.append(
                f"{end['value']:.1%}, control {end['control']:.1%} ({site}, step {end['step']:,.0f})"
            )
        rows.append((position, *cells))
    return Section(
        "Swaps",
        "swaps",
        text=text,
        listings=listings,
        figures={"swap-curves": figure},
        tables=[
            Table(
                "Share of predictions that follow a swap at each run's last measured step, with the "
                "site (the first of equals).",
                ("position", *best),
                rows,
            )
        ],
    )


def patching(compared: Compared) -> Section | None:
    """What attention of a run's own checkpoints gains it, in each run."""
    curves = compared.results("patching", "curves")
    if len(curves) < 2:
        return None
    gains = {}
    for label, table in curves.items():
        gain = comparison(table)
        whole = (gain["start"] == 0) & (gain["layers"] == "all") & (gain["heads"] == "all")
        gains[label] = gain[whole]
    table = _together(gains)
    text, listings = _missing(compared, curves, "patching")
    common = [step for step in _common_steps(table) if step > 0]
    if not common:
        text.append("No step was measured in the patched runs of all: gains have no common axis.")
        return Section("Attention patching", "patching", text=text, listings=listings)
    step = common[-1]
    at = table[table["step"] == step]
    rows = []
    for reference in sorted({int(r) for r in at["reference_step"]}):
        own = at[at["reference_step"] == reference].groupby("run")["gain"].mean()
        rows.append(
            (f"step {reference:,}", *(f"{own[n]:+.3f}" if n in own else "" for n in curves))
        )
    return Section(
        "Attention patching",
        "patching",
        text=text,
        listings=listings,
        figures={"gains": plots.compared_gains(at, compared.labels, step)},
        tables=[
            Table(
                f"Gain in attribute loss at step {step:,} by the attention of a reference checkpoint, "
                "in nats.",
                ("reference", *curves),
                rows,
            )
        ],
    )


def not_compared(compared: Compared) -> Section | None:
    """Which stages fewer than two runs have, and what would make them."""
    text, listings = [], []
    for stage, table, what in (
        ("attention", "scores", "Attention to names"),
        ("knockout", "costs", "Attention knockout"),
        ("emergence", "steps", "The order of emergence"),
        ("interventions", "swaps", "Swaps"),
        ("patching", "curves", "Attention patching"),
    ):
        found = compared.results(stage, table)
        able = _able(compared, stage)
        if len(found) < 2 <= len(able):
            has = (
                f"only {_listed(found)} has been measured" if found else "no run has been measured"
            )
            text.append(f"{what}: {has}.")
            commands = [_command(compared.runs[n], stage) for n in able if n not in found]
            listings.append(
                Listing(f"To compare: {what[0].lower()}{what[1:]}", "\n".join(commands))
            )
        elif len(able) < 2:
            patched = any(run.config.patching.on for run in compared.runs.values())
            why = "patched run has none, as it is no reference of others"
            if stage != "patching" or not patched:
                why = "recurrent run has none, as it has no attention"
            text.append(f"{what}: a {why}.")
    return Section("Not compared", "not-compared", text=text, listings=listings) if text else None


SECTIONS: tuple[Callable[[Compared], Section | None], ...] = (
    overview,
    learning,
    held_out,
    attention,
    attention_maps,
    knockout,
    emergence,
    swaps,
    patching,
    not_compared,
)
"""The sections of a comparison, in order."""


def _headline(compared: Compared) -> str:
    """One sentence or two, by the rule that the page states."""
    ends = {n: p.plateau_end for n, p in compared.phases.items() if p.plateau_end is not None}
    n_runs, what = len(compared.runs), "seeds" if compared.one_configuration else "runs"
    if not ends:
        left = f"None of the {n_runs} {what} has left its plateau"
    else:
        who = f"All {n_runs} {what} leave" if len(ends) == n_runs else (
            f"{len(ends)} of the {n_runs} {what} {'leaves' if len(ends) == 1 else 'leave'}"
        )  # fmt: skip
        left = f"{who} the plateau {_spread(ends, 'step {:,.0f}', mean=compared.one_configuration)}"
    when, accuracies = _accuracies(compared)
    known = _spread(accuracies, "{:.1%}", mean=compared.one_configuration, preposition="is")
    return f"{left}. Accuracy {when} {known}."


def _accuracies(compared: Compared) -> tuple[str, dict[str, float]]:
    """Accuracies that can be held against each other, and when they were measured."""
    table = compared.curves("attribute_accuracy")
    common = _common_steps(table)
    if common and table.groupby("run")["step"].max().nunique() > 1:
        at = table[table["step"] == common[-1]].groupby("run")["value"].mean()
        when = f"at step {common[-1]:,}, the last that all of them have,"
        return when, {label: float(at[label]) for label in compared.labels}
    ends = {label: compared.final(label, "attribute_accuracy") for label in compared.labels}
    return "in the end", {label: value for label, value in ends.items() if value is not None}


def _spread(values: Mapping[str, float], form: str, *, mean: bool, preposition: str = "at") -> str:
    """In words: from the lowest (its run) to the highest (its run), the mean before if asked for."""
    low, high = min(values, key=lambda n: values[n]), max(values, key=lambda n: values[n])
    if form.format(values[low]) == form.format(values[high]):
        of_all = " in every one" if len(values) > 1 else f" ({low})"
        return f"{preposition} {form.format(values[low])}{of_all}"
    extent = f"{form.format(values[low])} ({low}) to {form.format(values[high])} ({high})"
    if mean:
        average = form.format(sum(values.values()) / len(values))
        return f"{preposition} {average} in the mean, from {extent}"
    return f"{preposition} {extent}"


def _results(compared: Compared) -> list[tuple[str, str, str]]:
    """Mean and range over all runs, where they are seeds of one configuration."""
    if not compared.one_configuration:
        return []
    found = []
    ends = [p.plateau_end for p in compared.phases.values() if p.plateau_end is not None]
    if ends:
        words = f"{min(ends):,} to {max(ends):,}; left by {len(ends)} of {len(compared.runs)} seeds"
        found.append(("End of the plateau", f"step {sum(ends) / len(ends):,.0f}", words))
    for title, metric, split, form in (
        ("Attribute accuracy", "attribute_accuracy", "evaluation", "{:.1%}"),
        ("Attribute loss", "attribute_loss", "evaluation", "{:.2f} nats"),
        ("Held-out attribute loss", "attribute_loss", "held_out", "{:.2f} nats"),
    ):
        values = [compared.final(label, metric, split) for label in compared.labels]
        known = [value for value in values if value is not None]
        if known:
            words = f"{form.format(min(known))} to {form.format(max(known))}"
            mean = form.format(sum(known) / len(known))
            found.append((title, mean, f"mean of {len(known)} seeds; {words}"))
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


def _role_tables(roles: Mapping[str, pd.DataFrame]) -> list[Table]:
    """Each head's role at each run's last checkpoint, and how many heads of a layer have each."""
    last = {label: table[table["step"] == table["step"].max()] for label, table in roles.items()}
    cells = {
        label: {
            (int(layer), int(head)): "none" if pd.isna(role) else str(role)
            for layer, head, role in zip(rows["layer"], rows["head"], rows["role"], strict=True)
        }
        for label, rows in last.items()
    }
    heads = sorted({place for own in cells.values() for place in own})
    ends = {label: int(rows["step"].iloc[0]) for label, rows in last.items()}
    same = len(set(ends.values())) == 1
    titles = [label if same else f"{label} (step {end:,})" for label, end in ends.items()]
    when = f"at step {max(ends.values()):,}" if same else "at each run's last checkpoint"
    by_head = [
        (
            f"{layer}.{head}",
            *(_signed_role(own.get((layer, head))) for own in cells.values()),
        )
        for layer, head in heads
    ]
    counted = [
        (
            f"layer {layer}",
            *(
                ", ".join(
                    f"{n} {_signed_role(role)}"
                    for role in (*_SIGNS, "none")
                    if (n := sum(r == role for (la, _), r in own.items() if la == layer))
                )
                for own in cells.values()
            ),
        )
        for layer in sorted({layer for layer, _ in heads})
    ]
    return [
        Table(
            f"How many heads of each layer have which role {when}.",
            ("layer", *titles),
            counted,
        ),
        Table(
            f"The role of every head (layer.head) {when}. Heads of runs with other initial weights are "
            "not the same heads: between seeds compare the numbers above.",
            ("head", *titles),
            by_head,
        ),
    ]


def _signed_role(role: str | None) -> str:
    return "" if role is None else f"{_SIGNS.get(role, '')} {role}".strip()


def _best_swaps(swaps: pd.DataFrame) -> dict[str, tuple[str, pd.DataFrame]]:
    """For each position, the site that most predictions follow in the end, and its curve."""
    rows = plots.swap_rows(swaps)
    # The residual stream at a position holds all that the model has there: that predictions follow it
    # where they are made is no news. What a block adds is.
    rows = rows[rows["site"].isin(OUTPUTS)]
    found = {}
    for position in _SWAPPED:
        own = rows[(rows["position"] == position) & rows["follows"].notna()]
        if own.empty:
            continue
        last = own[own["step"] == own["step"].max()]
        best = last.loc[last["follows"].idxmax()]
        of_site = own[(own["site"] == best["site"]) & (own["layer"] == best["layer"])]
        curve = of_site.groupby("step")[["follows", "control"]].mean().reset_index()
        name = plots.site_name(str(best["site"]), int(best["layer"]))
        found[position] = (name, curve.rename(columns={"follows": "value"}))
    return found


def _pivot(
    caption: str, table: pd.DataFrame, runs: Mapping[str, pd.DataFrame], column: str
) -> Table:
    values = table.pivot_table("value", column, "run", sort=False)
    rows = [
        (
            SCORE_NAMES.get(str(name), str(name)),
            *(f"{row[n]:+.3f}" if n in row and pd.notna(row[n]) else "" for n in runs),
        )
        for name, row in values.iterrows()
    ]
    return Table(caption, (column, *runs), rows)


def _together(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(
        [table.assign(run=label) for label, table in tables.items()], ignore_index=True
    )


def _common_steps(table: pd.DataFrame) -> list[int]:
    """The steps that every run of a table has, in order."""
    of_run = [{int(step) for step in steps} for _, steps in table.groupby("run")["step"]]
    return sorted(set.intersection(*of_run)) if of_run else []


def _missing(
    compared: Compared, found: Mapping[str, object], stage: str
) -> tuple[list[str], list[Listing]]:
    """Which runs lack a stage, in a sentence, and the commands that make it; empty if none does."""
    missing = [label for label in _able(compared, stage) if label not in found]
    if not missing:
        return [], []
    # A listing: commands hold paths, which may be longer than a phone is wide.
    commands = "\n".join(_command(compared.runs[label], stage) for label in missing)
    return (
        [f"Not measured in {_listed(missing)}; the command is folded away below."],
        [Listing(f"To measure it in {_listed(missing)}", commands)],
    )


def _able(compared: Compared, stage: str) -> list[str]:
    """The runs that can have a stage.

    A patched run is not the reference of others, and a recurrent one has no attention.
    """
    return [
        label
        for label, run in compared.runs.items()
        if run.config.model.recurrence is None
        and (stage != "patching" or not run.config.patching.on)
    ]


def _command(run: Run, stage: str) -> str:
    """What to type to give a run a stage's results."""
    folder = str(run.path)
    if stage in _MEMORY_STAGES and run.finished:
        return shlex.join(["interp", "memory", folder])
    known = PRESETS.get(run.config.preset)
    if known is None:
        return shlex.join(["interp", "reproduce", "--out", folder]) + " with the run's settings"
    words = ["interp", "reproduce", run.config.preset, "--out", folder]
    ours, theirs = run.config.identity(), known.identity()
    for name in sorted(name for name in ours if ours[name] != theirs.get(name)):
        if name == "patching.reference_run":
            words += ["--patching.reference", str(run.config.patching.reference)]
            continue
        value = ours[name]
        words.append(f"--{name.replace('_', '-')}")
        words += [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
    return shlex.join(words)


def _listed(labels: Sequence[str] | Mapping[str, object]) -> str:
    *most, last = list(labels)
    return f"{', '.join(most)} and {last}" if most else last


def _reached(step: int | None) -> str:
    return "not reached" if step is None else f"{step:,}"


def _step_of(steps: pd.Series) -> str:
    found = steps.dropna()
    return "absent" if found.empty else f"{found.iloc[0]:,.0f}"


def _shortened(text: str) -> str:
    return text if len(text) <= 48 else text[:12] + "…"
