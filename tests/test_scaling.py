"""The scaling study: its runs, its table, and its page."""

from pathlib import Path

import pandas as pd
import pytest

import interp
from interp.errors import InterpError
from interp.experiments import fit_of, run_grid, scaling_fits, scaling_table
from interp.experiments.scaling import scaling_config
from interp.phases import DELTA
from interp.report.scaling import write_scaling_report


@pytest.fixture
def table() -> pd.DataFrame:
    """Plateaus that grow as 2 N^0.5, with a little scatter between seeds."""
    rows = [
        {
            "n_individuals": n,
            "seed": seed,
            "delta": delta,
            "statistics_end": 100,
            "plateau_end": 100 + round(2 * n**0.5 * (1 + 0.01 * seed)),
            "plateau_length": round(2 * n**0.5 * (1 + 0.01 * seed)),
        }
        for n in (256, 1024, 4096)
        for seed in (-1, 0, 1)
        for delta in (DELTA, 0.1)
    ]
    steps = dict.fromkeys(("statistics_end", "plateau_end", "plateau_length"), "Int64")
    return pd.DataFrame(rows).astype(steps)


def test_the_fit_finds_the_exponent(table: pd.DataFrame) -> None:
    fit = fit_of(table, "plateau_length")
    assert fit.low < 0.5 < fit.high
    assert fit.exponent == pytest.approx(0.5, abs=0.01)
    assert fit.coefficient == pytest.approx(2, rel=0.05)
    assert fit.n_points == 9


def test_runs_that_did_not_leave_the_plateau_are_left_out(table: pd.DataFrame) -> None:
    table.loc[table["seed"] == 1, ["plateau_end", "plateau_length"]] = pd.NA
    assert fit_of(table).n_points == 6
    fits = scaling_fits(table)
    assert set(fits["n_points"]) == {6}
    assert len(fits) == 4, "two tolerances, two measures"


def test_too_few_sizes_for_a_fit(table: pd.DataFrame) -> None:
    small = table[table["n_individuals"] < 4096]
    assert scaling_fits(small).empty
    with pytest.raises(InterpError, match="at least 3 different x"):
        fit_of(small)


def test_the_page_says_the_exponent(table: pd.DataFrame, tmp_path: Path) -> None:
    page = write_scaling_report(table, tmp_path / "report.html").read_text()
    assert f"N^{fit_of(table).exponent:.2f}" in page
    assert "Content-Security-Policy" in page


def test_runs_of_the_study_end_after_the_plateau(smoke) -> None:
    config = scaling_config(smoke, n_individuals=16, seed=3)
    assert config.population.n_individuals == 16
    assert config.seed_of("population") == 3
    assert config.optimizer.schedule == "constant"
    assert config.training.stop_below is not None


def test_a_grid_trains_each_run_once_also_in_workers(smoke, tmp_path: Path) -> None:
    brief = smoke.with_settings(**{"training.n_steps": 4})
    configs = {f"seed{s}": brief.with_settings(seed=s) for s in (0, 1)}
    runs = run_grid(configs, tmp_path / "serial", progress=False)
    before = (runs["seed0"].path / "finished.json").stat().st_mtime_ns
    again = run_grid(configs, tmp_path / "serial", progress=False)
    assert (again["seed0"].path / "finished.json").stat().st_mtime_ns == before
    parallel = run_grid(configs, tmp_path / "parallel", workers=2, progress=False)
    for name, run in runs.items():
        assert run.metrics_path.read_bytes() == parallel[name].metrics_path.read_bytes()


def test_the_table_has_a_row_for_each_run_and_tolerance(smoke_run: interp.Run) -> None:
    table = scaling_table([smoke_run], deltas=(0.05, 0.1, 0.5))
    assert list(table["delta"]) == [0.05, 0.1], "a run that stops at 0.7 cannot tell about 0.5"
    assert table["plateau_end"].isna().all()
