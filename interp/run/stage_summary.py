"""The `summary.json` of a stage: written last, so that a stage with one is finished."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from interp.errors import RunError
from interp.reading import DamageError, MissingError, read_json

NOT_MEASURED = "not_measured"
"""Under this name a summary gives, by table, why there was nothing to measure; lacking where nothing was."""
DIGESTS = "digests"
"""Under this name a summary gives the digests of the stage's tables, by table; older ones give none."""


class _Summary(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    not_measured: dict[str, str] = {}
    digests: dict[str, str] = {}


def read_stage_summary(folder: Path) -> dict[str, Any]:
    """What a finished stage has summed up; empty if the stage of this folder has not finished.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / "summary.json"
    try:
        return read_json(path, _Summary)
    except MissingError:
        return {}
    except DamageError as damage:
        raise RunError(
            f"{path} is damaged: {damage}. Delete it and run `interp reproduce --out "
            f"{folder.parent.parent}` with the same settings again."
        ) from None
