"""How the tests are run: one thread, whole files to a process, options of their own.

What they share is in `tests.fixtures`.
"""

import os
import sys
from typing import Any

import pytest

from tests import type_checks

# Small models train fastest on one thread, and child processes then add up in the same order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# The package with its checks takes ten seconds to compile: once, not in each process.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
type_checks.install()


def pytest_configure(config: pytest.Config) -> None:
    """Loads the fixtures, but not where tests are only handed out: the imports take ten seconds."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden-losses",
        action="store_true",
        help="write tests/golden_losses.json anew instead of comparing with it",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A test process takes whole files, so that what a file's tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)
