"""The sections of a report, each built from a run by a function of its own.

A new section is a function `(Run) -> Section | None`, added to `SECTIONS`.
"""

import yaml

from interp import plots
from interp.biographies import ATTRIBUTES
from interp.report.attention import attention_section, knockout_section, patching_section
from interp.report.elements import Listing, Section, SectionBuilder, Table
from interp.report.glossary import GLOSSARY
from interp.report.located_facts import located_facts_section
from interp.report.maps import maps_section
from interp.report.memory import emergence_section, memory_section, swap_section
from interp.report.summary import final, measured_on, measured_splits
from interp.run import Run

__all__ = ["SECTIONS", "Listing", "Section", "SectionBuilder", "Table"]


def learning(run: Run) -> Section:
    """The curves over training, and how firm the phases are."""
    return Section(
        "Learning",
        "learning",
        figures={
            "learning-curves": plots.learning_curves(run),
            "phase-sensitivity": plots.phase_sensitivity(run),
        },
    )


def hallucination(run: Run) -> Section | None:
    """Known against held-out people; None if the latter were not measured."""
    if "held_out" not in measured_splits(run, while_training=True):
        return None
    return Section(
        "Held-out people",
        "held-out",
        figures={"known-and-held-out": plots.known_and_held_out(run)},
    )


def attributes(run: Run) -> Section:
    """Each attribute by itself: curves and final numbers."""
    baselines = run.baselines
    splits = measured_splits(run)
    rows = []
    for name in ("all", *ATTRIBUTES):
        level = run.phase_baseline if name == "all" else baselines.statistics[name]
        theory = run.baseline if name == "all" else baselines.theoretical[name]
        losses = [f"{final(run, 'attribute_loss', split, name):.3f}" for split in splits]
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
    return Section(
        "Attributes",
        "attributes",
        figures={"attribute-curves": plots.attribute_curves(run)},
        tables=[table],
    )


def configuration(run: Run) -> Section:
    """The settings and the environment, enough to train the run again."""
    environment = yaml.safe_dump(run.environment, sort_keys=False, allow_unicode=True)
    return Section(
        "Configuration and environment",
        "configuration",
        text=[
            "The same settings on the same machine, with the same package versions and number of "
            "threads, give the same run to the byte."
        ],
        listings=[
            Listing("Configuration (config.yaml)", run.config.to_yaml()),
            Listing(
                "Environment (environment.json, as YAML)",
                environment if run.environment else "not recorded",
            ),
        ],
    )


def glossary(run: Run) -> Section:
    """The terms of the report."""
    return Section("Glossary", "glossary", terms=GLOSSARY)


SECTIONS: tuple[SectionBuilder, ...] = (
    maps_section,
    learning,
    hallucination,
    attributes,
    attention_section,
    knockout_section,
    patching_section,
    memory_section,
    swap_section,
    emergence_section,
    located_facts_section,
    configuration,
    glossary,
)
"""The sections of a run's report after the overview, in order."""
