"""Kinds of runs that the engine can train, by the type of their settings."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp import associative_memory
from interp.associative_memory import AssociativeMemoryConfig, AssociativeMemoryRun
from interp.config import Config, differences, flatten
from interp.engine.jobs import RunSettings
from interp.errors import ConfigError
from interp.progress import Progress
from interp.reading import DamageError, require_file
from interp.run import Run, fingerprint
from interp.training import train
from interp.training.loop import expected_seconds


def _finished_file(folder: Path) -> bool:
    return (folder / "finished.json").exists()


def _no_check(config: Any, folder: Path) -> list[str]:
    return []


@dataclass(frozen=True)
class Kind:
    """What the engine has to know of a kind of runs.

    A run lies in a folder with `metrics.jsonl`, whose lines hold a `step`, and `finished.json` once it
    is finished; training holds the folder's lock (`files.folder_lock`) and goes on where it was.

    Attributes:
        train: Trains a run with these settings in a folder; a finished one is kept.
        expected_seconds: About how long that takes.
        n_steps: The number of steps.
        load: Opens a finished run.
        finished: Whether the run in a folder is finished, cheaply: files are only looked for.
        changed: In what the run in a folder differs from these settings, one line each.
    """

    train: Callable[[Any, Path, bool | Progress], object]
    expected_seconds: Callable[[Any], float]
    n_steps: Callable[[Any], int]
    load: Callable[[Path], Any]
    finished: Callable[[Path], bool] = _finished_file
    changed: Callable[[Any, Path], list[str]] = _no_check


def _train(config: Config, folder: Path, progress: bool | Progress) -> Run:
    return train(config, folder, resume=True, progress=progress)


_OTHER_RUNS = {
    "patching.reference": "patching.reference_run",
    "finetuning.base": "finetuning.base_run",
}
"""Settings that name a folder of another run, and those that name it by its settings."""


def _changed(config: Config, folder: Path) -> list[str]:
    """In what the run in a folder differs from the settings, once these name other runs as it does."""
    stored = Run.load(folder).config
    ours, theirs = (flatten(c.model_dump(mode="json")) for c in (config, stored))
    filled = {
        run: fingerprint(Run.load(ours[place]).config)
        for place, run in _OTHER_RUNS.items()
        if ours[run] is None and theirs[run] is not None and ours[place] is not None
    }
    return differences(config.with_settings(**filled), stored)


KINDS: dict[type, Kind] = {
    Config: Kind(
        _train,
        expected_seconds,
        lambda config: config.training.last_step,
        Run.load,
        lambda folder: Run(folder).finished,
        _changed,
    ),
    AssociativeMemoryConfig: Kind(
        lambda config, folder, progress: associative_memory.train(
            config, folder, progress=progress
        ),
        associative_memory.expected_seconds,
        lambda config: config.pretraining.n_steps + config.finetuning.n_steps,
        AssociativeMemoryRun.load,
        lambda folder: AssociativeMemoryRun(folder).finished,
        associative_memory.changed_settings,
    ),
}
"""The kinds of runs; another one adds its line here, so that worker processes know it too."""


def kind_of(config: RunSettings) -> Kind:
    """The kind of runs that have such settings.

    Raises:
        ConfigError: there is none.
    """
    for known, kind in KINDS.items():
        if isinstance(config, known):
            return kind
    raise ConfigError(
        f"The engine cannot train {type(config).__name__}; it trains "
        f"{', '.join(known.__name__ for known in KINDS)}."
    )


def last_step(folder: Path) -> int:
    """The step that a run has reached, by the last whole line of its metrics; 0 without one."""
    path = folder / "metrics.jsonl"
    try:
        size = require_file(path).st_size
        with path.open("rb") as file:
            file.seek(max(0, size - 4096))
            lines = file.read().splitlines(keepends=True)
    except (OSError, DamageError):
        return 0
    for line in reversed(lines):
        try:
            if line.endswith(b"\n"):
                return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return 0


def share_done(config: RunSettings, folder: Path) -> float:
    """Which share of a run is done, by its files: from 0 to 1."""
    kind = kind_of(config)
    if kind.finished(folder):
        return 1.0
    return min(last_step(folder) / kind.n_steps(config), 1.0)
