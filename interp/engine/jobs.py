"""What the engine is given, and what it gives back."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field, model_validator

from interp.config import Settings
from interp.errors import ConfigError, InterpError, short

_PROCESSES_PER_CPU = 8


@runtime_checkable
class RunSettings(Protocol):
    """Settings of a run, of any kind that the engine knows (see `kinds.KINDS`)."""

    def identity(self) -> dict[str, Any]:
        """The settings that determine the run's bytes, by dotted name."""


@dataclass(frozen=True)
class Job:
    """A run that should be finished.

    Attributes:
        config: The run's settings.
        folder: Where it lies.
        needs: Folders of runs that have to be finished before it starts: a fine-tuned run's base, a
            patched run's reference.
    """

    config: RunSettings
    folder: Path
    needs: tuple[Path, ...] = ()


class EngineSettings(Settings):
    """Where runs are trained, and how many at a time. No run depends on it, but for `threads`."""

    kind: Literal["local", "ray"] = "local"
    """"local": on this machine. "ray": on a Ray cluster."""
    workers: int = Field(default=1, ge=1)
    """Processes at a time ("local" only); 1 trains in this process, one run after the other."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads of each run. A run's last bits depend on it, so that it is not set by the machine."""
    address: str | None = None
    """The cluster ("ray" only): auto, ray://host:port or host:port. Default: one is started on this
    machine for as long as the batch takes."""
    cpus_per_run: float = Field(default=1.0, ge=0)
    """CPUs that each run asks the cluster for ("ray" only)."""
    gpus_per_run: float = Field(default=0.0, ge=0)
    """GPUs that each run asks the cluster for ("ray" only); 0.5 puts two runs on one."""
    retry: int = Field(default=0, ge=0)
    """How many times a run that fails is tried again, from where it was."""

    @model_validator(mode="after")
    def _can_work(self) -> "EngineSettings":
        n_cpus = os.cpu_count() or 1
        if self.workers > _PROCESSES_PER_CPU * n_cpus:
            raise ConfigError(
                f"workers={self.workers}: this machine has {n_cpus} CPUs, on which more than "
                f"{_PROCESSES_PER_CPU * n_cpus} processes would only wait for each other; ask for as many "
                "as it has CPUs."
            )
        if self.gpus_per_run > 1 and not self.gpus_per_run.is_integer():
            raise ConfigError(
                f"gpus_per_run={self.gpus_per_run:g}: above one, Ray hands out whole GPUs only."
            )
        if self.kind == "local":
            self._refuse("ray", "address", "cpus_per_run", "gpus_per_run")
        else:
            self._refuse("local", "workers")
            if self.threads > max(1.0, self.cpus_per_run):
                raise ConfigError(
                    f"threads={self.threads} with cpus_per_run={self.cpus_per_run:g}: more threads "
                    "than CPUs get into each other's way; ask for as many CPUs."
                )
        return self

    def _refuse(self, kind: str, *names: str) -> None:
        """Refuses settings that belong to the other kind of engine."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                value = short(str(getattr(self, name)), 60)
                raise ConfigError(
                    f"{name}={value} with kind={self.kind!r}; it belongs to kind={kind!r}."
                )


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished.

    Attributes:
        job: The run.
        error: The type of the error, e.g. "DivergedError".
        message: What it said.
        attempts: How many times the run was started; 0 where one that it needs had failed.
        traceback: Where it came from, for an error that nobody foresaw; else empty.
    """

    job: Job
    error: str
    message: str
    attempts: int
    traceback: str = ""

    def __str__(self) -> str:
        times = f" ({self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{self.job.folder}{times}: {self.error}: {self.message}"


class BatchError(InterpError):
    """Some runs of a batch could not be finished."""


@dataclass(frozen=True)
class Outcome:
    """What became of a batch.

    Attributes:
        finished: Folders of finished runs, in the order of the jobs, each once.
        failed: The others.
    """

    finished: tuple[Path, ...]
    failed: tuple[Failure, ...] = ()

    def require_all(self) -> None:
        """Checks that every run is finished.

        Raises:
            BatchError: naming every run that is not, why, and what to do.
        """
        if not self.failed:
            return
        listed = "\n".join(f"  {failure}" for failure in self.failed)
        total = len(self.finished) + len(self.failed)
        raise BatchError(
            f"{len(self.failed)} of {total} runs could not be finished:\n{listed}\n"
            "Remove the cause and run the same command again: finished runs are kept, and the others "
            "go on from their last checkpoint."
        )
