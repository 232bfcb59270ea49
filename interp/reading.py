"""Reading what is on disk: regular files only, validated, and what is wrong with one in words.

A file may be damaged, or be something else by now. `DamageError` says what is wrong, to go on after the
file's name; who knows the kind of file makes it an error for people and adds what to do.
"""

import errno
import hashlib
import json
import math
import stat
from collections.abc import Iterator
from os import stat_result
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from interp.errors import RunError, short

MAX_DOCUMENT = 10_000_000
"""Bytes of a JSON document (not of lines) at most; those of runs have a few thousand."""

MAX_DEPTH = 20

Schema = TypeVar("Schema", bound=BaseModel)

_KINDS = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}
_JSON = {
    dict: "names with values",
    list: "a list",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


class DamageError(ValueError):
    """What is wrong with a file, in words."""


class MissingError(DamageError):
    """There is no such file."""


def require_file(path: Path) -> stat_result:
    """Refuses what is no regular file: to open a FIFO would wait for ever.

    Raises:
        MissingError: there is nothing.
        DamageError: it is something else, a link that leads nowhere, or out of reach.
        RunError: there is no permission to read it, which is no damage.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DamageError(_cannot(_KINDS.get(stat.S_IFMT(status.st_mode), "it is no file")))
        with path.open("rb"):  # whether it may be read
            return status
    except OSError as error:
        raise _unreadable(path, error) from None


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file of at most so many bytes; raises as `require_file`."""
    size = require_file(path).st_size
    if most is not None and size > most:
        raise DamageError(f"it has {size:,} bytes, where {most:,} are more than enough")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def read_text(path: Path, most: int | None = None) -> str:
    """The content of a text file in UTF-8; raises as `read_bytes`, and where it is no such text."""
    return _decoded(read_bytes(path, most))


def names_in(folder: Path) -> list[str]:
    """The names in a folder, in order; none if there is no folder. Raises as `require_file` otherwise."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError as error:
        if folder.is_symlink():
            raise _unreadable(folder, error) from None
        return []
    except NotADirectoryError:
        raise DamageError(_cannot("it is no folder")) from None
    except OSError as error:
        raise _unreadable(folder, error) from None


def read_json(path: Path, schema: type[BaseModel]) -> dict[str, Any]:
    """A JSON document of names with values, as it stands there, once it is known to fit a schema.

    Raises:
        MissingError: there is no file.
        DamageError: it cannot be read, is no JSON, or holds something else; place or name is said.
    """
    found: dict[str, Any] = parse_json(read_text(path, MAX_DOCUMENT))
    validated(found, schema)
    return found


def read_json_lines(path: Path, schema: type[Schema]) -> Iterator[tuple[int, str, Schema]]:
    """The lines of a file with a JSON object each: number, text, and what it holds.

    A last line without an end is left out: a kill cut it off.

    Raises:
        MissingError: there is no file.
        DamageError: it cannot be read, or a line is damaged; its number is said.
    """
    *lines, _ = read_bytes(path).split(b"\n")
    for number, raw in enumerate(lines, 1):
        line = _decoded(raw, number)
        try:
            yield number, line, validated(parse_json(line, number), schema)
        except DamageError as damage:
            text = str(damage)
            raise DamageError(
                text if text.startswith("line ") else f"line {number}: {text}"
            ) from None


def parse_json(text: str, line: int = 1) -> Any:
    """What a JSON text holds; a DamageError says where it is wrong, lines counted from `line`."""
    try:
        found = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno + line - 1}, column {error.colno}"
        raise DamageError(f"{place}: no JSON ({error.msg})") from None
    except RecursionError:
        raise DamageError("it is nested too deeply") from None
    except DamageError:
        raise
    except ValueError:
        raise DamageError("it holds a number of thousands of digits") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _require_flat(found)
    if "\\u" in text:  # only so can half of a pair come in
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DamageError("it holds half of a character, which is no text") from None
    return found


def validated(found: Any, schema: type[Schema]) -> Schema:
    """What a JSON text holds, as a schema has it; a DamageError names the first value that is wrong."""
    if not isinstance(found, dict):
        raise DamageError(f"it holds {_JSON.get(type(found), 'a number')}, not names with values")
    try:
        return schema.model_validate(found)
    except ValidationError as errors:
        error = errors.errors(include_url=False)[0]
        name = short(".".join(map(str, error["loc"])))
        if error["type"] == "missing":
            raise DamageError(f"it lacks {name}") from None
        wanted = error["msg"][:1].lower() + error["msg"][1:]
        raise DamageError(f"{name} is {short(repr(error['input']))}: {wanted}") from None


def digest(content: bytes) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _decoded(raw: bytes, line: int = 1) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise DamageError(
            f"line {line + before.count(10)}, column {column}: a byte that is not UTF-8 text"
        ) from None


def _require_flat(found: Any) -> None:
    level = [found]
    for _ in range(MAX_DEPTH):
        inner = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)
        ]
        level = [value for values in inner for value in values]
    if any(isinstance(value, dict | list) for value in level):
        raise DamageError("it is nested too deeply")


def _finite(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise DamageError(f"{short(digits)} is too large")
    return float(digits)


def _no_number(name: str) -> NoReturn:
    raise DamageError(f"{name} is no number")


def _cannot(reason: str) -> str:
    return f"it cannot be read ({reason})"


def _unreadable(path: Path, error: OSError) -> DamageError | RunError:
    if isinstance(error, FileNotFoundError):
        if not path.is_symlink():
            return MissingError(_cannot("there is no such file"))
        return DamageError(_cannot(f"the link to {short(str(path.readlink()), 80)} leads nowhere"))
    if isinstance(error, PermissionError):
        return RunError(f"{path} cannot be read (no permission). Fix the permissions.")
    if isinstance(error, NotADirectoryError):
        return DamageError(_cannot("a folder on the way to it is a file"))
    if error.errno == errno.ELOOP:
        return DamageError(_cannot("a link that leads back to itself"))
    return DamageError(_cannot(error.strerror or str(error)))
