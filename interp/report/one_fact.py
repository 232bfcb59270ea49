"""One traced fact as a file of its own: a page that opens with the network off, or a picture."""

from pathlib import Path

from interp.errors import ConfigError, InterpError
from interp.files import write_bytes, write_text
from interp.memory.trace import Trace
from interp.plots.trace import fact_trace
from interp.report.elements import Listing, Section
from interp.report.html import render

PICTURES = (".svg", ".png")
FORMATS = (".html", *PICTURES)
"""The files that a fact can be written to, by their ending."""
_PICTURE_WIDTH = 640


def require_format(path: Path | str) -> None:
    """Checks that a fact can be written to a file of this name.

    Raises:
        ConfigError: its ending is none of `FORMATS`.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: give a file that ends in {', '.join(FORMATS)}.")


def write_fact(trace: Trace, path: Path | str) -> Path:
    """Writes the figure of a traced fact; what kind of file it is, its ending says.

    Args:
        trace: What `interp.trace` returned.
        path: A file that ends in .html (self-contained, with the trace in words), .svg or .png.

    Returns:
        The path of the file.

    Raises:
        ConfigError: another ending.
        InterpError: a picture is asked for, and kaleido or the browser that it draws with is missing.
        StorageError: the file cannot be written.
    """
    require_format(path)
    target = Path(path)
    if target.suffix.lower() in PICTURES:
        write_bytes(target, _picture(trace, target.suffix.lower().removeprefix(".")))
        return target
    title, *lines = repr(trace).split("\n")
    section = Section(
        "The fact",
        "fact",
        text=lines[:2],
        figures={"trace": fact_trace(trace)},
        listings=[Listing("The trace in words", repr(trace))],
    )
    write_text(target, render(title, f"{trace.name}: {trace.value}.", [section]))
    return target


def _picture(trace: Trace, kind: str) -> bytes:
    # Opaque: a picture is looked at on whatever background a viewer has.
    figure = fact_trace(trace).update_layout(paper_bgcolor="white", width=_PICTURE_WIDTH)
    try:
        return bytes(figure.to_image(format=kind))
    # Kaleido is an optional package (ValueError), and its browser a program of its own.
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InterpError(
            f"The picture could not be drawn: {reason[:200]} Pictures need the package kaleido and "
            "Chrome or Chromium (BROWSER_PATH says where it is). Give --out a file that ends in "
            ".html instead: it needs neither."
        ) from error
