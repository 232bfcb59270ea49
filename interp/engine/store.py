"""Runs addressed by what determines them: one that two studies need is trained once."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

from interp.config import Config
from interp.engine.jobs import Job, RunSettings
from interp.engine.kinds import kind_of
from interp.errors import RunError
from interp.files import absolute
from interp.run import Run

RUNS_VERSION = 1
"""Counts changes of this package after which the same settings give a run other bytes. Whoever makes
one adds 1: tests/golden_losses.json tells, for whoever has to write it anew has made one."""

PACKAGES = ("torch", "transformer-lens", "transformers", "tokenizers", "numpy")
"""Packages whose versions decide about a run's bytes."""


@cache
def code_versions() -> dict[str, str]:
    """The versions of code that decide about a run's bytes, by name."""
    return {"runs": str(RUNS_VERSION), **{name: version(name) for name in PACKAGES}}


class Store:
    """A folder of runs, each in a folder of its own that its settings address.

    The address is a hash of the settings (`identity()`) and of the versions of the code. Device,
    precision (as resolved on a machine) and number of threads also decide about a run's last bits, but
    they are no part of it: who asks for a run does not know on which machine of a cluster it will be
    trained, and its results are the same within rounding. A run's environment.json records them.

    Example:
        >>> Store(Path("runs")).folder(Config(seed=3)).name.rsplit("-", 1)[0]
        'n512-seed3'
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = absolute(folder)

    def address(self, config: RunSettings) -> str:
        """16 hexadecimal digits that stand for everything that determines a run.

        Settings that name another run by its folder should name it by its fingerprint too
        (`patching.reference_run`, `finetuning.base_run`); the folder does not count then.
        """
        return address_of(config)

    def folder(self, config: RunSettings) -> Path:
        """Where the run with these settings lies, or would lie.

        The name begins with words for people, which follow from the settings as the address does.
        """
        identity = config.identity()
        people, seed = identity.get("population.n_individuals"), identity.get("seed")
        words = [] if people is None else [f"n{people}"]
        words += [] if seed is None else [f"seed{seed}"]
        return self.path / "-".join([*words, self.address(config)])

    def finished(self, config: RunSettings) -> bool:
        """Whether the run with these settings is finished."""
        return kind_of(config).finished(self.folder(config))

    def job(self, config: RunSettings, needs: tuple[Path, ...] = ()) -> Job:
        """A job for `run_jobs`: the run with these settings, in its folder.

        Args:
            config: The settings.
            needs: Folders of runs that have to be finished first.
        """
        return Job(config, self.folder(config), needs)

    @overload
    def run(self, config: Config) -> Run: ...
    @overload
    def run(self, config: RunSettings) -> Any: ...

    def run(self, config: RunSettings) -> Any:
        """The finished run with these settings.

        Raises:
            RunError: it is not finished.
        """
        folder = self.folder(config)
        if not kind_of(config).finished(folder):
            state = "is not finished" if folder.exists() else "has not been trained"
            raise RunError(
                f"The run {folder} {state}. Train it first: run_jobs([store.job(config)]), or the "
                "command of the study that needs it."
            )
        return kind_of(config).load(folder)


def address_of(config: RunSettings) -> str:
    """The address of `Store.address`."""
    determining = {
        "kind": type(config).__name__,
        "settings": config.identity(),
        "code": code_versions(),
    }
    text = json.dumps(determining, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
