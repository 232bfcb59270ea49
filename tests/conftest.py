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

LONG = (
    "engine/test_engine.py", "tests/test_progress.py", "browser/test_page.py",
    "interventions/test_patch.py", "tests/test_torch_state.py",
    "memory/test_locate.py", "interventions/test_tracing.py", "interventions/test_resumed.py",
    "circuits/test_foreign.py", "tests/test_architectures.py", "model/test_layout.py",
    "interventions/test_windows_of_layers.py", "engine/test_ray.py", "browser/test_attention_view.py",
    "tests/test_cli.py", "tests/test_outputs.py", "stages/test_degenerate.py",
    "training/test_parallel.py", "studies/test_finetuning.py",
    "biographies/test_schedules.py", "studies/test_patching.py", "studies/test_batch.py",
    "tests/test_notebooks.py", "training/test_patching.py", "training/test_resuming.py",
    "model/test_live.py", "interventions/test_foreign.py", "model/test_recurrent.py",
    "maps/test_maps.py", "report/test_comparison.py", "studies/test_memory.py",
    "studies/test_distribution.py", "tests/test_series.py", "model/test_hook_points.py",
    "interventions/test_transformer_lens_twins.py", "studies/test_schedules.py", "gpu/test_gpu.py",
    "browser/test_site.py", "browser/test_jupyterlab.py",
)  # fmt: skip
"""Files of more than fifteen seconds, about the longest first.

The first does not use `finished`, which the second makes: nobody waits for it.
"""


def pytest_configure(config: pytest.Config) -> None:
    """Loads the fixtures, but not where tests are only handed out: the imports take ten seconds."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    type_checks.begin_test()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden-losses",
        action="store_true",
        help="write tests/golden_losses.json anew instead of comparing with it",
    )
    parser.addoption(
        "--device", default="cuda", help="where the tests marked gpu compute: cuda, cuda:N or cpu"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A test process takes whole files, so that what a file's tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # in the order of the items
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process works alone in the end."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(f"{item.path.parent.name}/{item.path.name}", len(LONG)))
