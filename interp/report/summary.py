"""A run in words and numbers: the headline, the phases, the results at the end."""

from interp.errors import RunError
from interp.knowledge import SPLITS
from interp.plots import phase_bands
from interp.run import Run
from interp.run.origin import kind_of_model, origin_sentences
from interp.seeds import number_of

_HAPPENS = {
    "statistics": "The loss falls to the baseline: the model learns how values are distributed.",
    "plateau": "The loss stays at the baseline: no individual is known yet.",
    "knowledge": "The loss falls below the baseline for good: facts are learned.",
}

ONE_VALUE = "all known people have the same values"
NO_PHASES = f"there are no phases, as {ONE_VALUE}: statistics alone predict everything"


def final(run: Run, metric: str, split: str = "evaluation", attribute: str = "all") -> float:
    """The last value of a metric: on everybody if that was measured, else as while training.

    Raises:
        RunError: it was not measured, or its row has been lost.
    """
    table = run.result("knowledge", "final")
    if table is None:
        return float(run.curve(metric, split, attribute).iloc[-1])
    row = (table["metric"] == metric) & (table["split"] == split)
    values = table.loc[row & (table["attribute"] == attribute), "value"]
    if values.empty:
        folder = run.results_path / "knowledge"
        raise RunError(
            f"{folder / 'final.csv'} has no {metric} of split {split!r} and attribute {attribute!r}: rows "
            f"are missing. Delete {folder} and run `interp reproduce --out {run.given}` with the same "
            "settings again."
        )
    return float(values.iloc[0])


def measured_on(run: Run) -> str:
    """Whom the final numbers are about."""
    if run.result("knowledge", "final") is not None:
        return "everybody"
    return f"at most {run.config.evaluation.n_individuals:,} people, as while training"


def measured_splits(run: Run, *, while_training: bool = False) -> list[str]:
    """The splits that `final` has numbers of, or those with curves over training."""
    table = None if while_training else run.result("knowledge", "final")
    if table is None:
        metrics = run.metrics
        table = metrics[metrics["metric"] == "attribute_loss"]
    measured = set(table["split"])
    return [split for split in SPLITS if split in measured]


def page_title(run: Run) -> str:
    """The page's title."""
    whose = f"preset {run.config.preset}, seed {run.config.seed}"
    if variant := run.config.compiled.variant:
        return f"Compiled model ({variant}), {whose}"
    if run.config.merging.on:
        return f"Merged model, {whose}"
    kind = "Fine-tuned run" if run.config.finetuning.on else "Run"
    return f"{kind} of {whose}"


def about(run: Run) -> list[str]:
    """What a run is beside a plain training: sentences that stand below its headline."""
    return origin_sentences(run.config, run.environment)


def headline(run: Run) -> str:
    """One sentence: which model was trained on whom, and for how long; or computed from whom."""
    config = run.config
    people = config.population
    counts = run.environment.get("parameters")
    steps = int(run.curve().index[-1])
    held_out = f" ({people.n_held_out:,} more were held out)" if people.n_held_out else ""
    kind = kind_of_model(config)
    progress = "" if run.finished else f" of {config.training.last_step:,}; training has not ended"
    parameters = (
        f" and {_short(counts['total'])} parameters ({_short(counts['non_embedding'])} without embeddings)"
        if counts
        else ""
    )
    if config.compiled.on:
        return (
            f"{kind} of {number_of(config.model.n_layers, 'layer')}{parameters}, computed from the "
            f"biographies of {people.n_individuals:,} people{held_out} without training."
        )
    if config.merging.on:
        return (
            f"{kind} of {number_of(config.model.n_layers, 'layer')}{parameters}, merged from other runs, on "
            f"the biographies of {people.n_individuals:,} people{held_out}."
        )
    if config.finetuning.on:
        return (
            f"{kind} of {number_of(config.model.n_layers, 'layer')}{parameters} that had learned the "
            f"biographies of {people.n_individuals:,} people, fine-tuned for {steps:,} steps of "
            f"{number_of(config.training.batch_size, 'biography', 'biographies')}{progress}."
        )
    return (
        f"{kind} of {number_of(config.model.n_layers, 'layer')}{parameters} learned the biographies "
        f"of {people.n_individuals:,} people{held_out} in "
        f"{steps:,} steps of {number_of(config.training.batch_size, 'biography', 'biographies')}"
        f"{progress}."
    )


def phase_rows(run: Run) -> list[tuple[str, str, str]]:
    """The phases the run went through: name, steps, what happens."""
    steps = run.curve().index
    rows = []
    for band in phase_bands(run.phases, int(steps[0]), int(steps[-1])):
        if band.name == "knowledge":
            extent = f"from {band.start:,} on"
        else:
            extent = f"{band.start:,} to {band.end:,}" + ("" if band.closed else ", not left")
        rows.append((f"{band.number} {band.name}", extent, _HAPPENS[band.name]))
    return rows


def key_results(run: Run) -> list[tuple[str, str, str]]:
    """The results in brief: name, value with unit, remark."""
    phases = run.phases
    last = int(run.curve().index[-1])
    loss = final(run, "attribute_loss")
    results = [
        (
            "Attribute accuracy",
            f"{final(run, 'attribute_accuracy'):.1%}",
            f"of the values of known people in new wordings, at step {last:,}; "
            f"measured on {measured_on(run)}",
        ),
        (
            "Attribute loss",
            f"{loss:.2f} nats",
            f"known people in new wordings; baseline {run.phase_baseline:.2f}",
        ),
    ]
    if "held_out" in measured_splits(run):
        unknown = final(run, "attribute_loss", "held_out")
        results.append(
            (
                "Held-out attribute loss",
                f"{unknown:.2f} nats",
                against_baseline(run, unknown, f" of {run.phase_baseline:.2f}"),
            )
        )
    if not run.phase_baseline:
        results.append(("Plateau length", "none", NO_PHASES))
    elif phases.plateau_length is not None:
        remark = f"from step {phases.statistics_end:,} to step {phases.plateau_end:,}"
        results.append(("Plateau length", f"{phases.plateau_length:,} steps", remark))
    else:
        results.append(("Plateau length", "not reached", f"no end by step {last:,}"))
    return results


def against_baseline(run: Run, unknown: float, level: str = "") -> str:
    """The final loss on held-out people as a multiple of the baseline (`level` in words), and its meaning."""
    if not run.phase_baseline:
        return f"the baseline is 0, as {ONE_VALUE}"
    return (
        f"{unknown / run.phase_baseline:.2f} times the baseline{level}: {meaning_of_held_out(run)}"
    )


def meaning_of_held_out(run: Run) -> str:
    """What the final loss on held-out people says: hallucination is a loss above the baseline."""
    if run.phases.plateau_end is None:
        return "the plateau has not ended"
    unknown = final(run, "attribute_loss", "held_out")
    above = unknown > (1 + run.phases.delta) * run.phase_baseline
    return "confident and wrong" if above else "no hallucination"


def _short(number: int) -> str:
    """A number in two or three digits: 741,632 is 742 thousand."""
    for unit, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
