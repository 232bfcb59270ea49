"""Runs of training: held against those on file, timed, many at once, and measured afterwards."""

import os
import resource
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from interp import Run, attention_to_names, measure_memory, train
from interp.biographies import Corpus, TokenKind
from interp.config import Config
from interp.engine import EngineSettings, Store, run_jobs
from interp.memory import MemoryTables
from interp.presets import preset
from tests.golden import CUDA_TOLERANCE, N_STEPS, golden_losses, largest_difference
from tests.gpu.setup import Setup
from tests.gpu.steps import COMPILED, speed_rows
from tests.gpu.table import ROOT, Row

_MEASURED = 256
"""People on whom the large model is measured."""


class _Count:
    """A pytest plugin that counts outcomes and notes who failed."""

    def __init__(self) -> None:
        self.passed = self.skipped = 0
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid.rpartition("::")[2])
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1


def device_tests(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """The tests that need a device (mark `gpu`)."""
    count, part = _Count(), "device tests"
    pytest.main(
        [
            "-m", "gpu", "--device", setup.device, "--quiet", "-W", "default",
            # Without the checks of types: the package has been imported already.
            "-o", "addopts=--strict-markers --import-mode=importlib", "-p", "no:cacheprovider",
            "--rootdir", str(ROOT), str(ROOT / "tests" / "gpu"),
        ],
        plugins=[count],
    )  # fmt: skip
    yield Row(part, "passed", count.passed)
    yield Row(part, "not passed", len(count.failed) + count.skipped)
    if count.failed or count.skipped or not count.passed:
        raise AssertionError(
            f"{count.skipped} skipped; failed: {', '.join(count.failed) or 'none'}"
        )


def golden(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """The losses of the smoke run on the device against those on file."""
    settings = {"training.precision": "fp32", "training.device": setup.device}
    run = train(preset("smoke", **settings), setup.folder / "golden", progress=False)
    difference = largest_difference(golden_losses(run))
    allowed = f"fp32, {N_STEPS} steps; up to {CUDA_TOLERANCE:g} is allowed"
    yield Row("golden losses", "largest relative difference", difference, "", allowed)
    if not difference <= CUDA_TOLERANCE:
        raise AssertionError(f"the losses are {difference:.2g} from those on file")


class _Times:
    """A progress that notes when each state was reached."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, share: float | int, note: str = "") -> None:
        self.at.append(time.perf_counter())

    def seconds_a_step(self, log_every: int) -> float:
        """Over the states after a loss was read, for which the card is waited for; without the first."""
        read = [state for state in range(len(self.at)) if state % log_every == 1 % log_every]
        first, last = next(s for s in read if s >= len(self.at) // 6), read[-1]
        return (self.at[last] - self.at[first]) / (last - first)


def _short(config: Config, steps: int, people: int) -> Config:
    """The first steps of a run, measured and saved only before and after them."""
    return config.with_settings(
        **{
            "training.stop_at": steps, "training.checkpoint_every": steps,
            "training.early_checkpoints": (), "evaluation.every": steps,
            "evaluation.n_individuals": people,
        }
    )  # fmt: skip


def _run_folder(setup: Setup) -> Path:
    return setup.folder / "training"


def paper_run(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """The first steps of the large model, as `interp train` makes them, one biography a row."""
    part, config = "training", _short(setup.large, setup.steps, _MEASURED)
    corpus, size = Corpus.from_config(config), config.training.batch_size
    assembly, tokens = [], []
    for step in range(20):
        started = time.perf_counter()
        batch = corpus.batch(step, size)
        assembly.append(time.perf_counter() - started)
        tokens.append(int((batch.kind != TokenKind.PADDING).sum()))
    times = _Times()
    setup.forget_peak()
    run = train(config, _run_folder(setup), progress=times)
    seconds = times.seconds_a_step(config.evaluation.log_every)
    how = f"{config.preset}, {size} biographies, {setup.steps} steps, {setup.precision}, as `interp train`"
    mean = statistics.mean(tokens)
    yield from speed_rows(setup, part, config, corpus, seconds, mean, mean / size, how)
    share = 100 * statistics.median(assembly) / seconds
    yield Row(part, "batch assembly", share, "% of a step", "on the CPU, by itself")
    curve = run.curve("loss", "train")
    yield Row(part, "training loss of the first step", curve.iloc[0], "nats per token")
    yield Row(part, "training loss, the last on record", curve.iloc[-1], "nats per token")
    whole = setup.large.training.n_steps
    hours = f"extrapolated to {whole:,} steps, without measurements and checkpoints"
    yield Row(part, "the whole run", whole * seconds / 3600, "h", hours)


def measures(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """Attention and memory of the last checkpoint of that training."""
    run = Run.load(_run_folder(setup))
    people = min(_MEASURED, run.config.population.n_individuals)
    last = [run.steps[-1]]
    of_run = {
        "attention": partial(attention_to_names, run, last, n_individuals=people),
        "memory": partial(measure_memory, run, last, n_individuals=people),
    }
    for name, measure in of_run.items():
        setup.forget_peak()
        started = time.monotonic()
        found = measure(device=setup.torch_device)
        seconds = time.monotonic() - started
        tables = (
            [found.keys, found.values, found.probes] if isinstance(found, MemoryTables) else [found]
        )
        if any(table.empty for table in tables):
            raise AssertionError(f"a table of {name} is empty")
        n_rows = sum(map(len, tables))
        how = f"{run.config.preset}, one checkpoint, {people} people, {n_rows} rows of tables"
        yield Row("measures", name, seconds, "s", how)
        if (memory := setup.peak()) is not None:
            yield Row("measures", f"{name}: peak memory of tensors", memory, "GiB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Row("measures", "peak memory of the process", peak, "GiB", "on the host")


def seeds(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """Many seeds of the small model at once: processes of the engine, which share the device."""
    part, count = "seeds at once", 16 if setup.whole else 2
    config = _short(setup.small, 1500 if setup.whole else setup.steps, 64)
    steps = config.training.last_step
    started = time.monotonic()
    train(config.with_settings(seed=count), setup.folder / "alone", progress=False)
    alone = time.monotonic() - started
    yield Row(
        part, f"one seed of {config.preset}, {steps} steps", alone, "s", "in a process that runs"
    )
    store = Store(setup.folder / "seeds")
    jobs = [store.job(config.with_settings(seed=seed)) for seed in range(count)]
    # To start a process takes longer than everything else at the size of a test.
    # On a card, processes take turns; a few are enough to fill the gaps.
    workers = min(4, count, os.cpu_count() or 1) if setup.whole else 1
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are fewer cores than processes
        run_jobs(jobs, EngineSettings(workers=workers), progress=False).require_all()
    together = time.monotonic() - started
    how = f"{workers} at a time by the engine, the start of its processes included"
    yield Row(part, f"{count} seeds, {steps} steps each", together, "s", how)
    yield Row(part, "steps of all seeds", count * steps / together, "steps/s")
    yield Row(part, "against one seed after the other", count * alone / together, "times as fast")
    name = f"{COMPILED}: a step of {config.preset}"
    step = next((r.value for r in earlier if r.measured == name and r.value is not None), None)
    what = "against the compiled plain loop, one seed after the other"
    if step is None:
        yield Row(part, what, None, "", "left out: the compiled step was not measured")
    else:
        ratio = count * steps * step / 1e3 / together
        yield Row(part, what, ratio, "times as fast", "compiling and measuring not counted for it")
