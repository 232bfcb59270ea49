"""What lies in the folder of a batch: its runs, how large and how old, and which study needs each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp.associative_memory.run import LAYOUT as TOY_LAYOUT
from interp.engine.store import Store
from interp.errors import FolderInUseError, RunError
from interp.files import (
    folder_lock,
    remove_files,
    remove_if_empty,
    require_own_places,
    storage_errors,
)
from interp.run.layout import RUN, remove_run, require_removable
from interp.run.run import Run
from interp.studies.batch import RUNS, batch_in, jobs_of, planned_runs

_ADDRESSED = re.compile(r"(.+-)?[0-9a-f]{16}")
"""What the folder of a run in a store is called."""


@dataclass(frozen=True)
class Stored:
    """A run in the folder of a batch.

    Attributes:
        folder: Where it lies.
        size: Of its files, in bytes.
        changed: When one of them was written last, in seconds since 1970.
        state: "finished", "not finished", or "in use" by a process that trains it.
        needed_by: The studies of the batch that need it, or a run that goes on from it.
    """

    folder: Path
    size: int
    changed: float
    state: str
    needed_by: tuple[str, ...]


def stored_runs(out: Path) -> list[Stored]:
    """The runs in the folder of a batch, those that nothing needs first, then by name.

    Raises:
        RunError: the folder is no batch's.
        ConfigError: its description is damaged, or the file of one of its studies is gone: then it is not
            known what that study needs.
    """
    batch = batch_in(out)
    if batch is None:
        raise RunError(f"{out} holds no batch (batch.yaml is missing); give the folder of a batch.")
    store = Store(out / RUNS)
    needed: dict[Path, list[str]] = {}
    for entry in batch.studies:
        for planned in planned_runs(entry):
            for job in jobs_of(planned, store):
                names = needed.setdefault(job.folder, [])
                if entry.label not in names:
                    names.append(entry.label)
    found = []
    for folder in sorted(store.path.iterdir()) if store.path.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink() and _ADDRESSED.fullmatch(folder.name):
            found.append(_stored(folder, tuple(needed.get(folder, ()))))
    return sorted(found, key=lambda one: (bool(one.needed_by), one.folder.name))


def _stored(folder: Path, needed_by: tuple[str, ...]) -> Stored:
    files = [path.stat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    changed = max((one.st_mtime for one in files), default=folder.stat().st_mtime)
    state = "finished" if (folder / "finished.json").exists() else "not finished"
    if (folder / ".lock").exists() and _in_use(folder):
        state = "in use"
    return Stored(folder, sum(one.st_size for one in files), changed, state, needed_by)


def _in_use(folder: Path) -> bool:
    try:
        with folder_lock(folder):
            return False
    except FolderInUseError:
        return True


def prune(runs: Sequence[Stored]) -> list[Path]:
    """Deletes runs that nothing needs and no process trains; what others put into their folders stays.

    Args:
        runs: As `stored_runs` lists them; those that are needed or in use are left alone.

    Returns:
        The folders of what was deleted.

    Raises:
        RunError: the files of one are not those of a run; those before it are deleted then.
        StorageError: a file cannot be deleted.
    """
    deleted = []
    for one in runs:
        if one.needed_by or one.state == "in use":
            continue
        folder = one.folder
        try:
            with folder_lock(folder):
                _remove(folder)
        except FolderInUseError:
            continue
        with storage_errors(folder):
            remove_if_empty(folder)
        deleted.append(folder)
    return deleted


def _remove(folder: Path) -> None:
    """Deletes the files of a run, its settings last."""
    if any(
        (folder / name).exists() for name in ("pretrained.safetensors", "finetuned.safetensors")
    ):
        require_own_places(folder, TOY_LAYOUT)
        remove_files(folder, TOY_LAYOUT)
        return
    if (folder / "config.yaml").exists():
        require_removable(Run(folder))
        remove_run(folder)
    remove_files(folder, RUN)
