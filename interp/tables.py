"""Result tables on disk: declared once, written as CSV, read back with their types.

A `Table` names its columns, what they hold and who makes it. Writing checks a frame against that;
reading gives the types back that a CSV file has lost, and refuses a file that is damaged or something
else with one `RunError` that says where and what to do. Only the empty field is a missing entry: "NA",
"None" and "nan" are text like any other. Numbers are read to the very double that was written.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp.errors import ArgumentError, RunError, short
from interp.files import write_text
from interp.reading import DamageError, digest, read_text

Kind = Literal["integer", "number", "text", "boolean"]
_KINDS: dict[Kind, str] = {
    "integer": "a whole number",
    "number": "a number",
    "text": "text",
    "boolean": "True or False",
}
_TEXT = pd.Series(["text"]).dtype  # what pandas of this version gives text: str, or object before 3


_FORMULA = tuple("=+-@\t\r")  # what a formula begins with


@dataclass(frozen=True)
class Column:
    """A column of a result table.

    Attributes:
        name: Its name.
        kind: Read as int64, float64, text or bool; as Int64 or boolean where entries may be missing.
        meaning: What an entry says, for people.
        unit: Its unit; empty without one.
        missing: What a missing entry (an empty field; NA or NaN in a frame) means; None: there is none.
        needed: Whether something reads it: a table of another version may lack it otherwise.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    missing: str | None = None
    needed: bool = True

    def misfit(self, values: "pd.Series[Any]") -> str | None:
        """Why the values of a frame are not such a column's; None if they are."""
        absent = values.isna() | (values.eq("").fillna(False) if self.kind == "text" else False)
        if self.missing is None and absent.any():
            return f"an entry is missing (row {int(np.flatnonzero(absent)[0])})"
        fits = {
            "integer": pd.api.types.is_integer_dtype,
            "number": pd.api.types.is_float_dtype,
            "boolean": pd.api.types.is_bool_dtype,
            "text": lambda entries: all(isinstance(entry, str) for entry in entries.dropna()),
        }[self.kind]
        return None if fits(values) else f"{values.dtype} is not {_KINDS[self.kind]}"

    def parsed(self, fields: Sequence[str], lines: Sequence[int]) -> "pd.Series[Any]":
        """The entries of a file's fields; an error (ValueError) names the line of a wrong one."""
        entries: list[Any] = []
        for field, line in zip(fields, lines, strict=True):
            if not field and self.missing is None:
                raise DamageError(f"line {line}, column {self.name!r} is empty")
            try:
                entries.append(self._entry(field))
            except (ValueError, KeyError, OverflowError):
                raise DamageError(
                    f"line {line}, column {self.name!r} holds {short(field)}, not {_KINDS[self.kind]}"
                ) from None
        series: pd.Series[Any] = pd.Series(entries, dtype=self._dtype())
        return series

    def _entry(self, field: str) -> Any:
        if not field:
            return {"number": np.nan, "text": np.nan}.get(self.kind, pd.NA)
        if self.kind == "integer":
            return np.int64(int(field))
        if self.kind == "number":
            number = float(field)
            if self.missing is None and np.isnan(number):
                raise ValueError(field)
            return number
        return {"True": True, "False": False}[field] if self.kind == "boolean" else field

    def _dtype(self) -> Any:
        whole, truth = ("int64", "bool") if self.missing is None else ("Int64", "boolean")
        return {"text": _TEXT, "number": "float64", "integer": whole, "boolean": truth}[self.kind]


@dataclass(frozen=True)
class Table:
    """A result table, such as "attention/scores", and the command that makes it (`made_by`).

    `remedy` says what to do where the file cannot be used; "{path}" stands for it, "{folder}" for its
    folder, "{run}" for the run whose `results/` that folder is in.
    """

    name: str
    holds: str
    columns: tuple[Column, ...]
    made_by: str
    remedy: str

    @property
    def column_names(self) -> list[str]:
        """The names of its columns, in order."""
        return [column.name for column in self.columns]

    def mark(self) -> re.Pattern[bytes]:
        """What the file of such a table begins with: a header with the columns that are needed."""
        return header_mark([column.name for column in self.columns if column.needed])

    def write(self, path: Path, frame: pd.DataFrame) -> None:
        """Writes a frame as CSV, atomically.

        Raises:
            ArgumentError: it has other columns, or in another order, no row, or entries of another
                type.
            StorageError: the disk is full or the folder cannot be written.
        """
        given = list(map(str, frame.columns))
        if given != self.column_names:
            raise ArgumentError(
                f"The table {self.name} has the columns {', '.join(self.column_names)}, in this order; got "
                f"{', '.join(given) or 'none'}. Give these."
            )
        if frame.empty:
            raise ArgumentError(f"The table {self.name} is to be written without a row; give some.")
        for column in self.columns:
            misfit = column.misfit(frame[column.name])
            if misfit is not None:
                raise ArgumentError(
                    f"Column {column.name!r} of the table {self.name}: {misfit}. Convert it first."
                )
        write_text(path, frame.to_csv(index=False))

    def read(self, path: Path, written: str | None = None) -> pd.DataFrame:
        """Reads what `write` wrote, types included.

        Columns that are not declared are left out. A declared one that nothing reads may be lacking,
        as in tables of another version.

        Args:
            path: The file.
            written: The digest that it had when it was written; None: it is not known.

        Raises:
            RunError: the file is empty, cut off, not UTF-8, a table of other columns, holds something else
                than the entries that are declared, or has another digest.
        """
        try:
            needed = [column.name for column in self.columns if column.needed]
            text = _text(path)
            header, rows, lines = _parsed(text, needed)
            first: dict[tuple[str, ...], int] = {}
            for row, line in zip(
                rows, lines, strict=True
            ):  # of a file that was put together of two
                before = first.setdefault(tuple(row), line)
                if before != line:
                    raise DamageError(f"line {line} is line {before} again")
            fields = dict(zip(header, zip(*rows, strict=True), strict=True))
            frame = pd.DataFrame(
                {c.name: c.parsed(fields[c.name], lines) for c in self.columns if c.name in fields}
            )
            if written not in (None, digest(text.encode())):
                raise DamageError("an entry has been changed since")
            return frame
        except DamageError as damage:
            known = {"path": path, "folder": path.parent, "run": path.parent.parent.parent}
            raise RunError(
                f"{path} is not the table {self.name} as it was written: {damage}. Expected: the columns "
                f"{short(', '.join(self.column_names), 100)[1:-1]}. {self.remedy.format(**known)}"
            ) from None


def header_mark(columns: Iterable[str]) -> re.Pattern[bytes]:
    """Matches a CSV file whose header has these columns, in any order."""
    ahead = (rf"(?=([^\n]*,)?{re.escape(name)}[,\r\n])" for name in columns)
    return re.compile("".join(ahead).encode())


def read_undeclared(path: Path, remedy: str, empty: bool = False) -> pd.DataFrame:
    """Reads a CSV file whose columns are declared nowhere, with the types that pandas sees in it.

    Args:
        path: The file.
        remedy: What to do where it is damaged.
        empty: Whether it may have no row.

    Raises:
        RunError: the file is empty, cut off, not UTF-8, or no table.
    """
    try:
        text = _text(path)
        header, _, _ = _parsed(text, empty=empty)
        if not all(header):
            raise DamageError("a column of its first line has no name")
    except DamageError as damage:
        raise RunError(f"{path} is not a table as it was written: {damage}. {remedy}") from None
    return pd.read_csv(io.StringIO(text))


def markdown(tables: Iterable[Table]) -> str:
    """Tables for people: of each what it is about, who makes it, and its columns, as Markdown."""
    parts = []
    for table in tables:
        lines = [f"## {table.name}", "", f"{table.holds} Made by {table.made_by}.", ""]
        lines += ["| column | type | unit | meaning | empty |", "|---|---|---|---|---|"]
        for column in table.columns:
            cells = (f"`{column.name}`", column.kind, column.unit, column.meaning)
            words = [cell.replace("|", "/") for cell in (*cells, column.missing or "never")]
            lines.append(f"| {' | '.join(words)} |".replace("|  |", "| |"))
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _text(path: Path) -> str:
    """The file's text, which has to have an end."""
    text = read_text(path)
    if not text.strip():
        raise DamageError("it is empty")
    if not text.endswith("\n"):
        raise DamageError(f"it is cut off in line {text.count(chr(10)) + 1}, which has no end")
    return text


def _parsed(
    text: str, needed: Sequence[str] = (), empty: bool = False
) -> tuple[list[str], list[list[str]], list[int]]:
    """The first line, the rows after it, all of one length, and the line that each row ends at."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DamageError(f"line {reader.line_num} is not CSV ({error})") from None
    header, *rows = rows
    if lacking := [name for name in needed if name not in header]:
        raise DamageError(
            f"it has the columns {short(', '.join(header), 60)}, without {short(', '.join(lacking))[1:-1]}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DamageError(f"it has the column {short(twice[0])} twice")
    if not rows and not empty:
        raise DamageError("it has no row below its columns")
    for row, line in zip(rows, lines[1:], strict=True):
        if len(row) != len(header):
            raise DamageError(f"line {line} has {len(row)} fields, not {len(header)}")
    return header, rows, lines[1:]


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """A table to be written for people: a text that a spreadsheet would compute gets an apostrophe.

    Tables that are read back are written as they are.
    """
    texts = table.select_dtypes(["object", _TEXT])
    if not any(isinstance(v, str) and v[:1] in _FORMULA for name in texts for v in texts[name]):
        return table
    safe = texts.map(lambda v: f"'{v}" if isinstance(v, str) and v[:1] in _FORMULA else v)
    return table.assign(**{str(name): safe[name] for name in safe})
