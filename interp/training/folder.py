"""Opening an output folder for training: new, to resume, or to overwrite. Nothing is lost by mistake."""

from pathlib import Path

from interp.config import Config, differences
from interp.errors import ConfigError, RunError
from interp.files import refuse_foreign, write_text
from interp.run import Run
from interp.run.layout import remove_run, require_removable


def find_run(config: Config, out: Path, *, resume: bool, overwrite: bool) -> Run | None:
    """The run in a folder that training with these settings goes on with or overwrites; None if it is new.

    Only looks: nothing is written.

    Raises:
        RunError: the folder holds a different run, or the same one and neither `resume` nor
            `overwrite` was asked for, or files that are no run.
    """
    if "config.yaml" not in refuse_foreign(out):
        return None
    try:
        run = Run.load(out)
    except ConfigError as error:
        raise RunError(
            f"{error}\nSo {out} is not known to be a run of this version, and nothing else is gone on with "
            "or deleted. Delete the folder yourself or choose another folder."
        ) from error
    kept = resume and not differences(config, run.config)
    if run.config.untrained and not overwrite and not kept:
        raise RunError(
            f"{out} already holds a run, a {run.config.untrained} one, which no training goes on with. Use "
            f"overwrite=True to delete it, or another folder (with finetuning.base={out} to go on from it)."
        )
    if not (overwrite or resume):
        raise RunError(
            f"{out} already holds a run. Use resume=True to go on with it (a finished one is kept as "
            "it is), overwrite=True to delete it and train again, or another folder."
        )
    if overwrite:
        require_removable(run)
    elif changed := differences(config, run.config):
        raise RunError(
            f"{out} holds a run with other settings:\n  "
            + "\n  ".join(changed)
            + "\nUse those settings to resume it, overwrite=True to delete it, or another folder."
        )
    elif not run.state_path.exists() and not run.finished:
        require_removable(run)  # it is trained from the start, and forgets what it had
    return run


def require_trained(config: Config) -> None:
    """Refuses settings of weights that were not trained.

    Raises:
        ConfigError: the settings are those of merged or compiled weights.
    """
    if made := config.untrained:
        group, field = {
            "merged": ("merging", "of and factors"),
            "compiled": ("compiled", "variant"),
        }[made]
        raise ConfigError(
            f"{group}: these are the settings of weights that were {made}, which no training gives. Go on "
            f"from the {made} run (interp.finetuned), or set {group}.{field} to None."
        )


def open_folder(config: Config, out: Path, *, resume: bool, overwrite: bool) -> Run:
    """Makes a folder ready for training with these settings: see `train` for the arguments.

    Raises:
        RunError: as `find_run`.
    """
    run = find_run(config, out, resume=resume, overwrite=overwrite)
    if run is not None and not overwrite:
        return run
    if run is not None:
        remove_run(out)
    write_text(out / "config.yaml", config.to_yaml())
    return Run.load(out)


def nothing_left(run: Run | None) -> bool:
    """Whether training has nothing to write any more, not even to tidy up after a kill."""
    return run is not None and run.finished and not run.state_path.exists()
