"""Opening an output folder for training: new, to resume, or to overwrite. Nothing is lost by mistake."""

from pathlib import Path
from shutil import rmtree

from interp.config import Config, differences
from interp.errors import ConfigError, RunError
from interp.files import refuse_foreign, storage_errors, write_text
from interp.run import Run

RUN_FILES = {
    "config.yaml", "environment.json", "tokenizer", "metrics.jsonl", "checkpoints", "results",
    "training_state.safetensors", "finished.json", "report.html", "summary.json", ".lock", "wandb",
}  # fmt: skip


def open_folder(config: Config, out: Path, *, resume: bool, overwrite: bool) -> Run:
    """Makes a folder ready for training with these settings: see `train` for the arguments.

    Raises:
        RunError: the folder holds a different run, or the same one and neither `resume` nor
            `overwrite` was asked for, or files that are no run.
    """
    if "config.yaml" in refuse_foreign(out, RUN_FILES):
        if not (overwrite or resume):
            raise RunError(
                f"{out} already holds a run. Use --resume to go on with it (a finished one is kept as "
                "it is), --overwrite to delete it and train again, or another --out."
            )
        if not overwrite:
            run = Run.load(out)
            if changed := differences(config, run.config):
                raise RunError(
                    f"{out} holds a run with other settings:\n  "
                    + "\n  ".join(changed)
                    + "\nUse those settings to resume it, --overwrite to delete it, or another --out."
                )
            return run
        _require_ours(out)
        _clear(out)
    write_text(out / "config.yaml", config.to_yaml())
    return Run.load(out)


def _require_ours(out: Path) -> None:
    """Refuses to delete what is not known to be a run: another program's config.yaml, say."""
    try:
        Run.load(out)
    except ConfigError as error:
        raise RunError(
            f"{error}\nSo {out} is not known to be a run of this version, and --overwrite deletes "
            "nothing else. Delete the folder yourself or choose another --out."
        ) from error


def clear_results(out: Path) -> None:
    """Deletes what followed from a training: first the note that it had ended, then the rest."""
    for name in ("finished.json", "results", "summary.json", "report.html", "checkpoints"):
        _delete(out / name)


def _clear(out: Path) -> None:
    """Deletes a run's files and nothing else; config.yaml last, so that a kill leaves a run."""
    clear_results(out)
    for name in [*sorted(RUN_FILES - {".lock", "config.yaml"}), "config.yaml"]:
        _delete(out / name)


def _delete(path: Path) -> None:
    with storage_errors(path):
        if path.is_dir():
            rmtree(path)
        else:
            path.unlink(missing_ok=True)
