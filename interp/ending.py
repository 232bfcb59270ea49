"""The note that a training has ended (`finished.json`), with the digests of what a run keeps beside it.

Weights carry their digests themselves (`files.write_tensors`). The other files are text and stay as they
are: what they have to be stands here, once they change no more. Runs of versions that noted no digests
are taken as they are.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from interp.errors import RunError
from interp.files import write_json
from interp.reading import DamageError, MissingError, digest, read_bytes, read_json

_NAME = "finished.json"


class _Ending(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    digests: dict[str, str] = {}


def write_ending(folder: Path, note: Mapping[str, object], files: Iterable[str]) -> None:
    """Notes that the training of the run in a folder has ended, with the digests of some of its files.

    Raises:
        RunError: one of the files is gone.
    """
    digests = {}
    for name in files:
        try:
            digests[name] = digest(read_bytes(folder / name))
        except DamageError as damage:  # somebody has been at the folder meanwhile
            raise RunError(f"{folder / name}: {damage}. Train the run again.") from None
    write_json(folder / _NAME, {**note, "digests": digests})


def noted_digests(folder: Path) -> dict[str, str]:
    """The digests of a run's files when its training ended, by name; empty where none are noted.

    Raises:
        RunError: the note is damaged.
    """
    path = folder / _NAME
    try:
        return dict(read_json(path, _Ending).get("digests", {}))
    except MissingError:
        return {}
    except DamageError as damage:
        raise RunError(
            f"{path} is damaged: {damage}. Put it back as it was, or write {{}} into it to use the run "
            "without checking its files."
        ) from None


def require_unchanged(folder: Path, name: str, remedy: str) -> None:
    """Checks that a file of a run is what it was when training ended.

    Raises:
        RunError: it has been changed since, or cannot be read; `remedy` says what to do then.
    """
    written = noted_digests(folder).get(name)
    try:
        if written not in (None, digest(read_bytes(folder / name))):
            raise DamageError("it is not as it was when training ended")
    except MissingError:
        raise RunError(f"{folder / name} is missing. {remedy}") from None
    except DamageError as damage:
        raise RunError(f"{folder / name} is damaged: {damage}. {remedy}") from None
