"""The page of the study of attention patching over several seeds."""

from pathlib import Path

import pandas as pd

from interp import plots
from interp.files import write_text
from interp.phases import NAMES, Phases
from interp.report.attention import reference_table
from interp.report.elements import Section, Table
from interp.report.html import page_to_write, render
from interp.report.overview import reference_changes

_RULE = (
    "The first sentence follows a rule: runs patched from step 0 in all layers and heads are held "
    "against the unpatched run of the same seed at one training step, the measured one nearest to 1.5 "
    "times the end of the reference's plateau (the last common one if the plateau does not end). A "
    "phase's references lower or raise the loss if their mean does so in every seed; otherwise the "
    "seeds disagree. Step 0 is counted apart: there the patterns are the untrained model's."
)


def write_patching_report(table: pd.DataFrame, phases: Phases, path: Path | str) -> Path:
    """Writes the page of a finished study.

    Args:
        table: Patched runs of all seeds; see `interp.plots.patching`.
        phases: Of the reference.
        path: The HTML file.

    Returns:
        The path of the file.

    Raises:
        InterpError: the unpatched run, or every run patched throughout, is missing.
        StorageError: the file cannot be written.
    """
    target = page_to_write(path)
    change, step = reference_changes(table, phases)
    section = Section(
        "Attention patterns and the plateau",
        "patching",
        text=[_RULE],
        figures=plots.patching_figures(table, phases),
        tables=[reference_table(table, phases), _agreement(change, phases, step)],
        downloads={"patching-curves": table},
    )
    headline = _headline(change, phases, step)
    page = render("Learning with the attention of a reference checkpoint", headline, [section])
    write_text(target, page)
    return target


def _headline(changes: pd.DataFrame, phases: Phases, step: int) -> str:
    """One sentence, by the rule that the page states."""
    parts = []
    for name, references in _groups(changes, phases).items():
        change = changes[references].mean(axis=1)
        if (change < 0).all():
            words = "lower"
        elif (change > 0).all():
            words = "raise"
        else:
            parts.append(f"for those {name} the seeds disagree ({change.mean():+.2f} nats)")
            continue
        parts.append(f"those {name} {words} it by {abs(change.mean()):.2f} nats")
    seeds = "1 seed" if len(changes) == 1 else f"mean of {len(changes)} seeds"
    means = {reference: changes[reference].mean() for reference in _references(changes)}
    best = min(means, key=lambda reference: means[reference])
    return (
        f"Attention patterns of a reference checkpoint change the attribute loss at step {step:,} "
        f"({seeds}): {'; '.join(parts)}. The best reference is step {best:,} "
        f"({means[best]:+.2f} nats)."
    )


def _groups(changes: pd.DataFrame, phases: Phases) -> dict[str, list[int]]:
    """References by phase, in words."""
    words = {
        "statistics": "of the statistics phase",
        "plateau": "of the plateau",
        "knowledge": "from after the plateau",
    }
    groups = {"of the untrained model": [r for r in _references(changes) if r == 0]}
    for name in NAMES:
        groups[words[name]] = [r for r in _references(changes) if r > 0 and phases.at(r) == name]
    return {name: references for name, references in groups.items() if references}


def _references(changes: pd.DataFrame) -> list[int]:
    """The reference steps, which head the columns."""
    return sorted(int(str(reference)) for reference in changes.columns)


def _agreement(changes: pd.DataFrame, phases: Phases, step: int) -> Table:
    """How firm each reference's change is over the seeds."""
    rows = []
    for reference in _references(changes):
        change = changes[reference].dropna()
        rows.append(
            (
                f"step {reference:,}",
                phases.at(reference),
                f"{change.mean():+.2f}",
                f"{change.min():+.2f} to {change.max():+.2f}",
                f"{int((change < 0).sum())} of {len(change)}",
            )
        )
    return Table(
        f"Change of the attribute loss at step {step:,} against the unpatched run of the same seed, "
        "in nats.",
        ("reference", "its phase", "mean", "range of seeds", "seeds with a lower loss"),
        rows,
    )
