"""Whether this machine and installation are ready, and what each thing means."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from interp.cli.printing import say


def doctor(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path(),
) -> None:
    """Say what this machine and installation have, and what each thing means.

    It ends with 1 where something that is needed is missing or of a wrong version, or the folder cannot be
    written to.

    Example: interp doctor runs

    Args:
        folder: Where runs are to be written.
    """
    from interp.doctor import examine

    found = examine(folder)
    for one in found:
        say(f"{'ok ' if one.good else 'no '} {one.what}: {one.found}", highlight=False)
        say(f"    {one.means}", highlight=False)
    if not all(one.good for one in found):
        sys.exit(1)
