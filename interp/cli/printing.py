"""What commands print: results to standard output, titles and errors to standard error."""

import errno
import io
import os
import select
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp.errors import StorageError, printable

if TYPE_CHECKING:
    from pandas import DataFrame


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


def say(text: object, *, highlight: bool = True) -> None:
    """Prints a result, long lines whole."""
    OUT.print(printable(str(text)), soft_wrap=True, markup=False, highlight=highlight)


def say_not_measured(reasons: Mapping[str, str]) -> None:
    """Lists the tables for which there was nothing to measure, by name, with the reasons."""
    for name, why in reasons.items():
        say(f"not measured: {name}: {why}", highlight=False)


def announce(title: str) -> None:
    """Says what begins."""
    ERR.print(printable(title), style="bold", highlight=False, markup=False)


def complain(text: str) -> None:
    """Says what went wrong."""
    ERR.print(printable(text), style="red", highlight=False, markup=False, soft_wrap=True)


def cell(value: object) -> Text:
    """A cell of a table: brackets in a text are no markup, and a terminal obeys none."""
    return Text(f"{value:.3f}" if isinstance(value, float) else printable(str(value)))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table of texts."""
    made = Table(title=Text(printable(title)))
    for name in columns:
        made.add_column(Text(printable(name)), overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def numbers(frame: "DataFrame", title: str) -> Table:
    """A table of numbers to three places."""
    made = Table(title=Text(printable(title)))
    for name in frame.columns:
        made.add_column(Text(printable(str(name))), justify="right")
    for row in frame.itertuples(index=False):
        made.add_row(*map(cell, row))
    return made
