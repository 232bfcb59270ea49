"""Completion of commands and flags by the shell."""

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from typing import Annotated, Literal

import tyro

from interp.cli.printing import say
from interp.errors import InterpError

Shell = Annotated[
    Literal["bash", "zsh", "fish"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")
]
_FILES = '[[ "$completions" == "__TYRO_COMPLETE_FILES__" ]]'
_NO_FLAG_IS_A_FILE = {
    "bash": (
        ("complete -F _tyro_interp interp\n", "complete -o default -F _tyro_interp interp\n"),
        (
            f"  if {_FILES}",
            f'  [[ -z "$completions" ]] && {{ COMPREPLY=(); return 0; }}\n  if {_FILES}',
        ),
    ),
    "zsh": ((_FILES, f'[[ -z "$completions" ]] || {_FILES}'),),
    "fish": (("complete --no-files", "complete"),),
}
"""What changes in tyro's scripts, so that the folders of runs are completed, too: they have no flag."""


def completion(functions: Callable[[], Mapping[str, Callable[..., None]]]) -> Callable[..., None]:
    """`interp completion`, which completes the commands that `functions` gives."""

    def completion(shell: Shell) -> None:
        """Print a script by which the shell completes commands, flags and their values.

        Example: interp completion bash > ~/.local/share/bash-completion/completions/interp

        Example: interp completion zsh > ~/.zfunc/_interp

        Example: interp completion fish > ~/.config/fish/completions/interp.fish

        Args:
            shell: bash, zsh or fish. The script of zsh has to lie in a folder of $fpath; the one of
                bash can also be read with `eval "$(interp completion bash)"`. Make it again after an update.
        """
        say(completion_script(functions(), shell), highlight=False)

    return completion


def completion_script(functions: Mapping[str, Callable[..., None]], shell: str) -> str:
    """A script by which a shell completes `interp`, its commands and their flags.

    Args:
        functions: The commands by name.
        shell: bash, zsh or fish.

    Raises:
        InterpError: the version of tyro that is installed writes scripts of another kind.
    """
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            dict(functions), prog="interp", args=["--tyro-print-completion", shell]
        )
    script = printed.getvalue()
    if not script or any(theirs not in script for theirs, _ in _NO_FLAG_IS_A_FILE[shell]):
        raise InterpError(
            f"tyro {version('tyro')} writes another completion script for {shell} than was expected; "
            "install tyro 1.0.17."
        )
    for theirs, ours in _NO_FLAG_IS_A_FILE[shell]:
        script = script.replace(theirs, ours)
    return script.rstrip("\n")
