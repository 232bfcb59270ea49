"""What a stage of the main job is, and what it finds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from interp.config import Config
from interp.files import write_json
from interp.model import NO_ATTENTION
from interp.progress import Progress, silent
from interp.run import Run
from interp.run.tables import result_table


@dataclass(frozen=True)
class StageResult:
    """What a stage found.

    Attributes:
        summary: The numbers a script would want; goes into the run's `summary.json`.
        tables: Tidy tables by name, as `interp.run.tables` declares them; each becomes a CSV file.
    """

    summary: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


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
        """Computes and writes the result, the summary last; of a stage that is skipped, why.

        Raises:
            StorageError: a file could not be written.
        """
        started = time.perf_counter()
        skipped = StageResult({"skipped": NO_ATTENTION})
        result = self.compute(run, progress) if self.fits(run.config) else skipped
        folder = run.results_path / self.name
        for name, table in result.tables.items():
            result_table(self.name, name).write(folder / f"{name}.csv", table)
        seconds = round(time.perf_counter() - started, 2)
        write_json(folder / "summary.json", {**result.summary, "seconds": seconds})
