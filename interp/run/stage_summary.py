"""The `summary.json` of a stage: written last, so that a stage with one is finished."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from interp.errors import RunError
from interp.files import write_json
from interp.reading import DamageError, MissingError, digest, read_json

NOT_MEASURED = "not_measured"
"""Under this name a summary gives, by table, why there was nothing to measure; lacking where nothing was."""
DIGESTS = "digests"
"""Under this name a summary gives the digests of the stage's tables, by table, and its own; older ones
give none."""
_NAME = "summary.json"


class _Summary(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    not_measured: dict[str, str] = {}
    digests: dict[str, str] = {}


def read_stage_summary(folder: Path) -> dict[str, Any]:
    """What a finished stage has summed up; empty if the stage of this folder has not finished.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / _NAME
    try:
        found = read_json(path, _Summary)
        written = found.get(DIGESTS, {}).get(_NAME)
        if written not in (None, _own_digest(found)):
            raise DamageError("it is not as it was when the stage finished")
        return found
    except MissingError:
        return {}
    except DamageError as damage:
        raise RunError(
            f"{path} is damaged: {damage}. Delete it and run `interp reproduce --out "
            f"{folder.parent.parent}` with the same settings again."
        ) from None


def write_stage_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes what a stage has summed up, with the digests of its tables, and adds its own.

    Raises:
        StorageError: it cannot be written.
    """
    digests = {**content.get(DIGESTS, {}), _NAME: _own_digest(content)}
    write_json(folder / _NAME, {**content, DIGESTS: digests})


def _own_digest(content: Mapping[str, Any]) -> str:
    others = {name: d for name, d in content.get(DIGESTS, {}).items() if name != _NAME}
    return digest(json.dumps({**content, DIGESTS: others}, sort_keys=True).encode())
