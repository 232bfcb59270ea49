"""The metrics of a run on disk: one observation a line, as JSON."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import RunError
from interp.files import storage_errors, write_text

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
            self._lines.append(json.dumps({name: row[name] for name in COLUMNS}) + "\n")

    def flush(self) -> None:
        """Appends what was added to the file; a line cut off by a full disk is dropped on resuming."""
        if self._lines:
            with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
            self._lines.clear()


def keep_until(path: Path, step: int) -> None:
    """Drops what a killed process wrote after the state, at `step`, that training resumes from."""
    kept = []
    for line, row in _observations(path):
        # The training loss of a step comes from the update that leaves it, so after its state.
        if row["step"] < step or (row["step"] == step and row["metric"] != "loss"):
            kept.append(line + "\n")
    write_text(path, "".join(kept))


def read_metrics(path: Path) -> pd.DataFrame:
    """The metrics file as a tidy table with the columns `COLUMNS`; empty if there is no file.

    An analysis asks for it hundreds of times: an unchanged file is not read again.
    """
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    file = path.stat()
    table = _table(path.absolute(), (file.st_ino, file.st_size, file.st_mtime_ns))
    return table.copy()  # the caller's own, to change as they like


@lru_cache(maxsize=32)
def _table(path: Path, _version: tuple[int, ...]) -> pd.DataFrame:
    return pd.DataFrame([row for _, row in _observations(path)], columns=list(COLUMNS))


def _observations(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of the file and what they hold, but for a last one that was cut off."""
    if not path.exists():
        return []
    try:
        *complete, _ = path.read_text(encoding="utf-8").split("\n")
    except (UnicodeDecodeError, OSError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Train the run again with --overwrite."
        ) from error
    rows = []
    for number, line in enumerate(complete, 1):
        try:
            rows.append((line, _observation(line)))
        except ValueError as error:
            raise RunError(
                f"Line {number} of {path} is damaged ({error}). Delete that line, or train the run "
                "again with --overwrite."
            ) from error
    return rows


def _observation(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict) or not set(COLUMNS) <= set(row):
        raise ValueError(f"it is no observation with the keys {', '.join(COLUMNS)}")
    if not isinstance(row["step"], int) or not isinstance(row["value"], int | float):
        raise ValueError("its step is no whole number, or its value no number")
    return row
