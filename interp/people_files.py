"""People and wordings that users bring: a CSV (or a table) of people, and YAML (or a mapping) of wordings.

Read cell by cell: what could not be told apart, shown or counted later is refused with its file and line.
What is made of them, `interp.biographies.own_people` says.
"""

import csv
import hashlib
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from interp.errors import ArgumentError, ConfigError, printable, require_frame, short, suggest
from interp.plain_yaml import read_yaml
from interp.reading import DamageError, read_text

NAME, HELD_OUT, QUESTIONS = "name", "held_out", "questions"
MAX_ATTRIBUTES = 100
"""So that the number of an attribute fits into the int8 of a batch."""
MAX_WORDINGS = 255
"""Of an attribute, so that the number of one fits into the uint8 of a population."""
MAX_PEOPLE = 1_000_000
MAX_CHARACTERS = 120
"""Of a cell, so that the number of a token in a value fits into an int8, whatever the tokenizer."""
_RESERVED = (QUESTIONS, "individual", "all")
_MOST_BYTES = 200_000_000
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_NO_NUMBER = re.compile(r"(nan|NaN|NAN|[+-]?(inf|Inf|INF|infinity|Infinity))")
_JOINERS = "\u200c\u200d"  # which some scripts write within words
_QUESTIONS = (
    "What is the <{}> of {{name}}? Answer: {{value}}.",
    "Tell me the <{}> of {{name}}. Answer: {{value}}.",
    "Which <{}> does {{name}} have? Answer: {{value}}.",
    "Do you know the <{}> of {{name}}? Answer: {{value}}.",
    "Name the <{}> of {{name}}. Answer: {{value}}.",
)
Wordings = Mapping[str, Sequence[str]]
People = Any
"""A path of a CSV, or a table (`pandas.DataFrame`)."""


@dataclass(frozen=True)
class PeopleFiles:
    """What files of people and wordings say.

    Attributes:
        names: Full names; people who are held out come last.
        n_held_out: How many of them are held out.
        values: Everybody's value of each attribute, "" where somebody has none.
        templates: The wordings of each attribute's sentence.
        questions: The wordings of each attribute's question.
        rows: Where each person stands, for errors.
        where: Where each wording stands, for errors.
    """

    names: tuple[str, ...]
    n_held_out: int
    values: dict[str, tuple[str, ...]]
    templates: dict[str, tuple[str, ...]]
    questions: dict[str, tuple[str, ...]]
    rows: tuple[str, ...] = field(default=(), compare=False)
    where: dict[tuple[str, str], str] = field(default_factory=dict, compare=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the content: the same however the files are written, and wherever they lie."""
        told = [
            self.names, self.n_held_out, list(self.values.items()), list(self.templates.items()),
            list(self.questions.items()),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def csv(self) -> str:
        """The people as a CSV that reads as the same again."""
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([NAME, HELD_OUT, *self.values])
        first = len(self.names) - self.n_held_out
        for i, (name, *own) in enumerate(zip(self.names, *self.values.values(), strict=True)):
            writer.writerow([name, "true" if i >= first else "false", *own])
        return out.getvalue()

    def yaml(self) -> str:
        """The wordings as YAML that reads as the same again."""
        lines = []
        for title, group, indent in (
            ("", self.templates, ""), (QUESTIONS, self.questions, "  "),
        ):  # fmt: skip
            lines += [f"{title}:"] if title else []
            for attribute, wordings in group.items():
                lines.append(f"{indent}{json.dumps(attribute, ensure_ascii=False)}:")
                lines += [f"{indent}  - {json.dumps(w, ensure_ascii=False)}" for w in wordings]
        return "\n".join(lines) + "\n"


def read_people(
    people: People, templates: "str | PathLike[str] | Mapping[str, Any]"
) -> PeopleFiles:
    """Reads people and wordings.

    Args:
        people: A CSV in UTF-8 with a header, or a table: a column `name`, maybe a column `held_out` (without
            it the last tenth of the people is held out), and an attribute a column. Empty cells are
            missing values.
        templates: A YAML file, or a mapping: for each attribute a list of wordings such as
            "{name} works <for> {value}.", and maybe `questions`, a mapping of the same shape.

    Raises:
        ArgumentError: something in them cannot work; file and line are named.
    """
    header, records, source = _table(people)
    columns = _columns(header, source)
    names, held_out, values, rows = _people(columns, records, source)
    given, file, text = _mapping(templates)
    wordings, questions, where = _all_wordings(given, list(values), file, text)
    order = sorted(range(len(names)), key=lambda i: held_out[i])  # stable
    if held_out and all(held_out):
        raise ArgumentError(
            f"{source}: everybody is held out, so there is nobody to train on. Write false for some."
        )
    return PeopleFiles(
        tuple(names[i] for i in order), sum(held_out),
        {name: tuple(own[i] for i in order) for name, own in values.items()},
        wordings, questions, tuple(rows[i] for i in order), where,
    )  # fmt: skip


def _table(people: People) -> tuple[list[str], Iterator[tuple[str, list[str]]], str]:
    """The header, the rows with the place of each, and what the table is called."""
    if isinstance(people, str | PathLike):
        source = printable(str(people))
        text = _text_of(Path(people), "Give a CSV in UTF-8 with a header and a column name.")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        records = _csv_rows(lines, source)
        header = next(records, None)
        if header is None:
            raise ArgumentError(
                f"{source} is empty; give a CSV with a header and a column name, a person a row."
            )
        if len(header[1]) == 1:
            for mark, what in ((";", "semicolons"), ("\t", "tabs")):
                if mark in header[1][0]:
                    raise ArgumentError(
                        f"{source}, line 1: the header has {what}; separate columns by commas."
                    )
        return header[1], records, source
    require_frame(people, "people, nor the path of one")
    frame = zip(people.index, people.itertuples(index=False, name=None), strict=True)
    rows = (
        (f"row {short(str(at))[1:-1]}", [_cell_text(cell, at) for cell in row]) for at, row in frame
    )
    return [str(name) for name in people.columns], rows, "the table of people"


def _text_of(path: Path, remedy: str) -> str:
    try:
        return read_text(path, _MOST_BYTES).removeprefix("\ufeff")
    except DamageError as damage:
        raise ArgumentError(f"{printable(str(path))} cannot be read: {damage}. {remedy}") from None


def _csv_rows(lines: Any, source: str) -> Iterator[tuple[str, list[str]]]:
    while True:
        try:
            row = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise ArgumentError(
                f"{source}, line {lines.line_num}: no CSV ({error}). Put texts that hold a comma or a "
                'quote in "quotes", and double the quotes in them.'
            ) from None
        if row:
            yield f"{source}, line {lines.line_num}", row


def _cell_text(cell: object, row: object) -> str:
    """A cell of a table as text; "" where it is missing."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(cell, bool) or type(cell).__name__ in ("bool_", "bool"):
        return str(bool(cell)).lower()
    if isinstance(cell, float):
        if math.isnan(cell):
            return ""
        return str(int(cell)) if cell.is_integer() else repr(float(cell))
    if isinstance(cell, str | int) or hasattr(cell, "item") or hasattr(cell, "isoformat"):
        return str(cell)
    raise ArgumentError(
        f"The table of people, row {row}: {short(repr(cell))} is no text and no number; give one, or None."
    )


def _columns(header: Sequence[str], source: str) -> list[str]:
    """The names of the columns, of which `name` is one."""
    columns: list[str] = []
    for number, given in enumerate(header, 1):
        name = attribute_name(given)
        where = f"{source}, column {number}"
        if not name.isidentifier():
            raise ArgumentError(
                f"{where}: {short(given)} is no name of an attribute; give one of letters, digits and spaces "
                "that begins with a letter."
            )
        if name in columns:
            raise ArgumentError(
                f"{where}: the column {name!r} is there already, as column {columns.index(name) + 1}. Name "
                "each column once."
            )
        if name in _RESERVED:
            raise ArgumentError(f"{where}: an attribute cannot be called {name!r}; rename it.")
        columns.append(name)
    if NAME not in columns:
        raise ArgumentError(
            f"{source} has no column {NAME!r} with full names.{suggest(NAME, columns)} Its columns are "
            f"{', '.join(columns) or 'none'}."
        )
    attributes = [name for name in columns if name not in (NAME, HELD_OUT)]
    if not 1 <= len(attributes) <= MAX_ATTRIBUTES:
        raise ArgumentError(
            f"{source} has {len(attributes)} attributes (columns beside name and held_out); give 1 to "
            f"{MAX_ATTRIBUTES}."
        )
    return columns


def attribute_name(given: str) -> str:
    """The name of an attribute: lower case, with _ between words."""
    return "_".join(unicodedata.normalize("NFC", given).lower().split())


def _people(
    columns: Sequence[str], records: Iterable[tuple[str, list[str]]], source: str
) -> tuple[list[str], list[bool], dict[str, list[str]], list[str]]:
    names: list[str] = []
    rows: list[str] = []
    held_out: list[bool] = []
    values: dict[str, list[str]] = {c: [] for c in columns if c not in (NAME, HELD_OUT)}
    first_at: dict[str, str] = {}
    for where, row in records:
        if len(row) != len(columns):
            raise ArgumentError(
                f"{where}: it has {len(row)} cells, but the header has {len(columns)} columns. Put texts "
                'that hold a comma in "quotes".'
            )
        cells = dict(zip(columns, row, strict=True))
        name = _checked(cells.pop(NAME), where, NAME)
        if not name:
            raise ArgumentError(f"{where}: the name is empty; everybody needs one.")
        if name in first_at:
            raise ArgumentError(
                f"{where}: {short(name)} is there already, in {_short_place(first_at[name], where)}. "
                "Everybody needs a name of their own."
            )
        first_at[name] = where
        if HELD_OUT in columns:
            held_out.append(_truth(cells.pop(HELD_OUT), where))
        for attribute, cell in cells.items():
            values[attribute].append(_checked(cell, where, attribute))
        if not any(own[-1] for own in values.values()):
            raise ArgumentError(
                f"{where}: {short(name)} has no value at all; give at least one, or leave the row out."
            )
        names.append(name)
        rows.append(where)
        if len(names) > MAX_PEOPLE:
            raise ArgumentError(f"{source} has more than {MAX_PEOPLE:,} people; give fewer.")
    if not names:
        raise ArgumentError(f"{source} has a header, but no people; give a row for each.")
    if HELD_OUT not in columns:
        n_held_out = len(names) // 10
        held_out = [i >= len(names) - n_held_out for i in range(len(names))]
    for attribute, own in values.items():
        if not any(value for value, out in zip(own, held_out, strict=True) if not out):
            if all(held_out):
                break
            raise ArgumentError(
                f"{source}: nobody who is trained on has a value of {attribute!r}; fill the column in, or "
                "leave it out."
            )
    return names, held_out, values, rows


def _short_place(place: str, beside: str) -> str:
    """A place without the file, where the other one is in the same."""
    file, _, line = place.rpartition(", ")
    return line if beside.startswith(file) else place


def _truth(cell: str, where: str) -> bool:
    text = cell.strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ArgumentError(
        f"{where}: held_out is {short(cell)}; write true or false (or yes, no, 1, 0)."
    )


def _checked(cell: str, where: str, column: str) -> str:
    """A cell in one spelling: NFC, single spaces."""
    place = f"{where}: {column} {short(cell)}"
    for character in cell:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp", "Co") or (
            category == "Cf" and character not in _JOINERS
        ):
            raise ArgumentError(
                f"{place} holds the control character U+{ord(character):04X} (a line break, a tab, ...); "
                "leave it out."
            )
        if character in "<>{}":
            raise ArgumentError(
                f"{place} holds {character!r}, which marks parts of wordings; leave < > {{ }} out."
            )
    text = " ".join(unicodedata.normalize("NFC", cell).split())
    if len(text) > MAX_CHARACTERS:
        raise ArgumentError(f"{place} has {len(text)} characters; give at most {MAX_CHARACTERS}.")
    if _NO_NUMBER.fullmatch(text):
        raise ArgumentError(f"{place} is no value; leave the cell empty where there is none.")
    if text and not any(unicodedata.category(c)[0] in "LNSM" for c in text):
        raise ArgumentError(f"{place} is punctuation only; give words.")
    return text


def _mapping(templates: Any) -> tuple[Mapping[str, Any], str, str]:
    """The wordings as given, what they are called, and their text."""
    if isinstance(templates, Mapping):
        return templates, "templates", ""
    if not isinstance(templates, str | PathLike):
        raise ArgumentError(
            f"templates={short(repr(templates))}: give a YAML file, or wordings by attribute."
        )
    file = printable(str(templates))
    remedy = "Give YAML: for each attribute a list of wordings."
    text = _text_of(Path(templates), remedy)
    if not text.strip():
        raise ArgumentError(f"{file} is empty. {remedy}")
    try:
        given = read_yaml(text)
    except ConfigError as error:
        raise ArgumentError(f'{file}: {error} (Put wordings in "quotes".)') from None
    if not isinstance(given, dict):
        raise ArgumentError(f"{file} is no mapping of attributes to wordings. {remedy}")
    return given, file, text


def _all_wordings(
    given: Mapping[str, Any], attributes: list[str], file: str, text: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]], dict[tuple[str, str], str]]:
    where: dict[tuple[str, str], str] = {}
    asked = given.get(QUESTIONS)
    if asked is not None and not isinstance(asked, Mapping):
        raise ArgumentError(f"{file}: questions are no mapping of attributes to wordings.")
    told = {name: some for name, some in given.items() if name != QUESTIONS}
    templates = _wordings(told, attributes, file, text, where)
    lacking = [name for name in attributes if name not in templates]
    if lacking:
        raise ArgumentError(
            f"{file} has no wordings of the column {lacking[0]!r}.{suggest(lacking[0], templates)} Give "
            "at least two, or leave the column out."
        )
    questions = {
        name: tuple(one.format(name.replace("_", " ")) for one in _QUESTIONS) for name in attributes
    } | _wordings(asked or {}, attributes, f"{file}, questions", text, where)
    numbers = {name: len(questions[name]) for name in attributes}
    if len(set(numbers.values())) > 1:
        one, other = min(numbers, key=lambda n: numbers[n]), max(numbers, key=lambda n: numbers[n])
        raise ArgumentError(
            f"{file}, questions: {one!r} has {numbers[one]}, {other!r} {numbers[other]} "
            f"({len(_QUESTIONS)} where none are given); give equally many of every attribute."
        )
    return (
        {name: templates[name] for name in attributes},
        {name: questions[name] for name in attributes},
        where,
    )


def _wordings(
    given: Mapping[str, Any],
    attributes: list[str],
    file: str,
    text: str,
    where: dict[tuple[str, str], str],
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key, some in given.items():
        name = attribute_name(str(key))
        if name not in attributes:
            raise ArgumentError(
                f"{file}: there are wordings of {short(str(key))}, but no such column."
                f"{suggest(name, attributes)} Columns: {', '.join(attributes)}."
            )
        if name in found:
            raise ArgumentError(f"{file}: there are wordings of {name!r} twice; give one list.")
        several = list(some) if isinstance(some, list | tuple) else []
        if not several or not all(isinstance(one, str) for one in several):
            raise ArgumentError(
                f"{file}: the wordings of {name!r} are no list of texts; write one with - before each, in "
                '"quotes".'
            )
        if not 2 <= len(several) <= MAX_WORDINGS:
            raise ArgumentError(
                f"{file}: {name!r} has {len(several)} wording{'s' if len(several) > 1 else ''}; give 2 to "
                f"{MAX_WORDINGS}, as some are for training and others for evaluation."
            )
        wordings = []
        for one in several:
            line = _line_of(one, text)
            place = f"{file}, {f'line {line}' if line else f'{name!r}'}"
            wording = " ".join(unicodedata.normalize("NFC", one).split())
            for character in one:
                if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
                    raise ArgumentError(
                        f"{place}: the wording {short(one, 60)} holds a control character; leave it out."
                    )
            if wording in wordings:
                raise ArgumentError(f"{place}: the wording {short(one, 60)} is there twice.")
            wordings.append(wording)
            where[name, wording] = place
        found[name] = tuple(wordings)
    return found


def _line_of(wording: str, text: str) -> int | None:
    """The line of a YAML text on which a wording stands, if it stands there as it is."""
    at = text.find(wording)
    return None if at < 0 else text.count("\n", 0, at) + 1
