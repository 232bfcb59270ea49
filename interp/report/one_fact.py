"""One located fact as a file of its own: a page that opens with the network off, or a picture."""

import re
import struct
import zlib
from pathlib import Path

from interp.errors import ConfigError, InterpError
from interp.files import replaceable, with_ending, write_bytes, write_text
from interp.memory.located_fact import LocatedFact
from interp.plots.fact import located_fact
from interp.report.elements import Listing, Section
from interp.report.html import page_to_write, render

PICTURES = (".svg", ".png")
FORMATS = (".html", *PICTURES)
"""The files that a fact can be written to, by their ending."""
_PICTURE_WIDTH = 640
_NOTE = b"tEXtSoftware\0interp"  # a chunk of a PNG
_MARKS = {
    ".svg": re.compile(rb'<svg class="main-svg"'),
    ".png": re.compile(rb"\x89PNG\r\n\x1a\n.{25}.{4}" + _NOTE, re.DOTALL),
}
"""What pictures begin with."""


def require_format(path: Path | str) -> Path:
    """The file that a fact is written to: a page (.html) if the name has no ending.

    Raises:
        ConfigError: its ending is none of `FORMATS`.
        RunError: a file is there that was not written by this toolkit.
    """
    target = with_ending(path, ".html")
    suffix = target.suffix.lower()
    if target.suffix and suffix not in FORMATS:
        raise ConfigError(f"{path}: give a file that ends in {', '.join(FORMATS)}.")
    return (
        replaceable(target, _MARKS[suffix], "a picture")
        if suffix in PICTURES
        else page_to_write(target)
    )


def write_fact(fact: LocatedFact, path: Path | str) -> Path:
    """Writes the figure of a located fact; what kind of file it is, its ending says.

    Args:
        fact: What `interp.locate_fact` returned.
        path: A file that ends in .html (self-contained, with the fact in words; also where the name has no
            ending), .svg or .png.

    Returns:
        The path of the file.

    Raises:
        ConfigError: another ending.
        InterpError: a picture is asked for, and kaleido or the browser that it draws with is missing.
        StorageError: the file cannot be written.
    """
    target = require_format(path)
    if target.suffix.lower() in PICTURES:
        write_bytes(target, _picture(fact, target.suffix.lower().removeprefix(".")))
        return target
    title, *lines = repr(fact).split("\n")
    section = Section(
        "The fact",
        "fact",
        text=lines[:2],
        figures={"located-fact": located_fact(fact)},
        listings=[Listing("The fact in words", repr(fact))],
    )
    write_text(target, render(title, f"{fact.name}: {fact.value}.", [section]))
    return target


def _picture(fact: LocatedFact, kind: str) -> bytes:
    # Opaque: a picture is looked at on whatever background a viewer has.
    figure = located_fact(fact).update_layout(paper_bgcolor="white", width=_PICTURE_WIDTH)
    try:
        picture = bytes(figure.to_image(format=kind))
    # Kaleido is an optional package (ValueError), and its browser a program of its own.
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InterpError(
            f"The picture could not be drawn: {reason[:200]} Pictures need the package kaleido and "
            "Chrome or Chromium (BROWSER_PATH says where it is). Give a file that ends in "
            ".html instead: it needs neither."
        ) from error
    return _marked(picture) if kind == "png" else picture


def _marked(png: bytes) -> bytes:
    """A PNG that says which software wrote it, as the first chunk after its head."""
    chunk = struct.pack(">I", len(_NOTE) - 4) + _NOTE + struct.pack(">I", zlib.crc32(_NOTE))
    return png[:33] + chunk + png[33:]
