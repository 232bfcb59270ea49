"""Progress: what is left of a job, how it is shown, and that everything long reports from start to end."""

import fcntl
import io
import os
import re
import shutil
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp.attention import attention_to_names, knockout
from interp.config import Config
from interp.engine import EngineSettings, Outcome, run_jobs
from interp.engine.kinds import share_done
from interp.errors import ConfigError
from interp.memory import ablations, measure_memory, recall_edges, swaps
from interp.progress import (
    Job,
    Progress,
    counted,
    in_words,
    part,
    parts,
    screen,
    showing,
    silent,
)
from interp.run import Run, checkpoint_path
from interp.stages import MEMORY_STAGES, STAGES, reproduce, run_stages
from interp.studies import patching, run_grid
from tests.fixtures import MainJob
from tests.helpers import Recorder, few_pairs


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_parts_of_a_whole() -> None:
    whole = Recorder()
    first, second = parts(whole, (1, 3))
    first(0.5)
    first(1)
    part(second, 0.5, 1.0)(0.5, "late")
    assert whole.shares == [0.125, 0.25, 0.25 + 0.75 * 0.75]
    assert whole.notes[-1] == "late"


def test_counted_reports_what_is_done_not_what_has_begun() -> None:
    told = Recorder()
    for count, _ in enumerate(counted("abcd", 4, "letter", told)):
        assert told.shares[-1] == count / 4
    told.require_whole()
    assert told.notes[1:] == [f"letter {n} of 4" for n in (1, 2, 3, 4)]


def job_of(*expected: float) -> tuple[Job, Clock]:
    """A job of tasks a, b, ... that nobody sees, and its clock."""
    clock = Clock()
    return Job(dict(zip("abc", map(float, expected), strict=False)), False, clock=clock), clock


def test_before_anything_is_seen_the_time_left_is_what_was_expected() -> None:
    job, _ = job_of(30, 60)
    with job.task("a"):
        assert (job.left, job.share) == ((30, 90), 0)


def test_a_job_learns_how_slow_the_machine_is() -> None:
    job, clock = job_of(100, 100)
    with job.task("a") as report:
        report(0)
        for share in (0.25, 0.5, 0.75, 1.0):
            clock.now += 75  # three times as slow as expected
            report(share)
        assert job.left[0] == 0
    assert job.share == 0.5
    with job.task("b") as report:
        assert 250 < job.left[1] < 300, "nearly three times of what is expected"
        clock.now += 150
        report(0.5)
        assert 135 < job.left[1] < 150


def test_a_task_whose_cost_was_misjudged() -> None:
    job, clock = job_of(1000, 10)
    with job.task("a") as report:
        report(0)
        clock.now += 45
        report(0.9)
        assert 5 <= job.left[0] < 12, "its own pace counts more than the guess"


def test_the_time_left_counts_down_between_reports_and_never_below_nothing() -> None:
    job, clock = job_of(100)
    with job.task("a") as report:
        report(0)
        clock.now += 50
        report(0.5)
        first = job.left[1]
        clock.now += 10
        assert job.left[1] == pytest.approx(first - 10)
        clock.now += 1000
        assert job.left == (0, 0)


def test_the_time_left_of_what_goes_on_after_a_kill() -> None:
    job, clock = job_of(100, 50, 50)
    job.skip("b")
    with job.task("a") as report:
        report(0.8)
        assert job.share == pytest.approx((80 + 50) / 200)
        clock.now += 10
        report(0.9)
        # The first 80 took no time here; ten more took 10 s.
        assert job.left == pytest.approx((10, 60))
        report(0.4)
        assert job.rows()[0][0] == 0.9, "it never goes back"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (12, "about 10 s"),
        (89, "about 90 s"),
        (95, "about 2 min"),
        (700, "about 12 min"),
        (5500, "about 1.5 h"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_job_shows_the_stage_and_the_whole() -> None:
    job, clock = job_of(100, 300)
    with job.task("a") as report:
        report(0.0)
        clock.now += 50
        report(0.5, "step 5 of 10")
        assert job.rows() == [
            (0.5, "about 50 s left, step 5 of 10"),
            (0.125, "whole job, about 6 min left"),
        ]
    with job.task("b") as report:
        assert job.rows()[1] == (0.25, "whole job, about 3 min left")


def test_a_job_tells_its_share_of_the_whole_to_who_asks() -> None:
    told = Recorder()
    job = Job({"one": 1.0, "two": 3.0}, told)
    job.skip("one")
    with job.task("two") as report:
        report(0.5, "half")
    assert told.shares == [0.25 + 0.375, 1.0]


def test_a_task_that_fails_ends_the_drawing() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="no"), Job({"one": 1.0}, stream=io.StringIO()).task("one"):
        raise ValueError("no")
    assert threading.active_count() == before


def test_a_title_is_said_first() -> None:
    said = []
    with Job({"one": 1.0}, False).task("one", lambda: said.append("one")):
        assert said == ["one"]


def drawn_on(stream: Any) -> float:
    """Draws two tasks twice; returns the seconds between two drawings."""
    with screen(stream) as (draw, interval):
        for share in (0.25, 0.5):
            draw([(share, f"[at] {share}"), (share / 2, "whole job")])
    return interval


def test_a_log_gets_lines_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # of continuous integration
    log = io.StringIO()
    assert 10 <= drawn_on(log) <= 30
    assert (
        log.getvalue()
        == "   25%  [at] 0.25    12%  whole job\n   50%  [at] 0.5    25%  whole job\n"
    )


@pytest.mark.parametrize(("rows", "moves"), [(0, False), (24, True)])
def test_a_terminal_is_drawn_on_if_it_says_how_large_it_is(
    rows: int, moves: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main, other = os.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    with os.fdopen(main, "rb", 0) as reader, os.fdopen(other, "w") as terminal:
        assert (drawn_on(terminal) < 1) == moves
        terminal.flush()
        os.set_blocking(main, False)
        shown = b"".join(iter(lambda: reader.read(4096), None)).decode()
    assert ("\x1b[" in shown) == moves
    assert shown.index("25%") < shown.index("50%")
    assert "[at] 0.5" in shown
    if moves:
        last = shown[shown.rindex("[at] 0.5") :]
        assert last.count("\x1b[2K") >= 2, "both bars are taken away"
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is seen"
    assert capsys.readouterr() == ("", "")


def test_the_line_is_drawn_in_time_without_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    quick = contextmanager(lambda stream: iter([(lambda rows: print(rows, file=stream), 0.01)]))
    monkeypatch.setattr("interp.progress.screen", quick)
    with Job({"one": 100.0}, stream=log).task("one"):
        for _ in range(500):
            if log.getvalue().count("\n") > 2:
                break
            time.sleep(0.01)
    assert "left" in log.getvalue()


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def unreadable() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", closefd=False)


@pytest.mark.parametrize("broken", [closed, unreadable, lambda: None])
def test_a_broken_standard_error_breaks_no_work(
    broken: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", broken())
        with showing("x", 1.0, True) as report:
            report(0.5, "half")
            done.append(1)
    assert done == [1]


def test_showing_hands_on_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    told = Recorder()
    with showing("x", 1.0, told) as report:
        assert report is told
    with showing("x", 1.0, False) as report:
        assert report is silent
    assert capsys.readouterr() == ("", "")


ANALYSES = {
    "attention_to_names": lambda run, **how: attention_to_names(run, AT, **how),
    "knockout": lambda run, **how: knockout(run, AT, n_individuals=4, **how),
    "memory": lambda run, **how: measure_memory(run, AT, n_individuals=8, **how).probes,
    "swaps": lambda run, **how: swaps(run, AT, n=6, **how),
    "edges": lambda run, **how: recall_edges(run, AT, n=6, **how),
    "ablations": lambda run, **how: ablations(run, AT, n_individuals=4, **how),
}
AT = [0, 20, 40]
"""Checkpoints of the smoke run: more than there are workers."""
IN_PROCESSES = ("attention_to_names", "memory", "swaps")
SLOW = ("attention_to_names", "memory")  # swaps show the same


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ANALYSES],
)
def test_analyses_report_from_start_to_end(smoke_run: Run, name: str) -> None:
    """In this process and, to the same bits, in several."""
    told = Recorder()
    one = ANALYSES[name](smoke_run, workers=1, progress=told)
    told.require_whole()
    assert told.notes[-1] == "checkpoint 3 of 3"
    if name in IN_PROCESSES:
        told = Recorder()
        two = ANALYSES[name](smoke_run, workers=2, progress=told)
        pd.testing.assert_frame_equal(one, two, check_exact=True)
        told.require_whole()


def test_workers_leave_the_number_of_threads(smoke_run: Run) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        attention_to_names(smoke_run, [0], workers=1)
        with pytest.raises(ConfigError, match="workers=0"):
            attention_to_names(smoke_run, [0], workers=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_expects_more_of_a_larger_run(stage) -> None:
    tiny, small = interp.preset("tiny"), interp.preset("small")
    assert 0 < stage.expected_seconds(tiny) <= stage.expected_seconds(small)


def test_training_reports_from_start_to_end(short: Config, tmp_path: Path) -> None:
    told = Recorder()
    interp.train(short, tmp_path, progress=told)
    told.require_whole()
    assert len(told.shares) == 13
    assert re.fullmatch(r"step 12 of 12, attribute loss \d+\.\d\d, \w+", told.notes[-1])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_reports_its_runs_together(
    short: Config, short_run: Run, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers are those of the engine, whose tests are about progress from several processes."""
    asked = []

    def in_this_process(jobs: Any, settings: EngineSettings, **how: Any) -> Outcome:
        asked.append(settings.workers)
        return run_jobs(jobs, progress=how["progress"])

    monkeypatch.setattr("interp.studies.grid.run_jobs", in_this_process)
    told = Recorder()
    configs = {f"seed{seed}": short.with_settings(seed=seed) for seed in (0, 1)}
    runs = run_grid(configs, tmp_path, workers, progress=told)
    told.require_whole()
    assert asked == [workers]
    assert runs["seed0"].metrics_path.read_bytes() == short_run.metrics_path.read_bytes()
    before = runs["seed1"].finished_path.stat().st_mtime_ns
    again = Recorder()
    runs = run_grid(configs, tmp_path, workers, progress=again)
    assert again.shares[-1] == pytest.approx(1)
    assert runs["seed1"].finished_path.stat().st_mtime_ns == before, "each run is trained once"


def test_how_far_a_run_of_another_process_is(short: Config, short_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert share_done(short, folder) == 0
    folder.mkdir()
    lines = short_run.metrics_path.read_bytes().splitlines(keepends=True)
    half = [line for line in lines if b'"step": 6,' in line]
    (folder / "metrics.jsonl").write_bytes(b"".join([*half, lines[-1][:20]]))
    assert share_done(short, folder) == 0.5
    assert share_done(short, short_run.path) == 1


def test_the_patching_study_reports_references_and_patched_runs(
    short_run: Run, tmp_path: Path
) -> None:
    told = Recorder()
    patching([short_run], tmp_path, [0], seeds=[0, 3], until=4, progress=told)
    told.require_whole()


def test_the_main_job_reports_every_stage_and_counts_what_is_finished(
    finished: Run, main_job: MainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    main_job.told.require_whole()
    assert len(np.unique(main_job.told.shares)) > 40
    assert len(main_job.titles) == len(STAGES) + 2

    # The report is written once, for `finished`.
    monkeypatch.setattr("interp.stages.job.write_report", lambda run, progress: progress(1))
    run = Run.load(shutil.copytree(finished.path, tmp_path / "run"))
    shutil.rmtree(run.results_path / "knowledge")
    again = Recorder()
    reproduce(run.config, run.path, progress=again)
    assert again.shares[0] > 0.05, "what was finished before counts from the start"
    assert again.shares == sorted(again.shares)
    assert again.shares[-1] == pytest.approx(1)

    reproduce(run.config, run.path, progress=False)
    assert capfd.readouterr() == ("", ""), "nothing is printed"


def test_the_memory_stages_report(short_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(short_run.path, tmp_path / "run"))
    for step in (4, 8):
        checkpoint_path(run.path, step).unlink()
    told = Recorder()
    with few_pairs():
        run_stages(run, MEMORY_STAGES, progress=told)
    told.require_whole()


def test_a_measure_shows_how_far_it_is_where_somebody_watches(
    smoke_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    quick = contextmanager(lambda stream: iter([(lambda rows: drawn.append(rows[0][1]), 0.001)]))
    monkeypatch.setattr("interp.progress.screen", quick)
    monkeypatch.setattr("interp.progress._PATIENCE", 0.0)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    attention_to_names(smoke_run)
    assert not drawn, "nobody watches a test"
    monkeypatch.setattr("interp.progress._is_terminal", lambda stream: True)
    attention_to_names(smoke_run)
    n = len(smoke_run.steps)
    assert drawn[-1] == f"checkpoint {n} of {n}"
    drawn.clear()
    with Job({"whole": 1.0}, False).task("whole"):
        attention_to_names(smoke_run)  # its part of the whole is shown by who runs it
    attention_to_names(smoke_run, progress=silent)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    attention_to_names(smoke_run)
    assert not drawn


def test_recorders_are_progress() -> None:
    assert isinstance(silent, Progress)
    assert isinstance(Recorder(), Progress)


@pytest.mark.parametrize("kernel", [True, False])
def test_a_notebook_is_drawn_in_and_a_mere_import_is_none(
    kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data))
    display = SimpleNamespace(display=lambda data, raw, display_id: handle)
    shell = SimpleNamespace(kernel=None) if kernel else None
    ipython = SimpleNamespace(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    log = io.StringIO()
    drawn_on(log)
    assert bool(log.getvalue()) != kernel
    if kernel:
        assert '<progress value="0.5"></progress> 50% [at] 0.5<br>' in shown[-2]["text/html"]
        assert shown[-1] == {"text/plain": ""}, "it is emptied at the end"


def test_a_stream_that_says_it_is_a_terminal_and_has_no_size() -> None:
    class Shell(io.StringIO):  # as the one of IDLE
        def isatty(self) -> bool:
            return True

    stream = Shell()
    with screen(stream) as (draw, _):
        draw([(0.5, "half")])
    assert "50%" in stream.getvalue()
