"""How the engine spreads 1,000 runs over a cluster that loses nodes: `python -m tests.benchmarks.schedule`.

The order is the engine's own (`interp.engine.schedule.Batch`: what is submitted when, longest expected
first, what becomes of a run whose process is gone, when it is given up). The cluster, its time and the runs
are simulated: a node has so many places, a queue is served first come, first served, as Ray does with tasks
that ask for the same, and runs have lognormal durations. A lost node takes its runs with it; they go on from
their last saved state, and the node comes back after a while. The driver lives as long as the batch.
"""

import argparse
import dataclasses
import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.engine import KINDS, Job, Kind, schedule
from interp.engine.schedule import Batch
from interp.engine.work import FINISHED, Result


@dataclass(frozen=True)
class SimulatedRun:
    """A run that takes so many hours, of which the engine expects others."""

    number: int
    hours: float
    expected: float

    def identity(self) -> dict[str, Any]:
        return {"number": self.number, "hours": self.hours}


@dataclass(frozen=True)
class Cluster:
    """What is simulated; times in hours."""

    nodes: int
    places: int
    loss_rate: float
    """Losses for each hour of a node; they come as a Poisson process."""
    repair: float
    """Until a lost node is back."""
    start: float
    """Before an attempt trains: imports, the population, the state read."""
    save_every: float
    """Share of a run between two saved states."""


@dataclass
class SimulatedPool:
    """The engine's view of the cluster (`interp.engine.local.Pool`)."""

    cluster: Cluster
    random: random.Random
    now: float = 0.0
    lost: int = 0
    """Attempts that ended with their node."""
    repeated: float = 0.0
    """Hours of training that were done again, and of starting again."""
    size: float = 1.0
    room: bool = True  # Ray takes all runs at once, and queues
    _queue: deque[Job] = field(default_factory=deque)
    _saved: dict[Path, float] = field(default_factory=dict)  # hours of each run
    _running: dict[int, dict[Path, tuple[Job, float]]] = field(
        default_factory=dict
    )  # by node: since
    _events: list[tuple[float, int, str, int, Path | None]] = field(default_factory=list)
    _count: int = 0

    def __enter__(self) -> "SimulatedPool":
        for node in range(self.cluster.nodes):
            self._join(node)
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, job: Job) -> None:
        self._queue.append(job)

    def stop(self) -> None:
        """Nothing is stopped: nobody asks for it."""

    def wait(self, seconds: float) -> list[tuple[Job, Result]]:
        """What ended at the next event at which any run ends."""
        while True:
            self._start_what_fits()
            self.now, _, what, node, folder = heapq.heappop(self._events)
            if what == "join":
                self._join(node)
            elif what == "loss":
                ended = [(job, Result("lost", "NodeDiedError")) for job in self._lose(node)]
                if ended:
                    return ended
            elif folder in (there := self._running.get(node, {})) and self._is_due(there[folder]):
                return [(there.pop(folder)[0], FINISHED)]

    def _at(self, hour: float, what: str, node: int, folder: Path | None = None) -> None:
        self._count += 1
        heapq.heappush(self._events, (hour, self._count, what, node, folder))

    def _join(self, node: int) -> None:
        self._running[node] = {}
        if self.cluster.loss_rate:
            self._at(self.now + self.random.expovariate(self.cluster.loss_rate), "loss", node)

    def _end(self, job: Job, since: float) -> float:
        left = job.config.hours - self._saved.get(job.folder, 0.0)
        return since + self.cluster.start + left

    def _is_due(self, running: tuple[Job, float]) -> bool:
        """Whether this is the attempt that the event belongs to, and not one that was lost."""
        return abs(self._end(*running) - self.now) < 1e-9

    def _start_what_fits(self) -> None:
        for node, running in self._running.items():
            while self._queue and len(running) < self.cluster.places:
                job = self._queue.popleft()
                running[job.folder] = (job, self.now)
                self._at(self._end(job, self.now), "end", node, job.folder)

    def _lose(self, node: int) -> list[Job]:
        running = self._running.pop(node)
        for job, since in running.values():
            before = self._saved.get(job.folder, 0.0)
            done = before + max(0.0, self.now - since - self.cluster.start)
            step = self.cluster.save_every * job.config.hours
            self._saved[job.folder] = max(before, done // step * step)
            # Of this attempt: all but what it added to the saved state has to be done again.
            self.repeated += self.now - since - (self._saved[job.folder] - before)
        self.lost += len(running)
        self._at(self.now + self.cluster.repair, "join", node)
        return [job for job, _ in running.values()]


@contextmanager
def simulated_runs() -> Iterator[None]:
    """While this lasts, the engine knows runs that write no files."""
    KINDS[SimulatedRun] = Kind(
        train=lambda config, folder, progress: None,
        expected_seconds=lambda config: 3600 * config.expected,
        n_steps=lambda config: 1,
        load=lambda folder: None,
        finished=lambda folder: False,
    )
    share_done, schedule.share_done = schedule.share_done, lambda config, folder: 0.0
    try:
        yield
    finally:
        schedule.share_done = share_done
        del KINDS[SimulatedRun]


@dataclass(frozen=True)
class Outcome:
    """Of one simulated batch; times in hours."""

    makespan: float
    utilisation: float
    """Hours of runs that were finished over all hours of all places."""
    repeated: float
    lost: int
    given_up: int


def simulate(cluster: Cluster, runs: list[SimulatedRun], seed: int) -> Outcome:
    """A batch of these runs."""
    jobs = [Job(run, Path("/simulated") / str(run.number)) for run in runs]
    pool = SimulatedPool(cluster, random.Random(seed))
    with simulated_runs(), pool:
        batch = Batch(jobs)
        batch.run(pool)
    finished = set(batch.outcome().finished)
    useful = sum(run.hours for job, run in zip(jobs, runs, strict=True) if job.folder in finished)
    return Outcome(
        makespan=pool.now,
        utilisation=useful / (cluster.nodes * cluster.places * pool.now),
        repeated=pool.repeated,
        lost=pool.lost,
        given_up=len(jobs) - len(finished),
    )


ESTIMATES = {"nothing": None, "it within a factor of 2 (s.d.)": math.log(2), "it exactly": 0.0}
"""What the engine knows of a run's hours: the standard deviation of the logarithm of its error."""
LOST_EVERY = (None, 100.0, 24.0, 4.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--places", type=int, default=8, help="runs at a time on a node")
    parser.add_argument("--median", type=float, default=1.0, help="hours of a run")
    parser.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of the hours")
    parser.add_argument(
        "--repair", type=float, default=0.25, help="hours until a lost node is back"
    )
    parser.add_argument("--start", type=float, default=0.01, help="hours before an attempt trains")
    parser.add_argument("--save-every", type=float, default=1 / 32, help="share of a run")
    parser.add_argument(
        "--seeds", type=int, default=5, help="batches drawn, of which means are shown"
    )
    given = parser.parse_args()

    def drawn(seed: int, error: float | None) -> list[SimulatedRun]:
        draw, guess = random.Random(seed), random.Random(~seed)
        runs = []
        for number in range(given.runs):
            hours = given.median * draw.lognormvariate(0.0, given.sigma)
            expected = given.median if error is None else hours * guess.lognormvariate(0.0, error)
            runs.append(SimulatedRun(number, hours, expected))
        return runs

    seeds = range(given.seeds)
    places = given.nodes * given.places
    together = statistics.mean(sum(run.hours for run in drawn(seed, 0.0)) for seed in seeds)
    print(
        f"{given.runs:,} runs, lognormal hours: median {given.median:g}, sigma {given.sigma:g}; together "
        f"{together:,.0f} h; {given.nodes} nodes x {given.places} places: at best {together / places:.1f} h\n"
        f"a lost node is back after {given.repair:g} h; a state is saved after each {given.save_every:.3g} "
        f"of a run; an attempt starts in {given.start:g} h; means of {given.seeds} batches\n"
    )
    columns = "each node lost every (h)", "the engine expects", "makespan (h)", "utilisation"
    columns = *columns, "work repeated (h)", "attempts lost", "runs given up"
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for between in LOST_EVERY:
        rate = 1 / between if between else 0.0
        cluster = Cluster(
            given.nodes, given.places, rate, given.repair, given.start, given.save_every
        )
        for name, error in ESTIMATES.items():
            found = [dataclasses.astuple(simulate(cluster, drawn(s, error), s)) for s in seeds]
            makespan, used, repeated, lost, given_up = map(
                statistics.mean, zip(*found, strict=True)
            )
            print(
                f"| {f'{between:g}' if between else 'never'} | {name} | {makespan:.1f} | {used:.0%} | "
                f"{repeated:.1f} | {lost:.0f} | {given_up:.1f} |"
            )


if __name__ == "__main__":
    main()
