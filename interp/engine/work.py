"""One attempt at one run, in whatever process."""

import traceback
from dataclasses import dataclass
from typing import Literal

from interp.engine.jobs import Job
from interp.engine.kinds import kind_of
from interp.errors import (
    ConfigError,
    DivergedError,
    FolderInUseError,
    InterpError,
    InterruptedRunError,
    RunError,
)
from interp.progress import Progress
from interp.threads import using_threads

_FINAL = (ConfigError, DivergedError, RunError)
"""Errors that the next attempt would meet again: it does the same."""


@dataclass(frozen=True)
class Result:
    """How an attempt ended.

    Attributes:
        ended: "finished"; "failed"; "in use": another process trains this run; "interrupted": it was
            asked to stop, and its state is saved; "lost": its process is gone.
        error: The type of the error, if it failed.
        message: What it said.
        traceback: Where it came from, if nobody foresaw it.
        final: Whether another attempt would fail as well.
    """

    ended: Literal["finished", "failed", "in use", "interrupted", "lost"]
    error: str = ""
    message: str = ""
    traceback: str = ""
    final: bool = False


FINISHED = Result("finished")


def attempt(job: Job, threads: int, progress: bool | Progress = False) -> Result:
    """Trains a run, or goes on with it; whatever goes wrong is told and not raised.

    Args:
        job: The run.
        threads: On so many threads, which are put back afterwards.
        progress: Where to report to.
    """
    try:
        with using_threads(threads):
            kind_of(job.config).train(job.config, job.folder, progress)
    except InterruptedRunError as error:
        return Result("interrupted", type(error).__name__, str(error))
    except FolderInUseError as error:
        return Result("in use", type(error).__name__, str(error))
    except InterpError as error:
        return Result("failed", type(error).__name__, str(error), final=isinstance(error, _FINAL))
    except Exception as error:
        return Result("failed", type(error).__name__, str(error), traceback.format_exc())
    return FINISHED
