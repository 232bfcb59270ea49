"""The metrics of a run on disk: one observation a line, as JSON."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from interp.config.training import MAX_STEPS
from interp.errors import RunError
from interp.files import storage_errors, write_text
from interp.reading import (
    DamageError,
    MissingError,
    digest,
    read_bytes,
    read_json_lines,
    require_file,
)

COLUMNS = ("step", "split", "metric", "attribute", "value")
"""The columns of a metrics table."""


def observation(step: int, split: str, metric: str, value: float) -> dict[str, Any]:
    """One observation that is about no attribute in particular."""
    return {"step": step, "split": split, "metric": metric, "attribute": "all", "value": value}


class MetricsWriter:
    """Appends observations to a metrics file; a whole measurement reaches the disk at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keeps observations, each with the keys `COLUMNS`, until `flush`."""
        for row in rows:
            self._lines.append(
                json.dumps({name: row[name] for name in COLUMNS}, allow_nan=False) + "\n"
            )

    def flush(self) -> None:
        """Appends what was added to the file; a line cut off by a full disk is dropped on resuming."""
        if self._lines:
            with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
            self._lines.clear()

    def flushed_digest(self) -> str:
        """Flushes, and returns the digest of the whole file; a RunError if it is gone."""
        self.flush()
        try:
            return digest(read_bytes(self._path))
        except DamageError as damage:
            raise RunError(f"{self._path}: {damage}. {_REMEDY}") from None


def keep_until(path: Path, step: int, written: str | None = None) -> None:
    """Drops what a killed process wrote after the state, at `step`, that training resumes from.

    Args:
        path: The metrics file.
        step: The step of the state.
        written: The digest that the file had when the state was saved; None: it was not noted.

    Raises:
        RunError: the file is damaged, or what is kept is not what was there.
    """
    kept = []
    for line, row in _observations(path):
        # The training loss of a step comes from the update that leaves it, so after its state.
        if row.step < step or (row.step == step and row.metric != "loss"):
            kept.append(line + "\n")
    text = "".join(kept)
    if written not in (None, digest(text.encode())):
        raise RunError(
            f"{path} is not as it was when step {step} was saved: a line has been changed, or is gone. Train "
            "the run again with overwrite=True."
        )
    write_text(path, text)


def read_metrics(path: Path, written: str | None = None) -> pd.DataFrame:
    """The metrics file as a tidy table with the columns `COLUMNS`; empty if there is no file.

    An analysis asks for it hundreds of times: an unchanged file is not read again.

    Args:
        path: The metrics file.
        written: The digest that its whole lines had when training ended; None: it is not known.

    Raises:
        RunError: the file is damaged or has another digest.
    """
    try:
        file = require_file(path)
    except MissingError:
        if written is not None:
            raise RunError(f"{path} is missing. {_REMEDY}") from None
        return pd.DataFrame(columns=list(COLUMNS))
    except DamageError as damage:
        raise RunError(f"{path}: {damage}. {_REMEDY}") from None
    table = _table(path.absolute(), (file.st_ino, file.st_size, file.st_mtime_ns), written)
    return table.copy()  # the caller's own, to change as they like


@lru_cache(maxsize=32)
def _table(path: Path, _version: tuple[int, ...], written: str | None) -> pd.DataFrame:
    found = _observations(path)
    if written not in (None, digest("".join(line + "\n" for line, _ in found).encode())):
        raise RunError(
            f"{path} is not as it was when training ended: a line has been changed, added or is gone. "
            f"{_REMEDY}"
        )
    return pd.DataFrame([vars(row) for _, row in found], columns=list(COLUMNS))


class _Observation(BaseModel):
    """A line, as `MetricsWriter` writes it."""

    model_config = ConfigDict(strict=True)

    step: int = Field(ge=0, le=MAX_STEPS)
    split: str = Field(min_length=1, max_length=40)
    metric: str = Field(min_length=1, max_length=40)
    attribute: str = Field(min_length=1, max_length=40)
    value: float = Field(allow_inf_nan=False)


_REMEDY = "Train the run again with overwrite=True."


def _observations(path: Path) -> list[tuple[str, _Observation]]:
    """The lines of the file and what they hold, but for a last one that was cut off."""
    found: list[tuple[str, _Observation]] = []
    lines: dict[tuple[Any, ...], int] = {}  # of each measured quantity
    try:
        for number, line, row in read_json_lines(path, _Observation):
            if found and row.step < found[-1][1].step:
                raise DamageError(f"line {number}: step {row.step} after {found[-1][1].step}")
            before = lines.setdefault((row.step, row.split, row.metric, row.attribute), number)
            if before != number:
                raise DamageError(f"line {number} measures what line {before} does")
            found.append((line, row))
    except MissingError:
        return []
    except DamageError as damage:
        raise RunError(f"{path} is damaged: {damage}. {_REMEDY}") from None
    return found
