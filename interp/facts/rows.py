"""Facts as rows: subject, relation, answer, wording; from a CSV, a table, a list, or files of the field.

A wording has `{subject}` where the subject stands, at most one `{answer}` after it (without one, the
answer follows the text), and may mark the words that tell the relation with brackets: "The [capital] of
{subject} is".
"""

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import ArgumentError, printable, short, suggest
from interp.reading import DamageError, parse_json, read_text

SUBJECT, ANSWER = "{subject}", "{answer}"
COLUMNS = ("subject", "relation", "answer")
Templates = Mapping[str, str | Sequence[str]]
"""Wordings by relation."""
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_BRACKETED = re.compile(r"\[[^\[\]]*\{(subject|answer)\}[^\[\]]*\]")
_MOST_BYTES = 200_000_000


@dataclass(frozen=True)
class FactRow:
    """A fact in one wording.

    Attributes:
        subject: Whom or what it is about.
        relation: Which relation.
        answer: What is true.
        wording: The text, with placeholders.
        number: Which wording of the fact it is, from 0.
        where: Where it came from, for errors.
    """

    subject: str
    relation: str
    answer: str
    wording: str
    number: int
    where: str


def rows_of(
    given: "pd.DataFrame | Sequence[Any]", templates: Templates | None, source: str = "row"
) -> list[FactRow]:
    """The facts of a table (a frame, mappings, or triples), each in every wording.

    Raises:
        ArgumentError: a column is missing, a cell empty, a fact there twice or with two answers, a subject
            not in its text or there twice, or a relation without a wording. The row is named.
    """
    table = _frame(given)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        known = list(map(str, table.columns))
        hint = _separator(known) or suggest(missing[0], known)
        raise ArgumentError(
            f"The facts have no column {missing[0]!r}.{hint} Expected: "
            f"{', '.join(COLUMNS)}, and text (or templates); found: {', '.join(map(short, known)) or 'none'}."
        )
    twice = [column for column in (*COLUMNS, "text") if list(table.columns).count(column) > 1]
    if twice:
        raise ArgumentError(f"The facts have the column {twice[0]!r} twice. Name each column once.")
    if not len(table):
        raise ArgumentError("There are no facts; give at least one row.")
    has_text = "text" in table
    if not has_text and templates is None:
        raise ArgumentError(
            "The facts have no wording. Give templates, such as {'capital': ['The [capital] of {subject} "
            "is']}, or a column text."
        )
    by_relation = {} if templates is None else _by_relation(templates)
    answers: dict[tuple[str, str], tuple[str, str]] = {}
    seen: dict[tuple[str, str, str], str] = {}
    numbers: dict[tuple[str, str], int] = {}
    rows = []
    columns = [*COLUMNS, "text"] if has_text else list(COLUMNS)
    for index, cells in enumerate(table[columns].itertuples(index=False), start=1):
        where = f"{source} {index}"
        subject, relation, answer = (
            _cell(cell, column, where) for cell, column in zip(cells, COLUMNS, strict=False)
        )
        fact = (subject, relation)
        earlier = answers.setdefault(fact, (answer, where))
        if earlier[0] != answer:
            raise ArgumentError(
                f"{where}: the {relation} of {short(subject)} is {short(answer)}, but {short(earlier[0])} in "
                f"{earlier[1]}. A fact has one answer."
            )
        if has_text:
            wordings = [marked(_cell(cells[3], "text", where), subject, where)]
        else:
            if relation not in by_relation:
                raise ArgumentError(
                    f"{where}: there is no wording of the relation {short(relation)}."
                    f"{suggest(relation, by_relation)} Templates are of: "
                    f"{', '.join(map(short, by_relation)) or 'nothing'}."
                )
            wordings = by_relation[relation]
        for wording in wordings:
            if (*fact, wording) in seen:
                raise ArgumentError(
                    f"{where}: the {relation} of {short(subject)} is there already, in the same words, in "
                    f"{seen[*fact, wording]}. Give each fact once."
                )
            seen[*fact, wording] = where
            number = numbers.get(fact, 0)
            numbers[fact] = number + 1
            rows.append(FactRow(subject, relation, answer, wording, number, where))
    return rows


def _separator(columns: list[str]) -> str:
    """A hint, where a header was not cut at its commas because it has other separators."""
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and mark in columns[0]:
            return f" The header has {name}; separate columns by commas."
    return ""


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV with a header, every cell as text ("NA" is Namibia, not a gap).

    Raises:
        ArgumentError: it cannot be read, is no UTF-8, or no CSV.
    """
    try:
        with warnings.catch_warnings():
            # Rows that are longer than the header: their last cells would be left out.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table: pd.DataFrame = pd.read_csv(
                io.StringIO(read_text(path, _MOST_BYTES)), dtype=str, keep_default_na=False,
                skipinitialspace=True, index_col=False,
            )  # fmt: skip
    except pd.errors.ParserWarning:
        raise ArgumentError(
            f"The rows in {printable(str(path))} have more cells than its header has names. Put texts that "
            'hold a comma in "quotes".'
        ) from None
    except (DamageError, ValueError) as error:  # pandas' errors are ValueErrors
        reason = short(" ".join(str(error).split()), 120)[1:-1]
        raise ArgumentError(
            f"The facts in {printable(str(path))} cannot be read ({reason}). Give a CSV in UTF-8 with the "
            "columns subject, relation, answer, text."
        ) from None
    table.columns = table.columns.str.strip()
    return table


def counterfact_rows(path: Path) -> Iterator[dict[str, str]]:
    """The facts of a CounterFact file (Meng et al. 2022): true answers, prompts and paraphrases."""
    document = _json(path, "CounterFact")
    if not isinstance(document, list):
        raise ArgumentError(
            f"{printable(str(path))} is no CounterFact file: it is no list of cases."
        )
    for index, case in enumerate(document):
        try:
            request = case["requested_rewrite"]
            subject, prompt = request["subject"], request["prompt"]
            fact = {
                "subject": subject, "relation": request["relation_id"],
                "answer": request["target_true"]["str"],
            }  # fmt: skip
            texts = [prompt.replace("{}", SUBJECT), *case.get("paraphrase_prompts", ())]
        except (KeyError, TypeError, AttributeError) as error:
            raise ArgumentError(
                f"{printable(str(path))} is no CounterFact file: case {index} has no {error}. Expected: "
                "requested_rewrite with subject, prompt, relation_id and target_true."
            ) from None
        for text in texts:
            if SUBJECT in text or text.count(subject) == 1:
                yield {**fact, "text": text}


def lre_rows(paths: Iterable[Path]) -> Iterator[dict[str, str]]:
    """The facts of files of LRE relations (Hernandez et al. 2024), a relation each."""
    for path in paths:
        document = _json(path, "LRE")
        try:
            relation, samples = document["name"], document["samples"]
            templates = document.get("prompt_templates_zs") or document["prompt_templates"]
            for sample in samples:
                for template in templates:
                    yield {
                        "subject": sample["subject"], "relation": relation,
                        "answer": sample["object"], "text": template.replace("{}", SUBJECT),
                    }  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise ArgumentError(
                f"{printable(str(path))} is no file of an LRE relation ({error}). Expected: name, "
                "prompt_templates, and samples with subject and object."
            ) from None


def marked(text: str, subject: str, where: str) -> str:
    """A text with its subject as `{subject}`, which it may have already.

    Raises:
        ArgumentError: the subject is not there, or several times.
    """
    if SUBJECT in text:
        return _checked(text, where)
    times = text.count(subject)
    if times != 1:
        said = "does not hold" if not times else f"holds {times} times"
        raise ArgumentError(
            f"{where}: the text {short(text, 80)} {said} the subject {short(subject)}. Mark where it is "
            f"meant with {SUBJECT}."
        )
    if "{" in text or "}" in text:  # other braces are the text's own
        raise ArgumentError(
            f"{where}: the text {short(text, 80)} holds a brace. Mark its subject with {SUBJECT} and "
            "write no other braces."
        )
    return text.replace(subject, SUBJECT)


def _by_relation(templates: Templates) -> dict[str, list[str]]:
    if not isinstance(templates, Mapping):
        raise ArgumentError(
            f"templates are {type(templates).__name__}; give wordings by relation, such as {{'capital': "
            "['The [capital] of {subject} is']}."
        )
    found = {}
    for relation, given in templates.items():
        several = given if isinstance(given, Iterable) else []
        wordings = [given] if isinstance(given, str) else list(several)
        if not wordings or not all(isinstance(one, str) for one in wordings):
            raise ArgumentError(f"templates[{relation!r}]: give a text, or a list of texts.")
        for wording in wordings:
            _checked(wording, f"the template {short(wording, 80)} of {short(str(relation))}")
        if len(set(wordings)) < len(wordings):
            raise ArgumentError(f"templates[{relation!r}] holds a wording twice.")
        found[str(relation)] = wordings
    return found


def _checked(wording: str, where: str) -> str:
    """A wording with its placeholders right."""
    for placeholder in _PLACEHOLDER.findall(wording):
        if placeholder not in (SUBJECT, ANSWER):
            raise ArgumentError(
                f"{where}: {placeholder} is no placeholder.{suggest(placeholder, (SUBJECT, ANSWER))} "
                f"There are {SUBJECT} and {ANSWER}."
            )
    if _BRACKETED.search(wording):
        raise ArgumentError(
            f"{where}: {SUBJECT} or {ANSWER} stands in [brackets], which mark the words of the relation. "
            "Put the brackets around those alone."
        )
    if wording.count(SUBJECT) != 1 or wording.count(ANSWER) > 1:
        raise ArgumentError(
            f"{where}: a wording has {SUBJECT} once, and {ANSWER} at most once; this one has them "
            f"{wording.count(SUBJECT)} and {wording.count(ANSWER)} times."
        )
    if ANSWER in wording and wording.index(ANSWER) < wording.index(SUBJECT):
        raise ArgumentError(
            f"{where}: the answer stands before the subject; it can be recalled only after it."
        )
    return wording


def _frame(given: object) -> pd.DataFrame:
    if isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ArgumentError(
            f"facts are {type(given).__name__}; give a DataFrame, or a list of (subject, relation, answer)."
        )
    rows = list(given)
    if rows and all(isinstance(row, Mapping) for row in rows):
        return pd.DataFrame(rows, dtype=object)
    wrong = [
        row
        for row in rows
        if isinstance(row, str | bytes | Mapping)
        or not isinstance(row, Sequence | np.ndarray)
        or len(row) not in (3, 4)
    ]
    if wrong:
        raise ArgumentError(
            f"{short(str(wrong[0]), 80)} is no fact; give (subject, relation, answer), with a text as fourth "
            "if you like."
        )
    width = max(map(len, rows), default=3)
    return pd.DataFrame(rows, columns=[*COLUMNS, "text"][:width], dtype=object)


def _cell(cell: object, column: str, where: str) -> str:
    if not isinstance(cell, str) or not cell.strip():
        shown = "is empty" if cell is None or cell != cell or cell == "" or isinstance(cell, str) else (
            f"is {cell!r}"
        )  # fmt: skip
        raise ArgumentError(f"{where}: the {column} {shown}; give a text.")
    try:
        cell.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{where}: the {column} {short(ascii(cell), 80)} is no text.") from None
    return cell if column == "text" else cell.strip()


def _json(path: Path, kind: str) -> Any:
    try:
        return parse_json(read_text(path, _MOST_BYTES))
    except DamageError as error:
        raise ArgumentError(
            f"{printable(str(path))} is no {kind} file ({error}). Give the JSON file as it was published."
        ) from None
