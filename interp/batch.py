"""Studies as a batch, from runs to the page: `interp batch`, and the same from Python."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from interp.engine import EngineSettings, Store, run_jobs
from interp.engine.kinds import kind_of
from interp.errors import RunError
from interp.files import absolute, folder_lock, place_to_write, refuse_run, write_text
from interp.progress import Progress
from interp.report.batch import write_batch_report
from interp.report.html import page_to_write
from interp.studies.batch import (
    BATCH_FILE,
    RUNS,
    Batch,
    batch_in,
    jobs_of,
    planned_runs,
    with_others,
)
from interp.studies.found import (
    Found,
    require_found_folder,
    was_found,
    what_is_found,
    write_found,
)
from interp.torch_state import default_state

REPORT = "report.html"
"""The page of a batch, in its folder."""
_PATIENCE = 600.0  # seconds that another batch in the same folder has for writing its page


class Work(NamedTuple):
    """What a batch has to do.

    Attributes:
        n_runs: Runs that its studies need, each counted once.
        n_left: Those that are not finished.
        seconds: About how long these take, one after the other on 2 CPU cores.
    """

    n_runs: int
    n_left: int
    seconds: float


@default_state()
def run_batch(
    studies: Batch | str | Path | Sequence[str | Path],
    out: Path | str,
    engine: EngineSettings | None = None,
    *,
    progress: bool | Progress = True,
) -> list[Found]:
    """Trains the runs that are not finished, and writes what the studies find, with a report.

    A run that fails stops no other, and neither does a study whose tables cannot be made; studies are
    made from the runs that are there. The same call goes on after a kill. Another batch in the same
    folder, at the same time too, shares its runs, and is added to its description and its report.

    Args:
        studies: A batch, or studies by name ("power_law") or by the path of their file ("my_study.py").
        out: Folder of the batch: `runs/` (the store), a folder for each study, `report.html`.
        engine: Where runs are trained; in this process by default.
        progress: Show progress of all runs together on standard error; or where to report it to.

    Returns:
        What each study of this batch has found, in its order.

    Raises:
        ConfigError: there is no such study, or its settings cannot work.
        RunError: a file that would be written is there and is somebody else's.
        StorageError: a file could not be written; complete files are intact.
    """
    out, batch = absolute(place_to_write(out)), _described(studies)
    refuse_run(out)
    for entry in batch.studies:
        require_found_folder(out / entry.label)
    page_to_write(out / REPORT)
    store = Store(out / RUNS)
    planned = [p for entry in batch.studies for p in planned_runs(entry)]
    jobs = [job for p in planned for job in jobs_of(p, store)]
    with folder_lock(out, _PATIENCE):
        write_text(out / BATCH_FILE, with_others(batch, out).to_yaml())
    outcome = run_jobs(jobs, engine or EngineSettings(), progress=progress)
    found = []
    for entry in batch.studies:
        of_study = what_is_found(entry, store, outcome)
        write_found(of_study, out / entry.label)
        found.append(of_study)
    with folder_lock(out, _PATIENCE):
        write_batch_report(_with_earlier(found, batch, store, out), out / REPORT)
    return found


def _with_earlier(found: list[Found], batch: Batch, store: Store, out: Path) -> list[Found]:
    """What a batch has found, and what others have that used its folder, in the described order."""
    described = batch_in(out)
    if described is None or any(entry not in described.studies for entry in batch.studies):
        described = with_others(
            batch, out
        )  # others have described studies of these names meanwhile
        write_text(out / BATCH_FILE, described.to_yaml())
    ours = {of_study.label: of_study for of_study in found}
    return [
        ours.get(entry.label) or what_is_found(entry, store, folder=out / entry.label)
        for entry in described.studies
        if entry.label in ours or was_found(out / entry.label)
    ]


def work_left(studies: Batch | str | Path | Sequence[str | Path], out: Path | str) -> Work:
    """What `run_batch` would still have to train; raises as it does."""
    store, batch = Store(absolute(place_to_write(out)) / RUNS), _described(studies)
    jobs = {
        job.folder: job
        for entry in batch.studies
        for planned in planned_runs(entry)
        for job in jobs_of(planned, store)
    }
    left = [job for job in jobs.values() if not store.finished(job.config)]
    seconds = sum(kind_of(job.config).expected_seconds(job.config) for job in left)
    return Work(len(jobs), len(left), seconds)


@default_state()
def report_batch(out: Path | str, path: Path | str | None = None) -> Path:
    """Writes the page of a batch again, from the tables and runs in its folder; nothing is trained.

    Args:
        out: The batch's folder.
        path: The HTML file; `report.html` in the folder by default.

    Raises:
        RunError: the folder holds no batch, or the file is there and no page.
        ConfigError: the file of a study is no longer where it was.
        StorageError: the file could not be written.
    """
    out = absolute(out)
    batch = batch_in(out)
    if batch is None:
        raise RunError(
            f"{out} holds no batch ({BATCH_FILE} is missing). Give the folder that a batch was written to."
        )
    target = page_to_write(out / REPORT if path is None else path)
    store = Store(out / RUNS)
    with folder_lock(out, _PATIENCE) if path is None else nullcontext():
        studies = (batch_in(out) or batch).studies
        found = [what_is_found(entry, store, folder=out / entry.label) for entry in studies]
        return write_batch_report(found, target)


def _described(studies: Batch | str | Path | Sequence[str | Path]) -> Batch:
    if isinstance(studies, Batch):
        return studies
    names = [studies] if isinstance(studies, str | Path) else list(studies)
    return Batch.parse({"studies": [{"study": str(name)} for name in names]})
