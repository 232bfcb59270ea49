import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import interp

HEAVY = {"torch", "transformer_lens", "transformers", "pandas", "numpy", "scipy", "plotly", "peft"}


@pytest.mark.parametrize("name", interp.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(interp, name) is not None
    assert name in dir(interp)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="'trian'"):
        interp.trian  # noqa: B018


def test_importing_waits_for_nothing_heavy() -> None:
    """`interp --help` would wait for it; the configuration needs none of these either."""
    code = (
        "import sys, interp, interp.config, interp.presets, interp.errors\n"
        "interp.preset('smoke')\n"
        f"print(*{HEAVY} & {{*sys.modules}})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_help_of_no_command_waits_for_anything_heavy() -> None:
    code = (
        "import contextlib, sys, interp.cli as cli\n"
        "for command in [*cli.COMMANDS, 'help']:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli.main([command, '--help'])\n"
        f"print('loaded:', *{HEAVY} & {{*sys.modules}})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.rpartition("loaded:")[2].split() == []


def test_messages_name_arguments_as_python_has_them_too() -> None:
    """An option of the command line stands in a whole command (`interp ...`), or beside the argument."""
    found = []
    for path in Path(interp.__file__).parent.rglob("*.py"):
        if "cli" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                text = re.sub(r"`[^`]*`", "", ast.unparse(node))
                found += [(path.name, option) for option in re.findall(r"(?<!\()--[a-z]+", text)]
    # What is launched with --cpu is a command of others.
    assert found == [("parallel.py", "--cpu")]
