"""The loss along the line between two models as a page of its own, which opens with the network off."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from interp.files import write_text
from interp.merging import barrier
from interp.plots.merging import line_curves
from interp.report.elements import Section
from interp.report.html import page_to_write, render


def write_line(line: pd.DataFrame, path: Path | str, names: Sequence[str]) -> Path:
    """Writes the figure of a line between two models.

    Args:
        line: What `interp.loss_along_line` returned.
        path: A file that ends in .html (added to a name without an ending).
        names: What the two models are called.

    Raises:
        ArgumentError: another table.
        RunError: something else than a page of ours lies there.
        StorageError: the file cannot be written.
    """
    target = page_to_write(path)
    first, second = names
    split = next(iter(line["split"])) if line["split"].nunique() == 1 else "evaluation"
    section = Section(
        "Along the line",
        "line",
        text=[f"α = 0 is {first}, α = 1 is {second}."],
        figures={"along-the-line": line_curves(line)},
    )
    headline = f"The barrier is {barrier(line, split):.3g} nats ({split.replace('_', ' ')})."
    write_text(target, render(f"From {first} to {second}", headline, [section]))
    return target
