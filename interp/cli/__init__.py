"""The console script `interp`. Every setting of the config models is a flag.

Errors about input or environment end with one message and a non-zero exit code, without a traceback.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

from interp.cli import (
    asking,
    compiling,
    completing,
    doctoring,
    equations,
    merging,
    models,
    people,
    printing,
    runs,
    studies,
    writing,
)
from interp.cli.parsing import parsed, with_file
from interp.cli.printing import ERR, OUT, complain, standard_output
from interp.config import flatten
from interp.errors import InterpError, short, suggest
from interp.presets import MAIN_PRESET, PRESETS, preset

_HELP = """\
interp: watch a language model learn facts.

  interp reproduce [PRESET] --out DIR   train, find the phases, measure, write DIR/report.html
  interp train     [PRESET] --out DIR   train only
  interp compile   [PRESET] --out DIR   weights computed from people, not trained: a circuit that is known
  interp phases    RUN                  the three phases of a run, and how they move with delta
  interp report    RUN                  write the run's report.html
  interp report    RUN1 RUN2 ...        one page that compares runs: seeds, patched runs, settings
  interp people    RUN                  who is in it, with their facts: names to ask about
  interp preview   CSV TEMPLATES.yaml   people and wordings of your own, before training on them
  interp locate    RUN PERSON ATTRIBUTE where one fact sits in the model
  interp ask       RUN PERSON [ATTRIBUTE] what it answers when asked for a fact in every form of text
  interp write     RUN PERSON ATTRIBUTE VALUE  a new fact written into the weights, and what else it changes
  interp facts     MODEL FACTS.csv      what any model knows of facts; locate and report take --facts too
  interp export    RUN --out DIR        a checkpoint for transformers, or TransformerLens 2 and 3
  interp merge     RUN RUN --out DIR    weights averaged, or task vectors added; --line: the barrier between
  interp summary   RUN ... --csv FILE   one table of several finished runs
  interp train-patched RUN --out DIR    train with attention patterns of a run's checkpoints
  interp memory    RUN ...              MLP memory: keys, values, probes, swaps, order of emergence
  interp equations RUN                  the loss of every fact, bits known, which groups of facts interfere
  interp studies   [DIR]                the studies, and what of them is finished
  interp store     DIR                  the runs of a batch, which study needs each; --prune: delete the rest
  interp batch     STUDY ... --out DIR  train and evaluate studies, or a batch described in YAML
  interp doctor    [DIR]                versions, devices, threads, memory, bfloat16, and what each means
  interp completion SHELL               a script by which bash, zsh or fish completes all this

PRESET is {presets} (default tiny; reproduce: {main}). `interp COMMAND --help` lists every setting.
"""
_START = """\
To begin:

  interp doctor                           whether this machine is ready, and what it means
  interp reproduce tiny --out runs/tiny   train, measure, write runs/tiny/report.html: minutes on two cores
  interp people runs/tiny                 who is in it; then: interp locate runs/tiny "NAME" birth_place

"""
"""What `interp` alone says before the commands."""

_COMMAND_WIDTH = 40
"""Characters before what a command does."""
_NARROWEST = 30
_WITH_PRESET = {
    "train": runs.train,
    "reproduce": runs.reproduce,
    "compile": compiling.compile_command,
}
_ON_RUN: dict[str, Callable[..., None]] = {
    "phases": runs.phases,
    "report": runs.report,
    "people": runs.people,
    "preview": people.preview,
    "locate": runs.locate,
    "ask": asking.ask,
    "write": writing.write,
    "facts": models.facts,
    "export": runs.export,
    "merge": merging.merge,
    "train-patched": studies.train_patched,
    "memory": studies.memory,
    "equations": equations.equations,
    "summary": runs.summary,
    "studies": studies.studies,
    "store": studies.store,
    "batch": studies.batch,
    "doctor": doctoring.doctor,
    "completion": completing.completion(lambda: _functions()),
}
COMMANDS = (*_WITH_PRESET, *_ON_RUN)
"""Their names."""
_MOVED = {"trace": "locate", "patch": "train-patched"}
"""Commands that have another name now."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 on bad input, 130 when interrupted."""
    # A link to pydantic's manual helps nobody who mistyped a flag.
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
    for name in ("stdout", "stderr"):
        if (
            getattr(sys, name) is None
        ):  # closed by who started this: nobody listens, the work is done
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if os.environ.get("WORLD_SIZE", "") not in ("", "1"):
            _one_of_several(words)
        with standard_output():
            _dispatch(words)
    except InterpError as error:
        complain(f"error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:  # not about a file: a slip of ours
            raise
        from interp.files import file_error

        complain(f"error: {file_error(error)}")
        sys.exit(InterpError.exit_code)
    except KeyboardInterrupt:
        ERR.print("interrupted", style="red")
        sys.exit(130)


def _one_of_several(words: list[str]) -> None:
    """A launcher started this command several times: only training can be shared, and one speaks."""
    first = os.environ.get("RANK", "0") == "0"
    OUT.quiet = not first
    if words[:1] != ["train"]:
        if not first:
            sys.exit(InterpError.exit_code)
        raise InterpError(
            "Only `interp train` can be shared by several processes. Train the run like that, then use "
            "the other commands on its folder without the launcher (`interp reproduce` goes on from a "
            "trained run)."
        )


def _path_expanded(word: str) -> str:
    """A word of the command line with `~` for the home folder, which shells leave in `--out=~/x`."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise InterpError(
            f"{short(word, 80)} is not UTF-8 text. Rename the file or folder, or choose another name."
        ) from None
    name, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{name}{sign}{os.path.expanduser(value)}" if value[:1] == "~" else word  # noqa: PTH111


def _help(start: str = "") -> str:
    """The commands, behind a beginning; on a narrow terminal a line goes on below, set in."""
    text = start + _HELP.format(presets=", ".join(PRESETS), main=MAIN_PRESET)
    if not printing.on_terminal():
        return text
    width = max(_NARROWEST, OUT.width)
    set_in = " " * (_COMMAND_WIDTH if width >= 2 * _COMMAND_WIDTH else 6)
    return "\n".join(
        fill(line, width, subsequent_indent=set_in if line.startswith(" ") else "")
        for line in text.split("\n")
    )


def _default_preset(command: str) -> str:
    return MAIN_PRESET if command == "reproduce" else "tiny"


def _functions() -> dict[str, Callable[..., None]]:
    """What the commands do, by name; those that take a preset with the default one."""
    with_preset = {name: make(preset(_default_preset(name))) for name, make in _WITH_PRESET.items()}
    return with_preset | _ON_RUN


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        OUT.print(_help("" if words else _START), highlight=False, markup=False, soft_wrap=True)
        return
    if words[0] == "--version":
        from interp import __version__

        OUT.print(__version__, highlight=False)
        return
    command, *rest = map(_path_expanded, words)
    if command in _WITH_PRESET:
        named = rest and not rest[0].startswith("-")
        name = rest.pop(0) if named else _default_preset(command)
        config, rest = with_file(preset(name), rest)
        function, settings = _WITH_PRESET[command](config), flatten(config.model_dump())
    elif command in _ON_RUN:
        function, settings = _ON_RUN[command], {}
    elif command in _MOVED:
        raise InterpError(
            f"`interp {command}` is now `interp {_MOVED[command]}`; what follows it is as before."
        )
    else:
        raise InterpError(
            f"There is no command {short(command)}.{suggest(command, COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}."
        )
    parsed(function, rest, f"interp {command}", settings)()
