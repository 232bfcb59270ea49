"""The names of the files of a run, and their deletion: what others put into its folder stays."""

import re
from pathlib import Path

from interp.biographies import PEOPLE_FILE, TEMPLATES_FILE, Population, write_people
from interp.errors import ConfigError, RunError
from interp.files import (
    Layout,
    remove_files,
    remove_if_empty,
    require_own_places,
    storage_errors,
    written_files,
)
from interp.run.adapters import adapter_folders
from interp.run.readme import README, remove_readme
from interp.run.run import Run
from interp.run.tables import ALL_TABLES

_RESULTS = {
    f"results/{stage}": "|".join(
        [r"summary\.json", *(rf"{name}\.csv" for of, name in ALL_TABLES if of == stage)]
    )
    for stage in dict.fromkeys(stage for stage, _ in ALL_TABLES)
}
_TOKENIZER = "(tokenizer|tokenizer_config|special_tokens_map|added_tokens)" + r"\.json"
KEY = "key"
"""The folder of a compiled run that says what its heads, neurons and directions are for."""
FROM_TRAINING: Layout = {
    # A kill in between leaves nothing that could be taken for finished, or for a state to go on from.
    "": r"finished\.json|training_state\.safetensors|summary\.json|report\.html",
    **_RESULTS,
    "results": "(?!)",
    "checkpoints": r"step_\d{8,}\.safetensors",
    "adapters": "(?!)",
    KEY: r"(heads|neurons|spaces|directions|facts)\.csv|vectors\.json",
}
"""What follows from a training."""
_BEFORE_TRAINING: Layout = {"": r"environment\.json|metrics\.jsonl", "tokenizer": _TOKENIZER}
_PEOPLE: Layout = {"": "|".join(map(re.escape, (PEOPLE_FILE, TEMPLATES_FILE)))}
RUN: Layout = {
    **FROM_TRAINING,
    **_BEFORE_TRAINING,
    "": "|".join(
        (FROM_TRAINING[""], _BEFORE_TRAINING[""], r"config\.yaml", re.escape(README), _PEOPLE[""])
    ),
}
"""Everything that is written into a run's folder."""
_AFTER_MARK: Layout = {**FROM_TRAINING, "": rf"{FROM_TRAINING['']}|metrics\.jsonl"}
"""What no run has before `environment.json`."""

_ADAPTER: Layout = {"": r"adapter_config\.json|adapter_model\.safetensors"}
_PATCHED = Path("results/patching/runs")  # the runs of the stage `patching`
_PATCHED_NAME = re.compile(r"seed\d+_(unpatched|reference\d+_start\d+.*_until\d+)")


def require_removable(run: Run) -> None:
    """Checks that a run's files can be deleted: training made them, and none of its folders is a link.

    A `config.yaml` alone says only that a run was meant. What training wrote next says that the files
    beside it are a run's.

    Raises:
        RunError: a folder is a link, or files with names of a run's are there that no training wrote.
    """
    require_own_places(run.path, RUN)
    foreign = list(written_files(run.path, _AFTER_MARK))
    if foreign and not _was_begun(run):
        raise RunError(
            f"{run.path} holds {foreign[0].name}, but neither environment.json nor metrics.jsonl of a "
            "training that could have written it. Delete the folder yourself or choose another."
        )
    for patched in _patched_runs(run.path):
        require_removable(patched)


def _was_begun(run: Run) -> bool:
    try:
        if run.environment:
            return True
    except RunError:
        pass
    try:
        return run.metrics_path.stat().st_size == 0 or len(run.metrics) > 0
    except FileNotFoundError:
        return False
    except RunError:
        return False


def keep_people(folder: Path, population: Population) -> None:
    """Writes the people that a user brought, and their wordings, into a run's folder; else removes such.

    They are the last to go when a run is overwritten: it may be trained again on its own copy of them.
    """
    if population.files is None:
        remove_files(folder, _PEOPLE)
    else:
        write_people(population.files, folder)


def remove_training(folder: Path) -> None:
    """Deletes what followed from a training, in a folder that holds a run."""
    for run in _patched_runs(folder):
        remove_run(run.path)
        remove_files(run.path, _PEOPLE)
        with storage_errors(run.path):
            run.config_path.unlink()
            (run.path / ".lock").unlink(missing_ok=True)  # versions before left it there
            remove_if_empty(run.path)
    with storage_errors(folder):
        remove_if_empty(folder / _PATCHED)
    for adapter in adapter_folders(folder):
        remove_files(adapter, _ADAPTER)
        with storage_errors(adapter):
            remove_if_empty(adapter)
    remove_files(folder, FROM_TRAINING)
    with storage_errors(folder):
        remove_readme(folder)


def remove_run(folder: Path) -> None:
    """Deletes all files of a run but config.yaml, which marks the folder, so that a kill leaves a run.

    The people that a user brought stay, too (see `keep_people`).
    """
    remove_training(folder)
    remove_files(folder, _BEFORE_TRAINING)


def _patched_runs(folder: Path) -> list[Run]:
    runs = []
    within = folder / _PATCHED
    for path in sorted(within.iterdir()) if within.is_dir() else []:
        if _PATCHED_NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            try:
                runs.append(Run.load(path))
            except (RunError, ConfigError):
                continue  # it does not carry the mark
    return runs
