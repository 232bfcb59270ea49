"""What a stage of the main job is, and what it finds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from interp.config import Config
from interp.errors import NothingToMeasureError
from interp.model import NO_ATTENTION
from interp.progress import Progress, silent
from interp.reading import digest, read_bytes
from interp.run import Run
from interp.run.stage_summary import DIGESTS, NOT_MEASURED, write_stage_summary
from interp.run.tables import ALL_TABLES, result_table


@dataclass(frozen=True)
class StageResult:
    """What a stage found.

    Attributes:
        summary: The numbers a script would want; goes into the run's `summary.json`.
        tables: Tidy tables by name, as `interp.run.tables` declares them; each becomes a CSV file.
        not_measured: Of the tables for which there is nothing to measure, why.
    """

    summary: dict[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    not_measured: Mapping[str, str] = field(default_factory=dict)


class Measured:
    """The tables of a stage as they are measured; of those with nothing to measure, why.

    Attributes:
        tables: Those that were measured, by name.
        not_measured: The reasons, by name.
    """

    def __init__(self) -> None:
        self.tables: dict[str, pd.DataFrame] = {}
        self.not_measured: dict[str, str] = {}

    def add(self, name: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
        """Measures a table; None if there is nothing to measure."""
        try:
            self.tables[name] = measure()
        except NothingToMeasureError as error:
            self.not_measured[name] = str(error)
        return self.tables.get(name)


@dataclass(frozen=True)
class Stage:
    """One step of the main job.

    Attributes:
        name: Its folder in `results/` and its key in `summary.json`.
        title: What a person is told it does.
        compute: From a trained run to its result; reports its progress.
        seconds: About how long it takes on 2 CPU cores at `tiny`.
        grows: How much longer it takes with other settings.
        needs_attention: Whether it reads or changes attention, which recurrent models have none of.
    """

    name: str
    title: str
    compute: Callable[[Run, Progress], StageResult]
    seconds: float
    grows: Callable[[Config], float] = lambda config: 1.0
    needs_attention: bool = True

    def fits(self, config: Config) -> bool:
        """Whether it is for models like this one; it is skipped otherwise."""
        return config.model.recurrence is None or not self.needs_attention

    def expected_seconds(self, config: Config) -> float:
        """About how long it takes: a first guess, until this machine's pace is seen."""
        return self.seconds * self.grows(config) if self.fits(config) else 0.0

    def finished(self, run: Run) -> bool:
        """Whether the run holds this stage's result."""
        return (run.results_path / self.name / "summary.json").exists()

    def execute(self, run: Run, progress: Progress = silent) -> None:
        """Computes and writes the result, the summary last.

        Of a stage that is skipped, or of tables with nothing to measure, the summary says why.

        Raises:
            StorageError: a file could not be written.
        """
        started = time.perf_counter()
        result = self._result(run, progress)
        folder = run.results_path / self.name
        digests = {}
        for name, table in result.tables.items():
            path = folder / f"{name}.csv"
            result_table(self.name, name).write(path, table)
            digests[name] = digest(read_bytes(path))
        seconds = round(time.perf_counter() - started, 2)
        notes: dict[str, Any] = {"seconds": seconds, DIGESTS: digests}
        if result.not_measured:
            notes[NOT_MEASURED] = dict(result.not_measured)
        write_stage_summary(folder, {**result.summary, **notes})

    def _result(self, run: Run, progress: Progress) -> StageResult:
        if not self.fits(run.config):
            return StageResult({"skipped": NO_ATTENTION})
        try:
            return self.compute(run, progress)
        except NothingToMeasureError as error:
            tables = [table for stage, table in ALL_TABLES if stage == self.name]
            return StageResult({}, not_measured=dict.fromkeys(tables, str(error)))
