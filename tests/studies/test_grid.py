"""Grids of runs: each is trained once, in this process or in others."""

from pathlib import Path

from interp.config import Config
from interp.studies import run_grid


def test_a_grid_trains_each_run_once_also_in_workers(smoke: Config, tmp_path: Path) -> None:
    brief = smoke.with_settings(**{"training.n_steps": 4})
    configs = {f"seed{s}": brief.with_settings(seed=s) for s in (0, 1)}
    runs = run_grid(configs, tmp_path / "serial", progress=False)
    before = (runs["seed0"].path / "finished.json").stat().st_mtime_ns
    again = run_grid(configs, tmp_path / "serial", progress=False)
    assert (again["seed0"].path / "finished.json").stat().st_mtime_ns == before
    parallel = run_grid(configs, tmp_path / "parallel", workers=2, progress=False)
    for name, run in runs.items():
        assert run.metrics_path.read_bytes() == parallel[name].metrics_path.read_bytes()
