"""What is started when, on the simulated cluster of `tests.benchmarks.schedule`."""

import dataclasses
from pathlib import Path

import pytest

from interp.engine import Job
from interp.engine.schedule import MAX_LOST, Batch
from tests.benchmarks.schedule import Cluster, Outcome, SimulatedRun, simulate, simulated_runs

QUIET = Cluster(nodes=2, places=1, loss_rate=0.0, repair=0.5, start=0.0, save_every=0.25)
HOURS = (1.0, 1.0, 1.0, 1.0, 4.0)


def runs(hours: tuple[float, ...], *, known: bool = True) -> list[SimulatedRun]:
    return [SimulatedRun(i, h, h if known else 1.0) for i, h in enumerate(hours)]


@pytest.mark.parametrize(("known", "makespan"), [(True, 4.0), (False, 6.0)])
def test_the_longest_expected_are_started_first(known: bool, makespan: float) -> None:
    found = simulate(QUIET, runs(HOURS, known=known), seed=0)
    assert found == Outcome(makespan, 8 / (2 * makespan), repeated=0.0, lost=0, given_up=0)


def test_a_run_counts_with_those_that_need_it() -> None:
    jobs = [Job(run, Path("/simulated") / str(run.number)) for run in runs((3.0, 1.0, 5.0))]
    jobs[2] = dataclasses.replace(jobs[2], needs=(jobs[1].folder,))
    with simulated_runs():
        batch = Batch(jobs)
        batch._longest_first()
        assert batch._next() == jobs[1]


def test_lost_nodes_repeat_work_and_lose_no_run() -> None:
    unsteady = dataclasses.replace(QUIET, loss_rate=0.1)
    quiet, found = (simulate(c, runs(HOURS * 4), seed=1) for c in (QUIET, unsteady))
    assert found.lost > 0 < found.repeated
    assert found.makespan > quiet.makespan
    assert found.given_up == 0
    # A quarter of the longest run at most, each time.
    assert found.repeated <= found.lost * 1.0


def test_a_run_that_loses_every_node_is_given_up() -> None:
    hopeless = dataclasses.replace(QUIET, loss_rate=1e3, save_every=1.0)
    found = simulate(hopeless, runs((5.0,)), seed=0)
    assert (found.given_up, found.lost) == (1, MAX_LOST)
