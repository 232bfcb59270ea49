"""The errors a user of the toolkit can meet.

Every message says what was wrong, what was expected and what to do. The command line prints it
without a traceback and exits with the error's `exit_code`.
"""

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral


class InterpError(Exception):
    """Base class of every error that is about the user's input or environment, not about a bug."""

    exit_code = 2


class ConfigError(InterpError):
    """A setting is unknown or has a value that cannot work."""


class ArgumentError(ConfigError, ValueError):
    """An argument of a function is unknown or has a value that cannot work."""


class NothingToMeasureError(ArgumentError):
    """What is measured has none of what the measure is about; the message says what it lacks.

    The main job goes on without that table, writes the reason into its stage's `summary.json`, and the
    report gives it.
    """


class RunError(InterpError):
    """A run folder is missing, incomplete, in use, or holds something else."""


class FolderInUseError(RunError):
    """Another process is writing to a folder."""


class CheckpointError(InterpError):
    """A checkpoint is missing, truncated, or of another model."""


class StorageError(InterpError):
    """A file could not be written: disk full, no permission."""


class DivergedError(InterpError):
    """The training loss became NaN or infinite."""


class LostProcessError(InterpError):
    """Another of the processes that train a run together ended without a word."""


class InterruptedRunError(InterpError):
    """Training was interrupted (Ctrl-C, SIGTERM); its state is saved and it can go on."""

    exit_code = 130


def listed(given: object, argument: str) -> list[str]:
    """One name, or several, as a list.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(given, str):
        return [given]
    several = list(given) if isinstance(given, Iterable) else [None]
    names = [name for name in several if isinstance(name, str)]
    if len(names) != len(several):
        raise ArgumentError(f"{argument}={given!r}: give a name, or a list of names.")
    return names


def whole_number(given: object, argument: str, least: int | None = None) -> int:
    """A whole number as int, such as one of NumPy's.

    Raises:
        ArgumentError: it is none (True and False are none), or below `least`.
    """
    wrong = isinstance(given, bool) or not isinstance(given, Integral)
    if wrong or (least is not None and given < least):  # type: ignore[operator]
        bound = "" if least is None else f", at least {least}"
        raise ArgumentError(f"{argument}={given!r}: give a whole number{bound}.")
    return int(given)  # type: ignore[call-overload, no-any-return]


def require_frame(given: object, what: str) -> None:
    """Checks that something is a table (`pandas.DataFrame`); `what` it holds is for people."""
    if not hasattr(given, "columns"):
        raise ArgumentError(
            f"{type(given).__name__} is no table of {what}; give the DataFrame that was measured."
        )


def require_known(names: Iterable[str], known: Iterable[str], what: str, more: str = "") -> None:
    """Checks that there are names, and that all of them are known.

    Raises:
        ArgumentError: one is unknown, or there is none. `what` is what a name is of, `more` what could be
            given besides names.
    """
    names, known = list(names), list(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        wrong = f"There is no {what} {unknown[0]!r}." if unknown else f"No {what} is named."
        near = suggest(str(unknown[0]), known) if unknown else ""
        raise ArgumentError(f"{wrong}{near} Choose from {', '.join(known)}{more}.")


def printable(text: str) -> str:
    """A text for a terminal: what it would obey, or what turns its direction, shows as a code."""
    kept = "\n\t"
    return "".join(
        c
        if c in kept or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else ascii(c)[1:-1]
        for c in text
    )


def short(text: str, most: int = 40) -> str:
    """A text in quotes, its end left out where it is longer than `most` characters."""
    shown = repr(text if len(text) <= most else text[: most - 1] + "…")
    return shown if len(shown) <= most + 2 else f"{shown[:most]}…{shown[0]}"  # codes are longer


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the closest of `known`, or an empty string."""
    close = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
