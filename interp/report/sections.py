"""The sections of a run's report, each built by a function of its own.

A new section is a function with the decorator `of_run`, added to `SECTIONS`.
"""

from dataclasses import replace

import yaml

from interp import plots
from interp.errors import NothingToMeasureError
from interp.report.attention import attention_section, knockout_section, patching_section
from interp.report.built import built_section, not_trained
from interp.report.elements import LeftOut, Listing, Section, SectionBuilder, Table
from interp.report.equations import equations_section
from interp.report.forms import forms_section
from interp.report.glossary import glossary_of
from interp.report.located_facts import facts_of_compiled, located_facts_section
from interp.report.maps import maps_section
from interp.report.memory import emergence_section, memory_section, swap_section
from interp.report.overview import knowledge_sentence, phases_sentence
from interp.report.run_tables import nothing_to_measure, of_run
from interp.report.summary import final, key_results, measured_on, measured_splits, phase_rows
from interp.report.trust import trust_section
from interp.run import Run

__all__ = ["SECTIONS", "Listing", "Section", "SectionBuilder", "Table"]


@of_run("Learning", "learning")
def learning(run: Run) -> Section:
    """The curves over training, and how firm the phases are."""
    phases = run.phases
    figures, lacks = {"learning-curves": plots.learning_curves(run)}, []
    try:
        figures["phase-sensitivity"] = plots.phase_sensitivity(run)
    except NothingToMeasureError as error:
        lacks.append(replace(nothing_to_measure(str(error)), title="Phases of learning"))
    return Section(
        sentence=phases_sentence(phases, int(run.curve().index[-1])),
        results=key_results(run),
        figures=figures,
        tables=[
            Table(
                f"The phases of this run, with δ = {phases.delta} around the baseline of these people "
                f"({phases.baseline:.2f} nats).",
                ("phase", "steps", "what happens"),
                phase_rows(run),
            )
        ],
        downloads={"metrics": run.metrics},
        lacks=lacks,
    )


@of_run("Knowledge and hallucination", "held-out", folded=True)
def hallucination(run: Run) -> Section | LeftOut:
    """Known against held-out people."""
    if "held_out" not in measured_splits(run, while_training=True):
        return LeftOut("held-out people were not measured while training")
    figures = {"known-and-held-out": plots.known_and_held_out(run)}
    return Section(sentence=knowledge_sentence(run), figures=figures)


@of_run("Attributes", "attributes", folded=True)
def attributes(run: Run) -> Section:
    """Each attribute by itself: curves and final numbers."""
    baselines, splits = run.baselines, measured_splits(run)
    # Nobody in a split may have an attribute.
    told = set(zip(run.metrics["split"], run.metrics["attribute"], strict=True))
    rows = []
    for name in ("all", *run.population.attributes):
        level = run.phase_baseline if name == "all" else baselines.statistics[name]
        theory = run.baseline if name == "all" else baselines.theoretical[name]
        losses = [
            f"{final(run, 'attribute_loss', split, name):.3f}" if (split, name) in told else "–"
            for split in splits
        ]
        accuracy = f"{final(run, 'attribute_accuracy', 'evaluation', name):.1%}"
        label = "all (mean)" if name == "all" else name.replace("_", " ")
        rows.append((label, *losses, f"{level:.3f}", f"{theory:.3f}", accuracy))
    table = Table(
        f"Each attribute at step {run.curve().index[-1]:,}, measured on {measured_on(run)}: "
        "attribute loss and baselines in nats, accuracy as a share of the values of evaluation biographies.",
        (
            "attribute",
            *(f"{split.replace('_', '-')} loss" for split in splits),
            "baseline (drawn)",
            "baseline (theoretical)",
            "evaluation accuracy",
        ),
        rows,
    )
    everybody = run.result("knowledge", "final")
    return Section(
        # Where the section on held-out people says it, it is not said again.
        sentence=""
        if "held_out" in measured_splits(run, while_training=True)
        else knowledge_sentence(run),
        text=["Each attribute by itself, against the loss of a model that knows no individual."],
        figures={"attribute-curves": plots.attribute_curves(run)},
        tables=[table],
        downloads={} if everybody is None else {"knowledge-final": everybody},
    )


@of_run("Configuration and environment", "configuration")
def configuration(run: Run) -> Section:
    """The settings and the environment, enough to train the run again."""
    environment = yaml.safe_dump(run.environment, sort_keys=False, allow_unicode=True)
    return Section(
        text=[
            "The same settings on the same machine, with the same package versions and number of "
            "threads, give the same run to the byte. One run has no error bars: that takes several seeds."
        ],
        listings=[
            Listing("Configuration (config.yaml)", run.config.to_yaml()),
            Listing(
                "Environment (environment.json, as YAML)",
                environment if run.environment else "not recorded",
            ),
        ],
    )


@of_run("Glossary", "glossary")
def glossary(run: Run) -> Section:
    """The terms of the report."""
    return Section(terms=glossary_of(run.population, not run.config.compiled.on))


SECTIONS: tuple[SectionBuilder, ...] = (
    learning,
    maps_section,
    hallucination,
    attributes,
    forms_section,
    attention_section,
    knockout_section,
    patching_section,
    memory_section,
    swap_section,
    emergence_section,
    equations_section,
    located_facts_section,
    trust_section,
    configuration,
    glossary,
)
"""The sections of a run's report, in order."""
COMPILED_SECTIONS: tuple[SectionBuilder, ...] = (
    built_section,
    maps_section,
    facts_of_compiled,
    trust_section,
    not_trained,
    configuration,
    glossary,
)
"""Those of weights that were computed: nothing in them is over training."""


def sections_of(run: Run) -> tuple[SectionBuilder, ...]:
    """The sections that apply to a run."""
    return COMPILED_SECTIONS if run.config.compiled.on else SECTIONS
