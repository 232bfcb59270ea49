"""The `summary.json` of a stage: written last, so that a stage with one is finished."""

import json
from pathlib import Path
from typing import Any

from interp.errors import RunError

NOT_MEASURED = "not_measured"
"""Under this name a summary gives, by table, why there was nothing to measure; lacking where nothing was."""


def read_stage_summary(folder: Path) -> dict[str, Any]:
    """What a finished stage has summed up; empty if the stage of this folder has not finished.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / "summary.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected names with values, found {type(found).__name__}")
        reasons = found.get(NOT_MEASURED, {})
        if not isinstance(reasons, dict) or not all(isinstance(w, str) for w in reasons.values()):
            raise ValueError(f"{NOT_MEASURED!r} gives no reasons by table")
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({error}). Delete it and run `interp reproduce --out "
            f"{folder.parent.parent}` with the same settings again."
        ) from error
    return found
