"""A command line becomes a call; what is wrong with it is said in one line."""

import functools
import io
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import tyro

from interp.config import Config, meant_settings
from interp.errors import ConfigError, InterpError, short
from interp.plain_yaml import read_yaml
from interp.reading import MAX_DOCUMENT, DamageError, read_text

_LONGEST = 300
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_RULE = re.compile(r"─{3,}|-{3,}")
_WORDS = {
    r"invalid literal for int\(\) with base 10: ": "expected a whole number, not ",
    r"could not convert string to float: ": "expected a number, not ",
    r"Exceeds the limit .*": "expected a whole number of fewer digits",
    r"Could not find valid parse for arguments: ": "expected other values than ",
    r"no type matching (.*?) could be instantiated from (.*?)\. +Got errors:.*": r"expected \1, not \2",
    r"^Error parsing ": "",
}
"""Python's and tyro's words, and what they mean."""


def parsed(
    function: Callable[..., None], words: Sequence[str], command: str, known: Iterable[str] = ()
) -> Callable[[], None]:
    """A call of a function with the arguments and settings that words of a command line give.

    Args:
        function: What the command does; its signature has the flags.
        words: What follows the command's name.
        command: The command, e.g. "interp train".
        known: The settings that are flags of it, by dotted name.

    Raises:
        InterpError: a flag is unknown or missing, or has a value that cannot work.
        SystemExit: help was asked for, and is printed.
    """

    @functools.wraps(function)
    def later(*arguments: object, **settings: object) -> Callable[[], None]:
        return functools.partial(function, *arguments, **settings)

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            call: Callable[[], None] = tyro.cli(
                later, prog=command, args=list(words), use_underscores=False
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise InterpError(
            f"{_in_one_line(said.getvalue(), known)} `{command} --help` lists all."
        ) from None
    return call


def _in_one_line(box: str, known: Iterable[str]) -> str:
    """What tyro says in a box: the first part, and the flag that is meant."""
    parts: list[list[str]] = [[]]
    for row in _COLOUR.sub("", box).splitlines()[1:]:  # the first is the title
        text = row.strip(" │╰╯")
        if not _RULE.fullmatch(text):
            parts[-1].append(text)
        elif parts[-1]:
            parts.append([])
    problem = " ".join(filter(None, parts[0]))
    for theirs, ours in _WORDS.items():
        problem = re.sub(theirs, ours, problem)
    if len(problem) > _LONGEST:
        problem = f"{problem[: _LONGEST - 1]}…"
    near = parts[1] if " ".join(*parts[1:2] or [[]]).startswith("Perhaps") else []
    unknown = re.match(r"Unrecognized options?: --([\w.-]+)", problem)
    settings = meant_settings(unknown[1].replace("-", "_"), known) if unknown and known else []
    meant = [f"--{name.replace('_', '-')}" for name in settings]
    meant = meant or [text.split()[0] for text in near if text.startswith("--")]
    suggestion = f" Did you mean {' or '.join(meant[:2])}?" if meant else ""
    return f"{problem.removesuffix('.')}.{suggestion}"


def with_file(config: Config, words: Sequence[str]) -> tuple[Config, list[str]]:
    """A config with the settings of `--config FILE`, and the other words, whose flags come after it.

    The file is YAML: settings by dotted or nested name, on top of the preset. A run's `config.yaml` is one.

    Raises:
        ConfigError: it cannot be read, is no YAML, or has a setting that there is not or that cannot work.
        InterpError: no file is named, or two.
    """
    rest, named = [], []
    given = iter(words)
    for word in given:
        if word == "--config":
            named.append(next(given, ""))
        elif word.startswith("--config="):
            named.append(word.removeprefix("--config="))
        else:
            rest.append(word)
    if not named:
        return config, rest
    if len(named) > 1 or not named[0] or named[0].startswith("--"):
        given_files = "two files" if len(named) > 1 else "no file"
        raise InterpError(f"--config names {given_files}; give one file of settings in YAML.")
    try:
        settings = read_yaml(read_text(Path(named[0]), MAX_DOCUMENT))
        if not isinstance(settings, dict):
            raise ConfigError(
                "it holds no settings by name; write lines such as `model.n_layers: 4`."
            )
        return config.with_settings(**settings), rest
    except (ConfigError, DamageError) as error:
        raise ConfigError(f"{short(named[0], 120)[1:-1]}: {error}") from None
