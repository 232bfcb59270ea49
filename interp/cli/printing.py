"""What commands print: results to standard output, titles and errors to standard error."""

import errno
import io
import os
import re
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from rich.console import Console

from interp.errors import StorageError, printable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _StandardError(Console):
    """Standard error, whose reader may go away: the work goes on in silence."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@contextmanager
def standard_output() -> Iterator[None]:
    """While this lasts, what standard output cannot take ends the command in one line, or in silence.

    A reader that has gone away (`interp ... | head`) has seen what it wanted; characters that a terminal
    does not have show as codes.

    Raises:
        StorageError: it is on a full disk.
        SystemExit: its reader has gone away.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():  # another pipe, to a process that has died
            raise
        _close_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:  # a file's, not the stream's
            raise
        _close_output()
        raise StorageError(
            f"Standard output cannot be written: {error.strerror or error}. Files are complete; send the "
            "output elsewhere."
        ) from error


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLERR)
        return bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no such call on this system, or no such stream
        return True


def _close_output() -> None:
    """Sends what is still to be flushed nowhere, so that Python does not complain at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


OUT = Console()
ERR = _StandardError(stderr=True)


def on_terminal() -> bool:
    """Whether standard output is a terminal, which has a width; a file or a pipe has none."""
    isatty = getattr(OUT.file, "isatty", None)
    return bool(isatty and isatty())


def say(text: object, *, highlight: bool = True) -> None:
    """Prints a result, long lines whole."""
    OUT.print(printable(str(text)), soft_wrap=True, markup=False, highlight=highlight)


def note(sentence: str) -> None:
    """Prints a sentence on what stands above it; a terminal breaks it between words."""
    OUT.print(sentence, soft_wrap=not on_terminal(), markup=False, highlight=False)


def say_not_measured(reasons: Mapping[str, str]) -> None:
    """Lists the tables for which there was nothing to measure, by name, with the reasons."""
    for name, why in reasons.items():
        say(f"not measured: {name}: {why}", highlight=False)


def announce(title: str) -> None:
    """Says what begins."""
    ERR.print(printable(title), style="bold", highlight=False, markup=False)


_ENDLESS = re.compile(r"(\S{120})\S{80,}(\S{40})")  # what is given back of a value that is no word
_ARGUMENT = re.compile(r"\b(resume|overwrite)=True\b")


def complain(text: str) -> None:
    """Says what went wrong; what messages call `resume=True`, as in Python, is `--resume` here."""
    text = _ENDLESS.sub(r"\1…\2", _ARGUMENT.sub(r"--\1", text))
    ERR.print(printable(text), style="red", highlight=False, markup=False, soft_wrap=True)
