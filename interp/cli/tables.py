"""Tables on the terminal: words and numbers stay whole, whatever its width; nothing is left out.

A column is never narrower than its longest word. Where columns do not fit beside each other, those that
are left follow in a table below, with the first column again. Into a file or a pipe every row goes on
one line.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp.cli import printing
from interp.errors import printable

if TYPE_CHECKING:
    from pandas import DataFrame

_BESIDE = 3  # characters that a column takes beside its text, and one for the last edge
_NARROWEST = 8


def show(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Collection[str] = (),
) -> None:
    """Prints a table to standard output.

    Args:
        title: Stands above it, on a line of its own.
        columns: Their names. The first one tells the rows apart.
        rows: A value a column; numbers that are not whole are shown to three places.
        right: Names of columns that are aligned at the right.
    """
    printing.OUT.print(
        printable(title), style="italic", markup=False, highlight=False, soft_wrap=True
    )
    texts = [[_text(value) for value in row] for row in rows]
    made = [
        _Column(printable(name), [row[place] for row in texts], name in right)
        for place, name in enumerate(columns)
    ]
    if not printing.on_terminal():
        _print(made, [column.natural for column in made])
        return
    room = printing.OUT.width
    for group in _groups(made, room):
        _print(group, _widths(group, room))


def show_frame(frame: "DataFrame", title: str) -> None:
    """Prints a data frame, numbers at the right."""
    rows = list(frame.itertuples(index=False))
    right = [
        str(name)
        for place, name in enumerate(frame.columns)
        if any(isinstance(row[place], Real) for row in rows)
    ]
    show(title, [str(name) for name in frame.columns], rows, right)


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]
    right: bool

    @property
    def natural(self) -> int:
        """Characters that it takes with every text on one line."""
        return max(cell_len(line) for text in (self.name, *self.cells) for line in _lines(text))

    @property
    def least(self) -> int:
        """Characters of its longest word."""
        words = (word for text in (self.name, *self.cells) for word in text.split())
        return max(map(cell_len, words), default=1)


def _lines(text: str) -> list[str]:
    return text.split("\n")


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value))


def _groups(columns: Sequence[_Column], room: int) -> Iterator[list[_Column]]:
    """The columns in as many tables as they need; the first one leads each."""
    first, *others = columns
    group = [first]
    for column in others:
        if len(group) > 1 and _space(_leasts([*group, column], room)) > room:
            yield group
            group = [first]
        group.append(column)
    yield group


def _leasts(group: Sequence[_Column], room: int) -> list[int]:
    """What each column needs at least; a word is broken where the first and one more have no room."""
    first, *others = (column.least for column in group)
    both = room - _space([0, 0])
    first = min(first, max(_NARROWEST, both - min(max(others, default=0), both // 2)))
    return [first, *(min(least, max(_NARROWEST, both - first)) for least in others)]


def _space(widths: Sequence[int]) -> int:
    return sum(widths) + _BESIDE * len(widths) + 1


def _widths(group: Sequence[_Column], room: int) -> list[int]:
    """Widths that fill the room, as far as texts need it: most goes where lines would break most."""
    widths = _leasts(group, room)
    natural = [max(1, column.natural) for column in group]
    for _ in range(room - _space(widths)):
        place = max(range(len(group)), key=lambda i: natural[i] / max(1, widths[i]))
        if widths[place] >= natural[place]:
            break
        widths[place] += 1
    return widths


def _print(group: Sequence[_Column], widths: Sequence[int]) -> None:
    made = Table()
    for column, width in zip(group, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.right else "left"
        # Text, not strings: brackets in a text are no markup.
        made.add_column(Text(column.name), width=width, justify=justify, overflow="fold")
    for row in zip(*(column.cells for column in group), strict=True):
        made.add_row(*map(Text, row))
    Console(width=_space(widths), quiet=printing.OUT.quiet).print(made)
