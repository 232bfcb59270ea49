"""A batch on three nodes of a Ray cluster; one is lost, then the driver, which starts again elsewhere."""

import gc
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.config import Config
from interp.engine import Store, run_jobs
from interp.engine.cluster import _signal_handlers_kept
from interp.engine.kinds import last_step
from tests.engine.test_engine import holder_of, require_same
from tests.helpers import wait_for

pytestmark = pytest.mark.slow

DRIVER = """
import json, sys
from pathlib import Path
from interp.config import Config
from interp.engine import EngineSettings, Store, run_jobs

address, store, *settings = sys.argv[1:]
jobs = [Store(Path(store)).job(Config.from_yaml(Path(path).read_text())) for path in settings]
outcome = run_jobs(jobs, EngineSettings(kind="ray", address=address), progress=False)
print(json.dumps([str(failure) for failure in outcome.failed]))
"""


@pytest.fixture
def three_nodes() -> Iterator[Any]:
    """Three nodes of one CPU each; the first is the head, which drivers connect to."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'ray>=2.40')")
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="interp-ray-")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_TMPDIR", folder)
        patched.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        Path(folder, "ray").mkdir()  # Ray notes the address there before it makes the folder
        with _signal_handlers_kept():
            nodes = Cluster(initialize_head=True, head_node_args=node)
        try:
            with _signal_handlers_kept():
                nodes.add_node(**node)
                nodes.add_node(**node)
            yield nodes
        finally:
            nodes.shutdown()
            with warnings.catch_warnings():  # Ray leaves its nodes' log files to the collector
                warnings.simplefilter("ignore", ResourceWarning)
                del nodes
                gc.collect()
            shutil.rmtree(folder, ignore_errors=True)


def node_of(pid: int | None, nodes: Any) -> Any:
    """The node, other than the head, that a process is a worker of; or None."""
    if pid is None:
        return None
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return None
    for node in nodes.worker_nodes:
        if parent in [raylet.process.pid for raylet in node.all_processes["raylet"]]:
            return node
    return None


def test_a_node_is_lost_and_the_driver_starts_again_elsewhere(
    three_nodes: Any, smoke: Config, tmp_path: Path
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("finds workers by /proc")
    settings = {"training.n_steps": 120, "training.checkpoint_every": 20, "evaluation.every": 20}
    configs = [smoke.with_settings(seed=seed, **settings) for seed in range(7)]
    alone = Store(tmp_path / "alone")
    run_jobs([alone.job(config) for config in configs], progress=False).require_all()

    shared = Store(tmp_path / "shared")
    folders = [shared.folder(config) for config in configs]
    files = [tmp_path / f"{config.seed}.yaml" for config in configs]
    for config, file in zip(configs, files, strict=True):
        file.write_text(config.to_yaml())

    def driver(name: str) -> subprocess.Popen[str]:
        folder = tmp_path / name
        folder.mkdir()
        store = os.path.relpath(shared.path, folder)  # the same runs by another name
        command = [sys.executable, "-c", DRIVER, three_nodes.address, store, *map(str, files)]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)

    def in_the_middle() -> list[Path]:
        return [f for f in folders if last_step(f) > 0 and not (f / "finished.json").exists()]

    lost: list[Any] = []

    def on_a_node_that_can_be_lost() -> bool:
        for folder in in_the_middle():
            if (node := node_of(holder_of(folder), three_nodes)) is not None:
                lost[:] = [node]
                return True
        return False

    first = driver("here")
    try:
        wait_for(on_a_node_that_can_be_lost, timeout=180)
        three_nodes.remove_node(lost[0], allow_graceful=False)
        left = len(folders) - len([f for f in folders if (f / "finished.json").exists()])
        assert left > 2, "the node was lost before the end"
        wait_for(lambda: sum((f / "finished.json").exists() for f in folders) >= 2, timeout=180)
        wait_for(lambda: bool(in_the_middle()), timeout=180)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert not all((f / "finished.json").exists() for f in folders)

    second = driver("elsewhere")
    try:
        said, _ = second.communicate(timeout=180)
    finally:
        second.kill()
    assert json.loads(said) == []
    require_same(shared, alone, configs)
