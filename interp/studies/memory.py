"""The memory study: keys, values, probes, causal tests and the order of emergence, of several seeds.

The measurements of each run are stages of its own (`interp reproduce`, or `interp memory`, which runs
those that are missing); here the tables of several runs are put side by side.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from interp.errors import ConfigError, RunError
from interp.files import place_to_write, refuse_run, replaceable, write_text
from interp.run import Run
from interp.run.tables import result_table
from interp.studies.grid import require_same_but_seed

TABLES = {
    "emergence": ("emergence", "steps"),
    "strengths": ("emergence", "strengths"),
    "keys": ("memory", "keys"),
    "values": ("memory", "values"),
    "probes": ("memory", "probes"),
    "swaps": ("interventions", "swaps"),
    "edges": ("interventions", "edges"),
    "ablations": ("interventions", "ablations"),
    "attribution": ("interventions", "attribution"),
}
"""The study's tables, and the stage and name that each has in a run."""


def memory_tables(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """The tables of several runs, with the column `seed` in front.

    A run that had nothing to measure for a table has no rows in it; a table that no run has is left out.

    Args:
        runs: Runs that differ in their seed only, whose stages have finished.

    Raises:
        ConfigError: no run, or twice the same seed.
        RunError: a stage of a run has not finished, or the runs differ in more than their seed.
    """
    require_comparable(runs)
    found: dict[str, pd.DataFrame] = {}
    for name, (stage, table) in TABLES.items():
        parts = []
        for run in runs:
            if f"{stage}/{table}" in run.not_measured:
                continue
            of_run = run.result(stage, table)
            if of_run is None:
                raise RunError(
                    f"{run.given} has no table {table!r} of the stage {stage!r}. Run `interp memory` on "
                    f"it; if it does not help, the stage was run by an older version: delete "
                    f"{run.results_path / stage} first."
                )
            if "seed" not in of_run:
                of_run.insert(0, "seed", run.config.seed)
            parts.append(of_run)
        if parts:
            found[name] = pd.concat(parts, ignore_index=True)
    return found


def require_memory_folder(out: Path | str) -> Path:
    """A folder for the study, once it is known that none of its files would replace somebody else's.

    Raises:
        RunError: the folder is a run's, or a file of that name holds another table.
    """
    out = place_to_write(out)
    refuse_run(out)
    for name, of_run in TABLES.items():
        replaceable(out / f"{name}.csv", result_table(*of_run).mark(), f"the table {name}")
    return out


def write_memory_study(runs: Sequence[Run], out: Path) -> dict[str, pd.DataFrame]:
    """Writes the tables of several runs as CSV files into a folder.

    Raises:
        ConfigError, RunError: as `memory_tables` and `require_memory_folder`.
        StorageError: a file could not be written.
    """
    out = require_memory_folder(out)
    tables = memory_tables(runs)
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False, float_format="%.5g"))
    return tables


def require_comparable(runs: Sequence[Run]) -> None:
    """Checks that runs make a study: different seeds, finished, and alike otherwise.

    Raises:
        ConfigError: no run, or twice the same seed.
        RunError: a run is not finished, or they differ in more than their seed.
    """
    if not runs:
        raise ConfigError("No run is given; give at least one finished run.")
    seeds = [run.config.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"The runs have the seeds {seeds}; each may be there once. Leave one of them out."
        )
    for run in runs:
        if not run.finished:
            raise RunError(
                f"{run.given} has not been trained to its end; `interp train --resume` does."
            )
    for run in runs[1:]:
        require_same_but_seed(run, runs[0])
