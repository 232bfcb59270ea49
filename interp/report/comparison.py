"""One page that compares several runs: seeds, patched runs, other settings.

What at least two runs have is put on common axes; what is missing is said, with the command that makes
it. Runs may differ in anything: in size, in length, in the steps at which they were measured.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from interp.files import write_text
from interp.report.compared_overview import headline, learning, overview
from interp.report.compared_runs import Compared, compare
from interp.report.compared_sections import (
    attention,
    attention_maps,
    emergence,
    held_out,
    knockout,
    patching,
    swaps,
)
from interp.report.elements import LeftOut, Section
from interp.report.html import page_to_write, render
from interp.run import Run

__all__ = ["SECTIONS", "Compared", "attention_maps", "compare", "write_comparison"]

SECTIONS: tuple[Callable[[Compared], Section | LeftOut], ...] = (
    overview,
    learning,
    held_out,
    attention,
    attention_maps,
    knockout,
    emergence,
    swaps,
    patching,
)
"""The sections of a comparison, in order."""


def write_comparison(runs: Sequence[Run | Path | str], path: Path | str) -> Path:
    """Writes one self-contained page that compares runs.

    Args:
        runs: Two or more runs, or their folders; training need not have ended. Up to a dozen stay
            readable.
        path: The HTML file; .html is added to a name without an ending.

    Returns:
        The path of the file.

    Raises:
        ConfigError: fewer than two runs, or the same one twice.
        RunError: a folder holds no run, or nothing has been measured there yet, or `path` is a file that
            is no page of ours.
        StorageError: the file cannot be written.
    """
    target = page_to_write(path)
    compared = compare(runs)
    title = f"{len(compared.runs)} {'seeds' if compared.one_configuration else 'runs'} compared"
    page = render(title, headline(compared), [build(compared) for build in SECTIONS])
    write_text(target, page)
    return target
