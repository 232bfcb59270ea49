"""Batches on a real Ray cluster, which the tests start on this machine."""

import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.config import Config
from interp.engine import EngineSettings, Store, cluster, run_jobs
from interp.engine.cluster import ClusterError, connected
from interp.errors import ConfigError
from tests.engine.test_engine import KillsWorker, require_same, six, undisturbed
from tests.helpers import Recorder

__all__ = ["six", "undisturbed"]  # fixtures

RAY = EngineSettings(kind="ray")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster of this machine; batches of this process use its connection."""
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("INTERP_REQUIRE_RAY"):
            pytest.fail("Ray is not installed, but INTERP_REQUIRE_RAY is set")
        pytest.skip("Ray is not installed (pip install 'ray>=2.40')")
    with connected(None) as own:
        assert own
        yield


def test_a_cluster_gives_the_bytes_of_one_process(
    ray_cluster: None, six: list[Config], undisturbed: Store, tmp_path: Path
) -> None:
    store, told = Store(tmp_path), Recorder()
    narrow = six[1].with_settings(**{"model.n_ctx": 20})
    jobs = [store.job(config) for config in (*six[:3], narrow)]
    outcome = run_jobs(jobs, RAY, progress=told)
    assert [(f.job.config, f.error) for f in outcome.failed] == [(narrow, "ConfigError")]
    require_same(store, undisturbed, six[:3])
    told.require_whole()
    assert told.notes[-1] == "3 of 4 runs finished, 1 failed"


@pytest.mark.slow
def test_a_worker_of_the_cluster_is_killed_in_the_middle(
    ray_cluster: None, six: list[Config], undisturbed: Store, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    with KillsWorker(store.folder(six[0])) as killer:
        outcome = run_jobs([store.job(config) for config in six[:2]], RAY, progress=False)
    assert len(killer.killed) == 1
    assert outcome.failed == ()
    require_same(store, undisturbed, six[:2])
    assert set(tmp_path.iterdir()) == {store.folder(c) for c in six[:2]}, "nothing else is left"


def test_a_machine_that_does_not_see_the_runs_folder(
    ray_cluster: None, six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole batch ends: that machine would be free at once, and take every other run.

    What has ended is not cancelled: Ray would end this process now and then.
    """
    import ray

    forced = []

    def cancel(reference: Any, *, force: bool) -> None:
        forced.extend([reference] * force)
        ray_cancel(reference, force=force)

    ray_cancel = ray.cancel
    monkeypatch.setattr(ray, "cancel", cancel)
    monkeypatch.setattr(cluster, "SHARED", 0.1)
    monkeypatch.setattr(cluster.Cluster, "_mark", lambda self, folder: folder / "on another disk")
    jobs = [Store(tmp_path).job(config) for config in six]
    with pytest.raises(ClusterError, match=rf"{socket.gethostname()} does not see {tmp_path}.*NFS"):
        run_jobs(jobs, RAY, progress=False)
    assert not list(tmp_path.iterdir())
    assert not forced


def test_a_finished_run_that_does_not_appear(
    ray_cluster: None, six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SHARED", 0.1)
    job = Store(tmp_path).job(six[1])
    _, result = cluster._visible(job, cluster.Result("finished"))
    assert (result.ended, result.final) == ("failed", True)
    assert "all machines share" in result.message


def test_more_than_the_machine_has_is_refused(
    ray_cluster: None, six: list[Config], tmp_path: Path
) -> None:
    job = Store(tmp_path).job(six[1])
    greedy = EngineSettings(kind="ray", gpus_per_run=64)
    with pytest.warns(UserWarning, match="64 GPUs; the most"), pytest.raises(StopWaiting):
        run_jobs([job], greedy, progress=stop_waiting)
    with pytest.raises(ConfigError, match=r"64 GPUs.*Ask for less"):
        cluster._require_possible({"CPU": 1.0, "GPU": 64.0}, [{"CPU": 8.0}], own=True)


class StopWaiting(Exception):  # noqa: N818 - no error
    """Ends a batch that would wait for ever."""


def stop_waiting(share: float | int, note: str = "") -> None:
    if "1 running" in note:
        raise StopWaiting


def test_nothing_listens_at_the_address(six: list[Config], tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'ray>=2.40')")
    with socket.socket() as bound:  # so that nobody else takes the port
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        jobs = [Store(tmp_path).job(six[1])]
        with pytest.raises(ClusterError, match=f"address='{address}' .*refused.*ray start"):
            run_jobs(jobs, EngineSettings(kind="ray", address=address), progress=False)
    assert not list(tmp_path.iterdir())


def test_something_else_listens_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to it are made, and nothing is said; Ray by itself would try for minutes."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'ray>=2.40')")
    monkeypatch.setattr(cluster, "JOINING", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match="no answer of a cluster"), connected(address):
            pass


@pytest.mark.parametrize("address", ["here", "http://x:1", "x:port", "ray://x"])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"expected auto.*host:port"):
        cluster._require_reachable(address)


def test_ray_is_not_installed(
    six: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"pip install 'interp\[ray\]'"):
        run_jobs([Store(tmp_path).job(six[1])], RAY, progress=False)


def test_a_machine_with_other_versions(six: list[Config], tmp_path: Path) -> None:
    versions = {**cluster.code_versions(), "torch": "1.0"}
    result = cluster._attempt(Store(tmp_path).job(six[1]), 1, versions, ".", tmp_path, 0.0)
    assert (result.error, result.final) == ("ClusterError", True)
    assert "and not 1.0" in result.message
    assert not list(tmp_path.iterdir())
